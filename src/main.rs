//! The binary: environment, configuration, server. The only place that exits.

use std::process::ExitCode;

use lexopt::Arg;
use rinha::config::Config;
use rinha::healthcheck;
use rinha::server::Server;

/// A setting or an argument that cannot be used.
const EXIT_USAGE: u8 = 2;

enum Command {
    Serve,
    Healthcheck,
    Help,
    Version,
}

fn main() -> ExitCode {
    match command() {
        Ok(Command::Serve) => serve(),
        Ok(Command::Healthcheck) => check_health(),
        Ok(Command::Help) => {
            print!("{USAGE}\n{}", Config::help());
            ExitCode::SUCCESS
        }
        Ok(Command::Version) => {
            println!("rinha {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Err(error) => fail(EXIT_USAGE, &format!("{error}; rinha --help lists what there is")),
    }
}

fn command() -> Result<Command, lexopt::Error> {
    let mut arguments = lexopt::Parser::from_env();
    let command = match arguments.next()? {
        None => return Ok(Command::Serve),
        Some(Arg::Long("healthcheck")) => Command::Healthcheck,
        Some(Arg::Long("help") | Arg::Short('h')) => Command::Help,
        Some(Arg::Long("version") | Arg::Short('V')) => Command::Version,
        Some(other) => return Err(other.unexpected()),
    };
    match arguments.next()? {
        None => Ok(command),
        Some(surplus) => Err(surplus.unexpected()),
    }
}

fn serve() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let config = match Config::from_environment(environment) {
        Ok(config) => config,
        Err(error) => return fail(EXIT_USAGE, &error),
    };
    match Server::bind(config).and_then(Server::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error),
    }
}

fn check_health() -> ExitCode {
    let address = match Config::first_listen_address(environment) {
        Ok(address) => address,
        Err(error) => return fail(EXIT_USAGE, &error),
    };
    match healthcheck::check(&address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => fail(1, &problem),
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

fn fail(code: u8, error: &impl std::fmt::Display) -> ExitCode {
    eprintln!("rinha: {error}");
    ExitCode::from(code)
}

const USAGE: &str = "\
A bank on one event loop: the server of the Rinha de Backend 2024/Q1.

Usage: rinha                 serve, with the settings below from the environment
       rinha --healthcheck   ask the instance at the first address of LISTEN whether it is healthy; exit 0 if so
       rinha --help          this text
       rinha --version

Stops on SIGTERM or SIGINT: it finishes what is in flight and exits 0. A bad setting exits 2, a failure 1.
";
