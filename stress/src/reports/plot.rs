//! One figure of several runs as a picture: a line for each series, from 0 on, the oldest run at the left.
//!
//! Format: W3C, "Scalable Vector Graphics (SVG) 1.1". Colours and fonts come from the page around it.

use std::fmt::Write as _;

use super::escaped;

/// What is drawn.
pub(super) struct Plot<'a> {
    pub(super) title: &'a str,
    /// When each run was made, as people read it.
    pub(super) moments: &'a [String],
    pub(super) series: &'a [Series],
}

/// The figures of what can be compared.
pub(super) struct Series {
    pub(super) name: String,
    /// One for each moment; `None` where there was no such run, or where it has no such figure.
    pub(super) figures: Vec<Option<f64>>,
}

impl Plot<'_> {
    /// The `<svg>` element; a note in place of a picture when there is no figure at all.
    pub(super) fn svg(&self) -> String {
        let figures = || self.series.iter().flat_map(|series| series.figures.iter().flatten().copied());
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n\
             <text class=\"title\" x=\"{LEFT}\" y=\"16\">{title}</text>\n",
            title = escaped(self.title)
        );
        if figures().next().is_none() {
            text(&mut svg, LEFT, TOP + 20.0, "start", "not known for these runs");
            return svg + "</svg>\n";
        }
        let step = step_for(figures().fold(0.0, f64::max));
        self.draw_grid(&mut svg, step);
        for (number, series) in self.series.iter().enumerate() {
            self.draw(&mut svg, number % COLORS, series, step * STEPS);
        }
        svg + "</svg>\n"
    }

    fn draw_grid(&self, svg: &mut String, step: f64) {
        let mut value = 0.0;
        while value <= step * STEPS {
            let y = y_of(value, step * STEPS);
            line(svg, y);
            text(svg, LEFT - 6.0, y + 4.0, "end", &figure(value));
            value += step;
        }
        let below = HEIGHT - 6.0;
        match self.moments {
            [] => {}
            [only] => text(svg, f64::midpoint(LEFT, RIGHT), below, "middle", only),
            [first, .., last] => {
                text(svg, LEFT, below, "start", first);
                text(svg, RIGHT, below, "end", last);
            }
        }
    }

    fn draw(&self, svg: &mut String, color: usize, series: &Series, top: f64) {
        let known = || {
            let at = self.moments.iter().zip(self.positions()).zip(&series.figures);
            at.filter_map(|((moment, x), value)| Some((moment, x, (*value)?)))
        };
        let points = known().map(|(_, x, value)| format!("{x:.1},{:.1}", y_of(value, top)));
        let points = points.collect::<Vec<_>>().join(" ");
        // Writing to memory does not fail.
        let _ = writeln!(svg, "<polyline class=\"c{color}\" points=\"{points}\"/>");
        for (moment, x, value) in known() {
            let y = y_of(value, top);
            let label = escaped(&format!("{moment}, {}: {}", series.name, figure(value)));
            let _ = writeln!(
                svg,
                "<circle class=\"c{color}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{label}</title></circle>"
            );
        }
    }

    /// Where each run stands; a single one in the middle.
    fn positions(&self) -> impl Iterator<Item = f64> {
        let gaps = self.moments.iter().skip(1).fold(0.0, |gaps, _| gaps + 1.0);
        let (first, gap) = if gaps > 0.0 {
            (LEFT + PADDING, (RIGHT - LEFT - 2.0 * PADDING) / gaps)
        } else {
            (f64::midpoint(LEFT, RIGHT), 0.0)
        };
        std::iter::successors(Some(first), move |x| Some(x + gap))
    }
}

fn y_of(value: f64, top: f64) -> f64 {
    BOTTOM - value / top * (BOTTOM - TOP)
}

fn line(svg: &mut String, y: f64) {
    let _ = writeln!(svg, "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let text = escaped(text);
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

/// The least of 1, 2, 2.5 and 5 times a power of ten of which four reach `largest`.
fn step_for(largest: f64) -> f64 {
    let least = (largest / STEPS).max(f64::MIN_POSITIVE);
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 2.5, 5.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= least)
        .unwrap_or(10.0 * power)
}

/// With about three digits.
pub(super) fn figure(value: f64) -> String {
    let digits = match value {
        v if v >= 100.0 || v == 0.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    if digits == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
}

/// How many colours the page has, `c0` and up.
pub(super) const COLORS: usize = 8;
const WIDTH: f64 = 380.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 370.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 190.0;
/// Between the ends of the axis and the first and the last run.
const PADDING: f64 = 12.0;
const STEPS: f64 = 4.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn svg(moments: &[&str], figures: &[Option<f64>]) -> String {
        let moments: Vec<String> = moments.iter().map(|moment| (*moment).to_owned()).collect();
        let series = [Series { name: "a<b".to_owned(), figures: figures.to_vec() }];
        Plot { title: "p99", moments: &moments, series: &series }.svg()
    }

    #[test]
    fn each_known_figure_is_a_point_above_its_run() {
        let svg = svg(&["one", "two", "three"], &[Some(100.0), None, Some(50.0)]);
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains("points=\"64.0,34.0 358.0,112.0\""), "{svg}");
        assert!(svg.contains("<title>three, a&lt;b: 50</title>"), "{svg}");
        assert!(svg.contains(">one</text>") && svg.contains(">three</text>"), "{svg}");
    }

    #[test]
    fn one_run_stands_in_the_middle_and_none_is_said() {
        assert!(svg(&["one"], &[Some(3.0)]).contains("cx=\"211.0\""));
        assert!(svg(&["one"], &[None]).contains("not known"));
        assert!(svg(&["one"], &[Some(0.0)]).contains("cy=\"190.0\""));
    }

    #[test]
    fn the_axis_has_round_figures_that_reach_the_largest() {
        for (largest, step) in [(100.0, 25.0), (101.0, 50.0), (0.7, 0.2), (14_300.0, 5000.0), (39.0, 10.0)] {
            assert!((step_for(largest) - step).abs() < 1e-9, "{largest}: {}", step_for(largest));
        }
    }

    #[test]
    fn figures_have_about_three_digits() {
        assert_eq!(
            [13_812.4, 340.2, 48.82, 50.0, 9.25, 0.0].map(figure),
            ["13812", "340", "48.8", "50", "9.25", "0"]
        );
    }
}
