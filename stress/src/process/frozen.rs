//! Processes that stand still.

use rustix::io::Errno;
use rustix::process::Signal;

use super::{Service, signal};
use crate::Error;

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
