//! SHELL: limits how often each place in the code may log. Owns the clock for that, so the core logs without one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use log::{Log, Metadata, Record};

/// A logger that passes on at most `lines_max` lines of one kind per `interval_ms`. A kind is what one statement of the source
/// logs, whatever its values.
///
/// The others are counted. The next line of their kind that is passed on says how many, or the flush at the end does.
#[derive(Debug)]
pub struct LogRate<L> {
    inner: L,
    lines_max: u64,
    interval_us: u64,
    start: Instant,
    /// As many as there are statements that have logged.
    kinds: Mutex<HashMap<Kind, Window>>,
}

/// File and line of the statement.
type Kind = (&'static str, u32);

#[derive(Clone, Copy, Debug)]
struct Window {
    end_us: u64,
    lines: u64,
    withheld_lines: u64,
}

impl<L: Log> LogRate<L> {
    /// Limits what `inner` would log.
    pub fn new(inner: L, lines_max: u64, interval_ms: u64) -> LogRate<L> {
        LogRate {
            inner,
            lines_max,
            interval_us: interval_ms.saturating_mul(1_000),
            start: Instant::now(),
            kinds: Mutex::default(),
        }
    }

    /// Whether a line of this kind may be logged now, and if so how many were withheld since the last one.
    fn admit(&self, kind: Kind, now_us: u64) -> Option<u64> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let window = kinds.entry(kind).or_insert(Window { end_us: 0, lines: 0, withheld_lines: 0 });
        if now_us >= window.end_us {
            window.end_us = now_us.saturating_add(self.interval_us);
            window.lines = 0;
        }
        if window.lines >= self.lines_max {
            window.withheld_lines += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.withheld_lines))
    }
}

impl<L: Log> Log for LogRate<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.inner.enabled(record.metadata()) {
            return;
        }
        let kind = (record.file_static().unwrap_or_default(), record.line().unwrap_or_default());
        let now_us = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        match self.admit(kind, now_us) {
            None => {}
            Some(0) => self.inner.log(record),
            Some(withheld) => {
                self.inner.log(
                    &Record::builder()
                        .metadata(record.metadata().clone())
                        .args(format_args!(
                            "{} ({withheld} lines of this kind before it were withheld)",
                            record.args()
                        ))
                        .build(),
                );
            }
        }
    }

    /// Says how many lines are withheld now, once for each kind.
    fn flush(&self) {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        for ((file, line), window) in kinds.iter_mut().filter(|(_, window)| window.withheld_lines > 0) {
            let withheld = std::mem::take(&mut window.withheld_lines);
            self.inner.log(
                &Record::builder()
                    .level(log::Level::Warn)
                    .target(module_path!())
                    .args(format_args!("{withheld} lines of the kind at {file}:{line} were withheld"))
                    .build(),
            );
        }
        self.inner.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Recorder(Mutex<Vec<String>>);

    impl Log for Recorder {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.level() <= log::Level::Info
        }

        fn log(&self, record: &Record<'_>) {
            self.0.lock().unwrap().push(record.args().to_string());
        }

        fn flush(&self) {}
    }

    const REFUSED: Kind = ("a.rs", 1);
    const READY: Kind = ("a.rs", 2);

    fn log_line(rate: &LogRate<Recorder>, level: log::Level, (file, line): Kind, text: &str) {
        let mut builder = Record::builder();
        builder.level(level).file_static(Some(file)).line(Some(line));
        rate.log(&builder.args(format_args!("{text}")).build());
    }

    #[test]
    fn each_kind_has_so_many_lines_per_interval_and_a_count_of_the_others() {
        let rate = LogRate::new(Recorder::default(), 2, 10);
        let admitted = |kind, now_us| rate.admit(kind, now_us);
        assert_eq!([0, 1, 2, 9_999].map(|now_us| admitted(REFUSED, now_us)), [Some(0), Some(0), None, None]);
        assert_eq!(admitted(READY, 9_999), Some(0), "another kind has lines of its own");
        // The interval began with its first line.
        assert_eq!(
            [10_000, 10_001, 19_999].map(|now_us| admitted(REFUSED, now_us)),
            [Some(2), Some(0), None]
        );
        assert_eq!(admitted(REFUSED, 1_000_000), Some(1));
    }

    #[test]
    fn withheld_lines_are_counted_with_the_next_of_their_kind_or_at_the_end() {
        let rate = LogRate::new(Recorder::default(), 2, 3_600_000);
        for number in 0..5 {
            log_line(&rate, log::Level::Warn, REFUSED, &format!("refused {number}"));
        }
        log_line(&rate, log::Level::Info, READY, "ready");
        // The interval is over.
        rate.kinds.lock().unwrap().get_mut(&REFUSED).unwrap().end_us = 0;
        log_line(&rate, log::Level::Warn, REFUSED, "refused again");
        for _ in 0..2 {
            log_line(&rate, log::Level::Warn, REFUSED, "refused");
        }
        rate.flush();
        rate.flush();
        assert_eq!(
            *rate.inner.0.lock().unwrap(),
            [
                "refused 0",
                "refused 1",
                "ready",
                "refused again (3 lines of this kind before it were withheld)",
                "refused",
                "1 lines of the kind at a.rs:1 were withheld"
            ]
        );
    }

    #[test]
    fn a_line_below_the_level_takes_no_part() {
        let rate = LogRate::new(Recorder::default(), 1, 3_600_000);
        log_line(&rate, log::Level::Debug, REFUSED, "unseen");
        log_line(&rate, log::Level::Info, REFUSED, "seen");
        assert_eq!(*rate.inner.0.lock().unwrap(), ["seen"]);
    }
}
