//! Draws folded stacks as SVG, with inferno.

use inferno::differential;
use inferno::flamegraph::color::MultiPalette;
use inferno::flamegraph::{self, Options, Palette};

use super::{Folded, View};
use crate::Error;

/// One profile: the wider a function, the more of the weight is its own or that of what it calls.
pub fn flamegraph(folded: &Folded, view: View, subtitle: &str) -> Result<String, Error> {
    let title = match view {
        View::OnCpu => "Where the server's CPU time goes",
        View::OffCpu => "Where the server waits",
    };
    draw(&folded.text(), &mut options(title, view, subtitle))
}

/// Two profiles: the widths are those of the second, red is what grew and blue what shrank. The first is scaled to the
/// weight of the second before, so that it is shares that are compared.
pub fn difference(before: &Folded, after: &Folded, view: View, subtitle: &str) -> Result<String, Error> {
    let mut both = Vec::new();
    let scaled = differential::Options { normalize: true, ..differential::Options::default() };
    differential::from_readers(scaled, before.text().as_bytes(), after.text().as_bytes(), &mut both)
        .map_err(Error::io("compare two profiles"))?;
    let mut options = options("What has changed: red grew, blue shrank", view, subtitle);
    draw(&String::from_utf8_lossy(&both), &mut options)
}

fn options<'a>(title: &str, view: View, subtitle: &str) -> Options<'a> {
    let mut options = Options::default();
    options.title = title.into();
    options.subtitle = Some(subtitle.to_owned());
    options.count_name = view.unit().into();
    options.colors = Palette::Multi(MultiPalette::Rust);
    // The same function has the same colour in every picture.
    options.deterministic = true;
    // What is narrower cannot be seen, and would be most of the file.
    options.min_width = WIDTH_MIN_PERCENT;
    options
}

fn draw(lines: &str, options: &mut Options<'_>) -> Result<String, Error> {
    let mut svg = Vec::new();
    flamegraph::from_lines(options, lines.lines(), &mut svg).map_err(Error::io("draw a flamegraph"))?;
    Ok(String::from_utf8_lossy(&svg).replacen("</style>", &format!("{THEME}</style>"), 1))
}

/// On a dark page, and on a narrow one, which the subtitle does not fit.
const THEME: &str = "\
@media (prefers-color-scheme: dark) {
#background stop { stop-color: #1b2129 }
#title, #subtitle, #details, #unzoom, #search, #matched { fill: #e2e8f0 }
}
@media (max-width: 700px) { #title { font-size: 13px } #subtitle { display: none } }
";

const WIDTH_MIN_PERCENT: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_names_what_is_wide_and_a_difference_compares_shares() {
        let folded = |text| Folded::parse(text).unwrap();
        let profile = folded("run;turn;wait 6000\nrun;turn;send 4000\nrun;turn;rare 1\n");
        let drawn = flamegraph(&profile, View::OnCpu, "100 req/s").unwrap();
        assert!(!drawn.contains("rare"), "{drawn}");
        let (before, after) = (folded("run;wait 10\nrun;send 10\n"), folded("run;wait 25\nrun;send 75\n"));
        let compared = difference(&before, &after, View::OnCpu, "").unwrap();
        for (svg, text) in [
            (&drawn, "turn (10,001 samples"),
            (&drawn, "wait (6,000 samples, 59.99%)"),
            (&drawn, "100 req/s"),
            (&compared, "send (75 samples, 75.00%; +25.00%)"),
            (&drawn, "prefers-color-scheme: dark"),
            (&compared, "wait (25 samples, 25.00%; -25.00%)"),
        ] {
            assert!(svg.contains(text), "{text} in {svg}");
        }
        assert!(flamegraph(&Folded::default(), View::OffCpu, "").is_err());
    }
}
