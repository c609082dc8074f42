//! An open-loop load: requests come when they are due, whether or not the bank keeps up, over connections that stay. One
//! thread and one `epoll`, so that it can ask ten times what the bank can do on the same two processors.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::traffic::{Asked, Outcome, Record};
use crate::Error;
use crate::http::Answer;
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

/// What came of a load.
#[derive(Debug, Clone, Default)]
pub struct OpenRun {
    /// Every request that came, in order. The time when it was sent is the one when the load took it up, even if no connection
    /// was free at that moment; it is broken if it had no answer by the end of the load's patience.
    pub records: Vec<Record>,
    /// Each phase.
    pub spans: Vec<Span>,
    /// How late the load took requests up, measured from when they were due, in microseconds; not in closed loops.
    pub lateness_us: Vec<u64>,
}

/// One phase of a load that has run.
#[derive(Debug, Clone)]
pub struct Span {
    /// Its beginning.
    pub began: Instant,
    /// Its end.
    pub ended: Instant,
    /// Its requests among all.
    pub positions: Range<usize>,
}

impl OpenRun {
    /// The requests of a phase.
    pub fn of_phase(&self, phase: usize) -> &[Record] {
        &self.records[self.spans[phase].positions.clone()]
    }
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
    pub fn run(&self, interrupt: &Interrupt) -> Result<OpenRun, Error> {
        let broken = |attempt: &str| Error::io(format!("{attempt} {}", self.address));
        let mut running = Running::start(self).map_err(broken("connect to"))?;
        for phase in &self.phases {
            running.run_phase(*phase, interrupt)?;
        }
        running.finish(interrupt)?;
        Ok(running.run)
    }
}

struct Running<'a> {
    load: &'a OpenLoop,
    poll: Poll,
    events: Events,
    connections: Vec<PolledConnection>,
    free: VecDeque<usize>,
    /// Requests that came while no connection was free.
    waiting: VecDeque<usize>,
    unanswered: usize,
    run: OpenRun,
}

/// One connection, with at most one request under way.
pub(super) struct PolledConnection {
    stream: TcpStream,
    /// The position of the request that is under way.
    pub(super) asked: Option<usize>,
    unread: Vec<u8>,
}

impl<'a> Running<'a> {
    fn start(load: &'a OpenLoop) -> io::Result<Running<'a>> {
        let poll = Poll::new()?;
        let connect = |index| PolledConnection::open(load.address, &poll, index);
        let connections = (0..load.connections).map(connect).collect::<io::Result<Vec<_>>>()?;
        Ok(Running {
            load,
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            free: (0..connections.len()).collect(),
            connections,
            waiting: VecDeque::new(),
            unanswered: 0,
            run: OpenRun::default(),
        })
    }

    fn run_phase(&mut self, phase: Phase, interrupt: &Interrupt) -> Result<(), Error> {
        let Phase { rate_per_s, duration, .. } = phase;
        let began = Instant::now();
        let ended = began + duration;
        let first = self.run.records.len();
        let mut came: u32 = 0;
        loop {
            let now = Instant::now();
            if now >= ended {
                break;
            }
            if interrupt.is_raised() {
                return Err(Error::Interrupted);
            }
            let next = match rate_per_s {
                None => {
                    while !self.free.is_empty() {
                        self.ask(now);
                    }
                    ended
                }
                Some(rate_per_s) => loop {
                    let due = began + Duration::from_secs_f64(f64::from(came) / rate_per_s);
                    if due > now {
                        break due;
                    }
                    self.run.lateness_us.push(micros(now - due));
                    self.ask(now);
                    came += 1;
                },
            };
            self.receive(next.min(ended).saturating_duration_since(now))?;
        }
        self.run.spans.push(Span { began, ended, positions: first..self.run.records.len() });
        Ok(())
    }

    /// Waits for what is still unanswered.
    fn finish(&mut self, interrupt: &Interrupt) -> Result<(), Error> {
        let until = Instant::now() + PATIENCE;
        while self.unanswered > 0 && Instant::now() < until {
            if interrupt.is_raised() {
                return Err(Error::Interrupted);
            }
            self.receive(LAST_WAIT)?;
        }
        Ok(())
    }

    /// A request comes.
    fn ask(&mut self, now: Instant) {
        let position = self.run.records.len();
        self.waiting.push_back(position);
        self.run.records.push(unanswered(self.load.first_number + position as u64, now));
        self.unanswered += 1;
        self.send_waiting();
    }

    fn send_waiting(&mut self) {
        while !self.waiting.is_empty()
            && let Some(index) = self.free.pop_front()
            && let Some(position) = self.waiting.pop_front()
        {
            if !self.connections[index].ask(position, &self.run.records[position]) {
                self.replace(index);
            }
        }
    }

    fn receive(&mut self, timeout: Duration) -> Result<(), Error> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => {
                return Err(Error::io("wait for answers")(error));
            }
            Ok(()) | Err(_) => {}
        }
        let ready: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
        for index in ready {
            match self.connections[index].read() {
                Arrived::Part => {}
                Arrived::Answer(answer) => {
                    self.end(index, Some(&answer));
                    if answer.is_last() { self.replace(index) } else { self.free.push_back(index) }
                }
                Arrived::End => self.replace(index),
            }
        }
        self.send_waiting();
        Ok(())
    }

    /// What was under way on a connection has ended, perhaps with an answer.
    fn end(&mut self, index: usize, answer: Option<&Answer>) {
        let Some(position) = self.connections[index].asked.take() else { return };
        conclude(&mut self.run.records[position], answer);
        self.unanswered -= 1;
    }

    /// A new connection in the place of one that has ended. What was under way on it has no answer.
    fn replace(&mut self, index: usize) {
        self.end(index, None);
        // If that fails, it stays out of use: the others go on, and what they cannot do waits.
        if let Ok(connection) = PolledConnection::open(self.load.address, &self.poll, index) {
            self.connections[index] = connection;
            self.free.push_back(index);
        }
    }
}

/// What a look at a connection found.
pub(super) enum Arrived {
    /// There is more to come.
    Part,
    Answer(Answer),
    /// The connection is of no use any more.
    End,
}

impl PolledConnection {
    fn open(address: SocketAddr, poll: &Poll, index: usize) -> io::Result<PolledConnection> {
        let stream = std::net::TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
        Ok(PolledConnection::over(stream))
    }

    pub(super) fn over(stream: TcpStream) -> PolledConnection {
        PolledConnection { stream, asked: None, unread: Vec::new() }
    }

    /// Sends the request of this position. One small request at a time always finds room; if not, the connection is
    /// broken.
    pub(super) fn ask(&mut self, position: usize, record: &Record) -> bool {
        self.asked = Some(position);
        let request = record.asked.request(record.account);
        self.stream.write(&request).is_ok_and(|n| n == request.len())
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
        match Answer::read(&self.unread) {
            Ok(None) => Arrived::Part,
            Ok(Some((answer, len))) if len == self.unread.len() && self.asked.is_some() => {
                self.unread.clear();
                Arrived::Answer(answer)
            }
            // Only what was asked is answered, one at a time.
            Ok(Some(_)) | Err(_) => Arrived::End,
        }
    }
}

/// The request of this number, before its answer.
pub(super) fn unanswered(number: u64, now: Instant) -> Record {
    let (account, asked) = Asked::numbered(number);
    Record { client: 0, account, asked, sent_at: now, ended_at: now, outcome: Outcome::Broken }
}

/// The end of a request, perhaps with an answer.
pub(super) fn conclude(record: &mut Record, answer: Option<&Answer>) {
    record.ended_at = Instant::now();
    if let Some(answer) = answer {
        record.outcome = Outcome::of(&record.asked, answer.status, &answer.body);
    }
}

/// Whole microseconds.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// How long answers are waited for once no more requests come.
const PATIENCE: Duration = Duration::from_secs(5);
/// From one look at the interrupt to the next.
const LAST_WAIT: Duration = Duration::from_millis(100);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const EVENTS_MAX: usize = 1024;
