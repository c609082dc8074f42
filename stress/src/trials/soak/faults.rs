//! What is done to the stack, one thing each minute.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use strum::VariantArray;

use crate::stack::DATABASE;
use crate::{Error, Frozen, Signal, Stack};

/// A fault. None of them crashes PostgreSQL: in benchmark mode that empties the tables.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, strum::Display, VariantArray,
)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    #[strum(serialize = "PostgreSQL restarted")]
    PostgresqlRestarted,
    #[strum(serialize = "backend terminated")]
    BackendTerminated,
    #[strum(serialize = "PostgreSQL paused")]
    PostgresqlPaused,
    #[strum(serialize = "row locked")]
    RowLocked,
    #[strum(serialize = "webapi2 killed")]
    InstanceKilled,
    #[strum(serialize = "webapi2 restarted")]
    InstanceRestarted,
    #[strum(serialize = "nginx reloaded")]
    NginxReloaded,
}

impl Fault {
    pub const ALL: &[Fault] = Fault::VARIANTS;

    /// Does it, for as long as `hold` where it lasts. Returns when it was over. That a part does not end or start as it should is
    /// a finding.
    pub(super) fn inject(self, stack: &mut Stack, hold: Duration) -> Result<Instant, Error> {
        match self {
            Fault::PostgresqlRestarted => {
                if !stack.postgres.stop().is_some_and(|status| status.success()) {
                    return Err(stack.postgres.failure("did not stop in time"));
                }
                stack.postgres.start_again()?;
            }
            Fault::BackendTerminated => {
                let terminated = stack.postgres.connect(DATABASE)?.query(TERMINATE_ONE, &[]);
                if terminated.map_err(Error::sql("a fault"))?.len() != 1 {
                    return Err(Error::Refused("no instance has a session to terminate".to_owned()));
                }
            }
            Fault::PostgresqlPaused => {
                let frozen = Frozen::all_of(&stack.postgres)?;
                thread::sleep(hold);
                drop(frozen);
            }
            Fault::RowLocked => {
                let mut stranger = stack.postgres.connect(DATABASE)?;
                stranger.batch_execute(LOCK_ROW).map_err(Error::sql("a fault"))?;
                thread::sleep(hold);
            }
            Fault::InstanceKilled | Fault::InstanceRestarted => {
                let is_killed = self == Fault::InstanceKilled;
                let signal = if is_killed { Signal::KILL } else { Signal::TERM };
                let instance = &mut stack.instances[SUFFERER];
                instance.signal(signal)?;
                let is_as_asked = |status: ExitStatus| match status.signal() {
                    Some(signal) => is_killed && signal == Signal::KILL.as_raw(),
                    None => !is_killed && status.success(),
                };
                if !instance.wait_exit(END_PATIENCE).is_some_and(is_as_asked) {
                    return Err(instance.failure("did not stop in time"));
                }
                if is_killed {
                    thread::sleep(hold);
                }
                stack.start_instance_again(SUFFERER)?;
            }
            Fault::NginxReloaded => stack.balancer.reload()?,
        }
        Ok(Instant::now())
    }
}

/// Always webapi2, so that webapi1 lives from beginning to end.
pub(super) const SUFFERER: usize = 1;
/// The server ends within 10 s of a SIGTERM.
const END_PATIENCE: Duration = Duration::from_secs(11);
/// Ends one session of an instance, any of them.
const TERMINATE_ONE: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
    WHERE datname = current_database() AND application_name = 'rinha' ORDER BY random() LIMIT 1";
const LOCK_ROW: &str = "BEGIN; SELECT 1 FROM clientes WHERE id = 1 FOR UPDATE";
