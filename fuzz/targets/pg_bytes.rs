//! Whatever a server sends, in whatever pieces: no panic, the same events, and one end for each call.
//!
//! The input's first byte seeds the cuts; the rest is what the server sends to a lane with two batches in flight.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto_pg::{CloseReason, Connection, Event, Limits, Row, Session, Statement, Value, oid};

static STATEMENTS: [Statement; 1] =
    [Statement { name: "s", sql: "SELECT $1", parameter_types: &[oid::INT4] }];
const STARTED: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I1\0\0\0\x04Z\0\0\0\x05I";
const CALLS: u8 = 5;

/// Every way to look at a row. None may panic, and each is one more thing to compare.
fn shown(row: &Row<'_>) -> String {
    let columns = (0..row.columns_len() + 1).map(|column| {
        format!(
            "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
            row.raw(column),
            row.is_null(column),
            row.bool(column),
            row.i16(column),
            row.i32(column),
            row.i64(column),
            row.text(column),
            row.jsonb(column),
            row.i64_array(column).map(Iterator::collect::<Vec<_>>),
        )
    });
    columns.collect()
}

fn drain(lane: &mut Connection<u8>, events: &mut Vec<String>, ends: &mut [u8; CALLS as usize]) {
    let mut done = Vec::new();
    while let Some(event) = lane.poll_event() {
        match &event {
            Event::Row { ticket, row } => events.push(format!("{ticket} {}", shown(row))),
            Event::Done { ticket } => done.push(*ticket),
            Event::Failed { ticket, .. } | Event::RolledBack { ticket } | Event::InDoubt { ticket } => {
                ends[*ticket as usize] += 1;
            }
            _ => {}
        }
        events.push(format!("{event:?}"));
    }
}

fn events(mut rest: &[u8], mut piece_len: impl FnMut() -> usize) -> Vec<String> {
    let session = Session { user: "u".into(), password: None, database: "d".into(), parameters: vec![] };
    let limits = Limits { message_len_max_bytes: 256, send_len_max_bytes: 4096, in_flight_calls_max: 8 };
    let mut lane = Connection::new(&session, &STATEMENTS, limits);
    let (mut events, mut ends) = (Vec::new(), [0; CALLS as usize]);
    lane.send_advance(lane.send_pending().len());
    for &byte in STARTED {
        lane.recv_space()[0] = byte;
        lane.recv_commit(1);
        drain(&mut lane, &mut events, &mut ends);
        lane.send_advance(lane.send_pending().len());
    }
    assert!(lane.is_ready(), "{events:?}");
    for ticket in 0..CALLS {
        lane.call(ticket, 0, &[Value::Int4(1)]).expect("there is room");
        if ticket == 2 {
            lane.sync();
        }
    }
    lane.sync();
    lane.send_advance(lane.send_pending().len());
    while !rest.is_empty() {
        let space = lane.recv_space();
        let n = space.len().min(rest.len()).min(piece_len());
        if n == 0 {
            break;
        }
        space[..n].copy_from_slice(&rest[..n]);
        lane.recv_commit(n);
        rest = &rest[n..];
        drain(&mut lane, &mut events, &mut ends);
    }
    lane.close(CloseReason::PeerClosed);
    drain(&mut lane, &mut events, &mut ends);
    // A ticket that was done and committed has its end there; all others have one of their own.
    assert!(ends.iter().all(|count| *count <= 1), "{events:?}");
    assert_eq!(lane.in_flight_calls(), 0);
    events
}

fuzz_target!(|data: &[u8]| {
    let Some((&seed, bytes)) = data.split_first() else { return };
    let whole = events(bytes, || usize::MAX);
    assert_eq!(events(bytes, || 1), whole, "byte by byte");
    let mut state = u32::from(seed).wrapping_mul(2_654_435_761);
    let in_pieces = events(bytes, || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 28) as usize + 1
    });
    assert_eq!(in_pieces, whole, "in pieces");
});
