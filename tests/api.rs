//! The API, row by row of its contract: what it accepts, what it refuses and how, and what it does when the database is
//! not there.

mod support;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs as _};
use std::process::{Command, Output};
use std::thread;

use serde_json::{Value, json};
use stress::throwaway::Throwaway;
use stress::{Frozen, Instance, Postgres, PostgresOptions, Readiness, Signal};
use support::bank::{PATIENT, assert_same, options};
use support::cluster::assert_ledger_adds_up;
use support::{
    Bank, Database, Edge, Proxy, SERVER, Wire, every_edge, full_listener, get, post, request, transaction,
    wait_for, workspace,
};

const TRANSACTIONS: &str = "/clientes/1/transacoes";
const STATEMENT: &str = "/clientes/1/extrato";
const CREDIT: &str = r#"{"valor": 1, "tipo": "c", "descricao": "a"}"#;

// ---------------------------------------------------------------------------------------------------------------------
// The shape of answers.

every_edge!(a_transaction_answers_the_limit_and_the_new_balance_and_nothing_else);
fn a_transaction_answers_the_limit_and_the_new_balance_and_nothing_else(edge: Edge) {
    let bank = edge.open();
    assert_eq!(bank.transact(1, 1000, "c", "deposito").json(), json!({"limite": 100_000, "saldo": 1000}));
    assert_eq!(bank.transact(1, 10_098, "d", "saque").json(), json!({"limite": 100_000, "saldo": -9098}));
    bank.database.assert_ledger_adds_up();
}

every_edge!(the_five_clients_have_their_limits_and_a_balance_of_zero);
fn the_five_clients_have_their_limits_and_a_balance_of_zero(edge: Edge) {
    let bank = edge.open();
    for (account, limit) in [(1, 100_000), (2, 80_000), (3, 1_000_000), (4, 10_000_000), (5, 500_000)] {
        let statement = bank.statement(account);
        assert_eq!(statement["saldo"]["limite"], json!(limit));
        assert_eq!(statement["saldo"]["total"], json!(0));
        assert_eq!(statement["ultimas_transacoes"], json!([]));
    }
}

every_edge!(a_statement_has_exactly_the_members_of_the_contract);
fn a_statement_has_exactly_the_members_of_the_contract(edge: Edge) {
    let bank = edge.open();
    bank.transact(2, 300, "c", "deposito");
    bank.transact(2, 500, "d", "saque");
    let mut statement = bank.statement(2);

    assert_timestamp(&statement["saldo"]["data_extrato"].take());
    let newest_at = assert_timestamp(&statement["ultimas_transacoes"][0]["realizada_em"].take());
    let oldest_at = assert_timestamp(&statement["ultimas_transacoes"][1]["realizada_em"].take());
    assert!(oldest_at < newest_at, "{oldest_at} {newest_at}");
    let expected = json!({
        "saldo": {"total": -200, "data_extrato": null, "limite": 80_000},
        "ultimas_transacoes": [
            {"valor": 500, "tipo": "d", "descricao": "saque", "realizada_em": null},
            {"valor": 300, "tipo": "c", "descricao": "deposito", "realizada_em": null},
        ]
    });
    assert_eq!(statement, expected);
}

every_edge!(a_statement_shows_the_ten_newest_transactions_newest_first);
fn a_statement_shows_the_ten_newest_transactions_newest_first(edge: Edge) {
    let bank = edge.open();
    let mut wire = bank.connect();
    for number in 1..=13 {
        wire.ask(transaction(3, number, "c", &format!("n{number}")));
        let shown = bank.descriptions(3);
        let expected: Vec<String> = (1..=number).rev().take(10).map(|number| format!("n{number}")).collect();
        assert_eq!(shown, expected);
    }
    let statement = bank.statement(3);
    assert_eq!(statement["saldo"]["total"], json!((1..=13).sum::<i64>()));
}

/// Direct only: a batch is of one instance, and the test counts them.
#[test]
fn transactions_of_one_batch_have_their_own_times_in_their_order() {
    let bank = Bank::with(&PATIENT);
    let (stranger, mut first) = bank.block(1, "first");
    // These come while the first is out, so they share the next batch.
    let mut wires: Vec<Wire> = (0..9).map(|_| bank.connect()).collect();
    for wire in &mut wires {
        wire.send(transaction(1, 1, "c", "later"));
    }
    bank.wait_metric("rinha_calls_queued", 9);
    drop(stranger);
    assert_eq!(first.answer().balance(), 1);
    let mut balances: Vec<i64> = wires.iter_mut().map(|wire| wire.answer().balance()).collect();
    balances.sort_unstable();
    assert_eq!(balances, (2..=10).collect::<Vec<_>>());

    assert_eq!(bank.metric("rinha_batch_calls_count"), 2, "{}", bank.metrics());
    let statement = bank.statement(1);
    let transactions = statement["ultimas_transacoes"].as_array().unwrap();
    let times: Vec<String> = transactions.iter().map(|t| assert_timestamp(&t["realizada_em"])).collect();
    assert_eq!(times.len(), 10);
    // Not one time for all, as now() would give; but two may share a microsecond.
    assert!(times.is_sorted_by(|newer, older| newer >= older), "{times:?}");
    assert!(times[0] > times[8], "{times:?}");
}

/// Direct only: about the session with PostgreSQL.
#[test]
fn times_are_when_it_happened_in_utc() {
    // A session elsewhere on Earth: the answers are in UTC all the same.
    let database = Database::new();
    database.execute(&format!("ALTER DATABASE {} SET timezone = 'Asia/Kolkata'", database.name()));
    let bank = Bank::over(database, &[]);
    let clock = || {
        let sql = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
        bank.database.connect().query_one(sql, &[]).unwrap().get::<_, String>(0)
    };
    let before = clock();
    bank.transact(1, 1, "c", "agora");
    let between = clock();
    let statement = bank.statement(1);
    let after = clock();
    let ran_at = assert_timestamp(&statement["ultimas_transacoes"][0]["realizada_em"]);
    let shown_at = assert_timestamp(&statement["saldo"]["data_extrato"]);
    assert!(before < ran_at && ran_at < between, "{before} {ran_at} {between}");
    assert!(between < shown_at && shown_at < after, "{between} {shown_at} {after}");
}

every_edge!(every_answer_says_what_it_holds_how_long_it_is_and_when_it_was_sent);
fn every_answer_says_what_it_holds_how_long_it_is_and_when_it_was_sent(edge: Edge) {
    // Content-Length, Date and the shape of errors are checked in every answer that any test reads.
    let bank = edge.open();
    let rows = [
        (get(STATEMENT), 200, "application/json"),
        (post(TRANSACTIONS, CREDIT), 200, "application/json"),
        (get("/healthz"), 200, "text/plain"),
        (get("/"), 404, "application/json"),
        (post(STATEMENT, ""), 405, "application/json"),
        (post(TRANSACTIONS, "x"), 400, "application/json"),
        (post(TRANSACTIONS, "{}"), 422, "application/json"),
        (b"x\r\n\r\n".to_vec(), 400, "application/json"),
    ];
    for (bytes, status, content_type) in rows {
        let answer = bank.ask(&bytes);
        assert_same(&(answer.status, answer.field("Content-Type")), &(status, Some(content_type)), &bytes);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Bodies.

/// A transaction as the contract has it, but for one member, which may be left out.
fn body_with(member: &str, value: Option<&str>) -> String {
    let members = [("valor", "1"), ("tipo", r#""c""#), ("descricao", r#""a""#)];
    let members = members.iter().filter_map(|(name, usual)| {
        let value = if *name == member { value? } else { usual };
        Some(format!(r#""{name}": {value}"#))
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
}

/// Sends each body to client 1, on one connection, and compares the status; what is refused leaves no trace.
fn assert_bodies<B: AsRef<[u8]>>(edge: Edge, rows: &[(B, u16)]) {
    let bank = edge.open();
    let mut wire = bank.connect();
    for (body, status) in rows {
        let answer = wire.ask(post(TRANSACTIONS, body));
        assert_same(&answer.status, status, body.as_ref());
        assert_ne!(
            answer.field("Connection"),
            Some("close"),
            "a refused body costs no connection: {answer:?}"
        );
    }
    let accepted = rows.iter().filter(|(_, status)| *status == 200).count();
    assert_eq!(
        bank.database.number("SELECT count(*) FROM transacoes"),
        i64::try_from(accepted).expect("a small number")
    );
    bank.database.assert_ledger_adds_up();
}

/// The same for one member.
fn assert_member(edge: Edge, member: &str, rows: &[(&str, u16)]) {
    let bodies: Vec<(String, u16)> =
        rows.iter().map(|(value, status)| (body_with(member, Some(value)), *status)).collect();
    assert_bodies(edge, &bodies);
}

every_edge!(valor_is_an_integer_from_1_to_2147483647);
fn valor_is_an_integer_from_1_to_2147483647(edge: Edge) {
    assert_member(
        edge,
        "valor",
        &[
            ("1", 200),
            ("2147483647", 200),
            ("2147483648", 422),
            ("0", 422),
            ("-0", 422),
            ("-1", 422),
            ("-2147483648", 422),
            ("-2147483649", 422),
            ("4294967297", 422),
            ("9223372036854775808", 422),
            ("18446744073709551616", 422),
            ("18446744073709551617", 422),
            ("99999999999999999999", 422),
            ("1.0", 422),
            ("1.2", 422),
            ("1.5", 422),
            ("0.1", 422),
            ("1e3", 422),
            ("1E0", 422),
            ("1e400", 422),
            (r#""1""#, 422),
            (r#""""#, 422),
            ("null", 422),
            ("true", 422),
            ("false", 422),
            ("[1]", 422),
            ("{}", 422),
            ("01", 400),
            ("+1", 400),
            (".5", 400),
            ("1.", 400),
            ("0x1", 400),
            ("NaN", 400),
            ("Infinity", 400),
        ],
    );
}

every_edge!(tipo_is_c_or_d);
fn tipo_is_c_or_d(edge: Edge) {
    assert_member(
        edge,
        "tipo",
        &[
            (r#""c""#, 200),
            (r#""d""#, 200),
            (r#""\u0063""#, 200),
            (r#""\u0064""#, 200),
            (r#""C""#, 422),
            (r#""D""#, 422),
            (r#""x""#, 422),
            (r#""cc""#, 422),
            (r#""c ""#, 422),
            (r#""c\u0000""#, 422),
            (r#""""#, 422),
            ("null", 422),
            ("1", 422),
            ("99", 422),
            ("true", 422),
            (r#"["c"]"#, 422),
            (r#"{"c": null}"#, 422),
            (r#"{"c": "c"}"#, 422),
            ("c", 400),
            ("'c'", 400),
        ],
    );
}

every_edge!(descricao_has_1_to_10_characters);
fn descricao_has_1_to_10_characters(edge: Edge) {
    let rows = [
        (r#""a""#, 200),
        (r#""1234567890""#, 200),
        (r#""12345678901""#, 422),
        (r#""éééééééééé""#, 200),
        (r#""ééééééééééé""#, 422),
        (r#""漢漢漢漢漢漢漢漢漢漢""#, 200),
        (r#""漢漢漢漢漢漢漢漢漢漢漢""#, 422),
        (r#""🦀🦀🦀🦀🦀🦀🦀🦀🦀🦀""#, 200),
        (r#""🦀🦀🦀🦀🦀🦀🦀🦀🦀🦀🦀""#, 422),
        // Ten characters of one, two, three and four bytes.
        (r#""aé漢🦀aé漢🦀aé""#, 200),
        // A letter and a combining mark are two.
        (r#""e\u0301e\u0301e\u0301e\u0301e\u0301""#, 200),
        (r#""e\u0301e\u0301e\u0301e\u0301e\u0301e""#, 422),
        // An escaped surrogate pair is one.
        (r#""\ud83e\udd80\ud83e\udd80\ud83e\udd80\ud83e\udd80\ud83e\udd80""#, 200),
        (r#""123456789\ud83e\udd80""#, 200),
        (r#""1234567890\ud83e\udd80""#, 422),
        (r#""\u0041\u0041\u0041\u0041\u0041\u0041\u0041\u0041\u0041\u0041""#, 200),
        (r#""\u0041\u0041\u0041\u0041\u0041\u0041\u0041\u0041\u0041\u0041\u0041""#, 422),
        (r#""\"\\\/\b\f\n\r\t""#, 200),
        (r#"" ""#, 200),
        ("\"\u{7f}\"", 200),
        (r#""""#, 422),
        ("null", 422),
        ("1", 422),
        ("true", 422),
        (r#"["a"]"#, 422),
        (r#"{"a": "a"}"#, 422),
        (r#""\u0000""#, 422),
        (r#""a\u0000b""#, 422),
        (r#""123456789\u0000""#, 422),
        (r#""\ud800""#, 422),
        (r#""\udc00""#, 422),
        (r#""\ud800a""#, 422),
        (r#""\ud800\ud800""#, 422),
        (r#""\udd80\ud83e""#, 422),
        (r#""\ud800\n""#, 422),
        (r#""\q""#, 400),
        (r#""\u00""#, 400),
        (r#""\u00g0""#, 400),
        ("\"a\nb\"", 400),
        ("\"a\0b\"", 400),
        ("\"a\tb\"", 400),
        (r#""a"#, 400),
    ];
    assert_member(edge, "descricao", &rows);
}

every_edge!(all_three_members_are_required);
fn all_three_members_are_required(edge: Edge) {
    let rows: Vec<(String, u16)> =
        ["valor", "tipo", "descricao"].map(|member| (body_with(member, None), 422)).to_vec();
    assert_bodies(edge, &rows);
    assert_bodies(
        edge,
        &[
            ("{}", 422),
            (r#"{"Valor": 1, "tipo": "c", "descricao": "a"}"#, 422),
            (r#"{"valor": 1, "tipo": "c", "descrição": "a"}"#, 422),
            (r#"{"": 1, "tipo": "c", "descricao": "a"}"#, 422),
            (r#"{"valor ": 1, "tipo": "c", "descricao": "a"}"#, 422),
        ],
    );
}

every_edge!(other_members_are_ignored);
fn other_members_are_ignored(edge: Edge) {
    let rows = [
        r#""outro": 1"#,
        r#""outro": null"#,
        r#""outro": {"valor": -1, "tipo": {"x": []}, "descricao": ""}"#,
        r#""outro": [[[{"valor": "x"}, 1e3, -0.5, true]]]"#,
        r#""outro": 1, "outro": 2"#,
        r#""outro": 99999999999999999999999999999999999999999"#,
        r#""outro": 1e999"#,
        r#""outro": "\ud800""#,
        r#""\ud800": 1"#,
        r#""": 1"#,
        r#""Valor": 0"#,
        r#""outro": "\u0000""#,
        r#""descricao ": "muito mais do que dez""#,
    ];
    let mut bodies = Vec::new();
    for row in rows {
        bodies.push((format!(r#"{{{row}, "valor": 1, "tipo": "c", "descricao": "a"}}"#), 200));
        bodies.push((format!(r#"{{"valor": 1, "tipo": "c", {row}, "descricao": "a"}}"#), 200));
        bodies.push((format!(r#"{{"valor": 1, "tipo": "c", "descricao": "a", {row}}}"#), 200));
    }
    bodies.push((r#"{"valor": 1, "tipo": "c", "descricao": "a", "outro": nul}"#.to_owned(), 400));
    bodies.push((r#"{"valor": 1, "tipo": "c", "descricao": "a", "outro": [}"#.to_owned(), 400));
    bodies.push((r#"{"valor": 1, "tipo": "c", "descricao": "a", "outro": "\x"}"#.to_owned(), 400));
    assert_bodies(edge, &bodies);
}

every_edge!(order_white_space_and_escapes_in_names_do_not_matter);
fn order_white_space_and_escapes_in_names_do_not_matter(edge: Edge) {
    assert_bodies(
        edge,
        &[
            (r#"{"descricao":"a","tipo":"c","valor":1}"#, 200),
            (" \t\r\n{\r\n\t\"valor\" : 1 ,\n\"tipo\":\"c\",\"descricao\":\"a\"\n}\n ", 200),
            (r#"{"\u0076alor": 1, "tip\u006f": "c", "descri\u0063ao": "a"}"#, 200),
        ],
    );
}

every_edge!(a_repeated_member_is_out_of_its_rule);
fn a_repeated_member_is_out_of_its_rule(edge: Edge) {
    let members = [r#""valor": 1"#, r#""tipo": "c""#, r#""descricao": "a""#];
    let mut bodies: Vec<(String, u16)> = members
        .map(|member| (format!(r#"{{"valor": 1, "tipo": "c", "descricao": "a", {member}}}"#), 422))
        .to_vec();
    bodies.push((r#"{"valor": 1, "\u0076alor": 1, "tipo": "c", "descricao": "a"}"#.to_owned(), 422));
    bodies.push((r#"{"valor": "x", "valor": 1, "tipo": "c", "descricao": "a"}"#.to_owned(), 422));
    assert_bodies(edge, &bodies);
}

every_edge!(json_that_is_no_object_is_out_of_its_rule);
fn json_that_is_no_object_is_out_of_its_rule(edge: Edge) {
    assert_bodies(
        edge,
        &[
            (r#"[1, "c", "a"]"#, 422),
            (r#"[{"valor": 1, "tipo": "c", "descricao": "a"}]"#, 422),
            ("[]", 422),
            ("null", 422),
            ("true", 422),
            ("1", 422),
            (r#""valor""#, 422),
            (r#""\ud800""#, 422),
        ],
    );
}

every_edge!(a_body_that_is_not_json_is_a_bad_request);
fn a_body_that_is_not_json_is_a_bad_request(edge: Edge) {
    let mut rows: Vec<(Vec<u8>, u16)> = [
        "",
        " ",
        "\0",
        "x",
        "{",
        "}",
        "{]",
        r#"{"valor": 1"#,
        r#"{"valor": 1, "tipo": "c", "descricao": "a""#,
        r#"{"valor": 1, "tipo": "c", "descricao": "a"}}"#,
        r#"{"valor": 1, "tipo": "c", "descricao": "a"} x"#,
        r#"{"valor": 1, "tipo": "c", "descricao": "a"}{}"#,
        r#"{"valor": 1, "tipo": "c", "descricao": "a"},"#,
        r#"{"valor": 1, "tipo": "c", "descricao": "a",}"#,
        r#"{"valor": 1 "tipo": "c", "descricao": "a"}"#,
        r#"{"valor": 1, "tipo": "c", "descricao": "a"} // yes"#,
        "{'valor': 1, 'tipo': 'c', 'descricao': 'a'}",
        r#"{valor: 1, tipo: "c", descricao: "a"}"#,
        r#"{"valor": 1, "tipo": "c", "descricao": "a"/**/}"#,
        "valor=1&tipo=c&descricao=a",
        "\u{feff}{\"valor\": 1, \"tipo\": \"c\", \"descricao\": \"a\"}",
        "{\"valor\": 1, \"tipo\": \"c\", \"descricao\": \"a\"}\0",
        "{\u{a0}\"valor\": 1, \"tipo\": \"c\", \"descricao\": \"a\"}",
    ]
    .iter()
    .map(|body| (body.as_bytes().to_vec(), 400))
    .collect();
    for broken in [&b"\xff"[..], b"\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe6\xbc"] {
        // In a member of ours, in one of others, in a name, and behind an error that would be a 422 by itself.
        let around = [
            (&br#"{"valor": 1, "tipo": "c", "descricao": ""#[..], &br#""}"#[..]),
            (br#"{"valor": 1, "tipo": "c", "descricao": "a", "outro": ""#, br#""}"#),
            (br#"{"valor": 1, "tipo": "c", "descricao": "a", ""#, br#"": 1}"#),
            (br#"{"valor": 0, "tipo": "c", "descricao": "a", "outro": ""#, br#""}"#),
        ];
        rows.extend(around.map(|(before, after)| ([before, broken, after].concat(), 400)));
    }
    let utf_16 = CREDIT.encode_utf16().flat_map(u16::to_le_bytes).collect();
    rows.push((utf_16, 400));
    assert_bodies(edge, &rows);
}

every_edge!(deep_nesting_is_refused_without_harm);
fn deep_nesting_is_refused_without_harm(edge: Edge) {
    // 8000 levels would overflow a stack that recurses without a limit.
    let bank = edge.open();
    let body = format!(
        r#"{{"x": {}{}, "valor": 1, "tipo": "c", "descricao": "a"}}"#,
        "[".repeat(8000),
        "]".repeat(8000)
    );
    let status = bank.ask(post(TRANSACTIONS, body)).status;
    assert!([200, 400, 422].contains(&status), "{status}");
    assert_eq!(bank.transact(1, 1, "c", "a").status, 200);
}

every_edge!(the_content_type_of_a_request_does_not_matter);
fn the_content_type_of_a_request_does_not_matter(edge: Edge) {
    let bank = edge.open();
    for content_type in ["application/json", "text/plain", "application/x-www-form-urlencoded", ""] {
        let head = format!(
            "POST {TRANSACTIONS} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            CREDIT.len()
        );
        assert_eq!(bank.ask(head + CREDIT).status, 200, "{content_type}");
    }
}

every_edge!(descriptions_come_back_as_they_were_sent);
fn descriptions_come_back_as_they_were_sent(edge: Edge) {
    let bank = edge.open();
    let descriptions = [
        "é漢🦀",
        "\"\\/\u{8}\u{c}\n\r\t",
        "' OR 1=1--",
        "</script>",
        "\u{1}\u{1f}\u{7f}",
        " ",
        "$1",
        "\u{feff}",
        "%00",
    ];
    for sent in descriptions {
        let answer = bank.transact(1, 1, "c", sent);
        assert_eq!(answer.status, 200, "{sent:?}");
        assert_eq!(bank.descriptions(1)[0], sent);
        assert_eq!(bank.database.ledger_rows(sent), 1, "{sent:?}");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The rules of the bank.

every_edge!(a_debit_may_reach_the_limit_but_not_pass_it);
fn a_debit_may_reach_the_limit_but_not_pass_it(edge: Edge) {
    let bank = edge.open();
    for (account, limit) in [(1, 100_000), (2, 80_000), (3, 1_000_000), (4, 10_000_000), (5, 500_000)] {
        let past = bank.transact(account, limit + 1, "d", "past");
        assert_eq!(past.status, 422, "{past:?}");
        assert_eq!(bank.transact(account, limit - 1, "d", "near").balance(), 1 - limit);
        assert_eq!(bank.transact(account, 2, "d", "past").status, 422);
        assert_eq!(bank.transact(account, 1, "d", "exact").balance(), -limit);
        assert_eq!(bank.transact(account, 1, "d", "past").status, 422);
        assert_eq!(bank.transact(account, 2_147_483_647, "d", "past").status, 422);
        assert_eq!(bank.descriptions(account), ["exact", "near"]);
        assert_eq!(bank.statement(account)["saldo"]["total"], json!(-limit));
    }
    assert_eq!(bank.database.ledger_rows("past"), 0, "a refused debit leaves no trace");
    bank.database.assert_ledger_adds_up();
}

every_edge!(a_credit_is_accepted_also_at_the_limit);
fn a_credit_is_accepted_also_at_the_limit(edge: Edge) {
    let bank = edge.open();
    assert_eq!(bank.transact(2, 80_000, "d", "all").balance(), -80_000);
    assert_eq!(bank.transact(2, 1, "c", "back").balance(), -79_999);
    assert_eq!(bank.transact(2, 1, "d", "again").balance(), -80_000);
    bank.database.assert_ledger_adds_up();
}

every_edge!(balances_are_64_bits_wide_both_ways);
fn balances_are_64_bits_wide_both_ways(edge: Edge) {
    let bank = edge.open();
    let most = 2_147_483_647;
    for times in 1..=4 {
        assert_eq!(bank.transact(1, most, "c", "much").balance(), most * times);
    }
    assert_eq!(bank.statement(1)["saldo"]["total"], json!(most * 4));
    for times in (0..4).rev() {
        assert_eq!(bank.transact(1, most, "d", "much").balance(), most * times);
    }
    bank.database.assert_ledger_adds_up();
}

every_edge!(concurrent_transactions_of_all_clients_add_up);
fn concurrent_transactions_of_all_clients_add_up(edge: Edge) {
    let bank = edge.open();
    let address = bank.address();
    let refused: usize = thread::scope(|scope| {
        let workers: Vec<_> = (0..16)
            .map(|worker: i64| {
                let address = &address;
                scope.spawn(move || {
                    let mut wire = Wire::connect(address);
                    let mut refused = 0;
                    for turn in 0..60_i64 {
                        let account = i32::try_from((worker + turn) % 5 + 1).expect("small");
                        let kind = if (worker * 7 + turn) % 3 == 0 { "c" } else { "d" };
                        let answer =
                            wire.ask(transaction(account, 1 + (worker * turn * 97) % 9000, kind, "mixed"));
                        match answer.status {
                            200 => assert!(answer.balance() >= -10_000_000),
                            422 if kind == "d" => refused += 1,
                            _ => panic!("{answer:?}"),
                        }
                        let statement = wire.ask(get(&format!("/clientes/{account}/extrato")));
                        assert_eq!(statement.status, 200, "{statement:?}");
                    }
                    refused
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("no panic")).sum()
    });
    assert!(refused > 0, "the load never met a limit, so it does not test it");
    let written = bank.database.number("SELECT count(*) FROM transacoes");
    assert_eq!(written, 16 * 60 - i64::try_from(refused).expect("small"));
    bank.database.assert_ledger_adds_up();
}

every_edge!(a_statement_is_one_snapshot_of_balance_and_ledger);
fn a_statement_is_one_snapshot_of_balance_and_ledger(edge: Edge) {
    let bank = edge.open();
    let address = bank.address();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut wire = Wire::connect(&address);
                for _ in 0..60 {
                    assert_eq!(wire.ask(transaction(1, 1, "c", "a")).status, 200);
                }
            });
        }
        scope.spawn(|| {
            let mut wire = Wire::connect(&address);
            let mut last = 0;
            while last < 4 * 60 {
                let statement = wire.ask(get(STATEMENT)).json();
                let total = statement["saldo"]["total"].as_i64().expect("a number");
                let shown = statement["ultimas_transacoes"].as_array().expect("a list").len();
                assert_eq!(
                    shown,
                    usize::try_from(total.min(10)).expect("small"),
                    "each transaction is one cent"
                );
                assert!(total >= last, "a balance went back: {last} {total}");
                last = total;
            }
        });
    });
    bank.database.assert_ledger_adds_up();
}

// ---------------------------------------------------------------------------------------------------------------------
// Paths and methods.

every_edge!(an_id_that_is_no_plain_decimal_of_a_client_is_not_found);
fn an_id_that_is_no_plain_decimal_of_a_client_is_not_found(edge: Edge) {
    let bank = edge.open();
    let mut wire = bank.connect();
    let ids = [
        "0",
        "6",
        "7",
        "01",
        "001",
        "+1",
        "-1",
        "-0",
        "00",
        "1.0",
        "1e0",
        "0x1",
        "%31",
        "",
        " ",
        "a",
        "1a",
        "a1",
        "2147483648",
        "-2147483648",
        "4294967297",
        "18446744073709551617",
        "99999999999999999999",
        "1%20",
        "1;a=b",
        "*",
        ".",
        "..",
        "%2e",
        "1,2",
        "1_0",
    ];
    for id in ids.iter().filter(|id| !id.contains(' ')) {
        for bytes in [
            post(&format!("/clientes/{id}/transacoes"), CREDIT),
            get(&format!("/clientes/{id}/extrato")),
            // A method that would be wrong on a path that exists.
            get(&format!("/clientes/{id}/transacoes")),
            post(&format!("/clientes/{id}/extrato"), "x"),
        ] {
            let answer = wire.ask(&bytes);
            assert_same(&answer.status, &404, &bytes);
        }
    }
    assert_eq!(bank.database.number("SELECT count(*) FROM transacoes"), 0);
}

every_edge!(an_unknown_path_is_not_found);
fn an_unknown_path_is_not_found(edge: Edge) {
    let bank = edge.open();
    let mut wire = bank.connect();
    let paths = [
        "/",
        "/clientes",
        "/clientes/",
        "/clientes/1",
        "/clientes/1/",
        "/clientes/1/extrato/",
        "/clientes/1/extrat",
        "/clientes/1/extratos",
        "/clientes/1/Extrato",
        "/Clientes/1/extrato",
        "//clientes/1/extrato",
        "/clientes//1/extrato",
        "/clientes/1//extrato",
        "/clientes/1/transacoes/",
        "/clientes/1/transacoes/1",
        "/api/clientes/1/extrato",
        "/clientes/1/extrato/..",
        "/./clientes/1/extrato",
        "/clientes/1%2Fextrato",
        "/%63lientes/1/extrato",
        "/clientes/1/extrato%20",
        "/clientes/1/extrato;x",
        "/healthz/",
        "/health",
        "/HEALTHZ",
        "/metrics",
        "/metrics/",
        "/favicon.ico",
    ];
    for path in paths {
        for bytes in [get(path), post(path, CREDIT), post(path, "not JSON"), request("DELETE", path, b"")] {
            let answer = wire.ask(&bytes);
            assert_same(&answer.status, &404, &bytes);
        }
    }
}

every_edge!(not_found_wins_before_the_body_is_sent);
fn not_found_wins_before_the_body_is_sent(edge: Edge) {
    let bank = edge.open();
    for path in ["/clientes/6/transacoes", "/nowhere"] {
        let mut wire = bank.connect();
        wire.send(format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"));
        if edge == Edge::Layer7 {
            // nginx passes a request on once it is complete.
            assert_eq!(wire.ask("{bad}").status, 404);
        } else {
            assert_eq!(wire.answer().status, 404);
            // The body is still expected, and passed over.
            wire.send("{bad}");
        }
        assert_eq!(wire.ask(get("/healthz")).text(), "Healthy");
    }
}

every_edge!(another_method_on_a_known_path_is_told_what_is_allowed);
fn another_method_on_a_known_path_is_told_what_is_allowed(edge: Edge) {
    let bank = edge.open();
    let mut wire = bank.connect();
    let rows = [
        (TRANSACTIONS, "POST", &["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "post", "X"][..]),
        (STATEMENT, "GET, HEAD", &["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "X"]),
        ("/healthz", "GET, HEAD", &["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "Get", "X"]),
    ];
    for (path, allow, methods) in rows {
        for method in methods {
            for body in ["", CREDIT] {
                let bytes = request(method, path, body.as_bytes());
                let status = edge.status(&String::from_utf8_lossy(&bytes), 405).expect("an answer");
                let answer = wire.ask(&bytes);
                let allow = (status == 405).then_some(allow);
                assert_same(&(answer.status, answer.field("Allow")), &(status, allow), &bytes);
                if answer.field("Connection") == Some("close") {
                    // As nginx does behind its own refusals.
                    wire = bank.connect();
                }
            }
        }
    }
    wire.send(request("HEAD", TRANSACTIONS, b""));
    let answer = wire.answer_to_head();
    assert_eq!((answer.status, answer.field("Allow")), (405, Some("POST")));
    assert_eq!(wire.ask(get("/healthz")).status, 200, "the answer to HEAD had no content");
    assert_eq!(bank.database.number("SELECT count(*) FROM transacoes"), 0);
}

every_edge!(a_method_is_judged_before_the_body);
fn a_method_is_judged_before_the_body(edge: Edge) {
    let bank = edge.open();
    let mut wire = bank.connect();
    wire.send(format!("PUT {TRANSACTIONS} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"));
    if edge == Edge::Layer7 {
        // nginx passes a request on once it is complete.
        assert_eq!(wire.ask("{x}").status, 405);
    } else {
        assert_eq!(wire.answer().status, 405);
        wire.send("{x}");
    }
    assert_eq!(wire.ask(get("/healthz")).status, 200);
}

every_edge!(query_strings_are_ignored);
fn query_strings_are_ignored(edge: Edge) {
    let bank = edge.open();
    let mut wire = bank.connect();
    for query in ["?", "?a=b", "?a=b&c=%00", "??", "?/clientes/6/extrato", "?x=http://a/b"] {
        assert_eq!(wire.ask(get(&format!("{STATEMENT}{query}"))).status, 200, "{query}");
        assert_eq!(wire.ask(get(&format!("/healthz{query}"))).status, 200, "{query}");
        assert_eq!(wire.ask(post(&format!("{TRANSACTIONS}{query}"), CREDIT)).status, 200, "{query}");
        assert_eq!(wire.ask(get(&format!("/clientes/6/extrato{query}"))).status, 404, "{query}");
        assert_eq!(wire.ask(post(&format!("{STATEMENT}{query}"), "")).status, 405, "{query}");
    }
    assert_eq!(wire.ask(get("/?/healthz")).status, 404);
}

every_edge!(head_answers_as_get_does_without_the_content);
fn head_answers_as_get_does_without_the_content(edge: Edge) {
    let bank = edge.open();
    let metrics = bank.instance.metrics_address().expect("METRICS_LISTEN is set");
    let rows = [
        (bank.address(), STATEMENT),
        (bank.address(), "/healthz"),
        (bank.address(), "/nowhere"),
        (bank.address(), "/clientes/6/extrato"),
        (metrics.clone(), "/nowhere"),
    ];
    for (address, path) in rows {
        let mut wire = Wire::connect(&address);
        let mut by_get = wire.ask(get(path)).without_date();
        wire.send(request("HEAD", path, b""));
        let by_head = wire.answer_to_head().without_date();
        by_get.body.clear();
        assert_eq!(by_head, by_get);
        assert!(by_head.content_length() > Some(0), "{by_head:?}");
        // What comes next is the head of the next answer, not the content of this one.
        assert_eq!(wire.ask(get(path)).status, by_get.status);
    }
    // Its length changes as it counts.
    let mut wire = Wire::connect(&metrics);
    wire.send(request("HEAD", "/metrics", b""));
    assert_eq!(wire.answer_to_head().status, 200);
    assert_eq!(wire.ask(get("/metrics")).status, 200);
}

every_edge!(the_absolute_form_of_a_target_is_understood);
fn the_absolute_form_of_a_target_is_understood(edge: Edge) {
    let bank = edge.open();
    let mut wire = bank.connect();
    for origin in ["http://test", "http://127.0.0.1:8080", "HTTP://Test", "https://a", "http://[::1]:1"] {
        let statement = wire.ask(get(&format!("{origin}{STATEMENT}?x=/y")));
        assert_eq!(
            (statement.status, &statement.json()["saldo"]["limite"]),
            (200, &json!(100_000)),
            "{origin}"
        );
        assert_eq!(wire.ask(post(&format!("{origin}{TRANSACTIONS}"), CREDIT)).status, 200, "{origin}");
        assert_eq!(wire.ask(get(&format!("{origin}/healthz"))).status, 200, "{origin}");
        for path in ["", "/", "?/healthz", "/clientes/6/extrato"] {
            assert_eq!(wire.ask(get(&format!("{origin}{path}"))).status, 404, "{origin}{path}");
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Health and metrics.

every_edge!(healthz_says_healthy);
fn healthz_says_healthy(edge: Edge) {
    let bank = edge.open();
    let answer = bank.ask(get("/healthz"));
    assert_eq!((answer.status, answer.text()), (200, "Healthy"));
}

every_edge!(metrics_are_on_their_own_listener_alone);
fn metrics_are_on_their_own_listener_alone(edge: Edge) {
    let bank = edge.open();
    assert_eq!(bank.ask(get("/metrics")).status, 404);
    let mut wire = Wire::connect(&bank.instance.metrics_address().expect("METRICS_LISTEN is set"));
    let answer = wire.ask(get("/metrics"));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("Content-Type"), Some("text/plain; version=0.0.4"));
    for path in ["/healthz", STATEMENT, "/", "/metrics/"] {
        assert_eq!(wire.ask(get(path)).status, 404, "{path}");
    }
    assert_eq!(wire.ask(post(TRANSACTIONS, CREDIT)).status, 404);
    let refused = wire.ask(post("/metrics", ""));
    assert_eq!((refused.status, refused.field("Allow")), (405, Some("GET, HEAD")));
    assert_eq!(bank.database.number("SELECT count(*) FROM transacoes"), 0);
}

/// Direct only: each instance counts for itself.
#[test]
fn metrics_count_what_was_answered() {
    let bank = Bank::open();
    let count = |endpoint: &str, status: u16| {
        bank.metric(&format!("rinha_responses_total{{endpoint=\"{endpoint}\",status=\"{status}\"}}"))
    };
    let healthy_before = count("healthz", 200);
    for (bytes, times) in [
        (post(TRANSACTIONS, CREDIT), 3),
        (post(TRANSACTIONS, "{}"), 2),
        (post(TRANSACTIONS, "x"), 1),
        (get(STATEMENT), 4),
        (get("/nowhere"), 5),
        (get("/healthz"), 1),
    ] {
        for _ in 0..times {
            bank.ask(&bytes);
        }
    }
    let counts = [
        count("transacoes", 200),
        count("transacoes", 422),
        count("transacoes", 400),
        count("extrato", 200),
        count("other", 404),
        count("healthz", 200) - healthy_before,
    ];
    assert_eq!(counts, [3, 2, 1, 4, 5, 1]);
    assert_eq!(bank.metric("rinha_batch_calls_sum"), 7);
    assert_eq!(bank.metric("rinha_lanes{state=\"ready\"}"), 1);
    for (reason, count) in [("invalid_field", 2), ("not_json", 1), ("not_found", 5), ("past_limit", 0)] {
        assert_eq!(bank.metric(&format!("rinha_rejected_total{{reason=\"{reason}\"}}")), count, "{reason}");
    }
    assert_eq!(bank.metric("rinha_request_duration_seconds_count{endpoint=\"extrato\"}"), 4);
}

/// Direct only: metrics have their own listener, which nginx never reaches.
#[test]
fn metrics_follow_the_text_format_of_prometheus() {
    let bank = Bank::open();
    bank.ask(post(TRANSACTIONS, CREDIT));
    let metrics = bank.metrics();
    assert!(metrics.ends_with('\n'));
    let mut families = Vec::new();
    for line in metrics.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(!families.contains(&name), "{name} has two families");
            families.push(name);
        } else if !line.starts_with("# HELP ") {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
            value.parse::<f64>().unwrap_or_else(|_| panic!("{line:?}"));
            let name = series.split('{').next().unwrap();
            let family = families.last().copied().unwrap_or_default();
            let suffix =
                name.strip_prefix(family).unwrap_or_else(|| panic!("{line:?} is outside its family"));
            assert!(["", "_bucket", "_sum", "_count"].contains(&suffix), "{line:?}");
        }
    }
    assert!(families.len() > 10, "{families:?}");
}

/// Direct only: metrics have their own listener, which nginx never reaches.
#[test]
fn without_metrics_listen_there_are_no_metrics() {
    let bank = Bank::start(Database::new(), &[], |options| options.metrics_listen = String::new());
    assert_eq!(bank.instance.metrics_address(), None);
    assert_eq!(bank.ask(get("/metrics")).status, 404);
}

// ---------------------------------------------------------------------------------------------------------------------
// The command line.

/// Runs the binary to its end with nothing but these variables.
fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(SERVER);
    command.args(arguments).env_clear().envs(variables.iter().copied());
    command.output().expect("run the server's binary")
}

/// It exits with status 2 and one line that names the culprit.
fn assert_usage_error(output: &Output, culprit: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{culprit}: {error}");
    assert_eq!(error.lines().count(), 1, "{culprit}: {error}");
    assert!(error.starts_with("rinha: ") && error.contains(culprit), "{culprit}: {error}");
    assert!(output.stdout.is_empty(), "{culprit}");
}

const USABLE: [(&str, &str); 2] =
    [("DATABASE_URL", "postgresql://ana:segredo@127.0.0.1:1/rinha"), ("LISTEN", "127.0.0.1:0")];

#[test]
fn a_setting_that_cannot_be_used_is_named_in_one_line() {
    let bad = [
        ("LANES", "0"),
        ("LANES", "17"),
        ("LANES", "many"),
        ("LANES", ""),
        ("LANES", "1 "),
        ("LANES", "-1"),
        ("LANES", "1.5"),
        ("BATCH_CALLS_MAX", "99999999999999999999"),
        ("BODY_LEN_MAX_BYTES", "16k"),
        ("LISTEN", ""),
        ("LISTEN", "8080"),
        ("LISTEN", "127.0.0.1:65536"),
        ("LISTEN", "127.0.0.1:0,"),
        ("LISTEN", "unix:"),
        ("METRICS_LISTEN", "x"),
        ("DATABASE_URL", ""),
        ("DATABASE_URL", "mysql://ana:segredo@db/x"),
        ("DATABASE_URL", "postgresql://ana:segredo@db:0/x"),
        ("DATABASE_URL", "postgresql://ana:segredo@db/x?sslmode=on"),
        ("DATABASE_URL", "postgresql://ana:segredo@db/x?segredo2"),
        ("DATABASE_URL", "postgresql://db/x"),
        ("STATEMENT_TIMEOUT_MS", "4000"),
        ("RECONNECT_MIN_MS", "201"),
        ("TARGET_LEN_MAX_BYTES", "9000"),
        ("RUST_LOG", "verbose"),
        ("RUST_LOG", "warning"),
        ("RUST_LOG", "3"),
        ("RUST_LOG", "rinha=debug"),
        ("RUST_LOG", "info,debug"),
        ("LOG_QUEUE_LEN_BYTES", "1023"),
    ];
    for (name, value) in bad {
        let output = run(&[], &[&USABLE[..], &[(name, value)]].concat());
        assert_usage_error(&output, name);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("segredo"), "{name} shows the password");
    }
}

#[test]
fn a_required_setting_that_is_missing_is_named() {
    assert_usage_error(&run(&[], &USABLE[..1]), "LISTEN");
    assert_usage_error(&run(&[], &USABLE[1..]), "DATABASE_URL");
    assert_usage_error(&run(&["--healthcheck"], &[]), "LISTEN");
}

#[test]
fn an_unknown_argument_is_named() {
    for arguments in [&["--nonsense"][..], &["x"], &["-x"], &["--help", "--nonsense"], &["--healthcheck=1"]] {
        let culprit = arguments.last().unwrap().trim_start_matches('-').split('=').next().unwrap();
        let culprit = if culprit == "healthcheck" { "1" } else { culprit };
        assert_usage_error(&run(arguments, &USABLE), culprit);
    }
}

#[test]
fn what_is_not_utf8_is_named() {
    use std::os::unix::ffi::OsStrExt as _;
    let bad = OsStr::from_bytes(b"unix:/tmp/\xff");
    let run = |arguments: &[&OsStr], name: &str| {
        let mut command = Command::new(SERVER);
        command.args(arguments).env_clear().envs(USABLE).env(name, bad);
        command.output().expect("run the server's binary")
    };
    for name in ["DATABASE_URL", "LISTEN", "METRICS_LISTEN", "RUST_LOG", "LANES"] {
        assert_usage_error(&run(&[], name), &format!("{name}: expected UTF-8"));
    }
    assert_usage_error(&run(&[OsStr::new("--healthcheck")], "LISTEN"), "LISTEN: expected UTF-8");
    assert_usage_error(&run(&[bad], "UNUSED"), "unexpected argument");
}

#[test]
fn a_variable_that_looks_like_a_setting_is_named_in_the_log() {
    let bank = Bank::with(&[("QUEUE_TIMEOUT", "100")]);
    let log = bank.instance.log();
    assert!(
        log.contains("the environment variable QUEUE_TIMEOUT is no setting; QUEUE_TIMEOUT_MS is one"),
        "{log}"
    );
}

#[test]
fn an_address_in_use_is_named_and_fails_with_1() {
    let bank = Bank::open();
    let address = bank.address();
    let output = run(&[], &[USABLE[0], ("LISTEN", &address)]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    let last = error.lines().last().unwrap_or_default();
    assert!(last.contains("LISTEN") && last.contains(&address), "{error}");
}

#[test]
fn a_name_to_listen_on_stands_for_all_of_its_addresses() {
    let bank = Bank::start(Database::new(), &[], |options| options.listen = vec!["localhost:0".to_owned()]);
    let expected: BTreeSet<IpAddr> =
        ("localhost", 0).to_socket_addrs().expect("look localhost up").map(|address| address.ip()).collect();
    let log = bank.instance.log();
    let addresses = bank.instance.addresses();
    let mut found: BTreeSet<IpAddr> =
        addresses.iter().map(|address| address.parse::<SocketAddr>().expect("an address").ip()).collect();
    // Those that this machine does not have are named, too.
    found
        .extend(expected.iter().filter(|ip| log.contains(&format!("left out {}", SocketAddr::new(**ip, 0)))));
    assert_eq!(found, expected, "{log}");
    for address in addresses {
        assert_eq!(Wire::connect(&address).ask(get("/healthz")).status, 200, "{address}");
    }
}

#[test]
fn an_address_that_cannot_be_bound_is_named_with_a_remedy() {
    let directory = Throwaway::new("test").unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let file = format!("unix:{}", file.display());
    let absent = format!("unix:{}/absent/s", directory.path().display());
    for (address, remedy) in [
        // Of TEST-NET-1, RFC 5737: no machine has it.
        ("192.0.2.1:8080", "set an address of this machine"),
        // By RFC 6761 the name has no address.
        ("bank.invalid:8080", "no address that is known here"),
        (&file, "no socket has that path; remove it"),
        (&absent, "make its directory"),
    ] {
        for setting in ["LISTEN", "METRICS_LISTEN"] {
            let output = run(&[], &[USABLE[0], ("LISTEN", "127.0.0.1:0"), (setting, address)]);
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{error}");
            let last = error.lines().last().unwrap_or_default();
            let beginning = format!("rinha: {setting}: cannot listen on {address}: ");
            assert!(last.starts_with(&beginning) && last.contains(remedy), "{error}");
        }
    }
    assert_eq!(std::fs::read_to_string(directory.path().join("file")).unwrap(), "precious");
}

#[test]
fn help_lists_every_setting_with_default_unit_and_range() {
    let output = run(&["--help"], &[]);
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    let source = std::fs::read_to_string(workspace().join("src/config.rs")).unwrap();
    let declared: Vec<&str> = source
        .lines()
        .filter_map(|line| line.split_once(": ")?.1.split_once(", \"")?.1.split_once("\" = "))
        .map(|(name, _)| name)
        .collect();
    assert!(declared.len() > 30, "the declarations are not found any more: {declared:?}");
    for name in &declared {
        let line = help.lines().find(|line| line.trim_start().starts_with(&format!("{name} = ")));
        let line = line.unwrap_or_else(|| panic!("{name} is not in\n{help}"));
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "=", default, unit, from, "to", to] = words.as_slice() else { panic!("{line:?}") };
        let [default, from, to] =
            [default, &from[1..], to.trim_end_matches(')')].map(|n| n.parse::<u64>().unwrap());
        assert!(from <= default && default <= to, "{line:?}");
        let units = ["ms", "bytes", "calls", "batches", "connections", "runs", "accounts", "events", "lines"];
        assert!(units.contains(unit), "{line:?}");
    }
    for name in ["DATABASE_URL", "LISTEN", "METRICS_LISTEN", "RUST_LOG", "--healthcheck", "--version"] {
        assert!(help.contains(name), "{name} is not in\n{help}");
    }
    assert_eq!(run(&["-h"], &[]).stdout, help.as_bytes());
}

#[test]
fn version_tells_the_version() {
    for argument in ["--version", "-V"] {
        let output = run(&[argument], &[]);
        assert!(output.status.success());
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("rinha {}\n", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn healthcheck_tells_the_health_by_its_exit_code() {
    let check = |address: &str| run(&["--healthcheck"], &[("LISTEN", address)]);
    let directory = Throwaway::new("test").unwrap();
    let socket = format!("unix:{}/s", directory.path().display());

    let bank = Bank::start(Database::new(), &[], |options| options.listen.push(socket.clone()));
    let port = bank.address().rsplit_once(':').unwrap().1.to_owned();
    let addresses =
        [bank.address(), format!("0.0.0.0:{port}"), socket.clone(), format!("localhost:{port},x:1")];
    for address in &addresses {
        let output = check(address);
        assert_eq!(output.status.code(), Some(0), "{address}: {output:?}");
        assert!(output.stderr.is_empty());
    }
    drop(bank);
    for address in [&addresses[0], &socket] {
        let output = check(address);
        assert_eq!(output.status.code(), Some(1), "absent: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1, "{output:?}");
    }
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let output = check(&silent.local_addr().unwrap().to_string());
    assert_eq!(output.status.code(), Some(1), "silent: {output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("gives no answer within 2s"), "{output:?}");
    let _full = full_listener(&directory.path().join("full"));
    let output = check(&format!("unix:{}/full", directory.path().display()));
    assert_eq!(output.status.code(), Some(1), "full: {output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("gives no answer within 2s"), "{output:?}");
    let unhealthy = Bank::start(Database::empty(), &[], |options| options.readiness = Readiness::Listening);
    let output = check(&unhealthy.address());
    assert_eq!(output.status.code(), Some(1), "unhealthy: {output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("503"), "{output:?}");
}

// ---------------------------------------------------------------------------------------------------------------------
// The database comes, goes, and says who the clients are.

/// 503 for both endpoints and for health, with nothing lost by it: the connection stays.
fn assert_unavailable(wire: &mut Wire) {
    for bytes in [post(TRANSACTIONS, CREDIT), get(STATEMENT), get("/healthz")] {
        let answer = wire.ask(&bytes);
        assert_same(&(answer.status, answer.field("Retry-After")), &(503, Some("1")), &bytes);
        assert_eq!(answer.field("Connection"), None);
    }
    // What needs no database is answered as ever.
    assert_eq!(wire.ask(post(TRANSACTIONS, "x")).status, 400);
    assert_eq!(wire.ask(post(TRANSACTIONS, "{}")).status, 422);
    assert_eq!(wire.ask(get("/nowhere")).status, 404);
}

#[test]
fn the_clients_are_those_of_the_database() {
    let database = Database::new();
    database.execute("INSERT INTO clientes (id, limite) VALUES (42, 7); DELETE FROM clientes WHERE id = 3");
    let bank = Bank::over(database, &[]);
    assert_eq!(bank.transact(42, 7, "d", "tudo").json(), json!({"limite": 7, "saldo": -7}));
    assert_eq!(bank.transact(42, 1, "d", "mais").status, 422);
    assert_eq!(bank.statement(42)["saldo"]["total"], json!(-7));
    assert_eq!(bank.ask(get("/clientes/3/extrato")).status, 404);
    assert_eq!(bank.transact(3, 1, "c", "a").status, 404);
    bank.database.assert_ledger_adds_up();
}

#[test]
fn a_client_that_was_deleted_under_way_is_not_found() {
    let bank = Bank::open();
    bank.database.execute("DELETE FROM clientes WHERE id = 5");
    assert_eq!(bank.transact(5, 1, "c", "a").status, 404);
    assert_eq!(bank.ask(get("/clientes/5/extrato")).status, 404);
    assert_eq!(bank.database.number("SELECT count(*) FROM transacoes"), 0);
}

#[test]
fn an_empty_database_is_unavailable_until_the_schema_is_applied() {
    let bank = Bank::start(Database::empty(), &[("QUEUE_TIMEOUT_MS", "500")], |options| {
        options.readiness = Readiness::Listening;
    });
    let mut wire = bank.connect();
    assert_unavailable(&mut wire);
    bank.database.apply_sql();
    bank.wait_health(200);
    assert_eq!(wire.ask(post(TRANSACTIONS, CREDIT)).balance(), 1);
    assert_eq!(wire.ask(get("/clientes/6/extrato")).status, 404);
}

#[test]
fn a_database_without_clients_is_unavailable_until_it_has_some() {
    let database = Database::new();
    database.execute("DELETE FROM clientes");
    let bank = Bank::start(database, &[("QUEUE_TIMEOUT_MS", "500")], |options| {
        options.readiness = Readiness::Listening;
    });
    wait_for("the log tells why", || {
        bank.instance.log().contains("the table clientes is empty").then_some(())
    });
    let mut wire = bank.connect();
    assert_unavailable(&mut wire);
    bank.database.apply_sql();
    bank.wait_health(200);
    assert_eq!(wire.ask(post(TRANSACTIONS, CREDIT)).balance(), 1);
}

#[test]
fn of_more_clients_than_accounts_max_the_first_are_served() {
    let bank = Bank::with(&[("ACCOUNTS_MAX", "3"), ("PROBE_INTERVAL_MS", "100")]);
    let mut wire = bank.connect();
    for _ in 0..2 {
        wait_for("a session", || (wire.ask(transaction(3, 1, "c", "first")).status == 200).then_some(()));
        assert_eq!(wire.ask(transaction(1, 1, "c", "first")).status, 200);
        assert_eq!(wire.ask(transaction(4, 1, "c", "first")).status, 404);
        // In the next session, too.
        bank.database.end_sessions();
    }
    bank.wait_health(200);
    wait_for("a warning", || bank.instance.log().contains("more rows than ACCOUNTS_MAX").then_some(()));
}

/// A PostgreSQL of the test's own, to be stopped and killed.
fn own_postgres(settings: &[(&str, &str)]) -> Postgres {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let postgres = Postgres::start(&PostgresOptions { settings, ..PostgresOptions::default() })
        .expect("start a PostgreSQL");
    postgres.create_bank("rinha", &workspace().join("sql")).expect("make the bank");
    postgres
}

fn start(url: &str, settings: &[(&str, &str)], readiness: Readiness) -> Instance {
    let mut options = options(url, settings);
    options.readiness = readiness;
    Instance::start(&options).expect("set up the test")
}

fn wire_to(instance: &Instance) -> Wire {
    Wire::connect(&instance.addresses()[0])
}

fn wait_health(wire: &mut Wire, status: u16) {
    wait_for(&format!("health {status}"), || (wire.ask(get("/healthz")).status == status).then_some(()));
}

#[test]
fn while_the_database_is_down_requests_are_unavailable_and_then_served_again() {
    let mut postgres = own_postgres(&[]);
    let settings = [("QUEUE_TIMEOUT_MS", "500")];
    let instance = start(&postgres.url("rinha"), &settings, Readiness::Healthy);
    let mut wire = wire_to(&instance);
    assert_eq!(wire.ask(transaction(1, 10, "c", "before")).balance(), 10);

    postgres.stop();
    wait_health(&mut wire, 503);
    assert_unavailable(&mut wire);

    // One that starts without a database, too, serves as soon as there is one.
    let late = start(&postgres.url("rinha"), &settings, Readiness::Listening);
    let mut late_wire = wire_to(&late);
    assert_unavailable(&mut late_wire);

    postgres.start_again().unwrap();
    for wire in [&mut wire, &mut late_wire] {
        wait_health(wire, 200);
        assert_eq!(wire.ask(get("/clientes/6/extrato")).status, 404);
    }
    assert_eq!(wire.ask(transaction(1, 1, "c", "after")).balance(), 11, "a clean stop keeps the balances");
    assert_eq!(late_wire.ask(transaction(1, 1, "c", "after")).balance(), 12);
    assert_ledger_adds_up(&mut postgres.connect("rinha").unwrap());
}

#[test]
fn after_a_crash_of_the_database_it_serves_once_the_schema_is_applied_again() {
    let mut postgres = own_postgres(&[]);
    let instance = start(&postgres.url("rinha"), &[("QUEUE_TIMEOUT_MS", "500")], Readiness::Healthy);
    let mut wire = wire_to(&instance);
    assert_eq!(wire.ask(transaction(1, 10, "c", "before")).balance(), 10);

    postgres.kill();
    wait_health(&mut wire, 503);
    assert_unavailable(&mut wire);
    postgres.start_again().unwrap();
    // The unlogged tables are empty after a crash: there are no clients. What else was written last may be gone, too.
    wait_for("the log tells the remedy", || instance.log().contains("apply sql/*.sql").then_some(()));
    wait_for("clients are told", || {
        let answer = wire.ask(get(STATEMENT));
        assert_eq!(answer.status, 503, "{answer:?}");
        answer.erro().contains("its tables or procedures are missing").then_some(())
    });
    assert_unavailable(&mut wire);
    postgres.apply_sql("rinha", &workspace().join("sql")).unwrap();
    wait_health(&mut wire, 200);
    assert_eq!(wire.ask(transaction(1, 1, "c", "after")).balance(), 1);
    assert_ledger_adds_up(&mut postgres.connect("rinha").unwrap());
}

/// The process that serves the one lane of an instance.
fn backend_of_lane(postgres: &Postgres) -> u32 {
    let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'rinha'";
    let mut admin = postgres.connect("postgres").expect("connect");
    let pid: i32 = admin.query_one(sql, &[]).expect("ask").get(0);
    u32::try_from(pid).expect("a process id")
}

#[test]
fn a_call_that_meets_a_frozen_database_is_in_doubt_and_never_runs_twice() {
    let postgres = own_postgres(&[]);
    // Without probes: one that is out already would hold the call back, and it would not be in doubt.
    let settings =
        [("STATEMENT_TIMEOUT_MS", "900"), ("ANSWER_TIMEOUT_MS", "1000"), ("PROBE_INTERVAL_MS", "600000")];
    let instance = start(&postgres.url("rinha"), &settings, Readiness::Healthy);
    let mut wire = wire_to(&instance);
    let frozen = Frozen::new(&[backend_of_lane(&postgres)]).expect("freeze a session");
    let answer = wire.ask(transaction(1, 1, "c", "frozen"));
    drop(frozen);
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.erro().contains("not known"), "it may have run: {answer:?}");
    wait_health(&mut wire, 200);
    assert_eq!(wire.ask(transaction(1, 1, "c", "after")).status, 200);
    let mut client = postgres.connect("rinha").unwrap();
    let frozen: i64 =
        client.query_one("SELECT count(*) FROM transacoes WHERE descricao = 'frozen'", &[]).unwrap().get(0);
    assert!(frozen <= 1, "never run again");
    assert_ledger_adds_up(&mut client);
}

#[test]
fn health_notices_a_frozen_database_although_nobody_asks_for_it() {
    let postgres = own_postgres(&[]);
    // The new connection, too, meets nobody: the postmaster is frozen with its backend.
    let settings =
        [("STATEMENT_TIMEOUT_MS", "400"), ("ANSWER_TIMEOUT_MS", "500"), ("PROBE_INTERVAL_MS", "50")];
    let instance = start(&postgres.url("rinha"), &settings, Readiness::Healthy);
    let mut wire = wire_to(&instance);
    let frozen = Frozen::new(&[backend_of_lane(&postgres), postgres.pid()]).expect("freeze PostgreSQL");
    wait_health(&mut wire, 503);
    drop(frozen);
    wait_health(&mut wire, 200);
    assert_eq!(wire.ask(get(STATEMENT)).status, 200);
}

#[test]
fn it_logs_in_with_every_kind_of_password() {
    let directory = Throwaway::new("test").unwrap();
    let hba = directory.path().join("hba.conf");
    let rules =
        "local all rinha trust\nlocal all scram scram-sha-256\nlocal all md5 md5\nlocal all plain password\n";
    std::fs::write(&hba, rules).unwrap();
    let postgres = own_postgres(&[("hba_file", hba.to_str().unwrap())]);
    let mut admin = postgres.connect("rinha").unwrap();
    for (role, encryption) in [("scram", "scram-sha-256"), ("md5", "md5"), ("plain", "scram-sha-256")] {
        let sql = format!(
            "SET password_encryption = '{encryption}'; CREATE ROLE {role} LOGIN PASSWORD 's: /ç@1'; \
             GRANT SELECT, INSERT, UPDATE ON clientes, transacoes TO {role}"
        );
        admin.batch_execute(&sql).unwrap();
    }
    let url = postgres.url("rinha");
    let url_of = |role: &str, password: &str| url.replace("//rinha@", &format!("//{role}:{password}@"));
    for (position, role) in (1..).zip(["scram", "md5", "plain"]) {
        let instance = start(&url_of(role, "s%3A%20%2F%C3%A7%401"), &[], Readiness::Healthy);
        assert_eq!(wire_to(&instance).ask(post(TRANSACTIONS, CREDIT)).balance(), position, "{role}");

        let settings = [("QUEUE_TIMEOUT_MS", "500")];
        let stranger = start(&url_of(role, "wrongword"), &settings, Readiness::Listening);
        wait_for("the log tells why", || {
            stranger.log().contains("password authentication failed").then_some(())
        });
        assert_unavailable(&mut wire_to(&stranger));
        assert!(!stranger.log().contains("wrongword"), "{}", stranger.log());
    }
}

/// A port that nobody listens on, held so that nobody else gets it.
fn dead_port() -> (socket2::Socket, String) {
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("set up the test");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("set up the test");
    let port = socket.local_addr().expect("set up the test").as_socket().expect("set up the test").port();
    (socket, port.to_string())
}

#[test]
fn several_hosts_are_tried_in_turn() {
    let postgres = own_postgres(&[]);
    let proxy = Proxy::to(&postgres.url("rinha"));
    let alive = proxy.port();
    let (_held, dead) = dead_port();
    // One that accepts and never says a word.
    let silent_listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent_listener.local_addr().unwrap().port();
    let home = postgres.url("rinha").split_once("?host=").unwrap().1.to_owned();
    let settings =
        [("STATEMENT_TIMEOUT_MS", "300"), ("ANSWER_TIMEOUT_MS", "400"), ("CONNECT_TIMEOUT_MS", "400")];
    let urls = [
        format!("postgresql://rinha@127.0.0.1:{alive}/rinha"),
        format!("postgresql://rinha@localhost:{alive}/rinha"),
        format!("postgresql://rinha@127.0.0.1:{dead},127.0.0.1:{alive}/rinha"),
        format!("postgresql://rinha@127.0.0.1:{alive},127.0.0.1:{dead}/rinha"),
        format!("postgresql://rinha@127.0.0.1:{dead},127.0.0.1:{dead},127.0.0.1:{alive}/rinha"),
        format!("postgresql://rinha@127.0.0.1:{silent},127.0.0.1:{alive}/rinha"),
        format!("postgresql://rinha@no-such-host.invalid:{alive},127.0.0.1:{alive}/rinha"),
        format!("postgresql://rinha@/rinha?host=/nonexistent,{home}"),
        format!("postgresql://rinha@localhost:{dead},localhost:{alive}/rinha"),
    ];
    for (position, url) in (1..).zip(urls) {
        let instance = start(&url, &settings, Readiness::Healthy);
        let answer = wire_to(&instance).ask(post(TRANSACTIONS, CREDIT));
        assert_eq!(answer.balance(), position, "{url}");
    }
}

#[test]
fn every_address_of_every_host_is_tried() {
    // `localhost` is ::1 and 127.0.0.1 on most machines, and PostgreSQL is on the second alone.
    let postgres = own_postgres(&[]);
    let proxy = Proxy::to(&postgres.url("rinha"));
    let alive = proxy.port();
    let (_held, dead) = dead_port();
    for hosts in
        [format!("localhost:{alive},localhost:{dead}"), format!("localhost:{dead},localhost:{alive}")]
    {
        let instance = start(&format!("postgresql://rinha@{hosts}/rinha"), &[], Readiness::Healthy);
        assert_eq!(wire_to(&instance).ask(get(STATEMENT)).status, 200, "{hosts}");
    }
}

#[test]
fn after_a_session_has_ended_the_first_host_is_asked_first() {
    // Two ways to one server.
    let postgres = own_postgres(&[]);
    let proxies = [(); 2].map(|()| Proxy::to(&postgres.url("rinha")));
    let [first, second] = [&proxies[0], &proxies[1]].map(Proxy::port);
    let url = format!("postgresql://rinha@127.0.0.1:{first},127.0.0.1:{second}/rinha");
    let instance = start(&url, &[], Readiness::Healthy);
    let mut admin = postgres.connect("postgres").unwrap();
    for sessions in 1..=5 {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rinha'";
        assert_eq!(admin.query(sql, &[]).unwrap().len(), 1, "one lane");
        wait_for("another session", || (proxies[0].connections() > sessions).then_some(()));
        // It has left the old session before that.
        wait_health(&mut wire_to(&instance), 200);
    }
    assert_eq!(wire_to(&instance).ask(get(STATEMENT)).status, 200);
    assert_eq!(proxies[1].connections(), 0, "the first host was up all the time");
}

#[test]
fn a_client_that_is_inserted_while_the_server_runs_is_known_with_the_next_probe() {
    let bank = Bank::with(&[("PROBE_INTERVAL_MS", "50")]);
    assert_eq!(bank.transact(42, 1, "c", "early").status, 404);
    bank.database.execute("INSERT INTO clientes (id, limite) VALUES (42, 100)");
    wait_for("client 42", || (bank.transact(42, 1, "c", "a").status == 200).then_some(()));
    bank.database.execute("DELETE FROM transacoes WHERE cliente_id = 42; DELETE FROM clientes WHERE id = 42");
    assert_eq!(bank.transact(42, 1, "c", "gone").status, 404);
}

#[test]
fn health_is_that_of_calls_and_not_of_the_connection() {
    let bank = Bank::with(&[("PROBE_INTERVAL_MS", "50")]);
    for (spoil, mend) in [
        ("ALTER TABLE transacoes RENAME TO away", "ALTER TABLE away RENAME TO transacoes"),
        ("ALTER FUNCTION InsertTransacao RENAME TO away", "ALTER FUNCTION away RENAME TO InsertTransacao"),
        (
            "ALTER TABLE clientes RENAME COLUMN saldo TO away",
            "ALTER TABLE clientes RENAME COLUMN away TO saldo",
        ),
    ] {
        bank.database.execute(spoil);
        bank.wait_health(503);
        bank.database.execute(mend);
        bank.wait_health(200);
        assert_eq!(bank.transact(1, 1, "c", "a").status, 200, "{mend}");
    }
    // A probe does nothing.
    assert_eq!(bank.database.number("SELECT count(*) FROM transacoes"), 3);
    assert_eq!(bank.database.number("SELECT last_value FROM transacoes_id_seq"), 3);
    bank.database.assert_ledger_adds_up();
}

#[test]
fn a_procedure_that_returns_something_else_is_not_called() {
    let settings = [("PROBE_INTERVAL_MS", "50"), ("QUEUE_TIMEOUT_MS", "500")];
    let bank = Bank::with(&settings);
    assert_eq!(bank.transact(1, 1, "c", "before").status, 200);
    // It would do its work, and its answer could not be read.
    bank.database.execute(
        "ALTER FUNCTION InsertTransacao RENAME TO kept;
         CREATE FUNCTION InsertTransacao(i integer, v integer, t text, d text, OUT saldo text, OUT limite text)
         LANGUAGE sql AS $$
             INSERT INTO transacoes (cliente_id, valor, tipo, descricao) VALUES (i, v, 'c', d);
             UPDATE clientes SET saldo = saldo + v WHERE id = i RETURNING saldo::text, limite::text
         $$",
    );
    let answer = bank.transact(1, 1, "c", "meanwhile");
    assert_eq!(answer.status, 503);
    assert!(answer.erro().contains("nothing was done"), "{answer:?}");
    bank.wait_health(503);
    assert_eq!(bank.database.number("SELECT count(*) FROM transacoes"), 1);
    bank.database.execute("DROP FUNCTION InsertTransacao; ALTER FUNCTION kept RENAME TO InsertTransacao");
    bank.wait_health(200);
    assert_eq!(bank.transact(1, 1, "c", "after").balance(), 2);
    bank.database.assert_ledger_adds_up();
}

#[test]
fn a_database_that_is_fenced_off_is_left_and_served_again_without_a_restart() {
    let postgres = own_postgres(&[]);
    let settings = [("QUEUE_TIMEOUT_MS", "500"), ("PROBE_INTERVAL_MS", "50")];
    let instance = start(&postgres.url("rinha"), &settings, Readiness::Healthy);
    let mut wire = wire_to(&instance);
    assert_eq!(wire.ask(transaction(1, 1, "c", "before")).status, 200);
    let mut admin = postgres.connect("postgres").unwrap();
    let mut fence = |value: &str| {
        // The two cannot share a transaction.
        admin.batch_execute(&format!("ALTER SYSTEM SET default_transaction_read_only = {value}")).unwrap();
        admin.batch_execute("SELECT pg_reload_conf()").unwrap();
    };
    fence("on");
    wait_health(&mut wire, 503);
    let answer = wire.ask(transaction(1, 1, "c", "fenced"));
    assert_eq!(answer.status, 503);
    assert!(answer.erro().contains("takes no writes; nothing was done"), "{answer:?}");
    fence("off");
    wait_health(&mut wire, 200);
    assert_eq!(wire.ask(transaction(1, 1, "c", "after")).balance(), 2);
    assert_ledger_adds_up(&mut postgres.connect("rinha").unwrap());
}

/// What a role, a database or the configuration may set, and no lane may take over.
const OVERRIDES: [(&str, &str); 10] = [
    ("statement_timeout", "'1min'"),
    ("lock_timeout", "'1min'"),
    ("idle_session_timeout", "'30s'"),
    ("idle_in_transaction_session_timeout", "'30s'"),
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_deferrable", "on"),
    ("plan_cache_mode", "force_custom_plan"),
    ("jit", "on"),
    ("exit_on_error", "on"),
    ("client_min_messages", "debug1"),
];

#[test]
fn no_setting_of_the_database_gets_into_a_lane() {
    let database = Database::new();
    for (name, value) in OVERRIDES {
        database.execute(&format!("ALTER DATABASE {} SET {name} = {value}", database.name()));
    }
    let bank = Bank::over(database, &[]);
    support::session::assert_settings(&bank);
}

#[test]
fn a_database_that_cannot_store_every_text_is_refused_with_the_remedy() {
    let postgres = own_postgres(&[]);
    let mut admin = postgres.connect("postgres").unwrap();
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let sql = format!("CREATE DATABASE {encoding} ENCODING '{encoding}' TEMPLATE template0");
        admin.batch_execute(&sql).unwrap();
        postgres.apply_sql(&encoding.to_lowercase(), &workspace().join("sql")).unwrap();
    }
    let refused = start(&postgres.url("latin1"), &[("QUEUE_TIMEOUT_MS", "300")], Readiness::Listening);
    wait_for("the log tells the remedy", || refused.log().contains("ENCODING 'UTF8'").then_some(()));
    assert_unavailable(&mut wire_to(&refused));
    let instance = start(&postgres.url("sql_ascii"), &[], Readiness::Healthy);
    let mut wire = wire_to(&instance);
    assert_eq!(wire.ask(transaction(1, 1, "c", "日本")).status, 200);
    assert!(wire.ask(get(STATEMENT)).text().contains("日本"));
}

#[test]
fn the_log_tells_a_rule_that_refuses_from_a_wrong_password() {
    let directory = Throwaway::new("test").unwrap();
    let hba = directory.path().join("hba.conf");
    let rules = "local all rinha trust\nlocal all refused reject\nlocal all wrong scram-sha-256\n";
    std::fs::write(&hba, rules).unwrap();
    let postgres = own_postgres(&[("hba_file", hba.to_str().unwrap())]);
    let mut admin = postgres.connect("rinha").unwrap();
    for role in ["refused", "wrong", "unheard"] {
        admin.batch_execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'right'")).unwrap();
    }
    for (role, remedy) in [
        ("refused", "the password was not looked at"),
        ("unheard", "the password was not looked at"),
        ("wrong", "the password in DATABASE_URL is wrong"),
    ] {
        let url = postgres.url("rinha").replace("//rinha@", &format!("//{role}:word@"));
        let instance = start(&url, &[], Readiness::Listening);
        let log = || instance.log().to_lowercase();
        wait_for(&format!("{role}: {remedy}"), || log().contains(&remedy.to_lowercase()).then_some(()));
        assert!(!log().contains("tls"), "{}", log());
    }
}

#[test]
fn a_server_without_a_database_still_stops() {
    let mut bank = Bank::start(Database::empty(), &[], |options| options.readiness = Readiness::Listening);
    bank.instance.signal(Signal::TERM).unwrap();
    let status = bank.instance.wait_exit(support::wire::PATIENCE).expect("it ends");
    assert_eq!(status.code(), Some(0));
}

// ---------------------------------------------------------------------------------------------------------------------

/// `2026-01-31T23:59:59.123456Z`, as RFC 3339 has it, with all six digits.
fn assert_timestamp(value: &Value) -> String {
    let text = value.as_str().unwrap_or_else(|| panic!("a timestamp is a text: {value}"));
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000000Z", "{text}");
    text.to_owned()
}
