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
        options.commit_ms.get_or_insert(20);
    }
    Ok(Request::Run(options))
}

fn run(options: &Options, logs: Throwaway) -> Result<(), Error> {
    let interrupt = Interrupt::on_signals()?;
    let steps = Steps::Printed;
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
Puts one instance and its database, both in groups with limits, under what they have to endure.
";
