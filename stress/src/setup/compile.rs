//! Building the server with cargo, and finding what it built.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::Workplace;
use crate::process::service::{Launch, Service};
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

/// Where cargo puts what it builds.
///
/// Format: The Cargo Book, "Build Cache" and "Environment Variables", `CARGO_TARGET_DIR`.
pub fn target_directory(workspace: &Path) -> PathBuf {
    let directory = env::var_os("CARGO_TARGET_DIR").filter(|directory| !directory.is_empty());
    workspace.join(directory.unwrap_or_else(|| "target".into()))
}

/// Builds the server with a profile: `release`, or `profiling`, which is the same code with symbols and line tables. cargo's
/// progress is on standard error. Gives the path of its binary.
pub fn build(profile: &str, place: &Workplace) -> Result<PathBuf, Error> {
    let log = &place.logs.join("build.json");
    let arguments =
        ["build", "--profile", profile, "--bin", SERVER, "--message-format", "json-render-diagnostics"];
    let cargo = cargo();
    let mut build = Service::start(Launch {
        arguments: arguments.map(OsString::from).to_vec(),
        is_stderr_shown: true,
        ..Launch::new("cargo build", Path::new(cargo.get_program()), &place.workspace, log)
    })?;
    match build.run_to_end(BUILD_PATIENCE, &place.interrupt) {
        Ok(()) => {}
        Err(Error::Service { what, .. }) => {
            return Err(Error::Refused(format!(
                "the server does not build: cargo {what} (its messages are above)"
            )));
        }
        Err(error) => return Err(error),
    }
    let messages = files::read(log)?;
    executable_in(&messages)
        .ok_or_else(|| Error::Refused(format!("cargo names no executable {SERVER} in {}", log.display())))
}

/// Format: The Cargo Book, "External tools", JSON messages: one object per line; an artifact names its executable.
fn executable_in(messages: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut servers = messages.filter(|message| {
        let kinds = message["target"]["kind"].as_array();
        message["reason"] == "compiler-artifact"
            && message["target"]["name"] == SERVER
            && kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == "bin"))
    });
    servers.find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

const SERVER: &str = "rinha";
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
        assert_eq!(executable_in(messages), Some(PathBuf::from("/t/release/rinha")));
        assert_eq!(executable_in(""), None);
        assert!(workspace().join("stress/Cargo.toml").is_file());
    }
}
