//! Files, with errors that name them.

use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Error;
use crate::process::run;

pub fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(Error::io(format!("read {}", path.display())))
}

pub fn write(path: impl Into<PathBuf>, content: impl AsRef<[u8]>) -> Result<PathBuf, Error> {
    let path = path.into();
    fs::write(&path, content).map_err(Error::io(format!("write {}", path.display())))?;
    Ok(path)
}

/// Writes a script that can be run at once; gives its path.
///
/// A process of its own writes it. The kernel runs no file that is open for writing ("Text file busy"), and what is open in
/// this process is open for a moment in each child that another thread starts.
pub fn write_executable(path: impl Into<PathBuf>, script: &str) -> Result<PathBuf, Error> {
    let path = path.into();
    let mut shell = Command::new("sh");
    shell.args(["-c", "printf %s \"$1\" >\"$0\" && chmod 755 \"$0\""]).arg(&path).arg(script);
    run(&mut shell, &format!("write {}", path.display())).map(|_| path)
}

/// Copies a program so that the copy can be run at once; see [`write_executable`].
pub fn copy_executable(from: &Path, to: &Path) -> Result<(), Error> {
    run(Command::new("cp").args([from, to]), &format!("copy {}", from.display())).map(drop)
}

/// The files `*.EXTENSION` of a directory, in name order.
pub fn with_extension(directory: &Path, extension: &str) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = entries.map_err(Error::io(format!("read the directory {}", directory.display())))?;
    let mut paths: Vec<PathBuf> = entries.iter().map(DirEntry::path).collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throwaway::Throwaway;

    #[test]
    fn what_is_written_or_copied_can_be_run_and_a_failure_names_the_file() {
        let directory = Throwaway::new("test").unwrap();
        let path = directory.path().join("it's one");
        write_executable(&path, "#!/bin/sh\nprintf 'a %s\\n' \"$1\"\n").unwrap();
        let copy = directory.path().join("copy");
        copy_executable(&path, &copy).unwrap();
        for program in [path, copy] {
            let output = Command::new(program).arg("b").output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), "a b\n");
        }
        let missing = directory.path().join("missing");
        for refusal in [
            write_executable(missing.join("one"), "").unwrap_err(),
            copy_executable(&missing, directory.path()).unwrap_err(),
        ] {
            assert!(refusal.to_string().contains("missing"), "{refusal}");
        }
    }
}
