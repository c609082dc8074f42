//! The log holds the server up under no circumstances, and has a bound.

mod support;

use std::fs::File;
use std::io::{ErrorKind, PipeReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread;

use stress::throwaway::Throwaway;
use support::{Database, SERVER, Wire, get, wait_for};

/// A server whose stderr is a pipe that is full from the start.
struct Mute {
    process: Child,
    addresses: Vec<String>,
    pipe: PipeReader,
    _directory: Throwaway,
}

impl Mute {
    /// One that listens on this many Unix sockets, and so logs at least as many lines.
    fn start(database_url: &str, sockets: usize, settings: &[(&str, &str)]) -> Mute {
        let directory = Throwaway::new("test").expect("make a directory");
        let addresses: Vec<String> =
            (0..sockets).map(|number| format!("unix:{}/{number}", directory.path().display())).collect();
        let (pipe, stderr) = full_pipe();
        let mut command = Command::new(SERVER);
        command.env_clear().envs([("DATABASE_URL", database_url), ("LISTEN", &addresses.join(","))]);
        let process =
            command.envs(settings.iter().copied()).stderr(stderr).spawn().expect("start the server");
        Mute { process, addresses, pipe, _directory: directory }
    }

    fn wait_health(&self, status: u16) {
        let address = self.addresses.last().expect("it listens");
        wait_for(&format!("health {status}"), || {
            (Wire::try_connect(address).ok()?.ask(get("/healthz")).status == status).then_some(())
        });
    }

    fn terminate(&mut self) -> ExitStatus {
        let kill = format!("kill -TERM {}", self.process.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("run sh").success());
        wait_for("the end of the server", || self.process.try_wait().expect("ask for its state"))
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        // It has ended already, unless the test has failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What was written to it is of no concern: the filling consists of zeros.
fn full_pipe() -> (PipeReader, OwnedFd) {
    let (reader, writer) = std::io::pipe().expect("make a pipe");
    let writer = OwnedFd::from(writer);
    let mut file = File::from(writer.try_clone().expect("share the pipe"));
    // The only type of the standard library that changes O_NONBLOCK, which all of its descriptors share.
    let switch = UnixStream::from(writer);
    switch.set_nonblocking(true).expect("set O_NONBLOCK");
    let error = loop {
        if let Err(error) = file.write_all(&[0; 4_096]) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    switch.set_nonblocking(false).expect("clear O_NONBLOCK");
    (reader, switch.into())
}

#[test]
fn a_stderr_that_nobody_reads_holds_up_neither_requests_nor_the_end() {
    let database = Database::new();
    let mut server = Mute::start(&database.url(), 1, &[("RUST_LOG", "debug"), ("DRAIN_IDLE_MS", "0")]);
    server.wait_health(200);
    assert_eq!(server.terminate().code(), Some(0));
}

#[test]
fn lines_that_found_no_room_are_counted_once_stderr_is_read_again() {
    // More lines than fit into the smallest queue.
    let settings = [("LOG_QUEUE_LEN_BYTES", "1024"), ("LOG_FLUSH_TIMEOUT_MS", "60000")];
    let mut server = Mute::start("postgresql://ana@127.0.0.1:1/rinha", 40, &settings);
    server.wait_health(503);
    let mut pipe = server.pipe.try_clone().expect("share the pipe");
    let log = Arc::new(Mutex::new(Vec::new()));
    let text = || String::from_utf8(log.lock().unwrap().clone()).expect("text");
    let reader = thread::spawn({
        let log = Arc::clone(&log);
        move || {
            let mut buffer = [0; 4_096];
            loop {
                match pipe.read(&mut buffer).expect("read the log") {
                    0 => break,
                    len => log.lock().unwrap().extend(buffer[..len].iter().filter(|&&byte| byte != 0)),
                }
            }
        }
    });
    wait_for("the number of lines that were dropped", || text().contains(" were dropped").then_some(()));
    assert_eq!(server.terminate().code(), Some(0));
    reader.join().expect("read the log");
    let log = text();
    let dropped: Vec<u64> = log
        .lines()
        .filter_map(|line| line.strip_prefix("rinha: ")?.split_once(" lines of the log were dropped"))
        .map(|(count, _)| count.parse().expect("a count"))
        .collect();
    let listening = log.lines().filter(|line| line.contains("listening on unix:")).count() as u64;
    assert!(!dropped.is_empty() && (1..40).contains(&listening), "{log}");
    assert!(listening + dropped.iter().sum::<u64>() >= 40, "{log}");
    assert!(log.ends_with("stopped\n"), "{log}");
}

#[test]
fn a_stderr_that_takes_nothing_and_a_stdout_that_is_closed_change_no_exit_status() {
    let run = |argument: Option<&str>| {
        let full = File::options().write(true).open("/dev/full").expect("open /dev/full");
        let stdout = full.try_clone().expect("share /dev/full");
        let mut command = Command::new(SERVER);
        command.env_clear().args(argument).stdout(stdout).stderr(full);
        command.status().expect("run the server's binary").code()
    };
    assert_eq!(run(None), Some(2), "DATABASE_URL is missing");
    assert_eq!(run(Some("--nonsense")), Some(2));
    assert_eq!(run(Some("--help")), Some(1), "nothing was written");
    assert_eq!(run(Some("--version")), Some(1), "nothing was written");
}
