//! `cargo stress sim`: builds the simulation and hands the command line on to it. It is a program of its own, because the
//! server that everything else here builds must not hold what it needs.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use stress::{Error, compile};

/// The core alone in a simulated, faulty world, over many seeds: no service, no socket, no clock
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(super) struct Arguments {
    /// As `cargo stress sim --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

/// Becomes the simulation.
pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    let error = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(compile::workspace())
        .args(["run", "--profile", "sim", "--package", "rinha"])
        .args(["--features", "sim", "--example", "sim", "--"])
        .args(&arguments.rest)
        .exec();
    Err(Error::io("run cargo")(error))
}
