//! Clients in bad faith: many connections that all do the same wrong thing, until the bank ends them.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Poll, Token};
use serde::{Deserialize, Serialize};

use super::Watch;
use crate::Error;
use crate::wait::Interrupt;

#[derive(Debug, Clone, Default)]
pub struct Attack {
    pub name: &'static str,
    pub connections: usize,
    pub opening: Vec<u8>,
    /// Sent after it, one byte a second, over and over.
    pub drip: Vec<u8>,
    /// Sent after the opening, over and over, as much as the bank takes. Then only a reset is the end: an answer, and the
    /// end of the bank's half, mean nothing to somebody who floods.
    pub flood: Vec<u8>,
    pub reads: bool,
    pub stagger: Duration,
    /// How long the bank lets it go on, from the time when the connection was made.
    pub deadline: Duration,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Endings {
    /// From the beginning of each connection to its end, in microseconds.
    pub times_us: Vec<u64>,
    pub left: usize,
}

struct Attacker {
    stream: TcpStream,
    begun: Instant,
    dripped: usize,
    next_drip: Instant,
    next_flood: Instant,
    flooded: usize,
    is_writable: bool,
    has_ended: bool,
}

impl Attack {
    /// Runs it until every connection has been ended, or for some seconds more than that should take.
    pub fn run(&self, address: SocketAddr, interrupt: &Interrupt) -> Result<Endings, Error> {
        let mut watch = Watch::new()?;
        let mut attackers: Vec<Attacker> = Vec::with_capacity(self.connections);
        let mut endings = Endings::default();
        let begun = Instant::now();
        let until = begun + self.duration() + SPARE;
        while endings.times_us.len() < self.connections && Instant::now() < until {
            while attackers.len() < self.connections
                && begun + self.stagger * u32::try_from(attackers.len()).unwrap_or(u32::MAX) <= Instant::now()
            {
                let attacker = self.connect(address, &watch.poll, attackers.len());
                attackers.push(attacker.map_err(Error::io(format!("connect to {address}")))?);
            }
            for event in watch.wait(TICK, interrupt)? {
                let attacker = &mut attackers[event.token().0];
                attacker.is_writable |= event.is_writable();
                let is_reset = event.is_error() || event.is_write_closed();
                if !attacker.has_ended && self.has_ended(attacker, is_reset) {
                    attacker.has_ended = true;
                    let time_us = attacker.begun.elapsed().as_micros();
                    endings.times_us.push(u64::try_from(time_us).unwrap_or(u64::MAX));
                }
            }
            for attacker in attackers.iter_mut().filter(|attacker| !attacker.has_ended) {
                self.go_on(attacker);
            }
        }
        endings.left = attackers.len() - endings.times_us.len();
        Ok(endings)
    }

    /// From the first connection to when the last one should be ended.
    pub fn duration(&self) -> Duration {
        self.stagger * u32::try_from(self.connections).unwrap_or(u32::MAX) + self.deadline
    }

    fn connect(&self, address: SocketAddr, poll: &Poll, index: usize) -> std::io::Result<Attacker> {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.write_all(&self.opening)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(index), interest)?;
        let now = Instant::now();
        Ok(Attacker {
            stream,
            begun: now,
            dripped: 0,
            next_drip: now + DRIP_INTERVAL,
            next_flood: now,
            flooded: 0,
            is_writable: true,
            has_ended: false,
        })
    }

    fn has_ended(&self, attacker: &mut Attacker, is_reset: bool) -> bool {
        if is_reset {
            return true;
        }
        if !self.reads {
            return false;
        }
        let mut bytes = [0; 4096];
        loop {
            match attacker.stream.read(&mut bytes) {
                Ok(0) => return self.flood.is_empty(),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return true,
            }
        }
    }

    fn go_on(&self, attacker: &mut Attacker) {
        let now = Instant::now();
        if !self.drip.is_empty() && now >= attacker.next_drip {
            let position = attacker.dripped % self.drip.len();
            attacker.write(&self.drip[position..=position]);
            attacker.dripped += 1;
            attacker.next_drip += DRIP_INTERVAL;
        }
        if self.flood.is_empty() || now < attacker.next_flood {
            return;
        }
        attacker.next_flood = now + TICK;
        let mut budget_bytes = FLOOD_BYTES_PER_TICK;
        while attacker.is_writable && budget_bytes > 0 {
            let position = attacker.flooded % self.flood.len();
            let sent_bytes = attacker.write(&self.flood[position..]);
            attacker.flooded += sent_bytes;
            budget_bytes = budget_bytes.saturating_sub(sent_bytes);
        }
    }
}

impl Attacker {
    /// How much was taken. That the connection is gone, its events tell.
    fn write(&mut self, bytes: &[u8]) -> usize {
        self.stream.write(bytes).unwrap_or_else(|_| {
            self.is_writable = false;
            0
        })
    }
}

const DRIP_INTERVAL: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(10);
/// What one connection floods in a tick at most: a few of them together are a fast link, not a benchmark of this machine.
const FLOOD_BYTES_PER_TICK: usize = 16 * 1024;
const SPARE: Duration = Duration::from_secs(4);
