//! Clients that go on asking whatever happens to the bank, and remember what they were told; afterwards the ledger is
//! held against it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use stress::postgres::Client;

use super::cluster::assert_ledger_adds_up;
use super::{Answer, Wire, get, transaction, wait_for};

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

/// One request and what became of it.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) client: usize,
    pub(crate) account: i32,
    pub(crate) asked: Asked,
    pub(crate) sent_at: Instant,
    pub(crate) ended_at: Instant,
    pub(crate) outcome: Outcome,
}

#[derive(Debug, Clone)]
pub(crate) enum Asked {
    /// The change of the balance that it asks for, in cents.
    Transaction {
        description: String,
        change_cents: i64,
    },
    Statement,
}

/// What a client was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 200: it is done, and this is the balance after it.
    Accepted { balance_cents: i64 },
    /// 422: it would have passed the limit.
    Refused,
    /// 200: a balance, and the description of the newest transaction in it.
    Shown { balance_cents: i64, newest: Option<String> },
    /// 503, with the word that nothing was done.
    NothingDone { reason: String },
    /// 503, with the word that nobody knows.
    InDoubt,
    /// The connection ended before the answer did.
    Broken,
    /// nginx answered in the server's place.
    BadGateway,
}

impl Outcome {
    fn of(asked: &Asked, answer: io::Result<Answer>) -> Outcome {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let is_hang = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                assert!(!is_hang, "no answer, and no end of the connection: {error}");
                return Outcome::Broken;
            }
        };
        match (answer.status, asked) {
            (200, Asked::Transaction { .. }) => Outcome::Accepted { balance_cents: answer.balance() },
            (200, Asked::Statement) => {
                let statement = answer.json();
                let newest = statement["ultimas_transacoes"][0]["descricao"].as_str().map(str::to_owned);
                let balance_cents = statement["saldo"]["total"].as_i64().expect("a balance");
                Outcome::Shown { balance_cents, newest }
            }
            (422, Asked::Transaction { .. }) => Outcome::Refused,
            (502, _) => Outcome::BadGateway,
            (503, _) => {
                let reason = answer.erro();
                if reason.ends_with("nothing was done") {
                    Outcome::NothingDone { reason }
                } else {
                    assert!(reason.ends_with("not known"), "{reason}");
                    Outcome::InDoubt
                }
            }
            _ => panic!("{asked:?} was answered {answer:?}"),
        }
    }

    /// Whether the bank did what it is there for.
    pub(crate) fn is_served(&self) -> bool {
        match self {
            Outcome::Accepted { .. } | Outcome::Refused | Outcome::Shown { .. } => true,
            Outcome::NothingDone { .. } | Outcome::InDoubt | Outcome::Broken | Outcome::BadGateway => false,
        }
    }

    /// Whether the server said 503.
    pub(crate) fn is_unavailable(&self) -> bool {
        matches!(self, Outcome::NothingDone { .. } | Outcome::InDoubt)
    }
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
        wait_settled(database);
        assert_ledger_adds_up(database);
        let mut told = Told { records, done: HashSet::new() };
        told.done = told.assert_agrees(database);
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
        let mut random = Random(client as u64 + 1);
        let mut wire: Option<Wire> = None;
        for number in 0.. {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let account = i32::try_from(random.below(5)).expect("a small number") + 1;
            let (asked, request) = random.request(account, client, number);
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
            let outcome = Outcome::of(&asked, answer);
            self.records().push(Record { client, account, asked, sent_at, ended_at, outcome });
            self.rest(&mut random);
        }
    }

    fn rest(&self, random: &mut Random) {
        let pause_us = u64::try_from(self.pause.as_micros()).expect("a short time");
        thread::sleep(Duration::from_micros(pause_us / 2 + random.below(pause_us)));
    }
}

/// `SplitMix64`: what a client asks is the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % end
    }

    /// Debits are larger than credits, so that the small accounts soon come to their limit and stay about there.
    fn request(&mut self, account: i32, client: usize, number: u32) -> (Asked, Vec<u8>) {
        let kind = self.below(8);
        let value_cents = i64::try_from(self.below(1_000)).expect("a small number") + 1;
        let description = format!("{client}.{number}");
        match kind {
            0 => (Asked::Statement, get(&format!("/clientes/{account}/extrato"))),
            1..=3 => {
                let request = transaction(account, value_cents, "c", &description);
                (Asked::Transaction { description, change_cents: value_cents }, request)
            }
            _ => {
                let value_cents = value_cents * 4;
                let request = transaction(account, value_cents, "d", &description);
                (Asked::Transaction { description, change_cents: -value_cents }, request)
            }
        }
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

    /// Each 200 has exactly one row, and was told the balance after it; what was refused or not done has none; what nobody
    /// knows has at most one; and there is no other row. No balance on the way was past its limit. Returns the
    /// descriptions in the ledger.
    pub(crate) fn assert_agrees(&self, database: &mut Client) -> HashSet<String> {
        let mut limits_cents: HashMap<i32, i64> = HashMap::new();
        for row in database.query("SELECT id, limite FROM clientes", &[]).expect("read the clients") {
            limits_cents.insert(row.get(0), row.get(1));
        }
        let mut running_cents: HashMap<i32, i64> = HashMap::new();
        let mut ledger: HashMap<String, Vec<Row>> = HashMap::new();
        let rows = database
            .query(
                "SELECT cliente_id, CASE tipo WHEN 'c' THEN valor::bigint ELSE -valor::bigint END, descricao \
             FROM transacoes ORDER BY cliente_id, id",
                &[],
            )
            .expect("read the ledger");
        for row in rows {
            let (account, change_cents, description): (i32, i64, String) =
                (row.get(0), row.get(1), row.get(2));
            let balance_cents = running_cents.entry(account).or_default();
            *balance_cents += change_cents;
            assert!(
                *balance_cents >= -limits_cents[&account],
                "client {account} was past its limit after {description}: {balance_cents}"
            );
            let row = Row { account, change_cents, balance_cents: *balance_cents };
            ledger.entry(description).or_default().push(row);
        }

        let mut known = 0;
        for record in &self.records {
            match &record.asked {
                Asked::Transaction { description, change_cents } => {
                    let rows = ledger.get(description).map_or(&[][..], Vec::as_slice);
                    assert_rows_agree(record, *change_cents, rows);
                    known += rows.len();
                }
                Asked::Statement => assert_statement_agrees(record, &ledger),
            }
        }
        let rows: usize = ledger.values().map(Vec::len).sum();
        assert_eq!(known, rows, "the ledger has rows that nobody asked for");
        ledger.into_keys().collect()
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

/// Waits until no session of an instance is at work. One whose instance has given it up may still be.
fn wait_settled(database: &mut Client) {
    let at_work = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() \
                   AND pid <> pg_backend_pid() AND state <> 'idle'";
    wait_for("the last sessions to end", || {
        database.query(at_work, &[]).expect("look at pg_stat_activity").is_empty().then_some(())
    });
}

/// One row of the ledger, and the balance after it.
struct Row {
    account: i32,
    change_cents: i64,
    balance_cents: i64,
}

fn assert_rows_agree(record: &Record, change_cents: i64, rows: &[Row]) {
    match record.outcome {
        Outcome::Accepted { balance_cents } => {
            let [row] = rows else { panic!("{} rows of {record:?}", rows.len()) };
            assert_eq!(balance_cents, row.balance_cents, "the balance after {record:?}");
        }
        Outcome::Refused | Outcome::NothingDone { .. } => assert!(rows.is_empty(), "a row of {record:?}"),
        Outcome::InDoubt | Outcome::Broken | Outcome::BadGateway => {
            assert!(rows.len() <= 1, "{} rows of {record:?}", rows.len());
        }
        Outcome::Shown { .. } => panic!("a transaction was answered with a statement: {record:?}"),
    }
    for row in rows {
        assert_eq!((row.account, row.change_cents), (record.account, change_cents), "{record:?}");
    }
}

/// A statement shows the balance after the newest of its transactions.
fn assert_statement_agrees(record: &Record, ledger: &HashMap<String, Vec<Row>>) {
    let Outcome::Shown { balance_cents, newest } = &record.outcome else { return };
    let expected_cents = newest.as_ref().map_or(0, |description| {
        let [row] = &ledger.get(description).map_or(&[][..], Vec::as_slice) else {
            panic!("{record:?} shows what is not in the ledger once")
        };
        assert_eq!(row.account, record.account, "{record:?}");
        row.balance_cents
    });
    assert_eq!(*balance_cents, expected_cents, "{record:?}");
}
