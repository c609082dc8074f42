//! Step 8: each request is a call to PostgreSQL, in its own protocol, by hand. The loop waits for the answer.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use postgres_protocol::IsNull;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use http::{Request, flush, parse, respond};

mod http;

const LISTENER: Token = Token(0);
const OUTBOX_MAX_BYTES: usize = 64 * 1024;
/// PostgreSQL's numbers of types.
const INT4: u32 = 23;
const TEXT: u32 = 25;

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
    let socket = std::env::args()
        .nth(2)
        .ok_or_else(|| io::Error::other("expected the path of PostgreSQL's socket"))?;
    let mut database = Database::connect(&socket)?;
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
                if advance(client, &mut database).unwrap_or(false) {
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

// ANCHOR: database
/// One connection to PostgreSQL, which is waited for.
struct Database {
    stream: UnixStream,
    inbox: BytesMut,
}

struct Call {
    account: u32,
    value: i32,
    is_debit: bool,
}

impl Database {
    fn connect(path: &str) -> io::Result<Database> {
        let mut database = Database { stream: UnixStream::connect(path)?, inbox: BytesMut::new() };
        let mut out = BytesMut::new();
        frontend::startup_message([("user", "rinha"), ("database", "bank")], &mut out)?;
        // No password is asked for over this socket.
        database.exchange(&out)?;
        out.clear();
        let types = [INT4, INT4, TEXT, TEXT];
        frontend::parse("t", "SELECT saldo, limite FROM InsertTransacao($1, $2, $3, $4)", types, &mut out)?;
        frontend::sync(&mut out);
        database.exchange(&out)?;
        Ok(database)
    }

    /// Runs one transaction, and waits for its result.
    fn transact(&mut self, call: &Call) -> io::Result<(u16, String)> {
        let kind = if call.is_debit { "d" } else { "c" };
        let parameters = [call.account.to_string(), call.value.to_string(), kind.into(), "path".into()];
        let mut out = BytesMut::new();
        let write = |text: String, out: &mut BytesMut| {
            out.extend_from_slice(text.as_bytes());
            Ok(IsNull::No)
        };
        // Bind: the parameters, all as text (0); so are the columns of the result.
        frontend::bind("", "t", [0], parameters, write, [0], &mut out)
            .map_err(|_| io::Error::other("the parameters are too long"))?;
        frontend::execute("", 0, &mut out)?;
        frontend::sync(&mut out);
        let row = self.exchange(&out)?;
        Ok(outcome(&row.as_deref().map(columns).unwrap_or_default()))
    }

    /// Sends, then reads messages up to `ReadyForQuery`. Gives the row, if there was one.
    fn exchange(&mut self, out: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.stream.write_all(out)?;
        let mut row = None;
        loop {
            // `None` means that the next message has not arrived whole.
            match Message::parse(&mut self.inbox)? {
                Some(Message::DataRow(body)) => row = Some(body.buffer().to_vec()),
                Some(Message::ErrorResponse(_)) => row = None,
                Some(Message::ReadyForQuery(_)) => return Ok(row),
                Some(_) => {}
                None => {
                    let mut bytes = [0; 4096];
                    match self.stream.read(&mut bytes)? {
                        0 => return Err(ErrorKind::UnexpectedEof.into()),
                        n => self.inbox.extend_from_slice(&bytes[..n]),
                    }
                }
            }
        }
    }
}
// ANCHOR_END: database

// ANCHOR: outcome
/// What a client is told. The procedure gives the new balance and the limit; NULL for both if there is no such account, for the
/// balance alone if the debit goes past the limit.
fn outcome(row: &[Option<&str>]) -> (u16, String) {
    match row {
        [Some(balance), Some(limit)] => (200, format!("{{\"limite\":{limit},\"saldo\":{balance}}}")),
        [None, Some(_)] => (422, String::new()),
        [None, None] => (404, String::new()),
        // An error took the place of the row.
        _ => (503, String::new()),
    }
}

/// The columns of a row, as text. Each is a length of four bytes, -1 for NULL, and so many bytes.
fn columns(mut bytes: &[u8]) -> Vec<Option<&str>> {
    let mut columns = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk() {
        let column =
            usize::try_from(i32::from_be_bytes(*len)).ok().and_then(|len| rest.split_at_checked(len));
        columns.push(column.and_then(|(column, _)| str::from_utf8(column).ok()));
        bytes = column.map_or(rest, |(_, rest)| rest);
    }
    columns
}
// ANCHOR_END: outcome

/// Reads, serves and writes until none of it is possible now. Returns whether the client stays.
fn advance(client: &mut Client, database: &mut Database) -> io::Result<bool> {
    let mut bytes = [0; 4096];
    loop {
        let is_served = serve(client, database)?;
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

/// Answers the first request in the inbox. Returns false if there is none that is complete.
fn serve(client: &mut Client, database: &mut Database) -> io::Result<bool> {
    if client.is_last {
        return Ok(false);
    }
    let len_bytes = match parse(&client.inbox) {
        Ok(None) => return Ok(false),
        Ok(Some(request)) => {
            client.is_last = request.is_last;
            let (status, body) = match (request.method, request.path, call(&request)) {
                (_, _, Some(call)) => database.transact(&call)?,
                ("GET", "/", None) => (200, "hello".into()),
                ("POST", "/echo", None) => (200, String::from_utf8_lossy(request.body).into_owned()),
                _ => (404, String::new()),
            };
            respond(&mut client.outbox, status, body.as_bytes(), client.is_last);
            request.len_bytes
        }
        Err(status) => {
            client.is_last = true;
            respond(&mut client.outbox, status, b"", true);
            client.inbox.len()
        }
    };
    client.inbox.drain(..len_bytes);
    Ok(true)
}

/// The transaction that a request asks for: `POST /clientes/ID/c/VALUE` is a credit, `d` a debit.
fn call(request: &Request) -> Option<Call> {
    let mut parts = request.path.strip_prefix("/clientes/")?.split('/');
    let (account, kind, value) = (parts.next()?, parts.next()?, parts.next()?);
    let is_call = request.method == "POST" && matches!(kind, "c" | "d") && parts.next().is_none();
    let value: i32 = value.parse().ok().filter(|value| *value > 0)?;
    is_call.then_some(Call { account: account.parse().ok()?, value, is_debit: kind == "d" })
}
