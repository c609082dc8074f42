//! A report as tables for the terminal, also against an earlier one.

use super::report::{Case, Part, Report, cpu_us_per_request};
use crate::load::Latency;
use crate::stack::WEBAPI;
use crate::table::{Table, float, known};

impl Report {
    pub fn tables(&self) -> String {
        let mut limits = self.setup.kernel_limits();
        if !limits.is_empty() {
            limits.insert_str(0, "\nlimits that the kernel keeps: ");
        }
        let programs = self.setup.programs(true).join(", ");
        let cases = self.cases.iter().map(|case| (case.name(), case.median.parts.as_slice()));
        let parts = parts_table(&cases.collect::<Vec<_>>());
        let mut text = format!("{}\n{programs}{limits}\n\n{}\n{parts}", self.title(), self.latencies());
        if self.cases.iter().any(|case| !case.median.errors.is_empty()) {
            text.push_str("\nErrors:\n");
            for case in &self.cases {
                let kinds = case.median.errors.iter().map(|(kind, count)| format!("{count} {kind}"));
                let kinds = kinds.collect::<Vec<_>>().join(", ");
                let kinds = if kinds.is_empty() { "none" } else { &kinds };
                text.extend(["  ", &case.name(), ": ", kinds, "\n"]);
            }
        }
        text
    }

    /// One line that names everything that figures depend on.
    pub(super) fn title(&self) -> String {
        let setup = &self.setup;
        format!("{}, {}, {}", setup.load, setup.place(), setup.describe())
    }

    fn latencies(&self) -> Table {
        let mut table = Table::new("|req/s|mean ms|p50|p90|p99|p99.9|max|batch|422|errors");
        for case in &self.cases {
            let run = &case.median;
            let figures = |latency: &Latency| {
                let Latency { mean_ms, p50_ms, p90_ms, p99_ms, p99_9_ms, max_ms } = latency;
                format!("{mean_ms:.2}|{p50_ms:.2}|{p90_ms:.2}|{p99_ms:.2}|{p99_9_ms:.2}|{max_ms:.2}")
            };
            let batch = known(run.calls_per_batch.map(|calls| format!("{calls:.1}")));
            table.row(&format!(
                "{}|{:.0}|{}|{batch}|{:.0} %|{}",
                case.name(),
                run.requests_per_second,
                figures(&run.latency),
                run.refused_percent(),
                run.errors.values().sum::<u64>()
            ));
            if let Some(latency) = &run.latency_with_connect {
                table.row(&format!("  with connecting||{}|||", figures(latency)));
            }
        }
        table
    }

    /// The figures of this report divided by those of `earlier`, for each case that both have.
    pub fn ratios(&self, earlier: &Report) -> String {
        let title = format!("Ratios to: {}\n", earlier.title());
        let mut table = Table::new("|req/s|mean|p50|p99|p99.9|CPU|balancer|APIs|db");
        let mut has_none = true;
        for case in &self.cases {
            let same = earlier.cases.iter().find(|other| other.connections == case.connections);
            let Some(other) = same else { continue };
            let cells = figures(case).into_iter().zip(figures(other));
            let cells = cells.map(|(figure, other)| ratio(figure, other));
            table.row(&format!("{}|{}", case.name(), cells.collect::<Vec<_>>().join("|")));
            has_none = false;
        }
        if has_none { format!("{title}no case in common\n") } else { format!("{title}{table}") }
    }
}

fn figures(case: &Case) -> [Option<f64>; 9] {
    let run = &case.median;
    let Latency { mean_ms, p50_ms, p99_ms, p99_9_ms, .. } = run.latency;
    // The balancer first, then the instances, then the databases.
    let is_api = |part: &&Part| part.name.starts_with(WEBAPI);
    let (apis, others): (Vec<&Part>, Vec<&Part>) = run.parts.iter().partition(is_api);
    [
        Some(run.requests_per_second),
        Some(mean_ms),
        Some(p50_ms),
        Some(p99_ms),
        Some(p99_9_ms),
        run.cpu_us_per_request(),
        cpu_us_per_request(others.first().copied()),
        cpu_us_per_request(apis),
        cpu_us_per_request(others.iter().skip(1).copied()),
    ]
}

fn ratio(figure: Option<f64>, other: Option<f64>) -> String {
    let ratio = figure.zip(other).filter(|(_, other)| *other > 0.0).map(|(figure, other)| figure / other);
    known(ratio.map(|ratio| format!("{ratio:.2}")))
}

pub(crate) fn parts_table(cases: &[(String, &[Part])]) -> String {
    let first = cases.first().map(|(_, parts)| *parts).filter(|parts| !parts.is_empty());
    let Some(first) = first else { return String::new() };
    let names = first.iter().map(|part| part.name.as_str()).collect::<Vec<_>>().join("|");
    let mut table = Table::new(&format!("CPU µs per request|{names}|total"));
    let rows = |table: &mut Table, cell: fn(&Part) -> Option<f64>, digits: usize| {
        for (name, parts) in cases {
            let figures = || parts.iter().map(cell);
            let cells = figures().chain([figures().sum()]);
            let cells = cells.map(|figure| known(figure.map(|figure| format!("{figure:.digits$}"))));
            table.row(&format!("{name}|{}", cells.collect::<Vec<_>>().join("|")));
        }
    };
    rows(&mut table, |part| part.cpu_us_per_request, 1);
    table.row(&format!("peak memory MB|{names}|total"));
    rows(&mut table, |part| part.memory_peak_bytes.map(|bytes| float(bytes >> 20)), 0);
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{report, run};

    #[test]
    fn tables_say_what_was_measured_and_how_it_went() {
        let mut unknown = report(&[run(12_000.4, 40.0)]);
        let text = unknown.tables();
        for expected in [
            "saturate, limits default, nginx, LANES=2, 10 s\nnginx 1.22.1\n\n",
            "                req/s  mean ms   p50   p90    p99  p99.9   max  batch   422  errors\n",
            "32 connections  12000     0.00  2.00  0.00  10.00   0.00  0.00    4.0  10 %       1\n",
            "CPU µs per request  nginx  webapi1  webapi2  postgresql  total\n",
            "32 connections       16.0      4.0      4.0        16.0   40.0\n",
            "32 connections         10       10       10          10     40\n",
            "  32 connections: 1 read\n",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
        unknown.cases[0].median.parts[0].cpu_us_per_request = None;
        let text = unknown.tables();
        assert!(text.contains("32 connections          -      4.0      4.0        16.0      -\n"), "{text}");
    }

    #[test]
    fn ratios_are_new_by_old_for_the_same_connections() {
        let (new, mut old) = (report(&[run(300.0, 30.0)]), report(&[run(200.0, 60.0)]));
        let text = new.ratios(&old);
        assert!(text.contains("saturate, limits default"), "{text}");
        let cells: Vec<&str> = text.lines().last().unwrap().split_whitespace().skip(2).collect();
        assert_eq!(cells, ["1.50", "-", "1.00", "1.00", "-", "0.50", "0.50", "0.50", "0.50"]);
        old.cases[0].connections = Some(128);
        assert!(new.ratios(&old).ends_with("no case in common\n"));
    }
}
