//! Well-behaved clients beside one attack after another, and among themselves before each: what the attacks cost them, and
//! what becomes of the attackers.

use std::env;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::{Pid, Signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

use super::ground;
use super::{EndureOptions, Percentiles, Promise, descriptors};
use crate::cgroup::{Account, Group, Limits};
use crate::http::Connection;
use crate::load::traffic::{Asked, Outcome, Record};
use crate::load::{Attack, Endings, OpenLoop, Phase, allow_descriptors, set_descriptors};
use crate::process::Launch;
use crate::table::{Table, known, median};
use crate::wait::{self, Interrupt};
use crate::{Balancer, BalancerOptions, Error, Service, Solo, Workplace, compile, files};

#[derive(Debug, Clone)]
pub struct Hostile {
    pub attacks: Vec<AttackFigures>,
    /// The share of a CPU that the instance used while it had no descriptor left; `None`: not tried.
    pub cpu_without_descriptors: Option<f64>,
    pub memory_peak_bytes: Option<u64>,
    /// The server is not the project's own and was measured for comparison: it promises nothing.
    is_yardstick: bool,
}

#[derive(Debug, Clone)]
pub struct AttackFigures {
    pub name: &'static str,
    /// The deadline after which the attackers are cut off, where there is one.
    pub deadline: Option<Duration>,
    /// How long well-behaved clients ask beside it.
    span: Duration,
    pub windows: Vec<Window>,
}

#[derive(Debug, Clone)]
pub struct Window {
    pub quiet: Served,
    pub during: Served,
    /// What became of the attackers; `left` counts those who were not cut off, or requests that were not answered.
    pub endings: Endings,
    /// The server's descriptors before the attack and after it.
    pub descriptors: (usize, usize),
}

#[derive(Debug, Clone, Copy)]
pub struct Served {
    pub waited: Percentiles,
    /// How many of them got anything but what they had asked for.
    pub failed: u64,
    pub cpu: f64,
}

/// Settings under which an attack is over in seconds. They come first, so that others win.
pub const SETTINGS: [(&str, &str); 4] = [
    ("HEAD_TIMEOUT_MS", "2000"),
    ("BODY_TIMEOUT_MS", "2000"),
    ("IDLE_TIMEOUT_MS", "2000"),
    ("SEND_TIMEOUT_MS", "2000"),
];

pub fn measure(options: &EndureOptions, place: &Workplace) -> Result<Hostile, Error> {
    allow_descriptors(DESCRIPTORS_NEEDED)?;
    let target = Target::start(options, place)?;
    let groups = ground::require_groups()?.with_cpu_period_ms(ATTACKERS_CPU_PERIOD_MS);
    let attackers = Arc::new(groups.group("attackers", ATTACKERS)?);
    let mut siege = Siege { place, target: &target, attackers, records: Vec::new(), asked: 0 };
    pin(Pid::from_raw(target.worker.cast_signed()), <[usize]>::first)?;
    let seconds = Duration::from_secs(options.seconds.into());
    siege.honest(seconds)?;
    let with_deadline = attacks(CROWD, DEADLINE).into_iter();
    let mut attacks: Vec<AttackFigures> = with_deadline
        .map(|attack| (attack.name, Some(attack.deadline), attack.duration()))
        .chain([(PIPELINE, None, PIPELINE_SPAN), (RESETS, None, RESETS_SPAN)])
        .map(|(name, deadline, span)| AttackFigures { name, deadline, span, windows: Vec::new() })
        .collect();
    for round in 0..options.windows {
        for attack in &mut attacks {
            let window = siege.window(attack, round, seconds)?;
            attack.windows.push(window);
        }
    }
    let server = options.server.as_deref();
    let is_yardstick = target.solo.is_none() || server.is_some_and(|it| compile::peer(it).is_some());
    let (mut cpu_without_descriptors, mut memory_peak_bytes) = (None, None);
    if let Some(solo) = &target.solo {
        if !is_yardstick {
            let measured = place.steps.run("no descriptor left, for 2 s", "endured", || {
                without_descriptors(solo, &target, &place.interrupt)
            });
            cpu_without_descriptors = Some(measured?);
        }
        ground::judge(solo, &siege.records, place)?;
        memory_peak_bytes = target.account.memory_peak_bytes().ok();
    }
    Ok(Hostile { attacks, cpu_without_descriptors, memory_peak_bytes, is_yardstick })
}

struct Target {
    address: SocketAddr,
    /// The process that serves: with nginx, the worker.
    worker: u32,
    account: Account,
    /// A bank, with a ledger; nginx alone answers everything alike.
    solo: Option<Solo>,
    _nginx: Option<Balancer>,
}

impl Target {
    fn start(options: &EndureOptions, place: &Workplace) -> Result<Target, Error> {
        if options.server.as_deref() != Some(Path::new(NGINX)) {
            let solo = ground::start(options, &SETTINGS, place)?;
            let (address, worker) = (solo.address()?, solo.instance.pid());
            let account = ground::account(&solo.instance)?.clone();
            return Ok(Target { address, worker, account, solo: Some(solo), _nginx: None });
        }
        let template = without_upstream(&files::read(&place.workspace.join("nginx/nginx-http.conf"))?)?;
        let template = files::write(place.logs.join("nginx-alone.conf"), template)?;
        let log = Some(place.log("nginx"));
        // The configuration still names them, but nothing connects to them.
        let upstreams = ["webapi1.sock", "webapi2.sock"].map(|name| place.logs.join(name));
        let group = Some(Arc::new(ground::instance_group(options)?));
        let interrupt = place.interrupt.clone();
        let options =
            BalancerOptions { group, log, interrupt, ..BalancerOptions::nginx(template, upstreams) };
        let nginx = place.steps.run("nginx", "ready", || Balancer::start(&options))?;
        let worker = nginx.child_pids().first().copied().unwrap_or(nginx.pid());
        let (address, account) = (nginx.address(), ground::account(&nginx)?.clone());
        Ok(Target { address, worker, account, solo: None, _nginx: Some(nginx) })
    }

    /// The share of a CPU that it uses during `work`, and what that gives.
    fn cpu_during<T>(&self, work: impl FnOnce() -> Result<T, Error>) -> Result<(T, f64), Error> {
        let usage = || self.account.cpu_usage().map_err(Error::io("read what the server used"));
        let (begun, used) = (Instant::now(), usage()?);
        let done = work()?;
        let cpu = usage()?.saturating_sub(used).as_secs_f64() / begun.elapsed().as_secs_f64();
        Ok((done, cpu))
    }
}

/// This nginx configuration with a fixed answer in place of the upstream, and the deadlines of [`SETTINGS`].
fn without_upstream(configuration: &str) -> Result<String, Error> {
    let mut text = configuration.to_owned();
    for (original, replacement) in [
        ("proxy_pass http://webapi;", r#"return 200 '{"limite":100000,"saldo":0}';"#),
        ("keepalive_timeout 60s;\n    keepalive_requests", "keepalive_timeout 2s;\n    keepalive_requests"),
        ("client_header_timeout 10s", "client_header_timeout 2s"),
        ("client_body_timeout 10s", "client_body_timeout 2s"),
        ("send_timeout 10s", "send_timeout 2s"),
    ] {
        if !text.contains(original) {
            return Err(Error::Refused(format!("nginx/nginx-http.conf has no `{original}` to replace")));
        }
        text = text.replacen(original, replacement, 1);
    }
    Ok(text)
}

struct Siege<'a> {
    place: &'a Workplace,
    target: &'a Target,
    attackers: Arc<Group>,
    records: Vec<Record>,
    asked: u64,
}

impl Siege<'_> {
    fn honest(&mut self, duration: Duration) -> Result<(Vec<Record>, f64), Error> {
        let phases = vec![Phase { name: "honest", rate_per_s: Some(HONEST_RATE_PER_S), duration }];
        let (connections, first_number) = (HONEST_CONNECTIONS, self.asked);
        let load = OpenLoop { address: self.target.address, connections, first_number, phases };
        let (run, cpu) = self.target.cpu_during(|| load.run(&self.place.interrupt))?;
        self.asked += run.records.len() as u64;
        self.records.extend(run.records.iter().cloned());
        Ok((run.records, cpu))
    }

    fn served(&self, records: &[Record], cpu: f64) -> Result<Served, Error> {
        let waited = Percentiles::of(records.iter().map(Record::latency_us))
            .ok_or_else(|| Error::Refused("no well-behaved client asked anything".to_owned()))?;
        let is_served = |record: &&Record| match record.outcome {
            Outcome::Other { status: 200 } => self.target.solo.is_none(),
            _ => record.outcome.is_served(),
        };
        let failed = records.len() - records.iter().filter(is_served).count();
        Ok(Served { waited, failed: failed as u64, cpu })
    }

    /// Well-behaved clients alone for `seconds`; then an attack, and well-behaved clients beside it.
    fn window(&mut self, attack: &AttackFigures, round: u32, seconds: Duration) -> Result<Window, Error> {
        let AttackFigures { name, span, .. } = *attack;
        let (records, cpu) = self.honest(seconds)?;
        let quiet = self.served(&records, cpu)?;
        let before = descriptors(self.target.worker)?;
        let interrupt = self.place.interrupt.clone();
        let (during, endings) = self.place.steps.run(name, "endured", || {
            let mut attack = self.start(name, round)?;
            let begun = Instant::now();
            let (mut records, cpu) = self.honest(span)?;
            attack.run_to_end(ATTACK_PATIENCE, &interrupt)?;
            let Attacked { endings, took } = serde_json::from_str(&attack.log())
                .map_err(|error| attack.failure(&format!("printed no result: {error}")))?;
            // Once it is over, they are alone again.
            records.retain(|record| record.sent_at < begun + took);
            if name == RESETS {
                // Of unknown outcome: the bank may have received all of a request before its reset.
                let (client, account, sent_at, ended_at) = (0, 1, begun, begun + took);
                self.records.extend(resets(round).map(|asked| {
                    let outcome = Outcome::Broken;
                    Record { client, account, asked, sent_at, ended_at, outcome }
                }));
            }
            Ok((self.served(&records, cpu)?, endings))
        })?;
        let mut after = 0;
        // An ended connection of an attacker may linger for a while; those of the well-behaved are closed by now.
        wait::until(LINGER_PATIENCE, &interrupt, || {
            after = descriptors(self.target.worker)?;
            Ok((after <= before).then_some(()))
        })?;
        Ok(Window { quiet, during, endings, descriptors: (before, after) })
    }

    /// Starts the attackers as a process, so that they can be in a control group of their own.
    fn start(&self, name: &str, round: u32) -> Result<Service, Error> {
        let program = env::current_exe().map_err(Error::io("find this program"))?;
        let log = self.place.log(&format!("attack-{round}-{}", name.replace([' ', ','], "-")));
        let address = self.target.address.to_string();
        let arguments = ["attack".to_owned(), name.to_owned(), address, round.to_string()];
        Service::start(Launch {
            arguments: arguments.map(OsString::from).to_vec(),
            group: Some(Arc::clone(&self.attackers)),
            stop_signal: Signal::KILL,
            orphan_signal: "KILL",
            ..Launch::new("attack", &program, &self.place.logs, log)
        })
    }
}

/// One attack of `cargo stress endure hostile`, which starts it as a process of its own
#[derive(Debug, Clone, Args)]
pub struct AttackOptions {
    name: String,
    address: SocketAddr,
    round: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Attacked {
    endings: Endings,
    took: Duration,
}

pub fn attack(options: &AttackOptions) -> Result<String, Error> {
    let AttackOptions { name, address, round } = options;
    let (address, interrupt) = (*address, &Interrupt::default());
    allow_descriptors(DESCRIPTORS_NEEDED)?;
    pin(None, <[usize]>::last)?;
    let begun = Instant::now();
    let endings = match name.as_str() {
        PIPELINE => pipeline(address, interrupt),
        RESETS => reset_everywhere(address, *round, interrupt),
        _ => match attacks(CROWD, DEADLINE).into_iter().find(|attack| attack.name == name) {
            Some(attack) => attack.run(address, interrupt),
            None => Err(Error::Refused(format!("there is no attack {name}"))),
        },
    }?;
    let attacked = Attacked { endings, took: begun.elapsed() };
    serde_json::to_string(&attacked).map_err(|error| Error::Refused(error.to_string()))
}

/// Pins the main thread of a process (`None`: of this one) to one of the CPUs that this process may use. The server gets the
/// first and the attackers the last, so that they share none if there are two.
fn pin(pid: Option<Pid>, choose: fn(&[usize]) -> Option<&usize>) -> Result<(), Error> {
    let allowed = sched_getaffinity(None).map_err(|errno| Error::io("read our CPUs")(errno.into()))?;
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    let mut chosen = CpuSet::new();
    if let Some(cpu) = choose(&cpus) {
        chosen.set(*cpu);
    }
    sched_setaffinity(pid, &chosen).map_err(|errno| Error::io("choose a CPU")(errno.into()))
}

/// The attacks that go on until they are cut off: a large crowd that does next to nothing, and a few who do a lot. The
/// deadline is that of a head, of a body, of an idle connection and of a peer that reads nothing.
pub fn attacks(crowd: usize, deadline: Duration) -> Vec<Attack> {
    let few = crowd.div_ceil(20);
    let post = |field: &str| {
        format!("POST /clientes/1/transacoes HTTP/1.1\r\nHost: bank\r\n{field}\r\n\r\n").into_bytes()
    };
    let silent = Attack {
        name: "a crowd that is silent",
        connections: crowd,
        reads: true,
        stagger: Duration::from_secs(1) / count(crowd),
        deadline,
        ..Attack::default()
    };
    let busy = Attack { connections: few, stagger: Duration::from_secs(1) / count(few), ..silent.clone() };
    let huge = Attack { flood: vec![b'x'; 64 * 1024], deadline: LINGER, ..busy.clone() };
    vec![
        Attack {
            name: "a crowd at a byte a second",
            opening: b"G".to_vec(),
            drip: b"ET /clientes/1/extrato".to_vec(),
            ..silent.clone()
        },
        Attack {
            name: "a crowd with slow bodies",
            opening: post("Content-Length: 60"),
            drip: b" ".to_vec(),
            ..silent.clone()
        },
        Attack {
            name: "a few who never read",
            flood: b"GET /healthz HTTP/1.1\r\nHost: bank\r\n\r\n".repeat(64),
            reads: false,
            ..busy
        },
        Attack {
            name: "a few with huge bodies",
            opening: post("Content-Length: 1000000000000"),
            ..huge.clone()
        },
        Attack {
            name: "a few with huge chunks",
            opening: [post("Transfer-Encoding: chunked"), b"ffffffff\r\n".to_vec()].concat(),
            ..huge
        },
        silent,
    ]
}

/// At most so many that a duration can be divided by them.
fn count(connections: usize) -> u32 {
    u32::try_from(connections).unwrap_or(u32::MAX).max(1)
}

/// A hundred thousand requests on one connection, sent as fast as the bank takes them.
pub fn pipeline(address: SocketAddr, interrupt: &Interrupt) -> Result<Endings, Error> {
    const REQUESTS: usize = 100_000;
    let broken = || Error::io("pipeline requests");
    let mut connection =
        Connection::connect(&address.to_string(), Duration::from_secs(10)).map_err(broken())?;
    let mut sender = connection.clone_sender().map_err(broken())?;
    let answered = thread::scope(|scope| {
        scope.spawn(move || {
            let requests = b"GET /healthz HTTP/1.1\r\nHost: bank\r\n\r\n".repeat(1000);
            // If the bank ends it, the reader tells.
            (0..REQUESTS / 1000).all(|_| sender.send(&requests).is_ok())
        });
        let mut is_answered =
            |_: &usize| !interrupt.is_raised() && connection.receive().is_ok_and(|it| it.status == 200);
        let answered = (0..REQUESTS).take_while(&mut is_answered).count();
        // Whoever still writes is told to stop.
        let _ = connection.socket.shutdown(std::net::Shutdown::Both);
        answered
    });
    Ok(Endings { left: REQUESTS - answered, ..Endings::default() })
}

/// A thousand requests that are cut by a reset, after each of their bytes several times.
pub fn reset_everywhere(address: SocketAddr, round: u32, interrupt: &Interrupt) -> Result<Endings, Error> {
    for (number, asked) in resets(round).enumerate() {
        if interrupt.is_raised() {
            return Err(Error::Interrupted);
        }
        let mut stream = TcpStream::connect(address).map_err(Error::io(format!("connect to {address}")))?;
        let request = asked.request(1);
        let sent = &request[..number % (request.len() + 1)];
        // A connection that is gone before its reset is as good.
        let _ = stream.write_all(sent);
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        drop(stream);
        thread::sleep(Duration::from_millis(2));
    }
    Ok(Endings::default())
}

/// The requests of [`reset_everywhere`]. Descriptions differ between rounds, so that the ledger tells them apart.
fn resets(round: u32) -> impl Iterator<Item = Asked> {
    (0..1000).map(move |number| {
        let description = format!("reset{}", round * 1000 + number);
        Asked::Transaction { description, change_cents: 1 }
    })
}

/// Takes the instance's descriptors away, connects in vain, and tells which share of a CPU it used meanwhile.
fn without_descriptors(solo: &Solo, target: &Target, interrupt: &Interrupt) -> Result<f64, Error> {
    // Shorter than an idle connection is kept.
    const SPAN: Duration = Duration::from_secs(2);
    let (pid, address) = (Pid::from_raw(target.worker.cast_signed()), target.address);
    let in_use = descriptors(target.worker)? as u64;
    let before = set_descriptors(pid, in_use + 2)?;
    let broken = || Error::io("connect to an instance without descriptors");
    let crowd: Vec<TcpStream> =
        (0..50).map(|_| TcpStream::connect(address)).collect::<Result<_, _>>().map_err(broken())?;
    let told = wait::until(Duration::from_secs(5), interrupt, || {
        Ok(solo.instance.log().contains("raise the limit of open files").then_some(()))
    })?;
    let ((), share) = target.cpu_during(|| wait::pause(SPAN, interrupt))?;
    set_descriptors(pid, before)?;
    for mut stream in crowd {
        stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(broken())?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: bank\r\n\r\n").map_err(broken())?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).map_err(broken())?;
    }
    told.map(|()| share).ok_or_else(|| solo.instance.failure("does not tell that it is out of descriptors"))
}

impl AttackFigures {
    fn median(&self, figure: impl Fn(&Window) -> f64) -> f64 {
        median(self.windows.iter().map(figure)).unwrap_or(f64::NAN)
    }

    fn ratio(&self) -> f64 {
        self.median(|window| window.during.waited.p99_ms) / self.median(|window| window.quiet.waited.p99_ms)
    }

    fn failed(&self) -> u64 {
        self.windows.iter().map(|window| window.during.failed).sum()
    }

    fn left(&self) -> usize {
        self.windows.iter().map(|window| window.endings.left).sum()
    }

    fn cut_off(&self) -> Option<Percentiles> {
        Percentiles::of(self.windows.iter().flat_map(|window| window.endings.times_us.iter().copied()))
    }

    /// Of the window after which most were left.
    fn descriptors(&self) -> (usize, usize) {
        let windows = self.windows.iter().map(|window| window.descriptors);
        windows.max_by_key(|(before, after)| after.saturating_sub(*before)).unwrap_or_default()
    }
}

impl Hostile {
    pub fn table(&self) -> String {
        let mut table = Table::new(
            "|quiet p99 ms|others p50 ms|p99|max|of quiet p99|server CPU %|failed|deadline ms|cut off p50 ms|p99|max|left|descriptors",
        );
        for attack in &self.attacks {
            let quiet_p99_ms = attack.median(|window| window.quiet.waited.p99_ms);
            let p50_ms = attack.median(|window| window.during.waited.p50_ms);
            let p99_ms = attack.median(|window| window.during.waited.p99_ms);
            let max_ms = attack.median(|window| window.during.waited.max_ms);
            let quiet_cpu = attack.median(|window| window.quiet.cpu * 100.0);
            let cpu = attack.median(|window| window.during.cpu * 100.0);
            let deadline_ms = known(attack.deadline.map(|deadline| deadline.as_millis().to_string()));
            let (before, after) = attack.descriptors();
            let (name, ratio, failed, left) = (attack.name, attack.ratio(), attack.failed(), attack.left());
            let cut_off = Percentiles::cells(attack.cut_off());
            table.row(&format!(
                "{name}|{quiet_p99_ms:.2}|{p50_ms:.2}|{p99_ms:.2}|{max_ms:.1}|{ratio:.2}|{quiet_cpu:.1} -> {cpu:.1}|{failed}|\
                 {deadline_ms}|{cut_off}|{left}|{before} -> {after}"
            ));
        }
        table.to_string()
    }

    /// None for a yardstick.
    pub fn promises(&self) -> Vec<Promise> {
        let mut promises = Vec::new();
        if self.is_yardstick {
            return promises;
        }
        for attack in &self.attacks {
            let (name, left) = (attack.name, attack.left());
            let (ratio, failed, (before, after)) = (attack.ratio(), attack.failed(), attack.descriptors());
            let (end, measured, has_end) = match attack.deadline {
                Some(deadline) => {
                    let limit_ms = deadline.as_secs_f64() * 1e3 + 500.0;
                    let max_ms = attack.cut_off().map_or(0.0, |cut_off| cut_off.max_ms);
                    let measured = format!("{max_ms:.0} ms, {left} left");
                    ("all cut off within the deadline and 0.5 s", measured, max_ms <= limit_ms)
                }
                None => ("all have their end", format!("{left} have not"), true),
            };
            for (what, measured, is_kept) in [
                ("others' p99 within 1.3 times its quiet value", format!("{ratio:.2}"), ratio <= 1.3),
                ("others are all served", format!("{failed} are not"), failed == 0),
                (end, measured, has_end && left == 0),
                ("descriptors return", format!("{before} -> {after}"), after <= before),
            ] {
                promises.push(Promise::new(format!("{name}: {what}"), measured, is_kept));
            }
        }
        if let Some(share) = self.cpu_without_descriptors {
            let measured = format!("{:.1} %", share * 100.0);
            promises.push(Promise::new("no descriptor left: under 5 % of a CPU", measured, share < 0.05));
        }
        let (measured, is_kept) = ground::memory(self.memory_peak_bytes);
        promises.push(Promise::new(ground::MEMORY, measured, is_kept));
        promises
    }
}

const NGINX: &str = "nginx";
const PIPELINE: &str = "100,000 pipelined requests";
const RESETS: &str = "1,000 resets, at every point";
const CROWD: usize = 1000;
/// That of [`SETTINGS`].
const DEADLINE: Duration = Duration::from_secs(2);
/// `LINGER_TIMEOUT_MS` by default.
const LINGER: Duration = Duration::from_secs(1);
/// How long well-behaved clients ask beside an attack without a deadline: about as long as it takes.
const PIPELINE_SPAN: Duration = Duration::from_secs(2);
const RESETS_SPAN: Duration = Duration::from_secs(3);
/// How much longer than its span an attack may take.
const ATTACK_PATIENCE: Duration = Duration::from_secs(30);
/// What all attackers together may use. Real ones have processors of their own; here they would take those of the bank and of
/// its clients, and that would be measured in place of the bank.
const ATTACKERS: Limits = Limits { cpu_thousandths: 300, memory_bytes: 200 << 20 };
/// A long period would have them attack for 30 ms and stand still for 70.
const ATTACKERS_CPU_PERIOD_MS: u32 = 10;
const HONEST_CONNECTIONS: usize = 16;
const HONEST_RATE_PER_S: f64 = 1000.0;
const DESCRIPTORS_NEEDED: u64 = 4096;
const LINGER_PATIENCE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nginx_without_upstream_answers_by_itself_with_the_deadlines_of_the_trial() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nginx/nginx-http.conf");
        let text = without_upstream(&files::read(&path).unwrap()).unwrap();
        assert!(!text.contains("proxy_pass http"));
        for expected in
            ["return 200 ", "client_header_timeout 2s", "client_body_timeout 2s", "send_timeout 2s"]
        {
            assert!(text.contains(expected), "no {expected}");
        }
        assert!(without_upstream("http {}").is_err());
    }
}
