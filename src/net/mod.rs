//! Sockets: what the event loop needs of a network, and the operating system's own.
//!
//! [`network`] and [`transport`] compile without the feature `shell`; the simulation implements them with sockets of its
//! own. Everything else here belongs to the shell.

pub mod network;
pub mod transport;

#[cfg(feature = "shell")]
pub mod mio_network;
#[cfg(feature = "shell")]
pub mod connector;
#[cfg(feature = "shell")]
pub mod resolver;
#[cfg(feature = "shell")]
pub mod stream;
#[cfg(feature = "shell")]
pub mod descriptors;
#[cfg(feature = "shell")]
pub mod socket;
#[cfg(feature = "shell")]
pub mod token;
#[cfg(feature = "shell")]
pub mod healthcheck;
#[cfg(feature = "shell")]
pub mod log_writer;
#[cfg(feature = "shell")]
pub mod log_rate;
