//! How much CPU time went elsewhere during a load: to other processes, or to other guests of the same host.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Bank;
use crate::cgroup::Group;

/// One moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    at: Instant,
    /// CPU time that the whole machine used or was denied, since it was started.
    busy: Duration,
    /// Of it, what the bank and the load generator used.
    ours: Duration,
}

impl Moment {
    /// Now; `None` where somebody's account is missing.
    pub(super) fn now(bank: &Bank, generator: Option<&Arc<Group>>) -> Option<Moment> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let parts = Some(&bank.parts).filter(|parts| !parts.is_empty())?;
        let parts = parts.iter().map(|(_, account)| account.as_ref());
        let accounts = parts.chain([generator.map(|group| group.account())]);
        let ours = accounts.map(|account| account?.cpu_usage().ok()).sum::<Option<Duration>>()?;
        let tick = Duration::from_secs(1) / u32::try_from(rustix::param::clock_ticks_per_second()).ok()?;
        Some(Moment { at: Instant::now(), busy: tick * busy_ticks(&stat)?, ours })
    }

    /// The CPUs that others used on average since `earlier`: 0.5 is half of one.
    pub(super) fn others_cpus(self, earlier: Moment) -> f64 {
        let busy = self.busy.saturating_sub(earlier.busy).as_secs_f64();
        let ours = self.ours.saturating_sub(earlier.ours).as_secs_f64();
        ((busy - ours) / (self.at - earlier.at).as_secs_f64()).max(0.0)
    }
}

/// Format: the manual page `proc_stat(5)`: `cpu user nice system idle iowait irq softirq steal ...`. Interrupts are left
/// out: those of our own connections are nobody's in some kernels' accounts.
fn busy_ticks(stat: &str) -> Option<u32> {
    let fields: Option<Vec<u64>> = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace()
        .map(|field| field.parse().ok())
        .collect();
    let fields = fields?;
    let busy = [0, 1, 2, 7].map(|index| fields.get(index).copied().unwrap_or(0));
    u32::try_from(busy.iter().sum::<u64>()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_not_busy() {
        let stat = "cpu  100 20 3 9999 50 7 8 4 0 0\ncpu0 1 1 1 1\n";
        assert_eq!(busy_ticks(stat), Some(127));
        assert_eq!(busy_ticks("intr 1 2\n"), None);
    }

    #[test]
    fn others_are_what_is_not_ours() {
        let at = Instant::now();
        let earlier = Moment { at, busy: Duration::from_secs(10), ours: Duration::from_secs(1) };
        let later = Moment {
            at: at + Duration::from_secs(2),
            busy: Duration::from_secs(13),
            ours: Duration::from_secs(3),
        };
        assert!((later.others_cpus(earlier) - 0.5).abs() < 1e-9);
    }
}
