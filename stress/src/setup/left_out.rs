//! What a test cannot check on this machine.

use std::env;
use std::io::{self, Write as _};

/// Says on standard error that `what` is not checked here, and why.
///
/// # Panics
/// In a workflow, as `.ci/left-out` has it: there nothing may be left out.
pub fn left_out(what: &str, why: &str) {
    assert!(env::var_os("GITHUB_ACTIONS").is_none(), "{what} cannot be checked here: {why}");
    // Not by `eprintln!`, which libtest keeps to itself as long as the test does not fail.
    let _ = writeln!(io::stderr(), "!! LEFT OUT: {what}: {why}");
}
