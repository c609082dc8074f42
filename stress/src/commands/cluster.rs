//! `cargo stress cluster`: the bank on several hosts, until Ctrl-C, told what to do, or put to faults.

use std::time::Duration;

use clap::{Args, Subcommand};
use stress::cluster::{Cluster, ClusterOptions, Order, Reception, Trial, TrialOptions, send};
use stress::steps::Steps;
use stress::{Error, Workplace, wait};

use super::at_work;

/// The bank on several hosts: three nodes of PostgreSQL under Patroni with etcd, instances on two hosts, nginx; and its faults
///
/// The hosts are network namespaces of this machine, so it needs root. PostgreSQL, etcd and nginx are installed from the
/// distribution's packages, Patroni from `PyPI` into a virtual environment below target/. All parts speak TLS and log in by SCRAM.
/// Nothing is left behind at the end.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Brings a cluster up, until Ctrl-C
    Up(ClusterOptions),
    Faults(TrialOptions),
    #[command(flatten)]
    Order(Order),
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    match &arguments.action {
        Action::Up(options) => {
            let reception = Reception::open()?;
            at_work("cluster", |place| bring_up(options, &reception, place))
        }
        Action::Faults(options) => faults(options),
        Action::Order(order) => {
            Steps::Printed.line(send(order)?.trim_end());
            Ok(())
        }
    }
}

/// Put to faults; also what `cargo stress soak --cluster` does.
pub(super) fn faults(options: &TrialOptions) -> Result<(), Error> {
    at_work("cluster", |place| {
        let trial = Trial::run(options, place)?;
        place.steps.line(&format!("\n{}", trial.tables()));
        if trial.broken.is_empty() {
            place.steps.line("every promise was kept");
            return Ok(());
        }
        Err(Error::Refused(trial.broken.join("\n")))
    })
}

fn bring_up(options: &ClusterOptions, reception: &Reception, place: &Workplace) -> Result<(), Error> {
    let steps = place.steps;
    let mut cluster = Cluster::start(options, place)?;
    steps.line(cluster.topology().trim_end());
    steps.line(&format!("in another terminal: {COMMANDS}"));
    steps.line(&format!("up: http://{} (Ctrl-C ends it)", cluster.address()));
    let watched = wait::until(FOREVER, &place.interrupt, || {
        reception.attend(&mut cluster);
        cluster.ended().map_or(Ok(None::<()>), |service| Err(service.failure("ended")))
    });
    steps.run("stopping", "all stopped", || {
        drop(cluster);
        Ok(())
    })?;
    match watched {
        Ok(_) | Err(Error::Interrupted) => Ok(()),
        Err(error) => Err(error),
    }
}

const COMMANDS: &str = "cargo stress cluster status | switchover | kill postmaster | kill patroni | kill etcd | kill node | isolate | \
    heal | add | drain";
const FOREVER: Duration = Duration::from_hours(365 * 24);
