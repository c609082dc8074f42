//! A program under test, and what `/proc` tells about it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use stress::wait::{self, Interrupt};

use crate::bank::{Bank, Proxy};
use crate::peer::Peer;

/// What an exercise comes to. The error is a sentence or two for the reader.
pub type Verdict<T = ()> = Result<T, String>;

/// Where exercises take place.
pub struct Arena<'a> {
    pub program: &'a Path,
    /// The file it is made of.
    pub source: &'a Path,
    /// For the steps with PostgreSQL.
    pub bank: Option<&'a Bank>,
    /// Its API is that of the challenge.
    pub is_challenge: bool,
    /// How long to wait for what has to happen. Longer waits only delay a failure.
    pub patience: Duration,
}

impl Arena<'_> {
    /// Starts the program. A client may be idle for a minute.
    pub(crate) fn start(&self) -> Verdict<Running> {
        self.start_with_idle_ms(60_000)
    }

    pub(crate) fn bank(&self) -> Verdict<&Bank> {
        self.bank.ok_or_else(|| "this exercise needs PostgreSQL".to_owned())
    }

    pub(crate) fn start_with_idle_ms(&self, idle_ms: u32) -> Verdict<Running> {
        let proxy = match self.bank {
            None => None,
            Some(bank) => {
                bank.reset()?;
                Some(Proxy::start(bank.socket())?)
            }
        };
        let mut child = Command::new(self.program)
            .arg("127.0.0.1:0")
            .args(proxy.as_ref().map(Proxy::path))
            .env("IDLE_MS", idle_ms.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{} cannot be started: {error}", self.program.display()))?;
        let complaints = Arc::new(Mutex::new(String::new()));
        if let Some(mut stderr) = child.stderr.take() {
            let complaints = Arc::clone(&complaints);
            thread::spawn(move || {
                let mut bytes = [0; 1024];
                while let Ok(n @ 1..) = stderr.read(&mut bytes) {
                    let mut text = complaints.lock().unwrap_or_else(PoisonError::into_inner);
                    if text.len() < COMPLAINTS_MAX_BYTES {
                        text.push_str(&String::from_utf8_lossy(&bytes[..n]));
                    }
                }
            });
        }
        let listening = listening(&mut child);
        // Killed when this is dropped, whatever it says.
        let mut running = Running { child, address: UNKNOWN, complaints, patience: self.patience, proxy };
        running.address = match listening.recv_timeout(self.patience) {
            Ok(address) => address,
            Err(RecvTimeoutError::Timeout) => {
                return Err(format!(
                    "it did not print `listening on ADDRESS` within {:?}. Print the address of the listener, since the checker \
                     asks for any free port.",
                    self.patience
                ));
            }
            Err(RecvTimeoutError::Disconnected) => return Err(running.ended("before it listened")),
        };
        if self.is_challenge {
            running.wait_for_database()?;
        }
        if let Some(proxy) = &running.proxy {
            // What is sent from here on is calls.
            proxy.forget();
        }
        Ok(running)
    }
}

/// Sends the address that the program prints, and goes on reading so that its output never blocks it.
fn listening(child: &mut Child) -> Receiver<SocketAddr> {
    let (sender, receiver) = channel();
    if let Some(stdout) = child.stdout.take() {
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(address) = line.strip_prefix("listening on ").and_then(|text| text.parse().ok()) {
                    // Nobody listens any more: the program took too long.
                    let _ = sender.send(address);
                }
            }
        });
    }
    receiver
}

/// A program that runs; dropping it ends it.
pub(crate) struct Running {
    child: Child,
    address: SocketAddr,
    complaints: Arc<Mutex<String>>,
    patience: Duration,
    /// Between the program and its PostgreSQL.
    proxy: Option<Proxy>,
}

impl Running {
    pub(crate) fn proxy(&self) -> Verdict<&Proxy> {
        self.proxy.as_ref().ok_or_else(|| "this exercise needs PostgreSQL".to_owned())
    }

    /// A program may listen before it has logged in.
    fn wait_for_database(&mut self) -> Verdict {
        let mut last = String::new();
        let ready = self.eventually(|| {
            let answer = self.connect().and_then(|mut peer| {
                peer.ask("GET", "/clientes/1/extrato", "")?;
                peer.answer()
            });
            match answer {
                Ok(answer) if answer.status == 200 => return Some(()),
                Ok(answer) => last = format!("{} {}", answer.status, answer.body),
                Err(what) => last = what,
            }
            None
        });
        self.is_alive()?;
        ready.ok_or_else(|| {
            format!(
                "GET /clientes/1/extrato did not get 200 within {:?}, the last time: {last}",
                self.patience
            )
        })
    }

    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    pub(crate) fn connect(&self) -> Verdict<Peer> {
        Peer::connect(self.address, self.patience).map_err(|error| format!("cannot connect to it: {error}"))
    }

    pub(crate) fn connect_many(&self, count: usize) -> Verdict<Vec<Peer>> {
        (0..count).map(|_| self.connect()).collect()
    }

    /// Fails if the program has ended.
    pub(crate) fn is_alive(&mut self) -> Verdict {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            _ => Err(self.ended("while it had clients")),
        }
    }

    fn ended(&mut self, when: &str) -> String {
        let status = self.child.wait().map(|status| status.to_string()).unwrap_or_default();
        let complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        let said = complaints.trim();
        let said = if said.is_empty() { String::new() } else { format!(" It said: {said}") };
        format!("the program ended {when} ({status}).{said}")
    }

    /// Waits for a condition; `None` when patience is over.
    pub(crate) fn eventually<T>(&self, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
        wait::until(self.patience, &Interrupt::default(), || Ok(probe())).ok().flatten()
    }

    pub(crate) fn threads(&self) -> Option<u32> {
        self.status("Threads:")?.parse().ok()
    }

    /// Waits until the program sleeps and nothing wakes it up any more: everything that was sent to it is worked on.
    pub(crate) fn wait_quiet(&self) -> Verdict {
        let mut before = None;
        let mut equal = 0;
        let quiet = self.eventually(|| {
            let now = (self.status("State:")?, self.status("voluntary_ctxt_switches:")?);
            equal = if now.0.starts_with('S') && before.as_ref() == Some(&now) { equal + 1 } else { 0 };
            before = Some(now);
            (equal >= QUIET_LOOKS).then_some(())
        });
        quiet.ok_or_else(|| {
            "it does not sleep although nothing happens: it asks again and again. Wait for events in one place only, without a \
             timeout unless a deadline is due."
                .to_owned()
        })
    }

    fn status(&self, field: &str) -> Option<String> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        Some(line.trim().to_owned())
    }

    /// What the program has registered with its `epoll` descriptors: the events asked for, of each socket.
    ///
    /// Format: Linux, "Documentation/filesystems/proc.rst", section 3.8.
    pub(crate) fn registered(&self) -> Option<Vec<u32>> {
        let directory = format!("/proc/{}", self.child.id());
        let mut registered = None;
        for entry in fs::read_dir(format!("{directory}/fd")).ok()?.flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            if target.as_os_str() != "anon_inode:[eventpoll]" {
                continue;
            }
            let number = entry.file_name();
            let info = fs::read_to_string(format!("{directory}/fdinfo/{}", number.display())).ok()?;
            let events = info.lines().filter(|line| line.starts_with("tfd:")).filter_map(|line| {
                let mut words = line.split_whitespace().skip_while(|word| *word != "events:");
                u32::from_str_radix(words.nth(1)?, 16).ok()
            });
            registered.get_or_insert_with(Vec::new).extend(events);
        }
        registered
    }

    /// Runs `meanwhile` while the program is stopped, so that all of it arrives at once for the program.
    pub(crate) fn while_stopped<T>(&self, meanwhile: impl FnOnce() -> Verdict<T>) -> Verdict<T> {
        let pid =
            i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).ok_or("it has no process id")?;
        kill_process(pid, Signal::STOP).map_err(|error| format!("cannot stop it: {error}"))?;
        let stopped = self.eventually(|| self.status("State:")?.starts_with('T').then_some(()));
        let result = if stopped.is_some() { meanwhile() } else { Err("it cannot be stopped".to_owned()) };
        kill_process(pid, Signal::CONT).map_err(|error| format!("cannot wake it up: {error}"))?;
        result
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks, 10 ms apart, in which the program has to be asleep without having been awake in between.
const QUIET_LOOKS: u32 = 5;
/// Of what the program writes to its standard error, for the reader.
const COMPLAINTS_MAX_BYTES: usize = 2_000;
const UNKNOWN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);
