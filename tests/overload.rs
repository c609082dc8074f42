//! More than the bank can bear, in requests and in connections: everybody is answered, those who are refused at once, and
//! afterwards it is as before. What that costs in time, `cargo stress endure` measures; see docs/reference/faults.md.

mod support;

use std::time::Duration;

use stress::ledger::Judge;
use stress::load::traffic::{Outcome, Record};
use stress::load::{Crowd, OpenLoop, OpenRun, Phase};
use stress::wait::Interrupt;
use support::{Bank, Database, get, wait_for};

/// Each batch takes the database 20 ms more than it needs, whatever is in it: its pace no longer depends on the machine.
fn slow_database() -> Database {
    let database = Database::new();
    database.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN PERFORM pg_sleep(0.02); RETURN NULL; END';
         CREATE TRIGGER slow AFTER INSERT ON transacoes FOR EACH STATEMENT EXECUTE FUNCTION slow()",
    );
    database
}

/// How many requests of a phase were such.
fn count(run: &OpenRun, phase: usize, is_such: impl Fn(&Record) -> bool) -> usize {
    run.of_phase(phase).iter().filter(|record| is_such(record)).count()
}

/// Holds the ledger against what everybody was told.
fn assert_ledger_agrees(database: &Database, run: &OpenRun) {
    let mut client = database.connect();
    Judge::default()
        .judge_at_rest(&mut client, &run.records, &Interrupt::default())
        .expect("the ledger agrees");
}

fn is_served(record: &Record) -> bool {
    record.outcome.is_served()
}

fn is_refused(record: &Record) -> bool {
    matches!(record.outcome, Outcome::NothingDone { .. })
}

/// A fast client asks for ten times what the database does. Nobody waits until his patience or the bank's is over: all the
/// refusals are of the kind that comes at once.
#[test]
fn ten_times_too_much_is_served_or_refused_at_once_and_is_soon_forgotten() {
    // 16 calls in 20 ms and some, so about 600 a second.
    let settings = [("BATCH_CALLS_MAX", "16"), ("QUEUE_WAIT_MAX_MS", "100"), ("QUEUE_TIMEOUT_MS", "20000")];
    let bank = Bank::over(slow_database(), &settings);
    let phase = |rate_per_s, millis| Phase {
        name: "",
        rate_per_s: Some(rate_per_s),
        duration: Duration::from_millis(millis),
    };
    let phases = vec![phase(100.0, 500), phase(6_000.0, 2_000), phase(100.0, 4_000)];
    let load = OpenLoop { address: bank.socket_address(), connections: 800, first_number: 0, phases };
    let run = load.run(&Interrupt::default()).expect("load the bank");

    let [calm, overload, after] = [0, 1, 2];
    assert_eq!(count(&run, calm, is_served), count(&run, calm, |_| true));
    let (served, refused) = (count(&run, overload, is_served), count(&run, overload, is_refused));
    println!("of {} requests, {served} were served and {refused} refused", count(&run, overload, |_| true));
    assert_eq!(served + refused, count(&run, overload, |_| true), "everybody is told");
    assert!(refused > served && served > 0, "{served} were served and {refused} refused");
    // The first half of the time after it is for it to recover, which takes a tenth of that.
    let half_time = run.spans[after].began + Duration::from_secs(2);
    let is_late = |record: &Record| record.sent_at > half_time;
    assert!(count(&run, after, is_late) > 0);
    assert_eq!(count(&run, after, |record| is_late(record) && !is_served(record)), 0);

    // Nobody was let in to wait in vain.
    assert_eq!(bank.metric(r#"rinha_unavailable_total{reason="queue_timeout"}"#), 0);
    let refused = run.records.iter().filter(|record| is_refused(record)).count();
    assert_eq!(bank.metric(r#"rinha_unavailable_total{reason="queue_full"}"#), refused as u64);
    assert_ledger_agrees(&bank.database, &run);
    bank.database.assert_ledger_adds_up();
}

#[test]
fn ten_thousand_connections_against_a_limit_of_a_thousand_are_all_answered() {
    let bank = Bank::with(&[("CLIENTS_MAX", "1000"), ("QUEUE_TIMEOUT_MS", "20000")]);
    let crowd = Crowd {
        address: bank.socket_address(),
        clients: 10_000,
        first_number: 0,
        patience: Duration::from_mins(1),
    };
    let run = crowd.run(&Interrupt::default()).expect("10,000 sockets");
    println!("10,000 connections took {} ms", (run.spans[0].ended - run.spans[0].began).as_millis());
    let (served, refused) = (count(&run, 0, is_served), count(&run, 0, is_refused));
    let others = run.records.iter().filter(|record| !is_served(record) && !is_refused(record));
    let others: Vec<_> = others.map(|record| &record.outcome).take(10).collect();
    assert_eq!(served + refused, 10_000, "{served} were served and {refused} refused; also {others:?}");
    assert_ledger_agrees(&bank.database, &run);
    // And then it is as before.
    wait_for("the last of them to be gone", || (bank.metric("rinha_connections") <= 1).then_some(()));
    assert_eq!(bank.ask(get("/healthz")).status, 200);
}
