//! SHELL: listeners and streams over TCP and Unix sockets alike, so that nothing above has to tell them apart.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, ToSocketAddrs as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use proto_pg::TcpOptions;

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
    /// Binds and listens, on every address of a name. An address of a name that no interface of this machine has is left out
    /// with a warning, unless there is no other. With port 0 each address has a port of its own.
    ///
    /// A Unix socket may be used by every local user: the proxy in front runs as another one. One that is left over from a
    /// server that was killed is replaced.
    ///
    /// # Errors
    /// The name has no address, or one is in use or cannot be bound.
    pub fn bind(address: &Address, backlog: i32, buffer_len_bytes: usize) -> io::Result<Vec<Listener>> {
        match address {
            Address::Tcp(name) => {
                let addresses = name.to_socket_addrs().map_err(|error| {
                    io::Error::new(
                        error.kind(),
                        format!("the name has no address that is known here: {error}"),
                    )
                })?;
                bind_each(addresses, backlog, buffer_len_bytes)
            }
            Address::Unix(path) => Ok(vec![Listener::bind_unix(Path::new(path), backlog)?]),
        }
    }

    fn bind_tcp(address: SocketAddr, backlog: i32, buffer_len_bytes: usize) -> io::Result<Listener> {
        let socket =
            socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        // Without it, a restart would wait for TIME_WAIT of the previous instance's connections.
        socket.set_reuse_address(true)?;
        // Accepted connections inherit these. By default the kernel lets a buffer grow to megabytes, which a peer that
        // pipelines requests and reads no answer would use up. Buffers of a Unix socket stay small.
        socket.set_send_buffer_size(buffer_len_bytes)?;
        socket.set_recv_buffer_size(buffer_len_bytes)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(backlog)?;
        Ok(Listener::Tcp(TcpListener::from_std(socket.into())))
    }

    fn bind_unix(path: &Path, backlog: i32) -> io::Result<Listener> {
        remove_left_over(path)?;
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&socket2::SockAddr::unix(path)?)?;
        let file = SocketFile::new(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
        socket.listen(backlog)?;
        Ok(Listener::Unix(UnixListener::from_std(socket.into()), file))
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

    /// Hides it from new clients: removes the path of a Unix socket. The connections in its backlog can still be accepted.
    /// A TCP listener cannot be hidden.
    pub fn unpublish(&mut self) {
        if let Listener::Unix(_, file) = self {
            file.remove();
        }
    }

    /// Whether it listens but new clients cannot find it: a Unix socket whose path was removed.
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

/// One listener for each address that this machine has. A name may give an address twice.
fn bind_each(
    addresses: impl Iterator<Item = SocketAddr>,
    backlog: i32,
    buffer_len_bytes: usize,
) -> io::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    let mut absent: Vec<(SocketAddr, io::Error)> = Vec::new();
    let mut seen = Vec::new();
    for address in addresses {
        if seen.contains(&address) {
            continue;
        }
        seen.push(address);
        match Listener::bind_tcp(address, backlog, buffer_len_bytes) {
            Ok(listener) => listeners.push(listener),
            // As in a container without IPv6, whose file of hosts has ::1 for localhost all the same.
            Err(error) if is_absent(&error) => absent.push((address, error)),
            Err(error) => return Err(io::Error::new(error.kind(), format!("{address}: {error}"))),
        }
    }
    if listeners.is_empty() {
        let (address, error) = absent.pop().ok_or(ErrorKind::AddrNotAvailable)?;
        return Err(io::Error::new(error.kind(), format!("{address}: {error}")));
    }
    for (address, error) in absent {
        log::warn!("left out {address}: {error}");
    }
    Ok(listeners)
}

/// Whether no interface of this machine has the address, or the system has no such addresses at all.
fn is_absent(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    error.kind() == ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// Removes a socket file without a listener; no other file.
fn remove_left_over(path: &Path) -> io::Result<()> {
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(ErrorKind::AddrInUse, "another server listens there")),
        // Its backlog is full.
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            Err(io::Error::new(ErrorKind::AddrInUse, "another server listens there, and does not accept"))
        }
        // Connecting to a file that is no socket is refused as well.
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            if std::fs::metadata(path)?.file_type().is_socket() {
                std::fs::remove_file(path)
            } else {
                Err(io::Error::new(ErrorKind::AlreadyExists, "a file that is no socket has that path"))
            }
        }
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

    /// Completes the connect and sets `TCP_NODELAY`.
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

    /// Sets TCP keep-alive and the user timeout; does nothing on a Unix socket.
    ///
    /// # Errors
    /// As `setsockopt(2)`.
    pub fn set_tcp_options(&self, options: &TcpOptions) -> io::Result<()> {
        let Stream::Tcp(stream) = self else { return Ok(()) };
        let socket = socket2::SockRef::from(stream);
        if let Some(keepalive) = options.keepalive {
            socket.set_keepalive(true)?;
            let mut parameters = socket2::TcpKeepalive::new();
            if let Some(seconds) = keepalive.idle_seconds {
                parameters = parameters.with_time(Duration::from_secs(seconds.into()));
            }
            if let Some(seconds) = keepalive.interval_seconds {
                parameters = parameters.with_interval(Duration::from_secs(seconds.into()));
            }
            if let Some(count) = keepalive.count {
                parameters = parameters.with_retries(count);
            }
            socket.set_tcp_keepalive(&parameters)?;
        }
        if let Some(timeout_ms) = options.user_timeout_ms {
            socket.set_tcp_user_timeout(Some(Duration::from_millis(timeout_ms.into())))?;
        }
        Ok(())
    }

    /// Closes our half: the peer reads an end of stream.
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

    /// Changes the events it is registered for. What it is ready for at that time is reported again.
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
    use proto_pg::Url;

    #[test]
    fn the_options_of_tcp_reach_the_socket() {
        let address = Address::Tcp("127.0.0.1:0".to_owned());
        let listener = Listener::bind(&address, 16, 16_384).unwrap().swap_remove(0);
        let connect = || Stream::connect_tcp(listener.to_string().parse().unwrap()).unwrap();
        let set = |query: &str| {
            let url = Url::parse(&format!("postgresql://db?{query}")).unwrap();
            let stream = connect();
            let options = TcpOptions { keepalive: url.keepalive, user_timeout_ms: url.tcp_user_timeout_ms };
            stream.set_tcp_options(&options).unwrap();
            let Stream::Tcp(stream) = stream else { panic!("it is TCP") };
            stream
        };
        let stream = set("keepalives_idle=7&keepalives_interval=3&keepalives_count=2&tcp_user_timeout=4000");
        let socket = socket2::SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(7));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(3));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 2);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(4)));

        assert!(socket2::SockRef::from(&set("")).keepalive().unwrap(), "on by default, as in libpq");
        assert!(!socket2::SockRef::from(&set("keepalives=0")).keepalive().unwrap());
        // The longest that a URL may ask for.
        let longest = "keepalives_idle=32767&keepalives_interval=32767&keepalives_count=127";
        assert!(socket2::SockRef::from(&set(longest)).keepalive().unwrap());
    }

    #[test]
    fn an_unpublished_socket_still_has_those_who_found_it_and_nobody_else() {
        let path = std::env::temp_dir().join(format!("rinha-socket-{}.sock", std::process::id()));
        let mut listener = Listener::bind_unix(&path, 16).unwrap();
        assert!(!listener.is_unpublished());
        let found = std::os::unix::net::UnixStream::connect(&path).unwrap();

        listener.unpublish();
        assert!(listener.is_unpublished());
        let late = std::os::unix::net::UnixStream::connect(&path).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::NotFound);
        let Stream::Unix(_accepted) = listener.accept().unwrap() else { panic!("it is a Unix socket") };
        drop(found);

        // The next server takes the path; the end of this one leaves it there.
        let next = Listener::bind_unix(&path, 16).unwrap();
        drop(listener);
        assert!(path.exists() && !next.is_unpublished());
        drop(next);
        assert!(!path.exists());
    }

    fn bind_these(addresses: &[&str]) -> io::Result<Vec<String>> {
        let addresses = addresses.iter().map(|address| address.parse().unwrap());
        Ok(bind_each(addresses, 16, 16_384)?.iter().map(ToString::to_string).collect())
    }

    /// Of TEST-NET-1, RFC 5737: no machine has it.
    const NOBODYS: &str = "192.0.2.1:0";

    #[test]
    fn every_address_of_a_name_is_bound_once_and_those_of_others_are_left_out() {
        let bound = bind_these(&["127.0.0.1:0", NOBODYS, "127.0.0.2:0", "127.0.0.1:0"]).unwrap();
        let [first, second] = bound.as_slice() else { panic!("{bound:?}") };
        assert!(first.starts_with("127.0.0.1:") && second.starts_with("127.0.0.2:"), "{bound:?}");
    }

    #[test]
    fn a_name_without_an_address_of_this_machine_or_with_one_in_use_is_refused() {
        let error = bind_these(&[NOBODYS]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
        assert!(error.to_string().starts_with("192.0.2.1:0: "), "{error}");
        assert_eq!(bind_these(&[]).unwrap_err().kind(), ErrorKind::AddrNotAvailable);
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = other.local_addr().unwrap().to_string();
        let error = bind_these(&["127.0.0.2:0", &taken]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().starts_with(&taken), "{error}");
    }

    #[test]
    fn a_file_that_is_no_socket_stays() {
        let path = std::env::temp_dir().join(format!("rinha-file-{}", std::process::id()));
        std::fs::write(&path, "precious").unwrap();
        let error = Listener::bind_unix(&path, 16).unwrap_err();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((error.kind(), text.as_str()), (ErrorKind::AlreadyExists, "precious"));
    }
}
