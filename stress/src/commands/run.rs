//! `cargo stress run`: a bank under load, measured, and what becomes of the report.

use std::path::PathBuf;

use stress::cgroup::Account;
use stress::load::LoadKind;
use stress::measure::{self, Case, MeasureOptions, Progress, Report, Subject};
use stress::reports::Summary;
use stress::steps::Steps;
use stress::{Bank, Error, Workplace, install};

use super::{Parsed, StackArguments, at_work, positive, report, setting, url};

/// The whole stack under load, measured: requests per second, latencies, CPU time per request
///
/// Measures a stack of its own, on free ports, beside whatever else runs, or a bank that runs: requests per second, latencies,
/// errors, CPU time per request and peak memory of nginx, of each instance and of PostgreSQL.
#[derive(Debug, clap::Args)]
#[command(after_long_help = NOTES)]
pub(super) struct Arguments {
    /// What is sent, and where
    #[arg(value_enum, value_name = "saturate|open|direct", hide_possible_values = false)]
    load: LoadKind,
    /// With direct: GET /healthz only, which asks no database
    #[arg(long)]
    health: bool,
    /// Connections of saturate and direct, one case each
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "32,128", value_parser = positive)]
    pub(super) connections: Vec<u32>,
    /// How long each run is measured, after a second to warm up
    #[arg(long, value_name = "N", default_value = "10", value_parser = positive)]
    seconds: u32,
    /// Runs of each case, in turns; medians are reported
    #[arg(long, value_name = "N", default_value = "1", value_parser = positive)]
    runs: u32,
    #[command(flatten)]
    pub(super) stack: StackArguments,
    /// Writes run.json (everything) and run.svg (a chart) there
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Keeps the run with those in DIR: its chart, a line of JSON, and the index [default DIR: stress/reports]
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    keep: Option<PathBuf>,
    /// Also prints the ratios to an earlier run.json
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    #[command(flatten)]
    running: Option<Running>,
}

/// A bank that runs, in place of a stack of its own; `cargo stress up` prints these options for its own. Nobody else may use
/// the bank during a run, and the run's transactions stay in its ledger.
#[derive(Debug, clap::Args)]
#[group(multiple = true)]
struct Running {
    /// Where requests go, such as <http://localhost:9999>; for direct, one instance
    #[arg(long, required = false, requires_all = ["metrics", "database_url"], value_parser = url, help_heading = "A bank that runs, as `cargo stress up` prints it")]
    url: String,
    /// `METRICS_LISTEN` of every instance
    #[arg(long, value_name = "ADDR,...", required = false, requires = "url", value_delimiter = ',', value_parser = address, help_heading = "A bank that runs, as `cargo stress up` prints it")]
    metrics: Vec<String>,
    /// Its database, as libpq takes it, for the audit of the ledger
    #[arg(
        long,
        value_name = "URL",
        required = false,
        requires = "url",
        help_heading = "A bank that runs, as `cargo stress up` prints it"
    )]
    database_url: String,
    /// A process whose group of limits keeps account of CPU time and memory; repeat it for each part
    #[arg(long = "part", value_name = "NAME=PID", requires = "url", value_parser = part, help_heading = "A bank that runs, as `cargo stress up` prints it")]
    parts: Vec<(String, u32)>,
}

impl Arguments {
    /// What is wrong with options that are right one by one.
    pub(super) fn problem(&self) -> Option<String> {
        (self.health && self.load != LoadKind::Direct).then(|| "--health is for `direct`".to_owned())
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    // Before the work: a wrong path should not cost the user the run.
    let earlier = arguments.against.as_deref().map(Report::read).transpose()?;
    let load = if arguments.health { LoadKind::DirectHealth } else { arguments.load };
    if arguments.running.is_none() {
        arguments.stack.check()?;
    }
    let report = at_work("run", |place| measure(arguments, load, place))?;
    tell(&report, earlier.as_ref());
    if let Some(directory) = &arguments.out {
        let [json, svg] = report.write_into(directory)?;
        Steps::Printed.line(&format!("written: {} and {}", json.display(), svg.display()));
    }
    if let Some(directory) = &arguments.keep {
        let is_default = directory.as_os_str().is_empty();
        let directory = if is_default { report::default_directory() } else { directory.clone() };
        let chart = report.chart();
        report::keep(&directory, &Summary::of_report(&report), Some(("svg", chart.as_bytes())))?;
    }
    Ok(())
}

fn measure(arguments: &Arguments, load: LoadKind, place: &Workplace) -> Result<Report, Error> {
    let generator: &dyn install::Package =
        if load == LoadKind::Open { &install::PYTHON } else { &install::WRK };
    place.install(&[&install::POSTGRES, &install::NGINX, generator])?;
    let subject = match &arguments.running {
        Some(running) => Subject::Running(running.bank()?),
        None => Subject::Own(arguments.stack.own_stack(place)?),
    };
    let options = MeasureOptions {
        subject,
        load,
        connections: arguments.connections.clone(),
        seconds: arguments.seconds,
        runs: arguments.runs,
        place: place.clone(),
    };
    measure::measure(&options, &Progress::shown())
}

impl Running {
    fn bank(&self) -> Result<Bank, Error> {
        let account = |(name, pid): &(String, u32)| {
            let account = Account::of_process(*pid);
            let account = account.map_err(|why| Error::Refused(format!("--part {name}={pid}: {why}")))?;
            Ok((name.clone(), Some(account)))
        };
        Ok(Bank {
            url: self.url.clone(),
            metrics: self.metrics.clone(),
            database_url: self.database_url.clone(),
            parts: self.parts.iter().map(account).collect::<Result<_, Error>>()?,
        })
    }
}

fn tell(report: &Report, earlier: Option<&Report>) {
    Steps::Printed.line(&report.tables());
    let is_disturbed = |case: &&Case| case.median.is_disturbed();
    if let Some(cpus) = report.cases.iter().find(is_disturbed).and_then(|case| case.median.others_cpus) {
        Steps::Printed.line(&format!(
            "Others used {cpus:.2} CPU meanwhile, so these figures are worse than they could be: repeat it later.\n"
        ));
    }
    if let Some(earlier) = earlier {
        Steps::Printed.line(&report.ratios(earlier));
    }
}

fn address(text: &str) -> Parsed<String> {
    let is_address = text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if is_address {
        Ok(text.to_owned())
    } else {
        Err("HOST:PORT, or several with commas, is needed".to_owned())
    }
}

/// `NAME=PID`
fn part(text: &str) -> Parsed<(String, u32)> {
    let (name, pid) = setting(text).map_err(|_| "NAME=PID is needed")?;
    Ok((name, positive(&pid)?))
}

const NOTES: &str = "\
Each run of its own has a new stack. A run is refused, with exit status 1, when its ledger does not add up afterwards: each \
balance is the sum of its ledger and not past its limit, the ledger has one row for each transaction that was answered 200 \
(and at most one for each answer that found its client gone, as when the load ends), and no answer was in doubt.

wrk and Python (for k6, which goes into a private environment in the user's cache) are installed when they are missing, by \
root on Debian or Ubuntu. CPU time and memory come from cgroups, version 1 or 2; the load generator has no limits.";
