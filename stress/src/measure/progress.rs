//! What the user sees while it runs: a bar on a terminal, and one line for each run that is done.

use std::cell::RefCell;
use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::Run;

#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    is_told: bool,
    name: RefCell<String>,
}

impl Progress {
    /// On standard error; the bar only where that is a terminal.
    pub fn shown() -> Progress {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        if !io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        // The template is ours and right; the bar's own style would do as well.
        if let Ok(style) = ProgressStyle::with_template("{time} {msg}") {
            bar.set_style(style.with_key("time", draw_time));
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Progress { bar, is_told: true, name: RefCell::default() }
    }

    pub fn hidden() -> Progress {
        Progress { bar: ProgressBar::hidden(), is_told: false, name: RefCell::default() }
    }

    pub(crate) fn begin(&self, case: &str, run: u32, runs: u32) {
        let name = if runs > 1 { format!("{case}, run {run} of {runs}") } else { case.to_owned() };
        self.tell(0, &format!("{name}: starting and warming up"));
        self.name.replace(name);
    }

    pub(crate) fn load(&self, seconds: u32) {
        self.tell(seconds, &format!("{}: loading", self.name.borrow()));
    }

    pub(crate) fn loaded(&self) {
        self.tell(0, &format!("{}: auditing the ledger", self.name.borrow()));
    }

    /// What is done now, and for how long, where that is known.
    fn tell(&self, seconds: u32, message: &str) {
        self.bar.reset_elapsed();
        self.bar.set_length(seconds.into());
        self.bar.set_message(message.to_owned());
    }

    pub(crate) fn end(&self, run: &Run) {
        if self.is_told {
            let cpu = run
                .cpu_us_per_request()
                .map_or_else(String::new, |cpu| format!(", {cpu:.1} µs CPU per request"));
            let disturbed = if run.disturbance().is_some() { ", disturbed" } else { "" };
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

/// The bar: how much of the time that it takes is over.
fn draw_time(state: &ProgressState, into: &mut dyn Write) {
    let whole_ms = u128::from(state.len().unwrap_or(0)) * 1000;
    let done = (state.elapsed().as_millis() * WIDTH).checked_div(whole_ms).unwrap_or(0).min(WIDTH);
    for cell in 0..WIDTH {
        // If it cannot be drawn, nothing is lost.
        let _ = into.write_char(if cell < done { '█' } else { '░' });
    }
}

const WIDTH: u128 = 30;
