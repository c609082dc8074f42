//! Clients that go on asking whatever happens to the bank, and remember what they were told; afterwards the ledger is
//! held against it. The clients and the judge are those of `cargo stress soak`.

use std::collections::HashSet;
use std::fmt;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use stress::Error;
use stress::ledger::{Judge, wait_at_rest};
pub(crate) use stress::load::traffic::{Asked, Outcome, Record};
use stress::load::{ClosedLoad, Pace, RunningLoad};
use stress::postgres::Client;
use stress::wait::Interrupt;

use super::cluster::assert_ledger_adds_up;
use super::wait_for;

/// Several clients, each on a connection of its own that it opens again when it breaks, under way until
/// [`Load::finish`]. Most of what they ask are credits and debits, each with a description that no other has.
pub(crate) struct Load(RunningLoad);

/// A busy client's rest between an answer and its next request: the load is to be steady, not the most that there is.
const PAUSE: Duration = Duration::from_millis(2);

impl Load {
    /// How many clients it has by default: as many as make the batches of two instances sets.
    pub(crate) const CLIENTS: usize = 12;

    /// A dozen busy clients of the bank at `address`; returns when each of them has been served.
    pub(crate) fn start(address: impl Into<String>) -> Load {
        Load::with(address, Load::CLIENTS, PAUSE)
    }

    /// So many clients, who pause that long, more or less, between an answer and their next request.
    pub(crate) fn with(address: impl Into<String>, clients: usize, pause: Duration) -> Load {
        let load = ClosedLoad { pace: Pace::Rest(pause), ..ClosedLoad::new(address, clients) };
        let started_at = Instant::now();
        let load = Load(load.start());
        load.wait_served(started_at);
        load
    }

    /// Waits until every client was served with a request that it sent after `since`. Returns how long after `since`
    /// the last of them was, for the first time.
    pub(crate) fn wait_served(&self, since: Instant) -> Duration {
        self.wait_each("every client to be served", since, Outcome::is_served)
    }

    /// Waits until every client was told such an outcome of a request that it sent after `since`. Returns how long
    /// after `since` the last of them was, for the first time.
    pub(crate) fn wait_each(
        &self,
        what: &str,
        since: Instant,
        is_such: impl Fn(&Outcome) -> bool,
    ) -> Duration {
        wait_for(what, || {
            assert!(!self.0.has_failed(), "a client gave up");
            let mut firsts = vec![None; self.0.clients()];
            for record in self.records().iter().filter(|record| record.sent_at > since) {
                if is_such(&record.outcome) {
                    firsts[record.client].get_or_insert(record.ended_at);
                }
            }
            let firsts: Option<Vec<Instant>> = firsts.into_iter().collect();
            Some(firsts?.into_iter().max()?.saturating_duration_since(since))
        })
    }

    /// Waits until there are so many records of that kind.
    pub(crate) fn wait_records(&self, what: &str, least: usize, is_such: impl Fn(&Record) -> bool) {
        wait_for(what, || {
            (self.records().iter().filter(|record| is_such(record)).count() >= least).then_some(())
        });
    }

    /// What was asked and told so far, about in the order of the answers.
    pub(crate) fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.0.records()
    }

    /// Stops, and holds the ledger of this connection's database, which nobody else has written to, against what the
    /// clients were told. An answer that the bank never gives, and none at all, fail the test.
    pub(crate) fn finish(self, database: &mut Client) -> Told {
        let records = self.0.finish().unwrap_or_else(|error| panic!("{error}")).records;
        wait_at_rest(database, &Interrupt::default()).expect("the last sessions end");
        assert_ledger_adds_up(database);
        let mut told = Told { records, done: HashSet::new() };
        told.done = told.judge(database).unwrap_or_else(|error| panic!("{error}"));
        told
    }
}

/// What all clients were told, in about the order of the answers.
pub(crate) struct Told {
    pub(crate) records: Vec<Record>,
    /// The descriptions in the ledger.
    done: HashSet<String>,
}

impl Told {
    /// How many outcomes were of that kind.
    pub(crate) fn count(&self, is_such: impl Fn(&Outcome) -> bool) -> usize {
        self.records.iter().filter(|record| is_such(&record.outcome)).count()
    }

    /// Whether what was asked is in the ledger.
    pub(crate) fn is_done(&self, record: &Record) -> bool {
        match &record.asked {
            Asked::Transaction { description, .. } => self.done.contains(description),
            Asked::Statement => false,
        }
    }
    /// Holds all of the ledger against what the clients were told; gives the descriptions in it.
    pub(crate) fn judge(&self, database: &mut Client) -> Result<HashSet<String>, Error> {
        Judge::new().judge(database, &self.records)
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accepted = self.count(|outcome| matches!(outcome, Outcome::Accepted { .. }));
        let refused = self.count(|outcome| *outcome == Outcome::Refused);
        let nothing_done = self.count(|outcome| matches!(outcome, Outcome::NothingDone { .. }));
        let in_doubt = self.count(|outcome| *outcome == Outcome::InDoubt);
        let broken = self.count(|outcome| *outcome == Outcome::Broken);
        let bad_gateway = self.count(|outcome| *outcome == Outcome::BadGateway);
        write!(
            f,
            "{accepted} accepted, {refused} past the limit, {nothing_done} unavailable, {in_doubt} in doubt, \
             {broken} broken off, {bad_gateway} bad gateway"
        )
    }
}
