//! The HTTP client of `stress`, with expectations: each answer that a [`Wire`] reads is checked for what every answer of the
//! bank has to have.

use std::io::{ErrorKind, Write as _};
use std::net::Shutdown;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use stress::http::{self, Connection};

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

/// One connection to the server, over which a test sends whatever bytes it likes.
pub(crate) struct Wire(Connection);

impl Wire {
    /// Connects to `host:port` or `unix:/path`.
    pub(crate) fn connect(address: &str) -> Wire {
        Wire::try_connect(address).unwrap_or_else(|error| panic!("connect to {address}: {error}"))
    }

    /// As [`Wire::connect`], for those that expect to be refused.
    pub(crate) fn try_connect(address: &str) -> std::io::Result<Wire> {
        Connection::connect(address, PATIENCE).map(Wire)
    }

    /// The socket below.
    pub(crate) fn socket(&self) -> &socket2::Socket {
        &self.0.socket
    }

    /// Sends all of it.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes.as_ref()).expect("send");
    }

    /// As [`Wire::send`], for those that expect the connection to be closed.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.send(bytes)
    }

    /// Sends until the server has taken nothing for a while, which is long for a server that reads. Returns how much it
    /// took. Over a Unix socket: a TCP socket takes megabytes.
    pub(crate) fn send_until_full(&mut self, bytes: &[u8]) -> usize {
        let mut socket = self.socket();
        socket.set_write_timeout(Some(Duration::from_millis(200))).expect("set a timeout");
        let mut sent_bytes = 0;
        let full = loop {
            match socket.write(&bytes[sent_bytes..]) {
                Ok(n) => sent_bytes += n,
                // A child of this process may have ended.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock, "{full}");
        socket.set_write_timeout(Some(PATIENCE)).expect("set a timeout");
        sent_bytes
    }

    /// The same connection, for a thread that only sends.
    pub(crate) fn clone_sender(&self) -> Wire {
        Wire(self.0.clone_sender().expect("clone a socket"))
    }

    /// Says that nothing more will be sent.
    pub(crate) fn shut_down_write(&self) {
        self.socket().shutdown(Shutdown::Write).expect("shut down");
    }

    /// Sends a request and reads its answer.
    pub(crate) fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request);
        self.answer()
    }

    /// Reads one answer with its content.
    pub(crate) fn answer(&mut self) -> Answer {
        let answer = self.try_answer();
        let answer = answer.unwrap_or_else(|error| panic!("{error}; so far {:?}", self.0.unread));
        answer.check();
        answer
    }

    /// As [`Wire::answer`], for those that expect the connection to break, or a proxy's own answer: not checked.
    ///
    /// # Errors
    /// `UnexpectedEof` when the connection ends before the answer does; others as `recv(2)`.
    pub(crate) fn try_answer(&mut self) -> std::io::Result<Answer> {
        self.0.receive().map(Answer)
    }

    /// Reads one answer to a HEAD.
    pub(crate) fn answer_to_head(&mut self) -> Answer {
        let answer = Answer(self.0.receive_head().expect("a head"));
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
        let rest = self.read_to_end();
        assert!(rest.is_empty(), "expected the end of the connection, not {rest:?}");
    }

    /// Reads to the end of the connection.
    pub(crate) fn read_to_end(&mut self) -> String {
        let (rest, ended) = self.0.receive_rest();
        let rest = String::from_utf8_lossy(&rest).into_owned();
        ended.unwrap_or_else(|error| panic!("read: {error}; so far {rest:?}"));
        rest
    }

    /// As [`Wire::assert_closed`]; a reset is an end as well.
    pub(crate) fn assert_ended(&mut self) {
        let (rest, ended) = self.0.receive_rest();
        let ended = ended.map_err(|error| error.kind());
        assert!(matches!(ended, Ok(()) | Err(ErrorKind::ConnectionReset)), "{ended:?}");
        let rest = String::from_utf8_lossy(&rest);
        assert!(rest.is_empty(), "expected the end of the connection, not {rest:?}");
    }

    /// Whether nothing has arrived so far. Does not wait.
    pub(crate) fn is_silent(&self) -> bool {
        self.0.unread.is_empty() && !self.0.is_closed()
    }
}

/// One answer, and what a test expects of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer(http::Answer);

impl Deref for Answer {
    type Target = http::Answer;

    fn deref(&self) -> &http::Answer {
        &self.0
    }
}

impl DerefMut for Answer {
    fn deref_mut(&mut self) -> &mut http::Answer {
        &mut self.0
    }
}

impl Answer {
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
        assert_eq!(self.minor_version, 1, "{self:?}");
        assert!(self.content_length().is_some(), "no Content-Length: {self:?}");
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

/// A Unix socket that takes no further connection: it accepts none, and its backlog is full. With those that fill it.
pub(crate) fn full_listener(path: &std::path::Path) -> Vec<socket2::Socket> {
    let address = socket2::SockAddr::unix(path).expect("a short path");
    let socket =
        || socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).expect("set up the test");
    let listener = socket();
    listener.bind(&address).and_then(|()| listener.listen(1)).expect("set up the test");
    let mut sockets = vec![listener];
    loop {
        let client = socket();
        client.set_nonblocking(true).expect("set up the test");
        match client.connect(&address) {
            Ok(()) => sockets.push(client),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return sockets,
            Err(error) => panic!("{error}"),
        }
    }
}
