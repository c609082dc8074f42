//! CORE: what the event loop needs of a network, be it the operating system's (`mio_network`) or a simulated one (`sim`).

use core::net::SocketAddr;
use std::io;

use proto_pg::{Endpoint, TcpOptions};

use crate::net::transport::Transport;
use crate::now::Now;
use crate::slots::Slot;

/// The result of a lane's look-up or attempt to connect.
#[derive(Debug)]
pub enum Connected<S> {
    /// The addresses of the name, one at least.
    Addresses(Vec<SocketAddr>),
    /// A connected socket.
    Stream(S),
}

/// What a turn needs of the sockets around it. Nothing here waits.
pub trait Network {
    /// A listening socket.
    type Listener;
    /// A connection that was accepted and is not registered for events yet.
    type Accepted;
    /// A connected socket that is registered for events.
    type Stream: Transport;

    /// The present moment, and when the last poll of the sockets began.
    fn now(&self) -> Now;

    /// Takes the next connection off a listener's backlog.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; others as `accept(2)`.
    fn accept(&mut self, listener: &mut Self::Listener) -> io::Result<Self::Accepted>;

    /// Registers an accepted connection for events, with the slot as its token.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    fn register(&mut self, accepted: Self::Accepted, slot: Slot) -> io::Result<Self::Stream>;

    /// Where streams register for events.
    fn registry(&self) -> &<Self::Stream as Transport>::Registry;

    /// Begins to look a name up for a lane.
    ///
    /// # Errors
    /// It failed at once.
    fn resolve(&mut self, lane: usize, name: &str, port: u16) -> io::Result<()>;

    /// Begins to connect a lane.
    ///
    /// # Errors
    /// It failed at once.
    fn connect(&mut self, lane: usize, endpoint: &Endpoint, tcp: TcpOptions) -> io::Result<()>;

    /// The next lane whose look-up or attempt to connect has ended, and how.
    fn poll_connected(&mut self) -> Option<(usize, io::Result<Connected<Self::Stream>>)>;

    /// Abandons a lane's look-up or attempt to connect, if there is one.
    fn abandon_connect(&mut self, lane: usize);
}
