//! What is asked of the bank, by whom, and what they are told.

use rustix::process::{Resource, Rlimit};

use crate::Error;

pub mod traffic;

mod closed;
pub use closed::{ClosedLoad, ClosedRun, LAG_MAX, Pace, RunningLoad, last_first};

mod open;
pub use open::{OpenLoop, OpenRun, Phase, Span};

mod crowd;
pub use crowd::Crowd;

mod attack;
pub use attack::{Attack, Endings};

mod generator;
pub use generator::{Generator, Latency, LoadFigures, LoadKind, Program};
pub(crate) use generator::{PATIENCE, Script};

/// Lets this process open at least so many files.
pub(crate) fn allow_descriptors(needed: u64) -> Result<(), Error> {
    let own = rustix::process::getrlimit(Resource::Nofile);
    if own.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let wanted = Rlimit { current: Some(needed), maximum: own.maximum };
    rustix::process::setrlimit(Resource::Nofile, wanted)
        .map_err(|error| Error::io(format!("open {needed} files at once (ulimit -Hn)"))(error.into()))
}
