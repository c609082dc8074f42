//! A report against an earlier one.

use super::report::{Case, Report};
use crate::load::Latency;
use crate::table::{Table, known};

impl Report {
    /// The figures of this report divided by those of `earlier`, for each case that both have.
    pub fn ratios(&self, earlier: &Report) -> String {
        let pairs: Vec<(&Case, &Case)> = self
            .cases
            .iter()
            .filter_map(|case| {
                Some((case, earlier.cases.iter().find(|other| other.connections == case.connections)?))
            })
            .collect();
        let title = format!("Ratios to: {}\n", earlier.title());
        if pairs.is_empty() {
            return format!("{title}no case in common\n");
        }
        let mut table = Table::new("|req/s|mean|p50|p99|p99.9|CPU|nginx|APIs|db");
        for (case, other) in pairs {
            let (figures, others) = (figures(case), figures(other));
            let cells = figures.into_iter().zip(others).map(|(figure, other)| ratio(figure, other));
            table.row(&format!("{}|{}", case.name(), cells.collect::<Vec<_>>().join("|")));
        }
        format!("{title}{table}")
    }
}

/// In the order of the columns.
fn figures(case: &Case) -> [Option<f64>; 9] {
    let run = &case.median;
    let Latency { mean_ms, p50_ms, p99_ms, p99_9_ms, .. } = run.latency;
    let cpu = |index: usize| run.parts.get(index).and_then(|part| part.cpu_us_per_request);
    [
        Some(run.requests_per_second),
        Some(mean_ms),
        Some(p50_ms),
        Some(p99_ms),
        Some(p99_9_ms),
        run.cpu_us_per_request(),
        cpu(0),
        cpu(1).zip(cpu(2)).map(|(first, second)| first + second),
        cpu(3),
    ]
}

fn ratio(figure: Option<f64>, other: Option<f64>) -> String {
    let ratio = figure.zip(other).filter(|(_, other)| *other > 0.0).map(|(figure, other)| figure / other);
    known(ratio.map(|ratio| format!("{ratio:.2}")))
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{report, run};

    #[test]
    fn ratios_are_new_by_old() {
        let (new, old) = (report(&[run(300.0, 30.0)]), report(&[run(200.0, 60.0)]));
        let text = new.ratios(&old);
        assert!(text.contains("saturate, limits default"), "{text}");
        let last = text.lines().last().unwrap();
        let cells: Vec<&str> = last.split_whitespace().skip(2).collect();
        assert_eq!(cells, ["1.50", "-", "1.00", "1.00", "-", "0.50", "0.50", "0.50", "0.50"]);
    }

    #[test]
    fn only_the_same_connections_are_compared() {
        let new = report(&[run(300.0, 30.0)]);
        let mut old = new.clone();
        old.cases[0].connections = Some(128);
        assert!(new.ratios(&old).ends_with("no case in common\n"));
    }
}
