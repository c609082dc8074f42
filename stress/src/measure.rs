//! A bank under load, measured: what `cargo stress run` does.
//!
//! Each run has a stack of its own, so that no run inherits another's ledger, caches or peak memory; or all share one that
//! runs already. It is warmed up for a second, loaded, and audited: a run whose ledger does not add up is an error, never
//! a figure.

use std::fs;
use std::path::PathBuf;

use clap::ValueEnum;

use crate::cgroup::{self, Parent};
use crate::ledger::{Tally, audit, settled};
use crate::load::{Generator, LoadKind};
use crate::throwaway::Throwaway;
use std::collections::BTreeMap;

use crate::{Bank, Durability, Error, Split, Stack, StackOptions, Workplace};

mod usage;
pub(crate) use usage::{parts, usage_of};
mod others;
pub(crate) use others::Moment;
mod machine;
pub use machine::Machine;

mod report;
pub(crate) use report::DISTURBING_CPUS;
use report::conditions;
pub use report::{Case, Part, Report, Run, ServiceLimits, Setup};
mod table;
pub(crate) use table::parts_table;
mod chart;
mod ratio;

mod progress;
pub use progress::Progress;

#[cfg(test)]
pub(crate) use report::tests as testing;

/// What to measure.
#[derive(Debug, Clone)]
pub struct MeasureOptions {
    /// Who is measured.
    pub subject: Subject,
    /// What is sent, and where.
    pub load: LoadKind,
    /// Connections of the load generator, one case each; unused by [`LoadKind::Open`].
    pub connections: Vec<u32>,
    /// How long each run is measured.
    pub seconds: u32,
    /// Runs of each case.
    pub runs: u32,
    /// Where, and who watches it.
    pub place: Workplace,
}

/// Who is measured.
#[derive(Debug, Clone)]
pub enum Subject {
    /// A bank that runs, as it is. Nobody else may use it meanwhile.
    Running(Bank),
    /// A stack that is started for each run.
    Own(OwnStack),
}

/// A stack that is started to be measured.
#[derive(Debug, Clone)]
pub struct OwnStack {
    /// The server's binary.
    pub server: PathBuf,
    /// The limits.
    pub split: Split,
    /// Which of the project's configurations nginx runs.
    pub balancer: Balancer,
    /// What the database promises.
    pub durability: Durability,
    /// Settings of both instances by the name of their environment variable.
    pub settings: Vec<(String, String)>,
}

impl OwnStack {
    /// What figures depend on, beside the limits.
    pub(crate) fn describe(&self) -> String {
        let settings = self.settings.iter().map(|(name, value)| (name, value));
        conditions(self.balancer.name(), self.durability == Durability::Durable, settings).join(", ")
    }
}

/// The project's two configurations of nginx.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Balancer {
    /// Layer 4: passes bytes on.
    #[default]
    Stream,
    /// Layer 7: passes requests on.
    Http,
}

impl Balancer {
    /// As the command line calls it.
    pub fn name(self) -> &'static str {
        match self {
            Balancer::Stream => "stream",
            Balancer::Http => "http",
        }
    }

    fn template(self) -> &'static str {
        match self {
            Balancer::Stream => "nginx/nginx.conf",
            Balancer::Http => "nginx/nginx-http.conf",
        }
    }
}

/// Measures all cases, in turns: each takes its share of the machine's good and bad minutes.
///
/// # Errors
/// The first failure, or [`Error::Refused`] for a run whose ledger does not add up. What was started is stopped.
pub fn measure(options: &MeasureOptions, progress: &Progress) -> Result<Report, Error> {
    let groups = match &options.subject {
        Subject::Running(_) => Parent::find().ok(),
        Subject::Own(own) => groups_for(own.split)?,
    };
    let scratch = Throwaway::new("load")?;
    let generator = Generator::find(options.load, scratch.path(), groups.as_ref(), &options.place)?;
    let machine = Machine::look();
    let names = options.load.cases(&options.connections);
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); names.len()];
    let mut setup = Setup::of(options, &generator);
    for number in 1..=options.runs {
        for (connections, done) in names.iter().zip(&mut runs) {
            progress.begin(&LoadKind::case_name(*connections), number, options.runs);
            let run = match &options.subject {
                Subject::Running(bank) => {
                    let before = Tally::now(bank, &options.place.interrupt)?;
                    measure_bank(bank, &before, &generator, *connections, options, progress)?
                }
                Subject::Own(own) => {
                    // Each stack's own: a log is appended to, and an instance's addresses are read from it.
                    let logs = options.place.logs.join(format!("{}-{number}", connections.unwrap_or(0)));
                    fs::create_dir_all(&logs).map_err(Error::io(format!("make {}", logs.display())))?;
                    let place = Workplace { logs, ..options.place.clone() };
                    let stack = Stack::start(&stack_options(own, &place, groups.clone()))?;
                    setup.add_versions(&stack);
                    let bank = bank_of(&stack, options.load);
                    measure_bank(&bank, &Tally::of_new_bank(), &generator, *connections, options, progress)?
                }
            };
            progress.end(&run);
            done.push(run);
        }
    }
    progress.finish();
    let cases = names
        .into_iter()
        .zip(runs)
        .filter_map(|(connections, runs)| Some(Case { connections, median: Run::median(&runs)?, runs }));
    Ok(Report { format: report::FORMAT, machine, setup, cases: cases.collect() })
}

/// As the load meets it.
fn bank_of(stack: &Stack, load: LoadKind) -> Bank {
    match load {
        LoadKind::Saturate | LoadKind::Open => Bank::of(stack),
        LoadKind::Direct | LoadKind::DirectHealth => Bank::direct(stack),
    }
}

/// Warms a bank up, loads it, and audits what came since `before`. Nobody else may use it from then on.
///
/// # Errors
/// As [`measure`].
pub fn measure_bank(
    bank: &Bank,
    before: &Tally,
    generator: &Generator,
    connections: Option<u32>,
    options: &MeasureOptions,
    progress: &Progress,
) -> Result<Run, Error> {
    let interrupt = &options.place.interrupt;
    generator.run(&bank.url, connections, WARM_UP_SECONDS, interrupt)?;

    let counts_before = settled(bank, interrupt)?;
    let others_before = Moment::now(bank, generator.group());
    let usage_before = usage_of(bank);
    progress.load(options.seconds);
    let outcome = generator.run(&bank.url, connections, options.seconds, interrupt);
    let usage_after = usage_of(bank);
    let others_after = Moment::now(bank, generator.group());
    progress.loaded();
    let outcome = outcome?;
    let counts_after = settled(bank, interrupt)?;

    let ledger = audit(bank, before, &counts_after)?;
    let counts = counts_after.since(&counts_before);
    let parts = parts(&usage_before, &usage_after, outcome.requests);
    let others_cpus = others_after.zip(others_before).map(|(after, before)| after.others_cpus(before));
    Ok(Run { others_cpus, ..Run::new(outcome, &counts, parts, ledger) })
}

impl Setup {
    fn of(options: &MeasureOptions, generator: &Generator) -> Setup {
        let [generator_name, generator_version] =
            generator.version().split_once(' ').map_or(["", ""], |(name, version)| [name, version]);
        let versions = [("cargo stress", env!("CARGO_PKG_VERSION")), (generator_name, generator_version)];
        let base = Setup {
            load: options.load,
            seconds: options.seconds,
            runs: options.runs,
            url: None,
            limits: String::new(),
            services: Vec::new(),
            nginx: String::new(),
            is_durable: false,
            settings: BTreeMap::new(),
            versions: versions.into_iter().map(|(name, version)| (name.into(), version.into())).collect(),
        };
        match &options.subject {
            Subject::Running(bank) => Setup { url: Some(bank.url.clone()), ..base },
            Subject::Own(own) => base.of_own_stack(own),
        }
    }

    fn of_own_stack(self, own: &OwnStack) -> Setup {
        let services = own.split.limits().iter().map(|(name, limits)| ServiceLimits {
            name: (*name).to_owned(),
            cpu_thousandths: limits.cpu_thousandths,
            memory_bytes: limits.memory_bytes,
        });
        Setup {
            limits: own.split.name().to_owned(),
            services: services.collect(),
            nginx: own.balancer.name().to_owned(),
            is_durable: own.durability == Durability::Durable,
            settings: own.settings.iter().cloned().collect(),
            ..self
        }
    }

    fn add_versions(&mut self, stack: &Stack) {
        for (name, version) in [("postgresql", stack.postgres.version()), ("nginx", stack.nginx.version())] {
            self.versions.insert(name.to_owned(), version.to_owned());
        }
    }
}

/// Where the groups of a split are made; `None` when there are no limits to apply and no account can be kept.
///
/// # Errors
/// [`Error::Refused`] with the remedy where limits cannot be applied. Ask before anything is installed or built.
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

pub(crate) fn stack_options(own: &OwnStack, place: &Workplace, groups: Option<Parent>) -> StackOptions {
    StackOptions {
        nginx_conf: place.workspace.join(own.balancer.template()),
        groups,
        split: own.split,
        postgres: crate::PostgresOptions { durability: own.durability, ..crate::PostgresOptions::default() },
        environment: own.settings.clone(),
        logs: Some(place.logs.clone()),
        interrupt: place.interrupt.clone(),
        ..StackOptions::new(&place.workspace, &own.server)
    }
}

const WARM_UP_SECONDS: u32 = 1;
