//! What is asked of the bank, by whom, and what they are told.

use std::io::ErrorKind;
use std::time::Duration;

use mio::{Events, Poll};
use rustix::process::{Pid, Resource, Rlimit};

use crate::Error;
use crate::wait::Interrupt;

pub mod traffic;

mod closed;
pub use closed::{ClosedLoad, ClosedRun, LAG_MAX, Outcomes, Pace, RunningLoad, last_first, longest_gap};

mod open;
pub use open::{Crowd, OpenLoop, OpenRun, Phase, Span};

mod attack;
pub use attack::{Attack, Endings};

mod generator;
pub(crate) use generator::PATIENCE;
pub use generator::{Generator, Latency, LoadFigures, LoadKind, Program};

struct Watch {
    poll: Poll,
    events: Events,
}

impl Watch {
    fn new() -> Result<Watch, Error> {
        Ok(Watch {
            poll: Poll::new().map_err(Error::io("make an epoll"))?,
            events: Events::with_capacity(1024),
        })
    }

    fn wait(&mut self, timeout: Duration, interrupt: &Interrupt) -> Result<&Events, Error> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => {
                Err(Error::io("wait for the bank")(error))
            }
            _ if interrupt.is_raised() => Err(Error::Interrupted),
            _ => Ok(&self.events),
        }
    }
}

/// Lets this process open at least so many files.
pub(crate) fn allow_descriptors(needed: u64) -> Result<(), Error> {
    let own = rustix::process::getrlimit(Resource::Nofile);
    if own.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    set_descriptors(None, needed).map(drop)
}

/// Sets the limit of open files of a process (`None`: of this one). Returns what it was.
pub(crate) fn set_descriptors(pid: Option<Pid>, limit: u64) -> Result<u64, Error> {
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    let before = rustix::process::prlimit(pid, Resource::Nofile, Rlimit { current: Some(limit), maximum });
    let attempt = || format!("set the limit of open files to {limit} (see ulimit -Hn)");
    let before = before.map_err(|errno| Error::io(attempt())(errno.into()))?;
    Ok(before.current.unwrap_or(u64::MAX))
}
