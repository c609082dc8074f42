//! What the event loop needs of a network: the operating system's (`mio_network`), or a simulated one (`sim`).

use std::io;

use proto_pg::Host;

use crate::engine::lane::Attempt;
use crate::net::transport::Transport;
use crate::now::Now;
use crate::slots::Slot;

/// What a turn needs of the sockets around it. Nothing here waits.
pub trait Network {
    /// A listening socket.
    type Listener;
    /// A connection that was accepted and is not watched yet.
    type Accepted;
    /// A connected socket under watch.
    type Stream: Transport;

    /// The present moment, and when the last look at the sockets began.
    fn now(&self) -> Now;

    /// Takes the next connection off a listener's backlog.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; others as `accept(2)`.
    fn accept(&mut self, listener: &mut Self::Listener) -> io::Result<Self::Accepted>;

    /// Watches an accepted connection; its events name the slot.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    fn watch(&mut self, accepted: Self::Accepted, slot: Slot) -> io::Result<Self::Stream>;

    /// Where streams are registered.
    fn registry(&self) -> &<Self::Stream as Transport>::Registry;

    /// Begins to connect a lane to one of the hosts.
    ///
    /// # Errors
    /// It failed at once.
    fn connect(&mut self, lane: usize, hosts: &[Host], attempt: Attempt) -> io::Result<()>;

    /// The next lane whose attempt to connect has ended: its socket, or why it has none. The hosts are those of the attempt.
    fn poll_connected(&mut self, hosts: &[Host]) -> Option<(usize, io::Result<Self::Stream>)>;

    /// Which of the hosts a lane's last attempt went to.
    fn host(&self, lane: usize) -> usize;

    /// Abandons a lane's attempt to connect, if there is one.
    fn abandon_connect(&mut self, lane: usize);
}
