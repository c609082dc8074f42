//! What clients ask of the bank, and what they are told: every transaction has a description that no other has, so that
//! each answer can be held against the ledger afterwards.

use std::time::Instant;

use fastrand::Rng;
use serde_json::Value;

#[derive(Debug, Clone)]
pub struct Record {
    pub client: usize,
    /// The bank's client whose account it was about.
    pub account: i32,
    pub asked: Asked,
    pub sent_at: Instant,
    /// When the whole answer, or the end of the connection, was there.
    pub ended_at: Instant,
    pub outcome: Outcome,
}

#[derive(Debug, Clone)]
pub enum Asked {
    Transaction {
        /// Which no other transaction has: letters, digits and full stops.
        description: String,
        change_cents: i64,
    },
    Statement,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// 200: it is done, and this is the balance after it.
    Accepted {
        balance_cents: i64,
    },
    /// 422: it would have passed the limit.
    Refused,
    /// 200: a statement.
    Shown {
        balance_cents: i64,
        newest: Option<String>,
    },
    /// 503, with the word that nothing was done.
    NothingDone {
        reason: String,
    },
    /// 503, with the word that nobody knows.
    InDoubt,
    Broken,
    /// nginx answered in the server's place.
    BadGateway,
    /// An answer that the bank never gives.
    Other {
        status: u16,
    },
}

impl Record {
    pub fn latency_us(&self) -> u64 {
        let latency = self.ended_at.saturating_duration_since(self.sent_at);
        u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)
    }
}

impl Asked {
    /// The request of this number, and the account that it is about: as many statements as in the challenge, and credits and
    /// debits of one cent in turns, so that no limit is ever reached and all of them change the ledger.
    pub fn numbered(number: u64) -> (i32, Asked) {
        let account = i32::try_from(number % 5).unwrap_or(0) + 1;
        let change_cents = if (number / 5).is_multiple_of(2) { 1 } else { -1 };
        let description = format!("{number:010}");
        match number % 34 {
            33 => (account, Asked::Statement),
            _ => (account, Asked::Transaction { description, change_cents }),
        }
    }

    /// A credit or debit with this description, or now and then a statement. Debits are larger than credits, so that the
    /// small accounts soon come to their limit and stay about there.
    pub fn random(random: &mut Rng, description: String) -> Asked {
        let kind = random.u32(0..8);
        let value_cents = random.i64(1..=1_000);
        match kind {
            0 => Asked::Statement,
            1..=3 => Asked::Transaction { description, change_cents: value_cents },
            _ => Asked::Transaction { description, change_cents: -4 * value_cents },
        }
    }

    pub fn request(&self, account: i32) -> Vec<u8> {
        match self {
            Asked::Statement => {
                format!("GET /clientes/{account}/extrato HTTP/1.1\r\nHost: bank\r\n\r\n").into_bytes()
            }
            Asked::Transaction { description, change_cents } => {
                let kind = if *change_cents > 0 { "c" } else { "d" };
                let value = change_cents.abs();
                let body = format!(r#"{{"valor":{value},"tipo":"{kind}","descricao":"{description}"}}"#);
                let length = body.len();
                format!(
                    "POST /clientes/{account}/transacoes HTTP/1.1\r\nHost: bank\r\nContent-Length: {length}\r\n\r\n{body}"
                )
                .into_bytes()
            }
        }
    }
}

impl Outcome {
    /// What an answer with this status and content says to a request. Most of what an overloaded bank says is a refusal, so that
    /// is read without a parser.
    pub fn of(asked: &Asked, status: u16, body: &[u8]) -> Outcome {
        let outcome = match (status, asked) {
            (422, Asked::Transaction { .. }) => Some(Outcome::Refused),
            (502, _) => Some(Outcome::BadGateway),
            (503, _) => Outcome::of_refusal(body),
            (200, asked) => Outcome::of_content(asked, body),
            _ => None,
        };
        outcome.unwrap_or(Outcome::Other { status })
    }

    fn of_content(asked: &Asked, body: &[u8]) -> Option<Outcome> {
        let content: Value = serde_json::from_slice(body).ok()?;
        Some(match asked {
            Asked::Transaction { .. } => Outcome::Accepted { balance_cents: content["saldo"].as_i64()? },
            Asked::Statement => Outcome::Shown {
                balance_cents: content["saldo"]["total"].as_i64()?,
                newest: content["ultimas_transacoes"][0]["descricao"].as_str().map(str::to_owned),
            },
        })
    }

    /// `{"erro": "why; nothing was done"}`
    fn of_refusal(body: &[u8]) -> Option<Outcome> {
        let reason = str::from_utf8(body).ok()?.strip_suffix("\"}")?.rsplit('"').next()?;
        if reason.ends_with("nothing was done") {
            return Some(Outcome::NothingDone { reason: reason.to_owned() });
        }
        reason.ends_with("not known").then_some(Outcome::InDoubt)
    }

    pub fn is_served(&self) -> bool {
        matches!(self, Outcome::Accepted { .. } | Outcome::Refused | Outcome::Shown { .. })
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Outcome::Accepted { .. } | Outcome::Refused | Outcome::Shown { .. } => "served",
            Outcome::NothingDone { .. } => "nothing done",
            Outcome::InDoubt => "in doubt",
            Outcome::Broken => "broken off",
            Outcome::BadGateway => "bad gateway",
            Outcome::Other { .. } => "other",
        }
    }

    pub fn is_unavailable(&self) -> bool {
        matches!(self, Outcome::NothingDone { .. } | Outcome::InDoubt)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::json;

    use super::*;

    fn debit() -> Asked {
        Asked::Transaction { description: "a".to_owned(), change_cents: -7 }
    }

    #[test]
    fn a_request_says_what_is_asked() {
        let request = String::from_utf8(debit().request(3)).unwrap();
        assert!(request.starts_with("POST /clientes/3/transacoes HTTP/1.1\r\n"), "{request}");
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{request}");
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body, json!({"valor": 7, "tipo": "d", "descricao": "a"}));
    }

    #[test]
    fn the_request_of_a_number_is_another_in_each() {
        let asked = (0..33).chain(34..67).map(|number| match Asked::numbered(number).1 {
            Asked::Transaction { description, change_cents } => (description, change_cents),
            Asked::Statement => panic!("{number} is a statement"),
        });
        let asked: Vec<(String, i64)> = asked.collect();
        assert_eq!(asked.iter().map(|(description, _)| description).collect::<HashSet<_>>().len(), 66);
        assert_eq!(asked[..10].iter().map(|(_, cents)| cents).sum::<i64>(), 0);
        let (account, asked) = Asked::numbered(33);
        assert!(asked.request(account).starts_with(b"GET /clientes/4/extrato HTTP/1.1\r\n"));
    }

    #[test]
    fn each_answer_has_its_meaning() {
        let statement =
            r#"{"saldo": {"total": -9}, "ultimas_transacoes": [{"descricao": "b"}, {"descricao": "a"}]}"#;
        let nothing = r#"{"erro": "x, nothing was done"}"#;
        let shown = Outcome::Shown { balance_cents: -9, newest: Some("b".to_owned()) };
        let in_doubt = r#"{"erro": "whether it was done is not known"}"#;
        for (asked, status, body, outcome) in [
            (Asked::Statement, 200, statement, shown),
            (debit(), 200, r#"{"limite": 1, "saldo": 5}"#, Outcome::Accepted { balance_cents: 5 }),
            (debit(), 422, "{}", Outcome::Refused),
            (debit(), 502, "<html>", Outcome::BadGateway),
            (debit(), 503, in_doubt, Outcome::InDoubt),
            (debit(), 503, nothing, Outcome::NothingDone { reason: "x, nothing was done".to_owned() }),
            // What the bank never gives.
            (debit(), 500, "{}", Outcome::Other { status: 500 }),
            (debit(), 404, "{}", Outcome::Other { status: 404 }),
            (debit(), 200, r#"{"limite": 1}"#, Outcome::Other { status: 200 }),
            (debit(), 503, r#"{"erro": "try again"}"#, Outcome::Other { status: 503 }),
            (Asked::Statement, 422, "{}", Outcome::Other { status: 422 }),
            (Asked::Statement, 200, "Healthy", Outcome::Other { status: 200 }),
        ] {
            assert_eq!(Outcome::of(&asked, status, body.as_bytes()), outcome, "{asked:?} {body}");
        }
    }
}
