//! SHELL: the network of the operating system: TCP and Unix sockets, registered with `Poll`.

use std::io;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use mio::event::Event;
use mio::{Registry, Token};
use proto_pg::{Endpoint, TcpOptions};

use crate::net::connector::Connector;
use crate::net::network::{Connected, Network};
use crate::net::resolver::Resolver;
use crate::net::socket::{Listener, Stream};
use crate::net::stream::RegisteredStream;
use crate::net::token::Source;
use crate::now::Now;
use crate::slots::Slot;

/// The registry of `Poll`, and what connects the lanes.
#[derive(Debug)]
pub struct MioNetwork {
    registry: Registry,
    resolver: Resolver,
    /// One for each lane.
    connectors: Vec<Connector>,
    /// When the monotonic clock started.
    start: Instant,
    /// When the last poll began.
    looked_us: u64,
}

impl MioNetwork {
    /// A network for this many lanes.
    pub fn new(registry: Registry, resolver: Resolver, lanes: usize) -> MioNetwork {
        MioNetwork {
            registry,
            resolver,
            connectors: (0..lanes).map(Connector::new).collect(),
            start: Instant::now(),
            looked_us: 0,
        }
    }

    /// To be called before each `epoll_wait`, the *poll*: deadlines that have passed by now may be acted on after it.
    pub fn begin_poll(&mut self) -> Now {
        let now = self.now();
        self.looked_us = now.monotonic_us;
        Now { looked_us: self.looked_us, ..now }
    }

    /// Passes on an event of a lane's socket that is connecting.
    pub fn connect_event(&mut self, lane: usize, event: &Event) {
        if let Some(connector) = self.connectors.get_mut(lane) {
            connector.record(event);
        }
    }
}

impl Network for MioNetwork {
    type Listener = Listener;
    type Accepted = Stream;
    type Stream = RegisteredStream;

    fn now(&self) -> Now {
        Now {
            monotonic_us: u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX),
            looked_us: self.looked_us,
            unix_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        }
    }

    fn accept(&mut self, listener: &mut Listener) -> io::Result<Stream> {
        listener.accept()
    }

    fn register(&mut self, accepted: Stream, slot: Slot) -> io::Result<RegisteredStream> {
        RegisteredStream::new(accepted, &self.registry, Token::from(Source::Client(slot)))
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }

    fn resolve(&mut self, lane: usize, name: &str, port: u16) -> io::Result<()> {
        self.connectors[lane].resolve(name, port, &self.resolver)
    }

    fn connect(&mut self, lane: usize, endpoint: &Endpoint, tcp: TcpOptions) -> io::Result<()> {
        self.connectors[lane].connect(endpoint, tcp, &self.registry)
    }

    fn poll_connected(&mut self) -> Option<(usize, io::Result<Connected<RegisteredStream>>)> {
        while let Some(answer) = self.resolver.poll_answer() {
            let lane = answer.lane;
            if let Some(addresses) = self.connectors[lane].resolved(answer) {
                return Some((lane, addresses.map(Connected::Addresses)));
            }
        }
        self.connectors.iter_mut().enumerate().find_map(|(lane, connector)| {
            Some((lane, connector.poll_connected(&self.registry)?.map(Connected::Stream)))
        })
    }

    fn abandon_connect(&mut self, lane: usize) {
        self.connectors[lane].abandon();
    }
}
