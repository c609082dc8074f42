//! The way between a connection and its transport: as it is, or through TLS where the feature is on and the settings ask for
//! it. A program that supports both writes its byte loop once.

use std::error::Error;
use std::fmt::{self, Debug, Display, Formatter};
use std::io;
use std::path::Path;

#[cfg(feature = "tls")]
use crate::tls::{Tls, TlsConfig, TlsError};
use crate::{Connection, Host, Url};

/// How the bytes of each connection travel: checked once, with every file read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChannelConfig {
    #[cfg(feature = "tls")]
    tls: Option<TlsConfig>,
}

/// The way of one connection.
#[derive(Debug, Default)]
pub struct Channel {
    #[cfg(feature = "tls")]
    tls: Option<Box<Tls>>,
}

/// Why a channel cannot be had: a setting of TLS, or a file that it names. One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelError {
    #[cfg(feature = "tls")]
    error: TlsError,
    #[cfg(not(feature = "tls"))]
    never: std::convert::Infallible,
}

impl ChannelConfig {
    /// What the connection string asks for. The files that it names are read with `read`: `|path| std::fs::read(path)`.
    ///
    /// # Errors
    /// A setting, a file, or the name of a host cannot be used for TLS. Without the feature there is no error.
    pub fn new(
        url: &Url,
        read: impl Fn(&Path) -> io::Result<Vec<u8>>,
    ) -> Result<ChannelConfig, ChannelError> {
        #[cfg(feature = "tls")]
        {
            let config = ChannelConfig { tls: TlsConfig::new(&url.tls, read)? };
            for host in &url.hosts {
                config.open(host)?;
            }
            Ok(config)
        }
        #[cfg(not(feature = "tls"))]
        {
            let _ = (url, read);
            Ok(ChannelConfig {})
        }
    }

    /// The channel of a new connection to this host. A Unix socket never has TLS.
    ///
    /// # Errors
    /// The name cannot be one of a host; [`ChannelConfig::new`] has found that out for those of its string.
    pub fn open(&self, host: &Host) -> Result<Channel, ChannelError> {
        #[cfg(feature = "tls")]
        {
            Ok(Channel {
                tls: match (&self.tls, host) {
                    (Some(config), Host::Tcp { name, .. }) => Some(Box::new(Tls::new(config, name)?)),
                    (Some(_), Host::Unix { .. }) | (None, _) => None,
                },
            })
        }
        #[cfg(not(feature = "tls"))]
        {
            let _ = host;
            Ok(Channel {})
        }
    }
}

impl Channel {
    /// As [`Connection::recv_space`], for the transport.
    pub fn recv_space<'a, T: Clone>(&'a mut self, connection: &'a mut Connection<T>) -> &'a mut [u8] {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            return tls.recv_space();
        }
        connection.recv_space()
    }

    /// As [`Connection::recv_commit`].
    pub fn recv_commit<T: Clone>(&mut self, n: usize, connection: &mut Connection<T>) {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            tls.recv_commit(n);
            tls.exchange(connection);
            return;
        }
        connection.recv_commit(n);
    }

    /// As [`Connection::send_pending`].
    pub fn send_pending<'a, T: Clone>(&'a self, connection: &'a Connection<T>) -> &'a [u8] {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return if connection.is_closing() { &[] } else { tls.send_pending() };
        }
        connection.send_pending()
    }

    /// As [`Connection::send_advance`].
    pub fn send_advance<T: Clone>(&mut self, n: usize, connection: &mut Connection<T>) {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            tls.send_advance(n, connection);
            return;
        }
        connection.send_advance(n);
    }

    /// To be called after commands, so that what they queued can be sent, and when [`Connection::poll_event`] has given `None`:
    /// true if there is more to drain now.
    pub fn exchange<T: Clone>(&mut self, connection: &mut Connection<T>) -> bool {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            return tls.exchange(connection);
        }
        let _ = connection;
        false
    }
}

#[cfg(feature = "tls")]
impl From<TlsError> for ChannelError {
    fn from(error: TlsError) -> ChannelError {
        ChannelError { error }
    }
}

impl Display for ChannelError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        #[cfg(feature = "tls")]
        return Display::fmt(&self.error, f);
        #[cfg(not(feature = "tls"))]
        return Display::fmt(&self.never, f);
    }
}

impl Error for ChannelError {}
