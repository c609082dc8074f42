//! What is reported, and its form as JSON.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, context};
use serde::{Deserialize, Serialize};

use super::Machine;
use crate::cgroup::CPU_PERIOD_DEFAULT_MS;
use crate::ledger::{Counts, Ledger};
use crate::load::{Latency, LoadFigures, LoadKind};
use crate::table::{float, median};
use crate::{Error, files};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub format: u32,
    pub machine: Machine,
    pub setup: Setup,
    pub cases: Vec<Case>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    pub load: LoadKind,
    pub seconds: u32,
    pub runs: u32,
    /// Where the bank was when it was not ours: then nothing below is known.
    #[serde(default)]
    pub url: Option<String>,
    /// The name of the split: `default`, `tuned` or `none`.
    pub limits: String,
    pub services: Vec<ServiceLimits>,
    #[serde(flatten)]
    pub conditions: Conditions,
    pub versions: BTreeMap<String, String>,
}

/// What the figures of a stack depend on, beside its limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// What was measured in place of the server as it is: `peer:batch`, or the baseline.
    #[serde(default)]
    pub peer: Option<String>,
    /// Over which span the limits of CPU were kept.
    #[serde(default = "cpu_period_default_ms")]
    pub cpu_period_ms: u32,
    /// `nginx`, `nginx-http`, `haproxy` or `none`; in older reports the layer, `stream` or `http`.
    #[serde(alias = "nginx")]
    pub balancer: String,
    pub is_durable: bool,
    /// The settings of the instances and of PostgreSQL that are not as usual.
    pub settings: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceLimits {
    pub name: String,
    pub cpu_thousandths: u32,
    #[serde(default = "cpu_period_default_ms")]
    pub cpu_period_ms: u32,
    pub memory_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Of the load generator; `None` where each request had its own.
    pub connections: Option<u32>,
    pub median: Run,
    pub runs: Vec<Run>,
}

/// The figures of one run, or their medians.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub requests: u64,
    pub requests_per_second: f64,
    pub latency: Latency,
    pub latency_with_connect: Option<Latency>,
    /// By kind: `connect`, `read`, `write`, `timeout`, `dropped`, `4xx`, `5xx`, `nginx`. The sum over runs, never a median.
    pub errors: BTreeMap<String, u64>,
    /// Answers by status, as the instances count them. The sum over runs.
    pub statuses: BTreeMap<String, u64>,
    pub calls_per_batch: Option<f64>,
    /// The balancer, both instances, the database.
    pub parts: Vec<Part>,
    /// CPUs that other processes, or other guests of the same host, used on average meanwhile. The most of any run.
    pub others_cpus: Option<f64>,
    /// What the audit saw; of the last run in place of a median.
    pub ledger: Ledger,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    pub name: String,
    /// Its CPU time divided by all requests answered, also by those that another instance answered.
    pub cpu_us_per_request: Option<f64>,
    /// The most memory it had at once since its start, page cache included.
    pub memory_peak_bytes: Option<u64>,
}

impl Setup {
    /// `limits default`, or the URL of a bank that was not ours.
    pub(crate) fn place(&self) -> String {
        self.url.clone().unwrap_or_else(|| format!("limits {}", self.limits))
    }

    /// Name and version of the bank's programs, and with `all` of those that measure it.
    pub(crate) fn programs(&self, all: bool) -> Vec<String> {
        let is_asked = |name: &str| all || !["cargo stress", "wrk", "k6"].contains(&name);
        let versions = self.versions.iter().filter(|(name, _)| is_asked(name));
        versions.map(|(name, version)| format!("{name} {version}")).collect()
    }

    /// Each limit that the kernel keeps; empty where there are none.
    pub(super) fn kernel_limits(&self) -> String {
        let limits = self.services.iter().map(|service| {
            let ServiceLimits { name, cpu_thousandths, cpu_period_ms, memory_bytes } = service;
            let cpu = f64::from(*cpu_thousandths) / 1000.0;
            format!("{name} {cpu} CPU per {cpu_period_ms} ms, {} MB", memory_bytes >> 20)
        });
        limits.collect::<Vec<_>>().join("; ")
    }

    /// What figures depend on, beside the load and the place.
    pub(crate) fn describe(&self) -> String {
        let mut words = if self.url.is_some() { Vec::new() } else { self.conditions.words() };
        words.push(format!("{} s", self.seconds));
        if self.runs > 1 {
            words.push(format!("medians of {} runs", self.runs));
        }
        words.join(", ")
    }
}

impl Conditions {
    /// One word for each thing that is not as usual, and for the balancer.
    pub(super) fn words(&self) -> Vec<String> {
        let mut words: Vec<String> = self.peer.iter().cloned().collect();
        words.push(if self.balancer == "none" { "no balancer" } else { &self.balancer }.to_owned());
        words.extend(self.is_durable.then(|| "durable".to_owned()));
        if self.cpu_period_ms != CPU_PERIOD_DEFAULT_MS {
            words.push(format!("CPU period {} ms", self.cpu_period_ms));
        }
        words.extend(self.settings.iter().map(|(name, value)| format!("{name}={value}")));
        words
    }
}

impl Case {
    pub(crate) fn name(&self) -> String {
        LoadKind::case_name(self.connections)
    }
}

impl Run {
    pub(super) fn new(outcome: LoadFigures, counts: &Counts, parts: Vec<Part>, ledger: Ledger) -> Run {
        let requests_per_second = outcome.requests_per_second();
        let mut errors = outcome.errors;
        for (status, count) in &counts.statuses {
            if !EXPECTED.contains(&status.as_str()) {
                let class = status.get(..1).unwrap_or_default();
                *errors.entry(format!("{class}xx")).or_default() += count;
            }
        }
        // More refusals than the instances gave: the balancer's own.
        let given =
            counts.statuses.iter().filter(|(status, _)| status.as_str() >= "400").map(|(_, count)| count);
        let by_balancer = outcome.refusals.unwrap_or(0).saturating_sub(given.sum());
        if by_balancer > 0 {
            errors.insert("nginx".to_owned(), by_balancer);
        }
        Run {
            requests: outcome.requests,
            requests_per_second,
            latency: outcome.latency,
            latency_with_connect: outcome.latency_with_connect,
            errors,
            statuses: counts.statuses.clone(),
            calls_per_batch: (counts.batches > 0).then(|| float(counts.batch_calls) / float(counts.batches)),
            parts,
            others_cpus: None,
            ledger,
        }
    }

    pub fn cpu_us_per_request(&self) -> Option<f64> {
        cpu_us_per_request(&self.parts)
    }

    /// The share of debits that the limit refused. They cost the database less, and a faster system reaches the limits
    /// sooner.
    pub fn refused_percent(&self) -> f64 {
        let all = self.statuses.values().sum::<u64>().max(1);
        let refused = self.statuses.get("422").copied().unwrap_or(0);
        float(refused) / float(all) * 100.0
    }

    pub fn disturbance(&self) -> Option<f64> {
        disturbance(self.others_cpus)
    }

    /// The median of each figure by itself, and the sums of errors and statuses; `None` for no runs.
    pub fn median(runs: &[Run]) -> Option<Run> {
        let last = runs.last()?;
        let latencies: Vec<Latency> = runs.iter().map(|run| run.latency).collect();
        let with_connect: Option<Vec<Latency>> = runs.iter().map(|run| run.latency_with_connect).collect();
        let part = |(index, part): (usize, &Part)| {
            let all = || runs.iter().filter_map(move |run| run.parts.get(index));
            Part {
                name: part.name.clone(),
                cpu_us_per_request: median(all().filter_map(|part| part.cpu_us_per_request)),
                memory_peak_bytes: median_count(all().filter_map(|part| part.memory_peak_bytes)),
            }
        };
        Some(Run {
            requests: median_count(runs.iter().map(|run| run.requests))?,
            requests_per_second: median(runs.iter().map(|run| run.requests_per_second))?,
            latency: median_latency(&latencies)?,
            latency_with_connect: with_connect.and_then(|latencies| median_latency(&latencies)),
            errors: sums(runs.iter().map(|run| &run.errors)),
            statuses: sums(runs.iter().map(|run| &run.statuses)),
            calls_per_batch: median(runs.iter().filter_map(|run| run.calls_per_batch)),
            parts: last.parts.iter().enumerate().map(part).collect(),
            others_cpus: runs.iter().filter_map(|run| run.others_cpus).reduce(f64::max),
            ledger: last.ledger,
        })
    }
}

/// The CPUs that others used, if so many that figures are worse than they could be.
pub(crate) fn disturbance(others_cpus: Option<f64>) -> Option<f64> {
    others_cpus.filter(|cpus| *cpus > DISTURBING_CPUS)
}

/// The CPU time of all parts; `None` when one is not known.
pub(crate) fn cpu_us_per_request<'a>(parts: impl IntoIterator<Item = &'a Part>) -> Option<f64> {
    let mut parts = parts.into_iter().peekable();
    parts.peek()?;
    parts.map(|part| part.cpu_us_per_request).sum()
}

fn median_latency(all: &[Latency]) -> Option<Latency> {
    let of = |figure: fn(&Latency) -> f64| median(all.iter().map(figure));
    Some(Latency {
        mean_ms: of(|latency| latency.mean_ms)?,
        p50_ms: of(|latency| latency.p50_ms)?,
        p90_ms: of(|latency| latency.p90_ms)?,
        p99_ms: of(|latency| latency.p99_ms)?,
        p99_9_ms: of(|latency| latency.p99_9_ms)?,
        max_ms: of(|latency| latency.max_ms)?,
    })
}

impl Report {
    /// Writes it into `directory` as `run.json`, all of it, and `run.svg`, its chart. Gives both paths.
    pub fn write_into(&self, directory: &Path) -> Result<[PathBuf; 2], Error> {
        files::make_directory(directory)?;
        let json = directory.join("run.json");
        files::write_json(&json, self)?;
        Ok([json, files::write(directory.join("run.svg"), self.chart()?)?])
    }

    /// As a picture, templates/run.svg: for each case, CPU time per request stacked by part, and requests per second.
    pub fn chart(&self) -> Result<String, Error> {
        let medians = || self.cases.iter().map(|case| &case.median);
        let case = |case: &Case| {
            let Run { parts, requests_per_second: rate, .. } = &case.median;
            let (cpu, others) = (case.median.cpu_us_per_request(), case.median.disturbance());
            context! { name => case.name(), parts => Serde(parts), rate, cpu, others }
        };
        let shown = context! {
            title => self.title(),
            facts => [self.setup.programs(true).join(", "), self.setup.kernel_limits()],
            cases => self.cases.iter().map(case).collect::<Vec<_>>(),
            cpu_max => medians().filter_map(Run::cpu_us_per_request).fold(1.0, f64::max),
            rate_max => medians().map(|run| run.requests_per_second).fold(1.0, f64::max),
        };
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| AutoEscape::Html);
        let drawn = environment.render_str(include_str!("../../templates/run.svg"), shown);
        drawn.map_err(|error| Error::Refused(error.to_string()))
    }

    pub fn read(path: &Path) -> Result<Report, Error> {
        files::read_json(path, "report of `cargo stress run --out`", FORMAT)
    }
}

/// Of a report from before it could be chosen.
fn cpu_period_default_ms() -> u32 {
    CPU_PERIOD_DEFAULT_MS
}

/// The middle one, or the upper of the two in the middle.
fn median_count(counts: impl Iterator<Item = u64>) -> Option<u64> {
    let mut sorted: Vec<u64> = counts.collect();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

fn sums<'a>(maps: impl Iterator<Item = &'a BTreeMap<String, u64>>) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (key, count) in maps.flatten() {
        *sums.entry(key.clone()).or_default() += count;
    }
    sums
}

/// Raised when a report of today could not be read as one of yesterday.
pub(super) const FORMAT: u32 = 2;
/// What ticks, kernel threads and a terminal need stays below it.
const DISTURBING_CPUS: f64 = 0.15;
/// What a bank under the official mix answers: a debit past the limit is refused with 422.
const EXPECTED: [&str; 2] = ["200", "422"];

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::throwaway::Throwaway;

    pub(crate) fn run(requests_per_second: f64, cpu_us: f64) -> Run {
        let part = |name: &str, share: f64| Part {
            name: name.to_owned(),
            cpu_us_per_request: Some(cpu_us * share),
            memory_peak_bytes: Some(10 << 20),
        };
        Run {
            requests: 1000,
            requests_per_second,
            latency: Latency { p50_ms: 2.0, p99_ms: 10.0, ..Latency::default() },
            latency_with_connect: None,
            errors: BTreeMap::from([("read".to_owned(), 1)]),
            statuses: BTreeMap::from([("200".to_owned(), 900), ("422".to_owned(), 100)]),
            calls_per_batch: Some(4.0),
            parts: [("nginx", 0.4), ("webapi1", 0.1), ("webapi2", 0.1), ("postgresql", 0.4)]
                .map(|(name, share)| part(name, share))
                .to_vec(),
            others_cpus: Some(0.05),
            ledger: Ledger { rows: 900, answered_200: 900, answered_late: 3 },
        }
    }

    pub(crate) fn report(runs: &[Run]) -> Report {
        Report {
            format: FORMAT,
            machine: Machine::look(),
            setup: Setup {
                load: LoadKind::Saturate,
                seconds: 10,
                runs: 1,
                url: None,
                limits: "default".to_owned(),
                services: Vec::new(),
                conditions: Conditions {
                    peer: None,
                    cpu_period_ms: 100,
                    balancer: "nginx".to_owned(),
                    is_durable: false,
                    settings: BTreeMap::from([("LANES".to_owned(), "2".to_owned())]),
                },
                versions: BTreeMap::from([("nginx".to_owned(), "1.22.1".to_owned())]),
            },
            cases: vec![Case {
                connections: Some(32),
                median: Run::median(runs).unwrap(),
                runs: runs.to_vec(),
            }],
        }
    }

    #[test]
    fn json_gives_back_what_was_written() {
        let directory = Throwaway::new("test").unwrap();
        let path = directory.path().join("run.json");
        let report = report(&[run(12_345.678_9, 44.3), run(1.0 / 3.0, 45.1)]);
        report.write_into(directory.path()).unwrap();
        assert_eq!(Report::read(&path).unwrap(), report);
        Report { format: FORMAT + 1, ..report }.write_into(directory.path()).unwrap();
        assert!(Report::read(&path).unwrap_err().to_string().contains("format"));
        files::write(&path, "{}").unwrap();
        assert!(Report::read(&path).unwrap_err().to_string().contains("is no report"));
    }

    #[test]
    fn each_part_has_its_bar_and_figure_and_text_cannot_break_the_document() {
        let mut report = report(&[run(12_000.0, 40.0)]);
        report.setup.conditions.settings.insert("A".to_owned(), "<&>".to_owned());
        report.setup.services.push(ServiceLimits {
            name: "nginx".to_owned(),
            cpu_thousandths: 200,
            cpu_period_ms: 10,
            memory_bytes: 20 << 20,
        });
        let svg = report.chart().unwrap();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>"), "{svg}");
        assert_eq!(svg.matches("height=\"24\"").count(), 5, "four parts and the rate");
        // 0.4 of the longest bar's 580.
        assert!(svg.contains("width=\"232.0\"") && svg.contains(">16.0</text>"), "{svg}");
        assert!(svg.contains(">40.0</text>") && svg.contains(">12000</text>"), "{svg}");
        assert!(svg.contains("A=&lt;&amp;"), "{svg}");
        assert!(svg.contains(">nginx 1.22.1</text>"), "{svg}");
        assert!(svg.contains(">nginx 0.2 CPU per 10 ms, 20 MB</text>"), "{svg}");
        assert!(!svg.contains("disturbed"), "{svg}");
        assert!(report.tables().contains("limits that the kernel keeps: nginx 0.2 CPU per 10 ms, 20 MB\n"));
        report.cases[0].median.others_cpus = Some(1.25);
        assert!(report.chart().unwrap().contains("disturbed: others used 1.25 CPU"));
    }

    #[test]
    fn medians_are_of_each_figure_and_errors_are_summed() {
        let median = Run::median(&[run(300.0, 10.0), run(100.0, 20.0), run(200.0, 60.0)]).unwrap();
        assert!((median.requests_per_second - 200.0).abs() < 1e-9);
        assert!((median.cpu_us_per_request().unwrap() - 20.0).abs() < 1e-9);
        assert_eq!(median.errors["read"], 3);
        assert_eq!(median.statuses["422"], 300);
        assert_eq!(Run::median(&[]), None);
        assert_eq!(super::median([4.0, 1.0].into_iter()), Some(2.5));
    }

    #[test]
    fn errors_are_what_no_healthy_bank_gives() {
        let mut counts = Counts::default();
        for (status, count) in [("200", 90), ("422", 7), ("404", 1), ("503", 2)] {
            counts.statuses.insert(status.to_owned(), count);
        }
        let outcome = LoadFigures {
            requests: 100,
            duration_s: 2.0,
            errors: BTreeMap::from([("timeout".to_owned(), 4)]),
            refusals: Some(13),
            ..LoadFigures::default()
        };
        (counts.batches, counts.batch_calls) = (4, 10);
        let ledger = Ledger { rows: 0, answered_200: 0, answered_late: 0 };
        let run = Run::new(outcome, &counts, Vec::new(), ledger);
        let expected = [("4xx", 1), ("5xx", 2), ("nginx", 3), ("timeout", 4)];
        assert_eq!(run.errors, expected.map(|(kind, count)| (kind.to_owned(), count)).into());
        assert!((run.requests_per_second - 50.0).abs() < 1e-9);
        assert_eq!(run.calls_per_batch, Some(2.5));
    }
}
