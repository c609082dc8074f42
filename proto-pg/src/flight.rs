//! The unanswered steps in order, grouped into batches by their Sync.
//!
//! The server answers strictly in order, so a queue of steps and a queue of batch lengths say whose answer any
//! message is. This file decides each ticket's fate; it knows no bytes.
//!
//! Rules: PostgreSQL documentation, "Frontend/Backend Protocol", sections Simple Query, Extended Query, Pipelining and
//! COPY Operations.

use crate::error::ServerError;
use std::collections::VecDeque;

/// Every unanswered step, in the order in which they were asked for.
pub(crate) struct Flight<T> {
    /// The steps of all batches, oldest first; those with Done stay until their batch ends.
    steps: VecDeque<Step<T>>,
    /// Oldest first. The sum of their `steps_len` is `steps.len()`. Only the newest can be open.
    batches: VecDeque<Batch>,
    /// How far the server is with the oldest batch.
    progress: Progress,
    steps_max: usize,
}

/// What one ticket stands for.
struct Step<T> {
    ticket: T,
    kind: Kind,
}

/// What was asked for, which says how it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Bind and Execute of the unnamed portal.
    Call,
    Parse,
    Bind,
    /// Execute of a portal that was bound before.
    Execute,
    DescribeStatement,
    DescribePortal,
    Close,
    /// A simple query, which is a batch by itself.
    Query,
}

/// A run of steps that share one Sync, and one implicit transaction unless they open one themselves.
struct Batch {
    steps_len: usize,
    /// The stream position just behind this batch's Sync; `None` while the batch is open.
    sync_end: Option<u64>,
    /// The stream position behind the first step that may commit by itself: a COMMIT is obeyed as soon as it is read.
    commits_from: Option<u64>,
}

/// The state of the oldest batch.
enum Progress {
    /// The first `done` steps have completed; of these, the first `settled` are committed.
    Running { done: usize, settled: usize, stage: Stage },
    /// One step failed and was taken off the queue, or, with `unblamed`, the batch failed as a whole. The server
    /// skips everything up to the Sync. The steps before it are unchanged.
    Failed { done: usize, settled: usize, unblamed: Option<ServerError> },
    /// The failed batch has ended; its tickets are being told, one per [`Flight::tell_rolled_back`].
    RollingBack { unblamed: Option<ServerError> },
}

/// How far the server is with the step behind those that are done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing of it has been answered.
    Start,
    /// Rows, or the end of a command.
    Rows,
    /// The columns of a statement whose parameters have been described.
    Columns,
    /// Data of a COPY TO STDOUT.
    CopyOut,
    /// It takes the data of a COPY FROM STDIN.
    CopyIn,
    /// The data of a COPY is complete, in this direction or that; the end of the command follows.
    Copied,
    /// One command of a simple query has ended; another may follow.
    Between,
}

/// A message that cannot come now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unexpected;

/// What an error belongs to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Blame<T> {
    /// The call of this ticket failed.
    Ticket(T, ServerError),
    /// The batch failed at its end; kept until its tickets have been told.
    Batch,
    /// No call and no batch can have caused it.
    Nobody(ServerError),
}

/// How a batch ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    Done,
    /// [`Flight::tell_rolled_back`] has something to tell.
    Failed,
}

/// Whether the owner may send the data of a COPY FROM STDIN.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CopyIn {
    Begins(usize),
    /// Something else is queued behind it in its batch: the server will fail the COPY when it reads that.
    Fails,
    /// Its Sync is behind it already, or another batch. The server skips a Sync while it waits for data, so its answers would
    /// no longer be those that are expected.
    OutOfStep,
}

/// One thing to tell about a failed batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RolledBack<T> {
    Ticket(T),
    /// The batch is over. The error is there if no ticket got it.
    Batch(Option<ServerError>),
}

/// What is known about a ticket when the connection closes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict<T> {
    RolledBack(T),
    InDoubt(T),
}

const NOTHING_DONE: Progress = Progress::Running { done: 0, settled: 0, stage: Stage::Start };

impl<T: Clone> Flight<T> {
    pub(crate) fn new(steps_max: usize) -> Flight<T> {
        assert!(steps_max > 0, "in_flight_calls_max must not be 0");
        Flight {
            steps: VecDeque::with_capacity(steps_max),
            batches: VecDeque::with_capacity(steps_max + 1),
            progress: NOTHING_DONE,
            steps_max,
        }
    }

    pub(crate) fn steps_len(&self) -> usize {
        self.steps.len()
    }

    /// Batches whose Sync is queued and not yet answered.
    pub(crate) fn batches_len(&self) -> usize {
        self.batches.len() - usize::from(self.is_open())
    }

    /// True if a step has been pushed since the last Sync.
    pub(crate) fn is_open(&self) -> bool {
        self.batches.back().is_some_and(|batch| batch.sync_end.is_none())
    }

    /// The ticket of a step that a message was about; until the next message it is where it was.
    pub(crate) fn ticket(&self, step: usize) -> Option<T> {
        self.steps.get(step).map(|step| step.ticket.clone())
    }

    pub(crate) fn is_full(&self) -> bool {
        self.steps.len() >= self.steps_max
    }

    /// True while the server takes the data of a COPY FROM STDIN, and nothing else.
    pub(crate) fn is_copying_in(&self) -> bool {
        matches!(self.progress, Progress::Running { stage: Stage::CopyIn, .. })
    }

    /// Adds a step to the open batch, or opens one. The caller has asked [`Flight::is_full`] before. `commits_from` is the
    /// stream position behind the step, if it may commit by itself.
    pub(crate) fn push(&mut self, ticket: T, kind: Kind, commits_from: Option<u64>) {
        assert!(!self.is_full(), "no room for another ticket");
        self.steps.push_back(Step { ticket, kind });
        match self.batches.back_mut() {
            Some(batch) if batch.sync_end.is_none() => {
                batch.steps_len += 1;
                batch.commits_from = batch.commits_from.or(commits_from);
            }
            Some(_) | None => {
                self.batches.push_back(Batch { steps_len: 1, sync_end: None, commits_from });
            }
        }
        self.check();
    }

    /// Adds a simple query, which ends its batch by itself. `sync_end` is the stream position behind it.
    pub(crate) fn push_query(&mut self, ticket: T, sync_end: u64) {
        assert!(!self.is_full() && !self.is_open(), "a simple query in the middle of a batch");
        self.steps.push_back(Step { ticket, kind: Kind::Query });
        self.batches.push_back(Batch { steps_len: 1, sync_end: Some(sync_end), commits_from: None });
        self.check();
    }

    /// Ends the open batch, or adds an empty one. `sync_end` is the stream position behind the Sync.
    pub(crate) fn sync(&mut self, sync_end: u64) {
        match self.batches.back_mut() {
            Some(batch) if batch.sync_end.is_none() => batch.sync_end = Some(sync_end),
            Some(_) | None => {
                assert!(self.batches.len() <= self.steps_max, "too many unanswered empty batches");
                self.batches.push_back(Batch { steps_len: 0, sync_end: Some(sync_end), commits_from: None });
            }
        }
        self.check();
    }

    /// `ParseComplete`: which step's it is.
    pub(crate) fn parse_complete(&mut self) -> Result<usize, Unexpected> {
        self.complete(|kind, stage| kind == Kind::Parse && stage == Stage::Start)
    }

    /// `CloseComplete`: which step's it is.
    pub(crate) fn close_complete(&mut self) -> Result<usize, Unexpected> {
        self.complete(|kind, stage| kind == Kind::Close && stage == Stage::Start)
    }

    /// `BindComplete`: a call begins, or which step's Bind it is.
    pub(crate) fn bind_complete(&mut self) -> Result<Option<usize>, Unexpected> {
        match self.current() {
            Some((_, Kind::Call, stage @ Stage::Start)) => {
                *stage = Stage::Rows;
                Ok(None)
            }
            Some((_, Kind::Bind, Stage::Start)) => self.complete(|_, _| true).map(Some),
            Some(_) | None => Err(Unexpected),
        }
    }

    /// `ParameterDescription`: which step's it is. The columns follow.
    pub(crate) fn parameter_description(&mut self) -> Result<usize, Unexpected> {
        match self.current() {
            Some((step, Kind::DescribeStatement, stage @ Stage::Start)) => {
                *stage = Stage::Columns;
                Ok(step)
            }
            Some(_) | None => Err(Unexpected),
        }
    }

    /// `RowDescription`: which step's it is.
    pub(crate) fn row_description(&mut self) -> Result<usize, Unexpected> {
        match self.current() {
            Some((step, Kind::Query, stage @ (Stage::Start | Stage::Between))) => {
                *stage = Stage::Rows;
                Ok(step)
            }
            Some(_) | None => self.no_data(),
        }
    }

    /// `NoData`: which step's it is.
    pub(crate) fn no_data(&mut self) -> Result<usize, Unexpected> {
        self.complete(|kind, stage| {
            (kind == Kind::DescribeStatement && stage == Stage::Columns)
                || (kind == Kind::DescribePortal && stage == Stage::Start)
        })
    }

    /// `DataRow`: which step's it is, and whether its columns are text.
    pub(crate) fn data_row(&mut self) -> Result<(usize, bool), Unexpected> {
        match self.current() {
            Some((step, Kind::Call, Stage::Rows)) => Ok((step, false)),
            Some((step, Kind::Execute, stage @ (Stage::Start | Stage::Rows))) => {
                *stage = Stage::Rows;
                Ok((step, false))
            }
            Some((step, Kind::Query, Stage::Rows)) => Ok((step, true)),
            Some(_) | None => Err(Unexpected),
        }
    }

    /// `CommandComplete`, or `EmptyQueryResponse`: which step's it is. The step is done, the batch is not. With `commits`, everything
    /// up to here is committed.
    pub(crate) fn command_complete(&mut self, commits: bool) -> Result<usize, Unexpected> {
        let (step, kind, stage) = self.current().ok_or(Unexpected)?;
        match (kind, &stage) {
            (Kind::Call, Stage::Rows | Stage::Copied)
            | (Kind::Execute, Stage::Start | Stage::Rows | Stage::Copied) => {
                *stage = Stage::Start;
                if let Progress::Running { done, settled, .. } = &mut self.progress {
                    *done += 1;
                    if commits {
                        *settled = *done;
                    }
                }
            }
            (Kind::Query, Stage::Start | Stage::Rows | Stage::Between | Stage::Copied) => {
                *stage = Stage::Between;
                // What follows in this query may still be rolled back; what stands before it will not be.
                if let Some(batch) = self.batches.front_mut().filter(|_| commits) {
                    batch.commits_from = Some(0);
                }
            }
            (_, _) => return Err(Unexpected),
        }
        Ok(step)
    }

    /// `PortalSuspended`: which step's it is. The step is done.
    pub(crate) fn portal_suspended(&mut self) -> Result<usize, Unexpected> {
        self.complete(|kind, stage| kind == Kind::Execute && matches!(stage, Stage::Start | Stage::Rows))
    }

    /// `CopyOutResponse`: which step's it is.
    pub(crate) fn copy_out(&mut self) -> Result<usize, Unexpected> {
        let (step, stage) = self.copying()?;
        *stage = Stage::CopyOut;
        Ok(step)
    }

    /// `CopyData`: which step's it is.
    pub(crate) fn copy_data(&mut self) -> Result<usize, Unexpected> {
        match self.current() {
            Some((step, _, Stage::CopyOut)) => Ok(step),
            Some(_) | None => Err(Unexpected),
        }
    }

    /// `CopyDone`: the end of the command follows.
    pub(crate) fn copy_done(&mut self) -> Result<(), Unexpected> {
        match self.current() {
            Some((_, _, stage @ Stage::CopyOut)) => {
                *stage = Stage::Copied;
                Ok(())
            }
            Some(_) | None => Err(Unexpected),
        }
    }

    /// `CopyInResponse`: which step's it is, if the data may be sent.
    pub(crate) fn copy_in(&mut self) -> Result<CopyIn, Unexpected> {
        self.copying()?;
        let Progress::Running { done, .. } = self.progress else { return Err(Unexpected) };
        let is_newest = self.batches.len() == 1;
        let (Some(step), Some(batch)) = (self.steps.get(done), self.batches.front_mut()) else {
            return Err(Unexpected);
        };
        if done + 1 < batch.steps_len {
            return Ok(CopyIn::Fails);
        }
        let is_query = step.kind == Kind::Query;
        if !is_newest || (batch.sync_end.is_some() && !is_query) {
            return Ok(CopyIn::OutOfStep);
        }
        if is_query {
            // Nothing of it can be committed before its data is complete.
            batch.sync_end = Some(u64::MAX);
        }
        if let Some((_, _, stage)) = self.current() {
            *stage = Stage::CopyIn;
        }
        Ok(CopyIn::Begins(done))
    }

    /// The owner has queued the end of the data of a COPY FROM STDIN; `end` is the stream position behind it.
    pub(crate) fn end_copy_in(&mut self, end: u64) {
        let Some((_, kind, stage @ Stage::CopyIn)) = self.current() else { return };
        *stage = Stage::Copied;
        if let Some(batch) = self.batches.front_mut().filter(|_| kind == Kind::Query) {
            batch.sync_end = Some(end);
        }
    }

    /// `ErrorResponse`: the server now skips to the Sync of the oldest batch.
    pub(crate) fn error(&mut self, error: ServerError) -> Blame<T> {
        let Progress::Running { done, settled, .. } = self.progress else { return Blame::Nobody(error) };
        let Some(batch) = self.batches.front_mut() else { return Blame::Nobody(error) };
        if done == batch.steps_len {
            self.progress = Progress::Failed { done, settled, unblamed: Some(error) };
            return Blame::Batch;
        }
        // The oldest batch's steps are the first of the queue, and `done` is below their number.
        let Some(culprit) = self.steps.remove(done) else { return Blame::Nobody(error) };
        batch.steps_len -= 1;
        self.progress = Progress::Failed { done, settled, unblamed: None };
        self.check();
        Blame::Ticket(culprit.ticket, error)
    }

    /// `ReadyForQuery`: the oldest batch ends, inside a transaction block or not.
    pub(crate) fn ready_for_query(&mut self, is_in_block: bool) -> Result<End, Unexpected> {
        let Some(&Batch { steps_len, sync_end: Some(_), .. }) = self.batches.front() else {
            return Err(Unexpected);
        };
        match &mut self.progress {
            Progress::Running { done, stage, .. }
                if (*done == steps_len && *stage == Stage::Start)
                    || (*done + 1 == steps_len && *stage == Stage::Between) =>
            {
                self.steps.drain(..steps_len);
                self.batches.pop_front();
                self.progress = NOTHING_DONE;
                self.check();
                Ok(End::Done)
            }
            Progress::Failed { done, settled, unblamed } => {
                // What was done within a block is decided by its end: the block may go on from a savepoint.
                let told = if is_in_block { *done } else { *settled };
                self.progress = Progress::RollingBack { unblamed: unblamed.take() };
                self.forget(told);
                Ok(End::Failed)
            }
            Progress::Running { .. } | Progress::RollingBack { .. } => Err(Unexpected),
        }
    }

    /// True while [`Flight::tell_rolled_back`] has something to tell.
    pub(crate) fn is_rolling_back(&self) -> bool {
        matches!(self.progress, Progress::RollingBack { .. })
    }

    /// While a failed batch is being rolled back: its next ticket, and at last the batch itself. Then `None`.
    pub(crate) fn tell_rolled_back(&mut self) -> Option<RolledBack<T>> {
        let Progress::RollingBack { unblamed } = &mut self.progress else { return None };
        let batch = self.batches.front_mut()?;
        if batch.steps_len > 0 {
            batch.steps_len -= 1;
            return self.steps.pop_front().map(|step| RolledBack::Ticket(step.ticket));
        }
        let unblamed = unblamed.take();
        self.batches.pop_front();
        self.progress = NOTHING_DONE;
        self.check();
        Some(RolledBack::Batch(unblamed))
    }

    /// After the connection has closed: the next ticket and what is known about it. `taken` is the number of bytes that
    /// the owner took from the outbox; a Sync, or a COMMIT, that did not leave whole was never obeyed.
    pub(crate) fn tell_closed(&mut self, taken: u64) -> Option<Verdict<T>> {
        loop {
            // What is committed needs no verdict.
            if let Progress::Running { settled, .. } | Progress::Failed { settled, .. } = &mut self.progress {
                let settled = std::mem::take(settled);
                self.forget(settled);
            }
            let batch = self.batches.front_mut()?;
            let has_left = |end: Option<u64>| end.is_some_and(|end| end <= taken);
            let has_failed = match self.progress {
                Progress::Running { .. } => false,
                Progress::Failed { .. } | Progress::RollingBack { .. } => true,
            };
            if batch.steps_len > 0 {
                batch.steps_len -= 1;
                let may_be_committed = has_left(batch.sync_end) || has_left(batch.commits_from);
                let ticket = self.steps.pop_front()?.ticket;
                let in_doubt = may_be_committed && !has_failed;
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
            Progress::Running { stage: Stage::Start, .. } => {
                "waiting for the next call of a batch or its end"
            }
            Progress::Running { stage: Stage::Rows, .. } => "waiting for rows or the end of a call",
            Progress::Running { stage: Stage::Columns, .. } => "waiting for the columns of a statement",
            Progress::Running { stage: Stage::CopyOut, .. } => "copying out",
            Progress::Running { stage: Stage::CopyIn, .. } => "copying in",
            Progress::Running { stage: Stage::Copied, .. } => "waiting for the end of a copy",
            Progress::Running { stage: Stage::Between, .. } => {
                "waiting for the next command of a query or its end"
            }
            Progress::Failed { .. } | Progress::RollingBack { .. } => "waiting for the end of a failed batch",
        }
    }

    /// The step that the server works on.
    fn current(&mut self) -> Option<(usize, Kind, &mut Stage)> {
        let Progress::Running { done, stage, .. } = &mut self.progress else { return None };
        let is_there = *done < self.batches.front().map_or(0, |batch| batch.steps_len);
        let step = self.steps.get(*done).filter(|_| is_there)?;
        Some((*done, step.kind, stage))
    }

    /// The step that the server works on, if a COPY may begin.
    fn copying(&mut self) -> Result<(usize, &mut Stage), Unexpected> {
        match self.current() {
            Some((step, kind, stage @ (Stage::Start | Stage::Rows | Stage::Between)))
                if match kind {
                    Kind::Call => *stage == Stage::Rows,
                    Kind::Execute => *stage == Stage::Start,
                    Kind::Query => *stage != Stage::Rows,
                    Kind::Parse
                    | Kind::Bind
                    | Kind::DescribeStatement
                    | Kind::DescribePortal
                    | Kind::Close => false,
                } =>
            {
                Ok((step, stage))
            }
            Some(_) | None => Err(Unexpected),
        }
    }

    /// Ends the step that the server works on, if it can end now.
    fn complete(&mut self, can_end: impl Fn(Kind, Stage) -> bool) -> Result<usize, Unexpected> {
        let (completed, kind, stage) = self.current().ok_or(Unexpected)?;
        if !can_end(kind, *stage) {
            return Err(Unexpected);
        }
        *stage = Stage::Start;
        if let Progress::Running { done, .. } = &mut self.progress {
            *done += 1;
        }
        Ok(completed)
    }

    /// Drops the first steps of the oldest batch: they have had their final event.
    fn forget(&mut self, len: usize) {
        if len > 0
            && let Some(batch) = self.batches.front_mut()
        {
            self.steps.drain(..len);
            batch.steps_len -= len;
            if let Progress::Running { done, .. } | Progress::Failed { done, .. } = &mut self.progress {
                *done -= len;
            }
        }
        self.check();
    }

    fn check(&self) {
        debug_assert_eq!(
            self.steps.len(),
            self.batches.iter().map(|batch| batch.steps_len).sum::<usize>(),
            "a ticket without a batch"
        );
    }
}
