//! How much memory a process has in use.

use std::fmt;

/// What `/proc/PID/status` tells.
pub(crate) struct Resident {
    /// Heap, stacks and whatever else is the process's own (`RssAnon`).
    pub(crate) anonymous_kib: u64,
    /// With the mapped pages of its binary and libraries (`VmRSS`).
    total_kib: u64,
}

impl Resident {
    /// Of a process that runs.
    pub(crate) fn of(pid: u32) -> Resident {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
        let kib = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix(" kB"));
            value
                .and_then(|value| value.trim().parse().ok())
                .unwrap_or_else(|| panic!("no {name} in {status}"))
        };
        Resident { anonymous_kib: kib("RssAnon:"), total_kib: kib("VmRSS:") }
    }
}

impl fmt::Display for Resident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB anonymous, {} KiB in all", self.anonymous_kib, self.total_kib)
    }
}
