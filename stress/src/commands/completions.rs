//! `cargo stress completions`: what a shell needs to complete the command line.

use std::io;

use clap_complete::Shell;

/// The script with which a shell completes subcommands, options and their values
///
/// It completes `stress`. So: alias stress='cargo stress', and then, for example, source <(cargo stress completions bash).
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments, command_line: &mut clap::Command) {
    clap_complete::generate(arguments.shell, command_line, "stress", &mut io::stdout());
}
