//! The embedded peer, which has no database that the tests of the API could look into: its answers, and its books against
//! what it answered.

use std::time::Duration;

use stress::ledger::{Tally, audit, settled};
use stress::wait::Interrupt;
use stress::{Bank, Instance, InstanceOptions, http};

fn post(address: &str, path: &str, body: &str) -> (u16, String) {
    let mut connection = http::Connection::connect(address, PATIENCE).expect("connect");
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: peer\r\nContent-Length: {length}\r\n\r\n");
    let answer = connection.ask(&[head.as_bytes(), body.as_bytes()].concat()).expect("an answer");
    (answer.status, String::from_utf8(answer.body).expect("text"))
}

#[test]
fn it_keeps_the_rules_of_the_bank_and_its_books_add_up() {
    let options = InstanceOptions::new(env!("CARGO_BIN_EXE_embedded"), "none");
    let instance = Instance::start(&options).expect("start the peer");
    let address = instance.addresses().remove(0);
    let transact = |body: &str| post(&address, "/clientes/2/transacoes", body);

    let debit = r#"{"valor": 80000, "tipo": "d", "descricao": "tudo"}"#;
    assert_eq!(transact(debit), (200, r#"{"limite":80000,"saldo":-80000}"#.to_owned()));
    assert_eq!(transact(r#"{"valor": 1, "tipo": "d", "descricao": "mais"}"#).0, 422);
    let credit = r#"{"valor": 5, "tipo": "c", "descricao": "volta"}"#;
    assert_eq!(transact(credit), (200, r#"{"limite":80000,"saldo":-79995}"#.to_owned()));
    assert_eq!(post(&address, "/clientes/6/transacoes", credit).0, 404);

    let (status, statement) = http::get(&address, "/clientes/2/extrato", PATIENCE).expect("an answer");
    assert_eq!(status, 200);
    let statement: serde_json::Value = serde_json::from_str(&statement).expect("JSON");
    assert_eq!(statement["saldo"]["total"], -79995);
    let rows = statement["ultimas_transacoes"].as_array().expect("rows");
    let rows: Vec<_> = rows.iter().map(|row| (&row["valor"], &row["tipo"], &row["descricao"])).collect();
    assert_eq!(
        rows,
        [(&5.into(), &"c".into(), &"volta".into()), (&80000.into(), &"d".into(), &"tudo".into())]
    );

    let bank = Bank {
        urls: vec![format!("http://{address}")],
        metrics: instance.metrics_address().into_iter().collect(),
        database_urls: Vec::new(),
        parts: Vec::new(),
    };
    let counts = settled(&bank, &Interrupt::default()).expect("counts");
    let ledger = audit(&bank, &Tally::default(), &counts).expect("books that add up");
    assert_eq!((ledger.rows, ledger.answered_200), (2, 2));
    // The audit looks: one answer fewer than there are rows is found out.
    let mut short = counts;
    short.accepted -= 1;
    assert!(audit(&bank, &Tally::default(), &short).is_err());
}

const PATIENCE: Duration = Duration::from_secs(10);
