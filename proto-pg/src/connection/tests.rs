//! A connection against bytes of a made-up server, at every split.

use super::*;
use crate::oid;
use crate::script::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

const NOTHING: [&str; 0] = [];

#[test]
fn any_cut_of_the_transcript_gives_the_same_events() {
    let start = [
        authentication_ok(),
        message(b'S', b"server_version\x0016.4\0"),
        message(b'K', &[0, 0, 0, 9, 0, 0, 0, 8]),
        ready_for_query(),
        parse_complete(),
        message(b'N', b"VNOTICE\0C00000\0Mhello\0\0"),
        parse_complete(),
        ready_for_query(),
    ]
    .concat();
    // Calls 1 and 2 are committed; of 3, 4 and 5 the second fails.
    let answers = [
        [answer(), answer(), ready_for_query()].concat(),
        [answer(), bind_complete(), error("ERROR", "40P01"), ready_for_query()].concat(),
    ]
    .concat();
    let cut_at = |bytes: &[u8], at: usize| [bytes[..at].to_vec(), bytes[at..].to_vec()];
    let single_bytes = |bytes: &[u8]| bytes.chunks(1).map(<[u8]>::to_vec).collect::<Vec<_>>();

    let (start_whole, answers_whole) = (slice::from_ref(&start), slice::from_ref(&answers));
    play(start_whole, answers_whole);
    play(&single_bytes(&start), &single_bytes(&answers));
    (0..=start.len()).step_by(STEP).for_each(|at| play(&cut_at(&start, at), answers_whole));
    (0..=answers.len()).step_by(STEP).for_each(|at| play(start_whole, &cut_at(&answers, at)));
}

fn play(start: &[Vec<u8>], answers: &[Vec<u8>]) {
    let mut connection = authenticating();
    let log: Vec<String> = start.iter().flat_map(|piece| receive(&mut connection, piece)).collect();
    assert_eq!(log, ["Parameter server_version 16.4", "Notice 00000", "Ready"]);
    assert_eq!(connection.server_version(), "16.4");
    assert_eq!(connection.backend_key(), Some(&BackendKey::new(9, &[0, 0, 0, 8])));

    (1..=2).for_each(|ticket| call(&mut connection, ticket));
    connection.sync();
    (3..=5).for_each(|ticket| call(&mut connection, ticket));
    assert!(connection.has_open_batch());
    connection.sync();
    assert_eq!((connection.in_flight_calls(), connection.batches_in_flight()), (5, 2));
    send(&mut connection);
    let log: Vec<String> = answers.iter().flat_map(|piece| receive(&mut connection, piece)).collect();
    let expected = [
        "Row 1 Ok(7)",
        "Done 1 SELECT 1",
        "Row 2 Ok(7)",
        "Done 2 SELECT 1",
        "Committed",
        "Row 3 Ok(7)",
        "Done 3 SELECT 1",
        "Failed 4 40P01",
        "RolledBack 3",
        "RolledBack 5",
        "Aborted",
    ];
    assert_eq!(log, expected);
    assert_eq!((connection.in_flight_calls(), connection.batches_in_flight()), (0, 0));
}

#[test]
fn start_up_says_who_we_are_then_prepares() {
    let mut connection = authenticating();
    let startup =
        b"\0\0\0\0\0\x03\0\0application_name\0test\0user\0alice\0database\0bank\0client_encoding\0UTF8\0\0";
    assert_eq!(connection.send_pending()[4..], startup[4..]);
    assert_eq!(connection.send_pending()[..4], u32::try_from(startup.len()).unwrap().to_be_bytes());
    send(&mut connection);
    assert_eq!(receive(&mut connection, &authentication_ok()), NOTHING);
    assert_eq!(connection.send_pending(), b"");
    receive(&mut connection, &ready_for_query());
    let prepare = [
        message(b'P', b"one\0SELECT $1\0\0\x01\0\0\0\x17"),
        message(b'P', b"none\0SELECT 1\0\0\0"),
        message(b'S', b""),
    ];
    assert_eq!(connection.send_pending(), prepare.concat());
}

#[test]
fn a_call_is_bind_and_execute_with_all_binary_formats() {
    let mut connection = idle();
    call(&mut connection, 1);
    connection.sync();
    let expected = [
        message(b'B', b"\0one\0\0\x01\0\x01\0\x01\0\0\0\x04\0\0\0\x05\0\x01\0\x01"),
        message(b'E', b"\0\0\0\0\0"),
        message(b'S', b""),
    ];
    assert_eq!(connection.send_pending(), expected.concat());
}

/// For each phase: which of all messages it accepts, and with which events. Everything else must close the connection,
/// naming tag and phase, or with the server's own error.
#[test]
fn every_message_in_every_phase() {
    type Phases = [(&'static str, fn() -> Connection<u32>, &'static [(u8, &'static str)]); 8];
    let phases: Phases = [
        ("authenticating", authenticating, &[(b'R', ""), (b'v', "")]),
        ("starting up", starting, &[(b'K', ""), (b'Z', "")]),
        ("preparing statements", preparing, &[(b'1', "")]),
        ("idle", idle, &[]),
        ("waiting for the next call of a batch or its end", asked, &[(b'2', ""), (b'E', "Failed 1 42601")]),
        (
            "waiting for rows or the end of a call",
            bound,
            &[
                (b'D', "Row 1 Ok(1)"),
                (b'C', "Done 1 SELECT 1"),
                (b'I', "Done 1"),
                (b'E', "Failed 1 42601"),
                (b'H', "CopyOut 1 1"),
                (b'G', ""),
            ],
        ),
        ("waiting for the end of a failed batch", failed, &[(b'Z', "RolledBack 2, Aborted")]),
        ("closing", closed, &[]),
    ];
    for (name, enter, accepted) in phases {
        for bytes in every_message().into_iter().step_by(STEP.min(5)) {
            let tag = bytes[0];
            let mut connection = enter();
            let log = receive(&mut connection, &bytes).join(", ");
            let case = format!("{} while {name}: {log}", bytes.escape_ascii());
            let any_time = match tag {
                b'N' => Some("Notice 00000"),
                b'A' => Some("Notification 1 channel payload"),
                b'S' => Some("Parameter name value"),
                _ => None,
            };
            let accepted = accepted.iter().find(|(accepted, _)| *accepted == tag).map(|(_, log)| *log);
            let closed = log.rsplit("Closed: ").next().unwrap();
            let is_start = ["authenticating", "starting up", "preparing statements"].contains(&name);
            if name == "closing" {
                assert_eq!(log, "", "{case}");
            } else if bytes == error("FATAL", "57P01") {
                assert_eq!(closed, "server error: FATAL 57P01: text", "{case}");
            } else if bytes == message(b'Z', b"T") && is_start {
                assert_eq!(closed, "protocol error: transaction status 'T' after a Sync, not 'I'", "{case}");
            } else if bytes.ends_with(b"_pq_.x\0") && name == "authenticating" {
                assert_eq!(closed, "protocol error: the server refused 1 protocol options", "{case}");
            } else if let Some(expected) = accepted.or(any_time) {
                assert_eq!(log, expected, "{case}");
            } else if tag == b'E' {
                let of = if name == "preparing statements" { "statement \"one\"" } else { "server error" };
                assert_eq!(closed, format!("{of}: ERROR 42601: text"), "{case}");
            } else {
                let expected = format!("protocol error: unexpected message '{}' (", tag.escape_ascii());
                assert!(closed.starts_with(&expected), "{case}");
                assert!(closed.ends_with(&format!(" while {name}")), "{case}");
            }
        }
    }
}

fn closed() -> Connection<u32> {
    let mut connection = idle();
    connection.close(CloseReason::TimedOut);
    assert_eq!(drain(&mut connection), ["Closed: no answer in time"]);
    connection
}

#[test]
fn preparing_needs_every_statement_before_ready() {
    let mut connection = preparing();
    let log = receive(&mut connection, &[parse_complete(), ready_for_query()].concat());
    assert!(log[0].starts_with("Closed: protocol error: unexpected message 'Z'"), "{log:?}");
    let log = receive(&mut preparing(), &[parse_complete(), parse_complete(), parse_complete()].concat());
    assert!(log[0].starts_with("Closed: protocol error: unexpected message '1'"), "{log:?}");
}

#[test]
fn a_statement_that_is_refused_is_named() {
    for (parsed, expected) in [
        (0, "Closed: statement \"one\": ERROR 42601: text"),
        (1, "Closed: statement \"none\": ERROR 42601: text"),
        (2, "Closed: server error: ERROR 42601: text"),
    ] {
        let bytes = [parse_complete().repeat(parsed), error("ERROR", "42601"), ready_for_query()].concat();
        assert_eq!(receive(&mut preparing(), &bytes), [expected]);
    }
}

/// A connection that waits for the description of a statement.
fn describing(statement: Statement<'_>) -> Connection<u32> {
    let mut connection = Connection::new(&session(), &[statement], LIMITS);
    send(&mut connection);
    assert_eq!(receive(&mut connection, &[authentication_ok(), ready_for_query()].concat()), NOTHING);
    connection
}

#[test]
fn a_statement_is_described_if_its_result_is_to_be_checked() {
    let statement = Statement::new("s", "SELECT $1, 'x'", &[oid::INT4]).returning(&[oid::INT4, 0]);
    let parse = message(b'P', b"s\0SELECT $1, 'x'\0\0\x01\0\0\0\x17");
    let connection = describing(statement);
    assert_eq!(connection.send_pending(), [parse, message(b'D', b"Ss\0"), message(b'S', b"")].concat());
    let parameters = parameter_description(&[oid::INT4]);
    let good =
        [parse_complete(), parameters.clone(), row_description(&[oid::INT4, oid::TEXT]), ready_for_query()];
    let bytes = good.concat();
    for at in (0..=bytes.len()).step_by(STEP) {
        let mut connection = describing(statement);
        let log = [receive(&mut connection, &bytes[..at]), receive(&mut connection, &bytes[at..])].concat();
        assert_eq!(log, ["Ready"], "cut at {at}");
    }
    let no_data = message(b'n', b"");
    for (parameters, columns, problem) in [
        (parameter_description(&[]), no_data.clone(), "it has 0 parameters, expected 1"),
        (parameter_description(&[oid::INT8]), no_data.clone(), "parameter $1 is bigint, expected integer"),
        (parameters.clone(), no_data.clone(), "its result has 0 columns, expected 2"),
        (parameters.clone(), row_description(&[oid::INT4]), "its result has 1 columns, expected 2"),
        (
            parameters.clone(),
            row_description(&[oid::NUMERIC, oid::TEXT]),
            "column 0 of its result is numeric, expected integer",
        ),
        (
            parameters.clone(),
            row_description(&[99_999, oid::TEXT]),
            "column 0 of its result is type 99999, expected integer",
        ),
        (parameters.clone(), error("ERROR", "42883"), "ERROR 42883: text"),
    ] {
        let bytes = [parse_complete(), parameters, columns, ready_for_query()].concat();
        let log = receive(&mut describing(statement), &bytes);
        assert_eq!(log, [format!("Closed: statement \"s\": {problem}")]);
    }
    // Each message in its turn and no other.
    for at in 0..good.len() {
        let log = receive(&mut describing(statement), &good[at..].concat());
        assert_eq!(log[0].contains("unexpected message"), at > 0, "without the first {at}: {log:?}");
        let log = receive(&mut describing(statement), &[&good[..=at], &good[at..]].concat().concat());
        assert!(log[log.len() - 1].contains("unexpected message"), "twice {at}: {log:?}");
    }
    let statement = Statement::new("s", "LISTEN till", &[]).returning(&[]);
    let bytes = [parse_complete(), parameter_description(&[]), no_data, ready_for_query()].concat();
    assert_eq!(receive(&mut describing(statement), &bytes), ["Ready"]);
}

#[test]
fn an_error_at_each_position_of_a_batch() {
    for culprit in 1..=4 {
        for is_bound in [false, true] {
            let mut connection = idle();
            (1..=4).for_each(|ticket| call(&mut connection, ticket));
            connection.sync();
            call(&mut connection, 5);
            connection.sync();
            send(&mut connection);
            let mut bytes = answer().repeat(culprit - 1);
            bytes.extend(if is_bound { bind_complete() } else { vec![] });
            bytes.extend([error("ERROR", "23505"), ready_for_query(), answer(), ready_for_query()].concat());
            let mut expected: Vec<String> = vec![];
            (1..culprit)
                .for_each(|t| expected.extend([format!("Row {t} Ok(7)"), format!("Done {t} SELECT 1")]));
            expected.push(format!("Failed {culprit} 23505"));
            (1..=4).filter(|&t| t != culprit).for_each(|t| expected.push(format!("RolledBack {t}")));
            expected.extend(["Aborted", "Row 5 Ok(7)", "Done 5 SELECT 1", "Committed"].map(str::to_owned));
            assert_eq!(receive(&mut connection, &bytes), expected);
            assert_eq!(connection.in_flight_calls(), 0);
        }
    }
}

/// What the server says to two batches, 1 to 3 and 4 to 5, message by message.
fn two_answers() -> Vec<Vec<u8>> {
    let batch = |calls: usize| {
        let calls = (0..calls).flat_map(|_| [bind_complete(), data_row(7), command_complete()]);
        calls.chain([ready_for_query()]).collect::<Vec<_>>()
    };
    [batch(3), batch(2)].concat()
}

/// The connection that these are the answers to.
fn two_batches() -> Connection<u32> {
    let mut connection = idle();
    (1..=3).for_each(|ticket| call(&mut connection, ticket));
    connection.sync();
    (4..=5).for_each(|ticket| call(&mut connection, ticket));
    connection.sync();
    send(&mut connection);
    connection
}

#[test]
fn a_remark_at_each_position_of_a_batch_changes_nothing_else() {
    let messages = two_answers();
    let plain = receive(&mut two_batches(), &messages.concat());
    let remarks = [
        (message(b'N', b"VWARNING\0C01000\0Mtext\0\0"), "Notice 01000"),
        (message(b'S', b"name\0value\0"), "Parameter name value"),
        (message(b'A', b"\0\0\0\x01channel\0payload\0"), "Notification 1 channel payload"),
    ];
    for (remark, text) in remarks {
        for at in 0..=messages.len() {
            let (before, behind) = messages.split_at(at);
            let mut connection = two_batches();
            let mut log = receive(&mut connection, &before.concat());
            assert_eq!(receive(&mut connection, &remark), [text], "{text} behind {at} messages");
            log.extend(receive(&mut connection, &behind.concat()));
            assert_eq!(log, plain, "{text} behind {at} messages");
        }
    }
}

#[test]
fn a_fatal_error_at_each_position_of_a_batch_leaves_in_doubt_what_was_not_committed() {
    let messages = two_answers();
    for severity in ["FATAL", "PANIC"] {
        for at in 0..=messages.len() {
            let mut connection = two_batches();
            receive(&mut connection, &messages[..at].concat());
            let ended = messages[..at].iter().filter(|message| message[0] == b'Z').count();
            let first_in_doubt = [1, 4, 6][ended];
            let mut expected: Vec<String> =
                (first_in_doubt..=5).map(|ticket| format!("InDoubt {ticket}")).collect();
            expected.push(format!("Closed: server error: {severity} 57P01: text"));
            assert_eq!(receive(&mut connection, &error(severity, "57P01")), expected, "behind {at} messages");
        }
    }
}

/// Also behind a row, and behind the last call, where it is the commit that fails.
#[test]
fn an_error_at_each_position_of_a_batch_rolls_back_that_batch_alone() {
    let messages = two_answers();
    for at in 0..messages.len() {
        let mut connection = two_batches();
        receive(&mut connection, &messages[..at].concat());
        let first_of_batch = if at < 10 { 0 } else { 10 };
        let tickets = if at < 10 { 1..=3 } else { 4..=5 };
        let culprit = tickets.start() + u32::try_from((at - first_of_batch) / 3).unwrap();
        let is_commit = !tickets.contains(&culprit);
        let mut log = receive(&mut connection, &error("ERROR", "23505"));
        assert_eq!(log.is_empty(), is_commit, "behind {at} messages: {log:?}");
        log.extend(receive(&mut connection, &ready_for_query()));
        let mut expected: Vec<String> = vec![];
        expected.extend((!is_commit).then(|| format!("Failed {culprit} 23505")));
        expected.extend(tickets.filter(|&t| t != culprit).map(|t| format!("RolledBack {t}")));
        expected.push(if is_commit { "Aborted 23505".into() } else { "Aborted".into() });
        assert_eq!(log, expected, "behind {at} messages");
        if first_of_batch == 0 {
            let log = receive(&mut connection, &messages[10..].concat());
            assert_eq!(log.last().unwrap(), "Committed", "the second batch, {at} messages: {log:?}");
        }
        assert_eq!((connection.in_flight_calls(), connection.batches_in_flight()), (0, 0));
    }
}

/// What a server says that raises a text of this length: the fields in an order of its own, the text first.
fn long_text(tag: u8, severity: &str, code: &str, text_len_bytes: usize) -> Vec<u8> {
    let text = "x".repeat(text_len_bytes);
    message(tag, format!("M{text}\0D{text}\0S{severity}\0V{severity}\0C{code}\0\0").as_bytes())
}

/// An error or a notice may be longer than the inbox: what comes of it is what comes of a short one.
#[test]
fn a_long_text_at_each_position_of_a_batch_is_told_as_a_short_one() {
    let messages = two_answers();
    let outcome = |at: usize, text: &[u8], piece_len_bytes: usize| {
        let mut connection = two_batches();
        let mut log = receive(&mut connection, &messages[..at].concat());
        text.chunks(piece_len_bytes).for_each(|piece| log.extend(receive(&mut connection, piece)));
        // Behind an error the server skips the rest of the batch, but for its end.
        let next = match (text[0], at) {
            (b'N', at) => at,
            (_, ..10) => 9,
            (_, _) => messages.len() - 1,
        };
        log.extend(receive(&mut connection, &messages[next..].concat()));
        assert_eq!(connection.in_flight_calls(), 0, "{log:?}");
        log
    };
    for (tag, severity, code) in [(b'N', "WARNING", "01000"), (b'E', "ERROR", "23505")] {
        let short = long_text(tag, severity, code, 1);
        let long = long_text(tag, severity, code, 1500);
        assert!(long.len() > 10 * LIMITS.message_len_max_bytes);
        for at in 0..messages.len() {
            let expected = outcome(at, &short, usize::MAX);
            assert!(!expected.concat().contains("Closed"), "{expected:?}");
            for piece_len_bytes in [usize::MAX, 7, 256] {
                assert_eq!(outcome(at, &long, piece_len_bytes), expected, "behind {at} messages");
            }
        }
    }
}

#[test]
fn any_cut_of_a_long_text_gives_the_same_events() {
    let bytes = [&long_text(b'E', "ERROR", "40001", 300)[..], &ready_for_query()].concat();
    for at in (0..=bytes.len()).step_by(STEP) {
        let mut connection = asked();
        let mut log = receive(&mut connection, &bytes[..at]);
        log.extend(receive(&mut connection, &bytes[at..]));
        assert_eq!(log, ["Failed 1 40001", "RolledBack 2", "Aborted"], "cut at {at}");
    }
}

#[test]
fn a_long_text_keeps_its_beginning_and_has_a_limit() {
    let mut connection = asked();
    let bytes = long_text(b'E', "ERROR", "23505", 2000);
    for piece in bytes.chunks(100) {
        connection.recv_space()[..piece.len()].copy_from_slice(piece);
        connection.recv_commit(piece.len());
        if let Some(event) = connection.poll_event() {
            let Event::Failed { ticket: 1, error } = event else { panic!("{event:?}") };
            assert_eq!(error.message, "x".repeat(ServerError::MESSAGE_LEN_MAX_BYTES));
        }
    }
    assert_eq!(connection.in_flight_calls(), 1);

    let fixed_len = long_text(b'E', "FATAL", "57P01", 0).len();
    let longest = (LIMITS.text_len_max_bytes - fixed_len) / 2;
    let log = receive(&mut idle(), &long_text(b'E', "FATAL", "57P01", longest)).concat();
    assert!(log.starts_with("Closed: server error: FATAL 57P01: xxx"), "{log}");
    let log = receive(&mut idle(), &long_text(b'N', "FATAL", "57P01", longest + 1)).concat();
    assert!(log.starts_with("Closed: protocol error: message 'N' (NoticeResponse) of 409"), "{log}");
    assert!(log.ends_with(" bytes, limit 4096"), "{log}");
}

#[test]
fn a_malformed_long_text_closes_the_connection() {
    let text = [b"VERROR\0C23505\0M", &[b'x'; 1000][..]].concat();
    for end in [&b""[..], b"\0", b"\0\0\0", b"\0CODD\0\0"] {
        let log = receive(&mut asked(), &message(b'E', &[&text[..], end].concat()));
        assert_eq!(log[2], "Closed: protocol error: malformed message 'E' (ErrorResponse)");
    }
}

#[test]
fn a_connection_that_is_lost_within_a_long_error_leaves_its_batch_in_doubt() {
    let bytes = long_text(b'E', "ERROR", "23505", 1500);
    let mut connection = asked();
    assert_eq!(receive(&mut connection, &bytes[..bytes.len() - 1]), NOTHING);
    connection.close(CloseReason::PeerClosed);
    assert_eq!(
        drain(&mut connection),
        ["InDoubt 1", "InDoubt 2", "Closed: the server closed the connection"]
    );
}

#[test]
fn an_error_at_commit_is_told_with_the_batch() {
    let mut connection = asked();
    let bytes = [answer(), answer(), error("ERROR", "40001"), ready_for_query()].concat();
    let log = receive(&mut connection, &bytes);
    assert_eq!(log[4..], ["RolledBack 1", "RolledBack 2", "Aborted 40001"]);
}

#[test]
fn a_failed_batch_that_is_still_open_takes_more_calls_and_rolls_them_back() {
    let mut connection = idle();
    call(&mut connection, 1);
    send(&mut connection);
    assert_eq!(receive(&mut connection, &error("ERROR", "23505")), ["Failed 1 23505"]);
    call(&mut connection, 2);
    connection.sync();
    send(&mut connection);
    assert_eq!(receive(&mut connection, &ready_for_query()), ["RolledBack 2", "Aborted"]);
    assert!(connection.is_ready());
}

#[test]
fn a_batch_cannot_end_before_its_sync() {
    let mut connection = idle();
    call(&mut connection, 1);
    let log = receive(&mut connection, &[answer(), ready_for_query()].concat());
    assert_eq!(log[2], "RolledBack 1");
    assert!(log[3].starts_with("Closed: protocol error: unexpected message 'Z'"), "{log:?}");
}

#[test]
fn a_ping_is_an_empty_batch() {
    let mut connection = idle();
    connection.sync();
    assert_eq!((connection.send_pending(), connection.batches_in_flight()), (&b"S\0\0\0\x04"[..], 1));
    assert_eq!(receive(&mut connection, &ready_for_query()), ["Committed"]);
    assert_eq!(connection.batches_in_flight(), 0);
}

#[test]
fn a_fatal_error_closes_the_connection_and_leaves_its_batch_in_doubt() {
    let log = receive(&mut bound(), &error("FATAL", "57P01"));
    assert_eq!(log, ["InDoubt 1", "InDoubt 2", "Closed: server error: FATAL 57P01: text"]);
    let log = receive(&mut failed(), &error("PANIC", "57P01"));
    assert_eq!(log, ["RolledBack 2", "Closed: server error: PANIC 57P01: text"]);
}

/// Tickets 1, 2, 3 and 4, 5 in two synced batches, 6 in an open one.
fn three_batches() -> Connection<u32> {
    let mut connection = idle();
    (1..=3).for_each(|ticket| call(&mut connection, ticket));
    connection.sync();
    (4..=5).for_each(|ticket| call(&mut connection, ticket));
    connection.sync();
    call(&mut connection, 6);
    connection
}

#[test]
fn an_open_batch_is_not_in_flight() {
    let mut connection = three_batches();
    assert_eq!(
        (connection.has_open_batch(), connection.batches_in_flight(), connection.in_flight_calls()),
        (true, 2, 6)
    );
    connection.sync();
    assert_eq!(
        (connection.has_open_batch(), connection.batches_in_flight(), connection.in_flight_calls()),
        (false, 3, 6)
    );
    assert!(!idle().has_open_batch());
}

#[test]
fn closed_after_each_byte_sent() {
    let bytes = three_batches().send_pending().to_vec();
    // Where each Sync ends, found without the connection's own bookkeeping.
    let sync = message(b'S', b"");
    let sync_ends: Vec<usize> = (5..=bytes.len()).filter(|&end| bytes[end - 5..end] == sync[..]).collect();
    assert_eq!(sync_ends.len(), 2);
    for sent in (0..=bytes.len()).step_by(STEP) {
        let mut connection = three_batches();
        // In two pieces, so that the positions are not those of one buffer.
        connection.send_advance(sent / 2);
        connection.send_advance(sent - sent / 2);
        connection.close(CloseReason::PeerClosed);
        let verdict = |batch: usize| {
            if sync_ends.get(batch).is_some_and(|&end| end <= sent) { "InDoubt" } else { "RolledBack" }
        };
        let mut expected: Vec<String> = (1..=3).map(|t| format!("{} {t}", verdict(0))).collect();
        expected.extend((4..=5).map(|t| format!("{} {t}", verdict(1))));
        expected.push("RolledBack 6".into());
        expected.push("Closed: the server closed the connection".into());
        assert_eq!(drain(&mut connection), expected, "{sent} bytes sent");
        assert_eq!(
            (connection.send_pending().len(), connection.recv_space().len(), connection.in_flight_calls()),
            (0, 0, 0)
        );
    }
}

#[test]
fn closed_after_each_byte_received() {
    let ready = ready_for_query();
    let (first, second) = (answer().repeat(3), answer().repeat(2));
    let good = [&first[..], &ready, &second, &ready].concat();
    // The first batch fails at its second call, the second one at its commit.
    let first = [answer(), bind_complete(), error("ERROR", "23505")].concat();
    let bad = [&first[..], &ready, &second, &error("ERROR", "40001"), &ready].concat();
    for bytes in [good, bad] {
        for received in (0..=bytes.len()).step_by(STEP) {
            let mut connection = three_batches();
            send(&mut connection);
            let mut log = receive(&mut connection, &bytes[..received]);
            connection.close(CloseReason::TimedOut);
            log.extend(drain(&mut connection));
            assert_eq!(log.pop().unwrap(), "Closed: no answer in time");

            let has_arrived = |piece: &[u8], occurrence: usize| {
                let found = (piece.len()..=received).filter(|&end| bytes[..end].ends_with(piece));
                found.count() >= occurrence
            };
            for ticket in 1..=6 {
                let batch_has_error = match ticket {
                    1..=3 => has_arrived(&error("ERROR", "23505"), 1),
                    4..=5 => has_arrived(&error("ERROR", "40001"), 1),
                    _ => false,
                };
                let batch_has_ended = has_arrived(&ready, if ticket <= 3 { 1 } else { 2 });
                let expected = match ticket {
                    6 => "RolledBack",
                    2 if batch_has_error => "Failed",
                    _ if batch_has_error => "RolledBack",
                    _ if batch_has_ended => "Done",
                    _ => "InDoubt",
                };
                // Done is final only if nothing follows.
                let said = log.iter().filter(|line| line.split(' ').nth(1) == Some(&ticket.to_string()));
                let said: Vec<_> = said.filter(|line| !line.starts_with("Row")).collect();
                let finals = said.iter().filter(|line| !line.starts_with("Done")).count();
                let case = format!("{received} bytes received: {log:?}");
                assert!(said.last().unwrap().starts_with(expected), "{ticket} {expected}, {case}");
                assert_eq!(finals, usize::from(expected != "Done"), "{ticket}, {case}");
            }
        }
    }
}

#[test]
fn close_is_final() {
    let mut connection = asked();
    connection.close(CloseReason::Other("first"));
    connection.close(CloseReason::Other("second"));
    assert!(connection.is_closing() && !connection.is_ready());
    assert_eq!(drain(&mut connection), ["InDoubt 1", "InDoubt 2", "Closed: first"]);
    connection.close(CloseReason::Other("third"));
    connection.terminate();
    assert_eq!(drain(&mut connection), NOTHING);
    assert_eq!(connection.send_pending(), b"");
}

#[test]
fn terminate_lets_batches_finish() {
    let mut connection = asked();
    connection.terminate();
    assert_eq!(connection.send_pending(), b"X\0\0\0\x04");
    assert!(!connection.is_ready());
    let log = receive(&mut connection, &[answer(), answer(), ready_for_query()].concat());
    assert_eq!(log.last().unwrap(), "Committed");
    let mut young = preparing();
    let pending = young.send_pending().to_vec();
    young.terminate();
    assert_eq!(young.send_pending(), pending);
}

#[test]
fn a_full_connection_is_unchanged() {
    let mut connection = idle();
    (0..8).for_each(|ticket| call(&mut connection, ticket));
    let pending = connection.send_pending().to_vec();
    assert_eq!(connection.call(8, 1, &[]), Err(Full));
    assert_eq!((connection.send_pending(), connection.in_flight_calls()), (&pending[..], 8));
    connection.sync();
    send(&mut connection);
    receive(&mut connection, &[answer().repeat(8), ready_for_query()].concat());
    assert_eq!(connection.call(8, 1, &[]), Ok(()));
}

#[test]
fn calls_never_exceed_the_outbox_and_always_leave_room_for_their_sync() {
    // On the stack: nothing of it is borrowed for longer.
    let name = String::from("t");
    let statements = [Statement::new(&name, "SELECT $1", &[oid::TEXT])];
    let text = "x".repeat(2000);
    let mut refused = 0;
    for len in (0..text.len()).step_by(STEP) {
        let mut connection: Connection<u32> = Connection::new(&session(), &statements, LIMITS);
        let start = [authentication_ok(), ready_for_query(), parse_complete(), ready_for_query()].concat();
        assert_eq!(receive(&mut connection, &start), ["Ready"]);
        send(&mut connection);
        while connection.call(0, 0, &[Value::Text(&text[..len])]).is_ok() {}
        refused += STEP * usize::from(connection.in_flight_calls() == 0);
        connection.sync();
        assert!(connection.send_pending().len() <= LIMITS.send_len_max_bytes);
    }
    assert!((900..1100).contains(&refused), "{refused}");
}

#[test]
fn a_message_longer_than_the_inbox_closes_the_connection_at_its_head() {
    let log = receive(&mut idle(), b"D\0\0\x01\0");
    assert_eq!(log, ["Closed: protocol error: message 'D' (DataRow) of 257 bytes, limit 256"]);
    let longest = message(b'N', &[b"VNOTICE\0C00000\0M", &[b'x'; 256 - 5 - 18][..], b"\0\0"].concat());
    assert_eq!(longest.len(), 256);
    assert_eq!(receive(&mut idle(), &longest), ["Notice 00000"]);
}

#[test]
fn a_malformed_row_closes_the_connection() {
    let log = receive(&mut bound(), &message(b'D', &[0, 1, 0, 0, 0, 9, 1]));
    assert_eq!(log[2], "Closed: protocol error: malformed message 'D' (DataRow)");
}

#[test]
fn a_session_with_a_nul_byte_never_starts() {
    let session = Session { user: "a\0b".into(), ..session() };
    let mut connection: Connection<u32> = Connection::new(&session, &STATEMENTS, LIMITS);
    assert_eq!(connection.send_pending(), b"");
    assert_eq!(drain(&mut connection), ["Closed: a start-up parameter contains a NUL byte"]);
}

#[test]
fn bugs_of_the_owner_panic() {
    let panics = |bug: &dyn Fn(&mut Connection<u32>), mut connection: Connection<u32>| {
        assert!(catch_unwind(AssertUnwindSafe(|| bug(&mut connection))).is_err());
    };
    panics(&|connection| assert!(connection.call(1, 2, &[]).is_ok()), idle());
    panics(&|connection| assert!(connection.call(1, 0, &[]).is_ok()), idle());
    panics(&|connection| assert!(connection.call(1, 1, &[]).is_ok()), preparing());
    panics(&|connection| assert!(connection.call(1, 1, &[]).is_ok()), closed());
    panics(&|connection| connection.sync(), starting());
    panics(&|connection| (0..10).for_each(|_| connection.sync()), idle());
    panics(&|connection| connection.send_advance(1), idle());
    panics(&|connection| connection.recv_commit(257), idle());
    panics(
        &|connection| {
            call(connection, 1);
            connection.terminate();
        },
        idle(),
    );
}

#[test]
fn the_outbox_and_the_ledger_keep_their_allocation() {
    let mut connection = idle();
    let capacity = connection.outbox.capacity();
    for ticket in (0..1000).step_by(STEP) {
        call(&mut connection, ticket);
        connection.sync();
        // Never quite empty, so that the front of the buffer is only ever freed by moving.
        connection.send_advance(connection.send_pending().len() - 1);
        receive(&mut connection, &[answer(), ready_for_query()].concat());
    }
    assert_eq!(connection.outbox.capacity(), capacity);
    assert_eq!(connection.in_flight_calls(), 0);
}

#[test]
fn secrets_stay_out_of_debug_output() {
    assert!(!format!("{:?}", session()).contains("secret"));
    let key = BackendKey::new(1, &[77; 4]);
    assert_eq!(format!("{key:?}"), "BackendKey { process_id: 1, .. }");
    let expected = "Connection { phase: \"waiting for the next call of a batch or its end\", in_flight_calls: 2, \
                    batches_in_flight: 1, send_pending_bytes: 0, .. }";
    assert_eq!(format!("{:?}", asked()), expected);
}

#[test]
fn a_connection_may_move_between_threads() {
    fn check<T: Send + Sync>() {}
    check::<Connection<u32>>();
    check::<Event<'static, u32>>();
}

mod breakage;
mod commands;
