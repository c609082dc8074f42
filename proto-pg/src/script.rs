//! For tests: the server's lines, connections brought into each phase, and events as short texts.

use crate::{Connection, Event, Limits, Session, Statement, Value, oid};

pub(crate) static STATEMENTS: [Statement<'static>; 2] =
    [Statement::new("one", "SELECT $1", &[oid::INT4]), Statement::new("none", "SELECT 1", &[])];

pub(crate) const LIMITS: Limits = Limits {
    message_len_max_bytes: 256,
    text_len_max_bytes: 4096,
    send_len_max_bytes: 1024,
    in_flight_calls_max: 8,
};

/// From one position that a test tries to the next. Miri takes some hundred times as long, so there it is one of many.
pub(crate) const STEP: usize = if cfg!(miri) { 61 } else { 1 };

pub(crate) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 4).unwrap();
    [&[tag], &len.to_be_bytes()[..], body].concat()
}

pub(crate) fn authentication(code: u32, data: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes()[..], data].concat())
}

pub(crate) fn authentication_ok() -> Vec<u8> {
    authentication(0, b"")
}

pub(crate) fn error(severity: &str, code: &str) -> Vec<u8> {
    message(b'E', format!("S{severity}\0V{severity}\0C{code}\0Mtext\0Ffile.c\0\0").as_bytes())
}

pub(crate) fn ready_for_query() -> Vec<u8> {
    message(b'Z', b"I")
}

pub(crate) fn parse_complete() -> Vec<u8> {
    message(b'1', b"")
}

pub(crate) fn bind_complete() -> Vec<u8> {
    message(b'2', b"")
}

pub(crate) fn command_complete() -> Vec<u8> {
    message(b'C', b"SELECT 1\0")
}

/// A row of one integer.
pub(crate) fn data_row(value: i32) -> Vec<u8> {
    message(b'D', &[&[0, 1, 0, 0, 0, 4], &value.to_be_bytes()[..]].concat())
}

/// The types of a statement's parameters.
pub(crate) fn parameter_description(types: &[u32]) -> Vec<u8> {
    let count = u16::try_from(types.len()).unwrap().to_be_bytes();
    let types: Vec<u8> = types.iter().flat_map(|oid| oid.to_be_bytes()).collect();
    message(b't', &[&count[..], &types].concat())
}

/// Columns of these types, each with the name `c`.
pub(crate) fn row_description(types: &[u32]) -> Vec<u8> {
    let count = u16::try_from(types.len()).unwrap().to_be_bytes();
    let columns: Vec<u8> = types
        .iter()
        .flat_map(|oid| {
            [b"c\0\0\0\0\0\0\0", &oid.to_be_bytes()[..], b"\xff\xff\xff\xff\xff\xff\0\0"].concat()
        })
        .collect();
    message(b'T', &[&count[..], &columns].concat())
}

/// All that the server says to one successful call.
pub(crate) fn answer() -> Vec<u8> {
    [bind_complete(), data_row(7), command_complete()].concat()
}

/// One message of every kind a server can send, and of one kind that it cannot.
pub(crate) fn every_message() -> Vec<Vec<u8>> {
    let with_body = [
        error("ERROR", "42601"),
        error("FATAL", "57P01"),
        message(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mtext\0\0"),
        message(b'A', b"\0\0\0\x01channel\0payload\0"),
        message(b'S', b"name\0value\0"),
        message(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]),
        message(b'v', &[0, 3, 0, 0, 0, 0, 0, 0]),
        message(b'G', b"\0\0\x01\0\0"),
        message(b'H', b"\0\0\x01\0\0"),
        message(b'v', b"\0\x03\0\0\0\0\0\x01_pq_.x\0"),
        authentication_ok(),
        authentication(5, b"salt"),
        ready_for_query(),
        message(b'Z', b"T"),
        command_complete(),
        data_row(1),
        parameter_description(&[oid::INT4]),
        row_description(&[oid::INT4]),
    ];
    let without_body = b"123IncsWdVx?".iter().map(|&tag| message(tag, b""));
    with_body.into_iter().chain(without_body).collect()
}

pub(crate) fn session() -> Session {
    Session {
        user: "alice".into(),
        password: Some("secret".into()),
        database: "bank".into(),
        parameters: vec![("application_name".into(), "test".into())],
        ..Session::default()
    }
}

pub(crate) fn authenticating() -> Connection<u32> {
    Connection::new(&session(), &STATEMENTS, LIMITS)
}

pub(crate) fn starting() -> Connection<u32> {
    let mut connection = authenticating();
    assert_eq!(receive(&mut connection, &authentication_ok()), [""; 0]);
    connection
}

pub(crate) fn preparing() -> Connection<u32> {
    let mut connection = starting();
    assert_eq!(receive(&mut connection, &ready_for_query()), [""; 0]);
    connection
}

/// Idle: started, with nothing left to send.
pub(crate) fn idle() -> Connection<u32> {
    let mut connection = preparing();
    assert_eq!(
        receive(&mut connection, &[parse_complete(), parse_complete(), ready_for_query()].concat()),
        ["Ready"]
    );
    send(&mut connection);
    connection
}

/// Two calls, tickets 1 and 2, their Sync sent, nothing answered.
pub(crate) fn asked() -> Connection<u32> {
    let mut connection = idle();
    call(&mut connection, 1);
    call(&mut connection, 2);
    connection.sync();
    send(&mut connection);
    connection
}

/// Ticket 1 is bound.
pub(crate) fn bound() -> Connection<u32> {
    let mut connection = asked();
    assert_eq!(receive(&mut connection, &bind_complete()), [""; 0]);
    connection
}

/// Ticket 1 has failed; the batch has not ended.
pub(crate) fn failed() -> Connection<u32> {
    let mut connection = asked();
    assert_eq!(receive(&mut connection, &error("ERROR", "23505")), ["Failed 1 23505"]);
    connection
}

pub(crate) fn call(connection: &mut Connection<u32>, ticket: u32) {
    connection.call(ticket, 0, &[Value::Int4(5)]).unwrap();
}

/// Hands everything pending to the transport.
pub(crate) fn send(connection: &mut Connection<u32>) {
    connection.send_advance(connection.send_pending().len());
}

/// Receives bytes, as many at a time as fit, and drains after each time.
pub(crate) fn receive(connection: &mut Connection<u32>, mut bytes: &[u8]) -> Vec<String> {
    let mut log = vec![];
    while !bytes.is_empty() && !connection.is_closing() {
        let space = connection.recv_space();
        let n = space.len().min(bytes.len());
        assert!(n > 0, "a drained connection has room");
        space[..n].copy_from_slice(&bytes[..n]);
        connection.recv_commit(n);
        bytes = &bytes[n..];
        log.extend(drain(connection));
    }
    log
}

pub(crate) fn drain(connection: &mut Connection<u32>) -> Vec<String> {
    let mut log = vec![];
    while let Some(event) = connection.poll_event() {
        log.push(match event {
            Event::Ready => "Ready".into(),
            Event::Row { ticket, row } => format!("Row {ticket} {:?}", row.i32(0)),
            Event::Done { ticket, tag } => format!("Done {ticket} {tag}").trim_end().into(),
            Event::TextRow { ticket, row } => format!("TextRow {ticket} {:?}", row.text(0)),
            Event::Suspended { ticket } => format!("Suspended {ticket}"),
            Event::ParameterTypes { ticket, types } => {
                format!("ParameterTypes {ticket} {:?}", types.collect::<Vec<_>>())
            }
            Event::Columns { ticket, columns } => {
                let types = columns.map(|columns| columns.map(|column| column.type_oid).collect::<Vec<_>>());
                format!("Columns {ticket} {types:?}")
            }
            Event::CopyOut { ticket, format } => format!("CopyOut {ticket} {}", format.columns_len),
            Event::CopyData { ticket, bytes, is_end } => {
                format!("CopyData {ticket} {}{}", bytes.escape_ascii(), if is_end { "" } else { "..." })
            }
            Event::CopyIn { ticket, format } => format!("CopyIn {ticket} {}", format.columns_len),
            Event::InTransaction => "InTransaction".into(),
            Event::Failed { ticket, error } => format!("Failed {ticket} {}", error.code),
            Event::RolledBack { ticket } => format!("RolledBack {ticket}"),
            Event::InDoubt { ticket } => format!("InDoubt {ticket}"),
            Event::Committed => "Committed".into(),
            Event::Aborted { error: None } => "Aborted".into(),
            Event::Aborted { error: Some(error) } => format!("Aborted {}", error.code),
            Event::Notice(notice) => format!("Notice {}", notice.code),
            Event::Parameter { name, value } => format!("Parameter {name} {value}"),
            Event::Notification { process_id, channel, payload } => {
                format!("Notification {process_id} {channel} {payload}")
            }
            Event::Closed { reason } => format!("Closed: {reason}"),
        });
    }
    log
}
