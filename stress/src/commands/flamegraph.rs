//! `cargo stress flamegraph`: the profile, and the files that it leaves.

use std::fs;
use std::path::{Path, PathBuf};

use stress::profile::{self, Folded, Profile, ProfileOptions, View};
use stress::steps::Steps;
use stress::{Error, Workplace, compile, install};

use super::{at_work, positive};

/// One instance under load, sampled: where its time goes, as a picture
///
/// PostgreSQL and one instance are started for it, loaded with wrk (220 debits to 110 credits to 10 statements over connections
/// that stay), sampled with perf, and stopped.
#[derive(Debug, clap::Args)]
#[command(after_long_help = NOTES)]
pub(super) struct Arguments {
    /// How long it is sampled, after a second to warm up
    #[arg(long, value_name = "N", default_value = "10", value_parser = positive)]
    seconds: u32,
    /// Connections of the load
    #[arg(long, value_name = "N", default_value = "32", value_parser = positive)]
    connections: u32,
    /// Samples per second of its CPU time; odd numbers do not fall into step with timers
    #[arg(long, value_name = "HZ", default_value = "997", value_parser = positive)]
    frequency: u32,
    /// Shows where it waits in place of where it works: each time it loses the processor, until it gets one again
    #[arg(long)]
    off_cpu: bool,
    /// Leaves the kernel's functions out; their time counts for the function that called them
    #[arg(long)]
    no_kernel: bool,
    /// Where to write [default: target/flamegraph]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Also draws the difference to an earlier profile.folded (or, with --off-cpu, off-cpu.folded)
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
}

impl Arguments {
    fn view(&self) -> View {
        if self.off_cpu { View::OffCpu } else { View::OnCpu }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    // Before the work: a wrong path should not cost the user the profile.
    let earlier = arguments.against.as_deref().map(read_folded).transpose()?;
    let target = compile::target_directory(&compile::workspace());
    let out = arguments.out.clone().unwrap_or_else(|| target.join("flamegraph"));
    fs::create_dir_all(&out).map_err(Error::io(format!("make {}", out.display())))?;
    let profile = at_work("flamegraph", |place| profile(arguments, place))?;
    tell(&profile, arguments);
    for path in write(&profile, earlier.as_ref(), arguments, &out)? {
        Steps::Printed.line(&format!("written: {}", path.display()));
    }
    Ok(())
}

fn profile(arguments: &Arguments, place: &Workplace) -> Result<Profile, Error> {
    place.install(&[&install::POSTGRES, &install::WRK, &install::PERF])?;
    // Before the build, which takes a minute.
    let perf = profile::require_perf(arguments.view())?;
    place.steps.line("server: cargo build --profile profiling --bin rinha");
    profile::take(&ProfileOptions {
        perf,
        server: compile::build("profiling", place)?,
        view: arguments.view(),
        has_kernel: !arguments.no_kernel,
        connections: arguments.connections,
        seconds: arguments.seconds,
        frequency_hz: arguments.frequency,
        place: place.clone(),
    })
}

fn read_folded(path: &Path) -> Result<Folded, Error> {
    let text = fs::read_to_string(path).map_err(Error::io(format!("read {}", path.display())))?;
    Folded::parse(&text).filter(|folded| !folded.is_empty()).ok_or_else(|| {
        Error::Refused(format!("{} is no profile.folded of `cargo stress flamegraph`", path.display()))
    })
}

/// Prints which part of the weight each function of the story has.
fn tell(profile: &Profile, arguments: &Arguments) {
    let steps = Steps::Printed;
    let total = profile.folded.total();
    steps.line(&format!(
        "\n{:.0} req/s; {total} {} of the server:",
        profile.requests_per_second,
        arguments.view().unit()
    ));
    for (function, what) in STORY {
        let permille = profile.folded.weight_of(function) * 1000 / total;
        steps.line(&format!("{:4}.{} %  {function:<24} {what}", permille / 10, permille % 10));
    }
    if !arguments.no_kernel && has_nameless_kernel() {
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
    arguments: &Arguments,
    out: &Path,
) -> Result<Vec<PathBuf>, Error> {
    let Arguments { seconds, connections, .. } = arguments;
    let view = arguments.view();
    let (svg_name, folded_name, difference_name) = match view {
        View::OnCpu => ("flamegraph.svg", "profile.folded", "difference.svg"),
        View::OffCpu => ("off-cpu.svg", "off-cpu.folded", "off-cpu-difference.svg"),
    };
    let load = format!("{seconds} s, {connections} connections, {:.0} req/s", profile.requests_per_second);
    let mut files = vec![
        (svg_name, profile::flamegraph(&profile.folded, view, &load)?),
        (folded_name, profile.folded.text()),
    ];
    if let Some(earlier) = earlier {
        files.push((difference_name, profile::difference(earlier, &profile.folded, view, &load)?));
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
const STORY: [(&str, &str); 12] = [
    ("Server::wait", "epoll: which sockets are ready"),
    ("EventLoop<N>::receive", "bytes from the sockets"),
    ("Engine::advance", "the core; of this:"),
    ("head::parse_head", "  a request's head"),
    ("bank::route", "  what it asks for"),
    ("bank::parse_transaction", "  its JSON"),
    ("Outbox::encode_call", "  the call, as PostgreSQL's protocol has it"),
    ("Lane::poll_event", "  PostgreSQL's answers, decoded and held until their commit"),
    ("response::write_response", "  the HTTP answers"),
    ("EventLoop<N>::send", "bytes to the sockets"),
    ("EventLoop<N>::expire", "deadlines"),
    ("EventLoop<N>::reap", "closed clients"),
];

const NOTES: &str = "\
Writes flamegraph.svg (open it in a browser: a click zooms, Ctrl-F searches), profile.folded (the same as text, one stack \
per line with its number of samples; keep it to compare with) and difference.svg (red grew, blue shrank); with --off-cpu, \
off-cpu.svg, off-cpu.folded (weights in microseconds) and off-cpu-difference.svg. docs/learn/microseconds.md reads one.

The server is built with the profile `profiling`: the code of a release, with symbols and line tables. There are no limits \
on CPU and memory, so the requests per second are not those of `cargo stress run`. perf samples by a timer of the kernel, so \
it needs no hardware counters; wrk, PostgreSQL and perf are installed when they are missing, by root on Debian or Ubuntu. \
Without root: sudo sysctl kernel.perf_event_paranoid=1 kernel.kptr_restrict=0.";
