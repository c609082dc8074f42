//! Conversations of the real server with its client and with real PostgreSQL, byte by byte, as the book shows them.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use stress::throwaway::Throwaway;
use stress::{Postgres, PostgresOptions};

use super::dissect;
use crate::support::bank::PATIENT;
use crate::support::proxy::Way;
use crate::support::wire::PATIENCE;
use crate::support::{Bank, Database, Proxy, get, transaction, workspace};

/// No lane is probed while a conversation is recorded.
const NO_PROBE: (&str, &str) = ("PROBE_INTERVAL_MS", "60000");

/// A file for the book: what was said, in pieces that a chapter includes by name.
#[derive(Default)]
struct File {
    text: String,
}

impl File {
    fn add(&mut self, anchor: &str, told: &str) {
        write!(self.text, "ANCHOR: {anchor}\n{told}ANCHOR_END: {anchor}\n\n").expect("writing to memory");
    }

    /// Turn by turn, one name for each.
    fn add_turns(&mut self, anchors: &[&str], turns: &[(Way, Vec<u8>)]) {
        assert_eq!(turns.len(), anchors.len(), "turns of the conversation: {turns:?}");
        for (anchor, (way, bytes)) in anchors.iter().zip(turns) {
            let to = if *way == Way::ToServer { "server to PostgreSQL" } else { "PostgreSQL to server" };
            self.add(anchor, &dissect::postgresql(to, *way, bytes));
        }
    }
}

/// A bank whose link to PostgreSQL is recorded from now on.
fn recorded(settings: &[(&str, &str)]) -> (Proxy, Bank) {
    let database = Database::new();
    let proxy = Proxy::to(&database.url());
    let url = format!("postgresql://rinha@127.0.0.1:{}/{}?sslmode=disable", proxy.port(), database.name());
    let settings: Vec<_> = [NO_PROBE].iter().chain(settings).copied().collect();
    let bank = Bank::start(database, &settings, |options| options.database_url = url);
    proxy.record();
    (proxy, bank)
}

/// One transaction and one statement: both wires.
pub(super) fn request() -> String {
    let (proxy, bank) = recorded(&[]);
    let mut file = File::default();
    let requests =
        [("transaction", transaction(1, 1000, "c", "deposito")), ("statement", get("/clientes/1/extrato"))];
    let mut wire = TcpStream::connect(bank.address()).expect("connect");
    wire.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    for (name, request) in requests {
        wire.write_all(&request).expect("ask");
        let answer = answer(&mut wire);
        file.add(&format!("{name}_asked"), &dissect::http("client to server", &request));
        let anchors = [format!("{name}_sent"), format!("{name}_committed")];
        file.add_turns(&anchors.each_ref().map(String::as_str), &proxy.take_recorded());
        file.add(&format!("{name}_answered"), &dissect::http("server to client", &answer));
    }
    file.text
}

/// The bytes of one answer.
fn answer(wire: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let n = wire.read(&mut piece).expect("read the answer");
        assert!(n > 0, "the end of the connection in {bytes:?}");
        bytes.extend_from_slice(&piece[..n]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, content)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
        if content.len() == length.parse::<usize>().expect("a number") {
            return bytes;
        }
    }
}

/// From the first byte to the first call: SCRAM, the statements, the accounts.
pub(super) fn login() -> String {
    let directory = Throwaway::new("book").expect("make a directory");
    let hba = directory.path().join("hba.conf");
    std::fs::write(&hba, "local all rinha trust\nlocal all all scram-sha-256\n").expect("write the rules");
    let hba = hba.to_str().expect("a path in UTF-8").to_owned();
    let options =
        PostgresOptions { settings: vec![("hba_file".to_owned(), hba)], ..PostgresOptions::default() };
    let postgres = Postgres::start(&options).expect("start a PostgreSQL");
    postgres.create_database("rinha").expect("make the database");
    postgres.apply_sql("rinha", &workspace().join("sql")).expect("apply sql/*.sql");
    let sql = "SET password_encryption = 'scram-sha-256'; CREATE ROLE bank LOGIN PASSWORD 'segredo';
               GRANT SELECT, INSERT, UPDATE ON clientes, transacoes TO bank";
    postgres.connect("rinha").expect("connect").batch_execute(sql).expect("make a role");

    let proxy = Proxy::to(&postgres.url("rinha"));
    proxy.record();
    let url = format!("postgresql://bank:segredo@127.0.0.1:{}/rinha?sslmode=disable", proxy.port());
    let instance =
        stress::Instance::start(&crate::support::bank::options(&url, &[NO_PROBE])).expect("start the server");
    let mut file = File::default();
    let anchors =
        ["hello", "methods", "first", "challenge", "proof", "welcome", "parse", "parsed", "ask", "accounts"];
    let mut turns = proxy.take_recorded();
    // The question for the server's history, and the answer, which is another one for each server.
    let history = turns.iter().position(|(_, bytes)| bytes[0] == b'Q').expect("a simple query");
    turns.drain(history..history + 2);
    file.add_turns(&anchors, &turns);
    drop(instance);
    file.text
}

/// Several calls in one batch: one by one, as a set, and with one that fails.
pub(super) fn batches() -> String {
    let mut file = File::default();
    let calls = [(2, "c", "a"), (1, "c", "b"), (2, "d", "c")];
    let (_bank, turns) = in_one_batch(&[("GROUP_CALLS_MIN", "257")], &calls, |_| {});
    file.add_turns(&["singles_sent", "singles_committed"], &turns);
    let calls = [(2, "c", "a"), (1, "c", "b"), (2, "d", "c"), (1, "d", "e")];
    let (_bank, turns) = in_one_batch(&[], &calls, |_| {});
    file.add_turns(&["set_sent", "set_committed"], &turns);
    let calls = [(1, "c", "a"), (1, "c", "boom"), (1, "c", "b")];
    let (bank, turns) = in_one_batch(&[("GROUP_CALLS_MIN", "257")], &calls, |database| {
        database.plant_failure("P0001", "true");
    });
    let anchors = [
        "failed_sent",
        "failed",
        "again_1",
        "again_1_done",
        "again_2",
        "again_2_done",
        "again_3",
        "again_3_done",
    ];
    file.add_turns(&anchors, &turns);
    bank.database.assert_ledger_adds_up();
    file.text
}

/// What is said about these calls, which share one batch in this order.
fn in_one_batch(
    settings: &[(&str, &str)],
    calls: &[(i32, &str, &str)],
    prepare: impl FnOnce(&Database),
) -> (Bank, Vec<(Way, Vec<u8>)>) {
    let (proxy, bank) = recorded(&[&PATIENT, settings].concat());
    prepare(&bank.database);
    let calls =
        calls.iter().map(|(account, kind, description)| transaction(*account, 100, kind, description));
    bank.in_one_batch(calls);
    // The first two turns are those of the call that waited.
    (bank, proxy.take_recorded().split_off(2))
}
