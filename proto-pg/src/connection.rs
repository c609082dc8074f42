//! One connection to the server, from the start-up message to the last event.

use crate::auth::{AuthenticationPolicy, Channel, Credentials, Exchange};
use crate::cancel::BackendKey;
use crate::columns::{Columns, ParameterTypes};
use crate::copy::{CopyEnded, CopyFormat};
use crate::error::{CloseReason, Full, ProtocolError, ServerError, StatementError, StatementProblem};
use crate::flight::{Blame, CopyIn, End, Flight, Kind, RolledBack, Unexpected, Verdict};
use crate::frame::{Frame, Inbox, Message};
use crate::request::{
    Oid, Outbox, ProtocolVersion, SHORT_LEN_BYTES, Session, Statement, Value, bind_len_bytes, call_len_bytes,
    parse_len_bytes,
};
use crate::row::{Row, TextRow};
use crate::tag::CommandTag;
use std::fmt::{self, Debug, Formatter};
use std::mem;

/// How much a connection may hold. `Limits { in_flight_calls_max: 16, ..Limits::DEFAULT }` changes one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest message the server may send, in bytes, head included; at least 5. This is the size of the inbox,
    /// which is allocated once. A longer message closes the connection, unless it is an error, a notice, or data of a COPY, which
    /// comes in pieces.
    pub message_len_max_bytes: usize,
    /// The longest error or notice, in bytes, head included. Only its severity, code and the beginning of its text are
    /// kept; what does not fit into the inbox is dropped as it arrives. Below `message_len_max_bytes` it has no effect. A
    /// longer one closes the connection.
    pub text_len_max_bytes: usize,
    /// The most bytes that calls may have waiting to be sent; at most `i32::MAX`. Allocated once. The start-up
    /// messages do not count.
    pub send_len_max_bytes: usize,
    /// The most calls, and other steps with a ticket, that may be unanswered; not 0.
    pub in_flight_calls_max: usize,
}

impl Limits {
    /// For a connection of which nothing special is known: messages of 64 KiB in each direction, errors and notices of 1 MiB,
    /// 256 calls. Some 130 KiB of memory.
    pub const DEFAULT: Limits = Limits {
        message_len_max_bytes: 64 << 10,
        text_len_max_bytes: 1 << 20,
        send_len_max_bytes: 64 << 10,
        in_flight_calls_max: 256,
    };
}

impl Default for Limits {
    /// [`Limits::DEFAULT`].
    fn default() -> Limits {
        Limits::DEFAULT
    }
}

/// What a connection reports, in order.
///
/// A new variant never takes the place of one of these: the end of a ticket is always reported by one of today's events.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a, T> {
    /// Started: authenticated, every statement parsed. Calls are accepted from now on.
    Ready,
    /// A row of this ticket's result. Provisional until [`Event::Committed`].
    Row {
        /// The call it belongs to.
        ticket: T,
        /// The row, borrowed until the next use of the connection.
        row: Row<'a>,
    },
    /// The call, or what else was asked for, has run to its end. Provisional until [`Event::Committed`]; a COMMIT, by its
    /// tag, makes final what is done before it. A simple query has one for each command in it.
    Done {
        /// The call.
        ticket: T,
        /// What it did, with the number of rows; borrowed until the next use of the connection.
        tag: CommandTag<'a>,
    },
    /// A row of a simple query's result, in text format.
    TextRow {
        /// The query it belongs to.
        ticket: T,
        /// The row, borrowed until the next use of the connection.
        row: TextRow<'a>,
    },
    /// [`Connection::execute`] has had as many rows as it asked for, and there may be more: this is in place of
    /// [`Event::Done`].
    Suspended {
        /// The Execute.
        ticket: T,
    },
    /// The parameters of a statement that is [described](Connection::describe_statement). Its columns follow.
    ParameterTypes {
        /// The Describe.
        ticket: T,
        /// The type of each, borrowed until the next use of the connection.
        types: ParameterTypes<'a>,
    },
    /// The columns of a result. Of a Describe, in place of [`Event::Done`]; of a simple query, before its rows.
    Columns {
        /// The Describe or the query.
        ticket: T,
        /// The columns, borrowed until the next use of the connection; `None` if there is no result.
        columns: Option<Columns<'a>>,
    },
    /// A COPY TO STDOUT begins: [`Event::CopyData`] follows, then [`Event::Done`].
    CopyOut {
        /// The call or query.
        ticket: T,
        /// How the data is coded.
        format: CopyFormat,
    },
    /// Data of a COPY TO STDOUT: one row, or a piece of one that is longer than the inbox.
    CopyData {
        /// The call or query.
        ticket: T,
        /// The data, borrowed until the next use of the connection.
        bytes: &'a [u8],
        /// False if more pieces of this row follow.
        is_end: bool,
    },
    /// A COPY FROM STDIN begins: [`Connection::copy_data`] is awaited, then [`Connection::copy_done`] or
    /// [`Connection::copy_fail`]. Until then the connection takes nothing else.
    CopyIn {
        /// The call or query.
        ticket: T,
        /// How the data is to be coded.
        format: CopyFormat,
    },
    /// The call failed, and its batch with it. Final for this ticket; the others are told when the batch ends.
    Failed {
        /// The call that is to blame.
        ticket: T,
        /// What the server says about it.
        error: ServerError,
    },
    /// The call is known not to have happened: another call of its batch failed, or the commit did, or its Sync
    /// never left this side before the connection closed. Final for this ticket, and safe to run again. (Some commands cannot be
    /// rolled back, such as VACUUM, CREATE DATABASE or a CALL of a procedure that commits: give each a batch of its own.)
    RolledBack {
        /// The call.
        ticket: T,
    },
    /// The connection closed after this call's Sync had left and before the server answered it: it may have been
    /// committed, or not. Final for this ticket.
    InDoubt {
        /// The call.
        ticket: T,
    },
    /// The oldest batch has ended outside of a transaction block: every ticket of it that was Done is final. An empty batch
    /// (a ping) ends so as well.
    Committed,
    /// The oldest batch has ended inside a transaction block (BEGIN): what is Done stays provisional until the block ends.
    /// The fate of the block is that of the ticket with its COMMIT: Done with the tag `COMMIT` (`ROLLBACK` if the block had
    /// failed), or in doubt. Without such a ticket, a connection that closes has rolled the block back.
    InTransaction,
    /// The oldest batch was rolled back; each of its tickets has been told. If one [`Event::Failed`], it got the
    /// error; if the commit itself failed, the error is here. Within a transaction block it means that the block has failed
    /// ([`TransactionStatus::Failed`]): what was Done before the error has had its last event, and is rolled back with the
    /// block, or survives if that goes back to a savepoint.
    Aborted {
        /// The error that no ticket got.
        error: Option<ServerError>,
    },
    /// A notice of the server. It changes nothing.
    Notice(ServerError),
    /// The server reports a setting of the session.
    Parameter {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// A session used NOTIFY on a channel that this session listens to.
    Notification {
        /// The notifying server process.
        process_id: i32,
        /// The channel.
        channel: String,
        /// The payload; may be empty.
        payload: String,
    },
    /// The connection is closed and every ticket has had its final event. Nothing follows.
    Closed {
        /// Why.
        reason: CloseReason,
    },
}

/// Whether the session is in a transaction block, as of the last batch that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    /// In none: each batch is a transaction of its own.
    Idle,
    /// In one that BEGIN has opened.
    InTransaction,
    /// In one that has failed: everything but ROLLBACK is refused.
    Failed,
}

impl TransactionStatus {
    fn from_byte(status: u8) -> Option<TransactionStatus> {
        match status {
            b'I' => Some(TransactionStatus::Idle),
            b'T' => Some(TransactionStatus::InTransaction),
            b'E' => Some(TransactionStatus::Failed),
            _ => None,
        }
    }
}

/// One connection: a session with a server, as a machine from bytes to events.
///
/// `T` is the owner's ticket: opaque here, returned with each answer. Every ticket that [`Connection::call`] accepts
/// gets exactly one final event: [`Event::Failed`], [`Event::RolledBack`], [`Event::InDoubt`], or an
/// [`Event::Done`] that its batch's [`Event::Committed`] confirms. The same is true of the other commands that take one.
/// A number or an `Arc` is a good ticket: each event clones it.
///
/// The owner moves bytes (`recv_space`, `recv_commit`, `send_pending`, `send_advance`), gives commands (`call`,
/// `sync`, `close`, `terminate` and the others), and **after each input drains [`Connection::poll_event`] to `None`** before the
/// next one. Nothing here waits, and nothing allocates once the session has started, except for errors, notices
/// and other rare messages, which own their text.
pub struct Connection<T: Clone> {
    phase: Phase,
    /// The next event, if it is one that owns its data; [`Output::Told`] refers to it.
    told: Option<Event<'static, T>>,
    transaction_status: TransactionStatus,
    forbids_blocks: bool,
    protocol: ProtocolVersion,
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
    /// It may commit as soon as the server reads it, before any Sync.
    may_commit: bool,
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
            may_commit: statement.may_commit(),
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

/// The life of a connection. Forward only, one step at a time; `Closing` may follow any.
enum Phase {
    /// The start-up message is queued or sent.
    Authenticating { exchange: Exchange, credentials: Credentials },
    /// Authenticated; the server reports its settings and ends with `ReadyForQuery`.
    Starting,
    /// The Parse of every statement, its Describe if types are checked, and one Sync are queued or sent. The server has answered
    /// for the first `prepared` statements.
    Preparing { prepared: usize, next: Preparation },
    /// Calls come and go.
    Ready,
    /// As `Ready`, but Terminate is queued or sent.
    Leaving,
    /// Bytes are ignored; each remaining ticket gets its final event.
    Closing { reason: CloseReason },
    /// Every event was delivered.
    Closed,
}

/// The event that a message becomes, with steps, rows and tags by their position, so that little is moved.
enum Output {
    Row {
        step: usize,
        frame: Frame,
    },
    Done {
        step: usize,
        frame: Frame,
    },
    Committed,
    InTransaction,
    TextRow {
        step: usize,
        frame: Frame,
    },
    Suspended {
        step: usize,
    },
    ParameterTypes {
        step: usize,
        frame: Frame,
    },
    Columns {
        step: usize,
        frame: Frame,
    },
    NoData {
        step: usize,
    },
    CopyOut {
        step: usize,
        format: CopyFormat,
    },
    CopyData {
        step: usize,
        frame: Frame,
    },
    CopyIn {
        step: usize,
        format: CopyFormat,
    },
    /// What stands in [`Connection::told`].
    Told,
}

impl<T: Clone> Connection<T> {
    /// Makes a connection and queues its start-up message. `statements` are prepared before [`Event::Ready`], and copied: they need
    /// not outlive this call.
    ///
    /// A session with a NUL byte in a name or value makes a connection that is already closing: the first event says so.
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
            let credentials = Credentials {
                user: session.user.clone(),
                password: session.password.clone(),
                policy: AuthenticationPolicy::default(),
                channel: Channel::Plain,
            };
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
            told: None,
            transaction_status: TransactionStatus::Idle,
            forbids_blocks: false,
            protocol: session.protocol,
            statements: statements.iter().map(Prepared::new).collect(),
            backend_key: None,
            server_version: String::new(),
        }
    }

    /// Restricts how the server may authenticate us; before anything is received.
    #[must_use]
    pub fn with_policy(mut self, policy: AuthenticationPolicy) -> Connection<T> {
        if let Phase::Authenticating { credentials, .. } = &mut self.phase {
            credentials.policy = policy;
        }
        self
    }

    /// Says that the session runs over TLS, and what stands for the server's certificate.
    #[cfg(feature = "tls")]
    pub(crate) fn bind_channel(&mut self, end_point: Option<Vec<u8>>) {
        if let Phase::Authenticating { credentials, .. } = &mut self.phase {
            credentials.channel = Channel::Secured { end_point };
        }
    }

    /// Where to put bytes from the server. Empty if complete messages wait for [`Connection::poll_event`], and once
    /// the connection is closing; after a drain to `None` an open connection always has room.
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

    /// Bytes that wait to be sent to the server; empty if there are none, and once the connection is closing.
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
    /// [`Limits::send_len_max_bytes`] now. Nothing is queued and the connection is unchanged. If nothing is in flight and
    /// nothing is pending, the call is too long for this connection and waiting will not help.
    ///
    /// # Panics
    /// Bugs of the owner: the connection is not [ready](Connection::is_ready), there is no such statement, the
    /// statement has another number of parameters, or one of them is an array within an array.
    pub fn call(&mut self, ticket: T, statement: usize, parameters: &[Value<'_>]) -> Result<(), Full> {
        assert!(self.is_ready(), "a call on a connection that is not ready");
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
        let commits_from = statement.may_commit.then(|| self.outbox.end());
        self.flight.push(ticket, Kind::Call, commits_from);
        Ok(())
    }

    /// As [`Connection::call`], but of a statement by its name: one that was [prepared](Connection::prepare) since the start,
    /// or `""`. How many parameters it has is not known here; the server fails the call if there are more or less.
    ///
    /// As the statement may be a COMMIT, the call counts as one: on closing it is in doubt from the moment it has
    /// left, whether or not its Sync has.
    ///
    /// # Errors
    /// As [`Connection::call`].
    ///
    /// # Panics
    /// Bugs of the owner: the connection is not [ready](Connection::is_ready), the name has a NUL byte, or there are more
    /// than 65535 parameters.
    pub fn call_named(&mut self, ticket: T, statement: &str, parameters: &[Value<'_>]) -> Result<(), Full> {
        self.step(ticket, Kind::Call, call_len_bytes(statement, parameters), |outbox| {
            outbox.encode_call(statement, parameters);
        })
    }

    /// Queues a Parse: prepares a statement, for [`Connection::call_named`]. With the name `""` it lasts until the next one
    /// without a name; any other until [`Connection::close_statement`]. Answered by [`Event::Done`] with an empty tag. What the
    /// statement [returns](Statement::returning) is not checked: for that, describe it and ask [`Statement::check_columns`].
    ///
    /// # Errors
    /// As [`Connection::call`]. The whole text has to fit into [`Limits::send_len_max_bytes`].
    ///
    /// # Panics
    /// Bugs of the owner: the connection is not [ready](Connection::is_ready), or the statement has a NUL byte or more than
    /// 65535 parameters.
    pub fn prepare(&mut self, ticket: T, statement: &Statement<'_>) -> Result<(), Full> {
        statement.check();
        self.step(ticket, Kind::Parse, parse_len_bytes(statement), |outbox| outbox.parse(statement))
    }

    /// Queues a Describe of a statement: answered by [`Event::ParameterTypes`] and [`Event::Columns`].
    ///
    /// # Errors
    /// As [`Connection::call`].
    ///
    /// # Panics
    /// Bugs of the owner: the connection is not [ready](Connection::is_ready), or the name has a NUL byte.
    pub fn describe_statement(&mut self, ticket: T, statement: &str) -> Result<(), Full> {
        self.step(ticket, Kind::DescribeStatement, SHORT_LEN_BYTES + statement.len(), |outbox| {
            outbox.describe(b'S', statement);
        })
    }

    /// Queues a Describe of a portal: answered by [`Event::Columns`].
    ///
    /// # Errors
    /// As [`Connection::call`].
    ///
    /// # Panics
    /// Bugs of the owner: the connection is not [ready](Connection::is_ready), or the name has a NUL byte.
    pub fn describe_portal(&mut self, ticket: T, portal: &str) -> Result<(), Full> {
        self.step(ticket, Kind::DescribePortal, SHORT_LEN_BYTES + portal.len(), |outbox| {
            outbox.describe(b'P', portal);
        })
    }

    /// Queues a Close of a statement: the server forgets it. Answered by [`Event::Done`] with an empty tag, also if there is
    /// no such statement. One that was given to [`Connection::new`] must not be called afterwards.
    ///
    /// # Errors
    /// As [`Connection::call`].
    ///
    /// # Panics
    /// Bugs of the owner: the connection is not [ready](Connection::is_ready), or the name has a NUL byte.
    pub fn close_statement(&mut self, ticket: T, statement: &str) -> Result<(), Full> {
        self.step(ticket, Kind::Close, SHORT_LEN_BYTES + statement.len(), |outbox| {
            outbox.close(b'S', statement);
        })
    }

    /// Queues a Close of a portal, as [`Connection::close_statement`].
    ///
    /// # Errors
    /// As [`Connection::call`].
    ///
    /// # Panics
    /// Bugs of the owner: the connection is not [ready](Connection::is_ready), or the name has a NUL byte.
    pub fn close_portal(&mut self, ticket: T, portal: &str) -> Result<(), Full> {
        self.step(ticket, Kind::Close, SHORT_LEN_BYTES + portal.len(), |outbox| outbox.close(b'P', portal))
    }

    /// Queues a Bind: makes a portal of a statement and its parameters, for [`Connection::execute`]. It lasts until it is
    /// closed or its transaction ends, which outside of a block is at the next Sync. Answered by [`Event::Done`] with an empty
    /// tag.
    ///
    /// # Errors
    /// As [`Connection::call`].
    ///
    /// # Panics
    /// Bugs of the owner: the connection is not [ready](Connection::is_ready), a name has a NUL byte, or there are more
    /// than 65535 parameters.
    pub fn bind(
        &mut self,
        ticket: T,
        portal: &str,
        statement: &str,
        parameters: &[Value<'_>],
    ) -> Result<(), Full> {
        self.step(ticket, Kind::Bind, bind_len_bytes(portal, statement, parameters), |outbox| {
            outbox.bind(portal, statement, parameters);
        })
    }

    /// Queues an Execute of a portal, for at most so many rows; 0 for all. If there may be more, [`Event::Suspended`] comes in
    /// place of [`Event::Done`], and the next Execute goes on where this one ended. To see rows before the next
    /// [`Connection::sync`], which would end the portal's transaction, ask for them with [`Connection::flush`].
    ///
    /// It counts as a COMMIT, as a [named call](Connection::call_named) does.
    ///
    /// # Errors
    /// As [`Connection::call`].
    ///
    /// # Panics
    /// Bugs of the owner: the connection is not [ready](Connection::is_ready), the name has a NUL byte, or `rows_max` is
    /// more than `i32::MAX`.
    pub fn execute(&mut self, ticket: T, portal: &str, rows_max: u32) -> Result<(), Full> {
        self.step(ticket, Kind::Execute, SHORT_LEN_BYTES + portal.len() + 4, |outbox| {
            outbox.execute(portal, rows_max);
        })
    }

    /// Queues a simple query: any number of commands, separated by semicolons, without parameters. It is a batch by itself,
    /// its own Sync. Its rows come as [`Event::TextRow`], behind their [`Event::Columns`], with an [`Event::Done`] for each
    /// command; at the end [`Event::Committed`], [`Event::InTransaction`] or [`Event::Aborted`].
    ///
    /// The commands are one transaction, unless some of them are BEGIN and COMMIT: then [`Event::Failed`] says nothing about
    /// those before the last COMMIT.
    ///
    /// Format: PostgreSQL documentation, "Frontend/Backend Protocol", section Simple Query.
    ///
    /// # Errors
    /// As [`Connection::call`]. The whole text has to fit into [`Limits::send_len_max_bytes`].
    ///
    /// # Panics
    /// Bugs of the owner: the connection is not [ready](Connection::is_ready), calls have been queued since the last Sync,
    /// or the text has a NUL byte.
    pub fn simple_query(&mut self, ticket: T, sql: &str) -> Result<(), Full> {
        assert!(self.is_ready(), "a query on a connection that is not ready");
        assert!(!self.flight.is_open(), "a simple query in the middle of a batch");
        if self.flight.is_full() || !self.outbox.has_room_for(SHORT_LEN_BYTES + sql.len()) {
            return Err(Full);
        }
        self.outbox.query(sql);
        self.flight.push_query(ticket, self.outbox.end());
        Ok(())
    }

    /// Queues a Flush: the server sends what it has to say so far, without ending the batch.
    ///
    /// # Errors
    /// [`Full`] if its 5 bytes do not fit into [`Limits::send_len_max_bytes`] now.
    ///
    /// # Panics
    /// If the connection is not [ready](Connection::is_ready), which is a bug of the owner.
    pub fn flush(&mut self) -> Result<(), Full> {
        assert!(self.is_ready(), "a Flush on a connection that is not ready");
        if !self.outbox.has_room_for(SHORT_LEN_BYTES) {
            return Err(Full);
        }
        self.outbox.flush();
        Ok(())
    }

    /// Queues data of the COPY FROM STDIN that [`Event::CopyIn`] has begun: as much of `bytes` as fits into
    /// [`Limits::send_len_max_bytes`] now. Returns how much, which may be 0: then send first. Where the data is cut does not
    /// matter.
    ///
    /// The COPY is the last of its batch, and its Sync comes behind [`Connection::copy_done`]: call it, [flush](Connection::flush)
    /// and wait for [`Event::CopyIn`]. In a [simple query](Connection::simple_query) there is no Sync to think of.
    ///
    /// Format: PostgreSQL documentation, "Frontend/Backend Protocol", section COPY Operations.
    ///
    /// # Errors
    /// [`CopyEnded`] if no COPY takes data, as after [`Event::Failed`] of one that the server has given up.
    pub fn copy_data(&mut self, bytes: &[u8]) -> Result<usize, CopyEnded> {
        self.check_copying_in()?;
        // Room for this message's head and for the CopyDone or Sync behind it.
        let room = self.outbox.room().saturating_sub(2 * SHORT_LEN_BYTES);
        let n = bytes.len().min(room);
        if n > 0 {
            self.outbox.copy_data(&bytes[..n]);
        }
        Ok(n)
    }

    /// Ends the data of a COPY FROM STDIN: all of it is there. Always fits, as [`Connection::sync`] does. The next thing of a
    /// batch is its [`Connection::sync`].
    ///
    /// # Errors
    /// [`CopyEnded`], as of [`Connection::copy_data`].
    pub fn copy_done(&mut self) -> Result<(), CopyEnded> {
        self.check_copying_in()?;
        self.outbox.copy_done();
        self.flight.end_copy_in(self.outbox.end());
        Ok(())
    }

    /// Gives a COPY FROM STDIN up: the server fails it with this reason (`57014`).
    ///
    /// # Errors
    /// [`CopyEnded`], as of [`Connection::copy_data`].
    ///
    /// # Panics
    /// If the reason has a NUL byte, which is a bug of the owner.
    pub fn copy_fail(&mut self, reason: &str) -> Result<(), CopyEnded> {
        self.check_copying_in()?;
        self.outbox.copy_fail(reason);
        self.flight.end_copy_in(self.outbox.end());
        Ok(())
    }

    fn check_copying_in(&self) -> Result<(), CopyEnded> {
        let is_copying_in = matches!(self.phase, Phase::Ready) && self.flight.is_copying_in();
        if is_copying_in { Ok(()) } else { Err(CopyEnded) }
    }

    /// Queues one message with a ticket, if there is room for both.
    fn step(
        &mut self,
        ticket: T,
        kind: Kind,
        len_bytes: usize,
        encode: impl FnOnce(&mut Outbox),
    ) -> Result<(), Full> {
        assert!(self.is_ready(), "a command on a connection that is not ready");
        if self.flight.is_full() || !self.outbox.has_room_for(len_bytes) {
            return Err(Full);
        }
        encode(&mut self.outbox);
        // The SQL behind the name is not known here, and it may be a COMMIT.
        let may_commit = matches!(kind, Kind::Call | Kind::Execute);
        let commits_from = may_commit.then(|| self.outbox.end());
        self.flight.push(ticket, kind, commits_from);
        Ok(())
    }

    /// Queues a Sync: ends the batch of all calls since the last one. With no such call it is an empty batch, a
    /// ping: the server answers it with [`Event::Committed`] when it has done everything before it.
    ///
    /// A Sync behind each call makes each a transaction of its own, and still needs no waiting: up to
    /// [`Limits::in_flight_calls_max`] batches may be in flight.
    ///
    /// Always fits: each call has kept room for its Sync. A ping takes 5 bytes above
    /// [`Limits::send_len_max_bytes`] if need be.
    ///
    /// # Panics
    /// Bugs of the owner: the connection is not [ready](Connection::is_ready), or a ping comes on top of
    /// more than [`Limits::in_flight_calls_max`] unanswered batches.
    pub fn sync(&mut self) {
        assert!(self.is_ready(), "a Sync on a connection that is not ready");
        self.outbox.sync();
        self.flight.sync(self.outbox.end());
    }

    /// For an owner that never sends BEGIN: from now on a batch that ends inside a transaction block closes the connection with
    /// [`ProtocolError::NotIdle`](crate::ProtocolError::NotIdle), and its tickets are in doubt. So no [`Event::Done`] waits for the
    /// end of a block that never ends.
    pub fn forbid_transaction_blocks(&mut self) {
        self.forbids_blocks = true;
    }

    /// Closes the connection; the owner says why. What is still to be sent or parsed is dropped, each unanswered ticket
    /// gets its final event, then comes [`Event::Closed`]. So first drain what has arrived: each answer that was
    /// read is one call fewer in doubt. On a connection that is closing already it does nothing.
    ///
    /// A ticket whose batch has failed already, or whose Sync has not left whole, is [`Event::RolledBack`]; any
    /// other is [`Event::InDoubt`].
    pub fn close(&mut self, reason: CloseReason) {
        if !self.is_closing() {
            self.phase = Phase::Closing { reason };
            self.outbox.discard();
        }
    }

    /// Queues Terminate. Batches in flight are still answered, no more calls are accepted, and the server closes the socket
    /// at the end. Before [`Event::Ready`] or on a connection that is leaving or closing it does nothing.
    ///
    /// Format: PostgreSQL documentation, "Frontend/Backend Protocol", section Termination.
    ///
    /// # Panics
    /// If calls have been queued since the last Sync, which is a bug of the owner: they would be lost.
    pub fn terminate(&mut self) {
        match self.phase {
            Phase::Ready => {
                let is_open = self.flight.is_open() || self.flight.is_copying_in();
                assert!(!is_open, "Terminate in the middle of a batch");
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

    /// The next event, or `None` if the connection waits for bytes or commands. Drain it to `None` after each input.
    pub fn poll_event(&mut self) -> Option<Event<'_, T>> {
        // A step is where it was when its message came, and so is the message, which was decoded once to check it: nothing of
        // this is ever missing.
        match self.next_output()? {
            Output::Row { step, frame } => {
                let row = Row::from_checked(self.inbox.body(&frame))?;
                Some(Event::Row { ticket: self.flight.ticket(step)?, row })
            }
            Output::Done { step, frame } => {
                let tag = CommandTag::from_checked(self.inbox.body(&frame));
                Some(Event::Done { ticket: self.flight.ticket(step)?, tag })
            }
            Output::Committed => Some(Event::Committed),
            Output::InTransaction => Some(Event::InTransaction),
            Output::TextRow { step, frame } => {
                let row = TextRow::new(Row::from_checked(self.inbox.body(&frame))?);
                Some(Event::TextRow { ticket: self.flight.ticket(step)?, row })
            }
            Output::Suspended { step } => Some(Event::Suspended { ticket: self.flight.ticket(step)? }),
            Output::ParameterTypes { step, frame } => {
                let types = ParameterTypes::decode(self.inbox.body(&frame))?;
                Some(Event::ParameterTypes { ticket: self.flight.ticket(step)?, types })
            }
            Output::Columns { step, frame } => {
                let columns = Columns::from_checked(self.inbox.body(&frame));
                Some(Event::Columns { ticket: self.flight.ticket(step)?, columns })
            }
            Output::NoData { step } => {
                Some(Event::Columns { ticket: self.flight.ticket(step)?, columns: None })
            }
            Output::CopyOut { step, format } => {
                Some(Event::CopyOut { ticket: self.flight.ticket(step)?, format })
            }
            Output::CopyData { step, frame } => {
                let is_end = !self.inbox.is_within_copy();
                let bytes = self.inbox.body(&frame);
                Some(Event::CopyData { ticket: self.flight.ticket(step)?, bytes, is_end })
            }
            Output::CopyIn { step, format } => {
                Some(Event::CopyIn { ticket: self.flight.ticket(step)?, format })
            }
            Output::Told => self.told.take(),
        }
    }

    /// True from [`Event::Ready`] until it is leaving or closing, but for the time when a COPY FROM STDIN takes its data:
    /// calls are accepted.
    pub fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready) && !self.flight.is_copying_in()
    }

    /// True as soon as the connection is lost, by [`Connection::close`] or by the peer. The remaining events are the ends of its
    /// tickets and [`Event::Closed`].
    pub fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. } | Phase::Closed)
    }

    /// The number of calls without a final event.
    pub fn in_flight_calls(&self) -> usize {
        self.flight.steps_len()
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
    pub fn backend_key(&self) -> Option<&BackendKey> {
        self.backend_key.as_ref()
    }

    /// Whether the session is in a transaction block, as of the last batch that ended.
    pub fn transaction_status(&self) -> TransactionStatus {
        self.transaction_status
    }

    /// The version of the protocol: what the session asked for, or what the server has brought it down to.
    pub fn protocol(&self) -> ProtocolVersion {
        self.protocol
    }

    /// Takes messages until one of them gives an event.
    fn next_output(&mut self) -> Option<Output> {
        loop {
            if self.is_closing() {
                self.told = self.next_verdict();
                return self.told.is_some().then_some(Output::Told);
            }
            if self.flight.is_rolling_back() {
                self.told = self.flight.tell_rolled_back().map(|told| match told {
                    RolledBack::Ticket(ticket) => Event::RolledBack { ticket },
                    RolledBack::Batch(error) => Event::Aborted { error },
                });
                return Some(Output::Told);
            }
            match self.inbox.next_frame() {
                Ok(None) => return None,
                Ok(Some(frame)) => {
                    if let Some(output) = self.receive(frame) {
                        return Some(output);
                    }
                }
                Err(error) => self.close(error.into()),
            }
        }
    }

    /// The connection is closing: what became of the next ticket; after the last, the reason.
    #[inline(never)]
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

    /// Takes one message and returns its event, if it has one. Closes the connection if the message may not come now.
    // A result would be moved at each step of the way, and be an error once in a connection's life.
    fn receive(&mut self, frame: Frame) -> Option<Output> {
        if !matches!(self.phase, Phase::Ready | Phase::Leaving) {
            return self.start(&frame);
        }
        let message = match self.inbox.message(&frame) {
            Ok(message) => message,
            Err(error) => return self.refuse(error.into()),
        };
        Some(match message {
            Message::BindComplete => match self.flight.bind_complete() {
                Ok(None) => return None,
                Ok(Some(step)) => Output::Done { step, frame },
                Err(Unexpected) => return self.refuse_unexpected(frame.tag),
            },
            Message::DataRow => match self.flight.data_row() {
                Ok((step, false)) => Output::Row { step, frame },
                Ok((step, true)) => Output::TextRow { step, frame },
                Err(Unexpected) => return self.refuse_unexpected(frame.tag),
            },
            Message::CommandComplete { commits } => match self.flight.command_complete(commits) {
                Ok(step) => Output::Done { step, frame },
                Err(Unexpected) => return self.refuse_unexpected(frame.tag),
            },
            Message::ReadyForQuery { status: byte } => {
                let Some(status) = TransactionStatus::from_byte(byte) else {
                    return self.refuse(ProtocolError::Malformed { tag: frame.tag }.into());
                };
                let is_in_block = status != TransactionStatus::Idle;
                if is_in_block && self.forbids_blocks {
                    return self.refuse(ProtocolError::NotIdle { status: byte }.into());
                }
                self.transaction_status = status;
                match self.flight.ready_for_query(is_in_block) {
                    Ok(End::Done) if is_in_block => Output::InTransaction,
                    Ok(End::Done) => Output::Committed,
                    Ok(End::Failed) => return None,
                    Err(Unexpected) => return self.refuse_unexpected(frame.tag),
                }
            }
            message => {
                let tag = frame.tag;
                let receiver = (&mut self.flight, &mut self.told, &mut self.server_version);
                return match receive_other(receiver, message, frame) {
                    Ok(output) => output,
                    Err(Refusal::Unexpected) => self.refuse_unexpected(tag),
                    Err(Refusal::Close(reason)) => self.refuse(reason),
                };
            }
        })
    }

    /// Takes one message before the connection is ready.
    #[inline(never)]
    fn start(&mut self, frame: &Frame) -> Option<Output> {
        match self.receive_at_start(frame) {
            Ok(told) => self.told = told,
            Err(reason) => return self.refuse(reason),
        }
        self.told.is_some().then_some(Output::Told)
    }

    #[cold]
    fn refuse(&mut self, reason: CloseReason) -> Option<Output> {
        self.close(reason);
        None
    }

    #[cold]
    fn refuse_unexpected(&mut self, tag: u8) -> Option<Output> {
        self.refuse(self.unexpected(tag))
    }

    /// Takes one message before the connection is ready. The last arm is the list of refusals: a message that no arm above has
    /// claimed for its phase.
    ///
    /// # Errors
    /// The connection must close.
    fn receive_at_start(&mut self, frame: &Frame) -> Result<Option<Event<'static, T>>, CloseReason> {
        let message = match tell(self.inbox.message(frame)?, &mut self.server_version) {
            Ok(event) => return Ok(Some(event)),
            Err(message) => message,
        };
        match (&mut self.phase, message) {
            (_, Message::Error(error)) if error.severity.ends_session() => return Err(error.into()),
            (_, Message::ReadyForQuery { status }) if status != b'I' => {
                return Err(ProtocolError::NotIdle { status }.into());
            }

            // In order.
            (
                Phase::Authenticating { .. },
                Message::NegotiateProtocolVersion { version, options_refused },
            ) => {
                self.protocol = negotiate(self.protocol, version, options_refused)?;
            }
            (Phase::Authenticating { exchange, credentials }, Message::Authentication(request)) => {
                exchange.answer(&request, credentials, &mut self.outbox)?;
                if exchange.is_complete() {
                    self.phase = Phase::Starting;
                }
            }
            (Phase::Starting, Message::BackendKeyData { process_id, secret_key })
                if self.protocol.has_key_len(secret_key.len()) =>
            {
                self.backend_key = Some(BackendKey::new(process_id, secret_key));
            }
            (Phase::Starting, Message::ReadyForQuery { .. }) => self.start_preparing(),
            (Phase::Preparing { prepared, next: Preparation::Parse }, Message::ReadyForQuery { .. })
                if *prepared == self.statements.len() =>
            {
                self.statements.iter_mut().for_each(|statement| statement.recipe = None);
                self.phase = Phase::Ready;
                return Ok(Some(Event::Ready));
            }
            (Phase::Preparing { prepared, next }, message) => {
                if !prepare(&self.statements, prepared, next, message)? {
                    return Err(self.unexpected(frame.tag));
                }
            }
            (Phase::Authenticating { .. } | Phase::Starting, Message::Error(error)) => {
                return Err(error.into());
            }

            (
                Phase::Authenticating { .. }
                | Phase::Starting
                | Phase::Ready
                | Phase::Leaving
                | Phase::Closing { .. }
                | Phase::Closed,
                _,
            ) => return Err(self.unexpected(frame.tag)),
        }
        Ok(None)
    }

    /// Queues everything that prepares the statements.
    fn start_preparing(&mut self) {
        for statement in self.statements.iter().filter_map(Prepared::statement) {
            self.outbox.parse(&statement);
            if statement.column_types.is_some() {
                self.outbox.describe(b'S', statement.name);
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

/// Why a message ends a connection that is ready.
enum Refusal {
    Unexpected,
    Close(CloseReason),
}

impl From<Unexpected> for Refusal {
    fn from(_: Unexpected) -> Refusal {
        Refusal::Unexpected
    }
}

/// What may come at any time; anything else is handed back.
fn tell<'a, T>(message: Message<'a>, server_version: &mut String) -> Result<Event<'static, T>, Message<'a>> {
    match message {
        Message::Notice(notice) => Ok(Event::Notice(notice)),
        Message::Notification { process_id, channel, payload } => {
            Ok(Event::Notification { process_id, channel: channel.to_owned(), payload: payload.to_owned() })
        }
        Message::Parameter { name, value } => {
            if name == "server_version" {
                value.clone_into(server_version);
            }
            Ok(Event::Parameter { name: name.to_owned(), value: value.to_owned() })
        }
        message => Err(message),
    }
}

/// Takes a message that is not part of every call. The last arm is the list of refusals.
///
/// # Errors
/// The connection must close.
// Apart from the messages of every call, which profiles then show by themselves.
#[inline(never)]
fn receive_other<T: Clone>(
    (flight, told, server_version): (&mut Flight<T>, &mut Option<Event<'static, T>>, &mut String),
    message: Message<'_>,
    frame: Frame,
) -> Result<Option<Output>, Refusal> {
    let message = match tell(message, server_version) {
        Ok(event) => {
            *told = Some(event);
            return Ok(Some(Output::Told));
        }
        Err(message) => message,
    };
    Ok(Some(match message {
        Message::Error(error) if error.severity.ends_session() => return Err(Refusal::Close(error.into())),
        Message::Error(error) => match flight.error(error) {
            Blame::Ticket(ticket, error) => {
                *told = Some(Event::Failed { ticket, error });
                Output::Told
            }
            Blame::Batch => return Ok(None),
            Blame::Nobody(error) => return Err(Refusal::Close(error.into())),
        },
        Message::ParseComplete => Output::Done { step: flight.parse_complete()?, frame },
        Message::CloseComplete => Output::Done { step: flight.close_complete()?, frame },
        Message::PortalSuspended => Output::Suspended { step: flight.portal_suspended()? },
        Message::ParameterDescription(_) => {
            Output::ParameterTypes { step: flight.parameter_description()?, frame }
        }
        Message::RowDescription(_) => Output::Columns { step: flight.row_description()?, frame },
        Message::NoData => Output::NoData { step: flight.no_data()? },
        Message::CopyOut(format) => Output::CopyOut { step: flight.copy_out()?, format },
        Message::CopyData => Output::CopyData { step: flight.copy_data()?, frame },
        Message::CopyDone => {
            flight.copy_done()?;
            return Ok(None);
        }
        Message::CopyIn(format) => match flight.copy_in()? {
            CopyIn::Begins(step) => Output::CopyIn { step, format },
            CopyIn::Fails => return Ok(None),
            CopyIn::OutOfStep => {
                let problem = "a COPY FROM STDIN had its Sync or another batch queued before its data";
                return Err(Refusal::Close(CloseReason::Other(problem)));
            }
        },
        Message::Authentication(_)
        | Message::NegotiateProtocolVersion { .. }
        | Message::BackendKeyData { .. }
        | Message::BindComplete
        | Message::DataRow
        | Message::CommandComplete { .. }
        | Message::ReadyForQuery { .. }
        | Message::Notice(_)
        | Message::Parameter { .. }
        | Message::Notification { .. }
        | Message::Unrequested => return Err(Refusal::Unexpected),
    }))
}

/// The version that both sides speak.
///
/// # Errors
/// The server wants one that is not older, or that is none; or it does not know an option.
fn negotiate(
    ours: ProtocolVersion,
    theirs: i32,
    options_refused: i32,
) -> Result<ProtocolVersion, ProtocolError> {
    if options_refused > 0 {
        return Err(ProtocolError::OptionsRefused { count: options_refused });
    }
    ProtocolVersion::from_number(theirs)
        .filter(|version| *version <= ours)
        .ok_or(ProtocolError::VersionUnsupported { version: theirs })
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

impl<T: Clone> Debug for Connection<T> {
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

#[cfg(test)]
mod tests;
