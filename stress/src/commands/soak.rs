//! `cargo stress soak`: the soak, and what becomes of its report.

use stress::cluster::{ClusterOptions, TrialOptions};
use stress::trials::soak::{self, SoakOptions};
use stress::{Error, install, measure};

use super::{at_work, tell_verdict};

pub(super) fn run(options: &SoakOptions) -> Result<(), Error> {
    if options.cluster {
        let usual: TrialOptions = stress::options("");
        return super::cluster::faults(&TrialOptions {
            minutes: Some(options.minutes),
            rate: options.rate.unwrap_or(usual.rate),
            clients: options.clients,
            cluster: ClusterOptions { server: options.server.clone(), ..usual.cluster },
            ..usual
        });
    }
    options.check()?;
    measure::groups_for(options.limits)?;
    at_work(|place| {
        place.install(&[&install::POSTGRES, &install::NGINX])?;
        let report = soak::run(options, place)?;
        if let Some(path) = &options.out {
            report.write(path)?;
            place.steps.line(&format!("written: {}", path.display()));
        }
        tell_verdict(place.steps, &report.tables(), report.broken)
    })
}
