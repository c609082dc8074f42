//! Clients that go on asking whatever happens to the bank, and remember what they were told; afterwards the ledger is
//! held against it.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use stress::Error;
use stress::ledger::{Judge, wait_at_rest};
use stress::load::traffic::Random;
pub(crate) use stress::load::traffic::{Asked, Outcome, Record};
use stress::postgres::Client;
use stress::wait::Interrupt;

use super::cluster::assert_ledger_adds_up;
use super::{Answer, Wire, wait_for};

/// Several clients, each on a connection of its own that it opens again when it breaks, under way until
/// [`Load::finish`]. Most of what they ask are credits and debits, each with a description that no other has.
pub(crate) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

struct Shared {
    address: String,
    pause: Duration,
    is_over: AtomicBool,
    records: Mutex<Vec<Record>>,
}

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
        let shared = Arc::new(Shared {
            address: address.into(),
            pause,
            is_over: AtomicBool::new(false),
            records: Mutex::default(),
        });
        let spawn = |client| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.ask_on(client))
        };
        let started_at = Instant::now();
        let load = Load { clients: (0..clients).map(spawn).collect(), shared };
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
            assert!(!self.clients.iter().any(JoinHandle::is_finished), "a client gave up");
            let mut firsts = vec![None; self.clients.len()];
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
        self.shared.records()
    }

    /// Stops, and holds the ledger of this connection's database, which nobody else has written to, against what the
    /// clients were told.
    pub(crate) fn finish(mut self, database: &mut Client) -> Told {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            client.join().expect("a client ends well");
        }
        let records = std::mem::take(&mut *self.records());
        wait_at_rest(database, &Interrupt::default()).expect("the last sessions end");
        assert_ledger_adds_up(database);
        let mut told = Told { records, done: HashSet::new() };
        told.done = told.judge(database).unwrap_or_else(|error| panic!("{error}"));
        told
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One client's life.
    fn ask_on(&self, client: usize) {
        let mut random = Random::new(client as u64 + 1);
        let mut wire: Option<Wire> = None;
        for number in 0.. {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let account = i32::try_from(random.below(5)).expect("a small number") + 1;
            let asked = Asked::random(&mut random, format!("{client}.{number}"));
            let request = asked.request(account);
            // As every client does that keeps connections: one that is closed already is not asked.
            let mut open = match wire.take() {
                Some(wire) if !wire.is_closed() => wire,
                Some(_) | None => Wire::connect(&self.address),
            };
            let sent_at = Instant::now();
            let answer = open.try_send(&request).and_then(|()| open.try_answer());
            let ended_at = Instant::now();
            if answer.as_ref().is_ok_and(|answer| answer.field("Connection") != Some("close")) {
                wire = Some(open);
            }
            let outcome = outcome_of(&asked, answer);
            self.records().push(Record { client, account, asked, sent_at, ended_at, outcome });
            self.rest(&mut random);
        }
    }

    fn rest(&self, random: &mut Random) {
        let pause_us = u64::try_from(self.pause.as_micros()).expect("a short time");
        thread::sleep(Duration::from_micros(pause_us / 2 + random.below(pause_us)));
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

/// What a client was told. No answer at all is a hang, and an answer that the bank never gives fails the test.
fn outcome_of(asked: &Asked, answer: io::Result<Answer>) -> Outcome {
    match answer {
        Ok(answer) => Outcome::of(asked, answer.status, &answer.body)
            .unwrap_or_else(|| panic!("{asked:?} was answered {answer:?}")),
        Err(error) => {
            let is_hang = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            assert!(!is_hang, "no answer, and no end of the connection: {error}");
            Outcome::Broken
        }
    }
}
