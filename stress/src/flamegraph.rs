//! `cargo stress flamegraph`: the command line of the profile, and the files that it leaves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lexopt::prelude::{Long, Short, ValueExt};
use stress::profile::{self, Folded, Profile, ProfileOptions, View};
use stress::steps::Steps;
use stress::throwaway::Throwaway;
use stress::wait::Interrupt;
use stress::{Error, compile, install};

use crate::arguments::{Request, positive, subcommand};

/// One profile.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Options {
    view: View,
    has_kernel: bool,
    seconds: u32,
    connections: u32,
    frequency_hz: u32,
    out: Option<PathBuf>,
    against: Option<PathBuf>,
}

/// Runs the subcommand with what is left of the command line.
pub(crate) fn main(arguments: lexopt::Parser) -> ExitCode {
    subcommand("flamegraph", parse(arguments), HELP, |options| run(&options))
}

fn parse(mut arguments: lexopt::Parser) -> Result<Request<Options>, lexopt::Error> {
    let mut options = Options {
        view: View::OnCpu,
        has_kernel: true,
        seconds: 10,
        connections: 32,
        frequency_hz: 997,
        out: None,
        against: None,
    };
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("off-cpu") => options.view = View::OffCpu,
            Long("no-kernel") => options.has_kernel = false,
            Long("seconds") => options.seconds = arguments.value()?.parse_with(positive)?,
            Long("connections") => options.connections = arguments.value()?.parse_with(positive)?,
            Long("frequency") => options.frequency_hz = arguments.value()?.parse_with(positive)?,
            Long("out") => options.out = Some(arguments.value()?.into()),
            Long("against") => options.against = Some(arguments.value()?.into()),
            Long("help") | Short('h') => return Ok(Request::Help),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Request::Run(options))
}

fn run(options: &Options) -> Result<(), Error> {
    let interrupt = Interrupt::on_signals()?;
    // Before the work: a wrong path should not cost the user the profile.
    let earlier = options.against.as_deref().map(read_folded).transpose()?;
    let workspace = compile::workspace();
    let out = options.out.clone().unwrap_or_else(|| compile::target_directory(&workspace).join("flamegraph"));
    fs::create_dir_all(&out).map_err(Error::io(format!("make {}", out.display())))?;

    let steps = Steps::Printed;
    let logs = Throwaway::new("logs")?;
    install::install_missing_for_profile(steps, &logs.path().join("install.log"))?;
    // Before the build, which takes a minute.
    let perf = profile::require_perf(options.view)?;
    steps.line("server: cargo build --profile profiling --bin rinha");
    let server = compile::build_server_for_profile(&workspace, &logs.path().join("build.json"), &interrupt)?;
    let profile = profile::take(&ProfileOptions {
        perf,
        server,
        workspace,
        view: options.view,
        has_kernel: options.has_kernel,
        connections: options.connections,
        seconds: options.seconds,
        frequency_hz: options.frequency_hz,
        logs: logs.path().to_owned(),
        steps,
        interrupt,
    })?;
    tell(&profile, options);
    for path in write(&profile, earlier.as_ref(), options, &out)? {
        steps.line(&format!("written: {}", path.display()));
    }
    Ok(())
}

fn read_folded(path: &Path) -> Result<Folded, Error> {
    let text = fs::read_to_string(path).map_err(Error::io(format!("read {}", path.display())))?;
    Folded::parse(&text).filter(|folded| !folded.is_empty()).ok_or_else(|| {
        Error::Refused(format!("{} is no profile.folded of `cargo stress flamegraph`", path.display()))
    })
}

/// Prints which part of the weight each function of the story has.
fn tell(profile: &Profile, options: &Options) {
    let steps = Steps::Printed;
    let total = profile.folded.total();
    steps.line(&format!(
        "\n{:.0} req/s; {total} {} of the server:",
        profile.requests_per_second,
        options.view.unit()
    ));
    for (function, what) in STORY {
        let permille = profile.folded.weight_of(function) * 1000 / total;
        steps.line(&format!("{:4}.{} %  {function:<24} {what}", permille / 10, permille % 10));
    }
    if options.has_kernel && has_nameless_kernel() {
        steps.line("The kernel's functions have no names here: run as root, or `sudo sysctl kernel.kptr_restrict=0`.");
    }
    steps.line("");
}

/// Format: the manual page proc(5), `/proc/kallsyms`: addresses are zeros for those who may not see them.
fn has_nameless_kernel() -> bool {
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    symbols.lines().take(100).all(|line| line.starts_with("0000000000000000"))
}

/// Writes the drawing, the folded stacks, and if there is an earlier profile, the difference.
fn write(
    profile: &Profile,
    earlier: Option<&Folded>,
    options: &Options,
    out: &Path,
) -> Result<Vec<PathBuf>, Error> {
    let Options { view, seconds, connections, .. } = options;
    let (svg_name, folded_name, difference_name) = match view {
        View::OnCpu => ("flamegraph.svg", "profile.folded", "difference.svg"),
        View::OffCpu => ("off-cpu.svg", "off-cpu.folded", "off-cpu-difference.svg"),
    };
    let load = format!("{seconds} s, {connections} connections, {:.0} req/s", profile.requests_per_second);
    let mut files = vec![
        (svg_name, profile::flamegraph(&profile.folded, *view, &load)?),
        (folded_name, profile.folded.text()),
    ];
    if let Some(earlier) = earlier {
        files.push((difference_name, profile::difference(earlier, &profile.folded, *view, &load)?));
    }
    let mut paths = Vec::new();
    for (name, content) in files {
        let path = out.join(name);
        fs::write(&path, content).map_err(Error::io(format!("write {}", path.display())))?;
        paths.push(path);
    }
    Ok(paths)
}

/// The stages of a turn in their order, and within them, indented, the functions to know.
const STORY: [(&str, &str); 11] = [
    ("Server::wait", "epoll: which sockets are ready"),
    ("Turn<N>::receive", "bytes from the sockets"),
    ("Engine::advance", "the core; of this:"),
    ("http::parse_head", "  a request's head"),
    ("api::route", "  what it asks for"),
    ("api::parse_transaction", "  its JSON"),
    ("Outbox::encode_call", "  the call, as PostgreSQL's protocol has it"),
    ("Lane::poll_event", "  PostgreSQL's answers, decoded and held until their commit"),
    ("response::write_response", "  the HTTP answers"),
    ("Turn<N>::send", "bytes to the sockets"),
    ("Turn<N>::reap", "closed clients"),
];

const HELP: &str = "\
Shows where one instance of the server spends its time: PostgreSQL and the instance are started for it, loaded with wrk
(220 debits to 110 credits to 10 statements over connections that stay), sampled with perf, and stopped.

Usage: cargo stress flamegraph [OPTIONS]

Options:
  --seconds N          How long it is sampled, after a second to warm up [default: 10]
  --connections N      Connections of the load [default: 32]
  --frequency HZ       Samples per second of its CPU time; odd numbers do not fall into step with timers [default: 997]
  --off-cpu            Shows where it waits in place of where it works: each time it loses the processor, until it gets
                       one again
  --no-kernel          Leaves the kernel's functions out; their time counts for the function that called them
  --out DIR            Where to write [default: target/flamegraph]
  --against FILE       Also draws the difference to an earlier profile.folded (or, with --off-cpu, off-cpu.folded)
  -h, --help           This text

Writes flamegraph.svg (open it in a browser: a click zooms, Ctrl-F searches), profile.folded (the same as text, one stack
per line with its number of samples; keep it to compare with) and difference.svg (red grew, blue shrank); with --off-cpu,
off-cpu.svg, off-cpu.folded (weights in microseconds) and off-cpu-difference.svg. docs/flamegraph.md is a guided reading.

The server is built with the profile `profiling`: the code of a release, with symbols and line tables. There are no limits
on CPU and memory, so the requests per second are not those of `cargo stress run`. perf samples by a timer of the kernel, so
it needs no hardware counters; wrk, PostgreSQL and perf are installed when they are missing, by root on Debian or Ubuntu.
Without root: sudo sysctl kernel.perf_event_paranoid=1 kernel.kptr_restrict=0.
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
            view: View::OnCpu,
            has_kernel: true,
            seconds: 10,
            connections: 32,
            frequency_hz: 997,
            out: None,
            against: None,
        };
        assert_eq!(parse_all(&[]).unwrap(), Request::Run(defaults));
        let arguments =
            "--seconds 2 --connections=8 --frequency 4999 --off-cpu --no-kernel --out o --against a";
        let expected = Options {
            view: View::OffCpu,
            has_kernel: false,
            seconds: 2,
            connections: 8,
            frequency_hz: 4999,
            out: Some("o".into()),
            against: Some("a".into()),
        };
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        assert_eq!(parse_all(&arguments).unwrap(), Request::Run(expected));
        assert_eq!(parse_all(&["--help"]).unwrap(), Request::Help);
        for wrong in [&["--seconds", "0"][..], &["--connections", "x"], &["--offcpu"], &["saturate"]] {
            assert!(parse_all(wrong).is_err(), "{wrong:?}");
        }
    }
}
