//! An HTTP connection gives the same calls and the same answers however its bytes are cut.
//!
//! The input's first byte says how they are cut (`Pieces::cut`); the rest is what the client sends.
#![no_main]

use std::sync::{LazyLock, Mutex};

use fuzz::Pieces;
use libfuzzer_sys::fuzz_target;
use rinha::bank::{Accounts, Call, ListenerKind, Outcome};
use rinha::buf::Pipe as _;
use rinha::config::Config;
use rinha::engine::client::{AfterSend, Client, Context};
use rinha::http::response;
use rinha::metrics::Metrics;
use rinha::now::Now;

/// One for all inputs, since to make it costs more than most of them. Only its counters change, which decide nothing.
static SITE: LazyLock<Mutex<Context>> = LazyLock::new(|| {
    let config = Config::from_environment(|name| match name {
        "DATABASE_URL" => Some("postgresql://rinha@localhost/rinha".to_owned()),
        "LISTEN" => Some("127.0.0.1:0".to_owned()),
        // Small, so that short inputs reach the limits.
        "HEAD_LEN_MAX_BYTES" | "BODY_LEN_MAX_BYTES" | "INBOX_LEN_BYTES" => Some("256".to_owned()),
        "TARGET_LEN_MAX_BYTES" => Some("64".to_owned()),
        _ => None,
    });
    Mutex::new(Context {
        config: config.expect("the settings are valid"),
        accounts: Accounts::new(vec![1, 2, 3, 4, 5]),
        problem: None,
        is_draining: false,
        date: response::date_at(0),
        now: Now::default(),
        metrics: Metrics::default(),
        scratch: Vec::new(),
    })
});

/// What a client that sends these bytes, and then nothing more, brings about. Each call is answered at once.
fn verdict(mut bytes: Pieces<'_>, context: &mut Context) -> (Vec<Call>, Vec<u16>) {
    let mut client = Client::new(ListenerKind::Bank, &context.config, context.now);
    let (mut calls, mut answers) = (Vec::new(), Vec::new());
    let mut has_ended = false;
    loop {
        let n = bytes.arrive(client.recv_space());
        client.recv_commit(n);
        let mut progress = n > 0;
        if bytes.is_empty() && !has_ended {
            has_ended = true;
            progress = true;
            client.peer_closed();
        }
        while let Some(call) = client.advance(context) {
            calls.push(call);
            client.answer(Outcome::Accepted { limit_cents: 1, balance_cents: 2 }, context);
            progress = true;
        }
        let pending = client.send_pending();
        progress |= !pending.is_empty();
        answers.extend_from_slice(pending);
        let sent = pending.len();
        client.send_advance(sent);
        if client.after_send(&context.config, || context.now) == AfterSend::Close {
            return (calls, statuses(&answers));
        }
        assert!(progress, "neither side does anything more, and the connection stays open");
    }
}

/// The status of each answer but 100: whether that is sent depends on how much of the content has come already, as it may
/// (RFC 9110, section 10.1.1).
fn statuses(answers: &[u8]) -> Vec<u16> {
    let text = str::from_utf8(answers).expect("answers are text");
    let statuses = text.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].parse().expect("a status"));
    statuses.filter(|status| *status != 100).collect()
}

fuzz_target!(|data: &[u8]| {
    let Some((&how, bytes)) = data.split_first() else { return };
    let mut context = SITE.lock().expect("a panic ends the process");
    let whole = verdict(Pieces::whole(bytes), &mut context);
    let in_pieces = verdict(Pieces::cut(bytes, how), &mut context);
    assert_eq!(in_pieces, whole);
    // An empty line before a request line is no message.
    let behind_empty_line = [b"\r\n", bytes].concat();
    assert_eq!(verdict(Pieces::cut(&behind_empty_line, how), &mut context), whole);
});
