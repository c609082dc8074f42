//! Files, with errors that name them.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Error;

pub fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(Error::io(format!("read {}", path.display())))
}

/// Gives the path.
pub fn write(path: impl Into<PathBuf>, content: impl AsRef<[u8]>) -> Result<PathBuf, Error> {
    let path = path.into();
    fs::write(&path, content).map_err(Error::io(format!("write {}", path.display())))?;
    Ok(path)
}

/// The files `*.EXTENSION` of a directory, in name order.
pub fn with_extension(directory: &Path, extension: &str) -> Result<Vec<PathBuf>, Error> {
    let cannot = || Error::io(format!("read the directory {}", directory.display()));
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(cannot())? {
        paths.push(entry.map_err(cannot())?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|it| it == extension));
    paths.sort();
    Ok(paths)
}

/// With all above it.
pub fn make_directory(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(Error::io(format!("make {}", path.display())))
}

pub fn absolute(program: &Path) -> Result<PathBuf, Error> {
    fs::canonicalize(program).map_err(Error::io(format!("find the server {}", program.display())))
}

pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::Refused(error.to_string()))?;
    write(path, text + "\n").map(drop)
}

/// JSON whose member `format` says that it is of this version of `what`.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, what: &str, format: u32) -> Result<T, Error> {
    let text = read(path)?;
    let written = serde_json::from_str::<Value>(&text).ok().and_then(|value| value["format"].as_u64());
    let problem = match (serde_json::from_str(&text), written) {
        (Ok(value), Some(written)) if written == u64::from(format) => return Ok(value),
        (_, Some(written)) if written != u64::from(format) => {
            format!("it has format {written}, not {format}")
        }
        (Ok(_), _) => "it has no format".to_owned(),
        (Err(error), _) => error.to_string(),
    };
    Err(Error::Refused(format!("{} is no {what}: {problem}", path.display())))
}
