//! What this side says: the session, statements and parameter values, and the outbox they are encoded into.

use bytes::{BufMut, BytesMut};
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;
use postgres_protocol::types::{ArrayDimension, array_to_sql};
use std::fmt::{self, Debug, Formatter};
use std::io;

/// The object identifier of a type, as `pg_type` has it; [`oid`] names some.
pub type Oid = u32;

/// Who connects, to what.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// The role to log in as.
    pub user: String,
    /// Its password, for a server that asks.
    pub password: Option<String>,
    /// The database.
    pub database: String,
    /// Further start-up parameters as (name, value): `application_name`, `options`, or any setting of the session
    /// such as `statement_timeout`. `user`, `database` and `client_encoding` (always UTF8) are overridden.
    pub parameters: Vec<(String, String)>,
}

/// A statement that is prepared once, at start-up, and called by its index from then on.
///
/// It must leave transactions alone (no BEGIN, no COMMIT, no procedure that commits): the promise of
/// [`Event::RolledBack`](crate::Event::RolledBack) stands on the batch being one transaction.
///
/// ```
/// use proto_pg::{Statement, oid};
///
/// static STATEMENTS: [Statement; 1] = [Statement {
///     name: "pay",
///     sql: "UPDATE account SET balance = balance + $2 WHERE id = $1 RETURNING balance",
///     parameter_types: &[oid::INT4, oid::INT8],
/// }];
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    /// Its name in the server; unique within the session, not empty, without NUL.
    pub name: &'static str,
    /// One SQL command with `$1`, `$2`, ... in place of its parameters; without NUL.
    pub sql: &'static str,
    /// The type of each parameter, from [`oid`]; 0 lets the server infer it.
    pub parameter_types: &'static [Oid],
}

impl Statement {
    /// # Panics
    /// If no Parse or Bind could carry it, which is a bug of the owner.
    pub(crate) fn check(&self) {
        let Statement { name, sql, parameter_types } = self;
        // An unnamed statement would be replaced by the next one.
        assert!(!name.is_empty(), "a statement without a name: {sql:?}");
        assert!(!name.contains('\0') && !sql.contains('\0'), "statement {name:?} contains a NUL byte");
        // The count is an Int16, which the server takes as unsigned.
        assert!(u16::try_from(parameter_types.len()).is_ok(), "statement {name:?} has too many parameters");
    }
}

/// The object identifiers of the types that parameters can have. Source: `pg_type.dat` of PostgreSQL.
pub mod oid {
    use super::Oid;

    /// `boolean`
    pub const BOOL: Oid = 16;
    /// `bytea`
    pub const BYTEA: Oid = 17;
    /// `bigint`
    pub const INT8: Oid = 20;
    /// `smallint`
    pub const INT2: Oid = 21;
    /// `integer`
    pub const INT4: Oid = 23;
    /// `text`
    pub const TEXT: Oid = 25;
    /// `integer[]`
    pub const INT4_ARRAY: Oid = 1007;
    /// `text[]`
    pub const TEXT_ARRAY: Oid = 1009;
    /// `bigint[]`
    pub const INT8_ARRAY: Oid = 1016;
}

/// One parameter of a call. It goes over the wire in binary, so its variant must fit the type that the statement
/// declares at this place; if it does not, the server fails the call.
///
/// Arrays have one dimension, start at index 1 and hold no NULL.
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
    /// `bytea`, or any type that this crate has no variant for, in its binary format: `&1.5f64.to_be_bytes()` is a
    /// `double precision`.
    Bytes(&'a [u8]),
    /// `integer[]`
    Int4Array(&'a [i32]),
    /// `bigint[]`
    Int8Array(&'a [i64]),
    /// `text[]`
    TextArray(&'a [&'a str]),
}

/// Bytes on their way to the server. `sent <= bytes.len()`.
///
/// Positions in the stream of all bytes ever queued are absolute (`u64`), so that the ledger of batches can ask
/// later whether a Sync has left: the owner takes bytes in order, so a position is all it takes.
pub(crate) struct Outbox {
    bytes: BytesMut,
    sent: usize,
    /// How many bytes the owner has taken since the lane was made.
    taken: u64,
    len_max_bytes: usize,
}

/// Every Sync, and every Terminate, is this long: a tag and a length.
pub(crate) const SYNC_LEN_BYTES: usize = 5;

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

    /// Drops what is still pending: the lane is closed.
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
        frontend::startup_message(theirs.chain(ours), &mut self.bytes)
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
    pub(crate) fn parse(&mut self, statement: &Statement) {
        let types = statement.parameter_types.iter().copied();
        let result = frontend::parse(statement.name, statement.sql, types, &mut self.bytes);
        assert!(result.is_ok(), "statement {:?} cannot be encoded", statement.name);
    }

    /// Queues Bind and Execute of one call; the caller has asked [`Outbox::has_room_for`] before.
    ///
    /// The unnamed portal is used and overwritten by each call; parameters and results are all binary; 0 rows
    /// at most means all rows.
    // Out of line, so that profiles name it.
    #[inline(never)]
    pub(crate) fn encode_call(&mut self, statement: &Statement, parameters: &[Value<'_>]) {
        self.make_room(call_len_bytes(statement, parameters));
        let (all_binary, rows_max) = ([1], 0);
        let bound = frontend::bind(
            "",
            statement.name,
            all_binary,
            parameters.iter().copied(),
            |value, bytes| encode(value, bytes),
            all_binary,
            &mut self.bytes,
        );
        let executed = frontend::execute("", rows_max, &mut self.bytes);
        // `Statement::check` refuses NUL in the name; the parameter count is that of `parameter_types`, which it found
        // to fit; and `has_room_for` keeps every length below `len_max_bytes`, an Int32.
        assert!(bound.is_ok() && executed.is_ok(), "a call of {:?} cannot be encoded", statement.name);
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

/// The length of one call's Bind and Execute, exactly.
///
/// Format: PostgreSQL documentation, "Frontend/Backend Protocol", section Message Formats, Bind and Execute.
pub(crate) fn call_len_bytes(statement: &Statement, parameters: &[Value<'_>]) -> usize {
    // Bind: tag, length, portal, statement, 1 format, values, 1 result format. Execute: tag, length, portal, rows.
    let fixed = (1 + 4 + 1 + statement.name.len() + 1 + (2 + 2) + 2 + (2 + 2)) + (1 + 4 + 1 + 4);
    parameters.iter().fold(fixed, |sum, value| sum.saturating_add(4).saturating_add(value_len_bytes(value)))
}

fn value_len_bytes(value: &Value<'_>) -> usize {
    /// Number of dimensions, flags, element type; then length and lower bound of the one dimension.
    const ARRAY_HEAD: usize = (4 + 4 + 4) + (4 + 4);
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Int2(_) => 2,
        Value::Int4(_) => 4,
        Value::Int8(_) => 8,
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::Int4Array(items) => ARRAY_HEAD + items.len() * (4 + 4),
        Value::Int8Array(items) => ARRAY_HEAD + items.len() * (4 + 8),
        Value::TextArray(items) => {
            items.iter().fold(ARRAY_HEAD, |sum, item| sum.saturating_add(4).saturating_add(item.len()))
        }
    }
}

type Encoded = Result<IsNull, Box<dyn std::error::Error + Send + Sync>>;

fn encode(value: Value<'_>, bytes: &mut BytesMut) -> Encoded {
    match value {
        Value::Null => return Ok(IsNull::Yes),
        Value::Bool(value) => bytes.put_u8(u8::from(value)),
        Value::Int2(value) => bytes.put_i16(value),
        Value::Int4(value) => bytes.put_i32(value),
        Value::Int8(value) => bytes.put_i64(value),
        Value::Text(value) => bytes.put_slice(value.as_bytes()),
        Value::Bytes(value) => bytes.put_slice(value),
        Value::Int4Array(items) => array(oid::INT4, items, |item, bytes| bytes.put_i32(item), bytes)?,
        Value::Int8Array(items) => array(oid::INT8, items, |item, bytes| bytes.put_i64(item), bytes)?,
        Value::TextArray(items) => {
            array(oid::TEXT, items, |item, bytes| bytes.put_slice(item.as_bytes()), bytes)?;
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
            .field("parameters", &self.parameters)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::message;

    static ANY: [Statement; 2] = [
        Statement { name: "s", sql: "", parameter_types: &[0] },
        Statement { name: "a longer name", sql: "", parameter_types: &[] },
    ];

    /// The encoded value within Bind, with its length before it.
    fn encoded(value: Value<'_>) -> Vec<u8> {
        let mut outbox = Outbox::new(1000);
        outbox.encode_call(&ANY[0], &[value]);
        let bytes = outbox.pending();
        assert_eq!(bytes.len(), call_len_bytes(&ANY[0], &[value]), "{value:?}");
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
        let good = Statement { name: "s", sql: "", parameter_types: &MOST };
        good.check();
        Outbox::new(100).parse(&good);
        for (bad, problem) in [
            (Statement { name: "", ..good }, "a statement without a name: \"\""),
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
        let session = Session { user: "u".into(), password: None, database: "d".into(), parameters };
        outbox.startup(&session).unwrap();
        assert!(outbox.pending().ends_with(b"user\0u\0database\0d\0client_encoding\0UTF8\0\0"));
    }
}
