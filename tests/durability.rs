//! Durable mode keeps what it acknowledged: PostgreSQL is killed under load, and every 200 has its row afterwards.

mod support;

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use stress::{Instance, Postgres, PostgresOptions};
use support::bank::options;
use support::cluster::assert_ledger_adds_up;
use support::{Wire, get, transaction, wait_for, workspace};

/// Connections that write until the database is killed.
const CONNECTIONS: usize = 16;
/// Acknowledged transactions after which it is killed: enough for many batches to be under way.
const ACKNOWLEDGED_MIN: usize = 500;

#[test]
fn nothing_acknowledged_is_lost_when_postgresql_is_killed() {
    let mut postgres = Postgres::start(&PostgresOptions { is_durable: true, ..PostgresOptions::default() })
        .expect("start a PostgreSQL");
    postgres.create_bank("rinha", &workspace().join("sql")).expect("make the bank");
    let instance = Instance::start(&options(&postgres.url("rinha"), &[("QUEUE_TIMEOUT_MS", "50")]))
        .expect("start the server");
    let address = instance.addresses().swap_remove(0);

    // Each transaction by its description, which no other has: what it was answered.
    let answers: Mutex<HashMap<String, u16>> = Mutex::new(HashMap::new());
    let acknowledged = AtomicUsize::new(0);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let (answers, acknowledged, is_over, address) = (&answers, &acknowledged, &is_over, &address);
            scope.spawn(move || {
                let mut wire = Wire::connect(address);
                let mut number = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let description = format!("{connection}.{number}");
                    number += 1;
                    let account = number % 5 + 1;
                    let status = wire.ask(transaction(account, 1, "c", &description)).status;
                    answers.lock().expect("nobody panics here").insert(description, status);
                    acknowledged.fetch_add(usize::from(status == 200), Ordering::Relaxed);
                }
            });
        }
        wait_for("acknowledged transactions", || {
            (acknowledged.load(Ordering::Relaxed) >= ACKNOWLEDGED_MIN).then_some(())
        });
        postgres.kill();
        is_over.store(true, Ordering::Relaxed);
    });

    postgres.start_again().expect("start PostgreSQL again");
    let mut wire = Wire::connect(&address);
    wait_for("health", || (wire.ask(get("/healthz")).status == 200).then_some(()));
    let mut client = postgres.connect("rinha").expect("connect");
    let rows = client
        .query("SELECT descricao, count(*) FROM transacoes GROUP BY descricao", &[])
        .expect("read the ledger");
    let rows: HashMap<String, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    for (description, status) in answers.into_inner().expect("nobody panics here") {
        let found = rows.get(&description).copied().unwrap_or(0);
        match status {
            200 => assert_eq!(found, 1, "{description} was acknowledged"),
            503 => assert!(found <= 1, "{description} is there {found} times"),
            other => panic!("{description} was answered {other}"),
        }
    }
    assert_ledger_adds_up(&mut client);
}
