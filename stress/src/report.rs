//! `cargo stress report`: the page over all kept runs, anew.

use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::{Long, Short, Value};
use stress::{compile, reports};

use crate::usage;

/// Runs the subcommand with what is left of the command line.
pub(crate) fn main(arguments: lexopt::Parser) -> ExitCode {
    let directory = match parse(arguments) {
        Ok(Request::Help) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(Request::Report(directory)) => directory,
        Err(error) => return usage(&error.to_string()),
    };
    let directory = directory.unwrap_or_else(|| reports::default_directory(&compile::workspace()));
    match reports::write_index(&directory) {
        Ok(path) => {
            println!("written: {}", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cargo stress report: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    Help,
    Report(Option<PathBuf>),
}

fn parse(mut arguments: lexopt::Parser) -> Result<Request, lexopt::Error> {
    let mut directory = None;
    while let Some(argument) = arguments.next()? {
        match argument {
            Value(path) if directory.is_none() => directory = Some(PathBuf::from(path)),
            Long("help") | Short('h') => return Ok(Request::Help),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Request::Report(directory))
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
        assert_eq!(parse_all(&[]).unwrap(), Request::Report(None));
        assert_eq!(parse_all(&["d"]).unwrap(), Request::Report(Some("d".into())));
        assert_eq!(parse_all(&["d", "--help"]).unwrap(), Request::Help);
        assert!(parse_all(&["d", "e"]).is_err() && parse_all(&["--keep"]).is_err());
    }
}
