//! `cargo stress trace`: the command line of the told system calls.

use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::{Long, Short, ValueExt};
use stress::steps::Steps;
use stress::syscalls::{self, TraceOptions};
use stress::throwaway::Throwaway;
use stress::wait::Interrupt;
use stress::{Error, compile, install};

use crate::arguments::{Request, subcommand};

/// Runs the subcommand with what is left of the command line.
pub(crate) fn main(arguments: lexopt::Parser) -> ExitCode {
    subcommand("trace", parse(arguments), HELP, run)
}

/// The binary of the server, or `None` for a fresh build.
fn parse(mut arguments: lexopt::Parser) -> Result<Request<Option<PathBuf>>, lexopt::Error> {
    let mut server = None;
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("server") => server = Some(arguments.value()?.parse()?),
            Long("help") | Short('h') => return Ok(Request::Help),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Request::Run(server))
}

fn run(server: Option<PathBuf>) -> Result<(), Error> {
    let interrupt = Interrupt::on_signals()?;
    let steps = Steps::Printed;
    let logs = Throwaway::new("logs")?;
    install::install_missing_for_trace(steps, &logs.path().join("install.log"))?;
    let workspace = compile::workspace();
    let server = compile::server(server, &workspace, logs.path(), &interrupt)?;
    let stories =
        syscalls::take(&TraceOptions { server, workspace, logs: logs.path().to_owned(), steps, interrupt })?;
    for story in stories {
        steps.line(&format!("\n{story}"));
    }
    Ok(())
}

const HELP: &str = "\
Shows every system call of one request: PostgreSQL and one instance are started for it, the instance under strace, and
stopped. Asked on one connection, after others like it: one transaction and one statement.

Usage: cargo stress trace [OPTIONS]

Options:
  --server FILE  This binary of the server in place of a fresh build
  -h, --help     This text

Each step has its time since the first one, the stage of the turn that it belongs to (wait, receive, advance, send, reap;
advance makes no system call), the call with its socket and result, what was read or written (HTTP by its first line,
PostgreSQL's messages by name), and what it is for. Under strace each call takes many times as long as without: read the
order, not the times. The clock is read without a system call, so it is not seen. docs/trace.md explains a sample.

strace and PostgreSQL are installed when they are missing, by root on Debian or Ubuntu.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_all(arguments: &[&str]) -> Result<Request<Option<PathBuf>>, lexopt::Error> {
        parse(lexopt::Parser::from_args(arguments))
    }

    #[test]
    fn reads_its_options() {
        assert_eq!(parse_all(&[]).unwrap(), Request::Run(None));
        assert_eq!(parse_all(&["--server", "s"]).unwrap(), Request::Run(Some("s".into())));
        assert_eq!(parse_all(&["-h"]).unwrap(), Request::Help);
        for wrong in [&["--server"][..], &["--seconds", "1"], &["now"]] {
            assert!(parse_all(wrong).is_err(), "{wrong:?}");
        }
    }
}
