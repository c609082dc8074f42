//! The challenge as k6 runs it, validations and load, on a stack of its own or against a bank that runs.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use clap::ValueEnum;

use crate::ledger::{Tally, audit, settled};
use crate::load::{K6, Script};
use crate::measure::{Machine, Moment, OwnStack, Progress, groups_for, parts, stack_options, usage_of};
use crate::reports::Summary;
use crate::throwaway::Throwaway;
use crate::{Bank, Error, Stack, Workplace};

/// What k6 does, and to whom.
#[derive(Debug, Clone)]
pub struct ChallengeOptions {
    /// The bank.
    pub target: Target,
    /// Who begins a request.
    pub mode: Mode,
    /// How long the load is. It grows over the first half.
    pub seconds: u32,
    /// The challenge's rates, times this; above 0.
    pub scale: f64,
    /// In closed mode, a user's shortest time from one request to the next.
    pub pause_seconds: u32,
    /// 98 % of the requests have to be answered in less.
    pub slow_ms: u32,
    /// Where, and who watches it.
    pub place: Workplace,
}

/// The bank that is asked.
#[derive(Debug, Clone)]
pub enum Target {
    /// One that runs, at this URL. Its CPU time is not known, and its ledger is not audited.
    Running(String),
    /// One that is started for this run.
    Own(OwnStack),
}

/// Who begins a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// The clock: when it is due, whatever became of those before it.
    #[default]
    Open,
    /// Users, each when its own last one is answered.
    Closed,
}

impl Mode {
    /// As the command line calls it.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Open => "open",
            Mode::Closed => "closed",
        }
    }
}

/// What came out.
#[derive(Debug)]
pub struct Challenge {
    /// The figures, and whether all thresholds were kept.
    pub summary: Summary,
    /// k6's own report, a page of HTML.
    pub page: Option<Vec<u8>>,
    /// What the script said about answers that cannot be true; the first of each user.
    pub doubts: Vec<String>,
}

impl Challenge {
    /// Runs k6 to its end, and audits the ledger of a stack of our own. Installs k6 when it is missing.
    ///
    /// # Errors
    /// When the stack does not start, no bank answers, or the ledger does not add up. A threshold that was not kept is
    /// no error.
    pub fn run(options: &ChallengeOptions, progress: &Progress) -> Result<Challenge, Error> {
        let name = format!("k6 {}, {} s, scale {}", options.mode.name(), options.seconds, options.scale);
        progress.begin(&name, 1, 1);
        let scratch = Throwaway::new("load")?;
        let challenge = match &options.target {
            Target::Running(url) => {
                let k6 = K6::find(scratch.path(), None, &options.place)?;
                load(&k6, url, options, progress)
            }
            Target::Own(own) => on_own_stack(own, scratch.path(), options, progress),
        };
        progress.finish();
        challenge
    }
}

fn on_own_stack(
    own: &OwnStack,
    scratch: &Path,
    options: &ChallengeOptions,
    progress: &Progress,
) -> Result<Challenge, Error> {
    let groups = groups_for(own.split)?;
    let group = groups.as_ref().map(|parent| parent.group("load", None)).transpose()?.map(Arc::new);
    let k6 = K6::find(scratch, group, &options.place)?;
    let stack = Stack::start(&stack_options(own, &options.place, groups))?;
    let bank = Bank::of(&stack);

    let others_before = Moment::now(&bank, k6.group());
    let usage_before = usage_of(&bank);
    let challenge = load(&k6, &bank.url, options, progress);
    let usage_after = usage_of(&bank);
    let others_after = Moment::now(&bank, k6.group());
    let Challenge { mut summary, page, doubts } = challenge?;

    let counts = settled(&bank, &options.place.interrupt)?;
    summary.ledger = Some(audit(&bank, &Tally::of_new_bank(), &counts)?);
    summary.place = format!("limits {}", own.split.name());
    summary.setup = format!("{}, {}", own.describe(), summary.setup);
    summary.others_cpus = others_after.zip(others_before).map(|(after, before)| after.others_cpus(before));
    for case in &mut summary.cases {
        case.parts = parts(&usage_before, &usage_after, case.requests);
    }
    Ok(Challenge { summary, page, doubts })
}

fn load(k6: &K6, url: &str, options: &ChallengeOptions, progress: &Progress) -> Result<Challenge, Error> {
    let [summary, page] = ["summary.json", "report.html"].map(|name| k6.scratch().join(name));
    let script = Script {
        path: &options.place.workspace.join("stress/k6/challenge.js"),
        variables: vec![
            ("BASE_URL", url.to_owned()),
            ("MODE", options.mode.name().to_owned()),
            ("DURATION", format!("{}s", options.seconds)),
            ("SCALE", options.scale.to_string()),
            ("PAUSE", format!("{}s", options.pause_seconds)),
            ("SLOW_MS", options.slow_ms.to_string()),
            ("SUMMARY", summary.display().to_string()),
        ],
        environment: vec![
            ("K6_WEB_DASHBOARD", "true".into()),
            // The page is all that is wanted of it: it is not served.
            ("K6_WEB_DASHBOARD_PORT", "-1".into()),
            ("K6_WEB_DASHBOARD_EXPORT", page.clone().into()),
            ("K6_WEB_DASHBOARD_PERIOD", format!("{}s", (options.seconds / POINTS).max(1)).into()),
        ],
        seconds: options.seconds,
    };
    progress.load(options.seconds);
    let ended = k6.run(script, &options.place.interrupt);
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
    fn doubts_are_what_the_script_said() {
        let log = "time=\"2026-11-23T12:00:00Z\" level=error msg=\"client 1: a balance of 7\" source=console\n\
                   time=\"2026-11-23T12:00:01Z\" level=error msg=\"thresholds on metrics were crossed\"\n";
        assert_eq!(doubts(log), ["client 1: a balance of 7"]);
        assert_eq!(exception(log), None);
    }

    #[test]
    fn an_exception_is_its_first_line() {
        let log = "time=\"2026-11-23T12:00:00Z\" level=error msg=\"Error: no bank answers at http://h\\n\\tat validate \
                   (file:///v.js:33:11(19))\\n\" hint=\"script exception\"\n";
        assert_eq!(exception(log), Some("no bank answers at http://h"));
    }
}
