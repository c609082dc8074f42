//! The challenge's own validation, through real nginx and two instances, with both of nginx's configurations.

mod support;

use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};
use support::{Balanced, get, post, transaction};

impl Balanced {
    fn statement(&self, account: i32) -> Value {
        let answer = self.connect().ask(get(&format!("/clientes/{account}/extrato")));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    fn transact(&self, account: i32, value: i64, kind: &str, description: &str) -> Value {
        let answer = self.connect().ask(transaction(account, value, kind, description));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// The same transaction from 25 clients at the same moment.
    fn transact_25_at_once(&self, kind: &str) {
        let start = Barrier::new(25);
        thread::scope(|scope| {
            for _ in 0..25 {
                scope.spawn(|| {
                    let mut wire = self.connect();
                    start.wait();
                    assert_eq!(wire.ask(transaction(1, 1, kind, "validacao")).status, 200);
                });
            }
        });
    }

    fn validate(&self) {
        self.transact_25_at_once("d");
        assert_eq!(self.statement(1)["saldo"]["total"], -25);
        self.transact_25_at_once("c");
        assert_eq!(self.statement(1)["saldo"]["total"], 0);

        for (account, limit) in [(1, 100_000), (2, 80_000), (3, 1_000_000), (4, 10_000_000), (5, 500_000)] {
            self.validate_account(account, limit);
        }
        for body in [
            r#"{"valor": 1.2, "tipo": "d", "descricao": "devolve"}"#,
            r#"{"valor": 1, "tipo": "x", "descricao": "devolve"}"#,
            r#"{"valor": 1, "tipo": "c", "descricao": "123456789 e mais um pouco"}"#,
            r#"{"valor": 1, "tipo": "c", "descricao": ""}"#,
            r#"{"valor": 1, "tipo": "c", "descricao": null}"#,
        ] {
            let answer = self.connect().ask(post("/clientes/1/transacoes", body));
            assert_eq!(answer.status, 422, "{body}");
        }
        assert_eq!(self.connect().ask(get("/clientes/6/extrato")).status, 404);

        self.database.assert_ledger_adds_up();
        for instance in &self.instances {
            assert!(!instance.log().contains("WARN"), "{}", instance.log());
        }
    }

    /// Statement, credit, debit, statement, then a credit that five simultaneous statements agree on.
    fn validate_account(&self, account: i32, limit: i64) {
        let before = self.statement(account);
        assert_eq!(before["saldo"]["limite"], limit);
        assert_eq!(before["saldo"]["total"], 0);

        assert_eq!(self.transact(account, 1, "c", "toma"), json!({"limite": limit, "saldo": 1}));
        assert_eq!(self.transact(account, 1, "d", "devolve"), json!({"limite": limit, "saldo": 0}));
        let statement = self.statement(account);
        assert_newest(&statement, &[("d", "devolve"), ("c", "toma")]);

        let credited = self.transact(account, 1, "c", "danada");
        let start = Barrier::new(5);
        thread::scope(|scope| {
            for _ in 0..5 {
                scope.spawn(|| {
                    start.wait();
                    let statement = self.statement(account);
                    assert_eq!(statement["saldo"]["total"], credited["saldo"]);
                    assert_eq!(statement["saldo"]["limite"], credited["limite"]);
                    assert_newest(&statement, &[("c", "danada"), ("d", "devolve"), ("c", "toma")]);
                });
            }
        });
    }
}

fn assert_newest(statement: &Value, expected: &[(&str, &str)]) {
    for (position, (kind, description)) in expected.iter().enumerate() {
        let found = &statement["ultimas_transacoes"][position];
        assert_eq!(found["tipo"], *kind, "{statement}");
        assert_eq!(found["descricao"], *description, "{statement}");
        assert_eq!(found["valor"], 1, "{statement}");
    }
}

#[test]
fn the_validation_passes_through_nginx_that_passes_bytes_on() {
    Balanced::open("nginx.conf").validate();
}

#[test]
fn the_validation_passes_through_nginx_as_an_http_proxy() {
    Balanced::open("nginx-http.conf").validate();
}
