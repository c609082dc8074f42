//! The closed load and the judge of `stress`, for tests of faults: clients that go on asking whatever happens to the bank,
//! and the ledger held against what they were told.

use std::time::{Duration, Instant};

use stress::ledger::Judge;
pub(crate) use stress::load::traffic::{Asked, Outcome, Record};
use stress::load::{ClosedLoad, Pace, last_first};
pub(crate) use stress::load::{ClosedRun, RunningLoad};
use stress::postgres::Client;
use stress::wait::Interrupt;

use super::cluster::assert_ledger_adds_up;
use super::wait_for;

/// How many clients there are by default: as many as make the batches of two instances sets.
pub(crate) const CLIENTS: usize = 12;
/// A busy client's rest between an answer and its next request: the load is to be steady, not the most that there is.
const PAUSE: Duration = Duration::from_millis(2);

/// A dozen busy clients of the bank at `address`; returns when each of them has been served.
pub(crate) fn start(address: impl Into<String>) -> RunningLoad {
    start_with(address, CLIENTS, PAUSE)
}

/// So many clients, who pause that long, more or less, between an answer and their next request.
pub(crate) fn start_with(address: impl Into<String>, clients: usize, pause: Duration) -> RunningLoad {
    let started_at = Instant::now();
    let load = ClosedLoad { pace: Pace::Rest(pause), ..ClosedLoad::new(address, clients) }.start();
    wait_served(&load, started_at);
    load
}

/// Waits until every client was served with a request that it sent after `since`. Returns how long after `since` the last
/// of them was, for the first time.
pub(crate) fn wait_served(load: &RunningLoad, since: Instant) -> Duration {
    wait_each(load, "every client to be served", since, Outcome::is_served)
}

/// The same of any such outcome.
pub(crate) fn wait_each(
    load: &RunningLoad,
    what: &str,
    since: Instant,
    is_such: impl Fn(&Outcome) -> bool,
) -> Duration {
    wait_for(what, || {
        assert!(!load.has_failed(), "a client gave up");
        last_first(&load.records(), load.clients(), since, &is_such)
    })
}

/// Waits until there are so many records of that kind.
pub(crate) fn wait_records(load: &RunningLoad, what: &str, least: usize, is_such: impl Fn(&Record) -> bool) {
    wait_for(what, || {
        (load.records().iter().filter(|record| is_such(record)).count() >= least).then_some(())
    });
}

/// Stops, and holds the ledger of this connection's database, which nobody else has written to, against what the clients
/// were told. An answer that the bank never gives, and none at all, fail the test.
pub(crate) fn finish(load: RunningLoad, database: &mut Client) -> ClosedRun {
    let run = load.finish().unwrap_or_else(|error| panic!("{error}"));
    let judged = Judge::default().judge_at_rest(database, &run.records, &Interrupt::default());
    judged.unwrap_or_else(|error| panic!("{error}"));
    assert_ledger_adds_up(database);
    run
}
