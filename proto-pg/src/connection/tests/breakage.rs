//! The kinds of breakage that pgjdbc's tests have a proxy for: a server that stalls after the type of a message or before
//! `ReadyForQuery`, a message that nobody expects, and a connection that is cut between any two messages of both sides.

use super::*;

/// What a server says to that of [`three_batches`], message by message: an answer to its batch of tickets 1 to 3, and one to
/// that of 4 and 5.
struct Script {
    messages: Vec<Vec<u8>>,
    /// Of each batch: what comes of its tickets once an error or its end has arrived.
    fates: [[&'static str; 3]; 2],
}

impl Script {
    /// Both are committed; the first fails at its second call; the second fails at its commit.
    fn all() -> [Script; 3] {
        let call = || [bind_complete(), data_row(7), command_complete()];
        let calls = |len: usize| (0..len).flat_map(|_| call()).collect::<Vec<_>>();
        let (end, fault) = (vec![ready_for_query()], vec![error("ERROR", "23505")]);
        let half = [&call()[..], &[bind_complete()]].concat();
        let done = ["Committed"; 3];
        let script = |messages: [Vec<Vec<u8>>; 6], fates| Script { messages: messages.concat(), fates };
        let none = Vec::new;
        [
            script([calls(3), none(), end.clone(), calls(2), none(), end.clone()], [done, done]),
            script(
                [half, fault.clone(), end.clone(), calls(2), none(), end.clone()],
                [["RolledBack", "Failed", "RolledBack"], done],
            ),
            script([calls(3), none(), end.clone(), calls(2), fault, end], [done, ["RolledBack"; 3]]),
        ]
    }

    /// The fate of each ticket if the connection is lost behind so many messages, of which the owner had sent so many batches.
    fn fates(&self, received: usize, synced: usize) -> [&'static str; 6] {
        let ends = self.messages.iter().enumerate().filter(|(_, message)| message[0] == b'Z');
        let ends: Vec<usize> = ends.map(|(at, _)| at).collect();
        let starts = [0, ends[0] + 1];
        let fate = |batch: usize, call: usize| {
            let arrived = &self.messages[starts[batch]..received.clamp(starts[batch], ends[batch] + 1)];
            let is_decided = arrived.iter().any(|message| [b'Z', b'E'].contains(&message[0]));
            match (is_decided, batch < synced) {
                (true, _) => self.fates[batch][call],
                (false, true) => "InDoubt",
                (false, false) => "RolledBack",
            }
        };
        [fate(0, 0), fate(0, 1), fate(0, 2), fate(1, 0), fate(1, 1), "RolledBack"]
    }
}

/// The one final event of each ticket, in the order of the tickets; a Done is final once its batch is committed.
fn fates(log: &[String]) -> [String; 6] {
    let mut fates = [const { String::new() }; 6];
    let mut batches = [1..=3, 4..=5].into_iter();
    for line in log {
        let (event, rest) = line.split_once(' ').unwrap_or((line, ""));
        match event {
            "Failed" | "RolledBack" | "InDoubt" => {
                let ticket: usize = rest.split(' ').next().unwrap().parse().unwrap();
                assert_eq!(fates[ticket - 1], "", "ticket {ticket} ends twice: {log:?}");
                event.clone_into(&mut fates[ticket - 1]);
            }
            "Committed" | "InTransaction" => batches.next().unwrap().for_each(|ticket| {
                assert!(log.contains(&format!("Done {ticket} SELECT 1")), "ticket {ticket}: {log:?}");
                assert_eq!(fates[ticket - 1], "", "ticket {ticket} ends twice: {log:?}");
                event.clone_into(&mut fates[ticket - 1]);
            }),
            // Within a block, what was done before the error has had its last event.
            "Aborted" => batches.next().unwrap().for_each(|ticket| {
                if fates[ticket - 1].is_empty() {
                    event.clone_into(&mut fates[ticket - 1]);
                }
            }),
            _ => {}
        }
    }
    fates
}

/// All of the two batches with a Sync is sent.
fn sent() -> Connection<u32> {
    let mut connection = three_batches();
    send(&mut connection);
    connection
}

/// The owner's deadline has passed.
fn give_up(connection: &mut Connection<u32>, log: &mut Vec<String>) {
    connection.close(CloseReason::TimedOut);
    log.extend(drain(connection));
    assert_eq!(log.last().unwrap(), "Closed: no answer in time");
    assert_eq!(connection.in_flight_calls(), 0);
}

#[test]
fn a_stall_within_the_head_of_a_message_tells_nothing_and_leaves_the_fate_as_it_was() {
    for script in Script::all() {
        let whole = receive(&mut sent(), &script.messages.concat());
        for at in (0..script.messages.len()).step_by(STEP.min(7)) {
            // The type alone, a part of the length, all of the head.
            for head_len_bytes in 1..=5.min(script.messages[at].len() - 1) {
                let stalled = || {
                    let mut connection = sent();
                    let log = receive(&mut connection, &script.messages[..at].concat());
                    let in_flight = (connection.in_flight_calls(), connection.batches_in_flight());
                    assert_eq!(receive(&mut connection, &script.messages[at][..head_len_bytes]), NOTHING);
                    assert_eq!((connection.in_flight_calls(), connection.batches_in_flight()), in_flight);
                    assert!(!connection.is_closing() && !connection.recv_space().is_empty());
                    (connection, log)
                };
                let (mut connection, mut log) = stalled();
                give_up(&mut connection, &mut log);
                assert_eq!(
                    fates(&log),
                    script.fates(at, 2),
                    "{head_len_bytes} bytes of message {at}: {log:?}"
                );

                // It goes on after all.
                let (mut connection, mut log) = stalled();
                log.extend(receive(&mut connection, &script.messages[at..].concat()[head_len_bytes..]));
                assert_eq!(log, whole, "{head_len_bytes} bytes of message {at}");
            }
        }
    }
}

/// Every call is Done, and none is final: the commit may fail, or not be heard of.
#[test]
fn a_stall_before_ready_for_query_leaves_what_is_done_in_doubt_and_what_failed_rolled_back() {
    let stalls = Script::all().map(|script| {
        let ends = (0..script.messages.len()).filter(|&at| script.messages[at][0] == b'Z');
        let stalls = ends.map(|at| {
            let mut connection = sent();
            let mut log = receive(&mut connection, &script.messages[..at].concat());
            assert_eq!(connection.batches_in_flight() > 0, !log.is_empty());
            give_up(&mut connection, &mut log);
            fates(&log).join(" ")
        });
        stalls.collect::<Vec<_>>()
    });
    let done = "Committed Committed Committed";
    let doubt = "InDoubt InDoubt InDoubt";
    let failed = "RolledBack Failed RolledBack";
    let expected = [
        [format!("{doubt} InDoubt InDoubt RolledBack"), format!("{done} InDoubt InDoubt RolledBack")],
        [format!("{failed} InDoubt InDoubt RolledBack"), format!("{failed} InDoubt InDoubt RolledBack")],
        [format!("{doubt} InDoubt InDoubt RolledBack"), format!("{done} RolledBack RolledBack RolledBack")],
    ];
    assert_eq!(stalls, expected);
}

#[test]
fn a_cut_between_any_two_messages_of_both_sides_leaves_in_doubt_what_had_left_and_was_not_answered() {
    let bytes = three_batches().send_pending().to_vec();
    let mut messages_sent = vec![0];
    while let [_, length @ ..] = &bytes[messages_sent[messages_sent.len() - 1]..]
        && let Some(length) = length.first_chunk()
    {
        let len_bytes = usize::try_from(u32::from_be_bytes(*length)).unwrap() + 1;
        messages_sent.push(messages_sent[messages_sent.len() - 1] + len_bytes);
    }
    // Bind and Execute of six calls, and two times Sync.
    assert_eq!(messages_sent.len(), 1 + 12 + 2);
    for script in Script::all() {
        for (count, &sent_bytes) in messages_sent.iter().enumerate().step_by(STEP.min(7)) {
            let synced = bytes[..sent_bytes].windows(5).filter(|bytes| *bytes == message(b'S', b"")).count();
            // A server answers what it has.
            let answered = [0, script.messages.iter().position(|message| message[0] == b'Z').unwrap() + 1];
            let received_max = answered.get(synced).copied().unwrap_or(script.messages.len());
            for received in 0..=received_max {
                let mut connection = three_batches();
                connection.send_advance(sent_bytes);
                let mut log = receive(&mut connection, &script.messages[..received].concat());
                connection.close(CloseReason::PeerClosed);
                log.extend(drain(&mut connection));
                let case = format!("{count} messages sent, {received} received: {log:?}");
                assert_eq!(fates(&log), script.fates(received, synced), "{case}");
                assert_eq!(log.last().unwrap(), "Closed: the server closed the connection");
            }
        }
    }
}

/// A message more than the server has to say, in each place: a remark is told, what the protocol has no place for closes it
/// at once, and what looks like an answer never makes a ticket end twice or a batch end before its `ReadyForQuery`.
#[test]
fn a_message_injected_anywhere_never_gives_a_ticket_a_second_fate() {
    let (mut refused, mut told, mut taken) = (0, 0, 0);
    for script in Script::all() {
        let whole = receive(&mut sent(), &script.messages.concat());
        for at in (0..=script.messages.len()).step_by(STEP.min(7)) {
            let (before, behind) = script.messages.split_at(at);
            for injected in every_message().into_iter().step_by(STEP.min(5)) {
                let mut connection = sent();
                let mut log = receive(&mut connection, &before.concat());
                let said = receive(&mut connection, &injected);
                log.extend(said.clone());
                let case = || format!("{} behind {at} messages: {log:?}", injected.escape_ascii());
                if is_closed_at_once(&said) {
                    assert_eq!(fates(&log), script.fates(at, 2), "{}", case());
                    assert_eq!(connection.in_flight_calls(), 0);
                    refused += 1;
                    continue;
                }
                log.extend(receive(&mut connection, &behind.concat()));
                let is_remark = b"NAS".contains(&injected[0]);
                if is_remark {
                    log.retain(|line| !said.contains(line));
                    assert_eq!(log, whole);
                    told += 1;
                } else {
                    taken += 1;
                }
                let ends = |tag| [before, behind].concat().iter().filter(|message| message[0] == tag).count();
                let committed = log.iter().filter(|line| *line == "Committed").count();
                assert!(committed <= ends(b'Z') + usize::from(injected[0] == b'Z'), "{log:?}");
                connection.close(CloseReason::PeerClosed);
                log.extend(drain(&mut connection));
                let fates = fates(&log);
                assert!(fates.iter().all(|fate| !fate.is_empty()), "a ticket without an end: {log:?}");
            }
        }
    }
    println!("{refused} refused, {told} told, {taken} taken for an answer");
    assert!(refused > 1000 / STEP && told > 100 / STEP && taken > 100 / STEP, "{refused} {told} {taken}");
}

fn is_closed_at_once(said: &[String]) -> bool {
    said.last().is_some_and(|line| line.starts_with("Closed"))
}

#[test]
fn a_cut_or_a_stall_anywhere_in_the_start_up_gives_no_ready_and_a_reason() {
    let start = [
        authentication_ok(),
        message(b'S', b"server_version\x0018.4\0"),
        message(b'K', &[0, 0, 0, 9, 0, 0, 0, 8]),
        ready_for_query(),
        parse_complete(),
        parse_complete(),
        ready_for_query(),
    ];
    for at in 0..start.len() {
        for head_len_bytes in 0..=1 {
            let bytes = [&start[..at].concat()[..], &start[at][..head_len_bytes]].concat();
            let mut connection = authenticating();
            send(&mut connection);
            let mut log = receive(&mut connection, &bytes);
            assert!(!connection.is_ready() && !connection.is_closing());
            connection.close(CloseReason::TimedOut);
            log.extend(drain(&mut connection));
            log.retain(|line| !line.starts_with("Parameter"));
            assert_eq!(log, ["Closed: no answer in time"], "behind {at} messages");
        }
    }
}
