//! Times each step of a request by itself, and whole rounds of requests through the core.
//!
//! `cargo bench --bench parts`. Times are for comparing two versions on one quiet machine; what holds on any machine is
//! `benches/instructions.rs`.

use divan::{Bencher, black_box};
use proto_pg::{Connection, Event, Session, Statement, Value, oid};
use rinha::bank::{self, Accounts, ListenerKind, Outcome};
use rinha::http::chunked::ChunkedDecoder;
use rinha::http::head;
use rinha::http::response::{self, Persistence, Response, Status};

use bare_core::{BareCore, Request, TRANSACTION_BODY, idle, message, transaction_answer};

fn main() {
    divan::main();
}

const LIMITS: head::Limits =
    head::Limits { head_len_max_bytes: 8_192, target_len_max_bytes: 4_096, body_len_max_bytes: 16_384 };

#[divan::bench(args = [Request::Transaction, Request::Statement])]
fn parse_head(bencher: Bencher<'_, '_>, request: Request) {
    let bytes = request.text();
    bencher.bench_local(|| head::parse_head(black_box(&bytes), &LIMITS).is_ok_and(|head| head.is_some()));
}

#[divan::bench(args = ["/clientes/3/extrato", "/healthz", "/clientes/6/extrato"])]
fn route(bencher: Bencher<'_, '_>, path: &str) {
    let accounts = Accounts::new((1..=5).collect());
    bencher.bench_local(|| bank::route("GET", black_box(path), ListenerKind::Bank, &accounts));
}

#[divan::bench(args = [TRANSACTION_BODY, "{\"valor\": 1.5, \"tipo\": \"c\", \"descricao\": \"deposito\"}"])]
fn parse_transaction(body: &str) -> bool {
    bank::parse_transaction(black_box(body.as_bytes())).is_ok()
}

/// A body in chunks of this many bytes.
#[divan::bench(args = [1, 16, 1_024])]
fn decode_chunked(bencher: Bencher<'_, '_>, chunk_bytes: usize) {
    let content = [b'a'; 1_024];
    let mut coded: Vec<u8> = Vec::new();
    for chunk in content.chunks(chunk_bytes) {
        coded.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
        coded.extend(chunk);
        coded.extend(b"\r\n");
    }
    coded.extend(b"0\r\n\r\n");
    // Decoding is done in place, so each time needs a body of its own.
    bencher
        .counter(divan::counter::BytesCount::new(content.len()))
        .with_inputs(|| coded.clone())
        .bench_local_refs(|coded| ChunkedDecoder::default().decode(black_box(coded), &LIMITS));
}

#[divan::bench]
fn write_transaction_answer(bencher: Bencher<'_, '_>) {
    let (mut out, mut scratch) = (Vec::new(), Vec::new());
    let date = response::date_at(0);
    bencher.bench_local(|| {
        out.clear();
        let outcome = Outcome::Accepted { limit_cents: 1_000_000, balance_cents: -9_098 };
        let answer = bank::answer(black_box(outcome), &mut scratch);
        response::write_response(&mut out, &answer, Persistence::KeepAlive, false, &date);
        out.len()
    });
}

/// With a body of this many bytes.
#[divan::bench(args = [32, 1_024])]
fn write_response(bencher: Bencher<'_, '_>, body_bytes: usize) {
    let body = vec![b' '; body_bytes];
    let answer =
        Response { status: Status::Ok, content_type: "application/json", extra_field: "", body: &body };
    let date = response::date_at(0);
    let mut out = Vec::new();
    bencher.bench_local(|| {
        out.clear();
        response::write_response(&mut out, black_box(&answer), Persistence::KeepAlive, false, &date);
        out.len()
    });
}

#[divan::bench]
fn date_at() -> response::Date {
    response::date_at(black_box(1_705_458_881))
}

/// Bind, Execute and Sync of one call.
#[divan::bench]
fn encode_call(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(ready_lane).bench_local_refs(call);
}

/// The answer to one call, from its bytes to the event that confirms it.
#[divan::bench]
fn decode_call(bencher: Bencher<'_, '_>) {
    let answer = [transaction_answer(), idle()].concat();
    let lane_with_call = || {
        let mut lane = ready_lane();
        call(&mut lane);
        lane.send_advance(lane.send_pending().len());
        lane
    };
    bencher.with_inputs(lane_with_call).bench_local_refs(|lane| {
        receive(lane, &answer);
        let mut sum_cents = 0;
        while let Some(event) = lane.poll_event() {
            if let Event::Row { row, .. } = event {
                sum_cents += row.i64(0).unwrap_or(0) + row.i64(1).unwrap_or(0);
            }
        }
        sum_cents
    });
}

/// The whole way through the core, there and back.
#[divan::bench(args = [1, 16])]
fn transactions(bencher: Bencher<'_, '_>, requests: usize) {
    bench_rounds(bencher, &vec![Request::Transaction; requests]);
}

/// The same for a chunked body.
#[divan::bench]
fn chunked_transaction(bencher: Bencher<'_, '_>) {
    bench_rounds(bencher, &[Request::ChunkedTransaction]);
}

/// The same for statements.
#[divan::bench(args = [1, 16])]
fn statements(bencher: Bencher<'_, '_>, requests: usize) {
    bench_rounds(bencher, &vec![Request::Statement; requests]);
}

fn bench_rounds(bencher: Bencher<'_, '_>, requests: &[Request]) {
    let mut core = BareCore::new(requests);
    core.warm_up();
    bencher.counter(divan::counter::ItemsCount::new(requests.len())).bench_local(|| core.round());
}

static STATEMENTS: [Statement<'static>; 1] = [Statement::new(
    "t",
    "SELECT saldo, limite FROM InsertTransacao($1, $2, $3, $4)",
    &[oid::INT4, oid::INT4, oid::TEXT, oid::TEXT],
)];

/// A lane that has logged in.
fn ready_lane() -> Connection<u32> {
    let session = Session {
        user: "rinha".to_owned(),
        password: None,
        database: "rinha".to_owned(),
        parameters: Vec::new(),
        ..Session::default()
    };
    let limits = proto_pg::Limits {
        message_len_max_bytes: 8_192,
        text_len_max_bytes: 8_192,
        send_len_max_bytes: 8_192,
        in_flight_calls_max: 16,
    };
    let mut lane = Connection::new(&session, &STATEMENTS, limits);
    for answer in [message(b'R', &0i32.to_be_bytes()), message(b'1', b"")] {
        lane.send_advance(lane.send_pending().len());
        receive(&mut lane, &[answer, idle()].concat());
        while lane.poll_event().is_some() {}
    }
    assert!(lane.is_ready(), "the lane has logged in");
    lane
}

fn call(lane: &mut Connection<u32>) -> usize {
    let parameters = [Value::Int4(3), Value::Int4(1_000), Value::Text("c"), Value::Text("deposito")];
    lane.call(1, 0, black_box(&parameters)).expect("there is room for one call");
    lane.sync();
    lane.send_pending().len()
}

fn receive(lane: &mut Connection<u32>, bytes: &[u8]) {
    lane.recv_space()[..bytes.len()].copy_from_slice(bytes);
    lane.recv_commit(bytes.len());
}
