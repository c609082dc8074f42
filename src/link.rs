//! SHELL: the way of a lane to its socket: finds the server's address and connects.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use mio::event::Event;
use mio::{Registry, Token};
use proto_pg::{Connection, Host};

use crate::config::TcpOptions;
use crate::lane::Asked;
use crate::resolver::{Answer, Resolver};
use crate::socket::Stream;
use crate::token::Source;
use crate::watched::{Connecting, Watched};
use crate::wire::Wire;

/// The socket of one lane, from nothing to connected.
#[derive(Debug)]
pub struct Link {
    lane: usize,
    state: State,
    /// Counts attempts: they go through the hosts, and through the addresses of a name, in turn.
    attempt: u64,
}

#[derive(Debug)]
enum State {
    Down,
    Resolving,
    Connecting(Connecting),
    Open(Wire<Watched>),
}

/// What a step of connecting came to.
#[derive(Debug)]
pub enum Progress {
    /// Nothing to report yet.
    Pending,
    /// The socket is connected.
    Connected,
    /// It failed; the link is down.
    Failed(io::Error),
}

impl Link {
    /// A link without a socket, for the lane at this position.
    pub fn new(lane: usize) -> Link {
        Link { lane, state: State::Down, attempt: 0 }
    }

    /// Drops the socket.
    pub fn close(&mut self) {
        self.state = State::Down;
    }

    /// Adds what an event says about the socket.
    pub fn record(&mut self, event: &Event) {
        match &mut self.state {
            State::Connecting(stream) => stream.record(event),
            State::Open(wire) => wire.stream().record(event),
            State::Down | State::Resolving => {}
        }
    }

    /// Begins an attempt with the next host.
    ///
    /// # Errors
    /// It failed at once; the link is down.
    pub fn connect(&mut self, hosts: &[Host], resolver: &Resolver, registry: &Registry) -> io::Result<()> {
        self.attempt += 1;
        match in_turn(hosts, self.attempt) {
            Host::Unix { socket_path } => self.start(Stream::connect_unix(Path::new(socket_path))?, registry),
            Host::Tcp { name, port } => match name.parse::<IpAddr>() {
                Ok(address) => self.start(Stream::connect_tcp(SocketAddr::new(address, *port))?, registry),
                Err(_not_an_address) if resolver.ask(self.lane, self.attempt, name, *port) => {
                    self.state = State::Resolving;
                    Ok(())
                }
                Err(_) => {
                    Err(io::Error::new(io::ErrorKind::WouldBlock, "earlier name look-ups have not come back"))
                }
            },
        }
    }

    /// Goes on with the addresses of a name. An answer to an earlier attempt is dropped.
    ///
    /// # Errors
    /// The name has no address, or connecting failed at once; the link is down.
    pub fn resolved(&mut self, answer: Answer, registry: &Registry) -> io::Result<()> {
        if answer.attempt != self.attempt || !matches!(self.state, State::Resolving) {
            return Ok(());
        }
        self.state = State::Down;
        let addresses = answer.addresses?;
        self.start(Stream::connect_tcp(*in_turn(&addresses, self.attempt))?, registry)
    }

    /// Looks whether connecting has come to an end.
    pub fn poll_connected(&mut self, registry: &Registry, options: &TcpOptions) -> Progress {
        match std::mem::replace(&mut self.state, State::Down) {
            State::Connecting(stream) if stream.has_ended() => match stream.finish(registry, options) {
                Ok(stream) => {
                    self.state = State::Open(Wire::new(stream));
                    Progress::Connected
                }
                Err(error) => Progress::Failed(error),
            },
            state => {
                self.state = state;
                Progress::Pending
            }
        }
    }

    /// As [`Wire::is_readable`]; nothing before there is one.
    pub fn is_readable(&self) -> bool {
        matches!(&self.state, State::Open(wire) if wire.is_readable())
    }

    /// As [`Wire::receive`]; nothing before there is one.
    pub fn receive(&mut self, connection: &mut Connection<Asked>, budget_bytes: usize) {
        if let State::Open(wire) = &mut self.state {
            wire.receive(connection, budget_bytes);
        }
    }

    /// As [`Wire::send`]; nothing before there is one.
    pub fn send(&mut self, connection: &mut Connection<Asked>, registry: &Registry) {
        if let State::Open(wire) = &mut self.state {
            wire.send(connection, registry);
        }
    }

    fn start(&mut self, stream: Stream, registry: &Registry) -> io::Result<()> {
        let position = u32::try_from(self.lane).unwrap_or(u32::MAX);
        let token = Token::from(Source::Lane(position));
        self.state = State::Connecting(Connecting::new(stream, registry, token)?);
        Ok(())
    }
}

/// The element whose turn it is at this attempt, counted from 1. Panics on an empty list, which no caller has.
fn in_turn<T>(all: &[T], attempt: u64) -> &T {
    let position = (attempt - 1) % all.len() as u64;
    &all[usize::try_from(position).unwrap_or_default()]
}
