//! Installing what is missing from the distribution's packages, leaving no service behind that starts by itself.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use super::tools::{self, NginxTool, PostgresTools};
use crate::Error;
use crate::process::service;
use crate::steps::Steps;
use crate::throwaway::Throwaway;

/// A program of others that can be missing.
pub struct Tool<T: 'static> {
    /// As messages call it.
    what: &'static str,
    /// Its packages by the family of distributions.
    names: Names,
    /// The service that Debian's package would start at each boot.
    service: Option<&'static str>,
    find: fn() -> Option<T>,
}

/// What each family of distributions calls the packages of a tool.
struct Names {
    debian: &'static [&'static str],
    ubuntu: &'static [&'static str],
    red_hat: &'static [&'static str],
    arch: &'static [&'static str],
    other: &'static [&'static str],
}

impl Names {
    /// The same everywhere.
    const fn all(names: &'static [&'static str]) -> Names {
        Names { debian: names, ubuntu: names, red_hat: names, arch: names, other: names }
    }
}

/// The PostgreSQL server.
pub static POSTGRES: Tool<PostgresTools> = Tool {
    what: "a PostgreSQL server >= 14",
    names: Names { red_hat: &["postgresql-server"], ..Names::all(&["postgresql"]) },
    service: Some("postgresql"),
    find: tools::find_postgres,
};
/// nginx, with its module `stream`.
pub static NGINX: Tool<NginxTool> = Tool {
    what: "nginx",
    names: Names {
        debian: &["nginx", "libnginx-mod-stream"],
        ubuntu: &["nginx", "libnginx-mod-stream"],
        red_hat: &["nginx", "nginx-mod-stream"],
        ..Names::all(&["nginx"])
    },
    service: Some("nginx"),
    find: tools::find_nginx,
};
/// wrk, and its version.
pub static WRK: Tool<(PathBuf, String)> =
    Tool { what: "wrk", names: Names::all(&["wrk"]), service: None, find: tools::find_wrk };
/// PgBouncer.
pub static PGBOUNCER: Tool<PathBuf> = Tool {
    what: "PgBouncer",
    names: Names::all(&["pgbouncer"]),
    service: Some("pgbouncer"),
    find: tools::find_pgbouncer,
};
/// A Python that makes virtual environments.
pub static PYTHON: Tool<PathBuf> = Tool {
    what: "Python 3 with venv, for k6",
    names: Names {
        debian: &["python3-venv"],
        ubuntu: &["python3-venv"],
        arch: &["python"],
        ..Names::all(&["python3"])
    },
    service: None,
    find: tools::find_python,
};
/// Prometheus and its `promtool`, in this order.
pub static PROMETHEUS: Tool<(PathBuf, PathBuf)> = Tool {
    what: "Prometheus with promtool",
    names: Names::all(&["prometheus"]),
    service: Some("prometheus"),
    find: tools::find_prometheus,
};
/// `postgres_exporter`.
pub static POSTGRES_EXPORTER: Tool<PathBuf> = Tool {
    what: "postgres_exporter",
    names: Names { debian: &["prometheus-postgres-exporter"], ..Names::all(&["postgres_exporter"]) },
    service: Some("prometheus-postgres-exporter"),
    find: tools::find_postgres_exporter,
};
/// The server of InfluxDB 1.x.
pub static INFLUXDB: Tool<PathBuf> = Tool {
    what: "InfluxDB 1.x",
    names: Names::all(&["influxdb"]),
    service: Some("influxdb"),
    find: tools::find_influxdb,
};
/// A perf that runs here.
pub static PERF: Tool<PathBuf> = Tool {
    what: "perf",
    names: Names { debian: &["linux-perf"], ubuntu: &["linux-tools-generic"], ..Names::all(&["perf"]) },
    service: None,
    find: tools::find_perf,
};
/// strace.
pub static STRACE: Tool<PathBuf> =
    Tool { what: "strace", names: Names::all(&["strace"]), service: None, find: tools::find_strace };

impl<T> Tool<T> {
    /// The one that is installed. Installed first where it is missing, as by [`install_missing`].
    ///
    /// # Errors
    /// As [`install_missing`].
    pub fn require(&self) -> Result<T, Error> {
        /// The package tool refuses to run twice at the same time; tests ask from many threads.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

        if let Some(tool) = (self.find)() {
            return Ok(tool);
        }
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = Throwaway::new("install")?;
        install_missing(&[self], Steps::Silent, &directory.path().join("install.log"))?;
        (self.find)().ok_or_else(|| refusal(&[self]))
    }
}

/// A tool, whatever it is found as.
pub trait Package {
    /// Whether it is there.
    fn is_installed(&self) -> bool;
    /// As messages call it.
    fn what(&self) -> &'static str;
    /// Its packages in a family of distributions.
    fn names(&self, family: Family) -> &'static [&'static str];
    /// The service that Debian's package would start at each boot.
    fn service(&self) -> Option<&'static str>;
}

impl<T> Package for Tool<T> {
    fn is_installed(&self) -> bool {
        (self.find)().is_some()
    }

    fn what(&self) -> &'static str {
        self.what
    }

    fn names(&self, family: Family) -> &'static [&'static str] {
        match family {
            Family::Debian => self.names.debian,
            Family::Ubuntu => self.names.ubuntu,
            Family::RedHat => self.names.red_hat,
            Family::Arch => self.names.arch,
            Family::Other => self.names.other,
        }
    }

    fn service(&self) -> Option<&'static str> {
        self.service
    }
}

/// Installs what is missing of some tools, if root on Debian, Ubuntu or their kin. A Ctrl-C does not reach the package tool:
/// half an installation is worse than a late end.
///
/// # Errors
/// [`Error::Refused`] with the line that installs it, when it is not for us to do; [`Error::Service`] with the end of
/// `log` when the package tool fails.
pub fn install_missing(tools: &[&dyn Package], steps: Steps, log: &Path) -> Result<(), Error> {
    let missing: Vec<&dyn Package> = tools.iter().copied().filter(|tool| !tool.is_installed()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let family = family();
    if !rustix::process::geteuid().is_root() || !matches!(family, Family::Debian | Family::Ubuntu) {
        return Err(refusal(&missing));
    }
    let names: Vec<&str> = missing.iter().flat_map(|tool| tool.names(family)).copied().collect();
    steps.run(&format!("installing {}", names.join(", ")), "done", || install(&missing, &names, log))
}

/// Distributions that install alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// And what is most like it.
    Debian,
    /// And what descends from it. Installs as Debian does, but some packages have other names.
    Ubuntu,
    /// Fedora and its kin.
    RedHat,
    /// And its kin.
    Arch,
    /// Any other.
    Other,
}

fn family() -> Family {
    family_of(&fs::read_to_string("/etc/os-release").unwrap_or_default())
}

/// Format: the manual page os-release(5): `ID` names the distribution, `ID_LIKE` those it descends from.
fn family_of(os_release: &str) -> Family {
    let values =
        os_release.lines().filter_map(|line| line.strip_prefix("ID=").or(line.strip_prefix("ID_LIKE=")));
    let ids: Vec<&str> = values.flat_map(|value| value.trim_matches('"').split_whitespace()).collect();
    let is_any = |names: &[&str]| ids.iter().any(|id| names.contains(id));
    if is_any(&["ubuntu"]) {
        Family::Ubuntu
    } else if is_any(&["debian"]) {
        Family::Debian
    } else if is_any(&["fedora", "rhel", "centos"]) {
        Family::RedHat
    } else if is_any(&["arch"]) {
        Family::Arch
    } else {
        Family::Other
    }
}

/// The one line that installs what is missing.
fn refusal(missing: &[&dyn Package]) -> Error {
    let family = family();
    let what = missing.iter().map(|tool| tool.what()).collect::<Vec<_>>().join(" and ");
    let names = missing.iter().flat_map(|tool| tool.names(family)).copied().collect::<Vec<_>>().join(" ");
    let remedy = match family {
        Family::Debian | Family::Ubuntu => format!("sudo apt-get install -y --no-install-recommends {names}"),
        Family::RedHat => format!("sudo dnf install -y {names}"),
        Family::Arch => format!("sudo pacman -S --needed {names}"),
        Family::Other => format!("install {names} with this system's package tool"),
    };
    Error::Refused(format!("not installed: {what}; to install: {remedy}"))
}

fn install(missing: &[&dyn Package], names: &[&str], log: &Path) -> Result<(), Error> {
    // A service that was there before keeps its place in the boot.
    let is_known = |service: &str| Path::new("/etc/init.d").join(service).exists();
    let new_services: Vec<&str> =
        missing.iter().filter_map(|tool| tool.service()).filter(|service| !is_known(service)).collect();

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

fn run(program: &str, arguments: &[&str], log: &Path) -> Result<(), Error> {
    let attempt = format!("{program} {}", arguments.join(" "));
    let open = || OpenOptions::new().create(true).append(true).open(log);
    let output = open().map_err(Error::io(format!("open the log {}", log.display())))?;
    let errors = output.try_clone().map_err(Error::io(format!("open the log {}", log.display())))?;
    let status = Command::new(program)
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .status()
        .map_err(Error::io(format!("run {attempt}")))?;
    if status.success() {
        return Ok(());
    }
    let tail = service::tail(&fs::read_to_string(log).unwrap_or_default());
    Err(Error::Service { name: attempt, what: service::describe(status), log: log.to_owned(), tail })
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
        let failed = || Error::io(format!("write {}", path.display()));
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(failed())?;
        }
        match OpenOptions::new().write(true).create_new(true).mode(mode).open(&path) {
            Ok(mut file) => {
                let temporary = TemporaryFile { path: path.clone() };
                file.write_all(content.as_bytes()).map_err(failed())?;
                Ok(Some(temporary))
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let is_ours = fs::read_to_string(&path).is_ok_and(|existing| existing == content);
                // Not `then_some`: a value made for nothing would remove their file when dropped.
                Ok(is_ours.then(|| TemporaryFile { path }))
            }
            Err(error) => Err(failed()(error)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throwaway::Throwaway;

    #[test]
    fn knows_the_kin_of_debian() {
        assert_eq!(family_of("PRETTY_NAME=\"Debian\"\nID=debian\n"), Family::Debian);
        assert_eq!(family_of("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"), Family::Ubuntu);
        assert_eq!(family_of("ID=ubuntu\nID_LIKE=debian\n"), Family::Ubuntu);
        assert_eq!(family_of("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"), Family::RedHat);
        assert_eq!(family_of("VERSION_ID=debian\nID=alpine\n"), Family::Other);
    }

    #[test]
    fn a_temporary_file_spares_what_others_made() {
        let directory = Throwaway::new("test").unwrap();
        let path = directory.path().join("made/for/it/policy");
        let path = path.to_str().unwrap();

        drop(TemporaryFile::make(path, "ours", 0o644).unwrap().unwrap());
        assert!(!Path::new(path).exists());
        assert!(!directory.path().join("made/for").exists());

        fs::create_dir_all(directory.path().join("made/for/it")).unwrap();
        fs::write(path, "theirs").unwrap();
        assert!(TemporaryFile::make(path, "ours", 0o644).unwrap().is_none());
        assert_eq!(fs::read_to_string(path).unwrap(), "theirs");
    }

    #[test]
    fn a_temporary_file_of_a_killed_run_is_taken_over() {
        let directory = Throwaway::new("test").unwrap();
        let path = directory.path().join("policy");
        fs::write(&path, "ours").unwrap();
        drop(TemporaryFile::make(path.to_str().unwrap(), "ours", 0o644).unwrap().unwrap());
        assert!(!path.exists());
    }
}
