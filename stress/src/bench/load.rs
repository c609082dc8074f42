//! What is sent, where, by which load generator.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::BenchOptions;
use super::report::Latency;
use super::usage::float;
use super::{k6::K6, open::Open, wrk::Wrk};
use crate::Error;
use crate::cgroup::{Group, Parent};
use crate::service::{Launch, Service};
use crate::wait::Interrupt;

/// Starts a load generator, which has nothing to lose when it is stopped.
pub(super) fn start_generator(launch: Launch<'_>) -> Result<Service, Error> {
    // Appended to by each run; only this one's output counts.
    let _ = fs::remove_file(&launch.log);
    Service::start(Launch {
        stop_signal: Signal::KILL,
        stop_patience: Duration::from_secs(2),
        orphan_signal: "KILL",
        ..launch
    })
}

/// What is sent, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// The official mix through nginx over connections that stay, each with its next request as soon as it is answered.
    Saturate,
    /// 340 requests a second of the official mix through nginx, each over a new connection.
    Open,
    /// As `Saturate`, but straight to the TCP port of the first instance.
    Direct,
    /// As `Direct`, but nothing except `GET /healthz`, which asks no database.
    DirectHealth,
}

impl Load {
    /// As reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Load::Saturate => "saturate",
            Load::Open => "open",
            Load::Direct => "direct",
            Load::DirectHealth => "direct --health",
        }
    }

    /// The connections of each case; `None` where they are not chosen.
    pub(super) fn cases(self, connections: &[u32]) -> Vec<Option<u32>> {
        match self {
            Load::Saturate | Load::Direct | Load::DirectHealth => {
                connections.iter().copied().map(Some).collect()
            }
            Load::Open => vec![None],
        }
    }

    /// How tables call a case.
    pub(super) fn case_name(connections: Option<u32>) -> String {
        connections.map_or_else(|| "340/s".to_owned(), |connections| format!("{connections} connections"))
    }
}

/// What a load generator saw.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Outcome {
    /// Requests that were answered.
    pub(crate) requests: u64,
    /// How long it took.
    pub(crate) duration_s: f64,
    /// From sending a request to its whole answer.
    pub(crate) latency: Latency,
    /// The same with connecting, where each request has its own connection.
    pub(crate) latency_with_connect: Option<Latency>,
    /// What went wrong, by kind: `connect`, `read`, `write`, `timeout`, `dropped`. Zeros are left out.
    pub(crate) errors: Vec<(String, u64)>,
    /// Answers with a status of 400 or more, where it does not count 422 apart.
    pub(crate) refusals: Option<u64>,
}

impl Outcome {
    /// Answers per second.
    pub(crate) fn requests_per_second(&self) -> f64 {
        float(self.requests) / self.duration_s
    }
}

/// A load generator that is installed.
#[derive(Debug)]
pub enum Generator {
    /// For connections that stay.
    Wrk(Wrk),
    /// For an open model.
    Open(Open),
}

impl Generator {
    /// The one for a load, with its script written into `scratch`. Installs k6 when it is missing.
    ///
    /// # Errors
    /// [`Error::Refused`] with the line that installs it.
    pub fn find(options: &BenchOptions, scratch: &Path, groups: Option<&Parent>) -> Result<Generator, Error> {
        let group = groups.map(|parent| parent.group("load", None)).transpose()?.map(Arc::new);
        match options.load {
            Load::Saturate | Load::Direct => Wrk::find(scratch, group, false).map(Generator::Wrk),
            Load::DirectHealth => Wrk::find(scratch, group, true).map(Generator::Wrk),
            Load::Open => {
                let k6 = K6::find(scratch, group, &options.logs, &options.interrupt)?;
                Open::new(k6).map(Generator::Open)
            }
        }
    }

    /// Such as `wrk 4.1.0`.
    pub fn version(&self) -> &str {
        match self {
            Generator::Wrk(wrk) => wrk.version(),
            Generator::Open(open) => open.k6().version(),
        }
    }

    /// The group that keeps account of it.
    pub(super) fn group(&self) -> Option<&Arc<Group>> {
        match self {
            Generator::Wrk(wrk) => wrk.group(),
            Generator::Open(open) => open.k6().group(),
        }
    }

    /// Loads `target` for some seconds, calling `tick` all the while.
    pub(super) fn run(
        &self,
        target: &str,
        connections: Option<u32>,
        seconds: u32,
        interrupt: &Interrupt,
        tick: &mut dyn FnMut(),
    ) -> Result<Outcome, Error> {
        match self {
            Generator::Wrk(wrk) => wrk.run(target, connections.unwrap_or(1), seconds, interrupt, tick),
            Generator::Open(open) => open.run(target, seconds, interrupt, tick),
        }
    }
}
