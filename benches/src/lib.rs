//! The core without its shell: one engine, clients that keep their connections, and a PostgreSQL whose answers are
//! written down beforehand. A round of requests is therefore nothing but the core's own work.

use std::fmt::Write as _;

use proto_pg::Statement;
use rinha::bank::ListenerKind;
use rinha::buf::Pipe;
use rinha::config::Config;
use rinha::engine::Engine;
use rinha::engine::client::AfterSend;
use rinha::engine::lane::Lane;
use rinha::engine::lane::statements::STATEMENTS;
use rinha::now::Now;
use rinha::slots::Slot;

/// What a client asks for, every time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A credit, its body with a `Content-Length`.
    Transaction,
    /// The same credit, its body chunked.
    ChunkedTransaction,
    /// The statement of an account with ten transactions.
    Statement,
}

/// An engine with one ready lane and one connection per request.
///
/// [`BareCore::round`] is the one thing to measure: it allocates nothing itself, asks no clock, and does the same work
/// each time.
pub struct BareCore {
    engine: Engine,
    now: Now,
    clients: Vec<(Slot, Vec<u8>)>,
    /// What PostgreSQL sends for the one batch of a round.
    database_answer: Vec<u8>,
    due: Vec<Slot>,
}

/// The time that a round takes, as the core is told. So every hundredth round looks at the clients' deadlines, and every
/// thousandth makes a new `Date`.
const ROUND_MS: u64 = 1;

impl BareCore {
    /// A core whose clients each have this request, so that a round is one batch of all of them.
    ///
    /// # Panics
    /// If the core does not get ready.
    pub fn new(requests: &[Request]) -> BareCore {
        let config = Config::from_environment(|name| match name {
            "DATABASE_URL" => Some("postgresql://rinha@/rinha?host=/run/db".to_owned()),
            "LISTEN" => Some("127.0.0.1:0".to_owned()),
            // No probe comes between two rounds.
            "PROBE_INTERVAL_MS" => Some("600000".to_owned()),
            _ => None,
        })
        .expect("the settings are valid");
        let now = Now::default();
        let database_answer = batch_answer(requests, &config);
        let mut core = BareCore {
            engine: Engine::new(config, 0, now),
            now,
            clients: Vec::new(),
            database_answer,
            due: Vec::new(),
        };
        core.log_in();
        for request in requests {
            let slot = core.engine.accept(ListenerKind::Bank, now).expect("there is room for a client");
            core.clients.push((slot, request.text()));
        }
        core
    }

    /// One request of each client, as one batch, up to the last byte of each answer.
    ///
    /// # Panics
    /// If an answer is not a 200, or the core sent another batch than the written answer fits.
    pub fn round(&mut self) {
        self.now.monotonic_us += ROUND_MS * 1_000;
        self.now.looked_us = self.now.monotonic_us;
        self.now.unix_s = self.now.monotonic_us / 1_000_000;
        for (slot, request) in &self.clients {
            let client = self.engine.client(*slot).expect("clients stay");
            client.recv_space()[..request.len()].copy_from_slice(request);
            client.recv_commit(request.len());
            self.engine.mark_due(*slot);
        }
        assert_eq!(self.turn(), 0, "nothing is answered before it is committed");
        send_all(lane(&mut self.engine));
        receive(lane(&mut self.engine), &self.database_answer);
        assert_eq!(self.turn(), self.clients.len(), "every client has its answer");
    }

    /// Runs rounds until nothing grows any more: the buffers of a new core are empty.
    pub fn warm_up(&mut self) {
        for _ in 0..WARM_UP_ROUNDS {
            self.round();
        }
    }

    /// What the shell does after it has received: advances, sends to the clients, and looks at deadlines. Returns how many got a 200.
    fn turn(&mut self) -> usize {
        self.engine.advance(self.now);
        self.engine.take_due(&mut self.due);
        let mut answered = 0;
        for &slot in &self.due {
            let client = self.engine.client(slot).expect("clients stay");
            if !client.send_pending().is_empty() {
                assert!(
                    client.send_pending().starts_with(b"HTTP/1.1 200 OK\r\n"),
                    "every request is accepted"
                );
                client.send_advance(client.send_pending().len());
                answered += 1;
            }
            assert_eq!(self.engine.after_send(slot, || self.now), AfterSend::Stay, "connections are kept");
        }
        self.engine.expire(self.now, |_| false);
        answered
    }

    /// Takes the lane from down to ready.
    fn log_in(&mut self) {
        let (index, _) = self.engine.poll_connect(self.now).expect("the lane wants to connect");
        self.engine.lane_connected(index, self.now);
        send_all(lane(&mut self.engine));
        let mut answer = message(b'R', &0i32.to_be_bytes());
        answer.extend(idle());
        self.log_in_step(&answer);

        let prepared = count_messages(lane(&mut self.engine).send_pending(), b'P');
        send_all(lane(&mut self.engine));
        let mut answer: Vec<u8> = STATEMENTS[..prepared].iter().flat_map(prepared_answer).collect();
        answer.extend(idle());
        self.log_in_step(&answer);

        // The history of a server that has none to tell.
        send_all(lane(&mut self.engine));
        let mut answer = message(b'C', b"SELECT 0\0");
        answer.extend(idle());
        self.log_in_step(&answer);

        send_all(lane(&mut self.engine));
        let mut answer = call_answer(&[&[1], &[0], &15i64.to_be_bytes()]);
        answer.extend(message(b'2', b""));
        for account in 1..=5i32 {
            answer.extend(row(&[&account.to_be_bytes()]));
        }
        answer.extend(message(b'C', b"SELECT 5\0"));
        answer.extend(idle());
        self.log_in_step(&answer);
        assert!(self.engine.lanes()[index].is_ready(), "the lane is ready once it has the accounts");
    }

    fn log_in_step(&mut self, answer: &[u8]) {
        receive(lane(&mut self.engine), answer);
        self.engine.advance(self.now);
    }
}

/// More than a second of rounds, so that a look at the deadlines and a new `Date` are among them.
const WARM_UP_ROUNDS: u32 = 1_100;

impl Request {
    /// As a client sends it, with the fields that nginx would pass on.
    pub fn text(self) -> Vec<u8> {
        let body = TRANSACTION_BODY;
        let text = match self {
            Request::Transaction => format!(
                "POST /clientes/3/transacoes HTTP/1.1\r\nHost: localhost:9999\r\nUser-Agent: k6/0.49.0\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ),
            Request::ChunkedTransaction => {
                let (first, second) = body.split_at(body.len() / 2);
                format!(
                    "POST /clientes/3/transacoes HTTP/1.1\r\nHost: localhost:9999\r\nUser-Agent: k6/0.49.0\r\n\
                     Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
                     {:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
                    first.len(),
                    second.len()
                )
            }
            Request::Statement => "GET /clientes/3/extrato HTTP/1.1\r\nHost: localhost:9999\r\n\
                                   User-Agent: k6/0.49.0\r\nAccept: */*\r\n\r\n"
                .to_owned(),
        };
        text.into_bytes()
    }
}

/// The body of each transaction.
pub const TRANSACTION_BODY: &str = r#"{"valor": 1000, "tipo": "c", "descricao": "deposito"}"#;

/// The balance after each transaction and the limit, in cents.
const BALANCE_CENTS: i64 = -9_098;
const LIMIT_CENTS: i64 = 1_000_000;

/// Everything that PostgreSQL sends for one batch: the set, or else each transaction, and each statement.
fn batch_answer(requests: &[Request], config: &Config) -> Vec<u8> {
    let statements = requests.iter().filter(|request| **request == Request::Statement).count();
    let transactions = requests.len() - statements;
    let is_set = transactions >= config.group_calls_min;
    assert!(requests.len() <= config.batch_calls_max, "a round is one batch");
    assert!(is_set || statements == 0 || transactions == 0, "a mixed batch has its transactions in a set");

    let mut answer =
        if is_set { set_answer(transactions) } else { transaction_answer().repeat(transactions) };
    answer.extend(statement_answer().repeat(statements));
    answer.extend(idle());
    answer
}

/// The answer to one transaction that is sent by itself.
pub fn transaction_answer() -> Vec<u8> {
    call_answer(&[&BALANCE_CENTS.to_be_bytes(), &LIMIT_CENTS.to_be_bytes()])
}

fn set_answer(transactions: usize) -> Vec<u8> {
    let (balances, limits) = (int8_array(BALANCE_CENTS, transactions), int8_array(LIMIT_CENTS, transactions));
    call_answer(&[&balances, &limits])
}

fn statement_answer() -> Vec<u8> {
    let mut jsonb = String::from(
        "\u{1}{\"saldo\": {\"total\": -9098, \"limite\": 1000000, \
         \"data_extrato\": \"2024-01-17T02:34:41.217753Z\"}, \"ultimas_transacoes\": [",
    );
    for number in 0..10 {
        let separator = if number == 0 { "" } else { ", " };
        write!(
            jsonb,
            "{separator}{{\"tipo\": \"c\", \"valor\": 1000, \"descricao\": \"deposito\", \
             \"realizada_em\": \"2024-01-17T02:34:38.54303{number}Z\"}}"
        )
        .expect("writing to memory does not fail");
    }
    jsonb.push_str("]}");
    call_answer(&[jsonb.as_bytes()])
}

/// `ParseComplete`, and the types of the parameters and of the result.
fn prepared_answer(statement: &Statement<'_>) -> Vec<u8> {
    let count = |len: usize| u16::try_from(len).expect("a few types").to_be_bytes();
    let mut parameters = count(statement.parameter_types.len()).to_vec();
    parameters.extend(statement.parameter_types.iter().flat_map(|oid| oid.to_be_bytes()));
    let types = statement.column_types.expect("every result is checked");
    let mut columns = count(types.len()).to_vec();
    for oid in types {
        // A name, and between zeros the type.
        columns.extend([&b"a\0\0\0\0\0\0\0"[..], &oid.to_be_bytes(), &[0; 8]].concat());
    }
    [message(b'1', b""), message(b't', &parameters), message(b'T', &columns)].concat()
}

/// `BindComplete`, the one row of a procedure, `CommandComplete`.
fn call_answer(columns: &[&[u8]]) -> Vec<u8> {
    [message(b'2', b""), row(columns), message(b'C', b"SELECT 1\0")].concat()
}

/// `ReadyForQuery`: the batch is committed.
pub fn idle() -> Vec<u8> {
    message(b'Z', b"I")
}

/// A backend message.
///
/// Format: PostgreSQL documentation, "Frontend/Backend Protocol", section Message Formats.
///
/// # Panics
/// If it is as long as 4 GiB.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend(u32::try_from(body.len() + 4).expect("a short message").to_be_bytes());
    bytes.extend(body);
    bytes
}

fn row(columns: &[&[u8]]) -> Vec<u8> {
    let mut body = u16::try_from(columns.len()).expect("a few columns").to_be_bytes().to_vec();
    for column in columns {
        body.extend(u32::try_from(column.len()).expect("a short column").to_be_bytes());
        body.extend(*column);
    }
    message(b'D', &body)
}

/// A `bigint[]` of one number many times: dimensions, NULLs, oid 20, length, lower bound; length and bytes of each.
fn int8_array(element: i64, len: usize) -> Vec<u8> {
    let len = i32::try_from(len).expect("a short array");
    let mut bytes: Vec<u8> =
        [1, 0, 20, len, 1].iter().flat_map(|number: &i32| number.to_be_bytes()).collect();
    for _ in 0..len {
        bytes.extend(8i32.to_be_bytes());
        bytes.extend(element.to_be_bytes());
    }
    bytes
}

fn lane(engine: &mut Engine) -> &mut Lane {
    &mut engine.lanes()[0]
}

/// The socket takes all that is pending.
fn send_all(pipe: &mut impl Pipe) {
    pipe.send_advance(pipe.send_pending().len());
}

/// The socket gives these bytes at once.
fn receive(pipe: &mut impl Pipe, bytes: &[u8]) {
    pipe.recv_space()[..bytes.len()].copy_from_slice(bytes);
    pipe.recv_commit(bytes.len());
}

/// How many of the messages have this tag.
fn count_messages(mut bytes: &[u8], tag: u8) -> usize {
    let mut count = 0;
    while let Some((head, _body)) = bytes.split_first_chunk::<5>() {
        count += usize::from(head[0] == tag);
        let len_bytes = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        bytes = &bytes[1 + usize::try_from(len_bytes).expect("a short message")..];
    }
    count
}
