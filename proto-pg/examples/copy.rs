//! COPY in both directions over a blocking socket: CSV from standard input into a table, and back to standard output. The
//! memory it takes does not grow with the data, nor with a row.
//!
//! `echo '1,one' | cargo run -p proto-pg --example copy -- postgresql://user:password@localhost/database`

use proto_pg::{CloseReason, Connection, CopyEnded, Event, Host, Limits, Url};
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

const TABLE: &str = "CREATE TEMP TABLE line (id int, text text)";
const IN: &str = "COPY line FROM STDIN (FORMAT csv)";
const OUT: &str = "COPY (SELECT id, text FROM line ORDER BY id) TO STDOUT (FORMAT csv)";

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// Copies `input` to the first host of the URL and back to `out`; returns the number of rows.
///
/// # Errors
/// Everything that ends it early. What had been written to `out` is not to be used.
pub(crate) fn run(url: &str, input: &mut dyn Read, out: &mut dyn Write) -> Result<u64, Box<dyn Error>> {
    let url = Url::parse(url)?;
    let mut socket: Box<dyn Stream> = match &url.hosts[0] {
        Host::Tcp { name, address, port } => {
            Box::new(TcpStream::connect((address.as_ref().unwrap_or(name).as_str(), *port))?)
        }
        Host::Unix { socket_path } => Box::new(UnixStream::connect(socket_path)?),
    };
    let mut connection = Connection::new(&url.session("postgres"), &[], Limits::DEFAULT);
    let (mut rows, mut is_copying_in, mut result) = (0, false, None);
    loop {
        // After each input: every event there is.
        while let Some(event) = connection.poll_event() {
            match event {
                Event::Ready => {
                    connection.simple_query("table", TABLE)?;
                    // The last for now: nothing may be queued behind it before its data.
                    connection.simple_query("in", IN)?;
                }
                Event::CopyIn { .. } => is_copying_in = true,
                Event::Done { ticket: "in", tag } => {
                    rows = tag.rows().unwrap_or(0);
                    connection.simple_query("out", OUT)?;
                }
                // A row that is longer than the inbox comes in pieces, one behind the other.
                Event::CopyData { bytes, .. } => out.write_all(bytes)?,
                Event::Done { ticket: "out", .. } => {
                    result = Some(Ok(rows));
                    connection.terminate();
                }
                Event::Failed { error, .. } => result = Some(Err(error.into())),
                Event::Aborted { .. } => connection.terminate(),
                Event::Closed { reason } => return result.unwrap_or_else(|| Err(reason.into())),
                _ => {}
            }
        }
        send(&mut connection, &mut *socket)?;
        if is_copying_in {
            // The server reads all of it, also when it has failed the COPY already, so this cannot stand still.
            is_copying_in = false;
            copy_in(&mut connection, &mut *socket, input)?;
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

/// Sends all of the input as data of the COPY, and its end. Input that cannot be read fails the COPY.
fn copy_in(
    connection: &mut Connection<&'static str>,
    socket: &mut dyn Stream,
    input: &mut dyn Read,
) -> Result<(), Box<dyn Error>> {
    let mut buffer = [0; 8192];
    loop {
        let read = match input.read(&mut buffer) {
            Ok(0) => connection.copy_done(),
            Ok(n) => {
                let mut rest = &buffer[..n];
                while !rest.is_empty() {
                    // As much as there is room for, which sending makes.
                    let taken = connection.copy_data(rest)?;
                    rest = &rest[taken..];
                    send(connection, socket)?;
                }
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => connection.copy_fail(&error.to_string()),
        };
        return read.map_err(|CopyEnded| CopyEnded.into());
    }
}

fn send(connection: &mut Connection<&'static str>, socket: &mut dyn Stream) -> io::Result<()> {
    while !connection.send_pending().is_empty() {
        let n = socket.write(connection.send_pending())?;
        connection.send_advance(n);
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("usage: copy postgresql://user:password@host/database <FILE")?;
    let rows = run(&url, &mut io::stdin(), &mut io::stdout())?;
    eprintln!("{rows} rows");
    Ok(())
}
