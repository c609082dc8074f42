//! The load balancer: nginx with a private copy of the project's configuration.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use super::nginx_conf::{self, PID_FILE, Rendering};
use crate::cgroup::Group;
use crate::process::service::{Launch, Service};
use crate::setup::tools::NginxTool;
use crate::throwaway::Throwaway;
use crate::wait::{self, Interrupt};
use crate::{Error, install};

/// How to run nginx.
#[derive(Debug, Clone)]
pub struct NginxOptions {
    /// The project's `nginx.conf`.
    pub template: PathBuf,
    /// Where it listens; 0 for a free port.
    pub port: u16,
    /// The sockets of the two instances.
    pub upstreams: [PathBuf; 2],
    /// Its limits.
    pub group: Option<Arc<Group>>,
    /// Where it writes its log; by default into its throwaway directory.
    pub log: Option<PathBuf>,
    /// Calls off the start.
    pub interrupt: Interrupt,
}

impl NginxOptions {
    /// On a free port, without limits.
    pub fn new(template: impl Into<PathBuf>, upstreams: [PathBuf; 2]) -> NginxOptions {
        NginxOptions {
            template: template.into(),
            port: 0,
            upstreams,
            group: None,
            log: None,
            interrupt: Interrupt::default(),
        }
    }
}

/// A running nginx. Dropping it stops it.
#[derive(Debug)]
pub struct Nginx {
    service: Service,
    port: u16,
    version: String,
    /// Last, so that it is removed when nginx has stopped.
    directory: Throwaway,
}

impl Nginx {
    /// Checks the configuration, starts nginx and waits until it accepts connections. Its upstreams may be away.
    ///
    /// # Errors
    /// When there is no nginx, the configuration is refused, or the port is taken; nothing is left behind.
    pub fn start(options: &NginxOptions) -> Result<Nginx, Error> {
        let tool = install::NGINX.require()?;
        if options.port != 0 {
            return Nginx::start_on(options.port, &tool, options);
        }
        // Between our look at a free port and nginx's bind another process can take it.
        let mut attempt = 1;
        loop {
            match Nginx::start_on(free_port()?, &tool, options) {
                Err(Error::Service { tail, .. })
                    if tail.contains("Address already in use") && attempt < ATTEMPTS_MAX =>
                {
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    /// Where to reach it from this machine. It listens on all addresses.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The process: its log, limits and state.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Such as `1.22.1`.
    pub fn version(&self) -> &str {
        &self.version
    }

    fn start_on(port: u16, tool: &NginxTool, options: &NginxOptions) -> Result<Nginx, Error> {
        let directory = Throwaway::new("nginx")?;
        let template = fs::read_to_string(&options.template)
            .map_err(Error::io(format!("read {}", options.template.display())))?;
        let configuration = nginx_conf::render(
            &template,
            &Rendering {
                port,
                upstreams: &options.upstreams,
                directory: directory.path(),
                stream_module: tool.stream_module.as_deref(),
            },
        )?;
        let configuration_path = directory.path().join("nginx.conf");
        fs::write(&configuration_path, configuration)
            .map_err(Error::io(format!("write {}", configuration_path.display())))?;
        let log = options.log.clone().unwrap_or_else(|| directory.path().join("nginx.log"));

        let run = |name, group, arguments: &[&str]| {
            Service::start(Launch {
                arguments: nginx_arguments(directory.path(), &configuration_path, arguments),
                group,
                // "Fast shutdown". Format: nginx documentation, "Controlling nginx".
                stop_signal: Signal::TERM,
                stop_patience: STOP_PATIENCE,
                ..Launch::new(name, &tool.program, directory.path(), &log)
            })
        };
        run("nginx -t", None, &["-t", "-q"])?.run_to_end(CHECK_PATIENCE, &options.interrupt)?;
        let service = run("nginx", options.group.clone(), &["-g", "daemon off;"])?;
        let nginx = Nginx { service, port, version: tool.version.clone(), directory };
        nginx.wait_ready(&options.interrupt)?;
        Ok(nginx)
    }

    fn wait_ready(&self, interrupt: &Interrupt) -> Result<(), Error> {
        // It writes its pid file once all its ports are bound. Without it, whoever answers may be another process.
        let pid_file = self.directory.path().join(PID_FILE);
        let ready = wait::until(READY_PATIENCE, interrupt, || {
            if self.service.has_exited() {
                return Err(self.service.failure("ended"));
            }
            let has_bound = fs::read_to_string(&pid_file).is_ok_and(|pid| !pid.trim().is_empty());
            Ok((has_bound && TcpStream::connect(self.address()).is_ok()).then_some(()))
        })?;
        ready.ok_or_else(|| self.service.failure("does not accept connections"))
    }
}

fn nginx_arguments(directory: &Path, configuration: &Path, more: &[&str]) -> Vec<OsString> {
    let paths = ["-p".into(), directory.into(), "-c".into(), configuration.into()];
    paths.into_iter().chain(more.iter().map(OsString::from)).collect()
}

fn free_port() -> Result<u16, Error> {
    let bound = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|listener| listener.local_addr());
    bound.map(|address: SocketAddr| address.port()).map_err(Error::io("find a free port"))
}

const ATTEMPTS_MAX: u32 = 5;
const CHECK_PATIENCE: Duration = Duration::from_secs(20);
/// It tries a taken port for 2.5 s before it gives up.
const READY_PATIENCE: Duration = Duration::from_secs(20);
const STOP_PATIENCE: Duration = Duration::from_secs(5);
