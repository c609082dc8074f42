//! `cargo stress sim`: builds the simulation and hands the command line on to it. It is a program of its own, because the
//! server that everything else here builds must not hold what it needs.

use std::env;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use stress::compile;

/// Becomes the simulation, with what is left of the command line.
pub(crate) fn main(mut arguments: lexopt::Parser) -> ExitCode {
    let rest = match arguments.raw_args() {
        Ok(rest) => rest,
        Err(error) => return crate::usage_of("sim", &error.to_string()),
    };
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let error = Command::new(cargo)
        .current_dir(compile::workspace())
        .args(["run", "--profile", "sim", "--package", "rinha"])
        .args(["--features", "sim", "--example", "sim", "--"])
        .args(rest)
        .exec();
    eprintln!("cargo stress sim: cannot run cargo: {error}");
    ExitCode::FAILURE
}
