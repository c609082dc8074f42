//! What watches the bank: its metrics under Prometheus' own checks, and the dashboards against the real services, query
//! by query.

mod support;

#[path = "observability/dashboard.rs"]
mod dashboard;
#[path = "observability/observer.rs"]
mod observer;
#[path = "observability/source.rs"]
mod source;

use std::collections::{BTreeSet, HashMap};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use observer::Observer;
use serde_json::Value;
use stress::throwaway::Throwaway;
use stress::{Stack, StackOptions, Workplace, install};
use support::{Bank, SERVER, Wire, get, post, text_of, transaction, wait_for, workspace};

const STATEMENT: &str = "/clientes/1/extrato";

/// Fails with what promtool says against it.
fn promtool(arguments: &[&str], input: &str) {
    let promtool = install::PROMTOOL.require().expect("find promtool").program;
    let mut child = Command::new(promtool)
        .args(arguments)
        .current_dir(workspace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run promtool");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("write to promtool");
    let output = child.wait_with_output().expect("wait for promtool");
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
}

// ---------------------------------------------------------------------------------------------------------------------
// Metrics and configuration.

#[test]
fn promtool_accepts_the_metrics() {
    let bank = Bank::open();
    bank.ask(transaction(1, 1, "c", "metrics"));
    bank.ask(get(STATEMENT));
    bank.ask(get("/nowhere"));
    let metrics = bank.metrics();
    promtool(&["check", "metrics"], &metrics);
    let build = format!("rinha_build_info{{version=\"{}\",profile=\"", env!("CARGO_PKG_VERSION"));
    assert!(metrics.contains(&build), "{metrics}");
}

#[test]
fn promtool_accepts_the_configuration() {
    promtool(&["check", "config", "observability/prometheus.yml"], "");
}

#[test]
fn prometheus_scrapes_services_of_the_compose_file() {
    let compose = text_of("docker-compose.yml");
    let configuration = text_of("observability/prometheus.yml");
    let lists =
        configuration.lines().filter_map(|line| line.trim().strip_prefix("- targets: [")?.strip_suffix(']'));
    let targets: Vec<&str> = lists.flat_map(|list| list.split(", ")).collect();
    assert_eq!(targets.len(), 3, "{targets:?}");
    for target in targets {
        let service = target.split(':').next().unwrap_or_default();
        assert!(compose.contains(&format!("\n  {service}:\n")), "there is no service {service}");
    }
}

#[test]
fn docs_list_every_metric() {
    let metrics = Bank::open().metrics();
    let docs = text_of("docs/reference/observability.md");
    for name in metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        assert!(docs.contains(&format!("`{name}")), "docs/reference/observability.md lacks {name}");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The dashboards by themselves.

#[test]
fn every_panel_says_what_it_shows() {
    for (file, dashboard) in dashboard::all() {
        for panel in dashboard::panels(&dashboard) {
            let title = dashboard::text(panel, "title");
            assert!(!title.is_empty(), "{file}: {panel}");
            assert!(dashboard::text(panel, "description").len() > 20, "{file}: {title} has no description");
            let unit = dashboard::text(&panel["fieldConfig"]["defaults"], "unit");
            assert!(!unit.is_empty(), "{file}: {title} has no unit");
            assert!(!dashboard::list(panel, "targets").is_empty(), "{file}: {title} asks nothing");
        }
    }
}

/// That Grafana knows every member and takes its value is in a list, made from the types of the very version that is run.
#[test]
fn every_member_is_one_that_grafana_knows() {
    let list = include_str!("observability/members.txt");
    let version = list.split_once("the types of Grafana ").expect("a version").1.split(',').next();
    let compose = text_of("docker-compose.yml");
    let image = compose.lines().find_map(|line| line.trim().strip_prefix("image: grafana/grafana:"));
    assert_eq!(version, image, "the list is that of another Grafana");
    let known: HashMap<&str, &str> = list
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(" = "))
        .collect();
    for (file, dashboard) in dashboard::all() {
        for (owner, path, value) in dashboard::members(&dashboard) {
            let values = [&*owner, "panel"].iter().find_map(|owner| known.get(&*format!("{owner} {path}")));
            let values = values.unwrap_or_else(|| panic!("{file}: Grafana knows no {owner} {path}"));
            let kind = match &value {
                Value::Null => "null",
                Value::Bool(_) => "bool",
                Value::Number(_) => "number",
                Value::String(text) if values.split('|').any(|word| word == text) => text,
                Value::String(_) => "text",
                Value::Array(_) => "[]",
                Value::Object(_) => "{}",
            };
            assert!(
                values.split('|').any(|it| it == kind),
                "{file}: {owner} {path} is {value}, not {values}"
            );
        }
    }
}

#[test]
fn panels_have_their_own_place_and_id() {
    for (file, dashboard) in dashboard::all() {
        let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
        for panel in dashboard::list(&dashboard, "panels") {
            let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{file}: {panel}"));
            assert!(ids.insert(number(&panel["id"])), "{file}: two panels with the id of {panel}");
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| number(&panel["gridPos"][side]));
            assert!(x + w <= 24, "{file}: wider than the grid: {panel}");
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(cells.insert(cell), "{file}: over another panel: {panel}");
            }
        }
    }
}

#[test]
fn dashboards_ask_sources_that_are_provisioned() {
    let provisioned = text_of("observability/grafana/provisioning/datasources/rinha.yml");
    let uids: Vec<&str> = provisioned.lines().filter_map(|line| line.trim().strip_prefix("uid: ")).collect();
    for (file, dashboard) in dashboard::all() {
        for query in dashboard::queries(&dashboard) {
            assert!(uids.contains(&query.source.as_str()), "{file}: {query:?}");
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The dashboards against the real services.

/// Points the project's configuration at services that run elsewhere, and has them scraped more often.
fn prometheus_configuration(stack: &Stack, exporter: &Observer) -> String {
    let [webapi1, webapi2] =
        [0, 1].map(|index| stack.instances[index].metrics_address().expect("METRICS_LISTEN is set"));
    let mut configuration = text_of("observability/prometheus.yml");
    for (written, here) in [
        ("webapi1:9090", webapi1.as_str()),
        ("webapi2:9090", &webapi2),
        ("postgres-exporter:9187", &exporter.address().to_string()),
        ("scrape_interval: 5s", "scrape_interval: 500ms"),
        ("scrape_timeout: 4s", "scrape_timeout: 500ms"),
    ] {
        assert_eq!(configuration.matches(written).count(), 1, "{written} in\n{configuration}");
        configuration = configuration.replace(written, here);
    }
    configuration
}

/// Something of everything: accepted, refused for each reason that is easily had, and unknown.
fn load_a_little(address: &str) {
    let mut wire = Wire::connect(address);
    for (request, status) in [
        (transaction(1, 100, "c", "credit"), 200),
        (transaction(2, 100, "d", "debit"), 200),
        (transaction(2, 2_000_000_000, "d", "too much"), 422),
        (transaction(1, 0, "c", "nothing"), 422),
        (post("/clientes/1/transacoes", "no JSON"), 400),
        (get(STATEMENT), 200),
        (get("/clientes/6/extrato"), 404),
        (get("/healthz"), 200),
    ] {
        assert_eq!(wire.ask(request).status, status);
    }
}

/// How often each target has been scraped; the lowest count of all.
fn scrapes(prometheus: &Observer) -> u64 {
    let counts = source::prometheus(prometheus.address(), "min(count_over_time(up[1h]))");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    counts.first().map_or(0, |count| *count as u64)
}

/// Writes a run of the real k6 into the real InfluxDB.
fn run_k6(base: &str, influxdb: &Observer) {
    let logs = Throwaway::new("k6").expect("make a directory");
    let k6 = install::require_k6(&Workplace::silent(env!("CARGO_MANIFEST_DIR"), logs.path()))
        .expect("find k6")
        .program;
    let output = Command::new(k6)
        .args(["run", "--quiet", "--no-usage-report", "-e", &format!("BASE={base}")])
        .args(["--out", &format!("influxdb=http://{}/k6", influxdb.address())])
        .arg(workspace().join("tests/observability/load.js"))
        // Its own interface would take a fixed port.
        .env("K6_ADDRESS", "127.0.0.1:0")
        .output()
        .expect("run k6");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn stack() -> Stack {
    Stack::start(&StackOptions::new(Path::new(env!("CARGO_MANIFEST_DIR")), SERVER)).expect("start the stack")
}

#[test]
fn every_query_to_prometheus_has_data() {
    /// After the first load. A rate needs two, and the exporter's figures are as old as its last look.
    const SCRAPES_MAX: u64 = 40;

    let stack = stack();
    let queries = workspace().join("observability/postgres-exporter.yml");
    let exporter =
        Observer::postgres_exporter(&stack.postgres.url("rinha"), &queries).expect("start the exporter");
    let prometheus =
        Observer::prometheus(&prometheus_configuration(&stack, &exporter)).expect("start Prometheus");

    let mut missing: Vec<dashboard::Query> =
        dashboard::all().iter().flat_map(|(_, dashboard)| dashboard::queries(dashboard)).collect();
    missing.retain(|query| query.source == "prometheus");
    assert!(missing.len() > 40, "{missing:?}");
    let address = stack.address().to_string();
    load_a_little(&address);
    wait_for("the first scrapes", || (scrapes(&prometheus) > 0).then_some(()));
    let last = scrapes(&prometheus) + SCRAPES_MAX;
    while !missing.is_empty() {
        // A quotient of rates is no number unless something happened between two scrapes.
        load_a_little(&address);
        let before = scrapes(&prometheus);
        assert!(before < last, "after {SCRAPES_MAX} scrapes there is no data for {missing:#?}");
        wait_for("another scrape", || (scrapes(&prometheus) > before).then_some(()));
        missing.retain(|query| source::prometheus(prometheus.address(), &query.text).is_empty());
    }
    assert_eq!(source::prometheus(prometheus.address(), "sum(up)"), [3.0], "every target is up");
}

#[test]
fn every_query_to_influxdb_has_data() {
    let stack = stack();
    let influxdb = Observer::influxdb().expect("start InfluxDB");
    run_k6(&format!("http://{}", stack.address()), &influxdb);

    let mut queries: Vec<dashboard::Query> =
        dashboard::all().iter().flat_map(|(_, dashboard)| dashboard::queries(dashboard)).collect();
    queries.retain(|query| query.source == "k6");
    assert!(queries.len() > 20, "{queries:?}");
    queries.retain(|query| source::influxdb(influxdb.address(), &query.text) == 0);
    assert!(queries.is_empty(), "there is no data for {queries:#?}");
}
