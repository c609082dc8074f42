//! A bank in memory that keeps the rules of the challenge, until it is asked to lie: what k6's script is tried on.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde_json::{Value, json};

/// What the bank tells once its rules have been validated; until then it is honest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Nothing but the truth.
    Never,
    /// A transaction went past the limit.
    PastLimit,
    /// Every other balance of a statement is a cent more than its ledger says.
    AgainstLedger,
}

/// Serves until the process ends.
pub(crate) fn open(lie: Lie) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("an address");
    let bank = Arc::new(Mutex::new(Bank::new(lie)));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (bank, stream) = (Arc::clone(&bank), stream.expect("accept"));
            // A client that leaves ends its own connection only.
            thread::spawn(move || serve(&stream, &bank));
        }
    });
    address
}

/// Format: RFC 9112, "HTTP/1.1": requests with a `Content-Length`, one after the other.
fn serve(stream: &TcpStream, bank: &Mutex<Bank>) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body)?;
        let path = head.split(' ').nth(1).unwrap_or_default();
        let (status, answer) = bank.lock().unwrap_or_else(PoisonError::into_inner).answer(path, &body);
        let answer = answer.to_string();
        let head = format!("HTTP/1.1 {status} \r\nContent-Length: {}\r\n\r\n", answer.len());
        (&*stream).write_all((head + &answer).as_bytes())?;
    }
}

struct Bank {
    lie: Lie,
    is_lying: bool,
    statements: u64,
    accounts: HashMap<u64, Account>,
}

struct Account {
    limit: i64,
    balance: i64,
    /// Newest first.
    ledger: Vec<Value>,
}

impl Bank {
    fn new(lie: Lie) -> Bank {
        let limits = [(1, 100_000), (2, 80_000), (3, 1_000_000), (4, 10_000_000), (5, 500_000)];
        let account = |(id, limit)| (id, Account { limit, balance: 0, ledger: Vec::new() });
        Bank { lie, is_lying: false, statements: 0, accounts: limits.into_iter().map(account).collect() }
    }

    fn answer(&mut self, path: &str, body: &[u8]) -> (u16, Value) {
        let mut words = path.split('/').skip(2);
        let id = words.next().and_then(|id| id.parse().ok()).unwrap_or(0);
        let Some(account) = self.accounts.get_mut(&id) else {
            // The statement of a client that is not there is the last thing that the validations ask for.
            self.is_lying |= words.next() == Some("extrato");
            return (404, Value::Null);
        };
        let lie = if self.is_lying { self.lie } else { Lie::Never };
        if words.next() == Some("extrato") {
            self.statements += 1;
            let excess = i64::from(lie == Lie::AgainstLedger && self.statements.is_multiple_of(2));
            return (200, account.statement(excess));
        }
        let (status, mut answer) = account.transact(body);
        if lie == Lie::PastLimit && status == 200 {
            answer["saldo"] = json!(-account.limit - 1);
        }
        (status, answer)
    }
}

impl Account {
    fn statement(&self, excess: i64) -> Value {
        let newest: Vec<&Value> = self.ledger.iter().take(10).collect();
        let balance = json!({"total": self.balance + excess, "limite": self.limit});
        json!({"saldo": balance, "ultimas_transacoes": newest})
    }

    fn transact(&mut self, body: &[u8]) -> (u16, Value) {
        let Ok(mut transaction) = serde_json::from_slice::<Value>(body) else { return (400, Value::Null) };
        let step = match (transaction["tipo"].as_str(), transaction["valor"].as_i64()) {
            (Some("c"), Some(value)) => value,
            (Some("d"), Some(value)) => -value,
            _ => return (422, Value::Null),
        };
        let is_described =
            transaction["descricao"].as_str().is_some_and(|text| (1..=10).contains(&text.len()));
        if !is_described || (step < 0 && self.balance + step < -self.limit) {
            return (422, Value::Null);
        }
        self.balance += step;
        // As long as all others, so that the order of the texts is that of the times.
        transaction["realizada_em"] = json!(format!("{:09}", self.ledger.len()));
        self.ledger.insert(0, transaction);
        (200, json!({"limite": self.limit, "saldo": self.balance}))
    }
}
