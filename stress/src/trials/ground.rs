//! What the bank promises under more load than it can bear and from clients in bad faith, put to the test and measured:
//! what `cargo stress endure` does, without its command line.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};

use crate::arguments::{cpu_thousandths, positive, setting};
use crate::cgroup::{self, Account, Group, Limits, Parent};
use crate::ledger::Judge;
use crate::load::traffic::Record;
use crate::stack::DATABASE;
use crate::{Error, PostgresOptions, Service, Solo, SoloOptions, Workplace};

/// One instance under 3 and 10 times what it can bear, and among hostile clients: what it keeps of its promises
///
/// One instance, without nginx, is put under what it has to endure, and held to its promises. Every request is held against the
/// ledger afterwards: what was answered 200 has one row, what was refused has none.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = include_str!("../help/endure.txt"))]
pub struct EndureOptions {
    /// What it has to endure
    #[arg(value_enum, value_name = "overload|hostile")]
    pub trial: TrialName,
    /// How long each load is applied
    #[arg(long, value_name = "N", default_value = "5", value_parser = positive)]
    pub seconds: u32,
    /// Each commit takes so long at least, as on a slow disk; for overload 40, unless PostgreSQL's CPU is limited. Ten times what
    /// PostgreSQL does without would be more than two processors can ask
    #[arg(long, value_name = "N", value_parser = positive)]
    pub commit_ms: Option<u32>,
    /// What PostgreSQL may use of a CPU, such as 0.15 [default: no limit]
    #[arg(long, value_name = "SHARE", value_parser = cpu_thousandths)]
    pub postgresql_cpu: Option<u32>,
    /// What the instance may use of a CPU. Its memory is limited to 100 MB
    #[arg(long, value_name = "SHARE", default_value = "1", value_parser = cpu_thousandths)]
    pub instance_cpu: u32,
    /// A setting of the instance, such as `QUEUE_WAIT_MAX_MS=50`; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    pub set: Vec<(String, String)>,
    /// How many times each attack of `hostile` is run, each time after as long a time without it as --seconds says
    #[arg(long, value_name = "N", default_value = "3", value_parser = positive)]
    pub windows: u32,
    /// This binary of the server in place of a fresh build; or a server to compare with, which promises nothing: a peer, built
    /// from stress/peers (peer:simple, peer:batch), or in `hostile` nginx with a fixed answer
    #[arg(long, value_name = "FILE|peer:NAME|nginx")]
    pub server: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TrialName {
    /// 3 and 10 times what it can bear, then 10,000 connections at once
    Overload,
    /// Well-behaved clients beside one attack after another
    Hostile,
}

impl EndureOptions {
    /// How long each commit takes at least, as on a slow disk; `None`: benchmark mode, without a disk. Ten times what a fast
    /// database does is more than the load could ask of two processors.
    fn commit_ms(&self) -> Option<u32> {
        let is_fast = self.trial == TrialName::Overload && self.postgresql_cpu.is_none();
        self.commit_ms.or(is_fast.then_some(40))
    }
}

pub fn require_groups() -> Result<Parent, Error> {
    let refusal = "limits cannot be applied here, and without them nothing is overloaded";
    Parent::find().map_err(|why| Error::Refused(format!("{refusal}: {why}: {}", cgroup::REMEDY)))
}

/// Starts one instance over a database, each in a group with limits, and waits until the instance is healthy. Of the
/// `defaults` of the trial's own, the settings that are asked for win.
pub(super) fn start(
    options: &EndureOptions,
    defaults: &[(&str, &str)],
    place: &Workplace,
) -> Result<Solo, Error> {
    let groups = require_groups()?;
    let (is_durable, settings) = slow_disk(options.commit_ms());
    let limits = |cpu_thousandths| Limits { cpu_thousandths, memory_bytes: 330 << 20 };
    let group = groups.group("postgresql", options.postgresql_cpu.map(limits))?;
    let defaults = defaults.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let server = place.server(options.server.as_ref())?;
    Solo::start(SoloOptions {
        postgres: PostgresOptions {
            is_durable,
            settings,
            group: Some(Arc::new(group)),
            ..PostgresOptions::default()
        },
        environment: defaults.chain(options.set.iter().cloned()).collect(),
        group: Some(Arc::new(instance_group(options)?)),
        ..SoloOptions::new(&server, place)
    })
}

pub(super) fn instance_group(options: &EndureOptions) -> Result<Group, Error> {
    let limits = Limits { cpu_thousandths: options.instance_cpu, memory_bytes: INSTANCE_MEMORY_BYTES };
    require_groups()?.group("instance", limits)
}

pub(super) fn account(service: &Service) -> Result<&Account, Error> {
    let account = service.group.as_ref().map(|group| &group.account);
    account.ok_or_else(|| Error::Refused(format!("no account is kept of {}", service.name)))
}

/// A disk that is slow to flush, on every machine alike: PostgreSQL waits before each flush for others to join in, with the
/// second setting also where there are none.
fn slow_disk(commit_ms: Option<u32>) -> (bool, Vec<(String, String)>) {
    let Some(commit_ms) = commit_ms else { return (false, Vec::new()) };
    let delay_us = u64::from(commit_ms) * 1000;
    let settings = [("commit_delay", delay_us.to_string()), ("commit_siblings", "0".to_owned())];
    (true, settings.map(|(name, value)| (name.to_owned(), value)).to_vec())
}

pub(super) fn judge(solo: &Solo, records: &[Record], place: &Workplace) -> Result<(), Error> {
    place.steps.run("the ledger", "agrees", || {
        let mut database = solo.postgres.connect(DATABASE)?;
        Judge::default().judge_at_rest(&mut database, records, &place.interrupt).map(drop)
    })
}

pub(super) const MEMORY: &str = "the instance stays under its memory limit";

/// What was measured of [`MEMORY`], and whether it was kept.
pub(super) fn memory(peak_bytes: Option<u64>) -> (String, bool) {
    let told = |peak: u64| format!("{} of {} MB", peak >> 20, INSTANCE_MEMORY_BYTES >> 20);
    let measured = peak_bytes.map_or_else(|| "unknown".to_owned(), told);
    (measured, peak_bytes.is_none_or(|peak| peak < INSTANCE_MEMORY_BYTES))
}

pub fn descriptors(pid: u32) -> Result<usize, Error> {
    let path = format!("/proc/{pid}/fd");
    Ok(fs::read_dir(&path).map_err(Error::io(format!("list {path}")))?.count())
}

const INSTANCE_MEMORY_BYTES: u64 = 100 << 20;
