//! CORE, simulation only: the network of one instance: its backlog, its clients' sockets and its lanes' links.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::rc::{Rc, Weak};

use proto_pg::{Endpoint, TcpOptions};

use crate::event_loop::EventLoop;
use crate::net::network::{Connected, Network};
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
    /// An event is pending: a connection has arrived since the last one.
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
    lanes: Vec<LaneSocket>,
    /// Slots that were given back: their events may still be under way.
    stale: VecDeque<Slot>,
    /// The new sockets of lanes that PostgreSQL is yet to learn of, each with its lane and its host.
    connected: Vec<(Shared, usize, usize)>,
    /// PostgreSQL takes no connection at all.
    is_database_away: bool,
    looked_us: u64,
}

/// What the kernel knows of a lane's socket.
enum LaneSocket {
    None,
    Connecting { host: usize, end: Option<ConnectEnd> },
    Connected { socket: Weak<RefCell<Socket>> },
}

#[derive(Clone, Copy)]
enum ConnectEnd {
    Connected,
    Refused,
}

/// What a lane's socket holds before a write blocks; a batch may be longer.
const LANE_BUFFER_BYTES: usize = 2_048;
const STALE_SLOTS_MAX: usize = 4;
/// Of the two in the settings.
const SECOND_HOST: &str = "/run/b/.s.PGSQL.5432";

impl SimNetwork {
    pub(crate) fn new(scene: Scene, lanes: usize) -> SimNetwork {
        SimNetwork {
            scene,
            clients: Vec::new(),
            lanes: (0..lanes).map(|_| LaneSocket::None).collect(),
            stale: VecDeque::new(),
            connected: Vec::new(),
            is_database_away: false,
            looked_us: 0,
        }
    }

    /// A poll of the sockets begins.
    pub(crate) fn begin_poll(&mut self) {
        self.looked_us = self.scene.now().monotonic_us;
    }

    /// Whether PostgreSQL takes connections.
    pub(crate) fn set_database_away(&mut self, is_away: bool) {
        self.is_database_away = is_away;
    }

    /// The sockets of lanes that have just been connected, each with its lane and its host.
    pub(crate) fn take_connected(&mut self) -> Vec<(Shared, usize, usize)> {
        std::mem::take(&mut self.connected)
    }

    /// The client sockets that are open.
    pub(crate) fn client_sockets(&self) -> impl Iterator<Item = Shared> {
        self.clients
            .iter()
            .filter_map(|(_, socket)| socket.upgrade().filter(|it| !it.borrow().is_server_closed()))
    }

    /// The slot of the client on this socket, once it was accepted.
    pub(crate) fn slot_of(&self, socket: u64) -> Option<Slot> {
        let is_it = |other: &Weak<RefCell<Socket>>| {
            other.upgrade().is_some_and(|other| other.borrow().number == socket)
        };
        self.clients.iter().find(|(_, other)| is_it(other)).map(|(slot, _)| *slot)
    }

    /// The socket of a lane that is connected.
    pub(crate) fn lane_socket(&self, lane: usize) -> Option<Shared> {
        match &self.lanes[lane] {
            LaneSocket::None | LaneSocket::Connecting { .. } => None,
            LaneSocket::Connected { socket } => socket.upgrade(),
        }
    }

    /// Whether PostgreSQL is yet to answer an attempt to connect, or to learn of a connection.
    pub(crate) fn awaits_postgres(&self) -> bool {
        let is_open = |lane: &LaneSocket| matches!(lane, LaneSocket::Connecting { end: None, .. });
        !self.connected.is_empty() || self.lanes.iter().any(is_open)
    }

    /// Whether an event is pending.
    pub(crate) fn has_event(&self) -> bool {
        self.client_sockets().any(|socket| socket.borrow().has_edge())
            || self.lanes.iter().any(|lane| match lane {
                LaneSocket::None => false,
                LaneSocket::Connecting { end, .. } => end.is_some(),
                LaneSocket::Connected { socket } => has_edge(socket),
            })
    }

    /// Attempts to connect end, or hang. Half of those to the `isolated` host are refused.
    pub(crate) fn answer_connects(&mut self, isolated: Option<usize>) {
        for lane in &mut self.lanes {
            if let LaneSocket::Connecting { end: end @ None, host } = lane
                && !self.scene.strikes(Fault::ConnectHangs)
            {
                let is_refused = self.is_database_away
                    || self.scene.strikes(Fault::ConnectRefused)
                    || isolated == Some(*host) && self.scene.happens(500);
                *end = Some(if is_refused { ConnectEnd::Refused } else { ConnectEnd::Connected });
            }
        }
    }
}

/// Whether an event is pending for a socket that the server still holds.
fn has_edge(socket: &Weak<RefCell<Socket>>) -> bool {
    socket.upgrade().is_some_and(|socket| socket.borrow().has_edge())
}

/// Delivers all pending events to a turn, as a wait does.
pub(crate) fn deliver_events(event_loop: &mut EventLoop<SimNetwork>) {
    let scene = event_loop.network.scene.clone();
    for lane in 0..event_loop.network.lanes.len() {
        if let LaneSocket::Connected { socket } = &event_loop.network.lanes[lane]
            && let Some(socket) = socket.upgrade()
            && socket.borrow().has_edge()
            && let Some(stream) = event_loop.lane_event(lane)
        {
            stream.record(socket.borrow_mut().take_edge());
        }
    }
    let clients = &mut event_loop.network.clients;
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
        match event_loop.client_event(slot) {
            Some(stream) => stream.record(edge),
            None => scene.violate(Check::EventFound, "an event found no client for an open socket"),
        }
    }
    if scene.strikes(Fault::StaleEvent)
        && let Some(&slot) = event_loop.network.stale.front()
        && event_loop.client_event(slot).is_some()
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

    fn register(&mut self, accepted: Shared, slot: Slot) -> io::Result<ServerEnd> {
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

    fn resolve(&mut self, _lane: usize, _name: &str, _port: u16) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn connect(&mut self, lane: usize, endpoint: &Endpoint, _tcp: TcpOptions) -> io::Result<()> {
        self.lanes[lane] = LaneSocket::None;
        if self.scene.strikes(Fault::ConnectRefused) {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        let host = usize::from(*endpoint == Endpoint::Unix(SECOND_HOST.to_owned()));
        self.lanes[lane] = LaneSocket::Connecting { host, end: None };
        Ok(())
    }

    fn poll_connected(&mut self) -> Option<(usize, io::Result<Connected<ServerEnd>>)> {
        let (lane, host, end) = self.lanes.iter().enumerate().find_map(|(lane, socket)| match socket {
            LaneSocket::Connecting { host, end } => Some((lane, *host, (*end)?)),
            LaneSocket::None | LaneSocket::Connected { .. } => None,
        })?;
        match end {
            ConnectEnd::Connected => {
                let socket = Socket::new(LANE_BUFFER_BYTES, &self.scene);
                self.connected.push((socket.clone(), lane, host));
                self.lanes[lane] = LaneSocket::Connected { socket: Rc::downgrade(&socket) };
                Some((lane, Ok(Connected::Stream(ServerEnd::new(socket, self.scene.clone())))))
            }
            ConnectEnd::Refused => {
                self.lanes[lane] = LaneSocket::None;
                Some((lane, Err(ErrorKind::ConnectionRefused.into())))
            }
        }
    }

    fn abandon_connect(&mut self, lane: usize) {
        self.lanes[lane] = LaneSocket::None;
    }
}
