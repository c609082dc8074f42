//! The page over all kept runs: for each load, charts over time; and a table of everything.

use std::collections::BTreeMap;

use super::plot::{COLORS, Plot, Series, figure};
use super::{Kept, Row, Summary, escaped, moment};

/// The whole HTML document. Needs nothing but itself and the pages of the runs.
pub(super) fn page(kept: &[Kept]) -> String {
    let mut loads: BTreeMap<&str, Vec<&Summary>> = BTreeMap::new();
    for Kept { summary, .. } in kept {
        loads.entry(&summary.load).or_default().push(summary);
    }
    let charts: String = loads.into_iter().map(|(load, runs)| charts(load, &runs)).collect();
    let rows: String = kept.iter().rev().map(rows).collect();
    let empty = if kept.is_empty() { "<p>No run has been kept yet.</p>\n" } else { "" };
    format!("{HEAD}{empty}{charts}{TABLE_HEAD}{rows}</table>\n</div>\n</main>\n")
}

/// A figure of a case, where it has it.
type Pick = fn(&Row) -> Option<f64>;

/// The section of one load.
fn charts(load: &str, runs: &[&Summary]) -> String {
    let moments: Vec<String> = runs.iter().map(|run| moment::minute(run.began_at_unix_s)).collect();
    let mut names: Vec<String> = Vec::new();
    for name in runs.iter().flat_map(|run| run.cases.iter().map(|case| series_name(run, case))) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let plot = |(title, figure): (&str, Pick)| {
        let of_run = |run: &Summary, name: &str| {
            run.cases.iter().find(|case| series_name(run, case) == name).and_then(figure)
        };
        let series = names.iter().map(|name| Series {
            name: name.clone(),
            figures: runs.iter().map(|run| of_run(run, name)).collect(),
        });
        Plot { title, moments: &moments, series: &series.collect::<Vec<_>>() }.svg()
    };
    let figures: [(&str, Pick); 3] = [
        ("Requests per second", |case| Some(case.requests_per_second)),
        ("p99, ms", |case| Some(case.p99_ms)),
        ("CPU µs per request, all parts", Row::cpu_us_per_request),
    ];
    let plots: String = figures.into_iter().map(plot).collect();
    let legend = names.iter().enumerate().map(|(number, name)| {
        format!("<li class=\"c{}\"><span>{}</span></li>\n", number % COLORS, escaped(name))
    });
    format!(
        "<section>\n<h2>{}</h2>\n<div class=\"plots\">\n{plots}</div>\n<ul>\n{}</ul>\n</section>\n",
        escaped(load),
        legend.collect::<String>()
    )
}

/// Runs differ by more than time where any of this differs.
fn series_name(run: &Summary, case: &Row) -> String {
    let case = if case.name == WHOLE { "" } else { &format!("{}, ", case.name) };
    format!("{case}{}, {}", run.place, run.setup)
}

/// A run in the table: one row for each case.
fn rows(kept: &Kept) -> String {
    let Kept { summary: run, page } = kept;
    let when = escaped(&moment::minute(run.began_at_unix_s));
    let when = match page {
        Some(page) => format!("<a href=\"{}\">{when}</a>", escaped(page)),
        None => when,
    };
    let row = |case: &Row| {
        let case_name = if case.name == WHOLE { String::new() } else { escaped(&case.name) };
        let parts = case
            .parts
            .iter()
            .filter_map(|part| Some(format!("{} {}", part.name, figure(part.cpu_us_per_request?))));
        let parts = escaped(&parts.collect::<Vec<_>>().join(", "));
        let cells = [
            figure(case.requests_per_second),
            figure(case.p50_ms),
            figure(case.p99_ms),
            case.cpu_us_per_request().map_or_else(|| "–".to_owned(), figure),
            run.others_cpus.map_or_else(|| "–".to_owned(), figure),
        ];
        let cells = cells.map(|cell| format!("<td class=\"n\">{cell}</td>")).concat();
        format!(
            "<tr title=\"{}\"><td>{when}</td><td>{}</td><td>{}, {}</td><td>{case_name}</td>{cells}\
             <td class=\"parts\">{parts}</td>{}</tr>\n",
            escaped(&run.machine),
            escaped(&run.load),
            escaped(&run.place),
            escaped(&run.setup),
            verdict(run, case)
        )
    };
    run.cases.iter().map(row).collect()
}

/// Its cell.
fn verdict(run: &Summary, case: &Row) -> String {
    let broken = run.thresholds.iter().filter(|threshold| !threshold.is_kept);
    let broken = broken.map(|threshold| format!("{} {}", threshold.metric, threshold.limit));
    let broken = broken.collect::<Vec<_>>().join(", ");
    match (run.thresholds.is_empty(), case.errors) {
        (_, errors) if errors > 0 => format!("<td class=\"failed\">{errors} errors</td>"),
        (true, _) => "<td>no errors</td>".to_owned(),
        (false, _) if broken.is_empty() => "<td class=\"passed\">passed</td>".to_owned(),
        (false, _) => format!("<td class=\"failed\">failed: {}</td>", escaped(&broken)),
    }
}

/// The case that needs no name.
const WHOLE: &str = "all";

const HEAD: &str = r#"<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Runs of the bench</title>
<style>
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5c6570; --paper: #fff; --line: #d9dee3;
  --good: #00734f; --bad: #b3261e;
  --c0: #0072b2; --c1: #b35900; --c2: #00734f; --c3: #a8327d; --c4: #7a5c00; --c5: #5b4bb0; --c6: #56789a; --c7: #8a4500; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --soft: #9aa5b1; --paper: #15191d; --line: #333b43; --good: #4fc99b; --bad: #ff8a80;
    --c0: #5ab4e5; --c1: #ff9d47; --c2: #4fc99b; --c3: #e58cc6; --c4: #d9b84a; --c5: #a99cf0; --c6: #9cbbd8; --c7: #d1916a; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 24px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 32px 0 8px; }
p { color: var(--soft); margin: 0 0 8px; max-width: 75ch; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 16px; }
svg { width: 100%; height: auto; font-size: 12px; }
svg text { fill: var(--soft); } svg .title { fill: var(--ink); font-weight: 600; font-size: 13px; }
svg line { stroke: var(--line); }
polyline { fill: none; stroke: var(--c); stroke-width: 2; } circle { fill: var(--c); }
.c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); } .c3 { --c: var(--c3); }
.c4 { --c: var(--c4); } .c5 { --c: var(--c5); } .c6 { --c: var(--c6); } .c7 { --c: var(--c7); }
ul { list-style: none; margin: 8px 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: 4px 24px; font-size: 13px; }
li::before { content: ""; display: inline-block; width: 10px; height: 10px; border-radius: 5px; margin-right: 8px;
  background: var(--c); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; width: 100%; }
th, td { text-align: left; padding: 6px 12px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
td:nth-child(-n+2) { white-space: nowrap; } a { color: var(--c0); }
.n { text-align: right; font-variant-numeric: tabular-nums; } .parts { color: var(--soft); }
.passed { color: var(--good); } .failed { color: var(--bad); font-weight: 600; }
</style>
<main>
<h1>Runs of the bench</h1>
<p>Each run that was kept, the oldest at the left. Lines join runs that differ in nothing but time; a point says when
pointed at. Latencies depend on what else the machine did, CPU time per request much less.</p>
"#;
const TABLE_HEAD: &str = "<h2>All runs</h2>\n<p>Times are UTC; they lead to the report or the chart of the run.</p>\n\
<div class=\"wide\">\n<table>\n<tr><th>When</th><th>Load</th><th>Setup</th><th>Case</th><th class=\"n\">req/s</th>\
<th class=\"n\">p50 ms</th><th class=\"n\">p99 ms</th><th class=\"n\">CPU µs per request</th>\
<th class=\"n\">CPUs used by others</th><th>CPU µs by part</th><th>Verdict</th></tr>\n";

#[cfg(test)]
mod tests {
    use super::super::summary::tests::summary;
    use super::*;

    fn kept(began_at_unix_s: u64) -> Kept {
        Kept { summary: Summary { began_at_unix_s, ..summary() }, page: Some("a&b.html".to_owned()) }
    }

    #[test]
    fn runs_of_one_kind_share_a_line_and_the_newest_is_the_first_row() {
        let html = page(&[kept(1_800_000_000), kept(1_800_086_400)]);
        assert_eq!((html.matches("<h2>k6 open</h2>").count(), html.matches("<li ").count()), (1, 1));
        // Requests and p99 of both; CPU time is not known.
        assert_eq!((html.matches("<circle").count(), html.matches("not known for these").count()), (4, 1));
        let [newer, older] =
            ["2027-01-16 08:00</a>", "2027-01-15 08:00</a>"].map(|when| html.find(when).unwrap());
        assert!(newer < older);
        assert!(html.contains("href=\"a&amp;b.html\"") && html.contains("class=\"passed\""), "{html}");
    }

    #[test]
    fn another_setup_is_another_line_and_another_load_another_section() {
        let mut slower = kept(1_800_000_001);
        slower.summary.place = "limits none".to_owned();
        let mut other = kept(1_800_000_002);
        other.summary.load = "saturate".to_owned();
        other.summary.thresholds[0].is_kept = false;
        let html = page(&[kept(1_800_000_000), slower, other]);
        assert_eq!((html.matches("<section>").count(), html.matches("<li ").count()), (2, 3));
        assert!(html.contains("failed: checks rate==1"), "{html}");
    }

    #[test]
    fn a_page_of_nothing_says_so() {
        assert!(page(&[]).contains("No run has been kept yet"));
    }
}
