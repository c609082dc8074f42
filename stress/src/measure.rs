//! A bank under load, measured: what `cargo stress run` does.
//!
//! Each run has a stack of its own, so that no run inherits another's ledger, caches or peak memory; or all share one that
//! runs already. It is warmed up for a second, loaded, and audited: a run whose ledger does not add up is an error, never
//! a figure.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::arguments::{address, part, positive, setting, url};
use crate::cgroup::{self, Account, CPU_PERIOD_DEFAULT_MS, Limits, Parent};
use crate::ledger::{Tally, audit, settled};
use crate::load::{Generator, LoadKind, Program};
use crate::stack::Shape;
use crate::throwaway::Throwaway;
use crate::wait::Interrupt;
use crate::{Bank, Error, PostgresOptions, Service, Split, Stack, StackOptions, Workplace, compile, files};

mod usage;
pub use usage::Machine;
pub(crate) use usage::Moment;

mod report;
pub use report::{Case, Conditions, Part, Report, Run, ServiceLimits, Setup};
pub(crate) use report::{cpu_us_per_request, disturbance};
mod table;
pub(crate) use table::parts_table;

mod progress;
pub use progress::Progress;

#[cfg(test)]
pub(crate) use report::tests as testing;

/// The whole stack under load, measured: requests per second, latencies, CPU time per request
///
/// Measures a stack of its own, on free ports, beside whatever else runs, or a bank that runs: requests per second, latencies,
/// errors, CPU time per request and peak memory of nginx, of each instance and of PostgreSQL.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = include_str!("help/run.txt"))]
pub struct MeasureOptions {
    /// What is sent, and where
    #[arg(value_enum, value_name = "saturate|open|direct", hide_possible_values = false)]
    pub load: LoadKind,
    /// With direct: GET /healthz only, which asks no database
    #[arg(long)]
    pub health: bool,
    /// Connections of saturate and direct, one case each
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "32,128", value_parser = positive)]
    pub connections: Vec<u32>,
    /// How long each run is measured, after a second to warm up
    #[arg(long, value_name = "N", default_value = "10", value_parser = positive)]
    pub seconds: u32,
    /// Runs of each case, in turns; medians are reported
    #[arg(long, value_name = "N", default_value = "1", value_parser = positive)]
    pub runs: u32,
    #[command(flatten)]
    pub stack: OwnStack,
    /// Writes run.json (everything) and run.svg (a chart) there
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Keeps the run with those in DIR: its chart, a line of JSON, and the index [default DIR: stress/reports]
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub keep: Option<PathBuf>,
    /// Takes turns with this one and prints the ratios to it: the server of a commit, which is built; a peer, as in --server; or
    /// a binary
    #[arg(long, value_name = "COMMIT|PEER|FILE", conflicts_with_all = ["url", "against"])]
    pub baseline: Option<String>,
    /// Also prints the ratios to an earlier run.json
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
    #[command(flatten)]
    pub running: Option<Running>,
}

/// How a stack of its own is.
#[derive(Debug, Clone, Args)]
pub struct OwnStack {
    /// How 1.5 CPU and 550 MB are shared out: as in the challenge; for more requests per second; no limits at all
    #[arg(long, value_enum, default_value_t, value_name = "SPLIT", conflicts_with = "url")]
    pub limits: Split,
    #[command(flatten)]
    pub cpu_period: CpuPeriod,
    /// What is between the load and the instances: nginx with nginx.conf (layer 4), nginx-http.conf (layer 7) or nginx-tcp.conf
    /// (layer 7, each account to one instance), HAProxy (layer 4), or nothing, with connections to the instances' TCP ports in turn
    #[arg(long, value_enum, default_value_t, conflicts_with = "url")]
    pub balancer: BalancerName,
    #[command(flatten)]
    pub shape: Shape,
    /// Logged tables, and fsync, `synchronous_commit` and `full_page_writes` on
    #[arg(long, conflicts_with = "url")]
    pub durable: bool,
    /// A setting of both instances, such as `BATCH_CALLS_MAX=32`; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting, conflicts_with = "url")]
    pub set: Vec<(String, String)>,
    /// A setting of PostgreSQL, such as `track_activities=off`; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting, conflicts_with = "url")]
    pub postgresql: Vec<(String, String)>,
    /// Accounts in place of the challenge's five, each as likely as the others; for saturate and direct
    #[arg(long, value_name = "N", conflicts_with = "url", value_parser = clap::value_parser!(u32).range(5..=10_000))]
    pub accounts: Option<u32>,
    /// This binary of the server in place of a fresh build; or a peer of it, built from stress/peers: peer:simple, peer:batch,
    /// peer:embedded
    #[arg(long, value_name = "FILE|PEER", conflicts_with = "url")]
    pub server: Option<PathBuf>,
}

/// Over which span limits of CPU are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub struct CpuPeriod {
    /// The kernel gives a service its share of CPU anew each N ms, and lets it stand still once that is used up: a shorter period
    /// has a shorter tail of latencies and costs more CPU time per request
    #[arg(long, value_name = "N", default_value_t = CPU_PERIOD_DEFAULT_MS, value_parser = clap::value_parser!(u32).range(5..=1000))]
    pub cpu_period_ms: u32,
}

/// A bank that runs, in place of a stack of its own; `cargo stress up` prints these options for its own. Nobody else may use
/// the bank during a run, and the run's transactions stay in its ledger.
#[derive(Debug, Clone, Args)]
#[group(multiple = true)]
#[command(next_help_heading = "A bank that runs, as `cargo stress up` prints it")]
pub struct Running {
    /// Where requests go, such as <http://localhost:9999>; for direct, one instance
    #[arg(long, required = false, requires_all = ["metrics", "database_url"], value_parser = url)]
    pub url: String,
    /// `METRICS_LISTEN` of every instance
    #[arg(long, value_name = "ADDR,...", required = false, requires = "url", value_delimiter = ',', value_parser = address)]
    pub metrics: Vec<String>,
    /// Its database, as libpq takes it, for the audit of the ledger
    #[arg(long, value_name = "URL", required = false, requires = "url")]
    pub database_url: String,
    /// A process whose group of limits keeps account of CPU time and memory; repeat it for each part
    #[arg(long = "part", value_name = "NAME=PID", requires = "url", value_parser = part)]
    pub parts: Vec<(String, u32)>,
}

impl MeasureOptions {
    /// Refuses options that are right one by one, and contradict each other.
    pub fn check(&self) -> Result<(), Error> {
        self.stack.check()?;
        let is_direct = self.load == LoadKind::Direct;
        let is_embedded = self.stack.peer() == Some("peer:embedded");
        let is_open_with_accounts = self.load == LoadKind::Open && self.stack.accounts.is_some();
        let is_direct_and_split = is_direct && self.stack.shape.databases > 1;
        for (is_wrong, why) in [
            (is_open_with_accounts, "--accounts is for saturate and direct"),
            (is_direct_and_split, "direct asks one instance: it cannot have --databases 2"),
            (!is_direct && is_embedded, "peer:embedded is a bank of one process: it is for `direct`"),
            (!is_direct && self.health, "--health is for `direct`"),
        ] {
            if is_wrong {
                return Err(Error::Usage(why.to_owned()));
            }
        }
        Ok(())
    }

    pub(crate) fn kind(&self) -> LoadKind {
        if self.health { LoadKind::DirectHealth } else { self.load }
    }
}

impl OwnStack {
    pub(crate) fn check(&self) -> Result<(), Error> {
        let Shape { instances, databases, .. } = self.shape;
        if databases > 1 && self.balancer != BalancerName::NginxTcp {
            return Err(Error::Usage("--databases 2 is for --balancer nginx-tcp".to_owned()));
        }
        if (instances, databases) != (2, 1) && self.limits != Split::None {
            let why = "the limits are for two instances and one database: --limits none";
            return Err(Error::Usage(why.to_owned()));
        }
        Ok(())
    }

    /// The server is built where none is given.
    pub(crate) fn with_server(&self, place: &Workplace) -> Result<OwnStack, Error> {
        Ok(OwnStack { server: Some(place.server(self.server.as_ref())?), ..self.clone() })
    }

    fn settings(&self) -> Vec<(String, String)> {
        let (shape, usual) = (self.shape, Shape::default());
        let mut settings = [self.set.as_slice(), &self.postgresql].concat();
        for (name, value, usual) in [
            ("accounts", self.accounts.unwrap_or_default(), 0),
            ("instances", shape.instances, usual.instances),
            ("databases", shape.databases, usual.databases),
            ("distance_ms", shape.distance_ms, usual.distance_ms),
        ] {
            if value != usual {
                settings.push((name.to_owned(), value.to_string()));
            }
        }
        settings
    }

    /// What is measured in place of the server: `peer:batch`.
    fn peer(&self) -> Option<&str> {
        let server = self.server.as_deref().filter(|server| compile::peer(server).is_some());
        server.and_then(Path::to_str)
    }

    fn conditions(&self) -> Conditions {
        Conditions {
            peer: self.peer().map(str::to_owned),
            cpu_period_ms: self.cpu_period.cpu_period_ms,
            balancer: self.balancer.to_string(),
            is_durable: self.durable,
            settings: self.settings().into_iter().collect(),
        }
    }

    /// What figures depend on, beside the limits.
    pub(crate) fn describe(&self) -> String {
        self.conditions().words().join(", ")
    }

    /// Where its groups are made; `None` without limits where no account can be kept.
    pub fn groups(&self) -> Result<Option<Parent>, Error> {
        let groups = groups_for(self.limits)?;
        Ok(groups.map(|parent| parent.with_cpu_period_ms(self.cpu_period.cpu_period_ms)))
    }

    pub(crate) fn start(&self, place: &Workplace, groups: Option<Parent>) -> Result<Stack, Error> {
        Stack::start(&StackOptions {
            balancer: self.balancer.file().map(|file| place.workspace.join("nginx").join(file)),
            shape: self.shape,
            groups,
            split: self.limits,
            postgres: PostgresOptions {
                is_durable: self.durable,
                settings: self.postgresql.clone(),
                accounts: self.accounts,
                ..PostgresOptions::default()
            },
            environment: self.set.clone(),
            logs: Some(place.logs.clone()),
            interrupt: place.interrupt.clone(),
            ..StackOptions::new(&place.workspace, place.server(self.server.as_ref())?)
        })
    }

    fn bank(&self, stack: &Stack, load: LoadKind) -> Bank {
        match (load, self.balancer) {
            (LoadKind::Direct | LoadKind::DirectHealth, _) => Bank::direct(stack, 1),
            (LoadKind::Saturate | LoadKind::Open, BalancerName::None) => Bank::direct(stack, usize::MAX),
            (LoadKind::Saturate | LoadKind::Open, _) => Bank::of(stack),
        }
    }
}

impl Running {
    fn bank(&self) -> Result<Bank, Error> {
        let account = |(name, pid): &(String, u32)| {
            let account = Account::of_process(*pid);
            let account = account.map_err(|why| Error::Refused(format!("--part {name}={pid}: {why}")))?;
            Ok((name.clone(), Some(account)))
        };
        Ok(Bank {
            urls: vec![self.url.clone()],
            metrics: self.metrics.clone(),
            database_urls: vec![self.database_url.clone()],
            parts: self.parts.iter().map(account).collect::<Result<_, Error>>()?,
        })
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, strum::Display)]
#[strum(serialize_all = "kebab-case")]
pub enum BalancerName {
    #[default]
    Nginx,
    NginxHttp,
    NginxTcp,
    Haproxy,
    None,
}

impl BalancerName {
    /// Its configuration in the directory `nginx`; HAProxy has none there.
    fn file(self) -> Option<&'static str> {
        match self {
            // With `none` nobody asks it, and an idle nginx costs nothing.
            BalancerName::Nginx | BalancerName::None => Some("nginx.conf"),
            BalancerName::NginxHttp => Some("nginx-http.conf"),
            BalancerName::NginxTcp => Some("nginx-tcp.conf"),
            BalancerName::Haproxy => None,
        }
    }
}

/// Measures all cases, in turns: each takes its share of the machine's good and bad minutes, and so does the baseline, whose
/// report is the second one.
pub fn measure(
    options: &MeasureOptions,
    place: &Workplace,
    progress: &Progress,
) -> Result<(Report, Option<Report>), Error> {
    let load = options.kind();
    let bank = options.running.as_ref().map(Running::bank).transpose()?;
    let groups = if bank.is_some() { Parent::find().ok() } else { options.stack.groups()? };
    let scratch = Throwaway::new("load")?;
    let mut generator = Generator::find(load, scratch.path(), groups.as_ref(), place)?;
    generator.accounts = options.stack.accounts;
    let machine = Machine::look();
    let names = load.cases(&options.connections);
    let mut sides = Side::of(options, &generator, names.len(), place)?;
    for number in 1..=options.runs {
        for (case, connections) in names.iter().enumerate() {
            // A B B A: whoever comes second finds a warmer machine.
            sides.reverse();
            for side in &mut sides {
                progress.begin(&side.name(*connections), number, options.runs);
                let measured = |bank: &Bank, before: &Tally| {
                    let interrupt = &place.interrupt;
                    measure_bank(bank, before, &generator, *connections, options.seconds, interrupt, progress)
                };
                let run = if let Some(bank) = &bank {
                    measured(bank, &Tally::now(bank, &place.interrupt)?)?
                } else {
                    // Each stack's own: a log is appended to, and an instance's addresses are read from it.
                    let name = if side.is_baseline { "baseline" } else { "run" };
                    let logs = place.logs.join(format!("{name}-{number}-{case}"));
                    files::make_directory(&logs)?;
                    let stack = side.own.start(&Workplace { logs, ..place.clone() }, groups.clone())?;
                    side.setup.add_facts(&stack);
                    measured(&side.own.bank(&stack, load), &Tally::default())?
                };
                progress.end(&run);
                side.runs[case].push(run);
            }
        }
    }
    progress.finish();
    sides.sort_by_key(|side| side.is_baseline);
    let mut reports = sides.into_iter().map(|side| {
        let cases = names.iter().zip(side.runs);
        let cases = cases.filter_map(|(connections, runs)| {
            Some(Case { connections: *connections, median: Run::median(&runs)?, runs })
        });
        Report { format: report::FORMAT, machine: machine.clone(), setup: side.setup, cases: cases.collect() }
    });
    let report = reports.next().ok_or_else(|| Error::Refused("nothing was measured".to_owned()))?;
    Ok((report, reports.next()))
}

struct Side {
    is_baseline: bool,
    own: OwnStack,
    setup: Setup,
    /// By case, in the order of the runs.
    runs: Vec<Vec<Run>>,
}

impl Side {
    fn of(
        options: &MeasureOptions,
        generator: &Generator,
        cases: usize,
        place: &Workplace,
    ) -> Result<Vec<Side>, Error> {
        let side = |options: &MeasureOptions, own, is_baseline| {
            let setup = Setup::of(options, generator);
            Side { is_baseline, own, setup, runs: vec![Vec::new(); cases] }
        };
        if options.running.is_some() {
            return Ok(vec![side(options, options.stack.clone(), false)]);
        }
        let mut sides = vec![side(options, options.stack.with_server(place)?, false)];
        if let Some(baseline) = &options.baseline {
            let server = Some(compile::build_baseline(baseline, place)?);
            let mut compared = side(options, OwnStack { server, ..options.stack.clone() }, true);
            compared.setup.conditions.peer = Some(baseline.clone());
            sides.push(compared);
        }
        Ok(sides)
    }

    fn name(&self, connections: Option<u32>) -> String {
        let other = self.setup.conditions.peer.iter().map(|other| format!(", {other}"));
        LoadKind::case_name(connections) + &other.collect::<String>()
    }
}

/// Warms a bank up, loads it, and audits what came since `before`. Nobody else may use it from then on.
pub fn measure_bank(
    bank: &Bank,
    before: &Tally,
    generator: &Generator,
    connections: Option<u32>,
    seconds: u32,
    interrupt: &Interrupt,
    progress: &Progress,
) -> Result<Run, Error> {
    generator.run(&bank.urls, connections, WARM_UP_SECONDS, interrupt)?;

    let counts_before = settled(bank, interrupt)?;
    let before_load = Moment::now(bank, generator.program.group.as_ref());
    progress.load(seconds);
    let outcome = generator.run(&bank.urls, connections, seconds, interrupt);
    let after_load = Moment::now(bank, generator.program.group.as_ref());
    progress.loaded();
    let outcome = outcome?;
    let counts_after = settled(bank, interrupt)?;

    let ledger = audit(bank, before, &counts_after)?;
    let counts = counts_after.since(&counts_before);
    let parts = after_load.parts(&before_load, outcome.requests);
    let others_cpus = after_load.others_cpus(&before_load);
    Ok(Run { others_cpus, ..Run::new(outcome, &counts, parts, ledger) })
}

impl Setup {
    fn of(options: &MeasureOptions, generator: &Generator) -> Setup {
        let url = options.running.as_ref().map(|running| running.url.clone());
        let Program { name, found, .. } = &generator.program;
        let versions = [("cargo stress", env!("CARGO_PKG_VERSION")), (*name, found.version.as_str())];
        let mut limits = options.stack.limits.to_string();
        let mut conditions = options.stack.conditions();
        if url.is_some() {
            limits.clear();
            conditions.balancer.clear();
        }
        Setup {
            load: options.kind(),
            seconds: options.seconds,
            runs: options.runs,
            url,
            limits,
            services: Vec::new(),
            conditions,
            versions: versions.map(|(name, version)| (name.to_owned(), version.to_owned())).into(),
        }
    }

    /// What only a stack that runs knows: the limits that the kernel keeps, and whose programs it is made of.
    fn add_facts(&mut self, stack: &Stack) {
        let limits = |service: &&Service| {
            let (limits, cpu_period) = service.group.as_ref()?.account.limits()?;
            let Limits { cpu_thousandths, memory_bytes } = limits;
            let cpu_period_ms = cpu_period.as_millis().try_into().ok()?;
            let name = service.name.clone();
            Some(ServiceLimits { name, cpu_thousandths, cpu_period_ms, memory_bytes })
        };
        self.services = stack.services().iter().filter_map(limits).collect();
        for (name, version) in stack.versions() {
            self.versions.insert(name.to_owned(), version.to_owned());
        }
    }
}

/// Where the groups of a split are made; `None` when there are no limits to apply and no account can be kept.
pub fn groups_for(split: Split) -> Result<Option<Parent>, Error> {
    match (Parent::find(), split) {
        (Ok(parent), _) => Ok(Some(parent)),
        (Err(_), Split::None) => Ok(None),
        (Err(why), Split::Default | Split::Tuned) => Err(Error::Refused(format!(
            "limits cannot be applied here: {why}: {}, or leave them out: --limits none",
            cgroup::REMEDY
        ))),
    }
}

const WARM_UP_SECONDS: u32 = 1;
