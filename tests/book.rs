//! The book in docs/ against what it tells of: excerpts, commands, tests, captured bytes and pictures cannot go stale.
//!
//! `BOOK=record cargo test --test book` writes anew what is generated: captured bytes, pictures, tables of figures, and
//! excerpts. For these alone: `BOOK=record cargo test --test book excerpt`.

mod support;

#[path = "book/capture.rs"]
mod capture;
#[path = "book/dissect.rs"]
mod dissect;
#[path = "book/figures.rs"]
mod figures;
#[path = "book/translations.rs"]
mod translations;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use support::{text_of, workspace};

/// Whether what is generated is to be written anew.
fn is_recording() -> bool {
    env::var_os("BOOK").is_some_and(|value| value == "record")
}

fn page(name: &str) -> PathBuf {
    workspace().join("docs").join(name)
}

// ---------------------------------------------------------------------------------------------------------------------
// Captured bytes.

/// The file under docs/captured tells what the server says now, but for what differs from run to run.
fn assert_captured(name: &str, now: &str) {
    let path = page("captured").join(name);
    if is_recording() {
        fs::write(&path, now).expect("write the capture");
    }
    let (then, now) = (dissect::masked(&text_of(&path)), dissect::masked(now));
    // The first line that differs tells more than both texts.
    for (then, now) in then.lines().zip(now.lines()) {
        assert_eq!(then, now, "docs/captured/{name} is stale: BOOK=record writes it anew");
    }
    assert_eq!(then.len(), now.len(), "docs/captured/{name} is stale at its end: BOOK=record writes it anew");
}

#[test]
fn the_bytes_of_a_request_are_as_captured() {
    assert_captured("request.txt", &capture::request());
}

#[test]
fn the_bytes_of_a_login_are_as_captured() {
    assert_captured("login.txt", &capture::login());
}

#[test]
fn the_bytes_of_batches_are_as_captured() {
    assert_captured("batches.txt", &capture::batches());
}

// ---------------------------------------------------------------------------------------------------------------------
// Figures.

/// What is between these two comments of a page is generated.
const TABLE: [&str; 2] = ["<!-- peers -->\n", "<!-- end of peers -->"];

fn assert_generated(path: &Path, now: &str) {
    if is_recording() {
        fs::write(path, now).expect("write what is generated");
    }
    assert!(text_of(path) == now, "{} is stale: BOOK=record writes it anew", path.display());
}

#[test]
fn the_peers_have_one_set_of_figures() {
    let peers = figures::peers(&text_of(page("peers.tsv")));
    assert_generated(&page("peers.svg"), &figures::peers_picture(&peers));
    let table = format!("{}\n{}\n{}", TABLE[0], figures::peers_table(&peers), TABLE[1]);
    // The README may have it, too.
    for path in [page("README.md"), workspace().join("README.md")] {
        let text = text_of(&path);
        let Some(start) = text.find(TABLE[0]) else {
            assert!(!path.starts_with(page("")), "the first page lacks the table");
            continue;
        };
        let end = text.find(TABLE[1]).expect("the end of the table") + TABLE[1].len();
        assert_generated(&path, &[&text[..start], &table, &text[end..]].concat());
    }
    let performance = text_of(page("reference/performance.md"));
    for figure in peers.last().expect("this server").in_performance() {
        assert!(
            performance.contains(&figure),
            "docs/reference/performance.md has other figures than {figure} of docs/peers.tsv"
        );
    }
}

#[test]
fn the_curve_of_the_batches_is_that_of_their_table() {
    assert_generated(
        &page("learn/batches.svg"),
        &figures::batches_picture(&text_of(page("reference/performance.md"))),
    );
}

#[test]
fn the_picture_of_how_it_grows_is_that_of_its_table() {
    assert_generated(
        &page("reference/growth.svg"),
        &figures::growth_picture(&text_of(page("reference/performance.md"))),
    );
}

/// Numbers in a text that were measured: they have a decimal point or a comma. Without that comma, so that both are the same.
fn measured(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_digit() || c == '.' || c == ',';
    let numbers = text.split(|c| !is_part(c)).map(|number| number.trim_matches(['.', ',']));
    numbers
        .filter(|number| number.contains(['.', ',']) && number.len() > 2)
        .map(|number| number.replace(',', ""))
        .collect()
}

/// The rows of all tables of a page.
fn rows(text: &str) -> String {
    text.lines().filter(|line| line.starts_with('|')).flat_map(|line| [line, "\n"]).collect()
}

/// Chapters that quote figures and measure none.
const QUOTING: [&str; 6] = [
    "README.md",
    "learn/group-commit.md",
    "learn/microseconds.md",
    "learn/testing.md",
    "reference/http.md",
    "reference/promises.md",
];

#[test]
fn every_figure_that_a_chapter_quotes_is_in_a_table() {
    // What the prose says there is no source: it could be as stale.
    let measuring = ["reference/performance.md", "learn/microseconds.md", "learn/testing.md"];
    let mut tables: String = measuring.map(|name| rows(&text_of(page(name)))).concat();
    for file in ["peers.tsv", "../benches/instructions.txt"] {
        tables += &text_of(page(file));
    }
    for chapter in QUOTING {
        let text = own_words(&text_of(page(chapter)));
        let tables = format!("{tables}{}", rows(&text)).replace(',', "");
        let tables: BTreeSet<&str> = tables.split(|c: char| !c.is_ascii_digit() && c != '.').collect();
        let prose: String = text.lines().filter(|line| !line.starts_with('|')).collect();
        let figures = measured(&prose.replace("HTTP/1.1", ""));
        let missing: Vec<&String> =
            figures.iter().filter(|figure| !tables.contains(figure.as_str())).collect();
        assert!(missing.is_empty(), "docs/{chapter} has figures that no table has: {missing:?}");
    }
}

#[test]
fn the_counts_of_instructions_are_those_of_the_bench() {
    let counts = text_of(workspace().join("benches/instructions.txt"));
    let counts: Vec<(&str, u64)> = counts
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, count) = line.split_once(' ').expect("a name and a count");
            (name, count.parse().expect("a count"))
        })
        .collect();
    let of = |name: &str| counts.iter().find(|(other, _)| *other == name).expect("a count").1;
    let thousands = |count: u64| format!("{},{:03}", count / 1_000, count % 1_000);
    let (one, of_16) = (of("one_transaction"), of("set_of_16") / 16);
    let about = |count: u64| thousands((count + 50) / 100 * 100);
    let percent = |part: u64, whole: u64| {
        let hundredths = (part * 10_000 + whole / 2) / whole;
        format!("{}.{:02}", hundredths / 100, hundredths % 100)
    };
    let says = [
        ("learn/exercises.md", format!("counts {} for one transaction", thousands(one))),
        ("reference/performance.md", format!("The core takes {} instructions for a transaction", about(one))),
        ("reference/performance.md", format!("16 takes {} for each", about(of_16))),
        (
            "reference/observability.md",
            format!("takes {} of the {} instructions", of("recording"), thousands(one)),
        ),
        ("reference/observability.md", format!("{} %; `cargo instructions", percent(of("recording"), one))),
        ("learn/microseconds.md", format!("| one transaction, from bytes to bytes | {} |", thousands(one))),
        ("learn/microseconds.md", format!("| one statement | {} |", thousands(of("one_statement")))),
        ("learn/microseconds.md", format!("| a transaction in a set of 16 | {} |", about(of_16))),
    ];
    for (name, text) in says {
        assert!(text_of(page(name)).contains(&text), "docs/{name} does not say: {text}");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The pages.

/// Every page, by its path below docs/, without the table of contents.
fn pages() -> Vec<(String, String)> {
    let mut pages: Vec<_> = files_below(&page(""))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| {
            let name =
                path.strip_prefix(page("")).expect("a path below docs/").to_string_lossy().into_owned();
            (name, text_of(&path))
        })
        .filter(|(name, _)| name != "SUMMARY.md")
        .collect();
    pages.sort();
    assert!(pages.len() > 10, "the book has pages");
    pages
}

#[test]
fn every_page_is_in_the_table_of_contents() {
    let summary = text_of(page("SUMMARY.md"));
    let missing: Vec<String> = pages()
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| !summary.contains(&format!("({name})")))
        .collect();
    assert_eq!(missing, [""; 0], "docs/SUMMARY.md lacks pages");
}

/// Pages at the places where a code host looks for them. The links of the book are checked by docs/build.
const OTHER_PAGES: [&str; 6] = [
    ".github/SECURITY.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "proto-pg/README.md",
];

#[test]
fn every_link_of_the_other_pages_leads_to_a_file() {
    for name in OTHER_PAGES {
        let text = text_of(name);
        let targets = after(&text, "](", &[')', '#']).filter(|target| !target.contains(':'));
        let from = workspace().join(name).with_file_name("");
        let missing: Vec<&str> = targets.filter(|target| !from.join(target).exists()).collect();
        assert_eq!(missing, [""; 0], "{name} has links that lead nowhere");
    }
}

#[test]
fn every_page_that_a_file_names_is_there() {
    let directories = [
        ".ci",
        ".github",
        "fuzz/libpq/src",
        "fuzz/targets",
        "nginx",
        "observability",
        "prod",
        "proto-pg/src",
        "src",
        "stress/src",
        "tests",
    ];
    let files = directories.iter().flat_map(|directory| files_below(&workspace().join(directory)));
    let files =
        files.chain([".dockerignore", "docker-compose.yml", "fuzz/run"].map(|name| workspace().join(name)));
    let mut count = 0;
    for path in files {
        let text = text_of(&path);
        let is_part = |c: char| c.is_ascii_lowercase() || matches!(c, '/' | '-' | '.');
        for rest in text.split("docs/").skip(1) {
            let name = rest.split(|c| !is_part(c)).next().unwrap_or_default();
            if let Some((stem, _)) = name.rsplit_once(".md") {
                count += 1;
                assert!(page(&format!("{stem}.md")).exists(), "{} names docs/{stem}.md", path.display());
            }
        }
    }
    assert!(count > 10, "files name pages");
}

/// What follows `prefix` up to one of `ends`, wherever it stands in the text.
fn after<'a>(text: &'a str, prefix: &'a str, ends: &'a [char]) -> impl Iterator<Item = &'a str> {
    text.split(prefix).skip(1).map(move |rest| rest.split(ends).next().unwrap_or_default())
}

/// Between these two comments stand one or more excerpts: `<!-- include PATH:ANCHOR ... -->` with paths from the root of the
/// repository, a block of code, the end. The excerpt is in the page itself, so a code host shows it, too.
const EXCERPT: [&str; 2] = ["<!-- include ", "<!-- end of include -->"];

/// The names of the excerpts of a page.
fn excerpts_of(text: &str) -> impl Iterator<Item = &str> {
    text.split(EXCERPT[0]).skip(1).flat_map(|rest| {
        let (names, _) = rest.split_once(" -->").expect("the end of a comment");
        names.split(' ')
    })
}

/// A page with each of its excerpts made by `excerpt` from its name.
fn with_excerpts(text: &str, excerpt: impl Fn(&str) -> String) -> String {
    let mut pieces = text.split(EXCERPT[0]);
    let mut page = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (names, rest) = piece.split_once(" -->\n").expect("the end of a comment");
        let (fence, rest) = rest.split_once('\n').expect("a block of code");
        assert!(fence.starts_with("```"), "{names} is not followed by a block of code");
        let (_, rest) = rest.split_once(EXCERPT[1]).expect("the end of an excerpt");
        let excerpts: Vec<String> = names.split(' ').map(&excerpt).collect();
        page += &[EXCERPT[0], names, " -->\n", fence, "\n", &excerpts.join("\n"), "```\n", EXCERPT[1], rest]
            .concat();
    }
    page
}

/// A page without the contents of its excerpts.
fn own_words(text: &str) -> String {
    with_excerpts(text, |_| String::new())
}

/// The lines between the two marks of an anchor, without other marks, and without the indentation that all of them have.
fn excerpt(name: &str) -> String {
    let (path, anchor) = name.split_once(':').unwrap_or_else(|| panic!("{name} has no anchor"));
    let source = text_of(workspace().join(path));
    let is = |line: &str, mark: &str| line.trim_end().ends_with(&format!("{mark}: {anchor}"));
    let lines = source.lines().skip_while(|line| !is(line, "ANCHOR")).skip(1);
    let lines = lines.take_while(|line| !is(line, "ANCHOR_END"));
    let lines: Vec<&str> =
        lines.filter(|line| !line.contains("ANCHOR: ") && !line.contains("ANCHOR_END: ")).collect();
    let indents = lines.iter().filter(|line| !line.trim().is_empty());
    let indent = indents.map(|line| line.len() - line.trim_start().len()).min().unwrap_or(0);
    lines.iter().flat_map(|line| [line.get(indent..).unwrap_or_default(), "\n"]).collect()
}

#[test]
fn every_excerpt_is_what_stands_in_its_source() {
    for (name, text) in pages() {
        assert_generated(&page(&name), &with_excerpts(&text, excerpt));
        assert!(!text.contains("{{#include"), "{name}: a code host would show it raw");
    }
}

#[test]
fn every_include_is_there_and_every_anchor_is_used() {
    let mut used = BTreeSet::new();
    for (name, text) in pages() {
        for include in excerpts_of(&text) {
            let (path, anchor) =
                include.split_once(':').unwrap_or_else(|| panic!("{name}: {include} has no anchor"));
            let source = text_of(workspace().join(path));
            for mark in ["ANCHOR", "ANCHOR_END"] {
                let count = source
                    .lines()
                    .filter(|line| line.trim_end().ends_with(&format!("{mark}: {anchor}")))
                    .count();
                assert_eq!(count, 1, "{name} includes {include}, whose {mark} is there {count} times");
            }
            used.insert((workspace().join(path), anchor.to_owned()));
        }
    }
    for directory in ["src", "proto-pg/src", "sql", "tests", "stress/src", "docs/learn/path"] {
        for path in files_below(&workspace().join(directory)) {
            // A patch quotes the lines around its own.
            if path.extension().is_some_and(|extension| extension == "patch") {
                continue;
            }
            for anchor in
                after(&text_of(&path), " ANCHOR: ", &['\n']).filter(|anchor| !anchor.contains(['{', '"']))
            {
                let is_used = used.contains(&(path.clone(), anchor.to_owned()));
                assert!(is_used, "nobody includes {anchor} of {}", path.display());
            }
        }
    }
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("list a directory") {
        let path = entry.expect("read an entry").path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

/// What looks like the name of a test and is none: a function of the kernel, in the flamegraph.
const NO_TESTS: &[&str] =
    &["exit_to_user_mode_loop", "idle_in_transaction_session_timeout", "default_transaction_read_only"];

/// Pages whose tables say which test shows what they claim: there even a short name is one of a test.
const PAGES_WITH_TESTS: [&str; 3] = ["reference/faults.md", "reference/http.md", "reference/promises.md"];

#[test]
fn every_test_that_the_book_names_exists() {
    let sources =
        ["src", "proto-pg/src", "stress", "tests"].map(|directory| files_below(&workspace().join(directory)));
    let is_source = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    let code: String = sources.iter().flatten().filter(is_source).map(text_of).collect();
    // Some are cut short where a table has no room.
    let is_there = |name: &str| match name.strip_suffix('…') {
        Some(beginning) => code.contains(&format!("fn {beginning}")),
        None => code.contains(&format!("fn {name}(")),
    };
    let mut count = 0;
    // That page has the names of metrics in its place, and a test of its own.
    for (chapter, text) in pages().into_iter().filter(|(name, _)| name != "reference/observability.md") {
        // In code font, with that many underscores, it is no setting and no metric.
        let text = own_words(&text);
        let least = if PAGES_WITH_TESTS.contains(&chapter.as_str()) { 2 } else { 3 };
        let names = text.split('`').filter(|word| {
            word.matches('_').count() >= least
                && !word.starts_with("rinha_")
                && !NO_TESTS.contains(word)
                && word
                    .chars()
                    .all(|c| matches!(c, '_' | '…') || c.is_ascii_lowercase() || c.is_ascii_digit())
        });
        for name in names {
            count += 1;
            assert!(is_there(name), "docs/{chapter} names {name}, which is nowhere");
        }
    }
    assert!(count > 60, "the book names tests");
}

#[test]
fn only_the_page_with_the_table_says_how_soon_a_planted_bug_is_found() {
    let bugs = files_below(&workspace().join("src/sim/bugs"));
    let bugs: Vec<String> =
        bugs.iter().filter_map(|path| Some(format!("`{}`", path.file_stem()?.to_string_lossy()))).collect();
    assert!(bugs.len() > 10, "there are planted bugs");
    for (name, text) in pages().into_iter().filter(|(name, _)| name != "learn/testing.md") {
        for paragraph in text.split("\n\n").filter(|paragraph| paragraph.contains("world")) {
            let named = bugs.iter().find(|bug| paragraph.contains(bug.as_str()));
            assert_eq!(named, None, "docs/{name} counts worlds, which change with the core: {paragraph}");
        }
    }
}

/// The commands of a page: its blocks in `sh`.
fn commands(text: &str) -> impl Iterator<Item = &str> {
    text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default().trim_end())
}

#[test]
fn every_block_of_commands_is_one_line_that_can_be_pasted() {
    let others = OTHER_PAGES.map(|name| (name.to_owned(), text_of(name)));
    for (name, text) in pages().into_iter().chain(others) {
        for command in commands(&text) {
            assert!(!command.contains('\n'), "{name}: more than one line: {command}");
            // Interactive zsh takes it for an argument.
            assert!(!command.contains(" #"), "{name}: a remark behind a command: {command}");
        }
    }
}

#[test]
fn every_command_is_run_somewhere() {
    let list = text_of(page("commands"));
    let entries = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let entries: Vec<(&str, &str)> = entries
        .map(|line| {
            line.split_once('|').map(|(kind, command)| (kind.trim(), command.trim())).expect("a kind")
        })
        .collect();
    let ci = text_of(workspace().join(".ci/run"));
    // At the start of a line, and up to the end of a word: not where it is the argument of another command.
    let runs = |command: &str| {
        let rests = ci.lines().filter_map(|line| line.trim_start().strip_prefix(command));
        rests.into_iter().any(|rest| rest.is_empty() || rest.starts_with(' '))
    };
    for (kind, command) in &entries {
        match *kind {
            "quick" | "long" | "fail" | "up" => {}
            "ci" => assert!(runs(command), ".ci/run does not run {command}"),
            reason => {
                let because = reason.strip_prefix("not run: ").unwrap_or_default();
                assert!(!because.is_empty(), "docs/commands: what is {reason:?}?");
            }
        }
    }
    let listed: BTreeSet<&str> = entries.iter().map(|(_, command)| *command).collect();
    let pages = pages();
    let in_book: BTreeSet<&str> = pages.iter().flat_map(|(_, text)| commands(text)).collect();
    let unlisted: Vec<_> = in_book.difference(&listed).collect();
    assert!(unlisted.is_empty(), "docs/commands does not say where these are run: {unlisted:#?}");
    let gone: Vec<_> = listed.difference(&in_book).collect();
    assert!(gone.is_empty(), "the book has no such commands any more: {gone:#?}");
}
