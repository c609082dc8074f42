//! Runs the simulation over many seeds on all cores, or one seed with its last events. `cargo stress sim` starts it, and has
//! the help.

use std::num::NonZero;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use lexopt::prelude::{Long, ValueExt};
use rinha::sim::{self, Check, Fault, Violation};

/// What the command line asks for.
enum Request {
    /// One seed, with its last events.
    One { seed: u64, bug: Option<String> },
    /// All seeds from the first on.
    Many { first: u64, seeds: u64, bug: Option<String> },
    /// Seeds from 0 on until one fails by this check.
    Aim { seeds: u64, check: Check },
}

fn main() -> ExitCode {
    match parse() {
        Ok(Request::One { seed, bug }) => run_one(seed, bug.as_deref()),
        Ok(Request::Many { first, seeds, bug }) => run_many(first, seeds, bug.as_deref()),
        Ok(Request::Aim { seeds, check }) => aim(seeds, check),
        Err(error) => {
            eprintln!("cargo stress sim: {error}; see `cargo stress sim --help`");
            ExitCode::from(2)
        }
    }
}

fn parse() -> Result<Request, lexopt::Error> {
    let (mut first, mut seeds, mut seed, mut bug, mut check) = (0, 10_000, None, None, None);
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("first") => first = arguments.value()?.parse()?,
            Long("seeds") => seeds = arguments.value()?.parse()?,
            Long("seed") => seed = Some(arguments.value()?.parse()?),
            // The build holds it already; the line that says how to run a seed again names it.
            Long("bug") => bug = Some(arguments.value()?.string()?),
            Long("aim") => check = Some(arguments.value()?.parse_with(check_named)?),
            other => return Err(other.unexpected()),
        }
    }
    Ok(match (seed, check) {
        (Some(seed), _) => Request::One { seed, bug },
        (None, Some(check)) => Request::Aim { seeds, check },
        (None, None) => Request::Many { first, seeds, bug },
    })
}

fn check_named(name: &str) -> Result<Check, String> {
    let find = |check: &&Check| format!("{check:?}") == name;
    Check::ALL.iter().find(find).copied().ok_or_else(|| format!("there is no check {name}"))
}

fn run_one(seed: u64, bug: Option<&str>) -> ExitCode {
    let outcome = sim::run(seed, true);
    for event in &outcome.events {
        println!("{event}");
    }
    println!("seed {seed}: {} transactions, hash {:016x}", outcome.rows, outcome.hash);
    let Some(violation) = outcome.violation else { return ExitCode::SUCCESS };
    println!("FAILED: {violation}");
    let bug = bug.map_or_else(String::new, |bug| format!(" --bug {bug}"));
    println!("replay: cargo stress sim{bug} --seed {seed}");
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

fn run_many(first: u64, seeds: u64, bug: Option<&str>) -> ExitCode {
    let bar = ProgressBar::new(seeds);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left") {
        bar.set_style(style);
    }
    let began = Instant::now();
    let shared = run(first, first.saturating_add(seeds), &bar);
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
fn run(first: u64, end: u64, bar: &ProgressBar) -> Shared {
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
            scope.spawn(|| work(&shared, bar));
        }
    });
    shared
}

fn work(shared: &Shared, bar: &ProgressBar) {
    let mut strikes = [0; Fault::ALL.len()];
    while !shared.is_over.load(Ordering::Relaxed) {
        let seed = shared.next.fetch_add(1, Ordering::Relaxed);
        if seed >= shared.end {
            break;
        }
        let outcome = sim::run(seed, false);
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

/// Prints the first seed that fails, its check, and the first seed that fails by the check that the bug is aimed at.
fn aim(seeds: u64, check: Check) -> ExitCode {
    // Some bugs make the core panic, which is how they are found.
    std::panic::set_hook(Box::new(|_| {}));
    let shared = run(0, seeds, &ProgressBar::hidden());
    let failure = shared.failure.into_inner().unwrap_or_else(PoisonError::into_inner);
    let Some((first, violation)) = failure else { return ExitCode::FAILURE };
    let finds =
        |seed: &u64| sim::run(*seed, false).violation.is_some_and(|violation| violation.check == check);
    let Some(seed) = (first..seeds).find(finds) else { return ExitCode::FAILURE };
    println!("{first} {:?} {seed}", violation.check);
    ExitCode::SUCCESS
}

/// `1,234,567`
fn thousands(number: u64) -> String {
    if number < 1_000 {
        number.to_string()
    } else {
        format!("{},{:03}", thousands(number / 1_000), number % 1_000)
    }
}
