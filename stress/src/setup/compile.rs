//! Building the server, or a peer of it, with cargo, and finding what was built.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::Workplace;
use crate::process::{Launch, Service, run};
use crate::{Error, files};

/// The directory of the workspace: what cargo says when it runs us, else where this crate was built.
pub fn workspace() -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&manifest).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// The cargo that runs us, else the one on the `PATH`.
pub fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Where cargo puts what it builds. Format: The Cargo Book, "Build Cache", `CARGO_TARGET_DIR`.
pub fn target_directory(workspace: &Path) -> PathBuf {
    let directory = env::var_os("CARGO_TARGET_DIR").filter(|directory| !directory.is_empty());
    workspace.join(directory.unwrap_or_else(|| "target".into()))
}

/// Builds the server, optimized. cargo's progress is on standard error. Gives the path of its binary.
pub fn build(place: &Workplace) -> Result<PathBuf, Error> {
    cargo_build(&place.workspace, None, SERVER, SERVER, place)
}

/// What stands for a peer where a binary of the server may be named: `peer:batch` is `batch`.
pub fn peer(server: &Path) -> Option<&str> {
    server.to_str()?.strip_prefix("peer:")
}

/// Builds one of the peers in `stress/peers`, optimized as the server is.
pub fn build_peer(name: &str, place: &Workplace) -> Result<PathBuf, Error> {
    if PEERS.contains(&name) {
        return cargo_build(&place.workspace, None, "peers", name, place);
    }
    Err(Error::Refused(format!("there is no peer {name}: there are {}", PEERS.join(", "))))
}

/// What a run is compared with: a peer; a binary that is there already; or the server of a commit, built once from its sources
/// into `target/baseline`.
pub fn build_baseline(what: &str, place: &Workplace) -> Result<PathBuf, Error> {
    if let Some(peer) = peer(Path::new(what)) {
        return build_peer(peer, place);
    }
    if Path::new(what).is_file() {
        return Ok(what.into());
    }
    let git = |arguments: &[&str]| {
        run(Command::new("git").args(arguments).current_dir(&place.workspace), "run git")
    };
    let commit = format!("{what}^{{commit}}");
    let hash = git(&["rev-parse", "--verify", "--quiet", "--short=12", &commit]).map_err(|_| {
        Error::Refused(format!("{what} is no peer, no file and no commit of this repository"))
    })?;
    let hash = hash.trim();
    let target = target_directory(&place.workspace).join("baseline");
    let (sources, binary) = (target.join(hash), target.join(format!("{hash}-{SERVER}")));
    if binary.is_file() {
        return Ok(binary);
    }
    files::make_directory(&sources)?;
    let archive = target.join(format!("{hash}.tar"));
    git(&["archive", "--output", &archive.display().to_string(), hash])?;
    run(Command::new("tar").arg("-xf").arg(&archive).current_dir(&sources), "run tar")?;
    let server = cargo_build(&sources, Some(&target.join("build")), SERVER, SERVER, place)?;
    files::copy_executable(&server, &binary)?;
    fs::remove_file(&archive).map_err(Error::io(format!("remove {}", archive.display())))?;
    fs::remove_dir_all(&sources).map_err(Error::io(format!("remove {}", sources.display())))?;
    Ok(binary)
}

/// Builds in the workspace `sources`, into `target` if not where cargo usually does.
fn cargo_build(
    sources: &Path,
    target: Option<&Path>,
    package: &str,
    name: &str,
    place: &Workplace,
) -> Result<PathBuf, Error> {
    let log = place.logs.join("build.json");
    // Appended to by each build; only this one's messages count.
    let _ = fs::remove_file(&log);
    let fixed =
        format!("build --release --package {package} --bin {name} --message-format json-render-diagnostics");
    let mut arguments: Vec<OsString> = fixed.split(' ').map(OsString::from).collect();
    if let Some(target) = target {
        arguments.extend(["--target-dir".into(), target.into()]);
    }
    let cargo = cargo();
    let mut build = Service::start(Launch {
        arguments,
        is_stderr_shown: true,
        ..Launch::new("cargo build", Path::new(cargo.get_program()), sources, &log)
    })?;
    build.run_to_end(BUILD_PATIENCE, &place.interrupt).map_err(|error| match error {
        Error::Service { what, .. } => {
            Error::Refused(format!("{name} does not build: cargo {what} (its messages are above)"))
        }
        error => error,
    })?;
    executable_in(&files::read(&log)?, name)
        .ok_or_else(|| Error::Refused(format!("cargo names no executable {name} in {}", log.display())))
}

/// Format: The Cargo Book, "External tools", JSON messages: one object per line; an artifact names its executable.
fn executable_in(messages: &str, name: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut binaries = messages.filter(|message| {
        let kinds = message["target"]["kind"].as_array();
        message["reason"] == "compiler-artifact"
            && message["target"]["name"] == name
            && kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == "bin"))
    });
    binaries.find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

const SERVER: &str = "rinha";
/// The programs of `stress/peers`.
pub const PEERS: [&str; 3] = ["simple", "batch", "embedded"];
const BUILD_PATIENCE: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_binary_not_the_library_of_the_same_name() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"rinha"},"executable":null}
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"stress"},"executable":"/t/release/stress"}
not json
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"rinha"},"executable":"/t/release/rinha"}
{"reason":"build-finished","success":true}
"#;
        assert_eq!(executable_in(messages, SERVER), Some(PathBuf::from("/t/release/rinha")));
        assert_eq!(executable_in("", SERVER), None);
        assert!(workspace().join("stress/Cargo.toml").is_file());
    }

    #[test]
    fn the_peers_are_the_programs_of_their_crate() {
        let programs = fs::read_dir(workspace().join("stress/peers/src/bin")).unwrap();
        let mut names: Vec<_> = programs.map(|entry| entry.unwrap().path()).collect();
        names.sort();
        let names: Vec<_> = names.iter().filter_map(|path| path.file_stem()?.to_str()).collect();
        let mut peers = PEERS;
        peers.sort_unstable();
        assert_eq!(names, peers);
        assert_eq!(peer(Path::new("peer:batch")), Some("batch"));
        assert_eq!(peer(Path::new("target/release/rinha")), None);
        let place = Workplace::silent(workspace(), Path::new("/nowhere"));
        let refusal = build_peer("none", &place).unwrap_err().to_string();
        assert!(refusal.contains("simple, batch, embedded"), "{refusal}");
        let refusal = build_baseline("no-such-commit", &place).unwrap_err().to_string();
        assert!(refusal.contains("no commit of this repository"), "{refusal}");
    }
}
