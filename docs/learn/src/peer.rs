//! A client of the program under test.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::event::{self, PollFd, PollFlags, Timespec};

use crate::arena::Verdict;

pub(crate) struct Peer {
    stream: TcpStream,
    patience: Duration,
}

impl Peer {
    pub(crate) fn connect(address: SocketAddr, patience: Duration) -> io::Result<Peer> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Peer { stream, patience })
    }

    /// The same connection, for a second thread.
    pub(crate) fn twin(&self) -> Verdict<Peer> {
        let stream =
            self.stream.try_clone().map_err(|error| format!("cannot share a connection: {error}"))?;
        Ok(Peer { stream, patience: self.patience })
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Verdict {
        self.stream.write_all(bytes).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => format!("it took no more bytes for {:?}", self.patience),
            _ => format!("the connection broke while {} bytes were sent to it: {error}", bytes.len()),
        })
    }

    /// One write, of as much as the kernel takes.
    pub(crate) fn send_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    /// Whether the kernel takes no more bytes, because the program reads none.
    pub(crate) fn is_full(&self) -> bool {
        let mut sockets = [PollFd::new(&self.stream, PollFlags::OUT)];
        matches!(event::poll(&mut sockets, Some(&Timespec::default())), Ok(0))
    }

    /// Reads exactly so many bytes.
    pub(crate) fn receive(&mut self, len: usize) -> Verdict<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len);
        let mut piece = [0; 16 * 1024];
        while bytes.len() < len {
            let wanted = piece.len().min(len - bytes.len());
            match self.stream.read(&mut piece[..wanted]) {
                Ok(0) => {
                    return Err(format!("the connection ended after {} of {len} bytes", bytes.len()));
                }
                Ok(n) => bytes.extend_from_slice(&piece[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => {
                    return Err(format!(
                        "{} of {len} bytes came back, then nothing for {:?}",
                        bytes.len(),
                        self.patience
                    ));
                }
                Err(error) => {
                    return Err(format!(
                        "the connection broke after {} of {len} bytes: {error}",
                        bytes.len()
                    ));
                }
            }
        }
        Ok(bytes)
    }

    /// Reads until the end of the stream. A broken connection is an error.
    pub(crate) fn receive_all(&mut self) -> Verdict<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) if is_timeout(&error) => Err(format!(
                "{} bytes came, then neither more nor the end of the connection for {:?}",
                bytes.len(),
                self.patience
            )),
            Err(error) => Err(format!("{} bytes came, then the connection broke: {error}", bytes.len())),
        }
    }

    /// Waits until the other side has closed the connection, in either way.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut bytes = [0; 1024];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return !is_timeout(&error),
            }
        }
    }

    /// Whether the other side has closed it by now.
    pub(crate) fn is_closed_now(&mut self) -> bool {
        let mut byte = [0];
        let _ = self.stream.set_nonblocking(true);
        let result = self.stream.peek(&mut byte);
        let _ = self.stream.set_nonblocking(false);
        match result {
            Ok(n) => n == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }

    /// Whether nothing has arrived by now, neither bytes nor an end.
    pub(crate) fn is_empty_now(&mut self) -> bool {
        let mut byte = [0];
        let _ = self.stream.set_nonblocking(true);
        let result = self.stream.peek(&mut byte);
        let _ = self.stream.set_nonblocking(false);
        result.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Waits for the end of the stream.
    pub(crate) fn ends(&mut self) -> Verdict {
        match self.stream.read(&mut [0; 64]) {
            Ok(0) => Ok(()),
            Ok(_) => Err("more bytes came".into()),
            Err(error) if is_timeout(&error) => Err("the connection stays open".into()),
            Err(error) => Err(format!("the connection did not end, it broke ({error})")),
        }
    }

    /// As [`Peer::ask`], for a program that does not take it until its answers are read.
    pub(crate) fn ask_patiently(&mut self, method: &str, path: &str, body: &str) -> Verdict {
        self.stream.set_write_timeout(None).map_err(|error| error.to_string())?;
        self.ask(method, path, body)
    }

    /// Sends bytes and expects them back.
    pub(crate) fn echo(&mut self, bytes: &[u8]) -> Verdict {
        self.send(bytes)?;
        let back = self.receive(bytes.len())?;
        if back == bytes {
            return Ok(());
        }
        let position = back.iter().zip(bytes).position(|(got, sent)| got != sent).unwrap_or(0);
        Err(format!("what came back differs from what was sent, first at byte {position}"))
    }

    pub(crate) fn end_sending(&self) -> Verdict {
        self.stream.shutdown(Shutdown::Write).map_err(|error| format!("cannot half-close: {error}"))
    }
}

/// The kernel has either for a timeout.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
