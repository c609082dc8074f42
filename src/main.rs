//! SHELL: the binary: arguments, environment, exit codes. The only place that exits.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::env::VarError;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::panic;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::Arg;
use rinha::config::{Config, ConfigError};
use rinha::net::healthcheck;
use rinha::net::log_rate::LogRate;
use rinha::net::log_writer::LogWriter;
use rinha::server::Server;

/// A setting or an argument that cannot be used.
const EXIT_USAGE: u8 = 2;
/// Any other failure.
const EXIT_FAILURE: u8 = 1;

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
        Ok(Command::Help) => print(&format!("{USAGE}\n{}", Config::help())),
        Ok(Command::Version) => print(&format!("rinha {}\n", env!("CARGO_PKG_VERSION"))),
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
    let config = match from_environment(|variable| Config::with_files(variable, |path| std::fs::read(path))) {
        Ok(config) => config,
        Err(error) => return fail(EXIT_USAGE, &error),
    };
    let log = match LogWriter::start(io::stderr(), config.log_queue_len_bytes) {
        Ok(log) => log,
        Err(error) => return fail(EXIT_FAILURE, &format!("cannot start the thread of the log: {error}")),
    };
    let flush_timeout = Duration::from_millis(config.log_flush_timeout_ms);
    let lines = env_logger::Builder::new()
        .filter_level(config.log_level)
        .target(env_logger::Target::Pipe(Box::new(log.clone())))
        .build();
    let logger = LogRate::new(lines, config.log_lines_max, config.log_interval_ms);
    if let Err(error) = log::set_boxed_logger(Box::new(logger)) {
        return fail(EXIT_FAILURE, &error);
    }
    log::set_max_level(config.log_level);
    say_panics(log.clone(), flush_timeout);
    for line in Config::near_misses(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok())) {
        log::warn!("{line}");
    }
    let code = match Server::bind(config).and_then(Server::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log.say(format_args!("rinha: {error}"));
            ExitCode::from(EXIT_FAILURE)
        }
    };
    log::logger().flush();
    log.flush_within(flush_timeout);
    code
}

/// Logs a panic without blocking: the standard hook would wait for ever if stderr is full and not read.
fn say_panics(log: LogWriter, flush_timeout: Duration) {
    panic::set_hook(Box::new(move |panic| {
        let backtrace = Backtrace::capture();
        match backtrace.status() {
            BacktraceStatus::Captured => log.say(format_args!("{panic}\n{backtrace}")),
            _ => log.say(panic),
        }
        log.flush_within(flush_timeout);
    }));
}

fn check_health() -> ExitCode {
    let address = match from_environment(|variable| Config::first_listen_address(variable)) {
        Ok(address) => address,
        Err(error) => return fail(EXIT_USAGE, &error),
    };
    match healthcheck::check(&address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => fail(EXIT_FAILURE, &problem),
    }
}

/// Reads settings. A variable that is not UTF-8 is an error: with replacement characters it would be another value.
fn from_environment<T>(
    read: impl FnOnce(&dyn Fn(&str) -> Option<String>) -> Result<T, ConfigError>,
) -> Result<T, String> {
    let not_utf8 = RefCell::new(None);
    let result = read(&|name| match std::env::var(name) {
        Ok(value) => Some(value),
        Err(VarError::NotPresent) => None,
        Err(VarError::NotUnicode(_)) => {
            not_utf8.borrow_mut().get_or_insert(format!("{name}: expected UTF-8"));
            None
        }
    });
    match not_utf8.into_inner() {
        Some(error) => Err(error),
        None => result.map_err(|error| error.to_string()),
    }
}

/// Writes to stdout. `println!` would panic if the reader of a pipe has left.
fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(EXIT_FAILURE, &format!("cannot write to stdout: {error}")),
    }
}

fn fail(code: u8, error: &impl Display) -> ExitCode {
    // If stderr takes nothing, the exit status is all that is left.
    let _ = writeln!(io::stderr(), "rinha: {error}");
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
