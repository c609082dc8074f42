//! CORE: one connection to PostgreSQL and what is on it: its life from down to ready, the batches in flight, and the
//! answers held back until their batch is committed.

use core::net::SocketAddr;
use std::collections::VecDeque;
use std::fmt::Display;
use std::io::ErrorKind;
use std::time::Duration;

use proto_pg::{
    Channel, CloseReason, ConnectStep, Connection, Connector, Event, Failure, RoundError, Row, RowError,
    ServerError, SqlState, Statement, TargetMismatch, TextRow, Value, Verdict, oid,
};

use crate::bank::{Accounts, Call, Outcome, Reject, Unavailable};
use crate::buf::Pipe;
use crate::config::{BATCH_CALLS_LIMIT, Config};
use crate::engine::complaints::Complaints;
use crate::metrics::LaneState;
use crate::now::Now;
use crate::slots::Slot;

/// One call with what is needed to answer it, to run it again, or to give it up.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    /// Counts up: the order in which the calls came.
    pub number: u64,
    /// The client that awaits the answer.
    pub slot: Slot,
    /// What to do.
    pub call: Call,
    /// When its wait ends if it was not sent before, in monotonic microseconds.
    pub send_deadline_us: u64,
    /// How often it was sent, but for those that met a spoilt session.
    pub attempts: u8,
    /// How many sessions were left because it met them spoilt.
    pub spoilt_sessions: u8,
    /// It was in a batch that was rolled back, so it now goes by itself: only the culprit fails again.
    pub is_alone: bool,
}

/// One connection to PostgreSQL.
///
/// The shell does what [`Lane::poll_step`] says, reports [`Lane::resolved`], [`Lane::connected`] or [`Lane::connect_failed`],
/// and moves bytes through its [`Pipe`]. The engine drains [`Lane::poll_event`] to `None` after each input.
pub struct Lane {
    state: State,
    /// One entry for each Sync that is not answered yet, oldest first. Empty unless ready.
    batches: VecDeque<Batch>,
    /// The tickets of the transactions that were sent as sets, oldest first; each batch has at most one set.
    sets: VecDeque<Ticket>,
    /// The members of a set that ended without an answer, to be told one by one.
    ended: VecDeque<(Ticket, End)>,
    /// The answers of the oldest batch, provisional until it is committed.
    held: VecDeque<Held>,
    /// The bytes of held statements.
    held_bytes: Vec<u8>,
    /// The batch of the held answers is committed: they may go.
    is_releasing: bool,
    account_ids: Vec<i32>,
    /// Why the session can do nothing more: it takes no more batches, and is left once those in flight have ended.
    spoilt: Option<CloseReason>,
    /// A call of the oldest batch has failed because the server takes no writes.
    is_batch_demoted: bool,
    /// The history of its server, if that has told it.
    history: Option<History>,
    /// The session before was left for that, and no batch was committed since.
    is_suspect: bool,
    /// Whether the last probe was served. The log-in counts as one.
    is_serving: bool,
    /// Where to connect, and when.
    connector: Connector,
    /// What the bytes of its connection pass through.
    channel: Channel,
    /// Why the socket has ended. The connection closes once everything that arrived before has been looked at, since
    /// each answer in it is one doubt less.
    end: Option<CloseReason>,
    complaints: Complaints,
}

enum State {
    /// No socket; the connector knows what is next.
    Down,
    /// The shell looks a name up, or is connecting.
    Connecting,
    /// On the way to a session that serves.
    Starting { connection: Connection<Asked>, deadline_us: u64, stage: Stage },
    /// Takes batches.
    Ready { connection: Connection<Asked>, probe_at_us: u64 },
}

/// How far a session is that starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Logging in, preparing the statements, and asking whether it is what `target_session_attrs` wants.
    Judging,
    /// Asking for the server's history.
    Placing,
    /// Making the settings and reading the accounts.
    SettingUp,
}

/// Which line of history a server is on. Each promotion of a standby begins the next timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// The same for a primary and all its standbys, and for no other servers.
    pub system: String,
    /// Counts promotions.
    pub timeline: u32,
    /// The server has standbys, and a table of the bank is UNLOGGED, so that it is empty there.
    pub is_lost_in_failover: bool,
}

impl History {
    /// Whether a server with this history was replaced by one with the other.
    pub fn is_older_than(&self, other: &History) -> bool {
        self.system == other.system && self.timeline < other.timeline
    }
}

impl State {
    fn connection(&mut self) -> Option<&mut Connection<Asked>> {
        match self {
            State::Down | State::Connecting => None,
            State::Starting { connection, .. } | State::Ready { connection, .. } => Some(connection),
        }
    }
}

/// What a result belongs to.
#[derive(Clone, Copy, Debug)]
pub enum Asked {
    /// Whether the session is what `target_session_attrs` asks for, while starting.
    Fitness,
    /// The server's history, while starting.
    History,
    /// The settings of the session, while starting.
    Settings,
    /// The list of accounts, while starting or in a probe.
    Accounts,
    /// A call of a probe: it only has to succeed.
    Probe,
    /// A client's call.
    Call(Ticket),
    /// The transactions of a batch as one call; their tickets are in the lane's `sets`.
    Set {
        /// How many.
        len: usize,
    },
}

struct Batch {
    /// With those of its set; 0 is a probe.
    calls: usize,
    set_len: usize,
    /// A probe that has read the accounts.
    reads_accounts: bool,
    deadline_us: u64,
}

/// How a call ended that has no answer.
enum End {
    Failed(ServerError),
    RolledBack,
    /// Its batch was rolled back because the server takes no writes.
    Demoted,
    InDoubt,
}

struct Held {
    ticket: Ticket,
    result: HeldResult,
}

enum HeldResult {
    Transaction {
        balance_cents: Option<i64>,
        limit_cents: Option<i64>,
    },
    /// Where the statement ends in `held_bytes`; it starts where the one before it ended. `None`: no such account.
    Statement {
        bytes: Option<std::ops::Range<usize>>,
    },
}

/// What a lane reports to the engine.
pub enum LaneEvent<'a> {
    /// The server has told its history; before it is ready.
    Placed(History),
    /// It takes batches from now on.
    Ready(Accounts),
    /// A probe was served; with the ids of the accounts, in ascending order, if it has read them.
    Probed(Option<&'a [i32]>),
    /// The call's batch is committed; this is its answer. Final.
    Answered(Ticket, Outcome<'a>),
    /// The call is known not to have run and is worth another attempt, by itself.
    RunAgain(Ticket),
    /// The call has no result. Final.
    Unavailable(Ticket, Unavailable),
    /// The lane is down and has no socket any more.
    Closed {
        /// Why.
        reason: CloseReason,
        /// It was ready. Otherwise this was one of several hosts and addresses, and is told with the others.
        was_ready: bool,
    },
}

impl Lane {
    /// A lane that wants to connect at once. `seed` spreads the waits of several lanes.
    pub fn new(config: &Config, seed: u64) -> Lane {
        Lane {
            state: State::Down,
            batches: VecDeque::with_capacity(config.batches_in_flight_max + 1),
            sets: VecDeque::with_capacity(config.batch_calls_max * config.batches_in_flight_max),
            ended: VecDeque::new(),
            held: VecDeque::with_capacity(config.batch_calls_max),
            held_bytes: Vec::new(),
            is_releasing: false,
            account_ids: Vec::new(),
            spoilt: None,
            is_batch_demoted: false,
            history: None,
            is_suspect: false,
            is_serving: false,
            connector: Connector::new(config.database_connector.clone(), seed),
            channel: Channel::default(),
            end: None,
            complaints: Complaints::default(),
        }
    }

    /// Whether [`Lane::poll_step`] has something to say.
    pub fn wants_step(&self, now: Now) -> bool {
        matches!(self.state, State::Down) && now.is_past(self.connect_deadline_us())
    }

    /// What the shell is to do now, if the lane wants anything. While it looks a name up or connects, the lane is connecting.
    ///
    /// `served` is the host where another lane is served: it is tried first, since only one of them takes writes.
    pub fn poll_step(&mut self, served: Option<usize>, now: Now) -> Option<ConnectStep> {
        if let Some(host) = served {
            self.connector.prefer(host);
        }
        let step = self.connector.poll_step(Duration::from_micros(now.monotonic_us));
        if let Some(ConnectStep::Resolve { .. } | ConnectStep::Connect(_)) = step {
            self.state = State::Connecting;
        }
        step
    }

    /// The addresses of the name that was to be looked up.
    pub fn resolved(&mut self, addresses: Vec<SocketAddr>) {
        self.connector.resolved(Ok::<_, String>(addresses));
        self.state = State::Down;
    }

    /// Whether a look-up or attempt to connect has taken too long; the owner reports [`Lane::connect_failed`].
    pub fn is_connect_overdue(&self, now: Now) -> bool {
        matches!(self.state, State::Connecting) && now.is_past(self.connect_deadline_us())
    }

    /// The socket is connected: log in.
    pub fn connected(&mut self, config: &Config, now: Now) {
        self.account_ids.clear();
        let mut connection = Connection::new(&config.database_session, &STATEMENTS, config.lane_limits())
            .with_policy(config.database_authentication.clone());
        // No procedure of the bank begins one: whatever does has left the batch in doubt.
        connection.forbid_transaction_blocks();
        match self.connector.host().map(|host| config.database_channel.open(host)) {
            Some(Ok(channel)) => self.channel = channel,
            // The configuration has opened one for each.
            Some(Err(_)) | None => connection.close(CloseReason::Other("there is no such host")),
        }
        self.channel.exchange(&mut connection);
        let deadline_us = now.after_ms(config.answer_timeout_ms);
        self.state = State::Starting { connection, deadline_us, stage: Stage::Judging };
        self.history = None;
    }

    /// The look-up or the attempt to connect failed: the next address or host is tried, or if there is none, a wait begins.
    pub fn connect_failed(&mut self, problem: impl Display) {
        self.connector.failed(Failure::Address, problem);
        self.state = State::Down;
    }

    /// Logs why a round of all hosts came to nothing.
    pub fn complain_of_round(&mut self, index: usize, error: &RoundError, now: Now) {
        for problem in &error.problems {
            self.complain(index, &problem.to_string(), now);
        }
        if let Some(remedy) = error.remedy {
            self.complain(index, &format!("DATABASE_URL: {remedy}"), now);
        }
    }

    /// Logs why its session ended.
    pub fn complain_of_session(&mut self, index: usize, reason: &CloseReason, now: Now) {
        let problem = format!("{}: {reason}{}", self.connector.target(), remedy(reason));
        self.complain(index, &problem, now);
    }

    /// Logs why there is no connection: at once if it is news, else now and then.
    fn complain(&mut self, index: usize, problem: &str, now: Now) {
        if self.complaints.is_news(problem, now) {
            log::warn!("lane {index} is down: {problem}");
        }
    }

    fn connect_deadline_us(&self) -> u64 {
        let micros = |deadline: Duration| u64::try_from(deadline.as_micros()).unwrap_or(u64::MAX);
        self.connector.deadline().map_or(u64::MAX, micros)
    }

    /// Where its session is, if it takes batches there; as a position in the list of hosts.
    pub fn served_host(&self) -> Option<usize> {
        (self.is_ready() && self.spoilt.is_none()).then(|| self.connector.host_position())
    }

    /// The host of its last session or attempt, as a position in the list.
    pub fn last_host(&self) -> usize {
        self.connector.host_position()
    }

    /// Leaves a server that another one has replaced: at once, unless something is in flight.
    pub fn leave_old_timeline(&mut self, newest: &History) {
        if self.history.as_ref().is_some_and(|history| history.is_older_than(newest)) {
            match self.state {
                State::Starting { .. } => self.close(CloseReason::Other(OLD_TIMELINE)),
                State::Ready { .. } => self.leave(&CloseReason::Other(OLD_TIMELINE)),
                State::Down | State::Connecting => {}
            }
        }
    }

    /// Leaves the session for this reason: it takes no more batches, and ends once those in flight have ended.
    pub fn leave(&mut self, reason: &CloseReason) {
        if self.is_ready() && self.spoilt.is_none() {
            self.spoilt = Some(reason.clone());
            self.leave_if_spoilt();
        }
    }

    /// Its session, while there is one.
    #[cfg(test)]
    pub(crate) fn connection(&mut self) -> Option<&mut Connection<Asked>> {
        self.state.connection()
    }

    /// Whether the socket has ended and [`Lane::poll_event`] is yet to say so.
    pub fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// Queues Terminate, which tells PostgreSQL that the session ends.
    pub fn terminate(&mut self) {
        if let Some(connection) = self.state.connection() {
            connection.terminate();
            self.channel.exchange(connection);
        }
    }

    /// Whether the shell is to keep a socket, connecting or connected.
    pub fn wants_socket(&self) -> bool {
        !matches!(self.state, State::Down)
    }

    /// Whether it takes calls at all.
    pub fn is_ready(&self) -> bool {
        matches!(&self.state, State::Ready { connection, .. } if connection.is_ready())
    }

    /// Whether it is ready, and the last probe was served.
    pub fn is_serving(&self) -> bool {
        self.is_ready() && self.is_serving
    }

    /// How far it is, for the metrics.
    pub fn metered_state(&self) -> LaneState {
        match &self.state {
            State::Down => LaneState::Down,
            State::Connecting => LaneState::Connecting,
            State::Starting { .. } => LaneState::Starting,
            State::Ready { connection, .. } if connection.is_ready() => LaneState::Ready,
            // Closed, and about to fall.
            State::Ready { .. } => LaneState::Down,
        }
    }

    /// Whether it takes a batch now.
    pub fn can_take_batch(&self, config: &Config) -> bool {
        let has_room = self.batches.len() < config.batches_in_flight_max;
        self.is_ready() && self.spoilt.is_none() && has_room
    }

    /// Calls that were sent and whose batch has not ended.
    pub fn in_flight_calls(&self) -> usize {
        self.batches.iter().map(|batch| batch.calls).sum()
    }

    /// Calls, members of a set, and deadline in monotonic microseconds of each batch that is out, oldest first; a probe has no
    /// call.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn batches(&self) -> impl DoubleEndedIterator<Item = (usize, usize, u64)> {
        self.batches.iter().map(|batch| (batch.calls, batch.set_len, batch.deadline_us))
    }

    /// How many answers it holds until their batch is committed.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn held_answers(&self) -> usize {
        self.held.len()
    }

    /// Sends calls as one batch: one implicit transaction, one commit. The caller has sorted them by account, or two
    /// batches may deadlock. From `group_calls_min` transactions on, these go as one set, ahead of the statements.
    ///
    /// # Panics
    /// Unless [`Lane::can_take_batch`] said so, and with more than `batch_calls_max` tickets.
    pub fn send_batch(&mut self, tickets: &[Ticket], config: &Config, now: Now) {
        let State::Ready { connection, .. } = &mut self.state else {
            panic!("only a ready lane takes a batch")
        };
        let transactions =
            tickets.iter().filter(|ticket| matches!(ticket.call, Call::Transaction { .. })).count();
        let set_len = if transactions >= config.group_calls_min { transactions } else { 0 };
        if set_len > 0 {
            send_set(connection, tickets, set_len);
        }
        for &ticket in tickets {
            match ticket.call {
                Call::Transaction { .. } if set_len > 0 => self.sets.push_back(ticket),
                Call::Transaction { account, transaction } => {
                    let parameters = [
                        Value::Int4(account),
                        Value::Int4(transaction.value_cents),
                        Value::Text(transaction.kind.as_str()),
                        Value::Text(transaction.description.as_str()),
                    ];
                    call(connection, Asked::Call(ticket), INSERT_TRANSACAO, &parameters);
                }
                Call::Statement { account } => {
                    call(connection, Asked::Call(ticket), GET_SALDO_CLIENTE_BY_ID, &[Value::Int4(account)]);
                }
            }
        }
        connection.sync();
        self.channel.exchange(connection);
        let deadline_us = now.after_ms(config.answer_timeout_ms);
        self.batches.push_back(Batch { calls: tickets.len(), set_len, reads_accounts: false, deadline_us });
    }

    /// Acts on deadlines that have passed: gives up a silent lane, and probes one that is ready, also between batches.
    pub fn expire(&mut self, reads_accounts: bool, config: &Config, now: Now) {
        match &mut self.state {
            State::Down | State::Connecting => {}
            State::Starting { connection, deadline_us, .. } => {
                if now.is_past(*deadline_us) {
                    connection.close(CloseReason::TimedOut);
                }
            }
            State::Ready { connection, probe_at_us } => {
                if self.batches.front().is_some_and(|oldest| now.is_past(oldest.deadline_us)) {
                    connection.close(CloseReason::TimedOut);
                } else if now.is_past(*probe_at_us)
                    && can_probe(&self.batches, config)
                    && self.spoilt.is_none()
                    && connection.is_ready()
                {
                    *probe_at_us = now.after_ms(config.probe_interval_ms);
                    self.account_ids.clear();
                    send_probe(connection, reads_accounts, config);
                    self.channel.exchange(connection);
                    let deadline_us = now.after_ms(config.answer_timeout_ms);
                    self.batches.push_back(Batch { calls: 0, set_len: 0, reads_accounts, deadline_us });
                }
            }
        }
    }

    /// When [`Lane::expire`] or [`Lane::poll_step`] will have something to do, in monotonic microseconds.
    pub fn deadline_us(&self, config: &Config) -> u64 {
        match &self.state {
            State::Down | State::Connecting => self.connect_deadline_us(),
            State::Starting { deadline_us, .. } => *deadline_us,
            State::Ready { probe_at_us, .. } => {
                let answer_us = self.batches.front().map_or(u64::MAX, |batch| batch.deadline_us);
                let can_probe = can_probe(&self.batches, config) && self.spoilt.is_none();
                if can_probe { answer_us.min(*probe_at_us) } else { answer_us }
            }
        }
    }

    /// The next thing that happened. Drain it to `None` after each input.
    // Out of line, so that profiles name it.
    #[inline(never)]
    pub fn poll_event(&mut self, config: &Config, now: Now) -> Option<LaneEvent<'_>> {
        loop {
            if let Some((ticket, end)) = self.ended.pop_front() {
                return Some(without_answer(ticket, &end, config));
            }
            if self.is_releasing {
                if let Some(held) = self.held.pop_front() {
                    return Some(self.release(held));
                }
                self.is_releasing = false;
                self.held_bytes.clear();
            }
            let connection = self.state.connection()?;
            let Some(event) = connection.poll_event() else {
                if self.channel.exchange(connection) {
                    continue;
                }
                // Looked at first: to move a reason costs more than to see that there is none.
                self.end.as_ref()?;
                connection.close(self.end.take()?);
                continue;
            };
            match event {
                Event::Ready => self.judge_fitness(),
                Event::TextRow { ticket: Asked::Fitness, row } => {
                    if let Verdict::Reject(mismatch) = self.connector.answered(row.text(0).ok().flatten()) {
                        self.close(CloseReason::TargetSession(mismatch));
                    }
                }
                Event::TextRow { ticket: Asked::History, row } => self.history = read_history(&row),
                Event::Columns { ticket: Asked::Fitness | Asked::History, .. }
                | Event::Done { ticket: Asked::Fitness | Asked::History, .. } => {}
                Event::Row { ticket: Asked::Settings, row } => match session_problem(&row) {
                    Ok(None) => {}
                    Ok(Some(problem)) => self.close(CloseReason::Other(problem)),
                    Err(error) => self.close(CloseReason::Row(error)),
                },
                Event::Row { ticket: Asked::Probe, .. } => {}
                Event::Row { ticket: Asked::Accounts, row } => match row.i32(0) {
                    Ok(id) => self.account_ids.push(id),
                    Err(error) => self.close(CloseReason::Row(error)),
                },
                Event::Row { ticket: Asked::Call(ticket), row } => {
                    match HeldResult::read(&ticket.call, &row, &mut self.held_bytes) {
                        Ok(result) => self.held.push_back(Held { ticket, result }),
                        Err(error) => self.close(CloseReason::Row(error)),
                    }
                }
                Event::Row { ticket: Asked::Set { len }, row } => {
                    if let Err(reason) = hold_set(&mut self.held, self.sets.iter().take(len), &row) {
                        self.close(reason);
                    }
                }
                Event::Done { ticket: Asked::Settings | Asked::Accounts | Asked::Probe, .. } => {}
                Event::Done { ticket: Asked::Call(ticket), .. } => {
                    self.expect_held(Some(ticket.number));
                }
                Event::Done { ticket: Asked::Set { len }, .. } => {
                    self.expect_held(self.sets.get(len - 1).map(|ticket| ticket.number));
                }
                Event::Failed { ticket, error } => {
                    self.is_batch_demoted = error.code == SqlState::READ_ONLY_SQL_TRANSACTION;
                    self.judge_session(ticket, &error, config);
                    self.end(ticket, || End::Failed(error.clone()));
                }
                Event::RolledBack { ticket } => {
                    let is_demoted = self.is_batch_demoted;
                    self.end(ticket, || if is_demoted { End::Demoted } else { End::RolledBack });
                }
                Event::InDoubt { ticket } => self.end(ticket, || End::InDoubt),
                Event::Committed => match self.committed(config, now) {
                    Committed::Placed(history) => return Some(LaneEvent::Placed(history)),
                    Committed::Ready(accounts) => return Some(LaneEvent::Ready(accounts)),
                    Committed::Probe { has_accounts } => {
                        return Some(LaneEvent::Probed(has_accounts.then_some(&self.account_ids)));
                    }
                    Committed::Calls | Committed::Nothing => {}
                },
                Event::Aborted { error } => {
                    if let Some(error) = error {
                        log::warn!("PostgreSQL refused a commit: {error}");
                    }
                    self.batches.pop_front();
                    self.is_batch_demoted = false;
                    if self.is_placing() {
                        self.set_up_session(config);
                    }
                    self.leave_if_spoilt();
                    self.held.clear();
                    self.held_bytes.clear();
                }
                Event::Notice(notice) => log::debug!("PostgreSQL: {notice}"),
                Event::Parameter { name, value } => self.take_parameter(&name, &value),
                Event::Notification { channel, .. } => log::debug!("PostgreSQL: a notification on {channel}"),
                Event::Closed { reason } => {
                    let was_ready = self.fall(&reason);
                    return Some(LaneEvent::Closed { reason, was_ready });
                }
                _ => self.close(CloseReason::Other("an answer to something that no lane asks for")),
            }
        }
    }

    /// Closes the connection; its events follow through [`Lane::poll_event`].
    pub fn close(&mut self, reason: CloseReason) {
        if let Some(connection) = self.state.connection() {
            connection.close(reason);
        }
    }

    fn is_starting(&self) -> bool {
        matches!(self.state, State::Starting { .. })
    }

    /// Goes on with a session that will do, and not with another one.
    fn judge_fitness(&mut self) {
        match self.connector.judge() {
            Verdict::Accept => self.ask(Asked::History, Stage::Placing, HISTORY),
            Verdict::Reject(mismatch) => self.close(CloseReason::TargetSession(mismatch)),
            Verdict::Ask(query) => self.ask(Asked::Fitness, Stage::Judging, query),
        }
    }

    /// Asks something that a server may refuse to answer.
    fn ask(&mut self, asked: Asked, stage: Stage, query: &str) {
        let State::Starting { connection, stage: current, .. } = &mut self.state else { return };
        *current = stage;
        let queued = connection.simple_query(asked, query);
        assert!(queued.is_ok(), "a session that has just begun has room for a question");
    }

    fn is_placing(&self) -> bool {
        matches!(self.state, State::Starting { stage: Stage::Placing, .. })
    }

    /// Makes the session what a batch needs, and asks for the accounts.
    fn set_up_session(&mut self, config: &Config) {
        let State::Starting { connection, stage, .. } = &mut self.state else { return };
        *stage = Stage::SettingUp;
        let (names, values): (Vec<&str>, Vec<&str>) =
            config.session_settings.iter().map(|(name, value)| (*name, value.as_str())).unzip();
        call(connection, Asked::Settings, SETTINGS, &[Value::TextArray(&names), Value::TextArray(&values)]);
        ask_for_accounts(connection, config);
        connection.sync();
    }

    /// The server reports a setting. From a hot standby nothing more is wanted, not even a Parse.
    fn take_parameter(&mut self, name: &str, value: &str) {
        log::debug!("PostgreSQL: {name} = {value}");
        self.connector.parameter(name, value);
        if (name, value) != ("in_hot_standby", "on") {
            return;
        }
        match (&self.state, self.connector.judge()) {
            (State::Ready { .. }, _) => self.leave(&CloseReason::Other(READ_ONLY)),
            (State::Starting { .. }, Verdict::Reject(mismatch)) => {
                self.close(CloseReason::TargetSession(mismatch));
            }
            (State::Starting { .. }, Verdict::Accept | Verdict::Ask(_)) => {
                self.close(CloseReason::Other(READ_ONLY));
            }
            (State::Down | State::Connecting, _) => {}
        }
    }

    /// Notes what the failure of a call says about the session.
    fn judge_session(&mut self, asked: Asked, error: &ServerError, config: &Config) {
        match asked {
            Asked::Call(ticket) => {
                if spoils_session(&ticket, error, config) {
                    self.spoilt = Some(CloseReason::Server(error.clone()));
                }
            }
            Asked::Set { len } => {
                if self.sets.iter().take(len).any(|ticket| spoils_session(ticket, error, config)) {
                    self.spoilt = Some(CloseReason::Server(error.clone()));
                }
            }
            // Poolers and other engines have no such functions: then nothing is known.
            Asked::History => {
                log::info!("no history of the server, so an old primary is not told apart: {error}");
            }
            Asked::Fitness => {
                if let Verdict::Reject(mismatch) = self.connector.answered(None) {
                    self.close(CloseReason::TargetSession(mismatch));
                }
            }
            Asked::Settings | Asked::Accounts | Asked::Probe if self.is_starting() => {
                self.close(CloseReason::Server(error.clone()));
            }
            Asked::Settings | Asked::Accounts | Asked::Probe => {
                if is_of_session(error) {
                    self.spoilt = Some(CloseReason::Server(error.clone()));
                }
                if self.is_serving {
                    log::warn!("the bank cannot be served: {error}{}", remedy_for(error));
                }
                self.is_serving = false;
            }
        }
    }

    /// Leaves a spoilt session once nothing is in flight there: an answer that is still to come would be in doubt.
    fn leave_if_spoilt(&mut self) {
        if self.spoilt.is_some()
            && self.batches.is_empty()
            && let Some(reason) = self.spoilt.clone()
        {
            self.close(reason);
        }
    }

    /// Each procedure returns exactly one row, so by the end of a call its answer is held.
    fn expect_held(&mut self, number: Option<u64>) {
        if self.held.back().map(|held| held.ticket.number) != number {
            self.close(CloseReason::Other("a procedure returned no row"));
        }
    }

    /// Notes the end of a call without an answer, or of each member of a set.
    fn end(&mut self, asked: Asked, end: impl Fn() -> End) {
        match asked {
            Asked::Fitness | Asked::History | Asked::Settings | Asked::Accounts | Asked::Probe => {}
            Asked::Call(ticket) => self.ended.push_back((ticket, end())),
            Asked::Set { len } => self.ended.extend(self.sets.drain(..len).map(|ticket| (ticket, end()))),
        }
    }

    /// The oldest batch is final.
    fn committed(&mut self, config: &Config, now: Now) -> Committed {
        match std::mem::replace(&mut self.state, State::Down) {
            state @ State::Starting { stage: Stage::Judging, .. } => {
                self.state = state;
                self.judge_fitness();
                Committed::Nothing
            }
            state @ State::Starting { stage: Stage::Placing, .. } => {
                self.state = state;
                self.set_up_session(config);
                self.history.clone().map_or(Committed::Nothing, Committed::Placed)
            }
            State::Starting { mut connection, deadline_us, stage } => {
                if let Some(problem) = self.accounts_problem(config) {
                    connection.close(CloseReason::Other(problem));
                    self.state = State::Starting { connection, deadline_us, stage };
                    return Committed::Nothing;
                }
                self.is_serving = true;
                if !self.is_suspect {
                    self.be_established();
                }
                self.state = State::Ready { connection, probe_at_us: now.after_ms(config.probe_interval_ms) };
                Committed::Ready(Accounts::new(std::mem::take(&mut self.account_ids)))
            }
            state @ State::Ready { .. } => {
                self.state = state;
                if self.is_suspect {
                    self.is_suspect = false;
                    self.be_established();
                }
                let Some(batch) = self.batches.pop_front() else { return Committed::Nothing };
                self.leave_if_spoilt();
                if batch.calls == 0 {
                    return self.probed(&batch, config);
                }
                self.sets.drain(..batch.set_len);
                self.is_releasing = true;
                Committed::Calls
            }
            state @ (State::Down | State::Connecting) => {
                self.state = state;
                Committed::Nothing
            }
        }
    }

    /// It has a session that serves: the next one is looked for with the first host, and every problem is news.
    fn be_established(&mut self) {
        self.connector.established();
        self.complaints.forget();
    }

    /// A probe was served.
    fn probed(&mut self, probe: &Batch, config: &Config) -> Committed {
        if !self.is_serving {
            log::info!("the bank is served again");
            self.is_serving = true;
        }
        match self.accounts_problem(config) {
            Some(NO_ACCOUNTS) if probe.reads_accounts => {
                self.close(CloseReason::Other(NO_ACCOUNTS));
                Committed::Nothing
            }
            // Those that are known are still served.
            Some(problem) if probe.reads_accounts => {
                log::warn!("{problem}; new clients are not known");
                Committed::Probe { has_accounts: false }
            }
            Some(_) | None => Committed::Probe { has_accounts: probe.reads_accounts },
        }
    }

    /// Why the accounts that were read cannot be served.
    fn accounts_problem(&self, config: &Config) -> Option<&'static str> {
        match self.account_ids.len() {
            0 => Some(NO_ACCOUNTS),
            len if len > config.accounts_max => Some("the table clientes has more rows than ACCOUNTS_MAX"),
            _ => None,
        }
    }

    fn release(&self, held: Held) -> LaneEvent<'_> {
        let outcome = match held.result {
            HeldResult::Transaction {
                balance_cents: Some(balance_cents),
                limit_cents: Some(limit_cents),
            } => Outcome::Accepted { limit_cents, balance_cents },
            HeldResult::Transaction { balance_cents: None, limit_cents: Some(_) } => {
                Outcome::Rejected(Reject::PastLimit)
            }
            HeldResult::Transaction { limit_cents: None, .. } | HeldResult::Statement { bytes: None } => {
                Outcome::Rejected(Reject::NotFound)
            }
            HeldResult::Statement { bytes: Some(bytes) } => Outcome::Statement(&self.held_bytes[bytes]),
        };
        LaneEvent::Answered(held.ticket, outcome)
    }

    /// Goes down, and tells the connector why. Whether it was ready.
    fn fall(&mut self, reason: &CloseReason) -> bool {
        let was_spoilt = self.spoilt.take().is_some();
        let failure = match self.state {
            // The next session may well be as this one was: elsewhere first, and without a rush.
            _ if was_spoilt => Some(Failure::Host),
            // It may be a primary that its standbys have left: it takes sessions, and none of its commits ever ends.
            State::Ready { .. } if matches!(reason, CloseReason::TimedOut) => Some(Failure::Host),
            State::Ready { .. } if !self.is_suspect => None,
            // It has let us in, but cannot serve the bank.
            State::Starting { stage: Stage::SettingUp | Stage::Placing, .. }
                if Failure::from(reason) == Failure::List =>
            {
                Some(Failure::Host)
            }
            State::Down | State::Connecting | State::Starting { .. } | State::Ready { .. } => {
                Some(Failure::from(reason))
            }
        };
        match failure {
            Some(failure) => self.connector.failed(failure, format_args!("{reason}{}", remedy(reason))),
            None => self.connector.ended(),
        }
        self.is_suspect |= was_spoilt;
        self.is_batch_demoted = false;
        self.batches.clear();
        self.sets.clear();
        self.held.clear();
        self.held_bytes.clear();
        self.is_releasing = false;
        self.end = None;
        matches!(std::mem::replace(&mut self.state, State::Down), State::Ready { .. })
    }
}

/// What came of a batch that was committed.
enum Committed {
    Placed(History),
    Ready(Accounts),
    Probe {
        has_accounts: bool,
    },
    /// Its answers are released.
    Calls,
    Nothing,
}

/// What helps against the reason for which a lane closed, for its line in the log.
fn remedy(reason: &CloseReason) -> &'static str {
    reason.server_error().map_or("", remedy_for)
}

fn remedy_for(error: &ServerError) -> &'static str {
    let message = error.message.as_str();
    match error.code.as_bytes() {
        b"42883" | b"42P01" => "; apply sql/*.sql in name order",
        b"28P01" => "; the password in DATABASE_URL is wrong",
        // PostgreSQL has one code for all of these. The name of the file is the same in every language of the server.
        // On a Unix socket, `[local]`, there is no TLS to miss.
        b"28000"
            if message.contains("pg_hba.conf")
                && message.contains("no encryption")
                && !message.contains("[local]") =>
        {
            "; no rule of pg_hba.conf lets this user in without TLS: with sslmode=require one might"
        }
        b"28000" if message.contains("pg_hba.conf") => {
            "; no rule of pg_hba.conf lets this user in from this address: add one. The password was not looked at"
        }
        b"28000" => "; look at user and role in DATABASE_URL: the password was not looked at",
        b"3D000" => "; look at the database in DATABASE_URL",
        b"53300" => {
            "; all instances need LANES connections each, besides those of others: raise max_connections of PostgreSQL, or \
             the limit of the role, database or pooler, or lower LANES"
        }
        b"08P01" if message.contains("startup parameter") => {
            "; a pooler refuses it: take it out of DATABASE_URL, or see docs/reference/settings.md about PgBouncer"
        }
        _ if is_of_session(error) => "; the session is left, and calls go on in a new one",
        _ => "",
    }
}

/// What clients are told while no lane is ready.
pub fn why_down(reason: &CloseReason) -> Unavailable {
    match reason {
        CloseReason::Other(problem) if *problem == NO_ACCOUNTS => Unavailable::BankMissing,
        _ if takes_no_writes(reason) => Unavailable::ReadOnly,
        _ => match reason.code() {
            Some(SqlState::UNDEFINED_TABLE | SqlState::UNDEFINED_FUNCTION) => Unavailable::BankMissing,
            _ => Unavailable::DatabaseDown,
        },
    }
}

/// Whether the server has become one, or is one, that takes no transactions.
pub fn takes_no_writes(reason: &CloseReason) -> bool {
    match reason {
        CloseReason::Other(problem) => matches!(*problem, READ_ONLY | OLD_TIMELINE),
        CloseReason::TargetSession(mismatch) => {
            matches!(mismatch, TargetMismatch::ReadOnly | TargetMismatch::Standby)
        }
        _ => reason.code() == Some(SqlState::READ_ONLY_SQL_TRANSACTION),
    }
}

impl Pipe for Lane {
    fn recv_space(&mut self) -> &mut [u8] {
        match self.state.connection() {
            Some(connection) => self.channel.recv_space(connection),
            None => &mut [],
        }
    }

    fn recv_commit(&mut self, n: usize) {
        if let Some(connection) = self.state.connection() {
            self.channel.recv_commit(n, connection);
        }
    }

    fn send_pending(&self) -> &[u8] {
        match &self.state {
            State::Down | State::Connecting => &[],
            State::Starting { connection, .. } | State::Ready { connection, .. } => {
                self.channel.send_pending(connection)
            }
        }
    }

    fn send_advance(&mut self, n: usize) {
        if let Some(connection) = self.state.connection() {
            self.channel.send_advance(n, connection);
        }
    }

    fn peer_closed(&mut self) {
        self.end.get_or_insert(CloseReason::PeerClosed);
    }

    fn lost(&mut self, error: ErrorKind) {
        self.end.get_or_insert(CloseReason::Transport(error));
    }
}

/// Queues the transactions among the tickets as one call of the set-based procedure.
fn send_set(connection: &mut Connection<Asked>, tickets: &[Ticket], len: usize) {
    let mut accounts = [0; BATCH_CALLS_LIMIT];
    let mut values_cents = [0; BATCH_CALLS_LIMIT];
    let mut kinds = [""; BATCH_CALLS_LIMIT];
    let mut descriptions = [""; BATCH_CALLS_LIMIT];
    let transactions = tickets.iter().filter_map(|ticket| match &ticket.call {
        Call::Transaction { account, transaction } => Some((account, transaction)),
        Call::Statement { .. } => None,
    });
    for (position, (account, transaction)) in transactions.enumerate() {
        accounts[position] = *account;
        values_cents[position] = transaction.value_cents;
        kinds[position] = transaction.kind.as_str();
        descriptions[position] = transaction.description.as_str();
    }
    let parameters = [
        Value::Int4Array(&accounts[..len]),
        Value::Int4Array(&values_cents[..len]),
        Value::TextArray(&kinds[..len]),
        Value::TextArray(&descriptions[..len]),
    ];
    call(connection, Asked::Set { len }, INSERT_TRANSACOES, &parameters);
}

/// Whether there is room for a probe: besides the batches in flight, of which none is one.
fn can_probe(batches: &VecDeque<Batch>, config: &Config) -> bool {
    batches.len() < config.batches_in_flight_max && batches.iter().all(|batch| batch.calls > 0)
}

/// Queues the calls of a probe: the procedures as calls use them, but for no account, so that nothing is done.
///
/// NULL is no account's id, whatever the table holds. A Sync alone would only tell that PostgreSQL is there.
fn send_probe(connection: &mut Connection<Asked>, reads_accounts: bool, config: &Config) {
    let nothing =
        [Value::Int4Array(&[]), Value::Int4Array(&[]), Value::TextArray(&[]), Value::TextArray(&[])];
    call(connection, Asked::Probe, INSERT_TRANSACOES, &nothing);
    call(connection, Asked::Probe, INSERT_TRANSACAO, &[Value::Null, Value::Null, Value::Null, Value::Null]);
    call(connection, Asked::Probe, GET_SALDO_CLIENTE_BY_ID, &[Value::Null]);
    if reads_accounts {
        ask_for_accounts(connection, config);
    }
    connection.sync();
}

/// Queues the question for the accounts: one more than there may be, to know of too many.
fn ask_for_accounts(connection: &mut Connection<Asked>, config: &Config) {
    let one_too_many = i64::try_from(config.accounts_max).map_or(i64::MAX, |max| max + 1);
    call(connection, Asked::Accounts, ACCOUNTS, &[Value::Int8(one_too_many)]);
}

/// Which line of history the server is on; none while it is a standby, which begins no timeline.
fn read_history(row: &TextRow<'_>) -> Option<History> {
    let field = |column| row.text(column).ok().flatten();
    Some(History {
        system: field(0)?.to_owned(),
        timeline: field(1)?.parse().ok()?,
        is_lost_in_failover: field(2)? == "t",
    })
}

/// Why the bank cannot be served in this session.
fn session_problem(row: &Row<'_>) -> Result<Option<&'static str>, RowError> {
    Ok(if !row.bool(0)? {
        Some(NOT_UTF8)
    } else if row.bool(1)? {
        Some(READ_ONLY)
    } else {
        None
    })
}

/// Queues one call, for which there is room: the limits of the connection are made for the largest batches.
fn call(connection: &mut Connection<Asked>, asked: Asked, statement: usize, parameters: &[Value<'_>]) {
    let queued = connection.call(asked, statement, parameters);
    assert!(queued.is_ok(), "a lane has room for every batch that it takes");
}

/// Holds the answers of a set, one for each of its tickets.
fn hold_set<'a>(
    held: &mut VecDeque<Held>,
    tickets: impl ExactSizeIterator<Item = &'a Ticket>,
    row: &Row<'_>,
) -> Result<(), CloseReason> {
    let (balances_cents, limits_cents) = (row.i64_array(0)?, row.i64_array(1)?);
    if balances_cents.len() != tickets.len() || limits_cents.len() != tickets.len() {
        return Err(CloseReason::Other("InsertTransacoes answered another number of transactions"));
    }
    for ((&ticket, balance_cents), limit_cents) in tickets.zip(balances_cents).zip(limits_cents) {
        held.push_back(Held { ticket, result: HeldResult::Transaction { balance_cents, limit_cents } });
    }
    Ok(())
}

// ANCHOR: without_answer
/// What becomes of a call that ended without an answer.
///
/// In company the culprit gets one more chance by itself, as the others do: what failed may have been their sum, a
/// deadlock or a timeout. By itself it is tried again only if PostgreSQL says that this may help. A batch that met a demoted
/// server stays together: none of its calls is to blame.
fn without_answer(ticket: Ticket, end: &End, config: &Config) -> LaneEvent<'static> {
    match end {
        End::InDoubt => LaneEvent::Unavailable(ticket, Unavailable::InDoubt),
        End::Failed(error) if spoils_session(&ticket, error, config) => run_in_next_session(ticket),
        End::Demoted if may_meet_spoilt_session(&ticket, config) => run_in_next_session(ticket),
        End::Failed(error) if ticket.is_alone && !is_conflict(error) => {
            log::warn!("PostgreSQL refused a call for account {}: {error}", ticket.call.account());
            LaneEvent::Unavailable(ticket, Unavailable::Failed)
        }
        End::Failed(_) | End::RolledBack | End::Demoted if ticket.attempts >= config.attempts_max => {
            LaneEvent::Unavailable(ticket, Unavailable::Failed)
        }
        End::Failed(_) | End::RolledBack | End::Demoted => {
            LaneEvent::RunAgain(Ticket { is_alone: true, ..ticket })
        }
    }
}
// ANCHOR_END: without_answer

/// The session was to blame, so this was no attempt.
fn run_in_next_session(ticket: Ticket) -> LaneEvent<'static> {
    LaneEvent::RunAgain(Ticket {
        attempts: ticket.attempts.saturating_sub(1),
        spoilt_sessions: ticket.spoilt_sessions + 1,
        ..ticket
    })
}

/// Whether the session is to blame for the failure of a call, which then runs again in the next one.
///
/// The error has ended the batch, so nothing was done. A call that fails so once more than there are lanes has met at
/// least one new session: then it is to blame itself, and the session stays.
///
/// In company the culprit is not known for sure, and each call then runs by itself. Only that a server takes no writes is never
/// the fault of a call.
fn spoils_session(ticket: &Ticket, error: &ServerError, config: &Config) -> bool {
    let is_to_blame =
        error.code == SqlState::READ_ONLY_SQL_TRANSACTION || ticket.is_alone && is_of_session(error);
    is_to_blame && may_meet_spoilt_session(ticket, config)
}

fn may_meet_spoilt_session(ticket: &Ticket, config: &Config) -> bool {
    usize::from(ticket.spoilt_sessions) < config.lanes
}

/// Whether an error is about the session rather than about the call.
///
/// Source: PostgreSQL documentation, appendix "PostgreSQL Error Codes".
fn is_of_session(error: &ServerError) -> bool {
    matches!(
        error.code.as_bytes(),
        // Read-only: the server was demoted, or the database is fenced off.
        b"25006"
        // A prepared statement is gone, is there already, or is another one, as behind a pooler that swaps sessions.
        | b"26000" | b"42P05" | b"08P01"
        // A cached plan must not change its result type: a migration.
        | b"0A000"
    )
}

fn is_conflict(error: &ServerError) -> bool {
    matches!(error.code, SqlState::SERIALIZATION_FAILURE | SqlState::DEADLOCK_DETECTED)
}

impl HeldResult {
    fn read(call: &Call, row: &Row<'_>, held_bytes: &mut Vec<u8>) -> Result<HeldResult, RowError> {
        match call {
            Call::Transaction { .. } => Ok(HeldResult::Transaction {
                balance_cents: optional_i64(row, 0)?,
                limit_cents: optional_i64(row, 1)?,
            }),
            Call::Statement { .. } if row.is_null(0)? => Ok(HeldResult::Statement { bytes: None }),
            Call::Statement { .. } => {
                let start = held_bytes.len();
                held_bytes.extend_from_slice(row.jsonb(0)?);
                Ok(HeldResult::Statement { bytes: Some(start..held_bytes.len()) })
            }
        }
    }
}

fn optional_i64(row: &Row<'_>, column: usize) -> Result<Option<i64>, RowError> {
    if row.is_null(column)? { Ok(None) } else { row.i64(column).map(Some) }
}

/// What every lane prepares; the constants below are positions in it.
pub static STATEMENTS: [Statement<'static>; 5] = [
    Statement::new(
        "t",
        "SELECT saldo, limite FROM InsertTransacao($1, $2, $3, $4)",
        &[oid::INT4, oid::INT4, oid::TEXT, oid::TEXT],
    ),
    Statement::new(
        "s",
        "SELECT saldos, limites FROM InsertTransacoes($1, $2, $3, $4)",
        &[oid::INT4_ARRAY, oid::INT4_ARRAY, oid::TEXT_ARRAY, oid::TEXT_ARRAY],
    ),
    Statement::new("e", "SELECT GetSaldoClienteById($1)", &[oid::INT4]),
    Statement::new("c", "SELECT id FROM clientes ORDER BY id LIMIT $1", &[oid::INT8]),
    Statement::new(
        "v", // A setting that this version does not have is left out.
        "SELECT current_setting('server_encoding') IN ('UTF8', 'SQL_ASCII'), \
              current_setting('transaction_read_only')::boolean, count(set_config(name, value, false)) \
              FROM unnest($1, $2) AS s (name, value) WHERE current_setting(name, true) IS NOT NULL",
        &[oid::TEXT_ARRAY, oid::TEXT_ARRAY],
    ),
];
const INSERT_TRANSACAO: usize = 0;
const INSERT_TRANSACOES: usize = 1;
const GET_SALDO_CLIENTE_BY_ID: usize = 2;
const ACCOUNTS: usize = 3;
const SETTINGS: usize = 4;
/// What a lane asks for the history of a server. Any role may; a standby has no timeline to tell.
pub const HISTORY: &str = "SELECT system_identifier, \
     CASE WHEN NOT pg_is_in_recovery() \
     THEN ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer END, \
     EXISTS (SELECT FROM pg_stat_replication) AND EXISTS (SELECT FROM pg_class \
     WHERE oid IN (to_regclass('clientes'), to_regclass('transacoes')) AND relpersistence = 'u') \
     FROM pg_control_system()";
const OLD_TIMELINE: &str = "the server is on an older timeline than one that was seen before: a standby was promoted in its \
                            place, so what it answers is old. Stop it, or make a standby of it with pg_rewind";
const NO_ACCOUNTS: &str = "the table clientes is empty: apply sql/*.sql in name order";
const READ_ONLY: &str = "the session is read-only, as on a standby or with default_transaction_read_only: \
                         DATABASE_URL must name a primary";
const NOT_UTF8: &str = "server_encoding is not UTF8, so not every descricao could be stored: make the database anew with \
                        CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0";

#[cfg(test)]
mod tests;
