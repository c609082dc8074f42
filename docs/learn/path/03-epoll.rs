//! Step 3: the same echo with `epoll`, level-triggered: the kernel keeps the list.

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
    // ANCHOR: loop
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
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
                if let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    // Once in the life of a client.
                    epoll::add(&epoll, &stream, EventData::new_u64(next_token), EventFlags::IN)?;
                    clients.insert(next_token, stream);
                    next_token += 1;
                }
            } else if let Some(client) = clients.get_mut(&token)
                && !echo(client)
            {
                // Closes the socket, and that removes it from the kernel's list.
                clients.remove(&token);
            }
        }
    }
    // ANCHOR_END: loop
}

/// Returns whether the client stays.
fn echo(client: &mut TcpStream) -> bool {
    let mut bytes = [0; 4096];
    match client.read(&mut bytes) {
        Ok(0) => false,
        Ok(n) => client.write_all(&bytes[..n]).is_ok(),
        // Not now: an event will tell.
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}
