//! Distance between hosts: a proxy that hands on what it reads some time later. `tc netem` is not in every kernel.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use crate::Error;

/// Takes connections at `listen` for as long as this process lives, each to `target`; bytes take `delay` in each direction.
/// Gives where it listens.
pub(crate) fn put_between(listen: &str, target: &str, delay: Duration) -> Result<SocketAddr, Error> {
    let bound = TcpListener::bind(listen).and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, listener) = bound.map_err(Error::io(format!("listen on {listen}")))?;
    let target = target.to_owned();
    let of = |stream: TcpStream| {
        let _ = stream.set_nodelay(true);
        stream.into()
    };
    relay(
        move || listener.accept().map(|(near, _)| of(near)),
        move || TcpStream::connect(&target).map(of),
        delay,
    );
    Ok(address)
}

pub(crate) fn put_between_sockets(listen: &Path, target: &Path, delay: Duration) -> Result<(), Error> {
    let listener =
        UnixListener::bind(listen).map_err(Error::io(format!("listen on {}", listen.display())))?;
    let target = target.to_owned();
    let accept = move || listener.accept().map(|(near, _)| near.into());
    relay(accept, move || UnixStream::connect(&target).map(OwnedFd::from), delay);
    Ok(())
}

fn relay(
    accept: impl Fn() -> io::Result<OwnedFd> + Send + 'static,
    connect: impl Fn() -> io::Result<OwnedFd> + Send + Clone + 'static,
    delay: Duration,
) {
    thread::spawn(move || {
        loop {
            let Ok(near) = accept() else { continue };
            let connect = connect.clone();
            // A target that is away keeps nobody else waiting.
            thread::spawn(move || {
                let Ok(far) = connect() else { return };
                // Any stream socket: of it, only reading, writing and shutting down is asked.
                let (near, far) = (UnixStream::from(near), UnixStream::from(far));
                // Without descriptors both ends are dropped, which closes the connection.
                let Ok((near_reader, far_reader)) =
                    near.try_clone().and_then(|it| Ok((it, far.try_clone()?)))
                else {
                    return;
                };
                carry(near_reader, far, delay);
                carry(far_reader, near, delay);
            });
        }
    });
}

/// One direction, in two threads: a slow reader must not delay what is behind it twice.
fn carry(from: UnixStream, to: UnixStream, delay: Duration) {
    let (sender, receiver) = mpsc::sync_channel(CHUNKS_MAX);
    thread::spawn(move || take(from, &sender));
    thread::spawn(move || give(to, &receiver, delay));
}

fn take(mut from: UnixStream, sender: &SyncSender<(Instant, Vec<u8>)>) {
    let mut bytes = vec![0; CHUNK_LEN_MAX_BYTES];
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        if sender.send((Instant::now(), bytes[..len].to_vec())).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Read);
}

fn give(mut to: UnixStream, receiver: &Receiver<(Instant, Vec<u8>)>, delay: Duration) {
    for (read_at, bytes) in receiver {
        thread::sleep((read_at + delay).saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

const CHUNK_LEN_MAX_BYTES: usize = 64 * 1024;
/// Then the reader waits, and with it the sender.
const CHUNKS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_later_in_both_directions_and_so_does_the_end() {
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let delay = Duration::from_millis(20);
        let address = target.local_addr().unwrap().to_string();
        let listen = put_between("127.0.0.1:0", &address, delay).unwrap();
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
