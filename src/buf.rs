//! CORE: the two ends of a byte pipe. An [`Inbox`] is filled by the shell and read by a protocol; an [`Outbox`] is
//! written by a protocol and drained by the shell.

use std::io::ErrorKind;

/// What speaks a protocol over one socket, as the event loop sees it: room to receive into, bytes to send. An HTTP client
/// and a lane are both one.
pub trait Pipe {
    /// Where received bytes go. Empty while nothing more can be taken in.
    fn recv_space(&mut self) -> &mut [u8];
    /// Takes in the first `n` bytes of the last [`Pipe::recv_space`].
    fn recv_commit(&mut self, n: usize);
    /// What is to be sent, oldest first.
    fn send_pending(&self) -> &[u8];
    /// Drops the oldest `n` pending bytes: the socket has taken them.
    fn send_advance(&mut self, n: usize);
    /// The peer will send nothing more. It may still read.
    fn peer_closed(&mut self);
    /// The connection is broken: nothing more can be sent or received.
    fn lost(&mut self, error: ErrorKind);
}

/// Bytes that arrived and are not consumed yet.
///
/// It starts at `len_bytes` and grows only when asked to, up to `len_max_bytes`; it returns to its first size once it
/// is empty again. Idle connections therefore cost little, and no peer can make it grow by itself.
#[derive(Debug)]
pub struct Inbox {
    bytes: Vec<u8>,
    // start <= end <= bytes.len() <= max(len_bytes, len_max_bytes)
    start: usize,
    end: usize,
    len_bytes: usize,
    len_max_bytes: usize,
}

impl Inbox {
    /// An empty inbox of `len_bytes` that may grow to `len_max_bytes`.
    pub fn new(len_bytes: usize, len_max_bytes: usize) -> Inbox {
        Inbox {
            bytes: vec![0; len_bytes],
            start: 0,
            end: 0,
            len_bytes,
            len_max_bytes: len_max_bytes.max(len_bytes),
        }
    }

    /// What arrived and was not consumed, oldest first.
    pub fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// As [`Inbox::unread`], for decoders that work in place.
    pub fn unread_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// Drops the oldest `n` unread bytes.
    ///
    /// # Panics
    /// If there are fewer: our own bug.
    pub fn consume(&mut self, n: usize) {
        self.start += n;
        self.check();
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Drops all but the oldest `n` unread bytes.
    ///
    /// # Panics
    /// If there are fewer: our own bug.
    pub fn truncate(&mut self, n: usize) {
        let end = self.start + n;
        assert!(end <= self.end, "an inbox is only ever truncated to less than it holds");
        self.end = end;
    }

    /// Room for more bytes, made by moving the unread ones to the front where needed. Empty when the inbox is full.
    pub fn space(&mut self) -> &mut [u8] {
        if self.end == self.bytes.len() && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.bytes[self.end..]
    }

    /// Takes in the first `n` bytes of the last [`Inbox::space`].
    ///
    /// # Panics
    /// If it was shorter: our own bug.
    pub fn commit(&mut self, n: usize) {
        self.end += n;
        self.check();
    }

    /// Whether [`Inbox::space`] would be empty.
    pub fn is_full(&self) -> bool {
        self.start == 0 && self.end == self.bytes.len()
    }

    /// Makes the whole inbox at least `wanted_bytes` long, at least doubling it, within the limit. Keeps what is unread.
    pub fn grow(&mut self, wanted_bytes: usize) {
        if wanted_bytes > self.bytes.len() {
            let len_bytes = wanted_bytes.max(self.bytes.len() * 2).min(self.len_max_bytes);
            self.bytes.resize(len_bytes.max(self.bytes.len()), 0);
        }
    }

    /// Returns to the first size if it has grown and is empty.
    pub fn shrink(&mut self) {
        if self.end == 0 && self.bytes.len() > self.len_bytes {
            self.bytes = vec![0; self.len_bytes];
        }
    }

    fn check(&self) {
        assert!(self.start <= self.end && self.end <= self.bytes.len(), "inbox cursors: start <= end <= len");
    }
}

/// Bytes that wait to be sent.
///
/// It is bounded by its owner, who looks at [`Outbox::len`] before it writes more. Memory beyond
/// `OUTBOX_KEPT_BYTES` is given back as soon as everything was sent.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    // sent <= bytes.len(); both 0 once everything was sent
    sent: usize,
}

impl Outbox {
    /// What is still to be sent, oldest first.
    pub fn pending(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// How many bytes are still to be sent.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Whether nothing is left to send.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Where to append.
    pub fn writer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Drops the oldest `n` pending bytes: they were sent.
    ///
    /// # Panics
    /// If there are fewer: our own bug.
    pub fn advance(&mut self, n: usize) {
        self.sent += n;
        assert!(self.sent <= self.bytes.len(), "outbox cursor: sent <= len");
        if self.sent == self.bytes.len() {
            self.sent = 0;
            self.bytes.clear();
            if self.bytes.capacity() > OUTBOX_KEPT_BYTES {
                self.bytes = Vec::new();
            }
        }
    }
}

/// A statement of ten transactions with its head fits; keeping that much avoids an allocation per statement.
const OUTBOX_KEPT_BYTES: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    fn put(inbox: &mut Inbox, bytes: &[u8]) {
        inbox.space()[..bytes.len()].copy_from_slice(bytes);
        inbox.commit(bytes.len());
    }

    #[test]
    fn unread_bytes_survive_compaction() {
        let mut inbox = Inbox::new(8, 8);
        put(&mut inbox, b"abcdefgh");
        assert!(inbox.is_full());
        assert!(inbox.space().is_empty());
        inbox.consume(6);
        assert!(!inbox.is_full());
        assert_eq!(inbox.space().len(), 6);
        put(&mut inbox, b"ijklmn");
        assert_eq!(inbox.unread(), b"ghijklmn");
    }

    #[test]
    fn it_grows_to_its_limit_and_returns_when_empty() {
        let mut inbox = Inbox::new(4, 10);
        put(&mut inbox, b"abcd");
        inbox.grow(5);
        assert_eq!(inbox.space().len(), 4);
        inbox.grow(1_000);
        assert_eq!(inbox.space().len(), 6);
        assert_eq!(inbox.unread(), b"abcd");
        inbox.shrink();
        assert_eq!(inbox.space().len(), 6, "not while something is unread");
        inbox.consume(4);
        inbox.shrink();
        assert_eq!(inbox.space().len(), 4);
    }

    #[test]
    fn truncate_drops_the_newest() {
        let mut inbox = Inbox::new(8, 8);
        put(&mut inbox, b"abcdef");
        inbox.consume(1);
        inbox.truncate(2);
        assert_eq!(inbox.unread(), b"bc");
    }

    #[test]
    #[should_panic(expected = "inbox cursors")]
    fn consuming_more_than_there_is_panics() {
        let mut inbox = Inbox::new(8, 8);
        put(&mut inbox, b"ab");
        inbox.consume(3);
    }

    #[test]
    fn an_outbox_keeps_the_tail_of_a_short_write() {
        let mut outbox = Outbox::default();
        outbox.writer().extend_from_slice(b"abcdef");
        outbox.advance(2);
        assert_eq!(outbox.pending(), b"cdef");
        outbox.writer().extend_from_slice(b"g");
        assert_eq!(outbox.len(), 5);
        outbox.advance(5);
        assert!(outbox.is_empty());
        assert_eq!(outbox.pending(), b"");
    }

    #[test]
    fn an_outbox_gives_large_memory_back() {
        let mut outbox = Outbox::default();
        outbox.writer().extend_from_slice(&[0; OUTBOX_KEPT_BYTES]);
        outbox.advance(OUTBOX_KEPT_BYTES);
        assert_eq!(outbox.writer().capacity(), OUTBOX_KEPT_BYTES);
        outbox.writer().extend_from_slice(&[0; OUTBOX_KEPT_BYTES + 1]);
        outbox.advance(OUTBOX_KEPT_BYTES + 1);
        assert_eq!(outbox.writer().capacity(), 0);
    }

    #[test]
    #[should_panic(expected = "outbox cursor")]
    fn sending_more_than_is_pending_panics() {
        Outbox::default().advance(1);
    }
}
