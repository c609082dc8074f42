//! The seeds that every test run goes through, and what the planted bugs are aimed at.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::*;

/// Runs the function for each number on all cores.
fn on_all_cores(numbers: std::ops::Range<u64>, run: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(numbers.start);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        break;
                    }
                    run(number);
                }
            });
        }
    });
}

fn assert_well(seed: u64) {
    if let Some(violation) = run(seed, false).violation {
        let events = run(seed, true).events.join("\n");
        panic!("{events}\nseed {seed}: {violation}\nreplay: SIM_SEED={seed} cargo test --lib sim");
    }
}

/// `SIM_SEED` asks for one, `SIM_SEEDS` for so many.
#[test]
fn a_thousand_seeds_or_those_that_are_asked_for() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number of a seed"));
    match (number("SIM_SEED"), number("SIM_SEEDS")) {
        (Some(seed), _) => assert_well(seed),
        (None, seeds) => on_all_cores(0..seeds.unwrap_or(1_000), assert_well),
    }
}

#[test]
fn the_same_seed_is_the_same_world_byte_for_byte() {
    for seed in 0..50 {
        let (first, second) = (run(seed, false), run(seed, true));
        assert_eq!(first.hash, second.hash, "seed {seed}");
        assert_eq!(first.strikes, second.strikes, "seed {seed}");
    }
    assert_ne!(run(1, false).hash, run(2, false).hash);
}

#[test]
fn every_fault_strikes_within_a_few_hundred_seeds() {
    let strikes =
        (0..300).map(|seed| run(seed, false).strikes).fold([0; Fault::ALL.len()], |mut sums, counts| {
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            sums
        });
    for (fault, count) in Fault::ALL.iter().zip(strikes) {
        assert!(count > 0, "{fault:?} never strikes");
    }
}

/// A check that finds nothing by itself could be taken away, and no planted bug would tell. Whether the check that a patch
/// names does find it, `cargo stress sim --bugs` tells.
#[test]
fn every_check_has_a_planted_bug_that_it_must_find() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/sim/bugs");
    let patches = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let texts: Vec<String> = patches.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    for check in Check::ALL {
        let line = format!("\nFound by: {check:?}\n");
        assert!(texts.iter().any(|text| text.contains(&line)), "no planted bug is aimed at {check:?}");
    }
}
