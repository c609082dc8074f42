//! One process that we started: its log, its limits, and its way to stop.
//!
//! No service outlives the bench. It is stopped when its value is dropped; if the bench itself is killed, the kernel
//! signals the service (`setpriv --pdeathsig`). Each service leads a process group of its own, so that a Ctrl-C in
//! the terminal reaches the bench alone, which then stops the services in order.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus};

use crate::Error;
use crate::cgroup::Group;
use crate::process::user::User;
use crate::wait::{self, Interrupt};

#[derive(Debug)]
pub struct Launch<'a> {
    pub name: &'a str,
    pub program: &'a Path,
    pub arguments: Vec<OsString>,
    pub environment: Vec<(String, OsString)>,
    pub directory: &'a Path,
    /// Whom to run as; `None`: as ourselves.
    pub user: Option<&'a User>,
    /// In which network namespace, by the name that `ip netns` has for it; `None`: in ours.
    pub namespace: Option<&'a str>,
    pub group: Option<Arc<Group>>,
    /// Its standard output and standard error are appended here.
    pub log: PathBuf,
    /// Leaves standard error to the terminal, for a tool that shows its progress there.
    pub is_stderr_shown: bool,
    /// Octal; what the files and sockets that it makes deny to others.
    pub umask: &'a str,
    pub stop_signal: Signal,
    pub stop_patience: Duration,
    /// What the kernel sends it when the bench dies, by the name that `setpriv` knows.
    pub orphan_signal: &'a str,
}

impl<'a> Launch<'a> {
    /// As ourselves, with our environment, without arguments and limits, and ended with SIGTERM.
    pub fn new(name: &'a str, program: &'a Path, directory: &'a Path, log: impl Into<PathBuf>) -> Launch<'a> {
        Launch {
            name,
            program,
            arguments: Vec::new(),
            environment: Vec::new(),
            directory,
            user: None,
            namespace: None,
            group: None,
            log: log.into(),
            is_stderr_shown: false,
            umask: "022",
            stop_signal: Signal::TERM,
            stop_patience: STOP_PATIENCE,
            orphan_signal: "TERM",
        }
    }
}

/// A running or ended process. Dropping it stops it, and its group of limits is removed after it.
#[derive(Debug)]
pub struct Service {
    pub name: String,
    process: Child,
    status: Option<ExitStatus>,
    log: PathBuf,
    stop_signal: Signal,
    stop_patience: Duration,
    pub group: Option<Arc<Group>>,
}

impl Service {
    pub fn start(launch: Launch<'_>) -> Result<Service, Error> {
        let open_log = || OpenOptions::new().create(true).append(true).open(&launch.log);
        let log = open_log().map_err(Error::io(format!("open the log {}", launch.log.display())))?;
        let process = command(&launch, log).and_then(spawn_on_lasting_thread);
        let process = process.map_err(Error::io(format!("start {}", launch.name)))?;
        Ok(Service {
            name: launch.name.to_owned(),
            process,
            status: None,
            log: launch.log,
            stop_signal: launch.stop_signal,
            stop_patience: launch.stop_patience,
            group: launch.group,
        })
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The process ids of its children, such as the workers of nginx.
    pub fn child_pids(&self) -> Vec<u32> {
        let pid = self.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    pub fn has_exited(&self) -> bool {
        self.status.is_some() || !matches!(self.peek(), Ok(None))
    }

    /// NOWAIT: it stays a zombie, which keeps its id, and that of its process group, from being given to others.
    fn peek(&self) -> rustix::io::Result<Option<WaitIdStatus>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        rustix::process::waitid(WaitId::Pid(Pid::from_child(&self.process)), options)
    }

    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        let sent = match self.status {
            Some(_) => Err(rustix::io::Errno::SRCH),
            None => super::signal(self.pid(), signal),
        };
        sent.map_err(|errno| Error::io(format!("signal {}", self.name))(errno.into()))
    }

    /// Waits for its end; `None` when it still runs after `patience`.
    pub fn wait_exit(&mut self, patience: Duration) -> Option<ExitStatus> {
        self.status.or_else(|| self.wait_end(patience, &Interrupt::default()).ok())
    }

    /// Asks it to stop and waits; kills it when it does not stop in time. Gives how it ended.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        // It may have ended by itself: then there is nobody to ask.
        let _ = self.signal(self.stop_signal);
        self.wait_exit(self.stop_patience).or_else(|| {
            eprintln!("stress: {} did not stop in {:?} and is killed", self.name, self.stop_patience);
            self.kill()
        })
    }

    /// Kills it and its process group, and waits for its end.
    pub fn kill(&mut self) -> Option<ExitStatus> {
        let _ = self.signal(Signal::KILL);
        self.wait_exit(KILL_PATIENCE)
    }

    /// Waits for a tool that ends by itself.
    pub(crate) fn run_to_end(&mut self, patience: Duration, interrupt: &Interrupt) -> Result<(), Error> {
        let status = self.wait_end(patience, interrupt)?;
        if status.success() { Ok(()) } else { Err(self.failure("failed")) }
    }

    /// The same, however it ends: gives its status.
    pub(crate) fn wait_end(
        &mut self,
        patience: Duration,
        interrupt: &Interrupt,
    ) -> Result<ExitStatus, Error> {
        let ended = wait::until(patience, interrupt, || Ok(self.has_exited().then_some(())))?;
        let status = ended.and_then(|()| self.reap());
        status.ok_or_else(|| self.failure(&format!("did not end within {patience:?}")))
    }

    /// Waits until `probe` gives a value; `what` is said of one that never does.
    pub fn wait_ready<T>(
        &self,
        patience: Duration,
        interrupt: &Interrupt,
        what: &str,
        mut probe: impl FnMut() -> Result<Option<T>, Error>,
    ) -> Result<T, Error> {
        let ready = wait::until(patience, interrupt, || {
            if self.has_exited() { Err(self.failure("ended")) } else { probe() }
        })?;
        ready.ok_or_else(|| self.failure(what))
    }

    /// What the user is told when it fails: how it ended, or else `what`, and the end of its log.
    pub fn failure(&self, what: &str) -> Error {
        let raw = |status: WaitIdStatus| {
            let raw = status.exit_status().map(|code| code << 8).or(status.terminating_signal());
            raw.map(ExitStatus::from_raw)
        };
        let ended = self.status.or_else(|| self.peek().ok()?.and_then(raw));
        let mut what = ended.map_or_else(|| what.to_owned(), |status| format!("ended with {status}"));
        if self.group.as_ref().is_some_and(|group| group.account.out_of_memory_kills() > 0) {
            what.push_str(" (killed by the kernel: it needed more than its memory limit)");
        }
        Error::Service { name: self.name.clone(), what, log: self.log.clone(), tail: tail(&self.log()) }
    }

    /// Takes the status of the ended process, after ending what is left of its process group: the workers of an nginx
    /// whose master was killed go on otherwise, and hold the port.
    fn reap(&mut self) -> Option<ExitStatus> {
        let _ = rustix::process::kill_process_group(Pid::from_child(&self.process), Signal::KILL);
        self.status = self.process.wait().ok();
        self.status
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.status.is_none() {
            self.stop();
        }
    }
}

/// The command behind its wrappers: a shell that enters the groups while it still has our rights, then `setpriv`,
/// which sets user and orphan signal, then the program itself, all in one process.
fn command(launch: &Launch<'_>, log: File) -> io::Result<Command> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", ENTER_GROUPS_SCRIPT, "stress", launch.umask]);
    command.args(launch.group.iter().flat_map(|group| group.members_files()));
    command.arg("--");
    if let Some(namespace) = launch.namespace {
        command.args(["ip", "netns", "exec", namespace]);
    }
    command.args(["setpriv", "--pdeathsig", launch.orphan_signal]);
    if let Some(user) = launch.user {
        command.args(["--reuid", &user.uid.to_string(), "--regid", &user.gid.to_string(), "--clear-groups"]);
    }
    command.arg("--").arg(launch.program).args(&launch.arguments);
    command.envs(launch.environment.iter().map(|(name, value)| (name, value)));
    command.current_dir(launch.directory).process_group(0).stdin(Stdio::null());
    if !launch.is_stderr_shown {
        command.stderr(log.try_clone()?);
    }
    command.stdout(log);
    Ok(command)
}

/// Starts a command from a thread that never ends: the kernel takes the end of the *thread* that started a process for
/// the end of its parent, and would signal the services of a test's setup when that one thread is done.
fn spawn_on_lasting_thread(command: Command) -> io::Result<Child> {
    type Order = (Command, Sender<io::Result<Child>>);
    static ORDERS: OnceLock<Sender<Order>> = OnceLock::new();

    let orders = ORDERS.get_or_init(|| {
        let (orders, queue) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in queue {
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, spawned) = mpsc::channel();
    let gone = || io::Error::other("the thread that starts processes is gone");
    orders.send((command, answer)).map_err(|_| gone())?;
    spawned.recv().map_err(|_| gone())?
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    last.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

const ENTER_GROUPS_SCRIPT: &str = r#"
umask "$1"; shift
while [ "$1" != -- ]; do echo $$ > "$1" || exit 125; shift; done
shift; exec "$@"
"#;
/// Of what says nothing else.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
const KILL_PATIENCE: Duration = Duration::from_secs(5);
const TAIL_LINES: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_keeps_the_last_lines() {
        let log = (1..=20).map(|line| format!("line {line}\n\n")).collect::<Vec<_>>().concat();
        let tail = tail(&log);
        assert!(tail.starts_with("    line 9\n") && tail.ends_with("    line 20"), "{tail}");
    }
}
