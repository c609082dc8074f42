//! The ledger of what was asked and not yet answered: tickets in order, grouped into batches by their Sync.
//!
//! The server answers strictly in order, so a queue of tickets and a queue of batch lengths say whose answer any
//! message is. This file decides each ticket's fate; it knows no bytes.
//!
//! Rules: PostgreSQL documentation, "Frontend/Backend Protocol", sections Extended Query and Pipelining.

use crate::error::ServerError;
use std::collections::VecDeque;

/// Every unanswered ticket, in the order of the calls.
pub(crate) struct Flight<T> {
    /// The tickets of all batches, oldest first; those with Done stay until their batch ends.
    tickets: VecDeque<T>,
    /// Oldest first. The sum of their `tickets_len` is `tickets.len()`. Only the newest can be open.
    batches: VecDeque<Batch>,
    /// How far the server is with the oldest batch.
    progress: Progress,
    tickets_max: usize,
}

/// A run of calls that share one implicit transaction.
struct Batch {
    tickets_len: usize,
    /// The stream position just behind this batch's Sync; `None` while the batch is open.
    sync_end: Option<u64>,
}

/// The state of the oldest batch.
enum Progress {
    /// The first `done` tickets have completed; `bound` says that the next one's Bind has too.
    Running { done: usize, bound: bool },
    /// One ticket failed and is gone from the ledger, or, with `unblamed`, the batch failed as a whole. The server
    /// skips everything up to the Sync.
    Failed { unblamed: Option<ServerError> },
    /// The failed batch has ended; its tickets are being told, one per [`Flight::tell_rolled_back`].
    RollingBack { unblamed: Option<ServerError> },
}

/// A message that cannot come now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unexpected;

/// What became of an error.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Blame<T> {
    /// It is this ticket's fault.
    Ticket(T, ServerError),
    /// It is the batch's, at its end; kept until the batch is told.
    Batch,
    /// There is nothing it could belong to.
    Nobody(ServerError),
}

/// How a batch ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    Committed,
    /// [`Flight::tell_rolled_back`] has something to tell.
    Failed,
}

/// One thing to tell about a failed batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RolledBack<T> {
    Ticket(T),
    /// The batch is over. The error is there if no ticket got it.
    Batch(Option<ServerError>),
}

/// What is known about a ticket when the lane closes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict<T> {
    RolledBack(T),
    InDoubt(T),
}

const NOTHING_DONE: Progress = Progress::Running { done: 0, bound: false };

impl<T: Copy> Flight<T> {
    pub(crate) fn new(tickets_max: usize) -> Flight<T> {
        assert!(tickets_max > 0, "in_flight_calls_max must not be 0");
        Flight {
            tickets: VecDeque::with_capacity(tickets_max),
            batches: VecDeque::with_capacity(tickets_max + 1),
            progress: NOTHING_DONE,
            tickets_max,
        }
    }

    pub(crate) fn tickets_len(&self) -> usize {
        self.tickets.len()
    }

    /// Batches whose Sync is queued and not yet answered.
    pub(crate) fn batches_len(&self) -> usize {
        self.batches.len() - usize::from(self.is_open())
    }

    /// True if a call has been pushed since the last Sync.
    pub(crate) fn is_open(&self) -> bool {
        self.batches.back().is_some_and(|batch| batch.sync_end.is_none())
    }

    pub(crate) fn is_full(&self) -> bool {
        self.tickets.len() >= self.tickets_max
    }

    /// Adds a call to the open batch, or opens one. The caller has asked [`Flight::is_full`] before.
    pub(crate) fn push(&mut self, ticket: T) {
        assert!(!self.is_full(), "no room for another ticket");
        self.tickets.push_back(ticket);
        match self.batches.back_mut() {
            Some(batch) if batch.sync_end.is_none() => batch.tickets_len += 1,
            Some(_) | None => self.batches.push_back(Batch { tickets_len: 1, sync_end: None }),
        }
        self.check();
    }

    /// Ends the open batch, or adds an empty one. `sync_end` is the stream position behind the Sync.
    pub(crate) fn sync(&mut self, sync_end: u64) {
        match self.batches.back_mut() {
            Some(batch) if batch.sync_end.is_none() => batch.sync_end = Some(sync_end),
            Some(_) | None => {
                assert!(self.batches.len() <= self.tickets_max, "too many unanswered empty batches");
                self.batches.push_back(Batch { tickets_len: 0, sync_end: Some(sync_end) });
            }
        }
        self.check();
    }

    /// `BindComplete`: the next call begins.
    pub(crate) fn bind_complete(&mut self) -> Result<(), Unexpected> {
        match &mut self.progress {
            Progress::Running { done, bound: bound @ false } if *done < oldest_len(&self.batches) => {
                *bound = true;
                Ok(())
            }
            Progress::Running { .. } | Progress::Failed { .. } | Progress::RollingBack { .. } => {
                Err(Unexpected)
            }
        }
    }

    /// `DataRow`: whose it is.
    pub(crate) fn data_row(&self) -> Result<T, Unexpected> {
        match self.progress {
            Progress::Running { done, bound: true } => self.tickets.get(done).copied().ok_or(Unexpected),
            Progress::Running { bound: false, .. }
            | Progress::Failed { .. }
            | Progress::RollingBack { .. } => Err(Unexpected),
        }
    }

    /// `CommandComplete`: whose it is. The call is done, the batch is not.
    pub(crate) fn command_complete(&mut self) -> Result<T, Unexpected> {
        let ticket = self.data_row()?;
        match &mut self.progress {
            Progress::Running { done, bound } => {
                *done += 1;
                *bound = false;
                Ok(ticket)
            }
            Progress::Failed { .. } | Progress::RollingBack { .. } => Err(Unexpected),
        }
    }

    /// `ErrorResponse`: the server now skips to the Sync of the oldest batch.
    pub(crate) fn error(&mut self, error: ServerError) -> Blame<T> {
        let Progress::Running { done, .. } = self.progress else { return Blame::Nobody(error) };
        let Some(batch) = self.batches.front_mut() else { return Blame::Nobody(error) };
        if done == batch.tickets_len {
            self.progress = Progress::Failed { unblamed: Some(error) };
            return Blame::Batch;
        }
        // The oldest batch's tickets are the first of the queue, and `done` is below their number.
        let Some(culprit) = self.tickets.remove(done) else { return Blame::Nobody(error) };
        batch.tickets_len -= 1;
        self.progress = Progress::Failed { unblamed: None };
        self.check();
        Blame::Ticket(culprit, error)
    }

    /// `ReadyForQuery`: the oldest batch ends.
    pub(crate) fn ready_for_query(&mut self) -> Result<End, Unexpected> {
        let Some(&Batch { tickets_len, sync_end: Some(_) }) = self.batches.front() else {
            return Err(Unexpected);
        };
        match &mut self.progress {
            Progress::Running { done, bound: false } if *done == tickets_len => {
                self.tickets.drain(..tickets_len);
                self.batches.pop_front();
                self.progress = NOTHING_DONE;
                self.check();
                Ok(End::Committed)
            }
            Progress::Failed { unblamed } => {
                self.progress = Progress::RollingBack { unblamed: unblamed.take() };
                Ok(End::Failed)
            }
            Progress::Running { .. } | Progress::RollingBack { .. } => Err(Unexpected),
        }
    }

    /// While a failed batch is being rolled back: its next ticket, and at last the batch itself. Then `None`.
    pub(crate) fn tell_rolled_back(&mut self) -> Option<RolledBack<T>> {
        let Progress::RollingBack { unblamed } = &mut self.progress else { return None };
        let batch = self.batches.front_mut()?;
        if batch.tickets_len > 0 {
            batch.tickets_len -= 1;
            return self.tickets.pop_front().map(RolledBack::Ticket);
        }
        let unblamed = unblamed.take();
        self.batches.pop_front();
        self.progress = NOTHING_DONE;
        self.check();
        Some(RolledBack::Batch(unblamed))
    }

    /// After the lane has closed: the next ticket and what is known about it. `taken` is the number of bytes that
    /// the owner took from the outbox; a Sync that did not leave whole was never obeyed.
    pub(crate) fn tell_closed(&mut self, taken: u64) -> Option<Verdict<T>> {
        loop {
            let batch = self.batches.front_mut()?;
            let was_synced = batch.sync_end.is_some_and(|sync_end| sync_end <= taken);
            let has_failed = match self.progress {
                Progress::Running { .. } => false,
                Progress::Failed { .. } | Progress::RollingBack { .. } => true,
            };
            if batch.tickets_len > 0 {
                batch.tickets_len -= 1;
                let ticket = self.tickets.pop_front()?;
                let in_doubt = was_synced && !has_failed;
                return Some(if in_doubt { Verdict::InDoubt(ticket) } else { Verdict::RolledBack(ticket) });
            }
            self.batches.pop_front();
            self.progress = NOTHING_DONE;
        }
    }

    /// What the server is doing, for the text of an error.
    pub(crate) fn phase(&self) -> &'static str {
        match self.progress {
            Progress::Running { .. } if self.batches.is_empty() => "idle",
            Progress::Running { bound: false, .. } => "waiting for the next call of a batch or its end",
            Progress::Running { bound: true, .. } => "waiting for rows or the end of a call",
            Progress::Failed { .. } | Progress::RollingBack { .. } => "waiting for the end of a failed batch",
        }
    }

    fn check(&self) {
        debug_assert_eq!(
            self.tickets.len(),
            self.batches.iter().map(|batch| batch.tickets_len).sum::<usize>(),
            "a ticket without a batch"
        );
    }
}

fn oldest_len(batches: &VecDeque<Batch>) -> usize {
    batches.front().map_or(0, |batch| batch.tickets_len)
}
