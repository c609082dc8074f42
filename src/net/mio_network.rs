//! SHELL: the network of the operating system: TCP and Unix sockets, registered with `Poll`.

use std::io;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use mio::event::Event;
use mio::{Registry, Token};
use proto_pg::{Connection, Host};

use crate::config::TcpOptions;
use crate::engine::lane::{Asked, Attempt};
use crate::net::connector::{Link, Progress};
use crate::net::network::Network;
use crate::net::resolver::Resolver;
use crate::net::socket::{Listener, Stream};
use crate::net::stream::Watched;
use crate::net::token::Source;
use crate::now::Now;
use crate::slots::Slot;

/// The sockets' registry and the links of the lanes.
#[derive(Debug)]
pub struct System {
    registry: Registry,
    resolver: Resolver,
    /// For the lanes that connect over TCP.
    tcp_options: TcpOptions,
    /// The socket of each lane.
    links: Vec<Link>,
    /// When the monotonic clock started.
    start: Instant,
    looked_us: u64,
}

impl System {
    /// A network for this many lanes.
    pub fn new(registry: Registry, resolver: Resolver, tcp_options: TcpOptions, lanes: usize) -> System {
        System {
            registry,
            resolver,
            tcp_options,
            links: (0..lanes).map(Link::new).collect(),
            start: Instant::now(),
            looked_us: 0,
        }
    }

    /// A look at the sockets begins: deadlines that have passed by now may be acted on after it.
    pub fn begin_look(&mut self) -> Now {
        let now = self.now();
        self.looked_us = now.monotonic_us;
        Now { looked_us: self.looked_us, ..now }
    }

    /// Adds what an event says about a lane's socket.
    pub fn lane_event(&mut self, lane: usize, event: &Event) {
        if let Some(link) = self.links.get_mut(lane) {
            link.record(event);
        }
    }
}

impl Network for System {
    type Listener = Listener;
    type Accepted = Stream;
    type Stream = Watched;

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

    fn watch(&mut self, accepted: Stream, slot: Slot) -> io::Result<Watched> {
        Watched::new(accepted, &self.registry, Token::from(Source::Client(slot)))
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }

    fn connect(&mut self, lane: usize, hosts: &[Host], attempt: Attempt) -> io::Result<()> {
        self.links[lane].connect(hosts, attempt, &self.resolver, &self.registry)
    }

    fn poll_connected(&mut self, hosts: &[Host]) -> Option<(usize, io::Result<()>)> {
        while let Some(answer) = self.resolver.poll_answer() {
            let lane = answer.lane;
            if let Err(error) = self.links[lane].resolved(answer, hosts, &self.registry) {
                return Some((lane, Err(error)));
            }
        }
        self.links.iter_mut().enumerate().find_map(|(lane, link)| {
            match link.poll_connected(&self.registry, &self.tcp_options) {
                Progress::Pending => None,
                Progress::Connected => Some((lane, Ok(()))),
                Progress::Failed(error) => Some((lane, Err(error))),
            }
        })
    }

    fn is_lane_readable(&self, lane: usize) -> bool {
        self.links[lane].is_readable()
    }

    fn receive_for_lane(&mut self, lane: usize, connection: &mut Connection<Asked>, budget_bytes: usize) {
        self.links[lane].receive(connection, budget_bytes);
    }

    fn send_for_lane(&mut self, lane: usize, connection: &mut Connection<Asked>) {
        self.links[lane].send(connection, &self.registry);
    }

    fn disconnect(&mut self, lane: usize) {
        self.links[lane].close();
    }
}
