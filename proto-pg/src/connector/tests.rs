//! Which hosts and addresses are tried, in which order and how often, in worlds of servers that the tests make up. The cases
//! of several hosts are those of PostgreSQL's own tests: `src/interfaces/libpq/t/003_load_balance_host_list.pl`,
//! `004_load_balance_dns.pl` and `src/test/recovery/t/001_stream_rep.pl`.

use super::*;
use crate::error::{AuthenticationError, ProtocolError, ServerError};
use std::collections::BTreeSet;

use Server::{Absent, Fenced, Primary, Refuses, Silent, Standby, Starts};

/// What is at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Primary,
    /// A primary with `default_transaction_read_only`.
    Fenced,
    Standby,
    /// Nobody listens.
    Absent,
    /// It takes connections and says nothing.
    Silent,
    /// A wrong password.
    Refuses,
    /// The database system is starting up.
    Starts,
}

/// The network as a connector sees it. The name of a server and the addresses of a name are made of its position.
struct World {
    connector: Connector,
    /// Of each host, its addresses.
    servers: Vec<Vec<Server>>,
    /// Whether servers report what they are, or have to be asked.
    reports: bool,
    now: Duration,
}

/// How a round ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Session(String),
    None(Option<RoundError>),
}

fn address(host: usize, address: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, u8::try_from(host).unwrap(), u8::try_from(address).unwrap()], 5432))
}

impl World {
    fn new(servers: &[&[Server]], parameters: &str) -> World {
        World::seeded(servers, parameters, 1)
    }

    fn seeded(servers: &[&[Server]], parameters: &str, seed: u64) -> World {
        let hosts: Vec<String> = (0..servers.len()).map(|host| format!("h{host}")).collect();
        let url = Url::parse(&format!("postgresql://a@{}/b?{parameters}", hosts.join(","))).unwrap();
        World {
            connector: Connector::new(ConnectorConfig::new(&url), seed),
            servers: servers.iter().map(|addresses| addresses.to_vec()).collect(),
            reports: true,
            now: Duration::ZERO,
        }
    }

    /// Everything that is tried until there is a session, or the round is over.
    fn round(&mut self) -> (Vec<String>, End) {
        let mut tried = Vec::new();
        loop {
            match self.connector.poll_step(self.now).expect("a step without a wait") {
                ConnectStep::Resolve { name, port } => {
                    assert_eq!(port, 5432);
                    let host: usize = name[1..].parse().unwrap();
                    let addresses = (0..self.servers[host].len()).map(|it| address(host, it)).collect();
                    self.connector.resolved(Ok::<_, String>(addresses));
                }
                ConnectStep::Connect(attempt) => {
                    assert_eq!(attempt.target, self.connector.target());
                    let Endpoint::Tcp(SocketAddr::V4(address)) = attempt.endpoint else {
                        panic!("it is TCP")
                    };
                    let [.., host, position] = address.ip().octets();
                    tried.push(format!("h{host}.{position}"));
                    if self.log_in(self.servers[usize::from(host)][usize::from(position)]) {
                        return (tried.clone(), End::Session(tried.pop().unwrap()));
                    }
                }
                ConnectStep::Wait { until, error } => {
                    assert!(until > self.now);
                    assert_eq!(self.connector.poll_step(self.now), None, "said once");
                    assert_eq!(self.connector.deadline(), Some(until));
                    self.now = until;
                    return (tried, End::None(error));
                }
            }
        }
    }

    /// Whether this server gives a session that will do.
    fn log_in(&mut self, server: Server) -> bool {
        let refuse = |code: &str| {
            let body = format!("SFATAL\0VFATAL\0C{code}\0Mno\0\0");
            CloseReason::Server(ServerError::decode(body.as_bytes()).expect("an error"))
        };
        let reason = match server {
            Absent => CloseReason::Transport(std::io::ErrorKind::ConnectionRefused),
            Silent => {
                self.now = self.connector.deadline().expect("a limit");
                assert!(self.connector.expire(self.now));
                return false;
            }
            Refuses => refuse("28P01"),
            Starts => refuse("57P03"),
            Primary | Fenced | Standby => {
                let is = |is_so: bool| if is_so { "on" } else { "off" };
                let standby = is(server == Standby);
                let read_only = is(server == Fenced);
                if self.reports {
                    self.connector.parameter("in_hot_standby", standby);
                    self.connector.parameter("default_transaction_read_only", read_only);
                    self.connector.parameter("server_version", "on");
                }
                let mut verdict = self.connector.judge();
                if let Verdict::Ask(query) = verdict {
                    assert!(!self.reports, "{query}");
                    let answer = match query {
                        "SHOW transaction_read_only" => is(server != Primary),
                        "SELECT pg_catalog.pg_is_in_recovery()" if server == Standby => "t",
                        "SELECT pg_catalog.pg_is_in_recovery()" => "f",
                        other => panic!("{other}"),
                    };
                    verdict = self.connector.answered(Some(answer));
                }
                match verdict {
                    Verdict::Accept => {
                        self.connector.established();
                        return true;
                    }
                    Verdict::Reject(mismatch) => CloseReason::TargetSession(mismatch),
                    Verdict::Ask(query) => panic!("asked twice: {query}"),
                }
            }
        };
        self.connector.failed(Failure::from(&reason), &reason);
        false
    }

    fn session(&mut self) -> String {
        match self.round() {
            (_, End::Session(place)) => place,
            (tried, End::None(error)) => panic!("{tried:?}: {error:?}"),
        }
    }
}

#[test]
fn every_address_of_a_host_is_tried_before_the_next_host_and_nothing_waits_in_between() {
    for alive in 0..4 {
        let mut servers = [[Absent; 2]; 2];
        servers[alive / 2][alive % 2] = Primary;
        let [a, b] = &servers;
        let mut world = World::new(&[a, b], "");
        let expected = ["h0.0", "h0.1", "h1.0", "h1.1"];
        assert_eq!(world.round(), (strings(&expected[..=alive]), End::Session(expected[alive].into())));
        assert_eq!(world.now, Duration::ZERO);
    }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn each_new_session_starts_over_with_the_first_host() {
    let mut world = World::new(&[&[Absent], &[Absent, Primary]], "");
    for _ in 0..3 {
        let (tried, end) = world.round();
        assert_eq!((tried, end), (strings(&["h0.0", "h1.0", "h1.1"]), End::Session("h1.1".into())));
        world.connector.ended();
        // No rush, should this go on; but it is nobody's fault.
        assert_eq!(world.round(), (vec![], End::None(None)));
    }
    world.servers[0][0] = Primary;
    assert_eq!(world.session(), "h0.0");
}

#[test]
fn waits_double_up_to_their_limit_and_start_over_with_a_session() {
    let mut world = World::new(&[&[Absent], &[Absent]], "");
    world.connector = Connector::new(
        ConnectorConfig {
            wait_min: Duration::from_millis(20),
            wait_max: Duration::from_millis(200),
            ..world.connector.config.clone()
        },
        3,
    );
    let wait_after_round = |world: &mut World| {
        let before = world.now;
        let (tried, end) = world.round();
        assert_eq!(tried.len(), 2);
        let End::None(Some(error)) = end else { panic!("{end:?}") };
        assert_eq!(error.problems.len(), 2, "one for each");
        let text = "h0, 10.0.0.0:5432: transport error: connection refused; \
                    h1, 10.0.1.0:5432: transport error: connection refused";
        assert_eq!(error.to_string(), text);
        world.now.checked_sub(before).unwrap()
    };
    for most_ms in [20, 40, 80, 160, 200, 200] {
        let most = Duration::from_millis(most_ms);
        let wait = wait_after_round(&mut world);
        assert!((most / 2..=most).contains(&wait), "{wait:?} of {most:?}");
    }
    world.servers[0][0] = Primary;
    world.session();
    world.servers[0][0] = Absent;
    world.connector.ended();
    let before = world.now;
    assert_eq!(world.round(), (vec![], End::None(None)));
    assert!(world.now <= before + Duration::from_millis(20));
    assert!(wait_after_round(&mut world) <= Duration::from_millis(20), "the shortest again");
}

#[test]
fn failed_authentication_ends_the_list() {
    for attrs in TargetSessionAttrs::ALL {
        let parameters = format!("target_session_attrs={}", attrs.name());
        let mut world = World::new(&[&[Refuses, Primary], &[Primary], &[Standby]], &parameters);
        let (tried, end) = world.round();
        assert_eq!(tried, ["h0.0"], "{attrs:?}");
        let End::None(Some(RoundError { problems, remedy: None })) = end else { panic!("{end:?}") };
        assert!(problems[0].to_string().starts_with("h0, 10.0.0.0:5432: server error: "), "{problems:?}");
        // The next round is as this one.
        assert_eq!(world.round().0, ["h0.0"]);
    }
}

#[test]
fn a_host_that_cannot_take_sessions_now_is_left_for_the_next_host() {
    let mut world = World::new(&[&[Starts, Primary], &[Primary]], "");
    assert_eq!(world.round().0, ["h0.0", "h1.0"]);
}

#[test]
fn what_else_ends_a_session_before_it_is_ready() {
    for (reason, failure) in [
        (CloseReason::PeerClosed, Failure::Address),
        (CloseReason::TimedOut, Failure::Address),
        (CloseReason::Transport(std::io::ErrorKind::ConnectionReset), Failure::Address),
        (CloseReason::Other("the owner's"), Failure::Host),
        (CloseReason::TargetSession(TargetMismatch::Standby), Failure::Host),
        (CloseReason::Authentication(AuthenticationError::PasswordMissing), Failure::List),
        (CloseReason::Protocol(ProtocolError::Malformed { tag: b'R' }), Failure::List),
    ] {
        assert_eq!(Failure::from(&reason), failure, "{reason}");
    }
}

#[test]
fn each_address_has_its_time() {
    let mut world = World::new(&[&[Silent, Silent], &[Primary]], "connect_timeout=3");
    assert_eq!(world.round().0, ["h0.0", "h0.1", "h1.0"]);
    assert_eq!(world.now, Duration::from_secs(6));
    let mut world = World::new(&[&[Primary]], "");
    assert!(matches!(world.connector.poll_step(world.now), Some(ConnectStep::Resolve { .. })));
    assert_eq!(world.connector.deadline(), None, "no limit");
    assert!(!world.connector.expire(Duration::MAX));
}

#[test]
fn a_look_up_has_its_time_and_a_late_answer_is_dropped() {
    let mut world = World::new(&[&[Primary], &[Primary]], "connect_timeout=3");
    assert!(matches!(world.connector.poll_step(world.now), Some(ConnectStep::Resolve { .. })));
    assert_eq!(world.connector.poll_step(world.now), None);
    assert!(!world.connector.expire(Duration::from_millis(2_999)));
    world.now = Duration::from_secs(3);
    assert!(world.connector.expire(world.now));
    world.connector.resolved(Ok::<_, String>(vec![address(0, 0)]));
    assert_eq!(world.session(), "h1.0");
    world.connector.failed(Failure::List, "");
}

#[test]
fn a_name_that_is_not_known_or_has_no_address_is_followed_by_the_next_host() {
    let mut world = World::new(&[&[], &[Primary]], "");
    assert_eq!(world.session(), "h1.0");
    let mut world = World::new(&[&[Primary], &[Primary]], "");
    assert!(matches!(world.connector.poll_step(world.now), Some(ConnectStep::Resolve { .. })));
    world.connector.resolved(Err("no such name"));
    assert_eq!(world.connector.problems[0].to_string(), "h0:5432: no such name");
    assert_eq!(world.session(), "h1.0");
}

#[test]
fn a_late_report_is_dropped() {
    let mut world = World::new(&[&[Primary], &[Primary]], "");
    world.connector.failed(Failure::List, "before anything");
    world.connector.established();
    assert_eq!(world.session(), "h0.0");
}

#[test]
fn each_kind_of_session_is_found_whether_servers_report_or_are_asked() {
    let kinds = [Primary, Fenced, Standby];
    for reports in [true, false] {
        for attrs in TargetSessionAttrs::ALL {
            let will_do = |server: Server| match attrs {
                TargetSessionAttrs::Any | TargetSessionAttrs::PreferStandby => true,
                TargetSessionAttrs::ReadWrite => server == Primary,
                TargetSessionAttrs::ReadOnly => server != Primary,
                TargetSessionAttrs::Primary => server != Standby,
                TargetSessionAttrs::Standby => server == Standby,
            };
            for server in kinds {
                let parameters = format!("target_session_attrs={}", attrs.name());
                let mut world = World::new(&[&[server, server]], &parameters);
                world.reports = reports;
                let (tried, end) = world.round();
                let is_session = matches!(end, End::Session(_));
                assert_eq!(is_session, will_do(server), "{attrs:?} {server:?} {reports}");
                let passes =
                    if attrs == TargetSessionAttrs::PreferStandby && server != Standby { 2 } else { 1 };
                assert_eq!(tried.len(), passes, "a second address of the host is no use: {tried:?}");
                if let End::None(error) = end {
                    let error = error.expect("a reason");
                    let remedy = error.remedy.expect("a remedy");
                    assert!(remedy.contains(attrs.name()), "{remedy}");
                    assert!(error.to_string().ends_with(remedy) && error.to_string().lines().count() == 1);
                }
            }
        }
    }
}

#[test]
fn a_uri_of_standbys_alone_says_so() {
    let round = |servers: &[&[Server]], attrs: &str| {
        let mut world = World::new(servers, &format!("target_session_attrs={attrs}"));
        let (_, End::None(Some(error))) = world.round() else { panic!("a session") };
        error.to_string()
    };
    assert_eq!(
        round(&[&[Standby], &[Standby]], "read-write"),
        "h0, 10.0.0.0:5432: the session is read-only; h1, 10.0.1.0:5432: the session is read-only; \
         every host is a standby or read-only, but target_session_attrs is read-write: name the primary too"
    );
    assert!(round(&[&[Standby]], "primary").contains("the server is a standby; every host is a standby"));
    assert!(round(&[&[Primary]], "standby").ends_with("use prefer-standby"));
    // One that could not be asked may be the primary.
    assert!(!round(&[&[Standby], &[Absent]], "primary").contains("every host"));
}

#[test]
fn a_server_that_does_not_answer_the_question_will_not_do() {
    for attrs in ["read-write", "standby"] {
        let mut world = World::new(&[&[Primary], &[Primary]], &format!("target_session_attrs={attrs}"));
        world.connector.poll_step(world.now);
        world.connector.resolved(Ok::<_, String>(vec![address(0, 0)]));
        world.connector.poll_step(world.now);
        assert!(matches!(world.connector.judge(), Verdict::Ask(_)));
        assert_eq!(world.connector.answered(None), Verdict::Reject(TargetMismatch::Unknown));
    }
}

/// A primary and two standbys, as in `001_stream_rep.pl`: which of two hosts is found, in both orders.
#[test]
fn the_cases_of_a_primary_and_a_standby() {
    let both: [(&str, [Server; 2], Option<&str>); 15] = [
        ("read-write", [Primary, Standby], Some("h0.0")),
        ("read-write", [Standby, Primary], Some("h1.0")),
        ("any", [Primary, Standby], Some("h0.0")),
        ("any", [Standby, Primary], Some("h0.0")),
        ("primary", [Primary, Standby], Some("h0.0")),
        ("primary", [Standby, Primary], Some("h1.0")),
        ("read-only", [Primary, Standby], Some("h1.0")),
        ("read-only", [Standby, Primary], Some("h0.0")),
        ("prefer-standby", [Primary, Standby], Some("h1.0")),
        ("prefer-standby", [Standby, Primary], Some("h0.0")),
        ("prefer-standby", [Primary, Primary], Some("h0.0")),
        ("standby", [Primary, Standby], Some("h1.0")),
        ("standby", [Standby, Primary], Some("h0.0")),
        ("read-write", [Standby, Absent], None),
        ("standby", [Primary, Primary], None),
    ];
    for reports in [true, false] {
        for (attrs, servers, expected) in both {
            let [first, second] = servers.map(|server| [server]);
            let mut world = World::new(&[&first, &second], &format!("target_session_attrs={attrs}"));
            world.reports = reports;
            let (tried, end) = world.round();
            let found = if let End::Session(place) = end { Some(place) } else { None };
            assert_eq!(found.as_deref(), expected, "{attrs} {servers:?} {tried:?}");
        }
    }
}

#[test]
fn a_second_pass_takes_any_server_if_there_is_no_standby_to_prefer() {
    let mut world = World::new(&[&[Absent], &[Primary], &[Fenced]], "target_session_attrs=prefer-standby");
    let expected = strings(&["h0.0", "h1.0", "h2.0", "h0.0", "h1.0"]);
    assert_eq!(world.round(), (expected, End::Session("h1.0".into())));
    // Failed authentication ends the first pass and the second with it.
    world.connector.ended();
    world.servers[1][0] = Refuses;
    world.round();
    assert_eq!(world.round().0, ["h0.0", "h1.0"]);
}

/// The hosts of a list, as in `003_load_balance_host_list.pl`.
#[test]
fn a_list_in_order_has_its_first_host_and_at_random_each_of_them() {
    let servers: [&[Server]; 3] = [&[Primary], &[Primary], &[Primary]];
    let of_all = |parameters: &str| -> BTreeSet<String> {
        (0..50).map(|seed| World::seeded(&servers, parameters, seed).session()).collect()
    };
    assert_eq!(of_all(""), ["h0.0".to_owned()].into());
    assert_eq!(of_all("load_balance_hosts=disable"), ["h0.0".to_owned()].into());
    assert_eq!(of_all("load_balance_hosts=random").len(), 3);
    // One connector has another order for each session.
    let mut world = World::new(&servers, "load_balance_hosts=random");
    let mut found = BTreeSet::new();
    for _ in 0..50 {
        found.insert(world.session());
        world.connector.ended();
        world.round();
    }
    assert_eq!(found.len(), 3);
}

#[test]
fn hosts_that_are_down_are_passed_over_in_any_order() {
    for seed in 0..50 {
        let servers: [&[Server]; 3] = [&[Absent], &[Absent], &[Primary]];
        let mut world = World::seeded(&servers, "load_balance_hosts=random", seed);
        assert_eq!(world.session(), "h2.0");
        let mut world = World::seeded(&servers, "load_balance_hosts=disable", seed);
        assert_eq!(world.round().0, ["h0.0", "h1.0", "h2.0"]);
    }
}

/// One name with three addresses, as in `004_load_balance_dns.pl`.
#[test]
fn a_name_in_order_has_its_first_address_and_at_random_each_of_them() {
    let of_all = |servers: &[&[Server]], parameters: &str| -> BTreeSet<String> {
        (0..50).map(|seed| World::seeded(servers, parameters, seed).session()).collect()
    };
    let all: [&[Server]; 1] = [&[Primary, Primary, Primary]];
    assert_eq!(of_all(&all, ""), ["h0.0".to_owned()].into());
    assert_eq!(of_all(&all, "load_balance_hosts=random").len(), 3);
    let last: [&[Server]; 1] = [&[Absent, Absent, Primary]];
    assert_eq!(of_all(&last, "load_balance_hosts=random"), ["h0.2".to_owned()].into());
    assert_eq!(of_all(&last, ""), ["h0.2".to_owned()].into());
}

#[test]
fn an_attempt_has_what_it_takes_to_make_it() {
    let url = Url::parse(
        "postgresql://db,x?hostaddr=10.0.0.9,&port=1,2&host=db,/run/pg&keepalives_idle=7&tcp_user_timeout=5&connect_timeout=4",
    )
    .unwrap();
    let mut connector = Connector::new(ConnectorConfig::new(&url), 1);
    let now = Duration::from_secs(100);
    let Some(ConnectStep::Connect(attempt)) = connector.poll_step(now) else { panic!("no look-up") };
    assert_eq!(attempt.endpoint, Endpoint::Tcp("10.0.0.9:1".parse().unwrap()));
    assert_eq!(attempt.host, url.hosts[0], "whose name is what a certificate is for");
    assert_eq!(connector.host(), Some(&url.hosts[0]));
    assert_eq!(attempt.target, "db, 10.0.0.9:1");
    assert_eq!(attempt.tcp, TcpOptions { keepalive: url.keepalive, user_timeout_ms: Some(5) });
    assert_eq!(attempt.deadline, Some(Duration::from_secs(104)));
    connector.failed(Failure::Address, "refused");
    let Some(ConnectStep::Connect(attempt)) = connector.poll_step(now) else { panic!("no look-up") };
    assert_eq!(attempt.endpoint, Endpoint::Unix("/run/pg/.s.PGSQL.2".into()));
    assert_eq!(attempt.target, "/run/pg/.s.PGSQL.2");
}

#[test]
fn an_address_with_a_scope_is_for_the_system_to_read() {
    let url = Url::parse("hostaddr=fe80::1%lo").unwrap();
    let mut connector = Connector::new(ConnectorConfig::new(&url), 1);
    let expected = ConnectStep::Resolve { name: "fe80::1%lo".into(), port: 5432 };
    assert_eq!(connector.poll_step(Duration::ZERO), Some(expected));
}

#[test]
fn a_host_that_turns_out_not_to_do_is_followed_by_the_next_one() {
    let mut world = World::new(&[&[Primary, Primary], &[Primary], &[Primary]], "");
    assert_eq!(world.session(), "h0.0");
    world.connector.failed(Failure::Host, "demoted");
    assert_eq!(world.session(), "h1.0");
    world.connector.failed(Failure::Host, "demoted");
    assert_eq!(world.session(), "h2.0");
    world.connector.failed(Failure::Host, "demoted");
    let (tried, end) = world.round();
    assert!(tried.is_empty() && matches!(end, End::None(Some(_))), "the list has its end: {end:?}");
}

#[test]
fn a_host_that_is_preferred_is_tried_before_the_others() {
    let hosts: [&[Server]; 3] = [&[Absent], &[Absent, Absent], &[Primary]];
    let mut world = World::new(&hosts, "");
    world.connector.prefer(2);
    assert_eq!(world.round().0, ["h2.0"]);
    world.connector.ended();
    world.round();
    assert_eq!(world.round().0, ["h0.0", "h1.0", "h1.1", "h2.0"], "that was for once");

    // In the middle of a round: all hosts are tried still, and once each.
    let mut world = World::new(&[&[Absent], &[Absent], &[Absent]], "");
    assert!(matches!(world.connector.poll_step(world.now), Some(ConnectStep::Resolve { .. })));
    world.connector.prefer(2);
    world.connector.resolved(Err("no such name"));
    assert_eq!(world.round().0, ["h2.0", "h1.0"]);
    world.connector.prefer(7);
    assert_eq!(world.round().0, ["h0.0", "h1.0", "h2.0"]);

    let random = "load_balance_hosts=random";
    let all: [&[Server]; 2] = [&[Primary], &[Primary]];
    let found: BTreeSet<String> = (0..20)
        .map(|seed| {
            let mut world = World::seeded(&all, random, seed);
            world.connector.prefer(0);
            world.session()
        })
        .collect();
    assert_eq!(found.len(), 2, "a random order stays one");
}

#[test]
fn a_name_of_many_addresses_is_tried_at_so_many() {
    let many: Vec<Server> = vec![Absent; 100];
    let mut world = World::new(&[&many], "");
    assert_eq!(world.round().0.len(), ADDRESSES_MAX);
}

/// Worlds at random: each place is tried at most once in a pass, a session is found exactly if a place would have given one
/// before the list ended, and no round goes on without end.
#[test]
fn any_list_is_gone_through_once() {
    let mut random = Connector::new(ConnectorConfig::new(&Url::parse("postgresql://a").unwrap()), 7);
    let all = [Primary, Fenced, Standby, Absent, Silent, Refuses, Starts];
    for seed in 0..if cfg!(miri) { 20 } else { 3_000 } {
        let mut below = |limit: usize| usize::try_from(random.below(limit as u64)).unwrap();
        let servers: Vec<Vec<Server>> =
            (0..=below(4)).map(|_| (0..below(4)).map(|_| all[below(all.len())]).collect()).collect();
        let attrs = TargetSessionAttrs::ALL[below(6)];
        let order = ["disable", "random"][below(2)];
        let parameters =
            format!("target_session_attrs={}&load_balance_hosts={order}&connect_timeout=1", attrs.name());
        let hosts: Vec<&[Server]> = servers.iter().map(Vec::as_slice).collect();
        let mut world = World::seeded(&hosts, &parameters, seed);
        world.reports = below(2) == 0;
        let passes = if attrs == TargetSessionAttrs::PreferStandby { 2 } else { 1 };
        for _ in 0..3 {
            let (tried, end) = world.round();
            let context = format!("{servers:?} {parameters}: {tried:?} {end:?}");
            for place in &tried {
                let times = tried.iter().filter(|other| *other == place).count();
                assert!(times <= passes, "{context}");
            }
            if order == "disable" && passes == 1 {
                assert!(tried.is_sorted(), "{context}");
            }
            let will_do = |server: Server| match attrs {
                TargetSessionAttrs::Any | TargetSessionAttrs::PreferStandby => {
                    matches!(server, Primary | Fenced | Standby)
                }
                TargetSessionAttrs::ReadWrite => server == Primary,
                TargetSessionAttrs::ReadOnly => matches!(server, Fenced | Standby),
                TargetSessionAttrs::Primary => matches!(server, Primary | Fenced),
                TargetSessionAttrs::Standby => server == Standby,
            };
            match end {
                End::Session(place) => {
                    let (host, position) = place[1..].split_once('.').unwrap();
                    let server = servers[host.parse::<usize>().unwrap()][position.parse::<usize>().unwrap()];
                    assert!(will_do(server), "{context}");
                    world.connector.ended();
                    assert_eq!(world.round(), (vec![], End::None(None)));
                }
                End::None(_) => {
                    let is_unreachable =
                        |server: &Server| matches!(server, Absent | Silent) || !will_do(*server);
                    let has_refusal = servers.iter().flatten().any(|server| *server == Refuses);
                    // A host is left at its first server that answers.
                    let could_not = servers.iter().all(|host| {
                        let first = host.iter().find(|server| !matches!(server, Absent | Silent));
                        first.is_none_or(is_unreachable)
                    }) || order == "random" && servers.iter().any(|host| host.len() > 1);
                    assert!(has_refusal || could_not, "{context}");
                }
            }
        }
    }
}
