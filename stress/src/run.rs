//! `cargo stress run`: the command line of the bench, and what becomes of its report.

use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::{Long, Short, Value, ValueExt};
use stress::bench::{self, Balancer, Bank, BenchOptions, Case, Load, OwnStack, Progress, Report, Subject};
use stress::cgroup::Account;
use stress::reports::Summary;
use stress::steps::Steps;
use stress::throwaway::Throwaway;
use stress::wait::Interrupt;
use stress::{Durability, Error, Split, compile, install, reports};

use crate::arguments::{Request, balancer_named, positive, setting, subcommand, url};
use crate::report;

/// One whole measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Options {
    load: Load,
    connections: Vec<u32>,
    seconds: u32,
    runs: u32,
    running: Option<Running>,
    split: Split,
    balancer: Balancer,
    durability: Durability,
    settings: Vec<(String, String)>,
    server: Option<PathBuf>,
    out: Option<PathBuf>,
    keep: Option<PathBuf>,
    against: Option<PathBuf>,
}

/// A bank that runs already.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Running {
    url: String,
    metrics: Vec<String>,
    database_url: String,
    /// Its processes by name.
    parts: Vec<(String, u32)>,
}

/// Runs the subcommand with what is left of the command line.
pub(crate) fn main(arguments: lexopt::Parser) -> ExitCode {
    subcommand("run", parse(arguments), HELP, |options| {
        Throwaway::new("logs").and_then(|logs| run(&options, logs))
    })
}

fn parse(mut arguments: lexopt::Parser) -> Result<Request<Options>, lexopt::Error> {
    let mut load = None;
    let mut is_health = false;
    let mut options = Options {
        load: Load::Saturate,
        connections: vec![32, 128],
        seconds: 10,
        runs: 1,
        running: None,
        split: Split::Default,
        balancer: Balancer::Stream,
        durability: Durability::Benchmark,
        settings: Vec::new(),
        server: None,
        out: None,
        keep: None,
        against: None,
    };
    // The options that say how our own stack is, or where a running one is: they do not go together.
    let mut own_only = None;
    let (mut bank_url, mut metrics, mut database_url, mut parts) = (None, Vec::new(), None, Vec::new());
    while let Some(argument) = arguments.next()? {
        if let Long(name @ ("limits" | "nginx" | "durable" | "set" | "server")) = argument {
            own_only = Some(name.to_owned());
        }
        match argument {
            Value(name) if load.is_none() => load = Some(name.parse_with(load_named)?),
            Long("health") => is_health = true,
            Long("connections") => options.connections = arguments.value()?.parse_with(list)?,
            Long("seconds") => options.seconds = arguments.value()?.parse_with(positive)?,
            Long("runs") => options.runs = arguments.value()?.parse_with(positive)?,
            Long("url") => bank_url = Some(arguments.value()?.parse_with(url)?),
            Long("metrics") => metrics = arguments.value()?.parse_with(addresses)?,
            Long("database-url") => database_url = Some(arguments.value()?.parse()?),
            Long("part") => parts.push(arguments.value()?.parse_with(part)?),
            Long("limits") => options.split = arguments.value()?.parse()?,
            Long("nginx") => options.balancer = arguments.value()?.parse_with(balancer_named)?,
            Long("durable") => options.durability = Durability::Durable,
            Long("set") => options.settings.push(arguments.value()?.parse_with(setting)?),
            Long("server") => options.server = Some(arguments.value()?.into()),
            Long("out") => options.out = Some(arguments.value()?.into()),
            Long("keep") => {
                let directory = arguments.optional_value().map(PathBuf::from);
                options.keep =
                    Some(directory.unwrap_or_else(|| reports::default_directory(&compile::workspace())));
            }
            Long("against") => options.against = Some(arguments.value()?.into()),
            Long("help") | Short('h') => return Ok(Request::Help),
            other => return Err(other.unexpected()),
        }
    }
    options.load = match (load, is_health) {
        (Some(Load::Direct), true) => Load::DirectHealth,
        (Some(_) | None, true) => return Err("--health is for `direct`".into()),
        (Some(load), false) => load,
        (None, false) => return Err("run what? saturate, open or direct".into()),
    };
    options.running = match (bank_url, database_url) {
        (None, None) if metrics.is_empty() && parts.is_empty() => None,
        (Some(url), Some(database_url)) if !metrics.is_empty() => match own_only {
            Some(name) => return Err(format!("--{name} is for a stack of its own, not for --url").into()),
            None => Some(Running { url, metrics, database_url, parts }),
        },
        _ => return Err("a running bank takes --url, --metrics and --database-url, all three".into()),
    };
    Ok(Request::Run(options))
}

fn run(options: &Options, logs: Throwaway) -> Result<(), Error> {
    let interrupt = Interrupt::on_signals()?;
    // Before the work: a wrong path should not cost the user the run.
    let earlier = options.against.as_deref().map(Report::read).transpose()?;
    if options.running.is_none() {
        bench::groups_for(options.split)?;
    }
    let is_k6 = options.load == Load::Open;
    install::install_missing_for_load(is_k6, Steps::Printed, &logs.path().join("install.log"))?;
    let workspace = compile::workspace();
    let subject = match &options.running {
        Some(running) => Subject::Running(running.bank()?),
        None => Subject::Own(OwnStack {
            server: compile::server(options.server.clone(), &workspace, logs.path(), &interrupt)?,
            split: options.split,
            balancer: options.balancer,
            durability: options.durability,
            settings: options.settings.clone(),
        }),
    };

    let measured = bench::measure(
        &BenchOptions {
            subject,
            workspace,
            load: options.load,
            connections: options.connections.clone(),
            seconds: options.seconds,
            runs: options.runs,
            logs: logs.path().to_owned(),
            interrupt,
        },
        &Progress::shown(),
    );
    let report = match measured {
        Ok(report) => report,
        Err(error) => {
            if matches!(error, Error::Service { .. }) {
                eprintln!("cargo stress run: the logs are kept in {}", logs.keep().display());
            }
            return Err(error);
        }
    };
    tell(&report, earlier.as_ref());
    if let Some(directory) = &options.out {
        let [json, svg] = report.write_into(directory)?;
        Steps::Printed.line(&format!("written: {} and {}", json.display(), svg.display()));
    }
    if let Some(directory) = &options.keep {
        report::keep(directory, &Summary::of_report(&report), Some(("svg", report.chart().as_bytes())))?;
    }
    Ok(())
}

impl Running {
    fn bank(&self) -> Result<Bank, Error> {
        let account = |(name, pid): &(String, u32)| {
            let account = Account::of_process(*pid);
            let account = account.map_err(|why| Error::Refused(format!("--part {name}={pid}: {why}")))?;
            Ok((name.clone(), Some(account)))
        };
        Ok(Bank {
            url: self.url.clone(),
            metrics: self.metrics.clone(),
            database_url: self.database_url.clone(),
            parts: self.parts.iter().map(account).collect::<Result<_, Error>>()?,
        })
    }
}

fn tell(report: &Report, earlier: Option<&Report>) {
    Steps::Printed.line(&report.tables());
    let is_disturbed = |case: &&Case| case.median.is_disturbed();
    if let Some(cpus) = report.cases.iter().find(is_disturbed).and_then(|case| case.median.others_cpus) {
        Steps::Printed.line(&format!(
            "Others used {cpus:.2} CPU meanwhile, so these figures are worse than they could be: repeat it later.\n"
        ));
    }
    if let Some(earlier) = earlier {
        Steps::Printed.line(&report.ratios(earlier));
    }
}

fn load_named(name: &str) -> Result<Load, String> {
    let all = [Load::Saturate, Load::Open, Load::Direct];
    all.into_iter()
        .find(|load| load.name() == name)
        .ok_or_else(|| "there are saturate, open and direct".to_owned())
}

fn addresses(text: &str) -> Result<Vec<String>, String> {
    let is_address = |text: &str| text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let addresses = text.split(',').map(|address| is_address(address).then(|| address.to_owned()));
    addresses.collect::<Option<_>>().ok_or_else(|| "HOST:PORT, or several with commas, is needed".to_owned())
}

/// `NAME=PID`
fn part(text: &str) -> Result<(String, u32), String> {
    let (name, pid) = setting(text).map_err(|_| "NAME=PID is needed")?;
    Ok((name, positive(&pid)?))
}

fn list(text: &str) -> Result<Vec<u32>, String> {
    text.split(',').map(positive).collect()
}

const HELP: &str = "\
Measures a stack of its own, on free ports, beside whatever else runs, or a bank that runs: requests per second,
latencies, errors, CPU time per request and peak memory of nginx, of each instance and of PostgreSQL.

Usage: cargo stress run <LOAD> [OPTIONS]

Loads:
  saturate   wrk, through nginx: as many requests as connections that stay can have answered, 220 debits to 110 credits
             to 10 statements. Each connection waits for its answer, so a stall hides the requests it held up.
  open       k6, through nginx: 340 requests a second, each begun when it is due, over a new connection of its own.
  direct     As saturate, but to the TCP port of one instance, without nginx.

Options:
  --connections N,...  Connections of saturate and direct, one case each [default: 32,128]
  --health             With direct: GET /healthz only, which asks no database
  --seconds N          How long each run is measured, after a second to warm up [default: 10]
  --runs N             Runs of each case, in turns; medians are reported [default: 1]
  --limits SPLIT       How 1.5 CPU and 550 MB are shared out: default, as in the challenge; tuned, for more requests per
                       second; none, no limits at all [default: default]
  --nginx LAYER        stream (layer 4) or http (layer 7) [default: stream]
  --durable            Logged tables, and fsync, synchronous_commit and full_page_writes on
  --set NAME=VALUE     A setting of both instances, such as BATCH_CALLS_MAX=32; may be repeated
  --server FILE        This binary of the server in place of a fresh build
  --out DIR            Writes run.json (everything) and run.svg (a chart) there
  --keep[=DIR]         Keeps the run with those in DIR: its chart, a line of JSON, and the index [default: docs/reports]
  --against FILE       Also prints the ratios to an earlier run.json
  -h, --help           This text

A bank that runs, in place of a stack of its own; `cargo stress up` prints these options for its own:
  --url URL            Where requests go, such as http://localhost:9999; for direct, one instance
  --metrics ADDR,...   METRICS_LISTEN of every instance
  --database-url URL   Its database, as libpq takes it, for the audit of the ledger
  --part NAME=PID      A process whose group of limits keeps account of CPU time and memory; repeat it for each part
Nobody else may use the bank during a run, and the run's transactions stay in its ledger.

Each run of its own has a new stack. A run is refused, with exit status 1, when its ledger does not add up afterwards: each balance is
the sum of its ledger and not past its limit, the ledger has one row for each transaction that was answered 200 (and at
most one for each answer that found its client gone, as when the load ends), and no answer was in doubt.

wrk and Python (for k6, which goes into a private environment in the user's cache) are installed when they are missing, by
root on Debian or Ubuntu. CPU time and memory come from cgroups, version 1 or 2; the load generator has no limits.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_all(arguments: &[&str]) -> Result<Request<Options>, lexopt::Error> {
        parse(lexopt::Parser::from_args(arguments))
    }

    fn options(arguments: &[&str]) -> Options {
        match parse_all(arguments).unwrap() {
            Request::Run(options) => options,
            Request::Help => panic!("help"),
        }
    }

    #[test]
    fn has_defaults() {
        let options = options(&["saturate"]);
        assert_eq!((options.load, options.connections), (Load::Saturate, vec![32, 128]));
        assert_eq!((options.seconds, options.runs, options.split), (10, 1, Split::Default));
    }

    #[test]
    fn reads_its_options() {
        let arguments = "--seconds 2 direct --health --connections=1,64 --runs 3 --limits tuned --nginx http --durable \
                         --set LANES=2 --set BATCH_CALLS_MAX=8 --server s --out o --keep=k --against a";
        let options = options(&arguments.split_whitespace().collect::<Vec<_>>());
        let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected = Options {
            load: Load::DirectHealth,
            connections: vec![1, 64],
            seconds: 2,
            runs: 3,
            running: None,
            split: Split::Tuned,
            balancer: Balancer::Http,
            durability: Durability::Durable,
            settings: vec![setting("LANES", "2"), setting("BATCH_CALLS_MAX", "8")],
            server: Some("s".into()),
            out: Some("o".into()),
            keep: Some("k".into()),
            against: Some("a".into()),
        };
        assert_eq!(options, expected);
        assert!(self::options(&["--keep", "open"]).keep.unwrap().ends_with("docs/reports"));
        assert_eq!(parse_all(&["open", "--help"]).unwrap(), Request::Help);
    }

    #[test]
    fn takes_a_bank_that_runs() {
        let arguments = "open --url http://h:9999 --metrics h:9191,[::1]:9192 --database-url postgres://u@/d --part nginx=7";
        let expected = Running {
            url: "http://h:9999".to_owned(),
            metrics: vec!["h:9191".to_owned(), "[::1]:9192".to_owned()],
            database_url: "postgres://u@/d".to_owned(),
            parts: vec![("nginx".to_owned(), 7)],
        };
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        assert_eq!(options(&arguments).running, Some(expected));
        let durable = [&arguments[..], &["--durable"]].concat();
        assert!(parse_all(&durable).unwrap_err().to_string().contains("--durable is for a stack of its own"));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for wrong in [
            "",
            "fast",
            "open --health",
            "saturate open",
            "saturate --connections 0",
            "saturate --connections 1,x",
            "saturate --seconds 0",
            "saturate --limits all",
            "saturate --nginx tcp",
            "saturate --set LANES",
            "saturate --url http://h",
            "saturate --part nginx=7",
            "saturate --url h --metrics h:1 --database-url d",
            "saturate --url http://h --metrics h --database-url d",
            "saturate --url http://h --metrics h:1 --database-url d --part nginx",
        ] {
            let arguments: Vec<&str> = wrong.split_whitespace().collect();
            assert!(parse_all(&arguments).is_err(), "{wrong:?}");
        }
    }
}
