//! The command line: what `stress` refuses, in one line, and with which exit status.

#![expect(
    clippy::unwrap_used,
    reason = "a panic is how a test fails; clippy excepts test functions, not their helpers"
)]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use stress::lock::Lock;
use stress::throwaway::Throwaway;

fn stress(arguments: &[&str], temporary: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stress"));
    command.args(arguments).env("TMPDIR", temporary).output().unwrap()
}

fn assert_refused(output: &Output, status: i32, wanted: &str) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.contains(wanted), "{message}");
}

#[test]
fn help_is_given_on_request_and_without_a_subcommand() {
    let directory = Throwaway::new("test").unwrap();
    for arguments in [
        &[][..],
        &["--help"],
        &["up", "--help"],
        &["run", "--help"],
        &["k6", "-h"],
        &["report", "-h"],
        &["flamegraph", "--help"],
        &["trace", "--help"],
        &["soak", "--help"],
    ] {
        let output = stress(arguments, directory.path());
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains("Usage: cargo stress"));
    }
}

#[test]
fn a_wrong_command_line_is_named() {
    let directory = Throwaway::new("test").unwrap();
    assert_refused(&stress(&["down"], directory.path()), 2, "down");
    assert_refused(&stress(&["up", "--speed"], directory.path()), 2, "--speed");
    assert_refused(&stress(&["up", "--limits", "all"], directory.path()), 2, "tuned");
    assert_refused(&stress(&["run", "fast"], directory.path()), 2, "saturate, open");
    assert_refused(&stress(&["run"], directory.path()), 2, "saturate, open");
    assert_refused(&stress(&["k6", "--mode", "half"], directory.path()), 2, "open and closed");
    assert_refused(&stress(&["k6", "--url", "h:1"], directory.path()), 2, "http://");
    assert_refused(&stress(&["soak", "--seconds", "9"], directory.path()), 2, "no room for a fault");
    assert_refused(&stress(&["report", "a", "b"], directory.path()), 2, "b");
    assert_refused(&stress(&["up", "--port", "70000"], directory.path()), 2, "70000");
}

#[test]
fn a_second_up_names_the_first() {
    let directory = Throwaway::new("test").unwrap();
    let _first = Lock::take(&directory.path().join("rinha-stress.lock")).unwrap();
    let holder = format!("already running as process {}", std::process::id());
    assert_refused(&stress(&["up"], directory.path()), 1, &holder);
}

#[test]
fn a_port_in_use_is_named_with_the_remedy() {
    let directory = Throwaway::new("test").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = stress(&["up", "--port", &port], directory.path());
    assert_refused(&output, 1, &format!("port {port} is in use"));
    assert_refused(&output, 1, "choose another with --port");
    assert!(!directory.path().join("rinha-stress.lock").exists());
}

#[test]
fn a_run_reads_what_it_is_compared_with_before_it_works() {
    let directory = Throwaway::new("test").unwrap();
    let earlier = directory.path().join("run.json");
    std::fs::write(&earlier, "{}").unwrap();
    let output = stress(&["run", "open", "--against", earlier.to_str().unwrap()], directory.path());
    assert_refused(&output, 1, "is no report of `cargo stress run --out`");
}

#[test]
fn a_report_of_no_directory_is_refused() {
    let directory = Throwaway::new("test").unwrap();
    let missing = directory.path().join("missing");
    let output = stress(&["report", missing.to_str().unwrap()], directory.path());
    assert_refused(&output, 1, "cannot read the directory");
}
