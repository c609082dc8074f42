//! What the processes of a group used, as the kernel keeps account of it.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::{Mount, Parent, Version, membership};

/// The account of one group, ours or somebody else's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub(super) version: Version,
    /// As in [`Parent`].
    pub(super) directories: Vec<PathBuf>,
}

impl Account {
    /// That of the group in which a process is.
    ///
    /// # Errors
    /// One line that says why there is none: there is no such process, or it is in this process' group or in everybody's.
    pub fn of_process(pid: u32) -> Result<Account, String> {
        let read =
            |path: &str| fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"));
        let mounts = Mount::parse_all(&read("/proc/self/mountinfo")?);
        let account = Account::of_members(&read(&format!("/proc/{pid}/cgroup"))?, &mounts)?;
        let is_everybodys = |directory: &PathBuf| mounts.iter().any(|mount| mount.point == *directory);
        if account == Account::of_members(&read("/proc/self/cgroup")?, &mounts)?
            || account.directories.iter().any(is_everybodys)
        {
            return Err(format!("process {pid} is in no group of its own, so what it uses is not known"));
        }
        Ok(account)
    }

    fn of_members(memberships: &str, mounts: &[Mount]) -> Result<Account, String> {
        if let Some(Parent { version, directories }) = Parent::version_1(memberships, mounts) {
            return Ok(Account { version, directories });
        }
        let mount = mounts.iter().find(|mount| mount.is_version_2).ok_or("no cgroups are mounted")?;
        let membership = membership(memberships, str::is_empty).ok_or("the process is in no cgroup")?;
        Ok(Account { version: Version::V2, directories: vec![mount.directory_of(membership)] })
    }

    /// CPU time used by all who ever were in the group.
    ///
    /// # Errors
    /// When the kernel's figure cannot be read.
    pub fn cpu_usage(&self) -> io::Result<Duration> {
        match self.version {
            Version::V1 => self.read_number("cpuacct.usage").map(Duration::from_nanos),
            Version::V2 => {
                let statistics = self.read("cpu.stat")?;
                keyed_number(&statistics, "usage_usec").map(Duration::from_micros).ok_or_else(not_a_number)
            }
        }
    }

    /// The most memory the group ever used at once, its page cache included.
    ///
    /// # Errors
    /// When the kernel's figure cannot be read; version 2 has it since Linux 5.19.
    pub fn memory_peak_bytes(&self) -> io::Result<u64> {
        match self.version {
            Version::V1 => self.read_number("memory.max_usage_in_bytes"),
            Version::V2 => self.read_number("memory.peak"),
        }
    }

    /// How many of its processes the kernel killed because the memory limit was reached; 0 where it does not say.
    pub fn out_of_memory_kills(&self) -> u64 {
        let file = match self.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        self.read(file).ok().and_then(|text| keyed_number(&text, "oom_kill")).unwrap_or(0)
    }

    /// The one of its directories that has this file.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        let mut paths = self.directories.iter().map(|directory| directory.join(name));
        paths.find(|path| path.exists()).unwrap_or_else(|| PathBuf::from(name))
    }

    fn read(&self, file: &str) -> io::Result<String> {
        fs::read_to_string(self.file(file))
    }

    fn read_number(&self, file: &str) -> io::Result<u64> {
        self.read(file)?.trim().parse().map_err(|_| not_a_number())
    }
}

/// The number of the line `key number`.
fn keyed_number(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

fn not_a_number() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not a number")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    #[test]
    fn the_group_of_a_process_is_found_in_either_version() {
        let mounts = Mount::parse_all(MOUNTS);
        let version_1 = Account::of_members("4:memory:/a/b\n2:cpu,cpuacct:/a\n0::/\n", &mounts).unwrap();
        let directories = ["/sys/fs/cgroup/cpu,cpuacct/a", "/sys/fs/cgroup/memory/a/b"].map(PathBuf::from);
        assert_eq!(version_1, Account { version: Version::V1, directories: directories.into() });

        let version_2 = Account::of_members("0::/system.slice/db.service\n", &mounts[2..]).unwrap();
        let directory = PathBuf::from("/sys/fs/cgroup/unified/system.slice/db.service");
        assert_eq!(version_2, Account { version: Version::V2, directories: vec![directory] });
    }

    #[test]
    fn a_process_without_a_group_of_its_own_has_no_account() {
        assert!(Account::of_process(std::process::id()).unwrap_err().contains("no group of its own"));
        assert!(Account::of_process(u32::MAX).unwrap_err().contains("/proc/4294967295/cgroup"));
    }

    #[test]
    fn reads_a_keyed_number() {
        let events = "low 0\noom 3\noom_kill 2\n";
        assert_eq!(keyed_number(events, "oom_kill"), Some(2));
        assert_eq!(keyed_number(events, "oom"), Some(3));
        assert_eq!(keyed_number(events, "max"), None);
    }
}
