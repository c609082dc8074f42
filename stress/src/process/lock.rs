//! One `up` at a time: a locked file that names its holder.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process;

use crate::Error;

/// The right to be the only one; given back when dropped. A killed holder gives it back, too.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    /// Holds the lock while it is open.
    _file: File,
}

impl Lock {
    /// Takes the lock of the file `path`.
    ///
    /// # Errors
    /// [`Error::Refused`] with the holder's process id when another process has it.
    pub fn take(path: &Path) -> Result<Lock, Error> {
        let failed = |error| Error::io(format!("lock {}", path.display()))(error);
        loop {
            // In two steps, since systems refuse to open another user's file in a shared directory "or create" it.
            let opened = match File::open(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => File::create_new(path),
                opened => opened,
            };
            let mut file = match opened {
                Ok(file) => file,
                // Made by another process, or gone, between the two steps.
                Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) => {
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let holder = fs::read_to_string(path).unwrap_or_default();
                    let holder = holder.trim();
                    return Err(Error::Refused(format!(
                        "`cargo stress up` is already running on this port as process {holder}: end it with `kill {holder}`, \
                         or choose another with --port"
                    )));
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            // The last holder may have removed the file between open and lock: then this lock excludes nobody.
            let is_current = match (file.metadata(), fs::metadata(path)) {
                (Ok(ours), Ok(named)) => (ours.dev(), ours.ino()) == (named.dev(), named.ino()),
                _ => false,
            };
            if !is_current {
                continue;
            }
            // A file left by a killed holder was opened for reading only, and has the wrong content: make it anew.
            if write!(file, "{}", process::id()).is_err() {
                fs::remove_file(path).map_err(failed)?;
                continue;
            }
            return Ok(Lock { path: path.to_owned(), _file: file });
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While still locked: whoever waits for this file sees that it is gone and starts over.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throwaway::Throwaway;

    #[test]
    fn one_at_a_time_and_the_refusal_names_the_holder() {
        let directory = Throwaway::new("test").unwrap();
        let path = directory.path().join("lock");
        let first = Lock::take(&path).unwrap();

        let refusal = Lock::take(&path).unwrap_err().to_string();
        assert!(refusal.contains(&format!("process {}:", process::id())), "{refusal}");

        drop(first);
        assert!(!path.exists());
        drop(Lock::take(&path).unwrap());
    }

    #[test]
    fn takes_over_the_file_of_a_killed_holder() {
        let directory = Throwaway::new("test").unwrap();
        let path = directory.path().join("lock");
        fs::write(&path, "4194304").unwrap();

        let _lock = Lock::take(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), process::id().to_string());
    }
}
