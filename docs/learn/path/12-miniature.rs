//! Step 12: a miniature of the server in 300 lines of code: the API, group commit, and an answer for everything that fails.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream, UnixStream};
use mio::{Events, Interest, Poll, Registry, Token};
use proto_pg::Value::{Int4, Text};
use proto_pg::{CloseReason, Connection, Event, Limits, Session, Statement, oid};

use http::{Request, flush, parse, respond};

mod http;

const LISTENER: Token = Token(0);
const LANE: Token = Token(1);
const READ_WRITE: Interest = Interest::READABLE.add(Interest::WRITABLE);
// Every queue, buffer and wait has a limit.
const CLIENTS_MAX: usize = 1_000;
const QUEUE_MAX: usize = 256;
const BATCH_MAX: usize = 64;
const OUTBOX_MAX_BYTES: usize = 64 * 1024;
const QUEUE_TIMEOUT: Duration = Duration::from_secs(1);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_WAIT: Duration = Duration::from_millis(100);

const INSERT: &str = "SELECT saldo, limite FROM InsertTransacao($1, $2, $3, $4)";
static STATEMENTS: [Statement<'static>; 3] = [
    Statement::new("c", "SELECT id FROM clientes", &[]),
    Statement::new("e", "SELECT GetSaldoClienteById($1)", &[oid::INT4]),
    Statement::new("t", INSERT, &[oid::INT4, oid::INT4, oid::TEXT, oid::TEXT]),
];

#[derive(Clone)]
struct Call {
    client: Token,
    account: i32,
    what: What,
    is_alone: bool,
    /// If it was not sent by then, it is answered 503.
    give_up_at: Instant,
}

#[derive(Clone)]
enum What {
    Accounts,
    Statement,
    Transaction { value: i32, kind: &'static str, description: String },
}

#[derive(Default)]
struct Lane {
    path: String,
    link: Option<(UnixStream, Connection<Call>)>,
    /// When to connect again, or by when PostgreSQL has to answer.
    deadline: Option<Instant>,
    accounts: Vec<i32>,
    queue: VecDeque<Call>,
    batch_len: usize,
    /// Who is told what, once it is committed; who is told what now.
    held: Vec<(Token, u16, String)>,
    answers: Vec<(Token, u16, String)>,
}

impl Lane {
    fn connect(&mut self, registry: &Registry, now: Instant) {
        self.deadline = Some(now + RETRY_WAIT);
        let Ok(mut stream) = UnixStream::connect(&self.path) else { return };
        if registry.register(&mut stream, LANE, READ_WRITE).is_ok() {
            let (user, database) = ("rinha".to_owned(), "bank".to_owned());
            let session = Session { user, database, ..Session::default() };
            self.link = Some((stream, Connection::new(&session, &STATEMENTS, Limits::DEFAULT)));
            self.deadline = Some(now + ANSWER_TIMEOUT);
        }
    }

    /// Makes what waits the next batch if the last one is over, and writes.
    fn send(&mut self, now: Instant) {
        let Some((stream, session)) = &mut self.link else { return };
        let is_free = session.is_ready() && session.batches_in_flight() == 0;
        self.deadline = self.deadline.filter(|_| !is_free);
        if is_free && !self.queue.is_empty() {
            let together = self.queue.iter().take(BATCH_MAX).take_while(|call| !call.is_alone).count();
            let batch = &mut self.queue.make_contiguous()[..together.max(1)];
            // One order of locks for all batches: no deadlock.
            batch.sort_by_key(|call| call.account);
            self.batch_len = batch.len();
            self.deadline = Some(now + ANSWER_TIMEOUT);
            for call in self.queue.drain(..together.max(1)) {
                let (account, ticket) = (Int4(call.account), call.clone());
                let sent = match &call.what {
                    What::Accounts => session.call(ticket, 0, &[]),
                    What::Statement => session.call(ticket, 1, &[account]),
                    What::Transaction { value, kind, description } => {
                        session.call(ticket, 2, &[account, Int4(*value), Text(kind), Text(description)])
                    }
                };
                // A batch never fills the session's limits. If it did, the call would not have happened.
                self.answers.extend(sent.err().map(|_| (call.client, 503, String::new())));
            }
            session.sync();
        }
        while !session.send_pending().is_empty() {
            match stream.write(session.send_pending()) {
                Ok(n) => session.send_advance(n),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => session.close(CloseReason::Transport(error.kind())),
            }
        }
        self.take_events(now);
    }

    fn receive(&mut self, now: Instant) {
        while let Some((stream, session)) = &mut self.link {
            match stream.read(session.recv_space()) {
                Ok(0) => session.close(CloseReason::PeerClosed),
                Ok(n) => session.recv_commit(n),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => session.close(CloseReason::Transport(error.kind())),
            }
            self.take_events(now);
        }
    }

    // ANCHOR: events
    fn take_events(&mut self, now: Instant) {
        let mut is_closed = false;
        while let Some(event) = self.link.as_mut().and_then(|(_, session)| session.poll_event()) {
            match event {
                Event::Ready => {
                    self.accounts.clear();
                    // Nobody is told: no client has this token.
                    let (client, what, give_up_at) = (LANE, What::Accounts, now + ANSWER_TIMEOUT);
                    self.queue.push_front(Call { client, account: 0, what, is_alone: true, give_up_at });
                }
                Event::Row { ticket: Call { client: LANE, .. }, row } => self.accounts.extend(row.i32(0)),
                // What the transaction saw. It is held until the commit.
                Event::Row { ticket, row } => {
                    let (status, body) = match (ticket.what, row.i64(0), row.i64(1)) {
                        (What::Transaction { .. }, Ok(total), Ok(limit)) => {
                            (200, format!("{{\"limite\":{limit},\"saldo\":{total}}}"))
                        }
                        (What::Transaction { .. }, ..) => (422, String::new()),
                        _ => (200, String::from_utf8_lossy(row.jsonb(0).unwrap_or_default()).into_owned()),
                    };
                    self.held.push((ticket.client, status, body));
                }
                Event::Committed => self.answers.append(&mut self.held),
                Event::Aborted { .. } => self.held.clear(),
                Event::Failed { ticket, .. } if self.batch_len == 1 => {
                    self.answers.push((ticket.client, 503, String::new()));
                }
                // Nothing was done, and by itself it may succeed. `give_up_at` says how long it may try.
                Event::Failed { ticket, .. } | Event::RolledBack { ticket } => {
                    self.queue.push_front(Call { is_alone: true, ..ticket });
                }
                // It may have been committed: it is never run again.
                Event::InDoubt { ticket } => self.answers.push((ticket.client, 503, String::new())),
                Event::Closed { .. } => is_closed = true,
                _ => {}
            }
        }
        if is_closed {
            self.held.clear();
            (self.link, self.deadline) = (None, Some(now + RETRY_WAIT));
        }
    }
    // ANCHOR_END: events

    /// Acts on deadlines that had passed before the last poll of the sockets.
    fn expire(&mut self, before_poll: Instant, registry: &Registry) {
        while let Some(call) = self.queue.pop_front_if(|call| call.give_up_at <= before_poll) {
            self.answers.push((call.client, 503, String::new()));
        }
        if self.deadline.is_some_and(|deadline| deadline <= before_poll) {
            match &mut self.link {
                Some((_, session)) => session.close(CloseReason::TimedOut),
                None => self.connect(registry, before_poll),
            }
        }
    }
}

struct Client {
    stream: TcpStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    is_last: bool,
    is_awaiting: bool,
    deadline: Instant,
}

impl Client {
    /// Reads, serves and writes until none of it is possible now. Returns whether the client stays.
    fn advance(&mut self, token: Token, lane: &mut Lane) -> io::Result<bool> {
        let mut bytes = [0; 4096];
        loop {
            let is_served = !self.is_awaiting && !self.is_last && self.serve(token, lane);
            flush(&mut self.stream, &mut self.outbox)?;
            if self.is_awaiting || self.outbox.len() >= OUTBOX_MAX_BYTES {
                return Ok(true);
            }
            if is_served {
                continue;
            }
            if self.is_last && self.outbox.is_empty() {
                self.stream.shutdown(Shutdown::Write)?;
            }
            match self.stream.read(&mut bytes) {
                Ok(0) => {
                    self.is_last = true;
                    return Ok(!self.outbox.is_empty());
                }
                Ok(_) if self.is_last => {}
                Ok(n) => self.inbox.extend_from_slice(&bytes[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
        }
    }

    /// Answers the first request, or passes it on. Returns false if there is none that is complete.
    fn serve(&mut self, token: Token, lane: &mut Lane) -> bool {
        let (result, is_last, len_bytes) = match parse(&self.inbox) {
            Ok(None) => return false,
            Ok(Some(request)) => (route(&request, &lane.accounts), request.is_last, request.len_bytes),
            Err(status) => (Err(status), true, self.inbox.len()),
        };
        self.is_last = is_last;
        self.inbox.drain(..len_bytes);
        match result {
            Ok((account, what)) if lane.queue.len() < QUEUE_MAX => {
                let give_up_at = Instant::now() + QUEUE_TIMEOUT;
                lane.queue.push_back(Call { client: token, account, what, is_alone: false, give_up_at });
                self.is_awaiting = true;
            }
            Ok(_) => respond(&mut self.outbox, 503, b"", self.is_last),
            Err(status) => respond(&mut self.outbox, status, b"", self.is_last),
        }
        true
    }
}

/// What a request asks of PostgreSQL, or the status that it gets at once.
fn route(request: &Request, accounts: &[i32]) -> Result<(i32, What), u16> {
    let path = request.path.split('?').next().unwrap_or_default();
    let (account, what) =
        path.strip_prefix("/clientes/").and_then(|rest| rest.split_once('/')).ok_or(404_u16)?;
    if accounts.is_empty() {
        return Err(503);
    }
    // As text: "01" and "+1" are no accounts.
    let account = accounts.iter().find(|known| known.to_string() == account).ok_or(404_u16)?;
    match (request.method, what) {
        ("POST", "transacoes") => Ok((*account, transaction(request.body)?)),
        ("GET", "extrato") => Ok((*account, What::Statement)),
        (_, "transacoes" | "extrato") => Err(405),
        _ => Err(404),
    }
}

/// 400 for what is not JSON, 422 for JSON that is no transaction.
fn transaction(body: &[u8]) -> Result<What, u16> {
    let json: serde_json::Value = serde_json::from_slice(body).map_err(|_| 400_u16)?;
    let value = json["valor"].as_i64().and_then(|value| i32::try_from(value).ok()).filter(|value| *value > 0);
    let kind = ["c", "d"].into_iter().find(|kind| json["tipo"] == **kind);
    let description = json["descricao"].as_str();
    let description =
        description.filter(|text| (1..=10).contains(&text.chars().count()) && !text.contains('\0'));
    let (Some(value), Some(kind), Some(description)) = (value, kind, description) else { return Err(422) };
    Ok(What::Transaction { value, kind, description: description.to_owned() })
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7000".into());
    let address = address.parse().map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
    let path =
        arguments.next().ok_or_else(|| io::Error::other("expected the path of PostgreSQL's socket"))?;
    let idle_ms = std::env::var("IDLE_MS").ok().and_then(|text| text.parse().ok()).unwrap_or(60_000);
    let mut listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut lane = Lane { path, deadline: Some(Instant::now()), ..Lane::default() };
    let mut clients: HashMap<Token, Client> = HashMap::new();
    let mut timers: BTreeSet<(Instant, Token)> = BTreeSet::new();
    let mut due: Vec<Token> = Vec::new();
    let mut next_token = LANE.0 + 1;
    let mut events = Events::with_capacity(CLIENTS_MAX + 2);
    // ANCHOR: turn
    loop {
        // Wait.
        let before_poll = Instant::now();
        let call = lane.queue.front().map(|call| call.give_up_at);
        let wake_at = [timers.first().map(|timer| timer.0), call, lane.deadline].into_iter().flatten().min();
        match poll.poll(&mut events, wake_at.map(|at| at.saturating_duration_since(before_poll))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        let now = Instant::now();
        // Receive. The lane and the listener are asked in every turn: then no edge of theirs can be forgotten.
        lane.receive(now);
        while clients.len() < CLIENTS_MAX
            && let Ok((mut stream, _)) = listener.accept()
        {
            let (token, deadline) = (Token(next_token), now + Duration::from_millis(idle_ms));
            next_token += 1;
            // Without it, answers only take longer.
            let _ = stream.set_nodelay(true);
            poll.registry().register(&mut stream, token, READ_WRITE)?;
            timers.insert((deadline, token));
            let (inbox, outbox) = (Vec::new(), Vec::new());
            let client = Client { stream, inbox, outbox, is_last: false, is_awaiting: false, deadline };
            clients.insert(token, client);
        }
        lane.expire(before_poll, poll.registry());
        lane.take_events(now);
        // Advance: what was answered, and what was heard of.
        for (token, status, body) in lane.answers.drain(..) {
            if let Some(client) = clients.get_mut(&token) {
                client.is_awaiting = false;
                respond(&mut client.outbox, status, body.as_bytes(), client.is_last);
                due.push(token);
            }
        }
        due.extend(events.iter().map(mio::event::Event::token));
        for token in due.drain(..) {
            let Some(client) = clients.get_mut(&token) else { continue };
            timers.remove(&(client.deadline, token));
            client.deadline = now + Duration::from_millis(idle_ms);
            if client.advance(token, &mut lane).unwrap_or(false) {
                timers.insert((client.deadline, token));
            } else {
                clients.remove(&token);
            }
        }
        // Send: the calls of this turn are one batch.
        lane.send(now);
        // Expire.
        while timers.first().is_some_and(|(deadline, _)| *deadline <= before_poll) {
            timers.pop_first().map(|(_, token)| clients.remove(&token));
        }
    }
    // ANCHOR_END: turn
}
