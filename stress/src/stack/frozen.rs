//! Processes that stand still.

use rustix::process::{Pid, Signal};

use crate::{Error, Postgres};

/// Processes that stand still until this is dropped.
#[derive(Debug)]
pub struct Frozen {
    pids: Vec<Pid>,
}

impl Frozen {
    pub fn new(pids: &[u32]) -> Result<Frozen, Error> {
        let mut frozen = Frozen { pids: Vec::new() };
        for pid in pids {
            let refused = || Error::io(format!("stop process {pid}"));
            let raw = i32::try_from(*pid).ok().and_then(Pid::from_raw);
            let raw = raw.ok_or(rustix::io::Errno::SRCH).map_err(|errno| refused()(errno.into()))?;
            match rustix::process::kill_process(raw, Signal::STOP) {
                Ok(()) => frozen.pids.push(raw),
                // Who has ended stands still anyway.
                Err(rustix::io::Errno::SRCH) => {}
                Err(errno) => return Err(refused()(errno.into())),
            }
        }
        Ok(frozen)
    }

    /// All of a PostgreSQL: first the one that starts the others, so that none is missed. Returns both.
    pub fn all_of(postgres: &Postgres) -> Result<[Frozen; 2], Error> {
        Ok([Frozen::new(&[postgres.pid()])?, Frozen::new(&postgres.child_pids())?])
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.pids {
            // Who was killed meanwhile has nothing to go on with.
            let _ = rustix::process::kill_process(*pid, Signal::CONT);
        }
    }
}
