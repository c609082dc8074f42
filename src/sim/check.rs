//! CORE, simulation only: what a world is checked for. Each check is named by a planted bug (`bugs/*.patch`) that it has to
//! find.

use std::fmt;

/// Declares the checks, each with what must hold.
macro_rules! checks {
    ($(#[doc = $meaning:literal] $name:ident,)*) => {
        /// One thing that must never happen, and is looked for in every world.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Check {
            $(#[doc = $meaning] $name,)*
        }

        impl Check {
            /// Every check, in order of declaration.
            pub const ALL: &[Check] = &[$(Check::$name,)*];

            /// What must hold, in a sentence.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Check::$name => $meaning.trim_ascii(),)*
                }
            }
        }
    };
}

checks! {
    /// Every answer belongs to a request, which has begun to arrive.
    Unasked,
    /// An answer has exactly the promised fields, in their form.
    Fields,
    /// An answer says what becomes of its connection.
    Persistence,
    /// 100 Continue goes only to a client that waits for it.
    Continue,
    /// The status is one that the request may get.
    Status,
    /// 200 for a transaction: it is in the ledger, behind its request, with that balance.
    Accepted,
    /// 422 for a debit: it would have passed the limit, and is not in the ledger.
    Refused,
    /// 503 "nothing was done": it is not in the ledger, then or later.
    Denied,
    /// 503 "the database refused": it has failed by itself, or too often.
    Failed,
    /// A statement is the account as it was at some moment since it was asked for.
    Statement,
    /// A statement that a standby may answer is the account as it was `READ_STALENESS_MAX_MS` before it was asked for, or later.
    Fresh,
    /// A request on an idle bank is not answered 503.
    Available,
    /// No transaction is committed twice.
    Once,
    /// Every transaction in the ledger was asked for.
    AskedFor,
    /// A transaction that was rolled back runs again by itself.
    Alone,
    /// No transaction runs more often than `ATTEMPTS_MAX`.
    Attempts,
    /// A session that is spoilt is left, and a call meets a bounded number of them.
    Spoilt,
    /// Each balance is the sum of its rows, and no debit passes the limit.
    Ledger,
    /// A batch is no larger than its limit.
    BatchSize,
    /// A set holds the transactions of an account together.
    SetOrder,
    /// Every batch locks its rows in the order of their accounts, so no two deadlock.
    LockOrder,
    /// The queue keeps to its limit.
    QueueLimit,
    /// The calls that a lane has sent keep to their limit.
    InFlightLimit,
    /// There is a slot for each socket of a client, within the limit.
    Clients,
    /// An outbox keeps to its limit.
    OutboxLimit,
    /// What is read and dropped after a refusal keeps to its limit.
    LingerLimit,
    /// The gauges show what there is.
    Gauges,
    /// The event of an open socket finds its client.
    EventFound,
    /// The event of a client that has left finds no client.
    EventStale,
    /// An answer does not end in the middle.
    AnswerWhole,
    /// A reset does not overtake an answer.
    ResetOvertakes,
    /// No bytes are left unread that an event told of.
    ReadAll,
    /// A connection ends without an answer only for a reason that the client knows.
    Answered,
    /// Everything comes to its end in bounded time once the faults have stopped.
    Settles,
    /// The loop does not spin: time moves on after a bounded number of turns.
    Spins,
    /// No assertion of the core fails.
    Panic,
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
