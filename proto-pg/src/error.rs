//! What can go wrong: the server's own errors, and the reasons for which a connection closes.

use crate::auth::AuthenticationMethod;
use crate::connector::TargetMismatch;
use crate::request::{Oid, oid};
use crate::row::RowError;
use std::error::Error;
use std::fmt::{self, Display, Formatter};
use std::io;

/// The connection has no room for another call. Nothing was queued and the connection is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Why a connection closed; carried by its last event. Every text is one line and none holds a password.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer closed the socket (end of stream).
    PeerClosed,
    /// The transport failed with this kind of error.
    Transport(io::ErrorKind),
    /// The owner's deadline passed.
    TimedOut,
    /// The owner has a reason of its own.
    Other(&'static str),
    /// The server ended the session (FATAL, PANIC), refused the start-up, or sent an error that no call can be blamed
    /// for.
    Server(ServerError),
    /// A statement that was to be prepared at the start cannot be used.
    Statement(Box<StatementError>),
    /// The peer broke the protocol, or used a part of it that this client does not speak.
    Protocol(ProtocolError),
    /// The two sides could not prove themselves to each other.
    Authentication(AuthenticationError),
    /// The session is not what `target_session_attrs` asks for.
    TargetSession(TargetMismatch),
    /// The owner could not decode a row: the statement and the code that reads it do not agree.
    Row(RowError),
    /// TLS could not be had, or failed.
    #[cfg(feature = "tls")]
    Tls(crate::tls::TlsError),
}

/// Why a statement cannot be used, and which one it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StatementError {
    /// The name of the statement.
    pub name: String,
    /// What is wrong with it.
    pub problem: StatementProblem,
}

/// Why a statement cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StatementProblem {
    /// The server could not prepare it.
    Refused(ServerError),
    /// It has another number of parameters than types are given for.
    ParameterCount {
        /// How many types are given.
        expected: usize,
        /// How many parameters it has.
        actual: usize,
    },
    /// A parameter has another type than declared.
    ParameterType {
        /// Its index, from 0.
        index: usize,
        /// The declared type.
        expected: Oid,
        /// The server's.
        actual: Oid,
    },
    /// Its result has another number of columns than expected.
    ColumnCount {
        /// How many types are expected.
        expected: usize,
        /// How many columns there are.
        actual: usize,
    },
    /// A column of its result has another type than expected.
    ColumnType {
        /// Its index, from 0.
        index: usize,
        /// The type that it would be read as.
        expected: Oid,
        /// The type that it has.
        actual: Oid,
    },
}

/// How the peer broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A message that has no place in this phase, or whose tag is unknown.
    Unexpected {
        /// The message's tag byte.
        tag: u8,
        /// What the connection was doing.
        phase: &'static str,
    },
    /// A length field below 4: it counts itself, so nothing shorter exists.
    LengthTooShort {
        /// The message's tag byte.
        tag: u8,
        /// The length field as received, in bytes.
        len_bytes: i32,
    },
    /// A message longer than [`Limits::message_len_max_bytes`](crate::Limits::message_len_max_bytes), or an error or
    /// notice longer than [`Limits::text_len_max_bytes`](crate::Limits::text_len_max_bytes).
    MessageTooLong {
        /// The message's tag byte.
        tag: u8,
        /// The whole message, tag included.
        len_bytes: usize,
        /// The limit it exceeds.
        limit_bytes: usize,
    },
    /// The body of a message does not follow its format.
    Malformed {
        /// The message's tag byte.
        tag: u8,
    },
    /// The session is inside a transaction block: at its start, as one that a pooler hands on in the middle of its work, or at
    /// the end of a batch, where that is [forbidden](crate::Connection::forbid_transaction_blocks).
    NotIdle {
        /// The transaction status byte; only `I` is accepted.
        status: u8,
    },
    /// The server does not know a protocol option of the start-up message (a parameter named `_pq_.something`).
    OptionsRefused {
        /// How many options it refused.
        count: i32,
    },
    /// The server does not speak the version of the protocol that it was asked for, and names no older one that is known.
    VersionUnsupported {
        /// The version that it names: the major one in the high 16 bits, the minor one in the low 16 bits.
        version: i32,
    },
}

/// Why authentication failed on this side. (When the server refuses us, that is a [`CloseReason::Server`].)
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthenticationError {
    /// The server asks for a password and none was given.
    PasswordMissing,
    /// The password contains a NUL byte, which a cleartext password message cannot carry.
    PasswordHasNul,
    /// A method this client does not speak, by its code (2 Kerberos, 7 GSSAPI, 9 SSPI, ...).
    MethodUnsupported {
        /// The code of the authentication request.
        code: i32,
    },
    /// SASL, but SCRAM-SHA-256 is not among the mechanisms offered.
    MechanismUnsupported,
    /// The server asks for a method that `require_auth` leaves out.
    MethodRefused {
        /// The method.
        method: AuthenticationMethod,
    },
    /// `channel_binding=require`, and there is no TLS, or the server does not tie SCRAM to it.
    ChannelBindingMissing,
    /// The server's half of the SCRAM exchange is wrong: it does not know the password, or is not the server.
    Scram(String),
    /// The server said that all is well before it proved itself in the SCRAM exchange it had begun.
    ServerUnproven,
    /// An authentication request out of its order.
    OutOfOrder {
        /// The name of the request.
        request: &'static str,
    },
}

/// An error or notice from the server, with every field that it sent. Bounded in size.
///
/// Each text is one line (control characters are replaced by spaces), cut at [`ServerError::MESSAGE_LEN_MAX_BYTES`].
///
/// Format: PostgreSQL documentation, "Frontend/Backend Protocol", section Error and Notice Message Fields.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerError {
    /// How bad it is.
    pub severity: Severity,
    /// The SQLSTATE code.
    pub code: SqlState,
    /// The primary message.
    pub message: String,
    /// The other fields that were sent.
    others: Option<Box<Others>>,
}

/// Fields by their type, each type once. Behind a pointer, since what may hold an error is moved with every call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Others(Vec<(Field, String)>);

/// The severity of an error or a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The whole server goes down or restarts.
    Panic,
    /// This session ends.
    Fatal,
    /// This batch fails.
    Error,
    /// A notice, as are all below.
    Warning,
    /// A notice.
    Notice,
    /// A notice.
    Debug,
    /// A notice.
    Info,
    /// A notice.
    Log,
}

/// A five-character SQLSTATE code, with a constant for each that PostgreSQL knows. Source: PostgreSQL documentation, appendix "PostgreSQL Error Codes".
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState([u8; 5]);

impl CloseReason {
    /// The SQLSTATE, when it was the server who closed the connection.
    pub fn code(&self) -> Option<SqlState> {
        self.server_error().map(|error| error.code)
    }

    /// What the server said, when it was the server who closed the connection or refused a statement.
    pub fn server_error(&self) -> Option<&ServerError> {
        match self {
            CloseReason::Server(error) => Some(error),
            CloseReason::Statement(error) => match &error.problem {
                StatementProblem::Refused(error) => Some(error),
                StatementProblem::ParameterCount { .. }
                | StatementProblem::ParameterType { .. }
                | StatementProblem::ColumnCount { .. }
                | StatementProblem::ColumnType { .. } => None,
            },
            CloseReason::PeerClosed
            | CloseReason::Transport(_)
            | CloseReason::TimedOut
            | CloseReason::Other(_)
            | CloseReason::Protocol(_)
            | CloseReason::Authentication(_)
            | CloseReason::TargetSession(_)
            | CloseReason::Row(_) => None,
            #[cfg(feature = "tls")]
            CloseReason::Tls(_) => None,
        }
    }
}

impl ServerError {
    /// The longest text of one field that is kept, in bytes.
    pub const MESSAGE_LEN_MAX_BYTES: usize = 512;

    /// More about the problem.
    pub fn detail(&self) -> Option<&str> {
        self.other(Field::Detail)
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        self.other(Field::Hint)
    }

    /// Where in the text of the statement it is: the number of the character, from 1.
    pub fn position(&self) -> Option<u32> {
        self.other(Field::Position)?.parse().ok()
    }

    /// As [`ServerError::position`], but in the [internal query](ServerError::internal_query).
    pub fn internal_position(&self) -> Option<u32> {
        self.other(Field::InternalPosition)?.parse().ok()
    }

    /// The text of a command that the server made by itself, such as one of a PL/pgSQL function.
    pub fn internal_query(&self) -> Option<&str> {
        self.other(Field::InternalQuery)
    }

    /// The context: what the server was doing, such as the calls of functions, innermost first. The server calls it
    /// `where`.
    pub fn context(&self) -> Option<&str> {
        self.other(Field::Where)
    }

    /// The schema of the object that the error is about.
    pub fn schema(&self) -> Option<&str> {
        self.other(Field::Schema)
    }

    /// The table that the error is about.
    pub fn table(&self) -> Option<&str> {
        self.other(Field::Table)
    }

    /// The column that the error is about, as for a NOT NULL constraint.
    pub fn column(&self) -> Option<&str> {
        self.other(Field::Column)
    }

    /// The data type that the error is about.
    pub fn data_type(&self) -> Option<&str> {
        self.other(Field::DataType)
    }

    /// The constraint that was violated; also the name of a unique index.
    pub fn constraint(&self) -> Option<&str> {
        self.other(Field::Constraint)
    }

    /// The source file of the server that reported it.
    pub fn file(&self) -> Option<&str> {
        self.other(Field::File)
    }

    /// The line in that file.
    pub fn line(&self) -> Option<u32> {
        self.other(Field::Line)?.parse().ok()
    }

    /// The function of the server that reported it.
    pub fn routine(&self) -> Option<&str> {
        self.other(Field::Routine)
    }

    fn other(&self, field: Field) -> Option<&str> {
        let Others(others) = self.others.as_deref()?;
        others.iter().find(|(other, _)| *other == field).map(|(_, text)| text.as_str())
    }

    /// Decodes a whole body; see [`Fields`].
    pub(crate) fn decode(body: &[u8]) -> Option<ServerError> {
        let mut fields = Fields::default();
        fields.feed(body);
        fields.finish()
    }
}

/// A field besides those that every message has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Detail,
    Hint,
    Position,
    InternalPosition,
    InternalQuery,
    Where,
    Schema,
    Table,
    Column,
    DataType,
    Constraint,
    File,
    Line,
    Routine,
}

impl Field {
    /// `None` for a type that is not known: the documentation reserves the right to add some.
    fn from_type(field: u8) -> Option<Field> {
        Some(match field {
            b'D' => Field::Detail,
            b'H' => Field::Hint,
            b'P' => Field::Position,
            b'p' => Field::InternalPosition,
            b'q' => Field::InternalQuery,
            b'W' => Field::Where,
            b's' => Field::Schema,
            b't' => Field::Table,
            b'c' => Field::Column,
            b'd' => Field::DataType,
            b'n' => Field::Constraint,
            b'F' => Field::File,
            b'L' => Field::Line,
            b'R' => Field::Routine,
            _ => return None,
        })
    }
}

/// Decodes the body of an `ErrorResponse` or a `NoticeResponse` in pieces: fields of one type byte and one C string,
/// ended by a zero byte. Keeps at most [`ServerError::MESSAGE_LEN_MAX_BYTES`] of each string, however long the body.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    progress: Progress,
    /// The string of the current field so far.
    text: Vec<u8>,
    severity: Option<Severity>,
    localized_severity: Option<Severity>,
    code: Option<SqlState>,
    message: Option<String>,
    /// Each type once, so at most as many as there are types.
    others: Vec<(Field, String)>,
}

/// Which byte of a body comes next.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The type of a field, or the zero byte behind the last one.
    #[default]
    Between,
    /// The string of a field of this type.
    Within(u8),
    /// None: the body has ended.
    Ended,
    /// None: it is malformed.
    Malformed,
}

impl Fields {
    /// Takes the next bytes of the body.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while let Some((&first, rest)) = bytes.split_first() {
            match self.progress {
                Progress::Between => {
                    self.progress = if first == 0 { Progress::Ended } else { Progress::Within(first) };
                    bytes = rest;
                }
                Progress::Within(field) => {
                    let end = bytes.iter().position(|&byte| byte == 0);
                    let (part, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
                    let room = ServerError::MESSAGE_LEN_MAX_BYTES.saturating_sub(self.text.len());
                    self.text.extend_from_slice(&part[..part.len().min(room)]);
                    // Behind `part` stands the zero byte, or nothing.
                    bytes = rest.get(1..).unwrap_or_default();
                    if end.is_some() {
                        let is_known = self.end_field(field).is_some();
                        self.progress = if is_known { Progress::Between } else { Progress::Malformed };
                        self.text.clear();
                    }
                }
                Progress::Ended | Progress::Malformed => {
                    self.progress = Progress::Malformed;
                    return;
                }
            }
        }
    }

    /// What the body says; `None` if its shape is wrong or one of the three mandatory fields is missing or unknown.
    pub(crate) fn finish(self) -> Option<ServerError> {
        if self.progress != Progress::Ended {
            return None;
        }
        Some(ServerError {
            // The unlocalised severity exists since PostgreSQL 9.6; poolers may send the other one alone.
            severity: self.severity.or(self.localized_severity)?,
            code: self.code?,
            message: self.message?,
            others: (!self.others.is_empty()).then(|| Box::new(Others(self.others))),
        })
    }

    /// Takes the string that is complete; `None` if the field cannot have that value.
    fn end_field(&mut self, field: u8) -> Option<()> {
        match field {
            b'V' => self.severity = Some(Severity::from_name(&self.text)?),
            b'S' => self.localized_severity = Severity::from_name(&self.text),
            b'C' => self.code = Some(SqlState::new(self.text[..].try_into().ok()?)),
            b'M' => self.message = Some(one_line(&self.text)),
            _ => {
                if let Some(field) = Field::from_type(field)
                    && self.others.iter().all(|(other, _)| *other != field)
                {
                    self.others.push((field, one_line(&self.text)));
                }
            }
        }
        Some(())
    }
}

impl Severity {
    /// True for FATAL and PANIC: the server ends the session by itself.
    pub fn ends_session(self) -> bool {
        match self {
            Severity::Panic | Severity::Fatal => true,
            Severity::Error
            | Severity::Warning
            | Severity::Notice
            | Severity::Debug
            | Severity::Info
            | Severity::Log => false,
        }
    }

    fn from_name(name: &[u8]) -> Option<Severity> {
        match name {
            b"PANIC" => Some(Severity::Panic),
            b"FATAL" => Some(Severity::Fatal),
            b"ERROR" => Some(Severity::Error),
            b"WARNING" => Some(Severity::Warning),
            b"NOTICE" => Some(Severity::Notice),
            b"DEBUG" => Some(Severity::Debug),
            b"INFO" => Some(Severity::Info),
            b"LOG" => Some(Severity::Log),
            _ => None,
        }
    }
}

impl SqlState {
    /// Wraps the five characters of a code as they stand on the wire.
    pub const fn new(code: [u8; 5]) -> SqlState {
        SqlState(code)
    }

    /// The five bytes of the code.
    pub const fn as_bytes(&self) -> &[u8; 5] {
        &self.0
    }

    /// The class: the first two bytes, such as `23` for violated constraints.
    pub const fn class(&self) -> [u8; 2] {
        [self.0[0], self.0[1]]
    }
}

/// Keeps what fits in [`ServerError::MESSAGE_LEN_MAX_BYTES`], on one line. Before the start-up is over a server may answer in
/// any encoding, so bytes that are not UTF-8 are replaced, not refused.
pub(crate) fn one_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut line = String::new();
    for char in text.chars().map(|char| if char.is_control() { ' ' } else { char }) {
        if line.len() + char.len_utf8() > ServerError::MESSAGE_LEN_MAX_BYTES {
            break;
        }
        line.push(char);
    }
    line
}

impl Display for Full {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("the connection has no room for another call")
    }
}

impl Display for CloseReason {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::PeerClosed => f.write_str("the server closed the connection"),
            CloseReason::Transport(kind) => write!(f, "transport error: {kind}"),
            CloseReason::TimedOut => f.write_str("no answer in time"),
            CloseReason::Other(why) => f.write_str(why),
            CloseReason::Server(error) => write!(f, "server error: {error}"),
            CloseReason::Statement(error) => Display::fmt(error, f),
            CloseReason::Protocol(error) => write!(f, "protocol error: {error}"),
            CloseReason::Authentication(error) => write!(f, "authentication failed: {error}"),
            CloseReason::TargetSession(mismatch) => Display::fmt(mismatch, f),
            CloseReason::Row(error) => write!(f, "unreadable row: {error}"),
            #[cfg(feature = "tls")]
            CloseReason::Tls(error) => write!(f, "{error}"),
        }
    }
}

impl Display for StatementError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "statement {:?}: {}", self.name, self.problem)
    }
}

impl Display for StatementProblem {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            StatementProblem::Refused(error) => Display::fmt(error, f),
            StatementProblem::ParameterCount { expected, actual } => {
                write!(f, "it has {actual} parameters, expected {expected}")
            }
            StatementProblem::ParameterType { index, expected, actual } => {
                let (actual, expected) = (TypeName(*actual), TypeName(*expected));
                write!(f, "parameter ${} is {actual}, expected {expected}", index + 1)
            }
            StatementProblem::ColumnCount { expected, actual } => {
                write!(f, "its result has {actual} columns, expected {expected}")
            }
            StatementProblem::ColumnType { index, expected, actual } => {
                let (actual, expected) = (TypeName(*actual), TypeName(*expected));
                write!(f, "column {index} of its result is {actual}, expected {expected}")
            }
        }
    }
}

/// A type, by its name where that is known.
struct TypeName(Oid);

impl Display for TypeName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match oid::name(self.0) {
            Some(name) => f.write_str(name),
            None => write!(f, "type {}", self.0),
        }
    }
}

impl Display for ProtocolError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self {
            ProtocolError::Unexpected { tag, phase } => {
                write!(f, "unexpected message {} while {phase}", Tag(tag))
            }
            ProtocolError::LengthTooShort { tag, len_bytes } => {
                write!(f, "message {} with length {len_bytes}, below 4", Tag(tag))
            }
            ProtocolError::MessageTooLong { tag, len_bytes, limit_bytes } => {
                write!(f, "message {} of {len_bytes} bytes, limit {limit_bytes}", Tag(tag))
            }
            ProtocolError::Malformed { tag } => write!(f, "malformed message {}", Tag(tag)),
            ProtocolError::NotIdle { status } => {
                write!(f, "transaction status '{}' after a Sync, not 'I'", status.escape_ascii())
            }
            ProtocolError::VersionUnsupported { version } => {
                write!(
                    f,
                    "the server names protocol {}.{}, which is not supported",
                    version >> 16,
                    version & 0xffff
                )
            }
            ProtocolError::OptionsRefused { count } => {
                write!(f, "the server refused {count} protocol options")
            }
        }
    }
}

/// A tag byte with the name of its message.
struct Tag(u8);

impl Display for Tag {
    /// Names: PostgreSQL documentation, "Frontend/Backend Protocol", section Message Formats.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            b'1' => "ParseComplete",
            b'2' => "BindComplete",
            b'3' => "CloseComplete",
            b'A' => "NotificationResponse",
            b'C' => "CommandComplete",
            b'D' => "DataRow",
            b'E' => "ErrorResponse",
            b'G' => "CopyInResponse",
            b'H' => "CopyOutResponse",
            b'I' => "EmptyQueryResponse",
            b'K' => "BackendKeyData",
            b'N' => "NoticeResponse",
            b'R' => "Authentication",
            b'S' => "ParameterStatus",
            b'T' => "RowDescription",
            b'V' => "FunctionCallResponse",
            b'W' => "CopyBothResponse",
            b'Z' => "ReadyForQuery",
            b'c' => "CopyDone",
            b'd' => "CopyData",
            b'n' => "NoData",
            b's' => "PortalSuspended",
            b't' => "ParameterDescription",
            b'v' => "NegotiateProtocolVersion",
            _ => "unknown",
        };
        write!(f, "'{}' ({name})", self.0.escape_ascii())
    }
}

impl Display for AuthenticationError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            AuthenticationError::PasswordMissing => {
                f.write_str("the server asks for a password and none was given")
            }
            AuthenticationError::PasswordHasNul => f.write_str("the password contains a NUL byte"),
            AuthenticationError::MethodUnsupported { code } => {
                write!(f, "the server asks for authentication method {code}, which is not supported")
            }
            AuthenticationError::MechanismUnsupported => {
                f.write_str("the server offers no SASL mechanism that is supported (SCRAM-SHA-256)")
            }
            AuthenticationError::MethodRefused { method } => {
                write!(f, "the server asks for {}, which require_auth leaves out", method.name())
            }
            AuthenticationError::ChannelBindingMissing => f.write_str(
                "channel_binding=require, but the server does not offer SCRAM-SHA-256-PLUS, which needs TLS",
            ),
            AuthenticationError::Scram(why) => write!(f, "SCRAM-SHA-256: {why}"),
            AuthenticationError::ServerUnproven => {
                f.write_str("the server did not prove that it knows the password")
            }
            AuthenticationError::OutOfOrder { request } => write!(f, "{request} out of order"),
        }
    }
}

impl Display for ServerError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.severity, self.code, self.message)
    }
}

impl Display for Severity {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Panic => "PANIC",
            Severity::Fatal => "FATAL",
            Severity::Error => "ERROR",
            Severity::Warning => "WARNING",
            Severity::Notice => "NOTICE",
            Severity::Debug => "DEBUG",
            Severity::Info => "INFO",
            Severity::Log => "LOG",
        })
    }
}

impl Display for SqlState {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(&self.0.escape_ascii(), f)
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "SqlState({self})")
    }
}

impl Error for Full {}
impl Error for CloseReason {}
impl Error for StatementError {}
impl Error for ProtocolError {}
impl Error for AuthenticationError {}
impl Error for ServerError {}

impl From<ServerError> for CloseReason {
    fn from(error: ServerError) -> CloseReason {
        CloseReason::Server(error)
    }
}

impl From<StatementError> for CloseReason {
    fn from(error: StatementError) -> CloseReason {
        CloseReason::Statement(Box::new(error))
    }
}

impl From<ProtocolError> for CloseReason {
    fn from(error: ProtocolError) -> CloseReason {
        CloseReason::Protocol(error)
    }
}

impl From<AuthenticationError> for CloseReason {
    fn from(error: AuthenticationError) -> CloseReason {
        CloseReason::Authentication(error)
    }
}

#[cfg(feature = "tls")]
impl From<crate::tls::TlsError> for CloseReason {
    fn from(error: crate::tls::TlsError) -> CloseReason {
        CloseReason::Tls(error)
    }
}

impl From<RowError> for CloseReason {
    fn from(error: RowError) -> CloseReason {
        CloseReason::Row(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_of_the_protocol_has_a_name_of_its_own() {
        let tags = b"123ACDEGHIKNRSTVWZcdnstv";
        let names: std::collections::BTreeSet<_> = tags.iter().map(|&tag| Tag(tag).to_string()).collect();
        assert!(names.len() == tags.len() && !names.iter().any(|name| name.contains("unknown")), "{names:?}");
        assert_eq!(Tag(b'?').to_string(), "'?' (unknown)");
    }

    #[test]
    fn every_field_is_kept_and_an_unknown_one_is_skipped() {
        let body = b"SFEHLER\0VERROR\0C40P01\0Mdeadlock\ndetected\0Dwho\0Hhow\0P12\0p3\0qSELECT\0Wf() line 1\nstatement\0\
                     spublic\0tt\0cid\0dtext\0nt_pkey\0Fdeadlock.c\0L1146\0RDeadLockReport\0?new field\0Dagain\0\0";
        let error = ServerError::decode(body).unwrap();
        assert_eq!(error.code, SqlState::DEADLOCK_DETECTED);
        assert_eq!(error.code.class(), *b"40");
        assert_eq!(error.to_string(), "ERROR 40P01: deadlock detected");
        let texts = [
            (error.detail(), "who"),
            (error.hint(), "how"),
            (error.internal_query(), "SELECT"),
            (error.context(), "f() line 1 statement"),
            (error.schema(), "public"),
            (error.table(), "t"),
            (error.column(), "id"),
            (error.data_type(), "text"),
            (error.constraint(), "t_pkey"),
            (error.file(), "deadlock.c"),
            (error.routine(), "DeadLockReport"),
        ];
        for (field, expected) in texts {
            assert_eq!(field, Some(expected));
        }
        assert_eq!(
            (error.position(), error.internal_position(), error.line()),
            (Some(12), Some(3), Some(1146))
        );
        // A pooler of the old days: the localised severity only.
        let error = ServerError::decode(b"SFATAL\0C08P01\0Mno\0\0").unwrap();
        assert_eq!((error.severity, error.detail(), error.position()), (Severity::Fatal, None, None));
    }

    #[test]
    fn a_mandatory_field_that_is_missing_or_unknown_is_refused() {
        for body in [
            &b"C40001\0Mtext\0\0"[..],
            b"VERROR\0Mtext\0\0",
            b"VERROR\0C40001\0\0",
            b"VODD\0C40001\0Mtext\0\0",
            b"SODD\0C40001\0Mtext\0\0",
            b"VERROR\0C4000\0Mtext\0\0",
            b"VERROR\0C400011\0Mtext\0\0",
            b"VERROR\0C40001\0Mtext\0",
            b"VERROR\0C40001\0Mtext\0\0\0",
            b"VERROR\0C40001\0Mtext",
            b"",
        ] {
            assert_eq!(ServerError::decode(body), None, "{}", body.escape_ascii());
        }
    }

    #[test]
    fn the_message_is_bounded_and_valid_whatever_comes() {
        for text in [&"é".repeat(1000).into_bytes()[..], &[0xff; 1000], &"x".repeat(1000).into_bytes()] {
            let body = [b"VERROR\0C40001\0M", text, b"\0\0"].concat();
            let longest = ServerError::MESSAGE_LEN_MAX_BYTES;
            let len = ServerError::decode(&body).unwrap().message.len();
            assert!((longest - 4..=longest).contains(&len), "{len}");
            let body =
                [b"VERROR\0C40001\0Mm\0", &[b"D", text, b"\0"].concat().repeat(50)[..], b"\0"].concat();
            let error = ServerError::decode(&body).unwrap();
            let len = error.detail().unwrap().len();
            assert!((longest - 4..=longest).contains(&len) && error.others.unwrap().0.len() == 1, "{len}");
        }
    }

    #[test]
    fn close_reasons_are_one_clear_line() {
        let server = ServerError::decode(b"VFATAL\0C57P01\0Mbye\0\0").unwrap();
        let refused = StatementProblem::Refused(server.clone());
        let refused = StatementError { name: "pay".into(), problem: refused };
        let reasons = [
            (refused.into(), "statement \"pay\": FATAL 57P01: bye"),
            (CloseReason::PeerClosed, "the server closed the connection"),
            (CloseReason::Transport(io::ErrorKind::ConnectionReset), "transport error: connection reset"),
            (CloseReason::TimedOut, "no answer in time"),
            (CloseReason::Other("draining"), "draining"),
            (server.into(), "server error: FATAL 57P01: bye"),
            (
                ProtocolError::Unexpected { tag: 0x07, phase: "idle" }.into(),
                r"protocol error: unexpected message '\x07' (unknown) while idle",
            ),
            (
                AuthenticationError::PasswordMissing.into(),
                "authentication failed: the server asks for a password and none was given",
            ),
        ];
        for (reason, text) in reasons {
            assert_eq!(reason.to_string(), text);
            assert_eq!(
                reason.code().is_some(),
                matches!(reason, CloseReason::Server(_) | CloseReason::Statement(_))
            );
        }
    }
}
