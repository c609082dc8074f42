//! The least that answers requests: PostgreSQL and one instance, without nginx.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::DATABASE;
use crate::cgroup::Group;
use crate::{Error, Instance, InstanceOptions, Postgres, PostgresOptions, Workplace};

/// How to run them.
#[derive(Debug)]
pub struct SoloOptions<'a> {
    /// The server's binary, or what stands in for it.
    pub server: &'a Path,
    /// Where, and who watches it.
    pub place: &'a Workplace,
    /// How to run PostgreSQL; its log and interrupt are those of the place.
    pub postgres: PostgresOptions,
    /// Settings of the instance by the name of their environment variable.
    pub environment: Vec<(String, String)>,
    /// The limits of the instance.
    pub group: Option<Arc<Group>>,
}

impl<'a> SoloOptions<'a> {
    /// Without limits and settings.
    pub fn new(server: &'a Path, place: &'a Workplace) -> SoloOptions<'a> {
        let postgres = PostgresOptions::default();
        SoloOptions { server, place, postgres, environment: Vec::new(), group: None }
    }
}

/// One running instance and its database. Dropping it stops both, PostgreSQL last.
#[derive(Debug)]
pub struct Solo {
    /// The server, on a free TCP port.
    pub instance: Instance,
    /// Its database server, on a Unix socket.
    pub postgres: Postgres,
}

impl Solo {
    /// Starts both and waits until the instance is healthy.
    ///
    /// # Errors
    /// The first failure; nothing is left behind.
    pub fn start(options: SoloOptions<'_>) -> Result<Solo, Error> {
        let SoloOptions { server, place, postgres, environment, group } = options;
        let postgres = place.steps.run("postgresql", "ready", || {
            let log = Some(place.log("postgresql"));
            let postgres =
                Postgres::start(&PostgresOptions { log, interrupt: place.interrupt.clone(), ..postgres })?;
            postgres.create_bank(DATABASE, &place.workspace.join("sql"))?;
            Ok(postgres)
        })?;
        let instance = place.steps.run("instance", "ready", || {
            Instance::start(&InstanceOptions {
                environment,
                group,
                log: Some(place.log("instance")),
                interrupt: place.interrupt.clone(),
                ..InstanceOptions::new(server, postgres.url(DATABASE))
            })
        })?;
        Ok(Solo { instance, postgres })
    }

    /// Where the instance listens.
    ///
    /// # Errors
    /// When its log does not say so.
    pub fn address(&self) -> Result<SocketAddr, Error> {
        let addresses = self.instance.addresses();
        let address = addresses.first().and_then(|address| address.parse().ok());
        address.ok_or_else(|| self.instance.service().failure("says not where it listens"))
    }
}
