//! CORE: the answers of the oldest batch in flight, held back until it is committed.

use std::collections::VecDeque;

use proto_pg::{CloseReason, Row, RowError};

use crate::bank::{Call, Outcome, Reject};
use crate::engine::ticket::Ticket;

/// The answers of one batch, in the order of its calls: provisional until [`HeldAnswers::release`].
pub(super) struct HeldAnswers {
    answers: VecDeque<Held>,
    /// The bytes of the statements among them.
    statement_bytes: Vec<u8>,
    is_released: bool,
}

pub(super) struct Held {
    pub(super) ticket: Ticket,
    pub(super) result: HeldResult,
}

/// What a procedure returned.
pub(super) enum HeldResult {
    Transaction {
        balance_cents: Option<i64>,
        limit_cents: Option<i64>,
    },
    /// Where the statement is in `statement_bytes`. `None`: no such account.
    Statement {
        bytes: Option<std::ops::Range<usize>>,
    },
}

impl HeldAnswers {
    /// With room for the answers of a batch of this many calls.
    pub(super) fn with_capacity(calls: usize) -> HeldAnswers {
        HeldAnswers {
            answers: VecDeque::with_capacity(calls),
            statement_bytes: Vec::new(),
            is_released: false,
        }
    }

    /// Holds the answer of one call.
    ///
    /// # Errors
    /// The row is not what the procedure returns, or its second one. Nothing is held.
    pub(super) fn hold(&mut self, ticket: Ticket, row: &Row<'_>) -> Result<(), CloseReason> {
        if self.last_number() == Some(ticket.number) {
            return Err(MORE_ROWS);
        }
        let result = HeldResult::read(&ticket.call, row, &mut self.statement_bytes)?;
        self.answers.push_back(Held { ticket, result });
        Ok(())
    }

    /// Holds the answers of a set, one for each of its tickets.
    ///
    /// # Errors
    /// The row is not what the procedure returns, or its second one. Nothing is held.
    pub(super) fn hold_set<'a>(
        &mut self,
        tickets: impl ExactSizeIterator<Item = &'a Ticket>,
        row: &Row<'_>,
    ) -> Result<(), CloseReason> {
        // A set is the first call of its batch.
        if !self.answers.is_empty() {
            return Err(MORE_ROWS);
        }
        let (balances_cents, limits_cents) = (row.i64_array(0)?, row.i64_array(1)?);
        if balances_cents.len() != tickets.len() || limits_cents.len() != tickets.len() {
            return Err(CloseReason::Other("InsertTransacoes answered another number of transactions"));
        }
        for ((&ticket, balance_cents), limit_cents) in tickets.zip(balances_cents).zip(limits_cents) {
            let result = HeldResult::Transaction { balance_cents, limit_cents };
            self.answers.push_back(Held { ticket, result });
        }
        Ok(())
    }

    /// The number of the last call whose answer is held.
    pub(super) fn last_number(&self) -> Option<u64> {
        self.answers.back().map(|held| held.ticket.number)
    }

    /// The batch is committed: [`HeldAnswers::pop_released`] gives its answers from now on.
    pub(super) fn release(&mut self) {
        self.is_released = true;
    }

    /// The next answer of a batch that is committed. After the last one, the answers of the next batch are held.
    pub(super) fn pop_released(&mut self) -> Option<Held> {
        if !self.is_released {
            return None;
        }
        let held = self.answers.pop_front();
        if held.is_none() {
            self.clear();
        }
        held
    }

    /// What the client is told, of an answer that [`HeldAnswers::pop_released`] has just given.
    pub(super) fn outcome(&self, result: HeldResult) -> Outcome<'_> {
        match result {
            HeldResult::Transaction {
                balance_cents: Some(balance_cents),
                limit_cents: Some(limit_cents),
            } => Outcome::Accepted { limit_cents, balance_cents },
            HeldResult::Transaction { balance_cents: None, limit_cents: Some(_) } => {
                Outcome::Rejected(Reject::PastLimit)
            }
            HeldResult::Transaction { limit_cents: None, .. } | HeldResult::Statement { bytes: None } => {
                Outcome::Rejected(Reject::NotFound)
            }
            HeldResult::Statement { bytes: Some(bytes) } => Outcome::Statement(&self.statement_bytes[bytes]),
        }
    }

    /// Drops all answers: their batch was rolled back, or its session has ended.
    pub(super) fn clear(&mut self) {
        self.answers.clear();
        self.statement_bytes.clear();
        self.is_released = false;
    }

    /// How many are held.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn len(&self) -> usize {
        self.answers.len()
    }
}

impl HeldResult {
    fn read(call: &Call, row: &Row<'_>, statement_bytes: &mut Vec<u8>) -> Result<HeldResult, RowError> {
        match call {
            Call::Transaction { .. } => Ok(HeldResult::Transaction {
                balance_cents: optional_i64(row, 0)?,
                limit_cents: optional_i64(row, 1)?,
            }),
            Call::Statement { .. } if row.is_null(0)? => Ok(HeldResult::Statement { bytes: None }),
            Call::Statement { .. } => {
                let start = statement_bytes.len();
                statement_bytes.extend_from_slice(row.jsonb(0)?);
                Ok(HeldResult::Statement { bytes: Some(start..statement_bytes.len()) })
            }
        }
    }
}

/// More than one row for a call would be held without a limit.
const MORE_ROWS: CloseReason = CloseReason::Other("a procedure returned more than one row");

fn optional_i64(row: &Row<'_>, column: usize) -> Result<Option<i64>, RowError> {
    if row.is_null(column)? { Ok(None) } else { row.i64(column).map(Some) }
}
