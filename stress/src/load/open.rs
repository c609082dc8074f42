//! An open-loop load: requests come when they are due, whether or not the bank keeps up, over connections that stay. One
//! thread and one `epoll`, so that it can ask ten times what the bank can do on the same two processors.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::Error;
use crate::wait::Interrupt;

/// So many requests a second for so long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Phase {
    /// What these requests are for, in reports.
    pub name: &'static str,
    /// Requests that become due per second; `None`: the next one as soon as a connection is free, which is a closed loop.
    pub rate_per_s: Option<f64>,
    /// How long.
    pub duration: Duration,
}

/// What a request was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Nothing by the end of the load's patience, or its connection ended before the answer did.
    Nothing,
    /// 200 or 422: the bank did what it is there for.
    Served(u16),
    /// 503 with the word that nothing was done.
    Refused,
    /// 503 with the word that nobody knows.
    InDoubt,
    /// Any other status.
    Other(u16),
}

/// One request, whose number is its position among all.
#[derive(Debug, Clone, Copy)]
pub struct Record {
    /// The phase that it is of.
    pub phase: usize,
    /// When the load took it up, in microseconds since the load began. This is when it came, even if no connection was
    /// free at that moment.
    pub asked_us: u64,
    /// From then to the end of its answer.
    pub latency_us: u64,
    /// What it was told.
    pub told: Told,
}

/// What came of a load.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Every request that came.
    pub records: Vec<Record>,
    /// When each phase began and ended, in microseconds since the load began.
    pub spans_us: Vec<(u64, u64)>,
    /// How late the load took requests up, measured from when they were due, in microseconds; not in closed loops.
    pub lateness_us: Vec<u64>,
}

/// The load, before it runs.
#[derive(Debug, Clone)]
pub struct OpenLoop {
    /// The bank.
    pub address: SocketAddr,
    /// Connections, which all stay; with each of them busy, requests wait their turn.
    pub connections: usize,
    /// The number of the first request: numbers are in the ledger, so no two loads may share any.
    pub first_number: u64,
    /// One after another, without a pause.
    pub phases: Vec<Phase>,
}

impl OpenLoop {
    /// Runs it. Returns when every request has been answered, or `PATIENCE` after the last one came.
    ///
    /// # Errors
    /// The bank cannot be connected to, or `interrupt` was raised.
    pub fn run(&self, interrupt: &Interrupt) -> Result<Tally, Error> {
        let broken = |attempt: &str| Error::io(format!("{attempt} {}", self.address));
        let mut running = Running::start(self).map_err(broken("connect to"))?;
        for phase in 0..self.phases.len() {
            running.run_phase(phase, interrupt)?;
        }
        running.finish(interrupt)?;
        Ok(running.tally)
    }
}

struct Running<'a> {
    load: &'a OpenLoop,
    poll: Poll,
    events: Events,
    begun: Instant,
    connections: Vec<Connection>,
    free: VecDeque<usize>,
    /// Requests that came while no connection was free.
    waiting: VecDeque<usize>,
    unanswered: usize,
    tally: Tally,
    request: Vec<u8>,
}

/// One connection, with at most one request under way.
pub(super) struct Connection {
    stream: TcpStream,
    /// The position of the request that is under way.
    pub(super) asked: Option<usize>,
    unread: Vec<u8>,
}

impl<'a> Running<'a> {
    fn start(load: &'a OpenLoop) -> io::Result<Running<'a>> {
        let poll = Poll::new()?;
        let connect = |index| Connection::open(load.address, &poll, index);
        let connections = (0..load.connections).map(connect).collect::<io::Result<Vec<_>>>()?;
        Ok(Running {
            load,
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            begun: Instant::now(),
            free: (0..connections.len()).collect(),
            connections,
            waiting: VecDeque::new(),
            unanswered: 0,
            tally: Tally::default(),
            request: Vec::new(),
        })
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn run_phase(&mut self, phase: usize, interrupt: &Interrupt) -> Result<(), Error> {
        let Phase { rate_per_s, duration, .. } = self.load.phases[phase];
        let from_us = self.now_us();
        let to_us = from_us + u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let mut came: u32 = 0;
        loop {
            let now_us = self.now_us();
            if now_us >= to_us {
                break;
            }
            if interrupt.is_raised() {
                return Err(Error::Interrupted);
            }
            let next_us = match rate_per_s {
                None => {
                    while !self.free.is_empty() {
                        self.ask(phase, now_us);
                    }
                    to_us
                }
                Some(rate_per_s) => loop {
                    let due_us = from_us + micros(f64::from(came) / rate_per_s);
                    if due_us > now_us {
                        break due_us;
                    }
                    self.tally.lateness_us.push(now_us - due_us);
                    self.ask(phase, now_us);
                    came += 1;
                },
            };
            self.receive(next_us.min(to_us).saturating_sub(now_us))?;
        }
        self.tally.spans_us.push((from_us, to_us));
        Ok(())
    }

    /// Waits for what is still unanswered.
    fn finish(&mut self, interrupt: &Interrupt) -> Result<(), Error> {
        let until = Instant::now() + PATIENCE;
        while self.unanswered > 0 && Instant::now() < until {
            if interrupt.is_raised() {
                return Err(Error::Interrupted);
            }
            self.receive(100_000)?;
        }
        Ok(())
    }

    /// A request comes.
    fn ask(&mut self, phase: usize, now_us: u64) {
        self.waiting.push_back(self.tally.records.len());
        self.tally.records.push(Record { phase, asked_us: now_us, latency_us: 0, told: Told::Nothing });
        self.unanswered += 1;
        self.send_waiting();
    }

    fn send_waiting(&mut self) {
        while !self.waiting.is_empty()
            && let Some(index) = self.free.pop_front()
            && let Some(position) = self.waiting.pop_front()
        {
            write_request(self.load.first_number + position as u64, &mut self.request);
            if !self.connections[index].ask(position, &self.request) {
                self.replace(index);
            }
        }
    }

    fn receive(&mut self, timeout_us: u64) -> Result<(), Error> {
        match self.poll.poll(&mut self.events, Some(Duration::from_micros(timeout_us))) {
            Err(error) if error.kind() != ErrorKind::Interrupted => {
                return Err(Error::io("wait for answers")(error));
            }
            Ok(()) | Err(_) => {}
        }
        let ready: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
        for index in ready {
            match self.connections[index].read() {
                Arrived::Part => {}
                Arrived::Answer { told, is_last } => {
                    self.end(index, told);
                    if is_last { self.replace(index) } else { self.free.push_back(index) }
                }
                Arrived::End => self.replace(index),
            }
        }
        self.send_waiting();
        Ok(())
    }

    fn end(&mut self, index: usize, told: Told) {
        let Some(position) = self.connections[index].asked.take() else { return };
        let now_us = self.now_us();
        let record = &mut self.tally.records[position];
        record.told = told;
        record.latency_us = now_us - record.asked_us;
        self.unanswered -= 1;
    }

    /// A new connection in the place of one that has ended. What was under way on it has no answer.
    fn replace(&mut self, index: usize) {
        self.end(index, Told::Nothing);
        // If that fails, it stays out of use: the others go on, and what they cannot do waits.
        if let Ok(connection) = Connection::open(self.load.address, &self.poll, index) {
            self.connections[index] = connection;
            self.free.push_back(index);
        }
    }
}

/// What a look at a connection found.
pub(super) enum Arrived {
    /// There is more to come.
    Part,
    Answer {
        told: Told,
        /// The bank closes the connection behind it.
        is_last: bool,
    },
    /// The connection is of no use any more.
    End,
}

impl Connection {
    fn open(address: SocketAddr, poll: &Poll, index: usize) -> io::Result<Connection> {
        let stream = std::net::TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
        Ok(Connection::over(stream))
    }

    pub(super) fn over(stream: TcpStream) -> Connection {
        Connection { stream, asked: None, unread: Vec::new() }
    }

    /// Sends the request of this position. One small request at a time always finds room; if not, the connection is
    /// broken.
    pub(super) fn ask(&mut self, position: usize, request: &[u8]) -> bool {
        self.asked = Some(position);
        self.stream.write(request).is_ok_and(|n| n == request.len())
    }

    /// Reads until nothing more is there: events are told once.
    pub(super) fn read(&mut self) -> Arrived {
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Arrived::End,
                Ok(n) => self.unread.extend_from_slice(&bytes[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Arrived::End,
            }
        }
        match answer(&self.unread) {
            None => Arrived::Part,
            // Only what was asked is answered, one at a time.
            Some((_, len_bytes, _)) if len_bytes < self.unread.len() || self.asked.is_none() => Arrived::End,
            Some((told, _, is_last)) => {
                self.unread.clear();
                Arrived::Answer { told, is_last }
            }
        }
    }
}

/// One whole answer at the start of `bytes`: what it says, how long it is, and whether the connection ends with it.
/// Format: RFC 9112, "HTTP/1.1", as the bank writes it: field names in their usual case, and a `Content-Length`.
fn answer(bytes: &[u8]) -> Option<(Told, usize, bool)> {
    let head_len = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = str::from_utf8(&bytes[..head_len]).ok()?;
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let len_bytes = head_len + field("Content-Length")?.parse::<usize>().ok()?;
    let body = bytes.get(head_len..len_bytes)?;
    let told = match head.get(9..12)?.parse().ok()? {
        status @ (200 | 422) => Told::Served(status),
        503 if body.ends_with(b"nothing was done\"}") => Told::Refused,
        503 => Told::InDoubt,
        status => Told::Other(status),
    };
    Some((told, len_bytes, field("Connection") == Some("close")))
}

/// Whether the request of this number is a transaction; the others are statements. As often as in the challenge.
pub fn is_transaction(number: u64) -> bool {
    number % 34 != 33
}

/// The description of the transaction of this number, which no other has.
pub fn description(number: u64) -> String {
    format!("{number:010}")
}

/// Credits and debits of one cent in turns: no limit is ever reached, so all of them change the ledger.
pub(super) fn write_request(number: u64, into: &mut Vec<u8>) {
    into.clear();
    let account = number % 5 + 1;
    // Writing to memory does not fail.
    let _ = if is_transaction(number) {
        let kind = if (number / 5).is_multiple_of(2) { 'c' } else { 'd' };
        let description = description(number);
        write!(
            into,
            "POST /clientes/{account}/transacoes HTTP/1.1\r\nHost: bank\r\nContent-Length: 47\r\n\r\n\
             {{\"valor\":1,\"tipo\":\"{kind}\",\"descricao\":\"{description}\"}}"
        )
    } else {
        write!(into, "GET /clientes/{account}/extrato HTTP/1.1\r\nHost: bank\r\n\r\n")
    };
}

/// Whole microseconds of a time that is not negative.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a load takes minutes, not ages")]
fn micros(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}

/// How long answers are waited for once no more requests come.
const PATIENCE: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const EVENTS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_from_its_last_byte_on() {
        let served = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(answer(served), Some((Told::Served(200), served.len(), false)));
        for len in 0..served.len() {
            assert_eq!(answer(&served[..len]), None, "{len} bytes");
        }
        let refusal = |text: &str| {
            let body = format!("{{\"erro\": \"{text}\"}}");
            format!(
                "HTTP/1.1 503 Service Unavailable\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            )
        };
        let refused = refusal("too many requests wait; nothing was done");
        assert_eq!(answer(refused.as_bytes()), Some((Told::Refused, refused.len(), true)));
        let in_doubt = refusal("whether it was done is not known");
        assert_eq!(answer(in_doubt.as_bytes()), Some((Told::InDoubt, in_doubt.len(), true)));
    }

    #[test]
    fn a_request_says_its_length() {
        let mut request = Vec::new();
        for number in [0, 7, 9_999_999_999] {
            write_request(number, &mut request);
            let text = String::from_utf8(request.clone()).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{text}");
            assert!(body.contains(&description(number)), "{text}");
        }
        write_request(33, &mut request);
        assert!(request.starts_with(b"GET /clientes/4/extrato HTTP/1.1\r\n"));
    }
}
