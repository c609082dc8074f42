//! Step 2: the same echo in one thread: `poll` tells which of the sockets have something.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".into());
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    println!("listening on {}", listener.local_addr()?);
    let mut clients: Vec<TcpStream> = Vec::new();
    // ANCHOR: loop
    loop {
        // The list of questions, made anew each time: the listener first, then every client.
        let mut list = vec![PollFd::new(&listener, PollFlags::IN)];
        list.extend(clients.iter().map(|client| PollFd::new(client, PollFlags::IN)));
        // The only place where this program sleeps.
        match poll(&mut list, None) {
            Err(Errno::INTR) => continue,
            result => result?,
        };
        let ready: Vec<bool> = list.iter().map(|entry| !entry.revents().is_empty()).collect();

        let mut position = 0;
        clients.retain_mut(|client| {
            position += 1;
            !ready[position] || echo(client)
        });
        if ready[0]
            && let Ok((stream, _)) = listener.accept()
        {
            stream.set_nonblocking(true)?;
            clients.push(stream);
        }
    }
    // ANCHOR_END: loop
}

// ANCHOR: echo
/// Returns whether the client stays.
fn echo(client: &mut TcpStream) -> bool {
    let mut bytes = [0; 4096];
    match client.read(&mut bytes) {
        Ok(0) => false,
        Ok(n) => client.write_all(&bytes[..n]).is_ok(),
        // Not now: `poll` will tell.
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}
// ANCHOR_END: echo
