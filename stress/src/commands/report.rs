//! `cargo stress report`: the page over all kept runs, anew; and how other subcommands keep theirs.

use std::path::{Path, PathBuf};

use stress::reports::{self, Summary};
use stress::steps::Steps;
use stress::{Error, compile};

/// The page over all the runs that were kept
///
/// Writes index.html anew, with charts over time of requests per second, p99 and CPU time per request, and a table that leads to
/// the report of each run. `cargo stress k6` and `cargo stress run --keep` do so themselves; it is needed after a run of k6 in a
/// container, and after a run was removed.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where the runs are kept [default: stress/reports]
    directory: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    let directory = arguments.directory.clone().unwrap_or_else(default_directory);
    reports::write_index(&directory).map(|path| Steps::Printed.line(&format!("written: {}", path.display())))
}

pub(super) fn default_directory() -> PathBuf {
    reports::default_directory(&compile::workspace())
}

/// Keeps a run with those in `directory`, and says where. `page` is what else it left, with its file extension.
pub(super) fn keep(directory: &Path, summary: &Summary, page: Option<(&str, &[u8])>) -> Result<(), Error> {
    let kept = reports::keep(directory, summary, page)?;
    let index = directory.join("index.html");
    Steps::Printed.line(&format!("kept: {}; all runs: {}", kept.display(), index.display()));
    Ok(())
}
