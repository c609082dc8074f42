//! One GET over a new connection: whether a service answers, and what.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The status of `GET path`, as [`get`] has it, with a second for each wait.
///
/// # Errors
/// As [`get`].
pub fn get_status(address: &str, path: &str) -> io::Result<u16> {
    get(address, path, STATUS_TIMEOUT).map(|(status, _content)| status)
}

/// Status and content of `GET target` at `address`: `host:port`, or `unix:/path/to.sock`. Waits at most `timeout` for
/// connect, for the write and for each read, and takes at most 16 MiB.
///
/// # Errors
/// When nothing accepts the connection or the answer is not HTTP.
pub fn get(address: &str, target: &str, timeout: Duration) -> io::Result<(u16, String)> {
    if let Some(socket) = address.strip_prefix("unix:") {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        return ask(stream, target);
    }
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for resolved in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&resolved, timeout) {
            Ok(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                return ask(stream, target);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Format: RFC 9112, "HTTP/1.1", sections Request Line and Status Line; of version 1.0, so that the end of the connection
/// is the end of the content.
fn ask(mut stream: impl Read + Write, target: &str) -> io::Result<(u16, String)> {
    // In one write: a service that answers early and closes would reset a connection whose request is half sent.
    stream.write_all(format!("GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX_BYTES).read_to_string(&mut answer)?;
    let parts = answer.split_once("\r\n\r\n").and_then(|(head, content)| {
        let status = head.strip_prefix("HTTP/1.")?.get(2..5)?;
        Some((status.parse().ok()?, content.to_owned()))
    });
    parts.ok_or_else(|| {
        let line = answer.lines().next().unwrap_or_default();
        io::Error::new(io::ErrorKind::InvalidData, format!("not an answer in HTTP: {line:?}"))
    })
}

const STATUS_TIMEOUT: Duration = Duration::from_secs(1);
const ANSWER_MAX_BYTES: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn answer_of(answer: &'static str) -> io::Result<(u16, String)> {
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
        let answer = get(&address, "/healthz", STATUS_TIMEOUT);
        server.join().unwrap();
        answer
    }

    #[test]
    fn reads_status_and_content() {
        let answer = answer_of("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\na\r\n\r\nb\n").unwrap();
        assert_eq!(answer, (200, "a\r\n\r\nb\n".to_owned()));
        assert_eq!(answer_of("HTTP/1.0 503 Service Unavailable\r\n\r\n").unwrap(), (503, String::new()));
    }

    #[test]
    fn refuses_what_is_not_http() {
        assert!(answer_of("SSH-2.0-OpenSSH\r\n").is_err());
        assert!(answer_of("").is_err());
    }
}
