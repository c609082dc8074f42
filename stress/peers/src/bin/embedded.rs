//! Peer (c): a floor without SQL. The same API over an embedded store that keeps nothing safe (no fsync, as the benchmark's
//! PostgreSQL), to show what PostgreSQL costs. One process is one bank: measure it with `direct`.

use std::collections::BTreeSet;
use std::env;
use std::error::Error;
use std::fs;
use std::process;
use std::sync::Mutex;
use std::time::SystemTime;

use peers::{Bank, Kind, Outcome, Settings, Transaction, Unavailable, serve};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::json;

/// Limit and balance in cents, by client.
const CLIENTS: TableDefinition<i32, (i64, i64)> = TableDefinition::new("clientes");
/// Value in cents, negative for a debit; description; when, in microseconds since 1970; by client and number.
const LEDGER: TableDefinition<(i32, u64), (i64, &str, u64)> = TableDefinition::new("transacoes");

struct Store {
    database: Database,
    /// The number of the newest row. Held while a transaction is written: the store takes one writer at a time.
    newest: Mutex<u64>,
}

impl Bank for Store {
    async fn transact(&self, transaction: Transaction) -> Result<Outcome, Unavailable> {
        let change = match transaction.kind {
            Kind::Credit => i64::from(transaction.value),
            Kind::Debit => -i64::from(transaction.value),
        };
        let mut newest = self.newest.lock().map_err(|_| Unavailable)?;
        let mut write = self.database.begin_write()?;
        write.set_durability(Durability::None)?;
        let balance;
        let limit;
        {
            let mut clients = write.open_table(CLIENTS)?;
            let (client_limit, before) = clients.get(transaction.client)?.ok_or(Unavailable)?.value();
            (limit, balance) = (client_limit, before + change);
            if change < 0 && balance < -limit {
                return Ok(Outcome::PastLimit);
            }
            clients.insert(transaction.client, (limit, balance))?;
            let row = (change, transaction.description.as_str(), now_us());
            write.open_table(LEDGER)?.insert((transaction.client, *newest + 1), row)?;
        }
        write.commit()?;
        *newest += 1;
        Ok(Outcome::Done { limit, balance })
    }

    async fn statement(&self, client: i32) -> Result<String, Unavailable> {
        let read = self.database.begin_read()?;
        let (limit, balance) = read.open_table(CLIENTS)?.get(client)?.ok_or(Unavailable)?.value();
        let mut newest = Vec::with_capacity(10);
        let ledger = read.open_table(LEDGER)?;
        for row in ledger.range((client, 0)..=(client, u64::MAX))?.rev().take(10) {
            let (_, row) = row?;
            let (change, description, at_us) = row.value();
            newest.push(json!({
                "valor": change.abs(),
                "tipo": if change > 0 { "c" } else { "d" },
                "descricao": description,
                "realizada_em": time(at_us),
            }));
        }
        Ok(json!({
            "saldo": {"total": balance, "data_extrato": time(now_us()), "limite": limit},
            "ultimas_transacoes": newest,
        })
        .to_string())
    }

    async fn is_healthy(&self) -> bool {
        self.database.begin_read().is_ok()
    }

    /// Each client: its number, limit, balance, the sum of its ledger, and how many rows that has.
    async fn books(&self) -> Result<String, Unavailable> {
        let read = self.database.begin_read()?;
        let ledger = read.open_table(LEDGER)?;
        let mut accounts = Vec::new();
        for client in read.open_table(CLIENTS)?.iter()? {
            let (id, client) = client?;
            let (id, (limit, balance)) = (id.value(), client.value());
            let (mut sum, mut rows) = (0, 0);
            for row in ledger.range((id, 0)..=(id, u64::MAX))? {
                sum += row?.1.value().0;
                rows += 1;
            }
            accounts
                .push(json!({"id": id, "limit": limit, "balance": balance, "ledger_sum": sum, "rows": rows}));
        }
        Ok(json!(accounts).to_string())
    }
}

impl Store {
    fn create(path: &str) -> Result<Store, Box<dyn Error>> {
        let store = Store { database: Database::create(path)?, newest: Mutex::new(0) };
        let write = store.database.begin_write()?;
        {
            let mut clients = write.open_table(CLIENTS)?;
            for (client, limit) in LIMITS {
                clients.insert(client, (limit, 0))?;
            }
            write.open_table(LEDGER)?;
        }
        write.commit()?;
        Ok(store)
    }
}

fn now_us() -> u64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX)
}

fn time(us: u64) -> String {
    humantime::format_rfc3339_micros(SystemTime::UNIX_EPOCH + std::time::Duration::from_micros(us))
        .to_string()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let settings = Settings::from_env()?;
    let path = env::temp_dir().join(format!("peer-embedded-{}.redb", process::id()));
    let store = Store::create(path.to_str().ok_or("the temporary directory's name is not UTF-8")?)?;
    // Its room is given back when the process ends, however it ends.
    fs::remove_file(&path)?;
    let clients: BTreeSet<i32> = LIMITS.iter().map(|(client, _)| *client).collect();
    serve(store, clients, &settings).await?;
    Ok(())
}

/// Those of the challenge.
const LIMITS: [(i32, i64); 5] = [(1, 100_000), (2, 80_000), (3, 1_000_000), (4, 10_000_000), (5, 500_000)];
