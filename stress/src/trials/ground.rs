//! What the bank promises under more load than it can bear and from clients in bad faith, put to the test and measured:
//! what `cargo stress endure` does, without its command line.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use crate::cgroup::{self, Account, Group, Limits, Parent};
use crate::{Durability, Error, Instance, PostgresOptions, Solo, SoloOptions, Workplace};

/// What to put to the test.
#[derive(Debug, Clone)]
pub struct EndureOptions {
    /// The server's binary.
    pub server: PathBuf,
    /// What the instance may use.
    pub instance_limits: Limits,
    /// What PostgreSQL may use; by default all that there is.
    pub postgres_limits: Option<Limits>,
    /// How long each commit takes at least, as on a slow disk; `None`: benchmark mode, without a disk.
    pub commit_ms: Option<u32>,
    /// Settings of the instance by the name of their environment variable.
    pub settings: Vec<(String, String)>,
    /// How long each load that matters is applied.
    pub seconds: u32,
    /// Where, and who watches it.
    pub place: Workplace,
}

/// Where the groups with the limits are made.
///
/// # Errors
/// [`Error::Refused`] with the remedy where limits cannot be applied. Ask before anything is installed or built.
pub fn require_groups() -> Result<Parent, Error> {
    Parent::find().map_err(|why| {
        let remedy = cgroup::REMEDY;
        Error::Refused(format!(
            "limits cannot be applied here, and without them nothing is overloaded: {why}: {remedy}"
        ))
    })
}

/// Starts one instance over a database, each in a group with limits, and waits until the instance is healthy.
pub(super) fn start(options: &EndureOptions) -> Result<Solo, Error> {
    let groups = require_groups()?;
    let (durability, settings) = slow_disk(options.commit_ms);
    let group = Some(Arc::new(groups.group("postgresql", options.postgres_limits)?));
    Solo::start(SoloOptions {
        postgres: PostgresOptions { durability, settings, group, ..PostgresOptions::default() },
        environment: options.settings.clone(),
        group: Some(Arc::new(groups.group("instance", options.instance_limits)?)),
        ..SoloOptions::new(&options.server, &options.place)
    })
}

/// What an instance in a group has used.
pub(super) fn account(solo: &Solo) -> Result<&Account, Error> {
    let group = solo.instance.service().group();
    group.map(Group::account).ok_or_else(|| Error::Refused("no account is kept of the instance".to_owned()))
}

/// A disk that is slow to flush, on every machine alike: PostgreSQL waits before each flush for others to join in, with the
/// second setting also where there are none.
fn slow_disk(commit_ms: Option<u32>) -> (Durability, Vec<(String, String)>) {
    let Some(commit_ms) = commit_ms else { return (Durability::Benchmark, Vec::new()) };
    let delay_us = u64::from(commit_ms) * 1000;
    let settings = [("commit_delay", delay_us.to_string()), ("commit_siblings", "0".to_owned())];
    (Durability::Durable, settings.map(|(name, value)| (name.to_owned(), value)).to_vec())
}

/// The open descriptors of an instance.
///
/// # Errors
/// It has ended.
pub fn descriptors(instance: &Instance) -> Result<usize, Error> {
    let path = format!("/proc/{}/fd", instance.pid());
    Ok(fs::read_dir(&path).map_err(Error::io(format!("list {path}")))?.count())
}
