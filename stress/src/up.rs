//! `cargo stress up`: the whole stack without Docker, until Ctrl-C.

use std::fmt;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::{Long, Short, ValueExt};
use stress::bench::{Bank, Load};
use stress::cgroup::Parent;
use stress::lock::Lock;
use stress::steps::Steps;
use stress::throwaway::{self, Throwaway};
use stress::wait::Interrupt;
use stress::{Durability, Error, Ports, PostgresOptions, Split, Stack, StackOptions, compile, install};

use crate::arguments::{Request, subcommand};

/// How the stack is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Options {
    port: u16,
    server: Option<PathBuf>,
    split: Split,
    durability: Durability,
}

/// Runs the subcommand with what is left of the command line.
pub(crate) fn main(arguments: lexopt::Parser) -> ExitCode {
    subcommand("up", parse(arguments), HELP, |options| run(&options))
}

/// Why it did not work, and where the logs are if they say more.
struct Failure {
    error: Error,
    logs: Option<PathBuf>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)?;
        match &self.logs {
            Some(logs) => {
                write!(f, "\ncargo stress up: everything is stopped; the logs are kept in {}", logs.display())
            }
            None => Ok(()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { error, logs: None }
    }
}

fn parse(mut arguments: lexopt::Parser) -> Result<Request<Options>, lexopt::Error> {
    let mut options = Options {
        port: Ports::NGINX_DEFAULT,
        server: None,
        split: Split::Default,
        durability: Durability::Benchmark,
    };
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("port") => options.port = arguments.value()?.parse()?,
            Long("server") => options.server = Some(arguments.value()?.into()),
            Long("limits") => options.split = arguments.value()?.parse()?,
            Long("no-limits") => options.split = Split::None,
            Long("durable") => options.durability = Durability::Durable,
            Long("help") | Short('h') => return Ok(Request::Help),
            other => return Err(other.unexpected()),
        }
    }
    if !(1..=Ports::NGINX_MAX).contains(&options.port) {
        return Err(format!("--port needs a number from 1 to {}", Ports::NGINX_MAX).into());
    }
    Ok(Request::Run(options))
}

fn run(options: &Options) -> Result<(), Failure> {
    let interrupt = Interrupt::on_signals()?;
    let _lock = Lock::take(&throwaway::base().join(format!("rinha-stress-{}.lock", options.port)))?;
    let ports = Ports::Fixed { nginx: options.port };
    check_free(ports)?;

    let logs = Throwaway::new("logs")?;
    bring_up(ports, options, &logs, &interrupt).map_err(|error| {
        let is_in_logs = matches!(error, Error::Service { .. } | Error::Sql { .. });
        Failure { error, logs: is_in_logs.then(|| logs.keep()) }
    })
}

fn bring_up(ports: Ports, options: &Options, logs: &Throwaway, interrupt: &Interrupt) -> Result<(), Error> {
    let steps = Steps::Printed;
    install::install_missing(steps, &logs.path().join("install.log"))?;

    let workspace = compile::workspace();
    if options.server.is_none() {
        steps.line("server: cargo build --release --bin rinha");
    }
    let server = compile::server(options.server.clone(), &workspace, logs.path(), interrupt)?;

    let groups = match options.split {
        Split::None => Err("--limits none".to_owned()),
        Split::Default | Split::Tuned => Parent::find(),
    };
    steps.line(&match &groups {
        Ok(_) => format!("limits: {}", options.split.describe()),
        Err(why) => format!("limits: not applied: {why}"),
    });
    let stack = Stack::start(&StackOptions {
        ports,
        groups: groups.ok(),
        split: options.split,
        postgres: PostgresOptions { durability: options.durability, ..PostgresOptions::default() },
        logs: Some(logs.path().to_owned()),
        steps,
        interrupt: interrupt.clone(),
        ..StackOptions::new(&workspace, server)
    })?;
    for instance in &stack.instances {
        let metrics = instance.metrics_address().unwrap_or_default();
        let direct = instance.addresses().pop().unwrap_or_default();
        steps.line(&format!(
            "{}: http://{direct}, metrics http://{metrics}/metrics",
            instance.service().name()
        ));
    }
    steps.line(&format!("database: psql '{}'", stack.postgres.url("rinha")));
    steps.line(&format!("measure it: cargo stress run saturate {}", running_options(&stack)));
    steps.line(&format!("up: http://localhost:{} (Ctrl-C ends it)", stack.address().port()));

    let watched = stack.watch(interrupt);
    steps.run("stopping", "all stopped", || {
        drop(stack);
        Ok(())
    })?;
    watched
}

/// What `cargo stress run` has to know of it.
fn running_options(stack: &Stack) -> String {
    let Bank { url, metrics, database_url, parts } = Bank::of(stack, Load::Saturate);
    let with_account = stack.services().into_iter().zip(&parts).filter(|(_, (_, account))| account.is_some());
    let parts = with_account.map(|(service, (name, _))| format!("--part {name}={}", service.pid()));
    [format!("--url {url} --metrics {} --database-url '{database_url}'", metrics.join(","))]
        .into_iter()
        .chain(parts)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Says whose port is taken before anything is built or started.
fn check_free(ports: Ports) -> Result<(), Error> {
    for port in ports.fixed() {
        match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                return Err(Error::Refused(format!(
                    "port {port} is in use: end the process that `ss -ltnp 'sport = :{port}'` shows, \
                     or choose another with --port"
                )));
            }
            Err(error) => {
                return Err(Error::Refused(format!(
                    "port {port} cannot be used ({error}): choose another with --port"
                )));
            }
        }
    }
    Ok(())
}

const HELP: &str = "\
The whole stack without Docker, until Ctrl-C or SIGTERM: a private PostgreSQL, two instances of the server, and nginx
before them.

Usage: cargo stress up [OPTIONS]

Builds the server, and installs PostgreSQL and nginx if they are missing (root on Debian or Ubuntu).
Each service runs under the limits of the challenge where cgroups (v1 or v2) allow. Nothing is left behind at the end.

Options:
  --port PORT    nginx's port [default: 9999, with the instances at 127.0.0.1:8081 and :8082, and their metrics at
                 :9191 and :9192]. With another one the instances are at the two ports after it, and their metrics at the
                 two after those, so that several stacks run beside each other
  --server FILE  This binary of the server in place of a fresh build
  --limits SPLIT How 1.5 CPU and 550 MB are shared out: default, as in the challenge; tuned, for more requests
                 per second; none, no limits at all [default: default]
  --no-limits    The same as --limits none
  --durable      Logged tables, and fsync, synchronous_commit and full_page_writes on: what was acknowledged survives
  -h, --help     This text
";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_all(arguments: &[&str]) -> Result<Request<Options>, lexopt::Error> {
        parse(lexopt::Parser::from_args(arguments))
    }

    #[test]
    fn reads_its_options() {
        let defaults =
            Options { port: 9999, server: None, split: Split::Default, durability: Durability::Benchmark };
        assert_eq!(parse_all(&[]).unwrap(), Request::Run(defaults.clone()));
        assert_eq!(
            parse_all(&["--port=81", "--no-limits", "--server", "s"]).unwrap(),
            Request::Run(Options {
                port: 81,
                server: Some("s".into()),
                split: Split::None,
                ..defaults.clone()
            })
        );
        assert_eq!(
            parse_all(&["--limits", "tuned", "--durable"]).unwrap(),
            Request::Run(Options { split: Split::Tuned, durability: Durability::Durable, ..defaults })
        );
        assert_eq!(parse_all(&["--help"]).unwrap(), Request::Help);
        for wrong in [
            &["--port", "0"][..],
            &["--port", "65532"],
            &["--limits", "all"],
            &["--port", "x"],
            &["--ports"],
            &["down"],
        ] {
            assert!(parse_all(wrong).is_err(), "{wrong:?}");
        }
    }
}
