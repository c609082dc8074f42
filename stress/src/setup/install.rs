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

/// The PostgreSQL server that is installed. Installed first where it is missing, as by [`install_missing`].
///
/// # Errors
/// As [`install_missing`].
pub fn require_postgres() -> Result<PostgresTools, Error> {
    require(Package::Postgresql, tools::find_postgres)
}

/// The nginx that is installed. Installed first where it is missing, as by [`install_missing`].
///
/// # Errors
/// As [`install_missing`].
pub fn require_nginx() -> Result<NginxTool, Error> {
    require(Package::Nginx, tools::find_nginx)
}

/// The wrk that is installed, and its version. Installed first where it is missing, as by [`install_missing`].
///
/// # Errors
/// As [`install_missing`].
pub fn require_wrk() -> Result<(PathBuf, String), Error> {
    require(Package::Wrk, tools::find_wrk)
}

/// A Python that makes virtual environments. Installed first where it is missing, as by [`install_missing`].
///
/// # Errors
/// As [`install_missing`].
pub fn require_python() -> Result<PathBuf, Error> {
    require(Package::Python, tools::find_python)
}

/// Prometheus and its `promtool`, in this order. Installed first where they are missing, as by [`install_missing`].
///
/// # Errors
/// As [`install_missing`].
pub fn require_prometheus() -> Result<(PathBuf, PathBuf), Error> {
    require(Package::Prometheus, tools::find_prometheus)
}

/// The `postgres_exporter` that is installed. Installed first where it is missing, as by [`install_missing`].
///
/// # Errors
/// As [`install_missing`].
pub fn require_postgres_exporter() -> Result<PathBuf, Error> {
    require(Package::PostgresExporter, tools::find_postgres_exporter)
}

/// The server of InfluxDB 1.x that is installed. Installed first where it is missing, as by [`install_missing`].
///
/// # Errors
/// As [`install_missing`].
pub fn require_influxdb() -> Result<PathBuf, Error> {
    require(Package::Influxdb, tools::find_influxdb)
}

/// A perf that runs here. Installed first where it is missing, as by [`install_missing`].
///
/// # Errors
/// As [`install_missing`].
pub fn require_perf() -> Result<PathBuf, Error> {
    require(Package::Perf, tools::find_perf)
}

/// The strace that is installed. Installed first where it is missing, as by [`install_missing`].
///
/// # Errors
/// As [`install_missing`].
pub fn require_strace() -> Result<PathBuf, Error> {
    require(Package::Strace, tools::find_strace)
}

/// Installs PostgreSQL and nginx where they are missing, if root on Debian, Ubuntu or their kin. A Ctrl-C does not
/// reach the package tool: half an installation is worse than a late end.
///
/// # Errors
/// [`Error::Refused`] with the line that installs it, when it is not for us to do; [`Error::Service`] with the end of
/// `log` when the package tool fails.
pub fn install_missing(steps: Steps, log: &Path) -> Result<(), Error> {
    install_missing_of(&[Package::Postgresql, Package::Nginx], steps, log)
}

/// As [`install_missing`], with what a load generator needs: Python for k6, or else wrk.
///
/// # Errors
/// As [`install_missing`].
pub fn install_missing_for_load(is_k6: bool, steps: Steps, log: &Path) -> Result<(), Error> {
    let generator = if is_k6 { Package::Python } else { Package::Wrk };
    install_missing_of(&[Package::Postgresql, Package::Nginx, generator], steps, log)
}

/// As [`install_missing`], with what a profile of one instance needs: PostgreSQL, wrk and perf.
///
/// # Errors
/// As [`install_missing`].
pub fn install_missing_for_profile(steps: Steps, log: &Path) -> Result<(), Error> {
    install_missing_of(&[Package::Postgresql, Package::Wrk, Package::Perf], steps, log)
}

/// As [`install_missing`], with what a trace of one instance needs: PostgreSQL and strace.
///
/// # Errors
/// As [`install_missing`].
pub fn install_missing_for_trace(steps: Steps, log: &Path) -> Result<(), Error> {
    install_missing_of(&[Package::Postgresql, Package::Strace], steps, log)
}

fn require<T>(package: Package, find: impl Fn() -> Option<T>) -> Result<T, Error> {
    /// The package tool refuses to run twice at the same time; tests ask from many threads.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    if let Some(tool) = find() {
        return Ok(tool);
    }
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = Throwaway::new("install")?;
    install_missing_of(&[package], Steps::Silent, &directory.path().join("install.log"))?;
    find().ok_or_else(|| refusal(&[package]))
}

fn install_missing_of(packages: &[Package], steps: Steps, log: &Path) -> Result<(), Error> {
    let missing: Vec<Package> = packages.iter().copied().filter(|package| !package.is_installed()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let family = family();
    if !rustix::process::geteuid().is_root() || !matches!(family, Family::Debian | Family::Ubuntu) {
        return Err(refusal(&missing));
    }
    let names: Vec<&str> = missing.iter().flat_map(|package| package.names(family)).copied().collect();
    steps.run(&format!("installing {}", names.join(", ")), "done", || install(&missing, &names, log))
}

/// What can be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Package {
    Postgresql,
    Nginx,
    Wrk,
    Python,
    Prometheus,
    PostgresExporter,
    Influxdb,
    Perf,
    Strace,
}

impl Package {
    fn is_installed(self) -> bool {
        match self {
            Package::Postgresql => tools::find_postgres().is_some(),
            Package::Nginx => tools::find_nginx().is_some(),
            Package::Wrk => tools::find_wrk().is_some(),
            Package::Python => tools::find_python().is_some(),
            Package::Prometheus => tools::find_prometheus().is_some(),
            Package::PostgresExporter => tools::find_postgres_exporter().is_some(),
            Package::Influxdb => tools::find_influxdb().is_some(),
            Package::Perf => tools::find_perf().is_some(),
            Package::Strace => tools::find_strace().is_some(),
        }
    }

    /// What a family of distributions calls it.
    fn names(self, family: Family) -> &'static [&'static str] {
        match (self, family) {
            (Package::Postgresql, Family::RedHat) => &["postgresql-server"],
            (Package::Postgresql, Family::Debian | Family::Ubuntu | Family::Arch | Family::Other) => {
                &["postgresql"]
            }
            (Package::Nginx, Family::Debian | Family::Ubuntu) => &["nginx", "libnginx-mod-stream"],
            (Package::Nginx, Family::RedHat) => &["nginx", "nginx-mod-stream"],
            (Package::Nginx, Family::Arch | Family::Other) => &["nginx"],
            (Package::Wrk, _) => &["wrk"],
            (Package::Python, Family::Debian | Family::Ubuntu) => &["python3-venv"],
            (Package::Python, Family::RedHat | Family::Other) => &["python3"],
            (Package::Python, Family::Arch) => &["python"],
            (Package::Prometheus, _) => &["prometheus"],
            (Package::PostgresExporter, Family::Debian) => &["prometheus-postgres-exporter"],
            (Package::PostgresExporter, _) => &["postgres_exporter"],
            (Package::Influxdb, _) => &["influxdb"],
            (Package::Perf, Family::Debian) => &["linux-perf"],
            (Package::Perf, Family::Ubuntu) => &["linux-tools-generic"],
            (Package::Perf, Family::RedHat | Family::Arch | Family::Other) => &["perf"],
            (Package::Strace, _) => &["strace"],
        }
    }

    /// The service that Debian's package would start at each boot.
    fn service(self) -> Option<&'static str> {
        match self {
            Package::Postgresql => Some("postgresql"),
            Package::Nginx => Some("nginx"),
            Package::Wrk | Package::Python | Package::Perf | Package::Strace => None,
            Package::Prometheus => Some("prometheus"),
            Package::PostgresExporter => Some("prometheus-postgres-exporter"),
            Package::Influxdb => Some("influxdb"),
        }
    }
}

/// Distributions that install alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Debian,
    /// And what descends from it. Installs as Debian does, but some packages have other names.
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
fn refusal(missing: &[Package]) -> Error {
    let family = family();
    let what = missing
        .iter()
        .map(|package| match package {
            Package::Postgresql => "a PostgreSQL server >= 14",
            Package::Nginx => "nginx",
            Package::Wrk => "wrk",
            Package::Python => "Python 3 with venv, for k6",
            Package::Prometheus => "Prometheus with promtool",
            Package::PostgresExporter => "postgres_exporter",
            Package::Influxdb => "InfluxDB 1.x",
            Package::Perf => "perf",
            Package::Strace => "strace",
        })
        .collect::<Vec<_>>()
        .join(" and ");
    let names =
        missing.iter().flat_map(|package| package.names(family)).copied().collect::<Vec<_>>().join(" ");
    let remedy = match family {
        Family::Debian | Family::Ubuntu => format!("sudo apt-get install -y --no-install-recommends {names}"),
        Family::RedHat => format!("sudo dnf install -y {names}"),
        Family::Arch => format!("sudo pacman -S --needed {names}"),
        Family::Other => format!("install {names} with this system's package tool"),
    };
    Error::Refused(format!("not installed: {what}; to install: {remedy}"))
}

fn install(missing: &[Package], names: &[&str], log: &Path) -> Result<(), Error> {
    // A service that was there before keeps its place in the boot.
    let is_known = |service: &str| Path::new("/etc/init.d").join(service).exists();
    let new_services: Vec<&str> =
        missing.iter().filter_map(|package| package.service()).filter(|service| !is_known(service)).collect();

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
