//! Many more clients at once than the bank lets in: each connects, asks once, and leaves with its answer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::allow_descriptors;
use super::open::{Arrived, OpenRun, PolledConnection, Span, conclude, unanswered};
use crate::Error;
use crate::wait::Interrupt;

/// The crowd, before it comes.
#[derive(Debug, Clone)]
pub struct Crowd {
    /// The bank.
    pub address: SocketAddr,
    /// How many come at once.
    pub clients: usize,
    /// The number of the first one's request: numbers are in the ledger, so no two loads may share any.
    pub first_number: u64,
    /// How long they wait.
    pub patience: Duration,
}

impl Crowd {
    /// Returns when each of them has its answer or has lost its patience.
    pub fn run(&self, interrupt: &Interrupt) -> Result<OpenRun, Error> {
        allow_descriptors(self.clients as u64 + DESCRIPTORS_BESIDE)?;
        let mut poll = Poll::new().map_err(Error::io("make an epoll"))?;
        let mut events = Events::with_capacity(1024);
        let began = Instant::now();
        let mut clients = Vec::with_capacity(self.clients);
        let mut run = OpenRun::default();
        for index in 0..self.clients {
            let client = self.connect(&poll, index);
            clients.push(Some(client.map_err(Error::io(format!("connect to {}", self.address)))?));
            run.records.push(unanswered(self.first_number + index as u64, Instant::now()));
        }
        let mut waiting = self.clients;
        while waiting > 0 && began.elapsed() < self.patience {
            if interrupt.is_raised() {
                return Err(Error::Interrupted);
            }
            let polled = poll.poll(&mut events, Some(TICK));
            if let Err(error) = polled
                && error.kind() != std::io::ErrorKind::Interrupted
            {
                return Err(Error::io("wait for answers")(error));
            }
            for event in &events {
                let index = event.token().0;
                let Some(client) = &mut clients[index] else { continue };
                if event.is_writable() && client.asked.is_none() {
                    client.ask(index, &run.records[index]);
                }
                let answer = match client.read() {
                    Arrived::Part => continue,
                    Arrived::Answer(answer) => Some(answer),
                    Arrived::End => None,
                };
                conclude(&mut run.records[index], answer.as_ref());
                // It leaves.
                clients[index] = None;
                waiting -= 1;
            }
        }
        run.spans = vec![Span { began, ended: Instant::now(), positions: 0..self.clients }];
        Ok(run)
    }

    /// Begins to connect; a writable event tells when it is done.
    fn connect(&self, poll: &Poll, index: usize) -> std::io::Result<PolledConnection> {
        let mut stream = TcpStream::connect(self.address)?;
        poll.registry().register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        Ok(PolledConnection::over(stream))
    }
}

const TICK: Duration = Duration::from_millis(100);
const DESCRIPTORS_BESIDE: u64 = 200;
