//! How much CPU time went elsewhere during a load: to other processes, or to other guests of the same host.

use std::sync::Arc;
use std::time::{Duration, Instant};

use procfs::process::Process;
use procfs::{CurrentSI as _, KernelStats};

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
        let stat = Process::myself().and_then(|process| process.stat()).ok()?;
        Moment::with(bank, of_ticks(stat.utime + stat.stime))
    }

    fn with(bank: &Bank, generator: Duration) -> Option<Moment> {
        let total = KernelStats::current().ok()?.total;
        // Interrupts are left out: those of our own connections are nobody's in some kernels' accounts.
        let busy = of_ticks(total.user + total.nice + total.system + total.steal.unwrap_or(0));
        let parts = Some(&bank.parts).filter(|parts| !parts.is_empty())?;
        let accounts = parts.iter().map(|(_, account)| account.as_ref());
        let bank = accounts.map(|account| account?.cpu_usage().ok()).sum::<Option<Duration>>()?;
        Some(Moment { at: Instant::now(), busy, ours: bank + generator })
    }

    /// The CPUs that others used on average since `earlier`: 0.5 is half of one.
    pub(crate) fn others_cpus(self, earlier: Moment) -> f64 {
        let busy = self.busy.saturating_sub(earlier.busy).as_secs_f64();
        let ours = self.ours.saturating_sub(earlier.ours).as_secs_f64();
        ((busy - ours) / (self.at - earlier.at).as_secs_f64()).max(0.0)
    }
}

/// What the accounts in `/proc` count in.
fn of_ticks(ticks: u64) -> Duration {
    Duration::from_micros(ticks * 1_000_000 / procfs::ticks_per_second())
}

#[cfg(test)]
mod tests {
    use super::*;

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
