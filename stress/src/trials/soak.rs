//! Whether the bank stays whole under load for long: what `cargo stress soak` does.
//!
//! A stack of its own is loaded at a share of what it can do, and something is broken in every minute. At the end of each
//! minute the load stops: every answer is held against the ledger, and memory and descriptors of each part are noted, when
//! nobody is connected. A ledger that disagrees, a part that ends by itself, a panic, and a part that grows are errors.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use procfs::ProcResult;
use procfs::process::Process;
use serde::{Deserialize, Serialize};

use crate::arguments::positive;
use crate::ledger::{Judge, settled};
use crate::load::traffic::Outcome;
use crate::load::{ClosedLoad, ClosedRun, RunningLoad};
use crate::measure::{Machine, Moment, groups_for};
use crate::stack::DATABASE;
use crate::table::float;
use crate::wait;
use crate::{Bank, Error, Service, Split, Stack, StackOptions, Workplace};

mod faults;
pub use faults::Fault;

mod report;
pub use report::{Growth, Minute, Report};

/// The whole stack under load for an hour with a fault each minute: the ledger agrees, and nothing grows
///
/// A stack of its own, on free ports, at 70 % of its capacity, with a fault in every minute. In turn: PostgreSQL is restarted, a
/// backend of it is terminated, it stands still for 5 s, another session locks a row for 5 s, webapi2 is killed and comes back after
/// 5 s, webapi2 is restarted with SIGTERM, nginx is reloaded.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = include_str!("../help/soak.txt"))]
pub struct SoakOptions {
    /// How long, after the capacity was measured
    #[arg(long, value_name = "N", default_value = "60", value_parser = clap::value_parser!(u32).range(1..=60_000_000))]
    pub minutes: u32,
    /// The same in seconds
    #[arg(long, value_name = "N", value_parser = positive, conflicts_with = "minutes")]
    pub seconds: Option<u32>,
    /// From one fault to the next
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = positive)]
    pub every: u32,
    /// Requests per second, in place of 70 % of the lowest of three measurements of the capacity
    #[arg(long, value_name = "N", value_parser = positive)]
    pub rate: Option<u32>,
    /// Clients, each with one request under way at most; connections live for 2 to 4 s
    #[arg(long, value_name = "N", default_value = "32", value_parser = positive)]
    pub clients: u32,
    /// On a cluster of its own, with the faults of `cargo stress cluster faults` in turn; needs root
    #[arg(long, conflicts_with_all = ["seconds", "every", "limits", "out"])]
    pub cluster: bool,
    /// The services' shares of the 1.5 CPU and 550 MB
    #[arg(long, value_enum, default_value_t, value_name = "SPLIT")]
    pub limits: Split,
    /// This binary of the server in place of a fresh build
    #[arg(long, value_name = "FILE")]
    pub server: Option<PathBuf>,
    /// Also writes everything as JSON
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

impl SoakOptions {
    fn faults(&self) -> u32 {
        self.seconds.unwrap_or(self.minutes * 60) / self.every
    }

    fn interval(&self) -> Duration {
        Duration::from_secs(self.every.into())
    }

    /// Refuses options that are right one by one, and contradict each other.
    pub fn check(&self) -> Result<(), Error> {
        if self.faults() == 0 {
            let why = format!("so short a soak has no room for a fault every {} s", self.every);
            return Err(Error::Usage(why));
        }
        Ok(())
    }
}

pub fn run(options: &SoakOptions, place: &Workplace) -> Result<Report, Error> {
    let machine = Machine::look();
    let mut soak = Soak::start(options, place)?;
    let capacities = if options.rate.is_some() { Vec::new() } else { soak.measure_capacity()? };
    let lowest = capacities.iter().copied().reduce(f64::min).unwrap_or_default();
    let requests_per_second = options.rate.map_or(lowest * SHARE_OF_CAPACITY, f64::from);
    if requests_per_second <= 0.0 {
        return Err(Error::Refused("the stack serves nothing, so there is no load to hold".to_owned()));
    }
    let clients = options.clients;
    place.steps.line(&format!("load: {requests_per_second:.0} requests per second, {clients} clients"));
    let mut report = Report {
        machine,
        limits: options.limits.to_string(),
        every_s: options.every.into(),
        clients: clients as usize,
        capacities,
        requests_per_second,
        ..Report::default()
    };
    soak.load = soak.load.paced(requests_per_second);

    let began = Instant::now();
    for (number, fault) in (1..=options.faults()).zip(Fault::ALL.iter().copied().cycle()) {
        let due = began + options.interval() * (number - 1);
        let until_due = due.saturating_duration_since(Instant::now());
        wait::pause(until_due, &place.interrupt)?;
        match soak.minute(number, fault) {
            Ok(minute) => {
                place.steps.line(&minute.line(options.faults()));
                report.minutes.push(minute);
            }
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(broken) => {
                report.broken.push(format!("in minute {number} ({fault}): {broken}"));
                break;
            }
        }
    }
    if report.broken.is_empty() {
        let whole = soak.stack.postgres.connect(DATABASE).and_then(|mut it| soak.judge.judge_whole(&mut it));
        report.broken.extend(whole.err().map(|error| error.to_string()));
    }
    report.rows = soak.judge.rows;
    report.broken.extend(soak.alarms());
    report.judge_growth();
    Ok(report)
}

struct Soak<'a> {
    options: &'a SoakOptions,
    place: &'a Workplace,
    stack: Stack,
    judge: Judge,
    load: ClosedLoad,
}

impl<'a> Soak<'a> {
    fn start(options: &'a SoakOptions, place: &'a Workplace) -> Result<Soak<'a>, Error> {
        let stack = Stack::start(&StackOptions {
            groups: groups_for(options.limits)?,
            split: options.limits,
            logs: Some(place.logs.clone()),
            steps: place.steps,
            interrupt: place.interrupt.clone(),
            ..StackOptions::new(&place.workspace, place.server(options.server.as_ref())?)
        })?;
        // Connections that stayed for good would all end up at the instance that was not restarted last.
        let load = ClosedLoad {
            connection_life: Some(CONNECTION_LIFE),
            is_blind: true,
            ..ClosedLoad::new(stack.address().to_string(), options.clients as usize)
        };
        Ok(Soak { options, place, stack, judge: Judge::default(), load })
    }

    /// Served requests per second of each run, without a pause between an answer and the next request.
    fn measure_capacity(&mut self) -> Result<Vec<f64>, Error> {
        let duration = (self.options.interval() / 12).max(CAPACITY_RUN_MIN);
        let mut capacities = Vec::new();
        for run in 1..=CAPACITY_RUNS {
            let (told, seconds, ()) = self.loaded(|soak, load| load.wait(duration, &soak.place.interrupt))?;
            self.judge_quiet(&told)?;
            let capacity = float(told.count(Outcome::is_served) as u64) / seconds;
            self.place.steps.line(&format!("capacity, run {run}: {capacity:.0} requests per second"));
            capacities.push(capacity);
        }
        Ok(capacities)
    }

    /// Loads the stack, breaks something, and looks in the quiet at the end whether all is as it should be.
    fn minute(&mut self, number: u32, fault: Fault) -> Result<Minute, Error> {
        let every = self.options.interval();
        let began = Instant::now();
        let before = Moment::now(&Bank::of(&self.stack), None);
        let (told, seconds, span) = self.loaded(|soak, load| {
            let interrupt = &soak.place.interrupt;
            load.wait(every / 4, interrupt)?;
            let fault_began = Instant::now();
            let hold = HOLD_MAX.min(every / 6);
            let fault_ended = fault.inject(&mut soak.stack, hold)?;
            let end = began + every * 9 / 10;
            // However long the fault took, the load goes on for a while after it.
            let rest = end.saturating_duration_since(fault_ended).max(every / 10);
            load.wait(rest, interrupt)?;
            Ok((fault_began, fault_ended))
        })?;
        // Another bank than before: an instance that was started again has other addresses.
        let others_cpus = Moment::now(&Bank::of(&self.stack), None).others_cpus(&before);
        self.judge_quiet(&told)?;
        let mut minute = Minute::of(number, fault, &told, seconds, span);
        if minute.served_again_ms.is_none() {
            let line = minute.line(number);
            return Err(Error::Refused(format!("not every client was served again: {line}")));
        }
        minute.others_cpus = others_cpus;
        minute.parts = self.footprints()?;
        Ok(minute)
    }

    /// Loads the stack while `work` is done. Returns what was told, for how many seconds it was loaded, and the work's result.
    fn loaded<T>(
        &mut self,
        work: impl FnOnce(&mut Soak<'a>, &RunningLoad) -> Result<T, Error>,
    ) -> Result<(ClosedRun, f64, T), Error> {
        let began = Instant::now();
        let load = self.load.start();
        let done = work(self, &load);
        let run = load.finish()?;
        Ok((run, began.elapsed().as_secs_f64(), done?))
    }

    /// When nothing is under way any more: all parts are there, and the ledger agrees.
    fn judge_quiet(&mut self, told: &ClosedRun) -> Result<(), Error> {
        if let Some(ended) = self.stack.ended() {
            return Err(ended.failure("ended"));
        }
        settled(&Bank::of(&self.stack), &self.place.interrupt)?;
        let mut database = self.stack.postgres.connect(DATABASE)?;
        self.judge.judge_at_rest(&mut database, &told.records, &self.place.interrupt).map(drop)
    }

    /// What each part holds when nobody is connected: two looks in a row see the same descriptors.
    fn footprints(&self) -> Result<Vec<(String, Footprint)>, Error> {
        let mut last: Option<Vec<(String, Footprint)>> = None;
        let seen = wait::until(QUIET_PATIENCE, &self.place.interrupt, || {
            thread::sleep(BETWEEN_LOOKS);
            let of = |service: &Service| (service.name.clone(), Footprint::of(service));
            let now: Vec<(String, Footprint)> = self.stack.services().into_iter().map(of).collect();
            let counts = |seen: &[(String, Footprint)]| -> Vec<(u64, u64)> {
                seen.iter().map(|(_, part)| (part.processes, part.descriptors)).collect()
            };
            let is_same = last.as_ref().is_some_and(|last| counts(last) == counts(&now));
            // Of nginx: its master and one worker. A worker that was replaced stays as long as its connections.
            let is_settled = is_same && now.first().is_some_and(|(_, nginx)| nginx.processes == 2);
            last = Some(now);
            Ok(is_settled.then(|| last.clone()).flatten())
        })?;
        seen.ok_or_else(|| {
            Error::Refused(format!(
                "descriptors still came and went {QUIET_PATIENCE:?} after the load: {last:?}"
            ))
        })
    }

    /// What the logs say that they never should.
    fn alarms(&self) -> Vec<String> {
        let of = |service: &Service| {
            let words: &[&str] = match service.name.as_str() {
                "nginx" => &["exited on signal", "[alert]", "[emerg]"],
                "postgresql" => &["PANIC", "was terminated by signal"],
                _instance => &["panicked at"],
            };
            let log = service.log();
            let line = log.lines().find(|line| words.iter().any(|word| line.contains(word)));
            line.map(|line| format!("the log of {} has: {line}", service.name))
        };
        self.stack.services().into_iter().filter_map(of).collect()
    }
}

const SHARE_OF_CAPACITY: f64 = 0.7;
const CONNECTION_LIFE: Duration = Duration::from_secs(2);
/// What all processes of a part hold together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    /// Resident memory. What several processes share counts for each of them.
    pub resident_bytes: u64,
    /// Of it, what is neither a file's nor shared: heaps and stacks.
    pub anonymous_bytes: u64,
    pub descriptors: u64,
    pub processes: u64,
}

impl Footprint {
    /// Of a service and its children, without the workers of PostgreSQL that come and go by themselves. A process that
    /// ends meanwhile counts nothing.
    fn of(service: &Service) -> Footprint {
        let mut sum = Footprint::default();
        for pid in [service.pid()].into_iter().chain(service.child_pids()) {
            // It has ended.
            let _ = sum.add(pid);
        }
        sum
    }

    fn add(&mut self, pid: u32) -> ProcResult<()> {
        let process = Process::new(pid.cast_signed())?;
        if process.cmdline()?.iter().any(|argument| argument.contains("autovacuum worker")) {
            return Ok(());
        }
        let (descriptors, status) = (process.fd_count()?, process.status()?);
        self.descriptors += descriptors as u64;
        self.resident_bytes += status.vmrss.unwrap_or(0) * 1024;
        self.anonymous_bytes += status.rssanon.unwrap_or(0) * 1024;
        self.processes += 1;
        Ok(())
    }
}

const CAPACITY_RUNS: u32 = 3;
const CAPACITY_RUN_MIN: Duration = Duration::from_secs(1);
/// Longer than each deadline of a request.
const HOLD_MAX: Duration = Duration::from_secs(5);
const QUIET_PATIENCE: Duration = Duration::from_secs(20);
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
