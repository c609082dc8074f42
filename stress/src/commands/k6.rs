//! `cargo stress k6`: the challenge, and what becomes of its run.

use stress::measure::Progress;
use stress::steps::Steps;
use stress::trials::{Challenge, ChallengeOptions};
use stress::{Error, install};

use super::{at_work, report};

pub(super) fn run(options: &ChallengeOptions) -> Result<(), Error> {
    options.check()?;
    if options.url.is_none() {
        options.stack.groups()?;
    }
    let Challenge { summary, page, doubts } = at_work(|place| {
        if options.url.is_none() {
            place.install(&[&install::POSTGRES, &install::NGINX, &install::PYTHON])?;
        }
        Challenge::run(options, place, &Progress::shown())
    })?;
    Steps::Printed.line(&summary.tables());
    for doubt in doubts.iter().take(DOUBTS_MAX) {
        Steps::Printed.line(&format!("cannot be true: {doubt}"));
    }
    report::keep(options.keep.as_ref(), &summary, page.as_deref().map(|page| ("html", page)))?;
    if summary.has_passed() { Ok(()) } else { Err(Error::Refused("a threshold was not kept".to_owned())) }
}

/// A bank that is wrong is wrong for every user.
const DOUBTS_MAX: usize = 5;
