//! The judge on a real ledger: each judgement is about what came since the one before, and each way to tamper is noticed.

#![expect(
    clippy::unwrap_used,
    reason = "a panic is how a test fails; clippy excepts test functions, not their helpers"
)]

use std::time::Instant;

use stress::ledger::Judge;
use stress::load::traffic::{Asked, Outcome, Record};
use stress::postgres::Client;
use stress::{Postgres, PostgresOptions, compile};

fn record(account: i32, description: &str, change_cents: i64, outcome: Outcome) -> Record {
    let asked = Asked::Transaction { description: description.to_owned(), change_cents };
    Record { client: 0, account, asked, sent_at: Instant::now(), ended_at: Instant::now(), outcome }
}

fn statement(account: i32, balance_cents: i64, newest: Option<&str>) -> Record {
    let outcome = Outcome::Shown { balance_cents, newest: newest.map(str::to_owned) };
    Record { asked: Asked::Statement, ..record(account, "", 0, outcome) }
}

/// A credit that the bank did, and was told so.
fn credited(database: &mut Client, account: i32, description: &str, value_cents: i32) -> Record {
    let call = "SELECT saldo FROM InsertTransacao($1, $2, 'c', $3)";
    let balance_cents = database.query_one(call, &[&account, &value_cents, &description]).unwrap().get(0);
    record(account, description, value_cents.into(), Outcome::Accepted { balance_cents })
}

fn nothing_done() -> Outcome {
    Outcome::NothingDone { reason: "nothing was done".to_owned() }
}

#[test]
fn each_judgement_is_about_what_is_new_and_the_last_one_about_all() {
    let postgres = Postgres::start(&PostgresOptions::default()).unwrap();
    postgres.create_database("bank").unwrap();
    postgres.apply_sql("bank", &compile::workspace().join("sql")).unwrap();
    let mut database = postgres.connect("bank").unwrap();
    let database = &mut database;

    let mut judge = Judge::default();
    let first = [
        statement(1, 0, None),
        credited(database, 1, "a", 10),
        statement(1, 10, Some("a")),
        record(1, "b", -1, Outcome::Refused),
        record(1, "c", 1, nothing_done()),
        record(1, "d", 1, Outcome::InDoubt),
    ];
    assert_eq!(judge.judge(database, &first).unwrap().len(), 1);
    let second = [
        // The newest one that it shows was judged before.
        statement(1, 10, Some("a")),
        credited(database, 1, "e", 5),
        Record { outcome: Outcome::InDoubt, ..credited(database, 2, "f", 5) },
        Record { outcome: Outcome::Broken, ..credited(database, 3, "g", 5) },
    ];
    assert_eq!(judge.judge(database, &second).unwrap().len(), 3);
    judge.judge_whole(database).unwrap();
    assert_eq!((judge.judge(database, &[]).unwrap().len(), judge.rows), (0, 4));

    // From here on, what each judgement must refuse. A judge that has refused is of no more use: each has its own.
    let judge_after =
        |database: &mut Client, tampering: &str, records: &mut dyn FnMut(&mut Client) -> Vec<Record>| {
            let mut judge = Judge::default();
            judge.judge(database, &[&first[..], &second[..]].concat()).unwrap();
            database.batch_execute("BEGIN").unwrap();
            let records = records(database);
            database.batch_execute(tampering).unwrap();
            let new = judge.judge(database, &records).map(drop).map_err(|error| error.to_string());
            let whole = judge.judge_whole(database).map_err(|error| error.to_string());
            database.batch_execute("ROLLBACK").unwrap();
            (new, whole)
        };
    let credit = |outcome: Option<Outcome>| {
        move |database: &mut Client| {
            let credited = credited(database, 1, "new", 7);
            let outcome = outcome.clone().unwrap_or(credited.outcome);
            vec![Record { outcome, ..credited }]
        }
    };
    let none = |_: &mut Client| Vec::new();

    for (tampering, records, complaint) in [
        (
            "DELETE FROM transacoes WHERE descricao = 'new'",
            &mut credit(None) as &mut dyn FnMut(&mut Client) -> _,
            "0 rows of",
        ),
        (COPY_NEW, &mut credit(None), "2 rows of"),
        (COPY_NEW, &mut credit(Some(Outcome::InDoubt)), "2 rows of"),
        ("", &mut credit(Some(Outcome::Refused)), "a row of"),
        ("", &mut credit(Some(nothing_done())), "a row of"),
        ("", &mut credit(Some(Outcome::Accepted { balance_cents: 1 })), "the balance after it is 22"),
        (
            "UPDATE transacoes SET valor = 8 WHERE descricao = 'new'",
            &mut credit(Some(Outcome::InDoubt)),
            "Row {",
        ),
        (
            "UPDATE clientes SET saldo = saldo + 1 WHERE id = 2",
            &mut credit(None),
            "client 2 has a balance of 6",
        ),
        (FORGED, &mut credit(None), "1 rows that nobody asked for"),
        ("", &mut |_: &mut Client| vec![statement(1, 15, Some("a"))], "is not in the ledger once"),
        ("", &mut |_: &mut Client| vec![statement(1, 16, Some("e"))], "the balance after it is 15"),
        ("", &mut |_: &mut Client| vec![statement(1, 0, None)], "is not in the ledger once"),
    ] {
        let (new, _) = judge_after(database, tampering, records);
        let refusal = new.expect_err(complaint);
        assert!(refusal.contains(complaint), "{tampering}: {refusal}");
    }
    // What was judged before is read again by the whole judgement alone.
    let tampering = "DELETE FROM transacoes WHERE descricao = 'a'";
    let (new, whole) = judge_after(database, tampering, &mut { none });
    assert_eq!(new, Ok(()));
    assert!(whole.unwrap_err().contains("rows and sums"));
}

const COPY_NEW: &str = "INSERT INTO transacoes (cliente_id, valor, tipo, descricao) \
                        SELECT cliente_id, valor, tipo, descricao FROM transacoes WHERE descricao = 'new'";
const FORGED: &str =
    "INSERT INTO transacoes (cliente_id, valor, tipo, descricao) VALUES (4, 1, 'c', 'forged')";
