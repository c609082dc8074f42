//! A session on an event loop: listens to a channel and prints what is notified. Nothing blocks but the wait for events.
//!
//! `cargo run -p proto-pg --example mio -- postgresql://user:password@localhost/database pets`

use mio::event::Source;
use mio::{Events, Interest, Poll, Token};
use proto_pg::{ChannelConfig, CloseReason, Connection, Event, Host, Limits, Statement, Url, Value, oid};
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

/// LISTEN takes no parameters, so a function quotes the name of the channel.
static LISTEN: [Statement<'static>; 1] =
    [Statement::new("quote", "SELECT format('LISTEN %I', $1)", &[oid::TEXT]).returning(&[oid::TEXT])];
/// A session that is silent for so long is asked whether it is still there.
const SILENCE_MAX: Duration = Duration::from_secs(30);

trait Stream: Read + Write + Source {}
impl<S: Read + Write + Source> Stream for S {}

/// Connects, which is the one thing here that waits; a loop with more to do would wait for the first writable event.
fn connect(host: &Host) -> io::Result<Box<dyn Stream>> {
    Ok(match host {
        Host::Tcp { name, address, port } => {
            let stream = std::net::TcpStream::connect((address.as_ref().unwrap_or(name).as_str(), *port))?;
            stream.set_nonblocking(true)?;
            Box::new(mio::net::TcpStream::from_std(stream))
        }
        Host::Unix { socket_path } => Box::new(mio::net::UnixStream::connect(socket_path)?),
    })
}

/// Listens until `say` returns false.
///
/// # Errors
/// Everything that ends it earlier.
pub(crate) fn run(
    url: &str,
    channel_name: &str,
    say: &mut dyn FnMut(String) -> bool,
) -> Result<(), Box<dyn Error>> {
    let url = Url::parse(url)?;
    let mut stream = connect(&url.hosts[0])?;
    let mut connection = Connection::new(&url.session("postgres"), &LISTEN, Limits::DEFAULT);
    let mut channel = ChannelConfig::new(&url, |path| std::fs::read(path))?.open(&url.hosts[0])?;
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(8));
    // Both for good: an edge sets a flag, and only WouldBlock takes it back.
    poll.registry().register(&mut stream, Token(0), Interest::READABLE | Interest::WRITABLE)?;
    let (mut is_readable, mut is_writable, mut is_leaving) = (true, true, false);
    let mut command = None;
    loop {
        // After each input: every event there is.
        while let Some(event) = connection.poll_event() {
            match event {
                Event::Ready => {
                    connection.call("quote", 0, &[Value::Text(channel_name)])?;
                    connection.sync();
                }
                Event::Row { row, .. } => command = Some(row.text(0)?.to_owned()),
                Event::Done { ticket: "listen", .. } => {
                    is_leaving |= !say(format!("listening to {channel_name}"));
                }
                Event::Notification { payload, .. } => is_leaving |= !say(payload),
                Event::Failed { error, .. } => return Err(error.into()),
                Event::Closed { .. } if is_leaving => return Ok(()),
                Event::Closed { reason } => return Err(reason.into()),
                _ => {}
            }
        }
        // Commands: the LISTEN once it is known, and the last word. Terminate is said once; again, it does nothing.
        if let Some(command) = command.take() {
            connection.simple_query("listen", &command)?;
        }
        if is_leaving {
            connection.terminate();
        }
        // What was received in one piece may come out of TLS in several.
        if channel.exchange(&mut connection) {
            continue;
        }
        while is_writable && !channel.send_pending(&connection).is_empty() {
            match stream.write(channel.send_pending(&connection)) {
                Ok(0) => connection.close(CloseReason::Transport(ErrorKind::WriteZero)),
                // What the socket took is told at once: it decides whether a batch is in doubt.
                Ok(n) => channel.send_advance(n, &mut connection),
                Err(error) if error.kind() == ErrorKind::WouldBlock => is_writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => connection.close(CloseReason::Transport(error.kind())),
            }
        }
        if is_readable && !connection.is_closing() {
            match stream.read(channel.recv_space(&mut connection)) {
                Ok(0) => connection.close(CloseReason::PeerClosed),
                Ok(n) => channel.recv_commit(n, &mut connection),
                Err(error) if error.kind() == ErrorKind::WouldBlock => is_readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => connection.close(CloseReason::Transport(error.kind())),
            }
        }
        if is_readable || connection.is_closing() {
            continue;
        }
        match poll.poll(&mut events, Some(SILENCE_MAX)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => result?,
        }
        for event in &events {
            is_readable |= event.is_readable() || event.is_read_closed();
            is_writable |= event.is_writable();
        }
        // The clock is the owner's: an empty batch asks, and one that is not answered ends the session.
        match (events.is_empty(), connection.is_ready() && connection.batches_in_flight() == 0) {
            (true, true) => connection.sync(),
            (true, false) => connection.close(CloseReason::TimedOut),
            (false, _) => {}
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(channel_name)) = (arguments.next(), arguments.next()) else {
        return Err("usage: mio postgresql://user:password@host/database CHANNEL".into());
    };
    run(&url, &channel_name, &mut |line| {
        println!("{line}");
        true
    })
}
