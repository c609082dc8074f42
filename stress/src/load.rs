//! What is asked of the bank, by whom, and what they are told.

use std::io::ErrorKind;
use std::time::Duration;

use mio::{Events, Poll};
use rustix::process::{Resource, Rlimit};

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

pub(crate) fn allow_descriptors(needed: u64) -> Result<(), Error> {
    let own = rustix::process::getrlimit(Resource::Nofile);
    if own.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let wanted = Rlimit { current: Some(needed), maximum: own.maximum };
    rustix::process::setrlimit(Resource::Nofile, wanted)
        .map_err(|error| Error::io(format!("open {needed} files at once (ulimit -Hn)"))(error.into()))
}
