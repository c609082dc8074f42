//! Programs in Python, each in a virtual environment of its own, and Patroni as one of them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::Workplace;
use super::compile::target_directory;
use super::install::PYTHON;
use crate::process::service::{Launch, Service};
use crate::{Error, files};

/// Installs `packages` into the new virtual environment `name` below `parent`.
pub(super) fn make_environment(
    python: &Path,
    parent: &Path,
    name: &str,
    packages: &[&str],
    place: &Workplace,
) -> Result<(), Error> {
    files::make_directory(parent)?;
    let run = |program: &Path, arguments: &[&str]| {
        let mut tool = Service::start(Launch {
            arguments: arguments.iter().map(OsString::from).collect(),
            ..Launch::new(
                &format!("installing {name}"),
                program,
                parent,
                place.log(&format!("{name}-install")),
            )
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
const INSTALL_PATIENCE: Duration = Duration::from_mins(5);
