//! `cargo stress report`: the page over all kept runs, anew; and how other subcommands keep theirs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lexopt::prelude::{Long, Short, Value};
use stress::reports::{self, Summary};
use stress::steps::Steps;
use stress::{Error, compile};

use crate::arguments::{Request, subcommand};

/// Runs the subcommand with what is left of the command line.
pub(crate) fn main(arguments: lexopt::Parser) -> ExitCode {
    subcommand("report", parse(arguments), HELP, |directory| {
        let directory = directory.unwrap_or_else(|| reports::default_directory(&compile::workspace()));
        reports::write_index(&directory)
            .map(|path| Steps::Printed.line(&format!("written: {}", path.display())))
    })
}

/// Keeps a run with those in `directory`, and says where. `page` is what else it left, with its file extension.
pub(crate) fn keep(directory: &Path, summary: &Summary, page: Option<(&str, &[u8])>) -> Result<(), Error> {
    let kept = reports::keep(directory, summary, page)?;
    let index = directory.join("index.html");
    Steps::Printed.line(&format!("kept: {}; all runs: {}", kept.display(), index.display()));
    Ok(())
}

fn parse(mut arguments: lexopt::Parser) -> Result<Request<Option<PathBuf>>, lexopt::Error> {
    let mut directory = None;
    while let Some(argument) = arguments.next()? {
        match argument {
            Value(path) if directory.is_none() => directory = Some(PathBuf::from(path)),
            Long("help") | Short('h') => return Ok(Request::Help),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Request::Run(directory))
}

const HELP: &str = "\
Writes the page over all kept runs anew: index.html, with charts over time of requests per second, p99 and CPU time per
request, and a table that leads to the report of each run. `cargo stress k6` and `cargo stress run --keep` do so themselves;
it is needed after a run of k6 in a container, and after a run was removed.

Usage: cargo stress report [DIR]

  DIR         Where the runs are kept [default: docs/reports]
  -h, --help  This text
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_one_directory_or_none() {
        let parse_all = |arguments: &[&str]| parse(lexopt::Parser::from_args(arguments));
        assert_eq!(parse_all(&[]).unwrap(), Request::Run(None));
        assert_eq!(parse_all(&["d"]).unwrap(), Request::Run(Some("d".into())));
        assert_eq!(parse_all(&["d", "--help"]).unwrap(), Request::Help);
        assert!(parse_all(&["d", "e"]).is_err() && parse_all(&["--keep"]).is_err());
    }
}
