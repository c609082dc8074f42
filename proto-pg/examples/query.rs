//! A query over a blocking socket: all that a transport has to do for a connection.
//!
//! `cargo run -p proto-pg --example query -- postgresql://user:password@localhost/database`

use proto_pg::{CloseReason, Connection, Event, Host, Limits, Statement, Url, Value, oid};
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

static STATEMENTS: [Statement<'static>; 1] =
    [Statement::new("squares", "SELECT n, n * n FROM generate_series(1, $1) AS n", &[oid::INT4])];

fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("usage: query postgresql://user:password@host/database")?;
    run(&url, &mut io::stdout())
}

/// Connects to the first host of the URL and prints the answer to `out`.
///
/// # Errors
/// Everything that keeps the answer from coming, or from being a committed one.
pub(crate) fn run(url: &str, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let url = Url::parse(url)?;
    match &url.hosts[0] {
        Host::Tcp { name, address, port } => {
            let place = address.as_ref().unwrap_or(name);
            query(&url, TcpStream::connect((place.as_str(), *port))?, out)
        }
        Host::Unix { socket_path } => query(&url, UnixStream::connect(socket_path)?, out),
    }
}

fn query(url: &Url, mut socket: impl Read + Write, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let limits = Limits { in_flight_calls_max: 2, ..Limits::DEFAULT };
    let mut connection = Connection::new(&url.session("postgres"), &STATEMENTS, limits);
    let mut is_committed = false;
    loop {
        // After each input: every event there is.
        while let Some(event) = connection.poll_event() {
            match event {
                Event::Ready => {
                    connection.call("three", 0, &[Value::Int4(3)])?;
                    connection.call("five", 0, &[Value::Int4(5)])?;
                    connection.sync();
                }
                Event::Row { ticket, row } => writeln!(out, "{ticket}: {} {}", row.i32(0)?, row.i32(1)?)?,
                Event::Committed => {
                    is_committed = true;
                    connection.terminate();
                }
                Event::Aborted { .. } => connection.terminate(),
                Event::Failed { ticket, error } => writeln!(out, "{ticket}: {error}")?,
                Event::Closed { .. } if is_committed => return Ok(()),
                Event::Closed { reason } => return Err(reason.into()),
                // The number of rows, notices, settings; RolledBack and InDoubt, which a connection that is used for more than
                // one batch would tell its callers.
                _ => {}
            }
        }
        // What the socket took is told at once: it decides whether a batch is in doubt. To write everything before
        // reading anything is safe as long as a batch is smaller than the buffers of a socket.
        if let Err(error) = send(&mut connection, &mut socket) {
            connection.close(CloseReason::Transport(error.kind()));
            continue;
        }
        match socket.read(connection.recv_space()) {
            Ok(0) => connection.close(CloseReason::PeerClosed),
            Ok(n) => connection.recv_commit(n),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => connection.close(CloseReason::Transport(error.kind())),
        }
    }
}

fn send<T: Clone>(connection: &mut Connection<T>, socket: &mut impl Write) -> io::Result<()> {
    while !connection.send_pending().is_empty() {
        match socket.write(connection.send_pending()) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => connection.send_advance(n),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
