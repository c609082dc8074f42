//! `cargo stress`: the subcommands.

mod commands;

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::main()
}
