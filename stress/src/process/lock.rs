//! One `up` at a time for each port: a socket in the abstract namespace, which the kernel keeps as long as its holder lives,
//! and which tells who that is.
//!
//! Format: the manual page unix(7), "Abstract sockets" and `SO_PEERCRED`.

use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use crate::Error;

/// The right to be the only one; given back when dropped. A killed holder gives it back, too.
#[derive(Debug)]
pub struct Lock {
    _socket: UnixListener,
}

impl Lock {
    /// Takes the lock of this port, or refuses with the holder's process id.
    pub fn take(port: u16) -> Result<Lock, Error> {
        let failed = || Error::io(format!("lock port {port}"));
        let name = SocketAddr::from_abstract_name(format!("rinha-stress-{port}")).map_err(failed())?;
        match UnixListener::bind_addr(&name) {
            Ok(socket) => Ok(Lock { _socket: socket }),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                let holder = UnixStream::connect_addr(&name).map_err(failed())?;
                let holder = rustix::net::sockopt::socket_peercred(&holder);
                let holder = holder.map_err(|errno| failed()(errno.into()))?.pid;
                Err(Error::Refused(format!(
                    "`cargo stress up` is already running on this port as process {holder}: end it with `kill {holder}`, \
                     or choose another with --port"
                )))
            }
            Err(error) => Err(failed()(error)),
        }
    }
}
