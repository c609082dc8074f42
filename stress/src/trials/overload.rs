//! More requests than the database can do: first what it can do, then 3 and 10 times that, with quiet times between.

use std::time::Duration;

use super::ground::Ground;
use super::promise::milliseconds;
use super::{EndureOptions, Percentiles, Promise};
use crate::Error;
use crate::ledger::check_books;
use crate::load::{Crowd, OpenLoop, OpenTold as Told, Phase, Tally};
use crate::stack::DATABASE;
use crate::table::{aligned, float};

/// What was measured.
#[derive(Debug, Clone)]
pub struct Overload {
    /// Served requests per second in a closed loop: the best that the database does.
    pub best_per_s: f64,
    /// The highest open rate tried at which everything was served.
    pub sustainable_per_s: f64,
    /// Each phase of the load.
    pub phases: Vec<PhaseFigures>,
    /// Ten thousand who come at once and ask once, against `CLIENTS_MAX` of a thousand and some.
    pub crowd: PhaseFigures,
    /// The instance's peak memory, and its limit.
    pub memory_peak_bytes: Option<u64>,
    /// The instance's limit.
    pub memory_limit_bytes: u64,
    /// Processes that the kernel killed for want of memory.
    pub out_of_memory_kills: u64,
}

/// One phase of the load.
#[derive(Debug, Clone)]
pub struct PhaseFigures {
    /// Its name.
    pub name: &'static str,
    /// Requests that came per second.
    pub asked_per_s: f64,
    /// Of them, how many were served per second.
    pub served_per_s: f64,
    /// How many were refused.
    pub refused: u64,
    /// How many had neither end: no answer, an answer in doubt, or another status.
    pub other: u64,
    /// How long those waited that were served.
    pub served: Option<Percentiles>,
    /// How long those waited that were refused.
    pub refusal: Option<Percentiles>,
    /// After it began, when the bank was back to normal; `None`: not while it lasted. Of the quiet phases alone.
    pub normal_after: Option<Duration>,
}

/// Starts one instance with its database, loads it and holds its ledger against what every request was told.
///
/// # Errors
/// The first failure, or [`Error::Refused`] when the ledger does not agree. What was started is stopped.
pub fn measure(options: &EndureOptions) -> Result<Overload, Error> {
    let steps = options.steps;
    let ground = Ground::start(options)?;
    let address = ground.address()?;
    let mut loads: Vec<(u64, Tally)> = Vec::new();
    let mut load = |connections, phases: Vec<Phase>| -> Result<Tally, Error> {
        let first_number = loads.iter().map(|(_, tally)| tally.records.len() as u64).sum();
        let tally = OpenLoop { address, connections, first_number, phases }.run(&options.interrupt)?;
        loads.push((first_number, tally.clone()));
        Ok(tally)
    };
    let phase = |name, rate_per_s, seconds: u32| Phase {
        name,
        rate_per_s,
        duration: Duration::from_secs(seconds.into()),
    };

    let best_per_s = steps.run("its best, in a closed loop", "measured", || {
        load(CLOSED_CONNECTIONS, vec![phase("warm-up", None, 1)])?;
        let tally = load(CLOSED_CONNECTIONS, vec![phase("best", None, options.seconds)])?;
        Ok(figures(&tally, 0, "best").served_per_s)
    })?;
    steps.line(&format!("  {best_per_s:.0} requests a second"));

    let mut sustainable_per_s = None;
    for percent in SUSTAINABLE_PERCENTS {
        let rate_per_s = best_per_s * f64::from(percent) / 100.0;
        let step = format!("{percent} % of it, {rate_per_s:.0} a second whether or not it keeps up");
        let is_sustained = steps.run(&step, "measured", || {
            let tally = load(OPEN_CONNECTIONS, vec![phase("sustained", Some(rate_per_s), options.seconds)])?;
            let figures = figures(&tally, 0, "sustained");
            let p99_ms = figures.served.map_or(f64::MAX, |served| served.p99_ms);
            Ok(figures.refused + figures.other == 0 && p99_ms <= SUSTAINED_P99_MS)
        })?;
        if is_sustained {
            sustainable_per_s = Some(rate_per_s);
            break;
        }
    }
    let sustainable_per_s = sustainable_per_s.ok_or_else(|| {
        Error::Refused(format!(
            "not even {} % of its best was sustained: repeat it on a quieter machine",
            SUSTAINABLE_PERCENTS[SUSTAINABLE_PERCENTS.len() - 1]
        ))
    })?;

    let times = |factor: f64| Some(sustainable_per_s * factor);
    let phases = vec![
        phase("half", times(0.5), QUIET_SECONDS),
        phase("3 times", times(3.0), options.seconds),
        phase("half again", times(0.5), QUIET_SECONDS),
        phase("10 times", times(10.0), options.seconds),
        phase("half at last", times(0.5), QUIET_SECONDS),
    ];
    let step = format!("3 and 10 times {sustainable_per_s:.0} a second, with half of it before and after");
    let tally = steps.run(&step, "measured", || load(OPEN_CONNECTIONS, phases.clone()))?;
    if let Some(late) = Percentiles::of(tally.lateness_us.iter().copied()) {
        steps.line(&format!(
            "  requests came late by {:.1} ms in the median, {:.1} ms p99",
            late.p50_ms, late.p99_ms
        ));
    }
    let crowd = steps.run(&format!("{CROWD} connections at once"), "answered", || {
        let first_number = loads.iter().map(|(_, tally)| tally.records.len() as u64).sum();
        let crowd = Crowd { address, clients: CROWD, first_number, patience: CROWD_PATIENCE };
        let tally = crowd.run(&options.interrupt)?;
        loads.push((first_number, tally.clone()));
        Ok(figures(&tally, 0, "10,000 at once"))
    })?;
    steps.run("the ledger", "agrees", || {
        let loads: Vec<(u64, &Tally)> = loads.iter().map(|(first, tally)| (*first, tally)).collect();
        check_books(&mut ground.postgres.connect(DATABASE)?, &loads)
    })?;

    let phases = phases.iter().enumerate().map(|(index, phase)| figures(&tally, index, phase.name));
    Ok(Overload {
        best_per_s,
        sustainable_per_s,
        phases: phases.collect(),
        crowd,
        memory_peak_bytes: ground.instance_group.account().memory_peak_bytes().ok(),
        memory_limit_bytes: options.instance_limits.memory_bytes,
        out_of_memory_kills: ground.instance_group.account().out_of_memory_kills(),
    })
}

impl Overload {
    /// The phases as a table.
    pub fn table(&self) -> String {
        let head = [
            "",
            "asked/s",
            "served/s",
            "of best",
            "served p50 ms",
            "p99",
            "max",
            "refused",
            "refusal p50 ms",
            "p99",
            "max",
            "other",
            "normal after",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for phase in self.phases.iter().chain([&self.crowd]) {
            let share = phase.served_per_s / self.best_per_s * 100.0;
            let [served_p50, served_p99, served_max] = Percentiles::cells(phase.served);
            let [refusal_p50, refusal_p99, refusal_max] = Percentiles::cells(phase.refusal);
            rows.push(vec![
                phase.name.to_owned(),
                format!("{:.0}", phase.asked_per_s),
                format!("{:.0}", phase.served_per_s),
                format!("{share:.0} %"),
                served_p50,
                served_p99,
                served_max,
                phase.refused.to_string(),
                refusal_p50,
                refusal_p99,
                refusal_max,
                phase.other.to_string(),
                phase
                    .normal_after
                    .map_or_else(|| "-".to_owned(), |after| format!("{} ms", after.as_millis())),
            ]);
        }
        aligned(&rows)
    }

    /// What is promised under overload, and whether it was kept.
    pub fn promises(&self) -> Vec<Promise> {
        let mut promises = Vec::new();
        let mut add = |what: String, measured: String, is_kept| {
            promises.push(Promise { what, measured, is_kept });
        };
        for (overload, after) in self.phases.iter().zip(self.phases.iter().skip(1)) {
            if !overload.name.ends_with("times") {
                continue;
            }
            let name = overload.name;
            let share = overload.served_per_s / self.best_per_s;
            add(
                format!("{name}: goodput at least 90 % of its best"),
                format!("{:.0} %", share * 100.0),
                share >= 0.9,
            );
            let p99_ms = overload.refusal.map_or(0.0, |refusal| refusal.p99_ms);
            add(
                format!("{name}: 99 of 100 refusals within 50 ms"),
                format!("{p99_ms:.1} ms"),
                p99_ms <= 50.0,
            );
            add(
                format!("{name}: everything is served or refused"),
                format!("{} otherwise", overload.other),
                overload.other == 0,
            );
            add(
                format!("{name}: back to normal within 1 s"),
                after
                    .normal_after
                    .map_or_else(|| "never".to_owned(), |after| format!("{} ms", after.as_millis())),
                after.normal_after.is_some_and(|after| after <= Duration::from_secs(1)),
            );
        }
        let crowd = &self.crowd;
        add(
            "10,000 connections at once: all are served or refused".to_owned(),
            format!("{} otherwise", crowd.other),
            crowd.other == 0,
        );
        add(
            "the instance stays under its memory limit".to_owned(),
            self.memory_peak_bytes.map_or_else(
                || "unknown".to_owned(),
                |peak| format!("{} of {} MB", peak >> 20, self.memory_limit_bytes >> 20),
            ),
            self.out_of_memory_kills == 0
                && self.memory_peak_bytes.is_none_or(|peak| peak < self.memory_limit_bytes),
        );
        add("no refused request has a row".to_owned(), "every request audited".to_owned(), true);
        promises
    }
}

fn figures(tally: &Tally, phase: usize, name: &'static str) -> PhaseFigures {
    let records = || tally.records.iter().filter(|record| record.phase == phase);
    let count = |is: fn(Told) -> bool| records().filter(|record| is(record.told)).count() as u64;
    let spread = |is: fn(Told) -> bool| {
        Percentiles::of(records().filter(|record| is(record.told)).map(|record| record.latency_us))
    };
    let (from_us, to_us) = tally.spans_us[phase];
    let seconds = milliseconds(to_us - from_us) / 1e3;
    // Goodput is what came out in this time, whenever it was asked.
    let is_in_time = |end_us: u64| (from_us..to_us).contains(&end_us);
    let served = tally
        .records
        .iter()
        .filter(|record| is_served(record.told) && is_in_time(record.asked_us + record.latency_us));
    PhaseFigures {
        name,
        asked_per_s: float(records().count() as u64) / seconds,
        served_per_s: float(served.count() as u64) / seconds,
        refused: count(is_refused),
        other: count(|told| !is_served(told) && !is_refused(told)),
        served: spread(is_served),
        refusal: spread(is_refused),
        normal_after: normal_after(tally, phase),
    }
}

fn is_served(told: Told) -> bool {
    matches!(told, Told::Served(_))
}

fn is_refused(told: Told) -> bool {
    matches!(told, Told::Refused)
}

/// From the beginning of a phase to the first of several windows in a row in which everything was served and quickly.
fn normal_after(tally: &Tally, phase: usize) -> Option<Duration> {
    let (from_us, to_us) = tally.spans_us[phase];
    let windows = usize::try_from((to_us - from_us) / WINDOW_US).ok()?;
    let mut latencies = vec![Vec::new(); windows];
    let mut is_refused = vec![false; windows];
    for record in tally.records.iter().filter(|record| record.phase == phase) {
        let Ok(window) = usize::try_from((record.asked_us - from_us) / WINDOW_US) else { continue };
        if window < windows {
            is_refused[window] |= !is_served(record.told);
            latencies[window].push(record.latency_us);
        }
    }
    let is_normal: Vec<bool> = latencies
        .into_iter()
        .zip(is_refused)
        .map(|(latencies, is_refused)| {
            !is_refused && Percentiles::of(latencies).is_none_or(|spread| spread.p99_ms <= SUSTAINED_P99_MS)
        })
        .collect();
    let first = is_normal.windows(NORMAL_WINDOWS).position(|windows| windows.iter().all(|normal| *normal))?;
    Some(Duration::from_micros(first as u64 * WINDOW_US))
}

/// As many as fill batches of a lane while another is out.
const CLOSED_CONNECTIONS: usize = 256;
/// Fewer than `CLIENTS_MAX`, so that none waits to be let in.
const OPEN_CONNECTIONS: usize = 1000;
const SUSTAINABLE_PERCENTS: [u32; 5] = [90, 80, 70, 60, 50];
/// A rate is sustained, and a moment normal, if 99 of 100 requests take no longer: PostgreSQL's quota of CPU time alone may
/// hold up a request for most of 100 ms.
const SUSTAINED_P99_MS: f64 = 200.0;
const CROWD: usize = 10_000;
const CROWD_PATIENCE: Duration = Duration::from_mins(1);
const QUIET_SECONDS: u32 = 3;
const WINDOW_US: u64 = 100_000;
const NORMAL_WINDOWS: usize = 5;
