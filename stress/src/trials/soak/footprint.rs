//! How much memory and how many descriptors each part holds.
//!
//! Format: the manual pages `proc_pid_status(5)`, `proc_pid_fd(5)`, `proc_pid_cmdline(5)`.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::process::service::Service;

/// What all processes of a part hold together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    /// Resident memory. What several processes share counts for each of them.
    pub resident_bytes: u64,
    /// Of it, what is neither a file's nor shared: heaps and stacks.
    pub anonymous_bytes: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// The processes.
    pub processes: u64,
}

impl Footprint {
    /// Of a service and its children, without the workers of PostgreSQL that come and go by themselves. A process that
    /// ends meanwhile counts nothing.
    pub(super) fn of(service: &Service) -> Footprint {
        let mut sum = Footprint::default();
        for pid in [service.pid()].into_iter().chain(service.child_pids()) {
            let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            if read("cmdline").contains(PASSING_WORKER) {
                continue;
            }
            let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
            let status = read("status");
            sum.resident_bytes += kilobytes(&status, "VmRSS") * 1024;
            sum.anonymous_bytes += kilobytes(&status, "RssAnon") * 1024;
            sum.descriptors += u64::try_from(descriptors.count()).unwrap_or(u64::MAX);
            sum.processes += 1;
        }
        sum
    }
}

/// Such as `VmRSS:      1776 kB`.
fn kilobytes(status: &str, key: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    value.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

const PASSING_WORKER: &str = "autovacuum worker";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_kilobytes() {
        let status = "VmRSS:\t    1776 kB\nRssAnon:\t     112 kB\n";
        assert_eq!((kilobytes(status, "VmRSS"), kilobytes(status, "RssAnon")), (1776, 112));
        assert_eq!(kilobytes(status, "RssFile"), 0);
    }
}
