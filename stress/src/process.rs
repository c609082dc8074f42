//! Processes: started, limited, stopped, waited for.

use procfs::ProcResult;
use procfs::net::TcpState;
use procfs::process::{FDTarget, Process};

pub mod wait;

pub mod throwaway;

pub(crate) mod service;
pub use service::{Launch, Service};

pub mod cgroup;
pub mod lock;
pub mod user;

/// The TCP ports that the process `pid` listens on. It must be of this user, and in this network.
pub fn ports_of(pid: u32) -> ProcResult<Vec<u16>> {
    let process = Process::new(pid.cast_signed())?;
    // A descriptor that is closed in the meantime has no target any more.
    let sockets = process.fd()?.flatten().filter_map(|descriptor| match descriptor.target {
        FDTarget::Socket(inode) => Some(inode),
        _ => None,
    });
    let sockets: Vec<u64> = sockets.collect();
    // Without IPv6 there is no second table.
    let entries = process.tcp()?.into_iter().chain(process.tcp6().unwrap_or_default());
    let listens = entries.filter(|entry| entry.state == TcpState::Listen && sockets.contains(&entry.inode));
    Ok(listens.map(|entry| entry.local_address.port()).collect())
}
