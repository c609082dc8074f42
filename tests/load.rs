//! The bench on the real stack: what it reports fits together, and it reports nothing when the ledger does not add up.

use std::path::Path;

use stress::cgroup::Parent;
use stress::ledger::Tally;
use stress::load::{Generator, LoadKind};
use stress::measure::{self, MeasureOptions, Part, Progress, Running};
use stress::throwaway::Throwaway;
use stress::{Bank, PostgresOptions, Stack, StackOptions, Workplace};

const SERVER: &str = env!("CARGO_BIN_EXE_rinha");

/// A short run on a stack without limits.
fn options() -> MeasureOptions {
    stress::options(&format!(
        "saturate --limits none --server {SERVER} --set BATCH_CALLS_MAX=8 --connections 4 --seconds 1"
    ))
}

fn place(logs: &Throwaway) -> Workplace {
    Workplace::silent(env!("CARGO_MANIFEST_DIR"), logs.path())
}

#[test]
fn a_report_fits_together() {
    let logs = Throwaway::new("test").expect("make a directory");
    let options = MeasureOptions { baseline: Some(SERVER.to_owned()), ..options() };
    let (report, baseline) = measure::measure(&options, &place(&logs), &Progress::hidden()).expect("measure");

    let baseline = baseline.expect("the report of the baseline");
    let (ours, theirs) = (&report.setup.conditions, &baseline.setup.conditions);
    assert_eq!((ours.peer.as_deref(), theirs.peer.as_deref()), (None, Some(SERVER)));
    assert_eq!(baseline.cases.len(), 1);
    assert!(baseline.cases[0].runs[0].ledger.answered_200 > 0, "{baseline:?}");

    assert_eq!(ours.settings["BATCH_CALLS_MAX"], "8");
    let [case] = &report.cases[..] else { panic!("{} cases", report.cases.len()) };
    assert_eq!((case.connections, case.runs.len()), (Some(4), 1));
    let run = &case.runs[0];
    assert!(run.requests > 0 && run.requests_per_second > 0.0, "{run:?}");
    assert!(run.errors.is_empty(), "{run:?}");
    // The instances also count the warm-up's and the last requests, whose answers the load generator did not wait for.
    assert!(run.statuses.keys().all(|status| status == "200" || status == "422"), "{run:?}");
    assert!(run.statuses.values().sum::<u64>() >= run.requests, "{run:?}");
    assert!(run.ledger.rows >= run.ledger.answered_200 && run.ledger.answered_200 > 0, "{run:?}");
    let latency = run.latency;
    assert!(0.0 < latency.p50_ms && latency.p50_ms <= latency.p99_ms && latency.p99_ms <= latency.max_ms);
    let names: Vec<&str> = run.parts.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(names, ["nginx", "webapi1", "webapi2", "postgresql"]);
    // Each part has used CPU time, so both instances were asked.
    match Parent::find() {
        Ok(_) => {
            let has_used = |part: &Part| part.cpu_us_per_request.is_some_and(|cpu_us| cpu_us > 0.0);
            assert!(run.parts.iter().all(has_used), "{run:?}");
        }
        Err(why) => stress::left_out("the CPU time of each part", &why),
    }
}

#[test]
fn a_run_is_refused_when_its_ledger_was_tampered_with() {
    let logs = Throwaway::new("test").expect("make a directory");
    let place = place(&logs);
    let generator = Generator::find(LoadKind::Saturate, logs.path(), None, &place).expect("find wrk");
    let stack = Stack::start(&StackOptions::new(&place.workspace, SERVER)).expect("start the stack");
    let bank = Bank::of(&stack);
    let refusal = || {
        let before = Tally::default();
        let progress = Progress::hidden();
        let run = measure::measure_bank(&bank, &before, &generator, Some(4), 1, &place.interrupt, &progress);
        run.expect_err("a run on these books").to_string()
    };
    let tamper = |sql: &str| {
        stack.postgres.connect("rinha").expect("connect").batch_execute(sql).expect("tamper");
    };

    // Balance and ledger agree, but nobody asked for it.
    tamper(
        "UPDATE clientes SET saldo = saldo + 1000000 WHERE id = 1;
         INSERT INTO transacoes (cliente_id, valor, tipo, descricao)
         SELECT 1, 1000, 'c', 'forged' FROM generate_series(1, 1000)",
    );
    let text = refusal();
    assert!(text.contains("no figures, since the ledger does not add up: the ledger has "), "{text}");

    tamper("UPDATE clientes SET saldo = saldo + 1 WHERE id = 2");
    let text = refusal();
    assert!(text.contains("client 2 has a balance of "), "{text}");
}

/// What others did before is no concern of a run's, and what was wrong before is.
#[test]
fn a_bank_that_runs_is_measured_from_where_it_stands() {
    let logs = Throwaway::new("test").expect("make a directory");
    let place = place(&logs);
    let stack = Stack::start(&StackOptions::new(&place.workspace, SERVER)).expect("start the stack");
    let tamper = |sql: &str| {
        stack.postgres.connect("rinha").expect("connect").batch_execute(sql).expect("tamper");
    };
    tamper(
        "UPDATE clientes SET saldo = saldo + 1000 WHERE id = 1;
         INSERT INTO transacoes (cliente_id, valor, tipo, descricao) VALUES (1, 1000, 'c', 'earlier')",
    );
    let Bank { urls, metrics, database_urls, .. } = Bank::of(&stack);
    let (url, database_url) = (urls[0].clone(), database_urls[0].clone());
    let running = Some(Running { url, metrics, database_url, parts: Vec::new() });
    let options = MeasureOptions { running, runs: 2, ..options() };
    let (report, _) = measure::measure(&options, &place, &Progress::hidden()).expect("measure");
    assert_eq!(report.setup.url, Some(format!("http://{}", stack.address())));
    let [case] = &report.cases[..] else { panic!("{} cases", report.cases.len()) };
    assert_eq!(case.runs.len(), 2);
    for run in &case.runs {
        assert!(run.ledger.rows >= run.ledger.answered_200 && run.ledger.answered_200 > 0, "{run:?}");
        assert!(run.requests > 0 && run.errors.is_empty(), "{run:?}");
    }

    tamper("UPDATE clientes SET saldo = saldo + 1 WHERE id = 2");
    let refusal = measure::measure(&options, &place, &Progress::hidden()).expect_err("a run on these books");
    assert!(refusal.to_string().contains("client 2 has a balance of "), "{refusal}");
}

/// Whatever stands before them, all instances are asked, and the ledgers add up. Behind two databases, each has its own
/// accounts alone: a request that went astray would be answered 404.
#[test]
fn other_stacks_are_asked_in_all_their_parts() {
    for (shape, used) in [
        ("--balancer none", &[false, true, true, true][..]),
        ("--balancer haproxy", &[true; 4]),
        ("--balancer nginx-tcp --databases 2 --instances 1 --distance-ms 2", &[true; 5]),
    ] {
        let logs = Throwaway::new("test").expect("make a directory");
        let options: MeasureOptions = stress::options(&format!(
            "saturate --limits none --server {SERVER} {shape} --connections 4 --seconds 1"
        ));
        let (report, _) = measure::measure(&options, &place(&logs), &Progress::hidden()).expect("measure");
        let run = &report.cases[0].runs[0];
        assert!(run.errors.is_empty() && run.ledger.answered_200 > 0, "{shape}: {run:?}");
        let away_ms = 2.0 * f64::from(options.stack.shape.distance_ms);
        assert!(run.latency.p50_ms >= away_ms, "{shape}: {run:?}");
        match Parent::find() {
            Ok(_) => {
                // An instance that nobody asks uses a tenth of a microsecond.
                let has_used = |part: &Part| part.cpu_us_per_request.is_some_and(|us| us > 2.0);
                let seen: Vec<bool> = run.parts.iter().map(has_used).collect();
                assert_eq!(seen, used, "{shape}: {run:?}");
            }
            Err(why) => stress::left_out("the CPU time of each part", &why),
        }
    }
}

/// What was acknowledged is on the disk: nothing is unlogged, and PostgreSQL waits for it.
#[test]
fn a_durable_stack_has_logged_tables_and_waits_for_the_disk() {
    let base = StackOptions::new(Path::new(env!("CARGO_MANIFEST_DIR")), SERVER);
    let postgres = PostgresOptions { is_durable: true, ..PostgresOptions::default() };
    let stack = Stack::start(&StackOptions { postgres, ..base }).expect("start the stack");
    let mut client = stack.postgres.connect("rinha").expect("connect");
    let unlogged = "SELECT count(*) FROM pg_class WHERE relpersistence = 'u'";
    assert_eq!(client.query_one(unlogged, &[]).expect("count").get::<_, i64>(0), 0);
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        let row = client.query_one(&format!("SHOW {setting}"), &[]).expect("show");
        assert_eq!(row.get::<_, String>(0), "on", "{setting}");
    }
}
