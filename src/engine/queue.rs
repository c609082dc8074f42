//! CORE: the calls that wait for one lane, and when they go: as soon as it is free, unless more are worth waiting for.

use std::collections::VecDeque;

use crate::config::Config;
use crate::engine::drain_rate::DrainRate;
use crate::engine::ticket::Ticket;
use crate::now::Now;

/// Calls that wait for a lane. How many they may be is the owner's to say.
pub struct Queue {
    /// Oldest first.
    calls: VecDeque<Ticket>,
    /// Calls that were rolled back and go before all others, one to a batch.
    alone: VecDeque<Ticket>,
    pub(super) drain_rate: DrainRate,
    /// Calls of the newest batch: as many are gathered for the next one.
    last_batch_calls: usize,
    /// When the oldest of `calls` stops waiting for others to share its batch, in monotonic microseconds.
    gather_deadline_us: u64,
}

impl Queue {
    /// An empty queue, with room for so many calls.
    pub fn new(calls_max: usize) -> Queue {
        Queue {
            calls: VecDeque::with_capacity(calls_max),
            alone: VecDeque::new(),
            drain_rate: DrainRate::default(),
            last_batch_calls: 0,
            gather_deadline_us: 0,
        }
    }

    /// Calls that wait.
    pub fn len(&self) -> usize {
        self.calls.len() + self.alone.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A new call joins. If it is the first, it waits for others until the deadline, in monotonic microseconds.
    pub fn push(&mut self, ticket: Ticket, gather_deadline_us: u64) {
        if self.calls.is_empty() {
            self.gather_deadline_us = gather_deadline_us;
        }
        self.calls.push_back(ticket);
    }

    /// A call comes back from a lane: to go by itself, or in company, ahead of all that came later.
    pub fn put_back(&mut self, ticket: Ticket) {
        if ticket.is_alone {
            self.alone.push_back(ticket);
        } else {
            let place = self.calls.partition_point(|other| other.number < ticket.number);
            self.calls.insert(place, ticket);
        }
    }

    /// The next call that goes by itself.
    pub fn pop_alone(&mut self) -> Option<Ticket> {
        self.alone.pop_front()
    }

    /// The next of the others.
    pub fn pop(&mut self) -> Option<Ticket> {
        self.calls.pop_front()
    }

    /// The next call that has waited too long.
    pub fn pop_late(&mut self, now: Now) -> Option<Ticket> {
        let is_late = |ticket: &mut Ticket| now.is_past(ticket.send_deadline_us);
        self.alone.pop_front_if(is_late).or_else(|| self.calls.pop_front_if(is_late))
    }

    /// Drops the calls that need not go by themselves and of which this is not true.
    pub fn retain(&mut self, is_kept: impl FnMut(&Ticket) -> bool) {
        self.calls.retain(is_kept);
    }

    /// When the first call will have waited too long, in monotonic microseconds.
    pub fn send_deadline_us(&self) -> u64 {
        let first =
            |calls: &VecDeque<Ticket>| calls.front().map_or(u64::MAX, |ticket| ticket.send_deadline_us);
        first(&self.alone).min(first(&self.calls))
    }

    /// Until when the calls wait for others to share their batch although the lane is free, in monotonic microseconds. `None` if
    /// they don't.
    ///
    /// Clients whose answers went out together ask again within a moment of each other. Sent at once, the first of them
    /// would go alone, and the others would wait until it is committed; a batch costs PostgreSQL about as much as thirty
    /// more calls in it. After a small batch nothing waits: then there is no crowd, and the latency of one call counts.
    pub fn gathers_until_us(&self, config: &Config) -> Option<u64> {
        let is_gathering = self.alone.is_empty()
            && !self.calls.is_empty()
            && self.calls.len() < self.last_batch_calls
            && self.last_batch_calls >= config.group_calls_min;
        is_gathering.then_some(self.gather_deadline_us)
    }

    /// Notes that a batch of so many calls has left.
    pub fn record_batch(&mut self, calls: usize, config: &Config, now: Now) {
        self.last_batch_calls = calls;
        let (is_full, leaves_some) = (calls >= config.batch_calls_max, !self.calls.is_empty());
        self.drain_rate.record_batch(calls, is_full, leaves_some, now.monotonic_us);
    }

    /// Whether a call that joins would be given up before its turn, as far as the drain rate tells. One batch may always wait.
    ///
    /// A refusal at once is worth more than one after a long wait: the client knows where it stands, and PostgreSQL works for
    /// those who still wait. The number of calls alone does not tell: a thousand are 70 ms to one database and 2 s to another.
    pub fn is_behind(&self, config: &Config) -> bool {
        let wait_max_us = config.queue_wait_max_ms.saturating_mul(1_000);
        self.len() >= config.batch_calls_max
            && self.drain_rate.wait_us(self.len()).is_some_and(|us| us > wait_max_us)
    }

    /// Another database may come: how fast this one was says nothing.
    pub fn forget_rate(&mut self) {
        self.drain_rate = DrainRate::default();
    }

    /// The calls, in the order in which they will go.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn calls(&self) -> impl Iterator<Item = &Ticket> {
        self.alone.iter().chain(&self.calls)
    }
}
