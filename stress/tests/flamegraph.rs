//! `cargo stress flamegraph` on the real server, sampled by the real perf.

#![expect(
    clippy::unwrap_used,
    reason = "a panic is how a test fails; clippy excepts test functions, not their helpers"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use stress::install;
use stress::profile::{self, Folded, View};
use stress::throwaway::Throwaway;

/// The stages of a turn, and the functions that have one job each within them.
const ON_CPU: [&str; 10] = [
    "Server::wait",
    "EventLoop<N>::receive",
    "Engine::advance",
    "EventLoop<N>::send",
    "head::parse_head",
    "bank::route",
    "body::parse_transaction",
    "Outbox::encode_call",
    "Lane::poll_event",
    "response::write_response",
];

fn is_possible(view: View) -> bool {
    let perf = install::PERF.require().unwrap().program;
    let Some(obstacle) = profile::obstacle(&perf, view).unwrap() else { return true };
    stress::left_out("flamegraphs", &obstacle);
    false
}

fn flamegraph(seconds: u32, arguments: &[&str], out: &Path) {
    let output = Command::new(env!("CARGO_BIN_EXE_stress"))
        .args(["flamegraph", "--seconds", &seconds.to_string(), "--out"])
        .arg(out)
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn read(directory: &Path, name: &str) -> String {
    fs::read_to_string(directory.join(name)).unwrap()
}

/// A busy machine may leave the server so little time that a small function is not met in a second; then it is sampled
/// for longer.
#[test]
fn the_functions_that_tell_the_story_are_seen_and_two_profiles_are_compared() {
    if !is_possible(View::OnCpu) {
        return;
    }
    let out = Throwaway::new("test").unwrap();
    let mut unseen = BTreeSet::from(ON_CPU);
    for seconds in [1, 4, 16] {
        flamegraph(seconds, &["--frequency", "9997"], out.path());
        let folded = Folded::parse(&read(out.path(), "profile.folded")).unwrap();
        unseen.retain(|function| folded.weight_of(function) == 0);
        if unseen.is_empty() {
            break;
        }
    }
    assert!(unseen.is_empty(), "not seen: {unseen:?}");
    assert!(read(out.path(), "flamegraph.svg").contains("rinha::server::Server::wait ("));

    let earlier = out.path().join("earlier.folded");
    fs::rename(out.path().join("profile.folded"), &earlier).unwrap();
    flamegraph(1, &["--no-kernel", "--against", earlier.to_str().unwrap()], out.path());
    assert!(read(out.path(), "difference.svg").contains("rinha::server::Server::wait ("));
    assert!(!read(out.path(), "profile.folded").contains("_[k]"));
}

#[test]
fn the_server_waits_in_one_place() {
    if !is_possible(View::OffCpu) {
        return;
    }
    let out = Throwaway::new("test").unwrap();
    flamegraph(1, &["--off-cpu"], out.path());
    let folded = Folded::parse(&read(out.path(), "off-cpu.folded")).unwrap();
    assert!(folded.weight_of("Server::wait") > 0, "{}", folded.text());
    assert!(read(out.path(), "off-cpu.svg").contains("rinha::server::Server::wait ("));
}
