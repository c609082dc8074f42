//! The whole stack: PostgreSQL, two instances of the server, nginx before them.

mod split;
use split::BALANCER;
pub(crate) use split::{DB, WEBAPIS};
pub use split::{LIMITS, Split, TUNED_LIMITS};

mod postgresql;
pub use postgresql::{Durability, Postgres, PostgresOptions};
pub(crate) use postgresql::{apply_sql, remove_segment};

mod instance;
pub use instance::{Instance, InstanceOptions, Readiness};

mod balancer;
pub(crate) use balancer::privately;
pub use balancer::{Balancer, BalancerOptions, Configuration};

mod frozen;
pub use frozen::Frozen;

mod bank;
pub use bank::Bank;

mod solo;
pub use solo::{Solo, SoloOptions};

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::cgroup::{Group, Parent};
use crate::steps::Steps;
use crate::throwaway::Throwaway;
use crate::wait::{self, Interrupt};
use crate::{Error, Service, http, install};

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
        let Ports { nginx, instances: [first, second], metrics: [first_metrics, second_metrics] } = self;
        [nginx, first, second, first_metrics, second_metrics]
    }
}

#[derive(Debug, Clone)]
pub struct StackOptions {
    pub server: PathBuf,
    pub sql: PathBuf,
    pub balancer: Configuration,
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
    /// The stack of the project in the directory `workspace`, on free ports, without limits, told to nobody.
    pub fn new(workspace: &std::path::Path, server: impl Into<PathBuf>) -> StackOptions {
        StackOptions {
            server: server.into(),
            sql: workspace.join("sql"),
            balancer: Configuration::Nginx(workspace.join("nginx/nginx.conf")),
            ports: Ports::default(),
            groups: None,
            split: Split::Default,
            postgres: PostgresOptions::default(),
            environment: Vec::new(),
            logs: None,
            steps: Steps::Silent,
            interrupt: Interrupt::default(),
        }
    }
}

/// The running stack. Dropping it stops all of it: the balancer first, PostgreSQL last.
#[derive(Debug)]
pub struct Stack {
    pub balancer: Balancer,
    /// webapi1 and webapi2.
    pub instances: [Instance; 2],
    /// The database server, with the database `rinha`.
    pub postgres: Postgres,
    instance_options: [InstanceOptions; 2],
    /// The instances' sockets. Last, so that it is removed when all have stopped.
    _sockets: Throwaway,
}

impl Stack {
    /// Starts everything and waits until `/healthz` answers 200 through nginx.
    pub fn start(options: &StackOptions) -> Result<Stack, Error> {
        let sockets = Throwaway::new("stack")?;
        let group = |name: &str| -> Result<Option<Arc<Group>>, Error> {
            let limits = options.split.limits().iter().find(|(service, _)| *service == name);
            let limits = limits.map(|(_, limits)| *limits);
            let made = options.groups.as_ref().map(|parent| parent.group(name, limits));
            made.transpose().map(|made| made.map(Arc::new))
        };
        let log = |name: &str| options.logs.as_ref().map(|logs| logs.join(format!("{name}.log")));

        let version = install::POSTGRES.require()?.version;
        let postgres = options.steps.run(&format!("{DB} {version}"), "ready", || {
            Postgres::start(&PostgresOptions {
                group: group(DB)?,
                log: log(DB),
                interrupt: options.interrupt.clone(),
                ..options.postgres.clone()
            })
        })?;
        options.steps.run("schema", "applied", || postgres.create_bank(DATABASE, &options.sql))?;

        let upstreams = WEBAPIS.map(|name| sockets.path().join(format!("{name}.sock")));
        let instance_options = |index: usize| -> Result<InstanceOptions, Error> {
            let (port, metrics_port) = (options.ports.instances[index], options.ports.metrics[index]);
            let name = WEBAPIS[index];
            Ok(InstanceOptions {
                name: name.to_owned(),
                listen: vec![format!("unix:{}", upstreams[index].display()), format!("127.0.0.1:{port}")],
                metrics_listen: format!("127.0.0.1:{metrics_port}"),
                environment: options.environment.clone(),
                group: group(name)?,
                log: log(name),
                interrupt: options.interrupt.clone(),
                ..InstanceOptions::new(&options.server, postgres.url(DATABASE))
            })
        };
        let instance_options = [instance_options(0)?, instance_options(1)?];
        let instance = |index: usize| {
            options.steps.run(WEBAPIS[index], "ready", || Instance::start(&instance_options[index]))
        };
        let instances = [instance(0)?, instance(1)?];

        let program = options.balancer.program();
        let version = options.balancer.tool().require()?.version;
        let balancer = options.steps.run(&format!("{program} {version}"), "ready", || {
            let balancer = Balancer::start(&BalancerOptions {
                port: options.ports.nginx,
                group: group(BALANCER)?,
                log: log(program),
                interrupt: options.interrupt.clone(),
                ..BalancerOptions::new(options.balancer.clone(), upstreams.clone())
            })?;
            let address = balancer.address().to_string();
            balancer.wait_ready(
                HEALTHY_PATIENCE,
                &options.interrupt,
                "does not answer 200 to /healthz",
                || Ok(http::get_status(&address, "/healthz").is_ok_and(|status| status == 200).then_some(())),
            )?;
            Ok(balancer)
        })?;
        Ok(Stack { balancer, instances, postgres, instance_options, _sockets: sockets })
    }

    /// Starts an instance that has ended again, where it was before, and waits until it is ready.
    pub fn start_instance_again(&mut self, index: usize) -> Result<(), Error> {
        self.instances[index] = Instance::start(&self.instance_options[index])?;
        Ok(())
    }

    pub fn address(&self) -> SocketAddr {
        self.balancer.address()
    }

    /// The four processes, in the order in which a request meets them.
    pub fn services(&self) -> [&Service; 4] {
        let [webapi1, webapi2] = &self.instances;
        [&self.balancer, webapi1, webapi2, &self.postgres]
    }

    /// Waits until `interrupt` is raised.
    pub fn watch(&self, interrupt: &Interrupt) -> Result<(), Error> {
        let watched = wait::until(FOREVER, interrupt, || {
            match self.services().into_iter().find(|service| service.has_exited()) {
                Some(ended) => Err(ended.failure("ended")),
                None => Ok(None::<()>),
            }
        });
        match watched {
            Ok(_) | Err(Error::Interrupted) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The database of the bank.
pub(crate) const DATABASE: &str = "rinha";
const FOREVER: Duration = Duration::from_hours(365 * 24);
const HEALTHY_PATIENCE: Duration = Duration::from_secs(20);
