//! HTTP/1.1 on a real socket: framing, pipelining, deadlines, and how connections end.

mod support;

use std::io::Read as _;
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use stress::throwaway::Throwaway;
use stress::{Readiness, Signal};
use support::bank::{PATIENT, metrics_of, options, value_of};
use support::framing::{self, CREDIT, chunks_of, raw};
use support::{
    Answer, Balanced, Bank, Database, Edge, Wire, every_edge, full_listener, get, post, request, transaction,
    wait_for, workspace,
};

const TRANSACTIONS: &str = "/clientes/1/transacoes";

fn chunked(body: &str) -> String {
    raw("Transfer-Encoding: chunked\r\n", body)
}

/// Each is answered with this status, and the connection closed without an answer to the request behind it.
fn assert_refused(bank: &Bank, status: u16, requests: &[String]) {
    for request in requests {
        let mut wire = bank.connect();
        // Both at once, so that the second is there when the first is refused. The end of a long one may find the
        // connection closed already.
        let _ = wire.try_send(&[request.as_bytes(), &get("/healthz")].concat());
        let Some(status) = bank.edge.status(request, status) else {
            wire.assert_ended();
            continue;
        };
        let answer = wire.answer();
        assert_eq!(answer.status, status, "{request:?}: {answer:?}");
        if bank.edge == Edge::Layer7 && answer.field("Connection") == Some("keep-alive") {
            // The instance refused what nginx could read, so nginx knows where it ends and keeps its client's
            // connection: if the request behind it is answered, it is answered in step.
            wire.shut_down_write();
            if let Ok(next) = wire.try_answer() {
                assert_eq!(next.text(), "Healthy", "{request:?}");
            }
        } else {
            assert_eq!(answer.field("Connection"), Some("close"), "{request:?}: {answer:?}");
        }
        if bank.edge == Edge::Layer7 {
            // nginx ends its lingering, too, with a reset (`reset_timedout_connection`): the answer is there by then.
            wire.assert_ended();
        } else {
            wire.assert_closed();
        }
    }
    assert_eq!(bank.ask(get("/healthz")).status, 200);
    assert_eq!(bank.database.number("SELECT count(*) FROM transacoes"), 0);
}

every_edge!(a_connection_serves_one_request_after_the_other);
fn a_connection_serves_one_request_after_the_other(edge: Edge) {
    let bank = edge.open();
    let mut wire = bank.connect();
    for balance in 1..=20 {
        assert_eq!(wire.ask(transaction(1, 1, "c", "a")).balance(), balance);
        assert_eq!(wire.ask(get("/nowhere")).status, 404);
        assert_eq!(wire.ask(get("/healthz")).text(), "Healthy");
    }
}

every_edge!(pipelined_requests_are_answered_in_order);
fn pipelined_requests_are_answered_in_order(edge: Edge) {
    let bank = edge.open();
    let mut wire = bank.connect();
    let requests: Vec<Vec<u8>> = (0..64)
        .map(|number| match number % 4 {
            0 => transaction(1, 1, "c", "a"),
            1 => get("/clientes/1/extrato"),
            2 => get("/healthz"),
            _ => post("/nowhere", CREDIT),
        })
        .collect();
    wire.send(requests.concat());
    for number in 0..64 {
        let answer = wire.answer();
        let balance = number / 4 + 1;
        match number % 4 {
            0 => assert_eq!(answer.balance(), balance),
            1 => assert_eq!(answer.json()["saldo"]["total"], balance),
            2 => assert_eq!(answer.text(), "Healthy"),
            _ => assert_eq!(answer.status, 404),
        }
    }
}

every_edge!(many_more_pipelined_requests_than_any_buffer_holds_are_all_answered);
fn many_more_pipelined_requests_than_any_buffer_holds_are_all_answered(edge: Edge) {
    let bank = edge.open();
    let mut wire = bank.connect();
    let count = 5_000;
    thread::scope(|scope| {
        let mut sender = wire.clone_sender();
        scope.spawn(move || sender.send(get("/healthz").repeat(count)));
        for _ in 0..count {
            assert_eq!(wire.answer().status, 200);
        }
    });
}

/// Direct only: fills a Unix socket, whose buffers are small; nginx takes megabytes.
#[test]
fn a_client_that_reads_late_gets_every_answer() {
    let directory = Throwaway::new("http").expect("make a directory");
    let address = format!("unix:{}", directory.path().join("bank.sock").display());
    let _bank = Bank::start(Database::new(), &[], |options| options.listen.push(address.clone()));
    let mut wire = Wire::connect(&address);
    let count = 20_000;
    let requests = get("/healthz").repeat(count);
    // Nothing is read until the server can send no more, and therefore takes no more.
    let sent_bytes = wire.send_until_full(&requests);
    thread::scope(|scope| {
        let mut sender = wire.clone_sender();
        scope.spawn(move || sender.send(&requests[sent_bytes..]));
        for _ in 0..count {
            assert_eq!(wire.answer().status, 200);
        }
    });
}

every_edge!(a_request_may_come_one_byte_at_a_time);
fn a_request_may_come_one_byte_at_a_time(edge: Edge) {
    let bank = edge.open();
    let (mut wire, mut other) = (bank.connect(), bank.connect());
    for byte in transaction(1, 1, "c", "a")
        .chunks(1)
        .chain(chunked(&(chunks_of(7) + "0\r\n\r\n")).as_bytes().chunks(1))
    {
        wire.send(byte);
        // Answered behind that byte, this tells that the server has taken it in by itself.
        assert_eq!(other.ask(get("/healthz")).status, 200);
    }
    assert_eq!([wire.answer(), wire.answer()].map(|answer| answer.balance()), [1, 2]);
}

every_edge!(a_request_may_be_cut_anywhere);
fn a_request_may_be_cut_anywhere(edge: Edge) {
    let bank = edge.open();
    let mut wire = bank.connect();
    let mut balance = 0;
    for whole in [transaction(1, 1, "c", "a"), chunked(&(chunks_of(20) + "0\r\nA: b\r\n\r\n")).into_bytes()] {
        for at in 1..whole.len() {
            let (left, right) = whole.split_at(at);
            wire.send(left);
            // Answered behind the left part, this tells that the server has taken it in.
            assert_eq!(bank.ask(get("/healthz")).status, 200);
            wire.send(right);
            balance += 1;
            assert_eq!(wire.answer().balance(), balance, "cut at {at}");
        }
    }
}

every_edge!(pipelined_requests_may_be_cut_anywhere);
fn pipelined_requests_may_be_cut_anywhere(edge: Edge) {
    let bank = edge.open();
    let (mut wire, mut other) = (bank.connect(), bank.connect());
    let whole = [
        transaction(1, 1, "c", "a"),
        get("/healthz"),
        post("/nowhere", CREDIT),
        chunked(&framing::coded()).into_bytes(),
        get("/clientes/1/extrato"),
    ]
    .concat();
    for at in 1..whole.len() {
        let (left, right) = whole.split_at(at);
        wire.send(left);
        assert_eq!(other.ask(get("/healthz")).status, 200);
        wire.send(right);
        let balance = i64::try_from(at).expect("small") * 2;
        assert_eq!(wire.answer().balance(), balance - 1, "cut at {at}");
        assert_eq!(wire.answer().text(), "Healthy", "cut at {at}");
        assert_eq!(wire.answer().status, 404, "cut at {at}");
        assert_eq!(wire.answer().balance(), balance, "cut at {at}");
        assert_eq!(wire.answer().json()["saldo"]["total"], balance, "cut at {at}");
    }
    bank.database.assert_ledger_adds_up();
}

/// Direct only: nginx takes the urgent byte out of the stream before an instance sees it.
#[test]
fn urgent_data_in_a_request_neither_counts_nor_hides_what_follows() {
    let bank = Bank::open();
    let mut wire = bank.connect();
    let request = transaction(1, 1, "c", "urgent");
    let mut balance = 0;
    for at in (0..request.len()).step_by(20) {
        let (left, right) = request.split_at(at);
        // Stopped, so that all of it is there when the server reads.
        bank.instance.signal(Signal::STOP).expect("send a signal");
        wire.send(left);
        wire.socket().send_out_of_band(b"!").expect("send urgent data");
        wire.send(right);
        bank.instance.signal(Signal::CONT).expect("send a signal");
        balance += 1;
        assert_eq!(wire.answer().balance(), balance, "urgent data behind {at} bytes");
    }
}

every_edge!(a_half_closed_client_still_gets_every_answer);
fn a_half_closed_client_still_gets_every_answer(edge: Edge) {
    let bank = edge.open();
    let mut wire = bank.connect();
    wire.send([transaction(1, 1, "c", "a"), get("/clientes/1/extrato"), get("/healthz")].concat());
    wire.shut_down_write();
    assert_eq!(wire.answer().balance(), 1);
    assert_eq!(wire.answer().json()["saldo"]["total"], 1);
    assert_eq!(wire.answer().status, 200);
    wire.assert_closed();
}

every_edge!(a_client_that_closes_its_half_within_a_request_is_told);
fn a_client_that_closes_its_half_within_a_request_is_told(edge: Edge) {
    let bank = edge.open();
    for cut in
        ["GET /hea", "POST /clientes/1/transacoes HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\n{"]
    {
        let mut wire = bank.connect();
        wire.send(cut);
        wire.shut_down_write();
        if edge == Edge::Layer7 {
            // nginx closes without a word, whatever its settings. No instance has seen the request.
            wire.assert_closed();
        } else {
            assert_eq!(wire.last_answer().status, 400, "{cut:?}");
        }
    }
}

every_edge!(empty_lines_before_requests_are_no_requests);
fn empty_lines_before_requests_are_no_requests(edge: Edge) {
    let bank = edge.open();
    let mut wire = bank.connect();
    for _ in 0..3 {
        assert_eq!(wire.ask([b"\r\n\r\n", &get("/healthz")[..], b"\r\n"].concat()).status, 200);
    }
    wire.shut_down_write();
    wire.assert_closed();
}

/// Direct only: about the server's deadlines and its stop.
#[test]
fn empty_lines_behind_requests_are_waited_for_by_nobody() {
    let mut bank = Bank::with(&[("HEAD_TIMEOUT_MS", "50"), ("IDLE_TIMEOUT_MS", "1000")]);
    let connections = |bank: &Bank| {
        [&b"\r\n"[..], b"\r"].map(|surplus| {
            let mut wire = bank.connect();
            assert_eq!(wire.ask([&get("/healthz")[..], surplus].concat()).status, 200);
            wire
        })
    };
    // Silence ends them as idle connections, with no 408 that would be taken for the next answer.
    connections(&bank).each_mut().into_iter().for_each(Wire::assert_closed);
    let mut open = connections(&bank);
    stop(&mut bank, Signal::TERM);
    open.each_mut().into_iter().for_each(Wire::assert_closed);
}

every_edge!(chunked_bodies_are_read);
fn chunked_bodies_are_read(edge: Edge) {
    let bank = edge.open();
    let mut wire = bank.connect();
    let len = CREDIT.len();
    for (number, body) in [
        format!("{len:x}\r\n{CREDIT}\r\n0\r\n\r\n"),
        format!("{len:X};name=value; other = \"quoted\"\r\n{CREDIT}\r\n0\r\n\r\n"),
        format!("00{len:x}\r\n{CREDIT}\r\n000\r\n\r\n"),
        format!("{len:x} ;a=b\r\n{CREDIT}\r\n0\t;a\r\n\r\n"),
        chunks_of(1) + "0\r\n\r\n",
        chunks_of(3) + "0\r\nExpires: never\r\nX: y\r\n\r\n",
    ]
    .iter()
    .enumerate()
    {
        let balance = i64::try_from(number).expect("small") + 1;
        assert_eq!(wire.ask(chunked(body)).balance(), balance, "{body:?}");
    }
}

every_edge!(bad_chunks_and_trailers_are_refused);
fn bad_chunks_and_trailers_are_refused(edge: Edge) {
    let bank = edge.open();
    let bodies = [
        "x\r\n",
        "-1\r\n",
        "+1\r\nx\r\n",
        "0x1\r\nx\r\n",
        " 1\r\nx\r\n",
        "1 \r\nx\r\n",
        "1\nx\r\n0\r\n\r\n",
        "1\r\nxy\r\n0\r\n\r\n",
        "1\r\nx\n0\r\n\r\n",
        "1;\u{1}\r\nx\r\n0\r\n\r\n",
        "1;\r\nx\r\n0\r\n\r\n",
        "1;=\r\nx\r\n0\r\n\r\n",
        "1;a=\r\nx\r\n0\r\n\r\n",
        "1;a=\"b\r\nx\r\n0\r\n\r\n",
        "0\r\nA : b\r\n\r\n",
        "0\r\n b\r\n\r\n",
        "0\r\nA: \u{0}\r\n\r\n",
        "0\r\nA\r\n\r\n",
        "0\r\nA: b\n\r\n",
    ];
    assert_refused(&bank, 400, &bodies.map(chunked));
}

every_edge!(bodies_are_limited_in_either_framing);
fn bodies_are_limited_in_either_framing(edge: Edge) {
    let bank = edge.open();
    let at_limit = format!("{CREDIT}{}", " ".repeat(16_384 - CREDIT.len()));
    let mut wire = bank.connect();
    assert_eq!(wire.ask(post(TRANSACTIONS, &at_limit)).balance(), 1);
    assert_eq!(wire.ask(chunked(&format!("4000\r\n{at_limit}\r\n0\r\n\r\n"))).balance(), 2);
    assert_eq!(bank.transact(1, 2, "d", "back").balance(), 0);
    bank.database.execute("TRUNCATE transacoes");

    assert_refused(
        &bank,
        413,
        &[
            raw("Content-Length: 16385\r\n", ""),
            raw("Content-Length: 99999999999999999999999\r\n", ""),
            raw("Content-Length: 16385\r\n", &format!("{at_limit} ")),
            chunked("4001\r\n"),
            chunked("fffffffffffffffffffff\r\n"),
            chunked(&"0".repeat(100_000)),
            chunked(&format!("4000\r\n{at_limit}\r\n1\r\n \r\n0\r\n\r\n")),
        ],
    );
}

/// Direct only: nginx as an HTTP proxy drops what is dropped here.
#[test]
fn the_coding_around_a_body_is_limited() {
    let bank = Bank::open();
    let zeros = "0".repeat(100_000);
    let parts = [("", ""), ("1", " "), ("1;", "a"), ("1;a=\"", "b"), ("0\r\n", "A: b\r\n")];
    let bodies = parts.map(|(start, repeated)| format!("{start}{}", repeated.repeat(50_000)) + &zeros);
    assert_refused(&bank, 413, &bodies.map(|body| chunked(&body)));
}

every_edge!(a_body_that_is_refused_can_be_sent_to_its_end_and_the_answer_read);
fn a_body_that_is_refused_can_be_sent_to_its_end_and_the_answer_read(edge: Edge) {
    let bank = edge.open();
    let mut wire = bank.connect();
    wire.send(raw("Content-Length: 1000000\r\n", ""));
    // The server lingers: it takes this in and drops it, and no reset overtakes the answer.
    wire.send("x".repeat(1_000_000));
    wire.shut_down_write();
    assert_eq!(wire.last_answer().status, 413);
}

every_edge!(expect_continue_is_answered_where_the_body_is_wanted);
fn expect_continue_is_answered_where_the_body_is_wanted(edge: Edge) {
    let bank = edge.open();
    let fields = format!("Content-Length: {}\r\nExpect: 100-continue\r\n", CREDIT.len());
    let mut wire = bank.connect();
    assert_eq!(wire.ask(raw(&fields, "")).status, 100);
    assert_eq!(wire.ask(CREDIT).balance(), 1);
    wire.send(raw(&fields, CREDIT));
    if edge == Edge::Layer7 {
        // nginx asks for every body, before it passes the request on, also for one that is here.
        assert_eq!(wire.answer().status, 100);
    }
    // Nothing to wait for: the body is here.
    assert_eq!(wire.answer().balance(), 2);

    let to_nowhere = raw(&fields, "").replace(TRANSACTIONS, "/nowhere");
    let mut wire = bank.connect();
    wire.send(to_nowhere);
    if edge == Edge::Layer7 {
        // As above; the connection stays, since the body has arrived.
        assert_eq!(wire.answer().status, 100);
        assert_eq!(wire.ask(CREDIT).status, 404);
        assert_eq!(wire.ask(get("/healthz")).status, 200);
    } else {
        assert_eq!(wire.last_answer().status, 404);
    }

    let mut wire = bank.connect();
    wire.send(raw(&fields, CREDIT).replace("HTTP/1.1", "HTTP/1.0"));
    assert_eq!(wire.answer().balance(), 3, "1.0 knows no 100 Continue");
}

every_edge!(an_unread_body_behind_an_early_answer_keeps_the_connection_in_step);
fn an_unread_body_behind_an_early_answer_keeps_the_connection_in_step(edge: Edge) {
    let bank = edge.open();
    let mut wire = bank.connect();
    wire.send(raw("Content-Length: 5\r\n", "").replace(TRANSACTIONS, "/nowhere"));
    if edge == Edge::Layer7 {
        // nginx passes a request on once it is complete.
        wire.send(["GET /".as_bytes(), &get("/healthz")].concat());
        assert_eq!(wire.answer().status, 404);
    } else {
        assert_eq!(wire.answer().status, 404, "before the body is sent");
        wire.send(["GET /".as_bytes(), &get("/healthz")].concat());
    }
    assert_eq!(wire.answer().text(), "Healthy");
    wire.send(
        [post("/clientes/6/transacoes", CREDIT), request("DELETE", "/healthz", b"body"), get("/healthz")]
            .concat(),
    );
    assert_eq!([wire.answer(), wire.answer(), wire.answer()].map(|answer| answer.status), [404, 405, 200]);
}

every_edge!(http_1_0_closes_unless_asked_to_stay);
fn http_1_0_closes_unless_asked_to_stay(edge: Edge) {
    let bank = edge.open();
    let mut wire = bank.connect();
    wire.send("GET /healthz HTTP/1.0\r\n\r\n");
    assert_eq!(wire.last_answer().status, 200);

    let mut wire = bank.connect();
    for _ in 0..2 {
        let answer = wire.ask("GET /healthz HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
        assert_eq!((answer.status, answer.field("Connection")), (200, Some("keep-alive")));
    }
}

every_edge!(a_request_that_says_close_is_the_last);
fn a_request_that_says_close_is_the_last(edge: Edge) {
    let bank = edge.open();
    let mut wire = bank.connect();
    wire.send(
        ["GET /healthz HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n".as_bytes(), &get("/healthz")]
            .concat(),
    );
    assert_eq!(wire.last_answer().status, 200);
}

every_edge!(malformed_requests_are_refused);
fn malformed_requests_are_refused(edge: Edge) {
    let bank = edge.open();
    let heads = [
        "nonsense\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\r\n\r\n",
        "GET  /healthz HTTP/1.1\r\nHost: t\r\n\r\n",
        "GET /health\tz HTTP/1.1\r\nHost: t\r\n\r\n",
        "GET /\u{1} HTTP/1.1\r\nHost: t\r\n\r\n",
        "GET /healthz HTTP/1.1x\r\nHost: t\r\n\r\n",
        "GET /healthz HTTP/1.1\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: t\r\nHost: t\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: t\r\nhost: u\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: t/u\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: t\r\nA: b\r\n c\r\n\r\n",
        "GET /healthz HTTP/1.1\r\n Host: t\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost : t\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: t\r\nA: \u{0}\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: t\r\nA: \u{7f}\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: t\r\nA: b\rc\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: t\r\nno colon\r\n\r\n",
        "GET /healthz HTTP/1.1\nHost: t\n\n",
        "GET /healthz HTTP/1.1\r\nHost: t\r\n\n",
    ];
    assert_refused(&bank, 400, &heads.map(str::to_owned));

    let of_0_9 = "GET /healthz\r\n\r\n";
    if edge == Edge::Layer7 {
        // nginx knows HTTP/0.9, whose answers are nothing but content.
        let mut wire = bank.connect();
        wire.send(of_0_9);
        let content = wire.read_to_end();
        assert!(content.starts_with(r#"{"erro": "the only versions supported"#), "{content}");
    } else {
        assert_refused(&bank, 400, &[of_0_9.to_owned()]);
    }
}

/// Direct only: nginx as an HTTP proxy writes most of these answers itself.
#[test]
fn no_refusal_of_a_head_request_has_content() {
    let bank = Bank::with(&[("HEAD_TIMEOUT_MS", "50"), ("BODY_TIMEOUT_MS", "50")]);
    let long = "x".repeat(9_000);
    for (rest, status) in [
        ("/nowhere HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n".to_owned(), 404),
        ("/clientes/1/transacoes HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n".to_owned(), 405),
        ("/healthz HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("/healthz HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nx".to_owned(), 400),
        ("/healthz HTTP/1.1\r\nHost: t\r\n".to_owned(), 408),
        ("/healthz HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\n".to_owned(), 408),
        ("/healthz HTTP/1.1\r\nHost: t\r\nContent-Length: 99999\r\n\r\n".to_owned(), 413),
        (format!("/{long}"), 414),
        (format!("/healthz HTTP/1.1\r\nHost: t\r\nA: {long}\r\n\r\n"), 431),
        ("/healthz HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(), 501),
        ("/healthz HTTP/2.0\r\n\r\n".to_owned(), 505),
    ] {
        let mut wire = bank.connect();
        wire.send(format!("HEAD {rest}"));
        assert_eq!(wire.answer_to_head().status, status, "{rest:.60?}");
        wire.assert_closed();
    }
}

every_edge!(a_field_whose_name_is_malformed_is_refused);
fn a_field_whose_name_is_malformed_is_refused(edge: Edge) {
    let bank = edge.open();
    for name in ["X(Y)", "X@Y", "X\u{e9}", "Content-Length@"] {
        let request = format!("GET /healthz HTTP/1.1\r\nHost: bank\r\n{name}: 1\r\n\r\n");
        assert_eq!(bank.connect().ask(request).status, 400, "{name}");
    }
}

/// Direct only: nginx as an HTTP proxy has a grammar of its own.
#[test]
fn hosts_and_targets_that_break_their_grammar_are_refused() {
    let bank = Bank::open();
    let hosts = ["a:b", "a:1:2", "::1", "[::1", "]", "[]", "[zz]", "[::1]x", "a%", "a%zz", ":80"];
    assert_refused(&bank, 400, &hosts.map(|host| format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n")));
    let targets = [
        "*",
        "!",
        "healthz",
        "\"",
        "http:///healthz",
        "http://u@a/healthz",
        "ftp://a/healthz",
        "mailto:x",
        "http:///",
    ];
    let ends = ["\"", "<>", "\\", "%zz", "#", "\u{e4}"];
    let targets = targets.into_iter().map(str::to_owned);
    let in_path_and_query = ends.iter().flat_map(|end| [format!("/healthz{end}"), format!("/healthz?{end}")]);
    let requests: Vec<String> = targets
        .chain(in_path_and_query)
        .map(|target| format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n"))
        .collect();
    assert_refused(&bank, 400, &requests);
    let mut wire = bank.connect();
    for host in ["", "bank:", "[::1]:80", "a%41"] {
        assert_eq!(wire.ask(format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n")).status, 200, "{host}");
    }
    for target in ["/healthz?a=%20;b", "HTTP://[::1]:80/healthz", "https://a/healthz?"] {
        assert_eq!(wire.ask(get(target)).status, 200, "{target}");
    }
}

/// Direct only: nginx as an HTTP proxy refuses these itself.
#[test]
fn methods_about_no_resource_are_named_as_such() {
    let bank = Bank::open();
    let lines = ["CONNECT bank:80", "CONNECT /healthz", "OPTIONS *"];
    assert_refused(&bank, 501, &lines.map(|line| format!("{line} HTTP/1.1\r\nHost: t\r\n\r\n")));
}

every_edge!(ambiguous_framing_is_refused);
fn ambiguous_framing_is_refused(edge: Edge) {
    let bank = edge.open();
    // What could be read out of them is valid.
    assert_eq!(bank.ask(chunked(&framing::coded())).balance(), 1);
    assert_eq!(bank.ask(raw(&format!("Content-Length: {}\r\n", CREDIT.len()), CREDIT)).balance(), 2);
    bank.database.execute("TRUNCATE transacoes; UPDATE clientes SET saldo = 0");
    assert_refused(&bank, 400, &framing::ambiguous());
}

/// Direct only: it opens each configuration itself.
/// nginx passes the bytes on, or refuses on its own account, or passes on one meaning of its own: whatever it does, it
/// leaves no bytes over, so the request behind them is never answered and nothing is done twice.
#[test]
fn ambiguous_framing_smuggles_nothing_through_nginx() {
    for configuration in ["nginx.conf", "nginx-http.conf", "nginx-tcp.conf"] {
        let bank = Balanced::open(configuration);
        let smuggled = get("/clientes/2/extrato");
        for request in framing::ambiguous() {
            let mut wire = bank.connect();
            let _ = wire.try_send(&[request.as_bytes(), &smuggled].concat());
            let status = wire.last_status();
            assert!([400, 501].contains(&status), "{configuration}: {request:?}: {status}");
        }
        assert_eq!(bank.database.number("SELECT count(*) FROM transacoes"), 0, "{configuration}");
    }
}

every_edge!(other_codings_and_versions_are_named_as_such);
fn other_codings_and_versions_are_named_as_such(edge: Edge) {
    let bank = edge.open();
    let codings = ["gzip", "identity", "gzip, chunked", "xchunked"];
    assert_refused(&bank, 501, &codings.map(|coding| raw(&format!("Transfer-Encoding: {coding}\r\n"), "")));
    assert_refused(&bank, 501, &[raw("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", "")]);
    let versions = ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9"];
    assert_refused(&bank, 505, &versions.map(|version| format!("GET /healthz {version}\r\nHost: t\r\n\r\n")));
}

every_edge!(heads_and_targets_are_limited);
fn heads_and_targets_are_limited(edge: Edge) {
    let bank = edge.open();
    let with_fields =
        |count: usize| format!("GET /healthz HTTP/1.1\r\nHost: t\r\n{}\r\n", "A: b\r\n".repeat(count - 1));
    let of_length = |len_bytes: usize| {
        let rest = "GET /healthz HTTP/1.1\r\nHost: t\r\nA: \r\n\r\n".len();
        format!("GET /healthz HTTP/1.1\r\nHost: t\r\nA: {}\r\n\r\n", "x".repeat(len_bytes - rest))
    };
    let with_target = |len_bytes: usize| {
        format!("GET /healthz?{} HTTP/1.1\r\nHost: t\r\n\r\n", "x".repeat(len_bytes - "/healthz?".len()))
    };
    let mut wire = bank.connect();
    for fits in [with_fields(64), of_length(8_192), with_target(4_096)] {
        assert_eq!(wire.ask(fits).status, 200);
    }
    assert_refused(&bank, 431, &[with_fields(65), of_length(8_193), of_length(100_000)]);
    assert_refused(&bank, 414, &[with_target(4_097), with_target(8_000), with_target(100_000)]);
}

every_edge!(slow_heads_and_bodies_are_told_and_closed);
fn slow_heads_and_bodies_are_told_and_closed(edge: Edge) {
    let bank = edge.with(&[("HEAD_TIMEOUT_MS", "50"), ("BODY_TIMEOUT_MS", "50")]);
    let unfinished = [
        "G".to_owned(),
        "GET /healthz HTTP/1.1\r\n".to_owned(),
        raw("Content-Length: 5\r\n", "{"),
        chunked("1\r\n"),
    ];
    let wires = unfinished.each_ref().map(|unfinished| {
        let mut wire = bank.connect();
        wire.send(unfinished);
        wire
    });
    for (mut wire, unfinished) in wires.into_iter().zip(unfinished) {
        if edge == Edge::Layer7 {
            // nginx waits 10 s by its own settings, and closes without a word. No instance has seen the request.
            wire.assert_ended();
        } else {
            assert_eq!(wire.last_answer().status, 408, "{unfinished:?}");
        }
    }
}

every_edge!(an_idle_connection_is_closed_without_a_word);
fn an_idle_connection_is_closed_without_a_word(edge: Edge) {
    let bank = edge.with(&[("IDLE_TIMEOUT_MS", "500")]);
    if edge == Edge::Layer7 {
        // By nginx's own settings: 10 s without a first request, and then 60 s, which no test waits for.
        return bank.connect().assert_ended();
    }
    bank.connect().assert_closed();
    let mut wire = bank.connect();
    assert_eq!(wire.ask(get("/healthz")).status, 200);
    wire.assert_closed();
}

every_edge!(a_client_that_never_reads_is_given_up);
fn a_client_that_never_reads_is_given_up(edge: Edge) {
    let bank = edge.with(&[("SEND_TIMEOUT_MS", "50")]);
    let mut wire = bank.connect();
    let statements = get("/clientes/1/extrato").repeat(100);
    // Until the server, which cannot send, takes no more and then resets the connection.
    while wire.try_send(&statements).is_ok() {}
    // Behind nginx as an HTTP proxy it is nginx that gives up: it has taken the answers from the instances.
    assert_eq!(bank.metric("rinha_send_timeouts_total"), u64::from(edge != Edge::Layer7));
    assert_eq!(bank.ask(get("/healthz")).status, 200);
}

/// Direct only: about the sockets of `LISTEN`.
#[test]
fn a_unix_socket_serves_beside_tcp_replaces_a_stale_file_and_is_removed() {
    let directory = Throwaway::new("http").expect("make a directory");
    let path = directory.path().join("bank.sock");
    // Left over from a server that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bind"));
    assert!(path.exists());
    let address = format!("unix:{}", path.display());
    let listen = vec!["127.0.0.1:0".to_owned(), address.clone()];
    let mut bank = Bank::start(Database::new(), &[], |options| options.listen = listen);
    let mut wire = Wire::connect(&address);
    assert_eq!(wire.ask(transaction(1, 1, "c", "a")).balance(), 1);
    assert_eq!(bank.statement(1)["saldo"]["total"], 1, "over TCP");

    let mut second = options(&bank.database.url(), &[]);
    second.listen = vec![address];
    let refused = stress::Instance::start(&second).expect_err("two servers on one socket").to_string();
    assert!(refused.contains("LISTEN") && refused.contains("another server listens there"), "{refused}");

    // Nor is one taken over that does not accept, as a server at CLIENTS_MAX.
    let full = directory.path().join("full.sock");
    let _listener = full_listener(&full);
    second.listen = vec![format!("unix:{}", full.display())];
    let refused = stress::Instance::start(&second).expect_err("two servers on one socket").to_string();
    assert!(refused.contains("LISTEN") && refused.contains("another server listens there"), "{refused}");

    drop(wire);
    stop(&mut bank, Signal::TERM);
    assert!(!path.exists());
    assert!(Path::new(directory.path()).exists());
}

/// Sends a signal and waits for the end, which has to be a good one.
fn stop(bank: &mut Bank, signal: Signal) {
    bank.instance.signal(signal).expect("send a signal");
    let status = bank.instance.wait_exit(Duration::from_secs(10)).expect("it ends within 10 s");
    assert!(status.success(), "{status}: {}", bank.instance.log());
}

/// Direct only: about the process. Restarts behind nginx are in faults.rs.
#[test]
fn it_stops_cleanly_on_either_signal() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut bank = Bank::open();
        let idle = bank.connect();
        stop(&mut bank, signal);
        drop(idle);
    }
}

/// Direct only: looks at the listener that closes. Restarts behind nginx are in faults.rs.
#[test]
fn what_is_in_flight_is_finished_before_it_stops() {
    let mut bank = Bank::with(&PATIENT);
    let (stranger, mut in_flight) = bank.block(1, "in flight");
    let mut idle = bank.connect();
    assert_eq!(idle.ask(get("/healthz")).status, 200);

    let address = bank.address();
    bank.instance.signal(Signal::TERM).expect("send a signal");
    wait_for("nobody to listen", || TcpStream::connect(&address).is_err().then_some(()));
    drop(stranger);
    let answer: Answer = in_flight.last_answer();
    assert_eq!(answer.balance(), 1);
    idle.assert_closed();
    let status = bank.instance.wait_exit(Duration::from_secs(10)).expect("it ends");
    assert!(status.success(), "{status}");
    assert_eq!(bank.database.ledger_rows("in flight"), 1);
}

/// Direct only: looks at the listener that closes. Restarts behind nginx are in faults.rs.
#[test]
fn a_request_on_an_open_connection_is_served_while_it_stops() {
    let settings: Vec<_> = PATIENT.into_iter().chain([("DRAIN_IDLE_MS", "60000")]).collect();
    let mut bank = Bank::with(&settings);
    let mut open = bank.connect();
    assert_eq!(open.ask(get("/healthz")).status, 200);
    let address = bank.address();
    bank.instance.signal(Signal::TERM).expect("send a signal");
    wait_for("nobody to listen", || TcpStream::connect(&address).is_err().then_some(()));
    open.send(transaction(1, 1, "c", "late"));
    assert_eq!(open.last_answer().balance(), 1);
    assert!(bank.instance.wait_exit(Duration::from_secs(10)).expect("it ends").success());
}

/// Direct only: about the listener's backlog, which nginx has of its own.
#[test]
fn who_waits_to_be_let_in_is_served_before_it_stops() {
    let directory = Throwaway::new("http").expect("make a directory");
    let address = format!("unix:{}", directory.path().join("bank.sock").display());
    let mut bank =
        Bank::start(Database::new(), &[("CLIENTS_MAX", "2"), ("DRAIN_IDLE_MS", "50")], |options| {
            options.listen = vec![address.clone()];
            options.readiness = Readiness::Listening;
        });
    let mut inside = [Wire::connect(&address), Wire::connect(&address)];
    for wire in &mut inside {
        wait_for("health", || (wire.ask(get("/healthz")).status == 200).then_some(()));
    }
    let mut outside: Vec<Wire> = (0..5).map(|_| Wire::connect(&address)).collect();
    for wire in &mut outside {
        wire.send(transaction(1, 1, "c", "waited"));
    }
    stop(&mut bank, Signal::TERM);
    for wire in &mut outside {
        assert_eq!(wire.last_answer().status, 200);
    }
    assert_eq!(bank.database.ledger_rows("waited"), 5);
}

/// Direct only: about the process. Restarts behind nginx are in faults.rs.
#[test]
fn what_does_not_finish_in_time_does_not_keep_it_from_stopping() {
    // The last `DRAIN_TIMEOUT_MS` counts.
    let settings = [&PATIENT[..4], &[("DRAIN_TIMEOUT_MS", "50")]].concat();
    let mut bank = Bank::with(&settings);
    let (stranger, mut in_flight) = bank.block(1, "too late");
    stop(&mut bank, Signal::TERM);
    in_flight.assert_closed();
    drop(stranger);
}

/// Direct only: about the listener's backlog, which nginx has of its own.
#[test]
fn connections_beyond_the_limit_wait_for_their_turn() {
    let bank = Bank::start(Database::new(), &[("CLIENTS_MAX", "2")], |options| {
        options.readiness = Readiness::Listening;
    });
    let mut first = bank.connect();
    let mut second = bank.connect();
    // Asked until the lane is ready.
    wait_for("health", || (first.ask(get("/healthz")).status == 200).then_some(()));
    assert_eq!(second.ask(get("/healthz")).status, 200);
    let mut third = bank.connect();
    third.send(get("/healthz"));
    assert_eq!(first.ask(get("/healthz")).status, 200);
    assert!(third.is_silent(), "it is in the kernel's backlog");
    drop(first);
    assert_eq!(third.answer().status, 200);
}

every_edge!(a_reset_in_any_state_leaves_nothing_behind);
fn a_reset_in_any_state_leaves_nothing_behind(edge: Edge) {
    let bank = edge.open();
    for sent in [
        &b""[..],
        b"GET",
        &get("/healthz"),
        &transaction(1, 1, "c", "reset"),
        raw("Content-Length: 9\r\n", "{").as_bytes(),
    ] {
        let mut wire = bank.connect();
        wire.send(sent);
        // Closing with no time to linger sends a reset.
        wire.socket().set_linger(Some(Duration::ZERO)).expect("set SO_LINGER");
        drop(wire);
    }
    if edge == Edge::Layer7 {
        // nginx keeps idle connections to its instances: at most one for each request that they had.
        bank.wait_metric("rinha_calls_in_flight", 0);
        assert!(bank.metric("rinha_connections") <= 2 + 5);
    } else {
        // At most the connection over which each instance is asked, which its gauge may or may not have yet.
        let instances = if edge == Edge::Direct { 1 } else { 2 };
        let is_alone = || (bank.metric("rinha_connections") <= instances).then_some(());
        wait_for("nobody but those who ask for the metrics", is_alone);
    }
    bank.database.assert_ledger_adds_up();
}

every_edge!(an_answer_is_one_segment_read_at_once);
fn an_answer_is_one_segment_read_at_once(edge: Edge) {
    let bank = edge.open();
    let mut stream = TcpStream::connect(bank.address()).expect("connect");
    std::io::Write::write_all(&mut stream, &get("/clientes/1/extrato")).expect("send");
    let mut bytes = [0; 4_096];
    let n = stream.read(&mut bytes).expect("read");
    let text = String::from_utf8_lossy(&bytes[..n]);
    assert!(text.ends_with("\"ultimas_transacoes\": []}"), "head and body together: {text}");
}

/// Direct only: it reads the sources. What layer 7 is tested for holds for `nginx-tcp.conf`, too: it says the same, but for where a
/// request goes and for how long it waits there.
#[test]
fn both_configurations_of_layer_7_say_the_same_but_for_where_requests_go() {
    let [http, tcp] = ["nginx-http.conf", "nginx-tcp.conf"].map(|name| {
        let text = support::text_of(workspace().join("nginx").join(name));
        let lines = text.lines().map(|line| line.trim().to_owned());
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        // The map of the accounts has more to it than its name.
        let without_map = lines.collect::<Vec<_>>().join("\n").replace(MAP_OF_ACCOUNTS, "");
        without_map.lines().map(str::to_owned).collect::<Vec<_>>()
    });
    let differs = |line: &&String| {
        let name = line.split(' ').next().unwrap_or_default();
        !["server", "least_conn;", "hash"].contains(&name)
            && !["proxy_next_upstream", "proxy_connect_timeout", "proxy_read_timeout"].contains(&name)
    };
    assert_eq!(
        http.iter().filter(differs).collect::<Vec<_>>(),
        tcp.iter().filter(differs).collect::<Vec<_>>()
    );
}

const MAP_OF_ACCOUNTS: &str = "map $request_uri $account {
~^/clientes/(?<number>[0-9]+)/ $number;
default $request_uri;
}
";

/// Direct only: it opens `nginx-tcp.conf` itself. All requests of an account go to one instance, and to the other one once that is
/// gone; none is lost, none is done twice.
#[test]
fn each_account_has_its_instance_and_another_when_that_is_gone() {
    let mut bank = Balanced::open("nginx-tcp.conf");
    let served = |bank: &Balanced| {
        bank.instances.each_ref().map(|instance| {
            value_of("rinha_responses_total{endpoint=\"transacoes\",status=\"200\"}", &metrics_of(instance))
        })
    };
    let credit = |bank: &Balanced, account: i32| {
        assert_eq!(bank.connect().ask(transaction(account, 1, "c", "steady")).status, 200, "{account}");
    };
    let mut of_account = Vec::new();
    for account in 1..=5 {
        let before = served(&bank);
        (0..4).for_each(|_| credit(&bank, account));
        let after = served(&bank);
        let grown = [after[0] - before[0], after[1] - before[1]];
        assert!(grown == [4, 0] || grown == [0, 4], "account {account}: {grown:?}");
        of_account.push(usize::from(grown[1] == 4));
    }
    bank.kill_instance(of_account[0]);
    (1..=5).for_each(|account| credit(&bank, account));
    assert_eq!(bank.database.number("SELECT sum(saldo)::bigint FROM clientes"), 5 * 5);
    assert_eq!(bank.database.number("SELECT count(*) FROM transacoes"), 5 * 5);
}

/// Direct only: reads the sources.
#[test]
fn a_test_runs_at_every_edge_or_says_why_not_and_differences_are_documented() {
    // What follows in api.rs is about the process and its database.
    let of_api = include_str!("api.rs").split("// The command line.\n").next().expect("the first part");
    let blocks = include_str!("http.rs").split("\n\n").chain(of_api.split("\n\n"));
    let tests = blocks.filter(|block| block.contains("#[test]\nfn "));
    let unexplained: Vec<&str> = tests.filter(|test| !test.starts_with("/// Direct only: ")).collect();
    assert_eq!(unexplained, [""; 0], "every_edge!, or a comment that begins so");
    let page = include_str!("../docs/reference/http.md");
    for (_, _, why) in support::edge::DIFFERENCES {
        assert!(page.contains(&format!("| {why} |")), "docs/reference/http.md lacks: {why}");
    }
}
