//! CORE: moves bytes between a socket and a byte pipe, and remembers what the socket is ready for.

use std::io::{self, ErrorKind, Read, Write};

use crate::buf::Pipe;

/// What a socket was last known to be ready for. Events set a flag. Only `WouldBlock`, a short read, the end of the stream
/// or a failed read clears it. A short write does not: the rest is tried at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// A read may give something: bytes, the end of the stream, or an error.
    pub is_readable: bool,
    /// A write may take something.
    pub is_writable: bool,
    /// The peer has closed its half: after the last byte the end of the stream must be read, and no further edge comes.
    pub is_read_closed: bool,
    /// The peer has sent urgent data (`MSG_OOB`): a read stops at its mark, although more bytes follow.
    pub is_urgent: bool,
}

impl Readiness {
    /// For a new connection: nothing is known, so try.
    pub const TRY: Readiness =
        Readiness { is_readable: true, is_writable: true, is_read_closed: false, is_urgent: false };
}

/// A connected socket with what it was last known to be ready for, as a turn uses it.
pub trait Transport {
    /// Where it registers for further events.
    type Registry;

    /// Whether a read may give something.
    fn is_readable(&self) -> bool;

    /// As [`fill`].
    ///
    /// # Errors
    /// The connection is broken.
    fn fill(&mut self, pipe: &mut impl Pipe, budget_bytes: usize) -> io::Result<(usize, Fill)>;

    /// As [`flush`]. If the socket takes no more, it asks for a writable event.
    ///
    /// # Errors
    /// The connection is broken, or the registration fails.
    fn flush(&mut self, pipe: &mut impl Pipe, registry: &Self::Registry) -> io::Result<usize>;

    /// Closes our half, so that the peer reads an end of stream.
    ///
    /// # Errors
    /// The connection is gone already.
    fn shut_down_write(&self) -> io::Result<()>;
}

/// Why [`fill`] stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// The socket holds no more bytes.
    Drained,
    /// The pipe has no room; the socket may hold more.
    PipeFull,
    /// The turn's share is used up; the socket may hold more.
    BudgetSpent,
    /// The peer will send nothing more.
    Eof,
}

// ANCHOR: fill
/// Reads into the pipe until the socket is drained, the pipe is full or `budget_bytes` are taken. Returns how many
/// bytes came in, also ahead of an end of stream.
///
/// After `PipeFull` and `BudgetSpent` no event will report the rest: call again, without one, once there is room.
///
/// # Errors
/// The connection is broken. Bytes that came before are in the pipe.
pub fn fill(
    source: &mut impl Read,
    pipe: &mut impl Pipe,
    readiness: &mut Readiness,
    budget_bytes: usize,
) -> io::Result<(usize, Fill)> {
    let mut taken_bytes = 0;
    while taken_bytes < budget_bytes {
        let space = pipe.recv_space();
        let space_bytes = space.len();
        if space_bytes == 0 {
            return Ok((taken_bytes, Fill::PipeFull));
        }
        match source.read(space) {
            Ok(0) => {
                readiness.is_readable = false;
                return Ok((taken_bytes, Fill::Eof));
            }
            Ok(n) => {
                pipe.recv_commit(n);
                taken_bytes += n;
                // A read that returns less than the space has emptied a stream socket, so the read that would return
                // EAGAIN is saved. Two exceptions: the end of the stream still has to be read, and urgent data stops
                // a read early.
                let has_more = readiness.is_urgent || readiness.is_read_closed;
                if n < space_bytes && !has_more {
                    readiness.is_readable = false;
                    return Ok((taken_bytes, Fill::Drained));
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                readiness.is_readable = false;
                readiness.is_urgent = false;
                return Ok((taken_bytes, Fill::Drained));
            }
            Err(error) => {
                readiness.is_readable = false;
                return Err(error);
            }
        }
    }
    Ok((taken_bytes, Fill::BudgetSpent))
}
// ANCHOR_END: fill

// ANCHOR: flush
/// Writes what the pipe has pending until it has nothing more or the socket takes no more. Returns how many bytes went
/// out. What is left goes with the next call, after a writable event.
///
/// # Errors
/// The connection is broken.
pub fn flush(sink: &mut impl Write, pipe: &mut impl Pipe, readiness: &mut Readiness) -> io::Result<usize> {
    let mut sent_bytes = 0;
    while readiness.is_writable && !pipe.send_pending().is_empty() {
        match sink.write(pipe.send_pending()) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => {
                pipe.send_advance(n);
                sent_bytes += n;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => readiness.is_writable = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent_bytes)
}
// ANCHOR_END: flush

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// A socket that does what its script says.
    struct Script(VecDeque<io::Result<&'static [u8]>>);

    impl Script {
        fn new(steps: impl IntoIterator<Item = Result<&'static [u8], ErrorKind>>) -> Script {
            Script(steps.into_iter().map(|step| step.map_err(io::Error::from)).collect())
        }
    }

    impl Read for Script {
        fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
            let bytes = self.0.pop_front().expect("the script is over")?;
            space[..bytes.len()].copy_from_slice(bytes);
            Ok(bytes.len())
        }
    }

    /// As a sink, each step tells by its length how many bytes are taken.
    impl Write for Script {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            self.0.pop_front().expect("the script is over").map(<[u8]>::len)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Bytes {
        received: Vec<u8>,
        filled: usize,
        pending: Vec<u8>,
    }

    impl Bytes {
        fn with_room(room_bytes: usize) -> Bytes {
            Bytes { received: vec![0; room_bytes], filled: 0, pending: Vec::new() }
        }

        fn with_pending(pending: &[u8]) -> Bytes {
            Bytes { received: Vec::new(), filled: 0, pending: pending.to_vec() }
        }
    }

    impl Pipe for Bytes {
        fn recv_space(&mut self) -> &mut [u8] {
            &mut self.received[self.filled..]
        }

        fn recv_commit(&mut self, n: usize) {
            self.filled += n;
        }

        fn send_pending(&self) -> &[u8] {
            &self.pending
        }

        fn send_advance(&mut self, n: usize) {
            self.pending.drain(..n);
        }

        fn peer_closed(&mut self) {}

        fn lost(&mut self, _error: ErrorKind) {}
    }

    fn fill_from(
        steps: impl IntoIterator<Item = Result<&'static [u8], ErrorKind>>,
        room_bytes: usize,
        mut readiness: Readiness,
    ) -> (Result<(usize, Fill), ErrorKind>, Readiness, Script) {
        let (mut script, mut pipe) = (Script::new(steps), Bytes::with_room(room_bytes));
        let result = fill(&mut script, &mut pipe, &mut readiness, 6);
        (result.map_err(|error| error.kind()), readiness, script)
    }

    const CLOSED: Readiness = Readiness { is_read_closed: true, ..Readiness::TRY };

    #[test]
    fn a_short_read_has_drained_the_socket_without_a_second_one() {
        let (result, readiness, script) = fill_from([Ok(b"abc".as_slice()), Ok(b"d")], 10, Readiness::TRY);
        assert_eq!(result, Ok((3, Fill::Drained)));
        assert!(!readiness.is_readable);
        assert_eq!(script.0.len(), 1);
    }

    #[test]
    fn a_short_read_before_the_end_of_the_stream_goes_on_to_the_end() {
        let (result, readiness, _) = fill_from([Ok(b"abc".as_slice()), Ok(b"")], 10, CLOSED);
        assert_eq!(result, Ok((3, Fill::Eof)));
        assert!(!readiness.is_readable);
    }

    /// The urgent byte itself is left out of the stream, so a read can begin behind it.
    #[test]
    fn a_read_that_ends_at_an_urgent_mark_has_not_drained_the_socket() {
        let urgent = Readiness { is_urgent: true, ..Readiness::TRY };
        let steps = [Ok(b"abc".as_slice()), Ok(b"de"), Err(ErrorKind::WouldBlock)];
        let (result, readiness, script) = fill_from(steps, 10, urgent);
        assert_eq!(result, Ok((5, Fill::Drained)));
        assert!(!readiness.is_readable && !readiness.is_urgent);
        assert!(script.0.is_empty());

        let (result, readiness, _) = fill_from([Ok(b"abc".as_slice()), Ok(b"def")], 10, urgent);
        assert_eq!(result, Ok((6, Fill::BudgetSpent)));
        assert!(readiness.is_readable && readiness.is_urgent);
    }

    #[test]
    fn would_block_drains_and_interrupted_repeats() {
        let steps = [Err(ErrorKind::Interrupted), Err(ErrorKind::WouldBlock)];
        let (result, readiness, _) = fill_from(steps, 10, Readiness::TRY);
        assert_eq!(result, Ok((0, Fill::Drained)));
        assert!(!readiness.is_readable);
    }

    #[test]
    fn a_full_pipe_leaves_the_socket_readable() {
        let (result, readiness, _) = fill_from([Ok(b"abc".as_slice())], 3, Readiness::TRY);
        assert_eq!(result, Ok((3, Fill::PipeFull)));
        assert!(readiness.is_readable);
    }

    #[test]
    fn a_spent_budget_leaves_the_socket_readable() {
        let (result, readiness, _) = fill_from([Ok(b"abc".as_slice()), Ok(b"def")], 100, CLOSED);
        assert_eq!(result, Ok((6, Fill::BudgetSpent)));
        assert!(readiness.is_readable);
    }

    #[test]
    fn an_error_is_passed_on() {
        let (result, readiness, _) = fill_from([Err(ErrorKind::ConnectionReset)], 10, Readiness::TRY);
        assert_eq!(result, Err(ErrorKind::ConnectionReset));
        assert!(!readiness.is_readable);
    }

    fn flush_to(
        steps: impl IntoIterator<Item = Result<&'static [u8], ErrorKind>>,
        mut readiness: Readiness,
    ) -> (Result<usize, ErrorKind>, Readiness, Vec<u8>) {
        let (mut script, mut pipe) = (Script::new(steps), Bytes::with_pending(b"abcdef"));
        let result = flush(&mut script, &mut pipe, &mut readiness);
        (result.map_err(|error| error.kind()), readiness, pipe.pending)
    }

    #[test]
    fn a_short_write_keeps_the_tail_until_the_next_edge() {
        let (result, readiness, rest) =
            flush_to([Ok(b"12".as_slice()), Err(ErrorKind::WouldBlock)], Readiness::TRY);
        assert_eq!(result, Ok(2));
        assert_eq!(rest, b"cdef");
        assert!(!readiness.is_writable);
    }

    #[test]
    fn short_and_interrupted_writes_go_on_to_the_end() {
        let steps = [Ok(b"1".as_slice()), Err(ErrorKind::Interrupted), Ok(b"12345")];
        let (result, readiness, rest) = flush_to(steps, Readiness::TRY);
        assert_eq!(result, Ok(6));
        assert!(rest.is_empty());
        assert!(readiness.is_writable);
    }

    #[test]
    fn nothing_is_written_before_the_socket_is_writable() {
        let (result, _, rest) = flush_to([], Readiness { is_writable: false, ..Readiness::TRY });
        assert_eq!(result, Ok(0));
        assert_eq!(rest, b"abcdef");
    }

    #[test]
    fn a_write_of_nothing_and_an_error_end_the_connection() {
        assert_eq!(flush_to([Ok(b"".as_slice())], Readiness::TRY).0, Err(ErrorKind::WriteZero));
        assert_eq!(flush_to([Err(ErrorKind::BrokenPipe)], Readiness::TRY).0, Err(ErrorKind::BrokenPipe));
    }
}
