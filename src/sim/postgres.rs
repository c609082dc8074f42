//! CORE, tests and simulation only: a PostgreSQL server that speaks real wire bytes over a ledger in memory. Its sessions
//! have implicit transactions, lock rows, wait for each other, and fail where a test or a fault asks for it.
//!
//! Format: PostgreSQL documentation, "Frontend/Backend Protocol", section Message Formats.

use std::collections::{BTreeMap, VecDeque};

use proto_pg::{Oid, oid};

use crate::engine::lane::statements::STATEMENTS;
use crate::sim::check::{Check, Violation};

/// What is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// Limit and balance by account, in cents.
    pub(crate) accounts: BTreeMap<i32, (i64, i64)>,
    /// The accepted transactions, in the order of their commits.
    pub(crate) rows: Vec<Entry>,
}

/// One accepted transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) account: i32,
    pub(crate) description: String,
    /// Negative for a debit.
    pub(crate) value_cents: i64,
    pub(crate) balance_cents: i64,
}

/// What became of the calls between two Syncs, or of those that a session left behind.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// With those that were skipped.
    pub(crate) calls: usize,
    /// The descriptions of the transactions that ran, also of those that were refused.
    pub(crate) ran: Vec<String>,
    /// The descriptions of the transactions that were skipped after a failure.
    pub(crate) skipped: Vec<String>,
    /// How many messages the server had read when its first call came, and when it ended.
    pub(crate) began_at: u64,
    pub(crate) ended_at: u64,
    /// It ended with a Sync; otherwise its session ended.
    pub(crate) is_synced: bool,
    pub(crate) is_committed: bool,
    pub(crate) session: usize,
    /// Its session is to blame for the failure: it was one call alone, or the server takes no writes.
    pub(crate) is_spoilt: bool,
    /// The server takes no writes.
    pub(crate) is_read_only: bool,
    /// Its session is to blame, but it ended before its Sync: how many calls it was to have is not known here.
    pub(crate) may_be_spoilt: bool,
}

/// A transaction that failed; its batch is over only at its Sync.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) description: String,
    /// No other call was before it in its batch.
    pub(crate) is_first: bool,
    /// Its session is to blame.
    pub(crate) is_spoilt: bool,
    /// The server takes no writes.
    pub(crate) is_read_only: bool,
    /// How many messages the server had read.
    pub(crate) at: u64,
}

/// One server, and its hot standby, on two hosts.
#[derive(Default)]
pub(crate) struct Postgres {
    pub(crate) ledger: Ledger,
    /// Transactions with such a description fail with the SQLSTATE; each entry once.
    pub(crate) failures: Vec<(String, &'static str)>,
    /// The SQLSTATE that the next call fails with, whichever it is.
    pub(crate) call_failure: Option<&'static str>,
    /// The SQLSTATE that the next commit fails with.
    pub(crate) commit_failure: Option<&'static str>,
    /// What the next message of any session is preceded by: a whole message that belongs to no call.
    pub(crate) interjection: Option<Vec<u8>>,
    /// The host that is the primary.
    pub(crate) primary: usize,
    /// How often that has changed.
    pub(crate) timeline: u32,
    /// How many rows of the ledger the other host has.
    replayed: usize,
    /// What the other host does.
    pub(crate) replaced: Replaced,
    /// The SQLSTATE with which the query for its timeline fails, as on another engine, which does not have the functions.
    pub(crate) history_failure: Option<&'static str>,
    /// `InsertTransacao` was replaced by a procedure that returns text.
    pub(crate) returns_text: bool,
    /// Whether it reports that to each session, as PostgreSQL does from 14 on, or has to be asked.
    pub(crate) reports_standby: bool,
    /// The descriptions of every call that ran, in order, also of those that were rolled back.
    pub(crate) ran: Vec<String>,
    /// Every transaction that failed, in order.
    pub(crate) failures_seen: Vec<Failure>,
    /// Every batch that has ended, in order.
    pub(crate) batches: Vec<Batch>,
    /// What no client may ever cause.
    pub(crate) offences: Vec<Violation>,
    /// How many sessions have received Terminate.
    pub(crate) farewells: usize,
    /// How many messages it has read.
    messages: u64,
    /// Which session holds the lock of an account's row.
    locks: BTreeMap<i32, Holder>,
    sessions: Vec<Session>,
}

/// What the host does that is not the primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Replaced {
    /// It is a standby, and follows the primary.
    #[default]
    Follows,
    /// It is a standby that does not follow: it was the primary itself, on the timeline before, and its log has grown since.
    Stranded,
    /// It was the primary and does not know that it was replaced: it still answers reads, but no commit there ever ends, since
    /// each waits for a standby.
    GoesOn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Session(usize),
    /// A session of another program, such as psql.
    Foreign,
}

#[derive(Default)]
struct Session {
    received: VecDeque<u8>,
    /// A message that waits for a lock.
    put_back: Option<(u8, Vec<u8>)>,
    sent: Vec<u8>,
    is_started: bool,
    /// No more bytes will come: it ends once it has processed what has arrived.
    is_hung_up: bool,
    is_ended: bool,
    lock_timeout_us: u64,
    host: usize,
    /// The timeline that was sent to this session, and the one that it has certainly read, since it has asked for something
    /// else afterwards.
    told_timeline: Option<u32>,
    read_timeline: Option<u32>,
    /// The SQLSTATE that every call fails with from now on.
    spoilt: Option<&'static str>,
    /// The SQLSTATE for which a call of this batch has failed, if the session is to blame.
    met_spoilt: Option<&'static str>,
    /// The call that was skipped last is one of a probe.
    skips_probe: bool,
    transaction: Transaction,
    has_failed: bool,
    calls: usize,
    ran: Vec<String>,
    skipped: Vec<String>,
    /// How many messages the server had read when the first call of the batch came.
    began_at: Option<u64>,
    /// Statement name and parameters of the last Bind.
    bound: Option<(String, Vec<Vec<u8>>)>,
    /// The row that it waits for, and since when.
    waits: Option<(i32, u64)>,
}

/// What a session has done and not committed.
#[derive(Default)]
struct Transaction {
    balances: BTreeMap<i32, i64>,
    rows: Vec<Entry>,
}

/// What a session does next, as far as it says how long that takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Runs a statement for this many calls; none if it is of a probe or of the log-in.
    Execute {
        calls: usize,
        is_set: bool,
    },
    /// Ends a transaction with this many rows.
    Sync {
        commits: usize,
    },
    Other,
}

/// The state of a session, for the page of the playground.
pub(crate) struct SessionView<'a> {
    pub(crate) is_started: bool,
    pub(crate) has_failed: bool,
    /// The account whose row it waits for, and since when, in monotonic microseconds.
    pub(crate) waits: Option<(i32, u64)>,
    /// What it has done and not committed.
    pub(crate) uncommitted: &'a [Entry],
    /// The accounts whose rows it has locked.
    pub(crate) locked: Vec<i32>,
    pub(crate) received_bytes: usize,
    pub(crate) sent_bytes: usize,
}

/// How a call of a statement ended.
enum Executed {
    Done,
    Failed(&'static str),
    Blocked,
}

const LOCK_NOT_AVAILABLE: &str = "55P03";
const DEADLOCK_DETECTED: &str = "40P01";
const READ_ONLY: &str = "25006";

impl Postgres {
    /// A server with the accounts 1 to 5, whose limit is 1000 cents.
    pub(crate) fn new() -> Postgres {
        let accounts = (1..=5).map(|id| (id, (1_000, 0))).collect();
        Postgres { ledger: Ledger { accounts, rows: Vec::new() }, ..Postgres::default() }
    }

    /// A new session with the first host.
    #[cfg(test)]
    pub(crate) fn connect(&mut self) -> usize {
        self.connect_to(0)
    }

    /// A new session with this host.
    pub(crate) fn connect_to(&mut self, host: usize) -> usize {
        self.sessions.push(Session { host, ..Session::default() });
        self.sessions.len() - 1
    }

    /// The other host becomes the primary, and this one its standby. A session in the middle of a transaction ends. As behind a
    /// pooler, the others stay; if `is_told`, the server reports the change to them.
    pub(crate) fn switch_over(&mut self, is_told: bool) {
        let demoted = self.primary;
        self.promote();
        for id in 0..self.sessions.len() {
            let session = &mut self.sessions[id];
            if session.host != demoted || session.is_ended || !session.is_started {
                continue;
            }
            if session.began_at.is_some() {
                self.kill(id);
            } else if is_told {
                message(&mut session.sent, b'S', b"in_hot_standby\0on\0");
            }
        }
    }

    /// The other host becomes the primary, and this one does not know.
    pub(crate) fn split(&mut self) {
        self.promote();
        self.replaced = Replaced::GoesOn;
        for session in 0..self.sessions.len() {
            if self.is_replaced(session) {
                self.release(session);
            }
        }
    }

    fn promote(&mut self) {
        self.rejoin();
        self.primary = 1 - self.primary;
        self.timeline += 1;
        // Nothing is lost: the standby that takes over has replayed all, and the old primary has written it.
        self.replayed = self.ledger.rows.len();
    }

    /// The host that is not the primary stops if it is one on an old timeline, and follows from now on.
    pub(crate) fn rejoin(&mut self) {
        for session in 0..self.sessions.len() {
            if self.is_replaced(session) {
                self.kill(session);
            }
        }
        self.replaced = Replaced::Follows;
    }

    /// The host of a primary that was replaced and goes on, and how many rows of the ledger it has.
    pub(crate) fn old_primary(&self) -> Option<(usize, usize)> {
        (self.replaced == Replaced::GoesOn).then_some((1 - self.primary, self.replayed))
    }

    /// The timeline that the client of this session has read.
    pub(crate) fn read_timeline(&self, session: usize) -> Option<u32> {
        self.sessions[session].read_timeline
    }

    /// The standby replays what there is.
    pub(crate) fn replay(&mut self) {
        if self.replaced == Replaced::Follows {
            self.replayed = self.ledger.rows.len();
        }
    }

    /// System, timeline and place in the log of the session's server, as the statement `p` asks for them.
    fn position(&self, session: usize) -> (i64, i32, i64) {
        let of = |timeline: u32, rows: usize| {
            (7, i32::try_from(timeline).unwrap_or(i32::MAX), i64::try_from(rows).unwrap_or(i64::MAX))
        };
        match self.replaced {
            _ if self.is_primary(session) => of(self.timeline, self.ledger.rows.len()),
            Replaced::Follows => of(self.timeline, self.replayed),
            Replaced::Stranded | Replaced::GoesOn => of(self.timeline - 1, self.replayed + 1_000),
        }
    }

    fn is_primary(&self, session: usize) -> bool {
        self.sessions[session].host == self.primary
    }

    /// Whether its server is a primary that was replaced.
    fn is_replaced(&self, session: usize) -> bool {
        !self.is_primary(session) && self.replaced == Replaced::GoesOn
    }

    fn is_standby(&self, session: usize) -> bool {
        !self.is_primary(session) && self.replaced != Replaced::GoesOn
    }

    /// What is committed on the session's server.
    fn committed(&self, session: usize) -> &[Entry] {
        let rows = &self.ledger.rows;
        if self.is_primary(session) { rows } else { &rows[..self.replayed] }
    }

    /// Takes bytes of the client in.
    pub(crate) fn receive(&mut self, session: usize, bytes: impl IntoIterator<Item = u8>) {
        self.sessions[session].received.extend(bytes);
    }

    /// What the session has sent, to be taken out.
    pub(crate) fn sent(&mut self, session: usize) -> &mut Vec<u8> {
        &mut self.sessions[session].sent
    }

    /// The client is gone; messages that have arrived are still processed.
    pub(crate) fn hang_up(&mut self, session: usize) {
        self.sessions[session].is_hung_up = true;
    }

    /// Ends a session at once, with all that it has not committed.
    pub(crate) fn kill(&mut self, session: usize) {
        if !self.sessions[session].is_ended {
            self.sessions[session].is_ended = true;
            self.sessions[session].put_back = None;
            self.end_batch(session, false, false);
        }
    }

    /// From now on every call of this session fails with the SQLSTATE, and nothing but a new session helps.
    pub(crate) fn spoil(&mut self, session: usize, code: &'static str) {
        if self.sessions[session].is_started {
            self.sessions[session].spoilt = Some(code);
        }
    }

    /// Whether the session has ended.
    pub(crate) fn is_ended(&self, session: usize) -> bool {
        self.sessions[session].is_ended
    }

    /// A session of another program locks an account's row, unless it is locked.
    pub(crate) fn lock(&mut self, account: i32) {
        self.locks.entry(account).or_insert(Holder::Foreign);
    }

    /// The sessions of other programs release their locks.
    pub(crate) fn unlock(&mut self) {
        self.locks.retain(|_, holder| *holder != Holder::Foreign);
    }

    /// Nothing fails any more, and no other program holds a lock.
    pub(crate) fn calm_down(&mut self) {
        self.unlock();
        self.rejoin();
        self.failures.clear();
        self.call_failure = None;
        self.commit_failure = None;
        self.interjection = None;
    }

    /// What the session would do next; `None` without a whole message.
    pub(crate) fn next_work(&self, session: usize) -> Option<Work> {
        let session = &self.sessions[session];
        if session.is_ended {
            return None;
        }
        match session.next_tag() {
            None if session.is_hung_up => Some(Work::Other),
            None => None,
            Some(_) if session.has_failed => Some(Work::Other),
            Some(b'E') => {
                let (statement, parameters) = session.bound.as_ref()?;
                let calls =
                    if is_probe(statement, parameters) || matches!(statement.as_str(), "v" | "c" | "p") {
                        0
                    } else {
                        transactions(statement, parameters).len().max(1)
                    };
                Some(Work::Execute { calls, is_set: statement == "s" })
            }
            Some(b'S') => Some(Work::Sync { commits: session.transaction.rows.len() }),
            Some(_) => Some(Work::Other),
        }
    }

    /// Whether the session waits for a row that is still locked, and may wait on.
    pub(crate) fn is_blocked(&self, session: usize, now_us: u64) -> bool {
        let own = Holder::Session(session);
        let session = &self.sessions[session];
        session.waits.is_some_and(|(account, since_us)| {
            self.locks.get(&account).is_some_and(|holder| *holder != own)
                && now_us.saturating_sub(since_us) < session.lock_timeout_us
        })
    }

    /// Whether what the session has sent so far is to go out, as PostgreSQL does when it is ready again or ends.
    pub(crate) fn is_flushed(&self, session: usize) -> bool {
        let session = &self.sessions[session];
        session.is_ended || (session.calls == 0 && session.ran.is_empty() && session.bound.is_none())
    }

    /// The state of the session.
    pub(crate) fn view(&self, session: usize) -> SessionView<'_> {
        let own = Holder::Session(session);
        let session = &self.sessions[session];
        SessionView {
            is_started: session.is_started,
            has_failed: session.has_failed,
            waits: session.waits,
            uncommitted: &session.transaction.rows,
            locked: self
                .locks
                .iter()
                .filter(|(_, holder)| **holder == own)
                .map(|(account, _)| *account)
                .collect(),
            received_bytes: session.received.len(),
            sent_bytes: session.sent.len(),
        }
    }

    /// The accounts whose rows another program has locked.
    pub(crate) fn foreign_locks(&self) -> impl Iterator<Item = i32> {
        self.locks.iter().filter(|(_, holder)| **holder == Holder::Foreign).map(|(account, _)| *account)
    }

    /// When a session stops waiting for a lock, in monotonic microseconds.
    pub(crate) fn deadline_us(&self) -> u64 {
        let waits = self.sessions.iter().filter_map(|session| {
            session.waits.map(|(_, since_us)| since_us.saturating_add(session.lock_timeout_us))
        });
        waits.min().unwrap_or(u64::MAX)
    }

    /// Works on one message. False if there is none that it can work on.
    pub(crate) fn work(&mut self, session: usize, now_us: u64) -> bool {
        if self.sessions[session].is_ended {
            return false;
        }
        let Some((tag, body)) = self.sessions[session].next_message() else {
            if self.sessions[session].is_hung_up {
                self.kill(session);
            }
            return self.sessions[session].is_ended;
        };
        self.messages += 1;
        if let Some(message) = self.interjection.take_if(|_| self.sessions[session].is_started) {
            self.sessions[session].sent.extend(message);
        }
        if tag == b'S' && self.is_replaced(session) && !self.sessions[session].transaction.rows.is_empty() {
            // It is written here, and waits for a standby that is gone.
            self.sessions[session].put_back = Some((tag, body));
            return false;
        }
        if tag != b'E' || self.sessions[session].has_failed {
            self.answer(session, tag, &body);
            return true;
        }
        match self.execute(session, now_us) {
            Executed::Blocked => {
                self.sessions[session].put_back = Some((tag, body));
                return false;
            }
            Executed::Done => message(&mut self.sessions[session].sent, b'C', b"SELECT 1\0"),
            Executed::Failed(code) => self.fail(session, code),
        }
        self.sessions[session].waits = None;
        true
    }

    fn answer(&mut self, id: usize, tag: u8, body: &[u8]) {
        let is_standby = self.is_standby(id);
        let is_replaced = self.is_replaced(id);
        let session = &mut self.sessions[id];
        match tag {
            b'0' => {
                session.is_started = true;
                session.lock_timeout_us = u64::MAX;
                message(&mut session.sent, b'R', &0i32.to_be_bytes());
                if self.reports_standby {
                    let is = if is_standby { "on" } else { "off" };
                    message(&mut session.sent, b'S', format!("in_hot_standby\0{is}\0").as_bytes());
                    message(&mut session.sent, b'S', b"default_transaction_read_only\0off\0");
                }
                message(&mut session.sent, b'Z', b"I");
            }
            b'Q' if !body.starts_with(b"SHOW ")
                && let Some(code) = self.history_failure =>
            {
                error(&mut session.sent, "ERROR", code);
                message(&mut session.sent, b'Z', b"I");
            }
            b'Q' => {
                let is = if is_standby { "on" } else { "off" };
                let is_in_recovery = if is_standby { "t" } else { "f" };
                let timeline = if is_replaced { self.timeline - 1 } else { self.timeline };
                let timeline_text = timeline.to_string();
                let answer: &[Option<&[u8]>] = if body.starts_with(b"SHOW ") {
                    &[Some(is.as_bytes())]
                } else if body.starts_with(b"SELECT pg_catalog.pg_is_in_recovery()") {
                    &[Some(is_in_recovery.as_bytes())]
                } else {
                    session.told_timeline = (!is_standby).then_some(timeline);
                    &[Some(b"7"), (!is_standby).then_some(timeline_text.as_bytes()), Some(b"f")]
                };
                columns(&mut session.sent, &vec![oid::TEXT; answer.len()]);
                row(&mut session.sent, answer);
                message(&mut session.sent, b'C', b"SHOW\0");
                message(&mut session.sent, b'Z', b"I");
            }
            b'S' => self.sync(id),
            b'X' => {
                self.farewells += 1;
                self.kill(id);
            }
            b'B' => {
                let bound = read_bind(body);
                session.began_at.get_or_insert(self.messages);
                if session.has_failed {
                    session.skips_probe = is_probe(&bound.0, &bound.1);
                    session
                        .skipped
                        .extend(transactions(&bound.0, &bound.1).into_iter().map(|entry| entry.description));
                } else {
                    message(&mut session.sent, b'2', b"");
                    session.bound = Some(bound);
                }
            }
            b'E' => session.calls += usize::from(!session.skips_probe),
            b'P' | b'D' if session.has_failed => {}
            b'P' => message(&mut session.sent, b'1', b""),
            b'D' => describe(&mut session.sent, body, self.returns_text),
            other => panic!("no fake for the message {:?}", char::from(other)),
        }
    }

    /// The transaction is aborted at once; only its end is still awaited.
    fn fail(&mut self, id: usize, code: &'static str) {
        let is_read_only = code == READ_ONLY;
        let is_standby = self.is_standby(id);
        let session = &mut self.sessions[id];
        session.has_failed = true;
        session.transaction = Transaction::default();
        // All members of a set fail together; nothing else has run or is skipped as yet.
        let is_set = session.bound.as_ref().is_some_and(|(statement, _)| statement == "s");
        let first = if is_set { 0 } else { session.ran.len().saturating_sub(1) };
        for description in session.ran[first..].iter().chain(&session.skipped).cloned() {
            let is_first = session.calls == 1;
            let is_spoilt = session.spoilt == Some(code) || is_standby && is_read_only;
            let at = self.messages;
            self.failures_seen.push(Failure { description, is_first, is_spoilt, is_read_only, at });
        }
        session.met_spoilt =
            Some(code).filter(|_| session.spoilt == Some(code) || is_standby && is_read_only);
        error(&mut session.sent, "ERROR", code);
        self.release(id);
    }

    fn sync(&mut self, id: usize) {
        let has_work = !self.sessions[id].ran.is_empty();
        let commit_failure =
            if has_work && !self.sessions[id].has_failed { self.commit_failure.take() } else { None };
        if let Some(code) = commit_failure {
            error(&mut self.sessions[id].sent, "ERROR", code);
        }
        let commits = !self.sessions[id].has_failed && commit_failure.is_none();
        self.end_batch(id, true, commits);
        message(&mut self.sessions[id].sent, b'Z', b"I");
    }

    /// Commits or rolls back what the session has done since its last Sync.
    fn end_batch(&mut self, id: usize, is_synced: bool, is_committed: bool) {
        let session = &mut self.sessions[id];
        let transaction = std::mem::take(&mut session.transaction);
        if is_committed {
            for (account, balance_cents) in transaction.balances {
                if let Some((_, balance)) = self.ledger.accounts.get_mut(&account) {
                    *balance = balance_cents;
                }
            }
            self.ledger.rows.extend(transaction.rows);
        }
        let met_spoilt = session.met_spoilt.take();
        let is_read_only = met_spoilt == Some(READ_ONLY);
        let batch = Batch {
            is_spoilt: met_spoilt.is_some() && is_synced && (session.calls == 1 || is_read_only),
            is_read_only,
            may_be_spoilt: met_spoilt.is_some() && !is_synced,
            session: id,
            calls: std::mem::take(&mut session.calls),
            ran: std::mem::take(&mut session.ran),
            skipped: std::mem::take(&mut session.skipped),
            began_at: session.began_at.take().unwrap_or(self.messages),
            ended_at: self.messages,
            is_synced,
            is_committed,
        };
        self.batches.push(batch);
        session.has_failed = false;
        session.bound = None;
        session.waits = None;
        self.release(id);
    }

    fn release(&mut self, id: usize) {
        self.locks.retain(|_, holder| *holder != Holder::Session(id));
    }

    fn execute(&mut self, id: usize, now_us: u64) -> Executed {
        let Some((statement, parameters)) = self.sessions[id].bound.clone() else {
            return Executed::Failed("34000");
        };
        let transactions = transactions(&statement, &parameters);
        let is_probe = is_probe(&statement, &parameters);
        if let Some(code) = self.sessions[id].spoilt
            && !matches!(statement.as_str(), "c" | "p")
        {
            match statement.as_str() {
                "e" if !is_probe => self.sessions[id].calls += 1,
                _ if is_probe => {}
                _ => self.note_run(id, &transactions, 0),
            }
            return Executed::Failed(code);
        }
        if self.is_standby(id) && matches!(statement.as_str(), "s" | "t") {
            if !is_probe {
                self.note_run(id, &transactions, 0);
            }
            return Executed::Failed(READ_ONLY);
        }
        if is_probe {
            let empty = write_array(&[]);
            let columns: &[Option<&[u8]>] = match statement.as_str() {
                "s" => &[Some(&empty), Some(&empty)],
                "t" => &[None, None],
                _ => &[None],
            };
            row(&mut self.sessions[id].sent, columns);
            return Executed::Done;
        }
        match self.lock_rows(id, &statement, &transactions, now_us) {
            Executed::Done => {}
            Executed::Blocked => return Executed::Blocked,
            Executed::Failed(code) => {
                self.note_run(id, &transactions, 0);
                return Executed::Failed(code);
            }
        }
        match statement.as_str() {
            "v" => {
                let names = read_array(&parameters[0], text);
                let values = read_array(&parameters[1], text);
                let lock_timeout = names.iter().zip(values).find(|(name, _)| *name == "lock_timeout");
                let is_read_only = u8::from(self.is_standby(id));
                let session = &mut self.sessions[id];
                session.read_timeline = session.told_timeline;
                session.lock_timeout_us =
                    lock_timeout.and_then(|(_, ms)| ms.parse::<u64>().ok()).map_or(u64::MAX, |ms| ms * 1_000);
                let set = i64::try_from(names.len()).unwrap_or(i64::MAX).to_be_bytes();
                row(&mut session.sent, &[Some(&[1]), Some(&[is_read_only]), Some(&set)]);
                return Executed::Done;
            }
            "p" => {
                let (system, timeline, log_bytes) = self.position(id);
                let (system, log_bytes) = (system.to_be_bytes(), log_bytes.to_be_bytes());
                let columns = [Some(&system[..]), Some(&timeline.to_be_bytes()), Some(&log_bytes)];
                row(&mut self.sessions[id].sent, &columns);
                return Executed::Done;
            }
            "c" => {
                let out = &mut self.sessions[id].sent;
                for account in self.ledger.accounts.keys() {
                    row(out, &[Some(&account.to_be_bytes())]);
                }
                return Executed::Done;
            }
            "e" => {
                self.sessions[id].calls += 1;
                if let Some(code) = self.call_failure.take() {
                    return Executed::Failed(code);
                }
                let text = self.statement(id, number(&parameters[0])).map(|text| format!("\u{1}{text}"));
                row(&mut self.sessions[id].sent, &[text.as_deref().map(str::as_bytes)]);
                return Executed::Done;
            }
            _ => {}
        }
        let mut outcomes = Vec::new();
        for (position, transaction) in transactions.iter().enumerate() {
            let planned = self.failures.iter().position(|(text, _)| *text == transaction.description);
            if let Some(code) = planned.map(|at| self.failures.remove(at).1).or(self.call_failure.take()) {
                self.note_run(id, &transactions, position);
                return Executed::Failed(code);
            }
            outcomes.push(self.insert(id, transaction.clone()));
        }
        self.note_run(id, &transactions, transactions.len());
        let out = &mut self.sessions[id].sent;
        if statement == "s" {
            let (limits, balances): (Vec<_>, Vec<_>) = outcomes.into_iter().unzip();
            row(out, &[Some(&write_array(&balances)), Some(&write_array(&limits))]);
        } else {
            for (limit, balance) in outcomes {
                let columns = [balance, limit].map(|amount| amount.map(i64::to_be_bytes));
                row(out, &columns.each_ref().map(|column| column.as_ref().map(<[u8; 8]>::as_slice)));
            }
        }
        Executed::Done
    }

    /// Notes a call of these transactions, the one at `failed` being the last that ran.
    fn note_run(&mut self, id: usize, transactions: &[Entry], failed: usize) {
        let session = &mut self.sessions[id];
        session.calls += transactions.len();
        let mut descriptions = transactions.iter().map(|transaction| transaction.description.clone());
        let ran: Vec<String> = descriptions.by_ref().take(failed + 1).collect();
        session.skipped.extend(descriptions);
        self.ran.extend(ran.iter().cloned());
        session.ran.extend(ran);
    }

    /// Locks the rows that the transactions change, in the order in which the procedures do.
    fn lock_rows(&mut self, id: usize, statement: &str, transactions: &[Entry], now_us: u64) -> Executed {
        let mut wanted: Vec<i32> = transactions
            .iter()
            // One by one, a debit that is refused at sight locks nothing; a set locks all of its accounts first.
            .filter(|transaction| statement == "s" || self.is_within_limit(id, transaction))
            .map(|transaction| transaction.account)
            .filter(|account| self.ledger.accounts.contains_key(account))
            .collect();
        if statement == "s" {
            wanted.dedup();
            let runs = wanted.len();
            wanted.sort_unstable();
            wanted.dedup();
            if wanted.len() < runs {
                let text = "the transactions of one account do not stand together in a set";
                self.offences.push(Violation::new(Check::SetOrder, text));
            }
        }
        if self.is_replaced(id) {
            // The locks are those of the primary. What would hold one here is never committed.
            return Executed::Done;
        }
        for account in wanted {
            // Of those that keep to it, no two deadlock. A deadlock itself needs two long batches that meet in the middle,
            // which ten thousand worlds did not have.
            let own = Holder::Session(id);
            let highest =
                self.locks.iter().filter(|&(_, holder)| *holder == own).map(|(&held, _)| held).max();
            if self.locks.get(&account) != Some(&own) && highest.is_some_and(|highest| highest > account) {
                let text = "a batch locks the rows of its accounts out of their order";
                self.offences.push(Violation::new(Check::LockOrder, text));
            }
            match *self.locks.entry(account).or_insert(Holder::Session(id)) {
                Holder::Session(holder) if holder == id => {}
                Holder::Session(_) | Holder::Foreign => return self.wait(id, account, now_us),
            }
        }
        Executed::Done
    }

    fn wait(&mut self, id: usize, account: i32, now_us: u64) -> Executed {
        let since_us = match self.sessions[id].waits {
            Some((waits_for, since_us)) if waits_for == account => since_us,
            Some(_) | None => now_us,
        };
        self.sessions[id].waits = Some((account, since_us));
        let mut account = account;
        for _ in 0..self.sessions.len() {
            let Some(&Holder::Session(holder)) = self.locks.get(&account) else { break };
            if holder == id {
                self.offences.push(Violation::new(Check::LockOrder, "two batches wait for each other"));
                return Executed::Failed(DEADLOCK_DETECTED);
            }
            let Some((next, _)) = self.sessions[holder].waits else { break };
            account = next;
        }
        if now_us.saturating_sub(since_us) >= self.sessions[id].lock_timeout_us {
            return Executed::Failed(LOCK_NOT_AVAILABLE);
        }
        Executed::Blocked
    }

    fn balance(&self, id: usize, account: i32) -> Option<(i64, i64)> {
        let &(limit, newest) = self.ledger.accounts.get(&account)?;
        let replayed = || self.committed(id).iter().rev().find(|entry| entry.account == account);
        let committed =
            if self.is_primary(id) { newest } else { replayed().map_or(0, |entry| entry.balance_cents) };
        Some((limit, *self.sessions[id].transaction.balances.get(&account).unwrap_or(&committed)))
    }

    fn is_within_limit(&self, id: usize, transaction: &Entry) -> bool {
        self.balance(id, transaction.account).is_some_and(|(limit, balance)| {
            transaction.value_cents > 0 || balance + transaction.value_cents >= -limit
        })
    }

    /// The procedure: limit and balance as `InsertTransacao` returns them.
    fn insert(&mut self, id: usize, transaction: Entry) -> (Option<i64>, Option<i64>) {
        let Some((limit, balance)) = self.balance(id, transaction.account) else { return (None, None) };
        if !self.is_within_limit(id, &transaction) {
            return (Some(limit), None);
        }
        let balance_cents = balance + transaction.value_cents;
        let session = &mut self.sessions[id].transaction;
        session.balances.insert(transaction.account, balance_cents);
        session.rows.push(Entry { balance_cents, ..transaction });
        (Some(limit), Some(balance_cents))
    }

    /// The procedure: balance and newest transactions, as this session sees them.
    fn statement(&self, id: usize, account: i32) -> Option<String> {
        let (limit, balance) = self.balance(id, account)?;
        let rows = self.committed(id).iter().chain(&self.sessions[id].transaction.rows);
        let newest = rows.rev().filter(|entry| entry.account == account).take(STATEMENT_ROWS);
        Some(statement_text(limit, balance, newest))
    }
}

/// Rows of a statement.
pub(crate) const STATEMENT_ROWS: usize = 10;

/// A statement as the database renders it, but for its times, which no answer depends on.
pub(crate) fn statement_text<'a>(
    limit: i64,
    balance: i64,
    newest: impl Iterator<Item = &'a Entry>,
) -> String {
    let rows: Vec<String> = newest
        .map(|entry| {
            let kind = if entry.value_cents < 0 { "d" } else { "c" };
            let (value, description) = (entry.value_cents.abs(), &entry.description);
            format!(r#"{{"tipo": "{kind}", "valor": {value}, "descricao": "{description}"}}"#)
        })
        .collect();
    let rows = rows.join(", ");
    format!(r#"{{"saldo": {{"total": {balance}, "limite": {limit}}}, "ultimas_transacoes": [{rows}]}}"#)
}

impl Session {
    /// The tag of the next message, if that is whole; `0` stands for the start-up message.
    fn next_tag(&self) -> Option<u8> {
        if let Some((tag, _)) = &self.put_back {
            return Some(*tag);
        }
        let tag_bytes = usize::from(self.is_started);
        let at = |index: usize| self.received.get(tag_bytes + index).copied().map(usize::from);
        let len_bytes = (0..4).try_fold(0, |sum, index| Some(sum * 256 + at(index)?))?;
        let is_whole = self.received.len() >= tag_bytes + len_bytes;
        is_whole.then(|| if self.is_started { self.received[0] } else { b'0' })
    }

    /// The next message, if it is whole, with its tag; `0` stands for the start-up message, which has none.
    fn next_message(&mut self) -> Option<(u8, Vec<u8>)> {
        if let Some(message) = self.put_back.take() {
            return Some(message);
        }
        let tag_bytes = usize::from(self.is_started);
        let received = self.received.make_contiguous();
        let len_field = received.get(tag_bytes..tag_bytes + 4)?;
        let len_bytes = tag_bytes + u32::from_be_bytes(len_field.try_into().ok()?) as usize;
        if received.len() < len_bytes {
            return None;
        }
        let tag = if self.is_started { received[0] } else { b'0' };
        let body = received[tag_bytes + 4..len_bytes].to_vec();
        self.received.drain(..len_bytes);
        Some((tag, body))
    }
}

fn number(bytes: &[u8]) -> i32 {
    bytes.iter().fold(0, |sum, &byte| (sum << 8) | i32::from(byte))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether it is a call for no account.
fn is_probe(statement: &str, parameters: &[Vec<u8>]) -> bool {
    match statement {
        "s" => transactions(statement, parameters).is_empty(),
        "t" | "e" => parameters.first().is_none_or(Vec::is_empty),
        _ => false,
    }
}

/// The transactions that a call of this statement asks for.
fn transactions(statement: &str, parameters: &[Vec<u8>]) -> Vec<Entry> {
    let entry = |account: i32, value: i32, kind: &[u8], description: String| Entry {
        account,
        description,
        value_cents: i64::from(value) * if kind == b"d" { -1 } else { 1 },
        balance_cents: 0,
    };
    match (statement, parameters) {
        ("t", [account, value, kind, description]) => {
            vec![entry(number(account), number(value), kind, text(description))]
        }
        ("s", [accounts, values, kinds, descriptions]) => {
            let (accounts, values) = (read_array(accounts, number), read_array(values, number));
            let (kinds, descriptions) = (read_array(kinds, <[u8]>::to_vec), read_array(descriptions, text));
            let rest = values.into_iter().zip(kinds).zip(descriptions);
            accounts
                .into_iter()
                .zip(rest)
                .map(|(account, ((value, kind), description))| entry(account, value, &kind, description))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// Statement name and parameters of a Bind whose values are all binary; NULL is empty.
fn read_bind(body: &[u8]) -> (String, Vec<Vec<u8>>) {
    let mut rest = body;
    let _portal = take_string(&mut rest);
    let name = take_string(&mut rest);
    let formats = take_number(&mut rest, 2);
    take(&mut rest, formats * 2);
    let count = take_number(&mut rest, 2);
    let parameters = (0..count).map(|_| match take_number(&mut rest, 4) {
        0xffff_ffff => Vec::new(),
        len_bytes => take(&mut rest, len_bytes).to_vec(),
    });
    (name, parameters.collect())
}

/// The elements of an array without NULL.
fn read_array<T>(bytes: &[u8], read: impl Fn(&[u8]) -> T) -> Vec<T> {
    let mut rest = bytes;
    let [_dimensions, _has_null, _element_type, len, _lower_bound] =
        [(); 5].map(|()| take_number(&mut rest, 4));
    let elements = (0..len).map(|_| {
        let len_bytes = take_number(&mut rest, 4);
        read(take(&mut rest, len_bytes))
    });
    elements.collect()
}

/// A `bigint[]` as PostgreSQL sends it.
fn write_array(elements: &[Option<i64>]) -> Vec<u8> {
    let len = i32::try_from(elements.len()).unwrap_or(0);
    let mut bytes: Vec<u8> =
        [1, 1, 20, len, 1].iter().flat_map(|number: &i32| number.to_be_bytes()).collect();
    for element in elements {
        match element {
            Some(number) => {
                bytes.extend(8i32.to_be_bytes());
                bytes.extend(number.to_be_bytes());
            }
            None => bytes.extend((-1i32).to_be_bytes()),
        }
    }
    bytes
}

fn take<'a>(rest: &mut &'a [u8], len_bytes: usize) -> &'a [u8] {
    let (taken, after) = rest.split_at(len_bytes);
    *rest = after;
    taken
}

fn take_number(rest: &mut &[u8], len_bytes: usize) -> usize {
    take(rest, len_bytes).iter().fold(0, |sum, &byte| sum * 256 + usize::from(byte))
}

fn take_string(rest: &mut &[u8]) -> String {
    let len_bytes = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
    let string = text(take(rest, len_bytes));
    take(rest, 1);
    string
}

/// Appends a backend message.
pub(crate) fn message(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.push(tag);
    out.extend_from_slice(&len_field(body.len() + 4));
    out.extend_from_slice(body);
}

/// Appends what a Describe of a prepared statement is answered with: the types of its parameters and of its result.
fn describe(out: &mut Vec<u8>, body: &[u8], returns_text: bool) {
    let name = body.strip_prefix(b"S").and_then(|name| name.strip_suffix(b"\0"));
    let described = STATEMENTS.iter().find(|statement| Some(statement.name.as_bytes()) == name);
    let Some((statement, types)) = described.and_then(|found| Some((found, found.column_types?))) else {
        panic!("a Describe of {body:?}, which no lane prepares");
    };
    let mut parameters = len_field(statement.parameter_types.len())[2..].to_vec();
    parameters.extend(statement.parameter_types.iter().flat_map(|type_oid| type_oid.to_be_bytes()));
    message(out, b't', &parameters);
    let is_replaced = returns_text && statement.name == "t";
    columns(out, if is_replaced { &[oid::TEXT, oid::TEXT] } else { types });
}

/// Appends a `RowDescription`, of which nothing is known but how many columns there are, and their types.
fn columns(out: &mut Vec<u8>, types: &[Oid]) {
    let mut body = len_field(types.len())[2..].to_vec();
    for type_oid in types {
        body.extend_from_slice(b"a\0\0\0\0\0\0\0");
        body.extend_from_slice(&type_oid.to_be_bytes());
        body.extend_from_slice(b"\xff\xff\0\0\0\0\0\0");
    }
    message(out, b'T', &body);
}

/// Appends an `ErrorResponse`; with the severity FATAL it is the last word of a session.
pub(crate) fn error(out: &mut Vec<u8>, severity: &str, code: &str) {
    message(out, b'E', format!("S{severity}\0V{severity}\0C{code}\0Mplanned\0\0").as_bytes());
}

fn row(out: &mut Vec<u8>, columns: &[Option<&[u8]>]) {
    let mut body = u16::try_from(columns.len()).unwrap_or(0).to_be_bytes().to_vec();
    for column in columns {
        match column {
            Some(bytes) => {
                body.extend_from_slice(&len_field(bytes.len()));
                body.extend_from_slice(bytes);
            }
            None => body.extend_from_slice(&(-1i32).to_be_bytes()),
        }
    }
    message(out, b'D', &body);
}

/// What is made here is far shorter than four gigabytes.
fn len_field(len_bytes: usize) -> [u8; 4] {
    u32::try_from(len_bytes).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server and two sessions that have started, with a lock timeout of 50 ms.
    fn two_sessions() -> (Postgres, [usize; 2]) {
        let mut postgres = Postgres::new();
        let sessions = [(); 2].map(|()| {
            let session = postgres.connect();
            postgres.receive(session, len_field(8));
            postgres.receive(session, 196_608i32.to_be_bytes());
            assert!(postgres.work(session, 0));
            postgres.sessions[session].lock_timeout_us = 50_000;
            session
        });
        (postgres, sessions)
    }

    /// The messages of one call of `InsertTransacao`.
    fn debit(account: i32, description: &str) -> Vec<u8> {
        let mut body = b"\0t\0\0\0\0\x04".to_vec();
        let (account, value) = (account.to_be_bytes(), 10i32.to_be_bytes());
        for parameter in [&account[..], &value, b"d", description.as_bytes()] {
            body.extend(len_field(parameter.len()));
            body.extend(parameter);
        }
        let mut out = Vec::new();
        message(&mut out, b'B', &body);
        message(&mut out, b'E', b"\0\0\0\0\0");
        out
    }

    fn run(postgres: &mut Postgres, session: usize, bytes: Vec<u8>, now_us: u64) {
        postgres.receive(session, bytes);
        while postgres.work(session, now_us) {}
    }

    fn sync() -> Vec<u8> {
        let mut out = Vec::new();
        message(&mut out, b'S', b"");
        out
    }

    fn rows(postgres: &Postgres) -> Vec<&str> {
        postgres.ledger.rows.iter().map(|entry| entry.description.as_str()).collect()
    }

    #[test]
    fn a_session_waits_for_a_row_until_the_other_one_commits() {
        let (mut postgres, [a, b]) = two_sessions();
        run(&mut postgres, a, debit(1, "a"), 0);
        run(&mut postgres, b, [debit(1, "b"), sync()].concat(), 0);
        assert_eq!(rows(&postgres), [""; 0]);
        run(&mut postgres, a, sync(), 0);
        run(&mut postgres, b, Vec::new(), 0);
        assert_eq!(rows(&postgres), ["a", "b"]);
        assert_eq!(postgres.ledger.accounts[&1], (1_000, -20));
    }

    #[test]
    fn a_session_that_hangs_up_gives_back_its_rows_and_what_it_did() {
        let (mut postgres, [a, b]) = two_sessions();
        run(&mut postgres, a, debit(1, "a"), 0);
        run(&mut postgres, b, [debit(1, "b"), sync()].concat(), 0);
        postgres.hang_up(a);
        run(&mut postgres, a, Vec::new(), 0);
        run(&mut postgres, b, Vec::new(), 0);
        assert_eq!(rows(&postgres), ["b"]);
    }

    #[test]
    fn a_demoted_server_commits_nothing_more() {
        let (mut postgres, [a, b]) = two_sessions();
        run(&mut postgres, a, debit(1, "a"), 0);
        run(&mut postgres, b, debit(2, "b"), 0);
        run(&mut postgres, b, sync(), 0);
        postgres.switch_over(false);
        run(&mut postgres, a, sync(), 0);
        run(&mut postgres, b, [debit(3, "c"), sync()].concat(), 0);
        assert_eq!(rows(&postgres), ["b"]);
        assert!(postgres.is_ended(a), "its transaction was open");
        assert!(!postgres.is_ended(b), "a pooler keeps it");
    }

    #[test]
    fn a_wait_for_a_row_has_an_end() {
        let (mut postgres, [a, b]) = two_sessions();
        run(&mut postgres, a, debit(1, "a"), 0);
        run(&mut postgres, b, [debit(1, "b"), sync()].concat(), 0);
        assert_eq!(postgres.deadline_us(), 50_000);
        run(&mut postgres, b, Vec::new(), 50_000);
        assert!(String::from_utf8_lossy(postgres.sent(b)).contains(LOCK_NOT_AVAILABLE));
        run(&mut postgres, a, sync(), 50_000);
        assert_eq!(rows(&postgres), ["a"]);
    }

    #[test]
    fn sessions_that_wait_for_each_other_are_an_offence_and_one_of_them_fails() {
        let (mut postgres, [a, b]) = two_sessions();
        run(&mut postgres, a, debit(1, "a"), 0);
        run(&mut postgres, b, debit(2, "b"), 0);
        run(&mut postgres, a, [debit(2, "c"), sync()].concat(), 0);
        run(&mut postgres, b, [debit(1, "d"), sync()].concat(), 0);
        let texts: Vec<&str> = postgres.offences.iter().map(|offence| offence.text.as_str()).collect();
        let out_of_order = "a batch locks the rows of its accounts out of their order";
        assert_eq!(texts, [out_of_order, "two batches wait for each other"]);
        run(&mut postgres, a, Vec::new(), 0);
        assert_eq!(rows(&postgres), ["a", "c"]);
    }
}
