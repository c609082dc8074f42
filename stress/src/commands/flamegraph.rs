//! `cargo stress flamegraph`: the profile, and the files that it leaves.

use std::fs;
use std::path::{Path, PathBuf};

use stress::profile::{self, Folded, Profile, ProfileOptions, View};
use stress::steps::Steps;
use stress::{Error, Workplace, compile, files, install};

use super::at_work;

pub(super) fn run(options: &ProfileOptions) -> Result<(), Error> {
    // Before the work: a wrong path should not cost the user the profile.
    let earlier = options.against.as_deref().map(read_folded).transpose()?;
    let target = compile::target_directory(&compile::workspace());
    let out = options.out.clone().unwrap_or_else(|| target.join("flamegraph"));
    files::make_directory(&out)?;
    let profile = at_work(|place| profile(options, place))?;
    tell(&profile, options);
    for path in write(&profile, earlier.as_ref(), options, &out)? {
        Steps::Printed.line(&format!("written: {}", path.display()));
    }
    Ok(())
}

fn profile(options: &ProfileOptions, place: &Workplace) -> Result<Profile, Error> {
    place.install(&[&install::POSTGRES, &install::WRK, &install::PERF])?;
    // Before the build, which takes a minute.
    let perf = profile::require_perf(options.view())?;
    place.steps.line("server: cargo build --release --bin rinha");
    profile::take(options, &perf, place)
}

fn read_folded(path: &Path) -> Result<Folded, Error> {
    let text = files::read(path)?;
    Folded::parse(&text).filter(|folded| !folded.is_empty()).ok_or_else(|| {
        Error::Refused(format!("{} is no profile.folded of `cargo stress flamegraph`", path.display()))
    })
}

fn tell(profile: &Profile, options: &ProfileOptions) {
    let steps = Steps::Printed;
    let total = profile.folded.total();
    let (rate, unit) = (profile.requests_per_second, options.view().unit());
    steps.line(&format!("\n{rate:.0} req/s; {total} {unit} of the server:"));
    for (function, what) in STORY {
        let permille = profile.folded.weight_of(function) * 1000 / total;
        steps.line(&format!("{:4}.{} %  {function:<24} {what}", permille / 10, permille % 10));
    }
    if !options.no_kernel && has_nameless_kernel() {
        steps.line("The kernel's functions have no names here: run as root, or `sudo sysctl kernel.kptr_restrict=0`.");
    }
    steps.line("");
}

/// Format: the manual page proc(5), `/proc/kallsyms`: addresses are zeros for those who may not see them.
fn has_nameless_kernel() -> bool {
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    symbols.lines().take(100).all(|line| line.starts_with("0000000000000000"))
}

fn write(
    profile: &Profile,
    earlier: Option<&Folded>,
    options: &ProfileOptions,
    out: &Path,
) -> Result<Vec<PathBuf>, Error> {
    let ProfileOptions { seconds, connections, .. } = options;
    let view = options.view();
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
    files.into_iter().map(|(name, content)| files::write(out.join(name), content)).collect()
}

/// The stages of a turn in their order, and within them, indented, the functions to know.
const STORY: [(&str, &str); 12] = [
    ("Server::wait", "epoll: which sockets are ready"),
    ("EventLoop<N>::receive", "bytes from the sockets"),
    ("Engine::advance", "the core; of this:"),
    ("head::parse_head", "  a request's head"),
    ("bank::route", "  what it asks for"),
    ("body::parse_transaction", "  its JSON"),
    ("Outbox::encode_call", "  the call, as PostgreSQL's protocol has it"),
    ("Lane::poll_event", "  PostgreSQL's answers, decoded and held until their commit"),
    ("response::write_response", "  the HTTP answers"),
    ("EventLoop<N>::send", "bytes to the sockets"),
    ("EventLoop<N>::expire", "deadlines"),
    ("EventLoop<N>::reap", "closed clients"),
];
