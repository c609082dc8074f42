//! What every piece of work has in common.

use std::path::{Path, PathBuf};

use super::compile;
use super::install::{self, Tool};
use crate::Error;
use crate::steps::Steps;
use crate::wait::Interrupt;

/// Where work is done, who is told how it goes, and what calls it off.
#[derive(Debug, Clone)]
pub struct Workplace {
    pub workspace: PathBuf,
    pub logs: PathBuf,
    pub steps: Steps,
    pub interrupt: Interrupt,
}

impl Workplace {
    /// Told to nobody, and never called off.
    pub fn silent(workspace: impl Into<PathBuf>, logs: &Path) -> Workplace {
        let (steps, interrupt) = (Steps::Silent, Interrupt::default());
        Workplace { workspace: workspace.into(), logs: logs.to_owned(), steps, interrupt }
    }

    /// That of a command: told on standard output, and called off by signals.
    pub fn of_command(logs: &Path) -> Result<Workplace, Error> {
        let (steps, interrupt) = (Steps::Printed, Interrupt::on_signals()?);
        Ok(Workplace { workspace: compile::workspace(), logs: logs.to_owned(), steps, interrupt })
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    pub fn install(&self, tools: &[&Tool]) -> Result<(), Error> {
        install::install_missing(tools, self.steps, &self.log("install"))
    }

    /// The binary of the server that is given, or else a fresh build in release mode; of a peer, where one is named.
    pub fn server(&self, given: Option<&PathBuf>) -> Result<PathBuf, Error> {
        let Some(given) = given else { return compile::build(self) };
        match compile::peer(given) {
            Some(peer) => compile::build_peer(peer, self),
            None => Ok(given.clone()),
        }
    }
}
