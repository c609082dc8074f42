//! CORE: the batches in flight on one lane: how many fit, when each is overdue, and which calls ended without an answer.

use std::collections::VecDeque;

use crate::config::Config;
use crate::engine::lane::statements::Asked;
use crate::engine::ticket::{End, Ticket};

/// What was sent and has not ended.
pub(super) struct InFlight {
    /// One entry for each Sync that is not answered yet, oldest first.
    batches: VecDeque<Batch>,
    /// The tickets of the transactions that were sent as sets, oldest first; each batch has at most one set.
    sets: VecDeque<Ticket>,
    /// The calls that ended without an answer, those of a set one by one.
    ended: VecDeque<(Ticket, End)>,
}

/// The calls up to one Sync.
pub(super) struct Batch {
    /// With those of its set; 0 is a probe.
    pub(super) calls: usize,
    pub(super) set_len: usize,
    /// A probe that has read the accounts.
    pub(super) reads_accounts: bool,
    pub(super) deadline_us: u64,
}

impl InFlight {
    pub(super) fn new(config: &Config) -> InFlight {
        InFlight {
            batches: VecDeque::with_capacity(config.batches_in_flight_max + 1),
            sets: VecDeque::with_capacity(config.batch_calls_max * config.batches_in_flight_max),
            ended: VecDeque::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Whether there is room for another batch.
    pub(super) fn has_room(&self, config: &Config) -> bool {
        self.batches.len() < config.batches_in_flight_max
    }

    /// Whether a probe may be sent: there is room, and no other probe is in flight.
    pub(super) fn has_room_for_probe(&self, config: &Config) -> bool {
        self.has_room(config) && !self.has_probe()
    }

    /// Whether a probe is in flight.
    pub(super) fn has_probe(&self) -> bool {
        self.batches.iter().any(|batch| batch.calls == 0)
    }

    /// Calls that were sent and whose batch has not ended.
    pub(super) fn calls(&self) -> usize {
        self.batches.iter().map(|batch| batch.calls).sum()
    }

    /// When the oldest batch is overdue, in monotonic microseconds; never if there is none.
    pub(super) fn deadline_us(&self) -> u64 {
        self.batches.front().map_or(u64::MAX, |batch| batch.deadline_us)
    }

    /// The batches, oldest first.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn batches(&self) -> impl DoubleEndedIterator<Item = &Batch> {
        self.batches.iter()
    }

    /// A batch was sent; the tickets of its set, if it has one, were given to [`InFlight::push_of_set`].
    pub(super) fn push(&mut self, batch: Batch) {
        self.batches.push_back(batch);
    }

    /// This transaction is sent in the set of the next batch.
    pub(super) fn push_of_set(&mut self, ticket: Ticket) {
        self.sets.push_back(ticket);
    }

    /// The tickets of the oldest set, which has so many.
    pub(super) fn set(&self, len: usize) -> impl ExactSizeIterator<Item = &Ticket> + DoubleEndedIterator {
        self.sets.iter().take(len)
    }

    /// The oldest batch is committed.
    pub(super) fn commit(&mut self) -> Option<Batch> {
        let batch = self.batches.pop_front()?;
        self.sets.drain(..batch.set_len);
        Some(batch)
    }

    /// The oldest batch was rolled back. Each of its calls was given to [`InFlight::end`].
    pub(super) fn abort(&mut self) {
        self.batches.pop_front();
    }

    /// Notes the end of a call without an answer, or of each member of a set.
    pub(super) fn end(&mut self, asked: Asked, end: impl Fn() -> End) {
        match asked {
            Asked::Own(_) => {}
            Asked::Call(ticket) => self.ended.push_back((ticket, end())),
            Asked::Set { len } => self.ended.extend(self.sets.drain(..len).map(|ticket| (ticket, end()))),
        }
    }

    /// The next call that ended without an answer.
    pub(super) fn pop_ended(&mut self) -> Option<(Ticket, End)> {
        self.ended.pop_front()
    }
}
