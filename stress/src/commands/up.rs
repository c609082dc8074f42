//! `cargo stress up`: the whole stack without Docker, until Ctrl-C.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use stress::cgroup::Parent;
use stress::lock::Lock;
use stress::measure::CpuPeriod;
use stress::{Bank, Error, Ports, PostgresOptions, Split, Stack, StackOptions, Workplace, install};

use super::{at_work, until_interrupted};

/// The whole stack without Docker, until Ctrl-C: PostgreSQL, two instances, nginx
///
/// Builds the server, and installs PostgreSQL and nginx if they are missing (root on Debian or Ubuntu). Each service runs under
/// the limits of the challenge where cgroups (v1 or v2) allow. Nothing is left behind at the end.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// nginx's port. Behind 9999 the instances are at 127.0.0.1:8081 and :8082, and their metrics at :9191 and :9192; behind another
    /// one the instances are at the two ports after it, and their metrics at the two after those, so that several stacks run
    /// beside each other
    #[arg(long, default_value_t = Ports::NGINX_DEFAULT, value_parser = clap::value_parser!(u16).range(1..=Ports::NGINX_MAX as i64))]
    port: u16,
    /// This binary of the server in place of a fresh build
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
    /// How 1.5 CPU and 550 MB are shared out: as in the challenge; for more requests per second; no limits at all
    #[arg(long, value_enum, default_value_t, value_name = "SPLIT")]
    limits: Split,
    #[command(flatten)]
    cpu_period: CpuPeriod,
    /// Logged tables, and fsync, `synchronous_commit` and `full_page_writes` on: what was acknowledged survives
    #[arg(long)]
    durable: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    let _lock = Lock::take(arguments.port)?;
    let ports = Ports::behind(arguments.port);
    check_free(ports)?;
    at_work(|place| bring_up(ports, arguments, place))
}

fn bring_up(ports: Ports, arguments: &Arguments, place: &Workplace) -> Result<(), Error> {
    let steps = place.steps;
    place.install(&[&install::POSTGRES, &install::NGINX])?;
    if arguments.server.is_none() {
        steps.line("server: cargo build --release --bin rinha");
    }
    let server = place.server(arguments.server.as_ref())?;

    let split = arguments.limits;
    let groups = match split {
        Split::None => Err("--limits none".to_owned()),
        Split::Default | Split::Tuned => {
            Parent::find().map(|parent| parent.with_cpu_period_ms(arguments.cpu_period.cpu_period_ms))
        }
    };
    steps.line(&match &groups {
        Ok(_) => format!("limits: {}", split.describe()),
        Err(why) => format!("limits: not applied: {why}"),
    });
    let stack = Stack::start(&StackOptions {
        ports,
        groups: groups.ok(),
        split,
        postgres: PostgresOptions { is_durable: arguments.durable, ..PostgresOptions::default() },
        logs: Some(place.logs.clone()),
        steps,
        interrupt: place.interrupt.clone(),
        ..StackOptions::new(&place.workspace, server)
    })?;
    for instance in &stack.instances {
        let metrics = instance.metrics_address().unwrap_or_default();
        let direct = instance.addresses().pop().unwrap_or_default();
        steps.line(&format!("{}: http://{direct}, metrics http://{metrics}/metrics", instance.name));
    }
    steps.line(&format!("database: psql '{}'", stack.postgres.url("rinha")));
    steps.line(&format!("measure it: cargo stress run saturate {}", running_options(&stack)));
    steps.line(&format!("up: http://localhost:{} (Ctrl-C ends it)", stack.address().port()));

    until_interrupted(stack, place, |stack| {
        stack.ended().map_or(Ok(()), |service| Err(service.failure("ended")))
    })
}

/// What `cargo stress run` has to know of it.
fn running_options(stack: &Stack) -> String {
    let Bank { urls, metrics, database_urls, parts } = Bank::of(stack);
    let with_account = stack.services().into_iter().zip(&parts).filter(|(_, (_, account))| account.is_some());
    let parts = with_account.map(|(service, (name, _))| format!(" --part {name}={}", service.pid()));
    let (url, metrics, database_url) = (&urls[0], metrics.join(","), &database_urls[0]);
    let parts = parts.collect::<String>();
    format!("--url {url} --metrics {metrics} --database-url '{database_url}'{parts}")
}

/// Says whose port is taken before anything is built or started.
fn check_free(ports: Ports) -> Result<(), Error> {
    ports.all().into_iter().try_for_each(|port| {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).map(drop).map_err(|error| {
            Error::Refused(if error.kind() == ErrorKind::AddrInUse {
                format!(
                    "port {port} is in use: end the process that `ss -ltnp 'sport = :{port}'` shows, \
                     or choose another with --port"
                )
            } else {
                format!("port {port} cannot be used ({error}): choose another with --port")
            })
        })
    })
}
