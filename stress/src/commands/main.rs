//! `cargo stress`: picks the subcommand and turns its result into an exit status: 0, 1 when it fails, 2 when the command line is
//! refused.

mod cluster;
mod flamegraph;
mod k6;
mod report;
mod run;
mod sim;
mod soak;
mod trace;
mod up;

use std::process::ExitCode;
use std::time::Duration;
use std::{env, io};

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use stress::measure::MeasureOptions;
use stress::profile::ProfileOptions;
use stress::steps::Steps;
use stress::throwaway::Throwaway;
use stress::trials::hostile::{self, AttackOptions};
use stress::trials::soak::SoakOptions;
use stress::trials::{self, ChallengeOptions, EndureOptions, TrialName, overload};
use stress::{Error, Workplace, install, wait};

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
    #[command(hide = true)]
    Attack(AttackOptions),
    Soak(SoakOptions),
    Cluster(cluster::Arguments),
    Sim(sim::Arguments),
    /// The script with which a shell completes subcommands, options and their values
    ///
    /// It completes `stress`. So: alias stress='cargo stress', and then, for example, source <(cargo stress completions bash).
    Completions {
        shell: Shell,
    },
}

fn main() -> ExitCode {
    let command = match CommandLine::try_parse() {
        Ok(CommandLine { command }) => command,
        Err(error) => return usage(&error),
    };
    let result = match &command {
        Command::Up(arguments) => up::run(arguments),
        Command::Run(options) => run::run(options),
        Command::K6(options) => k6::run(options),
        Command::Report(arguments) => report::run(arguments),
        Command::Flamegraph(options) => flamegraph::run(options),
        Command::Trace(arguments) => trace::run(arguments),
        Command::Endure(options) => endure(options),
        Command::Attack(options) => hostile::attack(options).map(|result| println!("{result}")),
        Command::Soak(options) => soak::run(options),
        Command::Cluster(arguments) => cluster::run(arguments),
        Command::Sim(arguments) => sim::run(arguments),
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut CommandLine::command(), "stress", &mut io::stdout());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Usage(problem)) => refuse(&problem, true),
        Err(error) => {
            eprintln!("{}: {error}", this_command());
            ExitCode::FAILURE
        }
    }
}

fn endure(options: &EndureOptions) -> Result<(), Error> {
    trials::require_groups()?;
    let (table, promises) = at_work(|place| {
        place.install(&[&install::POSTGRES, &install::NGINX])?;
        match options.trial {
            TrialName::Overload => overload::measure(options, place).map(|it| (it.table(), it.promises())),
            TrialName::Hostile => hostile::measure(options, place).map(|it| (it.table(), it.promises())),
        }
    })?;
    let (promises, verdict) = trials::verdict(&promises);
    Steps::Printed.line(&format!("\n{table}\n{promises}"));
    verdict
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
    let command = if has_subcommand { this_command() } else { "cargo stress".to_owned() };
    eprintln!("{command}: {problem}; see `{command} --help`");
    ExitCode::from(2)
}

fn this_command() -> String {
    let subcommand = env::args().nth(1).filter(|name| !name.starts_with('-'));
    subcommand.map_or_else(|| "cargo stress".to_owned(), |name| format!("cargo stress {name}"))
}

/// Does `work` in a place of its own, whose logs are kept when a service failed or a promise was broken.
fn at_work<T>(work: impl FnOnce(&Workplace) -> Result<T, Error>) -> Result<T, Error> {
    let logs = Throwaway::new("logs")?;
    let place = Workplace::of_command(logs.path())?;
    work(&place).inspect_err(|error| {
        if matches!(error, Error::Service { .. } | Error::Sql { .. } | Error::Broken(_)) {
            let kept = logs.keep();
            let command = this_command();
            eprintln!("{command}: everything is stopped; the logs are kept in {}", kept.display());
        }
    })
}

fn tell_verdict(steps: Steps, tables: &str, broken: Vec<String>) -> Result<(), Error> {
    steps.line(&format!("\n{tables}"));
    if !broken.is_empty() {
        return Err(Error::Broken(broken));
    }
    steps.line("every promise was kept");
    Ok(())
}

/// Goes on until Ctrl-C; then `running` is dropped, which stops all of it.
fn until_interrupted<T>(
    mut running: T,
    place: &Workplace,
    mut look: impl FnMut(&mut T) -> Result<(), Error>,
) -> Result<(), Error> {
    let watched = wait::until(FOREVER, &place.interrupt, || look(&mut running).map(|()| None::<()>));
    place.steps.run("stopping", "all stopped", || {
        drop(running);
        Ok(())
    })?;
    match watched {
        Ok(_) | Err(Error::Interrupted) => Ok(()),
        Err(error) => Err(error),
    }
}

const FOREVER: Duration = Duration::from_hours(365 * 24);

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use stress::Split;
    use stress::measure::{BalancerName, OwnStack};
    use stress::stack::Shape;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        let words = ["cargo stress"].into_iter().chain(line.split_whitespace());
        CommandLine::try_parse_from(words).map(|line| line.command)
    }

    #[test]
    fn a_stack_of_its_own_is_as_its_options_say() {
        let line = "run direct --health --connections=1,64 --limits tuned --balancer nginx-http --distance-ms 2 --durable --set A=b \
                    --set LANES=2 --server s --cpu-period-ms 20 --accounts 1000 --postgresql jit=on";
        let Command::Run(arguments) = parse(line).unwrap() else { panic!("another subcommand") };
        let OwnStack { limits, balancer, shape, durable, set, postgresql, server, cpu_period, accounts } =
            arguments.stack;
        assert_eq!((limits, balancer, durable), (Split::Tuned, BalancerName::NginxHttp, true));
        assert_eq!(shape, Shape { instances: 2, databases: 1, distance_ms: 2 });
        assert_eq!((cpu_period.cpu_period_ms, accounts), (20, Some(1000)));
        let settings = [("A", "b"), ("LANES", "2"), ("jit", "on")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!([set, postgresql].concat(), settings);
        assert_eq!((server, arguments.connections), (Some(PathBuf::from("s")), vec![1, 64]));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        CommandLine::command().debug_assert();
        for wrong in [
            "run saturate --connections 0",
            "run saturate --connections 1,x",
            "run saturate --accounts 4",
            "run saturate --cpu-period-ms 4",
            "run saturate --set LANES",
            "run saturate --url http://h",
            "run saturate --part nginx=7",
            "run saturate --url h --metrics h:1 --database-url d",
            "run saturate --url http://h --metrics h --database-url d",
            "run saturate --url http://h --metrics h:1 --database-url d --part nginx",
            "run saturate --url http://h --metrics h:1 --database-url d --durable",
            "k6 --duration 4",
            "k6 --duration 0s",
            "k6 --scale 0",
            "k6 --scale inf",
            "k6 --url localhost",
            "k6 --url http://h --limits none",
            "up --port 0",
            "up --port 65532",
            "endure hostile --instance-cpu 0",
            "soak --minutes 100000000",
            "soak --minutes 1 --seconds 60",
            "flamegraph --seconds 0",
            "cluster up --instances 0",
            "cluster up --set LANES",
            "cluster faults --rounds 0",
            "cluster faults --rounds 2 --minutes 2",
            "soak --cluster --seconds 9",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn options_that_are_right_one_by_one_may_contradict_each_other() {
        for (line, named) in [
            ("run open --health", "direct"),
            ("run saturate --databases 2 --limits none", "nginx-tcp"),
            ("run saturate --instances 4", "--limits none"),
            ("run direct --databases 2 --limits none --balancer nginx-tcp", "direct"),
            ("run open --accounts 10", "saturate"),
            ("run saturate --server peer:embedded", "direct"),
            ("k6 --balancer none", "cargo stress run"),
            ("soak --seconds 9", "60 s"),
            ("soak", ""),
        ] {
            let checked = match parse(line) {
                Ok(Command::Run(options)) => options.check(),
                Ok(Command::K6(options)) => options.check(),
                Ok(Command::Soak(options)) => options.check(),
                other => panic!("{line}: {other:?}"),
            };
            let told = checked.err().map_or_else(String::new, |error| error.to_string());
            assert_eq!(told.is_empty(), named.is_empty(), "{line}: {told}");
            assert!(told.contains(named), "{line}: {told}");
        }
    }
}
