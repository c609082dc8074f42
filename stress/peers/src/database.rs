//! PostgreSQL, as both peers over it reach it.

use std::collections::BTreeSet;

use tokio_postgres::{Client, Config, NoTls, Statement};

/// Connects, and polls the connection on a task of its own until it ends.
pub async fn connect(config: &Config) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            eprintln!("the connection to PostgreSQL ended: {error}");
        }
    });
    Ok(client)
}

/// Everybody who has an account.
pub async fn clients(client: &Client) -> Result<BTreeSet<i32>, tokio_postgres::Error> {
    let rows = client.query("SELECT id FROM clientes", &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The statement of one client.
pub async fn statement(
    client: &Client,
    prepared: &Statement,
    id: i32,
) -> Result<Option<String>, tokio_postgres::Error> {
    client.query_one(prepared, &[&id]).await?.try_get(0)
}

pub const STATEMENT: &str = "SELECT GetSaldoClienteById($1)::text";
