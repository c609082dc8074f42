//! Runs perf: whether it may, `perf record` around the load, `perf script` on what it recorded.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{ProfileOptions, View};
use crate::load;
use crate::process::{Launch, Service};
use crate::throwaway::Throwaway;
use crate::{Error, Workplace};

/// Why perf may not sample here, with the remedy; `None` where it may.
pub fn obstacle(perf: &Path, view: View) -> Result<Option<String>, Error> {
    let scratch = Throwaway::new("perf")?;
    let attempt = |arguments: &[OsString]| {
        let output = Command::new(perf).args(arguments).current_dir(scratch.path()).output();
        output.map_err(Error::io(format!("run {}", perf.display())))
    };
    let mut record = record_arguments(view, OBSTACLE_FREQUENCY_HZ);
    record.extend(["--output", "perf.data", "--", "true"].map(OsString::from));
    let recorded = attempt(&record)?;
    let events = attempt(&["evlist", "--input", "perf.data"].map(OsString::from))?;
    let said = String::from_utf8_lossy(&recorded.stderr);
    let why = if !recorded.status.success() {
        said.lines().map(str::trim).find(|line| !line.is_empty() && *line != "Error:").unwrap_or_default()
    } else if String::from_utf8_lossy(&events.stdout).trim_end().ends_with(":u") {
        // perf is content with less than it was asked for, and all time in the kernel would be missing.
        "it sees nothing of the kernel"
    } else {
        return Ok(None);
    };
    let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
    Ok(Some(format!(
        "perf may not sample here ({why}): run as root, or `sudo sysctl kernel.perf_event_paranoid=1` (it is {}); in a \
         container that takes --privileged",
        paranoid.trim()
    )))
}

/// Samples a process while the load runs, into the file `data`. Gives what both printed.
pub(super) fn record(
    (perf, options, place): (&Path, &ProfileOptions, &Workplace),
    pid: u32,
    data: &Path,
    (load, load_arguments): (&Path, Vec<OsString>),
) -> Result<String, Error> {
    let mut arguments = record_arguments(options.view(), options.frequency);
    arguments.extend(["--pid".into(), pid.to_string().into(), "--output".into(), data.into()]);
    // perf starts the load itself and stops with it, so that nothing is sampled before or after.
    arguments.extend(["--".into(), load.into()]);
    arguments.extend(load_arguments);
    let patience = Duration::from_secs(options.seconds.into()) + load::PATIENCE;
    run("perf-record", perf, arguments, place, patience)
}

pub(super) fn script(perf: &Path, place: &Workplace, data: &Path) -> Result<String, Error> {
    // Asking addr2line for the functions that were inlined takes minutes.
    let fields = "--fields tid,time,event,ip,sym,dso --ns --show-switch-events --no-inline";
    let arguments = ["script", "--input"].map(OsString::from).into_iter().chain([data.into()]);
    let arguments = arguments.chain(fields.split(' ').map(OsString::from)).collect();
    run("perf-script", perf, arguments, place, SCRIPT_PATIENCE)
}

/// `cpu-clock` is a timer of the kernel: it needs no counters of the processor, which virtual machines hide.
/// `context-switches` is told at the same place as the tracepoint `sched:sched_switch`, but needs no tracefs.
///
/// Stacks are copied and walked afterwards by the tables that every program has for it (`dwarf`). Following frame pointers
/// would be cheaper, but the C library has none: each system call would lose its caller, and a `send` all of them.
fn record_arguments(view: View, frequency_hz: u32) -> Vec<OsString> {
    let event = match view {
        View::OnCpu => format!("-e cpu-clock --freq {frequency_hz}"),
        View::OffCpu => "-e context-switches --count 1 --switch-events".to_owned(),
    };
    let arguments = format!("record --quiet {event} --call-graph {STACK}");
    arguments.split(' ').map(OsString::from).collect()
}

fn run(
    name: &str,
    perf: &Path,
    arguments: Vec<OsString>,
    place: &Workplace,
    patience: Duration,
) -> Result<String, Error> {
    let launch = Launch::new(name, perf, &place.logs, place.log(name));
    let mut service = Service::start(Launch { arguments, umask: "077", ..launch })?;
    service.run_to_end(patience, &place.interrupt)?;
    Ok(service.log())
}

/// Any that is allowed.
const OBSTACLE_FREQUENCY_HZ: u32 = 97;
/// With that many bytes of each stack: more than the deepest one has, which holds a batch.
const STACK: &str = "dwarf,16384";
const SCRIPT_PATIENCE: Duration = Duration::from_mins(5);
