//! PostgreSQL, as both peers over it reach it.

use std::collections::BTreeSet;

use tokio_postgres::{Client, Config, NoTls, Statement};

use crate::{Outcome, Transaction};

pub async fn connect(config: &Config) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            eprintln!("the connection to PostgreSQL ended: {error}");
        }
    });
    Ok(client)
}

pub async fn clients(client: &Client) -> Result<BTreeSet<i32>, tokio_postgres::Error> {
    let rows = client.query("SELECT id FROM clientes", &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// One transaction. `None` if its client is gone.
///
/// Without BEGIN: one statement is one transaction, and its answer comes after the commit.
pub async fn transact(
    client: &Client,
    prepared: &Statement,
    transaction: &Transaction,
) -> Result<Option<Outcome>, tokio_postgres::Error> {
    let Transaction { client: id, value, kind, description } = transaction;
    let row = client.query_one(prepared, &[id, value, &kind.as_str(), description]).await?;
    Ok(outcome(row.try_get(0)?, row.try_get(1)?))
}

/// What the procedures tell of one transaction: a limit if its client is there, and a balance if it was done.
pub fn outcome(balance: Option<i64>, limit: Option<i64>) -> Option<Outcome> {
    let limit = limit?;
    Some(balance.map_or(Outcome::PastLimit, |balance| Outcome::Done { limit, balance }))
}

pub async fn statement(
    client: &Client,
    prepared: &Statement,
    id: i32,
) -> Result<Option<String>, tokio_postgres::Error> {
    client.query_one(prepared, &[&id]).await?.try_get(0)
}

pub const TRANSACT: &str = "SELECT saldo, limite FROM InsertTransacao($1, $2, $3, $4)";
pub const STATEMENT: &str = "SELECT GetSaldoClienteById($1)::text";
