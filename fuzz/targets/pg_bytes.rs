//! Whatever a server sends, in whatever pieces: no panic, the same events, the rows that stand in its bytes, and no
//! more than one end for each call.
//!
//! The input's first byte says how its bytes are cut (`Pieces::cut`), whether they begin with the log-in, and what is asked for;
//! the rest is what the server sends. As soon as the connection is ready, it is given two batches: of calls, or of everything else.
#![no_main]

use std::fmt::Write as _;

use fuzz::{Pieces, STARTED, new_connection};
use libfuzzer_sys::fuzz_target;
use proto_pg::{Array, CloseReason, Connection, Event, Jsonb, Numeric, ProtocolError, Row, Statement, Value};

const CALLS: u8 = 5;
/// The bit of the input's first byte that asks for a connection which has logged in.
const IS_STARTED: u8 = 8;
/// The bit of the input's first byte that asks for everything but calls.
const IS_OTHER: u8 = 16;

/// The server's side and what the connection made of it.
struct Log<'a> {
    /// What the server sends.
    sent: &'a [u8],
    /// Every event.
    events: String,
    /// What is asked for as soon as the connection is ready.
    ask: fn(&mut Connection<u8>),
    /// How often each call was told its end. Those that are done and committed have theirs there.
    ends: [u8; CALLS as usize],
}

impl Log<'_> {
    fn drain(&mut self, connection: &mut Connection<u8>) {
        while let Some(event) = connection.poll_event() {
            match &event {
                // Pieces of a row that is copied are cut as the bytes are: what is told of the row is told at its end.
                Event::CopyData { ticket, bytes, is_end } => {
                    write!(self.events, "{}", bytes.escape_ascii()).expect("memory takes text");
                    if *is_end {
                        write!(self.events, " CopyData {{ ticket: {ticket} }} ").expect("memory takes text");
                    }
                }
                _ => write!(self.events, "{event:?} ").expect("memory takes text"),
            }
            match event {
                Event::Ready => (self.ask)(connection),
                Event::TextRow { row, .. } => {
                    let columns =
                        next_row(&mut self.sent).and_then(plain_row).expect("no row without a good DataRow");
                    let read: Vec<_> = (0..row.columns_len()).map(|column| row.raw(column)).collect();
                    assert_eq!(read, columns.into_iter().map(Ok).collect::<Vec<_>>());
                }
                Event::CopyIn { .. } => {
                    assert_eq!(connection.copy_data(b"1\n"), Ok(2));
                    connection.copy_done().expect("it takes data");
                }
                Event::Row { row, .. } => self.check(&row),
                Event::Closed { reason: CloseReason::Protocol(ProtocolError::Malformed { tag: b'D' }) } => {
                    let body = next_row(&mut self.sent).expect("no refusal without a DataRow");
                    assert_eq!(plain_row(body), None);
                }
                Event::Failed { ticket, .. } | Event::RolledBack { ticket } | Event::InDoubt { ticket } => {
                    self.ends[usize::from(ticket)] += 1;
                }
                _ => {}
            }
        }
    }

    /// Holds a row against a plain reading of the next `DataRow` that the server sent.
    fn check(&mut self, row: &Row<'_>) {
        let columns = next_row(&mut self.sent).and_then(plain_row).expect("no row without a good DataRow");
        assert_eq!(row.columns_len(), columns.len());
        for (column, &value) in columns.iter().enumerate() {
            assert_eq!(row.raw(column), Ok(value));
            assert_eq!(row.is_null(column), Ok(value.is_none()));
            assert_eq!(row.bytes(column).ok(), value);
            assert_eq!(
                row.bool(column).ok(),
                array(value).filter(|[byte]| *byte < 2).map(|[byte]| byte == 1)
            );
            assert_eq!(row.i16(column).ok(), array(value).map(i16::from_be_bytes));
            assert_eq!(row.i32(column).ok(), array(value).map(i32::from_be_bytes));
            assert_eq!(row.i64(column).ok(), array(value).map(i64::from_be_bytes));
            assert_eq!(row.text(column).ok(), value.and_then(|value| str::from_utf8(value).ok()));
            assert_eq!(row.jsonb(column).ok(), value.and_then(|value| value.strip_prefix(&[1])));
            let elements: Option<Vec<_>> = row.i64_array(column).ok().map(Iterator::collect);
            assert_eq!(elements, value.and_then(plain_array));
            // Whatever the bytes are read as: an error at worst, and text that can be printed.
            let _ = row.numeric(column).map(|numeric| numeric.to_string());
            let _ = row.get::<Option<Array<'_, &str>>>(column).map(|texts| texts.map(Iterator::count));
            let _ = row.get::<Array<'_, Numeric<'_>>>(column).map(|numbers| format!("{numbers:?}"));
            let _ = (row.interval(column), row.get::<Jsonb<'_>>(column), row.uuid(column));
        }
        assert!(row.raw(columns.len()).is_err());
    }
}

/// The body of the next `DataRow`, if it is whole; `sent` is what follows it then.
fn next_row<'a>(sent: &mut &'a [u8]) -> Option<&'a [u8]> {
    loop {
        let tag = *sent.split_off_first()?;
        let len = u32::from_be_bytes(array(sent.split_off(..4))?).checked_sub(4)?;
        let body = sent.split_off(..usize::try_from(len).ok()?)?;
        if tag == b'D' {
            return Some(body);
        }
    }
}

/// The columns of a row, if they are all that is in it.
fn plain_row(mut body: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let columns_len = array(body.split_off(..2)).map(i16::from_be_bytes)?;
    let mut columns = Vec::new();
    for _ in 0..u16::try_from(columns_len).ok()? {
        columns.push(match array(body.split_off(..4)).map(i32::from_be_bytes)? {
            -1 => None,
            len => Some(body.split_off(..usize::try_from(len).ok()?)?),
        });
    }
    body.is_empty().then_some(columns)
}

/// A `bigint[]` of one dimension, or of none, which is the empty one.
fn plain_array(mut bytes: &[u8]) -> Option<Vec<Option<i64>>> {
    let mut number = || array(bytes.split_off(..4)).map(i32::from_be_bytes);
    let (dimensions, _has_null, element_type) = (number()?, number()?, number()?);
    let len = match dimensions {
        0 => 0,
        1 => (number()?, number()?).0,
        _ => return None,
    };
    let mut elements = Vec::new();
    for _ in 0..usize::try_from(len).ok()? {
        elements.push(match number()? {
            -1 => None,
            8 => Some(i64::from(number()?) << 32 | i64::from(number()?.cast_unsigned())),
            _ => return None,
        });
    }
    (element_type == 20 && bytes.is_empty()).then_some(elements)
}

fn array<const LEN: usize>(value: Option<&[u8]>) -> Option<[u8; LEN]> {
    value?.try_into().ok()
}

/// Two batches, of three calls and of two.
fn call(connection: &mut Connection<u8>) {
    for ticket in 0..CALLS {
        connection.call(ticket, 0, &[Value::Int4(1)]).expect("there is room");
        if [2, 4].contains(&ticket) {
            connection.sync();
        }
    }
    connection.send_advance(connection.send_pending().len());
}

/// A batch of everything but calls, and a simple query.
fn ask(connection: &mut Connection<u8>) {
    connection.prepare(0, &Statement::new("", "SELECT $1", &[])).expect("there is room");
    connection.describe_statement(1, "").expect("there is room");
    connection.bind(2, "p", "", &[Value::Null]).expect("there is room");
    connection.execute(3, "p", 1).expect("there is room");
    connection.sync();
    connection.simple_query(4, "SELECT 1; COPY t FROM STDIN").expect("there is room");
    connection.send_advance(connection.send_pending().len());
}

/// What comes of these bytes, until the server closes the connection.
fn events(bytes: &[u8], mut pieces: Pieces<'_>, is_started: bool, ask: fn(&mut Connection<u8>)) -> String {
    let mut connection = new_connection();
    let mut log = Log { sent: bytes, events: String::new(), ask, ends: [0; CALLS as usize] };
    if is_started {
        let n = Pieces::whole(STARTED).arrive(connection.recv_space());
        connection.recv_commit(n);
        log.drain(&mut connection);
        assert!(connection.is_ready());
    }
    while !pieces.is_empty() && !connection.is_closing() {
        let n = pieces.arrive(connection.recv_space());
        assert!(n > 0, "a connection that is drained has room");
        connection.recv_commit(n);
        log.drain(&mut connection);
    }
    assert!(connection.is_closing() || next_row(&mut log.sent).is_none(), "a row was passed over");
    connection.close(CloseReason::PeerClosed);
    log.drain(&mut connection);
    assert!(log.ends.iter().all(|count| *count <= 1), "{}", log.events);
    assert_eq!(connection.in_flight_calls(), 0);
    log.events
}

fuzz_target!(|data: &[u8]| {
    let Some((&how, bytes)) = data.split_first() else { return };
    let is_started = how & IS_STARTED != 0;
    let ask = if how & IS_OTHER != 0 { ask } else { call };
    let whole = events(bytes, Pieces::whole(bytes), is_started, ask);
    assert_eq!(events(bytes, Pieces::cut(bytes, how), is_started, ask), whole);
});
