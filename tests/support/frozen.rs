//! Processes that stand still.

use std::process::Command;

use stress::Postgres;

/// Processes that stand still until this is dropped.
pub(crate) struct Frozen {
    pids: String,
}

impl Frozen {
    /// These.
    pub(crate) fn new(pids: &[u32]) -> Frozen {
        let frozen = Frozen { pids: pids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ") };
        assert!(frozen.kill("STOP"), "freeze {}", frozen.pids);
        frozen
    }

    /// All of a PostgreSQL: first the one that starts the others, so that none is missed. Returns both.
    pub(crate) fn all_of(postgres: &Postgres) -> [Frozen; 2] {
        [Frozen::new(&[postgres.pid()]), Frozen::new(&postgres.child_pids())]
    }

    /// `kill` is built into the shell; the program of that name is not on every machine.
    fn kill(&self, signal: &str) -> bool {
        let script = format!("kill -{signal} {}", self.pids);
        Command::new("sh").args(["-c", &script]).status().is_ok_and(|status| status.success())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.kill("CONT");
    }
}
