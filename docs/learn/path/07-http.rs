//! Step 7: HTTP. The head of a request says where it ends; what arrived behind it is the next one.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use httparse::Status;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(0);
const HEAD_MAX_BYTES: usize = 8 * 1024;
const BODY_MAX_BYTES: usize = 16 * 1024;
const OUTBOX_MAX_BYTES: usize = 64 * 1024;

struct Client {
    stream: TcpStream,
    /// Bytes that arrived and are no whole request yet. At most one request and one read.
    inbox: Vec<u8>,
    /// Bytes that the socket has not taken yet. At most `OUTBOX_MAX_BYTES` and one answer.
    outbox: Vec<u8>,
    /// Its last answer is in the outbox. What still arrives is dropped.
    is_last: bool,
    /// When it has to leave, unless an event of it comes before.
    deadline: Instant,
}

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".into());
    let address = address.parse().map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
    let mut listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(64);
    let mut clients: HashMap<Token, Client> = HashMap::new();
    let mut next_token = LISTENER.0 + 1;
    let idle_ms = std::env::var("IDLE_MS").ok().and_then(|text| text.parse().ok()).unwrap_or(60_000);
    let idle = Duration::from_millis(idle_ms);
    let mut timers: BTreeSet<(Instant, Token)> = BTreeSet::new();
    loop {
        let before_poll = Instant::now();
        let timeout = timers.first().map(|(deadline, _)| deadline.saturating_duration_since(before_poll));
        match poll.poll(&mut events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    let token = Token(next_token);
                    next_token += 1;
                    // Without it, answers only take longer.
                    let _ = stream.set_nodelay(true);
                    poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
                    let deadline = Instant::now() + idle;
                    timers.insert((deadline, token));
                    let (inbox, outbox) = (Vec::new(), Vec::new());
                    clients.insert(token, Client { stream, inbox, outbox, is_last: false, deadline });
                }
            } else if let Some(client) = clients.get_mut(&event.token()) {
                timers.remove(&(client.deadline, event.token()));
                if advance(client).unwrap_or(false) {
                    client.deadline = Instant::now() + idle;
                    timers.insert((client.deadline, event.token()));
                } else {
                    clients.remove(&event.token());
                }
            }
        }
        while let Some((deadline, token)) = timers.first().copied()
            && deadline <= before_poll
        {
            timers.remove(&(deadline, token));
            clients.remove(&token);
        }
    }
}

// ANCHOR: advance
/// Reads, serves and writes until none of it is possible now. Returns whether the client stays.
fn advance(client: &mut Client) -> io::Result<bool> {
    let mut bytes = [0; 4096];
    loop {
        let is_served = serve(client);
        flush(&mut client.stream, &mut client.outbox)?;
        if client.outbox.len() >= OUTBOX_MAX_BYTES {
            return Ok(true);
        }
        if is_served {
            continue;
        }
        if client.is_last && client.outbox.is_empty() {
            // Only this half: a close with bytes unread would be a reset, which overtakes the answer.
            client.stream.shutdown(Shutdown::Write)?;
        }
        match client.stream.read(&mut bytes) {
            Ok(0) => {
                client.is_last = true;
                return Ok(!client.outbox.is_empty());
            }
            Ok(_) if client.is_last => {}
            Ok(n) => client.inbox.extend_from_slice(&bytes[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        }
    }
}
// ANCHOR_END: advance

// ANCHOR: serve
/// Answers the first request in the inbox. Returns false if there is none that is complete.
fn serve(client: &mut Client) -> bool {
    if client.is_last {
        return false;
    }
    let len_bytes = match parse(&client.inbox) {
        Ok(None) => return false,
        Ok(Some(request)) => {
            client.is_last = request.is_last;
            let (status, body) = match (request.method, request.path) {
                ("GET", "/") => (200, &b"hello"[..]),
                ("POST", "/echo") => (200, request.body),
                _ => (404, &b""[..]),
            };
            respond(&mut client.outbox, status, body, client.is_last);
            request.len_bytes
        }
        Err(status) => {
            client.is_last = true;
            respond(&mut client.outbox, status, b"", true);
            client.inbox.len()
        }
    };
    client.inbox.drain(..len_bytes);
    true
}
// ANCHOR_END: serve

// ANCHOR: parse
struct Request<'a> {
    method: &'a str,
    path: &'a str,
    body: &'a [u8],
    /// The client wants no other answer after this one.
    is_last: bool,
    len_bytes: usize,
}

/// The first request of an inbox; `None` if it is not complete yet. An error is the status of the last answer: where the next
/// request begins is not known then.
fn parse(inbox: &[u8]) -> Result<Option<Request<'_>>, u16> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut fields);
    let head_bytes = match head.parse(inbox) {
        Ok(Status::Complete(bytes)) if bytes <= HEAD_MAX_BYTES => bytes,
        Ok(Status::Partial) if inbox.len() <= HEAD_MAX_BYTES => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(431),
        Err(_) => return Err(400),
    };
    let mut is_last = head.version == Some(0);
    let mut content_bytes = None;
    for field in head.headers.iter() {
        if field.name.eq_ignore_ascii_case("content-length") {
            let is_number = !field.value.is_empty() && field.value.iter().all(u8::is_ascii_digit);
            let text = str::from_utf8(field.value).ok().filter(|_| is_number && content_bytes.is_none());
            // A number too large for the type is too large for us.
            content_bytes = Some(text.ok_or(400_u16)?.parse::<usize>().map_err(|_| 413_u16)?);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(501);
        } else if field.name.eq_ignore_ascii_case("connection") {
            is_last |= field.value.eq_ignore_ascii_case(b"close");
        }
    }
    let content_bytes = content_bytes.unwrap_or(0);
    if content_bytes > BODY_MAX_BYTES {
        return Err(413);
    }
    let len_bytes = head_bytes + content_bytes;
    let Some(body) = inbox.get(head_bytes..len_bytes) else { return Ok(None) };
    let (method, path) = (head.method.unwrap_or_default(), head.path.unwrap_or_default());
    Ok(Some(Request { method, path, body, is_last, len_bytes }))
}
// ANCHOR_END: parse

fn respond(outbox: &mut Vec<u8>, status: u16, body: &[u8], is_last: bool) {
    let connection = if is_last { "close" } else { "keep-alive" };
    let len_bytes = body.len();
    let head =
        format!("HTTP/1.1 {status} \r\nContent-Length: {len_bytes}\r\nConnection: {connection}\r\n\r\n");
    outbox.extend_from_slice(head.as_bytes());
    outbox.extend_from_slice(body);
}

/// Writes until the outbox is empty or the socket takes no more.
fn flush(stream: &mut impl Write, outbox: &mut Vec<u8>) -> io::Result<()> {
    while !outbox.is_empty() {
        match stream.write(outbox) {
            Ok(n) => drop(outbox.drain(..n)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
