//! CORE: whether the server that a lane has logged in to can serve, and if not, the texts for the log and the clients.

use proto_pg::{
    CloseReason, Row, RowError, ServerError, SqlState, StatementProblem, TargetMismatch, TextRow,
};

use crate::bank::Unavailable;
use crate::config::Config;
use crate::engine::ticket::is_of_session;

/// The timeline of a server. Each promotion of a standby begins the next one, so a lower number means that the server was
/// replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// The same for a primary and all its standbys, and for no other servers.
    pub system: String,
    /// Counts promotions.
    pub timeline: u32,
    /// The server has standbys, and a table of the bank is UNLOGGED, so that it is empty there.
    pub is_lost_in_failover: bool,
}

impl History {
    /// Whether both are of the same server or of its standbys, and no promotion came between them.
    pub fn is_same_as(&self, other: &History) -> bool {
        self.system == other.system && self.timeline == other.timeline
    }

    /// Whether a server with this history was replaced by one with the other.
    pub fn is_older_than(&self, other: &History) -> bool {
        self.system == other.system && self.timeline < other.timeline
    }
}

/// A position in the log: up to here a primary has written it, or a standby has replayed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The same for a primary and all its standbys, and for no other servers.
    pub system: i64,
    /// Counts promotions. Places in the logs of two timelines cannot be compared.
    pub timeline: i32,
    /// The place in the log, in bytes.
    pub log_bytes: i64,
}

/// The server's log position; `None` if it is unknown.
pub(super) fn read_position(row: &Row<'_>) -> Result<Option<Position>, RowError> {
    if row.is_null(1)? || row.is_null(2)? {
        return Ok(None);
    }
    Ok(Some(Position { system: row.i64(0)?, timeline: row.i32(1)?, log_bytes: row.i64(2)? }))
}

/// The server's timeline; `None` for a standby, which does not report one here.
pub(super) fn read_history(row: &TextRow<'_>) -> Option<History> {
    let field = |column| row.text(column).ok().flatten();
    Some(History {
        system: field(0)?.to_owned(),
        timeline: field(1)?.parse().ok()?,
        is_lost_in_failover: field(2)? == "t",
    })
}

/// Why the bank cannot be served in this session; `None` if it can.
pub(super) fn session_problem(row: &Row<'_>) -> Result<Option<&'static str>, RowError> {
    Ok(if !row.bool(0)? {
        Some(NOT_UTF8)
    } else if row.bool(1)? {
        Some(READ_ONLY)
    } else {
        None
    })
}

/// What is wrong with this number of accounts; `None` if nothing is.
pub(super) fn accounts_problem(accounts: usize, config: &Config) -> Option<&'static str> {
    match accounts {
        0 => Some(NO_ACCOUNTS),
        len if len > config.accounts_max => Some("the table clientes has more rows than ACCOUNTS_MAX"),
        _ => None,
    }
}

/// The remedy for a closed lane, for its line in the log.
pub(super) fn remedy(reason: &CloseReason) -> &'static str {
    if has_other_procedures(reason) {
        return "; sql/ has other tables and procedures: drop these, and apply sql/*.sql in name order";
    }
    reason.server_error().map_or("", remedy_for)
}

/// Whether a statement can be prepared, but its result has other types than the bank's tables and procedures give it.
fn has_other_procedures(reason: &CloseReason) -> bool {
    matches!(reason, CloseReason::Statement(error) if !matches!(error.problem, StatementProblem::Refused(_)))
}

pub(super) fn remedy_for(error: &ServerError) -> &'static str {
    let message = error.message.as_str();
    match error.code.as_bytes() {
        b"42883" | b"42P01" => "; apply sql/*.sql in name order",
        b"28P01" => "; the password in DATABASE_URL is wrong",
        // PostgreSQL has one code for all of these, but names the file in every language. `[local]` is a Unix socket, which
        // never has TLS.
        b"28000"
            if message.contains("pg_hba.conf")
                && message.contains("no encryption")
                && !message.contains("[local]") =>
        {
            "; no rule of pg_hba.conf lets this user in without TLS: with sslmode=require one might"
        }
        b"28000" if message.contains("pg_hba.conf") => {
            "; no rule of pg_hba.conf lets this user in from this address: add one. The password was not looked at"
        }
        b"28000" => "; look at user and role in DATABASE_URL: the password was not looked at",
        b"3D000" => "; look at the database in DATABASE_URL",
        b"53300" => {
            "; all instances need LANES connections each, besides those of others: raise max_connections of PostgreSQL, or \
             the limit of the role, database or pooler, or lower LANES"
        }
        b"08P01" if message.contains("startup parameter") => {
            "; a pooler refuses it: take it out of DATABASE_URL, or see docs/reference/settings.md about PgBouncer"
        }
        _ if is_of_session(error) => "; the session is left, and calls go on in a new one",
        _ => "",
    }
}

/// What clients are told while no lane is ready.
pub fn why_down(reason: &CloseReason) -> Unavailable {
    match reason {
        CloseReason::Other(problem) if *problem == NO_ACCOUNTS => Unavailable::BankMissing,
        _ if takes_no_writes(reason) => Unavailable::ReadOnly,
        _ if has_other_procedures(reason) => Unavailable::BankMissing,
        _ => match reason.code() {
            Some(SqlState::UNDEFINED_TABLE | SqlState::UNDEFINED_FUNCTION) => Unavailable::BankMissing,
            _ => Unavailable::DatabaseDown,
        },
    }
}

/// Whether the lane closed because the server takes no writes.
pub fn takes_no_writes(reason: &CloseReason) -> bool {
    match reason {
        CloseReason::Other(problem) => matches!(*problem, READ_ONLY | OLD_TIMELINE),
        CloseReason::TargetSession(mismatch) => {
            matches!(mismatch, TargetMismatch::ReadOnly | TargetMismatch::Standby)
        }
        _ => reason.code() == Some(SqlState::READ_ONLY_SQL_TRANSACTION),
    }
}

/// The query for the timeline. Any role may run it; a standby returns NULL.
pub const HISTORY: &str = "SELECT system_identifier, \
     CASE WHEN NOT pg_is_in_recovery() \
     THEN ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer END, \
     EXISTS (SELECT FROM pg_stat_replication) AND EXISTS (SELECT FROM pg_class \
     WHERE oid IN (to_regclass('clientes'), to_regclass('transacoes')) AND relpersistence = 'u') \
     FROM pg_control_system()";
pub(super) const OLD_TIMELINE: &str = "the server is on an older timeline than one that was seen before: a standby was promoted in its \
                            place, so what it answers is old. Stop it, or make a standby of it with pg_rewind";
pub(super) const NO_ACCOUNTS: &str = "the table clientes is empty: apply sql/*.sql in name order";
pub(super) const READ_ONLY: &str = "the session is read-only, as on a standby or with default_transaction_read_only: \
                         DATABASE_URL must name a primary";
pub(super) const UNASKED: &str = "an answer to something that no lane asks for";
const NOT_UTF8: &str = "server_encoding is not UTF8, so not every descricao could be stored: make the database anew with \
                        CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0";

#[cfg(test)]
mod tests;
