//! One process of the server.

use std::ffi::OsString;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::cgroup::Group;
use crate::process::service::{Launch, Service};
use crate::throwaway::Throwaway;
use crate::wait::Interrupt;
use crate::{Error, files, http};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Readiness {
    /// It answers `GET /healthz` with 200 on its first address: it has a database.
    #[default]
    Healthy,
    /// It listens on all its addresses; its database may be away.
    Listening,
}

#[derive(Debug, Clone, Default)]
pub struct InstanceOptions {
    pub name: String,
    pub executable: PathBuf,
    pub database_url: String,
    /// `LISTEN`: `127.0.0.1:0` for a free port, `unix:/path/to.sock`.
    pub listen: Vec<String>,
    pub metrics_listen: String,
    pub environment: Vec<(String, String)>,
    pub readiness: Readiness,
    /// The network namespace in which it runs; `None`: ours.
    pub namespace: Option<String>,
    pub group: Option<Arc<Group>>,
    /// Where it writes its log; by default into a throwaway directory.
    pub log: Option<PathBuf>,
    pub interrupt: Interrupt,
}

impl InstanceOptions {
    /// One healthy instance on free ports of 127.0.0.1, without limits.
    pub fn new(executable: impl Into<PathBuf>, database_url: impl Into<String>) -> InstanceOptions {
        InstanceOptions {
            name: "webapi".to_owned(),
            executable: executable.into(),
            database_url: database_url.into(),
            listen: vec!["127.0.0.1:0".to_owned()],
            metrics_listen: "127.0.0.1:0".to_owned(),
            ..InstanceOptions::default()
        }
    }
}

/// A running server. Dropping it stops it: SIGTERM, then SIGKILL when it has not ended in its 10 s.
#[derive(Debug)]
pub struct Instance {
    service: Service,
    /// Last, so that it is removed when the server has stopped.
    _directory: Throwaway,
}

impl Instance {
    /// Starts the server and waits as [`InstanceOptions::readiness`] says.
    pub fn start(options: &InstanceOptions) -> Result<Instance, Error> {
        let directory = Throwaway::new(&options.name)?;
        let log = options.log.clone().unwrap_or_else(|| directory.path().join("log"));
        let fixed = [
            ("DATABASE_URL".to_owned(), options.database_url.clone()),
            ("LISTEN".to_owned(), options.listen.join(",")),
            ("METRICS_LISTEN".to_owned(), options.metrics_listen.clone()),
        ];
        let environment = fixed.into_iter().chain(options.environment.iter().cloned());
        let environment = environment.map(|(name, value)| (name, OsString::from(value))).collect();
        let executable = files::absolute(&options.executable)?;
        let service = Service::start(Launch {
            environment,
            namespace: options.namespace.as_deref(),
            group: options.group.clone(),
            // Its sockets are for nginx's workers, too, which are another user when we are root.
            umask: "000",
            stop_patience: STOP_PATIENCE,
            orphan_signal: "KILL",
            ..Launch::new(&options.name, &executable, directory.path(), log)
        })?;
        let instance = Instance { service, _directory: directory };
        instance.wait_ready(READY_PATIENCE, &options.interrupt, "is not ready", || {
            let addresses = instance.addresses();
            let is_healthy = || http::get_status(&addresses[0], "/healthz").is_ok_and(|status| status == 200);
            let is_ready = addresses.len() >= options.listen.len()
                && (options.readiness == Readiness::Listening || addresses.is_empty() || is_healthy());
            Ok(is_ready.then_some(()))
        })?;
        Ok(instance)
    }

    /// Where it listens, as its log says, in the order of `LISTEN`: `127.0.0.1:41234`, `unix:/path/to.sock`.
    pub fn addresses(&self) -> Vec<String> {
        logged(&self.log(), "listening on ")
    }

    pub fn metrics_address(&self) -> Option<String> {
        logged(&self.log(), "metrics on ").pop()
    }
}

impl Deref for Instance {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

impl DerefMut for Instance {
    fn deref_mut(&mut self) -> &mut Service {
        &mut self.service
    }
}

/// The rest of each line from `label` on, up to a space. A line still being written is left out.
fn logged(log: &str, label: &str) -> Vec<String> {
    let whole_lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let values = whole_lines.filter_map(|line| line.split_once(label)?.1.split_whitespace().next());
    values.map(str::to_owned).collect()
}

const READY_PATIENCE: Duration = Duration::from_secs(20);
/// The server ends within 10 s of a SIGTERM.
const STOP_PATIENCE: Duration = Duration::from_secs(11);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses_from_whole_lines() {
        let log = "\
[2026-01-01T00:00:00Z INFO  rinha::server] metrics on 127.0.0.1:9191
[2026-01-01T00:00:00Z INFO  rinha::server] listening on 127.0.0.1:41234
[2026-01-01T00:00:00Z INFO  rinha::server] listening on unix:/d/webapi1.sock
[2026-01-01T00:00:00Z INFO  rinha::server] listening on 127.0.0.1:4";
        assert_eq!(logged(log, "listening on "), ["127.0.0.1:41234", "unix:/d/webapi1.sock"]);
        assert_eq!(logged(log, "metrics on "), ["127.0.0.1:9191"]);
    }
}
