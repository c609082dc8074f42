//! Each exercise can fail, and not only for a program that does something else: one line of a good program is broken, and the
//! exercise that is about this line says so.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use learn::arena::Arena;
use learn::bank::Bank;
use learn::mine;
use learn::steps::{Api, STEPS};

struct Breakage {
    step: usize,
    exercise: &'static str,
    /// What in the step's program becomes what.
    changes: &'static [(&'static str, &'static str)],
}

const fn breakage(
    step: usize,
    exercise: &'static str,
    changes: &'static [(&'static str, &'static str)],
) -> Breakage {
    Breakage { step, exercise, changes }
}

const BREAKAGES: [Breakage; 18] = [
    breakage(1, "one client gets back what it sends", &[("&bytes[..n]", "&bytes[..n - 1]")]),
    breakage(1, "clients leave, the others stay", &[("if n == 0 {", "if n == 4096 {")]),
    breakage(
        2,
        "it sleeps while nothing happens",
        &[(
            "poll(&mut list, None)",
            "poll(&mut list, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }))",
        )],
    ),
    breakage(3, "64 clients at once", &[("                    next_token += 1;\n", "")]),
    breakage(
        6,
        "an idle client leaves, a busy one stays",
        &[("client.deadline = Instant::now() + idle;\n", "\n")],
    ),
    breakage(
        7,
        "byte by byte",
        &[("HEAD_MAX_BYTES => return Ok(None)", "HEAD_MAX_BYTES => return Err(400)")],
    ),
    breakage(7, "three requests in one packet", &[("            continue;\n", "")]),
    breakage(
        7,
        "a slow reader gets every answer",
        &[("Ok(n) => drop(outbox.drain(..n))", "Ok(_) => outbox.clear()")],
    ),
    breakage(7, "a malformed request is refused", &[("return Err(501)", "continue")]),
    breakage(8, "the limit", &[("[None, Some(_)] => (422", "[None, Some(_)] => (200")]),
    breakage(
        9,
        "a client that left gets no answer",
        // It notices at once that a client leaves, and gives its token to the next one.
        &[
            ("        if client.is_awaiting {\n", "        if false {\n"),
            (
                "let token = Token(next_token);",
                "let token = Token((2..).find(|n| !clients.contains_key(&Token(*n))).unwrap_or(2));",
            ),
        ],
    ),
    breakage(
        10,
        "answers wait for the commit",
        &[("Message::ReadyForQuery(_) => self.end", "Message::CommandComplete(_) => self.end")],
    ),
    breakage(
        10,
        "one failure fails no other",
        &[("if has_failed && !is_alone {", "if has_failed && is_alone && false {")],
    ),
    breakage(10, "batches are sorted", &[("        self.batch.sort_by_key(|call| call.account);\n", "")]),
    breakage(11, "the rules", &[("text.chars().count()", "text.len()")]),
    breakage(
        11,
        "25 transactions at once",
        &[(
            "lane.queue.push_back(call);",
            "if lane.queue.len() < 8 {\n                        lane.queue.push_back(call);\n                    }",
        )],
    ),
    breakage(
        12,
        "a lost connection leaves a call in doubt",
        &[(
            "Event::InDoubt { ticket } => self.answers.push((ticket.client, 503, String::new())),",
            "Event::InDoubt { ticket } => self.queue.push_front(ticket),",
        )],
    ),
    breakage(
        12,
        "the queue has a limit",
        &[
            ("QUEUE_MAX: usize = 256", "QUEUE_MAX: usize = 64_000"),
            (
                "QUEUE_TIMEOUT: Duration = Duration::from_secs(1)",
                "QUEUE_TIMEOUT: Duration = Duration::from_secs(1_000)",
            ),
        ],
    ),
];

#[test]
fn every_exercise_notices_the_line_that_it_is_about() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("broken");
    fs::create_dir_all(&folder).expect("make a folder");
    let name = |index: usize| format!("broken-{index:02}");
    for (index, breakage) in BREAKAGES.iter().enumerate() {
        let good = mine::ours(STEPS[breakage.step - 1].name);
        let mut text = fs::read_to_string(&good).expect("read a program");
        for (from, to) in breakage.changes {
            assert_eq!(text.matches(from).count(), 1, "{}: {from}", good.display());
            text = text.replace(from, to);
        }
        fs::write(folder.join(name(index) + ".rs"), "#![allow(warnings)]\n".to_owned() + &text)
            .expect("write a program");
    }
    fs::copy(mine::ours("http"), folder.join("http.rs")).expect("copy http.rs");
    fs::copy(mine::root().join("Cargo.lock"), folder.join("Cargo.lock")).expect("copy Cargo.lock");
    let programs = (0..BREAKAGES.len()).map(|index| (name(index), name(index) + ".rs"));
    fs::write(folder.join("Cargo.toml"), mine::manifest(programs)).expect("write Cargo.toml");
    // Beside the programs of the path, whose dependencies are compiled there.
    let target = Path::new(env!("CARGO_BIN_EXE_learn")).ancestors().nth(2).expect("the target directory");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--manifest-path"])
        .arg(folder.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        .status();
    assert!(status.expect("run Cargo").success(), "a broken program has to compile");

    let bank = Bank::start(mine::root()).expect("start PostgreSQL");
    for (index, breakage) in BREAKAGES.iter().enumerate() {
        let step = &STEPS[breakage.step - 1];
        let program = target.join("debug").join(name(index));
        let arena = Arena {
            program: &program,
            source: &folder.join(name(index) + ".rs"),
            bank: (step.api != Api::None).then_some(&bank),
            is_challenge: step.api == Api::Challenge,
            patience: Duration::from_secs(1),
        };
        let exercise = step.exercises.iter().find(|exercise| exercise.title == breakage.exercise);
        let exercise =
            exercise.unwrap_or_else(|| panic!("step {} has no {}", breakage.step, breakage.exercise));
        let verdict = (exercise.run)(&arena);
        assert!(
            verdict.is_err(),
            "step {}: {} does not notice {:?}",
            breakage.step,
            breakage.exercise,
            breakage.changes
        );
        println!("step {}, {}: {}", breakage.step, breakage.exercise, verdict.unwrap_err());
    }
}
