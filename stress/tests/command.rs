//! The command line: what `stress` refuses, in one line, and with which exit status.

#![expect(
    clippy::unwrap_used,
    reason = "a panic is how a test fails; clippy excepts test functions, not their helpers"
)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use stress::cgroup::Parent;
use stress::lock::Lock;
use stress::throwaway::Throwaway;
use stress::wait::{self, Interrupt};
use stress::{Ports, compile, files, http};

fn stress(line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stress")).args(line.split_whitespace()).output().unwrap()
}

fn assert_refused(output: &Output, status: i32, wanted: &str) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.contains(wanted), "{message}");
}

#[test]
fn help_is_given_on_request_and_without_a_subcommand() {
    for line in ["", "--help", "up --help", "run --help", "k6 -h", "report -h", "trace --help", "soak --help"]
    {
        let output = stress(line);
        let help = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && help.contains("Usage: cargo stress"), "{line}: {help}");
    }
    let script = stress("completions bash").stdout;
    assert!(String::from_utf8_lossy(&script).contains("--postgresql-cpu"), "the options of the subcommands");
}

#[test]
fn a_wrong_command_line_is_named_with_the_help_of_its_subcommand() {
    for (line, wanted) in [
        ("down", "down"),
        ("down", "see `cargo stress --help`"),
        ("up --limits all", "tuned"),
        ("run fast", "saturate, open, direct"),
        ("run", "saturate|open|direct"),
        ("k6 --mode half", "open, closed"),
        ("k6 --url h:1", "http://"),
        ("soak --seconds 9", "no room for a fault"),
        ("report a b", "b"),
        ("up --port 70000", "70000"),
    ] {
        assert_refused(&stress(line), 2, wanted);
    }
    // The simulation is a program of its own.
    for name in ["up", "run", "k6", "report", "flamegraph", "trace", "endure", "soak"] {
        let output = stress(&format!("{name} --speed"));
        assert_refused(&output, 2, "--speed");
        assert_refused(&output, 2, &format!("see `cargo stress {name} --help`"));
    }
}

#[test]
fn a_second_up_names_the_first_and_a_port_in_use_its_remedy() {
    // Of nobody's: the lock is taken before the port.
    let port = five_free_ports();
    let first = Lock::take(port).unwrap();
    let holder = format!("already running on this port as process {}:", std::process::id());
    assert_refused(&stress(&format!("up --port {port}")), 1, &holder);
    drop(first);
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    // A child that another test has just forked holds a copy of the lock until it runs its program.
    let output = wait::until(Duration::from_secs(30), &Interrupt::default(), || {
        let output = stress(&format!("up --port {port}"));
        let is_locked = String::from_utf8_lossy(&output.stderr).contains("already running");
        Ok((!is_locked).then_some(output))
    });
    let output = output.unwrap().expect("the lock was given back");
    assert_refused(&output, 1, &format!("port {port} is in use"));
    assert_refused(&output, 1, "choose another with --port");
    drop(taken);
}

/// A first build takes minutes: cargo says what it does.
#[test]
fn builds_are_shown() {
    let configuration = fs::read_to_string(compile::workspace().join(".cargo/config.toml")).unwrap();
    assert!(configuration.contains("stress = \"run --bin stress --\""), "{configuration}");

    let directory = Throwaway::new("test").unwrap();
    let cargo = files::write_executable(directory.path().join("cargo"), "#!/bin/sh\necho \"$@\"\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_stress"));
    let output = command.args(["sim", "--seeds", "1"]).env("CARGO", &cargo).output().unwrap();
    let built = String::from_utf8_lossy(&output.stdout);
    assert!(built.starts_with("run --") && built.ends_with("-- --seeds 1 --first 0\n"), "{built}");
    assert!(!built.contains("--quiet") && !built.contains(" -q "), "{built}");
}

/// Who cannot apply limits is told so before anything is installed or built, with what to do.
#[test]
fn without_the_right_to_limit_there_is_a_remedy_at_once() {
    let directory = Throwaway::new("test").unwrap();
    // Where another user may run it.
    let program = directory.path().join("stress");
    files::copy_executable(Path::new(env!("CARGO_BIN_EXE_stress")), &program).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    assert!(is_root || Parent::find().is_err(), "run this as root, or where nobody may make groups");
    for line in ["run saturate", "k6", "soak --seconds 60", "endure overload", "endure hostile"] {
        let mut command = Command::new(if is_root { Path::new("setpriv") } else { &program });
        if is_root {
            command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(&program);
        }
        // Neither a program to install with nor one to build with can be found.
        command.args(line.split(' ')).env("CARGO", "/nonexistent").env("TMPDIR", "/var/tmp");
        let output = command.output().unwrap();
        assert_refused(&output, 1, "limits cannot be applied here");
        assert_refused(&output, 1, "run it as root");
    }
}

#[test]
fn two_stacks_run_beside_each_other() {
    let target = compile::target_directory(&compile::workspace());
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.current_dir(compile::workspace()).args(["build", "--quiet", "--bin", "rinha"]);
    assert!(build.status().unwrap().success());

    let server = target.join("debug/rinha");
    let stacks = [Up::start(&server), Up::start(&server)];
    for Up { port, .. } in &stacks {
        for address in [0, 1, 2].map(|behind| format!("127.0.0.1:{}", port + behind)) {
            assert_eq!(http::get_status(&address, "/healthz").unwrap(), 200, "{address}");
        }
        for address in [3, 4].map(|behind| format!("127.0.0.1:{}", port + behind)) {
            assert_eq!(http::get_status(&address, "/metrics").unwrap(), 200, "{address}");
        }
    }
    for mut stack in stacks {
        assert!(stack.end().success());
    }
}

/// `cargo stress up` at some port, from the time when it is up.
struct Up {
    process: Child,
    port: u16,
}

impl Drop for Up {
    fn drop(&mut self) {
        self.end();
    }
}

impl Up {
    fn end(&mut self) -> ExitStatus {
        if let Ok(None) = self.process.try_wait() {
            rustix::process::kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        }
        self.process.wait().unwrap()
    }

    fn start(server: &Path) -> Up {
        for _ in 0..5 {
            let port = five_free_ports();
            let mut command = Command::new(env!("CARGO_BIN_EXE_stress"));
            command.args(["up", "--limits", "none", "--port", &port.to_string(), "--server"]).arg(server);
            let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let lines = BufReader::new(process.stdout.take().unwrap()).lines();
            let told: Vec<String> =
                lines.map(Result::unwrap).take_while(|line| !line.starts_with("up: ")).collect();
            if process.try_wait().unwrap().is_none() && !told.is_empty() {
                return Up { process, port };
            }
            let output = process.wait_with_output().unwrap();
            let message = String::from_utf8_lossy(&output.stderr);
            // Somebody else took one of them in between.
            assert!(message.contains("in use"), "{told:?} {message}");
        }
        panic!("five times in a row a port was in use");
    }
}

/// The first of five ports in a row that are free.
fn five_free_ports() -> u16 {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let is_free = |port: u16| TcpListener::bind(("0.0.0.0", port)).is_ok();
        if first <= Ports::NGINX_MAX && (first..=first + 4).all(is_free) {
            return first;
        }
    }
}

#[test]
fn what_is_to_be_read_is_read_before_the_work() {
    let directory = Throwaway::new("test").unwrap();
    let [earlier, missing] = ["run.json", "missing"].map(|name| directory.path().join(name));
    fs::write(&earlier, "{}").unwrap();
    let output = stress(&format!("run open --against {}", earlier.display()));
    assert_refused(&output, 1, "is no report of `cargo stress run --out`");
    assert_refused(&stress(&format!("report {}", missing.display())), 1, "cannot read the directory");
}
