//! Text in columns.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

/// Rows of cells, each row written as a line with `|` between its cells.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Vec<String>>);

impl Table {
    pub(crate) fn new(head: &str) -> Table {
        let mut table = Table::default();
        table.row(head);
        table
    }

    pub(crate) fn row(&mut self, cells: &str) {
        self.0.push(cells.split('|').map(str::to_owned).collect());
    }
}

/// The first column to the left, all others to the right.
impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Table(rows) = self;
        let width =
            |column: usize| rows.iter().filter_map(|row| Some(row.get(column)?.chars().count())).max();
        for row in rows {
            let mut line = format!("{:<1$}", row[0], width(0).unwrap_or(0));
            for (column, cell) in row.iter().enumerate().skip(1) {
                line = format!("{line}  {cell:>0$}", width(column).unwrap_or(0));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// What is not known is a dash.
pub(crate) fn known(cell: Option<String>) -> String {
    cell.unwrap_or_else(|| "-".to_owned())
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

/// The middle one, or the upper of the two in the middle, and the largest.
pub(crate) fn spread(values: impl Iterator<Item = f64>) -> String {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let median = values.get(values.len() / 2).zip(values.last());
    known(median.map(|(median, most)| format!("{median:.0}, {most:.0}")))
}

pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "no count here reaches 2^53")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new("|req/s|µs");
        table.row("32 connections|1|12.5");
        assert_eq!(table.to_string(), "                req/s    µs\n32 connections      1  12.5\n");
    }
}
