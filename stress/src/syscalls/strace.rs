//! Runs a server under strace(1) and reads what strace wrote down.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Error;

/// Why nobody may trace here, as in some containers, in strace's words; `None` where one may.
pub fn obstacle(strace: &Path) -> Result<Option<String>, Error> {
    let attempt = Command::new(strace)
        .args(["-qq", "-e", "trace=none", "true"])
        .output()
        .map_err(Error::io(format!("run {}", strace.display())))?;
    let said = String::from_utf8_lossy(&attempt.stderr).trim().to_owned();
    Ok((!attempt.status.success()).then_some(said))
}

/// Writes a script that stands in for the server's binary: it runs the server and has its system calls written into
/// `calls`, with the first `bytes_max` bytes of what they read and write. The file ends with [`END`] once a server has
/// ended that was asked to.
///
/// With `-D` it is strace that becomes the child, so the server keeps the process id and the signals that are meant for
/// it, and needs no privilege to be traced.
pub fn stand_in(
    script: &Path,
    strace: &Path,
    server: &Path,
    calls: &Path,
    bytes_max: usize,
) -> io::Result<PathBuf> {
    let text = format!(
        "#!/bin/sh\nexec '{}' -D -f -q -yy -ttt -s {bytes_max} -o '{}' '{}'\n",
        strace.display(),
        calls.display(),
        server.display()
    );
    fs::write(script, text)?;
    fs::set_permissions(script, fs::Permissions::from_mode(0o755))?;
    Ok(script.to_owned())
}

/// The end of what strace wrote down about a server that ended well.
pub const END: &str = "+++ exited with 0 +++\n";

/// One system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call<'a> {
    /// The thread that made it.
    pub thread: u32,
    /// When it began, in microseconds since 1970-01-01 00:00 UTC.
    pub at_us: u64,
    /// Such as `recvfrom`.
    pub name: &'a str,
    /// Its arguments as strace shows them, with commas between them.
    pub arguments: &'a str,
    /// What it returned, as strace shows it; `?` if that is told later, since another thread was to be told of before.
    pub result: &'a str,
}

impl<'a> Call<'a> {
    /// Reads one line. `None` for what begins no call: a signal, an end, the return of a call that was told before.
    ///
    /// Format: the manual page strace(1) with `-f -ttt -yy`: thread, seconds, name, arguments in parentheses with the
    /// kind and the ends of each descriptor's socket, result.
    pub fn parse(line: &'a str) -> Option<Call<'a>> {
        let (thread, rest) = line.split_once(' ')?;
        let (time, rest) = rest.trim_start().split_once(' ')?;
        let (seconds, micros) = time.split_once('.')?;
        let (call, result) = if let Some(call) = rest.strip_suffix(" <unfinished ...>") {
            (call, "?")
        } else {
            let (call, result) = rest.rsplit_once(" = ")?;
            (call.trim_end().strip_suffix(')')?, result)
        };
        let (name, arguments) = call.split_once('(')?;
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return None;
        }
        let at_us = seconds.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(micros.parse().ok()?)?;
        Some(Call { thread: thread.parse().ok()?, at_us, name, arguments, result })
    }

    /// The first argument: of most calls a descriptor, as in `9<TCP:[127.0.0.1:8081->127.0.0.1:50000]>`.
    pub fn descriptor(&self) -> &'a str {
        self.arguments.split(", ").next().unwrap_or_default()
    }

    /// Whether it takes bytes from a descriptor.
    pub fn is_read(&self) -> bool {
        matches!(self.name, "read" | "readv" | "recvfrom" | "recvmsg")
    }

    /// Whether it gives bytes to a descriptor.
    pub fn is_write(&self) -> bool {
        matches!(self.name, "write" | "writev" | "sendto" | "sendmsg")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_call() {
        let line = r#"812   1700000000.000042 sendto(9<TCP:[127.0.0.1:8081->127.0.0.1:50000]>, "a = b)", 6, MSG_NOSIGNAL, NULL, 0) = 6"#;
        let call = Call::parse(line).unwrap();
        assert_eq!((call.thread, call.at_us, call.name), (812, 1_700_000_000_000_042, "sendto"));
        assert_eq!(call.descriptor(), "9<TCP:[127.0.0.1:8081->127.0.0.1:50000]>");
        assert_eq!((call.result, call.is_read(), call.is_write()), ("6", false, true));
    }

    #[test]
    fn reads_an_error_and_a_padded_call() {
        let refused = "812 1.000001 recvfrom(8<UNIX-STREAM:[1->2]>, 0x55, 10, 0, NULL, NULL) = -1 EAGAIN (Resource temporarily unavailable)";
        assert_eq!(Call::parse(refused).unwrap().result, "-1 EAGAIN (Resource temporarily unavailable)");
        assert_eq!(Call::parse("812 1.000001 close(3)                = 0").unwrap().arguments, "3");
    }

    #[test]
    fn reads_a_call_that_returns_later() {
        let line = r#"812 1.000001 sendto(9<TCP:[1->2]>, "a = b", 5, MSG_NOSIGNAL, NULL, 0 <unfinished ...>"#;
        let call = Call::parse(line).unwrap();
        assert_eq!((call.name, call.descriptor(), call.result), ("sendto", "9<TCP:[1->2]>", "?"));
    }

    #[test]
    fn passes_over_what_is_no_call() {
        for line in [
            "812 1.000001 --- SIGTERM {si_signo=SIGTERM, si_code=SI_USER, si_pid=1, si_uid=0} ---",
            "812 1.000001 +++ exited with 0 +++",
            "812 1.000001 <... sendto resumed>) = 1202",
            "812 1.000001 <... recvfrom resumed>\"a(b)\", 10, 0, NULL, NULL) = 4",
            "",
        ] {
            assert_eq!(Call::parse(line), None, "{line}");
        }
    }
}
