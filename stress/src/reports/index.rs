//! The page over all kept runs, templates/index.html: for each load, charts over time; and a table of everything.

use std::collections::BTreeMap;

use minijinja::value::{Serde, Value};
use minijinja::{Environment, context};

use super::{Kept, Row, Summary, moment};
use crate::measure::disturbance;

/// The whole HTML document. Needs nothing but itself and the pages of the runs.
pub(super) fn page(kept: &[Kept]) -> Result<String, minijinja::Error> {
    let mut loads: BTreeMap<&str, Vec<&Summary>> = BTreeMap::new();
    for Kept { summary, .. } in kept {
        loads.entry(&summary.load).or_default().push(summary);
    }
    let loads: Vec<Value> = loads.into_iter().map(|(load, runs)| section(load, &runs)).collect();
    let run = |Kept { summary, page }: &Kept| {
        let cpu: Vec<_> = summary.cases.iter().map(Row::cpu_us_per_request).collect();
        context! { summary => Serde(summary), page, moment => moment(summary.began_at_unix_s), cpu_us_per_request => cpu }
    };
    let mut environment = Environment::new();
    environment.add_filter("figure", figure);
    environment.add_template("index.html", include_str!("../../templates/index.html"))?;
    let runs: Vec<Value> = kept.iter().map(run).collect();
    environment.get_template("index.html")?.render(context! { loads, runs })
}

type Pick = fn(&Row) -> Option<f64>;

/// The charts of one load: a line for each kind of run, from 0 on, the oldest run at the left.
fn section(load: &str, runs: &[&Summary]) -> Value {
    let moments: Vec<String> = runs.iter().map(|run| moment(run.began_at_unix_s)).collect();
    let mut names: Vec<String> = Vec::new();
    for name in runs.iter().flat_map(|run| run.cases.iter().map(|case| series_name(run, case))) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let figures: [(&str, Pick); 3] = [
        ("Requests per second", |case| Some(case.requests_per_second)),
        ("p99, ms", |case| Some(case.p99_ms)),
        ("CPU µs per request, all parts", Row::cpu_us_per_request),
    ];
    let plots = figures.map(|(title, pick)| {
        let values = || runs.iter().flat_map(|run| &run.cases).filter_map(pick);
        let step = step_for(values().fold(0.0, f64::max));
        let y = |value: f64| rounded(BOTTOM - value / (step * STEPS) * (BOTTOM - TOP));
        let lines = [0.0, 1.0, 2.0, 3.0, STEPS].map(|number| number * step);
        let grid = lines.map(|value| context! { value, y => y(value) });
        let grid = if values().next().is_some() { &grid[..] } else { &[] };
        let series = |name: &String| {
            let points =
                runs.iter().zip(&moments).zip(positions(runs.len())).filter_map(|((run, moment), x)| {
                    let value =
                        run.cases.iter().find(|case| series_name(run, case) == *name).and_then(pick)?;
                    let others = disturbance(run.others_cpus);
                    Some(context! { moment, value, others, x => rounded(x), y => y(value) })
                });
            context! { name, points => points.collect::<Vec<_>>() }
        };
        context! { title, grid, series => names.iter().map(series).collect::<Vec<_>>() }
    });
    context! { name => load, moments, names, plots => plots.to_vec() }
}

/// Runs differ by more than time where any of this differs.
fn series_name(run: &Summary, case: &Row) -> String {
    let case = if case.name == WHOLE { "" } else { &format!("{}, ", case.name) };
    format!("{case}{}, {}", run.place, run.setup)
}

/// Where each run stands; a single one in the middle.
fn positions(runs: usize) -> impl Iterator<Item = f64> {
    let gaps = (1..runs).fold(0.0, |gaps, _| gaps + 1.0);
    let (first, gap) =
        if gaps > 0.0 { (LEFT, (RIGHT - LEFT) / gaps) } else { (f64::midpoint(LEFT, RIGHT), 0.0) };
    std::iter::successors(Some(first), move |x| Some(x + gap))
}

/// The least of 1, 2, 2.5 and 5 times a power of ten of which four reach `largest`.
fn step_for(largest: f64) -> f64 {
    let least = (largest / STEPS).max(f64::MIN_POSITIVE);
    let power = 10_f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0].map(|factor| factor * power);
    steps.into_iter().find(|step| *step >= least).unwrap_or(10.0 * power)
}

fn rounded(coordinate: f64) -> f64 {
    (coordinate * 10.0).round() / 10.0
}

/// With about three digits.
fn figure(value: Option<f64>) -> String {
    let Some(value) = value else { return "–".to_owned() };
    let digits = match value {
        v if v >= 100.0 || v == 0.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    if digits == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
}

/// The case that needs no name.
const WHOLE: &str = "all";
/// The first and the last run, and the ends of the axis, in the picture of 380 by 220 points.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 358.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 190.0;
const STEPS: f64 = 4.0;

#[cfg(test)]
mod tests {
    use super::super::summary::tests::summary;
    use super::*;

    fn kept(began_at_unix_s: u64) -> Kept {
        Kept { summary: Summary { began_at_unix_s, ..summary() }, page: Some("a&b.html".to_owned()) }
    }

    #[test]
    fn runs_of_one_kind_share_a_line_and_the_newest_is_the_first_row() {
        let html = page(&[kept(1_800_000_000), kept(1_800_086_400)]).unwrap();
        assert_eq!((html.matches("<h2>k6 open</h2>").count(), html.matches("<li ").count()), (1, 1));
        // Requests and p99 of both; CPU time is not known.
        assert_eq!((html.matches("<circle").count(), html.matches("not known for these").count()), (4, 1));
        let [newer, older] =
            ["2027-01-16 08:00</a>", "2027-01-15 08:00</a>"].map(|when| html.find(when).unwrap());
        assert!(newer < older);
        assert!(html.contains("href=\"a&amp;b.html\"") && html.contains("class=\"passed\""), "{html}");
        // 257.3 a second below a top of 400, at either end.
        assert!(html.contains("points=\"64.0,89.7 358.0,89.7 \""), "{html}");
        assert!(html.contains("<title>2027-01-15 08:00, http"), "{html}");
    }

    #[test]
    fn what_is_known_of_a_case_is_in_its_row_and_the_rest_a_dash() {
        let mut known = kept(1_800_000_000);
        known.summary.cases[0].refused_percent = Some(24.5);
        known.summary.others_cpus = None;
        assert!(page(&[known]).unwrap().contains(r#"<td class="n">24.5</td><td class="n">–</td>"#));
    }

    #[test]
    fn another_setup_is_another_line_and_another_load_another_section() {
        let mut slower = kept(1_800_000_001);
        slower.summary.place = "limits none".to_owned();
        let mut other = kept(1_800_000_002);
        other.summary.load = "saturate".to_owned();
        other.summary.thresholds[0].is_kept = false;
        let html = page(&[kept(1_800_000_000), slower, other]).unwrap();
        assert_eq!((html.matches("<section>").count(), html.matches("<li ").count()), (2, 3));
        assert!(page(&[]).unwrap().contains("No run has been kept yet"));
        assert!(html.contains("failed: checks rate==1"), "{html}");
        assert!(html.contains("cx=\"211.0\""), "a single run stands in the middle: {html}");
    }

    #[test]
    fn a_run_that_others_disturbed_is_a_hollow_point() {
        let [quiet, mut disturbed] = [kept(1_800_000_000), kept(1_800_086_400)];
        disturbed.summary.others_cpus = Some(1.25);
        let html = page(&[quiet, disturbed]).unwrap();
        // Requests and p99.
        assert_eq!(html.matches("<circle class=\"c0 disturbed\"").count(), 2, "{html}");
        assert_eq!(html.matches("disturbed: others used 1.25 CPU").count(), 2, "{html}");
    }

    #[test]
    fn figures_are_round_and_axes_reach_the_largest() {
        for (largest, step) in [(100.0, 25.0), (101.0, 50.0), (0.7, 0.2), (14_300.0, 5000.0), (39.0, 10.0)] {
            assert!((step_for(largest) - step).abs() < 1e-9, "{largest}: {}", step_for(largest));
        }
        assert_eq!(
            [13_812.4, 340.2, 48.82, 50.0, 9.25, 0.0].map(|value| figure(Some(value))),
            ["13812", "340", "48.8", "50", "9.25", "0"]
        );
    }
}
