//! A PostgreSQL client that does no input or output: bytes in, events out, any number of calls per Sync.
//!
//! It knows no socket, no clock and no thread. The owner moves bytes between a transport and a [`Connection`], and
//! is told what became of each call by its own ticket. So the same code runs under a hand-written event loop, under
//! a simulation that cuts the wire between any two bytes, and in the example below, where the server is an array.
//!
//! ```toml
//! [dependencies]
//! proto-pg = { version = "0.1", features = ["tls"] }
//! ```
//!
//! Without the feature `tls` there is no TLS, and five direct dependencies. The README has a table of what libpq, pgx and tokio-postgres
//! call the things that are named here.
//!
//! # A session, byte by byte
//!
//! ```
//! use proto_pg::{Connection, Event, Limits, Session, Statement, Value, oid};
//!
//! let statements = [Statement::new("double", "SELECT $1 * 2", &[oid::INT4])];
//!
//! let session = Session {
//!     user: "alice".into(),
//!     password: None,
//!     database: "bank".into(),
//!     ..Session::default()
//! };
//! let mut connection = Connection::new(&session, &statements, Limits::DEFAULT);
//!
//! // The transport would send these bytes: the start-up message.
//! assert_eq!(connection.send_pending()[4..8], [0, 3, 0, 0]);
//! connection.send_advance(connection.send_pending().len());
//!
//! // The server trusts us (R), is idle (Z); then the statement is parsed (1), and it is idle again.
//! receive(&mut connection, b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I");
//! assert!(connection.poll_event().is_none());
//! receive(&mut connection, b"1\0\0\0\x04Z\0\0\0\x05I");
//! assert!(matches!(connection.poll_event(), Some(Event::Ready)));
//! assert!(connection.poll_event().is_none());
//!
//! // Two calls in one batch, one transaction.
//! connection.call("first", 0, &[Value::Int4(4)])?;
//! connection.call("second", 0, &[Value::Int4(5)])?;
//! connection.sync();
//! connection.send_advance(connection.send_pending().len());
//!
//! // Each is bound (2), has a row (D) and ends (C); the batch is committed when the server is idle again (Z).
//! receive(&mut connection, b"2\0\0\0\x04D\0\0\0\x0e\0\x01\0\0\0\x04\0\0\0\x08C\0\0\0\x0dSELECT 1\0");
//! receive(&mut connection, b"2\0\0\0\x04D\0\0\0\x0e\0\x01\0\0\0\x04\0\0\0\x0aC\0\0\0\x0dSELECT 1\0");
//! receive(&mut connection, b"Z\0\0\0\x05I");
//! let mut log = vec![];
//! while let Some(event) = connection.poll_event() {
//!     match event {
//!         Event::Row { ticket, row } => log.push(format!("{ticket}: {}", row.i32(0)?)),
//!         Event::Done { ticket, tag } => log.push(format!("{ticket}: {tag}")),
//!         other => log.push(format!("{other:?}")),
//!     }
//! }
//! assert_eq!(log, ["first: 8", "first: SELECT 1", "second: 10", "second: SELECT 1", "Committed"]);
//!
//! fn receive<T: Clone>(connection: &mut Connection<T>, bytes: &[u8]) {
//!     connection.recv_space()[..bytes.len()].copy_from_slice(bytes);
//!     connection.recv_commit(bytes.len());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What happens to a call
//!
//! ```text
//! call ──> sync ──> the last byte of the Sync leaves ──> Done ──> Committed
//!   │        │                    │                        │
//!   └────────┴── it closes: RolledBack                      │
//!                                 └────────────────────────┴── it closes: InDoubt
//!
//! one call of the batch fails:  it: Failed,  every other: RolledBack,  then Aborted
//! ```
//!
//! # A tour of the code
//!
//! In reading order:
//!
//! * `connector`: where to connect, and when.
//! * `channel`, `tls`: the bytes to the transport, through TLS or without.
//! * `connection`: the connection and its phases.
//! * `flight`: the order of the calls, and how each ends.
//! * `auth`: the exchange before the first call.
//! * `cancel`: ends a statement that runs.
//! * `url`: reads connection strings.
//! * `request`, `frame`: the messages of this side, and those of the server.
//! * `error`, `sqlstates`: errors and their codes.
//! * `row`, `tag`, `columns`, `copy`, `array`, `types`: what the owner reads.
//!
//! # Over a socket
//!
//! The four byte verbs are all that a transport sees: `send_pending` and `send_advance` out, `recv_space` and
//! `recv_commit` in. With a blocking socket one round is:
//!
//! ```no_run
//! use proto_pg::{CloseReason, Connection};
//! use std::io::{Read, Write};
//!
//! fn exchange<T: Clone>(connection: &mut Connection<T>, socket: &mut (impl Read + Write)) -> std::io::Result<()> {
//!     while !connection.send_pending().is_empty() {
//!         // Report what was taken at once: a batch is in doubt from the moment its Sync has left whole.
//!         let n = socket.write(connection.send_pending())?;
//!         connection.send_advance(n);
//!     }
//!     match socket.read(connection.recv_space())? {
//!         0 => connection.close(CloseReason::PeerClosed),
//!         n => connection.recv_commit(n),
//!     }
//!     Ok(()) // Now drain `poll_event` to `None`.
//! }
//! ```
//!
//! The example `query` is this against a real server, with its errors; the example `mio` does it on an event loop. A [`Channel`] has
//! the same verbs and goes through TLS if the connection string asks for it (feature `tls`); the example `tour` uses it.
//!
//! # Several hosts
//!
//! [`Connector`] says where to connect, in the order and with the conditions of a [`Url`], and when to try again. The example
//! `failover` uses it.
//!
//! # Types
//!
//! | PostgreSQL | parameter | column |
//! |---|---|---|
//! | `boolean` | [`Value::Bool`] | [`Row::bool`] |
//! | `smallint`, `integer`, `bigint` | [`Value::Int2`], [`Value::Int4`], [`Value::Int8`] | [`Row::i16`], [`Row::i32`], [`Row::i64`] |
//! | `real`, `double precision` | [`Value::Float4`], [`Value::Float8`] | [`Row::f32`], [`Row::f64`] |
//! | `numeric` | [`Value::Numeric`] | [`Row::numeric`] |
//! | `text`, `varchar`, `char(n)`, `name`, `json`, enums | [`Value::Text`] | [`Row::text`] |
//! | `jsonb` | [`Value::Jsonb`] | [`Row::jsonb`] |
//! | `uuid` | [`Value::Uuid`] | [`Row::uuid`] |
//! | `date`, `time`, `interval` | [`Value::Date`], [`Value::Time`], [`Value::Interval`] | [`Row::date`], [`Row::time`], [`Row::interval`] |
//! | `timestamp`, `timestamptz` | [`Value::Timestamp`] | [`Row::timestamp`] |
//! | arrays of these | [`Value::Array`], without NULL also [`Value::Int4Array`], [`Value::Int8Array`], [`Value::TextArray`] | [`Row::get`] as [`Array`] |
//! | `bytea`, and any other in its binary format | [`Value::Bytes`] | [`Row::bytes`] |
//! | NULL | [`Value::Null`] | [`Row::get`] as `Option`, [`Row::is_null`] |
//!
//! What a column is read as is checked against what it is if the statement says so: [`Statement::returning`].
//!
//! # Batches and transactions
//!
//! Calls up to a Sync are one implicit transaction. With a [`Connection::sync`] behind each call, each is one of its own,
//! and still nothing waits. With BEGIN and COMMIT a transaction spans batches: a batch within it ends with
//! [`Event::InTransaction`], and the ticket of the COMMIT has the fate of them all.
//!
//! # More than calls
//!
//! | | command | events |
//! |---|---|---|
//! | a statement prepared later | [`Connection::prepare`], [`Connection::call_named`], [`Connection::close_statement`] | [`Event::Done`] |
//! | what a statement takes and gives | [`Connection::describe_statement`], [`Connection::describe_portal`] | [`Event::ParameterTypes`], [`Event::Columns`] |
//! | some rows at a time | [`Connection::bind`], [`Connection::execute`], [`Connection::flush`] | [`Event::Row`], [`Event::Suspended`] |
//! | SQL as it is typed | [`Connection::simple_query`] | [`Event::Columns`], [`Event::TextRow`], [`Event::Done`] |
//! | COPY TO STDOUT | a call or a simple query | [`Event::CopyOut`], [`Event::CopyData`] |
//! | COPY FROM STDIN | [`Connection::copy_data`], [`Connection::copy_done`], [`Connection::copy_fail`] | [`Event::CopyIn`] |
//! | LISTEN | a call or a simple query | [`Event::Notification`], whenever bytes arrive |
//! | cancel | [`BackendKey::cancel_request`], over another connection | [`Event::Failed`] with `57014` |
//!
//! The example `tour` does most of it, the example `copy` COPY of any length in both directions.
//!
//! # What it does not do
//!
//! GSSAPI, the replication protocol, function calls. A message that belongs to one of these closes the connection with a
//! reason that names it; nothing is ignored silently.
//!
//! # Versions
//!
//! The crate follows semantic versioning. Below 1.0 a change that can break a caller raises the minor version. These do
//! not count as breaking: a new variant of an enum or a new field of a struct that is `#[non_exhaustive]`, another text
//! of an error, a higher `rust-version`. No type of a dependency is part of the API.
//!
//! Format of all messages: PostgreSQL documentation, chapter "Frontend/Backend Protocol".

mod channel;

#[cfg(feature = "tls")]
pub mod tls;

mod connector;

mod connection;

mod flight;

mod auth;

mod url;

mod request;

mod frame;

mod error;

mod sqlstates;

mod row;

mod tag;

mod columns;

mod copy;

mod cancel;

mod array;

mod types;

#[cfg(test)]
mod script;

/// The examples of the README, for doctests alone.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use array::Array;
pub use auth::{AuthenticationMethod, AuthenticationPolicy, ChannelBindingMode};
pub use cancel::BackendKey;
pub use channel::{Channel, ChannelConfig, ChannelError};
pub use columns::{Column, Columns, ParameterTypes};
pub use connection::{Connection, Event, Limits, TransactionStatus};
pub use connector::{
    ConnectAttempt, ConnectStep, Connector, ConnectorConfig, Endpoint, Failure, HostProblem,
    LoadBalanceHosts, RoundError, TargetMismatch, TargetSessionAttrs, TcpOptions, Verdict,
};
pub use copy::{CopyEnded, CopyFormat};
pub use error::{
    AuthenticationError, CloseReason, Full, ProtocolError, ServerError, Severity, SqlState, StatementError,
    StatementProblem,
};
pub use request::{Oid, ProtocolVersion, Session, Statement, Value, oid};
pub use row::{ColumnProblem, Row, RowError, TextRow};
pub use tag::CommandTag;
pub use types::{Date, Decimal, Element, FromColumn, Interval, Jsonb, NotDecimal, Numeric, Time, Timestamp};
pub use url::{Host, Keepalive, Url, UrlError};
