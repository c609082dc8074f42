//! What a test cannot check on this machine.

use std::env;
use std::io::{self, Write as _};

/// Says on standard error that `what` is not checked here, and why.
///
/// # Panics
/// In a workflow, as `.ci/left-out` has it: there nothing may be left out.
pub fn left_out(what: &str, why: &str) {
    left_out_in(env::var_os("GITHUB_ACTIONS").is_some(), what, why);
}

fn left_out_in(is_workflow: bool, what: &str, why: &str) {
    assert!(!is_workflow, "{what} cannot be checked here: {why}");
    // Not by `eprintln!`, which libtest keeps to itself as long as the test does not fail.
    let _ = writeln!(io::stderr(), "!! LEFT OUT: {what}: {why}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "limits cannot be checked here: no cgroups")]
    fn a_workflow_leaves_nothing_out() {
        left_out_in(false, "this test of leaving out", "it is a test");
        left_out_in(true, "limits", "no cgroups");
    }
}
