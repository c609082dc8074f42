//! Installing what is missing from the distribution's packages, leaving no service behind that starts by itself.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use super::python::{PATRONI, require_k6, require_patroni};
pub use super::tools::{
    ETCD, Found, HAPROXY, INFLUXDB, IP, K6, NGINX, PERF, PGBOUNCER, POSTGRES, POSTGRES_EXPORTER, PROMETHEUS,
    PROMTOOL, PYTHON, STRACE, Tool, WRK,
};
use crate::process::{Launch, Service};
use crate::steps::Steps;
use crate::throwaway::Throwaway;
use crate::wait::Interrupt;
use crate::{Error, files};

impl Tool {
    /// The one that is installed. Installed first where it is missing, as by [`install_missing`].
    pub fn require(&self) -> Result<Found, Error> {
        /// The package tool refuses to run twice at the same time; tests ask from many threads.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

        if let Some(found) = self.find() {
            return Ok(found);
        }
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = Throwaway::new("install")?;
        install_missing(&[self], Steps::Silent, &directory.path().join("install.log"))?;
        self.find().ok_or_else(|| refusal(&[self]))
    }
}

/// Installs what is missing of some tools, if root on Debian, Ubuntu or their kin. A Ctrl-C does not reach the package tool:
/// half an installation is worse than a late end.
pub fn install_missing(tools: &[&Tool], steps: Steps, log: &Path) -> Result<(), Error> {
    let missing: Vec<&Tool> = tools.iter().copied().filter(|tool| tool.find().is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let family = family();
    if !rustix::process::geteuid().is_root() || !matches!(family, Family::Debian | Family::Ubuntu) {
        return Err(refusal(&missing));
    }
    let names: Vec<&str> =
        missing.iter().flat_map(|tool| tool.packages[family as usize].split(' ')).collect();
    steps.run(&format!("installing {}", names.join(", ")), "done", || install(&missing, &names, log))
}

/// Distributions that install alike. Ubuntu installs as Debian does, but some packages have other names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Debian,
    Ubuntu,
    RedHat,
    Arch,
    Other,
}

fn family() -> Family {
    family_of(&fs::read_to_string("/etc/os-release").unwrap_or_default())
}

/// Format: the manual page os-release(5): `ID` names the distribution, `ID_LIKE` those it descends from.
fn family_of(os_release: &str) -> Family {
    const KIN: [(&str, Family); 6] = [
        ("ubuntu", Family::Ubuntu),
        ("debian", Family::Debian),
        ("fedora", Family::RedHat),
        ("rhel", Family::RedHat),
        ("centos", Family::RedHat),
        ("arch", Family::Arch),
    ];
    let values =
        os_release.lines().filter_map(|line| line.strip_prefix("ID=").or(line.strip_prefix("ID_LIKE=")));
    let ids: Vec<&str> = values.flat_map(|value| value.trim_matches('"').split_whitespace()).collect();
    KIN.iter().find(|(id, _)| ids.contains(id)).map_or(Family::Other, |(_, family)| *family)
}

fn refusal(missing: &[&Tool]) -> Error {
    let family = family();
    let what = missing.iter().map(|tool| tool.what).collect::<Vec<_>>().join(" and ");
    let names = missing
        .iter()
        .flat_map(|tool| tool.packages[family as usize].split(' '))
        .collect::<Vec<_>>()
        .join(" ");
    let remedy = match family {
        Family::Debian | Family::Ubuntu => format!("sudo apt-get install -y --no-install-recommends {names}"),
        Family::RedHat => format!("sudo dnf install -y {names}"),
        Family::Arch => format!("sudo pacman -S --needed {names}"),
        Family::Other => format!("install {names} with this system's package tool"),
    };
    Error::Refused(format!("not installed: {what}; to install: {remedy}"))
}

fn install(missing: &[&Tool], names: &[&str], log: &Path) -> Result<(), Error> {
    // A service that was there before keeps its place in the boot.
    let is_known = |service: &str| Path::new("/etc/init.d").join(service).exists();
    let new_services: Vec<&str> =
        missing.iter().filter_map(|tool| tool.service).filter(|service| !is_known(service)).collect();

    // Format: Debian's invoke-rc.d(8): 101 forbids the packages to start their services now.
    let _no_start =
        TemporaryFile::make("/usr/sbin/policy-rc.d", "#!/bin/sh\n# Made by cargo stress\nexit 101\n", 0o755)?;
    // Format: Debian's pg_createcluster(1): no cluster of the system's own.
    let _no_cluster = TemporaryFile::make(
        "/etc/postgresql-common/createcluster.d/cargo-stress.conf",
        "# Made by cargo stress\ncreate_main_cluster = false\n",
        0o644,
    )?;
    run("apt-get", &["update"], log)?;
    let options = ["install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=60"];
    run("apt-get", &[&options, names].concat(), log)?;
    for service in new_services {
        run("update-rc.d", &[service, "disable"], log)?;
    }
    Ok(())
}

/// However the bench ends, the package tool goes on to its end.
fn run(program: &str, arguments: &[&str], log: &Path) -> Result<(), Error> {
    let mut tool = Service::start(Launch {
        arguments: arguments.iter().map(OsString::from).collect(),
        environment: vec![("DEBIAN_FRONTEND".to_owned(), "noninteractive".into())],
        orphan_signal: "clear",
        ..Launch::new(&format!("{program} {}", arguments.join(" ")), Path::new(program), Path::new("/"), log)
    })?;
    tool.run_to_end(PATIENCE, &Interrupt::default())
}

/// A file that is there while the packages are being installed, with the directories that it needed.
#[derive(Debug)]
struct TemporaryFile {
    path: PathBuf,
}

impl TemporaryFile {
    /// Makes the file, or takes over the same one left by a killed run; `None` when somebody else's is there.
    fn make(path: &str, content: &str, mode: u32) -> Result<Option<TemporaryFile>, Error> {
        let path = PathBuf::from(path);
        files::make_directory(path.parent().unwrap_or(&path))?;
        let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
        match opened.and_then(|mut file| file.write_all(content.as_bytes())) {
            Ok(()) => Ok(Some(TemporaryFile { path })),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let is_ours = fs::read_to_string(&path).is_ok_and(|existing| existing == content);
                // Not `then_some`: a value made for nothing would remove their file when dropped.
                Ok(is_ours.then(|| TemporaryFile { path }))
            }
            Err(error) => Err(Error::io(format!("write {}", path.display()))(error)),
        }
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        // Refused, as it should be, where a directory holds anything else.
        for directory in self.path.ancestors().skip(1).take(2) {
            let _ = fs::remove_dir(directory);
        }
    }
}

const PATIENCE: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throwaway::Throwaway;

    #[test]
    fn knows_the_kin_of_debian() {
        for (os_release, family) in [
            ("PRETTY_NAME=\"Debian\"\nID=debian\n", Family::Debian),
            ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", Family::Ubuntu),
            ("ID=ubuntu\nID_LIKE=debian\n", Family::Ubuntu),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", Family::RedHat),
            ("VERSION_ID=debian\nID=alpine\n", Family::Other),
        ] {
            assert_eq!(family_of(os_release), family, "{os_release}");
        }
    }

    #[test]
    fn a_temporary_file_is_ours_alone() {
        let directory = Throwaway::new("test").unwrap();
        let path = directory.path().join("made/for/it/policy");
        let make = || TemporaryFile::make(path.to_str().unwrap(), "ours", 0o644).unwrap();
        drop(make().unwrap());
        assert!(!directory.path().join("made/for").exists());

        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "theirs").unwrap();
        assert!(make().is_none());
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");

        // Left by a killed run.
        fs::write(&path, "ours").unwrap();
        drop(make().unwrap());
        assert!(!path.exists());
    }
}
