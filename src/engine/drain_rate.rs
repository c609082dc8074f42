//! CORE: how fast calls leave the queue while it is not empty, and so how long one more call would wait.

/// The fastest of the last few windows of busy time.
///
/// Only full batches count, and only if the batch before left calls behind: then the database limited the rate. An idle
/// period does not change it.
///
/// The fastest window and not the mean: a database that pauses for a second (a checkpoint, a used-up CPU quota, a paused
/// machine) is as fast afterwards as before. A pause is one gap between two batches, so it slows down one window. A database
/// that has become slow slows down all of them.
#[derive(Debug, Default)]
pub struct DrainRate {
    /// The windows that are complete; the oldest is overwritten.
    windows: [Window; WINDOWS],
    next_window: usize,
    current: Window,
    /// When the newest batch left calls behind, in monotonic microseconds.
    left_some_at_us: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    calls: u64,
    busy_us: u64,
}

const WINDOWS: usize = 4;
/// Busy time of a window, in microseconds. A quota of CPU time is given every 100 ms, so a window spans several.
const WINDOW_US: u64 = 250_000;

impl DrainRate {
    /// A batch has left the queue.
    pub fn record_batch(&mut self, calls: usize, is_full: bool, leaves_some: bool, now_us: u64) {
        if let Some(since_us) = self.left_some_at_us
            && is_full
        {
            self.current.calls += calls as u64;
            self.current.busy_us += now_us.saturating_sub(since_us);
        }
        if self.current.busy_us >= WINDOW_US {
            self.windows[self.next_window] = std::mem::take(&mut self.current);
            self.next_window = (self.next_window + 1) % WINDOWS;
        }
        self.left_some_at_us = leaves_some.then_some(now_us);
    }

    /// How long a call would wait behind `calls` others, in microseconds. `None` until every window is complete: the first
    /// batches of a cold database are slow.
    pub fn wait_us(&self, calls: usize) -> Option<u64> {
        let wait_us =
            |window: &Window| (calls as u64).saturating_mul(window.busy_us).checked_div(window.calls);
        self.windows.iter().try_fold(u64::MAX, |least, window| Some(least.min(wait_us(window)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// So many full batches of ten calls, one every so many microseconds, with more behind each of them.
    fn batches(rate: &mut DrainRate, batches: u64, interval_us: u64, now_us: &mut u64) {
        for _ in 0..batches {
            rate.record_batch(10, true, true, *now_us);
            *now_us += interval_us;
        }
    }

    #[test]
    fn the_wait_is_known_after_a_second_and_follows_the_database() {
        let mut rate = DrainRate::default();
        let mut now_us = 0;
        assert_eq!(rate.wait_us(100), None);
        batches(&mut rate, 100, 10_000, &mut now_us);
        assert_eq!(rate.wait_us(100), None, "measured for 990 ms");
        batches(&mut rate, 1, 10_000, &mut now_us);
        assert_eq!(rate.wait_us(100), Some(100_000));
        // Half as fast: it is believed once every window says so.
        batches(&mut rate, 50, 20_000, &mut now_us);
        assert_eq!(rate.wait_us(100), Some(100_000));
        batches(&mut rate, 20, 20_000, &mut now_us);
        assert_eq!(rate.wait_us(100), Some(200_000));
    }

    /// Made-up databases: each with a rate of its own, and stalls of 0.1 to 2 s, up to three of them in a row. The wait is
    /// never judged longer than it is at that rate.
    #[test]
    fn stalls_never_make_the_wait_look_longer_than_the_rate_does() {
        for seed in 0..300 {
            let mut random = Random::new(seed);
            let mut rate = DrainRate::default();
            let interval_us = random.between(500, 80_000);
            let mut now_us = 0;
            // As many batches as fill the windows, without a stall.
            let calm_batches = 2 * WINDOWS as u64 * (WINDOW_US / interval_us + 1);
            for _ in 0..50 {
                batches(&mut rate, calm_batches, interval_us, &mut now_us);
                for _ in 0..random.between(1, WINDOWS as u64 - 1) {
                    rate.record_batch(10, true, true, now_us);
                    now_us += random.between(100_000, 2_000_000);
                    rate.record_batch(10, true, true, now_us);
                    now_us += interval_us;
                    let wait_us = rate.wait_us(100).expect("known by now");
                    assert!(wait_us <= 10 * interval_us, "seed {seed}: {wait_us} at {interval_us}: {rate:?}");
                }
            }
        }
    }

    #[test]
    fn a_quiet_time_and_a_batch_that_is_not_full_tell_nothing() {
        let mut rate = DrainRate::default();
        let mut now_us = 0;
        batches(&mut rate, 2_000, 1_000, &mut now_us);
        let before = rate.wait_us(100);
        assert_eq!(before, Some(10_000));
        for _ in 0..2 * WINDOWS {
            rate.record_batch(10, true, false, now_us);
            now_us += 10_000_000;
            rate.record_batch(10, true, true, now_us);
            now_us += 10_000_000;
            rate.record_batch(1, false, true, now_us);
        }
        assert_eq!(rate.wait_us(100), before);
    }
}
