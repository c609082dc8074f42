//! What was used meanwhile: by each part of the bank, and by others; and on which machine.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use procfs::process::Process;
use procfs::{CpuInfo, Current as _, CurrentSI as _, KernelStats, LoadAverage, Meminfo};
use serde::{Deserialize, Serialize};

use super::report::Part;
use crate::Bank;
use crate::cgroup::{Account, Group};
use crate::table::float;

#[derive(Debug)]
pub(crate) struct Moment {
    at: Instant,
    /// CPU time that the whole machine used or was denied, since it was started, and of it what the bank and the load
    /// generator used; `None` where somebody's account is missing.
    busy_and_ours: Option<(Duration, Duration)>,
    parts: Vec<Usage>,
}

/// One service; `None` where the kernel keeps no account.
#[derive(Debug, Clone)]
struct Usage {
    name: String,
    cpu: Option<Duration>,
    memory_peak_bytes: Option<u64>,
}

impl Moment {
    /// Now, with the group of the load generator; without, the load is this process'.
    pub(crate) fn now(bank: &Bank, generator: Option<&Arc<Group>>) -> Moment {
        let usage = |(name, account): &(String, Option<Account>)| Usage {
            name: name.clone(),
            cpu: account.as_ref().and_then(|account| account.cpu_usage().ok()),
            memory_peak_bytes: account.as_ref().and_then(|account| account.memory_peak_bytes().ok()),
        };
        let parts: Vec<Usage> = bank.parts.iter().map(usage).collect();
        // The load, or a proxy that makes distance.
        let this = Process::myself().and_then(|process| process.stat());
        let this = this.ok().map(|it| of_ticks(it.utime + it.stime));
        let generator = match generator {
            Some(group) => group.account.cpu_usage().ok().zip(this).map(|(load, this)| load + this),
            None => this,
        };
        let bank = parts.iter().map(|part| part.cpu).sum::<Option<Duration>>().filter(|_| !parts.is_empty());
        let ours = bank.zip(generator).map(|(bank, generator)| bank + generator);
        // Interrupts are left out: those of our own connections are nobody's in some kernels' accounts.
        let busy = KernelStats::current().ok().map(|stats| stats.total);
        let busy = busy.map(|it| of_ticks(it.user + it.nice + it.system + it.steal.unwrap_or(0)));
        Moment { at: Instant::now(), busy_and_ours: busy.zip(ours), parts }
    }

    /// The CPUs that others used on average since `earlier`: 0.5 is half of one.
    pub(crate) fn others_cpus(&self, earlier: &Moment) -> Option<f64> {
        let ((busy, ours), (busy_before, ours_before)) = self.busy_and_ours.zip(earlier.busy_and_ours)?;
        let busy = busy.saturating_sub(busy_before).as_secs_f64();
        let ours = ours.saturating_sub(ours_before).as_secs_f64();
        Some(((busy - ours) / (self.at - earlier.at).as_secs_f64()).max(0.0))
    }

    /// What each part used since `earlier`, shared out among the requests that were answered meanwhile.
    pub(crate) fn parts(&self, earlier: &Moment, requests: u64) -> Vec<Part> {
        let part = |(before, after): (&Usage, &Usage)| {
            let used = after.cpu.zip(before.cpu).filter(|_| requests > 0);
            let us = |(after, before): (Duration, Duration)| after.saturating_sub(before).as_secs_f64() * 1e6;
            Part {
                name: after.name.clone(),
                cpu_us_per_request: used.map(|used| us(used) / float(requests)),
                memory_peak_bytes: after.memory_peak_bytes,
            }
        };
        earlier.parts.iter().zip(&self.parts).map(part).collect()
    }
}

/// What the accounts in `/proc` count in.
fn of_ticks(ticks: u64) -> Duration {
    Duration::from_micros(ticks * 1_000_000 / procfs::ticks_per_second())
}

/// What figures depend on, and how busy it was.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    /// CPUs that this process may use.
    pub cpus: usize,
    pub memory_bytes: u64,
    pub kernel: String,
    /// Of the last minute before the first run.
    pub load_average_before: f64,
    pub measured_at_unix_s: u64,
}

impl Machine {
    /// Looks at this one. What cannot be read is empty or 0.
    pub fn look() -> Machine {
        let cpu = CpuInfo::current().ok().and_then(|info| Some(info.model_name(0)?.to_owned()));
        let load = LoadAverage::current().map_or(0.0, |load| f64::from(load.one));
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Machine {
            cpu: cpu.unwrap_or_default(),
            cpus: thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: Meminfo::current().map_or(0, |info| info.mem_total),
            kernel: kernel.trim().to_owned(),
            load_average_before: (load * 100.0).round() / 100.0,
            measured_at_unix_s: now.map_or(0, |since| since.as_secs()),
        }
    }

    /// Such as `2 × A CPU @ 2 GHz`.
    pub(crate) fn describe(&self) -> String {
        format!("{} × {}", self.cpus, self.cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(at: Instant, seconds: Option<(u64, u64)>, cpu_ms: Option<u64>, peak: u64) -> Moment {
        let cpu = cpu_ms.map(Duration::from_millis);
        let part = Usage { name: "nginx".to_owned(), cpu, memory_peak_bytes: Some(peak) };
        let busy_and_ours =
            seconds.map(|(busy, ours)| (Duration::from_secs(busy), Duration::from_secs(ours)));
        Moment { at, busy_and_ours, parts: vec![part] }
    }

    #[test]
    fn cpu_is_shared_out_among_the_requests_and_others_are_what_is_not_ours() {
        let at = Instant::now();
        let before = moment(at, Some((10, 1)), Some(100), 5);
        let after = moment(at + Duration::from_secs(2), Some((13, 3)), Some(300), 9);
        assert!((after.others_cpus(&before).unwrap() - 0.5).abs() < 1e-9);
        let parts = after.parts(&before, 10_000);
        assert!((parts[0].cpu_us_per_request.unwrap() - 20.0).abs() < 1e-9);
        assert_eq!(parts[0].memory_peak_bytes, Some(9));

        assert_eq!(after.parts(&before, 0)[0].cpu_us_per_request, None, "no requests");
        let unknown = moment(at, None, None, 5);
        assert_eq!(
            (after.others_cpus(&unknown), after.parts(&unknown, 5)[0].cpu_us_per_request),
            (None, None)
        );
    }
}
