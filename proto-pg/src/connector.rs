//! Where to connect next, and when: the hosts of a connection string, tried as libpq tries them.
//!
//! Source: PostgreSQL documentation, "libpq - C Library", sections Specifying Multiple Hosts and Parameter Key Words; where
//! these say nothing, libpq's `fe-connect.c`.

use crate::error::{CloseReason, SqlState};
use crate::url::{Host, Keepalive, Url};
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::VecDeque;
use std::error::Error;
use std::fmt::{self, Display, Formatter};

/// Tries hosts and their addresses until one has a session that will do. It knows no socket and no clock: it says what to
/// do next ([`Connector::poll_step`]) and is told what came of it. Each `now` is the time on a clock of the owner's that
/// never goes back, from any start.
///
/// As in libpq, the hosts are tried in order, all addresses of one before the next, and each new session starts over with
/// the first. An address that cannot be reached is followed by the next address. A host that is not what
/// `target_session_attrs` asks for, or cannot take sessions now (`57P03`), is followed by the next host. Failed
/// authentication ends the list. Within such a round nothing waits; after one without a session comes a wait, twice as long
/// after each such round, and the problem of each address that was tried.
///
/// ```
/// use core::time::Duration;
/// use proto_pg::{ConnectStep, Connector, ConnectorConfig, Endpoint, Failure, Url};
///
/// let url: Url = "postgresql://alice@10.0.0.1,db2/bank?target_session_attrs=read-write".parse()?;
/// let mut connector = Connector::new(ConnectorConfig::new(&url), 1);
/// let now = Duration::ZERO;
///
/// let Some(ConnectStep::Connect(attempt)) = connector.poll_step(now) else { panic!("an address") };
/// assert_eq!(attempt.endpoint, Endpoint::Tcp("10.0.0.1:5432".parse()?));
/// connector.failed(Failure::Address, "connection refused");
///
/// let step = connector.poll_step(now);
/// assert_eq!(step, Some(ConnectStep::Resolve { name: "db2".into(), port: 5432 }));
/// connector.resolved(Ok::<_, String>(vec!["10.0.0.2:5432".parse()?]));
///
/// let Some(ConnectStep::Connect(attempt)) = connector.poll_step(now) else { panic!("an address") };
/// assert_eq!(attempt.target, "db2, 10.0.0.2:5432");
/// // Here the owner connects and logs in; each `Event::Parameter` goes to `Connector::parameter`, and `Event::Ready`
/// // asks for `Connector::judge`.
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Connector {
    config: ConnectorConfig,
    /// The state of `SplitMix64`.
    random: u64,
    state: State,
    /// The hosts of this round, as positions in the configuration; those before `next` have been tried.
    order: Vec<usize>,
    next: usize,
    /// The host of the last step.
    host: usize,
    /// The addresses of that host which are still to be tried.
    addresses: VecDeque<SocketAddr>,
    /// Host and address of the last step, for the text of a problem.
    target: String,
    /// No second pass of `prefer-standby` is to come, in which a primary will do.
    is_last_pass: bool,
    in_hot_standby: Option<bool>,
    is_read_only_by_default: Option<bool>,
    /// Why the session of this attempt will not do.
    mismatch: Option<TargetMismatch>,
    /// The host to be tried before the others.
    preferred: Option<usize>,
    problems: Vec<HostProblem>,
    /// The wait after the next round without a session.
    wait: Duration,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Between two rounds.
    Waiting { until: Duration },
    /// Within a round: the next address or host is to be tried.
    Due,
    /// The owner looks a name up.
    Resolving { deadline: Option<Duration> },
    /// The owner connects and logs in.
    Connecting { deadline: Option<Duration> },
    /// The owner has its session.
    Established,
}

/// What a [`Connector`] goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectorConfig {
    /// The hosts, in order.
    pub hosts: Vec<Host>,
    /// Which sessions will do.
    pub target_session_attrs: TargetSessionAttrs,
    /// The order in which hosts and addresses are tried.
    pub load_balance_hosts: LoadBalanceHosts,
    /// How long a look-up may take, and after it each address, log-in included; `None` for no limit.
    pub connect_timeout: Option<Duration>,
    /// What to set on a socket that is TCP.
    pub tcp: TcpOptions,
    /// The longest wait after the first round without a session; each actual wait is half of it or more, at random.
    pub wait_min: Duration,
    /// As it doubles with each such round, it stops here.
    pub wait_max: Duration,
}

impl ConnectorConfig {
    /// What a connection string says. Waits grow from 100 ms to 5 s.
    pub fn new(url: &Url) -> ConnectorConfig {
        ConnectorConfig {
            hosts: url.hosts.clone(),
            target_session_attrs: url.target_session_attrs,
            load_balance_hosts: url.load_balance_hosts,
            connect_timeout: url.connect_timeout_seconds.map(|seconds| Duration::from_secs(seconds.into())),
            tcp: TcpOptions { keepalive: url.keepalive, user_timeout_ms: url.tcp_user_timeout_ms },
            wait_min: Duration::from_millis(100),
            wait_max: Duration::from_secs(5),
        }
    }
}

/// `target_session_attrs`: which sessions will do. Asked for at the server itself, so it holds for the moment of the log-in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TargetSessionAttrs {
    /// Any.
    #[default]
    Any,
    /// One that can write: on no standby, and not read-only by default.
    ReadWrite,
    /// One that cannot write.
    ReadOnly,
    /// One on a server that is no standby.
    Primary,
    /// One on a hot standby.
    Standby,
    /// One on a hot standby; any, if no host has that.
    PreferStandby,
}

impl TargetSessionAttrs {
    /// Every value, in order of declaration.
    pub const ALL: [TargetSessionAttrs; 6] = [
        TargetSessionAttrs::Any,
        TargetSessionAttrs::ReadWrite,
        TargetSessionAttrs::ReadOnly,
        TargetSessionAttrs::Primary,
        TargetSessionAttrs::Standby,
        TargetSessionAttrs::PreferStandby,
    ];

    /// As a connection string has it.
    pub const fn name(self) -> &'static str {
        match self {
            TargetSessionAttrs::Any => "any",
            TargetSessionAttrs::ReadWrite => "read-write",
            TargetSessionAttrs::ReadOnly => "read-only",
            TargetSessionAttrs::Primary => "primary",
            TargetSessionAttrs::Standby => "standby",
            TargetSessionAttrs::PreferStandby => "prefer-standby",
        }
    }
}

/// `load_balance_hosts`: the order in which hosts and addresses are tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LoadBalanceHosts {
    /// As they stand in the string, and as the look-up gives them.
    #[default]
    Disable,
    /// At random: the hosts anew for each round, and the addresses of each.
    Random,
}

/// What to set on a TCP socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpOptions {
    /// Probes of a connection that is silent; `None` for none.
    pub keepalive: Option<Keepalive>,
    /// Milliseconds that sent bytes may stay unacknowledged; `None` for the system's default.
    pub user_timeout_ms: Option<u32>,
}

/// What the owner of a [`Connector`] is to do. Each is said once, and replaces what was under way before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectStep {
    /// Look this name up, and report [`Connector::resolved`].
    Resolve {
        /// The name, or an address with a scope that only the system can read.
        name: String,
        /// The port that belongs to each of its addresses.
        port: u16,
    },
    /// Connect and log in; report [`Connector::established`] or [`Connector::failed`].
    Connect(ConnectAttempt),
    /// Do nothing until this time; then ask again.
    Wait {
        /// When the next round begins, on the owner's clock.
        until: Duration,
        /// Why the round has come to nothing; `None` behind a session that has ended.
        error: Option<RoundError>,
    },
}

/// One attempt, and what to make it with. The session and its password are the same for every host: [`Url::session`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectAttempt {
    /// The host, whose name is what TLS checks: for [`ChannelConfig::open`](crate::ChannelConfig::open).
    pub host: Host,
    /// Where to connect to.
    pub endpoint: Endpoint,
    /// What to set on the socket, if it is TCP.
    pub tcp: TcpOptions,
    /// When to give the attempt up, on the owner's clock, the log-in included: see [`Connector::expire`].
    pub deadline: Option<Duration>,
    /// Host and address, for the owner's texts.
    pub target: String,
}

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// Over TCP.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(String),
}

/// What a failure says about the rest of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nothing but that this address has no session: try the next address.
    Address,
    /// This host will not do now, at any of its addresses: try the next host.
    Host,
    /// No other host is to be tried, such as after failed authentication: the round is over.
    List,
}

impl From<&CloseReason> for Failure {
    /// How libpq goes on after a session that was never ready closed for this reason. There are two differences: libpq ends
    /// the list where the server closes the connection without a word, and it prepares no statements.
    fn from(reason: &CloseReason) -> Failure {
        match reason {
            CloseReason::PeerClosed | CloseReason::Transport(_) | CloseReason::TimedOut => Failure::Address,
            CloseReason::Server(error) if error.code == SqlState::CANNOT_CONNECT_NOW => Failure::Host,
            CloseReason::TargetSession(_)
            | CloseReason::Statement(_)
            | CloseReason::Row(_)
            | CloseReason::Other(_) => Failure::Host,
            CloseReason::Server(_) | CloseReason::Protocol(_) | CloseReason::Authentication(_) => {
                Failure::List
            }
            #[cfg(feature = "tls")]
            CloseReason::Tls(_) => Failure::List,
        }
    }
}

/// What [`Connector::judge`] says of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It will do.
    Accept,
    /// It will not: close it with [`CloseReason::TargetSession`], and report [`Failure::Host`].
    Reject(TargetMismatch),
    /// The server has not reported what it takes to tell, as before PostgreSQL 14 and behind some poolers: run this
    /// [simple query](crate::Connection::simple_query), and report its one field to [`Connector::answered`].
    Ask(&'static str),
}

/// Why a session is not what `target_session_attrs` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TargetMismatch {
    /// It cannot write.
    ReadOnly,
    /// It can write.
    ReadWrite,
    /// The server is a hot standby.
    Standby,
    /// The server is no standby.
    Primary,
    /// The server did not say.
    Unknown,
}

/// What came of one address, or of a host without one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostProblem {
    /// Host and address.
    pub target: String,
    /// Why there is no session.
    pub problem: String,
    /// There was one, which is not what `target_session_attrs` asks for.
    pub mismatch: Option<TargetMismatch>,
}

/// Why a round has come to nothing. One line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoundError {
    /// In the order in which they were met.
    pub problems: Vec<HostProblem>,
    /// If every host that could be asked is of the other kind than `target_session_attrs` wants, what to do about it.
    pub remedy: Option<&'static str>,
}

impl Connector {
    /// One that wants to connect at once. `seed` is its only source of chance: give each another one, or those that fall
    /// together come back together, and make the same random choices.
    pub fn new(config: ConnectorConfig, seed: u64) -> Connector {
        Connector {
            random: seed,
            state: State::Waiting { until: Duration::ZERO },
            order: Vec::new(),
            next: 0,
            host: 0,
            addresses: VecDeque::new(),
            target: String::new(),
            is_last_pass: true,
            in_hot_standby: None,
            is_read_only_by_default: None,
            mismatch: None,
            preferred: None,
            problems: Vec::new(),
            wait: config.wait_min,
            config,
        }
    }

    /// What to do next, if there is anything: after each report, and at [`Connector::deadline`].
    pub fn poll_step(&mut self, now: Duration) -> Option<ConnectStep> {
        match self.state {
            State::Waiting { until } if now < until => return None,
            State::Waiting { .. } => self.begin_round(),
            State::Due => {}
            State::Resolving { .. } | State::Connecting { .. } | State::Established => return None,
        }
        if let Some(address) = self.addresses.pop_front() {
            return Some(self.connect(Endpoint::Tcp(address), now));
        }
        if self.next == self.order.len() && !self.is_last_pass {
            self.is_last_pass = true;
            self.next = 0;
        }
        if let Some(preferred) = self.preferred.take()
            && let Some(distance) = self.order[self.next..].iter().position(|host| *host == preferred)
        {
            self.order[self.next..=self.next + distance].rotate_right(1);
        }
        let Some(&host) = self.order.get(self.next) else { return Some(self.end_round(now)) };
        self.next += 1;
        self.host = host;
        Some(match &self.config.hosts[host] {
            Host::Unix { socket_path } => {
                let endpoint = Endpoint::Unix(socket_path.clone());
                self.connect(endpoint, now)
            }
            Host::Tcp { name, address, port } => {
                let (name, port) = (name.clone(), *port);
                match address.as_ref().unwrap_or(&name).parse::<IpAddr>() {
                    Ok(address) => self.connect(Endpoint::Tcp(SocketAddr::new(address, port)), now),
                    Err(_not_an_address) => {
                        let name = address.clone().unwrap_or(name);
                        self.target = format!("{name}:{port}");
                        self.state = State::Resolving { deadline: self.deadline_from(now) };
                        ConnectStep::Resolve { name, port }
                    }
                }
            }
        })
    }

    /// Tries this host before the others, by its position in the configuration, if it is still to be tried in this round, or else
    /// in the next one: for a program with several connectors of the same hosts, one of which has found the host that will do.
    /// Hosts in random order stay so.
    pub fn prefer(&mut self, host: usize) {
        if self.config.load_balance_hosts == LoadBalanceHosts::Disable {
            self.preferred = Some(host);
        }
    }

    /// When [`Connector::expire`] or [`Connector::poll_step`] will have something to do although nothing was reported.
    pub fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Due => Some(Duration::ZERO),
            State::Resolving { deadline } | State::Connecting { deadline } => deadline,
            State::Established => None,
        }
    }

    /// Gives the look-up or attempt up if its time has passed: true if so, and its socket is to be dropped.
    pub fn expire(&mut self, now: Duration) -> bool {
        let is_over = match self.state {
            State::Resolving { deadline } | State::Connecting { deadline } => {
                deadline.is_some_and(|deadline| now >= deadline)
            }
            State::Waiting { .. } | State::Due | State::Established => false,
        };
        if is_over {
            self.failed(Failure::Address, "no answer within connect_timeout");
        }
        is_over
    }

    /// The addresses of the name, in the order of the look-up, or why there are none; at most the first 64 are tried. Of a
    /// look-up that is not under way any more it is dropped.
    pub fn resolved(&mut self, addresses: Result<Vec<SocketAddr>, impl Display>) {
        if !matches!(self.state, State::Resolving { .. }) {
            return;
        }
        match addresses {
            Ok(addresses) if addresses.is_empty() => {
                self.failed(Failure::Host, "the name has no address");
            }
            Ok(mut addresses) => {
                addresses.truncate(ADDRESSES_MAX);
                if self.config.load_balance_hosts == LoadBalanceHosts::Random {
                    self.shuffle(&mut addresses);
                }
                self.addresses = addresses.into();
                self.state = State::Due;
            }
            Err(error) => self.failed(Failure::Host, error),
        }
    }

    /// The look-up, the attempt or its session came to nothing; also one that was established, whose host turned out not to
    /// do. Without one of these it is dropped: it was given up already.
    pub fn failed(&mut self, failure: Failure, problem: impl Display) {
        match self.state {
            State::Waiting { .. } | State::Due => return,
            State::Resolving { .. } | State::Connecting { .. } | State::Established => {}
        }
        self.problems.push(HostProblem {
            target: self.target.clone(),
            problem: problem.to_string(),
            mismatch: self.mismatch.take(),
        });
        match failure {
            Failure::Address => {}
            Failure::Host => self.addresses.clear(),
            Failure::List => self.abandon_round(),
        }
        self.state = State::Due;
    }

    /// The server reports a setting: see [`Event::Parameter`](crate::Event::Parameter).
    pub fn parameter(&mut self, name: &str, value: &str) {
        match name {
            "in_hot_standby" => self.in_hot_standby = Some(value == "on"),
            "default_transaction_read_only" => self.is_read_only_by_default = Some(value == "on"),
            _ => {}
        }
    }

    /// Whether the session of this attempt will do. To be asked once it is [ready](crate::Event::Ready).
    pub fn judge(&mut self) -> Verdict {
        let (wanted, mismatch) = match self.config.target_session_attrs {
            TargetSessionAttrs::Any => return Verdict::Accept,
            TargetSessionAttrs::PreferStandby if self.is_last_pass => return Verdict::Accept,
            TargetSessionAttrs::ReadWrite => (false, TargetMismatch::ReadOnly),
            TargetSessionAttrs::ReadOnly => (true, TargetMismatch::ReadWrite),
            TargetSessionAttrs::Primary => (false, TargetMismatch::Standby),
            TargetSessionAttrs::Standby | TargetSessionAttrs::PreferStandby => {
                (true, TargetMismatch::Primary)
            }
        };
        let actual = match self.config.target_session_attrs {
            TargetSessionAttrs::ReadWrite | TargetSessionAttrs::ReadOnly => {
                match (self.in_hot_standby, self.is_read_only_by_default) {
                    (Some(is_standby), Some(is_read_only)) => is_standby || is_read_only,
                    (Some(_) | None, _) => return Verdict::Ask("SHOW transaction_read_only"),
                }
            }
            TargetSessionAttrs::Any
            | TargetSessionAttrs::Primary
            | TargetSessionAttrs::Standby
            | TargetSessionAttrs::PreferStandby => match self.in_hot_standby {
                Some(is_standby) => is_standby,
                None => return Verdict::Ask("SELECT pg_catalog.pg_is_in_recovery()"),
            },
        };
        if actual == wanted { Verdict::Accept } else { self.reject(mismatch) }
    }

    /// The answer to [`Verdict::Ask`]; `None` if the server refused the question.
    pub fn answered(&mut self, answer: Option<&str>) -> Verdict {
        let Some(answer) = answer else { return self.reject(TargetMismatch::Unknown) };
        // A session that cannot write is on a standby or read-only by default. Which of the two does not matter here.
        let is_so = answer.starts_with("on") || answer.starts_with('t');
        self.in_hot_standby = Some(is_so);
        self.is_read_only_by_default = Some(is_so);
        self.judge()
    }

    /// The session will do: when it ends, the next one is looked for with the first host, after the shortest wait.
    pub fn established(&mut self) {
        if let State::Connecting { .. } = self.state {
            self.state = State::Established;
            self.wait = self.config.wait_min;
            self.problems.clear();
        }
    }

    /// The established session has ended. The next round begins after a wait.
    pub fn ended(&mut self) {
        self.abandon_round();
        self.problems.clear();
        self.state = State::Due;
    }

    /// The host of the last step.
    pub fn host(&self) -> Option<&Host> {
        self.config.hosts.get(self.host)
    }

    /// The position of that host in the configuration.
    pub fn host_position(&self) -> usize {
        self.host
    }

    /// Host and address of the last step, for the owner's texts.
    pub fn target(&self) -> &str {
        &self.target
    }

    fn reject(&mut self, mismatch: TargetMismatch) -> Verdict {
        self.mismatch = Some(mismatch);
        Verdict::Reject(mismatch)
    }

    fn begin_round(&mut self) {
        let mut order: Vec<usize> = (0..self.config.hosts.len()).collect();
        if self.config.load_balance_hosts == LoadBalanceHosts::Random {
            self.shuffle(&mut order);
        }
        self.order = order;
        self.next = 0;
        self.is_last_pass = self.config.target_session_attrs != TargetSessionAttrs::PreferStandby;
        self.problems.clear();
        self.state = State::Due;
    }

    fn connect(&mut self, endpoint: Endpoint, now: Duration) -> ConnectStep {
        let host = self.config.hosts[self.host].clone();
        self.target = match (&host, &endpoint) {
            (Host::Tcp { name, .. }, Endpoint::Tcp(address)) if name.parse::<IpAddr>().is_err() => {
                format!("{name}, {address}")
            }
            (_, Endpoint::Tcp(address)) => address.to_string(),
            (_, Endpoint::Unix(path)) => path.clone(),
        };
        self.in_hot_standby = None;
        self.is_read_only_by_default = None;
        self.mismatch = None;
        let deadline = self.deadline_from(now);
        self.state = State::Connecting { deadline };
        let (tcp, target) = (self.config.tcp, self.target.clone());
        ConnectStep::Connect(ConnectAttempt { host, endpoint, tcp, deadline, target })
    }

    fn deadline_from(&self, now: Duration) -> Option<Duration> {
        self.config.connect_timeout.map(|timeout| now.saturating_add(timeout))
    }

    /// Leaves nothing of the round.
    fn abandon_round(&mut self) {
        self.next = self.order.len();
        self.addresses.clear();
        self.is_last_pass = true;
    }

    fn end_round(&mut self, now: Duration) -> ConnectStep {
        let wait_us = u64::try_from(self.wait.as_micros()).unwrap_or(u64::MAX);
        let waited = Duration::from_micros(wait_us - self.below(wait_us / 2 + 1));
        let until = now.saturating_add(waited);
        self.state = State::Waiting { until };
        let problems = std::mem::take(&mut self.problems);
        let error = (!problems.is_empty()).then(|| {
            self.wait = self.wait.saturating_mul(2).min(self.config.wait_max.max(self.config.wait_min));
            RoundError { remedy: self.remedy(&problems), problems }
        });
        ConnectStep::Wait { until, error }
    }

    /// What helps if every problem is that of a session of the wrong kind.
    fn remedy(&self, problems: &[HostProblem]) -> Option<&'static str> {
        let (mismatch, remedy) = match self.config.target_session_attrs {
            TargetSessionAttrs::Any | TargetSessionAttrs::PreferStandby => return None,
            TargetSessionAttrs::ReadWrite => (
                TargetMismatch::ReadOnly,
                "every host is a standby or read-only, but target_session_attrs is read-write: name the primary too",
            ),
            TargetSessionAttrs::Primary => (
                TargetMismatch::Standby,
                "every host is a standby, but target_session_attrs is primary: name the primary too",
            ),
            TargetSessionAttrs::ReadOnly => (
                TargetMismatch::ReadWrite,
                "every host can write, but target_session_attrs is read-only: name a standby too, or use any",
            ),
            TargetSessionAttrs::Standby => (
                TargetMismatch::Primary,
                "no host is a standby, but target_session_attrs is standby: name one too, or use prefer-standby",
            ),
        };
        problems.iter().all(|problem| problem.mismatch == Some(mismatch)).then_some(remedy)
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        // Fisher and Yates.
        for end in (1..items.len()).rev() {
            let other = usize::try_from(self.below(end as u64 + 1)).unwrap_or(end);
            items.swap(other, end);
        }
    }

    /// A number below `limit`, which is not 0. Source: Sebastiano Vigna, `SplitMix64`, prng.di.unimi.it.
    fn below(&mut self, limit: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % limit
    }
}

impl Display for TargetMismatch {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TargetMismatch::ReadOnly => "the session is read-only",
            TargetMismatch::ReadWrite => "the session is not read-only",
            TargetMismatch::Standby => "the server is a standby",
            TargetMismatch::Primary => "the server is not a standby",
            TargetMismatch::Unknown => "the server does not say whether it is a standby",
        })
    }
}

impl Display for HostProblem {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.target, self.problem)
    }
}

impl Display for RoundError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for problem in &self.problems {
            write!(f, "{separator}{problem}")?;
            separator = "; ";
        }
        self.remedy.map_or(Ok(()), |remedy| write!(f, "{separator}{remedy}"))
    }
}

impl Error for RoundError {}

/// More addresses of one name than these are left out.
const ADDRESSES_MAX: usize = 64;

#[cfg(test)]
mod tests;
