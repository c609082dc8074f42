//! A directory that disappears with its owner, and the clean-up after owners that could not.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;
use std::{env, mem};

use tempfile::TempDir;

use crate::Error;
use crate::wait::{self, Interrupt};

/// A new directory `rinha-<name>-XXXXXX` below [`base`], removed with all it holds when the value is dropped.
///
/// Other users may enter it (mode 0755): services that may not run as root have their own user.
#[derive(Debug)]
pub struct Throwaway {
    path: PathBuf,
    /// Locked as long as the owner lives, so that a later run can tell a stale directory from a busy one.
    owner: File,
}

impl Throwaway {
    /// Makes one. The first call in a process removes the directories of owners that were killed.
    pub fn new(name: &str) -> Result<Throwaway, Error> {
        static SWEEP: Once = Once::new();
        SWEEP.call_once(sweep);

        let made = || -> io::Result<Throwaway> {
            // The `TempDir` removes the directory if one of these steps fails.
            let directory = TempDir::with_prefix_in(format!("{PREFIX}{name}-"), base())?;
            fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
            // Locked before it gets its name: no sweep can see an owner's file that is not locked yet.
            let unnamed = directory.path().join("owner.new");
            let owner = File::create_new(&unnamed)?;
            owner.try_lock()?;
            fs::rename(unnamed, directory.path().join(OWNER))?;
            Ok(Throwaway { path: directory.keep(), owner })
        };
        made().map_err(Error::io(format!("make a directory in {} (see TMPDIR)", base().display())))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the directory to the user, and says where.
    pub fn keep(mut self) -> PathBuf {
        // Best effort: what stays is a stale owner's file, and the next sweep takes the directory too early.
        let _ = fs::remove_file(self.path.join(OWNER));
        mem::take(&mut self.path)
    }
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        if self.path.as_os_str().is_empty() {
            return;
        }
        // A backend of a killed PostgreSQL may still write for a moment while the directory is being emptied.
        let removed =
            wait::until(Duration::from_secs(2), &Interrupt::default(), || {
                match fs::remove_dir_all(&self.path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Ok(None),
                    _ => Ok(Some(())),
                }
            });
        if !matches!(removed, Ok(Some(()))) {
            eprintln!("stress: cannot remove {}", self.path.display());
        }
        // Only now may a sweep believe that nobody owns it.
        let _ = self.owner.unlock();
    }
}

/// Where throwaway directories are made: `TMPDIR`, or else `/var/tmp`.
///
/// Not `/tmp`: where that is kept in memory, the database's files would count against the database's memory limit.
pub fn base() -> PathBuf {
    env::var_os("TMPDIR")
        .filter(|path| !path.is_empty())
        .map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}

fn sweep() {
    let user = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(base()).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX)
            && entry.metadata().is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == user);
        if !is_ours {
            continue;
        }
        // No owner's file: it was kept on purpose, or is being made right now.
        let Ok(owner) = File::open(entry.path().join(OWNER)) else { continue };
        if owner.try_lock().is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

const PREFIX: &str = "rinha-";
const OWNER: &str = "owner";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweep_takes_the_abandoned_and_leaves_the_owned_and_the_kept() {
        let owned = Throwaway::new("test").unwrap();
        let kept = Throwaway::new("test").unwrap().keep();
        let mut killed = Throwaway::new("test").unwrap();
        let abandoned = mem::take(&mut killed.path);
        drop(killed);

        sweep();
        assert!(owned.path().exists());
        assert!(kept.exists());
        assert!(!abandoned.exists());
        fs::remove_dir_all(kept).unwrap();
    }
}
