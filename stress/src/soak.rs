//! `cargo stress soak`: the command line of the soak, and what becomes of its report.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::prelude::{Long, Short, ValueExt};
use stress::bench;
use stress::long_run::{self, LongRunOptions};
use stress::steps::Steps;
use stress::throwaway::Throwaway;
use stress::wait::Interrupt;
use stress::{Error, Split, compile, install};

use crate::arguments::{Request, positive, subcommand};

/// One soak.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Options {
    seconds: u32,
    every_s: u32,
    rate: Option<u32>,
    clients: u32,
    split: Split,
    server: Option<PathBuf>,
    out: Option<PathBuf>,
}

/// Runs the subcommand with what is left of the command line.
pub(crate) fn main(arguments: lexopt::Parser) -> ExitCode {
    subcommand("soak", parse(arguments), HELP, |options| {
        Throwaway::new("logs").and_then(|logs| run(&options, logs))
    })
}

fn parse(mut arguments: lexopt::Parser) -> Result<Request<Options>, lexopt::Error> {
    let mut options = Options {
        seconds: 3600,
        every_s: 60,
        rate: None,
        clients: 32,
        split: Split::Default,
        server: None,
        out: None,
    };
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("minutes") => {
                let minutes = arguments.value()?.parse_with(positive)?;
                options.seconds = minutes.checked_mul(60).ok_or("so many minutes are too many")?;
            }
            Long("seconds") => options.seconds = arguments.value()?.parse_with(positive)?,
            Long("every") => options.every_s = arguments.value()?.parse_with(positive)?,
            Long("rate") => options.rate = Some(arguments.value()?.parse_with(positive)?),
            Long("clients") => options.clients = arguments.value()?.parse_with(positive)?,
            Long("limits") => options.split = arguments.value()?.parse()?,
            Long("server") => options.server = Some(arguments.value()?.into()),
            Long("out") => options.out = Some(arguments.value()?.into()),
            Long("help") | Short('h') => return Ok(Request::Help),
            other => return Err(other.unexpected()),
        }
    }
    if options.seconds < options.every_s {
        return Err(
            format!("{} s have no room for a fault every {} s", options.seconds, options.every_s).into()
        );
    }
    Ok(Request::Run(options))
}

fn run(options: &Options, logs: Throwaway) -> Result<(), Error> {
    let interrupt = Interrupt::on_signals()?;
    bench::groups_for(options.split)?;
    install::install_missing(Steps::Printed, &logs.path().join("install.log"))?;
    let workspace = compile::workspace();
    let server = compile::server(options.server.clone(), &workspace, logs.path(), &interrupt)?;
    let report = long_run::run(&LongRunOptions {
        server,
        workspace,
        faults: options.seconds / options.every_s,
        every: Duration::from_secs(options.every_s.into()),
        requests_per_second: options.rate.map(f64::from),
        clients: usize::try_from(options.clients).unwrap_or(usize::MAX),
        split: options.split,
        logs: logs.path().to_owned(),
        steps: Steps::Printed,
        interrupt,
    })?;
    Steps::Printed.line(&format!("\n{}", report.tables()));
    if let Some(path) = &options.out {
        report.write(path)?;
        Steps::Printed.line(&format!("written: {}", path.display()));
    }
    if report.broken.is_empty() {
        Steps::Printed.line("every promise was kept");
        return Ok(());
    }
    let kept = logs.keep();
    Err(Error::Refused(format!("{}\nthe logs are kept in {}", report.broken.join("\n"), kept.display())))
}

const HELP: &str = "\
Endures: a stack of its own, on free ports, at 70 % of its capacity, with a fault in every minute. In turn: PostgreSQL is
restarted, a backend of it is terminated, it stands still for 5 s, a stranger locks a row for 5 s, webapi2 is killed and
comes back after 5 s, webapi2 is restarted with SIGTERM, nginx is reloaded.

Usage: cargo stress soak [OPTIONS]

Options:
  --minutes N          How long, after the capacity was measured [default: 60]
  --seconds N          The same in seconds
  --every SECONDS      From one fault to the next [default: 60]
  --rate N             Requests per second, in place of 70 % of the lowest of three measurements of the capacity
  --clients N          Clients, each with one request under way at most; connections live for 2 to 4 s [default: 32]
  --limits NAME        The services' shares of the 1.5 CPU and 550 MB: default, tuned or none [default: default]
  --server FILE        The server's binary [default: what `cargo build --release` makes]
  --out FILE           Also writes everything as JSON
  -h, --help           This text

At the end of each minute the load stops for some seconds. Every answer is held against the ledger: a 200 has exactly one
row and told the balance after it, a 422 and a 503 \"nothing was done\" have none, what nobody knows has at most one, nobody
else has any. Then memory and descriptors of each part are noted, while nobody is connected.

Ends with status 1 when a promise is broken: the ledger disagrees, a client gets no answer or one that the bank never gives,
a client is not served again after a fault, a part ends by itself, a log has a panic, or from 14 faults on, when a part grows:
its memory (median of the last 10 minutes against the first 10; of PostgreSQL what its processes do not share) by more than
5 % plus 1 MiB, or its descriptors at all (PostgreSQL's by more than 64: one for each GB of tables in each process). webapi2,
which is restarted, is noted but not judged.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_all(arguments: &[&str]) -> Result<Request<Options>, lexopt::Error> {
        parse(lexopt::Parser::from_args(arguments))
    }

    #[test]
    fn reads_its_options() {
        let defaults = Options {
            seconds: 3600,
            every_s: 60,
            rate: None,
            clients: 32,
            split: Split::Default,
            server: None,
            out: None,
        };
        assert_eq!(parse_all(&[]).unwrap(), Request::Run(defaults.clone()));
        let minutes = Options { seconds: 120, ..defaults };
        assert_eq!(parse_all(&["--minutes", "2"]).unwrap(), Request::Run(minutes));
        let all = "--seconds 30 --every=10 --rate 500 --clients 8 --limits none --server s --out o";
        let expected = Options {
            seconds: 30,
            every_s: 10,
            rate: Some(500),
            clients: 8,
            split: Split::None,
            server: Some("s".into()),
            out: Some("o".into()),
        };
        let all: Vec<&str> = all.split_whitespace().collect();
        assert_eq!(parse_all(&all).unwrap(), Request::Run(expected));
        assert_eq!(parse_all(&["-h"]).unwrap(), Request::Help);
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        for wrong in [&["--minutes", "0"][..], &["--minutes", "100000000"], &["--seconds", "59"], &["x"]] {
            assert!(parse_all(wrong).is_err(), "{wrong:?}");
        }
    }
}
