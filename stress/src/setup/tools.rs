//! The programs of others that the bench needs: how each is found, and what distributions call its packages.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Debug)]
pub struct Tool {
    pub(super) what: &'static str,
    /// Its packages in each [`Family`](super::install::Family), in the order of that.
    pub(super) packages: [&'static str; 5],
    /// The service that Debian's package would start at each boot.
    pub(super) service: Option<&'static str>,
    names: &'static [&'static str],
    /// What it is asked to say who it is.
    arguments: &'static [&'static str],
    /// What stands before its version then.
    marker: &'static str,
    /// The oldest version that does.
    major_min: u32,
    /// Where it may be besides the directories of programs.
    elsewhere: fn() -> Vec<PathBuf>,
    /// The environment variable that names the directory to use, whatever else is installed.
    variable: Option<&'static str>,
}

#[derive(Debug, Clone)]
pub struct Found {
    pub program: PathBuf,
    /// Such as `15.18`.
    pub version: String,
    pub said: String,
}

impl Tool {
    const fn new(what: &'static str, names: &'static [&'static str], marker: &'static str) -> Tool {
        let (packages, arguments) = ([names[0]; 5], &["--version"] as &[&str]);
        Tool {
            what,
            packages,
            service: None,
            names,
            arguments,
            marker,
            major_min: 0,
            elsewhere: Vec::new,
            variable: None,
        }
    }

    /// The first one on `PATH`, among the system's programs, which are not on every user's `PATH`, or elsewhere.
    pub fn find(&self) -> Option<Found> {
        let chosen = self.variable.and_then(|variable| Some((variable, env::var_os(variable)?)));
        if let Some((variable, directory)) = chosen {
            // No other, and none installed for it: a test of one version must not pass with another.
            let found = self.look_at(PathBuf::from(&directory).join(self.names[0]));
            if found.is_none() {
                eprintln!("{variable}={}: expected the directory of {}", directory.display(), self.what);
                std::process::exit(2);
            }
            return found;
        }
        let path = env::var_os("PATH");
        let path = path.map(|path| env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
        let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
        let directories = path.into_iter().chain(system);
        let usual = directories.flat_map(|directory| self.names.iter().map(move |name| directory.join(name)));
        usual.chain((self.elsewhere)()).find_map(|program| self.look_at(program))
    }

    /// Asks a program who it is. Its exit status says nothing: wrk takes it for misuse to be asked for no more.
    pub(super) fn look_at(&self, program: PathBuf) -> Option<Found> {
        let output = Command::new(&program).args(self.arguments).output().ok()?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let version = self.version_in(&said)?;
        Some(Found { program, version, said })
    }

    fn version_in(&self, said: &str) -> Option<String> {
        let word = said.split_once(self.marker)?.1.split_whitespace().next()?;
        // `debian/4.1.0-3+b2` of wrk.
        let version = word.rsplit('/').next()?.split(['-', '+']).next()?;
        let is_new_enough = numbers(version).first().is_some_and(|major| *major >= self.major_min);
        is_new_enough.then(|| version.to_owned())
    }
}

/// Of version 14 or newer, the oldest that the project is tested with. `initdb` is beside it.
pub static POSTGRES: Tool = Tool {
    packages: ["postgresql", "postgresql", "postgresql-server", "postgresql", "postgresql"],
    service: Some("postgresql"),
    major_min: 14,
    elsewhere: postgres_servers,
    variable: Some("POSTGRESQL_BIN"),
    ..Tool::new("a PostgreSQL server >= 14", &["postgres"], "(PostgreSQL) ")
};
/// With its module `stream`.
pub static NGINX: Tool = Tool {
    packages: [
        "nginx libnginx-mod-stream",
        "nginx libnginx-mod-stream",
        "nginx nginx-mod-stream",
        "nginx",
        "nginx",
    ],
    service: Some("nginx"),
    arguments: &["-V"],
    ..Tool::new("nginx", &["nginx"], "nginx version: nginx/")
};
/// To compare nginx with.
pub static HAPROXY: Tool = Tool {
    service: Some("haproxy"),
    arguments: &["-v"],
    ..Tool::new("HAProxy", &["haproxy"], "HAProxy version ")
};
pub static WRK: Tool = Tool::new("wrk", &["wrk"], "wrk ");
pub static PGBOUNCER: Tool =
    Tool { service: Some("pgbouncer"), ..Tool::new("PgBouncer", &["pgbouncer"], "PgBouncer ") };
/// Its own server only: who is the leader is asked of PostgreSQL.
pub static ETCD: Tool = Tool {
    packages: ["etcd-server", "etcd-server", "etcd", "etcd", "etcd"],
    service: Some("etcd"),
    ..Tool::new("etcd", &["etcd"], "etcd Version: ")
};
pub static IP: Tool = Tool {
    packages: ["iproute2", "iproute2", "iproute", "iproute2", "iproute2"],
    arguments: &["-V"],
    ..Tool::new("ip of iproute2", &["ip"], "iproute2-")
};
/// One that makes virtual environments with pip in them.
pub static PYTHON: Tool = Tool {
    packages: ["python3-venv", "python3-venv", "python3", "python", "python3"],
    arguments: &["-c", "import venv, ensurepip, platform; print('Python', platform.python_version())"],
    ..Tool::new("Python 3 with venv", &["python3"], "Python ")
};
pub static PROMETHEUS: Tool =
    Tool { service: Some("prometheus"), ..Tool::new("Prometheus", &["prometheus"], "prometheus, version ") };
pub static PROMTOOL: Tool = Tool {
    packages: PROMETHEUS.packages,
    service: PROMETHEUS.service,
    ..Tool::new("Prometheus' promtool", &["promtool"], "promtool, version ")
};
pub static POSTGRES_EXPORTER: Tool = Tool {
    packages: [
        "prometheus-postgres-exporter",
        "postgres_exporter",
        "postgres_exporter",
        "postgres_exporter",
        "postgres_exporter",
    ],
    service: Some("prometheus-postgres-exporter"),
    ..Tool::new(
        "postgres_exporter",
        &["postgres_exporter", "prometheus-postgres-exporter"],
        "postgres_exporter, version ",
    )
};
/// Of version 1, the last one that k6 writes to by itself.
pub static INFLUXDB: Tool = Tool {
    packages: ["influxdb"; 5],
    service: Some("influxdb"),
    arguments: &["version"],
    ..Tool::new("InfluxDB 1.x", &["influxd"], "InfluxDB v1.")
};
/// Where `perf` is a script of the distribution, it wants the program of exactly the running kernel's version and fails
/// without. What we ask for is older than any of them, so another version does as well.
pub static PERF: Tool = Tool {
    packages: ["linux-perf", "linux-tools-generic", "perf", "perf", "perf"],
    elsewhere: perfs,
    ..Tool::new("perf", &["perf"], "perf version ")
};
pub static K6: Tool =
    Tool { arguments: &["version"], elsewhere: super::python::our_k6, ..Tool::new("k6", &["k6"], "k6 v") };
pub static STRACE: Tool = Tool::new("strace", &["strace"], "strace -- version ");

/// Where `pg_config` says, or in `/usr/lib/postgresql/15/bin` of Debian and its kin, or in `/usr/pgsql-15/bin` of the
/// PostgreSQL project's packages.
fn postgres_servers() -> Vec<PathBuf> {
    let configured = Command::new("pg_config").arg("--bindir").output().ok();
    let configured =
        configured.map(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).join("postgres"));
    let places = [("/usr/lib/postgresql", "", "bin/postgres"), ("/usr", "pgsql-", "bin/postgres")];
    configured.into_iter().chain(newest_first(&places)).collect()
}

/// `/usr/bin/perf_5.10` of Debian, `/usr/lib/linux-tools/5.15.0-91-generic/perf` of Ubuntu.
fn perfs() -> Vec<PathBuf> {
    newest_first(&[("/usr/bin", "perf_", ""), ("/usr/lib/linux-tools", "", "perf")])
}

/// The files `PARENT/PREFIX<version>/PROGRAM`.
fn newest_first(places: &[(&str, &str, &str)]) -> Vec<PathBuf> {
    let mut found: Vec<(Vec<u32>, PathBuf)> = Vec::new();
    for (parent, prefix, program) in places {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(version) = name.to_str().and_then(|name| name.strip_prefix(prefix)) else { continue };
            // An empty name would end the path in a slash.
            let path = if program.is_empty() { entry.path() } else { entry.path().join(program) };
            found.push((numbers(version), path));
        }
    }
    found.retain(|(version, path)| !version.is_empty() && path.is_file());
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

/// The numbers of a version, in order: 5.10 is newer than 5.9.
fn numbers(version: &str) -> Vec<u32> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_ordered() {
        for (tool, said, version) in [
            (&POSTGRES, "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some("15.18")),
            (&POSTGRES, "postgres (PostgreSQL) 17beta1\n", Some("17beta1")),
            (&POSTGRES, "postgres (PostgreSQL) 13.2\n", None),
            (&POSTGRES, "postgres: command not found", None),
            (&WRK, "wrk debian/4.1.0-3+b2 [epoll] Copyright (C) 2012 Will Glozer\n", Some("4.1.0")),
            (&WRK, "wrk 4.2.0 [epoll] Copyright\n", Some("4.2.0")),
            (&WRK, "Usage: wrk\n", None),
            (&NGINX, "nginx version: nginx/1.22.1\nconfigure arguments: --with-threads\n", Some("1.22.1")),
        ] {
            assert_eq!(tool.version_in(said).as_deref(), version, "{said}");
        }
        assert!(numbers("5.10") > numbers("5.9"));
        assert!(numbers("6.1.0-13") > numbers("5.15.0-91-generic"));
    }
}
