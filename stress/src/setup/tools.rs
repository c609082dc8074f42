//! Finding the programs of others: PostgreSQL, nginx and what load, dashboards and profiles need, and their versions.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A PostgreSQL server of version 14 or newer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresTools {
    /// The directory with `postgres` and `initdb`.
    pub directory: PathBuf,
    /// Such as `15.18`.
    pub version: String,
}

/// An nginx.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NginxTool {
    /// The program.
    pub program: PathBuf,
    /// Such as `1.22.1`.
    pub version: String,
    /// Its `stream` module, if that is a file of its own which the configuration has to load.
    pub stream_module: Option<PathBuf>,
}

/// The server of version 14 or newer in `POSTGRESQL_BIN`, if that is set. Else the first one on `PATH`, where `pg_config` says,
/// or where distributions put it, newest first.
pub(crate) fn find_postgres() -> Option<PostgresTools> {
    if let Some(chosen) = env::var_os(POSTGRESQL_BIN) {
        // No other, and none installed for it: a test of one version must not pass with another.
        let found = postgres_in(PathBuf::from(&chosen));
        if found.is_none() {
            eprintln!("{POSTGRESQL_BIN}={}: expected the directory of a postgres >= 14", chosen.display());
            std::process::exit(2);
        }
        return found;
    }
    let configured = Command::new("pg_config").arg("--bindir").output().ok();
    let configured = configured.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    let directories = search_path().into_iter().chain(configured).chain(versioned_directories());
    directories.filter(|directory| directory.join("initdb").is_file()).find_map(postgres_in)
}

fn postgres_in(directory: PathBuf) -> Option<PostgresTools> {
    let output = Command::new(directory.join("postgres")).arg("--version").output().ok()?;
    let version = postgres_version(&String::from_utf8_lossy(&output.stdout))?;
    let is_new_enough = major(&version)? >= POSTGRES_MAJOR_MIN;
    is_new_enough.then_some(PostgresTools { directory, version })
}

/// `PATH`, and the directories of system programs, which are not on every user's `PATH`.
fn system_path() -> impl Iterator<Item = PathBuf> {
    search_path().into_iter().chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
}

/// The first PgBouncer on `PATH` or in the directories of system programs.
pub(crate) fn find_pgbouncer() -> Option<PathBuf> {
    system_path().map(|directory| directory.join("pgbouncer")).find(|program| runs(program, &["--version"]))
}

/// The first nginx on `PATH` or in the directories of system programs.
pub(crate) fn find_nginx() -> Option<NginxTool> {
    system_path().find_map(|directory| {
        let program = directory.join("nginx");
        let output = Command::new(&program).arg("-V").output().ok()?;
        let build = String::from_utf8_lossy(&output.stderr);
        Some(NginxTool { version: nginx_version(&build)?, stream_module: stream_module(&build), program })
    })
}

/// The first wrk on `PATH`, and its version.
pub(crate) fn find_wrk() -> Option<(PathBuf, String)> {
    on_path("wrk").find_map(|program| {
        // It counts as misuse, with a status to match, to ask for nothing but the version.
        let output = Command::new(&program).arg("--version").output().ok()?;
        Some((program, wrk_version(&String::from_utf8_lossy(&output.stdout))?))
    })
}

/// The first `python3` on `PATH` that can make a virtual environment with pip in it.
pub(crate) fn find_python() -> Option<PathBuf> {
    on_path("python3").find(|program| runs(program, &["-c", "import venv, ensurepip"]))
}

/// The first `prometheus` on `PATH`, and the first `promtool`.
pub(crate) fn find_prometheus() -> Option<(PathBuf, PathBuf)> {
    Some((find_program("prometheus")?, find_program("promtool")?))
}

/// The first `postgres_exporter` on `PATH`, which Debian calls by another name.
pub(crate) fn find_postgres_exporter() -> Option<PathBuf> {
    find_program("postgres_exporter").or_else(|| find_program("prometheus-postgres-exporter"))
}

/// The first `influxd` on `PATH`, if it is of version 1, the last one that k6 writes to by itself.
pub(crate) fn find_influxdb() -> Option<PathBuf> {
    let program = find_program("influxd")?;
    let output = Command::new(&program).arg("version").output().ok()?;
    String::from_utf8_lossy(&output.stdout).starts_with("InfluxDB v1.").then_some(program)
}

/// A perf that runs: on `PATH`, or where distributions put one for each kernel, newest first.
///
/// Where `perf` is a script of the distribution, it wants the program of exactly the running kernel's version and fails
/// without. What we ask for is older than any of them, so another version does as well.
pub(crate) fn find_perf() -> Option<PathBuf> {
    on_path("perf").chain(versioned_perfs()).find(|program| runs(program, &["--version"]))
}

/// The first strace on `PATH`.
pub(crate) fn find_strace() -> Option<PathBuf> {
    on_path("strace").find(|program| runs(program, &["--version"]))
}

fn runs(program: &Path, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

fn find_program(name: &str) -> Option<PathBuf> {
    on_path(name).find(|program| program.is_file())
}

/// Where a program of this name would be, in the order of `PATH`.
pub(crate) fn on_path(name: &str) -> impl Iterator<Item = PathBuf> {
    search_path().into_iter().map(move |directory| directory.join(name))
}

fn search_path() -> Vec<PathBuf> {
    env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default()
}

/// `/usr/lib/postgresql/15/bin` of Debian and its kin, `/usr/pgsql-15/bin` of the PostgreSQL project's packages.
fn versioned_directories() -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for (parent, prefix) in [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")] {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let version = name.to_str().and_then(|name| name.strip_prefix(prefix)).and_then(major);
            found.extend(version.map(|version| (version, entry.path().join("bin"))));
        }
    }
    found.sort();
    found.into_iter().rev().map(|(_, directory)| directory).collect()
}

/// `/usr/bin/perf_5.10` of Debian, `/usr/lib/linux-tools/5.15.0-91-generic/perf` of Ubuntu.
fn versioned_perfs() -> Vec<PathBuf> {
    let mut found: Vec<(Vec<u32>, PathBuf)> = Vec::new();
    for (parent, prefix, program) in [("/usr/bin", "perf_", ""), ("/usr/lib/linux-tools", "", "perf")] {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(version) = name.to_str().and_then(|name| name.strip_prefix(prefix)) else { continue };
            let path = if program.is_empty() { entry.path() } else { entry.path().join(program) };
            found.push((numbers(version), path));
        }
    }
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

/// The numbers of a version, in order: 5.10 is newer than 5.9.
fn numbers(version: &str) -> Vec<u32> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`
fn postgres_version(output: &str) -> Option<String> {
    output.split_once("(PostgreSQL) ")?.1.split_whitespace().next().map(str::to_owned)
}

/// `nginx version: nginx/1.22.1`
fn nginx_version(output: &str) -> Option<String> {
    output.split_once("nginx version: nginx/")?.1.split_whitespace().next().map(str::to_owned)
}

/// `wrk debian/4.1.0-3+b2 [epoll] Copyright (C) 2012 Will Glozer`, `wrk 4.2.0 [epoll] ...`
fn wrk_version(output: &str) -> Option<String> {
    let name = output.strip_prefix("wrk ")?.split_whitespace().next()?;
    let version = name.split_once('/').map_or(name, |(_, version)| version);
    version.split('-').next().map(str::to_owned)
}

/// From the arguments of the build: `--modules-path=/usr/lib/nginx/modules ... --with-stream=dynamic`.
fn stream_module(build: &str) -> Option<PathBuf> {
    let mut arguments = build.split_whitespace();
    let is_dynamic = arguments.clone().any(|argument| argument == "--with-stream=dynamic");
    let directory = arguments.find_map(|argument| argument.strip_prefix("--modules-path="))?;
    is_dynamic.then(|| Path::new(directory).join("ngx_stream_module.so"))
}

/// `15` of `15.18`, `17beta1` or `15`.
fn major(version: &str) -> Option<u32> {
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The directory with the `postgres` and `initdb` to use, whatever else is installed.
const POSTGRESQL_BIN: &str = "POSTGRESQL_BIN";

/// The oldest version that the project is tested with.
const POSTGRES_MAJOR_MIN: u32 = 14;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_postgres_versions() {
        let version = postgres_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n");
        assert_eq!(version.as_deref(), Some("15.18"));
        assert_eq!(postgres_version("postgres: command not found"), None);
        assert_eq!(major("15.18"), Some(15));
        assert_eq!(major("17beta1"), Some(17));
        assert_eq!(major("common"), None);
    }

    #[test]
    fn orders_versions_by_their_numbers() {
        assert!(numbers("5.10") > numbers("5.9"));
        assert!(numbers("6.1.0-13") > numbers("5.15.0-91-generic"));
    }

    #[test]
    fn reads_wrk_versions() {
        let debian = "wrk debian/4.1.0-3+b2 [epoll] Copyright (C) 2012 Will Glozer\n";
        assert_eq!(wrk_version(debian).as_deref(), Some("4.1.0"));
        assert_eq!(wrk_version("wrk 4.2.0 [epoll] Copyright\n").as_deref(), Some("4.2.0"));
        assert_eq!(wrk_version("Usage: wrk\n").as_deref(), None);
    }

    #[test]
    fn reads_an_nginx_build() {
        let debian = "nginx version: nginx/1.22.1\nconfigure arguments: --prefix=/usr/share/nginx \
                      --modules-path=/usr/lib/nginx/modules --with-stream=dynamic --with-threads\n";
        assert_eq!(nginx_version(debian).as_deref(), Some("1.22.1"));
        assert_eq!(
            stream_module(debian).as_deref(),
            Some(Path::new("/usr/lib/nginx/modules/ngx_stream_module.so"))
        );

        let upstream = "nginx version: nginx/1.27.0\nconfigure arguments: --modules-path=/m --with-stream\n";
        assert_eq!(stream_module(upstream), None);
    }
}
