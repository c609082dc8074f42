//! CORE: the calls that wait for one lane, and when they are sent: as soon as it is free, unless a batch is gathering.

use std::collections::VecDeque;

use crate::config::Config;
use crate::engine::drain_rate::DrainRate;
use crate::engine::ticket::Ticket;
use crate::now::Now;

/// Calls that wait for a lane. The owner limits their number.
pub struct Queue {
    /// Oldest first.
    calls: VecDeque<Ticket>,
    /// Calls that were rolled back, oldest first. They go before all others, each in a batch of its own.
    alone: VecDeque<Ticket>,
    pub(super) drain_rate: DrainRate,
    /// The size of the last batch. The next one gathers as many.
    last_batch_calls: usize,
    /// When gathering ends for the oldest of `calls`, in monotonic microseconds.
    gather_deadline_us: u64,
}

impl Queue {
    /// An empty queue, allocated for `calls_max` calls.
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

    /// Adds a new call. If it is the first, gathering ends at the deadline, in monotonic microseconds.
    pub fn push(&mut self, ticket: Ticket, gather_deadline_us: u64) {
        if self.calls.is_empty() {
            self.gather_deadline_us = gather_deadline_us;
        }
        self.calls.push_back(ticket);
    }

    /// Takes a call back from a lane: to run alone, or among the others. Either way the oldest, which has the first deadline, goes
    /// first.
    pub fn put_back(&mut self, ticket: Ticket) {
        let calls = if ticket.is_alone { &mut self.alone } else { &mut self.calls };
        let place = calls.partition_point(|other| other.number < ticket.number);
        calls.insert(place, ticket);
    }

    /// The next call that runs alone.
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

    /// Keeps only the calls for which `is_kept` is true, and those that run alone.
    pub fn retain(&mut self, is_kept: impl FnMut(&Ticket) -> bool) {
        self.calls.retain(is_kept);
    }

    /// When the first call will have waited too long, in monotonic microseconds.
    pub fn send_deadline_us(&self) -> u64 {
        let first =
            |calls: &VecDeque<Ticket>| calls.front().map_or(u64::MAX, |ticket| ticket.send_deadline_us);
        first(&self.alone).min(first(&self.calls))
    }

    /// Until when the batch gathers more calls although the lane is free, in monotonic microseconds; `None` if it does not.
    ///
    /// Clients whose answers left together send their next requests within some 100 µs of each other. Sent at once, the first
    /// call would be a batch of its own, and the others would wait for its commit. The fixed cost of a batch is about that of
    /// thirty calls in it. After a batch of fewer than `group_calls_min` calls nothing gathers: few calls would join, and latency
    /// counts.
    pub fn gathers_until_us(&self, config: &Config) -> Option<u64> {
        let is_gathering = self.alone.is_empty()
            && !self.calls.is_empty()
            && self.calls.len() < self.last_batch_calls
            && self.last_batch_calls >= config.group_calls_min;
        is_gathering.then_some(self.gather_deadline_us)
    }

    /// Notes that a batch of `calls` calls was sent.
    pub fn record_batch(&mut self, calls: usize, config: &Config, now: Now) {
        self.last_batch_calls = calls;
        let (is_full, leaves_some) = (calls >= config.batch_calls_max, !self.calls.is_empty());
        self.drain_rate.record_batch(calls, is_full, leaves_some, now.monotonic_us);
    }

    /// Whether a new call would wait longer than `queue_wait_max_ms`, by the drain rate. One batch may always wait.
    ///
    /// An immediate 503 is better than a late one: the client can try another instance. The number of calls alone cannot
    /// decide it: a thousand take 70 ms in one database and 2 s in another.
    pub fn is_behind(&self, config: &Config) -> bool {
        let wait_max_us = config.queue_wait_max_ms.saturating_mul(1_000);
        self.len() >= config.batch_calls_max
            && self.drain_rate.wait_us(self.len()).is_some_and(|us| us > wait_max_us)
    }

    /// Drops the drain rate: the next session may be with another database.
    pub fn forget_rate(&mut self) {
        self.drain_rate = DrainRate::default();
    }

    /// The calls, in the order in which they will go.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn calls(&self) -> impl Iterator<Item = &Ticket> {
        self.alone.iter().chain(&self.calls)
    }
}
