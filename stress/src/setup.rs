//! What has to be there before anything can run: programs of others, found or installed, and the server, built.

pub mod compile;
pub mod install;

mod python;
mod tools;

use std::path::{Path, PathBuf};

use crate::Error;
use crate::steps::Steps;
use crate::wait::Interrupt;
use install::Tool;

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

/// Says on standard error that `what` is not checked here, and why.
///
/// # Panics
/// In a workflow, as `.ci/left-out` has it: there nothing may be left out.
pub fn left_out(what: &str, why: &str) {
    use std::io::Write as _;

    let is_workflow = std::env::var_os("GITHUB_ACTIONS").is_some();
    assert!(!is_workflow, "{what} cannot be checked here: {why}");
    // Not by `eprintln!`, which libtest keeps to itself as long as the test does not fail.
    let _ = writeln!(std::io::stderr(), "!! LEFT OUT: {what}: {why}");
}
