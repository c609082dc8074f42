//! Well-behaved clients beside one attack after another, and among themselves before each: what the attacks cost them, and
//! what becomes of the attackers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit};

use super::ground;
use super::{EndureOptions, Percentiles, Promise, descriptors};
use crate::http::Connection;
use crate::load::traffic::{Asked, Outcome, Record};
use crate::load::{Attack, Endings, OpenLoop, Phase, allow_descriptors};
use crate::table::{Table, known};
use crate::wait::{self, Interrupt};
use crate::{Error, Instance, Solo, Workplace};

#[derive(Debug, Clone)]
pub struct Hostile {
    pub attacks: Vec<AttackFigures>,
    /// The share of a CPU that the instance used while it had no descriptor left.
    pub cpu_without_descriptors: f64,
    /// Of the instance.
    pub memory_peak_bytes: Option<u64>,
}

#[derive(Debug, Clone)]
pub struct AttackFigures {
    pub name: &'static str,
    /// What well-behaved clients waited just before it.
    pub quiet: Percentiles,
    /// What they waited beside it.
    pub honest: Percentiles,
    /// How many of them got anything but what they had asked for.
    pub failed: u64,
    /// The deadline after which the attackers are cut off, where there is one.
    pub deadline: Option<Duration>,
    /// When they were.
    pub cut_off: Option<Percentiles>,
    /// Attackers who were not, or requests that were not answered.
    pub left: usize,
    /// The instance's descriptors before the attack and after it.
    pub descriptors: (usize, usize),
}

/// Settings under which an attack is over in seconds. They come first, so that others win.
pub const SETTINGS: [(&str, &str); 4] = [
    ("HEAD_TIMEOUT_MS", "3000"),
    ("BODY_TIMEOUT_MS", "3000"),
    ("IDLE_TIMEOUT_MS", "3000"),
    ("SEND_TIMEOUT_MS", "3000"),
];

/// Starts one instance with its database, attacks it, and holds its ledger against what its clients were told.
pub fn measure(options: &EndureOptions, place: &Workplace) -> Result<Hostile, Error> {
    allow_descriptors(DESCRIPTORS_NEEDED)?;
    let solo = ground::start(options, &SETTINGS, place)?;
    let mut siege = Siege {
        options,
        place,
        address: solo.address()?,
        instance: &solo.instance,
        records: Vec::new(),
        asked: 0,
        attacks: Vec::new(),
    };
    siege.honest(Duration::from_secs(options.seconds.into()))?;
    for attack in attacks(1000, DEADLINE) {
        let name = attack.name;
        let deadline = attack.deadline;
        let duration = attack.duration();
        siege.beside(name, Some(deadline), duration, |address, interrupt| attack.run(address, interrupt))?;
    }
    let seconds = Duration::from_secs(options.seconds.into());
    siege.beside("100,000 pipelined requests", None, seconds, pipeline)?;
    siege.beside("1,000 resets, at every point", None, seconds, reset_everywhere)?;
    let cpu_without_descriptors = place.steps.run("no descriptor left, for 2 s", "endured", || {
        without_descriptors(&solo, siege.address, &place.interrupt)
    })?;
    ground::judge(&solo, &siege.records, place)?;
    Ok(Hostile {
        attacks: siege.attacks,
        cpu_without_descriptors,
        memory_peak_bytes: ground::account(&solo)?.memory_peak_bytes().ok(),
    })
}

struct Siege<'a> {
    options: &'a EndureOptions,
    place: &'a Workplace,
    address: SocketAddr,
    instance: &'a Instance,
    /// What everybody was told.
    records: Vec<Record>,
    /// Requests of the well-behaved so far.
    asked: u64,
    attacks: Vec<AttackFigures>,
}

impl Siege<'_> {
    /// Well-behaved clients, for so long: what they waited, and how many got anything but what they had asked for.
    fn honest(&mut self, duration: Duration) -> Result<(Percentiles, u64), Error> {
        let phases = vec![Phase { name: "honest", rate_per_s: Some(HONEST_RATE_PER_S), duration }];
        let (connections, first_number) = (HONEST_CONNECTIONS, self.asked);
        let load = OpenLoop { address: self.address, connections, first_number, phases };
        let run = load.run(&self.place.interrupt)?;
        let waited = Percentiles::of(run.records.iter().map(Record::latency_us))
            .ok_or_else(|| Error::Refused("no well-behaved client asked anything".to_owned()))?;
        let failed = run.records.iter().filter(|record| !record.outcome.is_served()).count() as u64;
        self.asked += run.records.len() as u64;
        self.records.extend(run.records);
        Ok((waited, failed))
    }

    /// Runs an attack, and well-behaved clients beside it for as long as it takes.
    fn beside(
        &mut self,
        name: &'static str,
        deadline: Option<Duration>,
        duration: Duration,
        attack: impl FnOnce(SocketAddr, &Interrupt) -> Result<Endings, Error> + Send,
    ) -> Result<(), Error> {
        let (quiet, _) = self.honest(Duration::from_secs(self.options.seconds.into()))?;
        let (interrupt, address, instance) = (&self.place.interrupt, self.address, self.instance);
        let before = descriptors(instance)?;
        let ((honest, failed), endings) = self.place.steps.run(name, "endured", || {
            thread::scope(|scope| {
                let attack = scope.spawn(move || {
                    yield_to_others();
                    attack(address, interrupt)
                });
                let honest = self.honest(duration)?;
                let endings = attack.join();
                Ok((honest, endings.map_err(|_| Error::Refused("the attack itself failed".to_owned()))??))
            })
        })?;
        let mut after = 0;
        // An ended connection of an attacker may linger for a while; those of the well-behaved are closed by now.
        wait::until(LINGER_PATIENCE, interrupt, || {
            after = descriptors(instance)?;
            Ok((after <= before).then_some(()))
        })?;
        let Endings { times_us, left, records } = endings;
        let (cut_off, descriptors) = (Percentiles::of(times_us), (before, after));
        self.attacks.push(AttackFigures {
            name,
            quiet,
            honest,
            failed,
            deadline,
            cut_off,
            left,
            descriptors,
        });
        self.records.extend(records);
        Ok(())
    }
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
        opening: Vec::new(),
        drip: Vec::new(),
        flood: Vec::new(),
        reads: true,
        stagger: Duration::from_secs(1) / count(crowd),
        deadline,
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

/// Gives this thread, and those that it starts, the lowest priority. Attackers have processors of their own in the world;
/// here they would take those of the bank and of its clients, and that would be measured in place of the bank.
fn yield_to_others() {
    // In Linux a priority is that of a thread. Where it is refused, the figures are only worse.
    let _ = rustix::process::setpriority_process(None, 19);
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
        let _ = connection.socket().shutdown(std::net::Shutdown::Both);
        answered
    });
    Ok(Endings { left: REQUESTS - answered, ..Endings::default() })
}

/// A thousand requests that are cut by a reset, after each of their bytes several times.
pub fn reset_everywhere(address: SocketAddr, interrupt: &Interrupt) -> Result<Endings, Error> {
    let mut endings = Endings::default();
    for round in 0..1000 {
        if interrupt.is_raised() {
            return Err(Error::Interrupted);
        }
        let mut stream = TcpStream::connect(address).map_err(Error::io(format!("connect to {address}")))?;
        let asked = Asked::Transaction { description: format!("reset{round:03}"), change_cents: 1 };
        let request = asked.request(1);
        let sent = &request[..round % (request.len() + 1)];
        // A connection that is gone before its reset is as good.
        let _ = stream.write_all(sent);
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        drop(stream);
        // The bank may have had all of it.
        let (sent_at, outcome) = (Instant::now(), Outcome::Broken);
        endings.records.push(Record { client: 0, account: 1, asked, sent_at, ended_at: sent_at, outcome });
        thread::sleep(Duration::from_millis(2));
    }
    Ok(endings)
}

/// Takes the instance's descriptors away, connects in vain, and tells which share of a CPU it used meanwhile.
fn without_descriptors(solo: &Solo, address: SocketAddr, interrupt: &Interrupt) -> Result<f64, Error> {
    // Shorter than an idle connection is kept.
    const SPAN: Duration = Duration::from_secs(2);
    let pid = Pid::from_raw(i32::try_from(solo.instance.pid()).unwrap_or(0));
    let in_use = descriptors(&solo.instance)? as u64;
    let before = set_descriptors(pid, in_use + 2)?;
    let broken = || Error::io("connect to an instance without descriptors");
    let crowd: Vec<TcpStream> =
        (0..50).map(|_| TcpStream::connect(address)).collect::<Result<_, _>>().map_err(broken())?;
    let told = wait::until(Duration::from_secs(5), interrupt, || {
        Ok(solo.instance.log().contains("raise the limit of open files").then_some(()))
    })?;
    let account = ground::account(solo)?;
    let usage = || account.cpu_usage().map_err(Error::io("read what the instance used"));
    let (begun, used) = (Instant::now(), usage()?);
    wait::until(SPAN, interrupt, || Ok(None::<()>))?;
    let share = usage()?.saturating_sub(used).as_secs_f64() / begun.elapsed().as_secs_f64();
    set_descriptors(pid, before)?;
    for mut stream in crowd {
        stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(broken())?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: bank\r\n\r\n").map_err(broken())?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).map_err(broken())?;
    }
    told.map(|()| share).ok_or_else(|| solo.instance.failure("does not tell that it is out of descriptors"))
}

/// Sets the limit of open files of a process. Returns what it was.
fn set_descriptors(pid: Option<Pid>, limit: u64) -> Result<u64, Error> {
    let wanted =
        Rlimit { current: Some(limit), maximum: rustix::process::getrlimit(Resource::Nofile).maximum };
    let before = rustix::process::prlimit(pid, Resource::Nofile, wanted)
        .map_err(|error| Error::io(format!("set the limit of open files to {limit}"))(error.into()))?;
    Ok(before.current.unwrap_or(u64::MAX))
}

impl AttackFigures {
    fn ratio(&self) -> f64 {
        self.honest.p99_ms / self.quiet.p99_ms
    }
}

impl Hostile {
    pub fn table(&self) -> String {
        let mut table = Table::new(
            "|quiet p99 ms|others p50 ms|p99|max|of quiet p99|failed|deadline ms|cut off p50 ms|p99|max|left|descriptors",
        );
        for attack in &self.attacks {
            let AttackFigures { name, quiet, failed, left, descriptors: (before, after), .. } = attack;
            let [honest, cut_off] = [Some(attack.honest), attack.cut_off].map(Percentiles::cells);
            let deadline_ms = known(attack.deadline.map(|deadline| deadline.as_millis().to_string()));
            table.row(&format!(
                "{name}|{:.1}|{honest}|{:.2}|{failed}|{deadline_ms}|{cut_off}|{left}|{before} -> {after}",
                quiet.p99_ms,
                attack.ratio()
            ));
        }
        table.to_string()
    }

    pub fn promises(&self) -> Vec<Promise> {
        let mut promises = Vec::new();
        for attack in &self.attacks {
            let AttackFigures { name, failed, left, descriptors: (before, after), .. } = attack;
            let ratio = attack.ratio();
            let (end, measured, has_end) = match attack.deadline {
                Some(deadline) => {
                    let limit_ms = deadline.as_secs_f64() * 1e3 + 500.0;
                    let max_ms = attack.cut_off.map_or(0.0, |cut_off| cut_off.max_ms);
                    let measured = format!("{max_ms:.0} ms, {left} left");
                    ("all cut off within the deadline and 0.5 s", measured, max_ms <= limit_ms)
                }
                None => ("all have their end", format!("{left} have not"), true),
            };
            for (what, measured, is_kept) in [
                ("others' p99 within 1.5 times its quiet value", format!("{ratio:.2}"), ratio <= 1.5),
                ("others are all served", format!("{failed} are not"), *failed == 0),
                (end, measured, has_end && *left == 0),
                ("descriptors return", format!("{before} -> {after}"), after <= before),
            ] {
                promises.push(Promise::new(format!("{name}: {what}"), measured, is_kept));
            }
        }
        let share = self.cpu_without_descriptors;
        let (measured, is_kept) = ground::memory(self.memory_peak_bytes);
        promises.extend([
            Promise::new(
                "no descriptor left: under 5 % of a CPU",
                format!("{:.1} %", share * 100.0),
                share < 0.05,
            ),
            Promise::new(ground::MEMORY, measured, is_kept),
        ]);
        promises
    }
}

/// That of [`SETTINGS`].
const DEADLINE: Duration = Duration::from_secs(3);
/// `LINGER_TIMEOUT_MS` by default.
const LINGER: Duration = Duration::from_secs(1);
const HONEST_CONNECTIONS: usize = 16;
const HONEST_RATE_PER_S: f64 = 1000.0;
const DESCRIPTORS_NEEDED: u64 = 4096;
const LINGER_PATIENCE: Duration = Duration::from_secs(3);
