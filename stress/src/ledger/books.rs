//! Whether the ledger agrees with what each request was told.

use std::collections::HashMap;

use super::audit::{self, Account};
use crate::Error;
use crate::load::open::{Tally, Told, description, is_transaction};

/// Holds every request of some loads, each with the number of its first one, against the ledger: what was answered 200 has
/// one row; what was refused, or answered otherwise, has none; of what nobody was told, at most one. And each balance is
/// the sum of its rows.
///
/// # Errors
/// [`Error::Refused`] with everything that does not agree.
pub fn check(client: &mut postgres::Client, loads: &[(u64, &Tally)]) -> Result<(), Error> {
    let rows = client.query("SELECT descricao, count(*) FROM transacoes GROUP BY 1", &[]);
    let rows = rows.map_err(|error| audit::refused(&error))?;
    let mut rows: HashMap<String, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut faults = Faults::default();
    for (first_number, tally) in loads {
        for (number, record) in (*first_number..).zip(&tally.records) {
            if !is_transaction(number) {
                continue;
            }
            let count = rows.remove(&description(number)).unwrap_or(0);
            let is_right = match record.told {
                Told::Served(200) => count == 1,
                Told::Served(_) | Told::Refused | Told::Other(_) => count == 0,
                Told::Nothing | Told::InDoubt => count <= 1,
            };
            if !is_right {
                faults.add(format!("request {number} was told {:?} and has {count} rows", record.told));
            }
        }
    }
    for (description, count) in rows.iter().filter(|(description, _)| description.len() == 10) {
        faults.add(format!("{count} rows of {description}, which nobody asked for"));
    }
    for Account { id, balance, ledger_sum, .. } in audit::accounts(client)? {
        if balance != ledger_sum {
            faults.add(format!("client {id} has a balance of {balance} and a ledger of {ledger_sum}"));
        }
    }
    faults.verdict()
}

#[derive(Default)]
struct Faults {
    shown: Vec<String>,
    more: usize,
}

impl Faults {
    fn add(&mut self, fault: String) {
        if self.shown.len() < SHOWN_MAX { self.shown.push(fault) } else { self.more += 1 }
    }

    fn verdict(self) -> Result<(), Error> {
        if self.shown.is_empty() {
            return Ok(());
        }
        let more = if self.more > 0 { format!("; and {} more", self.more) } else { String::new() };
        Err(Error::Refused(format!("the ledger does not agree: {}{more}", self.shown.join("; "))))
    }
}

const SHOWN_MAX: usize = 5;
