//! CORE: one connection to PostgreSQL: where and when to connect, and its life from down to ready.

mod held;
mod in_flight;
mod log_in;
mod ready;
pub mod session;
pub mod statements;

use core::net::SocketAddr;
use std::fmt::Display;
use std::io::ErrorKind;
use std::time::Duration;

use proto_pg::{Channel, CloseReason, ConnectStep, Connection, Connector, Failure, RoundError};

use crate::bank::{Accounts, Outcome, Unavailable};
use crate::buf::Pipe;
use crate::config::{Config, Database};
use crate::engine::lane::held::{Held, HeldAnswers};
use crate::engine::lane::log_in::{LogIn, LogInEvent};
use crate::engine::lane::ready::{Ready, ReadyEvent};
use crate::engine::lane::session::{History, OLD_TIMELINE, Position, remedy};
use crate::engine::lane::statements::{Asked, statements};
use crate::engine::logged_problems::LoggedProblems;
use crate::engine::ticket::Ticket;
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
    /// The timeline of its server, if the server reported it.
    history: Option<History>,
    /// The previous session was spoilt, and nothing has been committed since: this one may be spoilt, too.
    is_suspect: bool,
    /// The answers of the oldest batch in flight, provisional until it is committed.
    held: HeldAnswers,
    /// Where to connect, and when.
    connector: Connector,
    /// TLS or nothing, between the connection and its socket.
    channel: Channel,
    /// Why the socket has ended. The connection closes only after all bytes that arrived before were processed: each answer
    /// among them is one call fewer in doubt.
    end: Option<CloseReason>,
    /// For how many turns its deadline has waited, as the socket was readable.
    spared_turns: u8,
    logged_problems: LoggedProblems,
}

/// Each of these turns reads a full inbox, and a few hold the largest answer.
const SPARED_TURNS_MAX: u8 = 64;

enum State {
    /// No socket. The connector decides what to try next.
    Down,
    /// The shell looks a name up, or is connecting.
    Connecting,
    /// Connected, but not ready for batches yet.
    Starting(LogIn),
    /// Takes batches.
    Ready(Ready),
}

impl State {
    fn connection(&mut self) -> Option<&mut Connection<Asked>> {
        match self {
            State::Down | State::Connecting => None,
            State::Starting(log_in) => Some(&mut log_in.connection),
            State::Ready(ready) => Some(&mut ready.connection),
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
    Probed(Option<Vec<i32>>),
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
        /// It was ready. Otherwise an attempt failed; the log has all attempts of a round at its end.
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
            history: None,
            is_suspect: false,
            held: HeldAnswers::with_capacity(config.batch_calls_max),
            connector: Connector::new(database.connector.clone(), seed),
            channel: Channel::default(),
            end: None,
            spared_turns: 0,
            logged_problems: LoggedProblems::default(),
        }
    }

    /// Whether [`Lane::poll_step`] would return a step.
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
        self.state = State::Starting(LogIn::new(connection, self.is_reader, deadline_us));
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
    pub fn log_failed_round(&mut self, index: usize, error: &RoundError, now: Now) {
        for problem in &error.problems {
            self.log_if_new(index, &problem.to_string(), now);
        }
        if let Some(remedy) = error.remedy {
            let setting = if self.is_reader { "DATABASE_URL_READ" } else { "DATABASE_URL" };
            self.log_if_new(index, &format!("{setting}: {remedy}"), now);
        }
    }

    /// Logs why its session ended.
    pub fn log_end_of_session(&mut self, index: usize, reason: &CloseReason, now: Now) {
        let problem = format!("{}: {reason}{}", self.connector.target(), remedy(reason));
        self.log_if_new(index, &problem, now);
    }

    /// Logs why there is no connection, unless [`LoggedProblems`] has logged the same text a short time ago.
    fn log_if_new(&mut self, index: usize, problem: &str, now: Now) {
        if self.logged_problems.is_news(problem, now) {
            if self.is_reader {
                log::warn!("the reader is down, so statements go to the primary: {problem}");
            } else {
                log::warn!("lane {index} is down: {problem}");
            }
        }
    }

    /// Logs why a standby does not answer statements although there is a session.
    pub fn log_stale_standby(&mut self, problem: &str, now: Now) {
        if self.logged_problems.is_news(problem, now) {
            log::warn!("{}: {problem}, so statements go to the primary", self.connector.target());
        }
    }

    fn connect_deadline_us(&self) -> u64 {
        let micros = |deadline: Duration| u64::try_from(deadline.as_micros()).unwrap_or(u64::MAX);
        self.connector.deadline().map_or(u64::MAX, micros)
    }

    /// Its session, if that takes batches. The session may have ended already.
    fn session(&self) -> Option<&Ready> {
        match &self.state {
            State::Ready(ready) => Some(ready),
            State::Down | State::Connecting | State::Starting(_) => None,
        }
    }

    /// The host of its session, if that takes batches; as a position in the list of hosts.
    pub fn served_host(&self) -> Option<usize> {
        let session = self.session()?;
        (session.is_open() && !session.is_spoilt()).then(|| self.connector.host_position())
    }

    /// The host of its last session or attempt, as a position in the list.
    pub fn last_host(&self) -> usize {
        self.connector.host_position()
    }

    /// Leaves a server that a promoted standby has replaced: at once, or when the batches in flight have ended.
    pub fn leave_old_timeline(&mut self, newest: &History) {
        if self.history.as_ref().is_some_and(|history| history.is_older_than(newest)) {
            match &mut self.state {
                State::Starting(log_in) => log_in.connection.close(CloseReason::Other(OLD_TIMELINE)),
                State::Ready(ready) => ready.leave(&CloseReason::Other(OLD_TIMELINE)),
                State::Down | State::Connecting => {}
            }
        }
    }

    /// Leaves the session: it takes no more batches, and closes once those in flight have ended.
    pub fn leave(&mut self, reason: &CloseReason) {
        if let State::Ready(ready) = &mut self.state {
            ready.leave(reason);
        }
    }

    /// Its session, while there is one.
    #[cfg(test)]
    pub(crate) fn connection(&mut self) -> Option<&mut Connection<Asked>> {
        self.state.connection()
    }

    /// Whether the socket has ended and [`Lane::poll_event`] has not reported it yet.
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
        self.session().is_some_and(Ready::is_open)
    }

    /// Whether it is ready, and the last probe was served.
    pub fn is_serving(&self) -> bool {
        self.session().is_some_and(|session| session.is_open() && session.is_serving())
    }

    /// How far it is, for the metrics.
    pub fn metered_state(&self) -> LaneState {
        match &self.state {
            State::Down => LaneState::Down,
            State::Connecting => LaneState::Connecting,
            State::Starting(_) => LaneState::Starting,
            State::Ready(ready) if ready.is_open() => LaneState::Ready,
            // Closed, and about to fall.
            State::Ready(_) => LaneState::Down,
        }
    }

    /// Whether it takes a batch now.
    pub fn can_take_batch(&self, config: &Config) -> bool {
        self.session().is_some_and(|session| session.can_take_batch(config))
    }

    /// Calls that were sent and whose batch has not ended.
    pub fn in_flight_calls(&self) -> usize {
        self.session().map_or(0, |session| session.in_flight().calls())
    }

    /// Calls, members of a set, and deadline in monotonic microseconds of each batch that is out, oldest first; a probe has no
    /// call.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn batches(&self) -> impl DoubleEndedIterator<Item = (usize, usize, u64)> {
        let batches = self.session().into_iter().flat_map(|session| session.in_flight().batches());
        batches.map(|batch| (batch.calls, batch.set_len, batch.deadline_us))
    }

    /// How many answers it holds until their batch is committed.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn held_answers(&self) -> usize {
        self.held.len()
    }

    /// Sends calls as one batch: one implicit transaction, one commit. The caller has sorted them by account, or two
    /// batches may deadlock. From `group_calls_min` transactions on, these go as one set, ahead of the statements. A probe that is
    /// due goes first, and reads the accounts if `reads_accounts`: under load a lane is never idle.
    ///
    /// # Panics
    /// Unless [`Lane::can_take_batch`] said so, and with more than `batch_calls_max` tickets.
    pub fn send_batch(&mut self, tickets: &[Ticket], reads_accounts: bool, config: &Config, now: Now) {
        let State::Ready(ready) = &mut self.state else { panic!("only a ready lane takes a batch") };
        ready.send_batch(tickets, reads_accounts, config, now);
        self.channel.exchange(&mut ready.connection);
    }

    /// Acts on deadlines that have passed: gives up a silent lane, and probes one that is ready, also between batches.
    pub fn expire(&mut self, reads_accounts: bool, config: &Config, now: Now) {
        match &mut self.state {
            State::Down | State::Connecting => {}
            State::Starting(log_in) => {
                if now.is_past(log_in.deadline_us) {
                    log_in.connection.close(CloseReason::TimedOut);
                }
            }
            State::Ready(ready) => {
                ready.expire(reads_accounts, config, now);
                self.channel.exchange(&mut ready.connection);
            }
        }
    }

    /// When [`Lane::expire`] or [`Lane::poll_step`] will have something to do, in monotonic microseconds.
    pub fn deadline_us(&self, config: &Config) -> u64 {
        match &self.state {
            State::Down | State::Connecting => self.connect_deadline_us(),
            State::Starting(log_in) => log_in.deadline_us,
            State::Ready(ready) => ready.deadline_us(config),
        }
    }

    /// Whether [`Lane::expire`] is to act now. A deadline that has passed waits while the socket is readable, since that may be the
    /// answer; but not for more than `SPARED_TURNS_MAX` turns, since a server may send other things without an end.
    pub fn is_due(&mut self, is_readable: impl FnOnce() -> bool, config: &Config, now: Now) -> bool {
        let is_overdue = now.is_past(self.deadline_us(config));
        let is_spared = is_overdue && self.spared_turns < SPARED_TURNS_MAX && is_readable();
        self.spared_turns = if is_spared { self.spared_turns + 1 } else { 0 };
        is_overdue && !is_spared
    }

    /// The next thing that happened. Drain it to `None` after each input.
    // Out of line, so that profiles name it.
    #[inline(never)]
    pub fn poll_event(&mut self, config: &Config, now: Now) -> Option<LaneEvent<'_>> {
        loop {
            match &mut self.state {
                State::Down | State::Connecting => return None,
                State::Starting(log_in) => match log_in.poll_event(&mut self.connector, config) {
                    Some(LogInEvent::Placed(history)) => {
                        self.history = Some(history.clone());
                        return Some(LaneEvent::Placed(history));
                    }
                    Some(LogInEvent::Done(account_ids)) => {
                        self.take_batches(config, now);
                        return Some(LaneEvent::Ready(Accounts::new(account_ids)));
                    }
                    Some(LogInEvent::Closed(reason)) => return Some(self.fall(reason)),
                    None => {}
                },
                State::Ready(ready) => {
                    let event = ready.poll_event(&mut self.connector, &mut self.held, config);
                    if self.is_suspect && ready.has_committed() {
                        self.is_suspect = false;
                        self.be_established();
                    }
                    match event {
                        Some(ReadyEvent::Answered(Held { ticket, result })) => {
                            return Some(LaneEvent::Answered(ticket, self.held.outcome(result)));
                        }
                        Some(ReadyEvent::RunAgain(ticket)) => return Some(LaneEvent::RunAgain(ticket)),
                        Some(ReadyEvent::Unavailable(ticket, reason)) => {
                            return Some(LaneEvent::Unavailable(ticket, reason));
                        }
                        Some(ReadyEvent::Position(position, asked_us)) => {
                            return Some(LaneEvent::Position(position, asked_us));
                        }
                        Some(ReadyEvent::Probed(account_ids)) => return Some(LaneEvent::Probed(account_ids)),
                        Some(ReadyEvent::Closed(reason)) => return Some(self.fall(reason)),
                        None => {}
                    }
                }
            }
            if !self.exchange() {
                return None;
            }
        }
    }

    /// Moves what has arrived and what is to be sent between the connection and its channel. Once all that has arrived was
    /// processed, an end of the socket closes the connection. Returns whether the connection may have an event.
    fn exchange(&mut self) -> bool {
        let Some(connection) = self.state.connection() else { return false };
        if self.channel.exchange(connection) {
            return true;
        }
        // Test for `None` first: on the common path that is cheaper than `take`, which moves a `CloseReason`.
        if self.end.is_some()
            && let Some(reason) = self.end.take()
        {
            connection.close(reason);
            return true;
        }
        false
    }

    /// The session has logged in: it takes batches from now on.
    fn take_batches(&mut self, config: &Config, now: Now) {
        if let State::Starting(log_in) = std::mem::replace(&mut self.state, State::Down) {
            self.state = State::Ready(Ready::new(log_in.connection, self.is_reader, config, now));
        }
        if !self.is_suspect {
            self.be_established();
        }
    }

    /// The session serves: the next round begins with the first host again, and the log repeats every problem.
    fn be_established(&mut self) {
        self.connector.established();
        self.logged_problems.forget();
    }

    /// The connection is closed, and all its calls have ended: goes down and tells the connector why.
    fn fall(&mut self, reason: CloseReason) -> LaneEvent<'static> {
        let was_spoilt = self.session().is_some_and(Ready::is_spoilt);
        let failure = match &self.state {
            // The next session on this host may be spoilt, too: try the other hosts first, after a wait.
            _ if was_spoilt => Some(Failure::Host),
            // A primary that waits for standbys which are gone accepts sessions, but none of its commits ends.
            State::Ready(_) if matches!(reason, CloseReason::TimedOut) => Some(Failure::Host),
            State::Ready(_) if !self.is_suspect => None,
            // The log-in succeeded, but the bank cannot be served there.
            State::Starting(log_in) if log_in.is_logged_in() && Failure::from(&reason) == Failure::List => {
                Some(Failure::Host)
            }
            State::Down | State::Connecting | State::Starting(_) | State::Ready(_) => {
                Some(Failure::from(&reason))
            }
        };
        match failure {
            Some(failure) => self.connector.failed(failure, format_args!("{reason}{}", remedy(&reason))),
            None => self.connector.ended(),
        }
        self.is_suspect |= was_spoilt;
        self.held.clear();
        self.end = None;
        let was_ready = matches!(std::mem::replace(&mut self.state, State::Down), State::Ready(_));
        LaneEvent::Closed { reason, was_ready }
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
            State::Starting(log_in) => self.channel.send_pending(&log_in.connection),
            State::Ready(ready) => self.channel.send_pending(&ready.connection),
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
