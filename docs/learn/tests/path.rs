//! Each step's exercises pass with the path's program of that step, and fail with what the step mends.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, process};

use learn::arena::Arena;
use learn::bank::Bank;
use learn::mine;
use learn::steps::{Api, STEPS, Step};

fn built(name: &str) -> PathBuf {
    // Cargo builds all programs of a crate before its tests, into one directory.
    Path::new(env!("CARGO_BIN_EXE_learn")).with_file_name(name)
}

/// Runs exercises of a step, and gives what is said about each that fails.
fn failures(
    step: &Step,
    name: &str,
    patience: Duration,
    titles: Option<&[&str]>,
) -> Vec<(&'static str, String)> {
    let program = built(name);
    let bank = (step.api != Api::None).then(|| Bank::start(mine::root()).expect("start PostgreSQL"));
    let arena = Arena {
        program: &program,
        source: &mine::ours(name),
        bank: bank.as_ref(),
        is_challenge: step.api == Api::Challenge,
        patience,
    };
    let chosen =
        step.exercises.iter().filter(|exercise| titles.is_none_or(|titles| titles.contains(&exercise.title)));
    chosen.filter_map(|exercise| Some((exercise.title, (exercise.run)(&arena).err()?))).collect()
}

fn passes(number: usize) {
    let step = &STEPS[number - 1];
    assert_eq!(failures(step, step.name, Duration::from_mins(1), None), [], "{} has to pass", step.name);
}

/// `name` fails in these exercises of a step.
fn fails(number: usize, name: &str, titles: &[&str]) {
    // What is broken stays so, however long one waits.
    let failures = failures(&STEPS[number - 1], name, Duration::from_secs(1), Some(titles));
    let found: Vec<&str> = failures.iter().map(|(title, _)| *title).collect();
    assert_eq!(found, titles, "{name} at step {number}: {failures:#?}");
}

macro_rules! steps {
    ($($test:ident: $number:literal, $broken:literal => $titles:expr;)*) => {$(
        #[test]
        fn $test() {
            passes($number);
            fails($number, $broken, &$titles);
        }
    )*};
}

steps! {
    step_1_threads: 1, "01-one-at-a-time" => [
        "a silent client delays no other", "64 clients at once", "clients leave, the others stay",
    ];
    step_2_poll: 2, "01-threads" => ["one thread for 50 clients"];
    step_3_epoll: 3, "02-poll" => ["each client is registered once"];
    step_4_edge_triggered: 4, "03-epoll" => ["each client is registered by its edges"];
    step_5_short_writes: 5, "04-edge-triggered" => ["a slow reader gets every byte"];
    step_6_timers: 6, "05-short-writes" => ["an idle client leaves, a busy one stays", "a stuck client leaves"];
    step_7_http: 7, "06-timers" => ["a request and its answer"];
    step_8_postgresql: 8, "07-http" => ["a credit and a debit", "the limit"];
    step_9_pipelining: 9, "08-postgresql" => [
        "the loop goes on while PostgreSQL works", "calls do not wait for answers",
    ];
    step_10_group_commit: 10, "09-pipelining" => ["calls that gather share one Sync", "batches are sorted"];
    step_11_api: 11, "10-group-commit" => ["a credit and a debit", "the rules", "a statement"];
    step_12_miniature: 12, "11-api" => [
        "300 lines of code", "a lost connection leaves a call in doubt", "the queue has a limit",
    ];
}

#[test]
fn step_4_shows_its_bug() {
    fails(4, "04-bug", &["32 KiB in one edge", "20 clients in one edge"]);
}

#[test]
fn step_5_shows_its_bug() {
    fails(5, "05-bug", &["a client that does not read is not read"]);
}

/// The anchor that mdBook and code hosts give a heading.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || matches!(c, '-' | '_') => Some(c),
            _ => None,
        })
        .collect()
}

#[test]
fn every_exercise_leads_to_a_section_of_its_page() {
    for step in &STEPS {
        let page = fs::read_to_string(mine::root().join(step.page())).expect("read a page");
        let anchors: Vec<String> = page.lines().filter(|line| line.starts_with('#')).map(anchor).collect();
        for exercise in step.exercises {
            assert!(
                anchors.iter().any(|anchor| anchor == exercise.section),
                "{}#{}",
                step.page(),
                exercise.section
            );
        }
    }
}

#[test]
fn a_program_that_ends_or_says_nothing_is_explained() {
    let explained = |program: &str| {
        let program = Path::new(program);
        let patience = Duration::from_millis(200);
        let arena = Arena { program, source: program, bank: None, is_challenge: false, patience };
        (STEPS[0].exercises[0].run)(&arena).expect_err("it is no server")
    };
    assert!(explained("/bin/false").contains("the program ended before it listened (exit status: 1)"));
    assert!(explained("/bin/cat").contains("ended before it listened"), "its input is empty");
    assert!(explained("/nowhere").contains("cannot be started"));
}

#[test]
fn a_reader_starts_fails_mends_and_passes() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mine");
    // What an earlier run has left.
    let _ = fs::remove_dir_all(&folder);
    let learn = |arguments: &[&str]| {
        let mut command = process::Command::new(env!("CARGO_BIN_EXE_learn"));
        let output = command.args(arguments).env("LEARN_MINE", &folder).output().expect("run it");
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let expect = |arguments: &[&str], status: i32, text: &str| {
        let (found, said) = learn(arguments);
        assert!(found == Some(status) && said.contains(text), "{arguments:?}: {found:?} {said}");
    };
    expect(&[], 0, "cargo learn start 1");
    expect(&["check", "2"], 2, "cargo learn start 2");
    expect(&["start", "2"], 0, "docs/learn/path/02-poll.md");
    expect(&["start", "2"], 2, "is there already");
    // It begins with the program of step 1.
    expect(&["check", "2"], 1, "docs/learn/path/02-poll.md#what-breaks");
    fs::write(folder.join("02-poll.rs"), "fn main() { no }").expect("write a program");
    expect(&["check", "2"], 1, "It does not compile yet");
    fs::copy(mine::ours("02-poll"), folder.join("02-poll.rs")).expect("copy a program");
    expect(&["check", "2"], 0, "Passed. Next: read docs/learn/path/03-epoll.md");
    let (_, progress) = learn(&[]);
    assert!(progress.contains("poll                            passed"), "{progress}");
    // From its own file, and not from ours.
    fs::write(folder.join("02-poll.rs"), "fn main() { /* my own */ }").expect("write a program");
    expect(&["start", "3"], 0, "03-epoll.rs");
    let begun = fs::read_to_string(folder.join("03-epoll.rs")).expect("read a program");
    assert!(begun.contains("my own") && begun.starts_with("//! Step 3, mine"), "{begun}");
}

#[test]
fn the_command_says_how_it_is_used() {
    let run = |arguments: &[&str]| {
        let output =
            process::Command::new(env!("CARGO_BIN_EXE_learn")).args(arguments).output().expect("run it");
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (status, text) = run(&["--help"]);
    assert_eq!(status, Some(0), "{text}");
    for arguments in [&["check", "99"][..], &["dance"], &["check", "1", "--theirs"]] {
        let (status, text) = run(arguments);
        assert_eq!(status, Some(2), "{text}");
    }
}
