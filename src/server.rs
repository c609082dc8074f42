//! SHELL: the turn: wait, receive, advance, send, reap. Owns the sockets, `Poll`, the clock and the signals, and knows
//! no protocol: it moves bytes between sockets and the engine's byte pipes.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::{Events, Poll, Token, Waker};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

use crate::api::Face;
use crate::buf::Pipe as _;
use crate::client::AfterSend;
use crate::config::{Address, Config};
use crate::engine::Engine;
use crate::link::{Link, Progress};
use crate::now::Now;
use crate::pump::Fill;
use crate::resolver::Resolver;
use crate::slots::Slot;
use crate::socket::{Listener, Stream};
use crate::token::Source;
use crate::watched::Watched;

/// One instance of the server, bound to its addresses.
pub struct Server {
    poll: Poll,
    events: Events,
    clock: Clock,
    signals: Signals,
    resolver: Resolver,
    listeners: Vec<Listening>,
    /// The socket of each client, at the index of its slot.
    peers: Vec<Option<Peer>>,
    /// The socket of each lane.
    links: Vec<Link>,
    engine: Engine,
    /// Out of descriptors or memory: nothing is accepted before this time, or before a client leaves.
    accept_again_at_us: u64,
    /// When the next failure to accept is worth a line in the log.
    warn_again_at_us: u64,
    /// The clients of the current stage; kept so that no turn allocates.
    due: Vec<Slot>,
    /// Clients whose sockets are dropped when the turn ends.
    closing: Vec<Slot>,
    /// Signals that were caught.
    stops: u32,
}

struct Listening {
    /// Tells its events from those of the others, some of which may have been closed.
    position: u32,
    listener: Listener,
    face: Face,
    is_ready: bool,
}

struct Peer {
    slot: Slot,
    stream: Watched,
}

struct Clock {
    start: Instant,
}

impl Clock {
    fn now(&self) -> Now {
        Now {
            monotonic_us: u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX),
            unix_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        }
    }
}

/// How long nothing is accepted after the system had no descriptor or memory left, if no client leaves before.
const ACCEPT_PAUSE_MS: u64 = 100;
/// How long the log is silent after a line about a failed accept.
const WARN_INTERVAL_MS: u64 = 10_000;

impl Server {
    /// Binds every address and gets ready to run.
    ///
    /// # Errors
    /// An address cannot be bound; the message names it and its setting. Or the system refuses `epoll`, a thread or
    /// a signal handler.
    pub fn bind(config: Config) -> io::Result<Server> {
        let poll = Poll::new()?;
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        poll.registry().register(&mut signals, Token::from(Source::Signal), mio::Interest::READABLE)?;
        let waker = Waker::new(poll.registry(), Token::from(Source::Resolver))?;
        let resolver = Resolver::start(waker, config.lanes)?;

        let mut listeners = Vec::new();
        let faces = [
            ("LISTEN", Face::Bank, "listening", &config.listen),
            ("METRICS_LISTEN", Face::Metrics, "metrics", &config.metrics_listen),
        ];
        for (setting, face, verb, addresses) in faces {
            for address in addresses {
                let mut listener = Listener::bind(address, config.listen_backlog).map_err(|error| {
                    io::Error::new(
                        error.kind(),
                        format!("{setting}: cannot listen on {}: {error}", shown(address)),
                    )
                })?;
                let position = u32::try_from(listeners.len()).unwrap_or(u32::MAX);
                listener.register(poll.registry(), Token::from(Source::Listener(position)))?;
                log::info!("{verb} on {listener}");
                listeners.push(Listening { position, listener, face, is_ready: true });
            }
        }

        let clock = Clock { start: Instant::now() };
        let jitter_seed = u64::from(std::process::id());
        Ok(Server {
            poll,
            events: Events::with_capacity(config.turn_events_max),
            signals,
            resolver,
            listeners,
            peers: (0..config.clients_max).map(|_| None).collect(),
            links: (0..config.lanes).map(Link::new).collect(),
            engine: Engine::new(config, jitter_seed, clock.now()),
            clock,
            accept_again_at_us: 0,
            warn_again_at_us: 0,
            due: Vec::new(),
            closing: Vec::new(),
            stops: 0,
        })
    }

    /// Serves until SIGTERM or SIGINT, then until every request in flight is answered, or `drain_timeout_ms` is over,
    /// or the signal comes again.
    ///
    /// # Errors
    /// `epoll` fails, which is not expected to happen.
    pub fn run(mut self) -> io::Result<()> {
        while self.stops == 0 {
            self.turn(u64::MAX)?;
        }
        let deadline_us = self.drain();
        while !self.is_drained() && self.stops < 2 && !self.clock.now().is_past(deadline_us) {
            self.turn(deadline_us)?;
        }
        if !self.engine.is_drained() {
            log::warn!("stopped with connections open: {}", self.engine.metrics().connections_open);
        }
        self.leave_database();
        log::info!("stopped");
        Ok(())
    }

    fn turn(&mut self, wake_at_us: u64) -> io::Result<()> {
        self.wait(wake_at_us)?;
        let now = self.clock.now();
        self.receive(now);
        self.engine.advance(now);
        self.send(now);
        self.reap();
        Ok(())
    }

    /// Sleeps until something is ready or due. An event only records readiness; the work is done in later stages.
    fn wait(&mut self, wake_at_us: u64) -> io::Result<()> {
        let now = self.clock.now();
        let mut timeout = if self.has_work_that_no_event_tells(now) {
            Some(Duration::ZERO)
        } else {
            match self.engine.deadline_us().min(wake_at_us).min(self.accept_deadline_us()) {
                u64::MAX => None,
                deadline_us => Some(Duration::from_micros(deadline_us.saturating_sub(now.monotonic_us))),
            }
        };
        // Interrupted, as after a stop and SIGCONT, it has not looked: what is ready must be known before the turn acts on
        // deadlines, or a request that is there is closed on.
        while let Err(error) = self.poll.poll(&mut self.events, timeout) {
            if error.kind() != ErrorKind::Interrupted {
                return Err(error);
            }
            timeout = Some(Duration::ZERO);
        }
        for event in &self.events {
            match Source::from(event.token()) {
                Source::Client(slot) => {
                    if let Some(peer) = peer(&mut self.peers, slot) {
                        peer.stream.record(event);
                        self.engine.mark_due(slot);
                    }
                }
                Source::Lane(position) => self.links[position as usize].record(event),
                Source::Listener(position) => {
                    for listening in self.listeners.iter_mut().filter(|other| other.position == position) {
                        listening.is_ready = true;
                    }
                }
                Source::Signal => {
                    self.stops += u32::try_from(self.signals.pending().count()).unwrap_or(u32::MAX);
                }
                // Its answers are looked for every turn.
                Source::Resolver => {}
            }
        }
        Ok(())
    }

    /// Whether a socket that was ready before, and still is, can be worked on right away.
    fn has_work_that_no_event_tells(&self, now: Now) -> bool {
        self.engine.has_due()
            || self.links.iter().any(Link::is_readable)
            || (self.can_accept(now) && self.listeners.iter().any(|listening| listening.is_ready))
    }

    fn can_accept(&self, now: Now) -> bool {
        self.engine.can_accept() && now.is_past(self.accept_again_at_us)
    }

    /// When the pause after a failed accept ends, if one is waited for.
    fn accept_deadline_us(&self) -> u64 {
        let is_waiting =
            self.engine.can_accept() && self.listeners.iter().any(|listening| listening.is_ready);
        if is_waiting { self.accept_again_at_us } else { u64::MAX }
    }

    /// Moves bytes from the sockets into the engine, and lets new connections in.
    fn receive(&mut self, now: Now) {
        self.connect_lanes(now);
        let budget_bytes = self.engine.config().turn_read_bytes;
        for (lane, link) in self.engine.lanes().iter_mut().zip(&mut self.links) {
            if let Some(connection) = lane.connection() {
                link.receive(connection, budget_bytes);
            }
        }
        self.accept(now);
        self.engine.take_due(&mut self.due);
        for index in 0..self.due.len() {
            let slot = self.due[index];
            self.receive_from_client(slot, budget_bytes);
            self.engine.mark_due(slot);
        }
    }

    fn receive_from_client(&mut self, slot: Slot, budget_bytes: usize) {
        let (Some(peer), Some(client)) = (peer(&mut self.peers, slot), self.engine.client(slot)) else {
            return;
        };
        if !peer.stream.is_readable() {
            return;
        }
        let received = peer.stream.fill(client, budget_bytes);
        match &received {
            Ok((_, Fill::Eof)) => client.peer_closed(),
            Ok((_, Fill::Drained | Fill::PipeFull | Fill::BudgetSpent)) => {}
            Err(_reset) => client.lost(),
        }
        self.engine.metrics().received_bytes += received.map_or(0, |(bytes, _)| bytes as u64);
    }

    fn accept(&mut self, now: Now) {
        let accepts_max = self.engine.config().turn_accepts_max;
        for index in 0..self.listeners.len() {
            for _ in 0..accepts_max {
                if !self.listeners[index].is_ready || !self.can_accept(now) {
                    break;
                }
                self.accept_one(index, now);
            }
        }
    }

    fn accept_one(&mut self, index: usize, now: Now) {
        let listening = &mut self.listeners[index];
        match listening.listener.accept() {
            Ok(stream) => {
                if let Some(slot) = self.engine.accept(listening.face, now) {
                    self.seat(slot, stream);
                }
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => listening.is_ready = false,
                // The connection ended while it waited, or a signal came in between: on to the next one.
                ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted => {}
                // Out of descriptors or memory. The connection stays in the backlog; asking again at once would spin.
                _ => {
                    if now.is_past(self.warn_again_at_us) {
                        log::warn!(
                            "cannot accept connections: {error}; raise the limit of open files (ulimit -n)"
                        );
                        self.warn_again_at_us = now.after_ms(WARN_INTERVAL_MS);
                    }
                    self.engine.metrics().connections_refused += 1;
                    self.accept_again_at_us = now.after_ms(ACCEPT_PAUSE_MS);
                }
            },
        }
    }

    /// Gives a client its socket.
    fn seat(&mut self, slot: Slot, stream: Stream) {
        match Watched::new(stream, self.poll.registry(), Token::from(Source::Client(slot))) {
            Ok(stream) => self.peers[slot.index as usize] = Some(Peer { slot, stream }),
            Err(error) => {
                log::warn!("cannot watch a connection: {error}");
                self.closing.push(slot);
            }
        }
    }

    /// Takes every lane that has no connection one step closer to one.
    fn connect_lanes(&mut self, now: Now) {
        while let Some(answer) = self.resolver.poll_answer() {
            let lane = answer.lane;
            if let Err(error) = self.links[lane].resolved(answer, self.poll.registry()) {
                self.connect_failed(lane, &error, now);
            }
        }
        for lane in 0..self.links.len() {
            match self.links[lane].poll_connected(self.poll.registry()) {
                Progress::Pending => {}
                Progress::Connected => self.engine.lane_connected(lane, now),
                Progress::Failed(error) => self.connect_failed(lane, &error, now),
            }
        }
        while let Some(lane) = self.engine.poll_connect(now) {
            let hosts = &self.engine.config().database_hosts;
            if let Err(error) = self.links[lane].connect(hosts, &self.resolver, self.poll.registry()) {
                self.connect_failed(lane, &error, now);
            }
        }
    }

    fn connect_failed(&mut self, lane: usize, error: &io::Error, now: Now) {
        self.engine.lane_connect_failed(lane, &format!("cannot connect: {error}"), now);
    }

    /// Moves what is pending onto the sockets: first to the database, which has the longest way to go.
    fn send(&mut self, now: Now) {
        for (lane, link) in self.engine.lanes().iter_mut().zip(&mut self.links) {
            if let Some(connection) = lane.connection() {
                link.send(connection, self.poll.registry());
            }
        }
        self.engine.take_due(&mut self.due);
        for index in 0..self.due.len() {
            let slot = self.due[index];
            self.send_to_client(slot, now);
        }
    }

    fn send_to_client(&mut self, slot: Slot, now: Now) {
        let (Some(peer), Some(client)) = (peer(&mut self.peers, slot), self.engine.client(slot)) else {
            return;
        };
        let sent = peer.stream.flush(client, self.poll.registry());
        if sent.is_err() {
            client.lost();
        }
        self.engine.metrics().sent_bytes += sent.unwrap_or(0) as u64;
        match self.engine.after_send(slot, now) {
            AfterSend::Close => self.closing.push(slot),
            AfterSend::ShutDownWrite => {
                // If the connection is gone already, the next read tells.
                let _ = peer.stream.shut_down_write();
                self.engine.mark_due(slot);
            }
            AfterSend::Stay => {
                let can_go_on = self.engine.client(slot).is_some_and(|client| {
                    client.can_go_on() || (peer.stream.is_readable() && !client.recv_space().is_empty())
                });
                if can_go_on {
                    self.engine.mark_due(slot);
                }
            }
        }
    }

    /// Drops the sockets of closed clients and lanes. Only here: earlier in the turn an event could still be under way
    /// to them.
    fn reap(&mut self) {
        for slot in self.closing.drain(..) {
            self.peers[slot.index as usize] = None;
            self.engine.remove(slot);
            self.accept_again_at_us = 0;
        }
        for (lane, link) in self.engine.lanes().iter().zip(&mut self.links) {
            if !lane.wants_socket() {
                link.close();
            }
        }
    }

    /// Lets nobody new in, and lets the engine finish. Returns when it has to be done.
    fn drain(&mut self) -> u64 {
        let now = self.clock.now();
        log::info!("stopping: {} connections are open", self.engine.metrics().connections_open);
        for listening in &mut self.listeners {
            listening.listener.unpublish();
            listening.is_ready = true;
        }
        // Whoever is in the backlog was told that it is connected, so it is served.
        for index in 0..self.listeners.len() {
            while self.listeners[index].is_ready && self.can_accept(now) {
                self.accept_one(index, now);
            }
        }
        // Somebody may have looked a path up just before it was removed, and connect only now: such a listener stays.
        self.listeners.retain(|listening| listening.listener.is_unpublished());
        self.engine.drain(now);
        now.after_ms(self.engine.config().drain_timeout_ms)
    }

    /// Whether every client has left, and nobody waits to be let in.
    fn is_drained(&self) -> bool {
        self.engine.is_drained() && !self.listeners.iter().any(|listening| listening.is_ready)
    }

    /// Says good-bye to PostgreSQL, as far as its sockets take it at once.
    fn leave_database(&mut self) {
        for (lane, link) in self.engine.lanes().iter_mut().zip(&mut self.links) {
            if let Some(connection) = lane.connection() {
                connection.terminate();
                link.send(connection, self.poll.registry());
            }
        }
    }
}

/// The socket of a client, unless the slot is stale.
fn peer(peers: &mut [Option<Peer>], slot: Slot) -> Option<&mut Peer> {
    peers.get_mut(slot.index as usize)?.as_mut().filter(|peer| peer.slot == slot)
}

fn shown(address: &Address) -> String {
    match address {
        Address::Tcp(address) => address.clone(),
        Address::Unix(path) => format!("unix:{path}"),
    }
}
