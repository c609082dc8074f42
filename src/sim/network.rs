//! CORE, simulation only: the network of one instance: its backlog, its clients' sockets and its lanes' links.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::rc::{Rc, Weak};

use proto_pg::{Connection, Host};

use crate::engine::lane::{Asked, Attempt};
use crate::event_loop::Turn;
use crate::net::network::Network;
use crate::net::wire::Wire;
use crate::now::Now;
use crate::sim::check::Check;
use crate::sim::fault::Fault;
use crate::sim::scene::Scene;
use crate::sim::socket::{Edge, ServerEnd, Shared, Socket};
use crate::slots::Slot;

/// Connections that wait to be accepted.
pub(crate) type Backlog = Rc<RefCell<Waiting>>;

/// What the kernel knows of a listening socket.
#[derive(Default)]
pub(crate) struct Waiting {
    queue: VecDeque<Shared>,
    /// An event is pending: somebody has come since the last one.
    has_edge: bool,
}

impl Waiting {
    /// A connection arrives.
    pub(crate) fn push(&mut self, socket: Shared) {
        self.queue.push_back(socket);
        self.has_edge = true;
    }

    /// Whether an event is pending.
    pub(crate) fn has_edge(&self) -> bool {
        self.has_edge
    }

    /// Takes the pending event, if there is one.
    pub(crate) fn take_edge(&mut self) -> bool {
        std::mem::take(&mut self.has_edge)
    }
}

/// The sockets of one instance.
pub(crate) struct SimNetwork {
    scene: Scene,
    /// The client sockets, by slot. Those that are closed are swept out now and then.
    clients: Vec<(Slot, Weak<RefCell<Socket>>)>,
    links: Vec<Link>,
    /// Slots that were given back: their events may still be under way.
    stale: VecDeque<Slot>,
    /// Lanes whose new socket PostgreSQL is yet to learn of.
    connected: Vec<Shared>,
    /// PostgreSQL takes no connection at all.
    is_database_away: bool,
    looked_us: u64,
}

enum Link {
    Down,
    Connecting { outcome: Option<Outcome> },
    Open { wire: Wire<ServerEnd>, socket: Shared },
}

#[derive(Clone, Copy)]
enum Outcome {
    Connected,
    Refused,
}

/// What a lane's socket holds before a write blocks; a batch may be longer.
const LANE_BUFFER_BYTES: usize = 2_048;
const STALE_SLOTS_MAX: usize = 4;

impl SimNetwork {
    pub(crate) fn new(scene: Scene, lanes: usize) -> SimNetwork {
        SimNetwork {
            scene,
            clients: Vec::new(),
            links: (0..lanes).map(|_| Link::Down).collect(),
            stale: VecDeque::new(),
            connected: Vec::new(),
            is_database_away: false,
            looked_us: 0,
        }
    }

    /// A look at the sockets begins.
    pub(crate) fn begin_look(&mut self) {
        self.looked_us = self.scene.now().monotonic_us;
    }

    /// Whether PostgreSQL takes connections.
    pub(crate) fn set_database_away(&mut self, is_away: bool) {
        self.is_database_away = is_away;
    }

    /// The sockets of lanes that have just been connected.
    pub(crate) fn take_connected(&mut self) -> Vec<Shared> {
        std::mem::take(&mut self.connected)
    }

    /// The client sockets that are open.
    pub(crate) fn client_sockets(&self) -> impl Iterator<Item = Shared> {
        self.clients
            .iter()
            .filter_map(|(_, socket)| socket.upgrade().filter(|it| !it.borrow().is_server_closed()))
    }

    /// Whether an event is pending.
    pub(crate) fn has_event(&self) -> bool {
        self.client_sockets().any(|socket| socket.borrow().has_edge())
            || self.links.iter().any(|link| match link {
                Link::Down => false,
                Link::Connecting { outcome } => outcome.is_some(),
                Link::Open { socket, .. } => socket.borrow().has_edge(),
            })
    }

    /// Attempts to connect come to their end, or hang.
    pub(crate) fn answer_connects(&mut self) {
        for link in &mut self.links {
            if let Link::Connecting { outcome: outcome @ None } = link
                && !self.scene.strikes(Fault::ConnectHangs)
            {
                let is_refused = self.is_database_away || self.scene.strikes(Fault::ConnectRefused);
                *outcome = Some(if is_refused { Outcome::Refused } else { Outcome::Connected });
            }
        }
    }
}

/// Delivers all pending events to a turn, as a wait does.
pub(crate) fn deliver_events(turn: &mut Turn<SimNetwork>) {
    let scene = turn.network.scene.clone();
    for link in &mut turn.network.links {
        if let Link::Open { wire, socket } = link
            && socket.borrow().has_edge()
        {
            wire.stream().record(socket.borrow_mut().take_edge());
        }
    }
    let clients = &mut turn.network.clients;
    clients.retain(|(_, socket)| socket.upgrade().is_some_and(|socket| !socket.borrow().is_server_closed()));
    let mut events: Vec<(Slot, Shared)> = clients
        .iter()
        .filter_map(|(slot, socket)| Some((*slot, socket.upgrade()?)))
        .filter(|(_, socket)| socket.borrow().has_edge())
        .collect();
    if scene.strikes(Fault::ReorderedEvents) {
        for last in (1..events.len()).rev() {
            events.swap(last, scene.below(last + 1));
        }
    }
    for (slot, socket) in events {
        let edge: Edge = socket.borrow_mut().take_edge();
        match turn.client_event(slot) {
            Some(stream) => stream.record(edge),
            None => scene.violate(Check::EventFound, "an event found no client for an open socket"),
        }
    }
    if scene.strikes(Fault::StaleEvent)
        && let Some(&slot) = turn.network.stale.front()
        && turn.client_event(slot).is_some()
    {
        scene.violate(Check::EventStale, "the event of a client that had left found another one");
    }
}

impl Network for SimNetwork {
    type Listener = Backlog;
    type Accepted = Shared;
    type Stream = ServerEnd;

    fn now(&self) -> Now {
        self.scene.may_stand_still();
        Now { looked_us: self.looked_us, ..self.scene.now() }
    }

    fn accept(&mut self, listener: &mut Backlog) -> io::Result<Shared> {
        if self.scene.strikes(Fault::AcceptFails) {
            return Err(ErrorKind::Other.into());
        }
        listener.borrow_mut().queue.pop_front().ok_or_else(|| ErrorKind::WouldBlock.into())
    }

    fn watch(&mut self, accepted: Shared, slot: Slot) -> io::Result<ServerEnd> {
        self.clients.push((slot, Rc::downgrade(&accepted)));
        if self.stale.len() == STALE_SLOTS_MAX {
            self.stale.pop_front();
        }
        if slot.generation > 1 {
            self.stale.push_back(Slot { generation: slot.generation - 1, ..slot });
        }
        Ok(ServerEnd::new(accepted, self.scene.clone()))
    }

    fn registry(&self) -> &() {
        &()
    }

    fn connect(&mut self, lane: usize, _hosts: &[Host], _attempt: Attempt) -> io::Result<()> {
        self.links[lane] = Link::Down;
        if self.scene.strikes(Fault::ConnectRefused) {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        self.links[lane] = Link::Connecting { outcome: None };
        Ok(())
    }

    fn poll_connected(&mut self, _hosts: &[Host]) -> Option<(usize, io::Result<()>)> {
        let (lane, outcome) = self.links.iter().enumerate().find_map(|(lane, link)| match link {
            Link::Connecting { outcome } => Some((lane, (*outcome)?)),
            Link::Down | Link::Open { .. } => None,
        })?;
        match outcome {
            Outcome::Connected => {
                let socket = Socket::new(LANE_BUFFER_BYTES, &self.scene);
                self.connected.push(socket.clone());
                let wire = Wire::new(ServerEnd::new(socket.clone(), self.scene.clone()));
                self.links[lane] = Link::Open { wire, socket };
                Some((lane, Ok(())))
            }
            Outcome::Refused => {
                self.links[lane] = Link::Down;
                Some((lane, Err(ErrorKind::ConnectionRefused.into())))
            }
        }
    }

    fn is_lane_readable(&self, lane: usize) -> bool {
        matches!(&self.links[lane], Link::Open { wire, .. } if wire.is_readable())
    }

    fn receive_for_lane(&mut self, lane: usize, connection: &mut Connection<Asked>, budget_bytes: usize) {
        if let Link::Open { wire, .. } = &mut self.links[lane] {
            wire.receive(connection, budget_bytes);
        }
    }

    fn send_for_lane(&mut self, lane: usize, connection: &mut Connection<Asked>) {
        if let Link::Open { wire, .. } = &mut self.links[lane] {
            wire.send(connection, &());
        }
    }

    fn disconnect(&mut self, lane: usize) {
        self.links[lane] = Link::Down;
    }
}
