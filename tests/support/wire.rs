//! An HTTP client that sends arbitrary bytes and reads exactly one answer. Each answer that it reads is checked for
//! what every answer has to have.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime};

use serde_json::Value;

/// No answer takes that long; what does is a hang, and fails its test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A request with the field `Host`, and `Content-Length` if there is a body.
pub(crate) fn request(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{length}\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A GET.
pub(crate) fn get(path: &str) -> Vec<u8> {
    request("GET", path, b"")
}

/// A POST. It says its length also when that is 0.
pub(crate) fn post(path: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut bytes =
        format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// The POST of one transaction.
pub(crate) fn transaction(account: i32, value: i64, kind: &str, description: &str) -> Vec<u8> {
    let body = serde_json::json!({"valor": value, "tipo": kind, "descricao": description});
    post(&format!("/clientes/{account}/transacoes"), body.to_string())
}

/// One connection to the server.
pub(crate) struct Wire {
    socket: Socket,
    /// What was read and belongs to no answer yet.
    unread: Vec<u8>,
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Wire {
    /// Connects to `host:port` or `unix:/path`.
    pub(crate) fn connect(address: &str) -> Wire {
        Wire::try_connect(address).unwrap_or_else(|error| panic!("connect to {address}: {error}"))
    }

    /// As [`Wire::connect`], for those that expect to be refused.
    pub(crate) fn try_connect(address: &str) -> std::io::Result<Wire> {
        let socket = match address.strip_prefix("unix:") {
            Some(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Socket::Unix(stream)
            }
            None => return TcpStream::connect(address).map(Wire::over),
        };
        Ok(Wire { socket, unread: Vec::new() })
    }

    /// Takes a connected socket over.
    pub(crate) fn over(stream: TcpStream) -> Wire {
        stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("set a timeout");
        stream.set_nodelay(true).expect("set TCP_NODELAY");
        Wire { socket: Socket::Tcp(stream), unread: Vec::new() }
    }

    /// Sends all of it.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes.as_ref()).expect("send");
    }

    /// As [`Wire::send`], for those that expect the connection to be closed.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.socket {
            Socket::Tcp(stream) => stream.write_all(bytes),
            Socket::Unix(stream) => stream.write_all(bytes),
        }
    }

    /// Sends until the server has taken nothing for a while, which is long for a server that reads. Returns how much it
    /// took.
    pub(crate) fn send_until_full(&mut self, bytes: &[u8]) -> usize {
        let Socket::Unix(stream) = &mut self.socket else { panic!("a TCP socket takes megabytes") };
        stream.set_write_timeout(Some(Duration::from_millis(200))).expect("set a timeout");
        let mut sent_bytes = 0;
        let full = loop {
            match stream.write(&bytes[sent_bytes..]) {
                Ok(n) => sent_bytes += n,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock, "{full}");
        stream.set_write_timeout(Some(PATIENCE)).expect("set a timeout");
        sent_bytes
    }

    /// The same connection, for a thread that only sends.
    pub(crate) fn clone_sender(&self) -> Wire {
        let socket = match &self.socket {
            Socket::Tcp(stream) => stream.try_clone().map(Socket::Tcp),
            Socket::Unix(stream) => stream.try_clone().map(Socket::Unix),
        };
        Wire { socket: socket.expect("clone a socket"), unread: Vec::new() }
    }

    /// Says that nothing more will be sent.
    pub(crate) fn shut_down_write(&self) {
        match &self.socket {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
        .expect("shut down");
    }

    /// Sends a request and reads its answer.
    pub(crate) fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request);
        self.answer()
    }

    /// Reads one answer with its content.
    pub(crate) fn answer(&mut self) -> Answer {
        let answer = self.try_answer().unwrap_or_else(|error| panic!("{error}; so far {:?}", self.unread));
        answer.check();
        answer
    }

    /// As [`Wire::answer`], for those that expect the connection to break, or a proxy's own answer: not checked.
    ///
    /// # Errors
    /// `UnexpectedEof` when the connection ends before the answer does; others as `recv(2)`.
    pub(crate) fn try_answer(&mut self) -> std::io::Result<Answer> {
        let mut answer = self.head()?;
        if answer.status != 100 {
            let length = answer.content_length();
            while self.unread.len() < length {
                self.read_some()?;
            }
            answer.body = self.unread.drain(..length).collect();
        }
        Ok(answer)
    }

    /// Reads one answer to a HEAD.
    pub(crate) fn answer_to_head(&mut self) -> Answer {
        let answer = self.head().expect("a head");
        answer.check_head();
        answer
    }

    /// Reads one answer, and then the end of the connection with nothing before it.
    pub(crate) fn last_answer(&mut self) -> Answer {
        let answer = self.answer();
        assert_eq!(answer.field("Connection"), Some("close"), "{answer:?}");
        self.assert_closed();
        answer
    }

    /// As [`Wire::last_answer`], of somebody who answers in ways of his own: the status.
    pub(crate) fn last_status(&mut self) -> u16 {
        let answer = self.try_answer().expect("an answer");
        self.assert_closed();
        answer.status
    }

    /// Reads to the end of the connection, which must not send anything before it.
    pub(crate) fn assert_closed(&mut self) {
        while self.read_more() {}
        let rest = String::from_utf8_lossy(&self.unread);
        assert!(rest.is_empty(), "expected the end of the connection, not {rest:?}");
    }

    /// Reads to the end of the connection.
    pub(crate) fn read_to_end(&mut self) -> String {
        while self.read_more() {}
        String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned()
    }

    /// As [`Wire::assert_closed`]; a reset is an end as well.
    pub(crate) fn assert_ended(&mut self) {
        let end = loop {
            match self.try_read() {
                Ok(0) => break Ok(()),
                Ok(_) => {}
                Err(error) => break Err(error.kind()),
            }
        };
        assert!(matches!(end, Ok(()) | Err(ErrorKind::ConnectionReset)), "{end:?}");
        let rest = String::from_utf8_lossy(&self.unread);
        assert!(rest.is_empty(), "expected the end of the connection, not {rest:?}");
    }

    /// Whether nothing has arrived so far. Does not wait.
    pub(crate) fn is_silent(&mut self) -> bool {
        let Socket::Tcp(stream) = &self.socket else { panic!("asked of TCP connections only") };
        stream.set_nonblocking(true).expect("set non-blocking");
        let peeked = stream.peek(&mut [0]);
        stream.set_nonblocking(false).expect("set blocking");
        self.unread.is_empty() && peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Whether the peer has closed it, as far as is known here. Does not wait.
    pub(crate) fn is_closed(&self) -> bool {
        let Socket::Tcp(stream) = &self.socket else { panic!("asked of TCP connections only") };
        stream.set_nonblocking(true).expect("set non-blocking");
        let peeked = stream.peek(&mut [0]);
        stream.set_nonblocking(false).expect("set blocking");
        !peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    fn head(&mut self) -> std::io::Result<Answer> {
        loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.unread.drain(..end + 4).collect();
                return Ok(Answer::parse(&String::from_utf8(head).expect("a head in ASCII")));
            }
            self.read_some()?;
        }
    }

    fn read_some(&mut self) -> std::io::Result<()> {
        if self.try_read()? == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    /// False at the end of the connection.
    fn read_more(&mut self) -> bool {
        self.try_read().unwrap_or_else(|error| panic!("read: {error}; so far {:?}", self.unread)) > 0
    }

    fn try_read(&mut self) -> std::io::Result<usize> {
        let mut bytes = [0; 16 * 1024];
        loop {
            let read = match &mut self.socket {
                Socket::Tcp(stream) => stream.read(&mut bytes),
                Socket::Unix(stream) => stream.read(&mut bytes),
            };
            // A child of this process may end at any time, and its signal says nothing about the connection.
            if !read.as_ref().is_err_and(|error| error.kind() == ErrorKind::Interrupted) {
                return read.inspect(|&n| self.unread.extend_from_slice(&bytes[..n]));
            }
        }
    }
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    fn parse(head: &str) -> Answer {
        let mut lines = head.trim_end_matches("\r\n").split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let rest = status_line.strip_prefix("HTTP/1.1 ").unwrap_or_else(|| panic!("{status_line:?}"));
        let (status, reason) = rest.split_once(' ').expect("a reason");
        let fields = lines
            .map(|line| line.split_once(": ").unwrap_or_else(|| panic!("no field: {line:?}")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Answer {
            status: status.parse().expect("a status"),
            reason: reason.to_owned(),
            fields,
            body: Vec::new(),
        }
    }

    /// The value of a field that stands there at most once.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} is repeated: {self:?}");
        value
    }

    /// The content as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The content as text.
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("UTF-8")
    }

    /// The text of an error.
    pub(crate) fn erro(&self) -> String {
        self.json()["erro"].as_str().unwrap_or_else(|| panic!("no error: {self:?}")).to_owned()
    }

    /// The new balance that a transaction was answered with.
    pub(crate) fn balance(&self) -> i64 {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()["saldo"].as_i64().unwrap_or_else(|| panic!("no balance: {self:?}"))
    }

    /// Everything but the date, for comparison.
    pub(crate) fn without_date(mut self) -> Answer {
        self.fields.retain(|(name, _)| name != "Date");
        self
    }

    pub(crate) fn content_length(&self) -> usize {
        let value = self.field("Content-Length").unwrap_or_else(|| panic!("no Content-Length: {self:?}"));
        value.parse().unwrap_or_else(|_| panic!("Content-Length: {value:?}"))
    }

    fn check(&self) {
        if self.status == 100 {
            assert!(self.fields.is_empty(), "{self:?}");
            return;
        }
        self.check_head();
        let is_json = self.field("Content-Type") == Some("application/json");
        if self.status != 200 {
            let body = self.json();
            let members = body.as_object().unwrap_or_else(|| panic!("an error is an object: {self:?}"));
            assert_eq!(members.keys().collect::<Vec<_>>(), ["erro"], "{self:?}");
            assert!(!self.erro().is_empty() && self.body.len() < 200, "a short text: {self:?}");
        } else if is_json {
            self.json();
        }
    }

    /// What every answer has, also one to a HEAD.
    fn check_head(&self) {
        self.content_length();
        let date = self.field("Date").unwrap_or_else(|| panic!("no Date: {self:?}"));
        let date = httpdate::parse_http_date(date).unwrap_or_else(|_| panic!("Date: {date:?}"));
        let now = SystemTime::now();
        let distance = now.duration_since(date).or_else(|_| date.duration_since(now)).expect("a distance");
        assert!(distance < Duration::from_mins(10), "Date is {distance:?} from now");
        let content_type = self.field("Content-Type").unwrap_or_else(|| panic!("no Content-Type: {self:?}"));
        assert!(self.status == 200 || content_type == "application/json", "{self:?}");
        let retry_after = self.field("Retry-After").map(|value| value.parse::<u32>().expect("seconds"));
        assert_eq!(retry_after.is_some(), self.status == 503, "{self:?}");
        assert_eq!(self.field("Allow").is_some(), self.status == 405, "{self:?}");
        assert_eq!(self.field("Transfer-Encoding"), None, "{self:?}");
    }
}
