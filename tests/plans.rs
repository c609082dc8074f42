//! A statement costs the same however long the ledger is: PostgreSQL reads it off the index, also on tables that were
//! never analyzed, whose statistics say nothing.

mod support;

use stress::postgres::Client;
use support::Database;

/// The plan of the query in `GetSaldoClienteById` under the settings of that function, as one text.
fn ledger_plan(database: &Database) -> String {
    let source: String = database
        .connect()
        .query_one("SELECT prosrc FROM pg_proc WHERE proname = 'getsaldoclientebyid'", &[])
        .expect("find the function")
        .get(0);
    let from = source.find("SELECT u.valor").expect("the query of the ledger");
    let until = source[from..].find(") AS t").expect("its end") + from;
    let query = source[from..until].replace("u.cliente_id = c.id", "u.cliente_id = 3");

    let mut client = database.connect();
    let settings: Vec<String> = client
        .query_one("SELECT proconfig FROM pg_proc WHERE proname = 'getsaldoclientebyid'", &[])
        .expect("find the function's settings")
        .get(0);
    for setting in settings {
        client.batch_execute(&format!("SET {setting}")).expect("apply a setting");
    }
    let lines = client.query(&format!("EXPLAIN {query}"), &[]).expect("explain");
    lines.iter().map(|line| line.get::<_, String>(0)).collect::<Vec<_>>().join("\n")
}

/// Pages that one call of the function touches, once its plans are made.
fn pages_of_a_statement(database: &Database) -> i64 {
    pages_in_session(&mut database.connect())
}

/// The same in a session that may have plans already.
fn pages_in_session(client: &mut Client) -> i64 {
    let mut pages = 0;
    // Past the five calls after which a plan may become generic.
    for _ in 0..8 {
        let lines = client
            .query("EXPLAIN (ANALYZE, BUFFERS) SELECT GetSaldoClienteById(3)", &[])
            .expect("explain a call");
        let lines: Vec<String> = lines.iter().map(|line| line.get(0)).collect();
        // The first line about buffers is that of the whole call: "Buffers: shared hit=7 read=1".
        let buffers =
            lines.iter().find(|line| line.contains("Buffers: shared")).expect("a line about buffers");
        let count =
            |word: &str| word.strip_prefix("hit=").or(word.strip_prefix("read="))?.parse::<i64>().ok();
        pages = buffers.split(' ').filter_map(count).sum();
    }
    pages
}

/// A ledger of this many rows over all clients, which nobody has analyzed.
fn ledger_of(rows: u32) -> Database {
    let database = Database::new();
    database.execute("ALTER TABLE transacoes SET (autovacuum_enabled = off)");
    database.execute("ALTER TABLE clientes SET (autovacuum_enabled = off)");
    plant(&database, rows);
    assert_eq!(database.number("SELECT count(*) FROM pg_stats WHERE tablename = 'transacoes'"), 0);
    database
}

fn plant(database: &Database, rows: u32) {
    database.execute(&format!(
        "INSERT INTO transacoes (cliente_id, valor, tipo, descricao)
         SELECT 1 + n % 5, 1, 'c', 'planted' FROM generate_series(1, {rows}) AS n"
    ));
}

#[test]
fn a_statement_reads_the_newest_rows_off_the_index_whatever_the_statistics_say() {
    for rows in [0, 20, 200_000] {
        let plan = ledger_plan(&ledger_of(rows));
        assert!(plan.contains("Index Scan Backward using transacoes_pkey"), "{rows} rows:\n{plan}");
        assert!(!plan.contains("Sort") && !plan.contains("Bitmap"), "{rows} rows:\n{plan}");
    }
}

#[test]
fn a_statement_touches_no_more_pages_of_a_long_ledger_than_of_a_short_one() {
    let short = pages_of_a_statement(&ledger_of(100));
    let long = pages_of_a_statement(&ledger_of(200_000));
    // One index level more, and ten rows of one client spread over pages with those of the others.
    assert!(long <= short + 4, "{short} pages for 100 rows, {long} for 200000");
}

#[test]
fn a_session_that_made_its_plans_on_an_empty_ledger_keeps_good_ones() {
    let database = ledger_of(0);
    let mut client = database.connect();
    let empty = pages_in_session(&mut client);
    plant(&database, 200_000);
    let long = pages_in_session(&mut client);
    assert!(long <= empty + 16, "{empty} pages for an empty ledger, {long} for 200000 rows");
}
