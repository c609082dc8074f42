//! Counts the instructions that the core executes for a request, under callgrind, and fails when they differ much from
//! what `benches/instructions.txt` says, or when more than a hundredth of them goes into the metrics. Unlike a time, that
//! count is the same on a busy machine.
//!
//! ```text
//! cargo instructions           # check
//! cargo instructions --record  # write the file anew
//! ```

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

use bare_core::{BareCore, Request};
use rinha::http::response::Status;
use rinha::metrics::{Endpoint, LaneState, Metrics};

/// What one round is, by name.
const CASES: [(&str, &[Request]); 4] = [
    ("one_transaction", &[Request::Transaction]),
    ("one_chunked_transaction", &[Request::ChunkedTransaction]),
    ("one_statement", &[Request::Statement]),
    ("set_of_16", &[Request::Transaction; 16]),
];

/// Not a case of its own, but the part of `one_transaction` that only the metrics are for.
const RECORDING: &str = "recording";

/// More than that of a transaction must not go into its metrics, in percent.
const RECORDING_MAX_PERCENT: u64 = 1;

/// How far from what is recorded is too far, in percent. Compilers and processors differ by less. Far fewer fail, too: the
/// book quotes the record.
const DIFFERENCE_MAX_PERCENT: u64 = 10;

/// Rounds that are counted; the figure is their mean. One of them looks at the clients' deadlines.
const ROUNDS: u32 = 100;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        [] => check(),
        ["--record"] => record(),
        ["--run", case] => run(case),
        _ => Err("usage: cargo instructions [--record]".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("instructions: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Compares every case with the file.
fn check() -> Result<(), String> {
    let recorded = read_record()?;
    let mut too_far = Vec::new();
    let mut counts = BTreeMap::new();
    for case in names() {
        let expected =
            *recorded.get(case).ok_or_else(|| format!("{RECORD} has no line for {case}; {REMEDY}"))?;
        let counted = count(case)?;
        counts.insert(case, counted);
        let difference_max = expected * DIFFERENCE_MAX_PERCENT / 100;
        println!("{case:<24} {counted:>7} instructions; recorded {expected}, give or take {difference_max}");
        if counted.abs_diff(expected) > difference_max {
            too_far.push(case);
        }
    }
    let limit = counts["one_transaction"] * RECORDING_MAX_PERCENT / 100;
    if counts[RECORDING] > limit {
        return Err(format!("the metrics take more than {RECORDING_MAX_PERCENT} % of a transaction"));
    }
    if too_far.is_empty() {
        return Ok(());
    }
    Err(format!(
        "more than {DIFFERENCE_MAX_PERCENT} % away from {RECORD}: {}; if it has to be so, {REMEDY}",
        too_far.join(", ")
    ))
}

/// All that is counted.
fn names() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|(name, _)| *name).chain([RECORDING])
}

/// Writes what every case takes now into the file.
fn record() -> Result<(), String> {
    let mut lines = vec![HEADER.to_owned()];
    for case in names() {
        let counted = count(case)?;
        println!("{case:<24} {counted:>7} instructions");
        lines.push(format!("{case} {counted}\n"));
    }
    fs::write(record_path(), lines.concat()).map_err(|error| format!("write {RECORD}: {error}"))
}

/// What runs under callgrind: the rounds to count, between others that are not.
fn run(case: &str) -> Result<(), String> {
    if case == RECORDING {
        let mut metrics = Metrics::default();
        counted_rounds(&mut || record_transaction(black_box(&RECORDED), &mut metrics));
        return Ok(());
    }
    let (_, requests) =
        CASES.iter().find(|(name, _)| *name == case).ok_or_else(|| format!("there is no case {case}"))?;
    let mut core = BareCore::new(requests);
    core.warm_up();
    counted_rounds(&mut || core.round());
    Ok(())
}

/// What there is to record of one transaction by itself.
struct Recorded {
    endpoint: Endpoint,
    status: Status,
    duration_us: u64,
    received_bytes: u64,
    sent_bytes: u64,
    batch_calls: u64,
    connections: u64,
    /// After the turn that sends the call, and after the one that answers it.
    turns: [(u64, LaneState); 2],
}

const RECORDED: Recorded = Recorded {
    endpoint: Endpoint::Transaction,
    status: Status::Ok,
    duration_us: 2_000,
    received_bytes: 200,
    sent_bytes: 150,
    batch_calls: 1,
    connections: 1,
    turns: [(1, LaneState::Ready), (0, LaneState::Ready)],
};

/// As engine, client and shell do it between them.
fn record_transaction(recorded: &Recorded, metrics: &mut Metrics) {
    metrics.received_bytes += recorded.received_bytes;
    metrics.sent_bytes += recorded.sent_bytes;
    metrics.record_batch(recorded.batch_calls);
    metrics.count_response(recorded.endpoint, recorded.status);
    metrics.record_duration(recorded.endpoint, recorded.duration_us);
    for (calls_in_flight, lane) in recorded.turns {
        metrics.connections_open = recorded.connections;
        metrics.calls_queued = 0;
        metrics.calls_in_flight = calls_in_flight;
        metrics.set_lanes(std::iter::once(lane));
        // Each turn stores them: without this the compiler would leave the first one's out.
        black_box(&mut *metrics);
    }
}

/// The one function whose instructions, with those of all that it calls, are counted.
#[inline(never)]
fn counted_rounds(round: &mut dyn FnMut()) {
    for _ in 0..ROUNDS {
        round();
    }
}

/// Instructions of one round of this case.
fn count(case: &str) -> Result<u64, String> {
    let this = env::current_exe().map_err(|error| format!("find this program: {error}"))?;
    let profile = this.with_extension(format!("{case}.callgrind"));
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--quiet", "--toggle-collect=instructions::counted_rounds"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(this)
        .args(["--run", case])
        // What is on the stack before `main` depends on the environment, and copies depend on how they are aligned.
        .env_clear()
        .envs(env::var_os("PATH").map(|path| ("PATH", path)));
    let output = valgrind.output().map_err(|error| {
        format!(
            "run valgrind: {error}; install it, on Debian and Ubuntu with: sudo apt-get install -y valgrind"
        )
    })?;
    if !output.status.success() {
        return Err(format!("{case} failed under valgrind: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let text =
        fs::read_to_string(&profile).map_err(|error| format!("read {}: {error}", profile.display()))?;
    match total_of(&text) {
        Some(total) if total > 0 => Ok(total / u64::from(ROUNDS)),
        _ => Err(format!("callgrind has counted nothing: is `counted_rounds` gone from {}?", file!())),
    }
}

/// Format: the manual of Valgrind, "Callgrind Format Specification", the line `totals:`.
fn total_of(profile: &str) -> Option<u64> {
    profile.lines().find_map(|line| line.strip_prefix("totals:"))?.trim().parse().ok()
}

/// One line for each case, its name and its count; `#` begins a remark.
fn read_record() -> Result<BTreeMap<String, u64>, String> {
    let text =
        fs::read_to_string(record_path()).map_err(|error| format!("read {RECORD}: {error}; {REMEDY}"))?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let entries = lines.map(|line| {
        let entry =
            line.split_once(' ').and_then(|(case, count)| Some((case.to_owned(), count.parse().ok()?)));
        entry.ok_or_else(|| format!("{RECORD}: {line:?} is not a name and a count"))
    });
    entries.collect()
}

fn record_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(RECORD)
}

const RECORD: &str = "benches/instructions.txt";
const REMEDY: &str = "record it with: cargo instructions --record";
const HEADER: &str = "\
# Instructions of the core for one round of requests, counted by callgrind.
# Written by: cargo instructions --record
";
