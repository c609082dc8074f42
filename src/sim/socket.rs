//! CORE, simulation only: a socket with its kernel: buffers of a size, edges, halves that close, resets.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;

use crate::buf::Pipe;
use crate::config::Config;
use crate::net::transport::{self, Fill, Readiness, Transport};
use crate::sim::fault::Fault;
use crate::sim::scene::{Scene, Way};

/// A connection, as both of its ends hold it. The server's end is a [`ServerEnd`].
pub(crate) type Shared = Rc<RefCell<Socket>>;

/// What two kernels know of a connection between the server and a peer.
pub(crate) struct Socket {
    /// Its number among all of its world.
    pub(crate) number: u64,
    scene: Scene,
    /// Arrived at the server, and not read by it.
    to_server: VecDeque<u8>,
    /// Written by the server, and not taken by the peer.
    to_peer: VecDeque<u8>,
    to_peer_max_bytes: usize,
    /// An end of stream follows the bytes to the server.
    is_peer_shut: bool,
    /// An end of stream follows the bytes to the peer, since then, in monotonic microseconds.
    server_shut_at_us: Option<u64>,
    is_server_closed: bool,
    /// The connection is broken; what had arrived before can still be read.
    is_reset: bool,
    /// The whole instance was killed.
    is_killed: bool,
    /// When the instance was told to stop, in monotonic microseconds.
    draining_since_us: Option<u64>,
    /// The server watches for it to become writable.
    asks_for_writable: bool,
    /// An event is pending.
    has_edge: bool,
    /// How many bytes the server has read.
    read_bytes: u64,
    /// How many of them after it had closed its half.
    lingered_bytes: usize,
    /// How many it had read when it last wrote.
    read_before_write_bytes: u64,
    last_read_us: u64,
    /// Since when the server has more to write than the peer has room for, in monotonic microseconds.
    blocked_since_us: Option<u64>,
    /// The longest time that this has lasted so far.
    blocked_max_us: u64,
    /// The server closed on unread bytes, and the reset ate the end of what it had written.
    has_lost_answers: bool,
    /// The server closed on unread bytes of which an event had told it.
    has_left_bytes: bool,
}

/// What an event says about a socket.
#[derive(Clone, Copy)]
pub(crate) struct Edge {
    is_readable: bool,
    is_writable: bool,
    is_read_closed: bool,
}

/// The receive buffer of the server's side.
const TO_SERVER_MAX_BYTES: usize = 4_096;

impl Socket {
    /// A new connection whose server can write this much before the peer reads.
    pub(crate) fn new(to_peer_max_bytes: usize, scene: &Scene) -> Shared {
        Rc::new(RefCell::new(Socket {
            number: scene.next_socket(),
            scene: scene.clone(),
            to_server: VecDeque::new(),
            to_peer: VecDeque::new(),
            to_peer_max_bytes,
            is_peer_shut: false,
            server_shut_at_us: None,
            is_server_closed: false,
            is_reset: false,
            is_killed: false,
            draining_since_us: None,
            asks_for_writable: false,
            has_edge: true,
            read_bytes: 0,
            lingered_bytes: 0,
            read_before_write_bytes: 0,
            last_read_us: scene.now().monotonic_us,
            blocked_since_us: None,
            blocked_max_us: 0,
            has_lost_answers: false,
            has_left_bytes: false,
        }))
    }

    /// How many bytes the peer could send now.
    pub(crate) fn room_bytes(&self) -> usize {
        TO_SERVER_MAX_BYTES.saturating_sub(self.to_server.len())
    }

    /// The peer sends. Nobody takes it once the server is gone.
    pub(crate) fn peer_send(&mut self, bytes: impl IntoIterator<Item = u8>) {
        if !self.is_server_closed && !self.is_reset {
            let before = self.to_server.len();
            self.to_server.extend(bytes);
            self.scene.record(self.number, Way::ToServer, || &self.to_server.make_contiguous()[before..]);
            self.has_edge = true;
        }
    }

    /// The peer takes up to `max` bytes.
    pub(crate) fn peer_take(&mut self, max: usize, into: &mut impl Extend<u8>) -> usize {
        let taken = max.min(self.to_peer.len());
        into.extend(self.to_peer.drain(..taken));
        if taken > 0 {
            self.has_edge |= self.asks_for_writable;
        }
        taken
    }

    /// How many bytes the server could read.
    pub(crate) fn unread_bytes(&self) -> usize {
        self.to_server.len()
    }

    /// How many bytes the peer could take.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.to_peer.len()
    }

    /// The peer will send nothing more.
    pub(crate) fn peer_shut(&mut self) {
        self.is_peer_shut = true;
        self.has_edge = true;
    }

    /// The peer breaks the connection.
    pub(crate) fn peer_reset(&mut self) {
        self.is_reset = true;
        self.has_edge = true;
        self.to_peer.clear();
    }

    /// The instance at the server's end is gone without a word.
    pub(crate) fn kill(&mut self) {
        self.is_killed = true;
        self.is_reset = true;
    }

    /// The instance at the server's end is told to stop.
    pub(crate) fn drain(&mut self, scene: &Scene) {
        self.draining_since_us = Some(scene.now().monotonic_us);
    }

    /// Whether the instance at the server's end was told to stop.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining_since_us.is_some()
    }

    /// Whether the peer has read everything that will ever come.
    pub(crate) fn is_at_end(&self) -> bool {
        self.to_peer.is_empty()
            && (self.is_server_closed || self.server_shut_at_us.is_some() || self.is_reset)
    }

    /// Whether the server has dropped the connection.
    pub(crate) fn is_server_closed(&self) -> bool {
        self.is_server_closed
    }

    /// Whether the instance at the server's end was killed.
    pub(crate) fn is_killed(&self) -> bool {
        self.is_killed
    }

    /// How many bytes the server has read.
    pub(crate) fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// How many bytes the server has read since it closed its half.
    pub(crate) fn lingered_bytes(&self) -> usize {
        self.lingered_bytes
    }

    /// How many bytes the server had read when it last wrote.
    pub(crate) fn read_before_write_bytes(&self) -> u64 {
        self.read_before_write_bytes
    }

    /// Whether a reset ate answers, for which the peer is to blame: it had its time to read them.
    pub(crate) fn has_lost_answers(&self) -> bool {
        self.has_lost_answers
    }

    /// Whether the server closed on unread bytes of which an event had told it.
    pub(crate) fn has_left_bytes(&self) -> bool {
        self.has_left_bytes
    }

    /// How long at most the server has had more to write than the peer had room for, in microseconds.
    pub(crate) fn blocked_us(&self, scene: &Scene) -> u64 {
        let now_us = scene.now().monotonic_us;
        self.blocked_since_us.map_or(0, |since_us| now_us - since_us).max(self.blocked_max_us)
    }

    /// How long the server's half has been closed, in microseconds.
    pub(crate) fn shut_us(&self, scene: &Scene) -> Option<u64> {
        self.server_shut_at_us.map(|at_us| scene.now().monotonic_us - at_us)
    }

    /// Before this time, in monotonic microseconds, the server may not close for want of a request.
    pub(crate) fn may_be_idle_until_us(&self, config: &Config) -> u64 {
        let idle_us = self.last_read_us + config.idle_timeout_ms * 1_000;
        let drained_us =
            self.draining_since_us.map_or(u64::MAX, |since_us| since_us + config.drain_idle_ms * 1_000);
        idle_us.min(drained_us)
    }

    /// The server asks the kernel to tell it from now on.
    pub(crate) fn watch(&mut self) {
        self.has_edge = true;
    }

    /// Whether an event is pending.
    pub(crate) fn has_edge(&self) -> bool {
        self.has_edge && !self.is_server_closed
    }

    /// Takes the pending event: it tells the state at this moment, as `epoll_wait` does.
    pub(crate) fn take_edge(&mut self) -> Edge {
        self.has_edge = false;
        Edge {
            is_readable: !self.to_server.is_empty() || self.is_peer_shut || self.is_reset,
            is_writable: self.asks_for_writable
                && (self.to_peer.len() < self.to_peer_max_bytes || self.is_reset),
            is_read_closed: self.is_peer_shut || self.is_reset,
        }
    }

    /// The server drops the connection. With bytes unread that is a reset, which overtakes what was written.
    fn server_close(&mut self, scene: &Scene) {
        self.is_server_closed = true;
        let (unread, unsent) = (self.to_server.len(), self.to_peer.len());
        scene.tell(|| format!("the server closes on {unread} bytes unread, {unsent} not taken"));
        if !self.to_server.is_empty() && !self.is_reset {
            self.is_reset = true;
            self.has_left_bytes = !self.has_edge;
            let kept = scene.below(self.to_peer.len() + 1);
            self.has_lost_answers = kept < self.to_peer.len();
            self.to_peer.truncate(kept);
        }
    }
}

/// The server's end of a connection.
pub(crate) struct ServerEnd {
    socket: Shared,
    readiness: Readiness,
    scene: Scene,
}

impl ServerEnd {
    /// A connected socket under watch, as `Watched` makes it.
    pub(crate) fn new(socket: Shared, scene: Scene) -> ServerEnd {
        socket.borrow_mut().watch();
        ServerEnd { socket, readiness: Readiness::TRY, scene }
    }

    /// Adds what an event says.
    pub(crate) fn record(&mut self, edge: Edge) {
        self.readiness.is_readable |= edge.is_readable;
        self.readiness.is_writable |= edge.is_writable;
        self.readiness.is_read_closed |= edge.is_read_closed;
    }
}

impl Drop for ServerEnd {
    fn drop(&mut self) {
        self.socket.borrow_mut().server_close(&self.scene);
    }
}

impl Transport for ServerEnd {
    type Registry = ();

    fn is_readable(&self) -> bool {
        self.readiness.is_readable
    }

    fn fill(&mut self, pipe: &mut impl Pipe, budget_bytes: usize) -> io::Result<(usize, Fill)> {
        let mut kernel = Kernel { socket: &self.socket, scene: &self.scene };
        transport::fill(&mut kernel, pipe, &mut self.readiness, budget_bytes)
    }

    fn flush(&mut self, pipe: &mut impl Pipe, (): &()) -> io::Result<usize> {
        let mut kernel = Kernel { socket: &self.socket, scene: &self.scene };
        let sent_bytes = transport::flush(&mut kernel, pipe, &mut self.readiness)?;
        let socket = &mut *self.socket.borrow_mut();
        socket.asks_for_writable |= !self.readiness.is_writable;
        if pipe.send_pending().is_empty() {
            socket.blocked_max_us = socket.blocked_us(&self.scene);
            socket.blocked_since_us = None;
        } else {
            socket.blocked_since_us.get_or_insert(self.scene.now().monotonic_us);
        }
        Ok(sent_bytes)
    }

    fn shut_down_write(&self) -> io::Result<()> {
        self.socket.borrow_mut().server_shut_at_us = Some(self.scene.now().monotonic_us);
        Ok(())
    }
}

/// The system calls of the server on one socket.
struct Kernel<'a> {
    socket: &'a Shared,
    scene: &'a Scene,
}

impl Read for Kernel<'_> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        self.scene.may_stand_still();
        if self.scene.strikes(Fault::Interrupted) {
            return Err(ErrorKind::Interrupted.into());
        }
        let socket = &mut *self.socket.borrow_mut();
        let n = socket.to_server.len().min(space.len());
        if n == 0 {
            return match (socket.is_reset, socket.is_peer_shut) {
                (true, _) => Err(ErrorKind::ConnectionReset.into()),
                (false, true) => Ok(0),
                (false, false) => Err(ErrorKind::WouldBlock.into()),
            };
        }
        for (place, byte) in space.iter_mut().zip(socket.to_server.drain(..n)) {
            *place = byte;
        }
        socket.read_bytes += n as u64;
        socket.lingered_bytes += socket.server_shut_at_us.map_or(0, |_| n);
        socket.last_read_us = self.scene.now().monotonic_us;
        self.scene.moved(&space[..n]);
        self.scene.record(socket.number, Way::Read, || &space[..n]);
        Ok(n)
    }
}

impl Write for Kernel<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.scene.may_stand_still();
        if self.scene.strikes(Fault::Interrupted) {
            return Err(ErrorKind::Interrupted.into());
        }
        let socket = &mut *self.socket.borrow_mut();
        if socket.is_reset || socket.server_shut_at_us.is_some() {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let n = (socket.to_peer_max_bytes - socket.to_peer.len()).min(bytes.len());
        if n == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        socket.to_peer.extend(&bytes[..n]);
        socket.read_before_write_bytes = socket.read_bytes;
        self.scene.moved(&bytes[..n]);
        self.scene.record(socket.number, Way::FromServer, || &bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
