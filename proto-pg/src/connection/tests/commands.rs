//! The commands besides calls, each at every split of its answer.

use super::*;
use crate::{Limits, ProtocolVersion};

/// What comes of these bytes, wherever they are cut.
fn cut_everywhere(enter: impl Fn() -> Connection<u32>, bytes: &[u8], expected: &[&str]) {
    assert_eq!(receive(&mut enter(), bytes), expected);
    for at in (0..=bytes.len()).step_by(STEP) {
        let mut connection = enter();
        let log = [receive(&mut connection, &bytes[..at]), receive(&mut connection, &bytes[at..])].concat();
        assert_eq!(log, expected, "cut at {at}");
        assert_eq!(connection.in_flight_calls(), 0);
    }
}

fn tag(tag: &str) -> Vec<u8> {
    message(b'C', format!("{tag}\0").as_bytes())
}

fn ready_in_block() -> Vec<u8> {
    message(b'Z', b"T")
}

fn ready_in_failed_block() -> Vec<u8> {
    message(b'Z', b"E")
}

/// A text, as a row of a simple query.
fn text_row(text: &str) -> Vec<u8> {
    let len = u32::try_from(text.len()).unwrap();
    message(b'D', &[&[0, 1], &len.to_be_bytes()[..], text.as_bytes()].concat())
}

fn copy_response(tag: u8) -> Vec<u8> {
    message(tag, b"\0\0\x01\0\0")
}

fn prepared_later() -> Connection<u32> {
    let mut connection = idle();
    let statement = Statement::new("later", "SELECT $1", &[oid::INT4]);
    connection.prepare(1, &statement).unwrap();
    connection.describe_statement(2, "later").unwrap();
    connection.call_named(3, "later", &[Value::Int4(5)]).unwrap();
    connection.close_statement(4, "later").unwrap();
    connection.sync();
    connection
}

#[test]
fn a_statement_is_prepared_described_called_and_closed_in_one_batch() {
    let mut connection = prepared_later();
    let expected = [
        message(b'P', b"later\0SELECT $1\0\0\x01\0\0\0\x17"),
        message(b'D', b"Slater\0"),
        message(b'B', b"\0later\0\0\x01\0\x01\0\x01\0\0\0\x04\0\0\0\x05\0\x01\0\x01"),
        message(b'E', b"\0\0\0\0\0"),
        message(b'C', b"Slater\0"),
        message(b'S', b""),
    ];
    assert_eq!(connection.send_pending(), expected.concat());
    send(&mut connection);
    let close_complete = message(b'3', b"");
    let bytes = [
        parse_complete(),
        parameter_description(&[oid::INT4]),
        row_description(&[oid::INT4]),
        answer(),
        close_complete,
        ready_for_query(),
    ]
    .concat();
    let expected = [
        "Done 1",
        "ParameterTypes 2 [23]",
        "Columns 2 Some([23])",
        "Row 3 Ok(7)",
        "Done 3 SELECT 1",
        "Done 4",
        "Committed",
    ];
    let enter = || {
        let mut connection = prepared_later();
        send(&mut connection);
        connection
    };
    cut_everywhere(enter, &bytes, &expected);
}

/// Each kind of step takes its own answer; any other message closes the connection.
#[test]
fn each_step_takes_no_answer_but_its_own() {
    type Ask = fn(&mut Connection<u32>) -> Result<(), Full>;
    let steps: [(Ask, &[u8]); 7] = [
        (|connection| connection.prepare(1, &Statement::new("", "SELECT 1", &[])), b"1"),
        (|connection| connection.bind(1, "p", "none", &[]), b"2"),
        (|connection| connection.execute(1, "p", 0), b"DCIsHG"),
        (|connection| connection.describe_statement(1, "one"), b"t"),
        (|connection| connection.describe_portal(1, "p"), b"Tn"),
        (|connection| connection.close_portal(1, "p"), b"3"),
        (|connection| connection.simple_query(1, "SELECT 1"), b"TCIHG"),
    ];
    for (ask, accepted) in steps {
        for bytes in every_message() {
            let mut connection = idle();
            ask(&mut connection).unwrap();
            let is_query = !connection.has_open_batch();
            if !is_query {
                connection.sync();
            }
            send(&mut connection);
            let log = receive(&mut connection, &bytes).concat();
            let any_time = b"NASE".contains(&bytes[0]);
            // A COPY FROM STDIN whose Sync is queued is another matter.
            let is_out_of_step = bytes[0] == b'G' && !is_query && accepted.contains(&b'G');
            let is_refused = log.contains("Closed: protocol error: unexpected message");
            let expected = !any_time && !accepted.contains(&bytes[0]) || bytes[0] == b'Z';
            assert_eq!(is_refused, expected, "{}: {log}", bytes.escape_ascii());
            assert_eq!(log.contains("COPY FROM STDIN"), is_out_of_step, "{}: {log}", bytes.escape_ascii());
        }
    }
}

fn asked_simply() -> Connection<u32> {
    let mut connection = idle();
    connection.simple_query(1, "SELECT 'a'; UPDATE t SET x = 1; SELECT 'b'").unwrap();
    assert_eq!(connection.send_pending(), message(b'Q', b"SELECT 'a'; UPDATE t SET x = 1; SELECT 'b'\0"));
    assert_eq!((connection.batches_in_flight(), connection.has_open_batch()), (1, false));
    // Calls behind it need not wait.
    call(&mut connection, 2);
    connection.sync();
    send(&mut connection);
    connection
}

#[test]
fn a_simple_query_is_a_batch_of_its_own() {
    let bytes = [
        row_description(&[oid::TEXT]),
        text_row("a"),
        tag("SELECT 1"),
        tag("UPDATE 3"),
        row_description(&[oid::TEXT]),
        text_row("b"),
        tag("SELECT 1"),
        ready_for_query(),
        answer(),
        ready_for_query(),
    ]
    .concat();
    let expected = [
        "Columns 1 Some([25])",
        "TextRow 1 Ok(Some(\"a\"))",
        "Done 1 SELECT 1",
        "Done 1 UPDATE 3",
        "Columns 1 Some([25])",
        "TextRow 1 Ok(Some(\"b\"))",
        "Done 1 SELECT 1",
        "Committed",
        "Row 2 Ok(7)",
        "Done 2 SELECT 1",
        "Committed",
    ];
    cut_everywhere(asked_simply, &bytes, &expected);
    // An error belongs to the query, wherever in it it comes.
    let messages = [row_description(&[oid::TEXT]), text_row("a"), tag("SELECT 1"), tag("UPDATE 3")];
    for at in 0..=messages.len() {
        let bytes = [&messages[..at].concat(), &error("ERROR", "23505")[..], &ready_for_query()].concat();
        let log = receive(&mut asked_simply(), &bytes);
        assert_eq!(log[log.len() - 2..], ["Failed 1 23505", "Aborted"], "behind {at} messages");
    }
    let empty = [message(b'I', b""), ready_for_query(), answer(), ready_for_query()].concat();
    let log = receive(&mut asked_simply(), &empty);
    assert_eq!(log[..2], ["Done 1", "Committed"]);
    // Not before its first command has ended.
    let log = receive(&mut asked_simply(), &ready_for_query()).concat();
    assert!(log.contains("unexpected message 'Z'"), "{log}");
    let log = receive(&mut asked_simply(), &text_row("a")).concat();
    assert!(log.contains("unexpected message 'D'"), "{log}");
}

#[test]
fn a_simple_query_is_in_doubt_once_it_has_left() {
    for sent in [0, 1, 46, 47] {
        let mut connection = idle();
        connection.simple_query(1, "UPDATE account SET balance = balance + 100").unwrap();
        connection.send_advance(sent.min(connection.send_pending().len()));
        let has_left = connection.send_pending().is_empty();
        connection.close(CloseReason::PeerClosed);
        let expected = if has_left { "InDoubt 1" } else { "RolledBack 1" };
        assert_eq!(drain(&mut connection)[0], expected, "{sent} bytes sent");
    }
}

fn fetching() -> Connection<u32> {
    let mut connection = idle();
    connection.bind(1, "p", "one", &[Value::Int4(1)]).unwrap();
    connection.execute(2, "p", 2).unwrap();
    connection.flush().unwrap();
    connection
}

#[test]
fn a_portal_is_fetched_a_few_rows_at_a_time() {
    let mut connection = fetching();
    let expected = [
        message(b'B', b"p\0one\0\0\x01\0\x01\0\x01\0\0\0\x04\0\0\0\x01\0\x01\0\x01"),
        message(b'E', b"p\0\0\0\0\x02"),
        message(b'H', b""),
    ];
    assert_eq!(connection.send_pending(), expected.concat());
    send(&mut connection);
    let suspended = message(b's', b"");
    let bytes = [bind_complete(), data_row(1), data_row(2), suspended.clone()].concat();
    let expected = ["Done 1", "Row 2 Ok(1)", "Row 2 Ok(2)", "Suspended 2"];
    for at in (0..=bytes.len()).step_by(STEP) {
        let mut connection = fetching();
        send(&mut connection);
        assert_eq!(
            [receive(&mut connection, &bytes[..at]), receive(&mut connection, &bytes[at..])].concat(),
            expected
        );
        connection.execute(3, "p", 2).unwrap();
        connection.close_portal(4, "p").unwrap();
        connection.sync();
        send(&mut connection);
        let rest = [data_row(3), tag("SELECT 1"), message(b'3', b""), ready_for_query()].concat();
        let expected = ["Row 3 Ok(3)", "Done 3 SELECT 1", "Done 4", "Committed"];
        assert_eq!(receive(&mut connection, &rest), expected);
    }
    // A call asks for all rows.
    let log = receive(&mut bound(), &suspended).concat();
    assert!(log.contains("unexpected message 's'"), "{log}");
    // What was suspended is rolled back with the rest.
    let mut connection = fetching();
    connection.sync();
    send(&mut connection);
    let bytes =
        [bind_complete(), data_row(1), suspended, error("ERROR", "40001"), ready_for_query()].concat();
    let log = receive(&mut connection, &bytes);
    assert_eq!(log[3..], ["RolledBack 1", "RolledBack 2", "Aborted 40001"]);
}

#[test]
fn data_of_a_copy_comes_as_it_is_and_long_rows_in_pieces() {
    let enter = || {
        let mut connection = idle();
        call(&mut connection, 1);
        connection.sync();
        send(&mut connection);
        connection
    };
    let end = [message(b'c', b""), tag("COPY 2"), ready_for_query()].concat();
    let start = [bind_complete(), copy_response(b'H')].concat();
    let bytes = [&start[..], &message(b'd', b"1\ta\n"), &message(b'd', b""), &end].concat();
    let expected = ["CopyOut 1 1", "CopyData 1 1\\ta\\n", "CopyData 1 ", "Done 1 COPY 2", "Committed"];
    cut_everywhere(enter, &bytes, &expected);

    // As long as the inbox, one byte longer, and much longer.
    for len_bytes in [LIMITS.message_len_max_bytes - 5, LIMITS.message_len_max_bytes - 4, 1000] {
        let row: Vec<u8> = (0..len_bytes).map(|byte| b'a' + u8::try_from(byte % 26).unwrap()).collect();
        let bytes = [&start[..], &message(b'd', &row), &message(b'd', b"z"), &end].concat();
        for piece_len_bytes in (1..300).step_by(7 * STEP) {
            let mut connection = enter();
            let (mut rows, mut current, mut log) = (vec![], vec![], vec![]);
            for mut piece in bytes.chunks(piece_len_bytes) {
                while !piece.is_empty() {
                    let space = connection.recv_space();
                    let n = space.len().min(piece.len());
                    assert!(n > 0, "a connection that is open and drained has room");
                    space[..n].copy_from_slice(&piece[..n]);
                    connection.recv_commit(n);
                    piece = &piece[n..];
                    while let Some(event) = connection.poll_event() {
                        if let Event::CopyData { bytes, is_end, .. } = event {
                            current.extend_from_slice(bytes);
                            if is_end {
                                rows.push(mem::take(&mut current));
                            }
                        } else {
                            log.push(format!("{event:?}"));
                        }
                    }
                }
            }
            assert_eq!(rows, [row.clone(), b"z".to_vec()], "pieces of {piece_len_bytes}");
            assert_eq!(log.last().unwrap(), "Committed", "{log:?}");
        }
    }
    // Notices and settings may come between rows, an error ends it.
    let notice = message(b'N', b"VNOTICE\0C00000\0Mhello\0\0");
    let bytes =
        [&start[..], &message(b'd', b"1"), &notice, &error("ERROR", "57014"), &ready_for_query()].concat();
    let expected = ["CopyOut 1 1", "CopyData 1 1", "Notice 00000", "Failed 1 57014", "Aborted"];
    cut_everywhere(enter, &bytes, &expected);
}

/// A COPY FROM STDIN as a call, or as a simple query, whose data is awaited.
fn copying_in(is_query: bool) -> Connection<u32> {
    let mut connection = idle();
    if is_query {
        connection.simple_query(1, "COPY t FROM STDIN").unwrap();
        send(&mut connection);
        assert_eq!(receive(&mut connection, &copy_response(b'G')), ["CopyIn 1 1"]);
    } else {
        call(&mut connection, 1);
        connection.flush().unwrap();
        send(&mut connection);
        assert_eq!(
            receive(&mut connection, &[bind_complete(), copy_response(b'G')].concat()),
            ["CopyIn 1 1"]
        );
    }
    assert!(!connection.is_ready());
    connection
}

#[test]
fn data_is_copied_in_as_far_as_there_is_room() {
    for is_query in [false, true] {
        let mut connection = copying_in(is_query);
        assert_eq!(connection.copy_data(b"1\n"), Ok(2));
        assert_eq!(connection.send_pending(), message(b'd', b"1\n"));
        let data = vec![b'x'; 2000];
        let taken = connection.copy_data(&data).unwrap();
        assert!((900..1024).contains(&taken), "{taken}");
        assert_eq!(connection.copy_data(&data), Ok(0), "full");
        send(&mut connection);
        assert_eq!(connection.copy_data(&data[..500]), Ok(500));
        assert_eq!(connection.copy_data(b""), Ok(0));
        connection.copy_done().unwrap();
        assert_eq!(connection.copy_data(b"2\n"), Err(CopyEnded));
        assert!(connection.is_ready());
        if !is_query {
            connection.sync();
        }
        assert!(connection.send_pending().len() <= LIMITS.send_len_max_bytes);
        send(&mut connection);
        let bytes = [tag("COPY 1"), ready_for_query()].concat();
        assert_eq!(receive(&mut connection, &bytes), ["Done 1 COPY 1", "Committed"]);
    }
}

#[test]
fn a_copy_in_that_fails_takes_no_more_data() {
    for is_query in [false, true] {
        let mut connection = copying_in(is_query);
        assert_eq!(receive(&mut connection, &error("ERROR", "22P02")), ["Failed 1 22P02"]);
        assert_eq!((connection.copy_data(b"1"), connection.copy_done()), (Err(CopyEnded), Err(CopyEnded)));
        if !is_query {
            connection.sync();
        }
        assert_eq!(receive(&mut connection, &ready_for_query()), ["Aborted"]);

        let mut connection = copying_in(is_query);
        connection.copy_fail("changed my mind").unwrap();
        assert_eq!(connection.send_pending(), message(b'f', b"changed my mind\0"));
        assert_eq!(receive(&mut connection, &error("ERROR", "57014")), ["Failed 1 57014"]);
        // The end of the command before the end of its data.
        let log = receive(&mut copying_in(is_query), &tag("COPY 1")).concat();
        assert!(log.contains("unexpected message 'C' (CommandComplete) while copying in"), "{log}");
    }
}

#[test]
fn a_copy_in_is_in_doubt_only_once_its_end_has_left() {
    for is_query in [false, true] {
        for steps in 0..4 {
            let mut connection = copying_in(is_query);
            if steps > 0 {
                connection.copy_data(b"1\n").unwrap();
                send(&mut connection);
            }
            if steps > 1 {
                connection.copy_done().unwrap();
                if !is_query {
                    connection.sync();
                }
            }
            if steps > 2 {
                send(&mut connection);
            }
            connection.close(CloseReason::PeerClosed);
            let expected = if steps > 2 { "InDoubt 1" } else { "RolledBack 1" };
            assert_eq!(drain(&mut connection)[0], expected, "{steps} steps, {is_query}");
        }
    }
}

#[test]
fn a_copy_in_with_something_behind_it() {
    let response = [bind_complete(), copy_response(b'G')].concat();
    // Its own Sync: the server will skip it.
    let mut connection = idle();
    call(&mut connection, 1);
    connection.sync();
    send(&mut connection);
    let problem = "Closed: a COPY FROM STDIN had its Sync or another batch queued before its data";
    assert_eq!(receive(&mut connection, &response), ["InDoubt 1", problem]);
    // Another call: the server fails the COPY.
    let mut connection = idle();
    call(&mut connection, 1);
    call(&mut connection, 2);
    connection.sync();
    send(&mut connection);
    let bytes = [&response[..], &error("ERROR", "08P01"), &ready_for_query()].concat();
    assert_eq!(receive(&mut connection, &bytes), ["Failed 1 08P01", "RolledBack 2", "Aborted"]);
    assert!(catch_unwind(AssertUnwindSafe(|| call(&mut copying_in(false), 2))).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| copying_in(false).sync())).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| copying_in(true).terminate())).is_err());
}

static TRANSACTION: [Statement<'static>; 3] = [
    Statement::new("begin", "BEGIN", &[]),
    Statement::new("work", "INSERT INTO t VALUES (1)", &[]),
    Statement::new("commit", " commit", &[]),
];

/// A batch of these statements, each with its place as its ticket. `sent` says how much of it has left.
fn transaction(statements: &[usize], is_synced: bool, sent: impl Fn(&[u8]) -> usize) -> Connection<u32> {
    let mut connection: Connection<u32> = Connection::new(&session(), &TRANSACTION, LIMITS);
    let start = [authentication_ok(), ready_for_query(), parse_complete().repeat(3), ready_for_query()];
    assert_eq!(receive(&mut connection, &start.concat()), ["Ready"]);
    send(&mut connection);
    for (ticket, &statement) in (0..).zip(statements) {
        connection.call(ticket, statement, &[]).unwrap();
    }
    if is_synced {
        connection.sync();
    }
    let sent = sent(connection.send_pending());
    connection.send_advance(sent);
    connection
}

fn done(name: &str) -> Vec<u8> {
    [bind_complete(), tag(name)].concat()
}

#[test]
fn a_transaction_block_may_span_batches() {
    let mut connection = transaction(&[0, 1], true, <[u8]>::len);
    assert_eq!(connection.transaction_status(), TransactionStatus::Idle);
    let log = receive(&mut connection, &[done("BEGIN"), done("INSERT 0 1"), ready_in_block()].concat());
    assert_eq!(log, ["Done 0 BEGIN", "Done 1 INSERT 0 1", "InTransaction"]);
    assert_eq!(connection.transaction_status(), TransactionStatus::InTransaction);
    connection.call(2, 2, &[]).unwrap();
    connection.sync();
    send(&mut connection);
    assert_eq!(
        receive(&mut connection, &[done("COMMIT"), ready_for_query()].concat()),
        ["Done 2 COMMIT", "Committed"]
    );
    assert_eq!(connection.transaction_status(), TransactionStatus::Idle);
    // An empty batch within a block.
    let mut connection = transaction(&[0], true, <[u8]>::len);
    receive(&mut connection, &[done("BEGIN"), ready_in_block()].concat());
    connection.sync();
    assert_eq!(receive(&mut connection, &ready_in_block()), ["InTransaction"]);
    let log = receive(&mut connection, &message(b'Z', b"?")).concat();
    assert_eq!(log, "Closed: protocol error: malformed message 'Z' (ReadyForQuery)");
}

#[test]
fn a_transaction_block_may_be_forbidden() {
    for status in [ready_in_block(), ready_in_failed_block()] {
        let mut connection = transaction(&[0, 1], true, <[u8]>::len);
        connection.forbid_transaction_blocks();
        let log = receive(&mut connection, &[done("BEGIN"), done("INSERT 0 1"), status].concat());
        assert_eq!(log[2..4], ["InDoubt 0", "InDoubt 1"]);
        assert!(log[4].starts_with("Closed: protocol error: transaction status"), "{log:?}");
    }
}

#[test]
fn a_block_that_fails_leaves_what_was_done_in_it_to_its_end() {
    let mut connection = transaction(&[0, 1, 1, 1], true, <[u8]>::len);
    let bytes =
        [done("BEGIN"), done("INSERT 0 1"), error("ERROR", "23505"), ready_in_failed_block()].concat();
    let expected = ["Done 0 BEGIN", "Done 1 INSERT 0 1", "Failed 2 23505", "RolledBack 3", "Aborted"];
    assert_eq!(receive(&mut connection, &bytes), expected);
    assert_eq!(connection.transaction_status(), TransactionStatus::Failed);
    assert_eq!(connection.in_flight_calls(), 0);
}

#[test]
fn what_is_committed_within_a_batch_is_not_rolled_back_by_an_error_behind_it() {
    let statements = [0, 1, 2, 1, 1];
    let committed = [done("BEGIN"), done("INSERT 0 1"), done("COMMIT")].concat();
    let mut connection = transaction(&statements, true, <[u8]>::len);
    let rest = [done("INSERT 0 1"), error("ERROR", "23505"), ready_for_query()].concat();
    let log = receive(&mut connection, &[&committed[..], &rest].concat());
    assert_eq!(log[4..], ["Failed 4 23505", "RolledBack 3", "Aborted"]);
    // Nor is it in doubt if the connection is lost behind it.
    let mut connection = transaction(&statements, true, <[u8]>::len);
    receive(&mut connection, &committed);
    connection.close(CloseReason::PeerClosed);
    assert_eq!(drain(&mut connection)[..2], ["InDoubt 3", "InDoubt 4"]);
    // A COMMIT that rolls back, as its tag says.
    let mut connection = transaction(&statements, true, <[u8]>::len);
    let bytes =
        [done("BEGIN"), done("INSERT 0 1"), done("ROLLBACK"), error("ERROR", "23505"), ready_for_query()];
    let log = receive(&mut connection, &bytes.concat());
    assert_eq!(
        log[3..],
        ["Failed 3 23505", "RolledBack 0", "RolledBack 1", "RolledBack 2", "RolledBack 4", "Aborted"]
    );
}

#[test]
fn a_commit_is_in_doubt_as_soon_as_it_has_left() {
    let commit_end = |bytes: &[u8]| {
        let execute = message(b'E', b"\0\0\0\0\0");
        (0..=bytes.len()).rfind(|&end| bytes[..end].ends_with(&execute)).unwrap()
    };
    for is_synced in [false, true] {
        for (sent, expected) in [(0, "RolledBack"), (1, "InDoubt")] {
            let mut connection = transaction(&[0, 1, 2], is_synced, |bytes| commit_end(bytes) - 1 + sent);
            connection.close(CloseReason::PeerClosed);
            let log = drain(&mut connection);
            assert_eq!(log[..3], [0, 1, 2].map(|ticket| format!("{expected} {ticket}")));
        }
    }
    // Without a COMMIT it takes the Sync.
    let mut connection = transaction(&[1, 1], false, <[u8]>::len);
    connection.close(CloseReason::PeerClosed);
    assert_eq!(drain(&mut connection)[..2], ["RolledBack 0", "RolledBack 1"]);
    // What a name stands for is not known.
    let mut connection = idle();
    connection.call_named(1, "none", &[]).unwrap();
    send(&mut connection);
    connection.close(CloseReason::PeerClosed);
    assert_eq!(drain(&mut connection)[0], "InDoubt 1");
}

#[test]
fn each_call_may_be_a_transaction_of_its_own() {
    let mut connection = idle();
    for ticket in 1..=3 {
        call(&mut connection, ticket);
        connection.sync();
    }
    send(&mut connection);
    let ready = ready_for_query();
    let bytes =
        [&answer()[..], &ready, &bind_complete(), &error("ERROR", "23505"), &ready, &answer(), &ready]
            .concat();
    let log = receive(&mut connection, &bytes);
    let expected =
        ["Row 1 Ok(7)", "Done 1 SELECT 1", "Committed", "Failed 2 23505", "Aborted", "Row 3 Ok(7)"];
    assert_eq!(log[..6], expected);
}

/// A connection that asks for a version of the protocol.
fn speaking(protocol: ProtocolVersion) -> Connection<u32> {
    Connection::new(&Session { protocol, ..session() }, &[], LIMITS)
}

fn backend_key(key: &[u8]) -> Vec<u8> {
    message(b'K', &[&[0, 0, 0, 9], key].concat())
}

#[test]
fn a_newer_protocol_is_brought_down_to_what_the_server_speaks() {
    let mut connection = speaking(ProtocolVersion::V3_2);
    assert_eq!(connection.send_pending()[4..8], [0, 3, 0, 2]);
    send(&mut connection);
    let key: Vec<u8> = (0..32).collect();
    let start = [authentication_ok(), backend_key(&key), ready_for_query(), ready_for_query()].concat();
    assert_eq!(receive(&mut connection, &start), ["Ready"]);
    assert_eq!(connection.protocol(), ProtocolVersion::V3_2);
    assert_eq!(*connection.backend_key().unwrap().secret_key, key);

    let down = message(b'v', &[0, 3, 0, 0, 0, 0, 0, 0]);
    let start = [authentication_ok(), backend_key(&[1; 4]), ready_for_query(), ready_for_query()].concat();
    let start = [down.clone(), start].concat();
    for at in (0..=start.len()).step_by(STEP) {
        let mut connection = speaking(ProtocolVersion::V3_2);
        let log = [receive(&mut connection, &start[..at]), receive(&mut connection, &start[at..])].concat();
        assert_eq!(log, ["Ready"], "cut at {at}");
        assert_eq!(connection.protocol(), ProtocolVersion::V3_0);
    }
    for (ours, version, text) in [
        (ProtocolVersion::V3_0, [0, 3, 0, 2], "3.2"),
        (ProtocolVersion::V3_2, [0, 3, 0, 1], "3.1"),
        (ProtocolVersion::V3_2, [0, 2, 0, 0], "2.0"),
        (ProtocolVersion::V3_2, [0, 3, 0, 3], "3.3"),
    ] {
        let bytes = message(b'v', &[&version[..], &[0; 4]].concat());
        let log = receive(&mut speaking(ours), &bytes);
        let expected =
            format!("Closed: protocol error: the server names protocol {text}, which is not supported");
        assert_eq!(log, [expected]);
    }
}

#[test]
fn a_key_of_a_length_that_the_protocol_does_not_have_is_refused() {
    for (protocol, len_bytes, is_good) in [
        (ProtocolVersion::V3_0, 4, true),
        (ProtocolVersion::V3_0, 3, false),
        (ProtocolVersion::V3_0, 32, false),
        (ProtocolVersion::V3_2, 3, false),
        (ProtocolVersion::V3_2, 4, true),
        (ProtocolVersion::V3_2, 240, true),
    ] {
        let mut connection = speaking(protocol);
        let log = receive(&mut connection, &[authentication_ok(), backend_key(&vec![1; len_bytes])].concat());
        assert_eq!(log.is_empty(), is_good, "{protocol:?}, {len_bytes} bytes: {log:?}");
        assert_eq!(connection.backend_key().is_some(), is_good);
    }
    assert!(!ProtocolVersion::V3_2.has_key_len(257));
}

#[test]
fn a_ticket_need_not_be_copy() {
    let mut connection: Connection<String> = Connection::new(&session(), &[], Limits::default());
    let start = [authentication_ok(), ready_for_query(), ready_for_query()].concat();
    connection.recv_space()[..start.len()].copy_from_slice(&start);
    connection.recv_commit(start.len());
    assert!(matches!(connection.poll_event(), Some(Event::Ready)));
    connection.prepare("parse".to_owned(), &Statement::new("", "SELECT 1", &[])).unwrap();
    connection.close(CloseReason::PeerClosed);
    assert!(matches!(connection.poll_event(), Some(Event::RolledBack { ticket }) if ticket == "parse"));
}

#[test]
fn a_command_that_does_not_fit_leaves_the_connection_unchanged() {
    let long = "x".repeat(LIMITS.send_len_max_bytes);
    let mut connection = idle();
    let statement = Statement::new("s", &long, &[]);
    assert_eq!(connection.prepare(1, &statement), Err(Full));
    assert_eq!(connection.simple_query(1, &long), Err(Full));
    assert_eq!(connection.call_named(1, &long, &[]), Err(Full));
    assert_eq!(connection.bind(1, &long, "", &[]), Err(Full));
    assert_eq!(connection.execute(1, &long, 0), Err(Full));
    assert_eq!(connection.describe_statement(1, &long), Err(Full));
    assert_eq!(connection.describe_portal(1, &long), Err(Full));
    assert_eq!(connection.close_statement(1, &long), Err(Full));
    assert_eq!(connection.close_portal(1, &long), Err(Full));
    assert_eq!((connection.send_pending(), connection.in_flight_calls()), (&b""[..], 0));
    // Each says its length beforehand exactly, so the outbox never grows.
    let capacity = connection.outbox.capacity();
    for _ in 0..50 {
        while connection.in_flight_calls() < 7 {
            let fits = connection.prepare(1, &Statement::new("name", "SELECT $1", &[oid::INT4])).is_ok()
                && connection.bind(1, "portal", "name", &[Value::Int4(1)]).is_ok()
                && connection.execute(1, "portal", 5).is_ok()
                && connection.describe_portal(1, "portal").is_ok()
                && connection.close_portal(1, "portal").is_ok();
            if !fits {
                break;
            }
        }
        while connection.flush().is_ok() {}
        connection.sync();
        assert!(connection.send_pending().len() <= LIMITS.send_len_max_bytes);
        send(&mut connection);
        let bytes = [error("ERROR", "42601"), ready_for_query()].concat();
        receive(&mut connection, &bytes);
        assert_eq!((connection.in_flight_calls(), connection.outbox.capacity()), (0, capacity));
    }
}
