//! `cargo stress`: picks the subcommand and turns its result into an exit status.

mod arguments;
mod endure;
mod flamegraph;
mod k6;
mod report;
mod run;
mod sim;
mod soak;
mod trace;
mod up;

use std::process::ExitCode;

use lexopt::prelude::{Long, Short, Value};

fn main() -> ExitCode {
    let mut arguments = lexopt::Parser::from_env();
    let subcommand = match arguments.next() {
        Ok(None | Some(Long("help") | Short('h'))) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(Some(Value(name))) => name,
        Ok(Some(other)) => return usage(&other.unexpected().to_string()),
        Err(error) => return usage(&error.to_string()),
    };
    match subcommand.to_str() {
        Some("up") => up::main(arguments),
        Some("run") => run::main(arguments),
        Some("k6") => k6::main(arguments),
        Some("report") => report::main(arguments),
        Some("endure") => endure::main(arguments),
        Some("soak") => soak::main(arguments),
        Some("sim") => sim::main(arguments),
        Some("flamegraph") => flamegraph::main(arguments),
        Some("trace") => trace::main(arguments),
        _ => usage(&format!("there is no subcommand {}", subcommand.display())),
    }
}

/// Refuses the command line, with exit status 2.
fn usage(problem: &str) -> ExitCode {
    eprintln!("cargo stress: {problem}; see `cargo stress --help`");
    ExitCode::from(2)
}

/// The same for the command line of a subcommand.
fn usage_of(subcommand: &str, problem: &str) -> ExitCode {
    eprintln!("cargo stress {subcommand}: {problem}; see `cargo stress {subcommand} --help`");
    ExitCode::from(2)
}

const HELP: &str = "\
The bench of the bank.

Usage: cargo stress <SUBCOMMAND> [OPTIONS]

Subcommands:
  up          The whole stack without Docker, until Ctrl-C: PostgreSQL, two instances, nginx
  run         The whole stack under load, measured: requests per second, latencies, CPU time per request
  k6          The challenge in k6: its validations and its load, with an HTML report
  report      The page over all the runs that were kept
  flamegraph  One instance under load, sampled: where its time goes, as a picture
  trace       One transaction and one statement, system call by system call, with what each is for
  endure      One instance under 3 and 10 times what it can bear, and among hostile clients: what it keeps of its promises
  soak        The whole stack under load for an hour with a fault each minute: the ledger agrees, and nothing grows
  sim         The core alone in a simulated, faulty world, over many seeds: no service, no socket, no clock

`cargo stress <SUBCOMMAND> --help` says more.
";
