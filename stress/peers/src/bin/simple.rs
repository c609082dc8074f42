//! Peer (a): what a good engineer would write first. A pool of connections, and one call to the procedure for each request.

use std::error::Error;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use peers::{Bank, Outcome, Settings, Transaction, Unavailable, database, serve};
use tokio_postgres::NoTls;

struct Pooled {
    pool: Pool,
}

impl Bank for Pooled {
    async fn transact(&self, transaction: Transaction) -> Result<Outcome, Unavailable> {
        let connection = self.pool.get().await?;
        let prepared = connection.prepare_cached(database::TRANSACT).await?;
        database::transact(&connection, &prepared, &transaction).await?.ok_or(Unavailable)
    }

    async fn statement(&self, client: i32) -> Result<String, Unavailable> {
        let connection = self.pool.get().await?;
        let prepared = connection.prepare_cached(database::STATEMENT).await?;
        database::statement(&connection, &prepared, client).await?.ok_or(Unavailable)
    }

    async fn is_healthy(&self) -> bool {
        match self.pool.get().await {
            Ok(connection) => connection.simple_query("").await.is_ok(),
            Err(_) => false,
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let settings = Settings::from_env()?;
    let config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_config(settings.database_url.parse()?, NoTls, config);
    let pool = Pool::builder(manager).max_size(CONNECTIONS).build()?;
    let clients = database::clients(&*pool.get().await?).await?;
    serve(Pooled { pool }, clients, &settings).await?;
    Ok(())
}

/// PostgreSQL has half a CPU, and five rows to lock: more connections only wait for each other.
const CONNECTIONS: usize = 5;
