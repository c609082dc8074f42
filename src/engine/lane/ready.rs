//! CORE: a session that takes batches: what it sends, and what became of each call.

use proto_pg::{CloseReason, Connection, Connector, Event, ServerError, SqlState, Verdict};

use crate::bank::{Call, Unavailable};
use crate::config::Config;
use crate::engine::lane::held::{Held, HeldAnswers};
use crate::engine::lane::in_flight::{Batch, InFlight};
use crate::engine::lane::session::{
    NO_ACCOUNTS, Position, READ_ONLY, UNASKED, accounts_problem, read_position, remedy_for,
};
use crate::engine::lane::statements::{Asked, Question, ask_for_position, send_call, send_probe, send_set};
use crate::engine::ticket::{End, Ticket, is_of_session, spoils_session, without_answer};
use crate::now::Now;

/// A session that takes batches.
pub(super) struct Ready {
    pub(super) connection: Connection<Asked>,
    is_reader: bool,
    /// The batches that were sent and have not ended.
    in_flight: InFlight,
    /// A batch or a probe of this session was committed.
    has_committed: bool,
    /// A call of the oldest batch has failed because the server takes no writes.
    is_batch_demoted: bool,
    /// Why every further call would fail. It takes no more batches, and closes once those in flight have ended.
    spoilt: Option<CloseReason>,
    /// Whether the last probe was served. The log-in counts as one.
    is_serving: bool,
    /// When the next probe is due, in monotonic microseconds.
    probe_at_us: u64,
    /// When the server is next asked for its log position, in monotonic microseconds; `u64::MAX` without a reader.
    position_at_us: u64,
    /// The accounts that the probe in flight has read so far.
    account_ids: Vec<i32>,
}

/// What a session that takes batches reports to its lane.
pub(super) enum ReadyEvent {
    /// The server's log position (`None`: unknown), and a time before it was asked, in monotonic microseconds.
    Position(Option<Position>, u64),
    /// A probe succeeded; with the ids of the accounts, in ascending order, if it read them.
    Probed(Option<Vec<i32>>),
    /// The call's batch is committed.
    Answered(Held),
    /// The call was rolled back or never sent, and runs again: alone if `is_alone`.
    RunAgain(Ticket),
    /// The call has no result.
    Unavailable(Ticket, Unavailable),
    /// It has ended.
    Closed(CloseReason),
}

impl Ready {
    /// A session that has just logged in, and so counts as served.
    pub(super) fn new(connection: Connection<Asked>, is_reader: bool, config: &Config, now: Now) -> Ready {
        Ready {
            connection,
            is_reader,
            in_flight: InFlight::new(config),
            has_committed: false,
            is_batch_demoted: false,
            spoilt: None,
            is_serving: true,
            probe_at_us: now.after_ms(config.probe_interval_ms),
            position_at_us: if config.database_read.is_some() { 0 } else { u64::MAX },
            account_ids: Vec::new(),
        }
    }

    /// Whether its connection is open.
    pub(super) fn is_open(&self) -> bool {
        self.connection.is_ready()
    }

    /// Whether the last probe was served.
    pub(super) fn is_serving(&self) -> bool {
        self.is_serving
    }

    /// Whether every further call would fail.
    pub(super) fn is_spoilt(&self) -> bool {
        self.spoilt.is_some()
    }

    /// Whether a batch or a probe was committed.
    pub(super) fn has_committed(&self) -> bool {
        self.has_committed
    }

    /// The batches that were sent and have not ended.
    pub(super) fn in_flight(&self) -> &InFlight {
        &self.in_flight
    }

    /// Whether it takes a batch now.
    pub(super) fn can_take_batch(&self, config: &Config) -> bool {
        self.is_open() && !self.is_spoilt() && self.in_flight.has_room(config)
    }

    /// Takes no more batches, and closes once those in flight have ended.
    pub(super) fn leave(&mut self, reason: &CloseReason) {
        if self.is_open() && !self.is_spoilt() {
            self.spoilt = Some(reason.clone());
            self.close_if_spoilt();
        }
    }

    /// Queues calls as one batch: see [`Lane::send_batch`](super::Lane::send_batch).
    pub(super) fn send_batch(&mut self, tickets: &[Ticket], reads_accounts: bool, config: &Config, now: Now) {
        // The probe has its own Sync, so its failure rolls back no call.
        if !self.is_reader && !self.in_flight.has_probe() {
            self.send_probe_if_due(reads_accounts, config, now);
        }
        if self.is_reader {
            ask_for_position(&mut self.connection, now);
        }
        let transactions =
            tickets.iter().filter(|ticket| matches!(ticket.call, Call::Transaction { .. })).count();
        let set_len = if transactions >= config.group_calls_min { transactions } else { 0 };
        if set_len > 0 {
            send_set(&mut self.connection, tickets, set_len);
        }
        for &ticket in tickets {
            match ticket.call {
                Call::Transaction { .. } if set_len > 0 => self.in_flight.push_of_set(ticket),
                Call::Transaction { .. } | Call::Statement { .. } => send_call(&mut self.connection, ticket),
            }
        }
        self.connection.sync();
        let deadline_us = self.answer_deadline_us(config, now);
        self.in_flight.push(Batch { calls: tickets.len(), set_len, reads_accounts: false, deadline_us });
    }

    /// Queues a probe if one is due, which reads the accounts each `probe_interval_ms`.
    fn send_probe_if_due(&mut self, mut reads_accounts: bool, config: &Config, now: Now) {
        if now.is_past(self.probe_at_us) {
            self.probe_at_us = now.after_ms(config.probe_interval_ms);
        } else if now.is_past(self.position_at_us) {
            reads_accounts = false;
        } else {
            return;
        }
        self.account_ids.clear();
        if self.position_at_us != u64::MAX {
            self.position_at_us = now.after_ms(config.position_interval_ms());
            ask_for_position(&mut self.connection, now);
        }
        send_probe(&mut self.connection, self.is_reader, reads_accounts, config);
        self.connection.sync();
        let deadline_us = self.answer_deadline_us(config, now);
        self.in_flight.push(Batch { calls: 0, set_len: 0, reads_accounts, deadline_us });
    }

    /// When what is sent now is overdue, in monotonic microseconds. The reader waits less: after it, the primary still has to
    /// answer the statement.
    fn answer_deadline_us(&self, config: &Config, now: Now) -> u64 {
        let timeout_ms = config.answer_timeout_ms;
        now.after_ms(if self.is_reader { timeout_ms.min(config.read_staleness_max_ms) } else { timeout_ms })
    }

    /// Closes a silent connection, and queues a probe if one is due, also between batches.
    pub(super) fn expire(&mut self, reads_accounts: bool, config: &Config, now: Now) {
        if now.is_past(self.in_flight.deadline_us()) {
            self.connection.close(CloseReason::TimedOut);
        } else if self.can_probe(config) && self.is_open() {
            self.send_probe_if_due(reads_accounts, config, now);
        }
    }

    /// When [`Ready::expire`] will have something to do, in monotonic microseconds.
    pub(super) fn deadline_us(&self, config: &Config) -> u64 {
        let answer_us = self.in_flight.deadline_us();
        if self.can_probe(config) {
            answer_us.min(self.probe_at_us).min(self.position_at_us)
        } else {
            answer_us
        }
    }

    fn can_probe(&self, config: &Config) -> bool {
        self.in_flight.has_room_for_probe(config) && !self.is_spoilt()
    }

    /// The next thing that happened. `None`: it waits for bytes. The answers of the oldest batch go into `held`.
    pub(super) fn poll_event(
        &mut self,
        connector: &mut Connector,
        held: &mut HeldAnswers,
        config: &Config,
    ) -> Option<ReadyEvent> {
        loop {
            if let Some((ticket, end)) = self.in_flight.pop_ended() {
                if self.is_reader {
                    // A statement changes nothing, so it can run again even if it is in doubt.
                    return Some(ReadyEvent::RunAgain(ticket));
                }
                return Some(match without_answer(ticket, &end, config) {
                    Ok(again) => ReadyEvent::RunAgain(again),
                    Err(reason) => ReadyEvent::Unavailable(ticket, reason),
                });
            }
            if let Some(answer) = held.pop_released() {
                return Some(ReadyEvent::Answered(answer));
            }
            match self.connection.poll_event()? {
                Event::Row { ticket: Asked::Call(ticket), row } => {
                    if let Err(reason) = held.hold(ticket, &row) {
                        self.connection.close(reason);
                    }
                }
                Event::Row { ticket: Asked::Set { len }, row } => {
                    if let Err(reason) = held.hold_set(self.in_flight.set(len), &row) {
                        self.connection.close(reason);
                    }
                }
                Event::Done { ticket: Asked::Call(ticket), .. } => {
                    self.expect_held(Some(ticket.number), held);
                }
                Event::Done { ticket: Asked::Set { len }, .. } => {
                    let last = self.in_flight.set(len).next_back().map(|ticket| ticket.number);
                    self.expect_held(last, held);
                }
                Event::Row { ticket: Asked::Own(Question::Probe), .. } => {}
                Event::Row { ticket: Asked::Own(Question::Accounts), row } => match row.i32(0) {
                    Ok(id) => self.account_ids.push(id),
                    Err(error) => self.connection.close(CloseReason::Row(error)),
                },
                Event::Row { ticket: Asked::Own(Question::Position { asked_us }), row } => {
                    match read_position(&row) {
                        Ok(position) => return Some(ReadyEvent::Position(position, asked_us)),
                        Err(error) => self.connection.close(CloseReason::Row(error)),
                    }
                }
                Event::Done { ticket: Asked::Own(_), .. } => {}
                Event::Failed { ticket, error } => {
                    self.is_batch_demoted = error.code == SqlState::READ_ONLY_SQL_TRANSACTION;
                    self.note_failure(ticket, &error, config);
                    self.in_flight.end(ticket, || End::Failed(error.clone()));
                }
                Event::RolledBack { ticket } => {
                    let is_demoted = self.is_batch_demoted;
                    self.in_flight.end(ticket, || if is_demoted { End::Demoted } else { End::RolledBack });
                }
                Event::InDoubt { ticket } => self.in_flight.end(ticket, || End::InDoubt),
                // `ReadyForQuery` has confirmed the commit: only now may the answers of the batch leave.
                Event::Committed => {
                    self.has_committed = true;
                    let Some(batch) = self.in_flight.commit() else { continue };
                    self.close_if_spoilt();
                    if batch.calls > 0 {
                        held.release();
                    } else if let Some(event) = self.probed(batch.reads_accounts, config) {
                        return Some(event);
                    }
                }
                Event::Aborted { error } => {
                    if let Some(error) = error {
                        log::warn!("PostgreSQL refused a commit: {error}");
                    }
                    self.in_flight.abort();
                    self.is_batch_demoted = false;
                    self.close_if_spoilt();
                    held.clear();
                }
                Event::Notice(notice) => log::debug!("PostgreSQL: {notice}"),
                Event::Parameter { name, value } => self.take_parameter(&name, &value, connector),
                Event::Notification { channel, .. } => log::debug!("PostgreSQL: a notification on {channel}"),
                Event::Closed { reason } => return Some(ReadyEvent::Closed(reason)),
                _ => self.connection.close(CloseReason::Other(UNASKED)),
            }
        }
    }

    /// Each procedure returns one row, so by the end of a call its answer is held.
    fn expect_held(&mut self, number: Option<u64>, held: &HeldAnswers) {
        if held.last_number() != number {
            self.connection.close(CloseReason::Other("a procedure returned no row"));
        }
    }

    /// Notes what the failure of a call says about the session.
    fn note_failure(&mut self, asked: Asked, error: &ServerError, config: &Config) {
        let is_spoilt = match asked {
            Asked::Call(ticket) => {
                spoils_session(&ticket, error, config) || self.is_reader && is_of_session(error)
            }
            Asked::Set { len } => self.in_flight.set(len).any(|ticket| spoils_session(ticket, error, config)),
            Asked::Own(_) => {
                if self.is_serving {
                    log::warn!("the bank cannot be served: {error}{}", remedy_for(error));
                }
                self.is_serving = false;
                is_of_session(error)
            }
        };
        if is_spoilt {
            self.spoilt = Some(CloseReason::Server(error.clone()));
        }
    }

    /// Closes a spoilt session once nothing is in flight: before, calls without an answer would be in doubt.
    fn close_if_spoilt(&mut self) {
        if self.in_flight.is_empty()
            && let Some(reason) = &self.spoilt
        {
            self.connection.close(reason.clone());
        }
    }

    /// A probe succeeded.
    fn probed(&mut self, reads_accounts: bool, config: &Config) -> Option<ReadyEvent> {
        if !self.is_serving {
            log::info!("the bank is served again");
            self.is_serving = true;
        }
        if !reads_accounts {
            return Some(ReadyEvent::Probed(None));
        }
        match accounts_problem(self.account_ids.len(), config) {
            None => Some(ReadyEvent::Probed(Some(std::mem::take(&mut self.account_ids)))),
            Some(NO_ACCOUNTS) => {
                self.connection.close(CloseReason::Other(NO_ACCOUNTS));
                None
            }
            // The accounts that are known are still served.
            Some(problem) => {
                log::warn!("{problem}; new clients are not known");
                Some(ReadyEvent::Probed(None))
            }
        }
    }

    /// The server reports a setting. A lane to the primary leaves a server that became a standby; the reader leaves one that
    /// `target_session_attrs` does not want any more, such as after a promotion.
    fn take_parameter(&mut self, name: &str, value: &str, connector: &mut Connector) {
        log::debug!("PostgreSQL: {name} = {value}");
        connector.parameter(name, value);
        if name != "in_hot_standby" {
            return;
        }
        match connector.judge() {
            Verdict::Reject(mismatch) => self.leave(&CloseReason::TargetSession(mismatch)),
            Verdict::Accept | Verdict::Ask(_) if !self.is_reader && value == "on" => {
                self.leave(&CloseReason::Other(READ_ONLY));
            }
            Verdict::Accept | Verdict::Ask(_) => {}
        }
    }
}
