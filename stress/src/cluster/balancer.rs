//! nginx on a host of its own, with the project's configuration for TCP hosts.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use super::Network;
use crate::process::service::{Launch, Service};
use crate::stack::{privately, with_servers};
use crate::{Error, Workplace, files, http, install};

#[derive(Debug)]
pub struct Balancer {
    service: Service,
    template: String,
    directory: PathBuf,
    /// `host:port`
    pub address: String,
}

impl Balancer {
    /// Starts it on the host `host`, before these instances, and waits until a request is served.
    pub(super) fn start(
        network: &Network,
        host: &str,
        directory: &Path,
        instances: &[String],
        place: &Workplace,
    ) -> Result<Balancer, Error> {
        let directory = directory.join(host);
        files::make_directory(&directory)?;
        // As the configuration says.
        for setting in ["tcp_retries2", "tcp_orphan_retries"] {
            network.set_kernel(host, setting, "1")?;
        }
        let template = files::read(&place.workspace.join("nginx/nginx-tcp.conf"))?;
        let configuration = configuration(&directory);
        files::write(&configuration, render(&template, instances, &directory)?)?;
        let prefix = directory.display().to_string();
        let path = configuration.display().to_string();
        let arguments = ["-p", &prefix, "-c", &path, "-g", "daemon off;"].map(OsString::from);
        let service = Service::start(Launch {
            arguments: arguments.into(),
            namespace: Some(&network.namespace(host)),
            ..Launch::new("nginx", &install::NGINX.require()?.program, &directory, place.log("nginx"))
        })?;
        let address = format!("{}:9999", network.address(host));
        let balancer = Balancer { service, template, directory, address };
        balancer.service.wait_ready(PATIENCE, &place.interrupt, "does not answer 200 to /healthz", || {
            let status = http::get_status(&balancer.address, "/healthz");
            Ok(status.is_ok_and(|status| status == 200).then_some(()))
        })?;
        Ok(balancer)
    }

    /// From now on it asks these instances. Requests under way go on where they are.
    pub(super) fn set(&self, instances: &[String], place: &Workplace) -> Result<(), Error> {
        files::write(configuration(&self.directory), render(&self.template, instances, &self.directory)?)?;
        let old = self.service.child_pids();
        self.service.signal(Signal::HUP)?;
        self.service.wait_ready(PATIENCE, &place.interrupt, "has no new worker after a reload", || {
            Ok(self.service.child_pids().iter().any(|worker| !old.contains(worker)).then_some(()))
        })
    }

    pub(super) fn service(&self) -> &Service {
        &self.service
    }
}

fn configuration(directory: &Path) -> PathBuf {
    directory.join("nginx.conf")
}

fn render(template: &str, instances: &[String], directory: &Path) -> Result<String, Error> {
    privately(&with_servers(template, &[instances.to_vec()])?, &[], directory, None)
}

const PATIENCE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile;

    #[test]
    fn the_copy_has_the_clusters_instances_with_the_settings_of_the_file() {
        let template = files::read(&compile::workspace().join("nginx/nginx-tcp.conf")).unwrap();
        let instances = ["198.18.0.11:8080", "198.18.0.12:8080", "198.18.0.11:8081"].map(str::to_owned);
        let copy = render(&template, &instances, Path::new("/d")).unwrap();
        for instance in &instances {
            assert!(copy.contains(&format!("server {instance} max_fails=1 fail_timeout=1s;")), "{copy}");
        }
        assert!(!copy.contains("192.0.2.") && copy.contains("pid /d/nginx.pid;"), "{copy}");
        assert!(render(&template.replace("server 192.0.2.", ""), &instances, Path::new("/d")).is_err());
    }
}
