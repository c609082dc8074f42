//! What the bank promises under more load than it can bear and from clients in bad faith, put to the test and measured:
//! what `cargo stress endure` does, without its command line.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::cgroup::{self, Group, Limits, Parent};
use crate::stack::DATABASE;
use crate::steps::Steps;
use crate::wait::Interrupt;
use crate::{Durability, Error, Instance, InstanceOptions, Postgres, PostgresOptions};

/// What to put to the test.
#[derive(Debug, Clone)]
pub struct EndureOptions {
    /// The server's binary.
    pub server: PathBuf,
    /// The directory of the project.
    pub workspace: PathBuf,
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
    /// Where the logs go.
    pub logs: PathBuf,
    /// Who is told how it goes.
    pub steps: Steps,
    /// Calls it off.
    pub interrupt: Interrupt,
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

/// One instance over a database, each in a group with limits; no nginx.
pub(super) struct Ground {
    pub(super) instance: Instance,
    pub(super) instance_group: Arc<Group>,
    pub(super) postgres: Postgres,
}

impl Ground {
    /// Starts both and waits until the instance is healthy.
    pub(super) fn start(options: &EndureOptions) -> Result<Ground, Error> {
        let groups = require_groups()?;
        let group = |name: &str, limits: Option<Limits>| -> Result<_, Error> {
            Ok(Arc::new(groups.group(name, limits)?))
        };
        let log = |name: &str| Some(options.logs.join(format!("{name}.log")));
        let postgres_group = group("postgresql", options.postgres_limits)?;
        let instance_group = group("webapi", Some(options.instance_limits))?;
        let postgres = options.steps.run("postgresql", "ready", || {
            let (durability, settings) = slow_disk(options.commit_ms);
            let postgres = Postgres::start(&PostgresOptions {
                durability,
                settings,
                group: Some(postgres_group),
                log: log("postgresql"),
                interrupt: options.interrupt.clone(),
                ..PostgresOptions::default()
            })?;
            postgres.create_bank(DATABASE, &options.workspace.join("sql"))?;
            Ok(postgres)
        })?;
        let instance = options.steps.run("instance", "ready", || {
            Instance::start(&InstanceOptions {
                environment: options.settings.clone(),
                group: Some(Arc::clone(&instance_group)),
                log: log("webapi"),
                interrupt: options.interrupt.clone(),
                ..InstanceOptions::new(&options.server, postgres.url(DATABASE))
            })
        })?;
        Ok(Ground { instance, instance_group, postgres })
    }

    /// Where the instance listens.
    pub(super) fn address(&self) -> Result<SocketAddr, Error> {
        let addresses = self.instance.addresses();
        let address = addresses.first().and_then(|address| address.parse().ok());
        address.ok_or_else(|| self.instance.service().failure("says not where it listens"))
    }
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
