//! Figures, and what was promised about them.

use crate::Error;
use crate::table::{Table, float};

#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Percentiles {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl Percentiles {
    /// Of times in microseconds, in any order; `None` of none.
    pub fn of(times_us: impl IntoIterator<Item = u64>) -> Option<Percentiles> {
        let mut times_us: Vec<u64> = times_us.into_iter().collect();
        times_us.sort_unstable();
        let at = |permille: usize| {
            let last = times_us.len().checked_sub(1)?;
            Some(float(times_us[last * permille / 1000]) / 1e3)
        };
        Some(Percentiles { p50_ms: at(500)?, p99_ms: at(990)?, max_ms: at(1000)? })
    }

    /// Three cells of a table.
    pub(super) fn cells(of: Option<Percentiles>) -> String {
        of.map_or_else(
            || "-|-|-".to_owned(),
            |of| format!("{:.1}|{:.1}|{:.1}", of.p50_ms, of.p99_ms, of.max_ms),
        )
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Promise {
    what: String,
    /// With its unit.
    measured: String,
    is_kept: bool,
}

impl Promise {
    pub fn new(what: impl Into<String>, measured: impl Into<String>, is_kept: bool) -> Promise {
        Promise { what: what.into(), measured: measured.into(), is_kept }
    }
}

pub fn verdict(promises: &[Promise]) -> (String, Result<(), Error>) {
    let mut table = Table::default();
    for Promise { what, measured, is_kept } in promises {
        table.row(&format!("{what}|{measured}|{}", if *is_kept { "kept" } else { "MISSED" }));
    }
    let result = match promises.iter().filter(|promise| !promise.is_kept).count() {
        0 => Ok(()),
        missed => Err(Error::Refused(format!("{missed} of {} promises were not kept", promises.len()))),
    };
    (table.to_string(), result)
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
        let promise = |is_kept| Promise::new("answers", "1 ms", is_kept);
        let (table, result) = verdict(&[promise(true)]);
        assert!(result.is_ok() && table.contains("answers  1 ms  kept"), "{table}");
        let (table, result) = verdict(&[promise(true), promise(false)]);
        assert!(table.contains("MISSED"), "{table}");
        assert_eq!(result.unwrap_err().to_string(), "1 of 2 promises were not kept");
    }
}
