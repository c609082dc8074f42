//! A client of several hosts: it writes to the one that takes writes, and goes on when that is another one.
//!
//! `cargo run -p proto-pg --example failover -- 'postgresql://me:secret@db1,db2/postgres?target_session_attrs=read-write'`

use proto_pg::{
    CloseReason, ConnectAttempt, ConnectStep, Connection, Connector, ConnectorConfig, Endpoint, Event,
    Failure, Limits, RoundError, Url, Verdict,
};
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let url =
        std::env::args().nth(1).ok_or("usage: failover postgresql://user:password@host,host/database")?;
    let mut client = Client::new(&Url::parse(&url)?);
    loop {
        println!("{}", client.beat());
        thread::sleep(Duration::from_secs(1));
    }
}

/// One session at a time with one of several hosts.
pub(crate) struct Client {
    url: Url,
    connector: Connector,
    start: Instant,
    session: Option<Session>,
}

/// A session that is ready. TLS would be a `Channel` beside its connection, as in the example `tour`.
pub(crate) struct Session {
    connection: Connection<()>,
    socket: Box<dyn Socket>,
}

impl Client {
    pub(crate) fn new(url: &Url) -> Client {
        // So that many clients do not come back together; a program would take more of the system's chance.
        let seed = u64::from(std::process::id());
        let connector = Connector::new(ConnectorConfig::new(url), seed);
        Client { url: url.clone(), connector, start: Instant::now(), session: None }
    }

    /// Writes once, in a new session if the last one has ended. What came of it.
    pub(crate) fn beat(&mut self) -> String {
        let Some(mut session) = self.session.take().or_else(|| self.wait_for_session()) else {
            return "no session".to_owned();
        };
        // Takes a transaction id, which no standby can.
        match session.query("SELECT txid_current()") {
            Outcome::Answer(text) => {
                self.session = Some(session);
                format!("{}: transaction {text}", self.connector.target())
            }
            Outcome::Refused(error) => {
                self.session = Some(session);
                format!("{}: {error}", self.connector.target())
            }
            // Whether to write again is for the program to know: it may have been done.
            Outcome::Lost { reason, may_be_done } => {
                self.connector.ended();
                let fate = if may_be_done { "in doubt" } else { "not done" };
                format!("{}: {reason}; the write is {fate}", self.connector.target())
            }
        }
    }

    fn wait_for_session(&mut self) -> Option<Session> {
        for _ in 0..10 {
            match self.next_session() {
                Ok(session) => return Some(session),
                Err((until, error)) => {
                    if let Some(error) = error {
                        eprintln!("{error}");
                    }
                    thread::sleep(until.saturating_sub(self.start.elapsed()));
                }
            }
        }
        None
    }

    /// A session of the first host that will do; or why none does, and until when to wait.
    pub(crate) fn next_session(&mut self) -> Result<Session, (Duration, Option<RoundError>)> {
        loop {
            match self.connector.poll_step(self.start.elapsed()) {
                Some(ConnectStep::Resolve { name, port }) => {
                    self.connector.resolved((name.as_str(), port).to_socket_addrs().map(Vec::from_iter));
                }
                Some(ConnectStep::Connect(attempt)) => match self.connect(&attempt) {
                    Ok(socket) => {
                        if let Some(session) = self.log_in(socket) {
                            return Ok(session);
                        }
                    }
                    Err(error) => self.connector.failed(Failure::Address, error),
                },
                Some(ConnectStep::Wait { until, error }) => return Err((until, error)),
                // The wait is not over.
                None => return Err((self.connector.deadline().unwrap_or_default(), None)),
            }
        }
    }

    fn connect(&self, attempt: &ConnectAttempt) -> io::Result<Box<dyn Socket>> {
        let patience = attempt.deadline.map(|deadline| deadline.saturating_sub(self.start.elapsed()));
        Ok(match &attempt.endpoint {
            Endpoint::Tcp(address) => {
                let socket = match patience {
                    Some(patience) => TcpStream::connect_timeout(address, patience)?,
                    None => TcpStream::connect(address)?,
                };
                // Here `attempt.tcp` would be set, with the crate `socket2`.
                socket.set_nodelay(true)?;
                socket.set_read_timeout(patience)?;
                Box::new(socket)
            }
            Endpoint::Unix(path) => {
                let socket = UnixStream::connect(path)?;
                socket.set_read_timeout(patience)?;
                Box::new(socket)
            }
        })
    }

    /// Logs in. `None` if there is no session, or not one that will do; the connector knows.
    fn log_in(&mut self, socket: Box<dyn Socket>) -> Option<Session> {
        let connection = Connection::new(&self.url.session("postgres"), &[], Limits::DEFAULT)
            .with_policy(self.url.authentication.clone());
        let mut session = Session { connection, socket };
        loop {
            let mut verdict = None;
            while let Some(event) = session.connection.poll_event() {
                match event {
                    Event::Parameter { name, value } => self.connector.parameter(&name, &value),
                    Event::Ready | Event::Committed => verdict = Some(self.connector.judge()),
                    // The answer to a question, which ends with `Committed`.
                    Event::TextRow { row, .. } => {
                        self.connector.answered(row.text(0).ok().flatten());
                    }
                    Event::Failed { .. } => verdict = Some(self.connector.answered(None)),
                    Event::Closed { reason } => {
                        self.connector.failed(Failure::from(&reason), &reason);
                        return None;
                    }
                    _ => {}
                }
            }
            match verdict {
                None => session.exchange(),
                Some(Verdict::Accept) => {
                    self.connector.established();
                    return Some(session);
                }
                Some(Verdict::Ask(query)) => {
                    session.connection.simple_query((), query).expect("a new session has room");
                }
                Some(Verdict::Reject(mismatch)) => {
                    session.connection.close(CloseReason::TargetSession(mismatch));
                }
            }
        }
    }
}

/// What came of a query.
pub(crate) enum Outcome {
    Answer(String),
    Refused(String),
    Lost { reason: String, may_be_done: bool },
}

impl Session {
    /// Runs a query with one field in its answer.
    pub(crate) fn query(&mut self, sql: &str) -> Outcome {
        self.connection.simple_query((), sql).expect("the last query has ended, so there is room");
        let (mut answer, mut refusal, mut may_be_done) = (String::new(), None, false);
        loop {
            while let Some(event) = self.connection.poll_event() {
                match event {
                    Event::TextRow { row, .. } => {
                        row.text(0).ok().flatten().unwrap_or("").clone_into(&mut answer);
                    }
                    Event::Failed { error, .. } => refusal = Some(error.to_string()),
                    Event::Committed => return Outcome::Answer(answer),
                    Event::Aborted { error } => {
                        let error = refusal.or(error.map(|error| error.to_string()));
                        return Outcome::Refused(error.unwrap_or_default());
                    }
                    Event::InDoubt { .. } => may_be_done = true,
                    Event::Closed { reason } => {
                        return Outcome::Lost { reason: reason.to_string(), may_be_done };
                    }
                    _ => {}
                }
            }
            self.exchange();
        }
    }

    /// Sends everything that is to be sent, then reads once.
    fn exchange(&mut self) {
        // What a signal interrupts is taken up by the next exchange.
        if let Err(error) = self.try_exchange()
            && error.kind() != ErrorKind::Interrupted
        {
            self.connection.close(match error.kind() {
                ErrorKind::UnexpectedEof => CloseReason::PeerClosed,
                ErrorKind::WouldBlock | ErrorKind::TimedOut => CloseReason::TimedOut,
                kind => CloseReason::Transport(kind),
            });
        }
    }

    fn try_exchange(&mut self) -> io::Result<()> {
        while !self.connection.send_pending().is_empty() {
            let n = self.socket.write(self.connection.send_pending())?;
            self.connection.send_advance(n);
        }
        match self.socket.read(self.connection.recv_space())? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            n => {
                self.connection.recv_commit(n);
                Ok(())
            }
        }
    }
}

trait Socket: Read + Write {}

impl<S: Read + Write> Socket for S {}
