//! Step 6: the echo with deadlines: a client that neither sends nor reads for a while has to leave.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(0);
const OUTBOX_MAX_BYTES: usize = 64 * 1024;

struct Client {
    stream: TcpStream,
    /// Bytes that the socket has not taken yet. At most `OUTBOX_MAX_BYTES` and one read.
    outbox: Vec<u8>,
    /// The client sends nothing more. It may still read.
    is_ended: bool,
    /// When it has to leave, unless an event of it comes before.
    deadline: Instant,
}

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".into());
    let address = address.parse().map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
    let mut listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(64);
    let mut clients: HashMap<Token, Client> = HashMap::new();
    let mut next_token = LISTENER.0 + 1;
    let idle_ms = std::env::var("IDLE_MS").ok().and_then(|text| text.parse().ok()).unwrap_or(60_000);
    let idle = Duration::from_millis(idle_ms);
    // ANCHOR: wait
    // The deadlines of all clients, the nearest one first.
    let mut timers: BTreeSet<(Instant, Token)> = BTreeSet::new();
    loop {
        let before_poll = Instant::now();
        let timeout = timers.first().map(|(deadline, _)| deadline.saturating_duration_since(before_poll));
        match poll.poll(&mut events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        // ANCHOR_END: wait
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    let token = Token(next_token);
                    next_token += 1;
                    poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
                    let deadline = Instant::now() + idle;
                    timers.insert((deadline, token));
                    clients.insert(token, Client { stream, outbox: Vec::new(), is_ended: false, deadline });
                }
            } else if let Some(client) = clients.get_mut(&event.token()) {
                // ANCHOR: renew
                timers.remove(&(client.deadline, event.token()));
                if advance(client).unwrap_or(false) {
                    client.deadline = Instant::now() + idle;
                    timers.insert((client.deadline, event.token()));
                } else {
                    clients.remove(&event.token());
                }
                // ANCHOR_END: renew
            }
        }
        // ANCHOR: expire
        // Only deadlines that had passed before the poll: it has reported what arrived in time.
        while let Some((deadline, token)) = timers.first().copied()
            && deadline <= before_poll
        {
            timers.remove(&(deadline, token));
            clients.remove(&token);
        }
        // ANCHOR_END: expire
    }
}

/// Writes and reads until neither is possible now. Returns whether the client stays.
fn advance(client: &mut Client) -> io::Result<bool> {
    let mut bytes = [0; 4096];
    loop {
        flush(client)?;
        if client.is_ended {
            return Ok(!client.outbox.is_empty());
        }
        if client.outbox.len() >= OUTBOX_MAX_BYTES {
            // Its bytes stay in the kernel, whose buffer fills up, and then the client cannot send any more. When it
            // reads, a writable edge leads back here.
            return Ok(true);
        }
        match client.stream.read(&mut bytes) {
            Ok(0) => client.is_ended = true,
            Ok(n) => client.outbox.extend_from_slice(&bytes[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        }
    }
}

/// Writes until the outbox is empty or the socket takes no more.
fn flush(client: &mut Client) -> io::Result<()> {
    while !client.outbox.is_empty() {
        match client.stream.write(&client.outbox) {
            // A short write: what was taken goes, the rest stays.
            Ok(n) => drop(client.outbox.drain(..n)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
