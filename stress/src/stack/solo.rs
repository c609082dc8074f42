//! The least that answers requests: PostgreSQL and one instance, without nginx.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::DATABASE;
use crate::cgroup::Group;
use crate::{Error, Instance, InstanceOptions, Postgres, PostgresOptions, Workplace};

#[derive(Debug)]
pub struct SoloOptions<'a> {
    pub server: &'a Path,
    pub place: &'a Workplace,
    /// How to run PostgreSQL; its log and interrupt are those of the place.
    pub postgres: PostgresOptions,
    pub environment: Vec<(String, String)>,
    pub group: Option<Arc<Group>>,
}

impl<'a> SoloOptions<'a> {
    pub fn new(server: &'a Path, place: &'a Workplace) -> SoloOptions<'a> {
        let postgres = PostgresOptions::default();
        SoloOptions { server, place, postgres, environment: Vec::new(), group: None }
    }
}

/// One running instance and its database. Dropping it stops both, PostgreSQL last.
#[derive(Debug)]
pub struct Solo {
    pub instance: Instance,
    pub postgres: Postgres,
}

impl Solo {
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

    pub fn address(&self) -> Result<SocketAddr, Error> {
        let addresses = self.instance.addresses();
        let address = addresses.first().and_then(|address| address.parse().ok());
        address.ok_or_else(|| self.instance.failure("says not where it listens"))
    }
}
