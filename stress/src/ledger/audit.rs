//! Whether the bank's books are right after a run: what was acknowledged is in the ledger, and nothing else.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Counts, settled};
use crate::wait::Interrupt;
use crate::{Bank, Error, http};

/// What a bank had in its ledger, and what its instances had counted, at a moment when nothing was on its way; by default that
/// of a new bank.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    rows: u64,
    counts: Counts,
}

impl Tally {
    /// That of a bank that has been used. Nobody may be using it now.
    pub fn now(bank: &Bank, interrupt: &Interrupt) -> Result<Tally, Error> {
        let counts = settled(bank, interrupt)?;
        Ok(Tally { rows: rows(&books(bank)?), counts })
    }
}

/// A ledger that adds up: balances are its sums, none past its limit, and
/// `answered_200 <= rows <= answered_200 + answered_late`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    pub rows: u64,
    pub answered_200: u64,
    /// Answers whose client had left, as all do at the end of the load.
    pub answered_late: u64,
}

/// Compares balances, ledger and what the instances have answered since `before`.
pub fn audit(bank: &Bank, before: &Tally, counts: &Counts) -> Result<Ledger, Error> {
    let accounts = books(bank)?;
    // A ledger that has shrunk has fewer rows than any number of answers.
    let rows = rows(&accounts).saturating_sub(before.rows);
    check(&accounts, rows, &counts.since(&before.counts))
}

/// All accounts, of all databases; or as a bank without one tells them beside its metrics.
fn books(bank: &Bank) -> Result<Vec<Account>, Error> {
    if let Some(accounts) = own_books(bank)? {
        return Ok(accounts);
    }
    let mut accounts = Vec::new();
    for mut client in bank.connect()? {
        let rows = client.query(BOOKS, &[]).map_err(Error::sql("the audit of the ledger"))?;
        accounts.extend(rows.iter().map(|row| Account {
            id: row.get(0),
            limit: row.get(1),
            balance: row.get(2),
            ledger_sum: row.get(3),
            rows: row.get::<_, i64>(4).unsigned_abs(),
        }));
    }
    Ok(accounts)
}

/// What the embedded peer tells as JSON; `None` of a bank that tells nothing.
fn own_books(bank: &Bank) -> Result<Option<Vec<Account>>, Error> {
    let Some(address) = bank.metrics.first() else { return Ok(None) };
    let place = format!("read http://{address}/books");
    let (status, text) = http::get(address, "/books", TIMEOUT).map_err(Error::io(&place))?;
    if status != 200 || text.is_empty() {
        return Ok(None);
    }
    let accounts = serde_json::from_str(&text);
    accounts.map(Some).map_err(|error| Error::Refused(format!("{place}: not the books of a bank: {error}")))
}

fn rows(accounts: &[Account]) -> u64 {
    accounts.iter().map(|account| account.rows).sum()
}

#[derive(Deserialize)]
struct Account {
    id: i32,
    limit: i64,
    balance: i64,
    ledger_sum: i64,
    rows: u64,
}

fn check(accounts: &[Account], rows: u64, counts: &Counts) -> Result<Ledger, Error> {
    let mut faults = Vec::new();
    for Account { id, limit, balance, ledger_sum, .. } in accounts {
        if balance != ledger_sum {
            faults.push(format!("client {id} has a balance of {balance} and a ledger of {ledger_sum}"));
        }
        if *balance < -limit {
            faults.push(format!("client {id} has a balance of {balance} past its limit of {limit}"));
        }
    }
    let Counts { accepted, late, in_doubt, .. } = *counts;
    // A client that leaves before its answer, as a load generator does at the end, may leave a row that nobody was told of.
    if !(accepted..=accepted + late).contains(&rows) {
        let told = format!("{accepted} transactions were answered 200 ({late} more answers found no client)");
        faults.push(format!("the ledger has {rows} new rows, but {told}"));
    }
    if in_doubt > 0 {
        faults.push(format!("of {in_doubt} requests it is not known whether they were done"));
    }
    if faults.is_empty() {
        return Ok(Ledger { rows, answered_200: accepted, answered_late: late });
    }
    Err(Error::Refused(format!("no figures, since the ledger does not add up: {}", faults.join("; "))))
}

const TIMEOUT: Duration = Duration::from_secs(30);
/// The ledger's rows are judged by their own sign, with nothing of the procedures'.
const BOOKS: &str = "
    SELECT c.id, c.limite, c.saldo,
           coalesce(sum(CASE t.tipo::text WHEN 'c' THEN t.valor::bigint ELSE -t.valor::bigint END), 0)::bigint,
           count(t.cliente_id)
    FROM clientes AS c
    LEFT JOIN transacoes AS t ON t.cliente_id = c.id
    GROUP BY c.id ORDER BY c.id";

#[cfg(test)]
mod tests {
    use super::*;

    fn account(balance: i64, ledger_sum: i64) -> Account {
        Account { id: 1, limit: 1000, balance, ledger_sum, rows: 0 }
    }

    fn counts(accepted: u64, late: u64, in_doubt: u64) -> Counts {
        Counts { accepted, late, in_doubt, ..Counts::default() }
    }

    #[test]
    fn right_books_pass_and_each_fault_is_named() {
        let ledger = check(&[account(-1000, -1000), account(5, 5)], 4, &counts(4, 0, 0)).unwrap();
        assert_eq!(ledger, Ledger { rows: 4, answered_200: 4, answered_late: 0 });
        assert!(check(&[account(5, 5)], 4, &counts(3, 2, 0)).is_ok(), "one of two late answers was a commit");
        for (account, rows, counts, fault) in [
            (account(6, 5), 3, counts(3, 0, 0), "client 1 has a balance of 6 and a ledger of 5"),
            (account(-1001, -1001), 3, counts(3, 0, 0), "past its limit of 1000"),
            (account(5, 5), 2, counts(3, 9, 0), "the ledger has 2 new rows"),
            (account(5, 5), 4, counts(3, 0, 0), "the ledger has 4 new rows"),
            (account(5, 5), 3, counts(3, 0, 1), "not known whether"),
        ] {
            let refusal = check(&[account], rows, &counts).unwrap_err().to_string();
            assert!(refusal.contains(fault), "{fault} is not in {refusal}");
        }
    }
}
