//! Writes down the system calls of a running server with strace(1), and counts those of its requests.

use std::path::{Path, PathBuf};
use std::{fmt, fs};

use stress::install;
use stress::strace::{self, Call};
use stress::throwaway::Throwaway;

use crate::support::{SERVER, wait_for};

/// A way to run the server so that its system calls are written down.
pub(crate) struct Trace {
    strace: PathBuf,
    directory: Throwaway,
}

impl Trace {
    /// `None` where the kernel lets nobody trace, as in some containers; standard error says so.
    ///
    /// # Panics
    /// If strace is not installed, and is not ours to install.
    pub(crate) fn where_possible() -> Option<Trace> {
        let strace = install::STRACE.require().expect("strace is installed").program;
        if let Some(reason) = strace::obstacle(&strace).expect("run strace") {
            stress::left_out("system calls, since ptrace is not allowed", &reason);
            return None;
        }
        Some(Trace { strace, directory: Throwaway::new("trace").expect("make a directory") })
    }

    /// Stands in for the server's binary.
    pub(crate) fn executable(&self) -> PathBuf {
        let script = self.directory.path().join("traced");
        strace::stand_in(&script, &self.strace, Path::new(SERVER), &self.calls_path(), 0)
            .expect("write the stand-in")
    }

    /// A Unix socket for the server to listen on, as `LISTEN` has it.
    pub(crate) fn listen(&self) -> String {
        format!("unix:{}", self.directory.path().join("socket").display())
    }

    /// The calls of the server, which has been stopped.
    pub(crate) fn calls(&self) -> Calls {
        let text = wait_for("the end of the trace", || {
            let text = fs::read_to_string(self.calls_path()).expect("strace has written a file");
            text.ends_with(strace::END).then_some(text)
        });
        Calls::between_answers(&text)
    }

    fn calls_path(&self) -> PathBuf {
        self.directory.path().join("calls")
    }
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
    fn between_answers(trace: &str) -> Calls {
        let lines: Vec<(&str, Option<Call<'_>>)> =
            trace.lines().map(|line| (line, Call::parse(line))).collect();
        let accepted = lines.iter().filter_map(|(_, call)| call.filter(|call| call.name == "accept4"));
        let client =
            accepted.map(|call| call.result).rfind(|result| result.contains('<')).expect("a connection");

        let is_answer = |(_, call): &(&str, Option<Call<'_>>)| {
            call.is_some_and(|call| call.is_write() && call.descriptor() == client)
        };
        let first = lines.iter().position(is_answer).expect("an answer");
        let last = lines.iter().rposition(is_answer).expect("an answer");
        // Of the loop alone: the log has a thread of its own, which on a busy machine is late. The return of a call was told with it.
        let (thread, _) = lines[first].0.split_once(' ').expect("a thread");
        let is_of_loop = |line: &str| {
            line.split_once(' ').is_some_and(|(other, _)| other == thread) && !line.contains(" resumed>")
        };
        let mut calls = Calls::default();
        for (line, call) in lines[first + 1..=last].iter().filter(|(line, _)| is_of_loop(line)) {
            match call {
                Some(call) if call.is_read() && call.descriptor() == client => calls.client_reads += 1,
                Some(call) if call.is_write() && call.descriptor() == client => calls.client_writes += 1,
                Some(call) if call.is_read() && call.descriptor().contains(DATABASE) => {
                    calls.database_reads += 1;
                }
                Some(call) if call.is_write() && call.descriptor().contains(DATABASE) => {
                    calls.database_writes += 1;
                }
                Some(call) if call.name == "epoll_wait" => {
                    calls.waits += usize::from(call.result != "0" || call.arguments.ends_with(", 0"));
                }
                Some(_) | None => calls.others.push((*line).to_owned()),
            }
        }
        calls
    }
}

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
