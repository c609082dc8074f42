//! The open load: a given number of requests a second, whatever becomes of them.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::generator::{Latency, LoadFigures};
use super::k6::{K6, Script};
use crate::Error;
use crate::wait::Interrupt;

/// k6 with the script of the open load.
#[derive(Debug)]
pub struct Open {
    k6: K6,
    script: PathBuf,
}

impl Open {
    pub(super) fn new(k6: K6) -> Result<Open, Error> {
        let script = k6.scratch().join("open.js");
        fs::write(&script, include_str!("../../k6/open.js"))
            .map_err(Error::io(format!("write {}", script.display())))?;
        Ok(Open { k6, script })
    }

    pub(super) fn k6(&self) -> &K6 {
        &self.k6
    }

    pub(super) fn run(
        &self,
        target: &str,
        seconds: u32,
        interrupt: &Interrupt,
    ) -> Result<LoadFigures, Error> {
        let summary = self.k6.scratch().join("summary.json");
        let _ = fs::remove_file(&summary);
        let variables = vec![
            ("BASE", target.to_owned()),
            ("SECONDS", seconds.to_string()),
            ("SUMMARY", summary.display().to_string()),
        ];
        let script = Script { path: &self.script, variables, environment: Vec::new(), seconds };
        let (k6, status) = self.k6.run(script, interrupt)?;
        if !status.success() {
            return Err(k6.failure("failed"));
        }
        let summary = fs::read_to_string(&summary).unwrap_or_default();
        parse(&summary, seconds).ok_or_else(|| k6.failure("wrote no summary"))
    }
}

/// Format: k6 documentation, "Custom summary": `metrics.<name>.values`. Metrics that never came are not there.
fn parse(summary: &str, seconds: u32) -> Option<LoadFigures> {
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
    Some(LoadFigures {
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
