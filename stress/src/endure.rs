//! `cargo stress endure`: the command line of what the bank has to endure, and the verdict on its promises.

use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::{Long, Short, Value, ValueExt};
use stress::cgroup::Limits;
use stress::endurance::{self, EndureOptions, Promise, hostile, overload};
use stress::steps::Steps;
use stress::throwaway::Throwaway;
use stress::wait::Interrupt;
use stress::{Error, compile, install};

use crate::arguments::{Request, positive, setting, subcommand};

/// One test of endurance.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Options {
    trial: Trial,
    seconds: u32,
    /// Thousandths of a CPU.
    instance_cpu: u32,
    postgres_cpu: Option<u32>,
    commit_ms: Option<u32>,
    settings: Vec<(String, String)>,
    server: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trial {
    Overload,
    Hostile,
}

/// Runs the subcommand with what is left of the command line.
pub(crate) fn main(arguments: lexopt::Parser) -> ExitCode {
    subcommand("endure", parse(arguments), HELP, |options| {
        Throwaway::new("logs").and_then(|logs| run(&options, logs))
    })
}

fn parse(mut arguments: lexopt::Parser) -> Result<Request<Options>, lexopt::Error> {
    let mut trial = None;
    let mut options = Options {
        trial: Trial::Overload,
        seconds: 5,
        instance_cpu: 1000,
        postgres_cpu: None,
        commit_ms: None,
        settings: Vec::new(),
        server: None,
    };
    while let Some(argument) = arguments.next()? {
        match argument {
            Value(name) if trial.is_none() => trial = Some(name.parse_with(trial_named)?),
            Long("seconds") => options.seconds = arguments.value()?.parse_with(positive)?,
            Long("instance-cpu") => options.instance_cpu = arguments.value()?.parse_with(cpu_thousandths)?,
            Long("postgresql-cpu") => {
                options.postgres_cpu = Some(arguments.value()?.parse_with(cpu_thousandths)?);
            }
            Long("commit-ms") => options.commit_ms = Some(arguments.value()?.parse_with(positive)?),
            Long("set") => options.settings.push(arguments.value()?.parse_with(setting)?),
            Long("server") => options.server = Some(arguments.value()?.into()),
            Long("help") | Short('h') => return Ok(Request::Help),
            other => return Err(other.unexpected()),
        }
    }
    options.trial = trial.ok_or("endure what? overload or hostile")?;
    // Ten times what a fast database does is more than the load could ask of two processors.
    if options.trial == Trial::Overload && options.postgres_cpu.is_none() {
        options.commit_ms.get_or_insert(40);
    }
    Ok(Request::Run(options))
}

fn run(options: &Options, logs: Throwaway) -> Result<(), Error> {
    let interrupt = Interrupt::on_signals()?;
    let steps = Steps::Printed;
    endurance::require_groups()?;
    install::install_missing(steps, &logs.path().join("install.log"))?;
    let workspace = compile::workspace();
    let server = compile::server(options.server.clone(), &workspace, logs.path(), &interrupt)?;
    let measured = measure(
        options.trial,
        &EndureOptions {
            server,
            workspace,
            instance_limits: Limits { cpu_thousandths: options.instance_cpu, memory_bytes: 100 << 20 },
            postgres_limits: options
                .postgres_cpu
                .map(|cpu_thousandths| Limits { cpu_thousandths, memory_bytes: 330 << 20 }),
            commit_ms: options.commit_ms,
            settings: options.settings.clone(),
            seconds: options.seconds,
            logs: logs.path().to_owned(),
            steps,
            interrupt,
        },
    );
    let (table, promises) = match measured {
        Ok(measured) => measured,
        Err(error) => {
            if matches!(error, Error::Service { .. }) {
                eprintln!("cargo stress endure: the logs are kept in {}", logs.keep().display());
            }
            return Err(error);
        }
    };
    let (promises, verdict) = endurance::verdict(&promises);
    steps.line(&format!("\n{table}\n{promises}"));
    verdict
}

fn measure(trial: Trial, options: &EndureOptions) -> Result<(String, Vec<Promise>), Error> {
    match trial {
        Trial::Overload => overload::measure(options).map(|measured| (measured.table(), measured.promises())),
        Trial::Hostile => hostile::measure(options).map(|measured| (measured.table(), measured.promises())),
    }
}

fn trial_named(name: &str) -> Result<Trial, String> {
    match name {
        "overload" => Ok(Trial::Overload),
        "hostile" => Ok(Trial::Hostile),
        _ => Err("there are overload and hostile".to_owned()),
    }
}

/// Thousandths, of a share such as 0.15.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 10 and 64000")]
fn cpu_thousandths(text: &str) -> Result<u32, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.01..=64.0).contains(share));
    share
        .map(|share| (share * 1000.0).round() as u32)
        .ok_or_else(|| "a share of a CPU from 0.01 on is needed".to_owned())
}

const HELP: &str = "\
Puts one instance, without nginx, under what it has to endure, and holds it to its promises. Every request is held against
the ledger afterwards: what was answered 200 has one row, what was refused has none.

Usage: cargo stress endure <TRIAL> [OPTIONS]

Trials:
  overload   Finds out what the database does at best, and at which rate everything is still served; then asks 3 and 10
             times that, whether or not it keeps up, with half of it before and after; then 10,000 connections at once.
             Promised: at least 90 % of its best are served all along, 99 of 100 refusals come within 50 ms, everything is
             normal again within 1 s, memory stays under its limit, everybody is answered.
  hostile    1,000 requests a second from well-behaved clients, beside one attack after another and alone before each:
             crowds that send a byte a second or nothing, peers that never read, bodies without an end, 100,000 pipelined
             requests, resets at every point; then all descriptors are taken away. Promised: the others' p99 stays within 1.5
             times its quiet value, attackers are cut off within their deadline (here 3 s) and 0.5 s, descriptors
             return, and without any the instance uses less than 5 % of a CPU.

Options:
  --seconds N             How long each load is applied [default: 5]
  --commit-ms N           Each commit takes so long at least, as on a slow disk; for overload 40, unless PostgreSQL's CPU
                          is limited. Ten times what PostgreSQL does without would be more than two processors can ask.
  --postgresql-cpu SHARE  What PostgreSQL may use of a CPU, such as 0.15 [default: no limit]
  --instance-cpu SHARE    What the instance may use of a CPU [default: 1]. Its memory is limited to 100 MB.
  --set NAME=VALUE        A setting of the instance, such as QUEUE_WAIT_MAX_MS=50; may be repeated
  --server FILE           This binary of the server in place of a fresh build
  -h, --help              This text

Exits with status 1 when a promise is missed. The load runs beside the bank on the same processors: whatever else uses them
shows in the latencies. Limits need cgroups, so root or a delegated systemd scope.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_all(arguments: &str) -> Result<Request<Options>, lexopt::Error> {
        parse(lexopt::Parser::from_args(arguments.split_whitespace()))
    }

    #[test]
    fn reads_its_options() {
        let defaults = Options {
            trial: Trial::Hostile,
            seconds: 5,
            instance_cpu: 1000,
            postgres_cpu: None,
            commit_ms: None,
            settings: Vec::new(),
            server: None,
        };
        assert_eq!(parse_all("hostile").unwrap(), Request::Run(defaults.clone()));
        let overload = Options { trial: Trial::Overload, commit_ms: Some(40), ..defaults.clone() };
        assert_eq!(parse_all("overload").unwrap(), Request::Run(overload));
        let expected = Options {
            trial: Trial::Overload,
            seconds: 2,
            instance_cpu: 400,
            postgres_cpu: Some(150),
            settings: vec![("LANES".to_owned(), "2".to_owned())],
            server: Some("s".into()),
            ..defaults
        };
        let arguments =
            "overload --seconds 2 --instance-cpu 0.4 --postgresql-cpu=0.15 --set LANES=2 --server s";
        assert_eq!(parse_all(arguments).unwrap(), Request::Run(expected));
        assert_eq!(parse_all("overload --help").unwrap(), Request::Help);
        for wrong in [
            "",
            "siege",
            "overload hostile",
            "hostile --seconds 0",
            "hostile --instance-cpu 0",
            "hostile --set X",
        ] {
            assert!(parse_all(wrong).is_err(), "{wrong:?}");
        }
    }
}
