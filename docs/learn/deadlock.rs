//! What batches cost that lock rows in the order in which their calls came: `cargo run --example deadlock`.
//!
//! Several connections send batches of 32 transactions to a private PostgreSQL, each batch one implicit transaction, each
//! transaction for one of five accounts at random. First each batch is sorted by account, as the server does it; then not.

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use proto_pg::{Connection, Event, Limits, Session, SqlState, Statement, Value, oid};
use rinha::random::Random;
use stress::{Postgres, PostgresOptions};

static STATEMENTS: [Statement<'static>; 1] = [Statement::new(
    "t",
    "SELECT saldo, limite FROM InsertTransacao($1, $2, $3, $4)",
    &[oid::INT4, oid::INT4, oid::TEXT, oid::TEXT],
)];

type Failure = Box<dyn Error + Send + Sync>;

/// What came of one connection's batches.
#[derive(Default)]
struct Tally {
    committed: u32,
    deadlocks: u32,
    /// How long all of them took.
    seconds: f64,
}

fn main() -> Result<(), Failure> {
    let sql = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
    println!("| connections | sorted by account | as they come | deadlocks of these |");
    println!("|---|---|---|---|");
    for connections in [1, 2, 4] {
        let mut figures = Vec::new();
        for is_sorted in [true, false] {
            let postgres = Postgres::start(&PostgresOptions::default())?;
            postgres.create_database("rinha")?;
            postgres.apply_sql("rinha", &sql)?;
            let url = postgres.url("rinha");
            let home = url.split_once("?host=").ok_or("a URL without a host")?.1;
            figures.push(run(&format!("{home}/.s.PGSQL.5432"), connections, is_sorted)?);
        }
        let rates = figures.iter().map(|tally| f64::from(tally.committed) / tally.seconds);
        let rates: Vec<String> = rates.map(|rate| format!("{rate:.0} tx/s")).collect();
        let deadlocks = figures.iter().map(|tally| tally.deadlocks).sum::<u32>();
        println!("| {connections} | {} | {deadlocks} |", rates.join(" | "));
    }
    Ok(())
}

/// All connections at once, for a while.
fn run(socket: &str, connections: u64, is_sorted: bool) -> Result<Tally, Failure> {
    let start = Instant::now();
    let end = start + RUN;
    thread::scope(|scope| {
        let lane = |seed| scope.spawn(move || hammer(socket, seed, is_sorted, end));
        let lanes: Vec<_> = (1..=connections).map(lane).collect();
        let mut sum = Tally::default();
        for lane in lanes {
            let tally = lane.join().map_err(|_| "a connection panicked")??;
            sum.committed += tally.committed;
            sum.deadlocks += tally.deadlocks;
        }
        sum.seconds = start.elapsed().as_secs_f64();
        Ok(sum)
    })
}

/// One connection: batch after batch. What was rolled back is not run again.
fn hammer(socket: &str, seed: u64, is_sorted: bool, end: Instant) -> Result<Tally, Failure> {
    let session = Session {
        user: "rinha".into(),
        password: None,
        database: "rinha".into(),
        parameters: vec![],
        ..Session::default()
    };
    let limits = Limits {
        message_len_max_bytes: 8192,
        text_len_max_bytes: 1 << 20,
        send_len_max_bytes: 8192,
        in_flight_calls_max: BATCH_CALLS,
    };
    let mut connection = Connection::<()>::new(&session, &STATEMENTS, limits);
    let mut wire = UnixStream::connect(socket)?;
    let mut random = Random::new(seed);
    let mut tally = Tally::default();
    let mut done = 0;
    loop {
        wire.write_all(connection.send_pending())?;
        connection.send_advance(connection.send_pending().len());
        let received = wire.read(connection.recv_space())?;
        if received == 0 {
            return Err("PostgreSQL closed the connection".into());
        }
        connection.recv_commit(received);
        let mut is_over = false;
        while let Some(event) = connection.poll_event() {
            match event {
                Event::Done { .. } => done += 1,
                Event::Failed { error, .. } if error.code == SqlState::DEADLOCK_DETECTED => {
                    tally.deadlocks += 1;
                }
                Event::Failed { error, .. } => return Err(error.to_string().into()),
                Event::Closed { reason } => return Err(reason.to_string().into()),
                Event::Committed => {
                    tally.committed += done;
                    is_over = true;
                }
                Event::Ready | Event::Aborted { .. } => is_over = true,
                _ => {}
            }
        }
        if !is_over {
            continue;
        }
        done = 0;
        if Instant::now() > end {
            return Ok(tally);
        }
        let mut accounts: Vec<i32> =
            (0..BATCH_CALLS).map(|_| i32::try_from(random.between(1, 5))).collect::<Result<_, _>>()?;
        if is_sorted {
            accounts.sort_unstable();
        }
        for account in accounts {
            let parameters = [Value::Int4(account), Value::Int4(1), Value::Text("c"), Value::Text("batch")];
            connection.call((), 0, &parameters).map_err(|_| "the batch does not fit")?;
        }
        connection.sync();
    }
}

const BATCH_CALLS: usize = 32;
const RUN: Duration = Duration::from_secs(5);
