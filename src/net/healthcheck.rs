//! SHELL: `rinha --healthcheck`: asks a running instance for its health, for container health checks.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::ToSocketAddrs as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use socket2::{SockAddr, Socket, Type};

use crate::config::Address;

/// How long connecting, sending and receiving may take together.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks the instance that listens on `address` for `/healthz`.
///
/// # Errors
/// One line that says why the instance is not healthy.
pub fn check(address: &Address) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    match connect(address, deadline).and_then(|socket| ask(&socket, deadline)) {
        Ok(answer) if answer.starts_with(b"HTTP/1.1 200 ") => Ok(()),
        Ok(answer) => {
            let answer = String::from_utf8_lossy(&answer);
            Err(format!("not healthy: {}", answer.lines().next().unwrap_or("no answer")))
        }
        // What a timeout of a socket is, in either form.
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Err(format!("the instance at {address} gives no answer within {PATIENCE:?}"))
        }
        Err(error) => Err(format!("cannot ask the instance at {address}: {error}")),
    }
}

/// Connects to the first address of a name that takes a connection: the instance may have left some of them out.
fn connect(address: &Address, deadline: Instant) -> io::Result<Socket> {
    let address = match address {
        Address::Unix(path) => return connect_unix(&SockAddr::unix(path)?, deadline),
        Address::Tcp(address) => reachable(address),
    };
    let mut problem = io::Error::from(ErrorKind::AddrNotAvailable);
    for address in address.to_socket_addrs()?.map(SockAddr::from) {
        let socket = Socket::new(address.domain(), Type::STREAM, None)?;
        match socket.connect_timeout(&address, remaining(deadline)?) {
            Ok(()) => return Ok(socket),
            Err(error) => problem = error,
        }
    }
    Err(problem)
}

/// Connects to a Unix socket. While its backlog is full, a blocking call would wait without a limit.
fn connect_unix(address: &SockAddr, deadline: Instant) -> io::Result<Socket> {
    let socket = Socket::new(address.domain(), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    while let Err(error) = socket.connect(address) {
        if error.kind() != ErrorKind::WouldBlock {
            return Err(error);
        }
        sleep(remaining(deadline)?.min(BACKLOG_WAIT));
    }
    socket.set_nonblocking(false)?;
    Ok(socket)
}

fn ask(mut socket: &Socket, deadline: Instant) -> io::Result<Vec<u8>> {
    socket.set_write_timeout(Some(remaining(deadline)?))?;
    socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = vec![0; ANSWER_LEN_MAX_BYTES];
    let mut len_bytes = 0;
    while len_bytes < answer.len() {
        socket.set_read_timeout(Some(remaining(deadline)?))?;
        match socket.read(&mut answer[len_bytes..])? {
            0 => break,
            n => len_bytes += n,
        }
    }
    answer.truncate(len_bytes);
    Ok(answer)
}

/// How long is left.
///
/// # Errors
/// No time is left.
fn remaining(deadline: Instant) -> io::Result<Duration> {
    let remaining = deadline.saturating_duration_since(Instant::now());
    if remaining.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(remaining) }
}

/// At most this much of the answer is read. An answer about health is shorter.
const ANSWER_LEN_MAX_BYTES: usize = 4_096;

/// No event tells when a backlog has room again.
const BACKLOG_WAIT: Duration = Duration::from_millis(10);

/// An instance that listens on every address is reached on the loopback one.
fn reachable(address: &str) -> String {
    match address.rsplit_once(':') {
        Some(("0.0.0.0", port)) => format!("127.0.0.1:{port}"),
        Some(("[::]", port)) => format!("[::1]:{port}"),
        Some(_) | None => address.to_owned(),
    }
}
