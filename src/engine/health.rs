//! CORE: whether the database serves calls, and what clients are told while it does not.

use crate::bank::Unavailable;
use crate::now::Now;

/// What `/healthz` and every refused call say about the database.
#[derive(Debug)]
pub(super) struct Health {
    /// Since when no lane is ready, in monotonic microseconds.
    down_since_us: Option<u64>,
    /// Why the last session or attempt to connect ended.
    why_down: Unavailable,
    failures: Failures,
}

/// Calls that failed although each ran alone, and sessions that fell silent, since a transaction last succeeded. A server that
/// cannot write may still answer probes, which change no row.
#[derive(Clone, Copy, Debug)]
enum Failures {
    None,
    Some {
        culprit: Culprit,
        /// A probe that succeeds after this time ends them, in monotonic microseconds.
        hold_until_us: u64,
    },
}

/// What all failures have in common.
#[derive(Clone, Copy, Debug)]
enum Culprit {
    /// They are of one account: only that account may be affected.
    Account(i32),
    /// It is one session that fell silent: only that connection may be affected.
    Session,
    /// Nothing: it is the database.
    Database,
}

impl Health {
    /// No lane has been ready yet.
    pub(super) fn new(now: Now) -> Health {
        Health {
            down_since_us: Some(now.monotonic_us),
            why_down: Unavailable::DatabaseDown,
            failures: Failures::None,
        }
    }

    /// A session or an attempt to connect has ended.
    pub(super) fn ended(&mut self, why: Unavailable) {
        self.why_down = why;
    }

    /// A call failed although it ran alone. A probe counts again from `hold_until_us` on, in monotonic microseconds.
    pub(super) fn call_failed(&mut self, account: i32, hold_until_us: u64) {
        let culprit = match self.failures {
            Failures::None => Culprit::Account(account),
            Failures::Some { culprit: Culprit::Account(before), .. } if before == account => {
                Culprit::Account(account)
            }
            Failures::Some { .. } => Culprit::Database,
        };
        self.failures = Failures::Some { culprit, hold_until_us };
    }

    /// A session did not answer in time, as when a primary waits for a standby that is gone. A probe counts again from
    /// `hold_until_us` on, in monotonic microseconds.
    pub(super) fn fell_silent(&mut self, hold_until_us: u64) {
        let culprit = match self.failures {
            Failures::None => Culprit::Session,
            Failures::Some { .. } => Culprit::Database,
        };
        self.failures = Failures::Some { culprit, hold_until_us };
    }

    /// A transaction is committed, or the database is another one.
    pub(super) fn forget_failures(&mut self) {
        self.failures = Failures::None;
    }

    /// A probe succeeded.
    pub(super) fn probed(&mut self, now: Now) {
        if let Failures::Some { hold_until_us, .. } = self.failures
            && now.is_past(hold_until_us)
        {
            self.failures = Failures::None;
        }
    }

    /// Notes whether a lane is ready. Returns whether there was one until now.
    pub(super) fn note_lanes(&mut self, is_one_ready: bool, now: Now) -> bool {
        let is_news = !is_one_ready && self.down_since_us.is_none();
        if is_one_ready {
            self.down_since_us = None;
        } else if is_news {
            self.down_since_us = Some(now.monotonic_us);
        }
        is_news
    }

    /// What is wrong, if anything. `is_one_serving`: the last probe of a lane that is ready succeeded.
    pub(super) fn problem(&self, is_one_serving: bool) -> Option<Unavailable> {
        let is_failing = matches!(self.failures, Failures::Some { culprit: Culprit::Database, .. });
        match self.down_since_us {
            Some(_) => Some(self.why_down),
            None => (is_failing || !is_one_serving).then_some(Unavailable::Failed),
        }
    }

    /// Why no lane is ready; `None` while one is.
    pub(super) fn why_down(&self) -> Option<Unavailable> {
        self.down_since_us.map(|_| self.why_down)
    }

    /// The same, once no lane has been ready for `timeout_us`.
    pub(super) fn why_down_for(&self, timeout_us: u64, now: Now) -> Option<Unavailable> {
        let since_us = self.down_since_us?;
        now.is_past(since_us.saturating_add(timeout_us)).then_some(self.why_down)
    }
}
