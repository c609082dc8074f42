//! SHELL: looks a name up or connects a socket for one lane. `proto_pg::Connector` decides where to connect, and when.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use mio::event::Event;
use mio::{Registry, Token};
use proto_pg::{Endpoint, TcpOptions};

use crate::net::resolver::{Answer, Resolver};
use crate::net::socket::Stream;
use crate::net::stream::{ConnectingStream, RegisteredStream};
use crate::net::token::Source;

/// What is under way for one lane.
#[derive(Debug)]
pub struct Connector {
    lane: usize,
    state: State,
    /// Counts look-ups, so that a late answer to an earlier one is recognised.
    look_ups: u64,
}

#[derive(Debug)]
enum State {
    Idle,
    Resolving,
    Connecting(ConnectingStream, TcpOptions),
}

impl Connector {
    /// An idle connector for the lane at this position.
    pub fn new(lane: usize) -> Connector {
        Connector { lane, state: State::Idle, look_ups: 0 }
    }

    /// Abandons what is under way, if anything is.
    pub fn abandon(&mut self) {
        self.state = State::Idle;
    }

    /// Passes on an event of the socket that is connecting.
    pub fn record(&mut self, event: &Event) {
        if let State::Connecting(stream, _) = &mut self.state {
            stream.record(event);
        }
    }

    /// Begins to look a name up.
    ///
    /// # Errors
    /// Too many look-ups are unanswered; the connector is idle.
    pub fn resolve(&mut self, name: &str, port: u16, resolver: &Resolver) -> io::Result<()> {
        self.look_ups += 1;
        self.state = State::Idle;
        if !resolver.ask(self.lane, self.look_ups, name, port) {
            let problem = "earlier name look-ups have not come back";
            return Err(io::Error::new(io::ErrorKind::WouldBlock, problem));
        }
        self.state = State::Resolving;
        Ok(())
    }

    /// The addresses of a name, or why there are none. `None` for the answer to an earlier look-up.
    pub fn resolved(&mut self, answer: Answer) -> Option<io::Result<Vec<SocketAddr>>> {
        if answer.attempt != self.look_ups || !matches!(self.state, State::Resolving) {
            return None;
        }
        self.state = State::Idle;
        Some(answer.addresses)
    }

    /// Begins to connect.
    ///
    /// # Errors
    /// It failed at once; the connector is idle.
    pub fn connect(&mut self, endpoint: &Endpoint, tcp: TcpOptions, registry: &Registry) -> io::Result<()> {
        self.state = State::Idle;
        let stream = match endpoint {
            Endpoint::Tcp(address) => Stream::connect_tcp(*address),
            Endpoint::Unix(path) => Stream::connect_unix(Path::new(path)),
        }?;
        let token = Token::from(Source::Lane(u32::try_from(self.lane).unwrap_or(u32::MAX)));
        self.state = State::Connecting(ConnectingStream::new(stream, registry, token)?, tcp);
        Ok(())
    }

    /// The connected socket, or why there is none, once the attempt has ended.
    pub fn poll_connected(&mut self, registry: &Registry) -> Option<io::Result<RegisteredStream>> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Connecting(stream, tcp) if stream.has_ended() => Some(stream.finish(registry, &tcp)),
            state => {
                self.state = state;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
