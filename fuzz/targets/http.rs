//! An HTTP connection gives the same calls and the same answers however its bytes are cut.
//!
//! The input's first byte seeds the cuts; the rest is what the client sends.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rinha::api::{Accounts, Call, Face, Outcome};
use rinha::buf::Pipe as _;
use rinha::client::{AfterSend, Client, Site};
use rinha::config::Config;
use rinha::metrics::Metrics;
use rinha::now::Now;
use rinha::response;

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    Config::from_environment(|name| match name {
        "DATABASE_URL" => Some("postgresql://rinha@localhost/rinha".to_owned()),
        "LISTEN" => Some("127.0.0.1:0".to_owned()),
        // Small, so that short inputs reach the limits.
        "HEAD_LEN_MAX_BYTES" | "BODY_LEN_MAX_BYTES" | "INBOX_LEN_BYTES" => Some("256".to_owned()),
        "TARGET_LEN_MAX_BYTES" => Some("64".to_owned()),
        _ => None,
    })
    .expect("the settings are valid")
});

fn site() -> Site {
    Site {
        config: CONFIG.clone(),
        accounts: Accounts::new(vec![1, 2, 3, 4, 5]),
        is_database_reached: true,
        is_draining: false,
        date: response::date_at(0),
        now: Now::default(),
        metrics: Metrics::default(),
        scratch: Vec::new(),
    }
}

/// What a client that sends these bytes, at most `piece_len()` at a time, brings about. Each call is answered at once.
fn verdict(mut rest: &[u8], mut piece_len: impl FnMut() -> usize) -> (Vec<Call>, Vec<u16>) {
    let mut site = site();
    let mut client = Client::new(Face::Bank, &site.config, site.now);
    let (mut calls, mut answers) = (Vec::new(), Vec::new());
    let mut has_ended = false;
    loop {
        let space = client.recv_space();
        let n = space.len().min(rest.len()).min(piece_len());
        space[..n].copy_from_slice(&rest[..n]);
        client.recv_commit(n);
        rest = &rest[n..];
        if rest.is_empty() && !has_ended {
            has_ended = true;
            client.peer_closed();
        }
        let mut progress = n > 0;
        while let Some(call) = client.advance(&mut site) {
            calls.push(call);
            client.answer(Outcome::Accepted { limit_cents: 1, balance_cents: 2 }, &mut site);
            progress = true;
        }
        let pending = client.send_pending();
        progress |= !pending.is_empty();
        answers.extend_from_slice(pending);
        let sent = pending.len();
        client.send_advance(sent);
        if client.after_send(&site.config, site.now) == AfterSend::Close || (has_ended && !progress) {
            return (calls, statuses(&answers));
        }
    }
}

/// The status of each answer but 100: whether that is sent depends on how much of the content has come already, as it may
/// (RFC 9110, section 10.1.1). A request that breaks two rules is refused for the one that shows first.
fn statuses(answers: &[u8]) -> Vec<u16> {
    let text = str::from_utf8(answers).expect("answers are text");
    let statuses = text.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].parse().expect("a status"));
    statuses
        .filter(|status| *status != 100)
        .map(|status| if REFUSALS.contains(&status) { 400 } else { status })
        .collect()
}

/// What a message is refused with that cannot be trusted.
const REFUSALS: [u16; 6] = [400, 413, 414, 431, 501, 505];

fuzz_target!(|data: &[u8]| {
    let Some((&seed, bytes)) = data.split_first() else { return };
    let whole = verdict(bytes, || usize::MAX);
    assert_eq!(verdict(bytes, || 1), whole, "byte by byte");
    let mut state = u32::from(seed).wrapping_mul(2_654_435_761);
    let in_pieces = verdict(bytes, || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 27) as usize + 1
    });
    assert_eq!(in_pieces, whole, "in pieces");
});
