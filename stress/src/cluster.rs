//! A bank on several hosts of one machine: three of PostgreSQL under Patroni, each with a member of etcd, two of instances,
//! and one of nginx, each in a network namespace of its own.

mod network;
pub use network::Network;
use network::kill_all;

mod authority;
use authority::Authority;

mod node;
pub use node::Node;
use node::{Plan, SCOPE};

mod watch;
pub use watch::{Promotion, Watch};

mod faults;
pub use faults::Fault;

mod trial;
pub use trial::{Trial, TrialOptions};

mod orders;
pub use orders::{Order, Part, Reception, send};

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::Args;
use postgres::Client;
use rustix::process::Signal;

use crate::arguments::{positive, setting};
use crate::process::{Launch, Service, signal};
use crate::stack::{DATABASE, apply_sql};
use crate::throwaway::Throwaway;
use crate::{Balancer, BalancerOptions, Error, Instance, InstanceOptions, Workplace, install, wait};

/// What a cluster is made of.
#[derive(Debug, Clone, Args)]
pub struct ClusterOptions {
    /// Instances of the server, spread over two hosts
    #[arg(long, value_name = "N", default_value = "2", value_parser = positive)]
    pub instances: u32,
    /// A setting of the instances, such as `LANES=2`; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    pub set: Vec<(String, String)>,
    /// How long bytes take to a PostgreSQL, and as long back; from each other and from the instances
    #[arg(long, value_name = "N", default_value = "0")]
    pub distance_ms: u32,
    /// This binary of the server in place of a fresh build
    #[arg(long, value_name = "FILE")]
    pub server: Option<PathBuf>,
}

/// A running cluster. Dropping it stops and removes all of it.
#[derive(Debug)]
pub struct Cluster {
    balancer: Option<Balancer>,
    apis: Vec<Api>,
    nodes: Vec<Node>,
    network: Network,
    place: Workplace,
    options: ClusterOptions,
    server: PathBuf,
    patronictl: PathBuf,
    database_url: String,
    /// Last, so that it is removed when all have stopped.
    directory: Throwaway,
}

#[derive(Debug)]
struct Api {
    host: &'static str,
    instance: Instance,
    /// `host:port`
    address: String,
}

impl Cluster {
    /// Installs what is missing and starts all of it, one line for each step, until a request is served through nginx.
    pub fn start(options: &ClusterOptions, place: &Workplace) -> Result<Cluster, Error> {
        use install::{ETCD, IP, NGINX, POSTGRES, PYTHON};
        place.install(&[&POSTGRES, &NGINX, &ETCD, &IP, &PYTHON])?;
        let patroni = install::require_patroni(place)?;
        let server = place.server(options.server.as_ref())?;
        let steps = place.steps;
        let network = steps.run("network", "made", || {
            let mut network = Network::new(&HOSTS)?;
            if options.distance_ms > 0 {
                let distance = Duration::from_millis(options.distance_ms.into());
                DATABASES.into_iter().try_for_each(|host| network.put_away(host, distance))?;
            }
            Ok(network)
        })?;
        let directory = Throwaway::new("cluster")?;
        let password = format!("{:016x}", fastrand::u64(..));
        let authority = Authority::new(directory.path())?;
        let plan =
            Plan { network: &network, names: &DATABASES, patroni: &patroni, password: &password, place };
        let node = |name| Node::new(name, &plan, &authority, directory.path());
        let nodes = DATABASES.into_iter().map(node).collect::<Result<Vec<Node>, Error>>()?;
        let database_url = format!(
            "postgresql://{DATABASE}:{password}@{}/{DATABASE}?target_session_attrs=read-write&sslmode=verify-full\
             &sslrootcert={}&channel_binding=require",
            DATABASES.join(","),
            authority.root.display()
        );
        let mut cluster = Cluster {
            balancer: None,
            apis: Vec::new(),
            nodes,
            network,
            place: place.clone(),
            options: options.clone(),
            server,
            patronictl: patroni.join("patronictl"),
            database_url,
            directory,
        };
        steps.run(&format!("etcd {}", ETCD.require()?.version), "ready", || cluster.start_etcd())?;
        let versions = format!("PostgreSQL {}, Patroni {}", POSTGRES.require()?.version, install::PATRONI);
        steps.run(&versions, "replicated", || {
            cluster.nodes.iter_mut().try_for_each(Node::start_patroni)?;
            cluster.wait_whole()
        })?;
        steps.run("schema", "applied", || cluster.create_bank(&password))?;
        for _ in 0..options.instances {
            let name = format!("webapi{}", cluster.apis.len() + 1);
            steps.run(&name, "ready", || cluster.start_instance())?;
        }
        let version = NGINX.require()?.version;
        steps.run(&format!("nginx {version}"), "ready", || cluster.start_balancer())?;
        Ok(cluster)
    }

    pub fn address(&self) -> String {
        format!("{}:{BALANCER_PORT}", self.network.address(BALANCER))
    }

    /// The node that takes writes: of several, as when one is cut off, that of the newest timeline.
    pub fn leader(&self) -> Result<&Node, Error> {
        let primaries = self.nodes.iter().filter_map(|node| Some((node.primary_timeline()?, node)));
        let leader = primaries.max_by_key(|(timeline, _)| *timeline).map(|(_, node)| node);
        leader.ok_or_else(|| {
            Error::Refused("no node is the primary: see `cargo stress cluster status`".to_owned())
        })
    }

    pub fn leader_name(&self) -> Result<String, Error> {
        self.leader().map(|node| node.name.clone())
    }

    pub fn connect(&self) -> Result<Client, Error> {
        self.leader()?.connect(DATABASE)
    }

    /// Waits until two standbys follow the leader and one of them has to confirm each commit.
    pub fn wait_whole(&self) -> Result<(), Error> {
        let whole = wait::until(WHOLE_PATIENCE, &self.place.interrupt, || {
            let asked = self.leader().and_then(|leader| leader.connect("postgres"));
            let row = asked.ok().and_then(|mut client| client.query_one(FOLLOWERS, &[]).ok());
            let is_whole = row.is_some_and(|row| (row.get(0), row.get(1)) == (2_i64, 2_i64));
            if !is_whole {
                thread::sleep(BETWEEN_LOOKS);
            }
            Ok(is_whole.then_some(()))
        })?;
        whole.ok_or_else(|| {
            let mut services = self.nodes.iter().flat_map(|node| node.etcd.iter().chain(&node.patroni));
            if let Some(ended) = services.find(|service| service.has_exited()) {
                return ended.failure("ended");
            }
            let logs = self.place.logs.display();
            let what = format!("the nodes do not replicate after {WHOLE_PATIENCE:?}");
            Error::Refused(format!("{what}: see patroni-*.log in {logs}"))
        })
    }

    /// Hands the lead over, as `patronictl switchover` does, to the standby that comes after the leader.
    pub fn switchover(&self) -> Result<String, Error> {
        let leader = self.leader_name()?;
        let candidate = standby_after(&leader);
        let words = ["switchover", SCOPE, "--leader", &leader, "--candidate", candidate, "--force"];
        self.patronictl(&words).map(|_| candidate.to_owned())
    }

    pub fn list(&self) -> Result<String, Error> {
        self.patronictl(&["list", SCOPE])
    }

    pub fn kill(&mut self, part: Part, host: &str) -> Result<(), Error> {
        let network = &self.network;
        let node = self.nodes.iter_mut().find(|node| node.name == host);
        let node =
            node.ok_or_else(|| Error::Refused(format!("{host} is none of {}", DATABASES.join(", "))))?;
        match part {
            Part::Postmaster => {
                let pid = node.postmaster_pid();
                let pid = pid.ok_or_else(|| Error::Refused(format!("{host} has no postmaster")))?;
                signal(pid, Signal::KILL)
                    .map_err(|errno| Error::io(format!("kill the postmaster of {host}"))(errno.into()))?;
            }
            Part::Patroni => drop(node.patroni.as_mut().and_then(Service::kill)),
            Part::Etcd => drop(node.etcd.as_mut().and_then(Service::kill)),
            Part::Node => {
                // First the cable: a host without power resets no connection.
                network.unplug(host)?;
                kill_all(&network.namespace(host));
            }
        }
        Ok(())
    }

    pub fn isolate(&self, host: &str) -> Result<(), Error> {
        self.network.unplug(host)
    }

    /// Plugs everything in and starts what does not run, then waits until the cluster is whole.
    pub fn heal(&mut self) -> Result<(), Error> {
        self.network.heal()?;
        self.start_etcd()?;
        self.nodes.iter_mut().try_for_each(Node::start_patroni)?;
        self.wait_whole()
    }

    /// Starts one more instance, on the host that has fewer, and lets nginx ask it once it is healthy.
    pub fn add(&mut self) -> Result<String, Error> {
        self.start_instance()?;
        self.tell_balancer()?;
        Ok(self.apis.last().map(|api| api.address.clone()).unwrap_or_default())
    }

    /// Takes the last instance out of nginx, then ends it with SIGTERM.
    pub fn drain(&mut self) -> Result<String, Error> {
        if self.apis.len() < 2 {
            let why = "the last instance has to stay: `cargo stress cluster add` first";
            return Err(Error::Refused(why.to_owned()));
        }
        let Some(mut api) = self.apis.pop() else { return Ok(String::new()) };
        self.tell_balancer()?;
        let status = api.instance.stop();
        let is_drained = status.is_some_and(|status| status.success());
        if is_drained { Ok(api.address) } else { Err(api.instance.failure("did not drain")) }
    }

    pub fn topology(&self) -> String {
        let leader = self.leader_name().ok();
        let nodes = self.nodes.iter().map(|node| {
            let role = if Some(&node.name) == leader.as_ref() { "primary" } else { "standby" };
            let address = self.network.address(&node.name);
            format!("{}: {role} {address}:5432, psql '{}'\n", node.name, node.url(DATABASE))
        });
        let apis = self.apis.iter().map(|api| {
            let Api { host, instance, address } = api;
            let (name, metrics) = (&instance.name, instance.metrics_address().unwrap_or_default());
            format!("{host}: {name} http://{address}, metrics http://{metrics}/metrics\n")
        });
        let nginx = format!("{BALANCER}: nginx http://{}\n", self.address());
        nodes.chain(apis).chain([nginx]).collect()
    }

    pub fn ended(&self) -> Option<&Service> {
        let apis = self.apis.iter().map(|api| &*api.instance);
        apis.chain(self.balancer.iter().map(|balancer| &**balancer)).find(|service| service.has_exited())
    }

    fn start_etcd(&mut self) -> Result<(), Error> {
        self.nodes.iter_mut().try_for_each(Node::start_etcd)?;
        for node in &self.nodes {
            let Some(etcd) = &node.etcd else { continue };
            let is_ready = || Ok(etcd.log().contains("serving client traffic").then_some(()));
            etcd.wait_ready(ETCD_PATIENCE, &self.place.interrupt, "is not ready", is_ready)?;
        }
        Ok(())
    }

    fn create_bank(&self, password: &str) -> Result<(), Error> {
        let leader = self.leader()?;
        let roles = format!("CREATE ROLE {DATABASE} LOGIN PASSWORD '{password}'");
        let mut client = leader.connect("postgres")?;
        for statement in [roles, format!("CREATE DATABASE {DATABASE} OWNER {DATABASE}")] {
            client.batch_execute(&statement).map_err(Error::sql("the bank's role and database"))?;
        }
        let mut client = leader.connect(DATABASE)?;
        client.batch_execute(&format!("SET ROLE {DATABASE}")).map_err(Error::sql("the bank's role"))?;
        let sql = self.place.workspace.join("sql");
        apply_sql(&mut client, &sql)?;
        apply_sql(&mut client, &sql.join("durable"))
    }

    fn start_instance(&mut self) -> Result<(), Error> {
        let on = |host: &str| self.apis.iter().filter(|api| api.host == host).count();
        let host = if on(APIS[1]) < on(APIS[0]) { APIS[1] } else { APIS[0] };
        let taken = |port: &u16| self.apis.iter().any(|api| api.address.ends_with(&format!(":{port}")));
        let port = (8080..9000).find(|port| !taken(port)).unwrap_or(8080);
        let address = format!("{}:{port}", self.network.address(host));
        let name = format!("webapi-{port}");
        let settings = SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let instance = Instance::start(&InstanceOptions {
            log: Some(self.place.log(&name)),
            name,
            listen: vec![address.clone()],
            metrics_listen: format!("{}:{}", self.network.address(host), port + 1000),
            environment: settings.into_iter().chain(self.options.set.iter().cloned()).collect(),
            namespace: Some(self.network.namespace(host)),
            interrupt: self.place.interrupt.clone(),
            ..InstanceOptions::new(&self.server, &self.database_url)
        })?;
        self.apis.push(Api { host, instance, address });
        Ok(())
    }

    fn start_balancer(&mut self) -> Result<(), Error> {
        // As the configuration says.
        for setting in ["tcp_retries2", "tcp_orphan_retries"] {
            self.network.set_kernel(BALANCER, setting, "1")?;
        }
        let template = self.place.workspace.join("nginx/nginx-tcp.conf");
        let balancer = Balancer::start(&BalancerOptions {
            host: self.network.address(BALANCER).into(),
            port: BALANCER_PORT,
            namespace: Some(self.network.namespace(BALANCER)),
            log: Some(self.place.log("nginx")),
            interrupt: self.place.interrupt.clone(),
            ..BalancerOptions::new(Some(template), vec![self.instances()])
        })?;
        balancer.wait_healthy()?;
        self.balancer = Some(balancer);
        Ok(())
    }

    fn instances(&self) -> Vec<String> {
        self.apis.iter().map(|api| api.address.clone()).collect()
    }

    fn tell_balancer(&mut self) -> Result<(), Error> {
        let instances = self.instances();
        self.balancer.as_mut().map_or(Ok(()), |balancer| balancer.set(vec![instances]))
    }

    fn patronictl(&self, words: &[&str]) -> Result<String, Error> {
        let leader = self.leader().unwrap_or(&self.nodes[0]);
        let log = self.directory.path().join("patronictl.log");
        let _ = fs::remove_file(&log);
        let mut arguments = vec!["-c".into(), leader.configuration().into_os_string()];
        arguments.extend(words.iter().map(OsString::from));
        let mut tool = Service::start(Launch {
            arguments,
            namespace: Some(&self.network.namespace(&leader.name)),
            ..Launch::new("patronictl", &self.patronictl, self.directory.path(), &log)
        })?;
        tool.run_to_end(PATRONICTL_PATIENCE, &self.place.interrupt)?;
        Ok(tool.log())
    }
}

fn standby_after(leader: &str) -> &'static str {
    let position = DATABASES.iter().position(|name| *name == leader).unwrap_or(0);
    DATABASES[(position + 1) % DATABASES.len()]
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // All at once: one after the other each would wait for the one before to give the lead away.
        for patroni in self.nodes.iter().filter_map(|node| node.patroni.as_ref()) {
            let _ = patroni.signal(Signal::TERM);
        }
    }
}

/// Each host with the last number of its address.
const HOSTS: [(&str, u8); 6] =
    [("db1", 1), ("db2", 2), ("db3", 3), ("api1", 11), ("api2", 12), (BALANCER, 21)];
const DATABASES: [&str; 3] = ["db1", "db2", "db3"];
const APIS: [&str; 2] = ["api1", "api2"];
const BALANCER: &str = "lb";
const BALANCER_PORT: u16 = 9999;
/// Of the instances: a host of this network that does not take a connection within 100 ms is away, and while there is no
/// primary the hosts are asked 20 times a second.
const SETTINGS: [(&str, &str); 2] = [("CONNECT_TIMEOUT_MS", "100"), ("RECONNECT_MAX_MS", "50")];
const FOLLOWERS: &str = "SELECT count(*) FILTER (WHERE state = 'streaming'), \
    count(*) FILTER (WHERE sync_state IN ('quorum', 'sync')) FROM pg_stat_replication WHERE application_name LIKE 'db_'";
const WHOLE_PATIENCE: Duration = Duration::from_mins(2);
const ETCD_PATIENCE: Duration = Duration::from_secs(30);
const PATRONICTL_PATIENCE: Duration = Duration::from_secs(30);
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);
