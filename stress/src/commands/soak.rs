//! `cargo stress soak`: the soak, and what becomes of its report.

use std::path::PathBuf;
use std::time::Duration;

use stress::measure;
use stress::steps::Steps;
use stress::throwaway::Throwaway;
use stress::trials::soak::{self, SoakOptions};
use stress::{Error, Split, Workplace, install};

use super::positive;

/// The whole stack under load for an hour with a fault each minute: the ledger agrees, and nothing grows
///
/// A stack of its own, on free ports, at 70 % of its capacity, with a fault in every minute. In turn: PostgreSQL is restarted, a
/// backend of it is terminated, it stands still for 5 s, another session locks a row for 5 s, webapi2 is killed and comes back after
/// 5 s, webapi2 is restarted with SIGTERM, nginx is reloaded.
#[derive(Debug, clap::Args)]
#[command(after_long_help = NOTES)]
pub(super) struct Arguments {
    /// How long, after the capacity was measured
    #[arg(long, value_name = "N", default_value = "60", value_parser = clap::value_parser!(u32).range(1..=60_000_000))]
    minutes: u32,
    /// The same in seconds
    #[arg(long, value_name = "N", value_parser = positive, conflicts_with = "minutes")]
    seconds: Option<u32>,
    /// From one fault to the next
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = positive)]
    every: u32,
    /// Requests per second, in place of 70 % of the lowest of three measurements of the capacity
    #[arg(long, value_name = "N", value_parser = positive)]
    rate: Option<u32>,
    /// Clients, each with one request under way at most; connections live for 2 to 4 s
    #[arg(long, value_name = "N", default_value = "32", value_parser = positive)]
    clients: u32,
    /// The services' shares of the 1.5 CPU and 550 MB
    #[arg(long, value_enum, default_value_t, value_name = "SPLIT")]
    limits: Split,
    /// This binary of the server in place of a fresh build
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
    /// Also writes everything as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Arguments {
    fn faults(&self) -> u32 {
        self.seconds.unwrap_or(self.minutes * 60) / self.every
    }

    /// What is wrong with options that are right one by one.
    pub(super) fn problem(&self) -> Option<String> {
        (self.faults() == 0)
            .then(|| format!("so short a soak has no room for a fault every {} s", self.every))
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    measure::groups_for(arguments.limits)?;
    let logs = Throwaway::new("logs")?;
    let place = Workplace::of_command(logs.path())?;
    place.install(&[&install::POSTGRES, &install::NGINX])?;
    let report = soak::run(&SoakOptions {
        server: place.server(arguments.server.as_ref())?,
        faults: arguments.faults(),
        every: Duration::from_secs(arguments.every.into()),
        requests_per_second: arguments.rate.map(f64::from),
        clients: usize::try_from(arguments.clients).unwrap_or(usize::MAX),
        split: arguments.limits,
        place,
    })?;
    Steps::Printed.line(&format!("\n{}", report.tables()));
    if let Some(path) = &arguments.out {
        report.write(path)?;
        Steps::Printed.line(&format!("written: {}", path.display()));
    }
    if report.broken.is_empty() {
        Steps::Printed.line("every promise was kept");
        return Ok(());
    }
    let kept = logs.keep();
    Err(Error::Refused(format!("{}\nthe logs are kept in {}", report.broken.join("\n"), kept.display())))
}

const NOTES: &str = "\
At the end of each minute the load stops for some seconds. Every answer is held against the ledger: a 200 has exactly one \
row and told the balance after it, a 422 and a 503 \"nothing was done\" have none, what is in doubt has at most one, and \
there is no other row. Then memory and descriptors of each part are noted, while nobody is connected.

Ends with status 1 when a promise is broken: the ledger disagrees, a client gets no answer or one that the bank never gives, \
a client is not served again after a fault, a part ends by itself, a log has a panic, or from 14 faults on, when a part \
grows: its memory (median of the last 10 minutes against the first 10; of PostgreSQL what its processes do not share) by \
more than 5 % plus 1 MiB, or its descriptors at all (PostgreSQL's by more than 64: one for each GB of tables in each \
process). webapi2, which is restarted, is noted but not judged.";
