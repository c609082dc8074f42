//! The command line: picks the subcommand and turns its result into an exit status: 0, 1 when it fails, 2 when the command
//! line is refused.

mod cluster;
mod completions;
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
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};
use stress::measure::MeasureOptions;
use stress::profile::ProfileOptions;
use stress::throwaway::Throwaway;
use stress::trials::soak::SoakOptions;
use stress::trials::{ChallengeOptions, EndureOptions};
use stress::{Error, Workplace};

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
    Run(MeasureOptions),
    K6(ChallengeOptions),
    Report(report::Arguments),
    Flamegraph(ProfileOptions),
    Trace(trace::Arguments),
    Endure(EndureOptions),
    Soak(SoakOptions),
    Cluster(cluster::Arguments),
    Sim(sim::Arguments),
    Completions(completions::Arguments),
}

/// Runs what the command line asks for.
pub(crate) fn main() -> ExitCode {
    let command = match CommandLine::try_parse() {
        Ok(CommandLine { command }) => command,
        Err(error) => return usage(&error),
    };
    let problem = match &command {
        Command::Run(options) => options.problem(),
        Command::Soak(options) => options.problem(),
        Command::K6(options) => options.problem(),
        _ => None,
    };
    if let Some(problem) = problem {
        return refuse(&problem, true);
    }
    let (name, result) = match &command {
        Command::Up(arguments) => ("up", up::run(arguments)),
        Command::Run(options) => ("run", run::run(options)),
        Command::K6(options) => ("k6", k6::run(options)),
        Command::Report(arguments) => ("report", report::run(arguments)),
        Command::Flamegraph(options) => ("flamegraph", flamegraph::run(options)),
        Command::Trace(arguments) => ("trace", trace::run(arguments)),
        Command::Endure(options) => ("endure", endure::run(options)),
        Command::Soak(options) => ("soak", soak::run(options)),
        Command::Cluster(arguments) => ("cluster", cluster::run(arguments)),
        Command::Sim(arguments) => ("sim", sim::run(arguments)),
        Command::Completions(arguments) => {
            completions::run(arguments, &mut CommandLine::command());
            ("completions", Ok(()))
        }
    };
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("cargo stress {name}: {error}");
    ExitCode::FAILURE
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use stress::Split;
    use stress::measure::{BalancerName, OwnStack};
    use stress::stack::Shape;

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
        let line = "run direct --health --connections=1,64 --limits tuned --balancer nginx-http --distance-ms 2 --durable --set A=b --set LANES=2 --server s --cpu-period-ms 20 --accounts 1000 --postgresql jit=on";
        let Command::Run(arguments) = parse(line).unwrap() else { panic!("another subcommand") };
        let OwnStack { limits, balancer, shape, durable, set, postgresql, server, cpu_period, accounts } =
            arguments.stack;
        assert_eq!((limits, balancer, durable), (Split::Tuned, BalancerName::NginxHttp, true));
        assert_eq!(shape, Shape { instances: 2, databases: 1, distance_ms: 2 });
        assert_eq!((cpu_period.cpu_period_ms, accounts), (20, Some(1000)));
        assert_eq!(postgresql, [("jit".to_owned(), "on".to_owned())]);
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
            "run saturate --accounts 4",
            "run saturate --cpu-period-ms 4",
            "run saturate --balancer tcp",
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
            "cluster",
            "cluster up --instances 0",
            "cluster up --set LANES",
            "cluster faults reboot",
            "cluster faults --rounds 0",
            "cluster faults --rounds 2 --minutes 2",
            "cluster kill",
            "cluster kill cable",
            "soak --cluster --seconds 9",
            "completions tcsh",
            "report a b",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn options_that_are_right_one_by_one_may_contradict_each_other() {
        let Ok(Command::Run(run)) = parse("run open --health") else { panic!("refused before") };
        assert!(run.problem().is_some_and(|problem| problem.contains("direct")));
        for (line, named) in [
            ("run saturate --databases 2 --limits none", "nginx-tcp"),
            ("run saturate --instances 4", "--limits none"),
            ("run direct --databases 2 --limits none --balancer nginx-tcp", "direct"),
        ] {
            let Ok(Command::Run(run)) = parse(line) else { panic!("{line} refused before") };
            assert!(run.problem().is_some_and(|problem| problem.contains(named)), "{line}");
        }
        let Ok(Command::K6(k6)) = parse("k6 --balancer none") else { panic!("refused before") };
        assert!(k6.problem().is_some_and(|problem| problem.contains("cargo stress run")));
        let Ok(Command::Run(run)) = parse("run open --accounts 10") else { panic!("refused before") };
        assert!(run.problem().is_some_and(|problem| problem.contains("saturate")));
        let Ok(Command::Run(run)) = parse("run saturate --server peer:embedded") else {
            panic!("refused before")
        };
        assert!(run.problem().is_some_and(|problem| problem.contains("direct")));
        let Ok(Command::Soak(soak)) = parse("soak --seconds 9") else { panic!("refused before") };
        assert!(soak.problem().is_some_and(|problem| problem.contains("60 s")));
        let Ok(Command::Soak(soak)) = parse("soak") else { panic!("refused") };
        assert_eq!(soak.problem(), None);
    }
}
