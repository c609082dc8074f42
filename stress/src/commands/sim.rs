//! `cargo stress sim`: builds the simulation, with a planted bug or without, and runs it. It is a program of its own, because
//! the server that everything else here builds must not hold what it needs.

use std::os::unix::process::CommandExt as _;

use stress::steps::Steps;
use stress::trials::planted::{BrokenCopy, Found, PlantedBug, SIMULATION};
use stress::{Error, compile};

/// The core alone in a simulated, faulty world, over many seeds: no service, no socket, no clock
///
/// Faults strike, and whatever is answered has to be right. The exit status is 1 when a seed fails.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "SIM_SEED=N cargo test sim runs the one seed as a test.")]
pub(super) struct Arguments {
    /// How many seeds; by default 10000, or with --bugs at most 50000
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// The first of them
    #[arg(long, value_name = "N", default_value_t = 0)]
    first: u64,
    /// This one seed, with its last events
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "first", "bugs"])]
    seed: Option<u64>,
    /// With the planted bug `src/sim/bugs/NAME.patch`
    #[arg(long, value_name = "NAME")]
    bug: Option<String>,
    /// For each planted bug, or for these: how many seeds it takes to find it, and which check does
    #[arg(long, value_name = "NAME", num_args = 0.., conflicts_with_all = ["bug", "first"])]
    bugs: Option<Vec<String>>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    if let Some(names) = &arguments.bugs {
        let named = || names.iter().map(|name| PlantedBug::named(name)).collect();
        let bugs = if names.is_empty() { PlantedBug::all() } else { named() };
        return find(&bugs?, arguments.seeds.unwrap_or(BUG_SEEDS_MAX));
    }
    let rest = match arguments.seed {
        Some(seed) => format!("--seed {seed}"),
        None => format!("--seeds {} --first {}", arguments.seeds.unwrap_or(SEEDS), arguments.first),
    };
    let error = if let Some(name) = &arguments.bug {
        let bug = PlantedBug::named(name)?;
        let copy = BrokenCopy::new()?;
        copy.plant(&bug)?;
        copy.simulation(rest.split(' ').chain(["--bug", name])).exec()
    } else {
        compile::cargo().current_dir(compile::workspace()).args(SIMULATION).args(rest.split(' ')).exec()
    };
    Err(Error::io("run cargo")(error))
}

/// Prints a row of the book's table for each bug. One that is not found fails the whole, after the others have had their turn.
fn find(bugs: &[PlantedBug], seeds: u64) -> Result<(), Error> {
    let copy = BrokenCopy::new()?;
    bugs.iter().try_for_each(|bug| copy.check(bug))?;
    let mut missed = Vec::new();
    for bug in bugs {
        copy.plant(bug)?;
        match copy.find(bug, seeds) {
            Ok(Found { seed, check }) => {
                let PlantedBug { name, meaning, .. } = bug;
                Steps::Printed.line(&format!("| `{name}` | {} | `{check}` | {meaning} |", seed + 1));
            }
            Err(error) => {
                eprintln!("cargo stress sim: {error}");
                missed.push(bug.name.as_str());
            }
        }
    }
    if missed.is_empty() { Ok(()) } else { Err(Error::Refused(format!("not found: {}", missed.join(", ")))) }
}

const SEEDS: u64 = 10_000;
/// The rarest of the planted bugs needs a third of them.
const BUG_SEEDS_MAX: u64 = 50_000;
