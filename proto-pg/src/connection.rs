//! One lane to the server, from the start-up message to the last event.

use crate::auth::{Credentials, Exchange};
use crate::error::{CloseReason, Full, ProtocolError, ServerError, StatementError, StatementProblem};
use crate::flight::{Blame, End, Flight, RolledBack, Unexpected, Verdict};
use crate::frame::{Frame, Inbox, Message};
use crate::request::{Oid, Outbox, Session, Statement, Value, call_len_bytes};
use crate::row::Row;
use crate::tag::CommandTag;
use std::fmt::{self, Debug, Formatter};
use std::mem;

/// How much a lane may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest message the server may send, in bytes, head included; at least 5. This is the size of the inbox,
    /// which is allocated once. A longer message closes the lane, unless it is an error or a notice.
    pub message_len_max_bytes: usize,
    /// The longest error or notice, in bytes, head included. Only its severity, code and the beginning of its text are
    /// kept; what does not fit into the inbox is dropped as it arrives. Below `message_len_max_bytes` it has no effect. A
    /// longer one closes the lane.
    pub text_len_max_bytes: usize,
    /// The most bytes that calls may have waiting to be sent; at most `i32::MAX`. Allocated once. The start-up
    /// messages do not count.
    pub send_len_max_bytes: usize,
    /// The most calls that may be unanswered; not 0.
    pub in_flight_calls_max: usize,
}

/// What a lane reports, in order.
///
/// A new variant never takes the place of one of these: a ticket that was told its end by one of today's events will
/// be told it so tomorrow.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a, T> {
    /// Started: authenticated, every statement parsed. Calls are welcome from now on.
    Ready,
    /// A row of this ticket's result. Provisional until [`Event::Committed`].
    Row {
        /// The call it belongs to.
        ticket: T,
        /// The row, borrowed until the next use of the lane.
        row: Row<'a>,
    },
    /// The call has run to its end. Provisional until [`Event::Committed`].
    Done {
        /// The call.
        ticket: T,
        /// What it did, with the number of rows; borrowed until the next use of the lane.
        tag: CommandTag<'a>,
    },
    /// The call failed, and its batch with it. Final for this ticket; the others are told when the batch ends.
    Failed {
        /// The call that is to blame.
        ticket: T,
        /// What the server says about it.
        error: ServerError,
    },
    /// The call is known not to have happened: another call of its batch failed, or the commit did, or its Sync
    /// never left this side before the lane closed. Final for this ticket, and safe to run again.
    RolledBack {
        /// The call.
        ticket: T,
    },
    /// The lane closed after this call's Sync had left and before the server answered it: it may have been
    /// committed, or not. Final for this ticket.
    InDoubt {
        /// The call.
        ticket: T,
    },
    /// The oldest batch was committed: every ticket of it that was Done is final. An empty batch (a ping) ends so
    /// as well.
    Committed,
    /// The oldest batch was rolled back; each of its tickets has been told. If one [`Event::Failed`], it got the
    /// error; if the commit itself failed, the error is here.
    Aborted {
        /// The error that no ticket got.
        error: Option<ServerError>,
    },
    /// The server remarks on something. It changes nothing.
    Notice(ServerError),
    /// The server reports a setting of the session.
    Parameter {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// Someone used NOTIFY on a channel this session listens to.
    Notification {
        /// The notifying server process.
        process_id: i32,
        /// The channel.
        channel: String,
        /// The payload; may be empty.
        payload: String,
    },
    /// The lane is closed and every ticket has had its final event. Nothing follows.
    Closed {
        /// Why.
        reason: CloseReason,
    },
}

/// What a cancel request would need to name this session.
///
/// Format: PostgreSQL documentation, "Frontend/Backend Protocol", section Message Formats, `BackendKeyData`.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackendKey {
    /// The server process of this session.
    pub process_id: i32,
    /// The secret that proves that a cancel request comes from its owner.
    pub secret_key: i32,
}

/// One lane: a session with a server, as a machine from bytes to events.
///
/// `T` is the owner's ticket: opaque here, returned with each answer. Every ticket that [`Connection::call`] accepts
/// gets exactly one final event: [`Event::Failed`], [`Event::RolledBack`], [`Event::InDoubt`], or an
/// [`Event::Done`] that its batch's [`Event::Committed`] confirms.
///
/// The owner moves bytes (`recv_space`, `recv_commit`, `send_pending`, `send_advance`), gives commands (`call`,
/// `sync`, `close`, `terminate`), and **after each input drains [`Connection::poll_event`] to `None`** before the
/// next one. Nothing here waits, and nothing allocates once the session has started, except for errors, notices
/// and other rare messages, which own their text.
pub struct Connection<T: Copy> {
    phase: Phase,
    flight: Flight<T>,
    inbox: Inbox,
    outbox: Outbox,
    statements: Box<[Prepared]>,
    backend_key: Option<BackendKey>,
    server_version: String,
}

/// A statement that calls may name by its index.
struct Prepared {
    name: String,
    parameters_len: usize,
    /// What is needed until it is prepared.
    recipe: Option<Recipe>,
}

/// A [`Statement`], of which nothing is borrowed.
struct Recipe {
    sql: String,
    parameter_types: Vec<Oid>,
    column_types: Option<Vec<Oid>>,
}

impl Prepared {
    fn new(statement: &Statement<'_>) -> Prepared {
        let recipe = Recipe {
            sql: statement.sql.to_owned(),
            parameter_types: statement.parameter_types.to_owned(),
            column_types: statement.column_types.map(<[Oid]>::to_owned),
        };
        Prepared {
            name: statement.name.to_owned(),
            parameters_len: statement.parameter_types.len(),
            recipe: Some(recipe),
        }
    }

    /// The statement, until it is prepared.
    fn statement(&self) -> Option<Statement<'_>> {
        let Recipe { sql, parameter_types, column_types } = self.recipe.as_ref()?;
        let statement = Statement::new(&self.name, sql, parameter_types);
        Some(match column_types {
            Some(column_types) => statement.returning(column_types),
            None => statement,
        })
    }

    fn error(&self, problem: StatementProblem) -> CloseReason {
        StatementError { name: self.name.clone(), problem }.into()
    }
}

/// What the server says next about a statement that is being prepared.
#[derive(Clone, Copy)]
enum Preparation {
    /// That it is parsed.
    Parse,
    /// The types of its parameters, as it has to be described.
    Parameters,
    /// The columns of its result.
    Columns,
}

/// The life of a lane. Forward only, one step at a time; `Closing` may follow any.
enum Phase {
    /// The start-up message is queued or sent.
    Authenticating { exchange: Exchange, credentials: Credentials },
    /// Authenticated; the server reports its settings and ends with `ReadyForQuery`.
    Starting,
    /// Every statement's Parse, Describe where types are to be checked, and one Sync are queued or sent; the first `prepared`
    /// are done with.
    Preparing { prepared: usize, next: Preparation },
    /// Calls come and go.
    Ready,
    /// As `Ready`, but our last word, Terminate, is queued or sent.
    Leaving,
    /// No byte counts any more; tickets are being told.
    Closing { reason: CloseReason },
    /// All has been said.
    Closed,
}

/// What one message comes to. A row or a tag is named by its place, so that the inbox stays free for the next message if
/// there is no event.
enum Output<T> {
    Event(Event<'static, T>),
    Row { ticket: T, frame: Frame },
    Done { ticket: T, frame: Frame },
}

impl<T: Copy> Connection<T> {
    /// Makes a lane and queues its start-up message. `statements` are prepared before [`Event::Ready`], and copied: they need
    /// not outlive this call.
    ///
    /// A session with a NUL byte in a name or value makes a lane that is already closing: the first event says so.
    ///
    /// # Panics
    /// These are bugs of the owner: `limits` are outside the ranges that [`Limits`] gives; a statement has no name, a
    /// NUL byte, or more than 65535 parameters.
    pub fn new(session: &Session, statements: &[Statement<'_>], limits: Limits) -> Connection<T> {
        for statement in statements {
            // An unnamed statement would be replaced by the next one.
            assert!(!statement.name.is_empty(), "a statement without a name: {:?}", statement.sql);
            statement.check();
        }
        let mut outbox = Outbox::new(limits.send_len_max_bytes);
        let phase = if outbox.startup(session).is_ok() {
            let credentials = Credentials { user: session.user.clone(), password: session.password.clone() };
            Phase::Authenticating { exchange: Exchange::Unasked, credentials }
        } else {
            outbox.discard();
            Phase::Closing { reason: CloseReason::Other("a start-up parameter contains a NUL byte") }
        };
        Connection {
            phase,
            flight: Flight::new(limits.in_flight_calls_max),
            inbox: Inbox::new(limits.message_len_max_bytes, limits.text_len_max_bytes),
            outbox,
            statements: statements.iter().map(Prepared::new).collect(),
            backend_key: None,
            server_version: String::new(),
        }
    }

    /// Where to put bytes from the server. Empty if complete messages wait for [`Connection::poll_event`], and once
    /// the lane is closing; after a drain to `None` an open lane always has room.
    pub fn recv_space(&mut self) -> &mut [u8] {
        if self.is_closing() { &mut [] } else { self.inbox.space() }
    }

    /// Says that the first `n` bytes of [`Connection::recv_space`] have been filled.
    ///
    /// # Panics
    /// If `n` is more than that space.
    pub fn recv_commit(&mut self, n: usize) {
        self.inbox.commit(n);
    }

    /// Bytes that wait to be sent to the server; empty if there are none, and once the lane is closing.
    pub fn send_pending(&self) -> &[u8] {
        self.outbox.pending()
    }

    /// Says that the first `n` bytes of [`Connection::send_pending`] have been handed to the transport. A batch
    /// whose Sync has left this way is in doubt from here until its answer.
    ///
    /// # Panics
    /// If `n` is more than what is pending.
    pub fn send_advance(&mut self, n: usize) {
        self.outbox.advance(n);
    }

    /// Queues one call of a prepared statement as Bind and Execute, with binary parameters and results. Nothing is
    /// final until [`Connection::sync`], and the server need not answer before it.
    ///
    /// Calls up to the next Sync share one implicit transaction: if one fails, the server skips the rest and rolls
    /// all of them back, and each ticket gets its own event that says so.
    ///
    /// Format: PostgreSQL documentation, "Frontend/Backend Protocol", sections Pipelining and Message Formats.
    ///
    /// # Errors
    /// [`Full`] if [`Limits::in_flight_calls_max`] calls are unanswered or the call does not fit into
    /// [`Limits::send_len_max_bytes`] now. Nothing is queued and the lane is unchanged. If nothing is in flight and
    /// nothing is pending, the call is too long for this lane and waiting will not help.
    ///
    /// # Panics
    /// These are bugs of the owner: the lane is not [ready](Connection::is_ready), there is no such statement, the
    /// statement has another number of parameters, or one of them is an array within an array.
    pub fn call(&mut self, ticket: T, statement: usize, parameters: &[Value<'_>]) -> Result<(), Full> {
        assert!(self.is_ready(), "a call on a lane that is not ready");
        assert!(statement < self.statements.len(), "there is no statement {statement}");
        let statement = &self.statements[statement];
        assert_eq!(
            parameters.len(),
            statement.parameters_len,
            "parameters of statement {:?}",
            statement.name
        );
        if self.flight.is_full() || !self.outbox.has_room_for(call_len_bytes(&statement.name, parameters)) {
            return Err(Full);
        }
        self.outbox.encode_call(&statement.name, parameters);
        self.flight.push(ticket);
        Ok(())
    }

    /// Queues a Sync: ends the batch of all calls since the last one. With no such call it is an empty batch, a
    /// ping: the server answers it with [`Event::Committed`] when it has done everything before it.
    ///
    /// Always fits: each call has kept room for its Sync. A ping takes 5 bytes above
    /// [`Limits::send_len_max_bytes`] if need be.
    ///
    /// # Panics
    /// These are bugs of the owner: the lane is not [ready](Connection::is_ready), or a ping comes on top of
    /// more than [`Limits::in_flight_calls_max`] unanswered batches.
    pub fn sync(&mut self) {
        assert!(self.is_ready(), "a Sync on a lane that is not ready");
        self.outbox.sync();
        self.flight.sync(self.outbox.end());
    }

    /// Closes the lane; the owner says why. What is still to be sent or parsed is dropped, each unanswered ticket
    /// gets its final event, then comes [`Event::Closed`]. So first drain what has arrived: each answer that was
    /// read is one doubt less. On a lane that is closing already it does nothing.
    ///
    /// A ticket whose batch has failed already, or whose Sync has not left whole, is [`Event::RolledBack`]; any
    /// other is [`Event::InDoubt`].
    pub fn close(&mut self, reason: CloseReason) {
        if !self.is_closing() {
            self.phase = Phase::Closing { reason };
            self.outbox.discard();
        }
    }

    /// Queues Terminate, the polite last word. Batches in flight are still answered, no more calls are accepted, and
    /// the server closes the socket at the end. Before [`Event::Ready`] or on a lane that is leaving or closing it
    /// does nothing.
    ///
    /// Format: PostgreSQL documentation, "Frontend/Backend Protocol", section Termination.
    ///
    /// # Panics
    /// If calls have been queued since the last Sync, which is a bug of the owner: they would be lost.
    pub fn terminate(&mut self) {
        match self.phase {
            Phase::Ready => {
                assert!(!self.flight.is_open(), "Terminate in the middle of a batch");
                self.outbox.terminate();
                self.phase = Phase::Leaving;
            }
            Phase::Authenticating { .. }
            | Phase::Starting
            | Phase::Preparing { .. }
            | Phase::Leaving
            | Phase::Closing { .. }
            | Phase::Closed => {}
        }
    }

    /// The next event, or `None` if the lane waits for bytes or commands. Drain it to `None` after each input.
    pub fn poll_event(&mut self) -> Option<Event<'_, T>> {
        match self.next_output()? {
            Output::Event(event) => Some(event),
            // The row was decoded once to check it, and the inbox has not changed since: it is never `None`.
            Output::Row { ticket, frame } => {
                Row::from_checked(self.inbox.body(&frame)).map(|row| Event::Row { ticket, row })
            }
            Output::Done { ticket, frame } => {
                Some(Event::Done { ticket, tag: CommandTag::from_checked(self.inbox.body(&frame)) })
            }
        }
    }

    /// True from [`Event::Ready`] until the lane is leaving or closing: calls are accepted.
    pub fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready)
    }

    /// True as soon as the lane is lost, be it by [`Connection::close`] or by the peer's doing: the rest of the
    /// events are verdicts.
    pub fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. } | Phase::Closed)
    }

    /// The number of calls without a final event.
    pub fn in_flight_calls(&self) -> usize {
        self.flight.tickets_len()
    }

    /// The number of batches whose Sync is queued or sent and whose end has not been reported.
    pub fn batches_in_flight(&self) -> usize {
        self.flight.batches_len()
    }

    /// True if calls have been queued since the last Sync.
    pub fn has_open_batch(&self) -> bool {
        self.flight.is_open()
    }

    /// The server's version as it reports it ("16.4"); empty until it does.
    pub fn server_version(&self) -> &str {
        &self.server_version
    }

    /// The session's key for cancel requests, once the server has sent it.
    pub fn backend_key(&self) -> Option<BackendKey> {
        self.backend_key
    }

    /// Goes through messages until one of them is worth an event.
    fn next_output(&mut self) -> Option<Output<T>> {
        loop {
            if self.is_closing() {
                return self.next_verdict().map(Output::Event);
            }
            match self.flight.tell_rolled_back() {
                Some(RolledBack::Ticket(ticket)) => return Some(Output::Event(Event::RolledBack { ticket })),
                Some(RolledBack::Batch(error)) => return Some(Output::Event(Event::Aborted { error })),
                None => {}
            }
            let result = match self.inbox.next_frame() {
                Ok(None) => return None,
                Ok(Some(frame)) => self.receive(frame),
                Err(error) => Err(error.into()),
            };
            match result {
                Ok(None) => {}
                Ok(Some(output)) => return Some(output),
                Err(reason) => self.close(reason),
            }
        }
    }

    /// The lane is closing: what became of the next ticket; after the last, the reason.
    fn next_verdict(&mut self) -> Option<Event<'static, T>> {
        match self.flight.tell_closed(self.outbox.taken()) {
            Some(Verdict::RolledBack(ticket)) => return Some(Event::RolledBack { ticket }),
            Some(Verdict::InDoubt(ticket)) => return Some(Event::InDoubt { ticket }),
            None => {}
        }
        match mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Closing { reason } => Some(Event::Closed { reason }),
            Phase::Authenticating { .. }
            | Phase::Starting
            | Phase::Preparing { .. }
            | Phase::Ready
            | Phase::Leaving
            | Phase::Closed => None,
        }
    }

    /// Takes one message, and says what it comes to. The last arm is the list of refusals: a message that no arm
    /// above has claimed for its phase.
    ///
    /// # Errors
    /// The lane must close.
    fn receive(&mut self, frame: Frame) -> Result<Option<Output<T>>, CloseReason> {
        let message = self.inbox.message(&frame)?;
        let event = match (&mut self.phase, message) {
            // At any time.
            (_, Message::Notice(notice)) => Event::Notice(notice),
            (_, Message::Notification { process_id, channel, payload }) => {
                Event::Notification { process_id, channel: channel.to_owned(), payload: payload.to_owned() }
            }
            (_, Message::Parameter { name, value }) => {
                if name == "server_version" {
                    value.clone_into(&mut self.server_version);
                }
                Event::Parameter { name: name.to_owned(), value: value.to_owned() }
            }
            (_, Message::Error(error)) if error.severity.ends_session() => return Err(error.into()),
            (_, Message::ReadyForQuery { status }) if status != b'I' => {
                return Err(ProtocolError::NotIdle { status }.into());
            }

            // Start-up, in order.
            // Protocol 3.0 is the oldest there is, so a newer minor version cannot have been refused.
            (Phase::Authenticating { .. }, Message::NegotiateProtocolVersion { options_refused: 0 }) => {
                return Ok(None);
            }
            (Phase::Authenticating { .. }, Message::NegotiateProtocolVersion { options_refused: count }) => {
                return Err(ProtocolError::OptionsRefused { count }.into());
            }
            (Phase::Authenticating { exchange, credentials }, Message::Authentication(request)) => {
                exchange.answer(&request, credentials, &mut self.outbox)?;
                if exchange.is_complete() {
                    self.phase = Phase::Starting;
                }
                return Ok(None);
            }
            (Phase::Starting, Message::BackendKeyData { process_id, secret_key }) => {
                self.backend_key = Some(BackendKey { process_id, secret_key });
                return Ok(None);
            }
            (Phase::Starting, Message::ReadyForQuery { .. }) => {
                self.start_preparing();
                return Ok(None);
            }
            (Phase::Preparing { prepared, next: Preparation::Parse }, Message::ReadyForQuery { .. })
                if *prepared == self.statements.len() =>
            {
                self.statements.iter_mut().for_each(|statement| statement.recipe = None);
                self.phase = Phase::Ready;
                Event::Ready
            }
            (Phase::Preparing { prepared, next }, message) => {
                let is_expected = prepare(&self.statements, prepared, next, message)?;
                return if is_expected { Ok(None) } else { Err(self.unexpected(frame.tag)) };
            }
            (Phase::Authenticating { .. } | Phase::Starting, Message::Error(error)) => {
                return Err(error.into());
            }

            // Calls and batches.
            (Phase::Ready | Phase::Leaving, Message::BindComplete) => {
                self.flight.bind_complete().map_err(|Unexpected| self.unexpected(frame.tag))?;
                return Ok(None);
            }
            (Phase::Ready | Phase::Leaving, Message::DataRow) => {
                let ticket = self.flight.data_row().map_err(|Unexpected| self.unexpected(frame.tag))?;
                return Ok(Some(Output::Row { ticket, frame }));
            }
            (Phase::Ready | Phase::Leaving, Message::CommandComplete) => {
                let done = self.flight.command_complete();
                let ticket = done.map_err(|Unexpected| self.unexpected(frame.tag))?;
                return Ok(Some(Output::Done { ticket, frame }));
            }
            (Phase::Ready | Phase::Leaving, Message::Error(error)) => match self.flight.error(error) {
                Blame::Ticket(ticket, error) => Event::Failed { ticket, error },
                Blame::Batch => return Ok(None),
                Blame::Nobody(error) => return Err(error.into()),
            },
            (Phase::Ready | Phase::Leaving, Message::ReadyForQuery { .. }) => {
                match self.flight.ready_for_query().map_err(|Unexpected| self.unexpected(frame.tag))? {
                    End::Committed => Event::Committed,
                    End::Failed => return Ok(None),
                }
            }

            (
                Phase::Authenticating { .. }
                | Phase::Starting
                | Phase::Ready
                | Phase::Leaving
                | Phase::Closing { .. }
                | Phase::Closed,
                Message::Authentication(_)
                | Message::NegotiateProtocolVersion { .. }
                | Message::BackendKeyData { .. }
                | Message::ParseComplete
                | Message::BindComplete
                | Message::DataRow
                | Message::CommandComplete
                | Message::ReadyForQuery { .. }
                | Message::Error(_)
                | Message::ParameterDescription(_)
                | Message::RowDescription(_)
                | Message::NoData
                | Message::Unrequested,
            ) => return Err(self.unexpected(frame.tag)),
        };
        Ok(Some(Output::Event(event)))
    }

    /// Queues everything that prepares the statements.
    fn start_preparing(&mut self) {
        for statement in self.statements.iter().filter_map(Prepared::statement) {
            self.outbox.parse(&statement);
            if statement.column_types.is_some() {
                self.outbox.describe_statement(statement.name);
            }
        }
        self.outbox.sync();
        self.phase = Phase::Preparing { prepared: 0, next: Preparation::Parse };
    }

    fn unexpected(&self, tag: u8) -> CloseReason {
        CloseReason::Protocol(ProtocolError::Unexpected { tag, phase: self.phase_name() })
    }

    fn phase_name(&self) -> &'static str {
        match &self.phase {
            Phase::Authenticating { .. } => "authenticating",
            Phase::Starting => "starting up",
            Phase::Preparing { .. } => "preparing statements",
            Phase::Ready | Phase::Leaving => self.flight.phase(),
            Phase::Closing { .. } | Phase::Closed => "closing",
        }
    }
}

/// Takes a message about the statements that are being prepared; false if it cannot come now.
///
/// # Errors
/// One of them cannot be used, or the server has an error that is none of theirs.
fn prepare(
    statements: &[Prepared],
    prepared: &mut usize,
    next: &mut Preparation,
    message: Message<'_>,
) -> Result<bool, CloseReason> {
    // The server takes them in order. Each keeps its recipe until all are prepared.
    let Some((current, statement)) =
        statements.get(*prepared).and_then(|current| Some((current, current.statement()?)))
    else {
        return if let Message::Error(error) = message { Err(error.into()) } else { Ok(false) };
    };
    let is_described = statement.column_types.is_some();
    let (checked, then) = match (*next, message) {
        (_, Message::Error(error)) => (Err(StatementProblem::Refused(error)), None),
        (Preparation::Parse, Message::ParseComplete) if is_described => {
            (Ok(()), Some(Preparation::Parameters))
        }
        (Preparation::Parse, Message::ParseComplete) => (Ok(()), None),
        (Preparation::Parameters, Message::ParameterDescription(types)) => {
            (statement.check_parameters(&types), Some(Preparation::Columns))
        }
        (Preparation::Columns, Message::RowDescription(columns)) => {
            (statement.check_columns(Some(columns)), None)
        }
        (Preparation::Columns, Message::NoData) => (statement.check_columns(None), None),
        (Preparation::Parse | Preparation::Parameters | Preparation::Columns, _) => return Ok(false),
    };
    checked.map_err(|problem| current.error(problem))?;
    *next = then.unwrap_or(Preparation::Parse);
    *prepared += usize::from(then.is_none());
    Ok(true)
}

impl<T: Copy> Debug for Connection<T> {
    /// What it does and how much is open: neither bytes nor secrets.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("phase", &self.phase_name())
            .field("in_flight_calls", &self.in_flight_calls())
            .field("batches_in_flight", &self.batches_in_flight())
            .field("send_pending_bytes", &self.send_pending().len())
            .finish_non_exhaustive()
    }
}

impl Debug for BackendKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendKey").field("process_id", &self.process_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
