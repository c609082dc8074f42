//! What the user sees while it runs: a bar on a terminal, and one line for each run that is done.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Run;

/// Where the progress is told.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    /// Whether runs get a line.
    is_told: bool,
    name: std::cell::RefCell<String>,
    load_began: std::cell::Cell<Option<Instant>>,
}

impl Progress {
    /// On standard error; the bar only where that is a terminal.
    pub fn shown() -> Progress {
        let target = if io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        Progress::on(target, true)
    }

    /// Nowhere.
    pub fn hidden() -> Progress {
        Progress::on(ProgressDrawTarget::hidden(), false)
    }

    fn on(target: ProgressDrawTarget, is_told: bool) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(1), target);
        // The template is ours and right; the bar's own style would do as well.
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {msg}") {
            bar.set_style(style);
        }
        Progress { bar, is_told, name: String::new().into(), load_began: None.into() }
    }

    pub(crate) fn begin(&self, case: &str, run: u32, runs: u32) {
        let name = if runs > 1 { format!("{case}, run {run} of {runs}") } else { case.to_owned() };
        self.bar.set_position(0);
        self.bar.set_message(format!("{name}: starting and warming up"));
        self.name.replace(name);
    }

    pub(crate) fn load(&self, seconds: u32) {
        self.load_began.set(Some(Instant::now()));
        self.bar.set_length(u64::from(seconds) * STEPS_PER_SECOND);
        self.bar.set_message(format!("{}: loading", self.name.borrow()));
    }

    pub(crate) fn tick(&self) {
        let Some(began) = self.load_began.get() else { return };
        let steps = began.elapsed().as_millis()
            / Duration::from_secs(1).as_millis().div_ceil(u128::from(STEPS_PER_SECOND));
        self.bar.set_position(u64::try_from(steps).unwrap_or(u64::MAX).min(self.bar.length().unwrap_or(0)));
    }

    pub(crate) fn loaded(&self) {
        self.load_began.set(None);
        self.bar.set_message(format!("{}: auditing the ledger", self.name.borrow()));
    }

    pub(crate) fn end(&self, run: &Run) {
        if self.is_told {
            let cpu = run
                .cpu_us_per_request()
                .map_or_else(String::new, |cpu| format!(", {cpu:.1} µs CPU per request"));
            let disturbed = if run.is_disturbed() { ", disturbed" } else { "" };
            let line =
                format!("{}: {:.0} req/s{cpu}{disturbed}", self.name.borrow(), run.requests_per_second);
            // Above the bar, or alone where there is none.
            self.bar.suspend(|| eprintln!("{line}"));
        }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

const STEPS_PER_SECOND: u64 = 10;
