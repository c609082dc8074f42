//! What step 5 mends in its own first version: an outbox without a limit, which a client can fill until memory ends.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(0);

struct Client {
    stream: TcpStream,
    /// Bytes that the socket has not taken yet.
    outbox: Vec<u8>,
    /// The client sends nothing more. It may still read.
    is_ended: bool,
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
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    let token = Token(next_token);
                    next_token += 1;
                    poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
                    clients.insert(token, Client { stream, outbox: Vec::new(), is_ended: false });
                }
            } else if let Some(client) = clients.get_mut(&event.token())
                && !advance(client).unwrap_or(false)
            {
                clients.remove(&event.token());
            }
        }
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
