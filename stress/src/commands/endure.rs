//! `cargo stress endure`: what the bank has to endure, and the verdict on its promises.

use std::path::PathBuf;

use clap::ValueEnum;
use stress::cgroup::Limits;
use stress::steps::Steps;
use stress::trials::{self, EndureOptions, Promise, hostile, overload};
use stress::{Error, Workplace, install};

use super::{Parsed, at_work, positive, setting};

/// One instance under 3 and 10 times what it can bear, and among hostile clients: what it keeps of its promises
///
/// One instance, without nginx, is put under what it has to endure, and held to its promises. Every request is held against the
/// ledger afterwards: what was answered 200 has one row, what was refused has none.
#[derive(Debug, clap::Args)]
#[command(after_long_help = NOTES)]
pub(super) struct Arguments {
    /// What it has to endure
    #[arg(value_enum, value_name = "overload|hostile")]
    trial: TrialName,
    /// How long each load is applied
    #[arg(long, value_name = "N", default_value = "5", value_parser = positive)]
    seconds: u32,
    /// Each commit takes so long at least, as on a slow disk; for overload 40, unless PostgreSQL's CPU is limited. Ten times what
    /// PostgreSQL does without would be more than two processors can ask
    #[arg(long, value_name = "N", value_parser = positive)]
    commit_ms: Option<u32>,
    /// What PostgreSQL may use of a CPU, such as 0.15 [default: no limit]
    #[arg(long, value_name = "SHARE", value_parser = cpu_thousandths)]
    postgresql_cpu: Option<u32>,
    /// What the instance may use of a CPU. Its memory is limited to 100 MB
    #[arg(long, value_name = "SHARE", default_value = "1", value_parser = cpu_thousandths)]
    instance_cpu: u32,
    /// A setting of the instance, such as `QUEUE_WAIT_MAX_MS=50`; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// This binary of the server in place of a fresh build
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TrialName {
    /// 3 and 10 times what it can bear, then 10,000 connections at once
    Overload,
    /// Well-behaved clients beside one attack after another
    Hostile,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    trials::require_groups()?;
    let (table, promises) = at_work("endure", |place| measure(arguments, place))?;
    let (promises, verdict) = trials::verdict(&promises);
    Steps::Printed.line(&format!("\n{table}\n{promises}"));
    verdict
}

fn measure(arguments: &Arguments, place: &Workplace) -> Result<(String, Vec<Promise>), Error> {
    place.install(&[&install::POSTGRES, &install::NGINX])?;
    // Ten times what a fast database does is more than the load could ask of two processors.
    let is_fast = arguments.trial == TrialName::Overload && arguments.postgresql_cpu.is_none();
    let options = EndureOptions {
        server: place.server(arguments.server.as_ref())?,
        instance_limits: Limits { cpu_thousandths: arguments.instance_cpu, memory_bytes: 100 << 20 },
        postgres_limits: arguments
            .postgresql_cpu
            .map(|cpu_thousandths| Limits { cpu_thousandths, memory_bytes: 330 << 20 }),
        commit_ms: arguments.commit_ms.or(is_fast.then_some(40)),
        settings: settings(arguments),
        seconds: arguments.seconds,
        place: place.clone(),
    };
    match arguments.trial {
        TrialName::Overload => overload::measure(&options).map(|it| (it.table(), it.promises())),
        TrialName::Hostile => hostile::measure(&options).map(|it| (it.table(), it.promises())),
    }
}

/// The settings asked for. An open load is what quick refusals are for, so overload asks for them unless told otherwise.
fn settings(arguments: &Arguments) -> Vec<(String, String)> {
    const QUICK_REFUSALS: (&str, &str) = ("QUEUE_WAIT_MAX_MS", "100");
    let mut settings = arguments.set.clone();
    let is_given = settings.iter().any(|(name, _)| name == QUICK_REFUSALS.0);
    if arguments.trial == TrialName::Overload && !is_given {
        settings.push((QUICK_REFUSALS.0.to_owned(), QUICK_REFUSALS.1.to_owned()));
    }
    settings
}

/// Thousandths, of a share such as 0.15.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 10 and 64000")]
fn cpu_thousandths(text: &str) -> Parsed<u32> {
    let share = text.parse::<f64>().ok().filter(|share| (0.01..=64.0).contains(share));
    share
        .map(|share| (share * 1000.0).round() as u32)
        .ok_or_else(|| "a share of a CPU from 0.01 on is needed".to_owned())
}

const NOTES: &str = "\
overload: Runs with QUEUE_WAIT_MAX_MS=100 unless --set says otherwise. Finds out what the database does at best, and at which rate everything is still served; then asks 3 and 10 times \
that, whether or not it keeps up, with half of it before and after; then 10,000 connections at once. Promised: at least \
90 % of its best are served all along, 99 of 100 refusals come within 50 ms, everything is normal again within 1 s, memory \
stays under its limit, everybody is answered.

hostile: 1,000 requests a second from well-behaved clients, beside one attack after another and alone before each: crowds \
that send a byte a second or nothing, peers that never read, bodies without an end, 100,000 pipelined requests, resets at \
every point; then all descriptors are taken away. Promised: the others' p99 stays within 1.5 times its quiet value, \
attackers are cut off within their deadline (here 3 s) and 0.5 s, descriptors return, and without any the instance uses \
less than 5 % of a CPU.

Exits with status 1 when a promise is missed. The load runs beside the bank on the same processors: whatever else uses them \
shows in the latencies. Limits need cgroups, so root or a delegated systemd scope.";
