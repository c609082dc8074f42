//! What has to be there before anything can run: programs of others, found or installed, and the server, built.

pub mod compile;
pub mod install;

mod k6;
mod python;
mod tools;

mod workplace;
pub use workplace::Workplace;

/// Says on standard error that `what` is not checked here, and why.
///
/// # Panics
/// In a workflow, as `.ci/left-out` has it: there nothing may be left out.
pub fn left_out(what: &str, why: &str) {
    use std::io::Write as _;

    let is_workflow = std::env::var_os("GITHUB_ACTIONS").is_some();
    assert!(!is_workflow, "{what} cannot be checked here: {why}");
    // Not by `eprintln!`, which libtest keeps to itself as long as the test does not fail.
    let _ = writeln!(std::io::stderr(), "!! LEFT OUT: {what}: {why}");
}
