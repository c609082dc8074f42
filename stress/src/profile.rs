//! One instance under load, sampled with perf: what `cargo stress flamegraph` does, without its command line.
//!
//! Samples are stacks. Folded, they are lines of a whole stack and its weight, which is all that a flamegraph needs.

use std::path::PathBuf;

use crate::load::wrk::{self, Wrk};
use crate::{Error, Solo, SoloOptions, Workplace, install};

mod perf;
pub use perf::obstacle;

mod folded;
pub use folded::Folded;

mod draw;
pub use draw::{difference, flamegraph};

mod samples;

/// What to profile.
#[derive(Debug, Clone)]
pub struct ProfileOptions {
    /// As [`require_perf`] found it.
    pub perf: PathBuf,
    /// The server's binary, with symbols: built with the profile `profiling`.
    pub server: PathBuf,
    /// What the samples tell.
    pub view: View,
    /// Whether stacks go on into the kernel. Without, its time counts for the function that called it.
    pub has_kernel: bool,
    /// Connections of the load.
    pub connections: u32,
    /// How long it is sampled, after a second to warm up.
    pub seconds: u32,
    /// Samples per second of the server's CPU time; unused off the CPU.
    pub frequency_hz: u32,
    /// Where, and who watches it.
    pub place: Workplace,
}

/// What samples tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// What the server does while it has a processor: samples at even intervals of its CPU time.
    OnCpu,
    /// What it was about to do while it has none, and for how long: each time it sleeps or is displaced.
    OffCpu,
}

impl View {
    /// What a weight counts.
    pub fn unit(self) -> &'static str {
        match self {
            View::OnCpu => "samples",
            View::OffCpu => "µs",
        }
    }
}

/// What was seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// The stacks with their weights.
    pub folded: Folded,
    /// What the load had answered, meanwhile.
    pub requests_per_second: f64,
}

/// A perf that may sample. Installed first where it is missing.
///
/// # Errors
/// [`Error::Refused`] with the remedy where it may not; else as [`install::install_missing`].
pub fn require_perf(view: View) -> Result<PathBuf, Error> {
    let perf = install::PERF.require()?;
    match obstacle(&perf, view)? {
        Some(obstacle) => Err(Error::Refused(obstacle)),
        None => Ok(perf),
    }
}

/// Starts PostgreSQL and one instance, loads it, samples it, and stops both.
///
/// # Errors
/// The first failure. What was started is stopped.
pub fn take(options: &ProfileOptions) -> Result<Profile, Error> {
    let wrk = Wrk::find(&options.place.logs, None, false)?;
    let solo = Solo::start(SoloOptions::new(&options.server, &options.place))?;
    let target = format!("http://{}", solo.address()?);
    options.place.steps.run("warm-up", "done", || {
        wrk.run(&target, options.connections, WARM_UP_SECONDS, &options.place.interrupt)
    })?;

    let data = options.place.logs.join("perf.data");
    let step = format!("sampling for {} s under {} connections", options.seconds, options.connections);
    let output = options.place.steps.run(&step, "done", || {
        perf::record(
            options,
            solo.instance.pid(),
            wrk.directory(),
            &data,
            wrk.command(&target, options.connections, options.seconds),
        )
    })?;
    let load = wrk::outcome_in(&output)
        .ok_or_else(|| Error::Refused(format!("wrk printed no result; perf and wrk said: {output}")))?;
    drop(solo);

    let script = options.place.steps.run("reading the samples", "done", || perf::script(options, &data))?;
    let records = samples::records(&script);
    let folded = match options.view {
        View::OnCpu => Folded::on_cpu(&records, options.has_kernel),
        View::OffCpu => Folded::off_cpu(&records, options.has_kernel),
    };
    if folded.is_empty() {
        return Err(Error::Refused("perf took no samples of the server: try more --seconds".to_owned()));
    }
    Ok(Profile { folded, requests_per_second: load.requests_per_second() })
}

const WARM_UP_SECONDS: u32 = 1;
