//! The whole stack: PostgreSQL, two instances of the server, nginx before them.

mod split;
use split::BALANCER;
pub(crate) use split::{DB, WEBAPI, WEBAPIS};
pub use split::{LIMITS, Split, TUNED_LIMITS};

mod postgresql;
pub use postgresql::{Postgres, PostgresOptions};
pub(crate) use postgresql::{apply_sql, remove_segment};

mod instance;
pub use instance::{Instance, InstanceOptions, Readiness};

mod balancer;
pub use balancer::{Balancer, BalancerOptions};

mod distance;
pub(crate) use distance::put_between;

mod bank;
pub use bank::Bank;

mod solo;
pub use solo::{Solo, SoloOptions};

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockAddr;

use crate::cgroup::{Group, Parent};
use crate::steps::Steps;
use crate::throwaway::Throwaway;
use crate::wait::Interrupt;
use crate::{Error, Service, files, install};

/// Where the stack listens: nginx on all addresses, the instances and their metrics on 127.0.0.1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ports {
    /// 0 for wherever there is room, so that several stacks run side by side; so are all by default.
    pub nginx: u16,
    pub instances: [u16; 2],
    pub metrics: [u16; 2],
}

impl Ports {
    pub const NGINX_DEFAULT: u16 = 9999;
    /// The last one that leaves room for the four behind it.
    pub const NGINX_MAX: u16 = u16::MAX - 4;

    /// Those that go with nginx's: the four after it, but for the default.
    pub fn behind(nginx: u16) -> Ports {
        let after = |number: u16| nginx.saturating_add(number);
        match nginx {
            Ports::NGINX_DEFAULT => Ports { nginx, instances: [8081, 8082], metrics: [9191, 9192] },
            _ => Ports { nginx, instances: [after(1), after(2)], metrics: [after(3), after(4)] },
        }
    }

    pub fn all(self) -> [u16; 5] {
        let Ports { nginx, instances: [one, two], metrics: [metrics_one, metrics_two] } = self;
        [nginx, one, two, metrics_one, metrics_two]
    }
}

#[derive(Debug, Clone, Default)]
pub struct StackOptions {
    pub server: PathBuf,
    pub sql: PathBuf,
    /// As in `BalancerOptions::template`.
    pub balancer: Option<PathBuf>,
    pub shape: Shape,
    pub ports: Ports,
    /// Where to make the services' groups; `None`: no groups, so no limits and no account of what they use.
    pub groups: Option<Parent>,
    pub split: Split,
    /// How to run PostgreSQL; its group, log and interrupt are the stack's. In durable mode the tables are logged.
    pub postgres: PostgresOptions,
    pub environment: Vec<(String, String)>,
    /// Where the logs go; by default into throwaway directories.
    pub logs: Option<PathBuf>,
    pub steps: Steps,
    pub interrupt: Interrupt,
}

impl StackOptions {
    /// The project's own stack, on free ports, without limits, told to nobody.
    pub fn new(workspace: &Path, server: impl Into<PathBuf>) -> StackOptions {
        StackOptions {
            server: server.into(),
            sql: workspace.join("sql"),
            balancer: Some(workspace.join("nginx/nginx.conf")),
            ..StackOptions::default()
        }
    }
}

/// How many instances and databases there are, and how far away a database is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args)]
pub struct Shape {
    /// Instances of the server, for each database
    #[arg(long, value_name = "N", default_value = "2", conflicts_with = "url", value_parser = clap::value_parser!(u32).range(1..=16))]
    pub instances: u32,
    /// With 2, nginx/databases.conf splits the accounts over both
    #[arg(long, value_name = "1|2", default_value = "1", conflicts_with = "url", value_parser = clap::value_parser!(u32).range(1..=2))]
    pub databases: u32,
    /// How long a byte takes from an instance to its database, and back: a proxy hands it on later
    #[arg(long, value_name = "N", default_value = "0", conflicts_with = "url", value_parser = clap::value_parser!(u32).range(..=1000))]
    pub distance_ms: u32,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape { instances: 2, databases: 1, distance_ms: 0 }
    }
}

/// The running stack. Dropping it stops all of it: the balancer first, PostgreSQL last.
#[derive(Debug)]
pub struct Stack {
    pub balancer: Balancer,
    /// webapi1 and webapi2, and more where there are.
    pub instances: Vec<Instance>,
    pub postgres: Postgres,
    /// With two databases: the one of the accounts with even ids. The other one has the odd ids.
    pub second_postgres: Option<Postgres>,
    instance_options: Vec<InstanceOptions>,
    /// The instances' sockets. Last, so that it is removed when all have stopped.
    _sockets: Throwaway,
}

impl Stack {
    /// Starts everything and waits until `/healthz` answers 200 through nginx.
    pub fn start(options: &StackOptions) -> Result<Stack, Error> {
        let sockets = Throwaway::new("stack")?;
        let group = |name: &str| -> Result<Option<Arc<Group>>, Error> {
            let limits = options.split.limits().iter().find(|(service, _)| *service == name);
            let Some(parent) = &options.groups else { return Ok(None) };
            parent.group(name, limits.map(|(_, limits)| *limits)).map(Arc::new).map(Some)
        };
        let log = |name: &str| options.logs.as_ref().map(|logs| logs.join(format!("{name}.log")));

        let Shape { instances, databases, distance_ms } = options.shape;
        let version = install::POSTGRES.require()?.version;
        let postgres = |name: &'static str, remainder: u32| -> Result<Postgres, Error> {
            let postgres = options.steps.run(&format!("{name} {version}"), "ready", || {
                Postgres::start(&PostgresOptions {
                    name,
                    group: group(name)?,
                    log: log(name),
                    interrupt: options.interrupt.clone(),
                    ..options.postgres.clone()
                })
            })?;
            options.steps.run("schema", "applied", || {
                postgres.create_bank(DATABASE, &options.sql)?;
                postgres.keep_accounts(DATABASE, databases, remainder)
            })?;
            Ok(postgres)
        };
        let postgreses = match databases {
            1 => vec![postgres(DB, 0)?],
            // As nginx/databases.conf splits them.
            _ => vec![postgres(DB, 1)?, postgres(SECOND_DB, 0)?],
        };

        let mut instance_options: Vec<InstanceOptions> = Vec::new();
        let mut upstreams = Vec::new();
        for postgres in &postgreses {
            let mut url = postgres.url(DATABASE);
            if distance_ms > 0 {
                let place = sockets.path().join(format!("far{}", upstreams.len()));
                files::make_directory(&place)?;
                let (delay, socket) = (Duration::from_millis(distance_ms.into()), postgres.socket());
                let near = place.join(socket.file_name().unwrap_or_default());
                let unix = |path: &Path| SockAddr::unix(path).map_err(Error::io("name a socket"));
                put_between(&unix(&near)?, &unix(&socket)?, delay)?;
                url = postgres.url_at(DATABASE, &place);
            }
            let mut upstream = Vec::new();
            for _ in 0..instances {
                let index = instance_options.len();
                let name = format!("{WEBAPI}{}", index + 1);
                let socket = sockets.path().join(format!("{name}.sock"));
                let [port, metrics_port] = [options.ports.instances, options.ports.metrics]
                    .map(|ports| ports.get(index).copied().unwrap_or(0));
                let listen = vec![format!("unix:{}", socket.display()), format!("127.0.0.1:{port}")];
                upstream.push(listen[0].clone());
                instance_options.push(InstanceOptions {
                    listen,
                    metrics_listen: format!("127.0.0.1:{metrics_port}"),
                    environment: options.environment.clone(),
                    group: group(&name)?,
                    log: log(&name),
                    interrupt: options.interrupt.clone(),
                    name,
                    ..InstanceOptions::new(&options.server, url.clone())
                });
            }
            upstreams.push(upstream);
        }
        let instance = |options_of: &InstanceOptions| {
            options.steps.run(&options_of.name, "ready", || Instance::start(options_of))
        };
        let instances = instance_options.iter().map(instance).collect::<Result<Vec<_>, _>>()?;

        let balancer_options = BalancerOptions::new(options.balancer.clone(), upstreams);
        let program = balancer_options.program();
        let version = balancer_options.tool().require()?.version;
        let balancer = options.steps.run(&format!("{program} {version}"), "ready", || {
            let balancer = Balancer::start(&BalancerOptions {
                port: options.ports.nginx,
                group: group(BALANCER)?,
                log: log(program),
                interrupt: options.interrupt.clone(),
                ..balancer_options
            })?;
            balancer.wait_healthy()?;
            Ok(balancer)
        })?;
        let mut postgreses = postgreses.into_iter();
        let postgres =
            postgreses.next().ok_or_else(|| Error::Refused("a stack has a database".to_owned()))?;
        let second_postgres = postgreses.next();
        Ok(Stack { balancer, instances, postgres, second_postgres, instance_options, _sockets: sockets })
    }

    /// Starts an instance that has ended again, where it was before, and waits until it is ready.
    pub fn start_instance_again(&mut self, index: usize) -> Result<(), Error> {
        self.instances[index] = Instance::start(&self.instance_options[index])?;
        Ok(())
    }

    pub fn address(&self) -> SocketAddr {
        self.balancer.address()
    }

    /// Its processes, in the order in which a request meets them.
    pub fn services(&self) -> Vec<&Service> {
        let instances = self.instances.iter().map(|instance| &**instance);
        let databases = self.databases().map(|postgres| &**postgres);
        [&*self.balancer].into_iter().chain(instances).chain(databases).collect()
    }

    fn databases(&self) -> impl Iterator<Item = &Postgres> {
        [&self.postgres].into_iter().chain(&self.second_postgres)
    }

    /// Whose programs it is made of, with their versions.
    pub(crate) fn versions(&self) -> [(&str, &str); 2] {
        let (postgres, balancer) = (&self.postgres, &self.balancer);
        [(postgres.name.as_str(), postgres.version()), (balancer.name.as_str(), balancer.version())]
    }

    pub fn ended(&self) -> Option<&Service> {
        self.services().into_iter().find(|service| service.has_exited())
    }
}

pub(crate) const DATABASE: &str = "rinha";
const SECOND_DB: &str = "postgresql2";
