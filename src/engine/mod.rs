//! CORE: clients on one side, lanes on the other. Holds the queues between them, makes the batches, acts on deadlines
//! and refuses calls when too many wait.

pub mod client;
pub mod clients;
pub mod drain_rate;
pub mod freshness;
mod health;
pub mod lane;
pub mod logged_problems;
pub mod queue;
mod reader;
pub mod ticket;

use core::net::SocketAddr;
use std::collections::VecDeque;
use std::fmt::Display;

use proto_pg::{CloseReason, ConnectStep};

use crate::bank::{Accounts, Call, ListenerKind, Outcome, Reject, Unavailable};
use crate::config::Config;
use crate::engine::client::{AfterSend, Client, Context};
use crate::engine::clients::Clients;
use crate::engine::freshness::Freshness;
use crate::engine::health::Health;
use crate::engine::lane::session::{History, takes_no_writes, why_down};
use crate::engine::lane::{Lane, LaneEvent};
use crate::engine::queue::Queue;
use crate::engine::ticket::Ticket;
use crate::http::response;
use crate::metrics::Metrics;
use crate::now::Now;
use crate::slots::Slot;

/// The core of one instance.
///
/// A turn of the shell: it moves received bytes into clients and lanes, says which clients are due, calls
/// [`Engine::advance`], sends what is pending, calls [`Engine::expire`], and removes the clients that are closed.
///
/// The way of a call: client, queue, batch, lane, held answer, client. It ends exactly once: answered after its commit, or
/// unavailable with a reason. A transaction that may have been committed is never sent again.
pub struct Engine {
    context: Context,
    clients: Clients,
    /// The lanes to the primary. Last the reader, if there is one: a lane to a standby, which answers bank statements.
    lanes: Vec<Lane>,
    /// The calls that wait for each lane: together at most `queue_calls_max` new ones. Calls that a lane gives back may exceed
    /// this, since they were admitted before.
    queues: Vec<Queue>,
    /// The batch that is being made. Otherwise empty; a field, so that no batch allocates.
    gathered: Vec<Ticket>,
    /// Whether the reader's statements are young enough.
    freshness: Freshness,
    /// Statements that the reader could not answer, which now go to a lane to the primary. Empty between two stages.
    sent_on: Vec<Ticket>,
    next_number: u64,
    next_sweep_us: u64,
    health: Health,
    /// The newest timeline that a server has reported. A server with an older one was replaced.
    history: Option<History>,
    /// The servers that a lane has just found to be useless: the other lanes are about to leave them. Nearly always empty.
    to_leave: VecDeque<Leave>,
    /// A client has left since the queues were last searched for calls whose clients have left.
    has_client_left: bool,
}

/// Which servers the lanes have to leave.
enum Leave {
    /// The one on this host, which takes no writes.
    Host(usize, CloseReason),
    /// Those on an older timeline than the newest.
    OlderTimelines,
}

/// What an engine holds, for the checks of the simulation.
#[cfg(any(test, feature = "sim"))]
#[derive(Debug)]
pub(crate) struct Census {
    pub(crate) clients: usize,
    /// Calls that wait for a lane, without those that were rolled back.
    pub(crate) queued: usize,
    /// Calls that were rolled back and wait for a lane.
    pub(crate) again: usize,
    /// Calls that each lane has sent.
    pub(crate) in_flight: Vec<usize>,
    pub(crate) lanes_ready: usize,
    pub(crate) is_reader_missing: bool,
    /// The most bytes that are pending for one client.
    pub(crate) outbox_len_max_bytes: usize,
}

/// How often the deadlines of all clients are checked, so a deadline is late by at most this. A pass costs microseconds; an
/// ordered structure would cost something on every request.
const SWEEP_INTERVAL_MS: u64 = 100;

impl Engine {
    /// An engine whose lanes want to connect. `seed` is for jitter alone.
    pub fn new(config: Config, seed: u64, now: Now) -> Engine {
        let lanes = (0..config.lanes as u64).map(|lane| Lane::new(&config, seed.wrapping_add(lane)));
        let reader = config.database_read.as_ref();
        let reader = reader.map(|database| Lane::reader(database, &config, seed.wrapping_sub(1)));
        Engine {
            clients: Clients::new(config.clients_max),
            lanes: lanes.chain(reader).collect(),
            queues: (0..config.sessions()).map(|_| Queue::new(config.queue_calls_max)).collect(),
            gathered: Vec::with_capacity(config.batch_calls_max),
            freshness: Freshness::default(),
            sent_on: Vec::new(),
            next_number: 0,
            next_sweep_us: now.monotonic_us,
            health: Health::new(now),
            history: None,
            to_leave: VecDeque::new(),
            has_client_left: false,
            context: Context {
                config,
                accounts: Accounts::default(),
                problem: Some(Unavailable::DatabaseDown),
                is_draining: false,
                date: response::date_at(now.unix_s),
                now,
                metrics: Metrics::since(now.unix_s),
                scratch: Vec::new(),
            },
        }
    }

    /// The settings it runs with.
    pub fn config(&self) -> &Config {
        &self.context.config
    }

    /// What it counts.
    pub fn metrics(&mut self) -> &mut Metrics {
        &mut self.context.metrics
    }

    /// Whether another connection would be taken in.
    pub fn can_accept(&self) -> bool {
        !self.clients.is_full()
    }

    /// Takes in a connection. `None` when there are `clients_max` already.
    pub fn accept(&mut self, kind: ListenerKind, now: Now) -> Option<Slot> {
        let mut client = Client::new(kind, &self.context.config, now);
        if self.context.is_draining {
            client.drain(now.after_ms(self.context.config.drain_idle_ms));
        }
        let slot = self.clients.insert(client)?;
        self.context.metrics.connections_accepted += 1;
        Some(slot)
    }

    /// The client of a slot, for its bytes. `None` once it was removed.
    pub fn client(&mut self, slot: Slot) -> Option<&mut Client> {
        self.clients.get_mut(slot)
    }

    /// Something happened to this client: it takes part in this turn.
    pub fn mark_due(&mut self, slot: Slot) {
        self.clients.mark_due(slot);
    }

    /// Moves the due clients into `into`, which is overwritten. Those that still have something to do are to be marked
    /// again.
    pub fn take_due(&mut self, into: &mut Vec<Slot>) {
        self.clients.take_due(into);
    }

    /// Whether a client is due already, so that the next turn must not wait.
    pub fn has_due(&self) -> bool {
        !self.clients.due().is_empty()
    }

    /// What to do with a client's socket after a send. `now` is called only if a wait begins.
    pub fn after_send(&mut self, slot: Slot, now: impl Fn() -> Now) -> AfterSend {
        let client = self.clients.get_mut(slot);
        client.map_or(AfterSend::Close, |client| client.after_send(&self.context.config, now))
    }

    /// Frees a client's slot. What the database still answers for it is counted and dropped.
    pub fn remove(&mut self, slot: Slot) {
        self.clients.remove(slot);
        self.has_client_left = true;
        self.context.metrics.connections_open = self.clients.len() as u64;
    }

    /// The lanes to the primary.
    fn writers(&self) -> &[Lane] {
        &self.lanes[..self.context.config.lanes]
    }

    /// The position of the reader, if there is one.
    fn reader(&self) -> Option<usize> {
        (self.lanes.len() > self.context.config.lanes).then_some(self.context.config.lanes)
    }

    /// The lanes and the reader, for their sockets and bytes.
    pub fn lanes(&mut self) -> &mut [Lane] {
        &mut self.lanes
    }

    /// Whether a lane's socket has ended, which the next turn has to handle without a wait.
    pub fn has_ended_lane(&self) -> bool {
        self.lanes.iter().any(Lane::has_ended)
    }

    /// The next lane that wants a name looked up or a socket connected; it is connecting from now on.
    pub fn poll_connect(&mut self, now: Now) -> Option<(usize, ConnectStep)> {
        if self.context.is_draining && self.clients.is_empty() {
            return None;
        }
        for index in 0..self.lanes.len() {
            while self.lanes[index].wants_step(now) {
                // The reader has hosts of its own.
                let served = self.writers().iter().find_map(Lane::served_host);
                let served = served.filter(|_| self.reader() != Some(index));
                let lane = &mut self.lanes[index];
                let Some(step) = lane.poll_step(served, now) else { break };
                match step {
                    ConnectStep::Wait { error, .. } => {
                        if let Some(error) = error {
                            lane.log_failed_round(index, &error, now);
                        }
                    }
                    ConnectStep::Resolve { .. } => return Some((index, step)),
                    ConnectStep::Connect(_) => {
                        self.context.metrics.lane_connects += 1;
                        return Some((index, step));
                    }
                }
            }
        }
        None
    }

    /// The name that a lane wanted looked up has these addresses.
    pub fn lane_resolved(&mut self, index: usize, addresses: Vec<SocketAddr>) {
        self.lanes[index].resolved(addresses);
    }

    /// A lane's socket is connected.
    pub fn lane_connected(&mut self, index: usize, now: Now) {
        self.lanes[index].connected(&self.context.config, now);
    }

    /// A lane's look-up or attempt to connect failed.
    pub fn lane_connect_failed(&mut self, index: usize, problem: impl Display) {
        self.context.metrics.lane_closes += 1;
        if self.reader() != Some(index) {
            self.health.ended(Unavailable::DatabaseDown);
        }
        self.lanes[index].connect_failed(problem);
    }

    /// Ends every connection after its current request, and idle ones soon.
    pub fn drain(&mut self, now: Now) {
        self.context.is_draining = true;
        let deadline_us = now.after_ms(self.context.config.drain_idle_ms);
        self.clients.iter_mut().for_each(|client| client.drain(deadline_us));
    }

    /// Whether every client has left.
    pub fn is_drained(&self) -> bool {
        self.clients.is_empty()
    }

    /// The next deadline of a lane, a queue or a client, in monotonic microseconds.
    pub fn deadline_us(&self) -> u64 {
        let sweep_us = if self.clients.is_empty() { u64::MAX } else { self.next_sweep_us };
        let lanes = self.lanes.iter().map(|lane| lane.deadline_us(&self.context.config));
        let queues = self.queues.iter().enumerate().map(|(index, queue)| {
            let gathers_until_us = queue.gathers_until_us(&self.context.config);
            let gather_us = gathers_until_us.filter(|_| self.lane_for(index).is_some());
            queue.send_deadline_us().min(gather_us.unwrap_or(u64::MAX))
        });
        sweep_us.min(lanes.min().unwrap_or(u64::MAX)).min(queues.min().unwrap_or(u64::MAX))
    }

    /// One step of everything: results to clients, requests to the queue, the queue to the lanes.
    // Out of line, so that profiles name it.
    #[inline(never)]
    pub fn advance(&mut self, now: Now) {
        self.set_now(now);
        for index in 0..self.lanes.len() {
            self.take_lane_events(index);
        }
        self.note_lanes();
        self.send_on();
        self.serve_due_clients();
        self.send_batches();
    }

    /// Acts on the deadlines of lanes, calls and clients that had passed when the last poll of the sockets began. It leaves out
    /// readable lanes (`is_lane_readable`) and due clients: their sockets may hold what they wait for, and the next turn, which
    /// begins at once, reads it first. Returns whether more clients became due, which have something to send.
    pub fn expire(&mut self, now: Now, is_lane_readable: impl Fn(usize) -> bool) -> bool {
        self.set_now(now);
        let due_before = self.clients.due().len();
        for index in 0..self.lanes.len() {
            if self.lanes[index].is_due(|| is_lane_readable(index), &self.context.config, now) {
                if self.lanes[index].is_connect_overdue(now) {
                    self.lane_connect_failed(
                        index,
                        "no answer within CONNECT_TIMEOUT_MS, or connect_timeout of the URL",
                    );
                }
                let reads_accounts = self.reads_accounts(index);
                self.lanes[index].expire(reads_accounts, &self.context.config, now);
                self.take_lane_events(index);
            }
        }
        self.note_lanes();
        self.give_up_late_calls();
        if self.send_on() {
            // Otherwise they would wait for the next event or deadline.
            self.send_batches();
        }
        self.sweep();
        self.set_gauges();
        self.clients.due().len() > due_before
    }

    fn set_now(&mut self, now: Now) {
        if self.context.now.unix_s != now.unix_s {
            self.context.date = response::date_at(now.unix_s);
        }
        self.context.now = now;
    }

    /// Whether the probes of this lane read the accounts: one lane is enough to find new ones.
    fn reads_accounts(&self, lane: usize) -> bool {
        self.writers().iter().position(Lane::is_ready) == Some(lane)
    }

    /// Acts on the lanes' events: leaves servers that are useless, and notes whether the database serves.
    fn note_lanes(&mut self) {
        if !self.to_leave.is_empty() {
            self.leave_servers();
        }
        let is_one_ready = self.writers().iter().any(Lane::is_ready);
        let is_one_serving = self.writers().iter().any(Lane::is_serving);
        if self.health.note_lanes(is_one_ready, self.context.now) {
            // The next database may be slower or faster, and an outage says nothing about its drain rate.
            self.queues.iter_mut().for_each(Queue::forget_rate);
        }
        self.context.problem = self.health.problem(is_one_serving);
    }

    fn take_lane_events(&mut self, index: usize) {
        if self.reader() == Some(index) {
            self.take_reader_events(index);
            return;
        }
        let now = self.context.now;
        let lane = &mut self.lanes[index];
        while let Some(event) = lane.poll_event(&self.context.config, now) {
            match event {
                LaneEvent::Placed(history) => {
                    if history.is_lost_in_failover {
                        log::warn!(
                            "the server has standbys, but tables of the bank are UNLOGGED: they are empty after a failover. \
                             Apply sql/durable/*.sql"
                        );
                    }
                    match &self.history {
                        Some(newest) if history.is_older_than(newest) => lane.leave_old_timeline(newest),
                        Some(newest) if history.is_same_as(newest) => {}
                        Some(_) | None => {
                            self.history = Some(history);
                            self.health.forget_failures();
                            self.to_leave.push_back(Leave::OlderTimelines);
                        }
                    }
                }
                LaneEvent::Ready(accounts) => {
                    log::info!("lane {index} is ready; the bank has {} accounts", accounts.len());
                    self.context.accounts = accounts;
                }
                LaneEvent::Position(position, asked_us) => {
                    // A lane that leaves an old primary does not know the position of the new one.
                    if let Some(position) = position
                        && lane.served_host().is_some()
                    {
                        self.freshness.primary_is_at(position, asked_us, &self.context.config);
                    }
                }
                LaneEvent::Probed(account_ids) => {
                    if let Some(ids) = account_ids
                        && !self.context.accounts.are(&ids)
                    {
                        log::info!("the bank has {} accounts", ids.len());
                        self.context.accounts = Accounts::new(ids);
                    }
                    self.health.probed(now);
                }
                LaneEvent::Answered(ticket, outcome) => {
                    if let Call::Transaction { .. } = ticket.call {
                        self.health.forget_failures();
                    }
                    self.clients.deliver(ticket.slot, outcome, &mut self.context);
                }
                LaneEvent::RunAgain(ticket) => {
                    self.context.metrics.calls_run_again += 1;
                    self.queues[lane_of(&ticket.call, self.context.config.lanes)].put_back(ticket);
                }
                LaneEvent::Unavailable(ticket, reason) => {
                    if reason == Unavailable::Failed {
                        let hold_until_us = now.after_ms(self.context.config.probe_interval_ms);
                        self.health.call_failed(ticket.call.account(), hold_until_us);
                    }
                    let outcome = Outcome::Rejected(Reject::Unavailable(reason));
                    self.clients.deliver(ticket.slot, outcome, &mut self.context);
                }
                LaneEvent::Closed { reason, was_ready } => {
                    self.context.metrics.lane_closes += 1;
                    self.health.ended(why_down(&reason));
                    if was_ready {
                        lane.log_end_of_session(index, &reason, now);
                        if let CloseReason::TimedOut = reason {
                            // The next session has as long to fall silent before a probe of it counts.
                            let Config { answer_timeout_ms, probe_interval_ms, .. } = self.context.config;
                            self.health.fell_silent(now.after_ms(answer_timeout_ms + probe_interval_ms));
                        }
                        if takes_no_writes(&reason) {
                            self.to_leave.push_back(Leave::Host(lane.last_host(), reason));
                        }
                    }
                }
            }
        }
    }

    /// Makes every lane leave the servers that one of them has found to be replaced or to take no writes.
    // Out of line: it is rare, and moves much.
    #[inline(never)]
    fn leave_servers(&mut self) {
        while let Some(leave) = self.to_leave.pop_front() {
            match (&leave, &self.history) {
                (Leave::OlderTimelines, Some(newest)) => {
                    self.lanes.iter_mut().for_each(|lane| lane.leave_old_timeline(newest));
                }
                (Leave::OlderTimelines, None) => {}
                (Leave::Host(host, reason), _) => {
                    let writers = &mut self.lanes[..self.context.config.lanes];
                    let on_host = writers.iter_mut().filter(|lane| lane.served_host() == Some(*host));
                    on_host.for_each(|lane| lane.leave(reason));
                }
            }
            (0..self.lanes.len()).for_each(|index| self.take_lane_events(index));
            if let Leave::OlderTimelines = leave {
                self.freshness.forget_primary();
            }
        }
    }

    /// Answers the calls that have waited too long. They did not run.
    fn give_up_late_calls(&mut self) {
        let reason = self.health.why_down().unwrap_or(Unavailable::QueueTimeout);
        let lanes = self.context.config.lanes;
        for (index, queue) in self.queues.iter_mut().enumerate() {
            while let Some(ticket) = queue.pop_late(self.context.now) {
                if index == lanes {
                    self.sent_on.push(ticket);
                    continue;
                }
                let outcome = Outcome::Rejected(Reject::Unavailable(reason));
                self.clients.deliver(ticket.slot, outcome, &mut self.context);
            }
        }
    }

    fn sweep(&mut self) {
        let now = self.context.now;
        if !now.is_past(self.next_sweep_us) {
            return;
        }
        self.next_sweep_us = now.after_ms(SWEEP_INTERVAL_MS);
        self.clients.expire(&mut self.context);
    }

    fn serve_due_clients(&mut self) {
        for index in 0..self.clients.due().len() {
            let slot = self.clients.due()[index];
            while let Some(client) = self.clients.get_mut(slot)
                && let Some(call) = client.advance(&mut self.context)
            {
                let lane = match (call, self.reader()) {
                    (Call::Statement { .. }, Some(reader)) if self.can_read(reader) => reader,
                    (_, _) => lane_of(&call, self.context.config.lanes),
                };
                self.ask(lane, slot, call);
            }
        }
    }

    /// Puts a call into this queue, or answers 503.
    fn ask(&mut self, lane: usize, slot: Slot, call: Call) {
        match self.admit(lane) {
            Ok(()) => self.enqueue(lane, slot, call),
            Err(reason) => {
                let outcome = Outcome::Rejected(Reject::Unavailable(reason));
                self.clients.deliver(slot, outcome, &mut self.context);
            }
        }
    }

    /// Whether one more call may wait for this lane; otherwise the reason for its 503.
    fn admit(&mut self, lane: usize) -> Result<(), Unavailable> {
        let config = &self.context.config;
        let timeout_us = config.queue_timeout_ms.saturating_mul(1_000);
        if let Some(reason) = self.health.why_down_for(timeout_us, self.context.now)
            && lane < config.lanes
        {
            Err(reason)
        } else if self.queues[lane].is_behind(config) || self.are_queues_full() {
            Err(Unavailable::QueueFull)
        } else {
            Ok(())
        }
    }

    /// Whether the queues are at their limit, after calls whose clients have left were dropped.
    fn are_queues_full(&mut self) -> bool {
        let calls_max = self.context.config.queue_calls_max;
        if self.queued_calls() >= calls_max && std::mem::take(&mut self.has_client_left) {
            let waiting = self.queued_calls();
            for queue in &mut self.queues {
                queue.retain(|ticket| self.clients.is_awaiting(ticket.slot));
            }
            self.context.metrics.calls_abandoned += (waiting - self.queued_calls()) as u64;
        }
        self.queued_calls() >= calls_max
    }

    fn queued_calls(&self) -> usize {
        self.queues.iter().map(Queue::len).sum()
    }

    fn enqueue(&mut self, lane: usize, slot: Slot, call: Call) {
        let ticket = Ticket {
            number: self.next_number,
            slot,
            call,
            send_deadline_us: self.context.now.after_ms(self.context.config.queue_timeout_ms),
            attempts: 0,
            spoilt_sessions: 0,
            is_alone: false,
        };
        self.queues[lane].push(ticket, self.context.now.after_ms(self.context.config.gather_ms));
        self.next_number += 1;
    }

    /// Gives every free lane the calls that wait for it, as one batch, unless a batch is still gathering.
    fn send_batches(&mut self) {
        for index in 0..self.queues.len() {
            while !self.queues[index].is_empty()
                && let Some(lane) = self.lane_for(index)
            {
                let gathers_until_us = self.queues[index].gathers_until_us(&self.context.config);
                if gathers_until_us.is_some_and(|until_us| !self.context.now.is_past(until_us)) {
                    break;
                }
                self.gather_batch(index);
                if self.gathered.is_empty() {
                    break;
                }
                let reads_accounts = self.reads_accounts(lane);
                let Context { config, now, .. } = &self.context;
                self.lanes[lane].send_batch(&self.gathered, reads_accounts, config, *now);
                self.queues[index].record_batch(self.gathered.len(), &self.context.config, self.context.now);
                self.context.metrics.record_batch(self.gathered.len() as u64);
                self.gathered.clear();
            }
        }
    }

    /// The lane that takes a batch of this queue now: its own, or any other while its own has no session.
    fn lane_for(&self, queue: usize) -> Option<usize> {
        let config = &self.context.config;
        if self.lanes[queue].served_host().is_some() || self.reader() == Some(queue) {
            self.lanes[queue].can_take_batch(config).then_some(queue)
        } else {
            self.writers().iter().position(|lane| lane.can_take_batch(config))
        }
    }

    /// Takes the next batch off a queue. A call that was rolled back goes first, and alone.
    fn gather_batch(&mut self, queue: usize) {
        let calls_max = self.context.config.batch_calls_max;
        while self.gathered.is_empty()
            && let Some(ticket) = self.queues[queue].pop_alone()
        {
            self.gather(ticket);
        }
        if !self.gathered.is_empty() {
            return;
        }
        while self.gathered.len() < calls_max
            && let Some(ticket) = self.queues[queue].pop()
        {
            self.gather(ticket);
        }
        if let [only] = self.gathered.as_mut_slice() {
            only.is_alone = true;
        }
        // ANCHOR: sort
        // All lanes of all instances lock the accounts' rows in the same order, so no two batches deadlock. Within one
        // account the order is that of arrival.
        self.gathered.sort_unstable_by_key(|ticket| (ticket.call.account(), ticket.number));
        // ANCHOR_END: sort
    }

    /// Adds a call to the batch, unless its client has left and no one awaits the outcome.
    fn gather(&mut self, ticket: Ticket) {
        if self.clients.is_awaiting(ticket.slot) {
            self.gathered.push(Ticket { attempts: ticket.attempts + 1, ..ticket });
        } else {
            self.context.metrics.calls_abandoned += 1;
        }
    }

    /// The calls that wait for a lane, in the order in which they will go.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &Ticket> {
        self.queues.iter().flat_map(Queue::calls)
    }

    /// When the first gathering of a batch ends, in monotonic microseconds; `None` if no batch is gathering.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn gathers_until_us(&self) -> Option<u64> {
        let free = (0..self.queues.len()).filter(|index| self.lane_for(*index).is_some());
        free.filter_map(|index| self.queues[index].gathers_until_us(&self.context.config)).min()
    }

    /// What it holds, for the checks of the simulation.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn census(&mut self) -> Census {
        use crate::buf::Pipe as _;
        // Calls that a lane gave back: rolled back, or from a server that takes no writes.
        let again = self.waiting().filter(|ticket| ticket.is_alone || ticket.spoilt_sessions > 0).count();
        let outboxes = self.clients.iter_mut().map(|client| client.send_pending().len());
        Census {
            outbox_len_max_bytes: outboxes.max().unwrap_or(0),
            clients: self.clients.len(),
            queued: self.queued_calls() - again,
            again,
            in_flight: self.lanes.iter().map(Lane::in_flight_calls).collect(),
            lanes_ready: self.writers().iter().filter(|lane| lane.is_ready()).count(),
            is_reader_missing: self.reader().is_some_and(|reader| !self.lanes[reader].is_ready()),
        }
    }

    fn set_gauges(&mut self) {
        let metrics = &mut self.context.metrics;
        metrics.connections_open = self.clients.len() as u64;
        metrics.calls_queued = self.queues.iter().map(|queue| queue.len() as u64).sum();
        metrics.calls_in_flight = self.lanes.iter().map(|lane| lane.in_flight_calls() as u64).sum();
        metrics.set_lanes(self.lanes[..self.context.config.lanes].iter().map(Lane::metered_state));
    }
}

/// The queue, and so the lane, of a call. All calls of one account share a lane: in a second lane they would only wait for the
/// lock of the account's row, while they hold the locks of their own batch.
fn lane_of(call: &Call, lanes: usize) -> usize {
    call.account().unsigned_abs() as usize % lanes
}

#[cfg(test)]
mod tests;
