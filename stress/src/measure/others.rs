//! How much CPU time went elsewhere during a load: to other processes, or to other guests of the same host.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Bank;
use crate::cgroup::Group;

/// One moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    at: Instant,
    /// CPU time that the whole machine used or was denied, since it was started.
    busy: Duration,
    /// Of it, what the bank and the load generator used.
    ours: Duration,
}

impl Moment {
    /// Now; `None` where somebody's account is missing.
    pub(crate) fn now(bank: &Bank, generator: Option<&Arc<Group>>) -> Option<Moment> {
        Moment::with(bank, generator?.account().cpu_usage().ok()?)
    }

    /// Now, with a load generator that is part of this process; `None` where somebody's account is missing.
    pub(crate) fn with_this_process(bank: &Bank) -> Option<Moment> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        Moment::with(bank, tick()? * process_ticks(&stat)?)
    }

    fn with(bank: &Bank, generator: Duration) -> Option<Moment> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let parts = Some(&bank.parts).filter(|parts| !parts.is_empty())?;
        let accounts = parts.iter().map(|(_, account)| account.as_ref());
        let bank = accounts.map(|account| account?.cpu_usage().ok()).sum::<Option<Duration>>()?;
        Some(Moment { at: Instant::now(), busy: tick()? * busy_ticks(&stat)?, ours: bank + generator })
    }

    /// The CPUs that others used on average since `earlier`: 0.5 is half of one.
    pub(crate) fn others_cpus(self, earlier: Moment) -> f64 {
        let busy = self.busy.saturating_sub(earlier.busy).as_secs_f64();
        let ours = self.ours.saturating_sub(earlier.ours).as_secs_f64();
        ((busy - ours) / (self.at - earlier.at).as_secs_f64()).max(0.0)
    }
}

/// What the accounts in `/proc` count in.
fn tick() -> Option<Duration> {
    Some(Duration::from_secs(1) / u32::try_from(rustix::param::clock_ticks_per_second()).ok()?)
}

/// Format: the manual page `proc_pid_stat(5)`: the name in parentheses, then the state, and as 12th and 13th after the name
/// the CPU time in user and in kernel mode.
fn process_ticks(stat: &str) -> Option<u32> {
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u32>().ok();
    Some(ticks(11)? + ticks(12)?)
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
    fn a_process_used_user_and_kernel_time() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 3 0 25 17 0 0 20 0 1 0 1";
        assert_eq!(process_ticks(stat), Some(42));
        assert_eq!(process_ticks("7 (a"), None);
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
