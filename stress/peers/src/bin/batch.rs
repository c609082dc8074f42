//! Peer (b): the server's idea on an async runtime. One task gathers what waits, sorts it by account, and calls the procedure
//! for a whole set at once: one transaction for all, answered after its commit.

use std::error::Error;
use std::time::Duration;

use futures_util::future;
use peers::{Bank, Outcome, Settings, Transaction, Unavailable, database, serve};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tokio_postgres::{Client, Config, Statement};

enum Call {
    Transact(Transaction, oneshot::Sender<Outcome>),
    Statement(i32, oneshot::Sender<String>),
    Ping(oneshot::Sender<()>),
}

struct Batched {
    calls: mpsc::Sender<Call>,
}

impl Batched {
    /// Queues a call and waits for its answer; a call that is dropped unanswered cannot be told what became of it.
    async fn ask<T>(&self, call: impl FnOnce(oneshot::Sender<T>) -> Call) -> Result<T, Unavailable> {
        let (answer, answered) = oneshot::channel();
        self.calls.try_send(call(answer)).map_err(|_| Unavailable)?;
        answered.await.map_err(|_| Unavailable)
    }
}

impl Bank for Batched {
    async fn transact(&self, transaction: Transaction) -> Result<Outcome, Unavailable> {
        self.ask(|answer| Call::Transact(transaction, answer)).await
    }

    async fn statement(&self, client: i32) -> Result<String, Unavailable> {
        self.ask(|answer| Call::Statement(client, answer)).await
    }

    async fn is_healthy(&self) -> bool {
        self.ask(Call::Ping).await.is_ok()
    }
}

struct Session {
    client: Client,
    transact: Statement,
    transact_set: Statement,
    statement: Statement,
}

impl Session {
    async fn open(config: &Config) -> Result<Session, tokio_postgres::Error> {
        let client = database::connect(config).await?;
        let transact = client.prepare(database::TRANSACT).await?;
        let transact_set = client.prepare(TRANSACT_SET).await?;
        let statement = client.prepare(database::STATEMENT).await?;
        Ok(Session { client, transact, transact_set, statement })
    }

    /// Everything that waits, as often as there is something, until the connection fails.
    async fn run(&self, waiting: &mut mpsc::Receiver<Call>) -> Result<(), tokio_postgres::Error> {
        let mut calls = Vec::with_capacity(BATCH_CALLS_MAX);
        let mut is_busy = false;
        while waiting.recv_many(&mut calls, BATCH_CALLS_MAX).await > 0 {
            if is_busy && calls.len() < BATCH_CALLS_MAX {
                // Under load, those who were just answered ask again: together they cost less.
                sleep(GATHER).await;
                while calls.len() < BATCH_CALLS_MAX
                    && let Ok(call) = waiting.try_recv()
                {
                    calls.push(call);
                }
            }
            is_busy = calls.len() > 1;
            self.send(calls.drain(..)).await?;
        }
        Ok(())
    }

    /// One batch. The set goes out first and the statements behind it, without waiting in between; PostgreSQL runs them in
    /// this order.
    async fn send(&self, calls: impl Iterator<Item = Call>) -> Result<(), tokio_postgres::Error> {
        let (mut set, mut statements, mut pings) = (Vec::new(), Vec::new(), Vec::new());
        for call in calls {
            match call {
                Call::Transact(transaction, answer) => set.push((transaction, answer)),
                Call::Statement(client, answer) => statements.push((client, answer)),
                Call::Ping(answer) => pings.push(answer),
            }
        }
        // The sort is stable, so each client's transactions keep their order; and all batches lock in the same one.
        set.sort_by_key(|(transaction, _)| transaction.client);
        let read = statements.into_iter().map(|(client, answer)| async move {
            let text = database::statement(&self.client, &self.statement, client).await?;
            // Nobody hears it who has left.
            let _ = text.map(|text| answer.send(text));
            Ok::<_, tokio_postgres::Error>(())
        });
        future::try_join(self.transact(set), future::try_join_all(read)).await?;
        if !pings.is_empty() {
            self.client.simple_query("").await?;
            for answer in pings {
                let _ = answer.send(());
            }
        }
        Ok(())
    }

    async fn transact(
        &self,
        set: Vec<(Transaction, oneshot::Sender<Outcome>)>,
    ) -> Result<(), tokio_postgres::Error> {
        if set.len() < SET_LEN_MIN {
            // A few are cheaper one by one.
            let each = set.into_iter().map(|(transaction, answer)| async move {
                let outcome = database::transact(&self.client, &self.transact, &transaction).await?;
                let _ = outcome.map(|outcome| answer.send(outcome));
                Ok::<_, tokio_postgres::Error>(())
            });
            return future::try_join_all(each).await.map(|_| ());
        }
        let ids: Vec<i32> = set.iter().map(|(transaction, _)| transaction.client).collect();
        let values: Vec<i32> = set.iter().map(|(transaction, _)| transaction.value).collect();
        let kinds: Vec<&str> = set.iter().map(|(transaction, _)| transaction.kind.as_str()).collect();
        let descriptions: Vec<&str> =
            set.iter().map(|(transaction, _)| transaction.description.as_str()).collect();
        // Returns with ReadyForQuery: the implicit transaction of this one statement is committed.
        let row = self.client.query_one(&self.transact_set, &[&ids, &values, &kinds, &descriptions]).await?;
        let balances: Vec<Option<i64>> = row.try_get(0)?;
        let limits: Vec<Option<i64>> = row.try_get(1)?;
        for ((_, answer), (balance, limit)) in set.into_iter().zip(balances.into_iter().zip(limits)) {
            let _ = database::outcome(balance, limit).map(|outcome| answer.send(outcome));
        }
        Ok(())
    }
}

/// Goes on with a new connection where one fails. What was in a batch that failed is answered 503: its calls are dropped.
async fn keep_running(config: Config, mut session: Session, mut waiting: mpsc::Receiver<Call>) {
    while let Err(error) = session.run(&mut waiting).await {
        eprintln!("a batch failed: {error}");
        session = loop {
            match Session::open(&config).await {
                Ok(session) => break session,
                Err(error) => eprintln!("cannot connect: {error}"),
            }
            while waiting.try_recv().is_ok() {}
            sleep(RECONNECT).await;
        };
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let settings = Settings::from_env()?;
    let config: Config = settings.database_url.parse()?;
    let session = Session::open(&config).await?;
    let clients = database::clients(&session.client).await?;
    let (calls, waiting) = mpsc::channel(CALLS_MAX);
    tokio::spawn(keep_running(config, session, waiting));
    serve(Batched { calls }, clients, &settings).await?;
    Ok(())
}

const TRANSACT_SET: &str = "SELECT saldos, limites FROM InsertTransacoes($1, $2, $3, $4)";
/// As the server's `GROUP_CALLS_MIN`, `BATCH_CALLS_MAX` and `GATHER_MS`.
const SET_LEN_MIN: usize = 4;
const BATCH_CALLS_MAX: usize = 64;
const GATHER: Duration = Duration::from_millis(1);
/// More that wait are refused.
const CALLS_MAX: usize = 1024;
const RECONNECT: Duration = Duration::from_millis(100);
