//! CORE, simulation only: the whole core in a world made of one seed: HTTP clients, one or two instances, PostgreSQL, and
//! everything that goes wrong between them. START HERE for the simulation; `docs/learn/testing.md` says what it checks.
//!
//! The instances are real: [`EventLoop`] drives [`Engine`], clients and lanes over sockets as the server does. What is made up
//! is around them: [`socket`] and [`network`] for the kernel, [`peer`] for HTTP clients, [`postgres`] for the database,
//! [`scene`] for chance and time. [`audit`] follows each transaction and judges the answers.
//!
//! A run has two halves. In the first, faults strike, and whatever is answered has to be right. In the second, they
//! have stopped, and everything has to come to an end in bounded time: each request to its answer, each lane back to
//! ready, also after an outage of the database and while an instance is told to stop.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use crate::bank::ListenerKind;
use crate::config::Config;
use crate::engine::Engine;
use crate::event_loop::EventLoop;
use crate::metrics::LaneState;
use crate::net::network::Network as _;

pub(crate) mod answer;
pub(crate) mod audit;
pub(crate) mod check;
pub(crate) mod fault;
pub(crate) mod network;
pub(crate) mod peer;
pub mod playground;
pub(crate) mod postgres;
pub(crate) mod request;
pub(crate) mod scene;
pub(crate) mod settings;
pub(crate) mod socket;

use audit::Audit;
pub use check::{Check, Violation};
pub use fault::Fault;
use network::{Backlog, SimNetwork, deliver_events};
use peer::{Around, Peer, Reached};
use postgres::{Postgres, Replaced};
use scene::{STILL_MAX_US, Scene};
use socket::Shared;

/// What came of one run.
#[derive(Debug)]
pub struct Outcome {
    /// What must never happen and did.
    pub violation: Option<Violation>,
    /// The hash of every byte that moved, and when. The same seed gives the same one.
    pub hash: u64,
    /// How often each fault struck, in the order of [`Fault::ALL`].
    pub strikes: [u64; Fault::ALL.len()],
    /// How many transactions were committed.
    pub rows: usize,
    /// The last events, oldest first, if they were asked for.
    pub events: Vec<String>,
}

/// Runs the world of one seed.
pub fn run(seed: u64, keeps_events: bool) -> Outcome {
    let scene = Scene::new(seed, keeps_events);
    let mut rows = 0;
    let end = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed, &scene);
        world.live();
        rows = world.audit.rows();
    }));
    if let Err(panic) = end {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without a text");
        scene.violate(Check::Panic, format!("a panic: {text}"));
    }
    Outcome {
        violation: scene.violation(),
        hash: scene.hash(),
        strikes: scene.count_strikes(),
        rows,
        events: scene.events(),
    }
}

struct World {
    scene: Scene,
    config: Config,
    instances: Vec<Instance>,
    postgres: Postgres,
    backends: Vec<Backend>,
    peers: Vec<Peer>,
    audit: Audit,
    /// When another session releases its row lock, in monotonic microseconds.
    unlock_at_us: u64,
    /// The standby replays nothing before this time, in monotonic microseconds.
    replays_at_us: u64,
    /// Engines made so far; each has its own seed for jitter.
    engines_made: u64,
}

/// One server.
struct Instance {
    event_loop: EventLoop<SimNetwork>,
    backlog: Backlog,
    /// No other has it.
    number: u64,
    /// The newest timeline that a lane of it, other than the reader, has read.
    timeline: Rc<Cell<Option<u32>>>,
    /// How often a lane of the instances before it closed.
    lane_closes_before: u64,
    /// When it stops whatever is still open, once it was told to stop, in monotonic microseconds.
    drained_by_us: Option<u64>,
}

impl Instance {
    /// How often a lane of this instance, or of one before it, closed.
    fn lane_closes(&mut self) -> u64 {
        self.lane_closes_before + self.event_loop.engine.metrics().lane_closes
    }
}

/// One session of PostgreSQL and its socket.
struct Backend {
    session: usize,
    socket: Shared,
    /// That of its instance, unless it is the reader's.
    timeline: Option<Rc<Cell<Option<u32>>>>,
    /// It does nothing before this time, in monotonic microseconds.
    busy_until_us: u64,
    /// The socket is dead to it.
    is_cut: bool,
}

/// Steps of the first half.
const STEPS: std::ops::Range<usize> = 100..500;
/// The longest that anything may take to settle, in virtual time: every wait of the settings is far shorter.
const SETTLE_MAX_MS: u64 = 60_000;
/// Rounds of everything in which no time passes. A peer that takes a byte at a time needs some thousand.
const ROUNDS_MAX: usize = 20_000;
/// Besides waits, everything takes no time at all once faults have stopped; sweeps may be late by their interval.
const SLACK_MS: u64 = 150;

impl World {
    fn new(seed: u64, scene: &Scene) -> World {
        let config = settings::make(scene);
        let peers = 1 + scene.below(8);
        let mut world = World::of(config, peers, seed, scene);
        let instances = if scene.strikes(Fault::SecondInstance) { 2 } else { 1 };
        for _ in 0..instances {
            let instance = world.new_instance(Backlog::default());
            world.instances.push(instance);
        }
        world
    }

    /// A world without an instance.
    fn of(config: Config, peers: usize, seed: u64, scene: &Scene) -> World {
        let mut postgres = Postgres::new();
        postgres.reports_standby = scene.happens(700);
        World {
            scene: scene.clone(),
            config,
            instances: Vec::new(),
            postgres,
            backends: Vec::new(),
            peers: (0..peers).map(|name| Peer::new(name, scene.clone())).collect(),
            audit: Audit::default(),
            unlock_at_us: u64::MAX,
            replays_at_us: 0,
            engines_made: seed,
        }
    }

    fn new_instance(&mut self, backlog: Backlog) -> Instance {
        self.engines_made = self.engines_made.wrapping_add(1);
        let engine = Engine::new(self.config.clone(), self.engines_made, self.scene.now());
        let network = SimNetwork::new(self.scene.clone(), self.config.sessions());
        let event_loop = EventLoop::new(engine, network, vec![(backlog.clone(), ListenerKind::Bank)]);
        Instance {
            event_loop,
            backlog,
            number: self.engines_made,
            timeline: Rc::default(),
            lane_closes_before: 0,
            drained_by_us: None,
        }
    }

    /// The whole run.
    fn live(&mut self) {
        for _ in 0..self.steps() {
            self.step();
            if self.scene.is_violated() {
                return;
            }
        }
        self.come_to_an_end();
    }

    /// How many steps the first half has.
    fn steps(&self) -> u64 {
        self.scene.between(STEPS.start as u64, STEPS.end as u64)
    }

    /// The second half. Each part ends early when something was violated.
    fn come_to_an_end(&mut self) {
        self.scene.calm_down();
        self.scene.tell(|| "the faults stop".to_owned());
        self.stop_old_primary();
        self.postgres.calm_down();
        self.unlock_at_us = u64::MAX;
        self.replays_at_us = 0;
        self.settle("the faults stopped", SETTLE_MAX_MS, true);
        self.suffer_outage();
        self.settle("the database came back", SETTLE_MAX_MS, true);
        self.ask_all("all was well", self.prompt_ms(), true);
        self.drain_all();
        self.end();
    }

    // ---- the first half: anything may happen

    fn step(&mut self) {
        match self.scene.below(10) {
            0..=3 => self.let_a_peer_act(),
            4..=7 => self.let_the_database_act(),
            8 => self.let_time_pass(),
            _ => self.let_an_instance_fall(),
        }
        for index in 0..self.instances.len() {
            if self.is_awake(index) && !self.scene.strikes(Fault::LateTurn) {
                self.run_turn(index);
            }
        }
        self.audit.read(&self.postgres, &self.config, &self.scene);
    }

    fn let_a_peer_act(&mut self) {
        // The peer may judge an answer to what PostgreSQL did earlier in this step.
        self.audit.read(&self.postgres, &self.config, &self.scene);
        let index = self.scene.below(self.peers.len());
        self.with_peer(index, Peer::act);
    }

    fn with_peer<T>(&mut self, index: usize, act: impl FnOnce(&mut Peer, &mut Around<'_>) -> T) -> T {
        let newest = Some(self.postgres.timeline);
        let instances: Vec<Reached> = self
            .instances
            .iter_mut()
            .map(|instance| Reached {
                backlog: instance.backlog.clone(),
                lane_closes: instance.lane_closes(),
                number: instance.number,
                knows_primary: instance.timeline.get() == newest,
            })
            .collect();
        let mut around = Around {
            audit: &mut self.audit,
            ledger: &self.postgres.ledger,
            config: &self.config,
            instances: &instances,
            old_rows: self.postgres.old_primary().map(|(_, rows)| rows),
            failures: &mut self.postgres.failures,
        };
        act(&mut self.peers[index], &mut around)
    }

    fn let_the_database_act(&mut self) {
        let isolated = self.postgres.old_primary().map(|(host, _)| host);
        for instance in &mut self.instances {
            instance.event_loop.network.answer_connects(isolated);
        }
        self.welcome_sessions();
        if self.scene.strikes(Fault::DatabaseRestart) {
            self.scene.tell(|| "PostgreSQL restarts".to_owned());
            for index in 0..self.backends.len() {
                self.end_backend(index);
            }
        }
        if self.scene.strikes(Fault::Demoted) {
            self.scene.tell(|| "the standby takes over".to_owned());
            self.stop_old_primary();
            self.postgres.switch_over(self.scene.happens(500));
            self.end_killed_backends();
            if self.scene.strikes(Fault::StandbyStranded) {
                self.postgres.replaced = Replaced::Stranded;
            }
        }
        if self.scene.strikes(Fault::SplitBrain) {
            self.scene.tell(|| "the standby takes over, and the old primary goes on".to_owned());
            self.stop_old_primary();
            self.postgres.split();
        }
        if self.scene.strikes(Fault::StandbyLags) {
            self.replays_at_us = self.scene.now().monotonic_us + self.scene.between(1_000, 2_000_000);
        }
        if self.scene.now().monotonic_us >= self.replays_at_us {
            self.postgres.replay();
        }
        if self.scene.strikes(Fault::CommitError) {
            self.postgres.commit_failure = Some(self.scene.one_of(&["40001", "23514", "53100"]));
        }
        if self.scene.happens(100) && self.scene.strikes(Fault::StatementError) {
            self.postgres.call_failure = Some(self.scene.one_of(&["57014", "53200"]));
        }
        if self.scene.strikes(Fault::ForeignLock) {
            self.postgres.lock(1 + i32::try_from(self.scene.below(5)).unwrap_or(0));
            self.unlock_at_us = self.scene.now().monotonic_us + self.scene.between(100, 200_000);
        }
        if self.scene.strikes(Fault::Notice) {
            self.postgres.interjection = Some(interjection(&self.scene));
        }
        if !self.backends.is_empty() {
            let index = self.scene.below(self.backends.len());
            self.let_backend_act(index);
        }
        self.sweep_backends();
    }

    fn let_backend_act(&mut self, index: usize) {
        let now_us = self.scene.now().monotonic_us;
        let scene = self.scene.clone();
        let backend = &mut self.backends[index];
        if backend.is_cut {
            // Its socket is dead; it finishes what it has read.
        } else if scene.strikes(Fault::LaneReset) {
            self.cut_backend(index);
        } else if scene.strikes(Fault::LaneEnded) {
            self.end_backend(index);
        } else if scene.strikes(Fault::SessionSpoilt) {
            self.postgres.spoil(backend.session, scene.one_of(&["25006", "26000", "42P05", "0A000"]));
        } else if scene.strikes(Fault::SlowDatabase) {
            backend.busy_until_us = now_us + scene.between(100, 50_000);
        } else if scene.strikes(Fault::SilentDatabase) {
            backend.busy_until_us = now_us + scene.between(100_000, 2_000_000);
        }
        if now_us < self.backends[index].busy_until_us {
            return;
        }
        self.deliver_to_backend(index, true);
        for _ in 0..=scene.below(12) {
            if !self.work_on(index, now_us) {
                break;
            }
        }
        self.deliver_reply(index, true);
    }

    /// Lets a session work on one message. Whether there was one.
    fn work_on(&mut self, index: usize, now_us: u64) -> bool {
        let backend = &self.backends[index];
        let works = self.postgres.work(backend.session, now_us);
        if let Some(timeline) = &backend.timeline {
            timeline.set(timeline.get().max(self.postgres.read_timeline(backend.session)));
        }
        works
    }

    /// Moves bytes of a lane to its session, in pieces or whole. Whether there were any.
    fn deliver_to_backend(&mut self, index: usize, in_pieces: bool) -> bool {
        let backend = &mut self.backends[index];
        let pending_bytes = backend.socket.borrow().pending_bytes();
        let splits = in_pieces && pending_bytes > 0 && self.scene.strikes(Fault::SplitReply);
        let max = if splits { 1 + self.scene.below(pending_bytes) } else { pending_bytes };
        let mut bytes: Vec<u8> = Vec::new();
        backend.socket.borrow_mut().peer_take(max, &mut bytes);
        let has_moved = !bytes.is_empty();
        self.postgres.receive(backend.session, bytes);
        if backend.socket.borrow().is_at_end() {
            self.postgres.hang_up(backend.session);
            backend.is_cut = true;
        }
        has_moved
    }

    /// Moves bytes of a session to its lane, in pieces or whole. Whether there were any.
    fn deliver_reply(&mut self, index: usize, in_pieces: bool) -> bool {
        let backend = &mut self.backends[index];
        let sent = self.postgres.sent(backend.session);
        if sent.is_empty() || (backend.is_cut && backend.socket.borrow().is_at_end()) {
            sent.clear();
            return false;
        }
        let splits = in_pieces && self.scene.strikes(Fault::SplitReply);
        let n = if splits { 1 + self.scene.below(sent.len()) } else { sent.len() };
        backend.socket.borrow_mut().peer_send(sent.drain(..n));
        true
    }

    /// Breaks the connection of a lane: some of what was under way arrives, in both directions.
    fn cut_backend(&mut self, index: usize) {
        let backend = &self.backends[index];
        let forth_bytes = self.scene.below(backend.socket.borrow().pending_bytes() + 1);
        let back_bytes = self.scene.below(self.postgres.sent(backend.session).len() + 1);
        self.cut_backend_after(index, forth_bytes, back_bytes);
    }

    /// Breaks the connection of a lane, of whose bytes at most so many still arrive at PostgreSQL and at the server.
    fn cut_backend_after(&mut self, index: usize, forth_bytes: usize, back_bytes: usize) {
        self.scene.tell(|| format!("the connection of session {} breaks", self.backends[index].session));
        let backend = &mut self.backends[index];
        let mut bytes: Vec<u8> = Vec::new();
        backend.socket.borrow_mut().peer_take(forth_bytes, &mut bytes);
        self.postgres.receive(backend.session, bytes);
        let sent = self.postgres.sent(backend.session);
        let arrives = back_bytes.min(sent.len());
        backend.socket.borrow_mut().peer_send(sent.drain(..arrives));
        backend.socket.borrow_mut().peer_reset();
        backend.is_cut = true;
        self.postgres.hang_up(backend.session);
    }

    /// PostgreSQL ends a session, with a last word or without.
    fn end_backend(&mut self, index: usize) {
        let backend = &mut self.backends[index];
        if backend.is_cut {
            return;
        }
        self.scene.tell(|| format!("PostgreSQL ends session {}", backend.session));
        let sent = self.postgres.sent(backend.session);
        if self.scene.happens(500) {
            postgres::error(sent, "FATAL", "57P01");
        }
        backend.socket.borrow_mut().peer_send(sent.drain(..));
        backend.socket.borrow_mut().peer_shut();
        backend.is_cut = true;
        self.postgres.kill(backend.session);
    }

    /// A primary that was replaced stops, with all its sessions.
    fn stop_old_primary(&mut self) {
        self.postgres.rejoin();
        self.end_killed_backends();
    }

    /// The sessions that PostgreSQL has ended are over for their lanes, too.
    fn end_killed_backends(&mut self) {
        for index in 0..self.backends.len() {
            if self.postgres.is_ended(self.backends[index].session) {
                self.end_backend(index);
            }
        }
    }

    /// A session for each lane that has just been connected.
    fn welcome_sessions(&mut self) {
        for instance in &mut self.instances {
            for (socket, lane, host) in instance.event_loop.network.take_connected() {
                let session = self.postgres.connect_to(host);
                let timeline = (lane < self.config.lanes).then(|| instance.timeline.clone());
                self.backends.push(Backend { session, socket, timeline, busy_until_us: 0, is_cut: false });
            }
        }
    }

    fn sweep_backends(&mut self) {
        let postgres = &self.postgres;
        self.backends.retain(|backend| !(postgres.is_ended(backend.session) && backend.is_cut));
    }

    fn let_time_pass(&mut self) {
        let now_us = self.scene.now().monotonic_us;
        if self.scene.strikes(Fault::TimeJump) {
            self.scene.advance_us(10_000_000);
        } else if self.scene.happens(300) {
            self.scene.advance_us(self.next_event_us().saturating_sub(now_us).min(1_000_000));
        } else {
            let most_us = self.scene.one_of(&[10, 100, 1_000, 10_000]);
            self.scene.advance_us(self.scene.between(1, most_us));
        }
        if self.scene.now().is_past(self.unlock_at_us) {
            self.postgres.unlock();
            self.unlock_at_us = u64::MAX;
        }
    }

    fn let_an_instance_fall(&mut self) {
        let index = self.scene.below(self.instances.len());
        let now = self.scene.now();
        if self.scene.strikes(Fault::InstanceKilled) {
            self.scene.tell(|| format!("instance {index} is killed"));
            self.replace_instance(index);
        } else if let Some(drained_by_us) = self.instances[index].drained_by_us {
            if self.instances[index].event_loop.is_drained() || now.is_past(drained_by_us) {
                self.instances[index].event_loop.leave_database();
                self.replace_instance(index);
            }
        } else if self.scene.strikes(Fault::InstanceDrained) {
            self.drain(index);
        }
    }

    /// Connections in the backlog are served by the next instance.
    fn replace_instance(&mut self, index: usize) {
        for socket in self.instances[index].event_loop.network.client_sockets() {
            socket.borrow_mut().kill();
        }
        let backlog: Backlog = Rc::new(RefCell::new(self.instances[index].backlog.take()));
        self.welcome_sessions();
        let lane_closes_before = self.instances[index].lane_closes();
        self.instances[index] = Instance { lane_closes_before, ..self.new_instance(backlog) };
    }

    fn drain(&mut self, index: usize) {
        self.scene.tell(|| format!("instance {index} is told to stop"));
        let instance = &mut self.instances[index];
        instance.event_loop.close_listeners(|_| {}, |_| false);
        let now = instance.event_loop.network.now();
        for socket in instance.event_loop.network.client_sockets() {
            socket.borrow_mut().drain(&self.scene);
        }
        instance.event_loop.engine.drain(now);
        instance.drained_by_us = Some(now.after_ms(self.config.drain_timeout_ms));
    }

    // ---- turns, as the server's loop has them

    /// Whether the loop of this instance would wake up now.
    fn is_awake(&self, index: usize) -> bool {
        let Instance { event_loop, backlog, .. } = &self.instances[index];
        let now_us = self.scene.now().monotonic_us;
        backlog.borrow().has_edge() || event_loop.network.has_event() || event_loop.wake_at_us() <= now_us
    }

    fn run_turn(&mut self, index: usize) {
        self.poll(index);
        self.instances[index].event_loop.run();
        self.after_turn(index);
    }

    /// The wait of a turn ends: events are delivered.
    fn poll(&mut self, index: usize) {
        self.instances[index].event_loop.network.begin_poll();
        self.may_stand_still();
        let Instance { event_loop, backlog, .. } = &mut self.instances[index];
        if backlog.borrow_mut().take_edge() {
            event_loop.listener_event(0);
        }
        deliver_events(event_loop);
        self.may_stand_still();
    }

    fn after_turn(&mut self, index: usize) {
        self.scene.moved(&[u8::try_from(index).unwrap_or(u8::MAX)]);
        self.check_caps(index);
    }

    /// The instance whose turn it is may stand still while time passes and everything else goes on.
    fn may_stand_still(&mut self) {
        if !self.scene.strikes(Fault::StandStill) {
            return;
        }
        self.scene.tell(|| "an instance stands still".to_owned());
        for _ in 0..self.scene.between(1, 4) {
            self.scene.advance_us(self.scene.between(1, STILL_MAX_US));
            if self.scene.happens(700) {
                self.let_a_peer_act();
            } else {
                self.let_the_database_act();
            }
        }
    }

    fn check_caps(&mut self, index: usize) {
        let (config, scene) = (&self.config, &self.scene);
        let event_loop = &mut self.instances[index].event_loop;
        let sockets = event_loop.network.client_sockets().count();
        let census = event_loop.engine.census();
        let gauges = event_loop.engine.metrics();
        let shown = [gauges.calls_queued, gauges.calls_in_flight, gauges.lanes_in(LaneState::Ready)];
        let open = gauges.connections_open;
        let in_flight_max = config.batch_calls_max * config.batches_in_flight_max;
        if census.queued > config.queue_calls_max {
            scene.violate(Check::QueueLimit, format!("{} calls are queued", census.queued));
        }
        if census.clients > config.clients_max as usize || census.clients != sockets {
            scene.violate(Check::Clients, format!("{} clients with {sockets} sockets", census.clients));
        }
        if census.in_flight.iter().any(|&calls| calls > in_flight_max) {
            scene.violate(Check::InFlightLimit, format!("calls in flight: {:?}", census.in_flight));
        }
        if census.outbox_len_max_bytes > config.outbox_len_max_bytes + ANSWER_LEN_MAX_BYTES {
            scene.violate(Check::OutboxLimit, format!("an outbox of {} bytes", census.outbox_len_max_bytes));
        }
        let lingering = event_loop.network.client_sockets().map(|socket| socket.borrow().lingered_bytes());
        if let Some(lingered_bytes) = lingering.max().filter(|&bytes| bytes > config.linger_len_max_bytes) {
            scene.violate(Check::LingerLimit, format!("{lingered_bytes} bytes are read after a refusal"));
        }
        let counted = [
            (census.queued + census.again) as u64,
            census.in_flight.iter().sum::<usize>() as u64,
            census.lanes_ready as u64,
        ];
        if counted != shown || open < census.clients as u64 {
            scene.violate(Check::Gauges, format!("the gauges show {shown:?} instead of {counted:?}"));
        }
    }

    // ---- the second half: nothing goes wrong any more

    /// Lets everything come to its end.
    fn settle(&mut self, since: &str, max_ms: u64, needs_lanes: bool) {
        // A client that has sent more than is dropped keeps its place until its time is up.
        let is_cut = self.config.linger_len_max_bytes < settings::LINGER_LEN_AMPLE_BYTES;
        let linger_ms = if is_cut { self.config.linger_timeout_ms } else { 0 };
        let deadline_us = self.scene.now().after_ms(max_ms + linger_ms);
        let mut rounds = 0;
        while !self.scene.is_violated() {
            let mut does_something = false;
            for index in 0..self.peers.len() {
                does_something |= self.with_peer(index, Peer::finish);
            }
            does_something |= self.work_off();
            self.audit.read(&self.postgres, &self.config, &self.scene);
            rounds += 1;
            if rounds > ROUNDS_MAX {
                self.scene.violate(Check::Spins, "the loop spins");
            }
            if does_something {
                continue;
            }
            rounds = 0;
            let is_stopping = self.instances.iter().any(|instance| instance.drained_by_us.is_some());
            if self.peers.iter().all(Peer::is_gone)
                && !is_stopping
                && (!needs_lanes || self.are_lanes_ready())
            {
                return;
            }
            let next_us = self.next_event_us();
            if next_us > deadline_us {
                let unsettled = self.unsettled();
                self.scene
                    .violate(Check::Settles, format!("not settled {max_ms} ms after {since}: {unsettled}"));
                return;
            }
            self.scene.advance_us(next_us.saturating_sub(self.scene.now().monotonic_us).max(1));
        }
    }

    /// Lets the database and the instances do what they can without time passing. Whether there was anything.
    fn work_off(&mut self) -> bool {
        let mut does_something = false;
        let now_us = self.scene.now().monotonic_us;
        for instance in &mut self.instances {
            instance.event_loop.network.answer_connects(None);
        }
        self.welcome_sessions();
        for index in 0..self.backends.len() {
            if now_us < self.backends[index].busy_until_us {
                continue;
            }
            does_something |= self.deliver_to_backend(index, false);
            while self.work_on(index, now_us) {
                does_something = true;
            }
            does_something |= self.deliver_reply(index, false);
        }
        self.postgres.replay();
        self.sweep_backends();
        for index in 0..self.instances.len() {
            if self.is_awake(index) {
                self.run_turn(index);
                does_something = true;
            }
            let drained_by_us = self.instances[index].drained_by_us;
            if drained_by_us.is_some() && self.instances[index].event_loop.is_drained() {
                self.instances[index].event_loop.leave_database();
                self.replace_instance(index);
                does_something = true;
            }
        }
        does_something
    }

    fn are_lanes_ready(&mut self) -> bool {
        let lanes = self.config.lanes;
        self.instances.iter_mut().all(|instance| {
            let census = instance.event_loop.engine.census();
            census.lanes_ready == lanes && !census.is_reader_missing && census.queued + census.again == 0
        })
    }

    fn unsettled(&mut self) -> String {
        let awaited: Vec<usize> = self.peers.iter().map(Peer::awaited).collect();
        let census: Vec<_> =
            self.instances.iter_mut().map(|instance| instance.event_loop.engine.census()).collect();
        format!("answers awaited by each peer {awaited:?}, instances {census:?}")
    }

    /// When something will happen by itself, in monotonic microseconds.
    fn next_event_us(&self) -> u64 {
        let now = self.scene.now();
        let wakes = self.instances.iter().map(|instance| instance.event_loop.wake_at_us());
        let busy = self
            .backends
            .iter()
            .map(|backend| backend.busy_until_us)
            .filter(|&until_us| !now.is_past(until_us));
        wakes.chain(busy).min().unwrap_or(u64::MAX).min(self.postgres.deadline_us()).min(self.unlock_at_us)
    }

    /// The database is away for longer than any call waits: each request must get its 503 in time.
    fn suffer_outage(&mut self) {
        self.scene.tell(|| "the database goes away".to_owned());
        let is_silent = self.scene.happens(500);
        let end_us = self.scene.now().after_ms(SETTLE_MAX_MS);
        for instance in &mut self.instances {
            instance.event_loop.network.set_database_away(true);
        }
        for index in 0..self.backends.len() {
            if is_silent {
                self.backends[index].busy_until_us = end_us;
            } else {
                self.end_backend(index);
            }
        }
        let waits_ms =
            self.config.queue_timeout_ms + if is_silent { self.config.answer_timeout_ms } else { 0 };
        self.ask_all("the database went away", waits_ms + SLACK_MS, false);
        for instance in &mut self.instances {
            instance.event_loop.network.set_database_away(false);
        }
        for backend in &mut self.backends {
            backend.busy_until_us = 0;
        }
    }

    /// Every peer that finds room asks one transaction; all are answered in this time.
    fn ask_all(&mut self, since: &str, max_ms: u64, is_sure: bool) {
        let room = self.config.clients_max as usize * self.instances.len();
        for index in 0..self.peers.len().min(room) {
            let instance = index % self.instances.len();
            self.with_peer(index, |peer, around| peer.ask_one(instance, is_sure, around));
        }
        self.settle(since, max_ms, false);
    }

    /// How long it may take to answer one request of every peer: each batch may wait for others to share it.
    fn prompt_ms(&self) -> u64 {
        self.config.gather_ms * self.peers.len() as u64 + 1
    }

    /// All instances are told to stop while they have work to do.
    fn drain_all(&mut self) {
        let room = self.config.clients_max as usize * self.instances.len();
        for index in 0..self.peers.len().min(room) {
            let instance = index % self.instances.len();
            if self.scene.happens(500) {
                self.with_peer(index, |peer, around| peer.ask_one(instance, true, around));
            }
        }
        for index in 0..self.instances.len() {
            if self.is_awake(index) {
                self.run_turn(index);
            }
            self.drain(index);
        }
        self.settle(
            "all instances were told to stop",
            self.prompt_ms() + self.config.drain_idle_ms + SLACK_MS,
            false,
        );
    }

    fn end(&mut self) {
        for index in 0..self.backends.len() {
            self.postgres.kill(self.backends[index].session);
        }
        self.audit.read(&self.postgres, &self.config, &self.scene);
        self.audit.check_balances(&self.postgres.ledger, &self.scene);
    }
}

/// The longest answer: a statement of ten transactions with its head.
const ANSWER_LEN_MAX_BYTES: usize = 1_024;

/// A message that belongs to no call.
fn interjection(scene: &Scene) -> Vec<u8> {
    let mut out = Vec::new();
    match scene.below(3) {
        0 => postgres::message(&mut out, b'N', b"SNOTICE\0VNOTICE\0C00000\0Mplanned\0\0"),
        1 => postgres::message(&mut out, b'S', b"application_name\0rinha\0"),
        _ => postgres::message(&mut out, b'A', b"\0\0\0\x07bank\0hello\0"),
    }
    out
}

#[cfg(test)]
mod tests;
