//! The load balancer: nginx with a private copy of a configuration of the project, or HAProxy to compare it with.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use crate::cgroup::Group;
use crate::install::{Found, Tool};
use crate::process::{Launch, Service};
use crate::throwaway::Throwaway;
use crate::wait::Interrupt;
use crate::{Error, files, http, install};

#[derive(Debug, Clone)]
pub struct BalancerOptions {
    /// nginx's configuration: a file of the project, or one like it. `None`: HAProxy passing bytes on, as nginx.conf does.
    pub template: Option<PathBuf>,
    /// Where it is reached; it listens on all addresses.
    pub host: IpAddr,
    /// 0 for a free one.
    pub port: u16,
    /// The addresses of the instances, for each database: with two, databases.conf beside the template splits the accounts.
    pub upstreams: Vec<Vec<String>>,
    /// The network namespace in which it runs; `None`: ours.
    pub namespace: Option<String>,
    pub group: Option<Arc<Group>>,
    /// Where it writes its log; by default into its throwaway directory.
    pub log: Option<PathBuf>,
    pub interrupt: Interrupt,
}

impl BalancerOptions {
    /// nginx with this configuration, before the sockets of two instances.
    pub fn nginx(template: impl Into<PathBuf>, sockets: [PathBuf; 2]) -> BalancerOptions {
        let addresses = sockets.map(|socket| format!("unix:{}", socket.display()));
        BalancerOptions::new(Some(template.into()), vec![addresses.into()])
    }

    pub fn new(template: Option<PathBuf>, upstreams: Vec<Vec<String>>) -> BalancerOptions {
        BalancerOptions {
            template,
            host: Ipv4Addr::LOCALHOST.into(),
            port: 0,
            upstreams,
            namespace: None,
            group: None,
            log: None,
            interrupt: Interrupt::default(),
        }
    }

    pub(crate) fn program(&self) -> &'static str {
        if self.template.is_some() { "nginx" } else { "haproxy" }
    }

    pub(crate) fn tool(&self) -> &'static Tool {
        if self.template.is_some() { &install::NGINX } else { &install::HAPROXY }
    }

    fn template(&self) -> Result<Option<String>, Error> {
        let Some(path) = &self.template else { return Ok(None) };
        let template = files::read(path)?;
        if self.upstreams.len() < 2 {
            return Ok(Some(template));
        }
        split(&template, &files::read(&path.with_file_name("databases.conf"))?).map(Some)
    }
}

#[derive(Debug)]
pub struct Balancer {
    service: Service,
    options: BalancerOptions,
    tool: Found,
    port: u16,
    /// Last, so that it is removed when the process has stopped.
    directory: Throwaway,
}

impl Balancer {
    /// Checks the configuration, starts the program and waits until it accepts connections. Its upstreams may be away.
    pub fn start(options: &BalancerOptions) -> Result<Balancer, Error> {
        let tool = options.tool().require()?;
        if options.port != 0 {
            return Balancer::start_on(options.port, &tool, options);
        }
        // Between our look at a free port and the program's bind another process can take it.
        let mut attempt = 1;
        loop {
            match Balancer::start_on(free_port()?, &tool, options) {
                Err(Error::Service { tail, .. })
                    if PORT_IS_TAKEN.iter().any(|words| tail.contains(words)) && attempt < ATTEMPTS_MAX =>
                {
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.options.host, self.port)
    }

    pub fn version(&self) -> &str {
        &self.tool.version
    }

    pub(crate) fn wait_healthy(&self) -> Result<(), Error> {
        let address = self.address().to_string();
        self.wait_ready(READY_PATIENCE, &self.options.interrupt, "does not answer 200 to /healthz", || {
            Ok(http::get_status(&address, "/healthz").is_ok_and(|status| status == 200).then_some(()))
        })
    }

    /// From now on nginx asks these instances. Requests under way go on where they are.
    pub(crate) fn set(&mut self, upstreams: Vec<Vec<String>>) -> Result<(), Error> {
        self.options.upstreams = upstreams;
        write_configuration(self.port, &self.tool, &self.options, self.directory.path())?;
        self.reload()
    }

    /// Has nginx read its configuration again, and waits for a worker that has.
    pub(crate) fn reload(&self) -> Result<(), Error> {
        let old = self.service.child_pids();
        self.service.signal(Signal::HUP)?;
        let interrupt = &self.options.interrupt;
        self.service.wait_ready(READY_PATIENCE, interrupt, "has no new worker after a reload", || {
            Ok(self.service.child_pids().iter().any(|worker| !old.contains(worker)).then_some(()))
        })
    }

    fn start_on(port: u16, tool: &Found, options: &BalancerOptions) -> Result<Balancer, Error> {
        let name = options.program();
        let directory = Throwaway::new(name)?;
        let path = write_configuration(port, tool, options, directory.path())?;
        let log = options.log.clone().unwrap_or_else(|| directory.path().join(format!("{name}.log")));
        let is_nginx = options.template.is_some();
        let [prefix, file] = [directory.path(), &path].map(|path| path.display().to_string());
        let (check, serve) = if is_nginx {
            let paths = ["-p", &prefix, "-c", &file];
            ([&paths[..], &["-t", "-q"]].concat(), [&paths[..], &["-g", "daemon off;"]].concat())
        } else {
            (vec!["-f", &file, "-c", "-q"], vec!["-db", "-f", &file])
        };
        let run = |name: &str, group, arguments: &[&str]| {
            Service::start(Launch {
                arguments: arguments.iter().map(OsString::from).collect(),
                namespace: options.namespace.as_deref(),
                group,
                // "Fast shutdown", and HAProxy's "hard stop". Format: nginx documentation, "Controlling nginx"; HAProxy's
                // "Management Guide", "Stopping and restarting HAProxy".
                stop_signal: Signal::TERM,
                stop_patience: STOP_PATIENCE,
                ..Launch::new(name, &tool.program, directory.path(), &log)
            })
        };
        run(&format!("{name} {}", check[check.len() - 2]), None, &check)?
            .run_to_end(CHECK_PATIENCE, &options.interrupt)?;
        let service = run(name, options.group.clone(), &serve)?;
        let balancer = Balancer { service, options: options.clone(), tool: tool.clone(), port, directory };
        // nginx writes its pid file once all its ports are bound. Without it, whoever answers may be another process.
        let pid_file = balancer.directory.path().join(PID_FILE);
        balancer.wait_ready(READY_PATIENCE, &options.interrupt, "does not accept connections", || {
            let has_bound =
                !is_nginx || fs::read_to_string(&pid_file).is_ok_and(|pid| !pid.trim().is_empty());
            Ok((has_bound && TcpStream::connect(balancer.address()).is_ok()).then_some(()))
        })?;
        Ok(balancer)
    }
}

impl Deref for Balancer {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

fn free_port() -> Result<u16, Error> {
    let bound = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|listener| listener.local_addr());
    bound.map(|address: SocketAddr| address.port()).map_err(Error::io("find a free port"))
}

fn write_configuration(
    port: u16,
    tool: &Found,
    options: &BalancerOptions,
    directory: &Path,
) -> Result<PathBuf, Error> {
    let text = match options.template()? {
        Some(template) => {
            let module = stream_module(&tool.said);
            render(&template, port, &options.upstreams, directory, module.as_deref())?
        }
        None => haproxy(port, &options.upstreams),
    };
    files::write(directory.join(format!("{}.conf", options.program())), text)
}

/// HAProxy as nginx.conf has nginx: layer 4, one thread, the instance with the fewest connections, times as there.
fn haproxy(port: u16, upstreams: &[Vec<String>]) -> String {
    let mut text = format!(
        "global\n    nbthread 1\n    maxconn 4096\n    tune.bufsize 4096\n    tune.maxrewrite 1024\n\
         defaults\n    mode tcp\n    timeout connect 1s\n    timeout client 90s\n    timeout server 90s\n\
         listen webapi\n    bind :{port} backlog 4096\n    balance leastconn\n"
    );
    for (address, number) in upstreams.iter().flatten().zip(1..) {
        // Writing to memory does not fail.
        let _ = writeln!(text, "    server webapi{number} {}", address.replacen("unix:", "unix@", 1));
    }
    text
}

/// nginx-tcp.conf with the databases of databases.conf, as that file says.
fn split(tcp: &str, databases: &str) -> Result<String, Error> {
    let place = tcp.split_once("    upstream webapi {\n").and_then(|(before, rest)| {
        let after = rest.split_once("\n    }\n")?.1;
        Some((before, after.split_once("proxy_pass http://webapi;")?))
    });
    let (before, (after, rest)) = place.ok_or_else(|| {
        Error::Refused("nginx-tcp.conf has no `upstream webapi` with its `proxy_pass`".to_owned())
    })?;
    Ok(format!("{before}{databases}{after}proxy_pass http://$database;{rest}"))
}

/// A private copy of the project's configuration, which is written for its container: it listens on another port, asks other
/// servers, and writes into its own directory. Refused where something to be replaced is not there: the copy would use the
/// container's paths.
fn render(
    template: &str,
    port: u16,
    upstreams: &[Vec<String>],
    directory: &Path,
    stream_module: Option<&Path>,
) -> Result<String, Error> {
    let directory = directory.display();
    let mut copy = with_servers(template, upstreams)?;
    for (original, replacement) in [
        ("listen 9999", format!("listen {port}")),
        ("pid /tmp/nginx.pid;", format!("pid {directory}/{PID_FILE};")),
    ] {
        if !copy.contains(original) {
            return Err(Error::Refused(format!(
                "nginx.conf has no `{original}` to replace for use outside its container: write it that way"
            )));
        }
        copy = copy.replace(original, &replacement);
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

/// The template with these servers in place of its own, upstream by upstream, each with the settings that the first one
/// there has.
fn with_servers(template: &str, upstreams: &[Vec<String>]) -> Result<String, Error> {
    let mut upstreams = upstreams.iter();
    let mut copy = String::new();
    let mut is_first = true;
    let refusal =
        || Error::Refused("the configuration has not as many upstreams as there are to be".to_owned());
    for line in template.lines() {
        let server = line.trim_start().strip_prefix("server ").filter(|server| !server.starts_with('{'));
        match server {
            Some(server) if is_first => {
                let settings = server.find([' ', ';']).map_or(";", |position| &server[position..]);
                for address in upstreams.next().ok_or_else(refusal)? {
                    // Writing to memory does not fail.
                    let _ = writeln!(copy, "        server {address}{settings}");
                }
            }
            Some(_) => {}
            None => copy.extend([line, "\n"]),
        }
        is_first = server.is_none();
    }
    if upstreams.next().is_some() { Err(refusal()) } else { Ok(copy) }
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
/// As nginx and as HAProxy say it.
const PORT_IS_TAKEN: [&str; 2] = ["Address already in use", "cannot bind socket"];
const ATTEMPTS_MAX: u32 = 5;
const CHECK_PATIENCE: Duration = Duration::from_secs(20);
/// It tries a taken port for 2.5 s before it gives up.
const READY_PATIENCE: Duration = Duration::from_secs(20);
const STOP_PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile;

    const TEMPLATE: &str = "\
pid /tmp/nginx.pid;
http {
    upstream webapi {
        server unix:/run/rinha/webapi1.sock max_fails=0;
        server unix:/run/rinha/webapi2.sock max_fails=0;
    }
    server { listen 9999 backlog=4096; }
}
";

    fn render_with(template: &str, stream_module: Option<&Path>) -> Result<String, Error> {
        let upstreams = [vec!["unix:/d/one.sock".to_owned(), "unix:/d/two.sock".to_owned()]];
        let directory = Path::new("/var/tmp/d");
        render(template, 40123, &upstreams, directory, stream_module)
    }

    #[test]
    fn replaces_what_belongs_to_the_container() {
        let copy = render_with(TEMPLATE, None).unwrap();
        for expected in [
            "pid /var/tmp/d/nginx.pid;",
            "server unix:/d/one.sock max_fails=0;",
            "server unix:/d/two.sock max_fails=0;",
            "listen 40123 backlog=4096;",
            "http {\n    client_body_temp_path /var/tmp/d/client_body;",
        ] {
            assert!(copy.contains(expected), "{expected} is not in\n{copy}");
        }
        assert!(!copy.contains("/run/rinha") && !copy.contains("9999"), "{copy}");
    }

    #[test]
    fn each_instance_has_the_settings_of_the_first_in_the_file() {
        let template = files::read(&compile::workspace().join("nginx/nginx-tcp.conf")).unwrap();
        let instances = ["198.18.0.11:8080", "198.18.0.12:8080", "198.18.0.11:8081"].map(str::to_owned);
        let copy = with_servers(&template, &[instances.to_vec()]).unwrap();
        for instance in &instances {
            assert!(copy.contains(&format!("server {instance} max_fails=1 fail_timeout=1s;")), "{copy}");
        }
        assert!(!copy.contains("192.0.2."), "{copy}");
    }

    #[test]
    fn refuses_a_template_that_lacks_a_place() {
        for (missing, named) in [
            ("server unix:", "upstreams"),
            ("listen 9999", "listen 9999"),
            ("pid /tmp/nginx.pid;", "pid /tmp"),
        ] {
            let refusal = render_with(&TEMPLATE.replace(missing, "x"), None).unwrap_err().to_string();
            assert!(refusal.contains(named), "{refusal}");
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
        let debian =
            "--prefix=/usr/share/nginx --modules-path=/usr/lib/nginx/modules --with-stream=dynamic\n";
        let module = Path::new("/usr/lib/nginx/modules/ngx_stream_module.so");
        assert_eq!(stream_module(debian).as_deref(), Some(module));
        assert_eq!(stream_module("configure arguments: --modules-path=/m --with-stream\n"), None);
    }
}
