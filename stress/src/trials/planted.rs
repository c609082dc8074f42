//! Planted bugs: patches that break the core on purpose, each applied to a copy of the source and built, to see whether the
//! simulation finds it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::run;
use crate::{Error, compile, files};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlantedBug {
    pub name: String,
    /// What it breaks, in a sentence: the first line of the patch.
    pub meaning: String,
    /// The check of the simulation that has to find it: the line `Found by: CHECK` of the patch.
    pub check: String,
    patch: PathBuf,
}

impl PlantedBug {
    /// In the order of their names.
    pub fn all() -> Result<Vec<PlantedBug>, Error> {
        let mut bugs = Vec::new();
        for patch in files::with_extension(&compile::workspace().join(DIRECTORY), "patch")? {
            let text = files::read(&patch)?;
            let head: Vec<&str> = text.lines().take(2).collect();
            let [meaning, aim] = head[..] else { return Err(headless(&patch)) };
            let check = aim.strip_prefix("Found by: ").ok_or_else(|| headless(&patch))?;
            let name = patch.file_stem().and_then(OsStr::to_str).unwrap_or_default();
            let [name, meaning, check] = [name, meaning, check].map(str::to_owned);
            bugs.push(PlantedBug { name, meaning, check, patch });
        }
        Ok(bugs)
    }

    pub fn named(name: &str) -> Result<PlantedBug, Error> {
        let bug = PlantedBug::all()?.into_iter().find(|bug| bug.name == name);
        bug.ok_or_else(|| Error::Refused(format!("there is no {DIRECTORY}/{name}.patch")))
    }
}

fn headless(patch: &Path) -> Error {
    Error::Refused(format!(
        "{}: the first line says what it breaks, the second one is `Found by: CHECK`",
        patch.display()
    ))
}

/// A copy of what the simulation is built from, with a build directory of its own: what cargo builds of the real source is
/// left alone.
#[derive(Debug)]
pub struct BrokenCopy {
    directory: PathBuf,
}

impl BrokenCopy {
    /// Without any bug.
    pub fn new() -> Result<BrokenCopy, Error> {
        let directory = compile::target_directory(&compile::workspace()).join("planted");
        let copy = BrokenCopy { directory };
        copy.restore()?;
        Ok(copy)
    }

    /// Brings the copy up to the source, without any bug.
    fn restore(&self) -> Result<(), Error> {
        let workspace = compile::workspace();
        for name in SOURCES {
            mirror(&workspace.join(name), &self.directory.join(name))
                .map_err(Error::io(format!("copy {name} to {}", self.directory.display())))?;
        }
        Ok(())
    }

    pub fn check(&self, bug: &PlantedBug) -> Result<(), Error> {
        self.git_apply(bug, &["--check"])
    }

    /// Plants the bug in place of the one before it.
    pub fn plant(&self, bug: &PlantedBug) -> Result<(), Error> {
        self.restore()?;
        self.git_apply(bug, &[])
    }

    /// The command that builds the simulation of the copy and runs it with arguments.
    pub fn simulation<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut cargo = compile::cargo();
        // The copy is built again for each bug, and a bug may leave something without use.
        cargo.envs([
            ("CARGO_INCREMENTAL", "1"),
            ("CARGO_PROFILE_SIM_OPT_LEVEL", "2"),
            ("RUSTFLAGS", "-Awarnings"),
        ]);
        cargo.env("CARGO_TARGET_DIR", self.directory.join("target"));
        cargo.current_dir(&self.directory).args(SIMULATION).args(arguments);
        cargo
    }

    pub fn find(&self, bug: &PlantedBug, seeds: u64) -> Result<Found, Error> {
        let seeds = seeds.to_string();
        let arguments = ["--seeds", seeds.as_str(), "--aim", bug.check.as_str()];
        let output = self.simulation(arguments).stderr(Stdio::piped()).output();
        let output = output.map_err(Error::io("run cargo"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let words: Vec<&str> = text.split_whitespace().collect();
        if let [first, check, _] = words[..]
            && let Ok(first) = first.parse()
        {
            return Ok(Found { seed: first, check: check.to_owned() });
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        Err(Error::Refused(if errors.lines().any(|line| line.starts_with("error")) {
            format!("{} does not build:\n{errors}", bug.name)
        } else {
            format!("{} is not found by {} within {seeds} seeds", bug.name, bug.check)
        }))
    }

    fn git_apply(&self, bug: &PlantedBug, options: &[&str]) -> Result<(), Error> {
        let mut git = Command::new("git");
        // The copy stands inside a repository, of which git would take it for a part.
        git.env("GIT_CEILING_DIRECTORIES", self.directory.parent().unwrap_or(&self.directory));
        git.current_dir(&self.directory).arg("apply").args(options).arg(&bug.patch);
        run(&mut git, &format!("apply {} with git", bug.patch.display())).map(drop)
    }
}

#[derive(Debug)]
pub struct Found {
    /// The first one that failed, from 0 on.
    pub seed: u64,
    pub check: String,
}

/// Makes `copy` the same as `source`. A file that is the same already is not touched, so that cargo builds nothing anew.
fn mirror(source: &Path, copy: &Path) -> std::io::Result<()> {
    if source.is_file() {
        let content = fs::read(source)?;
        if fs::read(copy).ok().as_ref() == Some(&content) {
            return Ok(());
        }
        fs::create_dir_all(copy.parent().unwrap_or(copy))?;
        return fs::write(copy, content);
    }
    fs::create_dir_all(copy)?;
    for entry in fs::read_dir(copy)? {
        let entry = entry?;
        if source.join(entry.file_name()).exists() {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    for entry in fs::read_dir(source)? {
        let name = entry?.file_name();
        mirror(&source.join(&name), &copy.join(&name))?;
    }
    Ok(())
}

const DIRECTORY: &str = "src/sim/bugs";
/// What the workspace cannot be built without.
const SOURCES: [&str; 7] = ["Cargo.toml", "Cargo.lock", "src", "benches", "proto-pg", "stress", "docs/learn"];
/// How cargo builds and runs the simulation.
#[rustfmt::skip]
pub const SIMULATION: [&str; 11] = [
    "run", "--profile", "sim", "--package", "rinha", "--bin", "sim", "--no-default-features", "--features", "sim-program", "--",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_of_the_workspace_is_in_the_copy_and_every_patch_fits() {
        let copy = BrokenCopy::new().unwrap();
        let bugs = PlantedBug::all().unwrap();
        assert!(bugs.len() > 50, "only {} patches were found", bugs.len());
        for bug in bugs {
            copy.check(&bug).unwrap();
        }
        let manifest = fs::read_to_string(copy.directory.join("Cargo.toml")).unwrap();
        let members = manifest.lines().find_map(|line| line.strip_prefix("members = ")).unwrap();
        let members: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
        assert!(members.len() > 3, "{members:?}");
        for member in members {
            assert!(copy.directory.join(member).join("Cargo.toml").exists(), "{member} is not copied");
        }
    }
}
