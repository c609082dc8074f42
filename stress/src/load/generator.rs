//! What is sent, where, by which load generator: wrk for connections that stay, k6 for an open model and for the challenge.
//!
//! Each connection of wrk waits for its answer before it sends again, so a stall of the server also stops the clock of the
//! requests that would have come: read its latencies as those of a saturated server, not of a given rate.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::cgroup::{Group, Parent};
use crate::install::{self, Found, require_k6};
use crate::process::{Launch, Service};
use crate::table::float;
use crate::wait::Interrupt;
use crate::{Error, Workplace, files};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum, strum::Display)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "lowercase")]
pub enum LoadKind {
    /// wrk, through nginx: as many requests as connections that stay can have answered, 220 debits to 110 credits to 10
    /// statements. Each connection waits for its answer, so a stall hides the requests that it held up.
    Saturate,
    /// k6, through nginx: 340 requests a second, each begun when it is due, over a new connection of its own.
    Open,
    /// As saturate, but to the TCP port of one instance, without nginx.
    Direct,
    /// As `Direct`, but nothing except `GET /healthz`, which asks no database.
    #[value(skip)]
    #[strum(serialize = "direct --health")]
    DirectHealth,
}

impl LoadKind {
    /// The connections of each case; `None` where they are not chosen.
    pub(crate) fn cases(self, connections: &[u32]) -> Vec<Option<u32>> {
        if self == LoadKind::Open { vec![None] } else { connections.iter().copied().map(Some).collect() }
    }

    pub(crate) fn case_name(connections: Option<u32>) -> String {
        connections.map_or_else(|| "340/s".to_owned(), |connections| format!("{connections} connections"))
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p99_9_ms: f64,
    pub max_ms: f64,
}

/// What a load generator saw, as our scripts for both print it at their end.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct LoadFigures {
    pub requests: u64,
    pub duration_s: f64,
    /// From sending a request to its whole answer.
    pub latency: Latency,
    /// The same with connecting, where each request has its own connection.
    pub latency_with_connect: Option<Latency>,
    /// What went wrong, by kind: `connect`, `read`, `write`, `timeout`, `dropped`.
    pub errors: BTreeMap<String, u64>,
    /// Answers with a status of 400 or more, where it does not count 422 apart.
    pub refusals: Option<u64>,
}

impl LoadFigures {
    /// The last line that is JSON, between whatever else was printed. Kinds of errors that never came are left out.
    pub(crate) fn in_output(output: &str) -> Option<LoadFigures> {
        let line = output.lines().rev().find(|line| line.starts_with('{'))?;
        let mut figures: LoadFigures = serde_json::from_str(line).ok()?;
        figures.errors.retain(|_, count| *count > 0);
        Some(figures)
    }

    pub fn requests_per_second(&self) -> f64 {
        float(self.requests) / self.duration_s
    }
}

#[derive(Debug)]
pub struct Generator {
    kind: LoadKind,
    /// In place of the challenge's five.
    pub(crate) accounts: Option<u32>,
    pub program: Program,
}

impl Generator {
    pub fn find(
        kind: LoadKind,
        scratch: &Path,
        groups: Option<&Parent>,
        place: &Workplace,
    ) -> Result<Generator, Error> {
        let group = groups.map(|parent| parent.group("load", None)).transpose()?.map(Arc::new);
        let program = if kind == LoadKind::Open {
            files::write(scratch.join(OPEN_SCRIPT), include_str!("../../k6/open.js"))?;
            Program::k6(scratch, group, place)?
        } else {
            files::write(scratch.join(WRK_SCRIPT), include_str!("../../wrk/mix.lua"))?;
            Program { name: "wrk", found: install::WRK.require()?, scratch: scratch.to_owned(), group }
        };
        Ok(Generator { kind, accounts: None, program })
    }

    /// Loads `targets` for some seconds, each with as many connections as the others.
    pub(crate) fn run(
        &self,
        targets: &[String],
        connections: Option<u32>,
        seconds: u32,
        interrupt: &Interrupt,
    ) -> Result<LoadFigures, Error> {
        let ended = if self.kind == LoadKind::Open {
            let variables = [("BASES", targets.join(",")), ("SECONDS", seconds.to_string())];
            let script = self.program.scratch.join(OPEN_SCRIPT);
            self.program.run_script(&script, &variables, Vec::new(), seconds, interrupt)
        } else {
            let target = targets.first().map_or("", String::as_str);
            let arguments = self.wrk_arguments(target, connections.unwrap_or(1), seconds);
            let environment = vec![("TARGETS".to_owned(), OsString::from(targets.join(",")))];
            self.program.run(arguments, environment, seconds, interrupt)
        };
        let (process, status) = ended?;
        if !status.success() {
            return Err(process.failure("failed"));
        }
        LoadFigures::in_output(&process.log()).ok_or_else(|| process.failure("printed no result"))
    }

    /// For a wrk that is started in the directory of this generator.
    pub(crate) fn wrk_arguments(&self, target: &str, connections: u32, seconds: u32) -> Vec<OsString> {
        let threads = THREADS_MAX.min(connections);
        let arguments = format!(
            "-t{threads} -c{connections} -d{seconds}s --timeout={TIMEOUT_SECONDS}s -s{WRK_SCRIPT} {target}"
        );
        let more = match (self.kind, self.accounts) {
            (LoadKind::DirectHealth, _) => " -- health".to_owned(),
            (_, Some(accounts)) => format!(" -- {accounts}"),
            (_, None) => String::new(),
        };
        (arguments + &more).split(' ').map(OsString::from).collect()
    }
}

#[derive(Debug)]
pub struct Program {
    pub(crate) name: &'static str,
    pub(crate) found: Found,
    pub(crate) scratch: PathBuf,
    /// Without limits: it only keeps account.
    pub(crate) group: Option<Arc<Group>>,
}

impl Program {
    pub(crate) fn k6(scratch: &Path, group: Option<Arc<Group>>, place: &Workplace) -> Result<Program, Error> {
        Ok(Program { name: "k6", found: require_k6(place)?, scratch: scratch.to_owned(), group })
    }

    /// Runs a script of k6 to its end, with what it reads from `__ENV`, and with settings of k6 itself. Gives the ended process
    /// and how it ended.
    pub(crate) fn run_script(
        &self,
        script: &Path,
        variables: &[(&str, String)],
        mut environment: Vec<(String, OsString)>,
        seconds: u32,
        interrupt: &Interrupt,
    ) -> Result<(Service, ExitStatus), Error> {
        let mut arguments = ["run", "--quiet", "--no-usage-report"].map(OsString::from).to_vec();
        for (name, value) in variables {
            arguments.extend(["-e".into(), format!("{name}={value}").into()]);
        }
        arguments.push(script.into());
        // Its own metrics API would take a fixed port.
        environment.push(("K6_ADDRESS".to_owned(), "127.0.0.1:0".into()));
        self.run(arguments, environment, seconds, interrupt)
    }

    /// Runs it to its end, for as long as its load takes, and a while for its start and the last answers. It has nothing to
    /// lose when it is stopped.
    fn run(
        &self,
        arguments: Vec<OsString>,
        environment: Vec<(String, OsString)>,
        seconds: u32,
        interrupt: &Interrupt,
    ) -> Result<(Service, ExitStatus), Error> {
        let log = self.scratch.join(format!("{}.log", self.name));
        // Appended to by each run; only this one's output counts.
        let _ = fs::remove_file(&log);
        let mut process = Service::start(Launch {
            arguments,
            environment,
            group: self.group.clone(),
            stop_signal: Signal::KILL,
            stop_patience: Duration::from_secs(2),
            orphan_signal: "KILL",
            ..Launch::new(self.name, &self.found.program, &self.scratch, log)
        })?;
        let status = process.wait_end(Duration::from_secs(seconds.into()) + PATIENCE, interrupt)?;
        Ok((process, status))
    }
}

const OPEN_SCRIPT: &str = "open.js";
const WRK_SCRIPT: &str = "mix.lua";
const THREADS_MAX: u32 = 2;
const TIMEOUT_SECONDS: u32 = 5;
/// Beyond the load itself: its start, what the script does before, and the last answers.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_the_last_line_of_json() {
        let output = r#"Running 1s test @ http://127.0.0.1:9999
    Latency     1.79ms    1.02ms  20.01ms   88.11%
{"requests": 12000, "duration_s": 1.0, "latency": {"mean_ms": 1.7905, "p50_ms": 1.5, "p90_ms": 2.5, "p99_ms": 9, "p99_9_ms": 15, "max_ms": 20.01}, "errors": {"connect": 0, "read": 3}, "refusals": 17}
"#;
        let figures = LoadFigures::in_output(output).unwrap();
        assert_eq!((figures.requests, figures.refusals), (12_000, Some(17)));
        assert_eq!(figures.latency_with_connect, None);
        assert!((figures.latency.p99_9_ms - 15.0).abs() < 1e-9);
        assert_eq!(figures.errors, BTreeMap::from([("read".to_owned(), 3)]));
        for none in ["unable to connect to 127.0.0.1:1 Connection refused\n", "{\"requests\": 1}\n"] {
            assert_eq!(LoadFigures::in_output(none), None);
        }
    }
}
