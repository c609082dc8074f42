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

use rustix::process::{Pid, Signal};

use crate::Error;
use crate::wait::{self, Interrupt};

mod account;
pub use account::Account;

/// What a service may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Thousandths of one CPU: 400 is 0.4 CPU.
    pub cpu_thousandths: u32,
    /// Memory, its page cache included.
    pub memory_bytes: u64,
}

/// The group, or on version 1 the group of each hierarchy, below which we may make ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    version: Version,
    /// Version 1: the hierarchies of cpu, cpuacct and memory, without repeats. Version 2: one.
    directories: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// One service's group. Dropping it ends what still runs in it and removes it.
#[derive(Debug)]
pub struct Group {
    account: Account,
}

impl Parent {
    /// Finds out where this process may make groups, by making one and entering it.
    ///
    /// # Errors
    /// One line that says why limits cannot be applied here.
    pub fn find() -> Result<Parent, String> {
        let read =
            |path: &str| fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"));
        let memberships = read("/proc/self/cgroup")?;
        let mounts = Mount::parse_all(&read("/proc/self/mountinfo")?);
        let parent = match Parent::version_1(&memberships, &mounts) {
            Some(parent) => parent,
            None => Parent::version_2(&memberships, &mounts)?,
        };
        parent.remove_abandoned();
        parent.probe()?;
        Ok(parent)
    }

    /// Makes a group for one service; without limits it only keeps account.
    ///
    /// # Errors
    /// When a directory or a limit is refused; nothing is left behind.
    pub fn group(&self, name: &str, limits: impl Into<Option<Limits>>) -> Result<Group, Error> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{name}", process::id());
        // From here on the group's own `drop` cleans up.
        let directories = self.directories.iter().map(|parent| parent.join(&name)).collect();
        let group = Group { account: Account { version: self.version, directories } };
        for directory in &group.account.directories {
            fs::create_dir(directory)
                .map_err(Error::io(format!("make the group {}", directory.display())))?;
        }
        let Some(limits) = limits.into() else { return Ok(group) };
        let quota_us = u64::from(limits.cpu_thousandths) * PERIOD_US / 1000;
        let settings = match self.version {
            Version::V1 => [
                ("cpu.cfs_period_us", PERIOD_US.to_string()),
                ("cpu.cfs_quota_us", quota_us.to_string()),
                ("memory.limit_in_bytes", limits.memory_bytes.to_string()),
            ]
            .to_vec(),
            Version::V2 => [
                ("cpu.max", format!("{quota_us} {PERIOD_US}")),
                ("memory.max", limits.memory_bytes.to_string()),
            ]
            .to_vec(),
        };
        for (file, value) in settings {
            group.write(file, &value).map_err(Error::io(format!("set {file} to {value}")))?;
        }
        Ok(group)
    }

    fn version_1(memberships: &str, mounts: &[Mount]) -> Option<Parent> {
        let mut directories = Vec::new();
        for controller in ["cpu", "cpuacct", "memory"] {
            let mount =
                mounts.iter().find(|mount| mount.controllers.iter().any(|name| name == controller))?;
            let membership =
                membership(memberships, |names| names.split(',').any(|name| name == controller))?;
            let directory = mount.directory_of(membership);
            if !directories.contains(&directory) {
                directories.push(directory);
            }
        }
        Some(Parent { version: Version::V1, directories })
    }

    /// Processes live in the leaves only ("no internal processes"), and ours has neighbours that are none of our
    /// business. So the parent is the nearest group above that hands both controllers down, or lets itself be told to.
    fn version_2(memberships: &str, mounts: &[Mount]) -> Result<Parent, String> {
        let mount = mounts.iter().find(|mount| mount.is_version_2).ok_or("no cgroups are mounted")?;
        let membership = membership(memberships, str::is_empty).ok_or("this process is in no cgroup")?;
        let own = mount.directory_of(membership);
        let candidates: Vec<&Path> =
            own.ancestors().take_while(|directory| directory.starts_with(&mount.point)).collect();
        for may_change in [false, true] {
            for candidate in &candidates {
                if hands_down_both(candidate, may_change) && can_make_groups(candidate) {
                    return Ok(Parent { version: Version::V2, directories: vec![candidate.to_path_buf()] });
                }
            }
        }
        Err(format!("no group from {} upwards lets us limit cpu and memory", own.display()))
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
        for entry in self.directories.iter().flat_map(fs::read_dir).flatten().flatten() {
            let name = entry.file_name();
            let owner = name
                .to_str()
                .and_then(|name| name.strip_prefix(PREFIX))
                .and_then(|rest| rest.split('-').next());
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

    /// What it used.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// The processes in the group, from whichever of its directories.
    fn members(&self) -> impl Iterator<Item = Pid> {
        let lists = self.members_files().filter_map(|file| fs::read_to_string(file).ok());
        lists
            .flat_map(|list| list.lines().filter_map(|line| line.parse().ok()).collect::<Vec<i32>>())
            .filter_map(Pid::from_raw)
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
            for member in self.members() {
                let _ = rustix::process::kill_process(member, Signal::KILL);
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

/// One mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    /// Which group of the hierarchy the mount point shows: not always its root, for example in a container.
    root: String,
    point: PathBuf,
    is_version_2: bool,
    /// The controllers of a version 1 hierarchy.
    controllers: Vec<String>,
}

impl Mount {
    /// Each line: `id parent device root mount-point options [tags] - type source super-options`.
    fn parse_all(mountinfo: &str) -> Vec<Mount> {
        let parse = |line: &str| {
            let (place, kind) = line.split_once(" - ")?;
            let mut place = place.split(' ').skip(3);
            let mut kind = kind.split(' ');
            let is_version_2 = match kind.next()? {
                "cgroup" => false,
                "cgroup2" => true,
                _ => return None,
            };
            let controllers = kind.nth(1).filter(|_| !is_version_2).unwrap_or_default();
            Some(Mount {
                root: place.next()?.to_owned(),
                point: PathBuf::from(place.next()?),
                is_version_2,
                controllers: controllers.split(',').map(str::to_owned).collect(),
            })
        };
        mountinfo.lines().filter_map(parse).collect()
    }

    /// Where the group `membership`, a path from the hierarchy's root, is found in the file system.
    fn directory_of(&self, membership: &str) -> PathBuf {
        let below = Path::new(membership).strip_prefix(&self.root).unwrap_or(Path::new(""));
        if below.as_os_str().is_empty() { self.point.clone() } else { self.point.join(below) }
    }
}

/// The group of this process in the first hierarchy whose controllers match. Each line: `id:controllers:path`.
fn membership(memberships: &str, matches: impl Fn(&str) -> bool) -> Option<&str> {
    memberships.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        matches(controllers).then_some(path)
    })
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
/// The span over which the kernel counts CPU time; a container's default.
const PERIOD_US: u64 = 100_000;
const REMOVE_PATIENCE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throwaway::Throwaway;

    const VERSION_1_MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /docker/1f /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn version_1_starts_from_the_groups_of_this_process() {
        let memberships = "9:name=systemd:/\n4:memory:/docker/1f/inner\n2:cpu,cpuacct:/\n0::/\n";
        let parent = Parent::version_1(memberships, &Mount::parse_all(VERSION_1_MOUNTS)).unwrap();
        assert_eq!(
            parent.directories,
            [Path::new("/sys/fs/cgroup/cpu,cpuacct"), Path::new("/sys/fs/cgroup/memory/inner")]
        );
    }

    #[test]
    fn version_1_needs_all_its_hierarchies() {
        let only_version_2 = "22 1 0:5 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(Parent::version_1("0::/x\n", &Mount::parse_all(only_version_2)), None);
    }

    /// A tree of plain files stands in for a hierarchy: user.slice hands both controllers down, the scope does not.
    #[test]
    fn version_2_takes_the_nearest_group_that_hands_down_both() {
        let tree = Throwaway::new("test").unwrap();
        let slice = tree.path().join("user.slice");
        let scope = slice.join("session.scope");
        fs::create_dir_all(&scope).unwrap();
        fs::write(tree.path().join("cgroup.subtree_control"), "cpu memory pids\n").unwrap();
        fs::write(slice.join("cgroup.subtree_control"), "cpu memory\n").unwrap();
        fs::create_dir(scope.join("cgroup.subtree_control")).unwrap();

        let mountinfo = format!("22 1 0:5 / {} rw - cgroup2 cgroup2 rw\n", tree.path().display());
        let parent =
            Parent::version_2("0::/user.slice/session.scope\n", &Mount::parse_all(&mountinfo)).unwrap();
        assert_eq!(parent, Parent { version: Version::V2, directories: vec![slice] });
    }

    #[test]
    fn version_2_says_why_not() {
        let tree = Throwaway::new("test").unwrap();
        fs::create_dir(tree.path().join("cgroup.subtree_control")).unwrap();
        let mountinfo = format!("22 1 0:5 / {} rw - cgroup2 cgroup2 rw\n", tree.path().display());
        let why = Parent::version_2("0::/\n", &Mount::parse_all(&mountinfo)).unwrap_err();
        assert!(why.contains("no group from"), "{why}");
    }
}
