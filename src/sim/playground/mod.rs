//! CORE, simulation only: a world of the simulation that is driven from outside, one step at a time, and reports its state: what
//! the page `docs/playground` shows. The instance, its network, the clients, PostgreSQL and the checks are those that the seeds use.
//!
//! A [`Playground`] is a bank without faults but those that [`Playground::act`] brings, or the world of one seed as
//! [`crate::sim::run`] runs it. In the bank a step is the smallest thing that shows: one stage of a turn, the bytes of the
//! clients, one statement of PostgreSQL, or the time until the next of them. The same settings and the same commands at
//! the same steps are the same world, byte for byte.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::event_loop::Stage;
use crate::sim::network::Backlog;
use crate::sim::peer::Peer;
use crate::sim::postgres::Work;
use crate::sim::request::Request;
use crate::sim::scene::Scene;
use crate::sim::{Instance, World, settings};

mod picture;
mod wire;

use wire::Wire;

/// A world that is driven from outside.
pub struct Playground {
    world: World,
    drive: Drive,
    /// Steps taken.
    steps: u64,
    /// What was commanded, each with the number of steps before it.
    script: Vec<(u64, String)>,
    /// What is known of each socket's bytes, by its number.
    wires: BTreeMap<u64, Wire>,
    told: VecDeque<String>,
    tally: Tally,
}

/// Who decides what happens next.
enum Drive {
    Hand(Hand),
    Seed { steps_left: u64, is_over: bool },
}

/// A world whose steps are taken in a fixed order, so that each can be seen.
struct Hand {
    /// How many of the clients take part.
    clients: usize,
    /// What the clients ask by themselves, in requests per second.
    load: u64,
    next_arrival_us: u64,
    next_client: usize,
    /// How long PostgreSQL takes to commit. A statement takes a part of it.
    commit_us: u64,
    /// The sessions that have begun on their next message.
    at_work: BTreeSet<usize>,
    is_stalled: bool,
    /// PostgreSQL takes connections again at this time, in monotonic microseconds.
    returns_at_us: u64,
    /// The lanes of which nothing passes on their links, in either direction.
    held: BTreeSet<usize>,
    /// The stage of the turn that comes next; `None` while the instance waits.
    stage: Option<Stage>,
    /// The name of the stage that ran last.
    shown: &'static str,
    turns: u64,
    /// The server was told to stop, and has.
    is_stopped: bool,
}

/// What came of the requests so far.
#[derive(Default)]
struct Tally {
    /// By status and what the body says about it.
    answers: BTreeMap<(u16, String), u64>,
    /// The last one of each client.
    last_answers: BTreeMap<usize, (u16, String)>,
    /// Of the newest answers, in microseconds.
    latencies_us: VecDeque<u64>,
    /// Arrivals that found every client busy.
    not_asked: u64,
    batches_read: usize,
    committed_calls: u64,
    committed_batches: u64,
    /// How long PostgreSQL has worked on calls and their commits, and how long it would have if each had come alone.
    worked_us: u64,
    alone_us: u64,
    /// Calls of the newest batches.
    batch_calls: VecDeque<usize>,
}

/// The most clients that a page shows.
const CLIENTS_MAX: usize = 64;
const LATENCIES_KEPT: usize = 1_000;
const BATCHES_KEPT: usize = 60;
const TOLD_KEPT: usize = 200;
/// How long PostgreSQL is away when it restarts.
const RESTART_US: u64 = 500_000;
/// What a call costs PostgreSQL beside its commit: a part of what that costs, as measured with the real one.
const CALLS_PER_COMMIT: u64 = 30;
/// The stages of a turn, and what each does.
const STAGES: [(Stage, &str, &str); 5] = [
    (Stage::Receive, "receive", "bytes go from the sockets into clients and lanes"),
    (
        Stage::Advance,
        "advance",
        "everything goes one step on: requests are read, batches made, answers written",
    ),
    (Stage::Send, "send", "what is pending goes onto the sockets"),
    (Stage::Expire, "expire", "deadlines that had passed are acted on"),
    (Stage::Reap, "reap", "closed clients are dropped"),
];

impl Playground {
    /// A bank whose settings are words of the form `name=number`, as in `seed=7 lanes=2 load=100`; all have a default.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(text: &str) -> Result<Playground, String> {
        let mut chosen = BTreeMap::from([
            ("seed", (1, 0, u64::MAX)),
            ("clients", (8, 1, CLIENTS_MAX as u64)),
            ("lanes", (1, 1, 4)),
            ("batch", (64, 1, 256)),
            ("gather", (1, 0, 100)),
            ("set", (4, 2, 257)),
            ("queue", (1_024, 1, 65_536)),
            ("wait", (1_000, 1, 60_000)),
            ("load", (0, 0, LOAD_MAX)),
            ("commit", (2_000, 1, COMMIT_MAX_US)),
        ]);
        for word in text.split_whitespace() {
            let (name, value) = word.split_once('=').ok_or(format!("{word}: expected name=number"))?;
            let setting = chosen.get_mut(name).ok_or(format!("{name} is no setting"))?;
            setting.0 = within(name, value, setting.1, setting.2)?;
        }
        let of = |name: &str| chosen[name].0;
        let config = settings::of(&[
            ("LANES", of("lanes")),
            ("BATCH_CALLS_MAX", of("batch")),
            ("GATHER_MS", of("gather")),
            ("GROUP_CALLS_MIN", of("set")),
            ("QUEUE_CALLS_MAX", of("queue")),
            ("QUEUE_WAIT_MAX_MS", of("wait")),
            ("CLIENTS_MAX", 2 * CLIENTS_MAX as u64),
        ]);
        let scene = Scene::quiet(of("seed"));
        let mut world = World::of(config, CLIENTS_MAX, of("seed"), &scene);
        let instance = world.new_instance(Backlog::default());
        world.instances.push(instance);
        let hand = Hand {
            clients: 0,
            load: of("load"),
            next_arrival_us: u64::MAX,
            next_client: 0,
            commit_us: of("commit"),
            at_work: BTreeSet::new(),
            is_stalled: false,
            returns_at_us: 0,
            held: BTreeSet::new(),
            stage: None,
            shown: "",
            turns: 0,
            is_stopped: false,
        };
        let mut playground = Playground::with(world, Drive::Hand(hand));
        playground.set_clients(usize::try_from(of("clients")).unwrap_or(CLIENTS_MAX));
        playground.plan_arrival();
        Ok(playground)
    }

    /// The world of a seed, as [`crate::sim::run`] runs it.
    pub fn of_seed(seed: u64) -> Playground {
        let scene = Scene::new(seed, true);
        scene.keep_tape();
        let world = World::new(seed, &scene);
        let steps_left = world.steps();
        Playground::with(world, Drive::Seed { steps_left, is_over: false })
    }

    fn with(world: World, drive: Drive) -> Playground {
        Playground {
            world,
            drive,
            steps: 0,
            script: Vec::new(),
            wires: BTreeMap::new(),
            told: VecDeque::new(),
            tally: Tally::default(),
        }
    }

    /// The hash of every byte that moved, and when.
    pub fn hash(&self) -> u64 {
        self.world.scene.hash()
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Turns that have begun; 0 in the world of a seed.
    pub fn turns(&self) -> u64 {
        match &self.drive {
            Drive::Hand(hand) => hand.turns,
            Drive::Seed { .. } => 0,
        }
    }

    /// The virtual time, in monotonic microseconds.
    pub fn now_us(&self) -> u64 {
        self.world.scene.now().monotonic_us
    }

    /// Whether nothing more happens: a check has failed, or the world of the seed is over.
    pub fn is_over(&self) -> bool {
        self.world.scene.is_violated() || matches!(self.drive, Drive::Seed { is_over: true, .. })
    }

    /// The commands so far, as `step:command` with a semicolon between two, for [`Playground::replay`].
    pub fn script(&self) -> String {
        let lines: Vec<String> =
            self.script.iter().map(|(steps, command)| format!("{steps}:{command}")).collect();
        lines.join(";")
    }

    /// Takes one step, and says what happened. Nothing once it [is over](Playground::is_over).
    pub fn step(&mut self) -> String {
        if self.is_over() {
            return "nothing more happens".to_owned();
        }
        self.steps += 1;
        let before = matches!(self.drive, Drive::Hand(_)).then(|| picture::Moment::of(&mut self.world));
        let what = match &mut self.drive {
            Drive::Hand(_) => self.step_by_hand(),
            Drive::Seed { .. } => self.step_by_seed(),
        };
        let change = before.map(|before| before.change(&mut self.world)).unwrap_or_default();
        let told_before = self.told.back().cloned();
        self.note();
        match &self.drive {
            // What chance has done stands in the events alone.
            Drive::Seed { .. } if self.told.back() != told_before.as_ref() => {
                self.told.back().cloned().unwrap_or(what)
            }
            Drive::Seed { .. } => what,
            Drive::Hand(_) if change.is_empty() => what,
            Drive::Hand(_) => format!("{what}. {change}"),
        }
    }

    /// Takes steps for as long as the next one begins by this virtual time, in monotonic microseconds, and at most so
    /// many. In the world of a seed only their number counts.
    pub fn run_until(&mut self, until_us: u64, steps_max: u32) {
        for _ in 0..steps_max {
            if self.is_over() || (self.is_waiting() && self.next_event_us() > until_us) {
                break;
            }
            self.steps += 1;
            match &mut self.drive {
                Drive::Hand(_) => self.step_by_hand(),
                Drive::Seed { .. } => self.step_by_seed(),
            };
            self.note();
        }
    }

    /// Takes the steps and the commands of a [`Playground::script`].
    ///
    /// # Errors
    /// What is wrong with it; what stood before was done.
    pub fn replay(&mut self, script: &str) -> Result<(), String> {
        for line in script.split(';').filter(|line| !line.is_empty()) {
            let (steps, command) = line.split_once(':').ok_or(format!("{line}: expected step:command"))?;
            let steps: u64 = steps.parse().map_err(|_| format!("{steps} is no number of steps"))?;
            while self.steps < steps && !self.is_over() {
                self.run_until(u64::MAX, 1);
            }
            self.act(command)?;
        }
        Ok(())
    }

    fn step_by_seed(&mut self) -> String {
        let Drive::Seed { steps_left, is_over } = &mut self.drive else { return String::new() };
        if *steps_left > 0 {
            *steps_left -= 1;
            self.world.step();
            "One step of the seed, of which there is nothing to tell".to_owned()
        } else {
            *is_over = true;
            self.world.come_to_an_end();
            "the faults stop, and everything comes to its end".to_owned()
        }
    }

    /// Looks at what the step has left.
    fn note(&mut self) {
        let world = &mut self.world;
        world.audit.read(&world.postgres, &world.config, &world.scene);
        for moved in world.scene.take_tape() {
            self.wires.entry(moved.socket).or_default().add(&moved);
        }
        for (index, peer) in world.peers.iter_mut().enumerate() {
            for answered in peer.take_answered() {
                let problem = answered.body.strip_prefix(r#"{"erro": ""#).unwrap_or_default();
                let problem = problem.trim_end_matches("\"}").to_owned();
                self.tally.last_answers.insert(index, (answered.status, problem.clone()));
                *self.tally.answers.entry((answered.status, problem)).or_default() += 1;
                keep(&mut self.tally.latencies_us, answered.latency_us, LATENCIES_KEPT);
            }
        }
        while let Some(batch) = world.postgres.batches.get(self.tally.batches_read) {
            self.tally.batches_read += 1;
            if batch.calls > 0 {
                keep(&mut self.tally.batch_calls, batch.calls, BATCHES_KEPT);
                self.tally.committed_batches += u64::from(batch.is_committed);
                self.tally.committed_calls += if batch.is_committed { batch.calls as u64 } else { 0 };
            }
        }
        for event in world.scene.take_events() {
            keep(&mut self.told, event, TOLD_KEPT);
        }
    }

    // ---- commands

    /// Does one thing to the world. Numbers of clients, lanes and accounts are those of the picture.
    ///
    /// `ask CLIENT credit|debit ACCOUNT CENTS [PIECE_BYTES]`, `ask CLIENT statement ACCOUNT [PIECE_BYTES]`,
    /// `ask CLIENT malformed [PIECE_BYTES]`, `shut CLIENT`, `reset CLIENT`, `hold LANE`, `release LANE`,
    /// `pass LANE BYTES` (of the reply, while it is held), `cut LANE BYTES BYTES` (as many still arrive at PostgreSQL
    /// and at the server), `lock ACCOUNT`, `unlock`, `stall`, `go_on`, `restart`, `stop`, `start`, `clients COUNT`,
    /// `load PER_SECOND`, `commit MICROSECONDS`.
    ///
    /// # Errors
    /// What is wrong with the command; nothing was done.
    pub fn act(&mut self, command: &str) -> Result<(), String> {
        if self.is_over() || matches!(self.drive, Drive::Seed { .. }) {
            return Err("nothing can be done to this world".to_owned());
        }
        let words: Vec<&str> = command.split_whitespace().collect();
        self.obey(&words)?;
        self.script.push((self.steps, words.join(" ")));
        self.note();
        Ok(())
    }

    fn obey(&mut self, words: &[&str]) -> Result<(), String> {
        let clients = self.hand().clients as u64 - 1;
        let lanes = self.world.config.lanes as u64 - 1;
        match *words {
            ["ask", client, kind, ref rest @ ..] => {
                let client = index("client", client, clients)?;
                let (request, piece) = match (kind, rest) {
                    ("credit" | "debit", [account, cents, piece @ ..]) => {
                        let account = account_of(account)?;
                        let cents = within("cents", cents, 1, 1_000_000)?.cast_signed();
                        let cents = if kind == "debit" { -cents } else { cents };
                        (Request::plain_transaction(account, cents, &mut self.world.audit), piece)
                    }
                    ("statement", [account, piece @ ..]) => {
                        (Request::plain_statement(account_of(account)?), piece)
                    }
                    ("malformed", piece) => (Request::malformed(), piece),
                    (other, _) => return Err(format!("nothing is asked by {other}")),
                };
                let piece_bytes = match piece {
                    [] => usize::MAX,
                    [bytes, ..] => index("bytes", bytes, 4_096)?.max(1),
                };
                self.world.with_peer(client, |peer, around| peer.ask_this(request, piece_bytes, around));
            }
            ["shut", client] => self.world.peers[index("client", client, clients)?].shut(),
            ["reset", client] => self.world.peers[index("client", client, clients)?].reset(),
            ["hold", lane] => {
                let lane = index("lane", lane, lanes)?;
                self.hand().held.insert(lane);
            }
            ["release", lane] => {
                let lane = index("lane", lane, lanes)?;
                self.hand().held.remove(&lane);
            }
            ["pass", lane, bytes] => {
                let backend = self.backend_of(index("lane", lane, lanes)?)?;
                let bytes = index("bytes", bytes, u64::from(u32::MAX))?;
                let backend = &mut self.world.backends[backend];
                let sent = self.world.postgres.sent(backend.session);
                let passed = bytes.min(sent.len());
                backend.socket.borrow_mut().peer_send(sent.drain(..passed));
            }
            ["cut", lane, forth, back] => {
                let lane = index("lane", lane, lanes)?;
                let backend = self.backend_of(lane)?;
                let [forth, back] = [forth, back].map(|bytes| index("bytes", bytes, u64::from(u32::MAX)));
                self.world.cut_backend_after(backend, forth?, back?);
                self.hand().held.remove(&lane);
            }
            ["lock", account] => self.world.postgres.lock(account_of(account)?),
            ["unlock"] => self.world.postgres.unlock(),
            ["stall"] => self.hand().is_stalled = true,
            ["go_on"] => self.hand().is_stalled = false,
            ["restart"] => self.restart_postgres(),
            ["stop"] if !self.is_stopping() => {
                while self.hand().stage.is_some() {
                    self.run_stage();
                }
                self.world.drain(0);
            }
            ["start"] if self.hand().is_stopped => {
                self.world.replace_instance(0);
                self.hand().is_stopped = false;
            }
            ["clients", count] => {
                self.set_clients(index("clients", count, CLIENTS_MAX as u64)?.max(1));
            }
            ["load", per_second] => {
                self.hand().load = within("load", per_second, 0, LOAD_MAX)?;
                self.plan_arrival();
            }
            ["commit", us] => self.hand().commit_us = within("commit", us, 1, COMMIT_MAX_US)?,
            _ => return Err(format!("{} cannot be done now", words.join(" "))),
        }
        Ok(())
    }

    /// The state of a world that is driven by hand, as all commands are given to.
    ///
    /// # Panics
    /// In the world of a seed: our own bug.
    fn hand(&mut self) -> &mut Hand {
        match &mut self.drive {
            Drive::Hand(hand) => hand,
            Drive::Seed { .. } => panic!("the world of a seed is not driven by hand"),
        }
    }

    fn set_clients(&mut self, clients: usize) {
        for peer in &mut self.world.peers[clients..] {
            peer.shut();
        }
        self.hand().clients = clients;
    }

    fn is_stopping(&self) -> bool {
        self.world.instances[0].drained_by_us.is_some()
    }

    /// The session at the other end of a lane.
    fn backend_of(&self, lane: usize) -> Result<usize, String> {
        let socket = self.world.instances[0].event_loop.network.lane_socket(lane);
        let number = socket.map(|socket| socket.borrow().number);
        let is_it =
            |backend: &crate::sim::Backend| !backend.is_cut && Some(backend.socket.borrow().number) == number;
        self.world.backends.iter().position(is_it).ok_or_else(|| format!("lane {lane} is not connected"))
    }

    fn restart_postgres(&mut self) {
        self.world.scene.tell(|| "PostgreSQL restarts".to_owned());
        for index in 0..self.world.backends.len() {
            self.world.end_backend(index);
        }
        self.world.sweep_backends();
        self.world.instances[0].event_loop.network.set_database_away(true);
        let hand = self.hand();
        hand.at_work.clear();
        hand.is_stalled = false;
        self.hand().returns_at_us = self.now_us() + RESTART_US;
    }

    /// The clients send requests at random times, independent of each other.
    fn plan_arrival(&mut self) {
        let (now_us, load) = (self.now_us(), self.hand().load);
        let mean_us = 1_000_000_u64.checked_div(load);
        // The sum of two random numbers is close enough to independent arrivals.
        let scene = &self.world.scene;
        let wait_us = mean_us.map(|mean_us| scene.between(0, mean_us) + scene.between(0, mean_us));
        self.hand().next_arrival_us = wait_us.map_or(u64::MAX, |wait_us| now_us + wait_us.max(1));
    }

    // ---- steps by hand

    /// Does the next thing that can be done, or lets time pass until there is one.
    fn step_by_hand(&mut self) -> String {
        if self.hand().stage.is_some() {
            return self.run_stage();
        }
        if let Some(what) = self.let_clients_send() {
            return what;
        }
        if let Some(what) = self.let_links_carry() {
            return what;
        }
        if let Some(what) = self.let_postgres_work() {
            return what;
        }
        if let Some(what) = self.let_clients_receive() {
            return what;
        }
        if let Some(what) = self.let_instance_wake() {
            return what;
        }
        self.let_time_pass()
    }

    /// Whether nothing is left to do before time passes.
    fn is_waiting(&mut self) -> bool {
        let Drive::Hand(hand) = &self.drive else { return false };
        hand.stage.is_none()
            && !self.world.peers.iter().any(|peer| peer.can_send() || peer.can_receive())
            && !self.can_connect()
            && !self.can_link_carry()
            && !(0..self.world.backends.len()).any(|index| self.can_backend_work(index))
            && (self.hand().is_stopped || !(self.world.is_awake(0) || self.has_drained()))
    }

    fn run_stage(&mut self) -> String {
        let Some(stage) = self.hand().stage else { return String::new() };
        let position = STAGES.iter().position(|(other, ..)| *other == stage).unwrap_or(0);
        self.world.instances[0].event_loop.run_stage(stage);
        self.hand().stage = STAGES.get(position + 1).map(|(next, ..)| *next);
        if self.hand().stage.is_none() {
            self.world.after_turn(0);
        }
        let (_, name, meaning) = STAGES[position];
        self.hand().shown = name;
        format!("Stage {name}: {meaning}")
    }

    fn let_clients_send(&mut self) -> Option<String> {
        let mut sent = 0;
        for peer in self.world.peers.iter_mut().filter(|peer| peer.can_send()) {
            sent += u64::from(peer.send());
        }
        (sent > 0).then(|| format!("Bytes of {} arrive at the server", counted(sent, "client")))
    }

    fn let_clients_receive(&mut self) -> Option<String> {
        let mut received = 0;
        for index in 0..self.world.peers.len() {
            if self.world.peers[index].can_receive() {
                self.world.with_peer(index, Peer::receive);
                received += 1;
            }
        }
        (received > 0).then(|| format!("{} read what has come", counted(received, "client")))
    }

    fn can_connect(&self) -> bool {
        self.world.instances[0].event_loop.network.awaits_postgres()
    }

    /// The lane on whose link a session is, if that is one of this instance.
    fn lane_of(&self, backend: usize) -> Option<usize> {
        let number = self.world.backends[backend].socket.borrow().number;
        let network = &self.world.instances[0].event_loop.network;
        (0..self.world.config.lanes)
            .find(|&lane| network.lane_socket(lane).is_some_and(|socket| socket.borrow().number == number))
    }

    fn is_held(&self, backend: usize) -> bool {
        let Drive::Hand(hand) = &self.drive else { return false };
        !hand.held.is_empty() && self.lane_of(backend).is_some_and(|lane| hand.held.contains(&lane))
    }

    /// Whether bytes or an end wait on a link: on their way to PostgreSQL, and on their way back.
    fn waits_on_link(&mut self, index: usize) -> [bool; 2] {
        let backend = &self.world.backends[index];
        let socket = backend.socket.borrow();
        let goes_forth = !backend.is_cut && (socket.pending_bytes() > 0 || socket.is_at_end());
        let session = backend.session;
        let is_cut = backend.is_cut;
        drop(socket);
        let goes_back = !is_cut
            && self.world.postgres.is_flushed(session)
            && !self.world.postgres.sent(session).is_empty();
        [goes_forth, goes_back]
    }

    fn can_link_carry(&mut self) -> bool {
        (0..self.world.backends.len())
            .any(|index| self.waits_on_link(index) != [false, false] && !self.is_held(index))
    }

    /// Connections come about, and bytes move between lanes and sessions.
    fn let_links_carry(&mut self) -> Option<String> {
        if self.can_connect() {
            self.world.instances[0].event_loop.network.answer_connects(None);
            self.world.welcome_sessions();
            return Some("The network answers lanes that connect".to_owned());
        }
        for way in [0, 1] {
            let mut links = 0;
            for index in 0..self.world.backends.len() {
                if !self.waits_on_link(index)[way] || self.is_held(index) {
                    continue;
                }
                links += 1;
                if way == 0 {
                    self.world.deliver_to_backend(index, false);
                } else {
                    self.world.deliver_reply(index, false);
                }
            }
            if links > 0 {
                let to = ["PostgreSQL", "the server"][way];
                return Some(format!("Bytes on {} arrive at {to}", counted(links, "link")));
            }
        }
        None
    }

    /// Whether a session has something to do now: to begin on a message, to end with it, or to leave.
    fn can_backend_work(&self, index: usize) -> bool {
        let Drive::Hand(hand) = &self.drive else { return false };
        let backend = &self.world.backends[index];
        !hand.is_stalled
            && self.world.postgres.next_work(backend.session).is_some()
            && (!hand.at_work.contains(&backend.session) || self.is_due(index))
    }

    /// Whether the session is done with the message that it has begun on, and does not wait for a locked row.
    fn is_due(&self, index: usize) -> bool {
        let backend = &self.world.backends[index];
        let now_us = self.now_us();
        backend.busy_until_us <= now_us && !self.world.postgres.is_blocked(backend.session, now_us)
    }

    fn let_postgres_work(&mut self) -> Option<String> {
        for index in 0..self.world.backends.len() {
            if self.can_backend_work(index) {
                let what = self.let_session_work(index);
                self.world.sweep_backends();
                return Some(what);
            }
        }
        None
    }

    /// One message of a session, or all that cost nothing up to the next one that does.
    fn let_session_work(&mut self, index: usize) -> String {
        let now_us = self.now_us();
        let session = self.world.backends[index].session;
        let mut what = format!("Session {session} works");
        while let Some(work) = self.world.postgres.next_work(session) {
            let commit_us = self.hand().commit_us;
            let call_us = commit_us / CALLS_PER_COMMIT;
            let (cost_us, begins) = match work {
                Work::Execute { calls: 0, .. } => (call_us, "runs a statement of the log-in or of a probe"),
                Work::Execute { calls, is_set: true } => {
                    (call_us + calls as u64 * call_us / 4, "runs a set of transactions")
                }
                Work::Execute { .. } => (call_us, "runs a call"),
                Work::Sync { commits: 0 } => (call_us, "ends its transaction"),
                Work::Sync { .. } => (commit_us, "commits"),
                Work::Other => (0, "works"),
            };
            let alone_us = match work {
                Work::Execute { calls, .. } => calls as u64 * call_us,
                Work::Sync { commits: 0 } | Work::Other => 0,
                Work::Sync { commits } => commits as u64 * commit_us,
            };
            let begins_now = self.hand().at_work.insert(session);
            if begins_now && cost_us > 0 {
                self.world.backends[index].busy_until_us = now_us + cost_us;
                return format!("Session {session} begins: it {begins}, for {cost_us} µs");
            }
            let has_worked = self.world.postgres.work(session, now_us);
            if !has_worked {
                return format!("Session {session} waits for a row that is locked");
            }
            self.hand().at_work.remove(&session);
            if alone_us > 0 {
                self.tally.worked_us += cost_us;
                self.tally.alone_us += alone_us;
            }
            if cost_us > 0 {
                what = format!("Session {session} is done: it {begins}");
                break;
            }
        }
        what
    }

    fn has_drained(&self) -> bool {
        let instance = &self.world.instances[0];
        let now = self.world.scene.now();
        instance.drained_by_us.is_some_and(|by_us| instance.event_loop.is_drained() || now.is_past(by_us))
    }

    fn let_instance_wake(&mut self) -> Option<String> {
        if self.hand().is_stopped {
            return None;
        }
        if self.has_drained() {
            let Instance { event_loop, .. } = &mut self.world.instances[0];
            event_loop.leave_database();
            for socket in event_loop.network.client_sockets() {
                socket.borrow_mut().kill();
            }
            self.hand().is_stopped = true;
            return Some("The server has stopped".to_owned());
        }
        if !self.world.is_awake(0) {
            return None;
        }
        self.world.poll(0);
        self.hand().turns += 1;
        self.hand().stage = Some(Stage::Receive);
        self.hand().shown = "wait";
        Some("The wait ends, and a turn begins: events have set their flags".to_owned())
    }

    fn let_time_pass(&mut self) -> String {
        let (now_us, next_us) = (self.now_us(), self.next_event_us());
        if next_us == u64::MAX {
            return "Nothing is left to happen by itself".to_owned();
        }
        self.world.scene.advance_us(next_us.saturating_sub(now_us).max(1));
        let now_us = self.now_us();
        if self.hand().returns_at_us <= now_us {
            self.world.instances[0].event_loop.network.set_database_away(false);
        }
        while self.hand().next_arrival_us <= now_us {
            self.let_a_client_ask();
        }
        "Time passes".to_owned()
    }

    /// When something will happen by itself, in monotonic microseconds.
    fn next_event_us(&mut self) -> u64 {
        let now_us = self.now_us();
        let Drive::Hand(hand) = &self.drive else { return now_us };
        let instance = &self.world.instances[0];
        let wake_us = if hand.is_stopped { u64::MAX } else { instance.event_loop.wake_at_us() };
        let drained_us = instance.drained_by_us.filter(|_| !hand.is_stopped).unwrap_or(u64::MAX);
        let postgres = &self.world.postgres;
        let busy_us = self.world.backends.iter().filter(|backend| hand.at_work.contains(&backend.session));
        let busy_us = busy_us.map(|backend| backend.busy_until_us).filter(|&until_us| until_us > now_us);
        let work_us = busy_us.min().unwrap_or(u64::MAX).min(postgres.deadline_us());
        let work_us = if hand.is_stalled { u64::MAX } else { work_us };
        let returns_us = if hand.returns_at_us > now_us { hand.returns_at_us } else { u64::MAX };
        wake_us.min(drained_us).min(work_us).min(returns_us).min(hand.next_arrival_us)
    }

    /// The next client that has nothing to wait for asks something.
    fn let_a_client_ask(&mut self) {
        self.plan_arrival();
        let clients = self.hand().clients;
        let first = self.hand().next_client;
        let idle = (0..clients).map(|offset| (first + offset) % clients).find(|&index| {
            self.world.peers[index].view().is_none_or(|view| view.asked.is_empty() && !view.is_shut)
        });
        let Some(index) = idle else {
            self.tally.not_asked += 1;
            return;
        };
        self.hand().next_client = (index + 1) % clients;
        let scene = &self.world.scene;
        let account = 1 + i32::try_from(scene.below(5)).unwrap_or(0);
        let cents = i64::try_from(scene.between(1, 100)).unwrap_or(1);
        let request = match scene.below(10) {
            0 => Request::plain_statement(account),
            1..=5 => Request::plain_transaction(account, -cents, &mut self.world.audit),
            _ => Request::plain_transaction(account, cents, &mut self.world.audit),
        };
        self.world.with_peer(index, |peer, around| peer.ask_this(request, usize::MAX, around));
    }
}

const LOAD_MAX: u64 = 20_000;
const COMMIT_MAX_US: u64 = 1_000_000;

fn within(name: &str, value: &str, min: u64, max: u64) -> Result<u64, String> {
    let number: u64 = value.parse().map_err(|_| format!("{name}: expected a number, not {value}"))?;
    if (min..=max).contains(&number) {
        Ok(number)
    } else {
        Err(format!("{name}: expected {min} to {max}, not {value}"))
    }
}

fn index(name: &str, value: &str, max: u64) -> Result<usize, String> {
    within(name, value, 0, max).map(|number| usize::try_from(number).unwrap_or(0))
}

fn account_of(value: &str) -> Result<i32, String> {
    within("account", value, 1, 5).map(|number| i32::try_from(number).unwrap_or(1))
}

fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Appends, and forgets the oldest beyond a number of them.
fn keep<T>(kept: &mut VecDeque<T>, value: T, max: usize) {
    if kept.len() == max {
        kept.pop_front();
    }
    kept.push_back(value);
}

#[cfg(test)]
mod tests;
