//! A report as a picture: for each case, CPU time per request stacked by part, and requests per second.
//!
//! Format: W3C, "Scalable Vector Graphics (SVG) 1.1", basic shapes and text.

use std::fmt::{self, Write};

use super::report::Report;

impl Report {
    /// The whole SVG document.
    pub fn chart(&self) -> String {
        let mut svg = String::new();
        let drawn = self.draw(&mut svg);
        debug_assert!(drawn.is_ok(), "writing to memory does not fail");
        svg
    }

    fn draw(&self, svg: &mut String) -> fmt::Result {
        let cpu_max =
            self.cases.iter().filter_map(|case| case.median.cpu_us_per_request()).fold(1.0, f64::max);
        let rate_max = self.cases.iter().map(|case| case.median.requests_per_second).fold(1.0, f64::max);
        let rows = self.cases.iter().fold(0.0, |rows, _| rows + 1.0);
        let section_height = TITLE_HEIGHT + rows * ROW_HEIGHT;
        let height = MARGIN * 2.0 + TITLE_HEIGHT * 2.0 + section_height * 2.0;
        writeln!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">"
        )?;
        writeln!(svg, "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>")?;
        let mut y = MARGIN + TITLE_HEIGHT / 2.0;
        text(svg, MARGIN, y, "bold", &self.title())?;

        y += TITLE_HEIGHT;
        text(svg, MARGIN, y, "bold", "CPU µs per request")?;
        self.legend(svg, y)?;
        y += TITLE_HEIGHT / 2.0;
        for case in &self.cases {
            label(svg, y, &case.name())?;
            let mut x = BARS_X;
            for (part, color) in case.median.parts.iter().zip(COLORS) {
                let cpu_us = part.cpu_us_per_request.unwrap_or(0.0);
                let width = cpu_us / cpu_max * BARS_WIDTH;
                bar(svg, x, y, width, color)?;
                if width > FIGURE_WIDTH {
                    let figure = format!("{cpu_us:.1}");
                    write!(svg, "<g fill=\"white\" text-anchor=\"middle\">")?;
                    text(svg, x + width / 2.0, y + BASELINE, "normal", &figure)?;
                    writeln!(svg, "</g>")?;
                }
                x += width;
            }
            let total = case.median.cpu_us_per_request();
            let total = total.map_or_else(|| "not accounted".to_owned(), |total| format!("{total:.1}"));
            text(svg, x + GAP, y + BASELINE, "normal", &total)?;
            y += ROW_HEIGHT;
        }

        y += TITLE_HEIGHT;
        text(svg, MARGIN, y, "bold", "Requests per second")?;
        y += TITLE_HEIGHT / 2.0;
        for case in &self.cases {
            label(svg, y, &case.name())?;
            let rate = case.median.requests_per_second;
            let width = rate / rate_max * BARS_WIDTH;
            bar(svg, BARS_X, y, width, RATE_COLOR)?;
            text(svg, BARS_X + width + GAP, y + BASELINE, "normal", &format!("{rate:.0}"))?;
            y += ROW_HEIGHT;
        }
        writeln!(svg, "</svg>")
    }

    fn legend(&self, svg: &mut String, y: f64) -> fmt::Result {
        let mut x = BARS_X;
        for (part, color) in self.cases.iter().take(1).flat_map(|case| &case.median.parts).zip(COLORS) {
            writeln!(
                svg,
                "<rect x=\"{x}\" y=\"{}\" width=\"11\" height=\"11\" fill=\"{color}\"/>",
                y - 10.0
            )?;
            text(svg, x + 16.0, y, "normal", &part.name)?;
            x += LEGEND_STEP;
        }
        Ok(())
    }
}

fn bar(svg: &mut String, x: f64, y: f64, width: f64, color: &str) -> fmt::Result {
    writeln!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR_HEIGHT}\" fill=\"{color}\"/>"
    )
}

/// The name of a row, to the left of its bar.
fn label(svg: &mut String, y: f64, name: &str) -> fmt::Result {
    write!(svg, "<g text-anchor=\"end\">")?;
    text(svg, BARS_X - GAP, y + BASELINE, "normal", name)?;
    writeln!(svg, "</g>")
}

fn text(svg: &mut String, x: f64, y: f64, weight: &str, text: &str) -> fmt::Result {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    writeln!(svg, "<text x=\"{x:.1}\" y=\"{y}\" font-weight=\"{weight}\">{text}</text>")
}

const WIDTH: f64 = 860.0;
const MARGIN: f64 = 20.0;
const TITLE_HEIGHT: f64 = 30.0;
const ROW_HEIGHT: f64 = 34.0;
const BAR_HEIGHT: f64 = 24.0;
/// Of a text in the middle of a bar, from the bar's top.
const BASELINE: f64 = 17.0;
const GAP: f64 = 8.0;
const BARS_X: f64 = 170.0;
/// Leaves room for the figure behind the longest bar.
const BARS_WIDTH: f64 = 580.0;
/// What a figure inside a bar needs.
const FIGURE_WIDTH: f64 = 36.0;
const LEGEND_STEP: f64 = 120.0;
/// nginx, both instances, the database. Told apart with any colour vision, and white reads on each.
const COLORS: [&str; 4] = ["#0072b2", "#b35900", "#8a4500", "#00734f"];
const RATE_COLOR: &str = "#555555";

#[cfg(test)]
mod tests {
    use super::super::report::tests::{report, run};

    #[test]
    fn each_part_has_its_bar_and_figure() {
        let svg = report(&[run(12_000.0, 40.0)]).chart();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
        assert_eq!(svg.matches("height=\"24\"").count(), 5, "four parts and the rate");
        // 0.4 of the longest bar's 580.
        assert!(svg.contains("width=\"232.0\"") && svg.contains(">16.0</text>"), "{svg}");
        assert!(svg.contains(">40.0</text>") && svg.contains(">12000</text>"), "{svg}");
    }

    #[test]
    fn text_cannot_break_the_document() {
        let mut report = report(&[run(1.0, 1.0)]);
        report.setup.settings.insert("A".to_owned(), "<&>".to_owned());
        assert!(report.chart().contains("A=&lt;&amp;>"));
    }
}
