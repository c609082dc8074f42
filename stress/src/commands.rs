//! The command line: picks the subcommand and turns its result into an exit status: 0, 1 when it fails, 2 when the command
//! line is refused.

mod endure;
mod flamegraph;
mod k6;
mod report;
mod run;
mod sim;
mod soak;
mod trace;
mod up;

use std::env;
use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use stress::measure::{self, Balancer, OwnStack};
use stress::throwaway::Throwaway;
use stress::{Durability, Error, Split, Workplace};

/// The bench of the bank.
#[derive(Debug, Parser)]
#[command(name = "cargo stress", bin_name = "cargo stress", disable_help_subcommand = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Arguments),
    Run(run::Arguments),
    K6(k6::Arguments),
    Report(report::Arguments),
    Flamegraph(flamegraph::Arguments),
    Trace(trace::Arguments),
    Endure(endure::Arguments),
    Soak(soak::Arguments),
    Sim(sim::Arguments),
}

/// Runs what the command line asks for.
pub(crate) fn main() -> ExitCode {
    let command = match CommandLine::try_parse() {
        Ok(CommandLine { command }) => command,
        Err(error) => return usage(&error),
    };
    let problem = match &command {
        Command::Run(arguments) => arguments.problem(),
        Command::Soak(arguments) => arguments.problem(),
        _ => None,
    };
    if let Some(problem) = problem {
        return refuse(&problem, true);
    }
    match command {
        Command::Up(arguments) => finish("up", up::run(&arguments)),
        Command::Run(arguments) => finish("run", run::run(&arguments)),
        Command::K6(arguments) => finish("k6", k6::run(&arguments)),
        Command::Report(arguments) => finish("report", report::run(&arguments)),
        Command::Flamegraph(arguments) => finish("flamegraph", flamegraph::run(&arguments)),
        Command::Trace(arguments) => finish("trace", trace::run(&arguments)),
        Command::Endure(arguments) => finish("endure", endure::run(&arguments)),
        Command::Soak(arguments) => finish("soak", soak::run(&arguments)),
        Command::Sim(arguments) => finish("sim", sim::run(&arguments)),
    }
}

fn finish<E: Display>(name: &str, result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo stress {name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Shows a help, or refuses the command line in one line that names the help of its subcommand.
fn usage(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand) {
        print!("{}", error.render());
        return ExitCode::SUCCESS;
    }
    let rendered = error.render().to_string();
    let problem = rendered.split("\n\n").next().unwrap_or_default();
    let problem = problem.trim_start_matches("error: ").split_whitespace().collect::<Vec<_>>().join(" ");
    refuse(&problem, error.kind() != ErrorKind::InvalidSubcommand)
}

fn refuse(problem: &str, has_subcommand: bool) -> ExitCode {
    let subcommand = env::args().nth(1).filter(|name| has_subcommand && !name.starts_with('-'));
    let command = ["cargo stress".to_owned()].into_iter().chain(subcommand).collect::<Vec<_>>().join(" ");
    eprintln!("{command}: {problem}; see `{command} --help`");
    ExitCode::from(2)
}

/// Reads the text of one option.
type Parsed<T> = Result<T, String>;

/// How a stack of its own is.
#[derive(Debug, Args)]
struct StackArguments {
    /// How 1.5 CPU and 550 MB are shared out: as in the challenge; for more requests per second; no limits at all
    #[arg(long, value_enum, default_value_t, value_name = "SPLIT", conflicts_with = "url")]
    limits: Split,
    /// Layer 4 (stream) or layer 7 (http)
    #[arg(long, value_enum, default_value_t, value_name = "LAYER", conflicts_with = "url")]
    nginx: Balancer,
    /// Logged tables, and fsync, `synchronous_commit` and `full_page_writes` on
    #[arg(long, conflicts_with = "url")]
    durable: bool,
    /// A setting of both instances, such as `BATCH_CALLS_MAX=32`; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting, conflicts_with = "url")]
    set: Vec<(String, String)>,
    /// This binary of the server in place of a fresh build
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    server: Option<PathBuf>,
}

impl StackArguments {
    /// Whether its limits can be applied, before anything is installed or built.
    fn check(&self) -> Result<(), Error> {
        measure::groups_for(self.limits).map(drop)
    }

    /// Builds the server where none is given.
    fn own_stack(&self, place: &Workplace) -> Result<OwnStack, Error> {
        Ok(OwnStack {
            server: place.server(self.server.as_ref())?,
            split: self.limits,
            balancer: self.nginx,
            durability: durability(self.durable),
            settings: self.set.clone(),
        })
    }
}

fn durability(is_durable: bool) -> Durability {
    if is_durable { Durability::Durable } else { Durability::Benchmark }
}

/// Does `work` in a place of its own, whose logs are kept when a service failed.
fn at_work<T>(name: &str, work: impl FnOnce(&Workplace) -> Result<T, Error>) -> Result<T, Error> {
    let logs = Throwaway::new("logs")?;
    let place = Workplace::of_command(logs.path())?;
    work(&place).inspect_err(|error| {
        if matches!(error, Error::Service { .. } | Error::Sql { .. }) {
            let kept = logs.keep();
            eprintln!("cargo stress {name}: everything is stopped; the logs are kept in {}", kept.display());
        }
    })
}

/// A number from 1 on.
fn positive(text: &str) -> Parsed<u32> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "a number from 1 on is needed".to_owned())
}

/// `NAME=VALUE`
fn setting(text: &str) -> Parsed<(String, String)> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is needed")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Whole seconds, of `90s` or `4m`.
fn seconds(text: &str) -> Parsed<u32> {
    let duration = humantime::parse_duration(text).map_err(|_| "a time such as 90s or 4m is needed")?;
    u32::try_from(duration.as_secs()).map_err(|_| "that is too long".to_owned())
}

/// Of a bank, without a path.
fn url(text: &str) -> Parsed<String> {
    let host = text.strip_prefix("http://").or(text.strip_prefix("https://"));
    host.filter(|host| !host.is_empty())
        .map(|_| text.to_owned())
        .ok_or_else(|| "a URL that begins with http:// is needed".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// What its subcommand is given by this command line.
    pub(crate) fn parse(line: &str) -> Result<Command, clap::Error> {
        let words = ["cargo stress"].into_iter().chain(line.split_whitespace());
        CommandLine::try_parse_from(words).map(|line| line.command)
    }

    #[test]
    fn no_two_options_contradict_each_other() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn a_stack_of_its_own_is_as_its_options_say() {
        let line = "run direct --health --connections=1,64 --limits tuned --nginx http --durable --set A=b --set LANES=2 --server s";
        let Command::Run(arguments) = parse(line).unwrap() else { panic!("another subcommand") };
        let StackArguments { limits, nginx, durable, set, server } = arguments.stack;
        assert_eq!((limits, nginx, durable), (Split::Tuned, Balancer::Http, true));
        assert_eq!(
            set,
            [("A", "b"), ("LANES", "2")].map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert_eq!((server, arguments.connections), (Some(PathBuf::from("s")), vec![1, 64]));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in [
            "run",
            "run fast",
            "run saturate open",
            "run saturate --connections 0",
            "run saturate --connections 1,x",
            "run saturate --limits all",
            "run saturate --nginx tcp",
            "run saturate --set LANES",
            "run saturate --url http://h",
            "run saturate --part nginx=7",
            "run saturate --url h --metrics h:1 --database-url d",
            "run saturate --url http://h --metrics h --database-url d",
            "run saturate --url http://h --metrics h:1 --database-url d --part nginx",
            "run saturate --url http://h --metrics h:1 --database-url d --durable",
            "k6 --mode half",
            "k6 --duration 4",
            "k6 --duration 0s",
            "k6 --scale 0",
            "k6 --scale inf",
            "k6 --url localhost",
            "k6 --url http://h --limits none",
            "k6 --keep",
            "up --port 0",
            "up --port 65532",
            "up --limits all",
            "endure",
            "endure siege",
            "endure hostile --instance-cpu 0",
            "soak --minutes 100000000",
            "soak --minutes 1 --seconds 60",
            "flamegraph --seconds 0",
            "trace now",
            "report a b",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn options_that_are_right_one_by_one_may_contradict_each_other() {
        let Ok(Command::Run(run)) = parse("run open --health") else { panic!("refused before") };
        assert!(run.problem().is_some_and(|problem| problem.contains("direct")));
        let Ok(Command::Soak(soak)) = parse("soak --seconds 9") else { panic!("refused before") };
        assert!(soak.problem().is_some_and(|problem| problem.contains("60 s")));
        let Ok(Command::Soak(soak)) = parse("soak") else { panic!("refused") };
        assert_eq!(soak.problem(), None);
    }

    #[test]
    fn a_time_has_its_unit() {
        assert_eq!((seconds("90s"), seconds("4m"), seconds("0s")), (Ok(90), Ok(240), Ok(0)));
        for wrong in ["", "4", "m", "-1s", "4000000000m"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
