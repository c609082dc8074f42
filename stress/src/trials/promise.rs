//! Figures, and what was promised about them.

use crate::Error;
use crate::table::aligned;

/// The spread of some times, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Percentiles {
    /// Half of them took no longer.
    pub p50_ms: f64,
    /// 99 of 100 took no longer.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Percentiles {
    /// Of times in microseconds, in any order; `None` of none.
    pub fn of(times_us: impl IntoIterator<Item = u64>) -> Option<Percentiles> {
        let mut times_us: Vec<u64> = times_us.into_iter().collect();
        times_us.sort_unstable();
        let at = |permille: usize| {
            let last = times_us.len().checked_sub(1)?;
            Some(milliseconds(times_us[last * permille / 1000]))
        };
        Some(Percentiles { p50_ms: at(500)?, p99_ms: at(990)?, max_ms: at(1000)? })
    }

    /// Cells of a table.
    pub(super) fn cells(of: Option<Percentiles>) -> [String; 3] {
        of.map_or_else(
            || [const { String::new() }; 3].map(|_| "-".to_owned()),
            |of| [of.p50_ms, of.p99_ms, of.max_ms].map(|ms| format!("{ms:.1}")),
        )
    }
}

/// One thing that was promised, and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Promise {
    /// In words.
    pub what: String,
    /// What was measured, with its unit.
    pub measured: String,
    /// Whether it was kept.
    pub is_kept: bool,
}

/// The promises as a table.
///
/// # Errors
/// [`Error::Refused`] when one of them was not kept; the table is to be shown before.
pub fn verdict(promises: &[Promise]) -> (String, Result<(), Error>) {
    let rows: Vec<Vec<String>> = promises
        .iter()
        .map(|promise| {
            let state = if promise.is_kept { "kept" } else { "MISSED" };
            vec![promise.what.clone(), promise.measured.clone(), state.to_owned()]
        })
        .collect();
    let missed = promises.iter().filter(|promise| !promise.is_kept).count();
    let result = match missed {
        0 => Ok(()),
        missed => Err(Error::Refused(format!("{missed} of {} promises were not kept", promises.len()))),
    };
    (aligned(&rows), result)
}

/// Exact up to centuries.
#[expect(clippy::cast_precision_loss, reason = "no time here reaches 2^53 microseconds")]
pub(super) fn milliseconds(us: u64) -> f64 {
    us as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let spread = Percentiles::of((1..=1000).rev().map(|ms| ms * 1000)).unwrap();
        assert!((spread.p50_ms - 500.0).abs() < 1.0 && (spread.p99_ms - 990.0).abs() < 1.0, "{spread:?}");
        assert!((spread.max_ms - 1000.0).abs() < 1e-9);
        assert_eq!(Percentiles::of([]), None);
        let one = Percentiles::of([7_000]).unwrap();
        assert!((one.p50_ms - 7.0).abs() < 1e-9 && (one.p99_ms - 7.0).abs() < 1e-9);
    }

    #[test]
    fn one_promise_that_is_not_kept_is_an_error() {
        let promise = |is_kept| Promise { what: "answers".to_owned(), measured: "1 ms".to_owned(), is_kept };
        let (table, result) = verdict(&[promise(true)]);
        assert!(result.is_ok() && table.contains("answers  1 ms  kept"), "{table}");
        let (table, result) = verdict(&[promise(true), promise(false)]);
        assert!(table.contains("MISSED"), "{table}");
        assert_eq!(result.unwrap_err().to_string(), "1 of 2 promises were not kept");
    }
}
