//! Holds the ledger against what clients were told: nothing that was acknowledged is lost, nothing is done twice, and
//! nothing is there that nobody asked for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use postgres::Client;

use crate::Error;
use crate::load::traffic::{Asked, Outcome, Record};
use crate::wait::{self, Interrupt};

/// The judge of a ledger that only its clients write to. It reads each row once: every judgement is about what came since
/// the one before.
#[derive(Debug, Default)]
pub struct Judge {
    accounts: BTreeMap<i32, Account>,
    pub rows: i64,
}

#[derive(Debug, Default, Clone)]
struct Account {
    last_id: i64,
    balance_cents: i64,
    rows: i64,
    newest: Option<String>,
}

#[derive(Debug)]
struct Row {
    account: i32,
    change_cents: i64,
    balance_cents: i64,
}

impl Judge {
    /// Judges the rows since the last judgement by the records of all requests since then. All of them must have ended, and
    /// no session may still be at work.
    ///
    /// Each 200 has exactly one row, and was told the balance after it; what was refused or not done has none; what nobody
    /// knows has at most one; and there is no other row. No balance on the way was past its limit, and each is the sum of
    /// its rows. Returns the descriptions of the new rows, or the first disagreement: then this judge is of no more use.
    pub fn judge(&mut self, database: &mut Client, records: &[Record]) -> Result<HashSet<String>, Error> {
        let before = self.accounts.clone();
        let balances_cents = balances(database)?;
        let mut ledger: HashMap<String, Vec<Row>> = HashMap::new();
        for (id, limit_cents, _) in &balances_cents {
            self.read(database, *id, *limit_cents, &mut ledger)?;
        }
        let rows: usize = ledger.values().map(Vec::len).sum();

        let mut known = 0;
        for record in records {
            match &record.asked {
                Asked::Transaction { description, change_cents } => {
                    let rows = ledger.get(description).map_or(&[][..], Vec::as_slice);
                    check_rows(record, *change_cents, rows)?;
                    known += rows.len();
                }
                Asked::Statement => check_statement(record, &ledger, before.get(&record.account))?,
            }
        }
        if known != rows {
            let forged = rows.abs_diff(known);
            return Err(disagreement(&format!("it has {forged} rows that nobody asked for")));
        }
        for (id, _, balance_cents) in balances_cents {
            let sum_cents = self.accounts.get(&id).map_or(0, |account| account.balance_cents);
            if balance_cents != sum_cents {
                return Err(disagreement(&format!(
                    "client {id} has a balance of {balance_cents}, and rows that add up to {sum_cents}"
                )));
            }
        }
        Ok(ledger.into_keys().collect())
    }

    /// The same, once no session of this connection's database is at work.
    pub fn judge_at_rest(
        &mut self,
        database: &mut Client,
        records: &[Record],
        interrupt: &Interrupt,
    ) -> Result<HashSet<String>, Error> {
        wait_at_rest(database, interrupt)?;
        self.judge(database, records)
    }

    /// Reads the whole ledger again: what was judged before is still there.
    pub fn judge_whole(&self, database: &mut Client) -> Result<(), Error> {
        type Sums = BTreeMap<i32, (i64, i64)>;
        let rows = database.query(SUMS, &[]).map_err(Error::sql(PLACE))?;
        let found: Sums = rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
        let known = self.accounts.iter().filter(|(_, account)| account.rows > 0);
        let known: Sums = known.map(|(id, account)| (*id, (account.rows, account.balance_cents))).collect();
        if found == known {
            return Ok(());
        }
        Err(disagreement(&format!("rows and sums of each client were {known:?} and are {found:?}")))
    }

    fn read(
        &mut self,
        database: &mut Client,
        id: i32,
        limit_cents: i64,
        ledger: &mut HashMap<String, Vec<Row>>,
    ) -> Result<(), Error> {
        let account = self.accounts.entry(id).or_default();
        for row in database.query(NEW_ROWS, &[&id, &account.last_id]).map_err(Error::sql(PLACE))? {
            let (row_id, change_cents, description): (i64, i64, String) =
                (row.get(0), row.get(1), row.get(2));
            account.last_id = row_id;
            account.balance_cents += change_cents;
            account.rows += 1;
            self.rows += 1;
            let balance_cents = account.balance_cents;
            if balance_cents < -limit_cents {
                return Err(disagreement(&format!(
                    "client {id} was past its limit after {description}: {balance_cents}"
                )));
            }
            account.newest = Some(description.clone());
            ledger.entry(description).or_default().push(Row { account: id, change_cents, balance_cents });
        }
        Ok(())
    }
}

/// Waits until no session of this connection's database is at work. One whose instance has given it up may still be.
fn wait_at_rest(database: &mut Client, interrupt: &Interrupt) -> Result<(), Error> {
    let at_rest = wait::until(REST_PATIENCE, interrupt, || {
        let at_work = database.query(AT_WORK, &[]).map_err(Error::sql(PLACE))?;
        Ok(at_work.is_empty().then_some(()))
    })?;
    at_rest.ok_or_else(|| {
        Error::Refused(format!(
            "a session was still at work {REST_PATIENCE:?} after the load: the ledger may change yet"
        ))
    })
}

fn balances(database: &mut Client) -> Result<Vec<(i32, i64, i64)>, Error> {
    let rows = database.query("SELECT id, limite, saldo FROM clientes ORDER BY id", &[]);
    let rows = rows.map_err(Error::sql(PLACE))?;
    if rows.is_empty() {
        return Err(disagreement("the bank has no clients"));
    }
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

fn check_rows(record: &Record, change_cents: i64, rows: &[Row]) -> Result<(), Error> {
    let complaint = match (&record.outcome, rows) {
        (Outcome::Accepted { balance_cents }, [row]) => (*balance_cents != row.balance_cents)
            .then(|| format!("the balance after it is {} in {record:?}", row.balance_cents)),
        (Outcome::Accepted { .. }, rows) => Some(format!("{} rows of {record:?}", rows.len())),
        (Outcome::Refused | Outcome::NothingDone { .. } | Outcome::Other { .. }, rows) => {
            (!rows.is_empty()).then(|| format!("a row of {record:?}"))
        }
        (Outcome::InDoubt | Outcome::Broken | Outcome::BadGateway, rows) => {
            (rows.len() > 1).then(|| format!("{} rows of {record:?}", rows.len()))
        }
        (Outcome::Shown { .. }, _) => {
            Some(format!("a transaction was answered with a statement: {record:?}"))
        }
    };
    let is_as_asked = |row: &Row| (row.account, row.change_cents) == (record.account, change_cents);
    let complaint = complaint
        .or_else(|| rows.iter().find(|row| !is_as_asked(row)).map(|row| format!("{row:?} of {record:?}")));
    complaint.map_or(Ok(()), |complaint| Err(disagreement(&complaint)))
}

/// A statement shows the balance after the newest of its transactions, which may be older than the last judgement.
fn check_statement(
    record: &Record,
    ledger: &HashMap<String, Vec<Row>>,
    before: Option<&Account>,
) -> Result<(), Error> {
    let Outcome::Shown { balance_cents, newest } = &record.outcome else { return Ok(()) };
    let before = before.cloned().unwrap_or_default();
    let expected_cents = match newest {
        newest if *newest == before.newest => Some(before.balance_cents),
        Some(description) => match ledger.get(description).map_or(&[][..], Vec::as_slice) {
            [row] if row.account == record.account => Some(row.balance_cents),
            _ => None,
        },
        None => None,
    };
    match expected_cents {
        None => Err(disagreement(&format!("{record:?} shows what is not in the ledger once"))),
        Some(expected_cents) if expected_cents != *balance_cents => {
            Err(disagreement(&format!("the balance after it is {expected_cents} in {record:?}")))
        }
        Some(_) => Ok(()),
    }
}

fn disagreement(complaint: &str) -> Error {
    Error::Refused(format!("the ledger disagrees with what clients were told: {complaint}"))
}

const PLACE: &str = "the judgement of the ledger";
const NEW_ROWS: &str = "SELECT id, CASE tipo WHEN 'c' THEN valor::bigint ELSE -valor::bigint END, descricao \
                        FROM transacoes WHERE cliente_id = $1 AND id > $2 ORDER BY id";
const SUMS: &str = "SELECT cliente_id, count(*), sum(CASE tipo WHEN 'c' THEN valor::bigint ELSE -valor::bigint END)::bigint \
                    FROM transacoes GROUP BY cliente_id";
/// PostgreSQL's own workers may be at work at any time.
const AT_WORK: &str = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' \
                       AND pid <> pg_backend_pid() AND state <> 'idle'";
/// Longer than any statement or lock that an instance asks for.
const REST_PATIENCE: Duration = Duration::from_secs(30);
