//! `cargo stress cluster`: the bank on several hosts, until Ctrl-C, told what to do, or put to faults.

use clap::{Args, Subcommand};
use stress::cluster::{Cluster, ClusterOptions, Order, Reception, Trial, TrialOptions, send};
use stress::steps::Steps;
use stress::{Error, Workplace};

use super::{at_work, tell_verdict, until_interrupted};

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
            at_work(|place| bring_up(options, &reception, place))
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
    at_work(|place| {
        let trial = Trial::run(options, place)?;
        tell_verdict(place.steps, &trial.tables(), trial.broken)
    })
}

fn bring_up(options: &ClusterOptions, reception: &Reception, place: &Workplace) -> Result<(), Error> {
    let steps = place.steps;
    let cluster = Cluster::start(options, place)?;
    steps.line(cluster.topology().trim_end());
    steps.line(&format!("in another terminal: {COMMANDS}"));
    steps.line(&format!("up: http://{} (Ctrl-C ends it)", cluster.address()));
    until_interrupted(cluster, place, |cluster| {
        reception.attend(cluster);
        cluster.ended().map_or(Ok(()), |service| Err(service.failure("ended")))
    })
}

const COMMANDS: &str = "cargo stress cluster status | switchover | kill postmaster | kill patroni | kill etcd | kill node | isolate | \
    heal | add | drain";
