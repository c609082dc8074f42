//! Writes down the system calls of a running server with strace(1), and counts those of its requests.

use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::{fmt, fs};

use stress::throwaway::Throwaway;

use crate::support::{SERVER, wait_for};

/// A way to run the server so that its system calls are written down.
pub(crate) struct Trace {
    directory: Throwaway,
}

impl Trace {
    /// `None` where the kernel lets nobody trace, as in some containers; standard error says so.
    ///
    /// # Panics
    /// If strace is not installed, and is not ours to install.
    pub(crate) fn where_possible() -> Option<Trace> {
        assert!(
            is_strace_installed(),
            "strace is missing; on Debian and Ubuntu: sudo apt-get install -y --no-install-recommends strace"
        );
        let attempt = Command::new("strace").args(["-qq", "-e", "trace=none", "true"]).output();
        let attempt = attempt.expect("strace is installed");
        if !attempt.status.success() {
            // Not by `eprintln!`, which libtest keeps to itself as long as the test does not fail.
            let reason = String::from_utf8_lossy(&attempt.stderr);
            let told =
                writeln!(io::stderr(), "NOT TESTED: system calls, since ptrace is not allowed: {reason}");
            told.expect("standard error is open");
            return None;
        }
        Some(Trace { directory: Throwaway::new("trace").expect("make a directory") })
    }

    /// Stands in for the server's binary. With `-D` it is strace that becomes the child, so the server keeps the
    /// process id and the signals that are meant for it, and needs no privilege to be traced.
    pub(crate) fn executable(&self) -> PathBuf {
        let path = self.directory.path().join("traced");
        let calls = self.calls_path();
        let script =
            format!("#!/bin/sh\nexec strace -D -f -q -yy -s 0 -o '{}' '{SERVER}'\n", calls.display());
        fs::write(&path, script).expect("write the stand-in");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("make it executable");
        path
    }

    /// A Unix socket for the server to listen on, as `LISTEN` has it.
    pub(crate) fn listen(&self) -> String {
        format!("unix:{}", self.directory.path().join("socket").display())
    }

    /// The calls of the server, which has been stopped.
    pub(crate) fn calls(&self) -> Calls {
        let text = wait_for("the end of the trace", || {
            let text = fs::read_to_string(self.calls_path()).expect("strace has written a file");
            text.ends_with("+++ exited with 0 +++\n").then_some(text)
        });
        Calls::between_answers(&text)
    }

    fn calls_path(&self) -> PathBuf {
        self.directory.path().join("calls")
    }
}

/// Installs strace where it is missing, which works for root on Debian and its kin: as `stress` does for PostgreSQL.
fn is_strace_installed() -> bool {
    static IS_INSTALLED: OnceLock<bool> = OnceLock::new();
    let is_found = || Command::new("strace").arg("--version").output().is_ok();
    let install = |arguments: &[&str]| {
        let mut tool = Command::new("apt-get");
        tool.args(["-qq", "-o", "DPkg::Lock::Timeout=120"])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive");
        tool.output().is_ok_and(|output| output.status.success())
    };
    *IS_INSTALLED.get_or_init(|| {
        is_found()
            || (install(&["update"])
                && install(&["install", "-y", "--no-install-recommends", "strace"])
                && is_found())
    })
}

/// The system calls from the first answer on the last connection to the last one, without the first.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(crate) client_reads: usize,
    pub(crate) client_writes: usize,
    pub(crate) database_reads: usize,
    pub(crate) database_writes: usize,
    /// Those that ended because something was ready, and those that were not to wait at all. How often a deadline ends
    /// one depends on how fast the machine is.
    pub(crate) waits: usize,
    /// Everything else, as strace shows it.
    pub(crate) others: Vec<String>,
}

impl Calls {
    /// Format: strace(1) with `-f -yy`: process id, name of the call, arguments with the kind and ends of each
    /// descriptor's socket, result.
    fn between_answers(trace: &str) -> Calls {
        let lines: Vec<&str> =
            trace.lines().map(|line| line.split_once(' ').expect("a process id").1).collect();
        let accepting = lines.iter().filter(|line| line.trim_start().starts_with("accept4("));
        let mut results = accepting.filter_map(|line| line.rsplit_once(" = ")).map(|(_, result)| result);
        let client = results.rfind(|result| result.contains('<')).expect("a connection");

        let is_answer = |line: &&str| is_of(line, &WRITES, client);
        let first = lines.iter().position(is_answer).expect("an answer");
        let last = lines.iter().rposition(is_answer).expect("an answer");
        let mut calls = Calls::default();
        for line in &lines[first + 1..=last] {
            if is_of(line, &READS, client) {
                calls.client_reads += 1;
            } else if is_of(line, &WRITES, client) {
                calls.client_writes += 1;
            } else if is_of(line, &READS, DATABASE) {
                calls.database_reads += 1;
            } else if is_of(line, &WRITES, DATABASE) {
                calls.database_writes += 1;
            } else if is_of(line, &["epoll_wait"], "") {
                calls.waits += usize::from(!line.ends_with(" = 0") || line.ends_with(", 0) = 0"));
            } else {
                calls.others.push((*line).to_owned());
            }
        }
        calls
    }
}

/// Whether the line is one of these calls on such a descriptor.
fn is_of(line: &str, names: &[&str], descriptor: &str) -> bool {
    let Some((name, arguments)) = line.trim_start().split_once('(') else { return false };
    let first = arguments.split(", ").next().unwrap_or_default();
    names.contains(&name) && first.contains(descriptor)
}

const READS: [&str; 4] = ["read", "readv", "recvfrom", "recvmsg"];
const WRITES: [&str; 4] = ["write", "writev", "sendto", "sendmsg"];
/// But for the client, nothing else that a server reads or writes in its steady state is a Unix socket.
const DATABASE: &str = "<UNIX-STREAM:";

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Calls { client_reads, client_writes, database_reads, database_writes, waits, others } = self;
        write!(
            f,
            "{client_reads} reads and {client_writes} writes to the client, {database_reads} and \
             {database_writes} to the database, {waits} waits, and {others:?}"
        )
    }
}
