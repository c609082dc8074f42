//! The load balancer: nginx with a private copy of the project's configuration.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use crate::cgroup::Group;
use crate::install::Found;
use crate::process::service::{Launch, Service};
use crate::throwaway::Throwaway;
use crate::wait::Interrupt;
use crate::{Error, files, install};

#[derive(Debug, Clone)]
pub struct NginxOptions {
    pub template: PathBuf,
    /// 0 for a free one.
    pub port: u16,
    /// The sockets of the two instances.
    pub upstreams: [PathBuf; 2],
    pub group: Option<Arc<Group>>,
    /// Where it writes its log; by default into its throwaway directory.
    pub log: Option<PathBuf>,
    pub interrupt: Interrupt,
}

impl NginxOptions {
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

    pub fn version(&self) -> &str {
        &self.version
    }

    fn start_on(port: u16, tool: &Found, options: &NginxOptions) -> Result<Nginx, Error> {
        let directory = Throwaway::new("nginx")?;
        let template = files::read(&options.template)?;
        let module = stream_module(&tool.said);
        let configuration = render(&template, port, &options.upstreams, directory.path(), module.as_deref())?;
        let configuration_path = files::write(directory.path().join("nginx.conf"), configuration)?;
        let log = options.log.clone().unwrap_or_else(|| directory.path().join("nginx.log"));

        let [prefix, path] = [directory.path(), &configuration_path].map(|path| path.display().to_string());
        let paths = ["-p", &prefix, "-c", &path];
        let run = |name, group, arguments: &[&str]| {
            Service::start(Launch {
                arguments: arguments.iter().map(OsString::from).collect(),
                group,
                // "Fast shutdown". Format: nginx documentation, "Controlling nginx".
                stop_signal: Signal::TERM,
                stop_patience: STOP_PATIENCE,
                ..Launch::new(name, &tool.program, directory.path(), &log)
            })
        };
        run("nginx -t", None, &[&paths[..], &["-t", "-q"]].concat())?
            .run_to_end(CHECK_PATIENCE, &options.interrupt)?;
        let service = run("nginx", options.group.clone(), &[&paths[..], &["-g", "daemon off;"]].concat())?;
        let nginx = Nginx { service, port, version: tool.version.clone(), directory };
        // It writes its pid file once all its ports are bound. Without it, whoever answers may be another process.
        let pid_file = nginx.directory.path().join(PID_FILE);
        nginx.wait_ready(READY_PATIENCE, &options.interrupt, "does not accept connections", || {
            let has_bound = fs::read_to_string(&pid_file).is_ok_and(|pid| !pid.trim().is_empty());
            Ok((has_bound && TcpStream::connect(nginx.address()).is_ok()).then_some(()))
        })?;
        Ok(nginx)
    }
}

impl Deref for Nginx {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

fn free_port() -> Result<u16, Error> {
    let bound = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|listener| listener.local_addr());
    bound.map(|address: SocketAddr| address.port()).map_err(Error::io("find a free port"))
}

/// A private copy of the project's `nginx.conf`, which is written for its container. Refused where something to be replaced
/// is not there: the copy would use the container's paths.
fn render(
    template: &str,
    port: u16,
    [upstream_1, upstream_2]: &[PathBuf; 2],
    directory: &Path,
    stream_module: Option<&Path>,
) -> Result<String, Error> {
    let replacements = [
        ("/run/rinha/webapi1.sock", upstream_1.display().to_string()),
        ("/run/rinha/webapi2.sock", upstream_2.display().to_string()),
        ("listen 9999", format!("listen {port}")),
    ];
    privately(template, &replacements, directory, stream_module)
}

/// A copy that writes into its own directory, with these places replaced.
pub(crate) fn privately(
    template: &str,
    replacements: &[(&str, String)],
    directory: &Path,
    stream_module: Option<&Path>,
) -> Result<String, Error> {
    let directory = directory.display();
    let pid_file = ("pid /tmp/nginx.pid;", format!("pid {directory}/{PID_FILE};"));
    let mut copy = template.to_owned();
    for (original, replacement) in replacements.iter().chain([&pid_file]) {
        if !copy.contains(original) {
            return Err(Error::Refused(format!(
                "nginx.conf has no `{original}` to replace for use outside its container: write it that way"
            )));
        }
        copy = copy.replace(original, replacement);
    }
    // Built-in paths for temporary files belong to the system's nginx, and not every user may write there.
    if let Some((before, after)) = copy.split_once("http {") {
        let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("\n    {kind}_temp_path {directory}/{kind};"))
            .concat();
        copy = format!("{before}http {{{paths}{after}");
    }
    // Relative to nginx's own directory, which is not the private one.
    let module = stream_module.map(|module| format!("load_module {};", module.display()));
    Ok(copy.replace(MODULES, &module.unwrap_or_default()))
}

/// From the arguments of the build: `--modules-path=/usr/lib/nginx/modules ... --with-stream=dynamic`.
fn stream_module(build: &str) -> Option<PathBuf> {
    let mut arguments = build.split_whitespace();
    let is_dynamic = arguments.clone().any(|argument| argument == "--with-stream=dynamic");
    let directory = arguments.find_map(|argument| argument.strip_prefix("--modules-path="))?;
    is_dynamic.then(|| Path::new(directory).join("ngx_stream_module.so"))
}

/// How a template loads the stream module where it is a dynamic one.
const MODULES: &str = "include /etc/nginx/modules-enabled/*.conf;";
const PID_FILE: &str = "nginx.pid";
const ATTEMPTS_MAX: u32 = 5;
const CHECK_PATIENCE: Duration = Duration::from_secs(20);
/// It tries a taken port for 2.5 s before it gives up.
const READY_PATIENCE: Duration = Duration::from_secs(20);
const STOP_PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = "\
pid /tmp/nginx.pid;
http {
    upstream webapi { server unix:/run/rinha/webapi1.sock; server unix:/run/rinha/webapi2.sock; }
    server { listen 9999 backlog=4096; }
}
";

    fn render_with(template: &str, stream_module: Option<&Path>) -> Result<String, Error> {
        let upstreams = [PathBuf::from("/d/one.sock"), PathBuf::from("/d/two.sock")];
        let directory = Path::new("/var/tmp/d");
        render(template, 40123, &upstreams, directory, stream_module)
    }

    #[test]
    fn replaces_what_belongs_to_the_container() {
        let copy = render_with(TEMPLATE, None).unwrap();
        for expected in [
            "pid /var/tmp/d/nginx.pid;",
            "unix:/d/one.sock;",
            "unix:/d/two.sock;",
            "listen 40123 backlog=4096;",
            "http {\n    client_body_temp_path /var/tmp/d/client_body;",
        ] {
            assert!(copy.contains(expected), "{expected} is not in\n{copy}");
        }
        assert!(!copy.contains("/run/rinha") && !copy.contains("9999"), "{copy}");
    }

    #[test]
    fn refuses_a_template_that_lacks_a_place() {
        for missing in ["/run/rinha/webapi2.sock", "listen 9999", "pid /tmp/nginx.pid;"] {
            let refusal = render_with(&TEMPLATE.replace(missing, "x"), None).unwrap_err().to_string();
            assert!(refusal.contains(missing), "{refusal}");
        }
    }

    #[test]
    fn loads_the_stream_module_only_where_the_template_loads_modules() {
        let module = Some(Path::new("/m/ngx_stream_module.so"));
        assert!(!render_with(TEMPLATE, module).unwrap().contains("load_module"));
        let layer_4 = format!("{MODULES}\n{}", TEMPLATE.replace("http {", "stream {"));
        assert!(render_with(&layer_4, module).unwrap().starts_with("load_module /m/ngx_stream_module.so;\n"));
        assert!(!render_with(&layer_4, None).unwrap().contains("load_module"), "where it is built in");
        assert!(!render_with(&layer_4, module).unwrap().contains(MODULES));
    }

    #[test]
    fn a_stream_module_that_is_built_in_is_not_loaded() {
        let debian =
            "--prefix=/usr/share/nginx --modules-path=/usr/lib/nginx/modules --with-stream=dynamic\n";
        let module = Path::new("/usr/lib/nginx/modules/ngx_stream_module.so");
        assert_eq!(stream_module(debian).as_deref(), Some(module));
        assert_eq!(stream_module("configure arguments: --modules-path=/m --with-stream\n"), None);
    }
}
