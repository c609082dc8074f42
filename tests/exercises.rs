//! Tests of what is not there yet: exercises of docs/learn/exercises.md, to be run by name with `-- --ignored`.

mod support;

use serde_json::json;
use support::{Bank, get, unsent_lock};

#[test]
#[ignore = "an exercise"]
fn a_balance_can_be_asked_for_by_itself() {
    let bank = Bank::open();
    assert_eq!(bank.transact(2, 1_000, "c", "deposit").status, 200);
    let answer = bank.ask(get("/clientes/2/saldo"));
    assert_eq!((answer.status, answer.field("Content-Type")), (200, Some("application/json")));
    assert_eq!(answer.json(), json!({"limite": 80_000, "saldo": 1_000}));
    assert_eq!(bank.ask(get("/clientes/6/saldo")).status, 404);
    assert_eq!(bank.ask(support::post("/clientes/2/saldo", "{}")).status, 405);
    // It is read, not locked: a stranger who holds the row does not hold it up.
    let _stranger = unsent_lock(&bank.database, 2);
    assert_eq!(bank.ask(get("/clientes/2/saldo")).status, 200);
    // It asks the database like everything else, and is counted as such.
    assert_eq!(bank.metric("rinha_batch_calls_sum"), 3);
}

#[test]
#[ignore = "an exercise"]
fn a_client_may_ask_what_it_may_do() {
    let bank = Bank::open();
    for (path, allow) in [("/clientes/1/transacoes", "POST"), ("/clientes/1/extrato", "GET, HEAD")] {
        let mut wire = bank.connect();
        let (head, body) =
            (format!("OPTIONS {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\n"), "{}");
        for announced in [support::request("OPTIONS", path, b""), head.into_bytes()] {
            wire.send(announced);
            // Not `ask`: its check knows no answer with this field and another status than 405. From the head alone: a
            // body that is announced is not sent yet, so an answer that waits for it never comes.
            let answer = wire.try_answer().expect("an answer");
            assert_eq!((answer.status, answer.field("Content-Length")), (200, Some("0")), "{path}");
            assert_eq!(answer.field("Allow"), Some(allow), "{path}");
        }
        // The body comes after its answer, and is not taken for the next request.
        wire.send(body);
        assert_eq!(wire.ask(get("/healthz")).status, 200, "{path}");
    }
    assert_eq!(bank.ask(support::request("OPTIONS", "/clientes/6/extrato", b"")).status, 404);
}
