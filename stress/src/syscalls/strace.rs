//! Runs a server under strace(1) and reads what strace wrote down.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Error, files};

/// Why nobody may trace here, as in some containers, in strace's words; `None` where one may.
pub fn obstacle(strace: &Path) -> Result<Option<String>, Error> {
    let attempt = Command::new(strace).args(["-qq", "-e", "trace=none", "true"]).output();
    let attempt = attempt.map_err(Error::io(format!("run {}", strace.display())))?;
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
) -> Result<PathBuf, Error> {
    let [strace, calls, server] = [strace, calls, server].map(Path::display);
    let traced = format!("'{strace}' -D -f -q -yy -ttt -s {bytes_max} -o '{calls}' '{server}'");
    files::write_executable(script, &format!("#!/bin/sh\nexec {traced}\n"))
}

pub const END: &str = "+++ exited with 0 +++\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call<'a> {
    pub thread: u32,
    pub at_us: u64,
    pub name: &'a str,
    /// As strace shows them, with commas between them.
    pub arguments: &'a str,
    /// As strace shows it; `?` if that is told later, since another thread was to be told of before.
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
        let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let at_us = seconds.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(micros.parse().ok()?)?;
        is_name.then_some(Call { thread: thread.parse().ok()?, at_us, name, arguments, result })
    }

    /// The first argument: of most calls a descriptor, as in `9<TCP:[127.0.0.1:8081->127.0.0.1:50000]>`.
    pub fn descriptor(&self) -> &'a str {
        self.arguments.split(", ").next().unwrap_or_default()
    }

    pub fn is_read(&self) -> bool {
        matches!(self.name, "read" | "readv" | "recvfrom" | "recvmsg")
    }

    pub fn is_write(&self) -> bool {
        matches!(self.name, "write" | "writev" | "sendto" | "sendmsg")
    }

    /// The bytes of the first string among the arguments: `9<...>, "GET /\r\n", 2048, ...`.
    ///
    /// Format: the manual page strace(1), option `-s` and "printing strings": as in C, with octal escapes of up to three
    /// digits, as few as the next byte allows.
    pub(super) fn bytes(&self) -> Option<Vec<u8>> {
        let (_, rest) = self.arguments.split_once(", \"")?;
        let mut bytes = rest.bytes().peekable();
        let mut found = Vec::new();
        loop {
            found.push(match bytes.next()? {
                b'"' => return Some(found),
                b'\\' => match bytes.next()? {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'v' => 0x0b,
                    b'f' => 0x0c,
                    digit @ b'0'..=b'7' => {
                        let mut value = u32::from(digit - b'0');
                        for _ in 0..2 {
                            let Some(digit) = bytes.next_if(|byte| (b'0'..=b'7').contains(byte)) else {
                                break;
                            };
                            value = value * 8 + u32::from(digit - b'0');
                        }
                        u8::try_from(value).ok()?
                    }
                    other => other,
                },
                byte => byte,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_calls_and_passes_over_the_rest() {
        let line = r#"812   1700000000.000042 sendto(9<TCP:[127.0.0.1:8081->127.0.0.1:50000]>, "a = b)", 6, MSG_NOSIGNAL, NULL, 0) = 6"#;
        let call = Call::parse(line).unwrap();
        assert_eq!((call.thread, call.at_us, call.name), (812, 1_700_000_000_000_042, "sendto"));
        assert_eq!(call.descriptor(), "9<TCP:[127.0.0.1:8081->127.0.0.1:50000]>");
        assert_eq!((call.result, call.is_read(), call.is_write()), ("6", false, true));
        for (line, expected) in [
            (
                "812 1.000001 read(8, 0, 9) = -1 EAGAIN (Try again)",
                Some(("8, 0, 9", "-1 EAGAIN (Try again)")),
            ),
            ("812 1.000001 close(3)                = 0", Some(("3", "0"))),
            (r#"812 1.000001 sendto(9, "a = b", 5 <unfinished ...>"#, Some((r#"9, "a = b", 5"#, "?"))),
            ("812 1.000001 --- SIGTERM {si_signo=SIGTERM, si_code=SI_USER, si_pid=1, si_uid=0} ---", None),
            ("812 1.000001 +++ exited with 0 +++", None),
            ("812 1.000001 <... sendto resumed>) = 1202", None),
            ("812 1.000001 <... recvfrom resumed>\"a(b)\", 10, 0, NULL, NULL) = 4", None),
            ("", None),
        ] {
            assert_eq!(Call::parse(line).map(|call| (call.arguments, call.result)), expected, "{line}");
        }
    }

    #[test]
    fn reads_the_escapes_of_strace() {
        for (arguments, expected) in [
            (r#"9<TCP:[1]>, "GET /\r\n", 2048, 0, NULL, NULL"#, Some(&b"GET /\r\n"[..])),
            (r#"8, "D\0\0\0\0331\377\1\n\"\\", 9"#, Some(b"D\0\0\0\x1b1\xff\x01\n\"\\")),
            ("8, 0x55, 10", None),
            (r#"8, "cut"#, None),
        ] {
            let call = Call { thread: 1, at_us: 0, name: "read", arguments, result: "1" };
            assert_eq!(call.bytes().as_deref(), expected);
        }
    }
}
