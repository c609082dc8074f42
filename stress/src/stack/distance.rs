//! Distance between hosts: a proxy that hands on what it reads some time later. `tc netem` is not in every kernel.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{SockAddr, Socket, Type};

use crate::Error;

/// Takes connections at `listen` for as long as this process lives, each to `target`; bytes take `delay` in each direction.
/// Gives where it listens. Both may be addresses of TCP or of Unix sockets.
pub(crate) fn put_between(listen: &SockAddr, target: &SockAddr, delay: Duration) -> Result<SockAddr, Error> {
    let bind = || -> io::Result<(SockAddr, Socket)> {
        let listener = Socket::new(listen.domain(), Type::STREAM, None)?;
        listener.set_reuse_address(true)?;
        listener.bind(listen)?;
        listener.listen(BACKLOG)?;
        Ok((listener.local_addr()?, listener))
    };
    let (address, listener) = bind().map_err(Error::io("listen in place of a distant database"))?;
    let target = target.clone();
    thread::spawn(move || {
        loop {
            let Ok((near, _)) = listener.accept() else { continue };
            let target = target.clone();
            // A target that is away keeps nobody else waiting.
            thread::spawn(move || relay(near, &target, delay));
        }
    });
    Ok(address)
}

/// An error drops both ends, which closes the connection.
fn relay(near: Socket, target: &SockAddr, delay: Duration) -> io::Result<()> {
    let far = Socket::new(target.domain(), Type::STREAM, None)?;
    far.connect(target)?;
    for end in [&near, &far] {
        // Unix sockets hold nothing back, and refuse it.
        let _ = end.set_tcp_nodelay(true);
    }
    carry(near.try_clone()?, far.try_clone()?, delay);
    carry(far, near, delay);
    Ok(())
}

/// One direction, in two threads: a slow reader must not delay what is behind it twice.
fn carry(from: Socket, to: Socket, delay: Duration) {
    let (sender, receiver) = mpsc::sync_channel(CHUNKS_MAX);
    thread::spawn(move || take(from, &sender));
    thread::spawn(move || give(to, &receiver, delay));
}

fn take(mut from: Socket, sender: &SyncSender<(Instant, Vec<u8>)>) {
    let mut bytes = vec![0; CHUNK_LEN_MAX_BYTES];
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        if sender.send((Instant::now(), bytes[..len].to_vec())).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Read);
}

fn give(mut to: Socket, receiver: &Receiver<(Instant, Vec<u8>)>, delay: Duration) {
    for (read_at, bytes) in receiver {
        thread::sleep((read_at + delay).saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

const BACKLOG: i32 = 128;
const CHUNK_LEN_MAX_BYTES: usize = 64 * 1024;
/// Then the reader waits, and with it the sender.
const CHUNKS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn bytes_arrive_later_in_both_directions_and_so_does_the_end() {
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let delay = Duration::from_millis(20);
        let address = target.local_addr().unwrap();
        let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
        let listen = put_between(&any.into(), &address.into(), delay).unwrap().as_socket().unwrap();
        let echo = thread::spawn(move || {
            let (mut stream, _) = target.accept().unwrap();
            let mut told = Vec::new();
            stream.read_to_end(&mut told).unwrap();
            stream.write_all(&told).unwrap();
        });
        let begun = Instant::now();
        let mut client = TcpStream::connect(listen).unwrap();
        let sent: Vec<u8> = (0..200_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        client.write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut back = Vec::new();
        client.read_to_end(&mut back).unwrap();
        assert_eq!(back, sent);
        // Never sooner: how much later is the machine's business.
        assert!(begun.elapsed() >= 2 * delay);
        echo.join().unwrap();
    }
}
