//! CORE: how fast calls have left the queue of late, and from that, how long one more would wait in it.

/// Calls, and the time that it took them to leave the queue one after another.
///
/// Only full batches count, and only if more calls were left behind by the batch before: then the database set the pace.
/// A quiet time says nothing about what it can do, and the pace before it stays the best guess.
#[derive(Debug, Default)]
pub struct Pace {
    calls: u64,
    busy_us: u64,
    /// When the newest batch left calls behind, in monotonic microseconds.
    left_some_at_us: Option<u64>,
}

/// What is older than this, in microseconds of a busy queue, counts for half at most. Longer than what may hold a database
/// up for a moment, as a quota of CPU time does, or a row lock.
const SPAN_US: u64 = 1_000_000;

impl Pace {
    /// A batch has left the queue.
    pub fn record_batch(&mut self, calls: usize, is_full: bool, leaves_some: bool, now_us: u64) {
        if let Some(since_us) = self.left_some_at_us
            && is_full
        {
            self.calls += calls as u64;
            self.busy_us += now_us.saturating_sub(since_us);
        }
        if self.busy_us > SPAN_US {
            self.calls = self.calls.div_ceil(2);
            self.busy_us /= 2;
        }
        self.left_some_at_us = leaves_some.then_some(now_us);
    }

    /// How long a call would wait behind `calls` others, in microseconds. `None` while it was measured for less than
    /// `wait_max_us`, the time that it is to tell of: one slow batch, as the first one of a cold database, is no pace.
    pub fn wait_us(&self, calls: usize, wait_max_us: u64) -> Option<u64> {
        let is_known = self.calls > 0 && self.busy_us >= wait_max_us;
        is_known.then(|| (calls as u64).saturating_mul(self.busy_us) / self.calls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT_MAX_US: u64 = 100_000;

    /// So many full batches of ten calls, one every so many microseconds, with more behind each of them.
    fn batches(pace: &mut Pace, batches: u64, interval_us: u64, now_us: &mut u64) {
        for _ in 0..batches {
            pace.record_batch(10, true, true, *now_us);
            *now_us += interval_us;
        }
    }

    #[test]
    fn the_wait_follows_what_the_database_did_of_late() {
        let mut pace = Pace::default();
        let mut now_us = 0;
        assert_eq!(pace.wait_us(100, WAIT_MAX_US), None);
        batches(&mut pace, 10, 10_000, &mut now_us);
        assert_eq!(pace.wait_us(100, WAIT_MAX_US), None, "measured for 90 ms, too short a time to tell");
        batches(&mut pace, 1, 10_000, &mut now_us);
        assert_eq!(pace.wait_us(100, WAIT_MAX_US), Some(100_000));
        // Half as fast for a while, and it is believed.
        batches(&mut pace, 1_000, 20_000, &mut now_us);
        assert!(pace.wait_us(100, WAIT_MAX_US).unwrap() > 198_000);
    }

    #[test]
    fn a_moment_of_standstill_hardly_counts() {
        let mut pace = Pace::default();
        let mut now_us = 0;
        batches(&mut pace, 1_000, 1_000, &mut now_us);
        now_us += 250_000;
        batches(&mut pace, 1, 1_000, &mut now_us);
        assert!(pace.wait_us(100, WAIT_MAX_US).unwrap() < 20_000, "{pace:?}");
    }

    #[test]
    fn a_quiet_time_and_a_batch_that_is_not_full_tell_nothing() {
        let mut pace = Pace::default();
        let mut now_us = 0;
        batches(&mut pace, 200, 1_000, &mut now_us);
        let before = pace.wait_us(100, WAIT_MAX_US).unwrap();
        pace.record_batch(10, true, false, now_us);
        pace.record_batch(10, true, true, now_us + 10_000_000);
        pace.record_batch(1, false, true, now_us + 20_000_000);
        assert!(pace.wait_us(100, WAIT_MAX_US).unwrap().abs_diff(before) < before / 10);
    }
}
