//! One GET over a new connection: the question whether a service answers.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The status of `GET path` at `address`: `host:port`, or `unix:/path/to.sock`. Waits at most one second for each of
/// connect, write and read.
///
/// # Errors
/// When nothing accepts the connection or the answer is not HTTP.
pub fn get_status(address: &str, path: &str) -> io::Result<u16> {
    if let Some(socket) = address.strip_prefix("unix:") {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        return ask(stream, path);
    }
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for resolved in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&resolved, TIMEOUT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                return ask(stream, path);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Format: RFC 9112, "HTTP/1.1", sections Request Line and Status Line.
fn ask(mut stream: impl Read + Write, path: &str) -> io::Result<u16> {
    // In one write: a service that answers early and closes would reset a connection whose request is half sent.
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut status_line = String::new();
    BufReader::new(stream).take(STATUS_LINE_MAX_BYTES).read_line(&mut status_line)?;
    let status = status_line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    status.and_then(|digits| digits.parse().ok()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("not a status line: {status_line:?}"))
    })
}

const TIMEOUT: Duration = Duration::from_secs(1);
const STATUS_LINE_MAX_BYTES: u64 = 1024;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn answer_of(answer: &'static str) -> io::Result<u16> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                request.read_line(&mut line).unwrap();
            }
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let status = get_status(&address, "/healthz");
        server.join().unwrap();
        status
    }

    #[test]
    fn reads_the_status() {
        assert_eq!(answer_of("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap(), 200);
        assert_eq!(answer_of("HTTP/1.1 503 Service Unavailable\r\n\r\n").unwrap(), 503);
    }

    #[test]
    fn refuses_what_is_not_http() {
        assert!(answer_of("SSH-2.0-OpenSSH\r\n").is_err());
        assert!(answer_of("").is_err());
    }
}
