//! Step 10: group commit. Calls gather while a batch is at PostgreSQL, and all of them share the next Sync.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use mio::net::{TcpListener, TcpStream, UnixStream};
use mio::{Events, Interest, Poll, Token};
use postgres_protocol::IsNull;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use http::{Request, flush, parse, respond};

mod http;

const LISTENER: Token = Token(0);
const LANE: Token = Token(1);
const OUTBOX_MAX_BYTES: usize = 64 * 1024;
/// PostgreSQL's numbers of types.
const INT4: u32 = 23;
const TEXT: u32 = 25;
const BATCH_CALLS_MAX: usize = 64;

struct Client {
    stream: TcpStream,
    /// Bytes that arrived and are no whole request yet. At most one request and one read.
    inbox: Vec<u8>,
    /// Bytes that the socket has not taken yet. At most `OUTBOX_MAX_BYTES` and one answer.
    outbox: Vec<u8>,
    /// Its last answer is in the outbox. What still arrives is dropped.
    is_last: bool,
    /// PostgreSQL has its call. Until the answer is here, its next request waits.
    is_awaiting: bool,
    /// When it has to leave, unless an event of it comes before.
    deadline: Instant,
}

impl Client {
    fn new(stream: TcpStream, deadline: Instant) -> Client {
        let (inbox, outbox) = (Vec::new(), Vec::new());
        Client { stream, inbox, outbox, is_last: false, is_awaiting: false, deadline }
    }
}

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".into());
    let address = address.parse().map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
    let socket = std::env::args()
        .nth(2)
        .ok_or_else(|| io::Error::other("expected the path of PostgreSQL's socket"))?;
    let mut lane = Lane::connect(&socket)?;
    let mut listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    poll.registry().register(&mut lane.stream, LANE, Interest::READABLE | Interest::WRITABLE)?;
    let mut events = Events::with_capacity(64);
    let mut clients: HashMap<Token, Client> = HashMap::new();
    let mut next_token = LANE.0 + 1;
    let idle_ms = std::env::var("IDLE_MS").ok().and_then(|text| text.parse().ok()).unwrap_or(60_000);
    let idle = Duration::from_millis(idle_ms);
    let mut timers: BTreeSet<(Instant, Token)> = BTreeSet::new();
    // The clients that have work in this turn.
    let mut due: Vec<Token> = Vec::new();
    loop {
        let before_poll = Instant::now();
        let timeout = timers.first().map(|(deadline, _)| deadline.saturating_duration_since(before_poll));
        match poll.poll(&mut events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            match event.token() {
                LISTENER => {
                    while let Ok((mut stream, _)) = listener.accept() {
                        let token = Token(next_token);
                        next_token += 1;
                        // Without it, answers only take longer.
                        let _ = stream.set_nodelay(true);
                        let interest = Interest::READABLE | Interest::WRITABLE;
                        poll.registry().register(&mut stream, token, interest)?;
                        let client = Client::new(stream, Instant::now() + idle);
                        timers.insert((client.deadline, token));
                        clients.insert(token, client);
                    }
                }
                LANE => {
                    for (token, status, body) in lane.receive()? {
                        // It may have left. No token is used twice, so no other client gets its answer.
                        if let Some(client) = clients.get_mut(&token) {
                            client.is_awaiting = false;
                            respond(&mut client.outbox, status, body.as_bytes(), client.is_last);
                            due.push(token);
                        }
                    }
                }
                token => due.push(token),
            }
        }
        for token in due.drain(..) {
            let Some(client) = clients.get_mut(&token) else { continue };
            timers.remove(&(client.deadline, token));
            if advance(client, token, &mut lane).unwrap_or(false) {
                client.deadline = Instant::now() + idle;
                timers.insert((client.deadline, token));
            } else {
                clients.remove(&token);
            }
        }
        // After everything else: what gathered in this turn becomes one batch.
        lane.send_batch()?;
        while let Some((deadline, token)) = timers.first().copied()
            && deadline <= before_poll
        {
            timers.remove(&(deadline, token));
            clients.remove(&token);
        }
    }
}

struct Call {
    client: Token,
    account: u32,
    value: i32,
    is_debit: bool,
    /// It was in a batch that failed, and has to run by itself.
    is_alone: bool,
}

/// The connection to PostgreSQL, one more socket of the loop.
struct Lane {
    stream: UnixStream,
    inbox: BytesMut,
    outbox: Vec<u8>,
    /// Calls that gather for the next batch.
    queue: VecDeque<Call>,
    /// Calls that share the Sync that PostgreSQL has not answered yet, and the rows that it gave to them so far.
    batch: Vec<Call>,
    rows: Vec<Vec<u8>>,
    has_failed: bool,
}

impl Lane {
    /// Logs in and prepares the statement, and waits for it: there are no clients yet.
    fn connect(path: &str) -> io::Result<Lane> {
        let mut stream = std::os::unix::net::UnixStream::connect(path)?;
        let mut inbox = BytesMut::new();
        let mut out = BytesMut::new();
        frontend::startup_message([("user", "rinha"), ("database", "bank")], &mut out)?;
        wait_ready(&mut stream, &mut inbox, &out)?;
        out.clear();
        let types = [INT4, INT4, TEXT, TEXT];
        frontend::parse("t", "SELECT saldo, limite FROM InsertTransacao($1, $2, $3, $4)", types, &mut out)?;
        frontend::sync(&mut out);
        wait_ready(&mut stream, &mut inbox, &out)?;
        stream.set_nonblocking(true)?;
        let stream = UnixStream::from_std(stream);
        let (queue, batch, rows) = (VecDeque::new(), Vec::new(), Vec::new());
        Ok(Lane { stream, inbox, outbox: Vec::new(), queue, batch, rows, has_failed: false })
    }

    // ANCHOR: send_batch
    /// Makes everything that waits the next batch, if the last one is over.
    fn send_batch(&mut self) -> io::Result<()> {
        let len = match self.queue.front() {
            Some(first) if self.batch.is_empty() && first.is_alone => 1,
            Some(_) if self.batch.is_empty() => {
                self.queue.iter().take(BATCH_CALLS_MAX).take_while(|call| !call.is_alone).count()
            }
            Some(_) | None => return self.flush(),
        };
        self.batch.extend(self.queue.drain(..len));
        // One order of locks for every batch of every instance: no deadlock. Within an account, the order of arrival.
        self.batch.sort_by_key(|call| call.account);
        let mut out = BytesMut::new();
        for call in &self.batch {
            call.bind(&mut out)?;
        }
        frontend::sync(&mut out);
        self.outbox.extend_from_slice(&out);
        self.flush()
    }
    // ANCHOR_END: send_batch

    /// Reads what is there. Gives who is to be told what.
    fn receive(&mut self) -> io::Result<Vec<(Token, u16, String)>> {
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.inbox.extend_from_slice(&bytes[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let mut answers = Vec::new();
        while let Some(message) = Message::parse(&mut self.inbox)? {
            match message {
                // What the transaction saw. It is held until the commit.
                Message::DataRow(body) => self.rows.push(body.buffer().to_vec()),
                Message::ErrorResponse(_) => self.has_failed = true,
                Message::ReadyForQuery(_) => self.end_batch(&mut answers),
                _ => {}
            }
        }
        Ok(answers)
    }

    // ANCHOR: end_batch
    /// The batch was committed, or rolled back whole.
    fn end_batch(&mut self, answers: &mut Vec<(Token, u16, String)>) {
        let has_failed = std::mem::take(&mut self.has_failed);
        let is_alone = self.batch.len() == 1;
        let mut rows = self.rows.drain(..);
        for call in self.batch.drain(..).rev() {
            let row = rows.next_back();
            if has_failed && !is_alone {
                // One of them is the culprit. Each runs again by itself, and only that one fails again.
                self.queue.push_front(Call { is_alone: true, ..call });
            } else {
                let row = row.filter(|_| !has_failed);
                let (status, body) = outcome(&row.as_deref().map(columns).unwrap_or_default());
                answers.push((call.client, status, body));
            }
        }
    }
    // ANCHOR_END: end_batch

    fn flush(&mut self) -> io::Result<()> {
        flush(&mut self.stream, &mut self.outbox)
    }
}

impl Call {
    /// Writes its Bind and Execute, without a Sync.
    fn bind(&self, out: &mut BytesMut) -> io::Result<()> {
        let kind = if self.is_debit { "d" } else { "c" };
        let parameters = [self.account.to_string(), self.value.to_string(), kind.into(), "path".into()];
        let write = |text: String, out: &mut BytesMut| {
            out.extend_from_slice(text.as_bytes());
            Ok(IsNull::No)
        };
        frontend::bind("", "t", [0], parameters, write, [0], out)
            .map_err(|_| io::Error::other("the parameters are too long"))?;
        frontend::execute("", 0, out)?;
        Ok(())
    }
}

/// Sends, then waits for `ReadyForQuery`.
fn wait_ready(
    stream: &mut std::os::unix::net::UnixStream,
    inbox: &mut BytesMut,
    out: &[u8],
) -> io::Result<()> {
    stream.write_all(out)?;
    let mut bytes = [0; 4096];
    loop {
        match Message::parse(inbox)? {
            Some(Message::ReadyForQuery(_)) => return Ok(()),
            Some(Message::ErrorResponse(_)) => {
                return Err(io::Error::other("PostgreSQL refuses the session"));
            }
            Some(_) => {}
            None => match stream.read(&mut bytes)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                n => inbox.extend_from_slice(&bytes[..n]),
            },
        }
    }
}

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

/// Reads, serves and writes until none of it is possible now. Returns whether the client stays.
fn advance(client: &mut Client, token: Token, lane: &mut Lane) -> io::Result<bool> {
    let mut bytes = [0; 4096];
    loop {
        let is_served = serve(client, token, lane);
        flush(&mut client.stream, &mut client.outbox)?;
        if client.outbox.len() >= OUTBOX_MAX_BYTES {
            return Ok(true);
        }
        if is_served {
            continue;
        }
        if client.is_awaiting {
            // The answer leads back here.
            return Ok(true);
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

/// Answers the first request in the inbox, or passes it on. Returns false if there is none that is complete.
fn serve(client: &mut Client, token: Token, lane: &mut Lane) -> bool {
    if client.is_last || client.is_awaiting {
        return false;
    }
    let len_bytes = match parse(&client.inbox) {
        Ok(None) => return false,
        Ok(Some(request)) => {
            client.is_last = request.is_last;
            match (request.method, request.path, call(&request, token)) {
                (_, _, Some(call)) => {
                    lane.queue.push_back(call);
                    client.is_awaiting = true;
                }
                ("GET", "/", None) => respond(&mut client.outbox, 200, b"hello", client.is_last),
                ("POST", "/echo", None) => respond(&mut client.outbox, 200, request.body, client.is_last),
                _ => respond(&mut client.outbox, 404, b"", client.is_last),
            }
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

/// The transaction that a request asks for: `POST /clientes/ID/c/VALUE` is a credit, `d` a debit.
fn call(request: &Request, client: Token) -> Option<Call> {
    let mut parts = request.path.strip_prefix("/clientes/")?.split('/');
    let (account, kind, value) = (parts.next()?, parts.next()?, parts.next()?);
    let is_call = request.method == "POST" && matches!(kind, "c" | "d") && parts.next().is_none();
    let value: i32 = value.parse().ok().filter(|value| *value > 0)?;
    is_call.then_some(Call {
        client,
        account: account.parse().ok()?,
        value,
        is_debit: kind == "d",
        is_alone: false,
    })
}
