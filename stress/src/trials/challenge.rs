//! The challenge as k6 runs it, validations and load, on a stack of its own or against a bank that runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};

use crate::arguments::{above_zero, positive, seconds, some_seconds, url};
use crate::ledger::{Tally, audit, settled};
use crate::load::Program;
use crate::measure::{BalancerName, Machine, Moment, OwnStack, Progress};
use crate::reports::Summary;
use crate::throwaway::Throwaway;
use crate::{Bank, Error, Workplace};

/// The challenge in k6: its validations and its load, with an HTML report
///
/// As `docker compose up k6` has it, without Docker: first its validations (limits, balances, statements, transactions at once,
/// refusals), then debits growing to 220 a second, credits to 110 and statements to 10.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = include_str!("../help/k6.txt"))]
pub struct ChallengeOptions {
    /// Who begins a request. open: the clock, when it is due and on a connection of its own, as in the challenge; closed: as many
    /// users on lasting connections, each waiting for its answer
    #[arg(long, value_enum, default_value_t)]
    pub mode: Mode,
    /// Of the load, such as 90s or 4m; it grows over the first half
    #[arg(long, value_name = "TIME", default_value = "4m", value_parser = some_seconds)]
    pub duration: u32,
    /// Multiplies the rates, or the users
    #[arg(long, value_name = "NUMBER", default_value = "1", value_parser = above_zero)]
    pub scale: f64,
    /// closed: a user's shortest time from one request to the next; 0s asks again at once
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = seconds)]
    pub pause: u32,
    /// 98 % of the requests have to be answered in less
    #[arg(long, value_name = "N", default_value = "250", value_parser = positive)]
    pub slow_ms: u32,
    /// A bank that runs, such as <http://localhost:9999>, in place of a stack of its own
    #[arg(long, value_parser = url)]
    pub url: Option<String>,
    #[command(flatten)]
    pub stack: OwnStack,
    /// Where the HTML report, the summary and the index of all runs go [default: stress/reports]
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// Who begins a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Mode {
    /// The clock: when it is due, whatever became of those before it.
    #[default]
    Open,
    /// Users, each when its own last one is answered.
    Closed,
}

#[derive(Debug)]
pub struct Challenge {
    pub summary: Summary,
    /// k6's own report, a page of HTML.
    pub page: Option<Vec<u8>>,
    /// What the script said about answers that cannot be true; the first of each user.
    pub doubts: Vec<String>,
}

impl Challenge {
    /// Runs k6 to its end, and audits the ledger of a stack of our own. Installs k6 when it is missing.
    pub fn run(
        options: &ChallengeOptions,
        place: &Workplace,
        progress: &Progress,
    ) -> Result<Challenge, Error> {
        let name = format!("k6 {}, {} s, scale {}", options.mode, options.duration, options.scale);
        progress.begin(&name, 1, 1);
        let scratch = Throwaway::new("load")?;
        let challenge = match &options.url {
            Some(url) => load(&Program::k6(scratch.path(), None, place)?, url, options, place, progress),
            None => on_own_stack(scratch.path(), options, place, progress),
        };
        progress.finish();
        challenge
    }
}

impl ChallengeOptions {
    pub fn check(&self) -> Result<(), Error> {
        self.stack.check()?;
        if self.stack.balancer == BalancerName::None {
            let why = "the challenge asks one address: --balancer none is for `cargo stress run`";
            return Err(Error::Usage(why.to_owned()));
        }
        Ok(())
    }
}

fn on_own_stack(
    scratch: &Path,
    options: &ChallengeOptions,
    place: &Workplace,
    progress: &Progress,
) -> Result<Challenge, Error> {
    let own = &options.stack;
    let groups = own.groups()?;
    let group = groups.as_ref().map(|parent| parent.group("load", None)).transpose()?.map(Arc::new);
    let k6 = Program::k6(scratch, group, place)?;
    let stack = own.start(place, groups)?;
    let bank = Bank::of(&stack);

    let before = Moment::now(&bank, k6.group.as_ref());
    let challenge = load(&k6, &bank.urls[0], options, place, progress);
    let after = Moment::now(&bank, k6.group.as_ref());
    let Challenge { mut summary, page, doubts } = challenge?;

    let counts = settled(&bank, &place.interrupt)?;
    summary.ledger = Some(audit(&bank, &Tally::default(), &counts)?);
    summary.place = format!("limits {}", own.limits);
    let [postgres, balancer] = stack.versions().map(|(name, version)| format!("{name} {version}"));
    summary.setup = format!("{}, {}, {postgres}, {balancer}", own.describe(), summary.setup);
    summary.others_cpus = after.others_cpus(&before);
    for case in &mut summary.cases {
        case.parts = after.parts(&before, case.requests);
    }
    Ok(Challenge { summary, page, doubts })
}

fn load(
    k6: &Program,
    url: &str,
    options: &ChallengeOptions,
    place: &Workplace,
    progress: &Progress,
) -> Result<Challenge, Error> {
    let [summary, page] = ["summary.json", "report.html"].map(|name| k6.scratch.join(name));
    let variables = [
        ("BASE_URL", url.to_owned()),
        ("MODE", options.mode.to_string()),
        ("DURATION", format!("{}s", options.duration)),
        ("SCALE", options.scale.to_string()),
        ("PAUSE", format!("{}s", options.pause)),
        ("SLOW_MS", options.slow_ms.to_string()),
        ("SUMMARY", summary.display().to_string()),
    ];
    let dashboard = [
        ("K6_WEB_DASHBOARD", "true".into()),
        // The page is all that is wanted of it: it is not served.
        ("K6_WEB_DASHBOARD_PORT", "-1".into()),
        ("K6_WEB_DASHBOARD_EXPORT", page.clone().into()),
        ("K6_WEB_DASHBOARD_PERIOD", format!("{}s", (options.duration / POINTS).max(1)).into()),
    ];
    let dashboard = dashboard.map(|(name, value)| (name.to_owned(), value)).into();
    progress.load(options.duration);
    let script = place.workspace.join("stress/k6/challenge.js");
    let ended = k6.run_script(&script, &variables, dashboard, options.duration, &place.interrupt);
    progress.loaded();
    let (process, status) = ended?;
    if !status.success() && status.code() != Some(THRESHOLDS_HAVE_FAILED) {
        let given_up = exception(&process.log()).map(|why| Error::Refused(format!("k6 gave up: {why}")));
        return Err(given_up.unwrap_or_else(|| process.failure("failed")));
    }
    let summary = Summary::read(&summary)?;
    let summary = Summary { machine: Machine::look().describe(), ..summary };
    // A run of a few moments has nothing to draw, and leaves none.
    Ok(Challenge { summary, page: fs::read(&page).ok(), doubts: doubts(&process.log()) })
}

/// What the script told the console. Format: logfmt, as k6 writes its log where that is no terminal.
fn doubts(log: &str) -> Vec<String> {
    let told = log.lines().filter(|line| line.ends_with(" source=console"));
    told.filter_map(message).map(str::to_owned).collect()
}

/// Why the script ended the run: the first line of the exception, before where it came from.
fn exception(log: &str) -> Option<&str> {
    let mut thrown = log.lines().filter(|line| line.ends_with(" hint=\"script exception\""));
    let text = thrown.find_map(message)?.split("\\n").next()?;
    text.strip_prefix("Error: ")
}

fn message(line: &str) -> Option<&str> {
    let (_, text) = line.split_once(" msg=\"")?;
    text.rsplit_once("\" ").map(|(text, _)| text)
}

/// k6's exit status for it. Format: k6's source, `errext/exitcodes`.
const THRESHOLDS_HAVE_FAILED: i32 = 99;
/// Of each of the report's charts.
const POINTS: u32 = 120;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubts_are_what_the_script_said_and_an_exception_is_its_first_line() {
        let log = "time=\"2026-11-23T12:00:00Z\" level=error msg=\"client 1: a balance of 7\" source=console\n\
                   time=\"2026-11-23T12:00:01Z\" level=error msg=\"thresholds on metrics were crossed\"\n";
        assert_eq!((doubts(log), exception(log)), (vec!["client 1: a balance of 7".to_owned()], None));
        let log = "time=\"2026-11-23T12:00:00Z\" level=error msg=\"Error: no bank answers at http://h\\n\\tat validate \
                   (file:///v.js:33:11(19))\\n\" hint=\"script exception\"\n";
        assert_eq!(exception(log), Some("no bank answers at http://h"));
    }
}
