//! CORE: one connection to PostgreSQL: its life from down to ready, and what each of its events means.

mod held;
mod in_flight;
pub mod session;
pub mod statements;

use core::net::SocketAddr;
use std::fmt::Display;
use std::io::ErrorKind;
use std::time::Duration;

use proto_pg::{
    Channel, CloseReason, ConnectStep, Connection, Connector, Event, Failure, RoundError, ServerError,
    SqlState, Verdict,
};

use crate::bank::{Accounts, Call, Outcome, Unavailable};
use crate::buf::Pipe;
use crate::config::{Config, Database};
use crate::engine::complaints::Complaints;
use crate::engine::lane::held::{Held, HeldAnswers};
use crate::engine::lane::in_flight::{Batch, InFlight};
use crate::engine::lane::session::{
    HISTORY, History, NO_ACCOUNTS, OLD_TIMELINE, Position, READ_ONLY, accounts_problem, read_history,
    read_position, remedy, remedy_for, session_problem,
};
use crate::engine::lane::statements::{
    Asked, ask_for_accounts, ask_for_position, send_call, send_probe, send_set, send_settings, statements,
};
use crate::engine::ticket::{End, Ticket, is_of_session, spoils_session, without_answer};
use crate::metrics::LaneState;
use crate::now::Now;

/// One connection to PostgreSQL.
///
/// The shell does what [`Lane::poll_step`] says, reports [`Lane::resolved`], [`Lane::connected`] or [`Lane::connect_failed`],
/// and moves bytes through its [`Pipe`]. The engine drains [`Lane::poll_event`] to `None` after each input.
pub struct Lane {
    /// This lane is the reader: it takes only bank statements, and its server may be a standby.
    is_reader: bool,
    state: State,
    /// The batches that were sent and have not ended. Empty unless ready.
    in_flight: InFlight,
    /// The answers of the oldest batch, provisional until it is committed.
    held: HeldAnswers,
    account_ids: Vec<i32>,
    /// Why every further call would fail in this session. It takes no more batches and closes once those in flight have ended.
    spoilt: Option<CloseReason>,
    /// A call of the oldest batch has failed because the server takes no writes.
    is_batch_demoted: bool,
    /// The timeline of its server, if the server reported it.
    history: Option<History>,
    /// The previous session was spoilt, and no batch has been committed since: this one may be spoilt, too.
    is_suspect: bool,
    /// Whether the last probe was served. The log-in counts as one.
    is_serving: bool,
    /// When the server is next asked for its log position, in monotonic microseconds; `u64::MAX` without a reader.
    position_at_us: u64,
    /// Where to connect, and when.
    connector: Connector,
    /// TLS or nothing, between the connection and its socket.
    channel: Channel,
    /// Why the socket has ended. The connection closes only after all bytes that arrived before were processed: each answer
    /// among them is one call fewer in doubt.
    end: Option<CloseReason>,
    complaints: Complaints,
}

enum State {
    /// No socket; the connector knows what is next.
    Down,
    /// The shell looks a name up, or is connecting.
    Connecting,
    /// Connected; the session is not ready for batches yet.
    Starting { connection: Connection<Asked>, deadline_us: u64, stage: Stage },
    /// Takes batches.
    Ready { connection: Connection<Asked>, probe_at_us: u64 },
}

/// How far a starting session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Logging in, preparing the statements, and asking whether it is what `target_session_attrs` wants.
    Judging,
    /// Asking for the server's timeline.
    Placing,
    /// Setting the session's settings and reading the accounts.
    SettingUp,
}

impl State {
    fn connection(&mut self) -> Option<&mut Connection<Asked>> {
        match self {
            State::Down | State::Connecting => None,
            State::Starting { connection, .. } | State::Ready { connection, .. } => Some(connection),
        }
    }
}

/// What a lane reports to the engine.
pub enum LaneEvent<'a> {
    /// The timeline of the server; comes before `Ready`.
    Placed(History),
    /// It takes batches from now on.
    Ready(Accounts),
    /// The server's log position (`None`: unknown), and a time before it was asked, in monotonic microseconds. The reader's
    /// next answers were read at this position or later.
    Position(Option<Position>, u64),
    /// A probe succeeded; with the ids of the accounts, in ascending order, if it read them.
    Probed(Option<&'a [i32]>),
    /// The call's batch is committed; this is its answer. Final.
    Answered(Ticket, Outcome<'a>),
    /// The call was rolled back or never sent, and runs again: alone if `is_alone`.
    RunAgain(Ticket),
    /// The call has no result. Final.
    Unavailable(Ticket, Unavailable),
    /// The lane is down and has no socket any more.
    Closed {
        /// Why.
        reason: CloseReason,
        /// It was ready. Otherwise this was one of several addresses, and the log has it at the end of the round.
        was_ready: bool,
    },
}

impl Lane {
    /// A lane that wants to connect at once. `seed` spreads the waits of several lanes.
    pub fn new(config: &Config, seed: u64) -> Lane {
        Lane::with(false, &config.database, config, seed)
    }

    /// The reader, which wants to connect at once.
    pub fn reader(database: &Database, config: &Config, seed: u64) -> Lane {
        Lane::with(true, database, config, seed)
    }

    fn with(is_reader: bool, database: &Database, config: &Config, seed: u64) -> Lane {
        Lane {
            is_reader,
            state: State::Down,
            in_flight: InFlight::new(config),
            held: HeldAnswers::with_capacity(config.batch_calls_max),
            account_ids: Vec::new(),
            spoilt: None,
            is_batch_demoted: false,
            history: None,
            is_suspect: false,
            is_serving: false,
            position_at_us: if config.database_read.is_some() { 0 } else { u64::MAX },
            connector: Connector::new(database.connector.clone(), seed),
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
        let database = self.database(config);
        let mut connection = Connection::new(&database.session, statements(config), config.lane_limits())
            .with_policy(database.authentication.clone());
        // The bank's procedures open no transaction block. In an open one, a Sync would not commit the batch.
        connection.forbid_transaction_blocks();
        match self.connector.host().map(|host| database.channel.open(host)) {
            Some(Ok(channel)) => self.channel = channel,
            // `Config` has opened a channel for each host, so this cannot fail.
            Some(Err(_)) | None => connection.close(CloseReason::Other("there is no such host")),
        }
        self.channel.exchange(&mut connection);
        let deadline_us = now.after_ms(config.answer_timeout_ms);
        self.state = State::Starting { connection, deadline_us, stage: Stage::Judging };
        self.history = None;
    }

    /// The settings of its database: those of `DATABASE_URL_READ` for the reader, else of `DATABASE_URL`.
    fn database<'a>(&self, config: &'a Config) -> &'a Database {
        config.database_read.as_ref().filter(|_| self.is_reader).unwrap_or(&config.database)
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
            let setting = if self.is_reader { "DATABASE_URL_READ" } else { "DATABASE_URL" };
            self.complain(index, &format!("{setting}: {remedy}"), now);
        }
    }

    /// Logs why its session ended.
    pub fn complain_of_session(&mut self, index: usize, reason: &CloseReason, now: Now) {
        let problem = format!("{}: {reason}{}", self.connector.target(), remedy(reason));
        self.complain(index, &problem, now);
    }

    /// Logs why there is no connection, unless [`Complaints`] has logged the same text a short time ago.
    fn complain(&mut self, index: usize, problem: &str, now: Now) {
        if self.complaints.is_news(problem, now) {
            if self.is_reader {
                log::warn!("the reader is down, so statements go to the primary: {problem}");
            } else {
                log::warn!("lane {index} is down: {problem}");
            }
        }
    }

    /// Logs why a standby does not answer statements although there is a session.
    pub fn complain_of_standby(&mut self, problem: &str, now: Now) {
        if self.complaints.is_news(problem, now) {
            log::warn!("{}: {problem}, so statements go to the primary", self.connector.target());
        }
    }

    fn connect_deadline_us(&self) -> u64 {
        let micros = |deadline: Duration| u64::try_from(deadline.as_micros()).unwrap_or(u64::MAX);
        self.connector.deadline().map_or(u64::MAX, micros)
    }

    /// The host of its session, if that takes batches; as a position in the list of hosts.
    pub fn served_host(&self) -> Option<usize> {
        (self.is_ready() && self.spoilt.is_none()).then(|| self.connector.host_position())
    }

    /// The host of its last session or attempt, as a position in the list.
    pub fn last_host(&self) -> usize {
        self.connector.host_position()
    }

    /// Leaves a server that a promoted standby has replaced: at once, or when the batches in flight have ended.
    pub fn leave_old_timeline(&mut self, newest: &History) {
        if self.history.as_ref().is_some_and(|history| history.is_older_than(newest)) {
            match self.state {
                State::Starting { .. } => self.close(CloseReason::Other(OLD_TIMELINE)),
                State::Ready { .. } => self.leave(&CloseReason::Other(OLD_TIMELINE)),
                State::Down | State::Connecting => {}
            }
        }
    }

    /// Leaves the session: it takes no more batches, and closes once those in flight have ended.
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
        self.is_ready() && self.spoilt.is_none() && self.in_flight.has_room(config)
    }

    /// Calls that were sent and whose batch has not ended.
    pub fn in_flight_calls(&self) -> usize {
        self.in_flight.calls()
    }

    /// Calls, members of a set, and deadline in monotonic microseconds of each batch that is out, oldest first; a probe has no
    /// call.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn batches(&self) -> impl DoubleEndedIterator<Item = (usize, usize, u64)> {
        self.in_flight.batches().map(|batch| (batch.calls, batch.set_len, batch.deadline_us))
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
        // Under load a lane is never idle, so the probe that asks for the position goes before a batch. It has its own Sync,
        // so its failure rolls back no call.
        if !self.is_reader && now.is_past(self.position_at_us) && !self.in_flight.has_probe() {
            self.send_probe(false, config, now);
        }
        let deadline_us = self.answer_deadline_us(config, now);
        let State::Ready { connection, .. } = &mut self.state else {
            panic!("only a ready lane takes a batch")
        };
        if self.is_reader {
            ask_for_position(connection, now);
        }
        let transactions =
            tickets.iter().filter(|ticket| matches!(ticket.call, Call::Transaction { .. })).count();
        let set_len = if transactions >= config.group_calls_min { transactions } else { 0 };
        if set_len > 0 {
            send_set(connection, tickets, set_len);
        }
        for &ticket in tickets {
            match ticket.call {
                Call::Transaction { .. } if set_len > 0 => self.in_flight.push_of_set(ticket),
                Call::Transaction { .. } | Call::Statement { .. } => send_call(connection, ticket),
            }
        }
        connection.sync();
        self.channel.exchange(connection);
        self.in_flight.push(Batch { calls: tickets.len(), set_len, reads_accounts: false, deadline_us });
    }

    /// Sends a probe, to a lane that is ready.
    fn send_probe(&mut self, reads_accounts: bool, config: &Config, now: Now) {
        let deadline_us = self.answer_deadline_us(config, now);
        let State::Ready { connection, .. } = &mut self.state else { return };
        self.account_ids.clear();
        if self.position_at_us != u64::MAX {
            self.position_at_us = now.after_ms(config.position_interval_ms());
            ask_for_position(connection, now);
        }
        send_probe(connection, self.is_reader, reads_accounts, config);
        connection.sync();
        self.channel.exchange(connection);
        self.in_flight.push(Batch { calls: 0, set_len: 0, reads_accounts, deadline_us });
    }

    /// When what is sent now is overdue, in monotonic microseconds. The reader waits less: after it, the primary still has to
    /// answer the statement.
    fn answer_deadline_us(&self, config: &Config, now: Now) -> u64 {
        let timeout_ms = config.answer_timeout_ms;
        now.after_ms(if self.is_reader { timeout_ms.min(config.read_staleness_max_ms) } else { timeout_ms })
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
                if now.is_past(self.in_flight.deadline_us()) {
                    connection.close(CloseReason::TimedOut);
                } else if now.is_past(self.position_at_us.min(*probe_at_us))
                    && self.in_flight.has_room_for_probe(config)
                    && self.spoilt.is_none()
                    && connection.is_ready()
                {
                    let is_due = now.is_past(*probe_at_us);
                    if is_due {
                        *probe_at_us = now.after_ms(config.probe_interval_ms);
                    }
                    self.send_probe(is_due && reads_accounts, config, now);
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
                let answer_us = self.in_flight.deadline_us();
                let can_probe = self.in_flight.has_room_for_probe(config) && self.spoilt.is_none();
                if can_probe { answer_us.min(*probe_at_us).min(self.position_at_us) } else { answer_us }
            }
        }
    }

    /// The next thing that happened. Drain it to `None` after each input.
    // Out of line, so that profiles name it.
    #[inline(never)]
    #[expect(clippy::too_many_lines, reason = "one arm for each event")]
    pub fn poll_event(&mut self, config: &Config, now: Now) -> Option<LaneEvent<'_>> {
        loop {
            if let Some((ticket, end)) = self.in_flight.pop_ended() {
                if self.is_reader {
                    // A statement changes nothing, so it can run again even if it is in doubt.
                    return Some(LaneEvent::RunAgain(ticket));
                }
                return Some(match without_answer(ticket, &end, config) {
                    Ok(again) => LaneEvent::RunAgain(again),
                    Err(reason) => LaneEvent::Unavailable(ticket, reason),
                });
            }
            if let Some(Held { ticket, result }) = self.held.pop_released() {
                return Some(LaneEvent::Answered(ticket, self.held.outcome(result)));
            }
            let connection = self.state.connection()?;
            let Some(event) = connection.poll_event() else {
                if self.channel.exchange(connection) {
                    continue;
                }
                // Test for `None` first: on the common path that is cheaper than `take`, which moves a `CloseReason`.
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
                    Ok(Some(READ_ONLY)) if self.is_reader => {}
                    Ok(Some(problem)) => self.close(CloseReason::Other(problem)),
                    Err(error) => self.close(CloseReason::Row(error)),
                },
                Event::Row { ticket: Asked::Probe, .. } => {}
                Event::Row { ticket: Asked::Position { asked_us }, row } => match read_position(&row) {
                    Ok(position) => return Some(LaneEvent::Position(position, asked_us)),
                    Err(error) => self.close(CloseReason::Row(error)),
                },
                Event::Row { ticket: Asked::Accounts, row } => match row.i32(0) {
                    Ok(id) => self.account_ids.push(id),
                    Err(error) => self.close(CloseReason::Row(error)),
                },
                Event::Row { ticket: Asked::Call(ticket), row } => {
                    if let Err(error) = self.held.hold(ticket, &row) {
                        self.close(CloseReason::Row(error));
                    }
                }
                Event::Row { ticket: Asked::Set { len }, row } => {
                    if let Err(reason) = self.held.hold_set(self.in_flight.set(len), &row) {
                        self.close(reason);
                    }
                }
                Event::Done {
                    ticket: Asked::Settings | Asked::Accounts | Asked::Probe | Asked::Position { .. },
                    ..
                } => {}
                Event::Done { ticket: Asked::Call(ticket), .. } => {
                    self.expect_held(Some(ticket.number));
                }
                Event::Done { ticket: Asked::Set { len }, .. } => {
                    let last = self.in_flight.set(len).next_back().map(|ticket| ticket.number);
                    self.expect_held(last);
                }
                Event::Failed { ticket, error } => {
                    self.is_batch_demoted = error.code == SqlState::READ_ONLY_SQL_TRANSACTION;
                    self.judge_session(ticket, &error, config);
                    self.in_flight.end(ticket, || End::Failed(error.clone()));
                }
                Event::RolledBack { ticket } => {
                    let is_demoted = self.is_batch_demoted;
                    self.in_flight.end(ticket, || if is_demoted { End::Demoted } else { End::RolledBack });
                }
                Event::InDoubt { ticket } => self.in_flight.end(ticket, || End::InDoubt),
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
                    self.in_flight.abort();
                    self.is_batch_demoted = false;
                    if self.is_placing() {
                        self.set_up_session(config);
                    }
                    self.leave_if_spoilt();
                    self.held.clear();
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

    /// Goes on if the session is what `target_session_attrs` wants, and closes it otherwise.
    fn judge_fitness(&mut self) {
        match self.connector.judge() {
            Verdict::Accept => self.ask(Asked::History, Stage::Placing, HISTORY),
            Verdict::Reject(mismatch) => self.close(CloseReason::TargetSession(mismatch)),
            Verdict::Ask(query) => self.ask(Asked::Fitness, Stage::Judging, query),
        }
    }

    /// Sends a simple query. It has a batch of its own, so that an error does not end the start of the session.
    fn ask(&mut self, asked: Asked, stage: Stage, query: &str) {
        let State::Starting { connection, stage: current, .. } = &mut self.state else { return };
        *current = stage;
        let queued = connection.simple_query(asked, query);
        assert!(queued.is_ok(), "a session that has just begun has room for a question");
    }

    fn is_placing(&self) -> bool {
        matches!(self.state, State::Starting { stage: Stage::Placing, .. })
    }

    /// Sends the session's settings, and asks for the accounts.
    fn set_up_session(&mut self, config: &Config) {
        let State::Starting { connection, stage, .. } = &mut self.state else { return };
        *stage = Stage::SettingUp;
        send_settings(connection, config);
        ask_for_accounts(connection, config);
        connection.sync();
    }

    /// The server reports a setting. A lane that is not the reader leaves a hot standby at once, before it prepares anything.
    fn take_parameter(&mut self, name: &str, value: &str) {
        log::debug!("PostgreSQL: {name} = {value}");
        self.connector.parameter(name, value);
        if self.is_reader {
            // After a promotion the server may no longer be what `target_session_attrs` wants.
            if name == "in_hot_standby"
                && let (State::Ready { .. }, Verdict::Reject(mismatch)) =
                    (&self.state, self.connector.judge())
            {
                self.leave(&CloseReason::TargetSession(mismatch));
            }
            return;
        }
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
                if spoils_session(&ticket, error, config) || self.is_reader && is_of_session(error) {
                    self.spoilt = Some(CloseReason::Server(error.clone()));
                }
            }
            Asked::Set { len } => {
                if self.in_flight.set(len).any(|ticket| spoils_session(ticket, error, config)) {
                    self.spoilt = Some(CloseReason::Server(error.clone()));
                }
            }
            // Poolers and other engines do not have these functions: then the timeline stays unknown.
            Asked::History => {
                log::info!("no history of the server, so an old primary is not told apart: {error}");
            }
            Asked::Fitness => {
                if let Verdict::Reject(mismatch) = self.connector.answered(None) {
                    self.close(CloseReason::TargetSession(mismatch));
                }
            }
            Asked::Settings | Asked::Accounts | Asked::Probe | Asked::Position { .. }
                if self.is_starting() =>
            {
                self.close(CloseReason::Server(error.clone()));
            }
            Asked::Settings | Asked::Accounts | Asked::Probe | Asked::Position { .. } => {
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

    /// Closes a spoilt session once nothing is in flight: before, calls without an answer would be in doubt.
    fn leave_if_spoilt(&mut self) {
        if self.spoilt.is_some()
            && self.in_flight.is_empty()
            && let Some(reason) = self.spoilt.clone()
        {
            self.close(reason);
        }
    }

    /// Each procedure returns exactly one row, so by the end of a call its answer is held.
    fn expect_held(&mut self, number: Option<u64>) {
        if self.held.last_number() != number {
            self.close(CloseReason::Other("a procedure returned no row"));
        }
    }

    /// The oldest batch is committed.
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
                if let Some(problem) = accounts_problem(self.account_ids.len(), config) {
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
                let Some(batch) = self.in_flight.commit() else { return Committed::Nothing };
                self.leave_if_spoilt();
                if batch.calls == 0 {
                    return self.probed(&batch, config);
                }
                self.held.release();
                Committed::Calls
            }
            state @ (State::Down | State::Connecting) => {
                self.state = state;
                Committed::Nothing
            }
        }
    }

    /// The session serves: the next round begins with the first host again, and the log repeats every problem.
    fn be_established(&mut self) {
        self.connector.established();
        self.complaints.forget();
    }

    /// A probe succeeded.
    fn probed(&mut self, probe: &Batch, config: &Config) -> Committed {
        if !self.is_serving {
            log::info!("the bank is served again");
            self.is_serving = true;
        }
        match accounts_problem(self.account_ids.len(), config) {
            Some(NO_ACCOUNTS) if probe.reads_accounts => {
                self.close(CloseReason::Other(NO_ACCOUNTS));
                Committed::Nothing
            }
            // The accounts that are known are still served.
            Some(problem) if probe.reads_accounts => {
                log::warn!("{problem}; new clients are not known");
                Committed::Probe { has_accounts: false }
            }
            Some(_) | None => Committed::Probe { has_accounts: probe.reads_accounts },
        }
    }

    /// Goes down and tells the connector why. Returns whether the lane was ready.
    fn fall(&mut self, reason: &CloseReason) -> bool {
        let was_spoilt = self.spoilt.take().is_some();
        let failure = match self.state {
            // The next session on this host may be spoilt, too: try the other hosts first, after a wait.
            _ if was_spoilt => Some(Failure::Host),
            // A primary that waits for standbys which are gone accepts sessions, but none of its commits ends.
            State::Ready { .. } if matches!(reason, CloseReason::TimedOut) => Some(Failure::Host),
            State::Ready { .. } if !self.is_suspect => None,
            // The log-in succeeded, but the bank cannot be served there.
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
        self.in_flight.clear();
        self.held.clear();
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
