//! A summary of k6's challenge as tables for the terminal.

use super::{Row, Summary};
use crate::measure::{disturbance, parts_table};
use crate::table::Table;

impl Summary {
    pub fn tables(&self) -> String {
        let sections = [
            format!("{}, {}, {}\n", self.load, self.place, self.setup),
            self.latencies(),
            self.parts(),
            self.verdicts(),
        ];
        sections.into_iter().filter(|section| !section.is_empty()).collect::<Vec<_>>().join("\n")
    }

    fn latencies(&self) -> String {
        let mut table = Table::new("|requests|req/s|p50 ms|p99|max");
        for Row { name, requests, requests_per_second, p50_ms, p99_ms, max_ms, .. } in
            self.scenarios.iter().chain(&self.cases)
        {
            table.row(&format!(
                "{name}|{requests}|{requests_per_second:.1}|{p50_ms:.1}|{p99_ms:.1}|{max_ms:.1}"
            ));
        }
        table.to_string()
    }

    fn parts(&self) -> String {
        let cases = self.cases.iter().filter(|case| !case.parts.is_empty());
        parts_table(&cases.map(|case| (case.name.clone(), case.parts.as_slice())).collect::<Vec<_>>())
    }

    fn verdicts(&self) -> String {
        let mut lines: Vec<String> = Vec::new();
        for threshold in &self.thresholds {
            let verdict = if threshold.is_kept { "ok    " } else { "FAILED" };
            lines.push(format!("{verdict}  {} {}: {}", threshold.metric, threshold.limit, threshold.value));
        }
        for check in &self.failed_checks {
            let asked = check.fails + check.passes;
            lines.push(format!("FAILED  {}: {} of {asked} times", check.name, check.fails));
        }
        lines.push(format!("{} pairs of statements were compared with the ledger", self.balances_compared));
        if let Some(ledger) = &self.ledger {
            lines.push(format!(
                "the ledger adds up: {} rows for {} transactions answered 200",
                ledger.rows, ledger.answered_200
            ));
        }
        if let Some(cpus) = disturbance(self.others_cpus) {
            lines.push(format!(
                "others used {cpus:.2} CPU meanwhile, so these figures are worse than they could be: repeat it later"
            ));
        }
        lines.join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::summary;
    use crate::ledger::Ledger;
    use crate::measure::Part;
    use crate::reports::FailedCheck;

    #[test]
    fn tables_say_how_it_went() {
        let mut summary = summary();
        let text = summary.tables();
        for expected in [
            "k6 open, http://localhost:9999, 240 s, scale 1\n\n",
            "        requests  req/s  p50 ms  p99   max\n",
            "debits     40000  170.0     1.4  9.0  40.0\n",
            "all        62000  257.3     1.5  9.2  40.0\n\nok      checks rate==1: 1\n",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }

        summary.thresholds[0].is_kept = false;
        summary.failed_checks.push(FailedCheck { name: "a rule".to_owned(), fails: 2, passes: 3 });
        summary.others_cpus = Some(1.5);
        summary.ledger = Some(Ledger { rows: 7, answered_200: 7, answered_late: 0 });
        let part = Part {
            name: "nginx".to_owned(),
            cpu_us_per_request: Some(14.0),
            memory_peak_bytes: Some(9 << 20),
        };
        summary.cases[0].parts.push(part);
        let text = summary.tables();
        for expected in [
            "FAILED  checks rate==1",
            "FAILED  a rule: 2 of 5 times\n",
            "CPU µs per request  nginx  total\nall                  14.0   14.0\n",
            "others used 1.50 CPU meanwhile",
            "the ledger adds up: 7 rows for 7 transactions",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
    }
}
