//! One run in one line of JSON: what runs of every kind of load have in common.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::rfc_3339;
use crate::ledger::Ledger;
use crate::measure::{Part, Report, cpu_us_per_request};
use crate::{Error, files};

/// What is kept of a run. k6 writes what it knows of it itself: stress/k6/challenge/summary.js.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub format: u32,
    pub began_at_unix_s: u64,
    /// What was sent: `saturate`, `k6 open`. Only runs of the same load are compared.
    pub load: String,
    /// `limits default`, or the URL of a bank that was not ours.
    pub place: String,
    /// What else the figures depend on, for people.
    pub setup: String,
    /// The CPUs that it was measured on; empty where that is not known.
    #[serde(default)]
    pub machine: String,
    /// The figures: of everything together, or for each number of connections.
    pub cases: Vec<Row>,
    /// The same for each scenario, where a load has several at once.
    #[serde(default)]
    pub scenarios: Vec<Row>,
    /// What the run had to keep to.
    #[serde(default)]
    pub thresholds: Vec<Threshold>,
    /// The rules of the bank that were broken.
    #[serde(default)]
    pub failed_checks: Vec<FailedCheck>,
    /// Pairs of statements that had to agree.
    #[serde(default)]
    pub balances_compared: u64,
    #[serde(default)]
    pub balances_inconsistent: u64,
    #[serde(default)]
    pub others_cpus: Option<f64>,
    #[serde(default)]
    pub ledger: Option<Ledger>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub name: String,
    pub requests: u64,
    pub requests_per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// The share of requests that the account's limit refused, which cost the database less; `None` where it is not known.
    #[serde(default)]
    pub refused_percent: Option<f64>,
    #[serde(default)]
    pub errors: u64,
    #[serde(default)]
    pub parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    pub metric: String,
    /// Such as `p(98)<250`.
    pub limit: String,
    pub value: f64,
    pub is_kept: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedCheck {
    pub name: String,
    pub fails: u64,
    pub passes: u64,
}

impl Row {
    pub fn cpu_us_per_request(&self) -> Option<f64> {
        cpu_us_per_request(&self.parts)
    }
}

impl Summary {
    pub fn of_report(report: &Report) -> Summary {
        let row = |case: &crate::measure::Case| Row {
            name: case.name(),
            requests: case.median.requests,
            requests_per_second: case.median.requests_per_second,
            p50_ms: case.median.latency.p50_ms,
            p99_ms: case.median.latency.p99_ms,
            max_ms: case.median.latency.max_ms,
            refused_percent: Some(case.median.refused_percent()),
            errors: case.median.errors.values().sum(),
            parts: case.median.parts.clone(),
        };
        let others = report.cases.iter().filter_map(|case| case.median.others_cpus);
        Summary {
            format: FORMAT,
            began_at_unix_s: report.machine.measured_at_unix_s,
            load: report.setup.load.to_string(),
            place: report.setup.place(),
            setup: [vec![report.setup.describe()], report.setup.programs(false)].concat().join(", "),
            machine: report.machine.describe(),
            cases: report.cases.iter().map(row).collect(),
            others_cpus: others.reduce(f64::max),
            ledger: report.cases.last().map(|case| case.median.ledger),
            ..Summary::default()
        }
    }

    pub fn has_passed(&self) -> bool {
        self.thresholds.iter().all(|threshold| threshold.is_kept)
    }

    /// By time and load: `2026-01-31T12-00-05Z-k6-open`, which every file system takes.
    pub(super) fn file_stem(&self) -> String {
        let load: Vec<&str> =
            self.load.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
        format!("{}-{}", rfc_3339(self.began_at_unix_s).replace(':', "-"), load.join("-"))
    }

    pub(super) fn to_line(&self) -> Result<String, Error> {
        let line = serde_json::to_string(self).map_err(|error| Error::Refused(error.to_string()))?;
        Ok(line + "\n")
    }

    pub fn read(path: &Path) -> Result<Summary, Error> {
        files::read_json(path, "summary of a run", FORMAT)
    }
}

/// Raised, with that of stress/k6/challenge/summary.js, when a summary of today could not be read as one of yesterday.
const FORMAT: u32 = 1;

#[cfg(test)]
pub(super) mod tests {
    use std::fs;

    use super::*;
    use crate::throwaway::Throwaway;

    /// As k6 writes it.
    const LINE: &str = r#"{"format":1,"began_at_unix_s":1800000000,"load":"k6 open","place":"http://localhost:9999",
        "setup":"240 s, scale 1","cases":[{"name":"all","requests":62000,"requests_per_second":257.3,"p50_ms":1.5,
        "p99_ms":9.25,"max_ms":40}],"scenarios":[{"name":"debits","requests":40000,"requests_per_second":170,
        "p50_ms":1.4,"p99_ms":9,"max_ms":40}],"thresholds":[{"metric":"checks","limit":"rate==1","value":1,
        "is_kept":true}],"failed_checks":[],"balances_compared":200,"balances_inconsistent":0}"#;

    pub(in crate::reports) fn summary() -> Summary {
        serde_json::from_str(LINE).unwrap()
    }

    #[test]
    fn reads_what_k6_writes_and_gives_it_back() {
        let directory = Throwaway::new("test").unwrap();
        let path = directory.path().join("run.json");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            Summary::read(&path).map_err(|error| error.to_string())
        };
        let mut summary = read(LINE).unwrap();
        assert_eq!((summary.scenarios[0].requests, summary.balances_compared), (40_000, 200));
        assert_eq!((summary.has_passed(), summary.cases[0].cpu_us_per_request()), (true, None));
        let line = summary.to_line().unwrap();
        assert_eq!((line.lines().count(), read(&line)), (1, Ok(summary.clone())));
        assert!(read(&LINE.replace("\"format\":1", "\"format\":2")).unwrap_err().contains("format 2"));
        assert!(read("{").unwrap_err().contains("run.json is no"));
        summary.thresholds[0].is_kept = false;
        assert!(!summary.has_passed());
    }

    #[test]
    fn a_report_is_summed_up_by_case() {
        use crate::measure::testing::{report, run};
        let summary = Summary::of_report(&report(&[run(12_000.0, 40.0)]));
        assert_eq!((summary.load.as_str(), summary.place.as_str()), ("saturate", "limits default"));
        assert_eq!(summary.setup, "nginx, LANES=2, 10 s, nginx 1.22.1");
        assert_eq!((summary.cases[0].name.as_str(), summary.cases[0].errors), ("32 connections", 1));
        assert!((summary.cases[0].cpu_us_per_request().unwrap() - 40.0).abs() < 1e-9);
        assert!((summary.cases[0].refused_percent.unwrap() - 10.0).abs() < 1e-9, "100 of 1,000");
        assert!(summary.file_stem().ends_with("Z-saturate"));
    }
}
