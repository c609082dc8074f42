//! TLS against a server of this file: rustls's own, and behind it PostgreSQL's answers, byte by byte. Every cut of both
//! streams, every kind of certificate, and what a batch comes to whose record has left in part.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use proto_pg::tls::{Tls, TlsConfig, TlsError, TlsMode, TlsNegotiation, TlsOptions, TlsRoot};
use proto_pg::{
    AuthenticationError, AuthenticationPolicy, ChannelBindingMode, CloseReason, Connection, Event, Limits,
    ProtocolVersion, Session, Statement, Value, oid,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

/// An authority, and what it signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, as a server has it.
struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Authority(
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("well-formed"))
                .expect("well-formed"),
        )
    }

    /// Signs a certificate for a name, valid up to this year.
    fn sign(&self, name: &str, until_year: i32) -> Identity {
        let mut params = CertificateParams::new([name.to_owned()]).expect("well-formed");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until_year, 1, 2);
        let key = KeyPair::generate().expect("well-formed");
        let certificate = params.signed_by(&key, &self.0).expect("well-formed");
        Identity {
            certificate: certificate.der().clone(),
            key: PrivateKeyDer::try_from(key.serialize_der()).expect("well-formed"),
        }
    }

    /// The options that trust it alone.
    fn trusted(&self, mode: TlsMode) -> TlsConfig {
        let mut options = TlsOptions::default();
        options.mode = mode;
        options.root = TlsRoot::File(PathBuf::from("root.pem"));
        let read = |_: &std::path::Path| Ok(self.0.pem().into_bytes());
        TlsConfig::new(&options, read).expect("well-formed").expect("well-formed")
    }
}

fn untrusting(mode: TlsMode, negotiation: TlsNegotiation) -> TlsConfig {
    let mut options = TlsOptions::default();
    options.mode = mode;
    options.negotiation = negotiation;
    TlsConfig::new(&options, |_| unreachable!("no file is named")).expect("well-formed").expect("well-formed")
}

/// A server that has TLS, and answers one statement.
struct Server {
    tls: ServerConnection,
    /// The question for TLS is yet to come.
    is_asked: bool,
    plain: Vec<u8>,
    has_started: bool,
    /// What it has to send.
    out: Vec<u8>,
}

impl Server {
    fn new(identity: &Identity, protocols: &[&[u8]], is_direct: bool) -> Server {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("well-formed")
            .with_no_client_auth()
            .with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key())
            .expect("well-formed");
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Server {
            tls: ServerConnection::new(Arc::new(config)).expect("well-formed"),
            is_asked: is_direct,
            plain: Vec::new(),
            has_started: false,
            out: Vec::new(),
        }
    }

    /// Takes bytes from the client, whose TLS may fail: then it says so by an alert.
    fn receive(&mut self, mut bytes: &[u8]) {
        if !self.is_asked && !bytes.is_empty() {
            self.plain.extend_from_slice(bytes);
            bytes = &[];
            if let Some(rest) = self.plain.strip_prefix(&[0, 0, 0, 8, 4, 210, 22, 47]) {
                assert!(rest.is_empty(), "nothing may follow the question");
                self.plain.clear();
                self.is_asked = true;
                self.out.push(b'S');
            }
        }
        while !bytes.is_empty() {
            self.tls.read_tls(&mut bytes).expect("well-formed");
            let Ok(state) = self.tls.process_new_packets() else { break };
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            self.tls.reader().read_exact(&mut plain).expect("well-formed");
            self.plain.extend(plain);
        }
        self.answer();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.out).expect("well-formed");
        }
    }

    /// The start-up is trusted; each Parse, each call and each Sync is answered.
    fn answer(&mut self) {
        if !self.has_started {
            let Some(len) = self.plain.first_chunk::<4>().map(|len| u32::from_be_bytes(*len) as usize) else {
                return;
            };
            if self.plain.len() < len {
                return;
            }
            self.plain.drain(..len);
            self.has_started = true;
            self.tls.writer().write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").expect("well-formed");
        }
        while let Some(&[tag, a, b, c, d]) = self.plain.first_chunk() {
            let len = 1 + u32::from_be_bytes([a, b, c, d]) as usize;
            if self.plain.len() < len {
                return;
            }
            self.plain.drain(..len);
            let answer: &[u8] = match tag {
                b'P' => b"1\0\0\0\x04",
                b'B' => b"2\0\0\0\x04",
                // A row that takes more than one record, so that the connection has no room for it at once.
                b'E' => &[
                    &b"D\0\0\x9c\x4a\0\x01\0\0\x9c\x40"[..],
                    "x".repeat(40_000).as_bytes(),
                    b"C\0\0\0\x0dSELECT 1\0",
                ]
                .concat(),
                b'S' => b"Z\0\0\0\x05I",
                other => panic!("message {other}"),
            };
            self.tls.writer().write_all(answer).expect("well-formed");
        }
    }
}

fn session() -> Session {
    Session {
        user: "alice".into(),
        password: None,
        database: "bank".into(),
        parameters: vec![],
        protocol: ProtocolVersion::default(),
    }
}

fn limits() -> Limits {
    Limits {
        message_len_max_bytes: 41_000,
        text_len_max_bytes: 1 << 20,
        send_len_max_bytes: 40_000,
        in_flight_calls_max: 4,
    }
}

fn connection() -> Connection<u32> {
    Connection::new(&session(), &[Statement::new("echo", "SELECT $1", &[oid::TEXT])], limits())
}

/// Drains the connection; rows are told by their length.
fn drain(tls: &mut Tls, connection: &mut Connection<u32>, log: &mut Vec<String>) {
    loop {
        while let Some(event) = connection.poll_event() {
            log.push(match event {
                Event::Row { ticket, row } => {
                    format!("{ticket}: {} characters", row.text(0).expect("well-formed").len())
                }
                Event::Done { ticket, tag } => format!("{ticket}: {tag}"),
                other => format!("{other:?}"),
            });
        }
        if !tls.exchange(connection) {
            return;
        }
    }
}

/// Moves bytes between both until neither has any. Each direction is cut once, at the byte of this number.
fn converse(
    tls: &mut Tls,
    connection: &mut Connection<u32>,
    server: &mut Server,
    cuts: [usize; 2],
) -> Vec<String> {
    let mut log = Vec::new();
    let (mut sent, mut received) = (0, 0);
    drain(tls, connection, &mut log);
    loop {
        let pending = tls.send_pending();
        if !connection.is_closing() && !pending.is_empty() {
            let n = if (sent + 1..sent + pending.len()).contains(&cuts[0]) {
                cuts[0] - sent
            } else {
                pending.len()
            };
            server.receive(&pending[..n]);
            tls.send_advance(n, connection);
            sent += n;
        } else if !server.out.is_empty() && !tls.recv_space().is_empty() {
            let space = tls.recv_space();
            let mut n = space.len().min(server.out.len());
            if (received + 1..received + n).contains(&cuts[1]) {
                n = cuts[1] - received;
            }
            space[..n].copy_from_slice(&server.out[..n]);
            tls.recv_commit(n);
            server.out.drain(..n);
            received += n;
        } else {
            return log;
        }
        tls.exchange(connection);
        drain(tls, connection, &mut log);
    }
}

fn log_in(config: &TlsConfig, server: &mut Server) -> (Tls, Connection<u32>, Vec<String>) {
    let (mut tls, mut connection) = (Tls::new(config, "db.example").expect("well-formed"), connection());
    let log = converse(&mut tls, &mut connection, server, [usize::MAX; 2]);
    (tls, connection, log)
}

/// How the log-in ends against a certificate.
fn end_against(config: &TlsConfig, identity: &Identity) -> Result<(), String> {
    let (tls, _, log) = log_in(config, &mut Server::new(identity, &[], false));
    match log.last() {
        Some(last) if last == "Ready" && tls.is_established() => Ok(()),
        other => Err(other.cloned().unwrap_or_default()),
    }
}

#[test]
fn a_call_at_every_cut_of_both_streams() {
    let authority = Authority::new("ours");
    let identity = authority.sign("db.example", 4000);
    let config = authority.trusted(TlsMode::VerifyFull);
    let text = "y".repeat(30_000);
    let mut longest = 0;
    let mut cut = 1;
    // Both handshakes and all of the session's small messages byte by byte; within the long records, some.
    while cut < 80_000 {
        let mut server = Server::new(&identity, &[b"postgresql"], false);
        let (mut tls, mut connection) = (Tls::new(&config, "db.example").expect("well-formed"), connection());
        assert_eq!(converse(&mut tls, &mut connection, &mut server, [cut; 2]), ["Ready"], "cut at {cut}");
        connection.call(7, 0, &[Value::Text(&text)]).expect("well-formed");
        connection.sync();
        let log = converse(&mut tls, &mut connection, &mut server, [cut; 2]);
        assert_eq!(log, ["7: 40000 characters", "7: SELECT 1", "Committed"], "cut at {cut}");
        longest = cut;
        cut += if cut < 1_500 { 1 } else { 1_021 };
    }
    assert!(longest > 70_000);
}

#[test]
fn each_mode_asks_for_its_proof() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("another"));
    let right = authority.sign("db.example", 4000);
    let of_another = authority.sign("other.example", 4000);
    let expired = authority.sign("db.example", 2021);
    let unknown = stranger.sign("db.example", 4000);

    let full = authority.trusted(TlsMode::VerifyFull);
    assert_eq!(end_against(&full, &right), Ok(()));
    let problem = |identity| end_against(&full, identity).unwrap_err();
    assert!(problem(&of_another).contains("it is for another host"), "{}", problem(&of_another));
    assert!(problem(&expired).contains("it expired on 2021-01-02T00:00:00Z"), "{}", problem(&expired));
    assert!(problem(&unknown).contains("signed by nobody in sslrootcert"), "{}", problem(&unknown));

    let authority_alone = authority.trusted(TlsMode::VerifyCa);
    assert_eq!(end_against(&authority_alone, &of_another), Ok(()));
    assert!(end_against(&authority_alone, &unknown).unwrap_err().contains("signed by nobody"));
    // Who names a root wants it to count.
    let with_root = authority.trusted(TlsMode::Require);
    assert!(end_against(&with_root, &unknown).unwrap_err().contains("signed by nobody"));

    let any = untrusting(TlsMode::Require, TlsNegotiation::Postgres);
    assert_eq!(end_against(&any, &unknown), Ok(()));
    assert_eq!(end_against(&any, &expired), Ok(()));
}

#[test]
fn a_server_without_tls_is_refused_unless_the_mode_can_do_without() {
    for (mode, log) in [(TlsMode::Require, "[Closed { reason: Tls(Refused) }]"), (TlsMode::Prefer, "[Ready]")]
    {
        let config = untrusting(mode, TlsNegotiation::Postgres);
        let (mut tls, mut connection) = (Tls::new(&config, "db.example").expect("well-formed"), connection());
        let mut told = Vec::new();
        drain(&mut tls, &mut connection, &mut told);
        assert_eq!(tls.send_pending(), [0, 0, 0, 8, 4, 210, 22, 47]);
        tls.send_advance(8, &mut connection);
        // One byte and no more: what is behind the answer could be anybody's.
        assert_eq!(tls.recv_space().len(), 1);
        let mut answers: Vec<u8> = b"NR\0\0\0\x08\0\0\0\0Z\0\0\0\x05I1\0\0\0\x04Z\0\0\0\x05I".to_vec();
        while !answers.is_empty() && !tls.recv_space().is_empty() {
            let n = tls.recv_space().len().min(answers.len()).min(18);
            tls.recv_space()[..n].copy_from_slice(&answers[..n]);
            tls.recv_commit(n);
            answers.drain(..n);
            tls.exchange(&mut connection);
            drain(&mut tls, &mut connection, &mut told);
            let pending = tls.send_pending().len();
            tls.send_advance(pending, &mut connection);
        }
        assert_eq!(format!("[{}]", told.join(", ")), log);
        assert!(!tls.is_established());
    }
}

#[test]
fn an_answer_that_is_none_ends_the_connection() {
    let config = untrusting(TlsMode::Prefer, TlsNegotiation::Postgres);
    let (mut tls, mut connection) = (Tls::new(&config, "db.example").expect("well-formed"), connection());
    tls.send_advance(8, &mut connection);
    tls.recv_space()[0] = b'E';
    tls.recv_commit(1);
    tls.exchange(&mut connection);
    assert!(matches!(
        connection.poll_event(),
        Some(Event::Closed { reason: CloseReason::Tls(TlsError::NoAnswer(b'E')) })
    ));
}

#[test]
fn direct_tls_asks_for_the_protocol() {
    let identity = Authority::new("ours").sign("db.example", 4000);
    let config = untrusting(TlsMode::Require, TlsNegotiation::Direct);
    let (_, _, log) = log_in(&config, &mut Server::new(&identity, &[b"postgresql"], true));
    assert_eq!(log, ["Ready"]);
    let (_, _, log) = log_in(&config, &mut Server::new(&identity, &[], true));
    assert_eq!(log, ["Closed { reason: Tls(ApplicationProtocol) }"]);

    let mut options = TlsOptions::default();
    options.negotiation = TlsNegotiation::Direct;
    let error = TlsConfig::new(&options, |_| unreachable!("no file is named")).unwrap_err();
    assert_eq!(error, TlsError::DirectNeedsRequire);
}

#[test]
fn a_batch_is_in_doubt_once_its_last_record_has_left_whole() {
    let identity = Authority::new("ours").sign("db.example", 4000);
    let config = untrusting(TlsMode::Require, TlsNegotiation::Postgres);
    for (missing, verdict) in [(1, "RolledBack { ticket: 7 }"), (0, "InDoubt { ticket: 7 }")] {
        let (mut tls, mut connection, _) = log_in(&config, &mut Server::new(&identity, &[], false));
        connection.call(7, 0, &[Value::Text("y")]).expect("well-formed");
        connection.sync();
        tls.exchange(&mut connection);
        let n = tls.send_pending().len() - missing;
        tls.send_advance(n, &mut connection);
        connection.close(CloseReason::PeerClosed);
        let mut log = Vec::new();
        drain(&mut tls, &mut connection, &mut log);
        assert_eq!(log[0], verdict);
    }
}

#[test]
fn the_end_that_the_server_says_counts_after_the_answers_before_it() {
    let identity = Authority::new("ours").sign("db.example", 4000);
    let config = untrusting(TlsMode::Require, TlsNegotiation::Postgres);
    let mut server = Server::new(&identity, &[], false);
    let (mut tls, mut connection, _) = log_in(&config, &mut server);
    for ticket in [7, 8] {
        connection.call(ticket, 0, &[Value::Text("y")]).expect("well-formed");
        connection.sync();
        tls.exchange(&mut connection);
        let n = tls.send_pending().len();
        if ticket == 7 {
            server.receive(tls.send_pending());
        }
        tls.send_advance(n, &mut connection);
    }
    server.tls.send_close_notify();
    server.receive(&[]);
    // More than there is room for: its bytes are read and dropped, so that the transport comes to its end.
    server.out.extend(vec![0; 50_000]);
    let log = converse(&mut tls, &mut connection, &mut server, [usize::MAX; 2]);
    let ends = ["7: 40000 characters", "7: SELECT 1", "Committed", "InDoubt { ticket: 8 }"];
    assert_eq!(log[..4], ends);
    assert_eq!(log[4..], ["Closed { reason: PeerClosed }"]);
    assert!(server.out.is_empty());
}

#[test]
fn a_changed_record_ends_the_connection() {
    let identity = Authority::new("ours").sign("db.example", 4000);
    let config = untrusting(TlsMode::Require, TlsNegotiation::Postgres);
    let mut server = Server::new(&identity, &[], false);
    let (mut tls, mut connection, _) = log_in(&config, &mut server);
    connection.call(7, 0, &[Value::Text("y")]).expect("well-formed");
    connection.sync();
    tls.exchange(&mut connection);
    let n = tls.send_pending().len();
    server.receive(tls.send_pending());
    tls.send_advance(n, &mut connection);
    server.out[100] ^= 1;
    let log = converse(&mut tls, &mut connection, &mut server, [usize::MAX; 2]);
    assert_eq!(log[0], "InDoubt { ticket: 7 }");
    assert!(log[1].contains("Protocol("), "{}", log[1]);
}

#[test]
fn channel_binding_that_is_required_refuses_a_server_that_asks_for_nothing() {
    let identity = Authority::new("ours").sign("db.example", 4000);
    let config = untrusting(TlsMode::Require, TlsNegotiation::Postgres);
    let mut policy = AuthenticationPolicy::default();
    policy.channel_binding = ChannelBindingMode::Require;
    let mut connection = connection().with_policy(policy);
    let mut tls = Tls::new(&config, "db.example").expect("well-formed");
    let log = converse(&mut tls, &mut connection, &mut Server::new(&identity, &[], false), [usize::MAX; 2]);
    let reason = CloseReason::Authentication(AuthenticationError::ChannelBindingMissing);
    assert_eq!(log, [format!("Closed {{ reason: {reason:?} }}")]);
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let with = |root: TlsRoot, mode, content: &'static str| {
        let mut options = TlsOptions::default();
        (options.mode, options.root) = (mode, root);
        TlsConfig::new(&options, |_| Ok(content.as_bytes().to_vec())).unwrap_err().to_string()
    };
    let file = || TlsRoot::File(PathBuf::from("/etc/root.pem"));
    assert_eq!(
        with(file(), TlsMode::VerifyFull, "nothing"),
        "sslrootcert: /etc/root.pem: it holds no certificate in PEM"
    );
    assert!(
        with(TlsRoot::None, TlsMode::VerifyCa, "")
            .starts_with("sslmode verify-ca and verify-full need sslrootcert")
    );
}
