//! The machine that figures belong to.

use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use procfs::{CpuInfo, Current as _, LoadAverage, Meminfo};
use serde::{Deserialize, Serialize};

/// What figures depend on, and how busy it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// As the kernel names it.
    pub cpu: String,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// All of its memory.
    pub memory_bytes: u64,
    /// The kernel's release.
    pub kernel: String,
    /// The load average of the last minute before the first run.
    pub load_average_before: f64,
    /// When, in seconds since 1970.
    pub measured_at_unix_s: u64,
}

impl Machine {
    /// Looks at this one. What cannot be read is empty or 0.
    pub fn look() -> Machine {
        let cpu = CpuInfo::current().ok().and_then(|info| Some(info.model_name(0)?.to_owned()));
        let load = LoadAverage::current().map_or(0.0, |load| f64::from(load.one));
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Machine {
            cpu: cpu.unwrap_or_default(),
            cpus: thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: Meminfo::current().map_or(0, |info| info.mem_total),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            load_average_before: (load * 100.0).round() / 100.0,
            measured_at_unix_s: now.map_or(0, |since| since.as_secs()),
        }
    }

    /// Such as `2 × A CPU @ 2 GHz`.
    pub(crate) fn describe(&self) -> String {
        format!("{} × {}", self.cpus, self.cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_cpus_and_memory() {
        let machine = Machine::look();
        assert!(machine.cpus > 0 && machine.memory_bytes > 0 && !machine.kernel.is_empty(), "{machine:?}");
    }
}
