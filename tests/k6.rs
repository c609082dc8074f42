//! k6's script of the challenge: the real bank passes in both modes, and a bank that lies does not.

#[path = "k6/stub.rs"]
mod stub;

use stress::measure::Progress;
use stress::reports::{Summary, keep};
use stress::throwaway::Throwaway;
use stress::trials::{Challenge, ChallengeOptions};
use stress::{Error, Workplace};
use stub::Lie;

/// Few enough requests that k6 has a user for each, however slow the answers are; and what a busy machine needs is no fault of
/// the bank.
fn options(more: &str) -> ChallengeOptions {
    stress::options(&format!("--duration 2s --scale 0.15 --slow-ms 60000 {more}"))
}

fn run(options: &ChallengeOptions, logs: &Throwaway) -> Result<Challenge, Error> {
    Challenge::run(options, &Workplace::silent(env!("CARGO_MANIFEST_DIR"), logs.path()), &Progress::hidden())
}

fn requests(summary: &Summary, scenario: &str) -> u64 {
    summary.scenarios.iter().filter(|row| row.name == scenario).map(|row| row.requests).sum()
}

/// The metrics whose thresholds were not kept.
fn broken(summary: &Summary) -> Vec<&str> {
    let broken = summary.thresholds.iter().filter(|threshold| !threshold.is_kept);
    broken.map(|threshold| threshold.metric.as_str()).collect()
}

fn real_bank_passes(mode: &str) {
    let options = options(&format!("--mode {mode} --limits none --server {}", env!("CARGO_BIN_EXE_rinha")));
    let logs = Throwaway::new("test").expect("make a directory");
    let Challenge { summary, page, doubts } = run(&options, &logs).expect("run k6");
    assert_eq!((doubts, &summary.failed_checks), (Vec::new(), &Vec::new()), "{summary:?}");
    assert_eq!(broken(&summary), Vec::<&str>::new(), "{summary:?}");
    assert!(summary.thresholds.len() == 4 && summary.balances_inconsistent == 0, "{summary:?}");
    for scenario in ["validations", "debits", "credits", "statements", "comparisons"] {
        assert!(requests(&summary, scenario) > 0, "{scenario}: {summary:?}");
    }
    let ledger = summary.ledger.expect("an audit");
    assert_eq!(ledger.rows, ledger.answered_200, "k6 waits for every answer");
    assert_eq!(summary.load, format!("k6 {mode}"));

    let page = page.expect("k6's report");
    let kept = keep(logs.path(), &summary, Some(("html", &page))).expect("keep the run");
    assert!(kept.is_file() && logs.path().join("index.html").is_file());
}

#[test]
fn the_real_bank_passes_in_open_mode() {
    real_bank_passes("open");
}

#[test]
fn the_real_bank_passes_in_closed_mode() {
    real_bank_passes("closed");
}

fn run_on_stub(lie: Lie) -> Challenge {
    let logs = Throwaway::new("test").expect("make a directory");
    run(&options(&format!("--url http://{}", stub::open(lie))), &logs).expect("run k6")
}

/// So what fails below fails for the lie.
#[test]
fn an_honest_stub_passes() {
    let Challenge { summary, doubts, .. } = run_on_stub(Lie::Never);
    assert!(summary.has_passed(), "{doubts:?} {summary:?}");
    assert!(summary.balances_compared > 0, "{summary:?}");
}

#[test]
fn a_balance_past_the_limit_fails_the_run() {
    let Challenge { summary, doubts, .. } = run_on_stub(Lie::PastLimit);
    assert_eq!(broken(&summary), ["balances_inconsistent"], "{summary:?}");
    assert!(doubts.iter().any(|doubt| doubt.contains("past the limit")), "{doubts:?}");
}

#[test]
fn a_balance_that_is_not_that_of_the_ledger_fails_the_run() {
    let Challenge { summary, doubts, .. } = run_on_stub(Lie::AgainstLedger);
    assert_eq!(broken(&summary), ["balances_inconsistent"], "{summary:?}");
    assert!(doubts.iter().any(|doubt| doubt.contains("where the ledger says")), "{doubts:?}");
}

#[test]
fn where_no_bank_answers_there_is_no_run() {
    let logs = Throwaway::new("test").expect("make a directory");
    let closed =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a port");
    let error =
        run(&options(&format!("--url http://{closed}")), &logs).expect_err("nobody listens").to_string();
    assert_eq!(error, format!("k6 gave up: no bank answers at http://{closed}"));
}
