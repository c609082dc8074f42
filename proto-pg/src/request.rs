//! What this side says: the session, statements and parameter values, and the outbox they are encoded into.

use crate::columns::{Columns, ParameterTypes};
use crate::error::StatementProblem;
use crate::frame::HEAD_LEN_BYTES;
use crate::types::{Date, Decimal, Interval, Time, Timestamp};
use bytes::{BufMut, BytesMut};
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;
use postgres_protocol::types::{ArrayDimension, array_to_sql};
use std::fmt::{self, Debug, Formatter};
use std::io;

/// The object identifier of a type, as `pg_type` has it; [`oid`] names some.
pub type Oid = u32;

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum ProtocolVersion {
    /// 3.0, which every server and pooler speaks.
    #[default]
    V3_0,
    /// 3.2 of PostgreSQL 18, with longer keys for cancel requests. An older PostgreSQL brings it down to 3.0; some poolers
    /// refuse it.
    V3_2,
}

impl ProtocolVersion {
    /// The major version in the high 16 bits, the minor one in the low 16 bits.
    fn number(self) -> i32 {
        match self {
            ProtocolVersion::V3_0 => 3 << 16,
            ProtocolVersion::V3_2 => (3 << 16) + 2,
        }
    }

    pub(crate) fn from_number(number: i32) -> Option<ProtocolVersion> {
        [ProtocolVersion::V3_0, ProtocolVersion::V3_2].into_iter().find(|version| version.number() == number)
    }

    /// Whether the key for cancel requests may be so long.
    pub(crate) fn has_key_len(self, len_bytes: usize) -> bool {
        match self {
            ProtocolVersion::V3_0 => len_bytes == 4,
            ProtocolVersion::V3_2 => (4..=256).contains(&len_bytes),
        }
    }
}

/// Who connects, to what.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Session {
    /// The role to log in as.
    pub user: String,
    /// Its password, for a server that asks.
    pub password: Option<String>,
    /// The database.
    pub database: String,
    /// The newest version of the protocol to ask for.
    pub protocol: ProtocolVersion,
    /// Further start-up parameters as (name, value): `application_name`, `options`, or any setting of the session
    /// such as `statement_timeout`. `user`, `database` and `client_encoding` (always UTF8) are overridden.
    pub parameters: Vec<(String, String)>,
}

/// A statement to be prepared: at the start of the session, called by its index from then on.
///
/// It may be BEGIN or COMMIT ([`Event::InTransaction`](crate::Event::InTransaction)). A procedure that commits belongs in a batch
/// of its own: the promise of [`Event::RolledBack`](crate::Event::RolledBack) stands on the batch being one transaction.
///
/// ```
/// use proto_pg::{Statement, oid};
///
/// static STATEMENTS: [Statement<'static>; 1] = [Statement::new(
///     "pay",
///     "UPDATE account SET balance = balance + $2 WHERE id = $1 RETURNING balance",
///     &[oid::INT4, oid::INT8],
/// )
/// .returning(&[oid::INT8])];
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statement<'a> {
    /// Its name in the server; unique within the session, without NUL.
    pub name: &'a str,
    /// One SQL command with `$1`, `$2`, ... in place of its parameters; without NUL.
    pub sql: &'a str,
    /// The type of each parameter, from [`oid`]; 0 lets the server infer it.
    pub parameter_types: &'a [Oid],
    /// The type of each column of its result, if it is to be checked.
    pub column_types: Option<&'a [Oid]>,
}

impl<'a> Statement<'a> {
    /// A statement whose result is not checked.
    pub const fn new(name: &'a str, sql: &'a str, parameter_types: &'a [Oid]) -> Statement<'a> {
        Statement { name, sql, parameter_types, column_types: None }
    }

    /// The same statement with the types that the columns of its result are read as; 0 for any type, an empty list for no
    /// result.
    ///
    /// The server is asked for a description once, at the start of the session. If it differs, or if the statement has
    /// another number of parameters, the connection closes with [`CloseReason::Statement`](crate::CloseReason::Statement), which
    /// says where. Without it, a `numeric` that is read as text is garbage.
    #[must_use]
    pub const fn returning(self, column_types: &'a [Oid]) -> Statement<'a> {
        Statement { column_types: Some(column_types), ..self }
    }

    /// Whether it may commit by itself as soon as it runs: it begins with no word of which it is known that it does not.
    pub(crate) fn may_commit(&self) -> bool {
        let sql = self.sql.trim_start();
        let word = sql.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
        !PLAIN_COMMANDS.iter().any(|plain| plain.eq_ignore_ascii_case(word))
    }

    /// # Panics
    /// If no Parse or Bind could carry it, which is a bug of the owner.
    pub(crate) fn check(&self) {
        let Statement { name, sql, parameter_types, column_types: _ } = self;
        assert!(!name.contains('\0') && !sql.contains('\0'), "statement {name:?} contains a NUL byte");
        // The count is an Int16, which the server takes as unsigned.
        assert!(u16::try_from(parameter_types.len()).is_ok(), "statement {name:?} has too many parameters");
    }

    /// # Errors
    /// Another number of parameters, or other types than those that are declared.
    pub(crate) fn check_parameters(&self, actual: &ParameterTypes<'_>) -> Result<(), StatementProblem> {
        check_types(self.parameter_types, actual.clone(), actual.len()).map_err(|mismatch| match mismatch {
            Mismatch::Count { expected, actual } => StatementProblem::ParameterCount { expected, actual },
            Mismatch::Type { index, expected, actual } => {
                StatementProblem::ParameterType { index, expected, actual }
            }
        })
    }

    /// Holds the description of a result against [`Statement::returning`]; `None` is no result.
    ///
    /// # Errors
    /// Another number of columns, or other types.
    pub fn check_columns(&self, actual: Option<Columns<'_>>) -> Result<(), StatementProblem> {
        let Some(expected) = self.column_types else { return Ok(()) };
        let actual_len = actual.as_ref().map_or(0, Columns::len);
        let actual = actual.into_iter().flatten().map(|column| column.type_oid);
        check_types(expected, actual, actual_len).map_err(|mismatch| match mismatch {
            Mismatch::Count { expected, actual } => StatementProblem::ColumnCount { expected, actual },
            Mismatch::Type { index, expected, actual } => {
                StatementProblem::ColumnType { index, expected, actual }
            }
        })
    }
}

/// Commands that commit nothing before their Sync.
const PLAIN_COMMANDS: [&str; 22] = [
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "MERGE",
    "WITH",
    "VALUES",
    "TABLE",
    "COPY",
    "BEGIN",
    "START",
    "ROLLBACK",
    "SAVEPOINT",
    "RELEASE",
    "DECLARE",
    "FETCH",
    "CLOSE",
    "LISTEN",
    "NOTIFY",
    "SET",
    "SHOW",
    "LOCK",
];

enum Mismatch {
    Count { expected: usize, actual: usize },
    Type { index: usize, expected: Oid, actual: Oid },
}

/// Compares types in order; 0 is any.
fn check_types(
    expected: &[Oid],
    actual: impl Iterator<Item = Oid>,
    actual_len: usize,
) -> Result<(), Mismatch> {
    if expected.len() != actual_len {
        return Err(Mismatch::Count { expected: expected.len(), actual: actual_len });
    }
    for (index, (&expected, actual)) in expected.iter().zip(actual).enumerate() {
        if expected != 0 && expected != actual {
            return Err(Mismatch::Type { index, expected, actual });
        }
    }
    Ok(())
}

/// Defines a constant for each type, and the table of their names.
macro_rules! oids {
    ($($constant:ident = $oid:literal, $name:literal;)*) => {
        $(
            #[doc = concat!("`", $name, "`")]
            pub const $constant: Oid = $oid;
        )*

        /// The name that SQL has for one of these types.
        pub const fn name(oid: Oid) -> Option<&'static str> {
            match oid {
                $($oid => Some($name),)*
                _ => None,
            }
        }
    };
}

/// The object identifiers of types. Source: `pg_type.dat` of PostgreSQL.
pub mod oid {
    use super::Oid;

    oids! {
        BOOL = 16, "boolean";
        BYTEA = 17, "bytea";
        NAME = 19, "name";
        INT8 = 20, "bigint";
        INT2 = 21, "smallint";
        INT4 = 23, "integer";
        TEXT = 25, "text";
        JSON = 114, "json";
        JSON_ARRAY = 199, "json[]";
        FLOAT4 = 700, "real";
        FLOAT8 = 701, "double precision";
        UNKNOWN = 705, "unknown";
        BOOL_ARRAY = 1000, "boolean[]";
        BYTEA_ARRAY = 1001, "bytea[]";
        NAME_ARRAY = 1003, "name[]";
        INT2_ARRAY = 1005, "smallint[]";
        INT4_ARRAY = 1007, "integer[]";
        TEXT_ARRAY = 1009, "text[]";
        BPCHAR_ARRAY = 1014, "character[]";
        VARCHAR_ARRAY = 1015, "character varying[]";
        INT8_ARRAY = 1016, "bigint[]";
        FLOAT4_ARRAY = 1021, "real[]";
        FLOAT8_ARRAY = 1022, "double precision[]";
        BPCHAR = 1042, "character";
        VARCHAR = 1043, "character varying";
        DATE = 1082, "date";
        TIME = 1083, "time without time zone";
        TIMESTAMP = 1114, "timestamp without time zone";
        TIMESTAMP_ARRAY = 1115, "timestamp without time zone[]";
        DATE_ARRAY = 1182, "date[]";
        TIME_ARRAY = 1183, "time without time zone[]";
        TIMESTAMPTZ = 1184, "timestamp with time zone";
        TIMESTAMPTZ_ARRAY = 1185, "timestamp with time zone[]";
        INTERVAL = 1186, "interval";
        INTERVAL_ARRAY = 1187, "interval[]";
        NUMERIC_ARRAY = 1231, "numeric[]";
        NUMERIC = 1700, "numeric";
        VOID = 2278, "void";
        UUID = 2950, "uuid";
        UUID_ARRAY = 2951, "uuid[]";
        JSONB = 3802, "jsonb";
        JSONB_ARRAY = 3807, "jsonb[]";
    }
}

/// One parameter of a call. It goes over the wire in binary, so its variant must fit the type that the statement
/// declares at this place; if it does not, the server fails the call.
///
/// Arrays have one dimension and start at index 1.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Value<'a> {
    /// NULL of any type.
    Null,
    /// `boolean`
    Bool(bool),
    /// `smallint`
    Int2(i16),
    /// `integer`
    Int4(i32),
    /// `bigint`
    Int8(i64),
    /// `text`, `varchar`, `char(n)`, `name` or `json`
    Text(&'a str),
    /// `bytea`, or any type that this crate has no variant for, in its binary format.
    Bytes(&'a [u8]),
    /// `integer[]` without NULL
    Int4Array(&'a [i32]),
    /// `bigint[]` without NULL
    Int8Array(&'a [i64]),
    /// `text[]` without NULL
    TextArray(&'a [&'a str]),
    /// `real`
    Float4(f32),
    /// `double precision`
    Float8(f64),
    /// `numeric`
    Numeric(Decimal<'a>),
    /// `uuid`
    Uuid([u8; 16]),
    /// `date`
    Date(Date),
    /// `time`
    Time(Time),
    /// `timestamp` or `timestamptz`
    Timestamp(Timestamp),
    /// `interval`
    Interval(Interval),
    /// `jsonb`, as JSON text
    Jsonb(&'a str),
    /// An array of any type; its elements may be NULL, and are no arrays themselves.
    Array {
        /// The type of the elements, such as [`oid::NUMERIC`].
        element: Oid,
        /// The elements. A variant that does not fit `element` fails the call.
        items: &'a [Value<'a>],
    },
}

/// Bytes on their way to the server. `sent <= bytes.len()`.
///
/// Positions in the stream of all bytes ever queued are absolute (`u64`). The owner takes bytes in order, so a Sync has left once
/// `taken` has reached the position behind it.
pub(crate) struct Outbox {
    bytes: BytesMut,
    sent: usize,
    /// How many bytes the owner has taken since the connection was made.
    taken: u64,
    len_max_bytes: usize,
}

/// Every Sync, and every Terminate, Flush and `CopyDone`, is this long: a tag and a length.
pub(crate) const SYNC_LEN_BYTES: usize = 5;

/// A tag, a length, one byte and the end of a name.
pub(crate) const SHORT_LEN_BYTES: usize = 1 + 4 + 1 + 1;

impl Outbox {
    pub(crate) fn new(len_max_bytes: usize) -> Outbox {
        assert!(i32::try_from(len_max_bytes).is_ok(), "send_len_max_bytes must fit the protocol's Int32");
        Outbox { bytes: BytesMut::with_capacity(len_max_bytes), sent: 0, taken: 0, len_max_bytes }
    }

    pub(crate) fn pending(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    pub(crate) fn advance(&mut self, n: usize) {
        self.sent += n;
        self.taken += n as u64;
        self.check();
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
        }
    }

    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// The stream position just behind the last byte queued.
    pub(crate) fn end(&self) -> u64 {
        self.taken + self.pending().len() as u64
    }

    /// True if a call of this length fits, with room left for the Sync that must follow it.
    pub(crate) fn has_room_for(&self, len_bytes: usize) -> bool {
        len_bytes.saturating_add(SYNC_LEN_BYTES) <= self.len_max_bytes.saturating_sub(self.pending().len())
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Drops what is still pending: the connection is closed.
    pub(crate) fn discard(&mut self) {
        self.bytes.clear();
        self.sent = 0;
    }

    /// Queues a `StartupMessage` for protocol 3.0. Ours come last, and the last of a name counts: a session must
    /// have the encoding that the row getters rely on.
    ///
    /// # Errors
    /// A name or value contains a NUL byte. What is queued is then incomplete.
    pub(crate) fn startup(&mut self, session: &Session) -> io::Result<()> {
        let ours = [
            ("user", session.user.as_str()),
            ("database", session.database.as_str()),
            ("client_encoding", "UTF8"),
        ];
        let theirs = session.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        frontend::startup_message(theirs.chain(ours), &mut self.bytes)?;
        // The library says 3.0. Nothing stands before this message, whose length does.
        let version = session.protocol.number().to_be_bytes();
        self.bytes[4..8].copy_from_slice(&version);
        Ok(())
    }

    /// Queues a `PasswordMessage`.
    ///
    /// # Errors
    /// The password contains a NUL byte. What is queued is then incomplete.
    pub(crate) fn password(&mut self, password: &[u8]) -> io::Result<()> {
        frontend::password_message(password, &mut self.bytes)
    }

    /// Queues a `SASLInitialResponse`.
    ///
    /// # Errors
    /// The message would be longer than an Int32 can say.
    pub(crate) fn sasl_initial(&mut self, mechanism: &str, data: &[u8]) -> io::Result<()> {
        frontend::sasl_initial_response(mechanism, data, &mut self.bytes)
    }

    /// Queues a `SASLResponse`.
    ///
    /// # Errors
    /// The message would be longer than an Int32 can say.
    pub(crate) fn sasl_response(&mut self, data: &[u8]) -> io::Result<()> {
        frontend::sasl_response(data, &mut self.bytes)
    }

    /// Queues a Parse of a statement that [`Statement::check`] has let through.
    pub(crate) fn parse(&mut self, statement: &Statement<'_>) {
        let types = statement.parameter_types.iter().copied();
        let result = frontend::parse(statement.name, statement.sql, types, &mut self.bytes);
        assert!(result.is_ok(), "statement {:?} cannot be encoded", statement.name);
    }

    /// Queues a Describe, of a statement (`S`) or a portal (`P`).
    pub(crate) fn describe(&mut self, what: u8, name: &str) {
        self.make_room(SHORT_LEN_BYTES + name.len());
        let result = frontend::describe(what, name, &mut self.bytes);
        assert!(result.is_ok(), "{name:?} cannot be described");
    }

    /// Queues a Close, of a statement (`S`) or a portal (`P`).
    pub(crate) fn close(&mut self, what: u8, name: &str) {
        self.make_room(SHORT_LEN_BYTES + name.len());
        let result = frontend::close(what, name, &mut self.bytes);
        assert!(result.is_ok(), "{name:?} cannot be closed");
    }

    /// Queues a Query.
    pub(crate) fn query(&mut self, sql: &str) {
        self.make_room(SHORT_LEN_BYTES + sql.len());
        let result = frontend::query(sql, &mut self.bytes);
        assert!(result.is_ok(), "a query with a NUL byte");
    }

    /// Queues a Bind, with all parameters and results in binary.
    pub(crate) fn bind(&mut self, portal: &str, statement: &str, parameters: &[Value<'_>]) {
        self.make_room(bind_len_bytes(portal, statement, parameters));
        let bound = put_bind(portal, statement, parameters, &mut self.bytes);
        assert!(bound.is_ok(), "a portal {portal:?} of {statement:?} cannot be encoded");
    }

    /// Queues an Execute; 0 is all rows.
    pub(crate) fn execute(&mut self, portal: &str, rows_max: u32) {
        self.make_room(SHORT_LEN_BYTES + portal.len() + 4);
        let rows_max = i32::try_from(rows_max);
        let executed = rows_max.ok().map(|rows_max| frontend::execute(portal, rows_max, &mut self.bytes));
        assert!(matches!(executed, Some(Ok(()))), "an Execute of {portal:?} cannot be encoded");
    }

    pub(crate) fn flush(&mut self) {
        self.make_room(SYNC_LEN_BYTES);
        frontend::flush(&mut self.bytes);
    }

    /// Queues data of a COPY. The caller has checked that it fits.
    pub(crate) fn copy_data(&mut self, data: &[u8]) {
        self.make_room(HEAD_LEN_BYTES + data.len());
        // Below `len_max_bytes`, an Int32.
        let len = u32::try_from(data.len() + 4).unwrap_or(u32::MAX);
        self.bytes.put_u8(b'd');
        self.bytes.put_u32(len);
        self.bytes.put_slice(data);
    }

    pub(crate) fn copy_done(&mut self) {
        self.make_room(SYNC_LEN_BYTES);
        frontend::copy_done(&mut self.bytes);
    }

    pub(crate) fn copy_fail(&mut self, reason: &str) {
        self.make_room(SHORT_LEN_BYTES + reason.len());
        let result = frontend::copy_fail(reason, &mut self.bytes);
        assert!(result.is_ok(), "a reason with a NUL byte");
    }

    /// How many bytes may be queued now.
    pub(crate) fn room(&self) -> usize {
        self.len_max_bytes.saturating_sub(self.pending().len())
    }

    /// Queues Bind and Execute of one call; the caller has asked [`Outbox::has_room_for`] before.
    ///
    /// The unnamed portal is used and overwritten by each call; parameters and results are all binary; 0 rows
    /// at most means all rows.
    // Out of line, so that profiles name it.
    #[inline(never)]
    pub(crate) fn encode_call(&mut self, statement: &str, parameters: &[Value<'_>]) {
        self.make_room(call_len_bytes(statement, parameters));
        let rows_max = 0;
        let bound = put_bind("", statement, parameters, &mut self.bytes);
        let executed = frontend::execute("", rows_max, &mut self.bytes);
        // `Statement::check` refuses NUL in the name; the parameter count is that of `parameter_types`, which it found
        // to fit; and `has_room_for` keeps every length below `len_max_bytes`, an Int32.
        assert!(bound.is_ok() && executed.is_ok(), "a call of {statement:?} cannot be encoded");
    }

    pub(crate) fn sync(&mut self) {
        self.make_room(SYNC_LEN_BYTES);
        frontend::sync(&mut self.bytes);
    }

    pub(crate) fn terminate(&mut self) {
        self.make_room(SYNC_LEN_BYTES);
        frontend::terminate(&mut self.bytes);
    }

    /// Moves what is pending to the front if the allocation would otherwise have to grow.
    fn make_room(&mut self, len_bytes: usize) {
        if self.bytes.capacity() - self.bytes.len() < len_bytes {
            let pending_len = self.pending().len();
            self.bytes.copy_within(self.sent.., 0);
            self.bytes.truncate(pending_len);
            self.sent = 0;
        }
        self.check();
    }

    fn check(&self) {
        assert!(self.sent <= self.bytes.len(), "more bytes taken than were pending");
    }
}

/// Encodes a Bind, with all parameters and results in binary.
fn put_bind(
    portal: &str,
    statement: &str,
    parameters: &[Value<'_>],
    bytes: &mut BytesMut,
) -> Result<(), frontend::BindError> {
    let all_binary = [1];
    let parameters = parameters.iter().copied();
    frontend::bind(portal, statement, all_binary, parameters, encode, all_binary, bytes)
}

/// The length of one call's Bind and Execute, exactly.
///
/// Format: PostgreSQL documentation, "Frontend/Backend Protocol", section Message Formats, Bind and Execute.
pub(crate) fn call_len_bytes(statement: &str, parameters: &[Value<'_>]) -> usize {
    // Bind: tag, length, portal, statement, 1 format, values, 1 result format. Execute: tag, length, portal, rows.
    let fixed = (1 + 4 + 1 + statement.len() + 1 + (2 + 2) + 2 + (2 + 2)) + (1 + 4 + 1 + 4);
    parameters.iter().fold(fixed, |sum, value| sum.saturating_add(4).saturating_add(value_len_bytes(value)))
}

/// The length of a Bind, exactly.
pub(crate) fn bind_len_bytes(portal: &str, statement: &str, parameters: &[Value<'_>]) -> usize {
    const EXECUTE_LEN_BYTES: usize = 1 + 4 + 1 + 4;
    (call_len_bytes(statement, parameters) - EXECUTE_LEN_BYTES).saturating_add(portal.len())
}

/// The length of a Parse, exactly.
pub(crate) fn parse_len_bytes(statement: &Statement<'_>) -> usize {
    let Statement { name, sql, parameter_types, column_types: _ } = statement;
    1 + 4 + name.len() + 1 + sql.len() + 1 + 2 + 4 * parameter_types.len()
}

/// Number of dimensions, flags, element type; then length and lower bound of the one dimension.
const ARRAY_HEAD: usize = (4 + 4 + 4) + (4 + 4);

// In line for the values that most calls have, whose lengths are then found without a call.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "each call pays for every parameter; counted by benches/instructions.rs"
)]
fn value_len_bytes(value: &Value<'_>) -> usize {
    match value {
        Value::Null => 0,
        Value::Int4(_) => 4,
        Value::Int8(_) => 8,
        Value::Text(text) => text.len(),
        Value::Int4Array(items) => ARRAY_HEAD + items.len() * (4 + 4),
        Value::TextArray(items) => {
            items.iter().fold(ARRAY_HEAD, |sum, item| sum.saturating_add(4).saturating_add(item.len()))
        }
        value => other_len_bytes(value),
    }
}

#[inline(never)]
fn other_len_bytes(value: &Value<'_>) -> usize {
    match value {
        Value::Null
        | Value::Int4(_)
        | Value::Int8(_)
        | Value::Text(_)
        | Value::Int4Array(_)
        | Value::TextArray(_) => value_len_bytes(value),
        Value::Bool(_) => 1,
        Value::Int2(_) => 2,
        Value::Bytes(bytes) => bytes.len(),
        Value::Int8Array(items) => ARRAY_HEAD + items.len() * (4 + 8),
        Value::Float4(_) | Value::Date(_) => 4,
        Value::Float8(_) | Value::Time(_) | Value::Timestamp(_) => 8,
        Value::Numeric(decimal) => decimal.len_bytes(),
        Value::Uuid(_) | Value::Interval(_) => 16,
        Value::Jsonb(json) => json.len().saturating_add(1),
        Value::Array { items, .. } => items.iter().fold(ARRAY_HEAD, |sum, item| {
            let is_array = matches!(
                item,
                Value::Int4Array(_) | Value::Int8Array(_) | Value::TextArray(_) | Value::Array { .. }
            );
            assert!(!is_array, "an array within an array");
            sum.saturating_add(4).saturating_add(value_len_bytes(item))
        }),
    }
}

type Encoded = Result<IsNull, Box<dyn std::error::Error + Send + Sync>>;

#[inline(always)]
#[expect(clippy::inline_always, reason = "as of `value_len_bytes`")]
fn encode(value: Value<'_>, bytes: &mut BytesMut) -> Encoded {
    match value {
        Value::Null => return Ok(IsNull::Yes),
        Value::Int4(value) => bytes.put_i32(value),
        Value::Int8(value) => bytes.put_i64(value),
        Value::Text(value) => bytes.put_slice(value.as_bytes()),
        Value::Int4Array(items) => array(oid::INT4, items, |item, bytes| bytes.put_i32(item), bytes)?,
        Value::TextArray(items) => {
            array(oid::TEXT, items, |item, bytes| bytes.put_slice(item.as_bytes()), bytes)?;
        }
        value => return encode_other(value, bytes),
    }
    Ok(IsNull::No)
}

#[inline(never)]
fn encode_other(value: Value<'_>, bytes: &mut BytesMut) -> Encoded {
    match value {
        Value::Null
        | Value::Int4(_)
        | Value::Int8(_)
        | Value::Text(_)
        | Value::Int4Array(_)
        | Value::TextArray(_) => return encode(value, bytes),
        Value::Bool(value) => bytes.put_u8(u8::from(value)),
        Value::Int2(value) => bytes.put_i16(value),
        Value::Bytes(value) => bytes.put_slice(value),
        Value::Int8Array(items) => array(oid::INT8, items, |item, bytes| bytes.put_i64(item), bytes)?,
        Value::Float4(value) => bytes.put_f32(value),
        Value::Float8(value) => bytes.put_f64(value),
        Value::Numeric(decimal) => decimal.encode(|digit| bytes.put_u16(digit)),
        Value::Uuid(value) => bytes.put_slice(&value),
        Value::Date(Date { days }) => bytes.put_i32(days),
        Value::Time(Time { microseconds }) | Value::Timestamp(Timestamp { microseconds }) => {
            bytes.put_i64(microseconds);
        }
        Value::Interval(Interval { months, days, microseconds }) => {
            bytes.put_i64(microseconds);
            bytes.put_i32(days);
            bytes.put_i32(months);
        }
        Value::Jsonb(json) => {
            // The version of the format.
            bytes.put_u8(1);
            bytes.put_slice(json.as_bytes());
        }
        Value::Array { element, items } => {
            let dimension = ArrayDimension { len: i32::try_from(items.len())?, lower_bound: 1 };
            array_to_sql(
                [dimension],
                element,
                items.iter().copied(),
                |item, bytes| encode(item, bytes),
                bytes,
            )?;
        }
    }
    Ok(IsNull::No)
}

fn array<T: Copy>(
    element_type: Oid,
    items: &[T],
    put: impl Fn(T, &mut BytesMut),
    bytes: &mut BytesMut,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let dimension = ArrayDimension { len: i32::try_from(items.len())?, lower_bound: 1 };
    let put = |item, bytes: &mut BytesMut| {
        put(item, bytes);
        Ok(IsNull::No)
    };
    array_to_sql([dimension], element_type, items.iter().copied(), put, bytes)
}

impl Debug for Session {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "(hidden)"))
            .field("database", &self.database)
            .field("protocol", &self.protocol)
            .field("parameters", &self.parameters)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::message;

    /// The encoded value within Bind, with its length before it.
    fn encoded(value: Value<'_>) -> Vec<u8> {
        let mut outbox = Outbox::new(1000);
        outbox.encode_call("s", &[value]);
        let bytes = outbox.pending();
        assert_eq!(bytes.len(), call_len_bytes("s", &[value]), "{value:?}");
        let (before, after) = (b"\0s\0\0\x01\0\x01\0\x01", b"\0\x01\0\x01");
        let bind = bytes.strip_suffix(&message(b'E', b"\0\0\0\0\0")[..]).unwrap();
        assert_eq!((bind[0], &bind[5..5 + before.len()]), (b'B', &before[..]));
        bind[5 + before.len()..].strip_suffix(after).unwrap().to_vec()
    }

    #[test]
    fn each_value_has_its_binary_format_and_its_length_is_known_beforehand() {
        assert_eq!(encoded(Value::Null), [0xff; 4]);
        assert_eq!(encoded(Value::Bool(true)), b"\0\0\0\x01\x01");
        assert_eq!(encoded(Value::Int2(-2)), b"\0\0\0\x02\xff\xfe");
        assert_eq!(encoded(Value::Int4(258)), b"\0\0\0\x04\0\0\x01\x02");
        assert_eq!(encoded(Value::Int8(-1)), b"\0\0\0\x08\xff\xff\xff\xff\xff\xff\xff\xff");
        assert_eq!(encoded(Value::Text("á")), b"\0\0\0\x02\xc3\xa1");
        assert_eq!(encoded(Value::Text("")), b"\0\0\0\0");
        assert_eq!(encoded(Value::Bytes(&[0, 0xff])), b"\0\0\0\x02\0\xff");
        let head = |len: u8, oid: &[u8; 4], items: u8| {
            [&[0, 0, 0, len, 0, 0, 0, 1, 0, 0, 0, 0], &oid[..], &[0, 0, 0, items, 0, 0, 0, 1]].concat()
        };
        let int4 = [&head(28, b"\0\0\0\x17", 1)[..], b"\0\0\0\x04\0\0\0\x05"].concat();
        assert_eq!(encoded(Value::Int4Array(&[5])), int4);
        let int8 = [&head(32, b"\0\0\0\x14", 1)[..], b"\0\0\0\x08\0\0\0\0\0\0\0\x05"].concat();
        assert_eq!(encoded(Value::Int8Array(&[5])), int8);
        let text = [&head(30, b"\0\0\0\x19", 2)[..], b"\0\0\0\x01a\0\0\0\x01b"].concat();
        assert_eq!(encoded(Value::TextArray(&["a", "b"])), text);
        assert_eq!(encoded(Value::TextArray(&[])), head(20, b"\0\0\0\x19", 0));
        assert_eq!(encoded(Value::Float4(1.5)), b"\0\0\0\x04\x3f\xc0\0\0");
        assert_eq!(encoded(Value::Float8(-2.0)), b"\0\0\0\x08\xc0\0\0\0\0\0\0\0");
        let numeric = Value::Numeric(Decimal::new("-12.50").unwrap());
        assert_eq!(encoded(numeric), b"\0\0\0\x0c\0\x02\0\0\x40\0\0\x02\0\x0c\x13\x88");
        assert_eq!(encoded(Value::Uuid([7; 16])), [&[0, 0, 0, 16][..], &[7; 16]].concat());
        assert_eq!(encoded(Value::Date(Date { days: 1 })), b"\0\0\0\x04\0\0\0\x01");
        let microseconds = 258;
        let eight = b"\0\0\0\x08\0\0\0\0\0\0\x01\x02";
        assert_eq!(encoded(Value::Time(Time { microseconds })), eight);
        assert_eq!(encoded(Value::Timestamp(Timestamp { microseconds })), eight);
        let interval = Value::Interval(Interval { months: 3, days: 2, microseconds });
        assert_eq!(encoded(interval), b"\0\0\0\x10\0\0\0\0\0\0\x01\x02\0\0\0\x02\0\0\0\x03");
        assert_eq!(encoded(Value::Jsonb("{}")), b"\0\0\0\x03\x01{}");
        let mut with_null = [&head(28, b"\0\0\0\x15", 2)[..], b"\0\0\0\x02\0\x05\xff\xff\xff\xff"].concat();
        // The flags say that there is a NULL; its length is 30.
        (with_null[3], with_null[11]) = (30, 1);
        let items = [Value::Int2(5), Value::Null];
        assert_eq!(encoded(Value::Array { element: oid::INT2, items: &items }), with_null);
    }

    #[test]
    fn positions_go_on_when_the_buffer_is_reused() {
        let mut outbox = Outbox::new(20);
        for round in 1..100 {
            outbox.sync();
            assert_eq!(outbox.end(), round * 5);
            outbox.advance(2);
            assert_eq!(outbox.pending(), b"\0\0\x04");
            outbox.advance(3);
            assert_eq!((outbox.taken(), outbox.pending()), (round * 5, &b""[..]));
        }
        outbox.sync();
        outbox.discard();
        assert_eq!((outbox.taken(), outbox.pending()), (99 * 5, &b""[..]));
    }

    #[test]
    fn room_is_kept_for_the_sync() {
        let mut outbox = Outbox::new(20);
        assert!(outbox.has_room_for(15) && !outbox.has_room_for(16) && !outbox.has_room_for(usize::MAX));
        outbox.sync();
        assert!(outbox.has_room_for(10) && !outbox.has_room_for(11));
        outbox.advance(1);
        assert!(outbox.has_room_for(11));
    }

    #[test]
    fn a_statement_that_cannot_be_encoded_is_found_before_the_session_starts() {
        static MOST: [Oid; 65_535] = [0; 65_535];
        static TOO_MANY: [Oid; 65_536] = [0; 65_536];
        let good = Statement::new("s", "", &MOST);
        good.check();
        Outbox::new(100).parse(&good);
        for (bad, problem) in [
            (Statement { name: "a\0b", ..good }, "statement \"a\\0b\" contains a NUL byte"),
            (Statement { sql: "a\0b", ..good }, "statement \"s\" contains a NUL byte"),
            (Statement { parameter_types: &TOO_MANY, ..good }, "statement \"s\" has too many parameters"),
        ] {
            let panic = std::panic::catch_unwind(|| bad.check()).unwrap_err();
            assert_eq!(panic.downcast_ref::<String>().unwrap(), problem);
        }
    }

    #[test]
    fn the_encoding_of_the_session_cannot_be_overridden() {
        let mut outbox = Outbox::new(100);
        let parameters = vec![("client_encoding".to_owned(), "LATIN1".to_owned())];
        let session = Session { user: "u".into(), database: "d".into(), parameters, ..Session::default() };
        outbox.startup(&session).unwrap();
        assert!(outbox.pending().ends_with(b"user\0u\0database\0d\0client_encoding\0UTF8\0\0"));
    }
}
