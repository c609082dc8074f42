//! More requests than the database can do: first what it can do, then 3 and 10 times that, with quiet times between.

use std::time::Duration;

use super::ground;
use super::{EndureOptions, Percentiles, Promise};
use crate::load::traffic::{Outcome, Record};
use crate::load::{Crowd, OpenLoop, OpenRun, Phase};
use crate::table::{Table, float, known};
use crate::{Error, Workplace};

#[derive(Debug, Clone)]
pub struct Overload {
    pub best_per_s: f64,
    /// The highest open rate tried at which everything was served.
    pub sustainable_per_s: f64,
    pub phases: Vec<PhaseFigures>,
    /// Ten thousand who come at once and ask once, against `CLIENTS_MAX` of a thousand and some.
    pub crowd: PhaseFigures,
    pub memory_peak_bytes: Option<u64>,
    pub out_of_memory_kills: u64,
}

#[derive(Debug, Clone)]
pub struct PhaseFigures {
    pub name: &'static str,
    pub asked_per_s: f64,
    pub served_per_s: f64,
    pub refused: u64,
    /// How many had neither end: no answer, an answer in doubt, or another status.
    pub other: u64,
    pub served: Option<Percentiles>,
    pub refusal: Option<Percentiles>,
    /// After it began, when the bank was back to normal; `None`: not while it lasted. Of the quiet phases alone.
    pub normal_after: Option<Duration>,
}

pub fn measure(options: &EndureOptions, place: &Workplace) -> Result<Overload, Error> {
    let steps = place.steps;
    let solo = ground::start(options, &[QUICK_REFUSALS], place)?;
    let address = solo.address()?;
    let mut records: Vec<Record> = Vec::new();
    let mut load = |connections, phases: Vec<Phase>| -> Result<OpenRun, Error> {
        let first_number = records.len() as u64;
        let run = OpenLoop { address, connections, first_number, phases }.run(&place.interrupt)?;
        records.extend_from_slice(&run.records);
        Ok(run)
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
        let [.., least] = SUSTAINABLE_PERCENTS;
        Error::Refused(format!(
            "not even {least} % of its best was sustained: repeat it on a quieter machine"
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
    if let Some(Percentiles { p50_ms, p99_ms, .. }) = Percentiles::of(tally.lateness_us.iter().copied()) {
        steps.line(&format!("  requests came late by {p50_ms:.1} ms in the median, {p99_ms:.1} ms p99"));
    }
    let crowd = steps.run(&format!("{CROWD} connections at once"), "answered", || {
        let first_number = records.len() as u64;
        let crowd = Crowd { address, clients: CROWD, first_number, patience: CROWD_PATIENCE };
        let tally = crowd.run(&place.interrupt)?;
        records.extend_from_slice(&tally.records);
        Ok(figures(&tally, 0, "10,000 at once"))
    })?;
    ground::judge(&solo, &records, place)?;
    let phases = phases.iter().enumerate().map(|(index, phase)| figures(&tally, index, phase.name));
    Ok(Overload {
        best_per_s,
        sustainable_per_s,
        phases: phases.collect(),
        crowd,
        memory_peak_bytes: ground::account(&solo.instance)?.memory_peak_bytes().ok(),
        out_of_memory_kills: ground::account(&solo.instance)?.out_of_memory_kills(),
    })
}

impl Overload {
    pub fn table(&self) -> String {
        let mut table = Table::new(
            "|asked/s|served/s|of best|served p50 ms|p99|max|refused|refusal p50 ms|p99|max|other|normal after",
        );
        for phase in self.phases.iter().chain([&self.crowd]) {
            let PhaseFigures { name, asked_per_s, served_per_s, refused, other, .. } = phase;
            let share = served_per_s / self.best_per_s * 100.0;
            let [served, refusal] = [phase.served, phase.refusal].map(Percentiles::cells);
            let normal_after = known(phase.normal_after.map(|after| format!("{} ms", after.as_millis())));
            table.row(&format!(
                "{name}|{asked_per_s:.0}|{served_per_s:.0}|{share:.0} %|{served}|{refused}|{refusal}|{other}|{normal_after}"
            ));
        }
        table.to_string()
    }

    pub fn promises(&self) -> Vec<Promise> {
        let mut promises = Vec::new();
        for (overload, after) in self.phases.iter().zip(self.phases.iter().skip(1)) {
            let PhaseFigures { name, other, .. } = overload;
            if !name.ends_with("times") {
                continue;
            }
            let share = overload.served_per_s / self.best_per_s;
            let p99_ms = overload.refusal.map_or(0.0, |refusal| refusal.p99_ms);
            let normal_after = after.normal_after;
            let told_after =
                normal_after.map_or_else(|| "never".to_owned(), |after| format!("{} ms", after.as_millis()));
            let is_soon = normal_after.is_some_and(|after| after <= Duration::from_secs(1));
            for (what, measured, is_kept) in [
                ("goodput at least 90 % of its best", format!("{:.0} %", share * 100.0), share >= 0.9),
                ("99 of 100 refusals within 50 ms", format!("{p99_ms:.1} ms"), p99_ms <= 50.0),
                ("everything is served or refused", format!("{other} otherwise"), *other == 0),
                ("back to normal within 1 s", told_after, is_soon),
            ] {
                promises.push(Promise::new(format!("{name}: {what}"), measured, is_kept));
            }
        }
        let other = self.crowd.other;
        let crowd = "10,000 connections at once: all are served or refused";
        let (measured, is_kept) = ground::memory(self.memory_peak_bytes);
        promises.extend([
            Promise::new(crowd, format!("{other} otherwise"), other == 0),
            Promise::new(ground::MEMORY, measured, is_kept && self.out_of_memory_kills == 0),
            Promise::new("no refused request has a row", "every request audited", true),
        ]);
        promises
    }
}

fn figures(run: &OpenRun, phase: usize, name: &'static str) -> PhaseFigures {
    let records = || run.of_phase(phase).iter();
    let count = |is: fn(&Record) -> bool| records().filter(|record| is(record)).count() as u64;
    let spread = |is: fn(&Record) -> bool| {
        Percentiles::of(records().filter(|record| is(record)).map(Record::latency_us))
    };
    let span = &run.spans[phase];
    let seconds = (span.ended - span.began).as_secs_f64();
    // Goodput is what came out in this time, whenever it was asked.
    let is_in_time = |record: &&Record| (span.began..span.ended).contains(&record.ended_at);
    let served = run.records.iter().filter(|record| is_served(record)).filter(is_in_time);
    PhaseFigures {
        name,
        asked_per_s: float(records().count() as u64) / seconds,
        served_per_s: float(served.count() as u64) / seconds,
        refused: count(is_refused),
        other: count(|record| !is_served(record) && !is_refused(record)),
        served: spread(is_served),
        refusal: spread(is_refused),
        normal_after: normal_after(run, phase),
    }
}

fn is_served(record: &Record) -> bool {
    record.outcome.is_served()
}

fn is_refused(record: &Record) -> bool {
    matches!(record.outcome, Outcome::NothingDone { .. })
}

/// From the beginning of a phase to the first of several windows in a row in which everything was served and quickly.
fn normal_after(run: &OpenRun, phase: usize) -> Option<Duration> {
    let span = &run.spans[phase];
    let window_of = |since: Duration| usize::try_from(since.as_micros() / WINDOW.as_micros()).ok();
    let windows = window_of(span.ended - span.began)?;
    let mut windows: Vec<Vec<&Record>> = vec![Vec::new(); windows];
    for record in run.of_phase(phase) {
        let window = window_of(record.sent_at.saturating_duration_since(span.began));
        if let Some(records) = window.and_then(|window| windows.get_mut(window)) {
            records.push(record);
        }
    }
    let is_normal = |records: &Vec<&Record>| {
        let waited = Percentiles::of(records.iter().map(|record| record.latency_us()));
        let is_quick = waited.is_none_or(|waited| waited.p99_ms <= SUSTAINED_P99_MS);
        is_quick && records.iter().all(|record| is_served(record))
    };
    let first = windows.windows(NORMAL_WINDOWS).position(|windows| windows.iter().all(is_normal))?;
    Some(WINDOW * u32::try_from(first).ok()?)
}

/// What quick refusals need, and an open load is there for.
const QUICK_REFUSALS: (&str, &str) = ("QUEUE_WAIT_MAX_MS", "100");
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
const WINDOW: Duration = Duration::from_millis(100);
const NORMAL_WINDOWS: usize = 5;
