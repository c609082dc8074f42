//! What the instances of a bank count, read from their metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::wait::{self, Interrupt};
use crate::{Bank, Error, http};

/// Sums over all instances.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Answers by status, those about metrics left out.
    pub statuses: BTreeMap<String, u64>,
    pub accepted: u64,
    /// Answers that came after their client had left: perhaps committed, never acknowledged.
    pub late: u64,
    /// Answered 503 without knowing whether it was done.
    pub in_doubt: u64,
    pub batches: u64,
    pub batch_calls: u64,
    pub(crate) unanswered: u64,
}

impl Counts {
    fn add(&mut self, text: &str) {
        for (name, labels, value) in series(text) {
            match name {
                "rinha_responses_total" => {
                    let endpoint = label(labels, "endpoint").unwrap_or_default();
                    let status = label(labels, "status").unwrap_or_default();
                    if endpoint == "metrics" {
                        continue;
                    }
                    *self.statuses.entry(status.to_owned()).or_default() += value;
                    if (endpoint, status) == ("transacoes", "200") {
                        self.accepted += value;
                    }
                }
                "rinha_answers_late_total" => self.late += value,
                "rinha_batch_calls_count" => self.batches += value,
                "rinha_batch_calls_sum" => self.batch_calls += value,
                "rinha_unavailable_total" if label(labels, "reason") == Some("in_doubt") => {
                    self.in_doubt += value;
                }
                "rinha_calls_queued" | "rinha_calls_in_flight" => self.unanswered += value,
                _ => {}
            }
        }
    }

    /// What came on top of `before`; nothing, where an instance counts anew since it was started again.
    #[must_use]
    pub fn since(&self, before: &Counts) -> Counts {
        let earlier = |status: &String| before.statuses.get(status).copied().unwrap_or(0);
        let grown = self
            .statuses
            .iter()
            .map(|(status, count)| (status.clone(), count.saturating_sub(earlier(status))));
        Counts {
            statuses: grown.filter(|(_, count)| *count > 0).collect(),
            accepted: self.accepted.saturating_sub(before.accepted),
            late: self.late.saturating_sub(before.late),
            in_doubt: self.in_doubt.saturating_sub(before.in_doubt),
            batches: self.batches.saturating_sub(before.batches),
            batch_calls: self.batch_calls.saturating_sub(before.batch_calls),
            unanswered: self.unanswered,
        }
    }
}

/// The counts of a bank that has stopped moving: nothing is on its way, and two looks in a row see the same.
pub fn settled(bank: &Bank, interrupt: &Interrupt) -> Result<Counts, Error> {
    let mut last = None;
    let counts = wait::until(SETTLE_PATIENCE, interrupt, || {
        let counts = Some(now(bank)?);
        let has_settled = counts == last && last.as_ref().is_some_and(|last| last.unanswered == 0);
        last = counts;
        // Longer than a request stays in nginx or in a socket's queue: its CPU limit may stop nginx for 80 ms.
        std::thread::sleep(BETWEEN_LOOKS);
        Ok(has_settled.then(|| last.clone()).flatten())
    })?;
    counts.ok_or_else(|| {
        Error::Refused(format!(
            "the instances still had work {SETTLE_PATIENCE:?} after the load, or somebody else asks them: run it again"
        ))
    })
}

fn now(bank: &Bank) -> Result<Counts, Error> {
    let mut counts = Counts::default();
    for address in &bank.metrics {
        let (_status, text) = http::get(address, "/metrics", TIMEOUT)
            .map_err(Error::io(format!("read http://{address}/metrics")))?;
        counts.add(&text);
    }
    Ok(counts)
}

/// Name, labels and value of each whole number. Format: Prometheus documentation, "Exposition formats".
fn series(text: &str) -> impl Iterator<Item = (&str, &str, u64)> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        Some((name, labels.trim_end_matches('}'), value.parse().ok()?))
    })
}

/// None of our labels has a comma or a quotation mark in its value.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let values = labels.split(',').filter_map(|pair| pair.split_once('='));
    values.filter(|(key, _)| *key == name).map(|(_, value)| value.trim_matches('"')).next()
}

const TIMEOUT: Duration = Duration::from_secs(5);
const SETTLE_PATIENCE: Duration = Duration::from_secs(20);
const BETWEEN_LOOKS: Duration = Duration::from_millis(150);

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# TYPE rinha_responses_total counter
rinha_responses_total{endpoint=\"transacoes\",status=\"200\"} 30
rinha_responses_total{endpoint=\"transacoes\",status=\"422\"} 5
rinha_responses_total{endpoint=\"extrato\",status=\"200\"} 2
rinha_responses_total{endpoint=\"metrics\",status=\"200\"} 9
rinha_request_duration_seconds_sum{endpoint=\"extrato\"} 0.0015
rinha_unavailable_total{reason=\"queue_full\"} 4
rinha_unavailable_total{reason=\"in_doubt\"} 1
rinha_calls_queued 2
rinha_calls_in_flight 3
rinha_answers_late_total 7
rinha_batch_calls_sum 12
rinha_batch_calls_count 4
";

    #[test]
    fn sums_what_counts_and_gives_what_came_on_top() {
        let mut before = Counts::default();
        before.add(TEXT);
        before.add(TEXT);
        assert_eq!((before.accepted, before.late, before.in_doubt, before.unanswered), (60, 14, 2, 10));
        assert_eq!((before.batches, before.batch_calls), (8, 24));
        assert_eq!(before.statuses, BTreeMap::from([("200".to_owned(), 64), ("422".to_owned(), 10)]));
        let mut after = before.clone();
        after.add("rinha_responses_total{endpoint=\"transacoes\",status=\"200\"} 8\n");
        let grown = after.since(&before);
        assert_eq!((grown.accepted, grown.late), (8, 0));
        assert_eq!(grown.statuses, BTreeMap::from([("200".to_owned(), 8)]));
    }
}
