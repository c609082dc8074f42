//! The machine that figures belong to.

use std::fs;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

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
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let first_word = |text: &str| text.split_whitespace().next().unwrap_or_default().to_owned();
        let (cpuinfo, meminfo) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        let kilobytes: u64 =
            value(&meminfo, "MemTotal").and_then(|value| first_word(value).parse().ok()).unwrap_or(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Machine {
            cpu: value(&cpuinfo, "model name").unwrap_or_default().to_owned(),
            cpus: thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kilobytes * 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_average_before: first_word(&read("/proc/loadavg")).parse().unwrap_or(0.0),
            measured_at_unix_s: now.map_or(0, |since| since.as_secs()),
        }
    }

    /// Such as `2 × A CPU @ 2 GHz`.
    pub(crate) fn describe(&self) -> String {
        format!("{} × {}", self.cpus, self.cpu)
    }
}

/// Format: the manual pages `proc_cpuinfo(5)` and `proc_meminfo(5)`: `key : value`.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(found, _)| found.trim() == key).map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_value() {
        assert_eq!(
            value("processor\t: 0\nmodel name\t: A CPU @ 2 GHz\n", "model name"),
            Some("A CPU @ 2 GHz")
        );
        assert_eq!(value("MemTotal:       16316412 kB\n", "MemTotal"), Some("16316412 kB"));
        assert_eq!(value("", "MemTotal"), None);
    }

    #[test]
    fn this_machine_has_cpus_and_memory() {
        let machine = Machine::look();
        assert!(machine.cpus > 0 && machine.memory_bytes > 0);
    }
}
