//! `proto-pg` by itself against real PostgreSQL: its example, and the sessions whose recordings its own tests play.

#[path = "../proto-pg/examples/copy.rs"]
#[expect(dead_code, reason = "the command line of the example is not its copying")]
mod copy;
#[path = "../proto-pg/examples/mio.rs"]
#[expect(dead_code, reason = "the command line of the example is not its event loop")]
mod event_loop;
#[path = "../proto-pg/examples/query.rs"]
#[expect(dead_code, reason = "the command line of the example is not its query")]
mod query;
#[path = "../proto-pg/examples/tour.rs"]
#[expect(dead_code, reason = "the command line of the example is not its tour")]
mod tour;
#[path = "../proto-pg/tests/sessions/mod.rs"]
#[expect(dead_code, reason = "the messages of a pipeline are of interest to what plays the recordings")]
mod sessions;
mod support;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::{env, fs};

use proto_pg::{Connection, Event, Host, Limits, ProtocolVersion, Session, SqlState, Url, Value, oid};
use rinha::config::Config;
use rinha::engine::lane::session::HISTORY;
use rinha::engine::lane::statements::STATEMENTS;
use sessions::{Exchange, Scene};
use stress::throwaway::Throwaway;
use stress::{Postgres, PostgresOptions};
use support::{Database, workspace};

#[test]
fn the_readme_names_this_version_and_every_example() {
    let manifest = support::text_of("proto-pg/Cargo.toml");
    let (_, rest) = manifest.split_once("\nversion = \"").expect("a version");
    let (version, _) = rest.split_once('"').expect("its end");
    let (compatible, _patch) = version.rsplit_once('.').expect("three numbers");
    let readme = support::text_of("proto-pg/README.md");
    for text in [&readme, &support::text_of("proto-pg/src/lib.rs")] {
        assert!(text.contains(&format!("proto-pg = {{ version = \"{compatible}\",")), "{compatible}");
    }
    for entry in fs::read_dir(workspace().join("proto-pg/examples")).expect("list the examples") {
        let file = entry.expect("an entry").file_name();
        let file = file.to_str().expect("a name in UTF-8");
        assert!(readme.contains(&format!("](examples/{file})")), "{file} is not in the table");
    }
}

#[test]
fn the_example_queries_a_real_server() {
    let mut out = Vec::new();
    query::run(&Database::empty().url(), &mut out).expect("a committed answer");
    let expected =
        "three: 1 1\nthree: 2 4\nthree: 3 9\nfive: 1 1\nfive: 2 4\nfive: 3 9\nfive: 4 16\nfive: 5 25\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn the_example_tells_why_it_has_no_answer() {
    let url = Database::empty().url().replace("/test_", "/nowhere_");
    let error = query::run(&url, &mut Vec::new()).expect_err("there is no such database");
    assert!(error.to_string().starts_with("server error: FATAL 3D000: database \"nowhere_"), "{error}");
}

#[test]
fn the_tour_is_taken_with_a_password() {
    let directory = Throwaway::new("test").expect("a directory");
    let rules = directory.path().join("hba.conf");
    fs::write(&rules, "local all rinha trust\nlocal all guest scram-sha-256\n").expect("write the rules");
    let settings = vec![("hba_file".to_owned(), rules.display().to_string())];
    let options = PostgresOptions { settings, ..PostgresOptions::default() };
    let postgres = Postgres::start(&options).expect("start a private PostgreSQL");
    let mut admin = postgres.connect("postgres").expect("connect");
    admin.batch_execute("CREATE ROLE guest LOGIN PASSWORD 'sesame'").expect("make a role");

    let mut said = Vec::new();
    let url = postgres.url("postgres").replace("//rinha@", "//guest:sesame@");
    tour::run(&url, &mut |line| said.push(line)).expect("the whole tour");
    let expected = [
        "table: CREATE TABLE",
        "table: LISTEN",
        "Mia: INSERT 0 1",
        "Tom: INSERT 0 1",
        "Leo: INSERT 0 1",
        "another Mia: one_of_a_name is taken",
        "Leo: not done",
        "Max: not done",
        "all: 1 Mia true weighs 4.20, born Some(19782), chip [ab, ab], Some(Jsonb(\"{\\\"colour\\\": \\\"black\\\"}\"))",
        "all: 2 Tom true weighs 4.20, born Some(19782), chip [ab, ab], None",
        "all: SELECT 2",
        "tell: SELECT 1",
        "pets: two of them",
        "copy: 1\\tMia\\n",
        "copy: 2\\tTom\\n",
        "copy: COPY 2",
        "sleep: ERROR 57014: canceling statement due to user request",
    ];
    assert_eq!(said, expected);
    let error = tour::run(&url.replace("sesame", "wrong"), &mut |_| {}).expect_err("a wrong password");
    assert!(error.to_string().starts_with("server error: FATAL 28P01"), "{error}");
}

#[test]
fn the_event_loop_tells_what_is_notified() {
    let database = Database::empty();
    let mut notifier = database.connect();
    let mut said = Vec::new();
    // A name that has to be quoted.
    event_loop::run(&database.url(), "Pets \"R\" us", &mut |line| {
        if said.is_empty() {
            let notify = "SELECT pg_notify($1, payload) FROM unnest(ARRAY['Mia', 'Tom']) AS payload";
            notifier.execute(notify, &[&"Pets \"R\" us"]).expect("notify");
        }
        said.push(line);
        said.len() < 3
    })
    .expect("it ends when it is told to");
    assert_eq!(said, ["listening to Pets \"R\" us", "Mia", "Tom"]);
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    support::wait_for("the end of the session", || (database.number(sessions) == 1).then_some(()));
    drop(notifier);

    let nowhere = database.url().replace("/test_", "/nowhere_");
    let error = event_loop::run(&nowhere, "pets", &mut |_| true).expect_err("there is no such database");
    assert!(error.to_string().starts_with("server error: FATAL 3D000"), "{error}");
}

#[test]
fn what_is_copied_in_comes_out_again_however_long_its_rows() {
    let url = Database::empty().url();
    let long = "long ".repeat(50_000);
    let csv = format!("1,one\n2,\"two, in quotes\"\n3,{long}\n4,\n");
    let mut out = Vec::new();
    let rows = copy::run(&url, &mut csv.as_bytes(), &mut out).expect("it is copied");
    assert_eq!((rows, String::from_utf8(out).unwrap() == csv), (4, true));

    // The server gives up early, and takes the rest of the data all the same.
    let bad = format!("none,{long}\n").repeat(20);
    let error = copy::run(&url, &mut bad.as_bytes(), &mut Vec::new()).expect_err("not a number");
    assert!(error.to_string().starts_with("ERROR 22P02: invalid input syntax for type integer"), "{error}");
    let mut broken = std::io::Read::chain(&b"1,one\n"[..], Broken);
    let error = copy::run(&url, &mut broken, &mut Vec::new()).expect_err("it cannot be read");
    assert!(error.to_string().starts_with("ERROR 57014") && error.to_string().contains("torn"), "{error}");
}

/// Input that cannot be read.
struct Broken;

impl std::io::Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other("torn"))
    }
}

/// From PostgreSQL 18 on, protocol 3.2 has a long key; an older server brings it down to 3.0.
#[test]
fn a_cancel_request_reaches_its_session_in_either_protocol() {
    let database = Database::empty();
    let has_long_keys = major(&database) >= 18;
    let url = Url::parse(&database.url()).expect("the URL of a private PostgreSQL");
    let [Host::Unix { socket_path }] = &url.hosts[..] else { panic!("{:?} is no socket", url.hosts) };
    for (protocol, is_long) in [(ProtocolVersion::V3_0, false), (ProtocolVersion::V3_2, has_long_keys)] {
        let session = Session { protocol, ..url.session("nobody") };
        let mut socket = UnixStream::connect(socket_path).expect("connect");
        socket.set_read_timeout(Some(support::wire::PATIENCE)).expect("a socket takes a timeout");
        let mut connection: Connection<u32> = Connection::new(&session, &[], Limits::DEFAULT);
        let mut failed = None;
        while failed.is_none() {
            let mut is_asleep = false;
            let mut is_ready = false;
            while let Some(event) = connection.poll_event() {
                match event {
                    Event::Ready => is_ready = true,
                    Event::Notice(_) => is_asleep = true,
                    Event::Failed { error, .. } => failed = Some(error.code),
                    Event::Closed { reason } => panic!("{reason}"),
                    _ => {}
                }
            }
            if is_ready {
                let sleep = "DO $$ BEGIN RAISE NOTICE 'asleep'; PERFORM pg_sleep(600); END $$";
                connection.simple_query(1, sleep).expect("there is room");
            }
            if is_asleep {
                let key = connection.backend_key().expect("a key");
                assert_eq!(key.secret_key.len() > 4, is_long, "{protocol:?}");
                let mut canceller = UnixStream::connect(socket_path).expect("connect");
                canceller.write_all(&key.cancel_request()).expect("send");
            }
            socket.write_all(&sessions::take_pending(&mut connection)).expect("send");
            if failed.is_none() {
                let n = socket.read(connection.recv_space()).expect("receive");
                connection.recv_commit(n);
            }
        }
        assert_eq!(failed, Some(SqlState::QUERY_CANCELED), "{protocol:?}");
        assert_eq!(
            connection.protocol(),
            if is_long { ProtocolVersion::V3_2 } else { ProtocolVersion::V3_0 }
        );
    }
}

/// The constants of `SqlState` are those of `errcodes.txt`, which each server brings along. A newer server may have more;
/// `RECORD=sqlstates` writes the list of the server that the tests use.
#[test]
fn sqlstates_are_those_of_postgresql() {
    let database = Database::empty();
    let mut client = database.connect();
    let row =
        client.query_one("SELECT setting FROM pg_config WHERE name = 'SHAREDIR'", &[]).expect("its place");
    let path = Path::new(row.get::<_, &str>(0)).join("errcodes.txt");
    let list = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let version = major(&database);
    let source = workspace().join("proto-pg/src/sqlstates.rs");
    if env::var_os("RECORD").is_some_and(|what| what == "sqlstates") {
        fs::write(&source, sqlstates(&list, version)).expect("write the list");
    }
    let recorded = fs::read_to_string(&source).expect("read the list");
    if recorded.starts_with(&sqlstates("", version)[..60]) {
        assert_eq!(recorded, sqlstates(&list, version));
    }
    let constants = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.contains("pub const")).map(str::to_owned).collect()
    };
    let (known, expected) = (constants(&recorded), constants(&sqlstates(&list, version)));
    assert!(expected.len() > 250, "{} codes in {}", expected.len(), path.display());
    let missing: Vec<&String> = expected.iter().filter(|constant| !known.contains(constant)).collect();
    assert_eq!(missing, [""; 0], "codes of PostgreSQL {version} that SqlState has no constant for");
}

/// What servers up to a version could say and newer ones have no name for.
const RETIRED: [(&str, &str); 1] = [("72000", "snapshot_too_old")];

/// The source with the constants of this list.
fn sqlstates(list: &str, version: i64) -> String {
    let head = format!(
        "//! The SQLSTATE codes of PostgreSQL {version}. Written by a test from the `errcodes.txt` of the server that it runs with:\n\
         //! `RECORD=sqlstates cargo test --test proto_pg sqlstates`.\n\n\
         use crate::error::SqlState;\n\nimpl SqlState {{\n"
    );
    let constant = |code: &str, name: &str, condition: &str| {
        let words = condition.replace('_', " ");
        format!("    /// `{code}`: {words}.\n    pub const {name}: SqlState = SqlState::new(*b\"{code}\");\n")
    };
    let fields = |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
    let lines: Vec<Vec<String>> = list.lines().filter(|line| !line.starts_with('#')).map(fields).collect();
    let current = lines.iter().map(|line| match &line[..] {
        [first, section @ ..] if first == "Section:" => format!("    // {}\n", section.join(" ")),
        // What has no condition name is another macro for a code that has one.
        [code, _kind, macro_name, condition] => {
            // As a warning and as an error, or of two classes: then the macro tells them apart.
            let is_unique = lines.iter().filter(|other| other.get(3) == Some(condition)).count() == 1;
            let macro_name = macro_name.strip_prefix("ERRCODE_").expect("a macro of an error code");
            let name = if is_unique { &condition.to_uppercase() } else { macro_name };
            constant(code, name, condition)
        }
        _ => String::new(),
    });
    let retired = RETIRED
        .into_iter()
        .filter(|(code, _)| lines.iter().all(|line| line.first().is_none_or(|first| first != code)));
    let retired = retired.map(|(code, condition)| {
        let constant = constant(code, &condition.to_uppercase(), condition);
        format!("    // No longer in PostgreSQL {version}\n{constant}")
    });
    let constants: String = current.chain(retired).collect();
    format!("{head}{constants}}}\n")
}

#[test]
fn the_types_have_the_names_that_postgresql_gives_them() {
    let rows = Database::empty()
        .connect()
        .query("SELECT oid, format_type(oid, NULL) FROM pg_type WHERE oid < 10000", &[])
        .expect("the types");
    let (mut named, mut unknown) =
        (0, (0..10_000).filter(|oid| rows.iter().all(|row| row.get::<_, u32>(0) != *oid)));
    for row in &rows {
        let (oid, name): (u32, &str) = (row.get(0), row.get(1));
        if let Some(known) = oid::name(oid) {
            assert_eq!(known, name, "type {oid}");
            named += 1;
        }
    }
    assert_eq!(unknown.find_map(oid::name), None);
    assert!(named > 35, "{named} types");
}

/// Has a session with the server behind this URL.
fn perform(scene: &Scene, url: &str) -> Vec<Exchange> {
    let url = Url::parse(url).expect("the URL of a private PostgreSQL");
    let [Host::Unix { socket_path }] = &url.hosts[..] else { panic!("{:?} is no socket", url.hosts) };
    let mut socket = UnixStream::connect(socket_path).expect("connect");
    socket.set_read_timeout(Some(support::wire::PATIENCE)).expect("a socket takes a timeout");
    let mut connection = scene.connection(&url.session("nobody"));
    // The start-up message, which a recording leaves out.
    socket.write_all(&sessions::take_pending(&mut connection)).expect("send");
    let (mut exchanges, mut log) = (Vec::new(), Vec::new());
    for turn in 0..=scene.turns.len() {
        if turn > 0 {
            scene.turns[turn - 1](&mut connection);
        }
        let mut exchange = Exchange::default();
        loop {
            let bytes = sessions::take_pending(&mut connection);
            socket.write_all(&bytes).expect("send");
            exchange.client.extend(bytes);
            let is_idle =
                connection.batches_in_flight() == 0 && !connection.has_open_batch() && connection.is_ready();
            if is_idle || exchange.awaits_owner() || connection.is_closing() {
                break;
            }
            let space = connection.recv_space();
            let n = socket.read(space).expect("receive");
            assert!(n > 0, "{}: the server closed without a word", scene.name);
            exchange.server.extend_from_slice(&space[..n]);
            connection.recv_commit(n);
            sessions::drain(&mut connection, &mut log);
        }
        exchanges.push(exchange);
    }
    scene.check(connection, log);
    exchanges
}

/// Has a session, and compares it with the recording of this version: the client's half has to be what is said today, the
/// server's half depends on its minor version. With the environment variable `RECORD` set to `record`, both are
/// written anew.
fn check(scene: &Scene, database: &Database, directory: &str, record: &str) {
    let recording = workspace().join(directory).join(format!("{}.txt", scene.name.replace(' ', "_")));
    let exchanges = perform(scene, &database.url());
    if env::var_os("RECORD").is_some_and(|what| what == record) {
        sessions::write(&recording, &exchanges);
    }
    let said = |exchanges: Vec<Exchange>| -> Vec<Vec<u8>> {
        exchanges.into_iter().map(|exchange| exchange.client).collect()
    };
    assert_eq!(said(exchanges), said(sessions::read(&recording)), "{}", scene.name);
}

/// The major version of the server.
fn major(database: &Database) -> i64 {
    database.number("SELECT current_setting('server_version_num')::bigint / 10000")
}

#[test]
fn what_was_recorded_still_happens() {
    for scene in sessions::scenes() {
        let database = Database::empty();
        if !scene.setup.is_empty() {
            database.execute(scene.setup);
        }
        check(scene, &database, &format!("proto-pg/tests/recorded/{}", major(&database)), "sessions");
    }
}

/// What a lane sets with the default settings of the server.
fn settings() -> Vec<(&'static str, String)> {
    let config = Config::from_environment(|name| match name {
        "DATABASE_URL" => Some("postgresql://rinha@localhost/rinha".to_owned()),
        "LISTEN" => Some("127.0.0.1:0".to_owned()),
        _ => None,
    });
    config.expect("the settings are valid").session_settings
}

#[test]
fn what_was_recorded_of_the_bank_still_happens() {
    let database = Database::new();
    let system = database.number("SELECT system_identifier FROM pg_control_system()");
    let history = format!("TextRow 9 {system} 1 f");
    let scene = Scene {
        name: "bank",
        setup: "",
        protocol: ProtocolVersion::V3_0,
        // Without a reader the last one is not prepared.
        statements: STATEMENTS.split_last().expect("there are some").1,
        turns: &[
            |connection| connection.simple_query(9, HISTORY).expect("there is room"),
            |connection| {
                let settings = settings();
                let (names, values): (Vec<&str>, Vec<&str>) =
                    settings.iter().map(|(name, value)| (*name, value.as_str())).unzip();
                let settings = [Value::TextArray(&names), Value::TextArray(&values)];
                connection.call(0, 4, &settings).expect("there is room");
                connection.call(1, 3, &[Value::Int8(10_001)]).expect("there is room");
                connection.sync();
            },
            |connection| {
                let credit = [Value::Int4(1), Value::Int4(10), Value::Text("c"), Value::Text("a")];
                connection.call(2, 0, &credit).expect("there is room");
                connection.sync();
            },
            |connection| {
                let set = [
                    Value::Int4Array(&[1, 2]),
                    Value::Int4Array(&[100_011, 5]),
                    Value::TextArray(&["d", "c"]),
                    Value::TextArray(&["refused", "é"]),
                ];
                connection.call(3, 1, &set).expect("there is room");
                connection.call(4, 2, &[Value::Int4(1)]).expect("there is room");
                connection.sync();
            },
        ],
        // A scene is made once and for all.
        events: vec![
            "Ready",
            "Columns 9 system_identifier 20 case 23 ?column? 16",
            history.leak(),
            "Done 9 SELECT 1",
            "Committed",
            "Row 0",
            "Done 0 SELECT 1",
            "Row 1",
            "Row 1",
            "Row 1",
            "Row 1",
            "Row 1",
            "Done 1 SELECT 5",
            "Committed",
            "Row 2",
            "Done 2 SELECT 1",
            "Committed",
            "Row 3",
            "Done 3 SELECT 1",
            "Row 4",
            "Done 4 SELECT 1",
            "Committed",
            "Closed",
        ]
        .leak(),
    };
    check(&scene, &database, "tests/recorded", "bank");
}
