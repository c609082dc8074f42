//! Faults under load, each judged by the ledger after it was healed: what `cargo stress cluster faults` does.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;

use super::{Cluster, ClusterOptions, Fault, Promotion, Watch};
use crate::arguments::positive;
use crate::ledger::Judge;
use crate::load::traffic::Outcome;
use crate::load::{ClosedLoad, ClosedRun, Outcomes, RunningLoad, last_first, longest_gap};
use crate::table::{Table, ms, spread};
use crate::{Error, Workplace, wait};

/// Faults under load, one after the other, each judged by the ledger after it was healed
///
/// Brings a cluster of its own up. Each fault hits it under load, is healed under load, and then every answer is held against the
/// ledger, and the whole ledger is read again.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = include_str!("../help/cluster-faults.txt"))]
pub struct TrialOptions {
    /// Which faults; without any, all
    #[arg(value_enum, value_name = "FAULT")]
    pub faults: Vec<Fault>,
    /// How often each of them
    #[arg(long, value_name = "N", default_value = "1", value_parser = positive)]
    pub rounds: u32,
    /// Go on with more rounds for so long
    #[arg(long, value_name = "N", value_parser = positive, conflicts_with = "rounds")]
    pub minutes: Option<u32>,
    /// Requests per second
    #[arg(long, value_name = "N", default_value = "400", value_parser = positive)]
    pub rate: u32,
    /// Clients, each with one request under way at most; connections live for 2 to 4 s
    #[arg(long, value_name = "N", default_value = "32", value_parser = positive)]
    pub clients: u32,
    #[command(flatten)]
    pub cluster: ClusterOptions,
}

#[derive(Debug, Clone)]
pub struct Endured {
    pub fault: Fault,
    outcomes: Outcomes,
    /// The longest time without an accepted transaction.
    without_ms: f64,
    /// Of it, until a node was promoted; from then until a standby confirmed a commit there; and the rest, which is ours.
    parts_ms: Option<[f64; 3]>,
    slowest_ms: f64,
    /// What most of those were told for whom nothing was done.
    reason: Option<String>,
}

#[derive(Debug, Default)]
pub struct Trial {
    pub endured: Vec<Endured>,
    pub rows: i64,
    pub broken: Vec<String>,
}

impl Trial {
    pub fn run(options: &TrialOptions, place: &Workplace) -> Result<Trial, Error> {
        let faults = if options.faults.is_empty() { Fault::ALL } else { &options.faults };
        if options.cluster.distance_ms > 0 && faults.contains(&Fault::Cut) {
            let why = "replication passes the proxy, which nothing cuts: name the other faults";
            return Err(Error::Refused(format!("there is no fault `cut` with --distance-ms: {why}")));
        }
        let mut cluster = Cluster::start(&options.cluster, place)?;
        let load = ClosedLoad {
            connection_life: Some(CONNECTION_LIFE),
            // nginx closes idle connections at each reload, and a client that looks sees it.
            is_blind: false,
            ..ClosedLoad::new(cluster.address(), options.clients as usize)
        };
        let load = load.paced(options.rate.into());
        let (mut trial, mut judge) = (Trial::default(), Judge::default());
        let began = Instant::now();
        let is_due = |round: u32| match options.minutes {
            Some(minutes) => began.elapsed() < Duration::from_mins(minutes.into()),
            None => round < options.rounds,
        };
        'rounds: for round in 0.. {
            for fault in faults.iter().copied() {
                if !is_due(round) {
                    break 'rounds;
                }
                match endure(fault, &mut cluster, &load, &mut judge) {
                    Ok(endured) => {
                        place.steps.line(&endured.line(trial.endured.len() + 1));
                        trial.endured.push(endured);
                    }
                    Err(Error::Interrupted) => return Err(Error::Interrupted),
                    Err(broken) => {
                        trial.broken.push(format!("{fault}: {broken}"));
                        break 'rounds;
                    }
                }
            }
        }
        trial.rows = judge.rows;
        Ok(trial)
    }

    pub fn tables(&self) -> String {
        let mut table = Table::new(
            "fault|times|nothing done|in doubt|broken off|without ms|until promoted|until confirmed|ours|slowest ms",
        );
        for fault in Fault::ALL {
            let such: Vec<&Endured> = self.endured.iter().filter(|endured| endured.fault == *fault).collect();
            if such.is_empty() {
                continue;
            }
            let spread = |value: &dyn Fn(&Endured) -> Option<f64>| {
                spread(such.iter().filter_map(|endured| value(endured)))
            };
            let count = |kind| such.iter().map(|it| it.outcomes.count(kind)).sum::<u64>().to_string();
            let cells = [
                fault.to_string(),
                such.len().to_string(),
                count("nothing done"),
                count("in doubt"),
                count("broken off"),
                spread(&|endured| Some(endured.without_ms)),
                spread(&|endured| endured.parts_ms.map(|parts| parts[0])),
                spread(&|endured| endured.parts_ms.map(|parts| parts[1])),
                spread(&|endured| endured.parts_ms.map(|parts| parts[2])),
                spread(&|endured| Some(endured.slowest_ms)),
            ];
            table.row(&cells.join("|"));
        }
        let requests: u64 = self.endured.iter().map(|endured| endured.outcomes.total()).sum();
        let served: u64 = self.endured.iter().map(|endured| endured.outcomes.count("served")).sum();
        let (faults, rows) = (self.endured.len(), self.rows);
        format!(
            "Median and most for each fault, but sums of what was not served:\n{table}\n{faults} faults, {requests} requests, \
             {served} served, {rows} rows of the ledger judged\n"
        )
    }
}

impl Endured {
    fn of(fault: Fault, told: &ClosedRun, promotions: &[Promotion]) -> Option<Endured> {
        let (from, to) = longest_gap(&told.records, |outcome| matches!(outcome, Outcome::Accepted { .. }))?;
        // Of several the last one: it is the one that the bank found.
        let promotion = promotions.iter().rfind(|it| it.promoted_at >= from && it.promoted_at <= to);
        let parts_ms = promotion.map(|promotion| {
            let promoted_at = promotion.promoted_at;
            // The bank's own commit may be the first one.
            let committed_at = promotion.committed_at.unwrap_or(to).min(to);
            [promoted_at - from, committed_at - promoted_at, to - committed_at].map(ms)
        });
        let mut reasons: BTreeMap<&str, u32> = BTreeMap::new();
        for record in &told.records {
            if let Outcome::NothingDone { reason } = &record.outcome {
                *reasons.entry(reason).or_default() += 1;
            }
        }
        let reason = reasons.into_iter().max_by_key(|(_, count)| *count).map(|(reason, _)| reason.to_owned());
        let slowest = told.records.iter().map(|record| record.ended_at - record.sent_at).max();
        Some(Endured {
            fault,
            outcomes: told.outcomes(),
            without_ms: ms(to - from),
            parts_ms,
            slowest_ms: ms(slowest.unwrap_or_default()),
            reason,
        })
    }

    fn line(&self, number: usize) -> String {
        let parts = self.parts_ms.map_or_else(String::new, |[promoted, confirmed, ours]| {
            format!(" (until promoted {promoted:.0}, until confirmed {confirmed:.0}, ours {ours:.0})")
        });
        let reason = self.reason.as_ref().map_or_else(String::new, |reason| format!("; \"{reason}\""));
        let (fault, outcomes) = (self.fault.to_string(), self.outcomes.told().collect::<Vec<_>>().join(", "));
        let Endured { without_ms, slowest_ms, .. } = self;
        format!(
            "{number:>3} {fault:<12} without service {without_ms:.0} ms{parts}, slowest answer {slowest_ms:.0} ms; \
             {outcomes}{reason}"
        )
    }
}

/// One fault from a whole cluster to a whole cluster. An error is a broken promise.
fn endure(
    fault: Fault,
    cluster: &mut Cluster,
    load: &ClosedLoad,
    judge: &mut Judge,
) -> Result<Endured, Error> {
    cluster.wait_whole()?;
    let watch = Watch::start(&cluster.nodes);
    let running = load.start();
    let healed_at = break_and_heal(fault, cluster, &running, &watch);
    let told = running.finish()?;
    let healed_at = healed_at?;
    let promotions = watch.promotions();
    drop(watch);
    if let Some(ended) = cluster.ended() {
        return Err(ended.failure("ended"));
    }
    let mut database = cluster.connect()?;
    judge.judge_at_rest(&mut database, &told.records, &cluster.place.interrupt)?;
    judge.judge_whole(&mut database)?;
    let unserved = || Error::Refused(format!("not every client was served again: {told}"));
    last_first(&told.records, told.clients, healed_at, Outcome::is_served).ok_or_else(unserved)?;
    Endured::of(fault, &told, &promotions).ok_or_else(unserved)
}

/// Gives when it was healed.
fn break_and_heal(
    fault: Fault,
    cluster: &mut Cluster,
    running: &RunningLoad,
    watch: &Watch,
) -> Result<Instant, Error> {
    let interrupt = cluster.place.interrupt.clone();
    running.wait(BEFORE, &interrupt)?;
    fault.inject(cluster)?;
    if fault.promotes() {
        let promoted = wait::until(PROMOTION_PATIENCE, &interrupt, || {
            let is_promoted = watch.promotions().iter().any(|promotion| promotion.committed_at.is_some());
            Ok((is_promoted || running.has_failed()).then_some(()))
        })?;
        let refusal = || Error::Refused(format!("no node was promoted within {PROMOTION_PATIENCE:?}"));
        promoted.ok_or_else(refusal)?;
    }
    running.wait(fault.hold(), &interrupt)?;
    cluster.heal()?;
    let healed_at = Instant::now();
    running.wait(AFTER, &interrupt)?;
    Ok(healed_at)
}

const CONNECTION_LIFE: Duration = Duration::from_secs(2);
const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(3);
/// Three times Patroni's lease.
const PROMOTION_PATIENCE: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::traffic::{Asked, Record};

    #[test]
    fn the_time_without_service_is_split_at_the_promotion_and_at_the_first_commit() {
        let began = Instant::now();
        let at = |ms: u64| began + Duration::from_millis(ms);
        let record = |(ended_ms, outcome)| Record {
            client: 0,
            account: 1,
            asked: Asked::Statement,
            sent_at: at(ended_ms - 1),
            ended_at: at(ended_ms),
            outcome,
        };
        let accepted = || Outcome::Accepted { balance_cents: 1 };
        let refused = || Outcome::NothingDone { reason: "read-only".to_owned() };
        // A statement that is shown meanwhile is no service.
        let shown = Outcome::Shown { balance_cents: 1, newest: None };
        let told = [(10, accepted()), (20, accepted()), (300, refused()), (400, shown), (1_000, accepted())];
        let told = ClosedRun { clients: 1, left_out: 0, records: told.into_iter().map(record).collect() };
        let promotion = |promoted, committed: Option<u64>| Promotion {
            promoted_at: at(promoted),
            committed_at: committed.map(at),
        };
        let of = |promotions: &[Promotion]| Endured::of(Fault::Node, &told, promotions).unwrap();
        let endured = of(&[promotion(100, None), promotion(720, Some(920)), promotion(2_000, None)]);
        let rounded = |parts: [f64; 3]| parts.map(|part| format!("{part:.0}"));
        assert_eq!(format!("{:.0}", endured.without_ms), "980");
        assert_eq!(endured.parts_ms.map(rounded), Some(["700", "200", "80"].map(str::to_owned)));
        assert_eq!((endured.outcomes.count("served"), endured.reason.as_deref()), (4, Some("read-only")));
        // The bank's commit was confirmed before that of the watch.
        let endured = of(&[promotion(720, Some(1_500))]);
        assert_eq!(endured.parts_ms.map(|parts| rounded(parts)[2].clone()), Some("0".to_owned()));
        assert_eq!(of(&[]).parts_ms, None);
    }
}
