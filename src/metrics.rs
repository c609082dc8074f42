//! CORE: counters, gauges and histograms, rendered as Prometheus text. Plain integers: one loop, no atomics.
//!
//! Format: Prometheus documentation, "Exposition formats", text-based format 0.0.4.

use std::fmt::{self, Write};

use crate::bank::{Reject, Route, Unavailable};
use crate::http::head::Violation;
use crate::http::response::Status;

/// Everything one instance counts. Counters only ever rise; gauges are set by the engine each turn.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each field is described by the HELP line of its metric, in `render`")]
pub struct Metrics {
    responses: [[u64; Status::ALL.len()]; Endpoint::ALL.len()],
    durations: [Histogram; Endpoint::ALL.len()],
    batch_calls: Histogram,
    rejected: [u64; Reject::LABELS.len()],
    violated: [u64; Violation::LABELS.len()],
    unavailable: [u64; Unavailable::ALL.len()],
    lanes: [u64; LaneState::ALL.len()],
    started_unix_s: u64,
    pub connections_open: u64,
    pub connections_accepted: u64,
    pub accept_errors: u64,
    pub closed_send_timeout: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub calls_queued: u64,
    pub calls_in_flight: u64,
    pub calls_run_again: u64,
    pub calls_abandoned: u64,
    pub answers_late: u64,
    pub statements_read: u64,
    pub statements_sent_on: u64,
    pub lane_connects: u64,
    pub lane_closes: u64,
}

/// What a response was asked of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the routes are")]
pub enum Endpoint {
    Transaction,
    Statement,
    Health,
    Metrics,
    /// No route was found, or no request.
    Other,
}

impl Endpoint {
    const ALL: [Endpoint; 5] =
        [Endpoint::Transaction, Endpoint::Statement, Endpoint::Health, Endpoint::Metrics, Endpoint::Other];

    fn label(self) -> &'static str {
        match self {
            Endpoint::Transaction => "transacoes",
            Endpoint::Statement => "extrato",
            Endpoint::Health => "healthz",
            Endpoint::Metrics => "metrics",
            Endpoint::Other => "other",
        }
    }
}

impl From<Route> for Endpoint {
    fn from(route: Route) -> Endpoint {
        match route {
            Route::Transaction { .. } => Endpoint::Transaction,
            Route::Statement { .. } => Endpoint::Statement,
            Route::Health => Endpoint::Health,
            Route::Metrics => Endpoint::Metrics,
        }
    }
}

/// The state of a lane, as the metrics show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneState {
    /// It has no socket.
    Down,
    /// Its socket is being connected.
    Connecting,
    /// It logs in and prepares its statements.
    Starting,
    /// It takes batches.
    Ready,
}

impl LaneState {
    const ALL: [LaneState; 4] =
        [LaneState::Down, LaneState::Connecting, LaneState::Starting, LaneState::Ready];

    fn label(self) -> &'static str {
        match self {
            LaneState::Down => "down",
            LaneState::Connecting => "connecting",
            LaneState::Starting => "starting",
            LaneState::Ready => "ready",
        }
    }
}

/// Counts per bucket; a bucket holds what is at most its bound.
#[derive(Clone, Debug)]
struct Histogram {
    bounds: &'static [u64],
    /// One more than there are bounds: the last one is for what exceeds them all.
    counts: [u64; BUCKETS_MAX],
    sum: u64,
}

const BUCKETS_MAX: usize = 16;
const DURATION_BOUNDS_US: &[u64] = &[
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000,
];
const BATCH_BOUNDS_CALLS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256];
const _: () = assert!(DURATION_BOUNDS_US.len() < BUCKETS_MAX && BATCH_BOUNDS_CALLS.len() < BUCKETS_MAX);

impl Histogram {
    fn new(bounds: &'static [u64]) -> Histogram {
        Histogram { bounds, counts: [0; BUCKETS_MAX], sum: 0 }
    }

    fn record(&mut self, value: u64) {
        // Most values are small, so a linear search from the small end beats a binary one.
        let bucket = self.bounds.iter().take_while(|&&bound| bound < value).count();
        self.counts[bucket] += 1;
        self.sum += value;
    }

    /// Writes the series of one histogram. Values are divided by `unit`, so that microseconds become seconds.
    fn render(&self, out: &mut String, name: &str, label: Option<(&str, &str)>, unit: f64) -> fmt::Result {
        let mut cumulated = 0;
        for (&bound, count) in self.bounds.iter().zip(&self.counts) {
            cumulated += count;
            series(out, name, "_bucket", label, Some(&(as_float(bound) / unit)))?;
            writeln!(out, " {cumulated}")?;
        }
        cumulated += self.counts[self.bounds.len()];
        series(out, name, "_bucket", label, Some(&"+Inf"))?;
        writeln!(out, " {cumulated}")?;
        series(out, name, "_sum", label, None)?;
        writeln!(out, " {}", as_float(self.sum) / unit)?;
        series(out, name, "_count", label, None)?;
        writeln!(out, " {cumulated}")
    }
}

/// Writes the name of one series of a histogram, with its labels.
fn series(
    out: &mut String,
    name: &str,
    suffix: &str,
    label: Option<(&str, &str)>,
    bound: Option<&dyn fmt::Display>,
) -> fmt::Result {
    write!(out, "{name}{suffix}")?;
    match (label, bound) {
        (None, None) => Ok(()),
        (None, Some(bound)) => write!(out, "{{le=\"{bound}\"}}"),
        (Some((key, value)), None) => write!(out, "{{{key}=\"{value}\"}}"),
        (Some((key, value)), Some(bound)) => write!(out, "{{{key}=\"{value}\",le=\"{bound}\"}}"),
    }
}

/// Exact up to 2^53, which the sums here do not reach.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn as_float(value: u64) -> f64 {
    value as f64
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            responses: Default::default(),
            durations: std::array::from_fn(|_| Histogram::new(DURATION_BOUNDS_US)),
            batch_calls: Histogram::new(BATCH_BOUNDS_CALLS),
            rejected: Default::default(),
            violated: Default::default(),
            unavailable: Default::default(),
            lanes: Default::default(),
            started_unix_s: 0,
            connections_open: 0,
            connections_accepted: 0,
            accept_errors: 0,
            closed_send_timeout: 0,
            received_bytes: 0,
            sent_bytes: 0,
            calls_queued: 0,
            calls_in_flight: 0,
            calls_run_again: 0,
            calls_abandoned: 0,
            answers_late: 0,
            statements_read: 0,
            statements_sent_on: 0,
            lane_connects: 0,
            lane_closes: 0,
        }
    }
}

impl Metrics {
    /// Nothing counted yet, by an instance that starts at `unix_s` seconds after 1970.
    pub fn since(unix_s: u64) -> Metrics {
        Metrics { started_unix_s: unix_s, ..Metrics::default() }
    }

    /// Counts one response.
    pub fn count_response(&mut self, endpoint: Endpoint, status: Status) {
        self.responses[endpoint as usize][status as usize] += 1;
    }

    /// Records how long a request took, from its complete head to its answer, in microseconds.
    pub fn record_duration(&mut self, endpoint: Endpoint, duration_us: u64) {
        self.durations[endpoint as usize].record(duration_us);
    }

    /// Records how many calls went into one batch.
    pub fn record_batch(&mut self, calls: u64) {
        self.batch_calls.record(calls);
    }

    /// Counts one request that was refused while its connection stays open. One refused for the database is counted by
    /// [`Metrics::count_unavailable`].
    pub fn count_reject(&mut self, reject: Reject) {
        if let Some(index) = reject.label_index() {
            self.rejected[index] += 1;
        }
    }

    /// Counts one connection that ended over what it sent.
    pub fn count_violation(&mut self, violation: Violation) {
        self.violated[violation.label_index()] += 1;
    }

    /// Counts one call that ended without a result.
    pub fn count_unavailable(&mut self, reason: Unavailable) {
        self.unavailable[reason as usize] += 1;
    }

    /// How many lanes there are in this state, as it was last set.
    pub fn lanes_in(&self, state: LaneState) -> u64 {
        self.lanes[state as usize]
    }

    /// Sets how many lanes there are in each state.
    pub fn set_lanes(&mut self, states: impl Iterator<Item = LaneState>) {
        self.lanes = Default::default();
        for state in states {
            self.lanes[state as usize] += 1;
        }
    }

    /// Overwrites `out` with all metrics.
    pub fn render(&self, out: &mut Vec<u8>) {
        out.clear();
        // Rendered as text and handed back as bytes: the same memory, moved there and back.
        let mut text = String::from_utf8(std::mem::take(out)).unwrap_or_default();
        let written = self.render_text(&mut text);
        debug_assert!(written.is_ok(), "writing to memory does not fail");
        *out = text.into_bytes();
    }

    fn render_text(&self, out: &mut String) -> fmt::Result {
        family(out, "rinha_build_info", "gauge", "The version that runs, and how it was built.")?;
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        let version = env!("CARGO_PKG_VERSION");
        writeln!(out, "rinha_build_info{{version=\"{version}\",profile=\"{profile}\"}} 1")?;

        family(out, "rinha_responses_total", "counter", "Responses by endpoint and status.")?;
        for endpoint in Endpoint::ALL {
            for status in Status::ALL {
                let count = self.responses[endpoint as usize][status as usize];
                if count > 0 {
                    let (endpoint, status) = (endpoint.label(), status.code());
                    writeln!(
                        out,
                        "rinha_responses_total{{endpoint=\"{endpoint}\",status=\"{status}\"}} {count}"
                    )?;
                }
            }
        }

        let name = "rinha_request_duration_seconds";
        family(out, name, "histogram", "From a request's complete head to its answer.")?;
        for endpoint in [Endpoint::Transaction, Endpoint::Statement, Endpoint::Health] {
            self.durations[endpoint as usize].render(out, name, Some(("endpoint", endpoint.label())), 1e6)?;
        }

        family(out, "rinha_batch_calls", "histogram", "Calls that shared one Sync.")?;
        self.batch_calls.render(out, "rinha_batch_calls", None, 1.0)?;

        family(
            out,
            "rinha_rejected_total",
            "counter",
            "Requests refused for what they ask or how, by reason.",
        )?;
        let rejected = Reject::LABELS.iter().zip(&self.rejected);
        for (label, count) in rejected.chain(Violation::LABELS.iter().zip(&self.violated)) {
            writeln!(out, "rinha_rejected_total{{reason=\"{label}\"}} {count}")?;
        }

        family(out, "rinha_unavailable_total", "counter", "Calls answered 503, by reason.")?;
        for reason in Unavailable::ALL {
            let count = self.unavailable[reason as usize];
            writeln!(out, "rinha_unavailable_total{{reason=\"{}\"}} {count}", reason.label())?;
        }

        family(out, "rinha_lanes", "gauge", "Connections to PostgreSQL by state.")?;
        for state in LaneState::ALL {
            let count = self.lanes[state as usize];
            writeln!(out, "rinha_lanes{{state=\"{}\"}} {count}", state.label())?;
        }

        for (name, kind, help, value) in self.singles() {
            family(out, name, kind, help)?;
            writeln!(out, "{name} {value}")?;
        }
        Ok(())
    }

    /// The metrics that are one number each.
    fn singles(&self) -> [(&'static str, &'static str, &'static str, u64); 16] {
        [
            (
                "process_start_time_seconds",
                "gauge",
                "When this instance started, in seconds since 1970.",
                self.started_unix_s,
            ),
            ("rinha_connections", "gauge", "HTTP connections open now.", self.connections_open),
            (
                "rinha_connections_accepted_total",
                "counter",
                "HTTP connections accepted.",
                self.connections_accepted,
            ),
            (
                "rinha_accept_errors_total",
                "counter",
                "Connections that could not be accepted, for want of descriptors or memory.",
                self.accept_errors,
            ),
            (
                "rinha_send_timeouts_total",
                "counter",
                "HTTP connections closed since the peer did not read its answers.",
                self.closed_send_timeout,
            ),
            (
                "rinha_received_bytes_total",
                "counter",
                "Bytes received from HTTP clients.",
                self.received_bytes,
            ),
            ("rinha_sent_bytes_total", "counter", "Bytes sent to HTTP clients.", self.sent_bytes),
            ("rinha_calls_queued", "gauge", "Calls that wait for a lane.", self.calls_queued),
            (
                "rinha_calls_in_flight",
                "gauge",
                "Calls sent to PostgreSQL and not answered.",
                self.calls_in_flight,
            ),
            (
                "rinha_calls_run_again_total",
                "counter",
                "Calls run again: rolled back with their batch, not sent yet when their session ended, or of a spoilt session.",
                self.calls_run_again,
            ),
            (
                "rinha_calls_abandoned_total",
                "counter",
                "Calls that were not run since their client had left before their turn.",
                self.calls_abandoned,
            ),
            (
                "rinha_answers_late_total",
                "counter",
                "Results that came after their client had left.",
                self.answers_late,
            ),
            (
                "rinha_statements_read_total",
                "counter",
                "Statements answered by DATABASE_URL_READ.",
                self.statements_read,
            ),
            (
                "rinha_statements_sent_on_total",
                "counter",
                "Statements that DATABASE_URL_READ was asked for and DATABASE_URL had to answer.",
                self.statements_sent_on,
            ),
            (
                "rinha_lane_connects_total",
                "counter",
                "Attempts to connect to PostgreSQL.",
                self.lane_connects,
            ),
            (
                "rinha_lane_closes_total",
                "counter",
                "PostgreSQL connections lost, and attempts that failed.",
                self.lane_closes,
            ),
        ]
    }
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bank::Allow;

    fn rendered(metrics: &Metrics) -> String {
        let mut out = b"left over".to_vec();
        metrics.render(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_bucket_holds_what_is_at_most_its_bound() {
        let mut metrics = Metrics::default();
        for calls in [1, 2, 3, 300] {
            metrics.record_batch(calls);
        }
        let text = rendered(&metrics);
        for line in [
            "rinha_batch_calls_bucket{le=\"1\"} 1",
            "rinha_batch_calls_bucket{le=\"2\"} 2",
            "rinha_batch_calls_bucket{le=\"4\"} 3",
            "rinha_batch_calls_bucket{le=\"256\"} 3",
            "rinha_batch_calls_bucket{le=\"+Inf\"} 4",
            "rinha_batch_calls_sum 306",
            "rinha_batch_calls_count 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn durations_are_seconds() {
        let mut metrics = Metrics::default();
        metrics.record_duration(Endpoint::Statement, 1_500);
        let text = rendered(&metrics);
        assert!(
            text.contains("rinha_request_duration_seconds_bucket{endpoint=\"extrato\",le=\"0.0025\"} 1\n")
        );
        assert!(text.contains("rinha_request_duration_seconds_sum{endpoint=\"extrato\"} 0.0015\n"));
    }

    #[test]
    fn responses_are_counted_by_endpoint_and_status() {
        let mut metrics = Metrics::default();
        metrics.count_response(Endpoint::Transaction, Status::Ok);
        metrics.count_response(Endpoint::Transaction, Status::Ok);
        metrics.count_response(Endpoint::Other, Status::NotFound);
        let text = rendered(&metrics);
        assert!(text.contains("rinha_responses_total{endpoint=\"transacoes\",status=\"200\"} 2\n"));
        assert!(text.contains("rinha_responses_total{endpoint=\"other\",status=\"404\"} 1\n"));
        assert!(!text.contains("left over"));
    }

    #[test]
    fn the_start_is_told() {
        assert!(rendered(&Metrics::since(1_700_000_000)).contains("process_start_time_seconds 1700000000\n"));
    }

    #[test]
    fn refusals_are_counted_by_reason() {
        let mut metrics = Metrics::default();
        metrics.count_reject(Reject::PastLimit);
        metrics.count_reject(Reject::PastLimit);
        metrics.count_reject(Reject::Unavailable(Unavailable::QueueFull));
        metrics.count_violation(Violation::TooSlow);
        let text = rendered(&metrics);
        assert!(text.contains("rinha_rejected_total{reason=\"past_limit\"} 2\n"));
        assert!(text.contains("rinha_rejected_total{reason=\"too_slow\"} 1\n"));
        assert_eq!(metrics.rejected.iter().chain(&metrics.violated).sum::<u64>(), 3);
    }

    #[test]
    fn lanes_are_counted_anew_each_time() {
        let mut metrics = Metrics::default();
        metrics.set_lanes([LaneState::Down, LaneState::Ready, LaneState::Ready].into_iter());
        metrics.set_lanes([LaneState::Starting, LaneState::Ready].into_iter());
        assert_eq!(metrics.lanes, [0, 0, 1, 1]);
    }

    #[test]
    fn every_label_has_its_place() {
        for (reject, label) in [
            (Reject::NotFound, "not_found"),
            (Reject::MethodNotAllowed { allow: Allow::Post }, "method_not_allowed"),
            (Reject::NotJson, "not_json"),
            (Reject::InvalidField, "invalid_field"),
            (Reject::PastLimit, "past_limit"),
        ] {
            assert_eq!(reject.label_index().map(|index| Reject::LABELS[index]), Some(label));
        }
        for (violation, label) in [
            (Violation::Malformed(""), "malformed"),
            (Violation::TooSlow, "too_slow"),
            (Violation::BodyTooLong, "body_too_long"),
            (Violation::TargetTooLong, "target_too_long"),
            (Violation::HeadTooLong, "head_too_long"),
            (Violation::UnsupportedCoding, "unsupported_coding"),
            (Violation::UnsupportedMethod, "unsupported_method"),
            (Violation::UnsupportedVersion, "unsupported_version"),
        ] {
            assert_eq!(Violation::LABELS[violation.label_index()], label);
        }
        for (position, state) in LaneState::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, position);
        }
    }

    #[test]
    fn every_family_is_announced_once() {
        let text = rendered(&Metrics::default());
        let mut names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let total = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), total);
        assert_eq!(text.matches("# HELP ").count(), total);
    }
}
