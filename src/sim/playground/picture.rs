//! CORE, simulation only: the state of a world, as JSON for the page, and what one step has changed, in a sentence.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Drive, Playground, counted};
use crate::bank::{Call, Kind};
use crate::engine::lane::Lane;
use crate::engine::ticket::Ticket;
use crate::metrics::LaneState;
use crate::sim::peer::Peer;
use crate::sim::request::Expect;
use crate::sim::{Backend, Fault, World};

/// What a step may change, to tell what it did.
pub(super) struct Moment {
    /// The phase of each client.
    phases: Vec<&'static str>,
    queued: usize,
    lanes: Vec<LaneMoment>,
    rows: usize,
    now_us: u64,
}

struct LaneMoment {
    state: LaneState,
    /// Calls and deadline of the batch that was sent last.
    newest: Option<(usize, u64)>,
    held_answers: usize,
}

const NOT_CONNECTED: &str = "Not connected";
const ROWS_SHOWN: usize = 12;
const TICKETS_SHOWN: usize = 64;

impl Moment {
    pub(super) fn of(world: &mut World) -> Moment {
        let phases = (0..world.peers.len()).map(|index| phase(world, index)).collect();
        let engine = &mut world.instances[0].event_loop.engine;
        let lane = |lane: &mut Lane| LaneMoment {
            state: lane.metered_state(),
            newest: lane.batches().next_back().map(|(calls, _, deadline_us)| (calls, deadline_us)),
            held_answers: lane.held_answers(),
        };
        Moment {
            phases,
            queued: engine.waiting().count(),
            lanes: engine.lanes().iter_mut().map(lane).collect(),
            rows: world.postgres.ledger.rows.len(),
            now_us: world.scene.now().monotonic_us,
        }
    }

    /// What is different now, in sentences; empty if nothing is.
    pub(super) fn change(&self, world: &mut World) -> String {
        let now = Moment::of(world);
        let mut told: Vec<String> = Vec::new();
        if now.now_us > self.now_us {
            told.push(format!("{} µs later", now.now_us - self.now_us));
        }
        let mut moves: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
        for (index, (before, after)) in self.phases.iter().zip(&now.phases).enumerate() {
            if before != after {
                moves.entry((*before, *after)).or_default().push(index);
            }
        }
        for ((before, after), clients) in moves {
            told.push(match clients[..] {
                [only] => format!("client {only}: {before} → {after}"),
                _ => format!("{}: {before} → {after}", counted(clients.len() as u64, "client")),
            });
        }
        if now.queued != self.queued {
            told.push(format!("queue: {} → {}", self.queued, now.queued));
        }
        for (index, (before, after)) in self.lanes.iter().zip(&now.lanes).enumerate() {
            if before.state != after.state {
                told.push(format!("lane {index}: {:?} → {:?}", before.state, after.state));
            }
            match after.newest {
                Some((0, _)) if before.newest != after.newest => {
                    told.push(format!("lane {index} sends a probe"));
                }
                Some((calls, _)) if before.newest != after.newest => {
                    told.push(format!("lane {index} takes a batch of {calls}"));
                }
                Some(_) | None => {}
            }
            if after.held_answers > before.held_answers {
                let held = counted(after.held_answers as u64, "answer");
                told.push(format!("lane {index} holds {held} until the commit"));
            }
        }
        if now.rows > self.rows {
            told.push(format!("{} in the ledger", counted((now.rows - self.rows) as u64, "new row")));
        }
        told.join("; ")
    }
}

impl Playground {
    /// How the world stands, as JSON. Times are in microseconds, amounts in cents.
    pub fn picture(&mut self) -> String {
        let is_waiting = self.is_waiting();
        let (seeds, by_hand) = match &self.drive {
            Drive::Hand(hand) => (
                Value::Null,
                json!({
                    "clients": hand.clients, "load": hand.load, "commit_us": hand.commit_us,
                    "is_stalled": hand.is_stalled, "is_stopped": hand.is_stopped,
                    "is_away": hand.returns_at_us > self.now_us(), "held": hand.held, "stage": if is_waiting { "" } else { hand.shown },
                }),
            ),
            Drive::Seed { steps_left, is_over } => {
                let strikes = self.world.scene.count_strikes();
                let strikes = Fault::ALL.iter().zip(strikes).filter(|(_, count)| *count > 0);
                let strikes: Vec<Value> = strikes
                    .map(|(fault, count)| json!({"fault": format!("{fault:?}"), "meaning": fault.meaning(), "count": count}))
                    .collect();
                (json!({"steps_left": steps_left, "is_over": is_over, "strikes": strikes}), Value::Null)
            }
        };
        let instances: Vec<Value> =
            (0..self.world.instances.len()).map(|index| self.instance(index)).collect();
        let peers = self.shown_peers();
        let peers: Vec<Value> = (0..peers).map(|index| self.peer(index)).collect();
        let sessions: Vec<Value> = (0..self.world.backends.len()).map(|index| self.session(index)).collect();
        let mut latencies_us: Vec<u64> = self.tally.latencies_us.iter().copied().collect();
        latencies_us.sort_unstable();
        let quantile = |per_mille: usize| latencies_us.get(latencies_us.len() * per_mille / 1_000);
        let answers = self.tally.answers.iter();
        let answers: Vec<Value> = answers
            .map(|((status, problem), count)| json!({"status": status, "problem": problem, "count": count}))
            .collect();
        let world = &self.world;
        let violation = world.scene.violation().map(|violation| {
            json!({
                "check": format!("{:?}", violation.check),
                "meaning": violation.check.meaning(), "text": violation.text,
            })
        });
        let config = &world.config;
        let foreign: Vec<i32> = world.postgres.foreign_locks().collect();
        let ledger = &world.postgres.ledger;
        let accounts: Vec<Value> = ledger
            .accounts
            .iter()
            .map(|(id, (limit, balance))| {
                json!({"id": id, "limit": limit, "balance": balance, "is_locked": foreign.contains(id)})
            })
            .collect();
        let rows: Vec<Value> = ledger
            .rows
            .iter()
            .rev()
            .take(ROWS_SHOWN)
            .map(|row| {
                json!({
                    "account": row.account, "description": row.description,
                    "value": row.value_cents, "balance": row.balance_cents,
                })
            })
            .collect();
        let picture = json!({
            "step": self.steps, "turn": self.turns(), "now_us": self.now_us(),
            "hash": format!("{:016x}", self.hash()), "is_over": self.is_over(), "violation": violation,
            "seed_world": seeds, "hand": by_hand,
            "config": {
                "lanes": config.lanes, "batch": config.batch_calls_max, "gather": config.gather_ms,
                "set": config.group_calls_min, "queue": config.queue_calls_max,
                "wait": config.queue_wait_max_ms,
            },
            "instances": instances, "peers": peers, "sessions": sessions,
            "accounts": accounts, "ledger": rows, "ledger_rows": ledger.rows.len(),
            "tally": {
                "answers": answers, "p50_us": quantile(500), "p99_us": quantile(990),
                "not_asked": self.tally.not_asked, "batch_calls": self.tally.batch_calls,
                "committed_calls": self.tally.committed_calls,
                "committed_batches": self.tally.committed_batches,
                "worked_us": self.tally.worked_us, "alone_us": self.tally.alone_us,
            },
            "told": self.told,
        });
        picture.to_string()
    }

    /// What went over the connection of a client, or of a lane of an instance, as JSON: the newest messages in hexadecimal.
    pub fn wire(&self, instance: usize, lane: Option<usize>, client: usize) -> String {
        let number = match lane {
            Some(lane) => {
                let network = self.world.instances.get(instance).map(|it| &it.event_loop.network);
                let lanes = self.world.config.lanes;
                let socket = network.filter(|_| lane < lanes).and_then(|network| network.lane_socket(lane));
                socket.map_or(0, |socket| socket.borrow().number)
            }
            None => self.world.peers.get(client).map_or(0, Peer::last_socket),
        };
        let Some(wire) = self.wires.get(&number) else {
            return json!({"messages": [], "forgotten": 0, "partial": [0, 0], "is_postgres": lane.is_some()})
                .to_string();
        };
        let messages: Vec<Value> = wire
            .messages
            .iter()
            .map(|message| {
                let mut hex = String::with_capacity(2 * message.bytes.len());
                for byte in &message.bytes {
                    let written = write!(hex, "{byte:02x}");
                    debug_assert!(written.is_ok(), "writing to memory does not fail");
                }
                json!({"at_us": message.at_us, "is_to_server": message.is_to_server, "hex": hex})
            })
            .collect();
        let (partial, is_postgres) = (wire.partial_bytes(), wire.is_postgres());
        let wire = json!({
            "socket": number, "messages": messages, "forgotten": wire.forgotten,
            "partial": partial, "is_postgres": is_postgres,
        });
        wire.to_string()
    }

    fn shown_peers(&self) -> usize {
        match &self.drive {
            Drive::Hand(hand) => hand.clients,
            Drive::Seed { .. } => self.world.peers.len(),
        }
    }

    fn peer(&mut self, index: usize) -> Value {
        let phase = phase(&mut self.world, index);
        let now_us = self.now_us();
        let last = self
            .tally
            .last_answers
            .get(&index)
            .map(|(status, problem)| json!({"status": status, "problem": problem}));
        let Some(view) = self.world.peers[index].view() else {
            return json!({"phase": phase, "asked": [], "last": last});
        };
        let socket = view.socket.borrow();
        let asked: Vec<String> = view.asked.iter().map(|expect| asked(expect)).collect();
        json!({
            "phase": phase, "asked": asked, "last": last, "is_shut": view.is_shut,
            "unsent_bytes": view.unsent_bytes,
            "waits_us": view.since_us.map(|since_us| now_us.saturating_sub(since_us)),
            "forth_bytes": socket.unread_bytes(), "back_bytes": socket.pending_bytes(),
        })
    }

    fn instance(&mut self, index: usize) -> Value {
        let is_stopping = self.world.instances[index].drained_by_us.is_some();
        // Which client a ticket is of: by the slot of its socket.
        let mut clients = BTreeMap::new();
        for peer in 0..self.world.peers.len() {
            let number = self.world.peers[peer].view().map(|view| view.socket.borrow().number);
            let network = &self.world.instances[index].event_loop.network;
            if let Some(slot) = number.and_then(|number| network.slot_of(number)) {
                clients.insert((slot.index, slot.generation), peer);
            }
        }
        let lanes: Vec<Value> = (0..self.world.config.lanes).map(|lane| self.lane(index, lane)).collect();
        let now_us = self.now_us();
        let config = &self.world.config;
        let engine = &mut self.world.instances[index].event_loop.engine;
        let tickets: Vec<Value> = engine
            .waiting()
            .take(TICKETS_SHOWN)
            .map(|ticket: &Ticket| {
                json!({
                    "number": ticket.number, "call": call(&ticket.call), "is_alone": ticket.is_alone,
                    "client": clients.get(&(ticket.slot.index, ticket.slot.generation)),
                    "attempts": ticket.attempts,
                })
            })
            .collect();
        let queued = engine.waiting().count();
        let gathers_until_us = engine.gathers_until_us();
        let lanes_ready = engine.lanes().iter().filter(|lane| lane.is_ready()).count();
        let lanes_free = engine.lanes().iter().filter(|lane| lane.can_take_batch(config)).count();
        let why = match (queued, lanes_ready, lanes_free, gathers_until_us) {
            (0, ..) => "Nothing waits.".to_owned(),
            (_, 0, ..) => "No lane is connected to PostgreSQL.".to_owned(),
            (_, _, 0, _) => "Every lane has a batch out. They gather for the next one.".to_owned(),
            (.., Some(until_us)) => format!(
                "A lane is free, but the batch before was larger: they wait for others to share their batch, for {} µs at most.",
                until_us.saturating_sub(now_us)
            ),
            (.., None) => "A lane is free: they go in the next stage advance.".to_owned(),
        };
        json!({"queue": tickets, "queued": queued, "why": why, "lanes": lanes, "is_stopping": is_stopping})
    }

    fn lane(&mut self, instance: usize, lane: usize) -> Value {
        let event_loop = &mut self.world.instances[instance].event_loop;
        let socket = event_loop.network.lane_socket(lane);
        let number = socket.as_ref().map(|socket| socket.borrow().number);
        let is_it = |backend: &&Backend| Some(backend.socket.borrow().number) == number;
        let session = self.world.backends.iter().find(is_it).map(|backend| backend.session);
        let on_the_way = session.map(|session| {
            let is_flushed = self.world.postgres.is_flushed(session);
            if is_flushed { self.world.postgres.sent(session).len() } else { 0 }
        });
        let of_lane = &event_loop.engine.lanes()[lane];
        let batches: Vec<Value> =
            of_lane.batches().map(|(calls, set_len, _)| json!({"calls": calls, "set": set_len})).collect();
        json!({
            "state": format!("{:?}", of_lane.metered_state()), "batches": batches,
            "held_answers": of_lane.held_answers(), "session": session,
            "forth_bytes": socket.as_ref().map_or(0, |socket| socket.borrow().pending_bytes()),
            "back_bytes": on_the_way.unwrap_or(0),
            "unread_bytes": socket.as_ref().map_or(0, |socket| socket.borrow().unread_bytes()),
        })
    }

    fn session(&mut self, index: usize) -> Value {
        let now_us = self.now_us();
        let backend = &self.world.backends[index];
        let view = self.world.postgres.view(backend.session);
        let uncommitted: Vec<Value> = view
            .uncommitted
            .iter()
            .map(|row| json!({"account": row.account, "description": row.description, "value": row.value_cents}))
            .collect();
        let work = self.world.postgres.next_work(backend.session);
        let does = match (view.waits, work) {
            (Some((account, since_us)), _) => {
                format!(
                    "waits for the row of account {account}, since {} µs",
                    now_us.saturating_sub(since_us)
                )
            }
            (None, None) => "waits for messages".to_owned(),
            (None, Some(_)) if backend.busy_until_us > now_us => {
                format!("works, for {} µs more", backend.busy_until_us - now_us)
            }
            (None, Some(_)) => "is about to work".to_owned(),
        };
        json!({
            "session": backend.session, "is_started": view.is_started, "is_cut": backend.is_cut,
            "has_failed": view.has_failed, "does": does, "locked": view.locked,
            "waits_for": view.waits.map(|(account, _)| account), "uncommitted": uncommitted,
            "received_bytes": view.received_bytes, "sent_bytes": view.sent_bytes,
        })
    }
}

/// The phase of a client, or that it has none.
fn phase(world: &mut World, peer: usize) -> &'static str {
    let Some(number) = world.peers[peer].view().map(|view| view.socket.borrow().number) else {
        return NOT_CONNECTED;
    };
    for instance in &mut world.instances {
        if let Some(slot) = instance.event_loop.network.slot_of(number) {
            return instance.event_loop.engine.client(slot).map_or("Closed", |client| client.phase_name());
        }
    }
    "In the backlog"
}

fn asked(expect: &Expect) -> String {
    match expect {
        Expect::Transaction { account, value_cents, .. } => {
            let kind = if *value_cents < 0 { "debit" } else { "credit" };
            format!("{kind} of {} on account {account}", value_cents.abs())
        }
        Expect::Statement { account } => format!("statement of account {account}"),
        Expect::Health => "health".to_owned(),
        Expect::UnknownAccount => "an account that does not exist".to_owned(),
        Expect::Refusal { status, .. } => format!("a request that is refused with {status}"),
        Expect::Violation { status } => format!("HTTP that is broken: {status}"),
    }
}

fn call(call: &Call) -> String {
    match call {
        Call::Transaction { account, transaction } => {
            let kind = match transaction.kind {
                Kind::Credit => "credit",
                Kind::Debit => "debit",
            };
            format!("{kind} of {} on account {account}", transaction.value_cents)
        }
        Call::Statement { account } => format!("statement of account {account}"),
    }
}
