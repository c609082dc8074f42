//! SHELL: the open socket under a lane: moves its bytes, and passes on its end only after everything that came before.

use proto_pg::{CloseReason, Connection};

use crate::engine::lane::Asked;
use crate::net::transport::{Fill, Transport};

/// A connected socket to PostgreSQL.
#[derive(Debug)]
pub struct Wire<S> {
    stream: S,
    /// Why it has ended; the lane is yet to be told.
    end: Option<CloseReason>,
}

impl<S: Transport> Wire<S> {
    /// Over a socket that has just been connected.
    pub fn new(stream: S) -> Wire<S> {
        Wire { stream, end: None }
    }

    /// The socket, for its events.
    pub fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Whether there is something to receive that no event will tell of.
    pub fn is_readable(&self) -> bool {
        self.stream.is_readable() || self.end.is_some()
    }

    /// Moves what arrived into the lane. Once the socket has ended or failed, the turn after that closes the lane with
    /// the reason: what arrived before has been looked at by then, and each answer in it is one doubt less.
    pub fn receive(&mut self, connection: &mut Connection<Asked>, budget_bytes: usize) {
        if let Some(reason) = self.end.take() {
            connection.close(reason);
        } else if self.stream.is_readable() {
            self.end = match self.stream.fill(connection, budget_bytes) {
                Ok((_, Fill::Eof)) => Some(CloseReason::PeerClosed),
                Ok((_, Fill::Drained | Fill::PipeFull | Fill::BudgetSpent)) => None,
                Err(error) => Some(CloseReason::Transport(error.kind())),
            };
        }
    }

    /// Moves what the lane has pending onto the socket.
    pub fn send(&mut self, connection: &mut Connection<Asked>, registry: &S::Registry) {
        if let Err(error) = self.stream.flush(connection, registry) {
            self.end.get_or_insert(CloseReason::Transport(error.kind()));
        }
    }
}
