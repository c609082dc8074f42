//! The least that answers requests: PostgreSQL and one instance, without nginx and without limits.

use std::path::Path;

use crate::stack::DATABASE;
use crate::steps::Steps;
use crate::wait::Interrupt;
use crate::{Error, Instance, InstanceOptions, Postgres, PostgresOptions};

/// How to run them.
#[derive(Debug)]
pub struct SoloOptions<'a> {
    /// The server's binary, or what stands in for it.
    pub server: &'a Path,
    /// The directory of the project.
    pub workspace: &'a Path,
    /// Where the logs go.
    pub logs: &'a Path,
    /// Who is told how the start goes.
    pub steps: Steps,
    /// Calls off the start.
    pub interrupt: &'a Interrupt,
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
    pub fn start(options: &SoloOptions<'_>) -> Result<Solo, Error> {
        let log = |name: &str| Some(options.logs.join(format!("{name}.log")));
        let postgres = options.steps.run("postgresql", "ready", || {
            let postgres = Postgres::start(&PostgresOptions {
                log: log("postgresql"),
                interrupt: options.interrupt.clone(),
                ..PostgresOptions::default()
            })?;
            postgres.create_bank(DATABASE, &options.workspace.join("sql"))?;
            Ok(postgres)
        })?;
        let instance = options.steps.run("instance", "ready", || {
            Instance::start(&InstanceOptions {
                log: log("instance"),
                interrupt: options.interrupt.clone(),
                ..InstanceOptions::new(options.server, postgres.url(DATABASE))
            })
        })?;
        Ok(Solo { instance, postgres })
    }

    /// Where the instance listens, as `host:port`.
    pub fn address(&self) -> String {
        self.instance.addresses().pop().unwrap_or_default()
    }
}
