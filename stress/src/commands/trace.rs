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
#[command(after_long_help = include_str!("../help/trace.txt"))]
pub(super) struct Arguments {
    /// This binary of the server in place of a fresh build
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    at_work(|place| {
        place.install(&[&install::POSTGRES, &install::STRACE])?;
        let server = place.server(arguments.server.as_ref())?;
        for story in syscalls::take(&server, place)? {
            place.steps.line(&format!("\n{story}"));
        }
        Ok(())
    })
}
