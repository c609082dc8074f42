//! How much memory and how many descriptors each part holds.

use procfs::ProcResult;
use procfs::process::Process;
use serde::{Deserialize, Serialize};

use crate::Service;

/// What all processes of a part hold together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    /// Resident memory. What several processes share counts for each of them.
    pub resident_bytes: u64,
    /// Of it, what is neither a file's nor shared: heaps and stacks.
    pub anonymous_bytes: u64,
    pub descriptors: u64,
    pub processes: u64,
}

impl Footprint {
    /// Of a service and its children, without the workers of PostgreSQL that come and go by themselves. A process that
    /// ends meanwhile counts nothing.
    pub(super) fn of(service: &Service) -> Footprint {
        let mut sum = Footprint::default();
        for pid in [service.pid()].into_iter().chain(service.child_pids()) {
            // It has ended.
            let _ = sum.add(pid);
        }
        sum
    }

    fn add(&mut self, pid: u32) -> ProcResult<()> {
        let process = Process::new(pid.cast_signed())?;
        if process.cmdline()?.iter().any(|argument| argument.contains(PASSING_WORKER)) {
            return Ok(());
        }
        let (descriptors, status) = (process.fd_count()?, process.status()?);
        self.descriptors += descriptors as u64;
        self.resident_bytes += status.vmrss.unwrap_or(0) * 1024;
        self.anonymous_bytes += status.rssanon.unwrap_or(0) * 1024;
        self.processes += 1;
        Ok(())
    }
}

const PASSING_WORKER: &str = "autovacuum worker";
