//! Each phase of a client against each input.

use super::*;
use crate::bank::Reject;

/// One client with everything around it, and a clock that tests move.
struct World {
    client: Client,
    context: Context,
}

/// From one position that a test tries to the next. Miri takes some hundred times as long, so there it is one of many.
const STEP: usize = if cfg!(miri) { 29 } else { 1 };

const STATEMENT: &str = "GET /clientes/1/extrato HTTP/1.1\r\nHost: bank\r\n\r\n";
const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: bank\r\n\r\n";
const BODY: &str = r#"{"valor": 1, "tipo": "c", "descricao": "a"}"#;

fn transaction() -> String {
    format!(
        "POST /clientes/1/transacoes HTTP/1.1\r\nHost: bank\r\nContent-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    )
}

impl World {
    fn new() -> World {
        World::with_settings(&[])
    }

    fn with_settings(settings: &[(&str, &str)]) -> World {
        let context = Context::for_test(settings);
        World { client: Client::new(ListenerKind::Bank, &context.config, context.now), context }
    }

    /// A client in the phase that these bytes lead to. What was answered on the way is sent.
    fn after(bytes: &str) -> World {
        let mut world = World::new();
        world.receive(bytes);
        world.sent();
        world
    }

    /// Takes bytes in, as many as fit. Returns the call that they complete.
    fn receive(&mut self, bytes: impl AsRef<[u8]>) -> Option<Call> {
        let mut rest = bytes.as_ref();
        while !rest.is_empty() {
            let space = self.client.recv_space();
            let taken = space.len().min(rest.len());
            if taken == 0 {
                break;
            }
            space[..taken].copy_from_slice(&rest[..taken]);
            self.client.recv_commit(taken);
            rest = &rest[taken..];
            if let Some(call) = self.client.advance(&mut self.context) {
                assert!(rest.is_empty(), "the test has to answer first");
                return Some(call);
            }
        }
        None
    }

    /// Takes out what is pending, as the socket does.
    fn sent(&mut self) -> String {
        let text = String::from_utf8(self.client.send_pending().to_vec()).unwrap();
        self.client.send_advance(text.len());
        text
    }

    /// What is pending, which stays so.
    fn client_answer(&self) -> &str {
        str::from_utf8(self.client.send_pending()).unwrap()
    }

    fn after_send(&mut self) -> AfterSend {
        self.client.after_send(&self.context.config, || self.context.now)
    }

    fn close_peer(&mut self) {
        self.client.peer_closed();
        assert_eq!(self.client.advance(&mut self.context), None);
    }

    fn answer(&mut self, outcome: Outcome<'_>) -> Option<Call> {
        self.client.answer(outcome, &mut self.context);
        self.client.advance(&mut self.context)
    }

    /// Moves time to the client's next deadline.
    fn expire(&mut self) {
        self.context.now = Now::at_us(self.client.deadline_us());
        self.client.expire(&mut self.context);
        assert_eq!(self.client.advance(&mut self.context), None);
    }
}

fn statuses(answers: &str) -> Vec<&str> {
    answers.match_indices("HTTP/1.1 ").map(|(at, start)| &answers[at + start.len()..][..3]).collect()
}

const ACCEPTED: Outcome<'_> = Outcome::Accepted { limit_cents: 100_000, balance_cents: 1 };

#[test]
fn a_request_gives_the_same_call_at_every_split_and_byte_by_byte() {
    for text in [
        transaction(),
        STATEMENT.to_owned(),
        format!(
            "POST /clientes/1/transacoes HTTP/1.1\r\nHost: bank\r\nTransfer-Encoding: chunked\r\n\r\n\
             5;x\r\n{}\r\n{:x}\r\n{}\r\n0\r\nA: b\r\n\r\n",
            &BODY[..5],
            BODY.len() - 5,
            &BODY[5..]
        ),
    ] {
        let whole = World::new().receive(&text);
        assert!(whole.is_some(), "{text}");
        for at in (1..text.len()).step_by(STEP) {
            let mut world = World::new();
            assert_eq!(world.receive(&text[..at]), None, "{at} bytes of {text:?}");
            assert_eq!(world.receive(&text[at..]), whole, "split at {at} of {text:?}");
            assert_eq!(world.sent(), "");
        }
        let mut world = World::new();
        let calls: Vec<Call> = text.as_bytes().chunks(1).filter_map(|byte| world.receive(byte)).collect();
        assert_eq!(calls, [whole.unwrap()]);
    }
}

#[test]
fn pipelined_requests_wait_for_the_answer_before_them() {
    let mut world = World::new();
    let call = world.receive(format!("{HEALTH}{}{STATEMENT}{HEALTH}", transaction()));
    assert!(matches!(call, Some(Call::Transaction { account: 1, .. })));
    assert_eq!(statuses(&world.sent()), ["503"], "the first health, and nothing behind the transaction");
    assert_eq!(world.answer(ACCEPTED), Some(Call::Statement { account: 1 }));
    assert_eq!(statuses(&world.sent()), ["200"]);
    assert_eq!(world.answer(Outcome::Statement(b"{}")), None);
    assert_eq!(statuses(&world.sent()), ["200", "503"]);
    assert!(matches!(world.client.phase, Phase::Idle));
}

#[test]
fn a_full_outbox_holds_the_next_request_back_until_it_was_sent() {
    let mut world = World::with_settings(&[("OUTBOX_LEN_MAX_BYTES", "1024"), ("INBOX_LEN_BYTES", "65536")]);
    world.receive(HEALTH.repeat(100));
    let mut answered = 0;
    while world.client.send_pending().len() >= 1_024 {
        assert!(!world.client.can_go_on());
        answered += statuses(&world.sent()).len();
        assert!(answered < 100 && world.client.can_go_on());
        world.client.advance(&mut world.context);
    }
    assert_eq!(answered + statuses(&world.sent()).len(), 100);
    assert!(!world.client.can_go_on());
}

#[test]
fn while_a_call_is_out_no_more_than_the_first_inbox_is_taken_in() {
    let mut world = World::with_settings(&[("INBOX_LEN_BYTES", "256")]);
    assert!(world.receive(STATEMENT).is_some());
    world.receive(HEALTH.repeat(100));
    assert!(world.client.recv_space().is_empty());
    assert!(world.client.is_awaiting());
}

#[test]
fn an_early_reject_skips_the_body_and_keeps_the_connection_in_step() {
    for (framing, body) in [
        ("Content-Length: 9".to_owned(), "not a req".to_owned()),
        ("Transfer-Encoding: chunked".to_owned(), "3\r\nabc\r\n0\r\n\r\n".to_owned()),
    ] {
        let mut world = World::new();
        world.receive(format!("POST /nowhere HTTP/1.1\r\nHost: bank\r\n{framing}\r\n\r\n"));
        assert_eq!(statuses(&world.sent()), ["404"], "before the body is here");
        for byte in body.as_bytes() {
            world.receive([*byte]);
        }
        assert!(matches!(world.client.phase, Phase::Idle));
        assert_eq!(world.receive(STATEMENT), Some(Call::Statement { account: 1 }));
    }
}

#[test]
fn a_broken_body_behind_an_early_reject_gets_no_second_answer() {
    let mut world = World::new();
    world.receive("POST /nowhere HTTP/1.1\r\nHost: bank\r\nTransfer-Encoding: chunked\r\n\r\nnonsense");
    assert_eq!(statuses(&world.sent()), ["404"]);
    assert_eq!(world.after_send(), AfterSend::ShutDownWrite);
}

#[test]
fn a_client_that_expects_continue_gets_it_only_for_a_body_that_is_wanted() {
    let head = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: bank\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
            BODY.len()
        )
    };
    let mut world = World::new();
    assert_eq!(world.receive(head("/clientes/1/transacoes")), None);
    assert_eq!(world.sent(), "HTTP/1.1 100 Continue\r\n\r\n");
    assert!(world.receive(BODY).is_some());

    let mut world = World::new();
    assert!(world.receive(head("/clientes/1/transacoes") + BODY).is_some());
    assert_eq!(world.sent(), "", "the body is here already");

    let mut world = World::new();
    world.receive("GET /healthz HTTP/1.1\r\nHost: bank\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(statuses(&world.sent()), ["503"], "nothing that could be waited for, and no database");

    let mut world = World::new();
    world.receive(head("/nowhere"));
    let answer = world.sent();
    assert_eq!(statuses(&answer), ["404"]);
    assert!(answer.contains("Connection: close\r\n"));
    assert_eq!(world.after_send(), AfterSend::ShutDownWrite);
}

#[test]
fn after_a_violation_nothing_more_is_answered() {
    let mut world = World::new();
    world.receive(format!("GET / HTTP/1.1\r\n\r\n{HEALTH}"));
    let answer = world.sent();
    assert_eq!(statuses(&answer), ["400"]);
    assert!(answer.contains("Connection: close\r\n"));
    assert_eq!(world.after_send(), AfterSend::ShutDownWrite);
    world.receive(HEALTH);
    assert_eq!(world.sent(), "");
    world.close_peer();
    assert_eq!(world.after_send(), AfterSend::Close);
}

/// RFC 9110, section 9.3.2: whatever the status is, as far as the method could be read.
#[test]
fn no_refusal_of_a_head_has_content() {
    let long = "x".repeat(9_000);
    let with = |fields: &str| format!("M /healthz HTTP/1.1\r\nHost: bank\r\n{fields}\r\n");
    for (request, status) in [
        ("M /nowhere HTTP/1.1\r\nHost: bank\r\n\r\n".to_owned(), "404"),
        ("M /clientes/1/transacoes HTTP/1.1\r\nHost: bank\r\n\r\n".to_owned(), "405"),
        ("M  /healthz HTTP/1.1\r\nHost: bank\r\n\r\n".to_owned(), "400"),
        ("M /healthz HTTP/1.1\r\n\r\n".to_owned(), "400"),
        (with("Content-Length: x\r\n"), "400"),
        (with("Transfer-Encoding: chunked\r\n") + "x", "400"),
        (with("Content-Length: 999999\r\n"), "413"),
        (with("Transfer-Encoding: chunked\r\n") + "ffffff\r\n", "413"),
        (format!("M /{long}"), "414"),
        (with(&format!("A: {long}\r\n")), "431"),
        (with(&"A: b\r\n".repeat(100)), "431"),
        (with("Transfer-Encoding: gzip\r\n"), "501"),
        ("M /healthz HTTP/2.0\r\n\r\n".to_owned(), "505"),
        ("M /healthz HTTP/1.1\r\nHost: ba".to_owned(), "408"),
        (with("Content-Length: 5\r\n") + "half", "408"),
    ] {
        for method in ["HEAD", "GET"] {
            let request = request.replacen('M', method, 1);
            let mut world = World::new();
            world.receive(&request);
            let mut half_closed = World::new();
            half_closed.receive(&request);
            half_closed.close_peer();
            if status == "408" {
                world.expire();
                assert_eq!(statuses(half_closed.client_answer()), ["400"], "{request:.60?}");
            }
            assert_eq!(statuses(world.client_answer()), [status], "{request:.60?}");
            for answer in [world.client_answer(), half_closed.client_answer()] {
                let is_without_content = answer.ends_with("\r\n\r\n");
                assert_eq!(is_without_content, method == "HEAD", "{request:.60?}: {answer}");
                assert!(!answer.contains("Content-Length: 0\r\n"), "the length is that of a GET");
            }
        }
    }
}

#[test]
fn a_request_that_asks_to_close_is_the_last() {
    let mut world = World::new();
    let call = world.receive("GET /clientes/1/extrato HTTP/1.1\r\nHost: bank\r\nConnection: close\r\n\r\n");
    assert!(call.is_some());
    assert_eq!(world.answer(Outcome::Statement(b"{}")), None);
    assert!(world.sent().contains("Connection: close\r\n"));
    assert_eq!(world.after_send(), AfterSend::Close);
}

#[test]
fn the_socket_closes_only_after_the_last_answer_was_sent() {
    let mut world = World::new();
    world.receive("GET /healthz HTTP/1.0\r\n\r\n");
    assert_eq!(world.after_send(), AfterSend::Stay);
    world.sent();
    assert_eq!(world.after_send(), AfterSend::Close);
}

#[test]
fn a_half_closed_client_still_gets_its_answers() {
    let mut world = World::new();
    assert!(world.receive(STATEMENT).is_some());
    world.close_peer();
    assert_eq!(world.after_send(), AfterSend::Stay);
    assert_eq!(world.answer(Outcome::Statement(b"{}")), None);
    assert_eq!(statuses(&world.sent()), ["200"]);
    assert_eq!(world.after_send(), AfterSend::Close);
}

#[test]
fn the_end_of_the_stream_in_each_phase() {
    let chunked =
        "POST /clientes/1/transacoes HTTP/1.1\r\nHost: bank\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n";
    let skipping = "POST /nowhere HTTP/1.1\r\nHost: bank\r\nContent-Length: 9\r\n\r\nhalf";
    for (bytes, answer) in [
        ("", vec![]),
        ("GET /hea", vec!["400"]),
        (&transaction()[..transaction().len() - 1], vec!["400"]),
        (chunked, vec!["400"]),
        (skipping, vec![]),
        ("nonsense\r\n\r\n", vec![]),
    ] {
        let mut world = World::after(bytes);
        world.close_peer();
        assert_eq!(statuses(&world.sent()), answer, "{bytes:?}");
        assert_eq!(world.after_send(), AfterSend::Close, "{bytes:?}");
    }
}

/// Old clients put an empty line behind the content of a POST. It is owed no answer (RFC 9112, section 2.2).
#[test]
fn empty_lines_before_a_request_line_start_nothing() {
    for before in ["", HEALTH] {
        for empty in ["\r", "\r\n", "\r\n\r", "\r\n\r\n"] {
            let world = || {
                let mut world = World::after(before);
                let deadline_us = world.client.deadline_us();
                world.context.now.monotonic_us = 9_000_000;
                for byte in empty.bytes() {
                    world.receive([byte]);
                    assert!(matches!(world.client.phase, Phase::Idle), "{before:?} {empty:?}");
                }
                assert_eq!(world.client.deadline_us(), deadline_us, "{before:?} {empty:?}");
                world
            };
            let mut silent = world();
            silent.expire();
            assert_eq!((silent.sent().as_str(), silent.after_send()), ("", AfterSend::Close));

            let mut half_closed = world();
            half_closed.close_peer();
            assert_eq!((half_closed.sent().as_str(), half_closed.after_send()), ("", AfterSend::Close));

            let mut draining = world();
            draining.context.is_draining = true;
            draining.client.drain(9_500_000);
            assert_eq!(draining.client.deadline_us(), 9_500_000);

            let mut served = world();
            let end_of_line = if empty.ends_with('\r') { "\n" } else { "" };
            served.receive(format!("{end_of_line}\r\n{HEALTH}"));
            assert_eq!(statuses(&served.sent()), ["503"], "{before:?} {empty:?}");
            assert!(matches!(served.client.phase, Phase::Idle));
        }
    }
}

#[test]
fn empty_lines_count_against_no_limit_and_keep_no_room() {
    let mut world = World::with_settings(&[("INBOX_LEN_BYTES", "256")]);
    world.receive("\r\n".repeat(100_000));
    assert_eq!(world.client.recv_space().len(), 256);
    world.receive(HEALTH);
    assert_eq!(statuses(&world.sent()), ["503"]);
}

#[test]
fn a_bare_line_feed_or_carriage_return_before_a_request_line_is_refused_at_once() {
    for text in ["\n", "\r\n\n", "\rG", "\r\r"] {
        for pieces in [vec![text], text.split_inclusive('\r').collect()] {
            let mut world = World::new();
            for piece in pieces {
                world.receive(piece);
            }
            assert_eq!(statuses(&world.sent()), ["400"], "{text:?}");
        }
    }
}

#[test]
fn the_deadline_of_each_phase() {
    let body = "POST /clientes/1/transacoes HTTP/1.1\r\nHost: bank\r\nContent-Length: 9\r\n\r\n";
    let skipping = "POST /nowhere HTTP/1.1\r\nHost: bank\r\nContent-Length: 9\r\n\r\n";
    for (bytes, wait_ms, answer, after) in [
        ("", 75_000, vec![], AfterSend::Close),
        (HEALTH, 75_000, vec![], AfterSend::Close),
        ("GET /hea", 10_000, vec!["408"], AfterSend::ShutDownWrite),
        (body, 10_000, vec!["408"], AfterSend::ShutDownWrite),
        (skipping, 10_000, vec![], AfterSend::Close),
    ] {
        let mut world = World::after(bytes);
        assert_eq!(world.client.deadline_us(), wait_ms * 1_000, "{bytes:?}");
        world.expire();
        assert_eq!(statuses(&world.sent()), answer, "{bytes:?}");
        assert_eq!(world.after_send(), after, "{bytes:?}");
    }
}

#[test]
fn bytes_that_drip_do_not_move_the_deadline_of_a_head() {
    let mut world = World::after("G");
    world.context.now = Now::at_us(9_000_000);
    world.receive("ET /");
    assert_eq!(world.client.deadline_us(), 10_000_000);
}

#[test]
fn lingering_drops_input_until_the_peer_closes_or_time_is_up() {
    let lingering = || {
        let mut world = World::after("nonsense\r\n\r\n");
        assert_eq!(world.after_send(), AfterSend::ShutDownWrite);
        world
    };
    let mut world = lingering();
    world.receive(vec![b'x'; 1_000_000]);
    assert_eq!((world.sent().as_str(), world.after_send()), ("", AfterSend::Stay));
    world.close_peer();
    assert_eq!(world.after_send(), AfterSend::Close);

    let mut world = lingering();
    assert_eq!(world.client.deadline_us(), 1_000_000);
    world.expire();
    assert_eq!(world.after_send(), AfterSend::Close);
}

/// The shell reads as long as there is room: a flood gets the same share of a turn as everybody else.
#[test]
fn lingering_takes_no_more_in_a_turn_than_an_inbox_of_it() {
    let mut world = World::after("nonsense\r\n\r\n");
    assert_eq!(world.after_send(), AfterSend::ShutDownWrite);
    let room_bytes = world.client.recv_space().len();
    assert!(room_bytes > 0);
    world.client.recv_commit(room_bytes);
    assert!(world.client.recv_space().is_empty());
    assert!(world.client.advance(&mut world.context).is_none());
    assert_eq!(world.client.recv_space().len(), room_bytes);
}

/// Beyond the limit nothing is read, so that a flood costs nothing; the peer can read its answer until the time is up.
#[test]
fn lingering_drops_a_limited_number_of_bytes() {
    for limit_bytes in [0, 1, 2_048, 5_000] {
        let mut world = World::with_settings(&[("LINGER_LEN_MAX_BYTES", &limit_bytes.to_string())]);
        world.receive("nonsense\r\n\r\n");
        world.sent();
        assert_eq!(world.after_send(), AfterSend::ShutDownWrite);
        let mut dropped_bytes = 0;
        for _ in 0..10 {
            let room_bytes = world.client.recv_space().len();
            dropped_bytes += room_bytes;
            world.client.recv_commit(room_bytes);
            assert!(world.client.advance(&mut world.context).is_none());
        }
        assert_eq!(dropped_bytes, limit_bytes);
        assert_eq!(world.after_send(), AfterSend::Stay);
        world.expire();
        assert_eq!(world.after_send(), AfterSend::Close);
    }
}

#[test]
fn an_awaited_answer_has_no_deadline_here() {
    let mut world = World::new();
    assert!(world.receive(STATEMENT).is_some());
    assert_eq!(world.client.deadline_us(), u64::MAX);
}

#[test]
fn a_peer_that_reads_on_is_given_time_for_each_answer() {
    let mut world = World::new();
    let send_deadline = |world: &World| world.client.deadline_us() - world.context.now.monotonic_us;
    world.receive("GET /nowhere HTTP/1.1\r\nHost: bank\r\n\r\n");
    assert_eq!(world.after_send(), AfterSend::Stay);
    assert_eq!(send_deadline(&world), 10_000_000);
    let first_bytes = world.client_answer().len();
    for sent_bytes in [1, first_bytes - 2] {
        world.context.now.monotonic_us += 4_000_000;
        world.client.send_advance(sent_bytes);
        // It asks on meanwhile.
        world.receive("GET /nowhere HTTP/1.1\r\nHost: bank\r\n\r\n");
        world.after_send();
    }
    assert_eq!(send_deadline(&world), 2_000_000, "one byte of the first answer is left");
    world.client.send_advance(1);
    world.after_send();
    assert_eq!(send_deadline(&world), 10_000_000, "for the two others");
    world.sent();
    world.after_send();
    assert!(send_deadline(&world) > 10_000_000, "nothing is pending");
}

#[test]
fn a_peer_that_does_not_read_is_given_up() {
    let mut world = World::new();
    world.receive(HEALTH);
    assert_eq!(world.after_send(), AfterSend::Stay);
    assert_eq!(world.client.deadline_us(), 10_000_000);
    world.context.now = Now::at_us(5_000_000);
    world.client.send_advance(1);
    assert_eq!(world.after_send(), AfterSend::Stay);
    assert_eq!(world.client.deadline_us(), 10_000_000, "a byte now and then buys no time");
    world.expire();
    assert_eq!(world.after_send(), AfterSend::Close);
    assert_eq!(world.context.metrics.closed_send_timeout, 1);
}

#[test]
fn no_other_deadline_cuts_an_answer_short_that_the_peer_still_reads() {
    let half_refused = "POST /nowhere HTTP/1.1\r\nHost: bank\r\nContent-Length: 9\r\n\r\n1234";
    for (request, closes_half) in [(HEALTH, false), (HEALTH, true), (half_refused, false)] {
        let mut world = World::with_settings(&[("IDLE_TIMEOUT_MS", "50"), ("BODY_TIMEOUT_MS", "50")]);
        world.receive(request);
        assert_eq!(world.after_send(), AfterSend::Stay);
        world.client.send_advance(1);
        if closes_half {
            world.close_peer();
        }
        world.expire();
        assert_eq!(world.after_send(), AfterSend::Stay, "{request}");
        world.sent();
        world.expire();
        assert_eq!(world.after_send(), AfterSend::Close, "{request}");
    }
}

#[test]
fn a_lost_transport_closes_every_phase() {
    for bytes in
        ["", "GET", STATEMENT, "nonsense\r\n\r\n", "GET / HTTP/1.1\r\nHost: b\r\nContent-Length: 1\r\n\r\n"]
    {
        let mut world = World::new();
        world.receive(bytes);
        world.client.lost(ErrorKind::ConnectionReset);
        assert!(!world.client.is_awaiting());
        assert_eq!(world.after_send(), AfterSend::Close, "{bytes:?}");
    }
}

#[test]
fn draining_serves_what_comes_in_time_and_closes() {
    let mut world = World::new();
    world.context.is_draining = true;
    world.client.drain(500_000);
    assert_eq!(world.client.deadline_us(), 500_000);
    assert!(world.receive(STATEMENT).is_some());
    assert_eq!(world.answer(Outcome::Statement(b"{}")), None);
    assert!(world.sent().contains("Connection: close\r\n"));
    assert_eq!(world.after_send(), AfterSend::ShutDownWrite, "its next request may be on its way");
    world.close_peer();
    assert_eq!(world.after_send(), AfterSend::Close);

    let mut world = World::new();
    assert!(world.receive(STATEMENT).is_some());
    world.context.is_draining = true;
    world.client.drain(500_000);
    assert_eq!(world.client.deadline_us(), u64::MAX, "a call that is out is waited for");
    assert_eq!(world.answer(Outcome::Rejected(Reject::Unavailable(Unavailable::InDoubt))), None);
    assert!(world.sent().contains("Connection: close\r\n"));
}

#[test]
fn draining_ends_the_wait_behind_an_early_answer_too() {
    let mut world = World::after("POST /nowhere HTTP/1.1\r\nHost: bank\r\nContent-Length: 9\r\n\r\nhalf");
    world.context.is_draining = true;
    world.client.drain(500_000);
    world.receive("whole");
    assert_eq!(world.client.deadline_us(), 500_000);
}

#[test]
fn a_long_request_grows_the_inbox_for_itself_alone() {
    let mut world = World::with_settings(&[("INBOX_LEN_BYTES", "256")]);
    let field = format!("A: {}\r\n", "x".repeat(7_000));
    assert!(world.receive(STATEMENT.replace("\r\n\r\n", &format!("\r\n{field}\r\n"))).is_some());
    assert_eq!(world.answer(Outcome::Rejected(Reject::PastLimit)), None);
    assert_eq!(world.client.recv_space().len(), 256);
}

#[test]
#[cfg_attr(miri, ignore = "a chunk for each of 16,384 bytes takes minutes there")]
fn bodies_at_the_limit_fit_in_either_framing() {
    let padded = format!("{BODY}{}", " ".repeat(16_384 - BODY.len()));
    let chunks: String = padded.chars().flat_map(|byte| ['1', '\r', '\n', byte, '\r', '\n']).collect();
    for (framing, body) in [
        ("Content-Length: 16384".to_owned(), padded),
        ("Transfer-Encoding: chunked".to_owned(), format!("{chunks}0\r\n\r\n")),
    ] {
        let mut world = World::new();
        let head = format!("POST /clientes/1/transacoes HTTP/1.1\r\nHost: bank\r\n{framing}\r\n\r\n");
        assert!(world.receive(head + &body).is_some(), "{framing}");
    }
}

#[test]
fn the_content_of_a_get_is_passed_over() {
    let mut world = World::new();
    let call = world.receive(STATEMENT.replace("\r\n\r\n", "\r\nContent-Length: 3\r\n\r\n") + "abc");
    assert_eq!(call, Some(Call::Statement { account: 1 }));
    assert_eq!(world.answer(Outcome::Rejected(Reject::PastLimit)), None);
    assert!(matches!(world.client.phase, Phase::Idle));
}

#[test]
#[should_panic(expected = "awaits none")]
fn an_answer_nobody_awaits_is_our_own_bug() {
    World::new().answer(Outcome::Rejected(Reject::PastLimit));
}
