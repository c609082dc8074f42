//! Whether the bank's books are right after a run: what was acknowledged is in the ledger, and nothing else.

use std::time::Duration;

use postgres::Client;
use serde::{Deserialize, Serialize};

use super::{Counts, settled};
use crate::wait::Interrupt;
use crate::{Bank, Error, http};

/// What a bank had in its ledger, and what its instances had counted, at a moment when nothing was on its way.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    rows: u64,
    counts: Counts,
}

impl Tally {
    /// That of a bank whose ledger is empty, and whose instances are as new.
    pub fn of_new_bank() -> Tally {
        Tally::default()
    }

    /// That of a bank that has been used. Nobody may be using it now.
    pub fn now(bank: &Bank, interrupt: &Interrupt) -> Result<Tally, Error> {
        let counts = settled(bank, interrupt)?;
        Ok(Tally { rows: rows(&mut bank.connect()?)?, counts })
    }
}

/// A ledger that adds up: balances are its sums, none past its limit, and
/// `answered_200 <= rows <= answered_200 + answered_late`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Transactions that came into the ledger.
    pub rows: u64,
    pub answered_200: u64,
    /// Answers whose client had left, as all do at the end of the load.
    pub answered_late: u64,
}

/// Compares balances, ledger and what the instances have answered since `before`.
pub fn audit(bank: &Bank, before: &Tally, counts: &Counts) -> Result<Ledger, Error> {
    if let Some((accounts, rows)) = own_books(bank)? {
        return check(&accounts, rows.saturating_sub(before.rows), &counts.since(&before.counts));
    }
    let mut clients = bank.connect()?;
    let rows = rows(&mut clients)?;
    let accounts = clients.iter_mut().map(accounts).collect::<Result<Vec<_>, _>>()?.concat();
    // A ledger that has shrunk has fewer rows than any number of answers.
    check(&accounts, rows.saturating_sub(before.rows), &counts.since(&before.counts))
}

/// Accounts and ledger rows of a bank without a database, as the embedded peer tells them beside its metrics: a line of client,
/// limit, balance, sum of its ledger and rows for each. `None` where it tells none.
fn own_books(bank: &Bank) -> Result<Option<(Vec<Account>, u64)>, Error> {
    let Some(address) = bank.metrics.first() else { return Ok(None) };
    let place = || format!("read http://{address}/books");
    let (status, text) = http::get(address, "/books", TIMEOUT).map_err(Error::io(place()))?;
    if status != 200 || text.is_empty() {
        return Ok(None);
    }
    let mut rows = 0;
    let account = |line: &str| {
        let mut numbers = line.split(' ').map(str::parse::<i64>);
        let mut next = || numbers.next()?.ok();
        let account =
            Account { id: next()?.try_into().ok()?, limit: next()?, balance: next()?, ledger_sum: next()? };
        rows += next()?.unsigned_abs();
        Some(account)
    };
    let accounts: Option<Vec<_>> = text.lines().map(account).collect();
    let accounts = accounts.ok_or_else(|| Error::Refused(format!("{}: not the books of a bank", place())))?;
    Ok(Some((accounts, rows)))
}

/// Of all databases together.
fn rows(clients: &mut [Client]) -> Result<u64, Error> {
    let rows = |client: &mut Client| {
        let row = client.query_one("SELECT count(*) FROM transacoes", &[]).map_err(Error::sql(PLACE))?;
        Ok(row.get::<_, i64>(0).unsigned_abs())
    };
    clients.iter_mut().map(rows).sum()
}

pub(crate) fn accounts(client: &mut Client) -> Result<Vec<Account>, Error> {
    let rows = client.query(BOOKS, &[]).map_err(Error::sql(PLACE))?;
    let account = |row: &postgres::Row| Account {
        id: row.get(0),
        limit: row.get(1),
        balance: row.get(2),
        ledger_sum: row.get(3),
    };
    Ok(rows.iter().map(account).collect())
}

#[derive(Clone)]
pub(crate) struct Account {
    pub(crate) id: i32,
    pub(crate) limit: i64,
    pub(crate) balance: i64,
    pub(crate) ledger_sum: i64,
}

fn check(accounts: &[Account], rows: u64, counts: &Counts) -> Result<Ledger, Error> {
    let mut faults = Vec::new();
    for Account { id, limit, balance, ledger_sum } in accounts {
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
const PLACE: &str = "the audit of the ledger";
/// The ledger's rows are judged by their own sign, with nothing of the procedures'.
const BOOKS: &str = "
    SELECT c.id, c.limite, c.saldo,
           coalesce(sum(CASE t.tipo::text WHEN 'c' THEN t.valor::bigint ELSE -t.valor::bigint END), 0)::bigint
    FROM clientes AS c
    LEFT JOIN transacoes AS t ON t.cliente_id = c.id
    GROUP BY c.id ORDER BY c.id";

#[cfg(test)]
mod tests {
    use super::*;

    fn account(balance: i64, ledger_sum: i64) -> Account {
        Account { id: 1, limit: 1000, balance, ledger_sum }
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
