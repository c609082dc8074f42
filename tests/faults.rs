//! Real faults, under load from several clients, on real PostgreSQL, real nginx and two instances. Whatever happens, the
//! ledger agrees afterwards with what the clients were told; docs/faults.md has the table of it.

mod support;

use std::time::{Duration, Instant};

use support::Balanced;
use support::load::{Load, Outcome, Told};

/// Says how a test went. The figures are in docs/faults.md.
fn report(fault: &str, recoveries: &[Duration], told: &Told) {
    let mut sorted = recoveries.to_vec();
    sorted.sort_unstable();
    if let (Some(median), Some(longest)) = (sorted.get(sorted.len() / 2), sorted.last()) {
        println!("{fault}: every client served again after {median:.0?}, at most {longest:.0?}");
    }
    println!("{fault}: {told}");
}

/// Ends one session of an instance, any of them.
const TERMINATE_ONE: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
    WHERE datname = current_database() AND application_name = 'rinha' ORDER BY random() LIMIT 1";

#[test]
fn a_terminated_backend_costs_what_was_in_flight() {
    let bank = Balanced::open("nginx.conf");
    let load = Load::start(bank.address());
    let mut stranger = bank.database.connect();
    let recoveries: Vec<Duration> = (0..10)
        .map(|_| {
            let terminated = stranger.query(TERMINATE_ONE, &[]).expect("terminate a backend");
            assert_eq!(terminated.len(), 1, "a session to terminate");
            load.wait_served(Instant::now())
        })
        .collect();
    let told = load.finish(&mut stranger);
    assert_eq!(told.count(|outcome| *outcome == Outcome::Broken), 0, "nobody loses a connection: {told}");
    report("backend terminated", &recoveries, &told);
}
