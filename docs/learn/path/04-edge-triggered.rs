//! Step 4: the same echo with `epoll`, edge-triggered: one event for each arrival, so everything is done until `EAGAIN`.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

/// What comes back in the listener's events; clients count from 1, and no number is used twice.
const LISTENER: u64 = 0;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".into());
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    println!("listening on {}", listener.local_addr()?);
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN | EventFlags::ET)?;
    let mut clients: HashMap<u64, TcpStream> = HashMap::new();
    let mut next_token = LISTENER + 1;
    let mut events = Vec::with_capacity(64);
    loop {
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Err(Errno::INTR) => continue,
            result => result?,
        };
        for event in events.drain(..) {
            let token = event.data.u64();
            if token == LISTENER {
                // ANCHOR: accept
                // One edge may stand for many connections: accept until `accept` would block.
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    let interest = EventFlags::IN | EventFlags::ET;
                    epoll::add(&epoll, &stream, EventData::new_u64(next_token), interest)?;
                    clients.insert(next_token, stream);
                    next_token += 1;
                }
                // ANCHOR_END: accept
            } else if let Some(client) = clients.get_mut(&token)
                && !echo(client)
            {
                // Closes the socket, and that removes it from the kernel's list.
                clients.remove(&token);
            }
        }
    }
}

// ANCHOR: echo
/// Returns whether the client stays.
fn echo(client: &mut TcpStream) -> bool {
    let mut bytes = [0; 4096];
    loop {
        match client.read(&mut bytes) {
            Ok(0) => return false,
            // There may be more, and no event will tell.
            Ok(n) => {
                if client.write_all(&bytes[..n]).is_err() {
                    return false;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Empty: from here on, the next byte raises an edge.
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}
// ANCHOR_END: echo
