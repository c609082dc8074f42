//! CORE, simulation only: the faults that strike a world while it is not calm.

/// Declares the faults, each with its meaning in one line.
macro_rules! faults {
    ($(#[doc = $meaning:literal] $name:ident,)*) => {
        /// Everything that can go wrong around the core, each kind at a rate of its own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fault {
            $(#[doc = $meaning] $name,)*
        }

        impl Fault {
            /// Every kind, in order of declaration.
            pub const ALL: [Fault; [$($meaning,)*].len()] = [$(Fault::$name,)*];

            /// What happens, in a sentence.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Fault::$name => $meaning.trim_ascii(),)*
                }
            }
        }
    };
}

faults! {
    /// A request arrives in pieces.
    SplitRequest,
    /// The peer sends further requests without waiting for earlier answers.
    Pipelining,
    /// The peer reads nothing for a while.
    SlowReader,
    /// The kernel takes only a few bytes of an answer at a time.
    SmallSendBuffer,
    /// A read or a write is interrupted by a signal.
    Interrupted,
    /// The peer closes its half and goes on reading.
    HalfClose,
    /// The peer closes its half in the middle of a request.
    EarlyHalfClose,
    /// The peer resets its connection, mostly while it awaits an answer.
    Reset,
    /// A peer that reset its connection reconnects at once, into the slot that was just freed.
    SlotReuse,
    /// HTTP that is malformed or over its limits.
    MalformedRequest,
    /// A request that is refused: wrong path, method, JSON or field.
    RefusedRequest,
    /// A body in chunks.
    ChunkedBody,
    /// A peer that waits for `100 Continue`.
    ExpectContinue,
    /// The peer stops in the middle of a request.
    Stall,
    /// `accept` fails because no descriptor is free.
    AcceptFails,
    /// Events are reported in another order.
    ReorderedEvents,
    /// Events are reported for a client that has left.
    StaleEvent,
    /// The loop is late: other things happen before its turn.
    LateTurn,
    /// An instance stands still between two steps of a turn, or two system calls, while time passes.
    StandStill,
    /// Time passes every deadline at once.
    TimeJump,
    /// A lane's connection breaks between any two bytes, on the way there or back.
    LaneReset,
    /// PostgreSQL ends a session, with or without an error message.
    LaneEnded,
    /// Every call of a session fails from now on, and only a new session helps.
    SessionSpoilt,
    /// The standby takes over: all sessions of the other host stay, but take no writes any more.
    Demoted,
    /// The standby replays nothing for a while.
    StandbyLags,
    /// After a switch-over the old primary does not follow the new one, and its own log has grown.
    StandbyStranded,
    /// The standby takes over, and the old primary goes on: it can still be reached by some, answers, and commits nothing.
    SplitBrain,
    /// PostgreSQL ends all sessions at once.
    DatabaseRestart,
    /// PostgreSQL refuses connections.
    ConnectRefused,
    /// An attempt to connect never completes.
    ConnectHangs,
    /// The bytes from PostgreSQL arrive in pieces.
    SplitReply,
    /// PostgreSQL answers late.
    SlowDatabase,
    /// PostgreSQL is silent for longer than a lane waits.
    SilentDatabase,
    /// A statement fails.
    StatementError,
    /// A statement fails because of a conflict: deadlock or serialization.
    Conflict,
    /// A commit fails.
    CommitError,
    /// Another session holds a row lock.
    ForeignLock,
    /// PostgreSQL sends an asynchronous message: a notice, a setting or a notification.
    Notice,
    /// A second instance works on the same database.
    SecondInstance,
    /// An instance is killed, and another one takes its place.
    InstanceKilled,
    /// An instance is told to stop, and another one takes its place.
    InstanceDrained,
}

impl Fault {
    /// The highest rate, out of 1,000 occasions. What ends many things at once is rare, or nothing else would happen.
    pub(crate) fn rate_max(self) -> u64 {
        match self {
            Fault::SecondInstance | Fault::StandbyStranded => 1_000,
            Fault::SplitRequest | Fault::Pipelining | Fault::SplitReply | Fault::SlotReuse => 900,
            Fault::ReorderedEvents | Fault::LateTurn | Fault::SmallSendBuffer => 500,
            Fault::ConnectRefused | Fault::ConnectHangs => 300,
            Fault::ChunkedBody | Fault::ExpectContinue | Fault::RefusedRequest | Fault::Notice => 200,
            Fault::SlowReader
            | Fault::Interrupted
            | Fault::StatementError
            | Fault::Conflict
            | Fault::SlowDatabase
            | Fault::CommitError => 100,
            Fault::HalfClose | Fault::MalformedRequest | Fault::StaleEvent | Fault::AcceptFails => 50,
            Fault::EarlyHalfClose | Fault::Stall | Fault::Reset | Fault::ForeignLock => 30,
            Fault::StandStill => 10,
            Fault::LaneReset
            | Fault::LaneEnded
            | Fault::SessionSpoilt
            | Fault::SilentDatabase
            | Fault::StandbyLags => 20,
            Fault::TimeJump | Fault::DatabaseRestart | Fault::Demoted | Fault::SplitBrain => 5,
            Fault::InstanceKilled | Fault::InstanceDrained => 3,
        }
    }
}
