//! The log holds the server up under no circumstances, and has a bound.

mod support;

use std::fs::File;
use std::io::{ErrorKind, PipeReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use stress::Signal;
use stress::throwaway::Throwaway;
use support::{Bank, Database, SERVER, Wire, get, transaction, wait_for};

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

/// With room for five lines of each kind, and with the count of the others at the end.
const FIVE_LINES: [(&str, &str); 3] =
    [("LOG_LINES_MAX", "5"), ("LOG_INTERVAL_MS", "86400000"), ("DRAIN_IDLE_MS", "0")];

/// Stops the server; five lines have this text, and at least as many as this were withheld.
fn assert_five_lines(mut bank: Bank, text: &str, withheld_min: u64) {
    bank.instance.signal(Signal::TERM).expect("send a signal");
    assert!(bank.instance.wait_exit(Duration::from_secs(20)).expect("it ends").success());
    let log = bank.instance.log();
    assert_eq!(log.matches(text).count(), 5, "{log}");
    let counts =
        log.lines().filter_map(|line| line.split_once("log_rate] ")?.1.split_once(" lines of the kind"));
    let withheld: u64 = counts.map(|(count, _)| count.parse::<u64>().expect("a count")).sum();
    assert!(withheld >= withheld_min, "{log}");
}

#[test]
fn a_flood_of_refused_calls_makes_no_flood_of_lines() {
    let bank = Bank::with(&FIVE_LINES);
    bank.database.execute("ALTER TABLE transacoes ADD CHECK (descricao <> 'a')");
    let mut client = bank.connect();
    for _ in 0..100 {
        assert_eq!(client.ask(transaction(1, 1, "c", "a")).status, 503);
    }
    drop(client);
    assert_five_lines(bank, "PostgreSQL refused a call", 95);
}

#[test]
fn a_session_that_flaps_makes_no_flood_of_lines() {
    let bank = Bank::with(&FIVE_LINES);
    let mut admin = bank.database.connect();
    let others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    for closes in 1..=10 {
        admin.batch_execute(&format!("SELECT pg_terminate_backend(pid) {others}")).expect("cut it");
        bank.wait_metric("rinha_lane_closes_total", closes);
        bank.wait_metric("rinha_lanes{state=\"ready\"}", 1);
    }
    drop(admin);
    assert_five_lines(bank, "is down", 10);
}
