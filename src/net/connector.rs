//! SHELL: resolves and connects a lane's socket.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use mio::event::Event;
use mio::{Registry, Token};
use proto_pg::Host;

use crate::config::TcpOptions;
use crate::engine::lane::Attempt;
use crate::net::resolver::{Answer, Resolver};
use crate::net::socket::Stream;
use crate::net::stream::{ConnectingStream, RegisteredStream};
use crate::net::token::Source;

/// One lane's attempts to connect, one at a time.
#[derive(Debug)]
pub struct Connector {
    lane: usize,
    state: State,
    /// Counts attempts, so that an answer to the look-up of an earlier one can be told apart.
    attempts: u64,
    /// The position of the host of the last attempt.
    host: usize,
    /// The addresses of that host which are still to be tried.
    addresses: VecDeque<SocketAddr>,
    /// Host and address of the last attempt, for the text of an error.
    target: String,
}

#[derive(Debug)]
enum State {
    Idle,
    Resolving,
    Connecting(ConnectingStream),
}

impl Connector {
    /// For the lane at this position; idle.
    pub fn new(lane: usize) -> Connector {
        Connector {
            lane,
            state: State::Idle,
            attempts: 0,
            host: 0,
            addresses: VecDeque::new(),
            target: String::new(),
        }
    }

    /// Abandons the attempt, if there is one.
    pub fn abandon(&mut self) {
        self.state = State::Idle;
    }

    /// Adds what an event says about the socket that is connecting.
    pub fn record(&mut self, event: &Event) {
        if let State::Connecting(stream) = &mut self.state {
            stream.record(event);
        }
    }

    /// Begins an attempt. As in libpq, all addresses of a host are tried before the next host, and the last host is
    /// followed by the first.
    ///
    /// # Errors
    /// It failed at once; the connector is idle. The text names host and address.
    pub fn connect(
        &mut self,
        hosts: &[Host],
        attempt: Attempt,
        resolver: &Resolver,
        registry: &Registry,
    ) -> io::Result<()> {
        self.attempts += 1;
        self.state = State::Idle;
        match attempt {
            Attempt::First => {
                self.host = 0;
                self.addresses.clear();
            }
            Attempt::Next if self.addresses.is_empty() => self.host = (self.host + 1) % hosts.len(),
            Attempt::Next => return self.start_tcp(&hosts[self.host], registry),
        }
        match &hosts[self.host] {
            Host::Unix { socket_path } => {
                self.target.clone_from(socket_path);
                let stream = Stream::connect_unix(Path::new(socket_path));
                self.start(stream, registry)
            }
            host @ Host::Tcp { name, address, port } => {
                match address.as_ref().unwrap_or(name).parse::<IpAddr>() {
                    Ok(address) => {
                        self.addresses.push_back(SocketAddr::new(address, *port));
                        self.start_tcp(host, registry)
                    }
                    Err(_not_an_address) => {
                        self.target = format!("{name}:{port}");
                        if resolver.ask(self.lane, self.attempts, name, *port) {
                            self.state = State::Resolving;
                            Ok(())
                        } else {
                            let problem = "earlier name look-ups have not come back";
                            Err(self.named(&io::Error::new(io::ErrorKind::WouldBlock, problem)))
                        }
                    }
                }
            }
        }
    }

    /// Which of the hosts the last attempt went to.
    pub fn host(&self) -> usize {
        self.host
    }

    /// Goes on with the addresses of a name. An answer to an earlier attempt is dropped.
    ///
    /// # Errors
    /// The name has no address, or connecting failed at once; the connector is idle. The text names host and address.
    pub fn resolved(&mut self, answer: Answer, hosts: &[Host], registry: &Registry) -> io::Result<()> {
        if answer.attempt != self.attempts || !matches!(self.state, State::Resolving) {
            return Ok(());
        }
        self.state = State::Idle;
        self.addresses = answer.addresses.map_err(|error| self.named(&error))?.into();
        self.start_tcp(&hosts[self.host], registry)
    }

    /// The connected socket, or why there is none, once the attempt has ended.
    pub fn poll_connected(
        &mut self,
        registry: &Registry,
        options: &TcpOptions,
    ) -> Option<io::Result<RegisteredStream>> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Connecting(stream) if stream.has_ended() => {
                Some(stream.finish(registry, options).map_err(|error| self.named(&error)))
            }
            state => {
                self.state = state;
                None
            }
        }
    }

    /// Begins to connect to the next address of the host.
    fn start_tcp(&mut self, host: &Host, registry: &Registry) -> io::Result<()> {
        let Some(address) = self.addresses.pop_front() else {
            return Err(self.named(&io::Error::new(io::ErrorKind::NotFound, "the name has no address")));
        };
        self.target = match host {
            Host::Tcp { name, .. } if name.parse::<IpAddr>().is_err() => format!("{name}, {address}"),
            Host::Tcp { .. } | Host::Unix { .. } => address.to_string(),
        };
        self.start(Stream::connect_tcp(address), registry)
    }

    fn start(&mut self, stream: io::Result<Stream>, registry: &Registry) -> io::Result<()> {
        let position = u32::try_from(self.lane).unwrap_or(u32::MAX);
        let token = Token::from(Source::Lane(position));
        let connecting = stream.and_then(|stream| ConnectingStream::new(stream, registry, token));
        self.state = State::Connecting(connecting.map_err(|error| self.named(&error))?);
        Ok(())
    }

    /// The error with the place where it happened.
    fn named(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.target))
    }
}

#[cfg(test)]
mod tests;
