//! What was endured, minute by minute, and whether anything grew.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Fault, Footprint};
use crate::load::traffic::{Outcome, Record};
use crate::load::{ClosedRun, Outcomes, last_first, longest_gap};
use crate::measure::Machine;
use crate::table::{Table, float, ms, spread};
use crate::{Error, files};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub machine: Machine,
    pub limits: String,
    pub every_s: f64,
    pub clients: usize,
    /// Requests per second that were served without a pause, run by run; empty when the rate was given.
    pub capacities: Vec<f64>,
    pub requests_per_second: f64,
    pub minutes: Vec<Minute>,
    pub rows: i64,
    /// First against last minutes; empty when there are too few of them.
    pub growth: Vec<Growth>,
    pub broken: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Minute {
    pub number: u32,
    pub fault: Fault,
    pub loaded_s: f64,
    pub outcomes: Outcomes,
    /// Of those that were not served, the ones that had ended when the fault began.
    pub failed_before: u64,
    pub left_out: u64,
    pub fault_ms: f64,
    /// From the end of the fault until the last client had a good answer to a new request.
    pub served_again_ms: Option<f64>,
    pub silence_ms: f64,
    pub others_cpus: Option<f64>,
    pub parts: Vec<(String, Footprint)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    pub part: String,
    /// Such as `resident memory, bytes`.
    pub what: String,
    pub first: u64,
    pub last: u64,
    /// What the last ones may be at most.
    pub last_max: u64,
}

impl Report {
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        files::write_json(path, self)
    }

    /// Compares the last minutes with the first ones, and names what grew among the broken promises. Each instance's,
    /// but for the one that is restarted.
    pub(super) fn judge_growth(&mut self) {
        self.growth = growth(&self.minutes);
        for Growth { part, what, first, last, last_max } in &self.growth {
            if last > last_max {
                let more = format!("{part} grew: {what}: {first} in the first minutes, {last} in the last");
                self.broken.push(format!("{more}, at most {last_max} is flat"));
            }
        }
    }

    pub fn tables(&self) -> String {
        let mut faults =
            Table::new("fault|times|nothing done|in doubt|broken off|left out|served again ms|silence ms");
        for &fault in Fault::ALL {
            let minutes: Vec<&Minute> = self.minutes.iter().filter(|minute| minute.fault == fault).collect();
            let spread = |value: &dyn Fn(&Minute) -> f64| spread(minutes.iter().map(|minute| value(minute)));
            let cells = [
                fault.to_string(),
                minutes.len().to_string(),
                spread(&|minute| float(minute.outcomes.count("nothing done"))),
                spread(&|minute| float(minute.outcomes.count("in doubt"))),
                spread(&|minute| float(minute.outcomes.count("broken off"))),
                spread(&|minute| float(minute.left_out)),
                spread(&|minute| minute.served_again_ms.unwrap_or(f64::INFINITY)),
                spread(&|minute| minute.silence_ms),
            ];
            faults.row(&cells.join("|"));
        }
        let mut growth = Table::new("part|of what|first|last|at most");
        for Growth { part, what, first, last, last_max } in &self.growth {
            growth.row(&format!("{part}|{what}|{first}|{last}|{last_max}"));
        }
        let growth = if self.growth.is_empty() {
            format!("Whether anything grows is judged from {} faults on.\n", 2 * FLAT_WINDOW_MIN)
        } else {
            growth.to_string()
        };
        let requests: u64 = self.minutes.iter().map(|minute| minute.outcomes.total()).sum();
        let served: u64 = self.minutes.iter().map(|minute| minute.outcomes.count(SERVED)).sum();
        let rows = self.rows;
        format!(
            "Median and most for each fault:\n{faults}\n{growth}\n{requests} requests, {served} served, {rows} rows of the ledger judged\n"
        )
    }
}

impl Minute {
    pub(super) fn of(
        number: u32,
        fault: Fault,
        told: &ClosedRun,
        loaded_s: f64,
        (fault_began, fault_ended): (Instant, Instant),
    ) -> Minute {
        let failed = told.records.iter().filter(|record| !record.outcome.is_served());
        Minute {
            number,
            fault,
            loaded_s,
            outcomes: told.outcomes(),
            failed_before: failed.filter(|record| record.ended_at < fault_began).count() as u64,
            left_out: told.left_out,
            fault_ms: ms(fault_ended.saturating_duration_since(fault_began)),
            served_again_ms: last_first(&told.records, told.clients, fault_ended, Outcome::is_served).map(ms),
            silence_ms: ms(silence(&told.records)),
            others_cpus: None,
            parts: Vec::new(),
        }
    }

    /// One line: rate, errors by kind, memory and descriptors of each part.
    pub fn line(&self, minutes: u32) -> String {
        let mut others = self.outcomes.clone();
        others.0.remove(SERVED);
        let mut failures: Vec<String> = others.told().collect();
        if self.left_out > 0 {
            failures.push(format!("{} left out", self.left_out));
        }
        if self.failed_before > 0 {
            failures.push(format!("{} of them before the fault", self.failed_before));
        }
        if failures.is_empty() {
            failures.push("no error".to_owned());
        }
        let parts = self.parts.iter().map(|(name, part)| {
            let mebibytes = float(judged_bytes(name, part)) / float(1 << 20);
            format!("{name} {mebibytes:.1} MiB {} fd", part.descriptors)
        });
        let parts = parts.collect::<Vec<_>>().join(", ");
        let served_again =
            self.served_again_ms.map_or_else(|| "never".to_owned(), |time| format!("{time:.0} ms"));
        let others = self.others_cpus.map_or_else(String::new, |cpus| format!("; others {cpus:.2} CPU"));
        let Minute { number, fault, fault_ms, silence_ms, .. } = self;
        let (rate, failures) = (float(self.outcomes.total()) / self.loaded_s, failures.join(", "));
        format!(
            "{number:>3}/{minutes} {fault:<20} {rate:>6.0}/s, {failures}; fault {fault_ms:.0} ms, \
             served again {served_again}, silence {silence_ms:.0} ms; {parts}{others}"
        )
    }
}

fn silence(records: &[Record]) -> Duration {
    longest_gap(records, Outcome::is_served).map(|(from, to)| to - from).unwrap_or_default()
}

/// PostgreSQL's processes share their buffers, which fill with the ledger up to what they may: only what is each
/// process's own can leak.
fn judged_bytes(part: &str, footprint: &Footprint) -> u64 {
    if part == POSTGRESQL { footprint.anonymous_bytes } else { footprint.resident_bytes }
}

/// Of the parts that live from the first minute to the last.
fn growth(minutes: &[Minute]) -> Vec<Growth> {
    let window = FLAT_WINDOW.min(minutes.len() / 2);
    if window < FLAT_WINDOW_MIN {
        return Vec::new();
    }
    let (first, last) = (&minutes[..window], &minutes[minutes.len() - window..]);
    let mut growth = Vec::new();
    for (part, _) in minutes[0].parts.iter().filter(|(part, _)| part != RESTARTED) {
        let of = |minutes: &[Minute], value: &dyn Fn(&Footprint) -> u64| {
            let parts = minutes.iter().flat_map(|minute| &minute.parts).filter(|(name, _)| name == part);
            let mut values: Vec<u64> = parts.map(|(_, footprint)| value(footprint)).collect();
            values.sort_unstable();
            values
        };
        let median = |minutes| {
            let bytes = of(minutes, &|footprint| judged_bytes(part, footprint));
            bytes.get(bytes.len() / 2).copied().unwrap_or(0)
        };
        let most = |minutes| of(minutes, &|footprint| footprint.descriptors).last().copied().unwrap_or(0);
        let first_bytes = median(first);
        let is_postgresql = part == POSTGRESQL;
        let memory = if is_postgresql { "anonymous memory" } else { "resident memory" };
        growth.push(Growth {
            part: part.clone(),
            what: format!("{memory}, median, bytes"),
            first: first_bytes,
            last: median(last),
            last_max: first_bytes + first_bytes * MEMORY_GROWTH_MAX_PERCENT / 100 + MEMORY_GROWTH_MAX_BYTES,
        });
        let descriptors_more = if is_postgresql { POSTGRESQL_DESCRIPTORS_GROWTH_MAX } else { 0 };
        growth.push(Growth {
            part: part.clone(),
            what: "descriptors, most".to_owned(),
            first: most(first),
            last: most(last),
            last_max: most(first) + descriptors_more,
        });
    }
    growth
}

const SERVED: &str = "served";
const POSTGRESQL: &str = crate::stack::DB;
const RESTARTED: &str = crate::stack::WEBAPIS[super::faults::SUFFERER];

/// Minutes at either end that are compared.
const FLAT_WINDOW: usize = 10;
/// One round of the faults: with fewer the two ends would not have seen the same.
const FLAT_WINDOW_MIN: usize = Fault::ALL.len();
/// What the median of the last minutes may be above that of the first, beside [`MEMORY_GROWTH_MAX_BYTES`].
const MEMORY_GROWTH_MAX_PERCENT: u64 = 5;
/// Some pages more or less are no growth.
const MEMORY_GROWTH_MAX_BYTES: u64 = 1 << 20;
/// Each process of PostgreSQL keeps one for each file that it has used, and a table has one file for each GB. Of the other
/// parts none may have any more.
const POSTGRESQL_DESCRIPTORS_GROWTH_MAX: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::traffic::Asked;

    /// An hour in which each part holds what `of` says for a minute's number.
    fn hour(minutes: u32, of: impl Fn(&str, u32) -> (u64, u64)) -> Vec<Minute> {
        let told = ClosedRun { left_out: 7, ..ClosedRun::default() };
        let minute = |(number, fault)| Minute {
            outcomes: Outcomes([(SERVED.to_owned(), 5400), ("in doubt".to_owned(), 3)].into()),
            others_cpus: Some(0.5),
            parts: ["nginx", "webapi1", "webapi2", "postgresql"]
                .map(|part| {
                    let (bytes, descriptors) = of(part, number);
                    let (resident_bytes, anonymous_bytes, processes) = (bytes, bytes, 1);
                    (part.to_owned(), Footprint { resident_bytes, anonymous_bytes, descriptors, processes })
                })
                .into(),
            ..Minute::of(number, fault, &told, 54.0, (Instant::now(), Instant::now()))
        };
        (1..=minutes).zip(Fault::ALL.iter().copied().cycle()).map(minute).collect()
    }

    #[test]
    fn what_stays_is_flat_and_what_grows_is_named() {
        let grown = |of: &dyn Fn(&str, u32) -> (u64, u64)| {
            let grown = growth(&hour(60, of)).into_iter().filter(|growth| growth.last > growth.last_max);
            grown.map(|growth| format!("{} {}", growth.part, growth.what)).collect::<Vec<_>>().join(", ")
        };
        let flat = |_: &str, number| (4_000_000 + u64::from(number % 3) * 100_000, 14);
        assert_eq!((growth(&hour(60, flat)).len(), grown(&flat)), (6, String::new()));
        let one_more = |part: &str, number| (4_000_000, 14 + u64::from(part == "webapi1" && number == 60));
        assert_eq!(grown(&one_more), "webapi1 descriptors, most");
        for (leaking, named) in [
            ("webapi1", "webapi1 resident memory, median, bytes"),
            ("postgresql", "postgresql anonymous memory, median, bytes"),
            // It is restarted on the way.
            ("webapi2", ""),
        ] {
            let leak = |part: &str, number| {
                (4_000_000 + u64::from(part == leaking) * u64::from(number) * 30_000, 14)
            };
            assert_eq!(grown(&leak), named);
        }
        // Two rounds of the faults are needed to judge.
        assert!(growth(&hour(13, flat)).is_empty() && !growth(&hour(14, flat)).is_empty());
    }

    #[test]
    fn a_line_says_what_was_lost_and_what_is_held() {
        let line = hour(1, |_, _| (3 << 20, 14))[0].line(60);
        assert!(line.starts_with("  1/60 PostgreSQL restarted    100/s, 3 in doubt, 7 left out; "), "{line}");
        assert!(line.contains("webapi1 3.0 MiB 14 fd") && line.ends_with("others 0.50 CPU"), "{line}");
    }

    #[test]
    fn a_client_is_served_again_by_a_request_that_it_sent_after_the_fault() {
        let began = Instant::now();
        let at = |ms: u64| began + Duration::from_millis(ms);
        let record = |(client, sent_ms, ended_ms, outcome)| {
            let (sent_at, ended_at) = (at(sent_ms), at(ended_ms));
            Record { client, account: 1, asked: Asked::Statement, sent_at, ended_at, outcome }
        };
        // The second one was sent before the end of the fault, at 50.
        let told =
            [(0, 0, 10, Outcome::Refused), (1, 40, 60, Outcome::Refused), (0, 55, 70, Outcome::Refused)];
        let told = told.into_iter().chain([(1, 65, 80, Outcome::InDoubt)]);
        let mut told = ClosedRun { clients: 2, left_out: 0, records: told.map(record).collect() };
        let again = |told: &ClosedRun| last_first(&told.records, told.clients, at(50), Outcome::is_served);
        assert_eq!(again(&told), None);
        told.records.extend([(1, 85, 95, Outcome::Refused), (1, 96, 99, Outcome::Refused)].map(record));
        assert_eq!(again(&told), Some(Duration::from_millis(45)));
        assert_eq!(silence(&told.records), Duration::from_millis(50));
        let minute = Minute::of(1, Fault::RowLocked, &told, 1.0, (at(40), at(50)));
        let Minute { outcomes, failed_before, .. } = minute;
        assert_eq!((outcomes.count(SERVED), outcomes.count("in doubt"), failed_before), (5, 1, 0));
    }
}
