//! The HTTP client: connections that send a request and read its whole answer, and the reading of answers by itself.
//!
//! Format: RFC 9112, "HTTP/1.1"; every answer of the bank, and each of nginx's own, says its `Content-Length`.

use std::io::{self, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::ToSocketAddrs;
use std::time::Duration;

use httparse::Status;
use socket2::{Domain, SockAddr, Socket, Type};

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Such as 200.
    pub status: u16,
    /// Whether the connection ends with it.
    pub is_last: bool,
    /// Its content.
    pub body: Vec<u8>,
}

impl Answer {
    /// The answer at the start of `bytes`, and its length there; `None` while it is not whole.
    ///
    /// # Errors
    /// `InvalidData` for what is not HTTP, or does not say its length.
    pub fn read(bytes: &[u8]) -> io::Result<Option<(Answer, usize)>> {
        let Some(head) = Head::read(bytes)? else { return Ok(None) };
        let content_len = head.content_len.ok_or_else(|| invalid("an answer without a length"))?;
        let Some(body) = bytes[head.len..].get(..content_len) else { return Ok(None) };
        let answer = Answer { status: head.status, is_last: head.is_last, body: body.to_vec() };
        Ok(Some((answer, head.len + content_len)))
    }
}

struct Head {
    status: u16,
    is_last: bool,
    content_len: Option<usize>,
    len: usize,
}

impl Head {
    fn read(bytes: &[u8]) -> io::Result<Option<Head>> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut head = httparse::Response::new(&mut fields);
        let len = match head.parse(bytes) {
            Ok(Status::Complete(len)) => len,
            Ok(Status::Partial) => return Ok(None),
            Err(error) => return Err(invalid(&format!("not an answer in HTTP: {error}"))),
        };
        let field = |name: &str| {
            let mut fields = head.headers.iter();
            fields
                .find(|field| field.name.eq_ignore_ascii_case(name))
                .and_then(|it| str::from_utf8(it.value).ok())
        };
        Ok(Some(Head {
            status: head.code.unwrap_or(0),
            is_last: field("Connection") == Some("close"),
            content_len: field("Content-Length").and_then(|len| len.parse().ok()),
            len,
        }))
    }
}

/// A connection that is kept.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    /// What was read and belongs to no answer yet.
    unread: Vec<u8>,
}

impl Connection {
    /// Connects to `host:port`, or `unix:/path/to.sock`. Waits at most `patience` for that, and later for each read and write.
    ///
    /// # Errors
    /// When nothing accepts the connection.
    pub fn connect(address: &str, patience: Duration) -> io::Result<Connection> {
        let socket = match address.strip_prefix("unix:") {
            Some(path) => {
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                socket.connect(&SockAddr::unix(path)?)?;
                socket
            }
            None => connect_tcp(address, patience)?,
        };
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        Ok(Connection { socket, unread: Vec::new() })
    }

    /// The answer to a request.
    ///
    /// # Errors
    /// `TimedOut` when there is neither an answer nor an end of the connection in time; `InvalidData` for what is not HTTP;
    /// any other kind when the connection ended.
    pub fn ask(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.socket.write_all(request).map_err(as_timeout)?;
        let mut bytes = [0; 4096];
        loop {
            if let Some((answer, len)) = Answer::read(&self.unread)? {
                self.unread.drain(..len);
                return Ok(answer);
            }
            match self.socket.read(&mut bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.unread.extend_from_slice(&bytes[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(as_timeout(error)),
            }
        }
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
}

fn connect_tcp(address: &str, patience: Duration) -> io::Result<Socket> {
    let mut failure = io::Error::from(ErrorKind::AddrNotAvailable);
    for resolved in address.to_socket_addrs()? {
        let socket = Socket::new(Domain::for_address(resolved), Type::STREAM, None)?;
        match socket.connect_timeout(&resolved.into(), patience) {
            Ok(()) => {
                socket.set_tcp_nodelay(true)?;
                return Ok(socket);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// The status of `GET path`, as [`get`] has it, with a second for each wait.
///
/// # Errors
/// As [`get`].
pub fn get_status(address: &str, path: &str) -> io::Result<u16> {
    get(address, path, STATUS_TIMEOUT).map(|(status, _content)| status)
}

/// Status and content of `GET target` over a new connection, as [`Connection::connect`] has it; at most 16 MiB. Of version
/// 1.0, so that the end of the connection is the end of the content: services of others do not all say its length.
///
/// # Errors
/// When nothing accepts the connection or the answer is not HTTP.
pub fn get(address: &str, target: &str, timeout: Duration) -> io::Result<(u16, String)> {
    let mut socket = Connection::connect(address, timeout)?.socket;
    // In one write: a service that answers early and closes would reset a connection whose request is half sent.
    socket.write_all(format!("GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut bytes = Vec::new();
    socket.take(ANSWER_MAX_BYTES).read_to_end(&mut bytes)?;
    let head = Head::read(&bytes)?.ok_or_else(|| invalid("half an answer in HTTP"))?;
    Ok((head.status, String::from_utf8_lossy(&bytes[head.len..]).into_owned()))
}

/// The system calls it `WouldBlock` when a socket's timeout is over.
fn as_timeout(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::WouldBlock { ErrorKind::TimedOut.into() } else { error }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

const STATUS_TIMEOUT: Duration = Duration::from_secs(1);
const ANSWER_MAX_BYTES: u64 = 16 << 20;
const FIELDS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::io::BufRead;
    use std::io::BufReader;
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn an_answer_is_read_from_its_last_byte_on() {
        let bytes = b"HTTP/1.1 503 x\r\ncontent-length: 2\r\nConnection: close\r\n\r\n{}";
        let answer = Answer { status: 503, is_last: true, body: b"{}".to_vec() };
        assert_eq!(Answer::read(&[&bytes[..], b"HTTP"].concat()).unwrap(), Some((answer, bytes.len())));
        for len in 0..bytes.len() {
            assert_eq!(Answer::read(&bytes[..len]).unwrap(), None, "{len} bytes");
        }
        assert!(Answer::read(b"HTTP/1.1 200 OK\r\n\r\n").is_err(), "no length");
        assert!(Answer::read(b"SSH-2.0\r\n\r\n").is_err());
    }

    /// A service that answers one request so, and closes.
    fn service(answer: &'static str) -> (String, thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let service = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                request.read_line(&mut line).unwrap();
            }
            stream.write_all(answer.as_bytes()).unwrap();
        });
        (address, service)
    }

    fn answer_of(answer: &'static str) -> io::Result<(u16, String)> {
        let (address, service) = service(answer);
        let answer = get(&address, "/healthz", STATUS_TIMEOUT);
        service.join().unwrap();
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
