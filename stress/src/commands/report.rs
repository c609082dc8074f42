//! `cargo stress report`: the page over all kept runs, anew; and how other subcommands keep theirs.

use std::path::PathBuf;

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
    let index = reports::write_index(&directory(arguments.directory.as_ref()))?;
    Steps::Printed.line(&format!("written: {}", index.display()));
    Ok(())
}

fn directory(given: Option<&PathBuf>) -> PathBuf {
    // Git ignores what is in it.
    given.cloned().unwrap_or_else(|| compile::workspace().join("stress/reports"))
}

/// Keeps a run with those in a directory, and says where. `page` is what else it left, with its file extension.
pub(super) fn keep(
    given: Option<&PathBuf>,
    summary: &Summary,
    page: Option<(&str, &[u8])>,
) -> Result<(), Error> {
    let directory = directory(given);
    let kept = reports::keep(&directory, summary, page)?;
    let index = directory.join("index.html");
    Steps::Printed.line(&format!("kept: {}; all runs: {}", kept.display(), index.display()));
    Ok(())
}
