//! Several hosts of which one is the primary: a real one, and a hot standby made with `pg_basebackup`.

#[path = "../proto-pg/examples/failover.rs"]
#[expect(dead_code, reason = "the command line of the example is not its client")]
mod failover;
mod support;

use failover::{Client, Outcome};
use proto_pg::Url;
use stress::{Instance, Postgres, PostgresOptions, Readiness};
use support::bank::options;
use support::{Wire, get, transaction, wait_for, workspace};

/// What a server needs to have standbys.
fn replicates() -> PostgresOptions {
    let settings = [("wal_level", "replica"), ("max_wal_senders", "4"), ("shared_buffers", "32MB")];
    PostgresOptions {
        settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        ..PostgresOptions::default()
    }
}

/// A primary with its standby.
fn pair() -> [Postgres; 2] {
    let primary = Postgres::start(&replicates()).expect("start a primary");
    primary.create_bank("rinha", &workspace().join("sql")).expect("make the bank");
    primary.apply_sql("rinha", &workspace().join("sql/durable")).expect("log the tables");
    let standby = primary.start_standby().expect("start a standby");
    [primary, standby]
}

/// A URL of these servers, in this order.
fn url_of(servers: &[&Postgres], parameters: &str) -> String {
    let hosts: Vec<String> = servers
        .iter()
        .map(|server| server.url("rinha").split_once("?host=").expect("a host").1.to_owned())
        .collect();
    format!("postgresql://rinha@/rinha?host={}&{parameters}", hosts.join(","))
}

/// The cases of PostgreSQL's `001_stream_rep.pl`: which of the two is found, in both orders.
#[test]
fn each_kind_of_session_is_found_on_a_real_primary_and_its_standby() {
    let [primary, standby] = pair();
    let is_in_recovery = |url: &str| {
        let mut client = Client::new(&Url::parse(url).unwrap());
        let mut session = match client.next_session() {
            Ok(session) => session,
            Err((_, error)) => return Err(error.expect("a reason").to_string()),
        };
        match session.query("SELECT pg_is_in_recovery()") {
            Outcome::Answer(answer) => Ok(answer),
            Outcome::Refused(error) | Outcome::Lost { reason: error, .. } => panic!("{error}"),
        }
    };
    for (attrs, first_primary, first_standby) in [
        ("any", "f", "t"),
        ("read-write", "f", "f"),
        ("primary", "f", "f"),
        ("read-only", "t", "t"),
        ("standby", "t", "t"),
        ("prefer-standby", "t", "t"),
    ] {
        let parameter = format!("target_session_attrs={attrs}");
        for (servers, expected) in
            [([&primary, &standby], first_primary), ([&standby, &primary], first_standby)]
        {
            assert_eq!(is_in_recovery(&url_of(&servers, &parameter)), Ok(expected.to_owned()), "{attrs}");
        }
    }
    let alone = |server: &Postgres, attrs: &str| {
        is_in_recovery(&url_of(&[server, server], &format!("target_session_attrs={attrs}")))
    };
    assert_eq!(alone(&primary, "prefer-standby"), Ok("f".to_owned()), "rather than none");
    let error = alone(&standby, "read-write").unwrap_err();
    assert!(error.contains(".s.PGSQL.5432: the session is read-only; "), "{error}");
    assert!(error.ends_with("name the primary too"), "{error}");
    assert!(alone(&standby, "primary").unwrap_err().contains("every host is a standby"));
    assert!(alone(&primary, "standby").unwrap_err().contains("no host is a standby"));

    // A primary that is read-only by default is no standby, and takes no writes.
    let mut admin = primary.connect("postgres").unwrap();
    admin.batch_execute("ALTER ROLE rinha SET default_transaction_read_only = on").unwrap();
    assert_eq!(alone(&primary, "primary"), Ok("f".to_owned()));
    assert_eq!(alone(&primary, "read-only"), Ok("f".to_owned()));
    assert!(alone(&primary, "read-write").unwrap_err().contains("every host is a standby or read-only"));
}

#[test]
fn the_example_goes_on_with_the_next_primary() {
    let [mut primary, standby] = pair();
    let url = url_of(&[&primary, &standby], "target_session_attrs=read-write");
    let mut client = Client::new(&Url::parse(&url).unwrap());
    let place = |server: &Postgres| server.url("").split_once("?host=").unwrap().1.to_owned();
    let (first, second) = (place(&primary), place(&standby));
    for _ in 0..2 {
        let said = client.beat();
        assert!(said.starts_with(&first) && said.contains(": transaction "), "{said}");
    }
    primary.kill();
    let said = client.beat();
    assert!(said.contains("the write is "), "it may have been on its way: {said}");
    standby.promote().expect("promote the standby");
    let said = wait_for("the next primary", || {
        let said = client.beat();
        said.contains(": transaction ").then_some(said)
    });
    assert!(said.starts_with(&second), "{said}");
}

fn start(url: &str, readiness: Readiness) -> Instance {
    let mut options = options(url, &[("QUEUE_TIMEOUT_MS", "300"), ("METRICS_LISTEN", "127.0.0.1:0")]);
    options.readiness = readiness;
    Instance::start(&options).expect("start the server")
}

fn wire_to(instance: &Instance) -> Wire {
    Wire::connect(&instance.addresses().swap_remove(0))
}

#[test]
fn the_server_finds_the_primary_among_its_hosts() {
    let [primary, standby] = pair();
    let mut credited = 0;
    for servers in [[&primary, &standby], [&standby, &primary]] {
        for parameters in [
            "",
            "target_session_attrs=any",
            "target_session_attrs=read-write",
            "target_session_attrs=primary",
            "target_session_attrs=read-write&load_balance_hosts=random",
        ] {
            let url = url_of(&servers, parameters);
            credited += 1;
            let instance = start(&url, Readiness::Healthy);
            assert_eq!(wire_to(&instance).ask(transaction(1, 1, "c", "a")).balance(), credited, "{url}");
        }
    }
}

#[test]
fn hosts_that_are_all_standbys_are_named_with_the_remedy_until_one_is_promoted() {
    let [primary, standby] = pair();
    for (attrs, why) in [
        ("any", "DATABASE_URL must name a primary"),
        (
            "read-write",
            "every host is a standby or read-only, but target_session_attrs is read-write: name the primary",
        ),
        ("primary", "every host is a standby, but target_session_attrs is primary: name the primary"),
    ] {
        let url = url_of(&[&standby, &standby], &format!("target_session_attrs={attrs}"));
        let instance = start(&url, Readiness::Listening);
        wait_for(&format!("{why:?} in {}", instance.log()), || instance.log().contains(why).then_some(()));
        let answer = wire_to(&instance).ask(transaction(1, 1, "c", "a"));
        assert_eq!(answer.status, 503);
        assert!(answer.text().contains("the database takes no writes"), "{}", answer.text());
    }
    let instance =
        start(&url_of(&[&standby, &standby], "target_session_attrs=read-write"), Readiness::Listening);
    drop(primary);
    standby.promote().expect("promote the standby");
    let mut wire = wire_to(&instance);
    wait_for("a primary", || (wire.ask(get("/healthz")).status == 200).then_some(()));
    assert_eq!(wire.ask(transaction(1, 1, "c", "a")).status, 200);
}

/// Waits until the standby has everything that the primary has.
fn catch_up(primary: &Postgres, standby: &Postgres) {
    // Commits are asynchronous: what is written may be less than what was done.
    let position = "SELECT pg_current_wal_insert_lsn()::text";
    let position: String =
        primary.connect("postgres").expect("connect").query_one(position, &[]).expect("ask").get(0);
    let is_there = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'");
    let mut client = standby.connect("postgres").expect("connect");
    wait_for("the standby", || {
        client.query_one(&is_there, &[]).expect("ask").get::<_, bool>(0).then_some(())
    });
}

#[test]
fn the_server_follows_a_switchover_and_no_transaction_is_lost() {
    for attrs in ["any", "read-write"] {
        let [mut primary, standby] = pair();
        let url = url_of(&[&primary, &standby], &format!("target_session_attrs={attrs}"));
        let instance = start(&url, Readiness::Healthy);
        let mut wire = wire_to(&instance);
        assert_eq!(wire.ask(transaction(1, 1, "c", "a")).balance(), 1);
        catch_up(&primary, &standby);
        primary.demote().expect("make a standby of the primary");
        assert_ne!(wire.ask(transaction(1, 1, "c", "nowhere")).status, 200, "there is no primary");
        standby.promote().expect("promote the standby");
        wait_for("the next primary", || (wire.ask(get("/healthz")).status == 200).then_some(()));
        assert_eq!(wire.ask(transaction(1, 1, "c", "b")).balance(), 2);
    }
}

#[test]
fn an_old_primary_is_refused_once_a_newer_one_was_seen() {
    let [old, mut new] = pair();
    let instance = start(&url_of(&[&new, &old], ""), Readiness::Healthy);
    let mut wire = wire_to(&instance);
    assert_eq!(wire.ask(transaction(1, 1, "c", "a")).balance(), 1);
    catch_up(&old, &new);
    // Nobody stops the old one.
    new.promote().expect("promote the standby");
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rinha'";
    old.connect("postgres").expect("connect").batch_execute(cut).expect("cut the session");
    let session = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'rinha'";
    let mut admin = new.connect("postgres").expect("connect");
    wait_for("the new primary", || {
        (admin.query_one(session, &[]).expect("ask").get::<_, i64>(0) == 1).then_some(())
    });
    drop(admin);
    wait_for("the new primary", || (wire.ask(transaction(1, 1, "c", "b")).status == 200).then_some(()));

    new.stop();
    let why = "the server is on an older timeline than one that was seen before";
    wait_for(&format!("{why:?} in {}", instance.log()), || instance.log().contains(why).then_some(()));
    assert_eq!(wire.ask(transaction(1, 1, "c", "lost")).status, 503);
    new.start_again().expect("start the new primary again");
    wait_for("the new primary", || (wire.ask(get("/healthz")).status == 200).then_some(()));
    assert_eq!(wire.ask(transaction(1, 1, "c", "c")).balance(), 3, "nothing was lost");
    let lost = "SELECT count(*) FROM transacoes WHERE descricao <> 'a'";
    let rows: i64 = old.connect("rinha").expect("connect").query_one(lost, &[]).expect("ask").get(0);
    assert_eq!(rows, 0, "and nothing went to the old one");
}

#[test]
fn tables_that_a_failover_would_empty_are_warned_of() {
    let warning = "the server has standbys, but tables of the bank are UNLOGGED";
    let primary = Postgres::start(&replicates()).expect("start a primary");
    primary.create_bank("rinha", &workspace().join("sql")).expect("make the bank");
    let url = url_of(&[&primary], "");
    // The log has a thread of its own: all of it is there once the server has ended.
    let is_warned = || {
        let mut instance = start(&url, Readiness::Healthy);
        instance.stop();
        instance.log().contains(warning)
    };
    assert!(!is_warned(), "it has no standby");
    let _standby = primary.start_standby().expect("start a standby");
    let follows = "SELECT count(*) FROM pg_stat_replication";
    let mut admin = primary.connect("postgres").expect("connect");
    wait_for("the standby", || {
        (admin.query_one(follows, &[]).expect("ask").get::<_, i64>(0) == 1).then_some(())
    });
    assert!(is_warned());
    primary.apply_sql("rinha", &workspace().join("sql/durable")).expect("log the tables");
    assert!(!is_warned(), "its tables are logged");
}

/// What a metric of an instance is.
fn metric(instance: &Instance, name: &str) -> u64 {
    let answer = Wire::connect(&instance.metrics_address().expect("METRICS_LISTEN")).ask(get("/metrics"));
    let value = answer.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name}"))
}

const READ: &str = "rinha_statements_read_total";

/// What a statement says now, and whether the reader has answered it.
fn statement(wire: &mut Wire, instance: &Instance) -> (i64, bool) {
    let before = metric(instance, READ);
    let answer = wire.ask(get("/clientes/1/extrato"));
    assert_eq!(answer.status, 200, "{answer:?}");
    let total = answer.json()["saldo"]["total"].as_i64().expect("a balance");
    (total, metric(instance, READ) > before)
}

/// An instance whose statements come from this standby, as far as it follows.
fn start_with_reader(primary: &Postgres, standby: &Postgres, attrs: &str) -> Instance {
    let url = url_of(&[standby], &format!("target_session_attrs={attrs}"));
    let settings = [
        ("DATABASE_URL_READ", url.as_str()),
        ("READ_STALENESS_MAX_MS", "400"),
        ("METRICS_LISTEN", "127.0.0.1:0"),
    ];
    let mut options = options(&url_of(&[primary], ""), &settings);
    options.readiness = Readiness::Healthy;
    Instance::start(&options).expect("start the server")
}

#[test]
fn statements_come_from_a_standby_while_it_follows_and_else_from_the_primary() {
    let [primary, mut standby] = pair();
    let instance = start_with_reader(&primary, &standby, "standby");
    let mut wire = wire_to(&instance);
    assert_eq!(wire.ask(transaction(1, 1, "c", "a")).balance(), 1);
    wait_for("a statement of the standby", || (statement(&mut wire, &instance) == (1, true)).then_some(()));

    let mut admin = standby.connect("postgres").expect("connect");
    admin.batch_execute("SELECT pg_wal_replay_pause()").expect("pause");
    let is_paused = "SELECT pg_get_wal_replay_pause_state() = 'paused'";
    wait_for("the pause", || admin.query_one(is_paused, &[]).expect("ask").get::<_, bool>(0).then_some(()));
    assert_eq!(wire.ask(transaction(1, 1, "c", "b")).balance(), 2);
    let committed = std::time::Instant::now();
    // Old statements may come for as long as the setting says, and no longer.
    wait_for("a statement of the primary", || {
        let may_be_old = committed.elapsed() < std::time::Duration::from_millis(400);
        let (total, is_read) = statement(&mut wire, &instance);
        assert!(total == 2 || may_be_old && is_read, "{total}, from the standby: {is_read}");
        (total == 2 && !is_read).then_some(())
    });
    let why = "the standby is further behind than READ_STALENESS_MAX_MS, so statements go to the primary";
    wait_for(&format!("{why:?} in {}", instance.log()), || instance.log().contains(why).then_some(()));

    admin.batch_execute("SELECT pg_wal_replay_resume()").expect("resume");
    wait_for("a statement of the standby", || (statement(&mut wire, &instance) == (2, true)).then_some(()));

    drop(admin);
    standby.kill();
    assert_eq!(wire.ask(transaction(1, 1, "c", "c")).balance(), 3);
    wait_for("a statement of the primary", || (statement(&mut wire, &instance) == (3, false)).then_some(()));
    let why = "the reader is down, so statements go to the primary";
    wait_for(&format!("{why:?} in {}", instance.log()), || instance.log().contains(why).then_some(()));
}

#[test]
fn a_standby_that_was_promoted_answers_no_statement_while_the_old_primary_goes_on() {
    let [primary, standby] = pair();
    // With `standby`, the session would be left because it is none any more.
    let instance = start_with_reader(&primary, &standby, "any");
    let mut wire = wire_to(&instance);
    assert_eq!(wire.ask(transaction(1, 1, "c", "a")).balance(), 1);
    wait_for("a statement of the standby", || (statement(&mut wire, &instance) == (1, true)).then_some(()));

    standby.promote().expect("promote the standby");
    // By its place in the log alone it is ahead of the primary from now on.
    standby.connect("postgres").expect("connect").batch_execute("SELECT pg_switch_wal()").expect("switch");
    let why =
        "the standby is of another server or timeline than the primary, so statements go to the primary";
    let mut credited = 1;
    wait_for(&format!("{why:?} in {}", instance.log()), || {
        credited += 1;
        assert_eq!(wire.ask(transaction(1, 1, "c", "b")).balance(), credited);
        assert_eq!(statement(&mut wire, &instance), (credited, false));
        instance.log().contains(why).then_some(())
    });
    for _ in 0..20 {
        credited += 1;
        assert_eq!(wire.ask(transaction(1, 1, "c", "c")).balance(), credited);
        assert_eq!(statement(&mut wire, &instance), (credited, false), "the reader has a session there");
    }
    assert!(!instance.log().contains("the reader is down"), "{}", instance.log());
}
