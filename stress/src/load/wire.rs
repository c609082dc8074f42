//! One kept connection of a client: it sends a request and waits for the whole answer.
//!
//! Format: RFC 9112, "HTTP/1.1"; every answer of the bank, and each of nginx's own, says its `Content-Length`.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A connection.
pub(super) struct Wire {
    stream: TcpStream,
    /// What was read and belongs to no answer yet.
    unread: Vec<u8>,
}

/// One answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Whether the connection ends with it.
    pub(super) is_last: bool,
    pub(super) body: Vec<u8>,
}

impl Wire {
    pub(super) fn connect(address: SocketAddr) -> io::Result<Wire> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Wire { stream, unread: Vec::new() })
    }

    /// The answer to a request.
    ///
    /// # Errors
    /// `TimedOut` when there is neither an answer nor an end of the connection within [`PATIENCE`]; `InvalidData` for what
    /// is not HTTP; any other kind when the connection ended.
    pub(super) fn ask(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.stream.write_all(request).map_err(as_timeout)?;
        let head = loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break self.unread.drain(..end + 4).collect::<Vec<u8>>();
            }
            self.read_some()?;
        };
        let (status, length, is_last) = parse(&head)
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "an answer that is not HTTP"))?;
        while self.unread.len() < length {
            self.read_some()?;
        }
        Ok(Answer { status, is_last, body: self.unread.drain(..length).collect() })
    }

    fn read_some(&mut self) -> io::Result<()> {
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    self.unread.extend_from_slice(&bytes[..n]);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(as_timeout(error)),
            }
        }
    }
}

/// The system calls it `WouldBlock` when a socket's timeout is over.
fn as_timeout(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::WouldBlock { ErrorKind::TimedOut.into() } else { error }
}

/// Status, length of the content, and whether the connection ends.
fn parse(head: &[u8]) -> Option<(u16, usize, bool)> {
    let head = str::from_utf8(head).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let fields = lines.filter_map(|line| line.split_once(": "));
    let value = |wanted: &str| {
        fields.clone().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
    };
    let length = value("Content-Length")?.parse().ok()?;
    Some((status, length, value("Connection") == Some("close")))
}

/// Longer than each deadline of the server: what takes that long is a hang.
const PATIENCE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_head_says() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\n";
        assert_eq!(parse(head), Some((200, 7, true)));
        assert_eq!(parse(b"HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n"), Some((503, 0, false)));
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\n\r\n"), None, "no length");
        assert_eq!(parse(b"SSH-2.0\r\n\r\n"), None);
    }
}
