//! SHELL: `rinha --healthcheck`: asks a running instance for its health, for container health checks.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::config::Address;

/// How long connecting, sending and receiving may each take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks the instance that listens on `address` for `/healthz`.
///
/// # Errors
/// One line that says why the instance is not healthy.
pub fn check(address: &Address) -> Result<(), String> {
    let answer = match address {
        Address::Unix(path) => UnixStream::connect(path).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            ask(stream)
        }),
        Address::Tcp(address) => connect(&reachable(address)).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            ask(stream)
        }),
    };
    match answer {
        Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => Ok(()),
        Ok(answer) => Err(format!("not healthy: {}", answer.lines().next().unwrap_or("no answer"))),
        // What a timeout of a socket is, in either form.
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Err(format!("the instance at {address} gives no answer within {PATIENCE:?}"))
        }
        Err(error) => Err(format!("cannot ask the instance at {address}: {error}")),
    }
}

/// Connects to the first address of a name that takes a connection: the instance may have left some of them out.
fn connect(address: &str) -> io::Result<TcpStream> {
    let mut problem = io::Error::from(ErrorKind::AddrNotAvailable);
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => problem = error,
        }
    }
    Err(problem)
}

fn ask(mut stream: impl Read + Write) -> io::Result<String> {
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_LEN_MAX_BYTES).read_to_string(&mut answer)?;
    Ok(answer)
}

/// At most this much of the answer is read. An answer about health is shorter.
const ANSWER_LEN_MAX_BYTES: u64 = 4_096;

/// An instance that listens on every address is reached on the loopback one.
fn reachable(address: &str) -> String {
    match address.rsplit_once(':') {
        Some(("0.0.0.0", port)) => format!("127.0.0.1:{port}"),
        Some(("[::]", port)) => format!("[::1]:{port}"),
        Some(_) | None => address.to_owned(),
    }
}
