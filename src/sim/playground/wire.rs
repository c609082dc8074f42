//! CORE, simulation only: what went over one connection, message by message.

use std::collections::VecDeque;

use crate::sim::scene::{Moved, Way};

/// The newest messages of one connection, oldest first.
#[derive(Default)]
pub(super) struct Wire {
    /// Of PostgreSQL's protocol one message each; of HTTP an unbroken run of bytes in one direction.
    pub(super) messages: VecDeque<Message>,
    /// Messages that were forgotten.
    pub(super) forgotten: usize,
    speaks: Option<Protocol>,
    /// Of PostgreSQL's protocol the bytes whose message is not whole, to the server and from it.
    partial: [Vec<u8>; 2],
    /// The server has sent its start-up message, which has no tag.
    is_started: bool,
}

/// Bytes that belong together.
pub(super) struct Message {
    pub(super) at_us: u64,
    pub(super) is_to_server: bool,
    pub(super) bytes: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http,
    Postgres,
}

const MESSAGES_KEPT: usize = 120;

impl Wire {
    /// Adds what moved.
    pub(super) fn add(&mut self, moved: &Moved) {
        let is_to_server = match moved.way {
            Way::Read => return,
            Way::ToServer => true,
            Way::FromServer => false,
        };
        // Only the server speaks first to PostgreSQL, and only the length of its start-up message begins with a zero.
        let first = moved.bytes.first();
        let first = || if first == Some(&0) { Protocol::Postgres } else { Protocol::Http };
        match *self.speaks.get_or_insert_with(first) {
            Protocol::Http => match self.messages.back_mut() {
                Some(last) if last.is_to_server == is_to_server => last.bytes.extend(&moved.bytes),
                Some(_) | None => self.push(moved.at_us, is_to_server, moved.bytes.clone()),
            },
            Protocol::Postgres => {
                self.partial[usize::from(is_to_server)].extend(&moved.bytes);
                while let Some(bytes) = self.next_message(is_to_server) {
                    self.push(moved.at_us, is_to_server, bytes);
                }
            }
        }
    }

    /// Whether it is a connection to PostgreSQL.
    pub(super) fn is_postgres(&self) -> bool {
        self.speaks == Some(Protocol::Postgres)
    }

    /// Bytes to the server and from it whose message is not whole.
    pub(super) fn partial_bytes(&self) -> [usize; 2] {
        [self.partial[1].len(), self.partial[0].len()]
    }

    fn next_message(&mut self, is_to_server: bool) -> Option<Vec<u8>> {
        let tag_bytes = usize::from(is_to_server || self.is_started);
        let partial = &mut self.partial[usize::from(is_to_server)];
        let len_field: [u8; 4] = partial.get(tag_bytes..tag_bytes + 4)?.try_into().ok()?;
        let len_bytes = tag_bytes + usize::try_from(u32::from_be_bytes(len_field)).ok()?;
        if partial.len() < len_bytes {
            return None;
        }
        self.is_started |= !is_to_server;
        Some(partial.drain(..len_bytes).collect())
    }

    fn push(&mut self, at_us: u64, is_to_server: bool, bytes: Vec<u8>) {
        if self.messages.len() == MESSAGES_KEPT {
            self.messages.pop_front();
            self.forgotten += 1;
        }
        self.messages.push_back(Message { at_us, is_to_server, bytes });
    }
}
