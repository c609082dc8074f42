//! `cargo stress trace`: the system calls of two requests, explained.

use std::path::PathBuf;

use stress::syscalls;
use stress::{Error, install};

use super::at_work;

/// One transaction and one statement, system call by system call, with what each is for
///
/// PostgreSQL and one instance are started for it, the instance under strace, and stopped. Asked on one connection, after others
/// like it: one transaction and one statement.
#[derive(Debug, clap::Args)]
#[command(after_long_help = NOTES)]
pub(super) struct Arguments {
    /// This binary of the server in place of a fresh build
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    at_work("trace", |place| {
        place.install(&[&install::POSTGRES, &install::STRACE])?;
        let server = place.server(arguments.server.as_ref())?;
        for story in syscalls::take(&server, place)? {
            place.steps.line(&format!("\n{story}"));
        }
        Ok(())
    })
}

const NOTES: &str = "\
Each step has its time since the first one, the stage of the turn that it belongs to (wait, receive, advance, send, reap; \
advance makes no system call), the call with its socket and result, what was read or written (HTTP by its first line, \
PostgreSQL's messages by name), and what it is for. Under strace each call takes many times as long as without: read the \
order, not the times. The clock is read without a system call, so it is not seen. docs/learn/microseconds.md explains a sample.

strace and PostgreSQL are installed when they are missing, by root on Debian or Ubuntu.";
