//! One instance under load, sampled with perf: what `cargo stress flamegraph` does, without its command line.
//!
//! Samples are stacks. Folded, they are lines of a whole stack and its weight, which is all that a flamegraph needs.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::arguments::positive;
use crate::load::{Generator, LoadFigures, LoadKind};
use crate::{Error, Solo, SoloOptions, Workplace, compile, install};

mod perf;
pub use perf::obstacle;

mod folded;
pub use folded::Folded;

mod draw;
pub use draw::{difference, flamegraph};

mod samples;

/// One instance under load, sampled: where its time goes, as a picture
///
/// PostgreSQL and one instance are started for it, loaded with wrk (220 debits to 110 credits to 10 statements over connections
/// that stay), sampled with perf, and stopped.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = include_str!("help/flamegraph.txt"))]
pub struct ProfileOptions {
    /// How long it is sampled, after a second to warm up
    #[arg(long, value_name = "N", default_value = "10", value_parser = positive)]
    pub seconds: u32,
    /// Connections of the load
    #[arg(long, value_name = "N", default_value = "32", value_parser = positive)]
    pub connections: u32,
    /// Samples per second of its CPU time; odd numbers do not fall into step with timers
    #[arg(long, value_name = "HZ", default_value = "997", value_parser = positive)]
    pub frequency: u32,
    /// Shows where it waits in place of where it works: each time it loses the processor, until it gets one again
    #[arg(long)]
    pub off_cpu: bool,
    /// Leaves the kernel's functions out; their time counts for the function that called them
    #[arg(long)]
    pub no_kernel: bool,
    /// Where to write [default: target/flamegraph]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Also draws the difference to an earlier profile.folded (or, with --off-cpu, off-cpu.folded)
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
}

impl ProfileOptions {
    pub fn view(&self) -> View {
        if self.off_cpu { View::OffCpu } else { View::OnCpu }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// What the server does while it has a processor: samples at even intervals of its CPU time.
    OnCpu,
    /// What it was about to do while it has none, and for how long: each time it sleeps or is displaced.
    OffCpu,
}

impl View {
    pub fn unit(self) -> &'static str {
        match self {
            View::OnCpu => "samples",
            View::OffCpu => "µs",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    pub folded: Folded,
    pub requests_per_second: f64,
}

/// A perf that may sample. Installed first where it is missing.
pub fn require_perf(view: View) -> Result<PathBuf, Error> {
    let perf = install::PERF.require()?.program;
    obstacle(&perf, view)?.map_or(Ok(perf), |obstacle| Err(Error::Refused(obstacle)))
}

pub fn take(options: &ProfileOptions, perf: &Path, place: &Workplace) -> Result<Profile, Error> {
    let wrk = Generator::find(LoadKind::Direct, &place.logs, None, place)?;
    let server = compile::build(place)?;
    let solo = Solo::start(SoloOptions::new(&server, place))?;
    let target = format!("http://{}", solo.address()?);
    place.steps.run("warm-up", "done", || {
        wrk.run(std::slice::from_ref(&target), Some(options.connections), WARM_UP_SECONDS, &place.interrupt)
    })?;

    let data = place.logs.join("perf.data");
    let step = format!("sampling for {} s under {} connections", options.seconds, options.connections);
    let arguments = wrk.wrk_arguments(&target, options.connections, options.seconds);
    let load = (wrk.program.found.program.as_path(), arguments);
    let output = place
        .steps
        .run(&step, "done", || perf::record((perf, options, place), solo.instance.pid(), &data, load))?;
    let load = LoadFigures::in_output(&output)
        .ok_or_else(|| Error::Refused(format!("wrk printed no result; perf and wrk said: {output}")))?;
    drop(solo);

    let script = place.steps.run("reading the samples", "done", || perf::script(perf, place, &data))?;
    let records = samples::records(&script);
    let fold = if options.off_cpu { Folded::off_cpu } else { Folded::on_cpu };
    let folded = fold(&records, !options.no_kernel);
    if folded.is_empty() {
        return Err(Error::Refused("perf took no samples of the server: try more --seconds".to_owned()));
    }
    Ok(Profile { folded, requests_per_second: load.requests_per_second() })
}

const WARM_UP_SECONDS: u32 = 1;
