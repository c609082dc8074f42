//! CORE: one call on its way through the engine, and what becomes of it if it ends without an answer.

use proto_pg::{ServerError, SqlState};

use crate::bank::{Call, Unavailable};
use crate::config::Config;
use crate::slots::Slot;

/// One call with what is needed to answer it, to run it again, or to give it up.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    /// Counts up: the order in which the calls came.
    pub number: u64,
    /// The client that awaits the answer.
    pub slot: Slot,
    /// What to do.
    pub call: Call,
    /// When its wait for a lane ends, in monotonic microseconds.
    pub send_deadline_us: u64,
    /// How often it was sent, not counting spoilt sessions.
    pub attempts: u8,
    /// How many spoilt sessions it was sent in.
    pub spoilt_sessions: u8,
    /// It is the only call of its batch: by chance, or after a rollback, so that only the culprit fails again.
    pub is_alone: bool,
}

/// How a call ended that has no answer.
pub(super) enum End {
    Failed(ServerError),
    RolledBack,
    /// Its batch was rolled back because the server takes no writes.
    Demoted,
    InDoubt,
}

// ANCHOR: without_answer
/// What becomes of a call that ended without an answer: the ticket with which it runs again, or why it has no result.
///
/// In a batch with others, every call runs again alone, the culprit too: the cause may have been the batch, such as a deadlock
/// or a timeout. A call that fails alone runs again only after a conflict with other transactions. A batch that met a demoted
/// server stays together: none of its calls is to blame.
pub(super) fn without_answer(ticket: Ticket, end: &End, config: &Config) -> Result<Ticket, Unavailable> {
    match end {
        End::InDoubt => Err(Unavailable::InDoubt),
        End::Failed(error) if spoils_session(&ticket, error, config) => Ok(run_in_next_session(ticket)),
        End::Demoted if may_meet_spoilt_session(&ticket, config) => Ok(run_in_next_session(ticket)),
        End::Failed(error) if ticket.is_alone && !is_conflict(error) => {
            log::warn!("PostgreSQL refused a call for account {}: {error}", ticket.call.account());
            Err(Unavailable::Failed)
        }
        End::Failed(_) | End::RolledBack | End::Demoted if ticket.attempts >= config.attempts_max => {
            Err(Unavailable::Failed)
        }
        End::Failed(_) | End::RolledBack | End::Demoted => Ok(Ticket { is_alone: true, ..ticket }),
    }
}
// ANCHOR_END: without_answer

/// The session was to blame, so this does not count as an attempt.
fn run_in_next_session(ticket: Ticket) -> Ticket {
    Ticket {
        attempts: ticket.attempts.saturating_sub(1),
        spoilt_sessions: ticket.spoilt_sessions + 1,
        ..ticket
    }
}

/// Whether the session is to blame for the failure of a call, which then runs again in the next one.
///
/// The error ended the batch, so nothing was done. A call that fails in this way `lanes` + 1 times has failed in a new session
/// as well: then the call itself is to blame, and the session stays.
///
/// Only a call that ran alone counts, since in a batch the culprit is not known for sure. The exception is a server that takes no
/// writes: that is never the fault of a call.
pub(super) fn spoils_session(ticket: &Ticket, error: &ServerError, config: &Config) -> bool {
    let is_to_blame =
        error.code == SqlState::READ_ONLY_SQL_TRANSACTION || ticket.is_alone && is_of_session(error);
    is_to_blame && may_meet_spoilt_session(ticket, config)
}

fn may_meet_spoilt_session(ticket: &Ticket, config: &Config) -> bool {
    usize::from(ticket.spoilt_sessions) < config.lanes
}

/// Whether an error is about the session rather than about the call.
///
/// Source: PostgreSQL documentation, appendix "PostgreSQL Error Codes".
pub(super) fn is_of_session(error: &ServerError) -> bool {
    matches!(
        error.code.as_bytes(),
        // Read-only: the server was demoted, or the database is fenced off.
        b"25006"
        // A prepared statement is gone, is there already, or is another one, as behind a pooler that swaps sessions.
        | b"26000" | b"42P05" | b"08P01"
        // A cached plan must not change its result type: a migration.
        | b"0A000"
    )
}

fn is_conflict(error: &ServerError) -> bool {
    matches!(error.code, SqlState::SERIALIZATION_FAILURE | SqlState::DEADLOCK_DETECTED)
}
