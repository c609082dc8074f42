//! CPU and memory limits of a service, and what it used: cgroups, version 1 or 2.
//!
//! Format: Linux kernel documentation, "Control Groups version 1" (CFS Bandwidth Control, Memory Resource
//! Controller) and "Control Group v2"; the manual pages cgroups(7) and `proc_pid_mountinfo(5)`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use procfs::ProcessCGroup;
use procfs::process::{MountInfo, Process};
use rustix::process::Signal;

use crate::Error;
use crate::process::signal;
use crate::wait::{self, Interrupt};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Thousandths of one CPU: 400 is 0.4 CPU.
    pub cpu_thousandths: u32,
    pub memory_bytes: u64,
}

/// What the processes of one group used, ours or somebody else's, as the kernel keeps account of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    version: Version,
    /// Version 1: the group in the hierarchies of cpu, cpuacct and memory, without repeats. Version 2: one.
    directories: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// The group below which we may make ours, and the span over which the kernel counts their CPU time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    account: Account,
    cpu_period_us: u64,
}

/// One service's group. Dropping it ends what still runs in it and removes it.
#[derive(Debug)]
pub struct Group {
    pub account: Account,
}

impl Account {
    /// That of the group in which a process is. An error is one line that says why there is none: there is no such process, or
    /// it is in this process' group or in everybody's.
    pub fn of_process(pid: u32) -> Result<Account, String> {
        let (ours, mounts) = of_self()?;
        let groups = Process::new(pid.cast_signed()).and_then(|process| process.cgroups());
        let groups = groups.map_err(|error| format!("cannot read /proc/{pid}/cgroup: {error}"))?;
        let account = Account::of_groups(&groups.0, &mounts)?;
        let is_everybodys = |directory: &PathBuf| mounts.iter().any(|mount| mount.mount_point == *directory);
        if account == Account::of_groups(&ours, &mounts)? || account.directories.iter().any(is_everybodys) {
            return Err(format!("process {pid} is in no group of its own, so what it uses is not known"));
        }
        Ok(account)
    }

    /// That of the group, or of the groups of version 1, in which the process with these `groups` is.
    fn of_groups(groups: &[ProcessCGroup], mounts: &[MountInfo]) -> Result<Account, String> {
        let mut directories = Vec::new();
        for controller in ["cpu", "cpuacct", "memory"] {
            let is_its = |mount: &&MountInfo| {
                mount.fs_type == "cgroup" && mount.super_options.contains_key(controller)
            };
            let of_controller = |group: &&ProcessCGroup| group.controllers.iter().any(|it| it == controller);
            let Some((mount, group)) = mounts.iter().find(is_its).zip(groups.iter().find(of_controller))
            else {
                let mount = mounts.iter().find(|mount| mount.fs_type == "cgroup2");
                let group = groups.iter().find(|group| group.controllers.is_empty());
                let group = group.ok_or("the process is in no cgroup")?;
                let directory = directory_of(&group.pathname, mount.ok_or("no cgroups are mounted")?);
                return Ok(Account { version: Version::V2, directories: vec![directory] });
            };
            directories.push(directory_of(&group.pathname, mount));
        }
        directories.dedup();
        Ok(Account { version: Version::V1, directories })
    }

    pub fn cpu_usage(&self) -> io::Result<Duration> {
        match self.version {
            Version::V1 => self.number("cpuacct.usage", None).map(Duration::from_nanos),
            Version::V2 => self.number("cpu.stat", Some("usage_usec")).map(Duration::from_micros),
        }
    }

    /// The most memory the group ever used at once, its page cache included. Version 2 has it since Linux 5.19.
    pub fn memory_peak_bytes(&self) -> io::Result<u64> {
        self.number(if self.is_v1() { "memory.max_usage_in_bytes" } else { "memory.peak" }, None)
    }

    /// How many of its processes the kernel killed because the memory limit was reached; 0 where it does not say.
    pub fn out_of_memory_kills(&self) -> u64 {
        let file = if self.is_v1() { "memory.oom_control" } else { "memory.events" };
        self.number(file, Some("oom_kill")).unwrap_or(0)
    }

    /// The limits that the kernel keeps, and over which span those of CPU; `None` where there are none.
    pub fn limits(&self) -> Option<(Limits, Duration)> {
        let whole = |file| self.number(file, None).ok();
        let (quota_us, period_us, memory_bytes) = if self.is_v1() {
            (whole("cpu.cfs_quota_us")?, whole("cpu.cfs_period_us")?, whole("memory.limit_in_bytes")?)
        } else {
            let cpu = fs::read_to_string(self.file("cpu.max")).ok()?;
            let (quota, period) = cpu.trim().split_once(' ')?;
            (quota.parse().ok()?, period.parse().ok()?, whole("memory.max")?)
        };
        let cpu_thousandths = (quota_us * 1000).checked_div(period_us)?.try_into().ok()?;
        Some((Limits { cpu_thousandths, memory_bytes }, Duration::from_micros(period_us)))
    }

    fn is_v1(&self) -> bool {
        self.version == Version::V1
    }

    /// The one of its directories that has this file.
    fn file(&self, name: &str) -> PathBuf {
        let mut paths = self.directories.iter().map(|directory| directory.join(name));
        paths.find(|path| path.exists()).unwrap_or_else(|| PathBuf::from(name))
    }

    /// The number of the line `key number`, or that which is the whole file.
    fn number(&self, file: &str, key: Option<&str>) -> io::Result<u64> {
        let text = fs::read_to_string(self.file(file))?;
        let number = match key {
            Some(key) => text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')),
            None => Some(text.as_str()),
        };
        let not_a_number = || io::Error::new(io::ErrorKind::InvalidData, "not a number");
        number.and_then(|number| number.trim().parse().ok()).ok_or_else(not_a_number)
    }
}

fn of_self() -> Result<(Vec<ProcessCGroup>, Vec<MountInfo>), String> {
    let read = Process::myself().and_then(|process| Ok((process.cgroups()?.0, process.mountinfo()?.0)));
    read.map_err(|error| format!("cannot look at /proc/self: {error}"))
}

/// Where the group `path`, from the hierarchy's root, is found in the file system. The mount point shows not always the root
/// of the hierarchy, for example in a container.
fn directory_of(path: &str, mount: &MountInfo) -> PathBuf {
    let below = Path::new(path).strip_prefix(&mount.root).unwrap_or(Path::new(""));
    if below.as_os_str().is_empty() { mount.mount_point.clone() } else { mount.mount_point.join(below) }
}

impl Parent {
    /// Finds out where this process may make groups, by making one and entering it. An error is one line that says why
    /// limits cannot be applied here.
    pub fn find() -> Result<Parent, String> {
        let (groups, mounts) = of_self()?;
        let parent = Parent::of_groups(&groups, &mounts)?;
        parent.remove_abandoned();
        parent.probe()?;
        Ok(parent)
    }

    /// Version 2: processes live in the leaves only ("no internal processes"), and ours has neighbours that are none of our
    /// business. So the parent is the nearest group above that hands both controllers down, or lets itself be told to.
    fn of_groups(groups: &[ProcessCGroup], mounts: &[MountInfo]) -> Result<Parent, String> {
        let own = Account::of_groups(groups, mounts)?;
        if own.is_v1() {
            return Ok(Parent::new(own));
        }
        let is_mounted = |directory: &Path| {
            mounts.iter().any(|it| it.fs_type == "cgroup2" && directory.starts_with(&it.mount_point))
        };
        let candidates: Vec<&Path> =
            own.directories[0].ancestors().take_while(|directory| is_mounted(directory)).collect();
        for may_change in [false, true] {
            for candidate in &candidates {
                if hands_down_both(candidate, may_change) && can_make_groups(candidate) {
                    let directories = vec![candidate.to_path_buf()];
                    return Ok(Parent::new(Account { version: Version::V2, directories }));
                }
            }
        }
        Err(format!("no group from {} upwards lets us limit cpu and memory", own.directories[0].display()))
    }

    fn new(account: Account) -> Parent {
        Parent { account, cpu_period_us: u64::from(CPU_PERIOD_DEFAULT_MS) * 1000 }
    }

    /// A group made from now on has its share of CPU anew after each `period_ms`: once it is used up, the group stands still for
    /// the rest of it.
    #[must_use]
    pub fn with_cpu_period_ms(self, period_ms: u32) -> Parent {
        Parent { cpu_period_us: u64::from(period_ms) * 1000, ..self }
    }

    /// Makes a group for one service; without limits it only keeps account.
    pub fn group(&self, name: &str, limits: impl Into<Option<Limits>>) -> Result<Group, Error> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{name}", process::id());
        // From here on the group's own `drop` cleans up.
        let directories = self.account.directories.iter().map(|parent| parent.join(&name)).collect();
        let group = Group { account: Account { version: self.account.version, directories } };
        for directory in &group.account.directories {
            fs::create_dir(directory)
                .map_err(Error::io(format!("make the group {}", directory.display())))?;
        }
        let Some(limits) = limits.into() else { return Ok(group) };
        let period_us = self.cpu_period_us;
        let quota_us = u64::from(limits.cpu_thousandths) * period_us / 1000;
        let memory_bytes = limits.memory_bytes.to_string();
        let settings = match self.account.version {
            Version::V1 => vec![
                ("cpu.cfs_period_us", period_us.to_string()),
                ("cpu.cfs_quota_us", quota_us.to_string()),
                ("memory.limit_in_bytes", memory_bytes),
            ],
            Version::V2 => {
                vec![("cpu.max", format!("{quota_us} {period_us}")), ("memory.max", memory_bytes)]
            }
        };
        for (file, value) in settings {
            group.write(file, &value).map_err(Error::io(format!("set {file} to {value}")))?;
        }
        Ok(group)
    }

    fn probe(&self) -> Result<(), String> {
        let limits = Limits { cpu_thousandths: 1000, memory_bytes: 64 << 20 };
        let group = self.group("probe", limits).map_err(|error| error.to_string())?;
        for file in group.members_files() {
            let entered = Command::new("/bin/sh")
                .args(["-c", r#"echo $$ > "$1""#, "stress"])
                .arg(&file)
                .stderr(Stdio::null())
                .status();
            if !entered.is_ok_and(|status| status.success()) {
                return Err(format!("no process of ours may be moved into {}", file.display()));
            }
        }
        Ok(())
    }

    /// Removes the groups of a bench that was killed; the kernel refuses where a process is left.
    fn remove_abandoned(&self) {
        for entry in self.account.directories.iter().flat_map(fs::read_dir).flatten().flatten() {
            let name = entry.file_name();
            let rest = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
            let owner = rest.and_then(|rest| rest.split('-').next());
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

impl Group {
    /// The files to which a process writes its id to enter the group.
    pub fn members_files(&self) -> impl Iterator<Item = PathBuf> {
        self.account.directories.iter().map(|directory| directory.join(MEMBERS))
    }

    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        // Never made anew: a file that is not there is a controller that is not there.
        fs::OpenOptions::new()
            .write(true)
            .open(self.account.file(file))
            .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A member counts until the kernel has buried it, a moment after its parent was told of its end.
        let removed = wait::until(REMOVE_PATIENCE, &Interrupt::default(), || {
            for list in self.members_files().filter_map(|file| fs::read_to_string(file).ok()) {
                for member in list.lines().filter_map(|line| line.parse().ok()) {
                    let _ = signal(member, Signal::KILL);
                }
            }
            // On a read-only file system also a directory that was never made "cannot be removed".
            self.account
                .directories
                .retain(|directory| fs::remove_dir(directory).is_err() && directory.exists());
            Ok(self.account.directories.is_empty().then_some(()))
        });
        if !matches!(removed, Ok(Some(()))) {
            eprintln!("stress: cannot remove the groups {:?}", self.account.directories);
        }
    }
}

/// Whether the groups below `directory` get the cpu and memory controllers, if necessary by asking for it.
fn hands_down_both(directory: &Path, may_change: bool) -> bool {
    let switch = directory.join("cgroup.subtree_control");
    let has_both = || {
        let enabled = fs::read_to_string(&switch).unwrap_or_default();
        ["cpu", "memory"].iter().all(|wanted| enabled.split_whitespace().any(|name| name == *wanted))
    };
    has_both() || (may_change && fs::write(&switch, "+cpu +memory").is_ok() && has_both())
}

fn can_make_groups(directory: &Path) -> bool {
    let probe = directory.join(format!("{PREFIX}{}-access", process::id()));
    fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)).is_ok()
}

/// What makes limits possible, to be read after the reason why they are not.
pub(crate) const REMEDY: &str =
    "run it as root, or with cgroups of version 2 under `systemd-run --user --scope --property=Delegate=yes`";
const PREFIX: &str = "rinha-";
const MEMBERS: &str = "cgroup.procs";
/// A container's default.
pub const CPU_PERIOD_DEFAULT_MS: u32 = 100;
const REMOVE_PATIENCE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use procfs::{FromRead as _, ProcessCGroups};

    use super::*;
    use crate::throwaway::Throwaway;

    const VERSION_1: &str = "\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /docker/1f /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    fn read(groups: &str, mounts: &str) -> (Vec<ProcessCGroup>, Vec<MountInfo>) {
        let mounts = mounts.lines().map(|line| MountInfo::from_line(line).unwrap());
        (ProcessCGroups::from_read(groups.as_bytes()).unwrap().0, mounts.collect())
    }

    #[test]
    fn the_group_of_a_process_is_found_in_either_version() {
        let only_2 = VERSION_1.lines().last().unwrap();
        let of_1 = "9:name=systemd:/\n4:memory:/docker/1f/inner\n2:cpu,cpuacct:/a\n0::/\n";
        for (groups, mounts, version, expected) in [
            (of_1, VERSION_1, Version::V1, &["cpu,cpuacct/a", "memory/inner"][..]),
            ("0::/system.slice/db.service\n", only_2, Version::V2, &["unified/system.slice/db.service"]),
        ] {
            let (groups, mounts) = read(groups, mounts);
            let directories = expected.iter().map(|it| Path::new("/sys/fs/cgroup").join(it)).collect();
            assert_eq!(Account::of_groups(&groups, &mounts), Ok(Account { version, directories }));
        }
    }

    /// A tree of plain files stands in for a hierarchy: user.slice hands both controllers down, the scope does not.
    #[test]
    fn version_2_takes_the_nearest_group_that_hands_down_both() {
        let tree = Throwaway::new("test").unwrap();
        let slice = tree.path().join("user.slice");
        let scope = slice.join("session.scope");
        fs::create_dir_all(scope.join("cgroup.subtree_control")).unwrap();
        let mounts = format!("22 1 0:5 / {} rw - cgroup2 cgroup2 rw\n", tree.path().display());
        let (groups, mounts) = read("0::/user.slice/session.scope\n", &mounts);
        fs::create_dir(slice.join("cgroup.subtree_control")).unwrap();
        fs::create_dir(tree.path().join("cgroup.subtree_control")).unwrap();
        let why = Parent::of_groups(&groups, &mounts).unwrap_err();
        assert!(why.contains("no group from"), "{why}");

        for directory in [&slice, tree.path()] {
            fs::remove_dir(directory.join("cgroup.subtree_control")).unwrap();
            fs::write(directory.join("cgroup.subtree_control"), "cpu memory pids\n").unwrap();
        }
        let parent = Parent::new(Account { version: Version::V2, directories: vec![slice] });
        assert_eq!(Parent::of_groups(&groups, &mounts), Ok(parent));
    }

    #[test]
    fn a_process_without_a_group_of_its_own_has_no_account() {
        assert!(Account::of_process(process::id()).unwrap_err().contains("no group of its own"));
        assert!(Account::of_process(0x3fff_ffff).unwrap_err().contains("/proc/1073741823/cgroup"));
    }

    #[test]
    fn a_number_is_read_by_its_whole_key() {
        let directory = Throwaway::new("test").unwrap();
        fs::write(directory.path().join("events"), "low 0\noom 3\noom_kill 2\n").unwrap();
        let account = Account { version: Version::V2, directories: vec![directory.path().to_owned()] };
        let number = |key| account.number("events", Some(key)).ok();
        assert_eq!((number("oom_kill"), number("oom"), number("max")), (Some(2), Some(3), None));
    }
}
