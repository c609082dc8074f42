//! CORE, simulation only: what a world is checked for. Each check names a planted bug that it is the one to find.

use std::fmt;

use crate::planted::Bug;

/// Declares the checks, each with what it sees to and the bug that it has to find.
macro_rules! checks {
    ($(#[doc = $meaning:literal] $name:ident => $bug:ident,)*) => {
        /// One thing that must never happen, and is looked for in every world.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Check {
            $(#[doc = $meaning] $name,)*
        }

        impl Check {
            /// Every check, in order of declaration.
            pub const ALL: &[Check] = &[$(Check::$name,)*];

            /// What it sees to, in a sentence.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Check::$name => $meaning.trim_ascii(),)*
                }
            }

            /// A planted bug that it is the first to find in at least one world.
            pub fn bug(self) -> Bug {
                match self {
                    $(Check::$name => Bug::$bug,)*
                }
            }
        }
    };
}

checks! {
    /// Every answer belongs to a request, which has begun to arrive.
    Unasked => HeadGetsContent,
    /// An answer has exactly the promised fields, in their form.
    Fields => RetryAfterForgotten,
    /// An answer says what becomes of its connection.
    Persistence => CloseNotSaid,
    /// 100 Continue goes only to a client that waits for it.
    Continue => ContinueUnasked,
    /// The status is one that the request may get.
    Status => ChunkCodingKept,
    /// 200 for a transaction: it is in the ledger, behind its request, with that balance.
    Accepted => AnswerBeforeCommit,
    /// 422 for a debit: it would have passed the limit, and is not in the ledger.
    Refused => RolledBackRefused,
    /// 503 "nothing was done": it is not in the ledger, then or later.
    Denied => InDoubtDenied,
    /// 503 "the database refused": it has failed by itself, or too often.
    Failed => CompanyFailsWithCulprit,
    /// A statement is the account as it was at some moment since it was asked for.
    Statement => StatementStartsEarly,
    /// A request on an idle bank is not answered 503.
    Available => OutageRemembered,
    /// No transaction is committed twice.
    Once => RunAgainTwice,
    /// Every transaction in the ledger was asked for.
    AskedFor => DescriptionsForgotten,
    /// A transaction that was rolled back runs again by itself.
    Alone => RunAgainInCompany,
    /// No transaction runs more often than `ATTEMPTS_MAX`.
    Attempts => AttemptsUnlimited,
    /// A session that is spoilt is left, and a call meets a bounded number of them.
    Spoilt => SpoiltSessionKept,
    /// Each balance is the sum of its rows, and no debit passes the limit.
    Ledger => RowsNotLocked,
    /// A batch is no larger than its limit.
    BatchSize => BatchUnlimited,
    /// A set holds the transactions of an account together.
    SetOrder => SetsUnsorted,
    /// Every batch locks its rows in the order of their accounts, so no two deadlock.
    LockOrder => BatchesSortedEitherWay,
    /// The queue keeps to its limit.
    QueueLimit => QueueUnlimited,
    /// The calls that a lane has sent keep to their limit.
    InFlightLimit => SetsNotCounted,
    /// There is a seat for each socket of a client, within the limit.
    Clients => SeatKept,
    /// An outbox keeps to its limit.
    OutboxLimit => OutboxUnlimited,
    /// The gauges show what there is.
    Gauges => GaugesOfTheTurnBefore,
    /// The event of an open socket finds its client.
    EventFound => WatchedAsAnother,
    /// The event of a client that has left finds nobody.
    EventStale => EventGenerationIgnored,
    /// An answer does not end in the middle.
    AnswerWhole => SendTailLost,
    /// A reset does not overtake an answer.
    ResetOvertakes => LingerSkipped,
    /// No bytes are left unread that an event told of.
    ReadAll => FullInboxIsTheEnd,
    /// A connection ends without an answer only for a reason that the client knows.
    Answered => HalfCloseEndsAll,
    /// Everything comes to its end in bounded time once the faults have stopped.
    Settles => LaneDeadlineForgotten,
    /// The loop does not spin: time moves on after a bounded number of turns.
    Spins => FullInboxIsProgress,
    /// No assertion of the core fails.
    Panic => AnswerUnawaited,
}

/// What must never happen and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The check that found it.
    pub check: Check,
    /// What it found.
    pub text: String,
}

impl Violation {
    pub(crate) fn new(check: Check, text: impl Into<String>) -> Violation {
        Violation { check, text: text.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.check, self.text)
    }
}
