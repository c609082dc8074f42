//! Figures of the book, each from one place: the table and the picture of the peers from docs/peers.tsv, the pictures of the
//! batches and of how it grows from their tables in docs/reference/performance.md.
//!
//! Format: W3C, "Scalable Vector Graphics (SVG) 1.1", basic shapes and text.

use std::fmt::Write as _;

/// What is drawn of something.
type Figure<T> = fn(&T) -> f64;

/// One system under full load, as a line of docs/peers.tsv has it.
pub(crate) struct Peer {
    name: String,
    /// Requests per second with 32 and with 128 connections.
    rates: [f64; 2],
    p99_ms: [f64; 2],
    /// CPU time per request with 32 connections: nginx, both servers, PostgreSQL, all.
    cpu_us: [f64; 4],
}

/// The lines of docs/peers.tsv.
pub(crate) fn peers(text: &str) -> Vec<Peer> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let mut fields = line.split('\t');
            let name = fields.next().expect("a name").to_owned();
            let mut number = || fields.next().expect("a field").parse::<f64>().expect("a number");
            let mut pair = || [number(), number()];
            let (rates, p99_ms) = (pair(), pair());
            let [nginx, servers, postgresql, all] = [number(), number(), number(), number()];
            Peer { name, rates, p99_ms, cpu_us: [nginx, servers, postgresql, all] }
        })
        .collect()
}

impl Peer {
    /// As docs/reference/performance.md writes the same figures.
    pub(crate) fn in_performance(&self) -> [String; 2] {
        let [low, high] = self.rates.map(thousands);
        let [nginx, servers, postgresql, all] = self.cpu_us;
        [format!("**{low} / {high}**"), format!("{nginx}, {servers}, {postgresql}, **{all}**")]
    }
}

/// The table of the first page.
pub(crate) fn peers_table(peers: &[Peer]) -> String {
    let mut table =
        "| | requests per second | p99 ms | CPU µs per request: nginx, both servers, PostgreSQL, all |\n\
                     |---|---|---|---|\n"
            .to_owned();
    for (position, peer) in peers.iter().enumerate() {
        let [low, high] = peer.rates.map(thousands);
        let [p99_low, p99_high] = peer.p99_ms;
        let [nginx, servers, postgresql, all] = peer.cpu_us.map(plain);
        let bold = if position + 1 == peers.len() { "**" } else { "" };
        writeln!(
            table,
            "| {bold}{}{bold} | {bold}{low} / {high}{bold} | {p99_low} / {p99_high} | {nginx}, {servers}, {postgresql}, {bold}{all}{bold} |",
            peer.name
        )
        .expect("writing to memory");
    }
    table
}

/// The picture of the first page: two panels of bars.
pub(crate) fn peers_picture(peers: &[Peer]) -> String {
    const ROW: f64 = 42.0;
    let height = 2.0 * (60.0 + ROW * len(peers));
    let mut svg = open(height, "Requests per second and CPU time per request, beside two peers");
    let panels: [(&str, &str, Figure<Peer>); 2] = [
        ("Requests per second", "32 connections; more is better", |peer| peer.rates[0]),
        ("CPU time per request, in microseconds", "all parts together; less is better", |peer| {
            peer.cpu_us[3]
        }),
    ];
    let mut y = 0.0;
    for (title, subtitle, figure) in panels {
        text(&mut svg, "b", LEFT, y + 20.0, title);
        text(&mut svg, "s", LEFT, y + 37.0, subtitle);
        y += 44.0;
        let most = peers.iter().map(figure).fold(0.0, f64::max);
        for (position, peer) in peers.iter().enumerate() {
            let class = if position + 1 == peers.len() { "good" } else { "box" };
            text(&mut svg, "", LEFT, y + 15.0, &peer.name);
            let width = (figure(peer) / most * 320.0).max(2.0);
            let top = y + 20.0;
            writeln!(
                svg,
                r#"<rect x="{LEFT}" y="{top}" width="{width:.1}" height="16" rx="3" class="{class}"/>"#
            )
            .expect("writing to memory");
            text(&mut svg, "b", LEFT + 8.0 + width, y + 33.0, &plain(figure(peer)));
            y += ROW;
        }
        y += 16.0;
    }
    svg + "</svg>\n"
}

/// One point of the sweep: calls per batch at most, and CPU time per request of all parts and of PostgreSQL.
struct Point {
    calls_max: f64,
    all_us: f64,
    postgresql_us: f64,
}

/// The row of one lane with one batch in flight from the table of the sweep in docs/reference/performance.md.
fn sweep(performance: &str) -> Vec<Point> {
    let head =
        performance.lines().find(|line| line.starts_with("| `LANES` |")).expect("the table of the sweep");
    let row = performance.lines().find(|line| line.starts_with("| 1 | 1 |")).expect("its first row");
    let cells =
        |line: &str| line.trim_matches('|').split('|').skip(2).map(|cell| cell.trim().to_owned()).collect();
    let (head, row): (Vec<String>, Vec<String>) = (cells(head), cells(row));
    let points = head.iter().zip(&row).map(|(head, cell)| {
        let calls_max = head.trim_matches('`').strip_prefix("BATCH_CALLS_MAX`=").expect("a setting");
        let figures: Vec<f64> = cell.split(" · ").map(|figure| figure.parse().expect("a number")).collect();
        Point {
            calls_max: calls_max.parse().expect("a number"),
            all_us: figures[1],
            postgresql_us: figures[2],
        }
    });
    points.collect()
}

/// What a request costs, by the size of the batches.
pub(crate) fn batches_picture(performance: &str) -> String {
    let points = sweep(performance);
    let mut svg = open(300.0, "CPU time per request falls as batches grow");
    text(&mut svg, "b", LEFT, 20.0, "CPU time per request, in microseconds");
    let most = 100.0;
    let x_of = |position: usize| 56.0 + 62.0 * f64::from(u32::try_from(position).expect("few"));
    let y_of = |us: f64| 260.0 - us / most * 200.0;
    for step in 0..=4 {
        let us = f64::from(step) * 25.0;
        let y = y_of(us);
        writeln!(svg, r#"<line x1="36" x2="392" y1="{y:.1}" y2="{y:.1}" class="line" opacity="0.35"/>"#)
            .expect("writing to memory");
        text(&mut svg, "s end", 30.0, y + 4.0, &plain(us));
    }
    for (position, point) in points.iter().enumerate() {
        text(&mut svg, "s middle", x_of(position), 278.0, &plain(point.calls_max));
    }
    text(&mut svg, "s end", 392.0, 294.0, "most requests in a batch: BATCH_CALLS_MAX");
    let series: [(&str, &str, f64, Figure<Point>); 2] = [
        ("all parts", "g", LEFT, |point| point.all_us),
        ("of it PostgreSQL", "w", 80.0, |point| point.postgresql_us),
    ];
    for (name, color, x, figure) in series {
        text(&mut svg, &format!("b {color}t"), x, 38.0, name);
        let line: Vec<String> = points
            .iter()
            .enumerate()
            .map(|(position, point)| format!("{:.1},{:.1}", x_of(position), y_of(figure(point))))
            .collect();
        writeln!(svg, r#"<polyline points="{}" class="{color}a"/>"#, line.join(" "))
            .expect("writing to memory");
        for (position, point) in points.iter().enumerate() {
            let (x, y) = (x_of(position), y_of(figure(point)));
            writeln!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" class="{color}t"/>"#)
                .expect("writing to memory");
            text(&mut svg, "s middle", x, y - 8.0, &plain(figure(point)));
        }
        assert!(points.iter().all(|point| figure(point) < most), "the axis ends at {most}");
    }
    svg + "</svg>\n"
}

/// What a request costs, by what was added: a bar for each row of the table "How it grows" in docs/reference/performance.md.
pub(crate) fn growth_picture(performance: &str) -> String {
    const ROW: f64 = 40.0;
    let section = performance.split("## How it grows").nth(1).expect("the section");
    let table = section.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let rows: Vec<&str> = table.take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 4, "the table is short");
    let mut bars = String::new();
    let mut y = 46.0;
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [what, _requests, batch, costs] = cells[..] else { panic!("four columns in {row}") };
        let costs: Vec<f64> =
            costs.split(", ").map(|cost| cost.trim_matches('*').parse().expect("a number")).collect();
        let [nginx, instances, postgresql, all] = costs[..] else { panic!("four costs in {row}") };
        let name = what.replace('`', "").replace("--set ", "");
        text(&mut bars, "", LEFT, y + 12.0, &format!("{name} ({batch})"));
        let (rest_width, width) = ((nginx + instances) * 3.6, all * 3.6);
        let top = y + 17.0;
        for (x, width, class) in [(LEFT, rest_width, "box"), (LEFT + rest_width, width - rest_width, "good")]
        {
            writeln!(
                bars,
                r#"<rect x="{x:.1}" y="{top:.1}" width="{width:.1}" height="14" class="{class}"/>"#
            )
            .expect("writing to memory");
        }
        text(&mut bars, "b", LEFT + width + 6.0, y + 29.0, &plain(all));
        assert!((nginx + instances + postgresql - all).abs() < 0.2, "{row} does not add up");
        y += ROW;
    }
    let mut svg = open(y + 4.0, "What a request costs, by what was added");
    text(&mut svg, "b", LEFT, 20.0, "CPU time per request, in microseconds");
    text(&mut svg, "s", LEFT, 37.0, "the right part is PostgreSQL's; in brackets: calls in a batch");
    svg + &bars + "</svg>\n"
}

/// The left edge of what is drawn.
const LEFT: f64 = 8.0;

/// Colours for a light page and for a dark one, as in the other pictures of the book.
const COLOURS: &str = "\
text { font: 13px sans-serif; fill: #1e293b }
.b { font-weight: bold } .s { font-size: 12px; fill: #475569 } .middle { text-anchor: middle } .end { text-anchor: end }
.line { stroke: #64748b } .good { fill: #0f766e } .box { fill: #94a3b8 }
.gt { fill: #0f766e } .wt { fill: #92400e }
.ga { stroke: #0f766e; stroke-width: 2; fill: none } .wa { stroke: #b45309; stroke-width: 2; fill: none }
@media (prefers-color-scheme: dark) {
text { fill: #e2e8f0 } .s { fill: #a8b3c4 } .line { stroke: #94a3b8 } .good { fill: #2dd4bf } .box { fill: #64748b }
.gt { fill: #5eead4 } .wt { fill: #fbbf24 } .ga { stroke: #5eead4 } .wa { stroke: #fbbf24 }
}
";

/// A picture that is as wide as a phone, so that its text can be read there, and has no ground of its own, so that it fits a
/// page of any theme.
fn open(height: f64, title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 400 {height}\" width=\"520\" height=\"{:.0}\">\n\
         <title>{title}</title>\n<style>\n{COLOURS}</style>\n",
        height * 1.3
    )
}

fn text(svg: &mut String, class: &str, x: f64, y: f64, text: &str) {
    writeln!(svg, r#"<text x="{x:.1}" y="{y:.1}" class="{class}">{text}</text>"#).expect("writing to memory");
}

fn len(peers: &[Peer]) -> f64 {
    f64::from(u32::try_from(peers.len()).expect("few"))
}

/// `15,274`
fn thousands(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    match digits.len() {
        4.. => format!("{},{}", &digits[..digits.len() - 3], &digits[digits.len() - 3..]),
        _ => digits,
    }
}

/// As it is, with a comma between thousands.
fn plain(figure: f64) -> String {
    if figure >= 1000.0 { thousands(figure) } else { figure.to_string() }
}
