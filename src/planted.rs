//! CORE: deliberate bugs, of which a simulation switches on one at a time, to prove that it would find it.
//!
//! In any other build [`planted`] is the constant `false`, and nothing of them is left.

/// Declares the bugs, each with its meaning in one line.
macro_rules! bugs {
    ($(#[doc = $meaning:literal] $name:ident,)*) => {
        /// One deliberate bug. Its place in the code asks [`planted`] for it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $(#[doc = $meaning] $name,)*
        }

        impl Bug {
            /// Every bug, in order of declaration.
            pub const ALL: &[Bug] = &[$(Bug::$name,)*];

            /// What it does, in a sentence.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Bug::$name => $meaning.trim_ascii(),)*
                }
            }
        }
    };
}

bugs! {
    /// An answer goes out at the end of its call, before the commit.
    AnswerBeforeCommit,
    /// Answers go out although their batch was rolled back.
    AnswersOfRolledBackBatch,
    /// Answers that are held go out as soon as another call of their batch fails.
    AnswersOnError,
    /// Answers of a lane that fell stay, and go out with the next commit.
    AnswersOutliveTheirLane,
    /// Two answers of one batch change places.
    AnswersSwapped,
    /// A statement starts where the one before it in its batch does.
    StatementStartsEarly,
    /// The tickets of a set that failed stay, and get the answers of the next set.
    TicketsOfFailedSetStay,
    /// The answer of a call is in the outbox, but is not sent.
    AnswerNotSent,
    /// An answer is given to a client that awaits none.
    AnswerUnawaited,
    /// An answer 503 does not say when to ask again.
    RetryAfterForgotten,
    /// The last answer on a connection does not say so.
    CloseNotSaid,
    /// 100 Continue goes to a client that does not wait for it.
    ContinueUnasked,
    /// A batch is not sorted by account.
    BatchUnsorted,
    /// A batch that is large enough for a set is not sorted.
    SetsUnsorted,
    /// Some batches are sorted by account from the last to the first.
    BatchesSortedEitherWay,
    /// The transactions of a set lose their descriptions.
    DescriptionsForgotten,
    /// A call whose outcome is unknown is run again.
    InDoubtRunAgain,
    /// A call whose outcome is unknown is answered as one that was never sent.
    InDoubtDenied,
    /// A call that was rolled back is run again twice.
    RunAgainTwice,
    /// A call that was rolled back is forgotten.
    RolledBackForgotten,
    /// A call that was rolled back is answered as a debit past the limit.
    RolledBackRefused,
    /// All calls of a failed batch fail with the culprit.
    CompanyFailsWithCulprit,
    /// A call that was rolled back runs in company again.
    RunAgainInCompany,
    /// A call is blamed for the session that it met, and the session stays.
    SpoiltSessionKept,
    /// A call that conflicts is run again for ever.
    AttemptsUnlimited,
    /// A call never stops waiting for a lane.
    QueueTimeoutIgnored,
    /// After an outage of the database, calls are refused as if it were still away.
    OutageRemembered,
    /// The queue has no limit.
    QueueUnlimited,
    /// A batch has no limit.
    BatchUnlimited,
    /// A lane takes any number of batches at once.
    BatchesInFlightUnlimited,
    /// Batches that hold a set do not count as in flight.
    SetsNotCounted,
    /// An outbox has no limit.
    OutboxUnlimited,
    /// The gauges are set before the batches of their turn are sent.
    GaugesOfTheTurnBefore,
    /// The key of a slot fits the client that has it now.
    GenerationIgnored,
    /// An event wakes the client that has its slot now.
    EventGenerationIgnored,
    /// A connection is watched under the key of the one before it in its slot.
    WatchedAsAnother,
    /// The socket of a client that has left is dropped, and its seat is kept.
    SeatKept,
    /// The loop sleeps past the deadlines of the lanes.
    LaneDeadlineForgotten,
    /// The loop sleeps past the end of gathering.
    GatherDeadlineForgotten,
    /// The deadlines of clients are not looked at.
    SweepForgotten,
    /// A socket whose bytes did not fit counts as empty.
    ReadStopsEarly,
    /// A client that sends more than its inbox holds is dropped.
    FullInboxIsTheEnd,
    /// A client with a full inbox counts as one that can go on.
    FullInboxIsProgress,
    /// The end of a stream behind the last bytes is not read.
    EndOfStreamMissed,
    /// What a short write left over is lost.
    SendTailLost,
    /// Pipelined requests are dropped with the one before them.
    PipelinedRequestsDropped,
    /// A peer that closes its half gets no answer.
    HalfCloseEndsAll,
    /// A refused request is closed without lingering.
    LingerSkipped,
    /// The content of a request that was refused by its head is read as the next request.
    RefusedContentKept,
    /// A piece of a chunked body leaves its coding behind in the content.
    ChunkCodingKept,
    /// The answer to HEAD has content.
    HeadGetsContent,
    /// After a failed accept, those who wait are forgotten until the next one comes.
    BacklogForgotten,
    /// A server that stops closes clients that await an answer.
    DrainLosesClient,
    /// A deadline counts as passed by a time after the last look at the sockets.
    DeadlineAfterLook,
    /// The made-up PostgreSQL runs its procedures without a lock on the rows that they change.
    RowsNotLocked,
}

/// Whether this bug is switched on.
#[cfg(not(any(test, feature = "sim")))]
pub const fn planted(_bug: Bug) -> bool {
    false
}

#[cfg(any(test, feature = "sim"))]
pub use switch::{plant, planted};

#[cfg(any(test, feature = "sim"))]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Whether this bug is switched on, in this thread.
    pub fn planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Switches a bug on, or all of them off, in this thread.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }
}
