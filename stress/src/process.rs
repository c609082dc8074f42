//! Processes: started, limited, stopped, waited for.

use std::process::Command;

use procfs::ProcResult;
use procfs::net::TcpState;
use procfs::process::{FDTarget, Process};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use crate::Error;

pub mod wait;

pub mod throwaway;

pub(crate) mod service;
pub use service::{Launch, Service};

pub mod cgroup;
pub mod lock;
pub mod user;

/// Runs a tool that ends within moments. Gives what it printed, or as an error what it complained about.
pub(crate) fn run(command: &mut Command, attempt: &str) -> Result<String, Error> {
    let output = command.output().map_err(Error::io(attempt))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(Error::Refused(format!("cannot {attempt}: {}", complaint.trim())))
}

/// Signals a process, whoever started it.
pub(crate) fn signal(pid: u32, signal: Signal) -> rustix::io::Result<()> {
    rustix::process::kill_process(Pid::from_raw(pid.cast_signed()).ok_or(Errno::SRCH)?, signal)
}

/// Processes that stand still until this is dropped.
#[derive(Debug)]
pub struct Frozen {
    pids: Vec<u32>,
}

impl Frozen {
    pub fn new(pids: &[u32]) -> Result<Frozen, Error> {
        let mut frozen = Frozen { pids: Vec::new() };
        for pid in pids.iter().copied() {
            match signal(pid, Signal::STOP) {
                Ok(()) => frozen.pids.push(pid),
                // Who has ended stands still anyway.
                Err(Errno::SRCH) => {}
                Err(errno) => return Err(Error::io(format!("stop process {pid}"))(errno.into())),
            }
        }
        Ok(frozen)
    }

    /// A service and its children: first the one that starts the others, so that none is missed.
    pub fn all_of(service: &Service) -> Result<[Frozen; 2], Error> {
        Ok([Frozen::new(&[service.pid()])?, Frozen::new(&service.child_pids())?])
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.pids {
            // Who was killed meanwhile has nothing to go on with.
            let _ = signal(*pid, Signal::CONT);
        }
    }
}

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
