//! CORE: a session until it takes batches: it logs in, is asked whether it is what `target_session_attrs` wants, for its server's
//! timeline and for the accounts, and gets its settings.

use proto_pg::{CloseReason, Connection, Connector, Event, ServerError, Verdict};

use crate::config::Config;
use crate::engine::lane::session::{
    HISTORY, History, NO_ACCOUNTS, READ_ONLY, UNASKED, accounts_problem, read_history, session_problem,
};
use crate::engine::lane::statements::{Asked, Question, ask_for_accounts, send_settings};

/// A session that does not take batches yet.
pub(super) struct LogIn {
    pub(super) connection: Connection<Asked>,
    /// When it has taken too long, in monotonic microseconds.
    pub(super) deadline_us: u64,
    is_reader: bool,
    step: Step,
    history: Option<History>,
    account_ids: Vec<i32>,
}

/// What the session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Logging in, preparing the statements, and answering whether it is what `target_session_attrs` wants.
    Fitness,
    /// Answering which timeline its server is on.
    History,
    /// Setting the session's settings and reading the accounts.
    SettingUp,
}

/// What a session that is logging in reports to its lane.
pub(super) enum LogInEvent {
    /// The timeline of its server. Other servers than PostgreSQL may not have one, and a standby reports none.
    Placed(History),
    /// It takes batches from now on. The ids of the accounts, in ascending order.
    Done(Vec<i32>),
    /// It has ended.
    Closed(CloseReason),
}

impl LogIn {
    /// A connection whose first bytes are yet to be sent.
    pub(super) fn new(connection: Connection<Asked>, is_reader: bool, deadline_us: u64) -> LogIn {
        LogIn {
            connection,
            deadline_us,
            is_reader,
            step: Step::Fitness,
            history: None,
            account_ids: Vec::new(),
        }
    }

    /// Whether PostgreSQL has let it in.
    pub(super) fn is_logged_in(&self) -> bool {
        self.step != Step::Fitness
    }

    /// The next thing that happened. `None`: it waits for bytes.
    pub(super) fn poll_event(&mut self, connector: &mut Connector, config: &Config) -> Option<LogInEvent> {
        loop {
            match self.connection.poll_event()? {
                Event::Ready => self.check_fitness(connector),
                Event::TextRow { ticket: Asked::Own(Question::Fitness), row } => {
                    if let Verdict::Reject(mismatch) = connector.answered(row.text(0).ok().flatten()) {
                        self.connection.close(CloseReason::TargetSession(mismatch));
                    }
                }
                Event::TextRow { ticket: Asked::Own(Question::History), row } => {
                    self.history = read_history(&row);
                }
                Event::Row { ticket: Asked::Own(Question::Settings), row } => match session_problem(&row) {
                    Ok(None) => {}
                    Ok(Some(READ_ONLY)) if self.is_reader => {}
                    Ok(Some(problem)) => self.connection.close(CloseReason::Other(problem)),
                    Err(error) => self.connection.close(CloseReason::Row(error)),
                },
                Event::Row { ticket: Asked::Own(Question::Accounts), row } => match row.i32(0) {
                    Ok(id) => self.account_ids.push(id),
                    Err(error) => self.connection.close(CloseReason::Row(error)),
                },
                // Other engines and poolers do not have these functions, or a role may not call them: then the timeline stays
                // unknown. Any other error may pass, and without the timeline an old primary would not be told apart.
                Event::Failed { ticket: Asked::Own(Question::History), error } if is_for_good(&error) => {
                    log::info!("no timeline of the server, so an old primary is not told apart: {error}");
                }
                Event::Failed { ticket: Asked::Own(Question::Fitness), .. } => {
                    if let Verdict::Reject(mismatch) = connector.answered(None) {
                        self.connection.close(CloseReason::TargetSession(mismatch));
                    }
                }
                Event::Failed { error, .. } => self.connection.close(CloseReason::Server(error)),
                Event::Committed => match self.step {
                    Step::Fitness => self.check_fitness(connector),
                    Step::History => {
                        self.set_up(config);
                        if let Some(history) = self.history.take() {
                            return Some(LogInEvent::Placed(history));
                        }
                    }
                    Step::SettingUp => match accounts_problem(self.account_ids.len(), config) {
                        Some(NO_ACCOUNTS) => self.connection.close(CloseReason::Other(NO_ACCOUNTS)),
                        problem => {
                            if let Some(problem) = problem {
                                log::warn!("{problem}; those with the lowest ids are served");
                                self.account_ids.truncate(config.accounts_max);
                            }
                            return Some(LogInEvent::Done(std::mem::take(&mut self.account_ids)));
                        }
                    },
                },
                Event::Aborted { error } => {
                    if let Some(error) = error {
                        log::warn!("PostgreSQL refused a commit: {error}");
                    }
                    if self.step == Step::History {
                        self.set_up(config);
                    }
                }
                Event::Parameter { name, value } => {
                    log::debug!("PostgreSQL: {name} = {value}");
                    connector.parameter(&name, &value);
                    if !self.is_reader && (&*name, &*value) == ("in_hot_standby", "on") {
                        self.leave_standby(connector);
                    }
                }
                Event::Columns { .. }
                | Event::Done { .. }
                | Event::RolledBack { .. }
                | Event::InDoubt { .. } => {}
                Event::Notice(notice) => log::debug!("PostgreSQL: {notice}"),
                Event::Notification { channel, .. } => log::debug!("PostgreSQL: a notification on {channel}"),
                Event::Closed { reason } => return Some(LogInEvent::Closed(reason)),
                _ => self.connection.close(CloseReason::Other(UNASKED)),
            }
        }
    }

    /// Goes on if the session is what `target_session_attrs` wants, and closes it otherwise.
    fn check_fitness(&mut self, connector: &mut Connector) {
        match connector.judge() {
            Verdict::Accept => self.ask(Question::History, Step::History, HISTORY),
            Verdict::Reject(mismatch) => self.connection.close(CloseReason::TargetSession(mismatch)),
            Verdict::Ask(query) => self.ask(Question::Fitness, Step::Fitness, query),
        }
    }

    /// Sends a simple query. It has a batch of its own, so that an error does not end the log-in.
    fn ask(&mut self, question: Question, step: Step, query: &str) {
        self.step = step;
        let queued = self.connection.simple_query(Asked::Own(question), query);
        assert!(queued.is_ok(), "a session that has just begun has room for a question");
    }

    /// Sends the session's settings, and asks for the accounts.
    fn set_up(&mut self, config: &Config) {
        self.step = Step::SettingUp;
        send_settings(&mut self.connection, config);
        ask_for_accounts(&mut self.connection, config);
        self.connection.sync();
    }

    /// The server reports that it is a standby: a lane to the primary ends the session before it prepares anything.
    fn leave_standby(&mut self, connector: &mut Connector) {
        self.connection.close(match connector.judge() {
            Verdict::Reject(mismatch) => CloseReason::TargetSession(mismatch),
            Verdict::Accept | Verdict::Ask(_) => CloseReason::Other(READ_ONLY),
        });
    }
}

/// Whether every further attempt would fail, too: access rules and what is not known or not supported.
///
/// Source: PostgreSQL documentation, appendix "PostgreSQL Error Codes".
fn is_for_good(error: &ServerError) -> bool {
    matches!(error.code.as_bytes(), [b'4', b'2', ..] | [b'0', b'A', ..])
}
