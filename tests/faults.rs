//! Real faults, under load from several clients, on real PostgreSQL, real nginx and two instances. Whatever happens, the
//! ledger agrees afterwards with what the clients were told; docs/reference/faults.md has the table of it.

mod support;

use std::thread;
use std::time::{Duration, Instant};

use stress::ledger::Judge;
use stress::throwaway::Throwaway;
use stress::{Frozen, PostgresOptions, Signal, Stack, StackOptions};
use support::load::{self, Asked, ClosedRun, Outcome, Record, finish, wait_each, wait_records, wait_served};
use support::proxy::{BOTH, Break, Way};
use support::{
    Balanced, Bank, Database, Proxy, SERVER, Wire, get, transaction, unsent_lock, wait_for, workspace,
};

/// Says how a test went. The figures are in docs/reference/faults.md.
fn report(fault: &str, recoveries: &[Duration], told: &ClosedRun) {
    let mut sorted = recoveries.to_vec();
    sorted.sort_unstable();
    if let (Some(median), Some(longest)) = (sorted.get(sorted.len() / 2), sorted.last()) {
        println!("{fault}: every client served again after {median:.0?}, at most {longest:.0?}");
    }
    println!("{fault}: {told}");
    let refused = told.records.iter().filter(|record| matches!(record.outcome, Outcome::NothingDone { .. }));
    for record in refused.take(REFUSALS_SHOWN) {
        println!("{fault}: after {} ms: {record:?}", record.latency_us() / 1_000);
    }
}

/// Of each fault: what stands for what the others say, too.
const REFUSALS_SHOWN: usize = 3;

/// Ends one session of an instance, any of them.
const TERMINATE_ONE: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
    WHERE datname = current_database() AND application_name = 'rinha' ORDER BY random() LIMIT 1";

/// A stack with a PostgreSQL of its own, to be hurt, and these settings of the instances.
fn stack(postgres: PostgresOptions, settings: &[(&str, &str)]) -> Stack {
    let environment =
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let base = StackOptions::new(workspace(), SERVER);
    Stack::start(&StackOptions { postgres, environment, ..base }).expect("start the stack")
}

/// Whoever waits for a database that is slow to answer waits long enough: nothing fails for that alone.
const PATIENT: [(&str, &str); 4] = [
    ("QUEUE_TIMEOUT_MS", "20000"),
    ("LOCK_TIMEOUT_MS", "20000"),
    ("STATEMENT_TIMEOUT_MS", "20000"),
    ("ANSWER_TIMEOUT_MS", "30000"),
];

/// With this setting besides, or in place of one of them.
fn patient_but(name: &'static str, value: &'static str) -> Vec<(&'static str, &'static str)> {
    [&PATIENT[..], &[(name, value)]].concat()
}

/// Deadlines that pass while a test looks on.
const IMPATIENT: [(&str, &str); 5] = [
    ("LOCK_TIMEOUT_MS", "200"),
    ("STATEMENT_TIMEOUT_MS", "300"),
    ("ANSWER_TIMEOUT_MS", "400"),
    ("CONNECT_TIMEOUT_MS", "400"),
    ("QUEUE_TIMEOUT_MS", "300"),
];

// ---------------------------------------------------------------------------------------------------------------------
// PostgreSQL. That it is killed, tests/durability.rs has for durable mode and tests/api.rs for benchmark mode.

#[test]
fn a_fast_restart_of_postgresql_costs_what_was_in_flight() {
    const RESTARTS: usize = 3;
    let durable = PostgresOptions { is_durable: true, ..PostgresOptions::default() };
    let mut stack = stack(durable, &PATIENT);
    let load = load::start(stack.address().to_string());
    let recoveries: Vec<Duration> = (0..RESTARTS)
        .map(|_| {
            stack.postgres.stop();
            stack.postgres.start_again().expect("start PostgreSQL again");
            wait_served(&load, Instant::now())
        })
        .collect();
    let told = finish(load, &mut stack.postgres.connect("rinha").expect("connect"));
    report("PostgreSQL restarted", &recoveries, &told);
    // Every client has one request under way.
    assert!(told.count(|outcome| *outcome == Outcome::InDoubt) <= RESTARTS * load::CLIENTS, "{told}");
    assert_eq!(told.count(|outcome| matches!(outcome, Outcome::NothingDone { .. })), 0, "{told}");
    assert_eq!(told.count(|outcome| *outcome == Outcome::Broken), 0, "{told}");
}

#[test]
fn a_paused_postgresql_runs_nothing_twice_when_it_goes_on() {
    let stack = stack(PostgresOptions::default(), &IMPATIENT);
    let load = load::start(stack.address().to_string());
    let recoveries: Vec<Duration> = (0..3)
        .map(|_| {
            let frozen = Frozen::all_of(&stack.postgres).expect("freeze PostgreSQL");
            let paused_at = Instant::now();
            wait_each(&load, "every client to be told", paused_at, Outcome::is_unavailable);
            // Longer than every deadline, also that of an attempt to log in again.
            thread::sleep(Duration::from_millis(800));
            drop(frozen);
            wait_served(&load, Instant::now())
        })
        .collect();
    let told = finish(load, &mut stack.postgres.connect("rinha").expect("connect"));
    report("PostgreSQL paused", &recoveries, &told);
    assert!(told.count(|outcome| *outcome == Outcome::InDoubt) > 0, "{told}");
    assert_eq!(told.count(|outcome| *outcome == Outcome::Broken), 0, "{told}");
}

#[test]
fn a_terminated_backend_costs_what_was_in_flight() {
    let bank = Balanced::open("nginx.conf");
    let load = load::start(bank.address());
    let mut stranger = bank.database.connect();
    let recoveries: Vec<Duration> = (0..10)
        .map(|_| {
            let terminated = stranger.query(TERMINATE_ONE, &[]).expect("terminate a backend");
            assert_eq!(terminated.len(), 1, "a session to terminate");
            wait_served(&load, Instant::now())
        })
        .collect();
    let told = finish(load, &mut stranger);
    assert_eq!(told.count(|outcome| *outcome == Outcome::Broken), 0, "nobody loses a connection: {told}");
    report("backend terminated", &recoveries, &told);
}

#[test]
fn without_a_connection_to_spare_it_waits_for_one() {
    const PLACES: u32 = 12;
    let connections_max = ("max_connections".to_owned(), PLACES.to_string());
    let few = PostgresOptions { settings: vec![connections_max], ..PostgresOptions::default() };
    // The lanes come back late enough for strangers to take their places.
    let settings = [("RECONNECT_MIN_MS", "200"), ("QUEUE_TIMEOUT_MS", "300")];
    let stack = stack(few, &settings);
    let load = load::start(stack.address().to_string());
    let mut stranger = stack.postgres.connect("rinha").expect("connect");
    let mut strangers = Vec::new();
    wait_for("strangers in all places", || {
        stranger.query(TERMINATE_ONE, &[]).expect("terminate a backend");
        while let Ok(another) = stack.postgres.connect("rinha") {
            strangers.push(another);
        }
        // The place of a session that has just ended may be free a moment later.
        let taken = "SELECT 1 FROM pg_stat_activity \
                     WHERE backend_type = 'client backend' AND application_name <> 'rinha'";
        (stranger.query(taken, &[]).expect("count strangers").len() == PLACES as usize).then_some(())
    });
    wait_each(&load, "every client to be told", Instant::now(), Outcome::is_unavailable);
    for instance in &stack.instances {
        wait_for("the log tells why", || instance.log().contains("too many clients").then_some(()));
        assert!(instance.log().contains("raise max_connections"), "{}", instance.log());
    }
    drop(strangers);
    let recovery = wait_served(&load, Instant::now());
    let told = finish(load, &mut stranger);
    report("out of connections", &[recovery], &told);
    assert_eq!(told.count(|outcome| *outcome == Outcome::Broken), 0, "{told}");
}

#[test]
fn a_row_that_a_stranger_locks_costs_its_own_client_alone() {
    let bank = Balanced::open_with(&patient_but("LOCK_TIMEOUT_MS", "300"));
    let load = load::start(bank.address());
    let stranger = unsent_lock(&bank.database, 1);
    let locked_at = Instant::now();
    let is_after = |record: &Record| record.sent_at > locked_at;
    wait_records(&load, "refusals of client 1", 6, |record| {
        is_after(record) && matches!(record.outcome, Outcome::NothingDone { .. })
    });
    for account in 2..=5 {
        wait_records(&load, "the others to be served", 5, |record| {
            is_after(record) && record.account == account && record.outcome.is_served()
        });
    }
    drop(stranger);
    let recovery = wait_served(&load, Instant::now());
    let told = finish(load, &mut bank.database.connect());
    report("row locked", &[recovery], &told);
    for record in told.records.iter().filter(|record| !record.outcome.is_served()) {
        assert_eq!(record.account, 1, "{record:?}");
        assert!(matches!(record.outcome, Outcome::NothingDone { .. }), "{record:?}");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The link to PostgreSQL.

/// Both instances reach the database through a proxy.
fn behind_proxy(settings: &[(&str, &str)]) -> (Proxy, Balanced) {
    let database = Database::new();
    let proxy = Proxy::to(&database.url());
    let url = format!("postgresql://rinha@127.0.0.1:{}/{}", proxy.port(), database.name());
    let bank = Balanced::over(database, &url, "nginx.conf", settings);
    (proxy, bank)
}

/// From within a message to a few batches.
fn after_bytes(round: usize) -> usize {
    [0, 1, 7, 40, 100, 333, 1_000, 2_500][round % 8]
}

#[test]
fn a_link_that_is_reset_anywhere_leaves_nothing_done_twice() {
    let (proxy, bank) = behind_proxy(&[]);
    let load = load::start(bank.address());
    let mut recoveries = Vec::new();
    for round in 0..16 {
        for &way in BOTH {
            proxy.break_after(Break::Reset, way, after_bytes(round));
            recoveries.push(wait_served(&load, Instant::now()));
        }
    }
    let told = finish(load, &mut bank.database.connect());
    report("link reset", &recoveries, &told);
    assert!(told.count(|outcome| *outcome == Outcome::InDoubt) > 0, "{told}");
    assert_eq!(told.count(|outcome| *outcome == Outcome::Broken), 0, "{told}");
}

#[test]
fn a_link_that_swallows_everything_leaves_nothing_done_twice() {
    let (proxy, bank) = behind_proxy(&IMPATIENT);
    let load = load::start(bank.address());
    let mut recoveries = Vec::new();
    let ways: [(Way, &'static [Way]); 4] = [
        (Way::ToServer, &[Way::ToServer]),
        (Way::ToClient, &[Way::ToClient]),
        (Way::ToServer, BOTH),
        (Way::ToClient, BOTH),
    ];
    for (round, (way, ways)) in (0..).zip(ways.into_iter().cycle().take(8)) {
        proxy.break_after(Break::Blackhole(ways), way, after_bytes(round));
        wait_each(&load, "every client to be told", Instant::now(), Outcome::is_unavailable);
        proxy.heal();
        recoveries.push(wait_served(&load, Instant::now()));
    }
    let told = finish(load, &mut bank.database.connect());
    report("link blackholed", &recoveries, &told);
    assert!(told.count(|outcome| *outcome == Outcome::InDoubt) > 0, "{told}");
    assert_eq!(told.count(|outcome| *outcome == Outcome::Broken), 0, "{told}");
}

// ---------------------------------------------------------------------------------------------------------------------
// The instances.

#[test]
fn an_instance_that_is_killed_costs_its_connections_and_the_other_serves() {
    let mut bank = Balanced::open_with(&PATIENT);
    let load = load::start(bank.address());
    let mut recoveries = Vec::new();
    // From the end of one instance to the next kill.
    let mut spans = Vec::new();
    for round in 0..20 {
        bank.kill_instance(round % 2);
        let ended_at = Instant::now();
        // Before it is back.
        recoveries.push(wait_served(&load, ended_at));
        bank.start_instance(round % 2);
        spans.push(ended_at..Instant::now());
    }
    let told = finish(load, &mut bank.database.connect());
    report("instance killed", &recoveries, &told);
    assert_eq!(told.count(Outcome::is_unavailable), 0, "{told}");
    // Whoever finds its connection broken is served by the next one. While the instance is still dying, the next one may
    // be to it again: the kernel closes its connections before its listener.
    for span in spans {
        let mut broken = [const { Vec::new() }; load::CLIENTS];
        for record in told.records.iter().filter(|record| record.outcome == Outcome::Broken) {
            if span.contains(&record.sent_at) && span.contains(&record.ended_at) {
                broken[record.client].push(record);
            }
        }
        for broken in broken {
            assert!(broken.len() <= 1, "after one kill: {broken:?}");
        }
    }
}

#[test]
fn both_instances_away_are_found_again_at_once() {
    let mut bank = Balanced::open("nginx.conf");
    let load = load::start(bank.address());
    let mut recoveries = Vec::new();
    for _ in 0..2 {
        bank.kill_instance(0);
        bank.kill_instance(1);
        thread::sleep(Duration::from_millis(500));
        bank.start_instance(0);
        let recovery = wait_served(&load, Instant::now());
        // nginx would take both out of its list for 10 s if it were left to its defaults.
        assert!(recovery < Duration::from_secs(3), "{recovery:?}");
        recoveries.push(recovery);
        bank.start_instance(1);
    }
    let told = finish(load, &mut bank.database.connect());
    report("both instances away", &recoveries, &told);
}

fn restart_one_after_the_other(configuration: &str, reload: impl Fn(&Balanced)) {
    let database = Database::new();
    let url = database.url();
    let mut bank = Balanced::over(database, &url, configuration, &PATIENT);
    let load = load::start(bank.address());
    let mut recoveries = Vec::new();
    for _ in 0..2 {
        for index in 0..2 {
            bank.restart_instance(index);
            recoveries.push(wait_served(&load, Instant::now()));
        }
        reload(&bank);
        recoveries.push(wait_served(&load, Instant::now()));
    }
    let told = finish(load, &mut bank.database.connect());
    report(&format!("rolling restart, {configuration}"), &recoveries, &told);
    for record in &told.records {
        let logs = || bank.instances.each_ref().map(|instance| instance.log()).concat();
        assert!(record.outcome.is_served(), "{record:?}\n{}", logs());
    }
}

#[test]
fn a_rolling_restart_and_a_reload_of_nginx_cost_no_request() {
    restart_one_after_the_other("nginx.conf", Balanced::reload_nginx);
}

/// Without a reload: as a proxy of HTTP nginx then closes all idle connections, also under a request on its way.
#[test]
fn a_rolling_restart_behind_nginx_as_a_proxy_costs_no_request() {
    restart_one_after_the_other("nginx-http.conf", |_| {});
}

/// Whoever connects while an instance stops either does not find it, and goes to the other one, or is served by it.
#[test]
fn nobody_connects_to_a_stopping_instance_in_vain() {
    let directory = Throwaway::new("faults").expect("make a directory");
    let unix = format!("unix:{}", directory.path().join("bank.sock").display());
    for _ in 0..6 {
        let mut bank = Bank::start(Database::new(), &[("DRAIN_IDLE_MS", "50")], |options| {
            options.listen = vec![unix.clone(), "127.0.0.1:0".to_owned()];
        });
        let tcp = bank.instance.addresses().swap_remove(1);
        bank.instance.signal(Signal::STOP).expect("send a signal");
        // To let them all in takes the instance a while, in which the others connect to its first address.
        let backlog: Vec<Wire> = (0..400).map(|_| Wire::connect(&tcp)).collect();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while let Ok(mut wire) = Wire::try_connect(&unix) {
                        let answer = wire.try_send(&get("/healthz")).and_then(|()| wire.try_answer());
                        assert!(answer.is_ok(), "it was let in and not answered: {answer:?}");
                    }
                });
            }
            bank.instance.signal(Signal::TERM).expect("send a signal");
            bank.instance.signal(Signal::CONT).expect("send a signal");
        });
        let status = bank.instance.wait_exit(support::wire::PATIENCE).expect("it ends");
        assert!(status.success(), "{status}");
        drop(backlog);
    }
}

#[test]
fn a_request_that_meets_the_end_of_its_connections_wait_is_served() {
    // Long enough to come to the next signal in time on a busy machine.
    let mut bank = Bank::with(&patient_but("DRAIN_IDLE_MS", "3000"));
    let mut wires: Vec<Wire> = (0..20).map(|_| bank.connect()).collect();
    for wire in &mut wires {
        assert_eq!(wire.ask(get("/healthz")).status, 200);
    }
    let address = bank.address();
    bank.instance.signal(Signal::TERM).expect("send a signal");
    wait_for("nobody to listen", || Wire::try_connect(&address).is_err().then_some(()));
    // When it goes on, the requests are there and the wait for them is over.
    bank.instance.signal(Signal::STOP).expect("send a signal");
    for wire in &mut wires {
        wire.send(transaction(1, 1, "c", "at last"));
    }
    thread::sleep(Duration::from_millis(3_200));
    bank.instance.signal(Signal::CONT).expect("send a signal");
    for wire in &mut wires {
        assert_eq!(wire.last_answer().status, 200);
    }
    let status = bank.instance.wait_exit(support::wire::PATIENCE).expect("it ends");
    assert!(status.success(), "{status}");
    assert_eq!(bank.database.ledger_rows("at last"), 20);
}

/// Idle connections end at once here, so that many requests meet that. What got no answer was not run, and may be sent
/// again.
#[test]
fn a_connection_that_ends_idle_costs_nothing_that_was_done() {
    let mut bank = Balanced::open_with(&patient_but("DRAIN_IDLE_MS", "0"));
    let load = load::start_with(bank.address(), 24, Duration::from_millis(20));
    for round in 0..6 {
        bank.restart_instance(round % 2);
        wait_served(&load, Instant::now());
    }
    let told = finish(load, &mut bank.database.connect());
    report("idle connections ended", &[], &told);
    let done = Judge::default().judge(&mut bank.database.connect(), &told.records).expect("it agrees");
    for record in told.records.iter().filter(|record| !record.outcome.is_served()) {
        assert_eq!(record.outcome, Outcome::Broken, "{record:?}");
        let Asked::Transaction { description, .. } = &record.asked else { continue };
        assert!(!done.contains(description), "{record:?}");
    }
}

// ---------------------------------------------------------------------------------------------------------------------

/// The check itself: each of these is a fault that it is there for.
#[test]
fn a_ledger_that_disagrees_is_noticed() {
    let bank = Balanced::open("nginx.conf");
    let load = load::start(bank.address());
    let is_accepted = |record: &Record| matches!(record.outcome, Outcome::Accepted { .. });
    wait_records(&load, "accepted transactions", 50, is_accepted);
    let mut database = bank.database.connect();
    let told = finish(load, &mut database);
    // A statement may have shown the newest row: then its record can be the first to disagree.
    let shown = "is not in the ledger once";
    for (tampering, complaints) in [
        ("DELETE FROM transacoes WHERE id = (SELECT max(id) FROM transacoes)", ["0 rows of", shown]),
        (
            "INSERT INTO transacoes (cliente_id, valor, tipo, descricao) \
             SELECT cliente_id, valor, tipo, descricao FROM transacoes ORDER BY id DESC LIMIT 1",
            ["2 rows of", shown],
        ),
        (
            "INSERT INTO transacoes (cliente_id, valor, tipo, descricao) VALUES (1, 1, 'c', 'forged')",
            ["that nobody asked for"; 2],
        ),
        (
            "UPDATE transacoes SET valor = valor + 1 WHERE id = (SELECT max(id) FROM transacoes)",
            ["the balance after"; 2],
        ),
        (
            "ALTER TABLE clientes DROP CONSTRAINT clientes_check; UPDATE clientes SET limite = 0",
            ["was past its limit"; 2],
        ),
    ] {
        database.batch_execute("BEGIN").expect("begin");
        database.batch_execute(tampering).expect("tamper");
        let text = Judge::default().judge(&mut database, &told.records).expect_err(tampering).to_string();
        assert!(complaints.iter().any(|complaint| text.contains(complaint)), "{tampering}: {text}");
        database.batch_execute("ROLLBACK").expect("roll back");
    }
}
