//! SHELL: a stream that is registered with `Poll`: its readiness, and which events it asks for.

use std::io;

use mio::event::Event;
use mio::{Interest, Registry, Token};
use proto_pg::TcpOptions;

use crate::buf::Pipe;
use crate::net::socket::Stream;
use crate::net::transport::{self, Fill, Readiness, Transport};

/// The events that every stream asks for. `PRIORITY` reports urgent data: a read stops at its mark, and without the event
/// [`transport::fill`] would take that short read for a drained socket.
const READS: Interest = Interest::READABLE.add(Interest::PRIORITY);

/// A connected stream. It asks for readable events, and for writable ones only after a write was short.
///
/// The kernel reports a Unix socket as writable each time its peer has read something. Asking for that from the start
/// would wake the loop a second time for every request: measured, 3 waits per request to a database on a Unix socket
/// instead of 2, and 4 with nginx on another one.
#[derive(Debug)]
pub struct RegisteredStream {
    stream: Stream,
    token: Token,
    readiness: Readiness,
    /// Whether it asks for writable events: from the first write that was short until it closes.
    asks_for_writable: bool,
}

impl RegisteredStream {
    /// Registers a stream that is connected.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn new(mut stream: Stream, registry: &Registry, token: Token) -> io::Result<RegisteredStream> {
        stream.register(registry, token, READS)?;
        Ok(RegisteredStream { stream, token, readiness: Readiness::TRY, asks_for_writable: false })
    }

    /// Sets the flags that an event reports; it clears none.
    // ANCHOR: record
    pub fn record(&mut self, event: &Event) {
        let readiness = &mut self.readiness;
        readiness.is_readable |=
            event.is_readable() || event.is_read_closed() || event.is_priority() || event.is_error();
        readiness.is_writable |= event.is_writable() || event.is_write_closed() || event.is_error();
        readiness.is_read_closed |= event.is_read_closed();
        readiness.is_urgent |= event.is_priority();
    }
    // ANCHOR_END: record
}

impl Transport for RegisteredStream {
    type Registry = Registry;

    fn is_readable(&self) -> bool {
        self.readiness.is_readable
    }

    fn fill(&mut self, pipe: &mut impl Pipe, budget_bytes: usize) -> io::Result<(usize, Fill)> {
        transport::fill(&mut self.stream, pipe, &mut self.readiness, budget_bytes)
    }

    fn flush(&mut self, pipe: &mut impl Pipe, registry: &Registry) -> io::Result<usize> {
        let sent_bytes = transport::flush(&mut self.stream, pipe, &mut self.readiness)?;
        // ANCHOR: short_write
        if !self.readiness.is_writable && !self.asks_for_writable {
            // If it has become writable since that write, registering raises the edge.
            self.stream.reregister(registry, self.token, READS | Interest::WRITABLE)?;
            self.asks_for_writable = true;
        }
        // ANCHOR_END: short_write
        Ok(sent_bytes)
    }

    fn shut_down_write(&self) -> io::Result<()> {
        self.stream.shut_down_write()
    }
}

/// A stream that is connecting. It asks for the event that reports the end of the attempt.
#[derive(Debug)]
pub struct ConnectingStream {
    stream: Stream,
    token: Token,
    has_ended: bool,
}

impl ConnectingStream {
    /// Registers a stream that began to connect.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn new(mut stream: Stream, registry: &Registry, token: Token) -> io::Result<ConnectingStream> {
        stream.register(registry, token, Interest::WRITABLE)?;
        Ok(ConnectingStream { stream, token, has_ended: false })
    }

    /// Notes the event that ends the attempt.
    pub fn record(&mut self, event: &Event) {
        self.has_ended |= event.is_writable() || event.is_error();
    }

    /// Whether the attempt has ended; [`ConnectingStream::finish`] says how.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// The connected stream.
    ///
    /// # Errors
    /// Why it could not connect.
    pub fn finish(mut self, registry: &Registry, options: &TcpOptions) -> io::Result<RegisteredStream> {
        self.stream.finish_connect()?;
        self.stream.set_tcp_options(options)?;
        self.stream.reregister(registry, self.token, READS)?;
        Ok(RegisteredStream {
            stream: self.stream,
            token: self.token,
            readiness: Readiness::TRY,
            asks_for_writable: false,
        })
    }
}
