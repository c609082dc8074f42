//! `cargo learn`: progress on the path of `docs/learn/path`, and the checker of the reader's own programs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use learn::arena::Arena;
use learn::bank::Bank;
use learn::mine;
use learn::steps::{Api, STEPS, Step};
use stress::wait::Interrupt;

const HELP: &str = "\
The path: twelve small servers, each of which mends the one before. The pages: docs/learn/path

  cargo learn              your progress, and what comes next
  cargo learn start 4      writes docs/learn/mine/04-edge-triggered.rs for you to change
  cargo learn check 4      builds and runs your program, and says what is wrong with it
  cargo learn run 4        runs the program of the page, at 127.0.0.1:7000

`check` and `run` take --mine, --ours (the program of the page) or --bug (what the step mends). `run` passes what follows on to the
program: an address, such as 127.0.0.1:7001.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        [] => {
            print_progress();
            Ok(true)
        }
        ["start", number] => numbered(number).and_then(start),
        ["check", number] => numbered(number).and_then(|number| check(number, Whose::Mine)),
        ["check", number, flag] => {
            numbered(number).and_then(|number| check(number, Whose::from_flag(flag).ok_or(usage())?))
        }
        ["run", number, ref rest @ ..] => numbered(number).and_then(|number| {
            let whose = rest.first().and_then(|flag| Whose::from_flag(flag));
            run(number, whose.unwrap_or(Whose::Ours), if whose.is_some() { &rest[1..] } else { rest })
        }),
        ["-h" | "--help" | "help"] => {
            print!("{HELP}");
            Ok(true)
        }
        _ => Err(usage()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}

/// Which program of a step.
#[derive(Clone, Copy)]
enum Whose {
    Mine,
    Ours,
    Bug,
}

impl Whose {
    fn from_flag(flag: &str) -> Option<Whose> {
        match flag {
            "--mine" => Some(Whose::Mine),
            "--ours" => Some(Whose::Ours),
            "--bug" => Some(Whose::Bug),
            _ => None,
        }
    }
}

fn usage() -> String {
    format!("This is how it is used:\n\n{HELP}")
}

fn numbered(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=STEPS.len()).contains(&number) => Ok(number),
        _ => Err(format!("expected the number of a step, 1 to {}, in place of {text}", STEPS.len())),
    }
}

fn print_progress() {
    let passed = mine::passed();
    println!("The path: from a blocking echo to this server. Its first page: docs/learn/path/index.md\n");
    for (step, number) in STEPS.iter().zip(1..) {
        let state = if passed.contains(&number) {
            "passed"
        } else if mine::program(step).exists() {
            "begun"
        } else {
            ""
        };
        println!("{number:>4}  {:<48}{state}", step.title);
    }
    match (1..=STEPS.len()).find(|number| !passed.contains(number)) {
        None => println!("\nYou have passed all of it. On to the exercises: docs/learn/exercises.md"),
        Some(number) => {
            let step = &STEPS[number - 1];
            let verb = if mine::program(step).exists() { "check" } else { "start" };
            println!("\nNext: read {}, then\n\n  cargo learn {verb} {number}", step.page());
        }
    }
}

fn start(number: usize) -> Result<bool, String> {
    let path = mine::start(number).map_err(|error| error.to_string())?;
    println!("Your file: {}", mine::shown(&path));
    println!("The page:  {}", STEPS[number - 1].page());
    println!("Then:      cargo learn check {number}");
    Ok(true)
}

fn check(number: usize, whose: Whose) -> Result<bool, String> {
    let step = &STEPS[number - 1];
    let Some(program) = build(step, number, whose)? else {
        println!("\nIt does not compile yet: see above.");
        return Ok(false);
    };
    println!("Step {number}: {}", step.title);
    let bank = if step.api == Api::None { None } else { Some(Bank::start(mine::root())?) };
    let source = match whose {
        Whose::Mine => mine::program(step),
        Whose::Ours => mine::ours(step.name),
        Whose::Bug => mine::ours(broken(number)),
    };
    let arena = Arena {
        program: &program,
        source: &source,
        bank: bank.as_ref(),
        is_challenge: step.api == Api::Challenge,
        patience: PATIENCE,
    };
    let mut is_passed = true;
    for (done, exercise) in step.exercises.iter().enumerate() {
        match (exercise.run)(&arena) {
            Ok(()) => println!("  ok      {}", exercise.title),
            Err(what) => {
                println!("  FAILED  {}\n", exercise.title);
                println!("{}\n", wrapped(&what, 4, 100));
                println!("    The page: {}#{}", step.page(), exercise.section);
                match step.exercises.len() - done - 1 {
                    0 => {}
                    left => println!("    Not tried yet: {left} more."),
                }
                is_passed = false;
                // What is behind it would often fail for the same reason.
                break;
            }
        }
    }
    if matches!(whose, Whose::Mine) {
        mine::remember(number, is_passed).map_err(|error| format!("cannot remember it: {error}"))?;
    }
    match STEPS.get(number) {
        _ if !is_passed => {}
        Some(next) => println!("\nPassed. Next: read {}", next.page()),
        None => println!("\nPassed, and that was the last one. On to docs/learn/exercises.md"),
    }
    Ok(is_passed)
}

/// Builds a program of a step, and gives its path; `None` if it does not compile, which Cargo has explained.
fn build(step: &Step, number: usize, whose: Whose) -> Result<Option<PathBuf>, String> {
    let (manifest, name) = match whose {
        Whose::Mine if !mine::program(step).exists() => {
            return Err(format!(
                "there is no {}: cargo learn start {number}",
                mine::shown(&mine::program(step))
            ));
        }
        Whose::Mine => {
            let manifest =
                mine::write_manifest().map_err(|error| format!("cannot write the manifest: {error}"))?;
            (manifest, mine::binary(step))
        }
        Whose::Ours => (mine::root().join("Cargo.toml"), step.name.to_owned()),
        Whose::Bug => (mine::root().join("Cargo.toml"), broken(number).to_owned()),
    };
    // Cargo is quiet, and the first time takes a while.
    println!("building {name}");
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| mine::root().join("target"), PathBuf::from);
    let mut cargo = Command::new(std::env::var_os("CARGO").as_deref().unwrap_or(OsStr::new("cargo")));
    cargo.args(["build", "--quiet", "--manifest-path"]).arg(manifest).arg("--target-dir").arg(&target);
    let status = cargo.args(["--bin", &name]).status();
    let status = status.map_err(|error| format!("cannot run Cargo: {error}"))?;
    Ok(status.success().then(|| target.join("debug").join(name)))
}

/// What a step mends: a program of its own, or that of the step before.
fn broken(number: usize) -> &'static str {
    STEPS[number - 1].bug.unwrap_or(STEPS[number.saturating_sub(2)].name)
}

fn run(number: usize, whose: Whose, rest: &[&str]) -> Result<bool, String> {
    let step = &STEPS[number - 1];
    let Some(program) = build(step, number, whose)? else { return Ok(false) };
    if step.api == Api::None || (number == 8 && matches!(whose, Whose::Bug)) {
        return execute(&program, rest);
    }
    // Ctrl-C ends the program, and then this one stops PostgreSQL in order.
    let _interrupt = Interrupt::on_signals().map_err(|error| error.to_string())?;
    let bank = Bank::start(mine::root())?;
    let socket = bank.socket().display().to_string();
    execute(&program, &[rest.first().copied().unwrap_or("127.0.0.1:7000"), &socket])
}

/// Runs a program until it ends.
fn execute(program: &Path, arguments: &[&str]) -> Result<bool, String> {
    let status = Command::new(program).args(arguments).status();
    Ok(status.map_err(|error| format!("cannot run {}: {error}", program.display()))?.success())
}

/// A text in lines of at most `width` characters, each indented.
fn wrapped(text: &str, indent: usize, width: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().filter(|line| line.is_empty() || line.len() + word.len() < width);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => line.extend([" ", word]),
            None => lines.push(word.to_owned()),
        }
    }
    lines.iter().map(|line| format!("{:indent$}{line}", "")).collect::<Vec<_>>().join("\n")
}

const PATIENCE: Duration = Duration::from_secs(5);
