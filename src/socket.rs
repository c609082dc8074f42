//! SHELL: listeners and streams over TCP and Unix sockets alike, so that nothing above has to tell them apart.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, ToSocketAddrs as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};

use crate::config::Address;

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// On an address and port.
    Tcp(TcpListener),
    /// On a path, which is removed when the listener is dropped.
    Unix(UnixListener, SocketFile),
}

impl Listener {
    /// Binds and listens. A Unix socket may be used by every local user: the proxy in front runs as another one. One
    /// that is left over from a server that was killed is replaced.
    ///
    /// # Errors
    /// The address is in use or cannot be bound.
    pub fn bind(address: &Address, backlog: i32, buffer_len_bytes: usize) -> io::Result<Listener> {
        match address {
            Address::Tcp(address) => {
                let address = address.to_socket_addrs()?.next().ok_or(ErrorKind::AddrNotAvailable)?;
                let socket =
                    socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
                // A restart must not wait for the connections of the instance before it to time out.
                socket.set_reuse_address(true)?;
                // Its connections inherit these. Left to itself the kernel lets the buffers of one grow to megabytes, and a
                // peer that pipelines requests and reads no answer would have them all. Those of a Unix socket stay small.
                socket.set_send_buffer_size(buffer_len_bytes)?;
                socket.set_recv_buffer_size(buffer_len_bytes)?;
                socket.set_nonblocking(true)?;
                socket.bind(&address.into())?;
                socket.listen(backlog)?;
                Ok(Listener::Tcp(TcpListener::from_std(socket.into())))
            }
            Address::Unix(path) => {
                let path = Path::new(path);
                remove_left_over(path)?;
                let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
                socket.set_nonblocking(true)?;
                socket.bind(&socket2::SockAddr::unix(path)?)?;
                let file = SocketFile::new(path)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
                socket.listen(backlog)?;
                Ok(Listener::Unix(UnixListener::from_std(socket.into()), file))
            }
        }
    }

    /// Takes the next connection off the backlog, ready to be used without delay of small packets.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; others as `accept(2)`.
    pub fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, _peer) = listener.accept()?;
                // It can only fail if the peer has left already, which the first read will tell.
                let _ = stream.set_nodelay(true);
                Ok(Stream::Tcp(stream))
            }
            Listener::Unix(listener, _) => Ok(Stream::Unix(listener.accept()?.0)),
        }
    }

    /// Registers it for connections to accept.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Listener::Tcp(listener) => registry.register(listener, token, Interest::READABLE),
            Listener::Unix(listener, _) => registry.register(listener, token, Interest::READABLE),
        }
    }

    /// Lets nobody new find it: a Unix socket loses its path, while the connections in its backlog can still be
    /// accepted. A TCP socket has no such half-way state.
    pub fn unpublish(&mut self) {
        if let Listener::Unix(_, file) = self {
            file.remove();
        }
    }

    /// Whether nobody new finds it although it listens: a Unix socket that has lost its path.
    pub fn is_unpublished(&self) -> bool {
        match self {
            Listener::Tcp(_) => false,
            Listener::Unix(_, file) => !file.is_published(),
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listener::Tcp(listener) => match listener.local_addr() {
                Ok(address) => address.fmt(f),
                Err(error) => write!(f, "an unknown address ({error})"),
            },
            Listener::Unix(_, file) => write!(f, "unix:{}", file.path.display()),
        }
    }
}

/// The file of a bound Unix socket; removed on drop, unless another server has put its own in its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<SocketFile> {
        Ok(SocketFile { path: path.to_owned(), inode: std::fs::symlink_metadata(path)?.ino() })
    }

    /// Whether its path still leads to it.
    fn is_published(&self) -> bool {
        std::fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode)
    }

    fn remove(&self) {
        if self.is_published()
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Removes a socket file that nobody listens on.
fn remove_left_over(path: &Path) -> io::Result<()> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(ErrorKind::AddrInUse, "another server listens there")),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// A connected or connecting socket.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// Begins to connect over TCP. A writable event and [`Stream::finish_connect`] tell when and how it ends.
    ///
    /// # Errors
    /// It failed at once.
    pub fn connect_tcp(address: SocketAddr) -> io::Result<Stream> {
        TcpStream::connect(address).map(Stream::Tcp)
    }

    /// Begins to connect to a Unix socket. As [`Stream::connect_tcp`].
    ///
    /// # Errors
    /// It failed at once.
    pub fn connect_unix(path: &Path) -> io::Result<Stream> {
        UnixStream::connect(path).map(Stream::Unix)
    }

    /// Ends the connecting: no delay of small packets from now on.
    ///
    /// # Errors
    /// Why it could not connect.
    pub fn finish_connect(&self) -> io::Result<()> {
        if let Some(error) = self.take_error()? {
            return Err(error);
        }
        match self {
            Stream::Tcp(stream) => stream.set_nodelay(true),
            Stream::Unix(_) => Ok(()),
        }
    }

    /// Says that nothing more will be sent.
    ///
    /// # Errors
    /// The connection is gone already.
    pub fn shut_down_write(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// Registers it for these events.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn register(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.register(registry, token, interest),
            Stream::Unix(stream) => stream.register(registry, token, interest),
        }
    }

    /// Changes the events it is registered for. What it is ready for at that time is told anew.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn reregister(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.reregister(registry, token, interest),
            Stream::Unix(stream) => stream.reregister(registry, token, interest),
        }
    }

    fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Stream::Tcp(stream) => stream.take_error(),
            Stream::Unix(stream) => stream.take_error(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(space),
            Stream::Unix(stream) => stream.read(space),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unpublished_socket_still_has_those_who_found_it_and_nobody_else() {
        let path = std::env::temp_dir().join(format!("rinha-socket-{}.sock", std::process::id()));
        let address = Address::Unix(path.to_str().unwrap().to_owned());
        let mut listener = Listener::bind(&address, 16, 16_384).unwrap();
        assert!(!listener.is_unpublished());
        let found = std::os::unix::net::UnixStream::connect(&path).unwrap();

        listener.unpublish();
        assert!(listener.is_unpublished());
        let late = std::os::unix::net::UnixStream::connect(&path).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::NotFound);
        let Stream::Unix(_accepted) = listener.accept().unwrap() else { panic!("it is a Unix socket") };
        drop(found);

        // The next server takes the path; the end of this one leaves it there.
        let next = Listener::bind(&address, 16, 16_384).unwrap();
        drop(listener);
        assert!(path.exists() && !next.is_unpublished());
        drop(next);
        assert!(!path.exists());
    }
}
