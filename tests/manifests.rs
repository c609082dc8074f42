//! What the manifests of `prod/` say about the server: each variable, port, path and time, held against the server itself.
//! `.ci/manifests` checks them against the schemas of the orchestrators. None is run here.

mod support;

use std::collections::BTreeMap;
use std::fs;

use proto_pg::Host;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rinha::config::{Address, Config};
use stress::{Instance, Postgres, PostgresOptions};
use support::bank::options;
use support::{Bank, Wire, get, text_of, transaction, workspace};

/// A manifest as paths and values: `spec.ports.0.name` is `http`.
struct Manifest(BTreeMap<String, String>);

impl Manifest {
    fn read(path: &str) -> Manifest {
        Manifest::parse(&text_of(path))
    }

    /// Reads the YAML that the manifests use: mappings, lists, and texts of several lines. What stands in braces stays a text.
    fn parse(text: &str) -> Manifest {
        let mut values: BTreeMap<String, String> = BTreeMap::new();
        // Where we are: how far each part of the path is indented.
        let mut place: Vec<(usize, String)> = Vec::new();
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let path = |place: &[(usize, String)]| {
            place.iter().map(|(_, part)| part.as_str()).collect::<Vec<_>>().join(".")
        };
        // A text of several lines: its path, how far its key is indented, and what joins the lines.
        let mut block: Option<(String, usize, &str)> = None;
        for line in text.lines() {
            let mut content = line.trim_start();
            let mut indent = line.len() - content.len();
            if let Some((path, key_indent, joint)) = &block {
                if indent > *key_indent || content.is_empty() {
                    let value = values.entry(path.clone()).or_default();
                    value.push_str(if *joint == "\n" { line } else { content });
                    value.push_str(joint);
                    continue;
                }
                block = None;
            }
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            while let Some(item) = content.strip_prefix("- ") {
                let is_within = |(at, part): &(usize, String)| {
                    *at < indent || (*at == indent && part.parse::<usize>().is_err())
                };
                place.truncate(place.iter().take_while(|part| is_within(part)).count());
                let count = counts.entry(path(&place)).or_default();
                place.push((indent, count.to_string()));
                *count += 1;
                (content, indent) = (item, indent + 2);
            }
            let (key, value) = match content
                .split_once(": ")
                .or_else(|| Some((content.strip_suffix(':')?, "")))
            {
                Some((key, value)) if !content.starts_with('{') && !key.contains(' ') => (Some(key), value),
                Some(_) | None => (None, content),
            };
            if let Some(key) = key {
                place.truncate(place.iter().take_while(|(at, _)| *at < indent).count());
                place.push((indent, key.to_owned()));
            }
            // Of an item without a key, the dash says where it is.
            let owner = if key.is_some() { indent } else { indent - 2 };
            match value {
                "" => {}
                "|" => block = Some((path(&place), owner, "\n")),
                ">-" => block = Some((path(&place), owner, " ")),
                value => {
                    values.insert(path(&place), value.trim_matches('"').to_owned());
                }
            }
        }
        Manifest(values)
    }

    fn get(&self, path: &str) -> &str {
        self.0.get(path).unwrap_or_else(|| panic!("{path} is not in {:#?}", self.0)).trim_end()
    }

    fn number(&self, path: &str) -> u64 {
        self.get(path).parse().unwrap_or_else(|_| panic!("{path} is no number: {}", self.get(path)))
    }

    /// Of each item of a list, what stands under a path within it.
    fn each(&self, list: &str, path: &str) -> Vec<&str> {
        (0..).map_while(|at| self.0.get(&format!("{list}.{at}.{path}")).map(String::as_str)).collect()
    }

    /// The items of a list that are texts.
    fn texts(&self, list: &str) -> Vec<&str> {
        (0..).map_while(|at| self.0.get(&format!("{list}.{at}")).map(String::as_str)).collect()
    }
}

const BASE: &str = "prod/kubernetes/base";
const CLUSTER: &str = "prod/kubernetes/overlays/cloudnativepg";
const EXISTING: &str = "prod/kubernetes/overlays/existing-database";
const POD: &str = "spec.template.spec";
const CONTAINER: &str = "spec.template.spec.containers.0";
/// Stands for the password of a secret.
const PASSWORD: &str = "sesame";

/// The server's own reading of an environment, where `ca` is the one file there is.
fn config(environment: &[(String, String)], ca: &str) -> Config {
    let variable = |name: &str| {
        environment.iter().find(|(variable, _)| variable == name).map(|(_, value)| value.clone())
    };
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, key).expect("sign itself");
    let config = Config::with_files(variable, |path| {
        assert_eq!(path.to_str(), Some(ca), "no volume has this file");
        Ok(authority.pem().into_bytes())
    });
    config.unwrap_or_else(|error| panic!("{error}: {environment:?}"))
}

/// Each of these is a setting of the server, and none looks like a mistyped one.
fn assert_settings<'a>(names: impl Iterator<Item = &'a str>) {
    let help = Config::help();
    for name in names {
        let is_setting = help.lines().any(|line| line.split_whitespace().next() == Some(name));
        assert!(is_setting, "{name} is no setting of the server");
    }
}

fn port_of(address: &Address) -> u64 {
    let Address::Tcp(address) = address else { panic!("{address} is not TCP") };
    address.rsplit_once(':').expect("a port").1.parse().expect("a number")
}

/// How long the server may take to end, by its own settings.
fn drain_ms(config: &Config) -> u64 {
    config.drain_timeout_ms + config.drain_idle_ms + config.log_flush_timeout_ms
}

/// The variables of the base and the password of the cluster in place of the secrets.
fn pod_environment(url: &str) -> Vec<(String, String)> {
    let deployment = Manifest::read(&format!("{BASE}/deployment.yaml"));
    let names: Vec<&str> = deployment.each(&format!("{CONTAINER}.env"), "name");
    assert_settings(names.iter().copied());
    let value = |(at, name): (usize, &&str)| match *name {
        "DATABASE_URL" => url.to_owned(),
        _ => deployment.get(&format!("{CONTAINER}.env.{at}.value")).to_owned(),
    };
    names.iter().enumerate().map(|entry| ((*entry.1).to_owned(), value(entry))).collect()
}

#[test]
fn every_port_and_time_of_the_pods_is_that_of_the_server() {
    let deployment = Manifest::read(&format!("{BASE}/deployment.yaml"));
    let config = config(&pod_environment("host=db user=rinha"), "");
    let ports: BTreeMap<&str, u64> = deployment
        .each(&format!("{CONTAINER}.ports"), "name")
        .into_iter()
        .enumerate()
        .map(|(at, name)| (name, deployment.number(&format!("{CONTAINER}.ports.{at}.containerPort"))))
        .collect();
    let listens = |addresses: &[Address]| addresses.iter().map(port_of).collect::<Vec<_>>();
    assert_eq!(listens(&config.listen), [ports["http"]]);
    assert_eq!(listens(&config.metrics_listen), [ports["metrics"]]);
    assert_eq!(ports.len(), 2, "a port that nothing listens on");

    for probe in ["readinessProbe.httpGet", "livenessProbe.tcpSocket"] {
        assert_eq!(deployment.get(&format!("{CONTAINER}.{probe}.port")), "http");
    }
    let service = Manifest::read(&format!("{BASE}/service.yaml"));
    for port in service.each("spec.ports", "targetPort") {
        assert!(ports.contains_key(port), "the Service names {port}");
    }
    let policy = Manifest::read(&format!("{BASE}/network-policy.yaml"));
    let open: Vec<&str> =
        (0..2).map(|rule| policy.get(&format!("spec.ingress.{rule}.ports.0.port"))).collect();
    assert_eq!(open, ["http", "metrics"]);
    let monitor = Manifest::read(&format!("{CLUSTER}/service-monitor.yaml"));
    assert!(service.each("spec.ports", "name").contains(&monitor.get("spec.endpoints.0.port")));

    // Kubernetes kills what is still there after this.
    let sleep = deployment.get(&format!("{CONTAINER}.lifecycle.preStop.exec.command"));
    let sleep: u64 =
        sleep.strip_prefix("[sleep, \"").expect("a sleep").trim_end_matches("\"]").parse().expect("seconds");
    let grace = deployment.number(&format!("{POD}.terminationGracePeriodSeconds"));
    assert!(
        grace * 1000 > sleep * 1000 + drain_ms(&config),
        "{grace} s for a sleep of {sleep} s and a drain"
    );

    let user = format!(
        "\nUSER {}:{}\n",
        deployment.get(&format!("{POD}.securityContext.runAsUser")),
        deployment.get(&format!("{POD}.securityContext.runAsGroup"))
    );
    assert!(text_of("Dockerfile").contains(&user), "the image has another user than {user}");
    // No Service of the cluster becomes a variable that looks like a setting.
    assert_eq!(deployment.get(&format!("{POD}.enableServiceLinks")), "false");
}

/// Each selector finds the pods, by the one label that they have.
#[test]
fn every_object_of_the_base_means_the_same_pods() {
    let label = ("app.kubernetes.io/name", "rinha");
    let mut selectors = 0;
    for file in ["autoscaler", "deployment", "disruption-budget", "network-policy", "service"] {
        let manifest = Manifest::read(&format!("{BASE}/{file}.yaml"));
        for (path, value) in &manifest.0 {
            if let Some((place, _)) = path.split_once(label.0) {
                assert_eq!(value, label.1, "{file}: {path}");
                selectors += usize::from(place.to_lowercase().contains("selector"));
            }
        }
    }
    assert_eq!(selectors, 6, "of the Deployment, two spreads, the budget, the policy and the Service");
    let scaler = Manifest::read(&format!("{BASE}/autoscaler.yaml"));
    let deployment = Manifest::read(&format!("{BASE}/deployment.yaml"));
    for field in ["apiVersion", "kind"] {
        assert_eq!(scaler.get(&format!("spec.scaleTargetRef.{field}")), deployment.get(field));
    }
    assert_eq!(scaler.get("spec.scaleTargetRef.name"), deployment.get("metadata.name"));
}

/// The text of a patch of an overlay, by the kind of its target.
fn patch(overlay: &Manifest, kind: &str) -> Manifest {
    let at =
        overlay.each("patches", "target.kind").iter().position(|target| *target == kind).expect("a patch");
    Manifest::parse(overlay.get(&format!("patches.{at}.patch")))
}

fn ca_path() -> String {
    let deployment = Manifest::read(&format!("{BASE}/deployment.yaml"));
    let mount = deployment.get(&format!("{CONTAINER}.volumeMounts.0.mountPath"));
    assert_eq!(
        deployment.get(&format!("{CONTAINER}.volumeMounts.0.name")),
        deployment.get(&format!("{POD}.volumes.0.name"))
    );
    format!("{mount}/{}", deployment.get(&format!("{POD}.volumes.0.secret.items.0.path")))
}

fn tcp(config: &Config) -> (&str, u16) {
    let [Host::Tcp { name, address: None, port }] = &config.database.connector.hosts[..] else {
        panic!("{:?} is no host", config.database.connector.hosts)
    };
    (name, *port)
}

#[test]
fn the_server_reads_the_connection_string_of_each_overlay() {
    // The one of the cluster, which Kubernetes puts the password into: what is defined before it.
    let overlay = Manifest::read(&format!("{CLUSTER}/kustomization.yaml"));
    let cluster = Manifest::read(&format!("{CLUSTER}/cluster.yaml"));
    let cluster_name = cluster.get("metadata.name");
    let patches = patch(&overlay, "Deployment");
    let entry = |at: usize, field: &str| patches.get(&format!("{at}.{field}")).to_owned();
    let env = "/spec/template/spec/containers/0/env";
    assert_eq!((entry(0, "op"), entry(0, "path")), ("replace".into(), format!("{env}/0")));
    assert_eq!((entry(1, "op"), entry(1, "path")), ("add".into(), format!("{env}/1")));
    let password = entry(0, "value.name");
    assert_eq!(entry(1, "value.name"), "DATABASE_URL");
    assert_eq!(entry(0, "value.valueFrom.secretKeyRef.name"), format!("{cluster_name}-app"));
    assert_eq!(entry(2, "value"), format!("{cluster_name}-ca"));
    let url = entry(1, "value.value");
    assert_eq!(url.matches("$(").count(), 1);
    let url = url.replace(&format!("$({password})"), PASSWORD);
    let config_of_cluster = config(&pod_environment(&url), &ca_path());
    let session = &config_of_cluster.database.session;
    assert_eq!(session.user, cluster.get("spec.bootstrap.initdb.owner"));
    assert_eq!(session.database, cluster.get("spec.bootstrap.initdb.database"));
    assert_eq!(session.password.as_deref(), Some(PASSWORD));
    // The operator's Service of the primary.
    assert_eq!(tcp(&config_of_cluster), (format!("{cluster_name}-rw").as_str(), 5432));
    let egress = patch(&overlay, "NetworkPolicy");
    assert_eq!(egress.get("0.value.to.0.podSelector.matchLabels.cnpg.io/cluster"), cluster_name);
    assert_eq!(egress.number("0.value.ports.0.port"), 5432);
    // A pod more during an update, and each lane with a session of its own; the rest is for people and the operator.
    let scaler = Manifest::read(&format!("{BASE}/autoscaler.yaml"));
    let sessions = (scaler.number("spec.maxReplicas") + 1) * config_of_cluster.lanes as u64;
    assert!(cluster.number("spec.postgresql.parameters.max_connections") >= sessions + 20);

    // The one of the instructions for a database that exists.
    let text = text_of(format!("{EXISTING}/kustomization.yaml"));
    let (_, rest) =
        text.split_once("--from-literal=DATABASE_URL='").expect("the command that makes the secret");
    let (url, _) = rest.split_once('\'').expect("its end");
    let config_of_existing = config(&pod_environment(&url.replace("HOST", "db.example")), &ca_path());
    assert_eq!(tcp(&config_of_existing), ("db.example", 5432));
    let egress = patch(&Manifest::parse(&text), "NetworkPolicy");
    assert_eq!(egress.number("0.value.ports.0.port"), 5432);
    let deployment = Manifest::read(&format!("{BASE}/deployment.yaml"));
    let secret = deployment.get(&format!("{POD}.volumes.0.secret.secretName"));
    assert_eq!(deployment.get(&format!("{CONTAINER}.env.0.valueFrom.secretKeyRef.name")), secret);
    assert!(text.contains(&format!("create secret generic {secret} ")));
}

#[test]
fn the_paths_of_the_probes_are_answered() {
    let deployment = Manifest::read(&format!("{BASE}/deployment.yaml"));
    let monitor = Manifest::read(&format!("{CLUSTER}/service-monitor.yaml"));
    let bank = Bank::open();
    let health = bank.ask(get(deployment.get(&format!("{CONTAINER}.readinessProbe.httpGet.path"))));
    assert_eq!((health.status, bank.ask(get("/nowhere")).status), (200, 404));
    let metrics = bank.instance.metrics_address().expect("METRICS_LISTEN is set");
    let answer = Wire::connect(&metrics).ask(get(monitor.get("spec.endpoints.0.path")));
    assert!(answer.text().contains("# TYPE "), "{answer:?}");
}

/// The operator runs a statement and the files as the superuser; the server logs in as the owner of the database.
#[test]
fn the_sql_of_the_cluster_makes_a_bank_that_its_owner_can_serve() {
    let cluster = Manifest::read(&format!("{CLUSTER}/cluster.yaml"));
    let bank = Manifest::read("sql/kustomization.yaml");
    let files: BTreeMap<&str, &str> = bank
        .texts("configMapGenerator.0.files")
        .into_iter()
        .map(|entry| entry.split_once('=').unwrap_or((entry, entry)))
        .collect();
    let refs = "spec.bootstrap.initdb.postInitApplicationSQLRefs.configMapRefs";
    let keys: Vec<String> = cluster
        .texts(refs)
        .into_iter()
        .map(|entry| {
            let (name, key) = entry.trim_matches(['{', '}']).split_once(", key: ").expect("a name and a key");
            assert_eq!(name.strip_prefix("name: "), Some(bank.get("configMapGenerator.0.name")));
            key.to_owned()
        })
        .collect();
    // All of them, in the order of their names.
    assert_eq!(keys, files.keys().copied().collect::<Vec<_>>());
    let mut all = Vec::new();
    for directory in ["sql", "sql/durable"] {
        for entry in fs::read_dir(workspace().join(directory)).expect("list a directory") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|extension| extension == "sql") {
                let below = path.strip_prefix(workspace().join("sql")).expect("a path below sql");
                all.push(below.display().to_string());
            }
        }
    }
    all.sort_by_key(|path| (path.contains('/'), path.clone()));
    assert_eq!(keys.iter().map(|key| files[key.as_str()]).collect::<Vec<_>>(), all);

    let postgres = Postgres::start(&PostgresOptions::default()).expect("start a private PostgreSQL");
    let mut admin = postgres.connect("postgres").expect("connect");
    // The superuser of this one is called rinha already.
    admin.batch_execute("CREATE ROLE owner LOGIN").expect("make the owner");
    admin.batch_execute("CREATE DATABASE bank OWNER owner").expect("make the database");
    let mut admin = postgres.connect("bank").expect("connect");
    let rights = cluster.get("spec.bootstrap.initdb.postInitApplicationSQL.0");
    let rights = rights.strip_suffix(cluster.get("spec.bootstrap.initdb.owner")).expect("it names the owner");
    admin.batch_execute(&format!("{rights}owner")).expect("give rights");
    for key in &keys {
        admin.batch_execute(&text_of(format!("sql/{}", files[key.as_str()]))).expect("run a file");
    }
    let unlogged =
        "SELECT count(*) FROM pg_class WHERE relpersistence = 'u' AND relname IN ('clientes', 'transacoes')";
    assert_eq!(admin.query_one(unlogged, &[]).expect("ask").get::<_, i64>(0), 0);

    let url = postgres.url("bank").replace("//rinha@", "//owner@");
    let instance = Instance::start(&options(&url, &[])).expect("start the server");
    let mut wire = Wire::connect(&instance.addresses().swap_remove(0));
    assert_eq!(wire.ask(transaction(1, 1, "c", "owner")).status, 200);
    assert_eq!(wire.ask(get("/clientes/1/extrato")).status, 200);
}

#[test]
fn the_swarm_file_says_what_the_server_reads() {
    let swarm = Manifest::read("prod/swarm.yml");
    let environment = swarm.0.iter().filter_map(|(path, value)| {
        let name = path.strip_prefix("services.webapi.environment.")?;
        Some((name.to_owned(), value.clone()))
    });
    let mut environment: Vec<(String, String)> = environment.collect();
    assert_settings(environment.iter().map(|(name, _)| name.as_str()));

    // What the shell makes of its command: Compose reads $$ as one $.
    let command = swarm.get("services.webapi.command.0").replace("$$", "$");
    let (assignment, server) = command.rsplit_once(" exec ").expect("it becomes the server");
    assert!(text_of("Dockerfile").contains(&format!("ENTRYPOINT [\"{server}\"]")), "{server}");
    let (name, url) = assignment.split_once('=').expect("a variable");
    let secret = swarm.get("services.db.environment.POSTGRES_PASSWORD_FILE");
    let url = url.trim_matches('"').replace(&format!("$(cat {secret})"), PASSWORD);
    environment.push((name.to_owned(), url));
    let config = config(&environment, "");
    assert_eq!(port_of(&config.listen[0]), swarm.number("services.webapi.ports.0.target"));
    let session = &config.database.session;
    assert_eq!(session.user, swarm.get("services.db.environment.POSTGRES_USER"));
    assert_eq!(session.database, swarm.get("services.db.environment.POSTGRES_DB"));
    assert_eq!(session.password.as_deref(), Some(PASSWORD));
    let (host, port) = tcp(&config);
    assert_eq!((swarm.get(&format!("services.{host}.stop_signal")), port), ("SIGINT", 5432));
    for service in ["webapi", "db"] {
        let secrets = swarm.get(&format!("services.{service}.secrets"));
        assert_eq!(format!("/run/secrets/{}", secrets.trim_matches(['[', ']'])), secret);
    }
    let grace = swarm.get("services.webapi.stop_grace_period").trim_end_matches('s');
    assert!(grace.parse::<u64>().expect("seconds") * 1000 > drain_ms(&config));
    let is_checked = swarm.0.keys().any(|path| path.starts_with("services.webapi.healthcheck"));
    assert!(!is_checked, "Swarm would replace the instances of a bank whose database is away");
    assert!(swarm.number("services.webapi.ulimits.nofile") > u64::from(config.clients_max));

    // The files that make the bank, whole and in their order.
    let mut applied: Vec<(String, String)> = swarm
        .texts("services.db.configs")
        .into_iter()
        .map(|entry| {
            let entry = entry.trim_matches(['{', '}']).strip_prefix("source: ").expect("a source");
            let (source, target) =
                entry.split_once(", target: /docker-entrypoint-initdb.d/").expect("a target");
            let file = swarm.get(&format!("configs.{source}")).trim_matches(['{', '}']);
            (target.to_owned(), file.strip_prefix("file: ../sql/").expect("a file of sql").to_owned())
        })
        .collect();
    applied.sort();
    let bank = Manifest::read("sql/kustomization.yaml");
    let expected = bank.texts("configMapGenerator.0.files").into_iter().map(|entry| {
        let (target, file) = entry.split_once('=').unwrap_or((entry, entry));
        (target.to_owned(), file.to_owned())
    });
    assert_eq!(applied, expected.collect::<Vec<_>>());
}

/// The image has no default, so that nothing else is ever taken for it.
#[test]
fn the_image_has_to_be_named() {
    for overlay in [CLUSTER, EXISTING] {
        let overlay = Manifest::read(&format!("{overlay}/kustomization.yaml"));
        let deployment = Manifest::read(&format!("{BASE}/deployment.yaml"));
        assert_eq!(overlay.get("images.0.name"), deployment.get(&format!("{CONTAINER}.image")));
        // RFC 2606: no registry can have this name.
        let host = overlay.get("images.0.newName").split('/').next().expect("a host");
        assert!(host.ends_with(".invalid"), "{host}");
    }
    assert!(Manifest::read("prod/swarm.yml").get("services.webapi.image").starts_with("${RINHA_IMAGE:?"));
}
