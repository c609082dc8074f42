//! The HTTP client of the bench and of all tests: a connection that sends bytes and reads whole answers.
//!
//! Format: RFC 9112, "HTTP/1.1"; every answer of the bank, and each of nginx's own, says its `Content-Length`.

use std::io::{self, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use httparse::Status;
use socket2::Socket;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub minor_version: u8,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// An answer and its length, once it is whole.
type Whole = io::Result<Option<(Answer, usize)>>;

impl Answer {
    /// The answer at the start of `bytes`, and its length there; `None` while it is not whole.
    pub fn read(bytes: &[u8]) -> Whole {
        let Some((mut answer, head_len)) = Answer::read_head(bytes)? else { return Ok(None) };
        let content_len = match (answer.status, answer.content_length()) {
            // An interim answer has no content (RFC 9110, section 15.2).
            (100..200, _) => 0,
            (_, Some(len)) => len,
            (_, None) => return Err(invalid("an answer without a length")),
        };
        let Some(body) = bytes[head_len..].get(..content_len) else { return Ok(None) };
        answer.body = body.to_vec();
        Ok(Some((answer, head_len + content_len)))
    }

    /// The same without its content, of which nothing may be there.
    fn read_head(bytes: &[u8]) -> Whole {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut head = httparse::Response::new(&mut fields);
        let len = match head.parse(bytes) {
            Ok(Status::Complete(len)) => len,
            Ok(Status::Partial) => return Ok(None),
            Err(error) => return Err(invalid(&format!("not an answer in HTTP: {error}"))),
        };
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let answer = Answer {
            status: head.code.unwrap_or(0),
            minor_version: head.version.unwrap_or(0),
            fields: head.headers.iter().map(|field| (field.name.to_owned(), text(field.value))).collect(),
            body: Vec::new(),
        };
        Ok(Some((answer, len)))
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn content_length(&self) -> Option<usize> {
        self.field("Content-Length")?.parse().ok()
    }

    pub fn is_last(&self) -> bool {
        self.field("Connection") == Some("close")
    }
}

#[derive(Debug)]
pub struct Connection {
    pub socket: Socket,
    /// What was read and belongs to no answer yet.
    pub unread: Vec<u8>,
}

impl Connection {
    /// Connects to `host:port`, or `unix:/path/to.sock`. Waits at most `patience` for that, and later for each read and write.
    pub fn connect(address: &str, patience: Duration) -> io::Result<Connection> {
        let socket = match address.strip_prefix("unix:") {
            Some(path) => OwnedFd::from(UnixStream::connect(path)?).into(),
            None => connect_tcp(address, patience)?,
        };
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        Ok(Connection { socket, unread: Vec::new() })
    }

    pub fn clone_sender(&self) -> io::Result<Connection> {
        Ok(Connection { socket: self.socket.try_clone()?, unread: Vec::new() })
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).map_err(as_timeout)
    }

    /// The next answer. Its error is `TimedOut` when there is neither an answer nor an end of the connection in time,
    /// `InvalidData` for what is not HTTP, and any other kind when the connection ended.
    pub fn receive(&mut self) -> io::Result<Answer> {
        self.receive_as(Answer::read)
    }

    pub fn receive_head(&mut self) -> io::Result<Answer> {
        self.receive_as(Answer::read_head)
    }

    pub fn ask(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.send(request)?;
        self.receive()
    }

    /// All up to the end of the connection, or to the error that ended it.
    pub fn receive_rest(&mut self) -> (Vec<u8>, io::Result<()>) {
        let ended = loop {
            match self.receive_some() {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        (std::mem::take(&mut self.unread), ended)
    }

    /// Whether the other side has closed it already, or sent what nobody asked for.
    pub fn is_closed(&self) -> bool {
        let peeked = self
            .socket
            .set_nonblocking(true)
            .and_then(|()| self.socket.peek(&mut [MaybeUninit::uninit()]).map(|_| true));
        let is_open = matches!(&peeked, Err(error) if error.kind() == ErrorKind::WouldBlock);
        self.socket.set_nonblocking(false).is_err() || !is_open
    }

    fn receive_as(&mut self, read: fn(&[u8]) -> Whole) -> io::Result<Answer> {
        loop {
            if let Some((answer, len)) = read(&self.unread)? {
                self.unread.drain(..len);
                return Ok(answer);
            }
            self.receive_some()?;
        }
    }

    fn receive_some(&mut self) -> io::Result<()> {
        let mut bytes = [0; 16 * 1024];
        loop {
            match self.socket.read(&mut bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    self.unread.extend_from_slice(&bytes[..n]);
                    return Ok(());
                }
                // A child of this process may end at any time, and its signal says nothing about the connection.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(as_timeout(error)),
            }
        }
    }
}

fn connect_tcp(address: &str, patience: Duration) -> io::Result<Socket> {
    let mut failure = io::Error::from(ErrorKind::AddrNotAvailable);
    for resolved in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&resolved, patience) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream.into());
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// The status of `GET path`, as [`get`] has it, with a second for each wait.
pub fn get_status(address: &str, path: &str) -> io::Result<u16> {
    get(address, path, STATUS_TIMEOUT).map(|(status, _content)| status)
}

/// Status and content of `GET target` over a new connection, as [`Connection::connect`] has it. Of version 1.0, so that the
/// end of the connection is the end of the content: services of others do not all say its length.
pub fn get(address: &str, target: &str, timeout: Duration) -> io::Result<(u16, String)> {
    let mut connection = Connection::connect(address, timeout)?;
    // In one write: a service that answers early and closes would reset a connection whose request is half sent.
    connection.send(format!("GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let answer = connection.receive_head()?;
    let (content, ended) = connection.receive_rest();
    ended.map(|()| (answer.status, String::from_utf8_lossy(&content).into_owned()))
}

/// The system calls it `WouldBlock` when a socket's timeout is over.
fn as_timeout(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::WouldBlock { ErrorKind::TimedOut.into() } else { error }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

const STATUS_TIMEOUT: Duration = Duration::from_secs(1);
const FIELDS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn an_answer_is_read_from_its_last_byte_on() {
        let bytes = b"HTTP/1.1 503 x\r\ncontent-length: 2\r\nConnection: close\r\n\r\n{}";
        let (answer, len) = Answer::read(&[&bytes[..], b"HTTP"].concat()).unwrap().unwrap();
        assert_eq!((answer.status, answer.is_last(), len), (503, true, bytes.len()));
        assert_eq!(answer.body, b"{}");
        for len in 0..bytes.len() {
            assert_eq!(Answer::read(&bytes[..len]).unwrap(), None, "{len} bytes");
        }
        let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
        assert_eq!(Answer::read(interim).unwrap().map(|(_, len)| len), Some(interim.len()));
        assert!(Answer::read(b"HTTP/1.1 200 OK\r\n\r\n").is_err(), "no length");
        assert!(Answer::read(b"SSH-2.0\r\n\r\n").is_err());
    }

    /// A service that answers one request so, and closes.
    fn service(answer: &'static str) -> (String, thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let service = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            stream.write_all(answer.as_bytes()).unwrap();
        });
        (address, service)
    }

    #[test]
    fn content_ends_with_the_connection_and_other_protocols_are_refused() {
        for (answer, told) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\r\nb\n", Some((200, "\r\nb\n".to_owned()))),
            ("HTTP/1.0 503 Service Unavailable\r\n\r\n", Some((503, String::new()))),
            ("SSH-2.0-OpenSSH\r\n", None),
            ("", None),
        ] {
            let (address, service) = service(answer);
            assert_eq!(get(&address, "/healthz", STATUS_TIMEOUT).ok(), told, "{answer}");
            service.join().unwrap();
        }
    }

    #[test]
    fn a_connection_knows_when_it_was_closed() {
        let (address, service) = service("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let mut connection = Connection::connect(&address, STATUS_TIMEOUT).unwrap();
        assert!(!connection.is_closed());
        assert_eq!(connection.ask(b"GET / HTTP/1.1\r\n\r\n").unwrap().status, 200);
        service.join().unwrap();
        assert!(connection.is_closed());
        assert!(connection.ask(b"GET / HTTP/1.1\r\n\r\n").is_err());
    }
}
