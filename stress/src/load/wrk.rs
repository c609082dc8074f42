//! wrk: as many requests as its connections can have answered.
//!
//! Each connection waits for its answer before it sends again, so a stall of the server also stops the clock of the
//! requests that would have come: read its latencies as those of a saturated server, not of a given rate.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::generator::{Latency, LoadFigures, start_generator};
use crate::cgroup::Group;
use crate::process::service::Launch;
use crate::wait::Interrupt;
use crate::{Error, install};

/// An installed wrk with our script.
#[derive(Debug)]
pub struct Wrk {
    program: PathBuf,
    version: String,
    scratch: PathBuf,
    /// Without limits: it only keeps account.
    group: Option<Arc<Group>>,
    is_health_only: bool,
}

impl Wrk {
    pub(crate) fn find(
        scratch: &Path,
        group: Option<Arc<Group>>,
        is_health_only: bool,
    ) -> Result<Wrk, Error> {
        let (program, version) = install::WRK.require()?;
        let script = scratch.join(SCRIPT);
        fs::write(&script, include_str!("../../wrk/mix.lua"))
            .map_err(Error::io(format!("write {}", script.display())))?;
        Ok(Wrk {
            program,
            version: format!("wrk {version}"),
            scratch: scratch.to_owned(),
            group,
            is_health_only,
        })
    }

    pub(super) fn group(&self) -> Option<&Arc<Group>> {
        self.group.as_ref()
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// The command that loads `target`, to be run in [`Wrk::directory`].
    pub(crate) fn command(&self, target: &str, connections: u32, seconds: u32) -> (&Path, Vec<OsString>) {
        let threads = THREADS_MAX.min(connections);
        let mut arguments = vec![
            format!("-t{threads}"),
            format!("-c{connections}"),
            format!("-d{seconds}s"),
            format!("--timeout={TIMEOUT_SECONDS}s"),
            format!("-s{SCRIPT}"),
            target.to_owned(),
        ];
        if self.is_health_only {
            arguments.extend(["--", "health"].map(str::to_owned));
        }
        (&self.program, arguments.into_iter().map(OsString::from).collect())
    }

    /// Where its script is.
    pub(crate) fn directory(&self) -> &Path {
        &self.scratch
    }

    pub(crate) fn run(
        &self,
        target: &str,
        connections: u32,
        seconds: u32,
        interrupt: &Interrupt,
    ) -> Result<LoadFigures, Error> {
        let (program, arguments) = self.command(target, connections, seconds);
        let mut wrk = start_generator(Launch {
            arguments,
            group: self.group.clone(),
            ..Launch::new("wrk", program, &self.scratch, self.scratch.join("wrk.log"))
        })?;
        wrk.run_to_end(Duration::from_secs(seconds.into()) + PATIENCE, interrupt)?;
        outcome_in(&wrk.log()).ok_or_else(|| wrk.failure("printed no result"))
    }
}

/// The line that the script's `done` prints.
#[derive(Deserialize)]
struct Printed {
    requests: u64,
    duration_us: f64,
    mean_us: f64,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    p99_9_us: f64,
    max_us: f64,
    connect: u64,
    read: u64,
    write: u64,
    timeout: u64,
    status: u64,
}

/// What it printed at its end, between whatever else.
pub(crate) fn outcome_in(output: &str) -> Option<LoadFigures> {
    let line = output.lines().rev().find(|line| line.starts_with('{'))?;
    let printed: Printed = serde_json::from_str(line).ok()?;
    let errors = [
        ("connect", printed.connect),
        ("read", printed.read),
        ("write", printed.write),
        ("timeout", printed.timeout),
    ];
    Some(LoadFigures {
        requests: printed.requests,
        duration_s: printed.duration_us / 1e6,
        latency: Latency {
            mean_ms: printed.mean_us / 1e3,
            p50_ms: printed.p50_us / 1e3,
            p90_ms: printed.p90_us / 1e3,
            p99_ms: printed.p99_us / 1e3,
            p99_9_ms: printed.p99_9_us / 1e3,
            max_ms: printed.max_us / 1e3,
        },
        latency_with_connect: None,
        errors: errors
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(kind, count)| (kind.to_owned(), count))
            .collect(),
        refusals: Some(printed.status),
    })
}

const SCRIPT: &str = "mix.lua";
const THREADS_MAX: u32 = 2;
const TIMEOUT_SECONDS: u32 = 5;
/// Beyond the load itself: its start, and the last answers.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
Running 1s test @ http://127.0.0.1:9999
  2 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.79ms    1.02ms  20.01ms   88.11%
Requests/sec:  12000.00
{\"requests\": 12000, \"duration_us\": 1000000, \"mean_us\": 1790.500, \"p50_us\": 1500, \"p90_us\": 2500, \
\"p99_us\": 9000, \"p99_9_us\": 15000, \"max_us\": 20010, \"connect\": 0, \"read\": 3, \"write\": 0, \"timeout\": 1, \
\"status\": 17}
";

    #[test]
    fn reads_the_line_of_the_script() {
        let outcome = outcome_in(OUTPUT).unwrap();
        assert_eq!((outcome.requests, outcome.refusals), (12_000, Some(17)));
        assert!((outcome.duration_s - 1.0).abs() < 1e-9);
        assert!((outcome.latency.mean_ms - 1.7905).abs() < 1e-9);
        assert!((outcome.latency.p99_9_ms - 15.0).abs() < 1e-9);
        assert_eq!(outcome.errors, [("read".to_owned(), 3), ("timeout".to_owned(), 1)]);
    }

    #[test]
    fn output_without_the_line_is_no_result() {
        assert_eq!(outcome_in("unable to connect to 127.0.0.1:1 Connection refused\n"), None);
        assert_eq!(outcome_in("{\"requests\": 1}\n"), None);
    }
}
