//! The reader's folder, `docs/learn/mine`, which git ignores: a crate of its own, so that nothing in it can break a build
//! of the project. It holds a program for each step that was started, and the list of steps that passed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::steps::{STEPS, Step};

/// The root of the repository.
pub fn root() -> &'static Path {
    // Two levels below it.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().and_then(Path::parent).unwrap_or(Path::new("."))
}

/// `LEARN_MINE` may name another one, as tests do.
pub fn folder() -> PathBuf {
    std::env::var_os("LEARN_MINE").map_or_else(|| root().join("docs/learn/mine"), PathBuf::from)
}

/// The reader's program of a step.
pub fn program(step: &Step) -> PathBuf {
    folder().join(format!("{}.rs", step.name))
}

/// A program of the path.
pub fn ours(name: &str) -> PathBuf {
    root().join(format!("docs/learn/path/{name}.rs"))
}

/// What Cargo calls it.
pub fn binary(step: &Step) -> String {
    format!("mine-{}", step.name)
}

/// Writes the file that the reader changes: the reader's own program of the step before, or else the path's. Gives its path.
///
/// # Errors
/// The file is there already; or the folder cannot be written.
pub fn start(number: usize) -> io::Result<PathBuf> {
    let step = &STEPS[number - 1];
    let path = program(step);
    if path.exists() {
        let message = format!("{} is there already: delete it to begin again", shown(&path));
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    let before = match number.checked_sub(2).map(|index| &STEPS[index]) {
        None => ours(step.bug.unwrap_or(step.name)),
        Some(before) if program(before).exists() => program(before),
        Some(before) => ours(before.name),
    };
    let text = fs::read_to_string(&before)?;
    // Its own first lines say what it was; the marks are for the page.
    let code =
        text.lines().skip_while(|line| line.starts_with("//!")).filter(|line| !line.contains("// ANCHOR"));
    let head = format!(
        "//! Step {number}, mine: {}. This is the program of the step before.\n//! The page is {}; `cargo learn check {number}` \
         says what is still wrong.\n",
        step.title,
        step.page()
    );
    fs::create_dir_all(folder())?;
    // What step 7 has built, for programs that begin with one of ours.
    if number > 7 && !folder().join("http.rs").exists() {
        fs::copy(root().join("docs/learn/path/http.rs"), folder().join("http.rs"))?;
    }
    fs::write(&path, head + &code.flat_map(|line| [line, "\n"]).collect::<String>())?;
    Ok(path)
}

/// Writes the manifest of the folder anew, for the programs that are there, with the versions that the project uses.
pub fn write_manifest() -> io::Result<PathBuf> {
    let started = STEPS.iter().filter(|step| program(step).exists());
    let manifest = manifest(started.map(|step| (binary(step), format!("{}.rs", step.name))));
    let path = folder().join("Cargo.toml");
    fs::write(&path, manifest)?;
    fs::copy(root().join("Cargo.lock"), folder().join("Cargo.lock"))?;
    Ok(path)
}

/// A crate of programs, by name and path.
pub fn manifest(programs: impl Iterator<Item = (String, String)>) -> String {
    let proto_pg = root().join("proto-pg");
    let binaries = programs.map(|(name, path)| format!("\n[[bin]]\nname = \"{name}\"\npath = \"{path}\"\n"));
    MANIFEST.replace("PROTO_PG", &proto_pg.display().to_string()) + &binaries.collect::<String>()
}

/// The steps that passed, by number.
pub fn passed() -> BTreeSet<usize> {
    let text = fs::read_to_string(folder().join(PASSED)).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

pub fn remember(number: usize, has_passed: bool) -> io::Result<()> {
    let mut numbers = passed();
    if has_passed {
        numbers.insert(number);
    } else {
        numbers.remove(&number);
    }
    let text: String = numbers.iter().map(|number| format!("{number}\n")).collect();
    fs::write(folder().join(PASSED), text)
}

/// A path as the reader may type it.
pub fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

const PASSED: &str = "passed";

const MANIFEST: &str = r#"# Written by `cargo learn`, each time. The programs are yours.
[package]
name = "mine"
version = "0.0.0"
edition = "2024"
publish = false
autobins = false

# Not a part of the project around it.
[workspace]

[dependencies]
bytes = "1"
httparse = "1"
mio = { version = "1", features = ["os-poll", "net"] }
postgres-protocol = "0.6"
proto-pg = { path = "PROTO_PG" }
rustix = { version = "1", default-features = false, features = ["event", "std"] }
serde_json = "1"
"#;
