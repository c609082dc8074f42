//! A whole session on byte arrays: start-up, a batch that commits, one that fails, and a server that vanishes.
//!
//! `cargo run -p proto-pg --example transcript`

use proto_pg::{CloseReason, Connection, Event, Full, Limits, Session, Statement, Value, oid};

static STATEMENTS: [Statement<'static>; 1] = [Statement::new(
    "pay",
    "UPDATE account SET balance = balance + $2 WHERE id = $1 RETURNING balance",
    &[oid::INT4, oid::INT8],
)];

fn main() -> Result<(), Full> {
    let session = Session {
        user: "alice".into(),
        password: None,
        database: "bank".into(),
        parameters: vec![("application_name".into(), "transcript".into())],
        ..Session::default()
    };
    let limits = Limits {
        message_len_max_bytes: 1024,
        text_len_max_bytes: 1024,
        send_len_max_bytes: 1024,
        in_flight_calls_max: 16,
    };
    let mut connection = Connection::new(&session, &STATEMENTS, limits);
    client("who we are", &mut connection);

    server(
        "welcome, and idle",
        &mut connection,
        b"R\0\0\0\x08\0\0\0\0S\0\0\0\x18server_version\x0016.4\0Z\0\0\0\x05I",
    );
    client("prepare the statement", &mut connection);
    server("parsed", &mut connection, b"1\0\0\0\x04Z\0\0\0\x05I");

    connection.call("rent", 0, &[Value::Int4(1), Value::Int8(-900)])?;
    connection.call("wage", 0, &[Value::Int4(2), Value::Int8(1500)])?;
    connection.sync();
    client("two calls, one Sync", &mut connection);
    let rent = b"2\0\0\0\x04D\0\0\0\x12\0\x01\0\0\0\x08\0\0\0\0\0\0\0\x64C\0\0\0\x0dUPDATE 1\0";
    let wage = b"2\0\0\0\x04D\0\0\0\x12\0\x01\0\0\0\x08\0\0\0\0\0\0\x07\xd0C\0\0\0\x0dUPDATE 1\0";
    server("both done, committed", &mut connection, &[&rent[..], wage, b"Z\0\0\0\x05I"].concat());

    connection.call("good", 0, &[Value::Int4(1), Value::Int8(1)])?;
    connection.call("bad", 0, &[Value::Int4(2), Value::Int8(i64::MAX)])?;
    connection.call("later", 0, &[Value::Int4(3), Value::Int8(1)])?;
    connection.sync();
    client("three calls, one Sync", &mut connection);
    let overflow = b"2\0\0\0\x04E\0\0\0\x2fSERROR\0VERROR\0C22003\0Mbigint out of range\0\0";
    server(
        "the second fails, so none has happened",
        &mut connection,
        &[&rent[..], overflow, b"Z\0\0\0\x05I"].concat(),
    );

    connection.call("lost", 0, &[Value::Int4(1), Value::Int8(1)])?;
    connection.sync();
    client("one call", &mut connection);
    connection.call("unsent", 0, &[Value::Int4(1), Value::Int8(1)])?;
    println!("the server closes the connection");
    connection.close(CloseReason::PeerClosed);
    report(&mut connection);
    Ok(())
}

/// The transport takes everything that is pending.
fn client(what: &str, connection: &mut Connection<&str>) {
    println!("-> {what}: {}", connection.send_pending().escape_ascii());
    connection.send_advance(connection.send_pending().len());
}

/// The transport delivers bytes.
fn server(what: &str, connection: &mut Connection<&str>, bytes: &[u8]) {
    println!("<- {what}: {}", bytes.escape_ascii());
    connection.recv_space()[..bytes.len()].copy_from_slice(bytes);
    connection.recv_commit(bytes.len());
    report(connection);
}

/// After each input: every event there is.
fn report(connection: &mut Connection<&str>) {
    while let Some(event) = connection.poll_event() {
        match event {
            Event::Row { ticket, row } => match row.i64(0) {
                Ok(balance) => println!("   {ticket}: balance {balance}"),
                Err(error) => println!("   {ticket}: {error}"),
            },
            Event::Closed { reason } => println!("   closed: {reason}"),
            other => println!("   {other:?}"),
        }
    }
}
