//! CORE: whether the reader's server, a standby, has replayed enough of the primary's log for its statements to be no older
//! than `READ_STALENESS_MAX_MS`.

use std::collections::VecDeque;

use crate::config::Config;
use crate::engine::lane::session::Position;
use crate::now::Now;

/// The last known log positions of the primary, with times, and of the reader's server.
#[derive(Debug, Default)]
pub struct Freshness {
    /// Positions of the primary, each with a time before it was asked for, in monotonic microseconds. All of one timeline,
    /// oldest first; at most [`MARKS_MAX`].
    marks: VecDeque<(u64, Position)>,
    /// The last known position of the reader's server.
    reader: Option<Position>,
}

/// Why a statement of the reader's server may be too old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// No recent position of the primary, or none of the reader's server, is known.
    Unknown,
    /// It is on another timeline than the primary, or another system.
    OtherTimeline,
    /// It has not replayed the log up to the position of the deciding mark.
    Behind,
}

impl Stale {
    /// The text for the log; `None` if another line says why already.
    pub fn problem(self) -> Option<&'static str> {
        match self {
            Stale::Unknown => None,
            Stale::OtherTimeline => Some("the standby is of another server or timeline than the primary"),
            Stale::Behind => Some("the standby is further behind than READ_STALENESS_MAX_MS"),
        }
    }
}

/// More than fit into `READ_STALENESS_MAX_MS`, since positions are asked for every quarter of it.
const MARKS_MAX: usize = 8;

impl Freshness {
    /// Records a position of the primary that was asked for after `asked_us`.
    pub fn primary_is_at(&mut self, position: Position, asked_us: u64, config: &Config) {
        if let Some((last_us, last)) = self.marks.back() {
            if last.system == position.system && position.timeline < last.timeline {
                return;
            }
            if !is_same_history(last, &position) {
                self.marks.clear();
            } else if asked_us < last_us.saturating_add(config.position_interval_ms().saturating_mul(1_000)) {
                // Several lanes ask, and one position per interval is enough.
                return;
            }
        }
        if self.marks.len() == MARKS_MAX {
            self.marks.pop_front();
        }
        self.marks.push_back((asked_us, position));
    }

    /// Forgets the positions of a primary that was replaced: they say nothing about the next one.
    pub fn forget_primary(&mut self) {
        self.marks.clear();
    }

    /// Records the position of the reader's server. What it reads from now on is no older.
    pub fn reader_is_at(&mut self, position: Option<Position>) {
        self.reader = position;
    }

    /// Whether the reader's server shows at least what the primary had committed at some moment in the last
    /// `READ_STALENESS_MAX_MS`.
    ///
    /// A mark is a time and a position of the primary that was read after it. So the log up to this position has everything that
    /// was committed at that time, and a server that has replayed it shows all of it. The oldest mark within the bound decides.
    ///
    /// # Errors
    /// Why the statement may be older.
    pub fn check(&self, config: &Config, now: Now) -> Result<(), Stale> {
        let staleness_max_us = config.read_staleness_max_ms.saturating_mul(1_000);
        let is_young = |asked_us: u64| now.monotonic_us.saturating_sub(asked_us) <= staleness_max_us;
        let mark = self.marks.iter().find(|(asked_us, _)| is_young(*asked_us));
        let (Some((_, mark)), Some(reader)) = (mark, &self.reader) else { return Err(Stale::Unknown) };
        if !is_same_history(mark, reader) {
            Err(Stale::OtherTimeline)
        } else if reader.log_bytes < mark.log_bytes {
            Err(Stale::Behind)
        } else {
            Ok(())
        }
    }
}

/// Whether positions in the logs of these servers can be compared.
fn is_same_history(a: &Position, b: &Position) -> bool {
    (a.system, a.timeline) == (b.system, b.timeline)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At `log_bytes` on this timeline.
    fn at(timeline: i32, log_bytes: i64) -> Position {
        Position { system: 7, timeline, log_bytes }
    }

    /// A bound of 1 s, and a primary that was at 100, 200 … after each quarter of it, from 0 on.
    fn four_marks() -> (Freshness, Config) {
        let (mut freshness, config) = (Freshness::default(), Config::for_test(&[]));
        for quarter in 0..4 {
            let log_bytes = 100 * (1 + i64::try_from(quarter).unwrap());
            freshness.primary_is_at(at(1, log_bytes), quarter * 250_000, &config);
        }
        (freshness, config)
    }

    fn check(freshness: &mut Freshness, reader: Option<Position>, now_ms: u64) -> Result<(), Stale> {
        freshness.reader_is_at(reader);
        freshness.check(&Config::for_test(&[]), Now::at_us(now_ms * 1_000))
    }

    #[test]
    fn the_oldest_mark_that_is_young_enough_decides() {
        let (mut freshness, _) = four_marks();
        for (log_bytes, now_ms, expected) in [
            (100, 1_000, Ok(())),
            (99, 1_000, Err(Stale::Behind)),
            (100, 1_001, Err(Stale::Behind)),
            (200, 1_250, Ok(())),
            (400, 1_750, Ok(())),
            (9_999, 1_751, Err(Stale::Unknown)),
        ] {
            let checked = check(&mut freshness, Some(at(1, log_bytes)), now_ms);
            assert_eq!(checked, expected, "{log_bytes} after {now_ms} ms");
        }
        assert_eq!(check(&mut freshness, None, 1_000), Err(Stale::Unknown));
        assert_eq!(check(&mut Freshness::default(), Some(at(1, 1)), 0), Err(Stale::Unknown));
    }

    #[test]
    fn places_in_another_log_are_not_compared() {
        let (mut freshness, config) = four_marks();
        for timeline in [0, 2] {
            let checked = check(&mut freshness, Some(at(timeline, 9_999)), 1_000);
            assert_eq!(checked, Err(Stale::OtherTimeline));
        }
        let other = Position { system: 8, ..at(1, 9_999) };
        assert_eq!(check(&mut freshness, Some(other), 1_000), Err(Stale::OtherTimeline));
        // A standby was promoted; a lane that is still with the old primary changes nothing.
        freshness.primary_is_at(at(2, 50), 900_000, &config);
        freshness.primary_is_at(at(1, 500), 1_200_000, &config);
        assert_eq!(check(&mut freshness, Some(at(2, 50)), 1_900), Ok(()));
        assert_eq!(check(&mut freshness, Some(at(2, 50)), 1_901), Err(Stale::Unknown));
        assert_eq!(check(&mut freshness, Some(at(1, 9_999)), 1_000), Err(Stale::OtherTimeline));
    }

    #[test]
    fn however_many_lanes_ask_the_marks_stay_few_and_reach_back() {
        let (mut freshness, config) = (Freshness::default(), Config::for_test(&[]));
        for ms in 0..5_000 {
            freshness.primary_is_at(at(1, ms), u64::try_from(ms).unwrap() * 1_000, &config);
        }
        assert!(freshness.marks.len() <= MARKS_MAX);
        assert_eq!(check(&mut freshness, Some(at(1, 4_250)), 5_249), Ok(()), "750 ms behind the mark");
    }
}
