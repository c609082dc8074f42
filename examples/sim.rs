//! Runs the simulation over many seeds on all cores, or one seed with its last events: `cargo stress sim --help`.

use std::num::NonZero;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use lexopt::prelude::{Long, Short, ValueExt};
use rinha::planted::Bug;
use rinha::sim::{self, Fault, Violation};

/// What the command line asks for.
enum Request {
    Help,
    /// One seed, with its last events.
    One {
        seed: u64,
        bug: Option<Bug>,
    },
    /// All seeds from the first on.
    Many {
        first: u64,
        seeds: u64,
        bug: Option<Bug>,
    },
    /// For each planted bug, how many seeds it takes to find it.
    Bugs {
        seeds: u64,
    },
}

fn main() -> ExitCode {
    match parse() {
        Ok(Request::Help) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Ok(Request::One { seed, bug }) => run_one(seed, bug),
        Ok(Request::Many { first, seeds, bug }) => run_many(first, seeds, bug),
        Ok(Request::Bugs { seeds }) => find_bugs(seeds),
        Err(error) => {
            eprintln!("cargo stress sim: {error}; see `cargo stress sim --help`");
            ExitCode::from(2)
        }
    }
}

fn parse() -> Result<Request, lexopt::Error> {
    let (mut first, mut seeds, mut seed, mut bug, mut finds_bugs) = (0, 10_000, None, None, false);
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("help") | Short('h') => return Ok(Request::Help),
            Long("first") => first = arguments.value()?.parse()?,
            Long("seeds") => seeds = arguments.value()?.parse()?,
            Long("seed") => seed = Some(arguments.value()?.parse()?),
            Long("bug") => bug = Some(arguments.value()?.parse_with(bug_named)?),
            Long("bugs") => finds_bugs = true,
            other => return Err(other.unexpected()),
        }
    }
    Ok(match seed {
        Some(seed) => Request::One { seed, bug },
        None if finds_bugs => Request::Bugs { seeds },
        None => Request::Many { first, seeds, bug },
    })
}

fn bug_named(name: &str) -> Result<Bug, String> {
    let find = |bug: &&Bug| format!("{bug:?}") == name;
    Bug::ALL.iter().find(find).copied().ok_or_else(|| format!("there is no bug {name}"))
}

fn run_one(seed: u64, bug: Option<Bug>) -> ExitCode {
    let outcome = sim::run(seed, bug, true);
    for event in &outcome.events {
        println!("{event}");
    }
    println!("seed {seed}: {} transactions, hash {:016x}", outcome.rows, outcome.hash);
    let Some(violation) = outcome.violation else { return ExitCode::SUCCESS };
    println!("FAILED: {violation}");
    let bug = bug.map_or_else(String::new, |bug| format!(" --bug {bug:?}"));
    println!("replay: cargo stress sim --seed {seed}{bug}");
    ExitCode::FAILURE
}

/// Everything that the threads of one run share.
struct Shared {
    next: AtomicU64,
    end: u64,
    is_over: AtomicBool,
    /// The first seed that failed, and what it violated.
    failure: Mutex<Option<(u64, Violation)>>,
    rows: AtomicU64,
    strikes: Mutex<[u64; Fault::ALL.len()]>,
}

fn run_many(first: u64, seeds: u64, bug: Option<Bug>) -> ExitCode {
    let bar = ProgressBar::new(seeds);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left") {
        bar.set_style(style);
    }
    let began = Instant::now();
    let shared = run(first, first.saturating_add(seeds), bug, &bar);
    bar.finish_and_clear();
    let seconds = began.elapsed().as_secs_f64();
    let failure = shared.failure.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some((seed, _)) = failure {
        return run_one(seed, bug);
    }
    let strikes = shared.strikes.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (fault, count) in Fault::ALL.iter().zip(strikes) {
        println!("| `{fault:?}` | {} | {} |", thousands(count), fault.meaning());
    }
    println!(
        "{seeds} seeds from {first} on, {} transactions, {seconds:.1} s: all is well",
        shared.rows.into_inner()
    );
    ExitCode::SUCCESS
}

/// Runs the seeds on all cores until one fails.
fn run(first: u64, end: u64, bug: Option<Bug>, bar: &ProgressBar) -> Shared {
    let shared = Shared {
        next: AtomicU64::new(first),
        end,
        is_over: AtomicBool::new(false),
        failure: Mutex::new(None),
        rows: AtomicU64::new(0),
        strikes: Mutex::new([0; Fault::ALL.len()]),
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(|| work(&shared, bug, bar));
        }
    });
    shared
}

fn work(shared: &Shared, bug: Option<Bug>, bar: &ProgressBar) {
    let mut strikes = [0; Fault::ALL.len()];
    while !shared.is_over.load(Ordering::Relaxed) {
        let seed = shared.next.fetch_add(1, Ordering::Relaxed);
        if seed >= shared.end {
            break;
        }
        let outcome = sim::run(seed, bug, false);
        bar.inc(1);
        shared.rows.fetch_add(outcome.rows as u64, Ordering::Relaxed);
        for (sum, count) in strikes.iter_mut().zip(outcome.strikes) {
            *sum += count;
        }
        if let Some(violation) = outcome.violation {
            shared.is_over.store(true, Ordering::Relaxed);
            let mut failure = shared.failure.lock().unwrap_or_else(PoisonError::into_inner);
            // Another core may be a few seeds ahead.
            if failure.as_ref().is_none_or(|(other, _)| seed < *other) {
                *failure = Some((seed, violation));
            }
        }
    }
    let mut sums = shared.strikes.lock().unwrap_or_else(PoisonError::into_inner);
    for (sum, count) in sums.iter_mut().zip(strikes) {
        *sum += count;
    }
}

fn find_bugs(seeds: u64) -> ExitCode {
    // Some bugs make the core panic, which is how they are found.
    std::panic::set_hook(Box::new(|_| {}));
    let mut all_found = true;
    for &bug in Bug::ALL {
        let shared = run(0, seeds, Some(bug), &ProgressBar::hidden());
        let failure = shared.failure.into_inner().unwrap_or_else(PoisonError::into_inner);
        all_found &= failure.is_some();
        let (seeds, check) = failure.map_or_else(
            || (format!("not within {seeds}"), String::new()),
            |(seed, violation)| (thousands(seed + 1), format!("`{:?}`", violation.check)),
        );
        println!("| `{bug:?}` | {seeds} | {check} | {} |", bug.meaning());
    }
    if all_found { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `1,234,567`
fn thousands(number: u64) -> String {
    if number < 1_000 {
        number.to_string()
    } else {
        format!("{},{:03}", thousands(number / 1_000), number % 1_000)
    }
}

const HELP: &str = "\
The whole core in a world made of one seed: faults strike, and whatever is answered has to be right.

Usage: cargo stress sim [OPTIONS]

Options:
  --seeds N     how many seeds (10000)
  --first N     the first of them (0)
  --seed N      this one seed, with its last events
  --bug NAME    with a planted bug, as src/planted.rs names it
  --bugs        for each planted bug, how many seeds it takes to find it, and which check does

SIM_SEED=N cargo test sim runs the one seed as a test. The exit status is 1 when a seed fails.
";
