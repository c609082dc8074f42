//! `cargo stress endure`: what the bank has to endure, and the verdict on its promises.

use stress::steps::Steps;
use stress::trials::{self, EndureOptions, TrialName, hostile, overload};
use stress::{Error, install};

use super::at_work;

pub(super) fn run(options: &EndureOptions) -> Result<(), Error> {
    trials::require_groups()?;
    let (table, promises) = at_work("endure", |place| {
        place.install(&[&install::POSTGRES, &install::NGINX])?;
        match options.trial {
            TrialName::Overload => overload::measure(options, place).map(|it| (it.table(), it.promises())),
            TrialName::Hostile => hostile::measure(options, place).map(|it| (it.table(), it.promises())),
        }
    })?;
    let (promises, verdict) = trials::verdict(&promises);
    Steps::Printed.line(&format!("\n{table}\n{promises}"));
    verdict
}
