//! Clients that go on asking whatever happens to the bank, each with one request under way at most, and remember what they
//! were told.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use super::traffic::{Asked, Outcome, Record};
use crate::Error;
use crate::http::Connection;
use crate::wait::{self, Interrupt};

#[derive(Debug, Clone)]
pub struct ClosedLoad {
    pub address: String,
    pub clients: usize,
    pub pace: Pace,
    /// How long a connection is kept at least, and twice that at most; `None`: as long as it lasts.
    pub connection_life: Option<Duration>,
    /// Whether a kept connection is asked without a look at whether the bank has closed it: then the request is broken off.
    pub is_blind: bool,
    /// The numbers of transactions, from which their descriptions are made. Clones of a load share them.
    pub numbers: Arc<AtomicU64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    AtOnce,
    /// When it is due, each so long after the one before, or as soon as that one is answered.
    Every(Duration),
    /// So long after the answer, from half of it to half as long again.
    Rest(Duration),
}

#[derive(Debug, Default)]
pub struct ClosedRun {
    pub records: Vec<Record>,
    pub clients: usize,
    /// Requests that came due while their client still waited, longer ago than [`LAG_MAX`]: never sent.
    pub left_out: u64,
}

impl ClosedRun {
    pub fn count(&self, is_such: impl Fn(&Outcome) -> bool) -> usize {
        self.records.iter().filter(|record| is_such(&record.outcome)).count()
    }

    pub fn outcomes(&self) -> Outcomes {
        let mut outcomes = Outcomes::default();
        for record in &self.records {
            *outcomes.0.entry(record.outcome.kind().to_owned()).or_default() += 1;
        }
        outcomes
    }
}

impl Display for ClosedRun {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.outcomes().told().collect::<Vec<_>>().join(", "))
    }
}

/// Requests by what became of them, as [`Outcome::kind`] calls it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Outcomes(pub BTreeMap<String, u64>);

impl Outcomes {
    pub fn count(&self, kind: &str) -> u64 {
        self.0.get(kind).copied().unwrap_or(0)
    }

    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// `7 in doubt`, for each kind that there is.
    pub(crate) fn told(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(kind, count)| format!("{count} {kind}"))
    }
}

/// How long after `since` the last client had such an outcome of a request that it sent after it, for the first time;
/// `None` when one had none.
pub fn last_first(
    records: &[Record],
    clients: usize,
    since: Instant,
    is_such: impl Fn(&Outcome) -> bool,
) -> Option<Duration> {
    let mut firsts: Vec<Option<Instant>> = vec![None; clients];
    for record in records.iter().filter(|record| record.sent_at > since && is_such(&record.outcome)) {
        let first = firsts[record.client].get_or_insert(record.ended_at);
        *first = record.ended_at.min(*first);
    }
    let firsts: Option<Vec<Instant>> = firsts.into_iter().collect();
    Some(firsts?.into_iter().max()?.saturating_duration_since(since))
}

/// The longest time between two such outcomes that followed each other.
pub fn longest_gap(records: &[Record], is_such: impl Fn(&Outcome) -> bool) -> Option<(Instant, Instant)> {
    let such = records.iter().filter(|record| is_such(&record.outcome));
    let mut times: Vec<Instant> = such.map(|record| record.ended_at).collect();
    times.sort_unstable();
    times.windows(2).map(|pair| (pair[0], pair[1])).max_by_key(|(from, to)| *to - *from)
}

/// The clients under way, until [`RunningLoad::finish`]. Dropping it tells them to stop.
#[derive(Debug)]
pub struct RunningLoad {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Result<u64, Error>>>,
}

#[derive(Debug)]
struct Shared {
    load: ClosedLoad,
    is_over: AtomicBool,
    records: Mutex<Vec<Record>>,
}

impl ClosedLoad {
    pub fn new(address: impl Into<String>, clients: usize) -> ClosedLoad {
        ClosedLoad {
            address: address.into(),
            clients,
            pace: Pace::AtOnce,
            connection_life: None,
            is_blind: false,
            numbers: Arc::default(),
        }
    }

    /// The pace of each client at which all of them together ask so many requests per second.
    #[must_use]
    pub fn paced(self, requests_per_second: f64) -> ClosedLoad {
        let clients = u32::try_from(self.clients).unwrap_or(u32::MAX);
        let interval = Duration::from_secs_f64(f64::from(clients) / requests_per_second);
        ClosedLoad { pace: Pace::Every(interval), ..self }
    }

    pub fn start(&self) -> RunningLoad {
        let is_over = AtomicBool::new(false);
        let shared = Arc::new(Shared { load: self.clone(), is_over, records: Mutex::default() });
        let spawn = |client| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.ask_on(client))
        };
        RunningLoad { clients: (0..self.clients).map(spawn).collect(), shared }
    }

    fn first_pause(&self, client: usize) -> Duration {
        let of = |part: usize| u32::try_from(part).unwrap_or(u32::MAX);
        match self.pace {
            Pace::Every(interval) => interval * of(client) / of(self.clients.max(1)),
            Pace::AtOnce | Pace::Rest(_) => Duration::ZERO,
        }
    }
}

impl RunningLoad {
    /// What was asked and told so far, about in the order of the answers.
    pub fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.shared.records()
    }

    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Waits, but not for a load that has given up: what it was told is the finding.
    pub(crate) fn wait(&self, duration: Duration, interrupt: &Interrupt) -> Result<(), Error> {
        wait::until(duration, interrupt, || Ok(self.has_failed().then_some(()))).map(drop)
    }

    pub fn has_failed(&self) -> bool {
        self.clients.iter().any(JoinHandle::is_finished)
    }

    /// Stops, when each client has its last answer.
    pub fn finish(mut self) -> Result<ClosedRun, Error> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let mut run = ClosedRun { clients: self.clients.len(), ..ClosedRun::default() };
        for client in self.clients.drain(..) {
            let panicked = |_| Error::Refused("a client of the load panicked".to_owned());
            run.left_out += client.join().map_err(panicked)??;
        }
        run.records = std::mem::take(&mut *self.shared.records());
        Ok(run)
    }
}

impl Drop for RunningLoad {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask_on(&self, client: usize) -> Result<u64, Error> {
        let load = &self.load;
        // What a client asks is the same in each run.
        let mut random = Rng::with_seed(load.numbers.fetch_add(1, Ordering::Relaxed));
        let mut left_out = 0;
        let mut due = Instant::now() + load.first_pause(client);
        let mut kept: Option<(Connection, Option<Instant>)> = None;
        while !self.is_over.load(Ordering::Relaxed) {
            if let Pace::Every(interval) = load.pace {
                left_out += catch_up(&mut due, interval);
                thread::sleep(due.saturating_duration_since(Instant::now()));
                due += interval;
            }
            let account = random.i32(1..=5);
            let asked =
                Asked::random(&mut random, format!("{:010}", load.numbers.fetch_add(1, Ordering::Relaxed)));
            let request = asked.request(account);
            let is_of_use = |connection: &Connection, until: Option<Instant>| {
                until.is_none_or(|until| Instant::now() < until) && (load.is_blind || !connection.is_closed())
            };
            let open = match kept.take() {
                Some((connection, until)) if is_of_use(&connection, until) => Ok((connection, until)),
                Some(_) | None => {
                    let until =
                        load.connection_life.map(|life| Instant::now() + at_least(life, life, &mut random));
                    Connection::connect(&load.address, PATIENCE)
                        .map(|connection| (connection, until))
                        .map_err(|error| io::Error::new(error.kind(), format!("cannot connect: {error}")))
                }
            };
            let sent_at = Instant::now();
            let answer = open.and_then(|(mut connection, until)| {
                let answer = connection.ask(&request)?;
                kept = (!answer.is_last()).then_some((connection, until));
                Ok(answer)
            });
            let ended_at = Instant::now();
            let outcome = match answer {
                Ok(answer) => match Outcome::of(&asked, answer.status, &answer.body) {
                    Outcome::Other { status } => {
                        let body = String::from_utf8_lossy(&answer.body).into_owned();
                        return Err(Error::Refused(format!("{asked:?} was answered {status} {body}")));
                    }
                    outcome => outcome,
                },
                Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::InvalidData) => {
                    let waited_ms = ended_at.duration_since(sent_at).as_millis();
                    return Err(Error::Refused(format!(
                        "{asked:?} had no answer for {waited_ms} ms: {error}"
                    )));
                }
                Err(_) => Outcome::Broken,
            };
            self.records().push(Record { client, account, asked, sent_at, ended_at, outcome });
            if let Pace::Rest(rest) = load.pace {
                thread::sleep(at_least(rest / 2, rest, &mut random));
            }
        }
        Ok(left_out)
    }
}

/// A time, and up to `more`.
fn at_least(time: Duration, more: Duration, random: &mut Rng) -> Duration {
    time + more.mul_f64(random.f64())
}

/// Moves a time that lies further back than [`LAG_MAX`] up to it, in whole intervals. Returns how many.
fn catch_up(due: &mut Instant, interval: Duration) -> u64 {
    let mut left_out = 0;
    while due.elapsed() > LAG_MAX {
        *due += interval;
        left_out += 1;
    }
    left_out
}

/// What a client still makes up for after it had to wait.
pub const LAG_MAX: Duration = Duration::from_secs(1);
/// Longer than each deadline of the server: what takes that long is a hang.
const PATIENCE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_share_the_rate_and_leave_out_what_came_due_too_long_ago() {
        let load = ClosedLoad::new("127.0.0.1:1", 10).paced(100.0);
        let interval = Duration::from_millis(100);
        assert_eq!(load.pace, Pace::Every(interval));
        assert_eq!((load.first_pause(0), load.first_pause(5)), (Duration::ZERO, Duration::from_millis(50)));
        assert_eq!(catch_up(&mut Instant::now(), interval), 0);
        let mut due = Instant::now().checked_sub(LAG_MAX + 10 * interval).unwrap();
        assert!(catch_up(&mut due, interval) >= 10);
        assert!(due.elapsed() <= LAG_MAX + interval);
    }
}
