//! The bank behind PgBouncer in session mode, as its package installs it.

mod support;

use std::thread;

use support::pgbouncer::PgBouncer;
use support::{Bank, Database, Wire, get, transaction};

fn behind_pgbouncer(settings: &[(&str, &str)]) -> (PgBouncer, Bank) {
    let database = Database::new();
    // What the database says must not get into a lane there, either.
    database.execute(&format!(
        "ALTER DATABASE {0} SET default_transaction_isolation = serializable;
         ALTER DATABASE {0} SET lock_timeout = '1min';
         ALTER DATABASE {0} SET statement_timeout = '1min'",
        database.name()
    ));
    let pool = PgBouncer::before(&database);
    let url = pool.url();
    let bank = Bank::start(database, settings, |options| options.database_url = url);
    (pool, bank)
}

#[test]
fn it_serves_over_several_lanes_and_the_ledger_adds_up() {
    const CONNECTIONS: i64 = 8;
    const REQUESTS: i64 = 50;
    let (pool, bank) = behind_pgbouncer(&[("LANES", "2")]);
    let address = bank.address();
    thread::scope(|scope| {
        for connection in 1..=CONNECTIONS {
            let address = &address;
            scope.spawn(move || {
                let mut wire = Wire::connect(address);
                let account = i32::try_from(connection % 5).expect("small") + 1;
                for _ in 0..REQUESTS {
                    assert_eq!(wire.ask(transaction(account, 1, "c", "pool")).status, 200);
                }
                assert_eq!(wire.ask(get("/clientes/1/extrato")).status, 200);
            });
        }
    });
    assert_eq!(bank.database.ledger_rows("pool"), CONNECTIONS * REQUESTS);
    bank.database.assert_ledger_adds_up();
    assert!(!pool.log().contains("WARNING"), "{}", pool.log());
}

#[test]
fn every_session_setting_gets_to_postgresql() {
    let (_pool, bank) = behind_pgbouncer(&[]);
    support::session::assert_settings(&bank);
}

#[test]
fn a_session_that_ends_behind_it_is_replaced() {
    let (_pool, bank) = behind_pgbouncer(&[]);
    for round in 1..=3 {
        bank.database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
        );
        support::wait_for("the next session", || {
            let answer = bank.transact(1, 1, "c", "again");
            (answer.status == 200).then_some(())
        });
        assert_eq!(bank.database.ledger_rows("again"), round);
    }
    support::session::assert_settings(&bank);
}
