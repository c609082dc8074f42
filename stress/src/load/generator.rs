//! What is sent, where, by which load generator.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::k6::K6;
use super::k6_open::Open;
use super::wrk::Wrk;
use crate::cgroup::{Group, Parent};
use crate::process::service::{Launch, Service};
use crate::table::float;
use crate::wait::Interrupt;
use crate::{Error, Workplace};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LoadKind {
    /// wrk, through nginx: as many requests as connections that stay can have answered, 220 debits to 110 credits to 10
    /// statements. Each connection waits for its answer, so a stall hides the requests that it held up.
    Saturate,
    /// k6, through nginx: 340 requests a second, each begun when it is due, over a new connection of its own.
    Open,
    /// As saturate, but to the TCP port of one instance, without nginx.
    Direct,
    #[value(skip)]
    /// As `Direct`, but nothing except `GET /healthz`, which asks no database.
    DirectHealth,
}

impl LoadKind {
    /// As reports call it.
    pub fn name(self) -> &'static str {
        match self {
            LoadKind::Saturate => "saturate",
            LoadKind::Open => "open",
            LoadKind::Direct => "direct",
            LoadKind::DirectHealth => "direct --health",
        }
    }

    /// The connections of each case; `None` where they are not chosen.
    pub(crate) fn cases(self, connections: &[u32]) -> Vec<Option<u32>> {
        match self {
            LoadKind::Saturate | LoadKind::Direct | LoadKind::DirectHealth => {
                connections.iter().copied().map(Some).collect()
            }
            LoadKind::Open => vec![None],
        }
    }

    /// How tables call a case.
    pub(crate) fn case_name(connections: Option<u32>) -> String {
        connections.map_or_else(|| "340/s".to_owned(), |connections| format!("{connections} connections"))
    }
}

/// Latencies in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "mean, percentiles and maximum")]
pub struct Latency {
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p99_9_ms: f64,
    pub max_ms: f64,
}

/// What a load generator saw.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LoadFigures {
    /// Requests that were answered.
    pub requests: u64,
    /// How long it took.
    pub duration_s: f64,
    /// From sending a request to its whole answer.
    pub latency: Latency,
    /// The same with connecting, where each request has its own connection.
    pub latency_with_connect: Option<Latency>,
    /// What went wrong, by kind: `connect`, `read`, `write`, `timeout`, `dropped`. Zeros are left out.
    pub errors: Vec<(String, u64)>,
    /// Answers with a status of 400 or more, where it does not count 422 apart.
    pub refusals: Option<u64>,
}

impl LoadFigures {
    /// Answers per second.
    pub fn requests_per_second(&self) -> f64 {
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
    pub fn find(
        kind: LoadKind,
        scratch: &Path,
        groups: Option<&Parent>,
        place: &Workplace,
    ) -> Result<Generator, Error> {
        let group = groups.map(|parent| parent.group("load", None)).transpose()?.map(Arc::new);
        match kind {
            LoadKind::Saturate | LoadKind::Direct => Wrk::find(scratch, group, false).map(Generator::Wrk),
            LoadKind::DirectHealth => Wrk::find(scratch, group, true).map(Generator::Wrk),
            LoadKind::Open => {
                let k6 = K6::find(scratch, group, place)?;
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
    pub(crate) fn group(&self) -> Option<&Arc<Group>> {
        match self {
            Generator::Wrk(wrk) => wrk.group(),
            Generator::Open(open) => open.k6().group(),
        }
    }

    /// Loads `target` for some seconds.
    pub(crate) fn run(
        &self,
        target: &str,
        connections: Option<u32>,
        seconds: u32,
        interrupt: &Interrupt,
    ) -> Result<LoadFigures, Error> {
        match self {
            Generator::Wrk(wrk) => wrk.run(target, connections.unwrap_or(1), seconds, interrupt),
            Generator::Open(open) => open.run(target, seconds, interrupt),
        }
    }
}
