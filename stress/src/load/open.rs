//! Loads whose requests come when they are due, whether or not the bank keeps up: an open loop over connections that stay, and
//! a crowd that comes at once. One thread and one `epoll`, so that it can ask ten times what the bank can do on the same two
//! processors.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Poll, Token};

use super::traffic::{Asked, Outcome, Record};
use super::{Watch, allow_descriptors};
use crate::Error;
use crate::http::Answer;
use crate::wait::Interrupt;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Phase {
    pub name: &'static str,
    /// Requests that become due per second; `None`: the next one as soon as a connection is free, which is a closed loop.
    pub rate_per_s: Option<f64>,
    pub duration: Duration,
}

#[derive(Debug, Clone, Default)]
pub struct OpenRun {
    /// Every request that came, in order. The time when it was sent is the one when the load took it up, even if no connection
    /// was free at that moment; it is broken if it had no answer by the end of the load's patience.
    pub records: Vec<Record>,
    pub spans: Vec<Span>,
    /// How late the load took requests up, measured from when they were due, in microseconds; not in closed loops.
    pub lateness_us: Vec<u64>,
}

#[derive(Debug, Clone)]
pub struct Span {
    pub began: Instant,
    pub ended: Instant,
    pub positions: Range<usize>,
}

impl OpenRun {
    pub fn of_phase(&self, phase: usize) -> &[Record] {
        &self.records[self.spans[phase].positions.clone()]
    }

    fn take_up(&mut self, number: u64, now: Instant) {
        let (account, asked) = Asked::numbered(number);
        let outcome = Outcome::Broken;
        self.records.push(Record { client: 0, account, asked, sent_at: now, ended_at: now, outcome });
    }

    fn conclude(&mut self, position: usize, answer: Option<&Answer>) {
        let record = &mut self.records[position];
        record.ended_at = Instant::now();
        if let Some(answer) = answer {
            record.outcome = Outcome::of(&record.asked, answer.status, &answer.body);
        }
    }
}

#[derive(Debug, Clone)]
pub struct OpenLoop {
    pub address: SocketAddr,
    /// All of them stay; with each of them busy, requests wait their turn.
    pub connections: usize,
    /// The number of the first request: numbers are in the ledger, so no two loads may share any.
    pub first_number: u64,
    pub phases: Vec<Phase>,
}

impl OpenLoop {
    /// Returns when every request has been answered, or `PATIENCE` after the last one came.
    pub fn run(&self, interrupt: &Interrupt) -> Result<OpenRun, Error> {
        let watch = Watch::new()?;
        let connect = |index| Client::connect(self.address, &watch.poll, index);
        let clients = (0..self.connections).map(connect).collect::<io::Result<Vec<_>>>();
        let mut running = Running {
            load: self,
            clients: clients.map_err(Error::io(format!("connect to {}", self.address)))?,
            watch,
            free: (0..self.connections).collect(),
            waiting: VecDeque::new(),
            unanswered: 0,
            run: OpenRun::default(),
        };
        for phase in &self.phases {
            running.run_phase(*phase, interrupt)?;
        }
        let until = Instant::now() + PATIENCE;
        while running.unanswered > 0 && Instant::now() < until {
            running.receive(TICK, interrupt)?;
        }
        Ok(running.run)
    }
}

struct Running<'a> {
    load: &'a OpenLoop,
    watch: Watch,
    clients: Vec<Client>,
    free: VecDeque<usize>,
    waiting: VecDeque<usize>,
    unanswered: usize,
    run: OpenRun,
}

impl Running<'_> {
    fn run_phase(&mut self, phase: Phase, interrupt: &Interrupt) -> Result<(), Error> {
        let began = Instant::now();
        let ended = began + phase.duration;
        let first = self.run.records.len();
        let mut came: u32 = 0;
        loop {
            let now = Instant::now();
            if now >= ended {
                break;
            }
            let next = match phase.rate_per_s {
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
                    let lateness_us = (now - due).as_micros();
                    self.run.lateness_us.push(u64::try_from(lateness_us).unwrap_or(u64::MAX));
                    self.ask(now);
                    came += 1;
                },
            };
            self.receive(next.min(ended).saturating_duration_since(now), interrupt)?;
        }
        self.run.spans.push(Span { began, ended, positions: first..self.run.records.len() });
        Ok(())
    }

    fn ask(&mut self, now: Instant) {
        let position = self.run.records.len();
        self.waiting.push_back(position);
        self.run.take_up(self.load.first_number + position as u64, now);
        self.unanswered += 1;
        self.send_waiting();
    }

    fn send_waiting(&mut self) {
        while !self.waiting.is_empty()
            && let Some(index) = self.free.pop_front()
            && let Some(position) = self.waiting.pop_front()
        {
            if !self.clients[index].ask(position, &self.run) {
                self.replace(index);
            }
        }
    }

    fn receive(&mut self, timeout: Duration, interrupt: &Interrupt) -> Result<(), Error> {
        let ready: Vec<usize> =
            self.watch.wait(timeout, interrupt)?.iter().map(|event| event.token().0).collect();
        for index in ready {
            match self.clients[index].read() {
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

    fn end(&mut self, index: usize, answer: Option<&Answer>) {
        let Some(position) = self.clients[index].asked.take() else { return };
        self.run.conclude(position, answer);
        self.unanswered -= 1;
    }

    /// A new connection in the place of one that has ended. What was under way on it has no answer.
    fn replace(&mut self, index: usize) {
        self.end(index, None);
        // If that fails, it stays out of use: the others go on, and what they cannot do waits.
        if let Ok(client) = Client::connect(self.load.address, &self.watch.poll, index) {
            self.clients[index] = client;
            self.free.push_back(index);
        }
    }
}

/// Many more clients at once than the bank lets in: each connects, asks once, and leaves with its answer.
#[derive(Debug, Clone)]
pub struct Crowd {
    pub address: SocketAddr,
    pub clients: usize,
    pub first_number: u64,
    pub patience: Duration,
}

impl Crowd {
    pub fn run(&self, interrupt: &Interrupt) -> Result<OpenRun, Error> {
        allow_descriptors(self.clients as u64 + DESCRIPTORS_BESIDE)?;
        let mut watch = Watch::new()?;
        let began = Instant::now();
        let mut clients = Vec::with_capacity(self.clients);
        let mut run = OpenRun::default();
        for index in 0..self.clients {
            // It only begins to connect; a writable event tells when it is done.
            let client =
                TcpStream::connect(self.address).and_then(|stream| Client::over(stream, &watch.poll, index));
            clients.push(Some(client.map_err(Error::io(format!("connect to {}", self.address)))?));
            run.take_up(self.first_number + index as u64, Instant::now());
        }
        let mut waiting = self.clients;
        while waiting > 0 && began.elapsed() < self.patience {
            for event in watch.wait(TICK, interrupt)? {
                let index = event.token().0;
                let Some(client) = &mut clients[index] else { continue };
                if event.is_writable() && client.asked.is_none() {
                    client.ask(index, &run);
                }
                let answer = match client.read() {
                    Arrived::Part => continue,
                    Arrived::Answer(answer) => Some(answer),
                    Arrived::End => None,
                };
                run.conclude(index, answer.as_ref());
                // It leaves.
                clients[index] = None;
                waiting -= 1;
            }
        }
        run.spans = vec![Span { began, ended: Instant::now(), positions: 0..self.clients }];
        Ok(run)
    }
}

struct Client {
    stream: TcpStream,
    /// The position of the request that is under way.
    asked: Option<usize>,
    unread: Vec<u8>,
}

enum Arrived {
    Part,
    Answer(Answer),
    /// The connection is of no use any more.
    End,
}

impl Client {
    fn connect(address: SocketAddr, poll: &Poll, index: usize) -> io::Result<Client> {
        let stream = std::net::TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Client::over(TcpStream::from_std(stream), poll, index)
    }

    fn over(mut stream: TcpStream, poll: &Poll, index: usize) -> io::Result<Client> {
        poll.registry().register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        Ok(Client { stream, asked: None, unread: Vec::new() })
    }

    /// Sends the request of this position. One small request at a time always finds room; if not, the connection is broken.
    fn ask(&mut self, position: usize, run: &OpenRun) -> bool {
        self.asked = Some(position);
        let record = &run.records[position];
        let request = record.asked.request(record.account);
        self.stream.write(&request).is_ok_and(|n| n == request.len())
    }

    fn read(&mut self) -> Arrived {
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

/// How long a connection is waited for, and answers once no more requests come.
const PATIENCE: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(100);
const DESCRIPTORS_BESIDE: u64 = 200;
