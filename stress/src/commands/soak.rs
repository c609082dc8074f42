//! `cargo stress soak`: the soak, and what becomes of its report.

use stress::cluster::{ClusterOptions, TrialOptions};
use stress::steps::Steps;
use stress::throwaway::Throwaway;
use stress::trials::soak::{self, SoakOptions};
use stress::{Error, Workplace, install, measure};

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
    measure::groups_for(options.limits)?;
    let logs = Throwaway::new("logs")?;
    let place = Workplace::of_command(logs.path())?;
    place.install(&[&install::POSTGRES, &install::NGINX])?;
    let report = soak::run(options, &place)?;
    Steps::Printed.line(&format!("\n{}", report.tables()));
    if let Some(path) = &options.out {
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
