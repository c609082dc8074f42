//! Figures of the book, each from one place: the table and the picture of the peers from docs/peers.tsv, the curve of the
//! batches from the table in docs/reference/performance.md.
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
    const ROW: f64 = 34.0;
    let height = 2.0 * (60.0 + ROW * len(peers)) + 10.0;
    let mut svg = open(720.0, height, "Requests per second and CPU time per request, beside three peers");
    let panels: [(&str, Figure<Peer>); 2] = [
        ("Requests per second, 32 connections (more is better)", |peer| peer.rates[0]),
        ("CPU time per request, all parts, in microseconds (less is better)", |peer| peer.cpu_us[3]),
    ];
    let mut y = 20.0;
    for (title, figure) in panels {
        y += 14.0;
        text(&mut svg, 20.0, y, "start", "bold", title);
        y += 16.0;
        let most = peers.iter().map(figure).fold(0.0, f64::max);
        for (position, peer) in peers.iter().enumerate() {
            let color = if position + 1 == peers.len() { "#0f766e" } else { "#94a3b8" };
            text(&mut svg, 200.0, y + 19.0, "end", "normal", &peer.name);
            let width = (figure(peer) / most * 400.0).max(2.0);
            writeln!(
                svg,
                r#"<rect x="210" y="{}" width="{width:.1}" height="22" rx="3" fill="{color}"/>"#,
                y + 3.0
            )
            .expect("writing to memory");
            text(&mut svg, 218.0 + width, y + 19.0, "start", "bold", &plain(figure(peer)));
            y += ROW;
        }
        y += 24.0;
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
    let mut svg = open(720.0, 340.0, "CPU time per request falls as batches grow");
    text(&mut svg, 20.0, 30.0, "start", "bold", "CPU time per request, in microseconds, by BATCH_CALLS_MAX");
    let most = 100.0;
    let x_of = |position: usize| 70.0 + 100.0 * f64::from(u32::try_from(position).expect("few"));
    let y_of = |us: f64| 290.0 - us / most * 230.0;
    for step in 0..=4 {
        let us = f64::from(step) * 25.0;
        let y = y_of(us);
        writeln!(svg, r##"<line x1="60" x2="575" y1="{y:.1}" y2="{y:.1}" stroke="#e2e8f0"/>"##)
            .expect("writing to memory");
        text(&mut svg, 52.0, y + 4.0, "end", "normal", &plain(us));
    }
    for (position, point) in points.iter().enumerate() {
        text(&mut svg, x_of(position), 312.0, "middle", "normal", &plain(point.calls_max));
    }
    let series: [(&str, &str, Figure<Point>); 2] = [
        ("all parts", "#0f766e", |point| point.all_us),
        ("of it PostgreSQL", "#b45309", |point| point.postgresql_us),
    ];
    for (name, color, figure) in series {
        let line: Vec<String> = points
            .iter()
            .enumerate()
            .map(|(position, point)| format!("{:.1},{:.1}", x_of(position), y_of(figure(point))))
            .collect();
        writeln!(
            svg,
            r#"<polyline points="{}" fill="none" stroke="{color}" stroke-width="2.5"/>"#,
            line.join(" ")
        )
        .expect("writing to memory");
        for (position, point) in points.iter().enumerate() {
            let (x, y) = (x_of(position), y_of(figure(point)));
            writeln!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" fill="{color}"/>"#)
                .expect("writing to memory");
            text(&mut svg, x, y - 9.0, "middle", "normal", &plain(figure(point)));
        }
        let last = points.last().expect("points");
        writeln!(svg, r#"<g fill="{color}">"#).expect("writing to memory");
        text(&mut svg, x_of(points.len() - 1) + 14.0, y_of(figure(last)) + 4.0, "start", "bold", name);
        writeln!(svg, "</g>").expect("writing to memory");
        assert!(points.iter().all(|point| figure(point) < most), "the axis ends at {most}");
    }
    svg + "</svg>\n"
}

/// A picture on a light ground of its own, so that it can be read on a page of any theme.
fn open(width: f64, height: f64, title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<title>{title}</title>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#f8fafc\"/>\n"
    )
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, weight: &str, text: &str) {
    writeln!(
        svg,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" font-weight="{weight}">{text}</text>"#
    )
    .expect("writing to memory");
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
