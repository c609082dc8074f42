//! CORE: one turn over any network, the system's or a simulated one: receive, advance, send, expire, reap. It moves bytes
//! between sockets and the pipes of clients and lanes, and interprets none of them.

use std::io::ErrorKind;

use proto_pg::ConnectStep;

use crate::bank::ListenerKind;
use crate::buf::Pipe;
use crate::engine::Engine;
use crate::engine::client::AfterSend;
use crate::engine::lane::Lane;
use crate::net::network::{Connected, Network};
use crate::net::transport::{Fill, Transport};
use crate::now::Now;
use crate::slots::Slot;

/// The engine, the sockets around it, and the stages of a turn after its wait.
pub struct EventLoop<N: Network> {
    /// The core.
    pub engine: Engine,
    /// Where the sockets come from.
    pub network: N,
    listeners: Vec<Listening<N::Listener>>,
    /// The socket of each client, at the index of its slot.
    peers: Vec<Option<Peer<N::Stream>>>,
    /// The socket of each lane that is connected.
    lane_streams: Vec<Option<N::Stream>>,
    /// After `accept` ran out of descriptors or memory: no other `accept` before this time, unless a client leaves.
    accept_again_at_us: u64,
    /// The next failed `accept` is logged only after this time.
    warn_again_at_us: u64,
    /// The clients of the current stage; a field, so that no turn allocates.
    due: Vec<Slot>,
    /// Clients whose sockets are dropped when the turn ends.
    closing: Vec<Slot>,
}

struct Listening<L> {
    /// The number in its token. Its index in the list may shrink when other listeners close.
    position: usize,
    listener: L,
    kind: ListenerKind,
    is_ready: bool,
}

struct Peer<S> {
    slot: Slot,
    stream: S,
}

/// A stage of a turn, for the simulation and the playground, which run them one at a time.
#[cfg(any(test, feature = "sim"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Receive,
    Advance,
    Send,
    Expire,
    Reap,
}

/// Pause of `accept` after the system ran out of descriptors or memory; it ends early when a client leaves.
const ACCEPT_PAUSE_MS: u64 = 100;
/// Shortest time between two log lines about a failed `accept`.
const WARN_INTERVAL_MS: u64 = 10_000;

impl<N: Network> EventLoop<N> {
    /// A loop before its first turn. Each listener counts as ready, since clients may already wait in its backlog.
    pub fn new(engine: Engine, network: N, listeners: Vec<(N::Listener, ListenerKind)>) -> EventLoop<N> {
        let listening = |(position, (listener, kind))| Listening { position, listener, kind, is_ready: true };
        EventLoop {
            peers: (0..engine.config().clients_max).map(|_| None).collect(),
            lane_streams: (0..engine.config().sessions()).map(|_| None).collect(),
            listeners: listeners.into_iter().enumerate().map(listening).collect(),
            engine,
            network,
            accept_again_at_us: 0,
            warn_again_at_us: 0,
            due: Vec::new(),
            closing: Vec::new(),
        }
    }

    /// The socket of a client that an event is about, unless the client has left; it takes part in the next turn.
    pub fn client_event(&mut self, slot: Slot) -> Option<&mut N::Stream> {
        let peer = peer(&mut self.peers, slot)?;
        self.engine.mark_due(slot);
        Some(&mut peer.stream)
    }

    /// The socket of a lane that an event is about, unless it is still connecting.
    pub fn lane_event(&mut self, lane: usize) -> Option<&mut N::Stream> {
        self.lane_streams.get_mut(lane)?.as_mut()
    }

    /// Notes that a listener's backlog is not empty.
    pub fn listener_event(&mut self, position: usize) {
        for listening in self.listeners.iter_mut().filter(|other| other.position == position) {
            listening.is_ready = true;
        }
    }

    /// When the next turn has to begin although no event came, in monotonic microseconds; 0 is at once.
    pub fn wake_at_us(&self) -> u64 {
        if self.has_work_that_no_event_tells(self.network.now()) {
            return 0;
        }
        self.engine.deadline_us().min(self.accept_deadline_us())
    }

    // ANCHOR: turn
    /// One turn, after its wait. An event that is recorded during it belongs to the next turn.
    //
    // `inline(never)` keeps each stage a function of its own, so that profiles name it. The other functions of the core that
    // are marked so have the same reason.
    pub fn run(&mut self) {
        self.receive();
        self.engine.advance(self.network.now());
        self.send();
        self.expire();
        self.reap();
    }
    // ANCHOR_END: turn

    /// One stage of [`EventLoop::run`]; all of them in their order are one turn.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn run_stage(&mut self, stage: Stage) {
        match stage {
            Stage::Receive => self.receive(),
            Stage::Advance => self.engine.advance(self.network.now()),
            Stage::Send => self.send(),
            Stage::Expire => self.expire(),
            Stage::Reap => self.reap(),
        }
    }

    /// Accepts the connections that wait in the backlogs, whose clients are already connected, and then stops accepting.
    ///
    /// `unpublish` hides a listener. If `stays` is true it keeps accepting clients that already resolved its path.
    pub fn close_listeners(
        &mut self,
        unpublish: impl Fn(&mut N::Listener),
        stays: impl Fn(&N::Listener) -> bool,
    ) {
        for listening in &mut self.listeners {
            unpublish(&mut listening.listener);
            listening.is_ready = true;
        }
        for index in 0..self.listeners.len() {
            while self.listeners[index].is_ready && self.can_accept(self.network.now()) {
                self.accept_one(index);
            }
        }
        self.listeners.retain(|listening| stays(&listening.listener));
    }

    /// Whether every client has left and no connection waits to be accepted.
    pub fn is_drained(&self) -> bool {
        self.engine.is_drained() && !self.listeners.iter().any(|listening| listening.is_ready)
    }

    /// Sends Terminate to PostgreSQL, as far as the sockets take it at once.
    pub fn leave_database(&mut self) {
        self.engine.lanes().iter_mut().for_each(Lane::terminate);
        self.send_to_lanes();
    }

    /// Whether there is work for the next turn that no event will announce.
    fn has_work_that_no_event_tells(&self, now: Now) -> bool {
        self.engine.has_due()
            || self.engine.has_ended_lane()
            || self.lane_streams.iter().flatten().any(Transport::is_readable)
            || (self.can_accept(now) && self.listeners.iter().any(|listening| listening.is_ready))
    }

    fn can_accept(&self, now: Now) -> bool {
        self.engine.can_accept() && now.is_past(self.accept_again_at_us)
    }

    /// When the pause after a failed `accept` ends, if a connection may wait to be accepted.
    fn accept_deadline_us(&self) -> u64 {
        let is_waiting =
            self.engine.can_accept() && self.listeners.iter().any(|listening| listening.is_ready);
        if is_waiting { self.accept_again_at_us } else { u64::MAX }
    }

    /// Moves bytes from the sockets into the engine, and lets new connections in.
    #[inline(never)]
    fn receive(&mut self) {
        self.connect_lanes();
        let budget_bytes = self.engine.config().turn_read_bytes;
        for (lane, stream) in self.engine.lanes().iter_mut().zip(&mut self.lane_streams) {
            if let Some(stream) = stream {
                receive_from(stream, lane, budget_bytes);
            }
        }
        self.accept();
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
        let received_bytes = receive_from(&mut peer.stream, client, budget_bytes);
        self.engine.metrics().received_bytes += received_bytes as u64;
    }

    fn accept(&mut self) {
        if !self.listeners.iter().any(|listening| listening.is_ready) {
            return;
        }
        let now = self.network.now();
        let accepts_max = self.engine.config().turn_accepts_max;
        for index in 0..self.listeners.len() {
            for _ in 0..accepts_max {
                if !self.listeners[index].is_ready || !self.can_accept(now) {
                    break;
                }
                self.accept_one(index);
            }
        }
    }

    fn accept_one(&mut self, index: usize) {
        let listening = &mut self.listeners[index];
        let accepted = self.network.accept(&mut listening.listener);
        let now = self.network.now();
        match accepted {
            Ok(accepted) => {
                if let Some(slot) = self.engine.accept(listening.kind, now) {
                    self.register_client(slot, accepted);
                }
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => listening.is_ready = false,
                // The connection ended in the backlog, or a signal interrupted the call: try the next one.
                ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted => {}
                // Out of descriptors or memory. The connection stays in the backlog; asking again at once would spin.
                _ => {
                    if now.is_past(self.warn_again_at_us) {
                        log::warn!(
                            "cannot accept connections: {error}; raise the limit of open files (ulimit -n)"
                        );
                        self.warn_again_at_us = now.after_ms(WARN_INTERVAL_MS);
                    }
                    self.engine.metrics().accept_errors += 1;
                    self.accept_again_at_us = now.after_ms(ACCEPT_PAUSE_MS);
                }
            },
        }
    }

    /// Gives a client its socket.
    fn register_client(&mut self, slot: Slot, accepted: N::Accepted) {
        match self.network.register(accepted, slot) {
            Ok(stream) => self.peers[slot.index as usize] = Some(Peer { slot, stream }),
            Err(error) => {
                log::warn!("cannot register a connection: {error}");
                self.closing.push(slot);
            }
        }
    }

    /// Takes every lane that has no connection one step closer to one.
    fn connect_lanes(&mut self) {
        let now = self.network.now();
        while let Some((lane, result)) = self.network.poll_connected() {
            match result {
                Ok(Connected::Addresses(addresses)) => self.engine.lane_resolved(lane, addresses),
                Ok(Connected::Stream(stream)) => {
                    self.lane_streams[lane] = Some(stream);
                    self.engine.lane_connected(lane, now);
                }
                Err(error) => self.engine.lane_connect_failed(lane, error),
            }
        }
        while let Some((lane, step)) = self.engine.poll_connect(now) {
            let begun = match step {
                ConnectStep::Resolve { name, port } => self.network.resolve(lane, &name, port),
                ConnectStep::Connect(attempt) => self.network.connect(lane, &attempt.endpoint, attempt.tcp),
                // `Engine::deadline_us` includes this wait.
                ConnectStep::Wait { .. } => Ok(()),
            };
            if let Err(error) = begun {
                self.engine.lane_connect_failed(lane, error);
            }
        }
    }

    /// Moves what is pending onto the sockets: first to PostgreSQL, so that it works while the clients' answers are written.
    #[inline(never)]
    fn send(&mut self) {
        self.send_to_lanes();
        self.send_to_due_clients();
    }

    fn send_to_lanes(&mut self) {
        for (lane, stream) in self.engine.lanes().iter_mut().zip(&mut self.lane_streams) {
            if let Some(stream) = stream {
                send_from(lane, stream, self.network.registry());
            }
        }
    }

    fn send_to_due_clients(&mut self) {
        self.engine.take_due(&mut self.due);
        for index in 0..self.due.len() {
            let slot = self.due[index];
            self.send_to_client(slot);
        }
    }

    fn send_to_client(&mut self, slot: Slot) {
        let (Some(peer), Some(client)) = (peer(&mut self.peers, slot), self.engine.client(slot)) else {
            return;
        };
        let sent_bytes = send_from(client, &mut peer.stream, self.network.registry());
        self.engine.metrics().sent_bytes += sent_bytes as u64;
        match self.engine.after_send(slot, || self.network.now()) {
            AfterSend::Close => self.closing.push(slot),
            AfterSend::ShutDownWrite => {
                // If the connection is gone already, the next read reports it.
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

    /// Acts on deadlines. This comes late in the turn, so that bytes that came in time are read before a deadline is judged.
    #[inline(never)]
    fn expire(&mut self) {
        let streams = &self.lane_streams;
        let is_readable = |lane: usize| streams[lane].as_ref().is_some_and(Transport::is_readable);
        let has_made_due = self.engine.expire(self.network.now(), is_readable);
        // A probe must not wait for the next event.
        self.send_to_lanes();
        if has_made_due {
            self.send_to_due_clients();
            // The inbox of a client that was just answered may hold its next request.
            for index in 0..self.due.len() {
                self.engine.mark_due(self.due[index]);
            }
        }
    }

    /// Drops the sockets of closed clients and lanes. This comes last, so that no event of this turn finds another client in
    /// the slot of a closed one.
    #[inline(never)]
    fn reap(&mut self) {
        for slot in self.closing.drain(..) {
            self.peers[slot.index as usize] = None;
            self.engine.remove(slot);
            self.accept_again_at_us = 0;
        }
        for (index, lane) in self.engine.lanes().iter().enumerate() {
            if !lane.wants_socket() {
                self.lane_streams[index] = None;
                self.network.abandon_connect(index);
            }
        }
    }
}

/// The socket of a client, unless the slot is stale.
fn peer<S>(peers: &mut [Option<Peer<S>>], slot: Slot) -> Option<&mut Peer<S>> {
    peers.get_mut(slot.index as usize)?.as_mut().filter(|peer| peer.slot == slot)
}

/// Moves what arrived on a socket into its pipe, and tells it about the end. Returns how many bytes came in.
fn receive_from<S: Transport>(stream: &mut S, pipe: &mut impl Pipe, budget_bytes: usize) -> usize {
    if !stream.is_readable() {
        return 0;
    }
    match stream.fill(pipe, budget_bytes) {
        Ok((received_bytes, Fill::Eof)) => {
            pipe.peer_closed();
            received_bytes
        }
        Ok((received_bytes, Fill::Drained | Fill::PipeFull | Fill::BudgetSpent)) => received_bytes,
        Err(error) => {
            pipe.lost(error.kind());
            0
        }
    }
}

/// Moves what a pipe has pending onto its socket. Returns how many bytes went out.
fn send_from<S: Transport>(pipe: &mut impl Pipe, stream: &mut S, registry: &S::Registry) -> usize {
    stream.flush(pipe, registry).unwrap_or_else(|error| {
        pipe.lost(error.kind());
        0
    })
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::sim::network::{Backlog, SimNetwork};
    use crate::sim::scene::Scene;
    use crate::sim::settings;
    use crate::sim::socket::{Shared, Socket};

    const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: bank\r\n\r\n";

    /// One instance without faults, whose turns a test runs.
    struct World {
        scene: Scene,
        backlog: Backlog,
        event_loop: EventLoop<SimNetwork>,
    }

    impl World {
        fn with_settings(settings: &[(&str, u64)]) -> World {
            let (scene, config, backlog) = (Scene::quiet(0), settings::of(settings), Backlog::default());
            let network = SimNetwork::new(scene.clone(), config.lanes);
            let engine = Engine::new(config, 0, scene.now());
            let listeners = vec![(Rc::clone(&backlog), ListenerKind::Bank)];
            World { scene, backlog, event_loop: EventLoop::new(engine, network, listeners) }
        }

        fn connect(&self) -> Shared {
            let socket = Socket::new(1 << 20, &self.scene);
            self.backlog.borrow_mut().push(Rc::clone(&socket));
            socket
        }

        /// Events, then a turn.
        fn turn(&mut self) {
            if self.backlog.borrow_mut().take_edge() {
                self.event_loop.listener_event(0);
            }
            crate::sim::network::deliver_events(&mut self.event_loop);
            self.event_loop.run();
        }

        fn accepted(&mut self) -> u64 {
            self.event_loop.engine.metrics().connections_accepted
        }

        /// How many bytes a turn reads of a client that has just sent these, and reads its answers.
        fn turn_read_bytes(&mut self, socket: &Shared, sent: impl Iterator<Item = u8>) -> u64 {
            let before_bytes = socket.borrow().read_bytes();
            socket.borrow_mut().peer_send(sent);
            self.turn();
            socket.borrow_mut().peer_take(1 << 20, &mut Vec::new());
            socket.borrow().read_bytes() - before_bytes
        }
    }

    #[test]
    fn neither_a_storm_of_connections_nor_one_of_requests_starves_the_other() {
        let mut world = World::with_settings(&[("TURN_ACCEPTS_MAX", 4)]);
        let first = world.connect();
        world.turn();
        let storm: Vec<Shared> = (0..40).map(|_| world.connect()).collect();
        for turn in 1..=10 {
            // Every accepted client asks in each turn and is answered in it, and as many are accepted as without them.
            let inside = usize::try_from(world.accepted()).unwrap() - 1;
            let asking: Vec<&Shared> = storm[..inside].iter().chain([&first]).collect();
            for socket in &asking {
                socket.borrow_mut().peer_send(HEALTH.iter().copied());
            }
            world.turn();
            assert_eq!(world.accepted(), 1 + 4 * turn);
            for socket in asking {
                assert_eq!(socket.borrow().unread_bytes(), 0);
                assert!(
                    socket.borrow_mut().peer_take(1 << 20, &mut Vec::new()) > 0,
                    "no answer in turn {turn}"
                );
            }
        }
    }

    #[test]
    fn what_is_dropped_after_a_refusal_ends_at_its_limit() {
        let mut world = World::with_settings(&[("LINGER_LEN_MAX_BYTES", 3_000)]);
        let socket = world.connect();
        world.turn_read_bytes(&socket, b"nonsense\r\n\r\n".iter().copied());
        let mut dropped_bytes = 0;
        for len in [10_000, 0, 0, 0] {
            dropped_bytes += world.turn_read_bytes(&socket, std::iter::repeat_n(b'x', len));
        }
        assert_eq!(dropped_bytes, 3_000);
        assert!(
            world.event_loop.wake_at_us() > world.scene.now().monotonic_us,
            "no turn for bytes that stay unread"
        );
    }
}
