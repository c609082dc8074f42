//! Calls, Syncs, short sends and answers in any order: each ticket has exactly one end.
//!
//! The input is a script: each byte is one step of the owner, the transport or the server.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use proto_pg::{CloseReason, Connection, Event, Limits, Session, Statement, Value, oid};

static STATEMENTS: [Statement; 1] =
    [Statement { name: "s", sql: "SELECT $1", parameter_types: &[oid::INT4] }];
const STARTED: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I1\0\0\0\x04Z\0\0\0\x05I";
/// What a server may say, in the order or not.
const MESSAGES: [&[u8]; 8] = [
    b"2\0\0\0\x04",
    b"D\0\0\0\x0e\0\x01\0\0\0\x04\0\0\0\x08",
    b"C\0\0\0\x0dSELECT 1\0",
    b"Z\0\0\0\x05I",
    b"E\0\0\0\x1aSERROR\0C40001\0Mfailed\0\0",
    b"N\0\0\0\x1bSNOTICE\0C00000\0Mfailed\0\0",
    b"S\0\0\0\x12TimeZone\0UTC\0\0",
    b"I\0\0\0\x04",
];

#[derive(Default)]
struct Ledger {
    /// What each ticket has been told.
    fates: BTreeMap<u16, Fate>,
}

#[derive(Default, Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    #[default]
    Open,
    Done,
    Ended,
}

impl Ledger {
    fn drain(&mut self, lane: &mut Connection<u16>) {
        while let Some(event) = lane.poll_event() {
            match event {
                Event::Row { ticket, .. } => assert_eq!(self.fates[&ticket], Fate::Open),
                Event::Done { ticket } => self.tell(ticket, Fate::Done),
                Event::Failed { ticket, .. } | Event::RolledBack { ticket } | Event::InDoubt { ticket } => {
                    self.tell(ticket, Fate::Ended);
                }
                Event::Committed => {
                    for fate in self.fates.values_mut().filter(|fate| **fate == Fate::Done) {
                        *fate = Fate::Ended;
                    }
                }
                Event::Aborted { .. } => assert!(self.fates.values().all(|fate| *fate != Fate::Done)),
                _ => {}
            }
        }
    }

    fn tell(&mut self, ticket: u16, fate: Fate) {
        let before = self.fates.insert(ticket, fate).expect("the ticket was handed in");
        assert_ne!(before, Fate::Ended, "ticket {ticket}: {before:?}, then {fate:?}");
    }
}

fuzz_target!(|script: &[u8]| {
    let session = Session { user: "u".into(), password: None, database: "d".into(), parameters: vec![] };
    let limits = Limits { message_len_max_bytes: 256, send_len_max_bytes: 512, in_flight_calls_max: 8 };
    let mut lane = Connection::new(&session, &STATEMENTS, limits);
    let mut ledger = Ledger::default();
    lane.send_advance(lane.send_pending().len());
    for &byte in STARTED {
        lane.recv_space()[0] = byte;
        lane.recv_commit(1);
        ledger.drain(&mut lane);
        lane.send_advance(lane.send_pending().len());
    }
    for (ticket, &step) in (0..).zip(script) {
        match step {
            0..64 if lane.is_ready() => {
                if lane.call(ticket, 0, &[Value::Int4(i32::from(step))]).is_ok() {
                    ledger.fates.insert(ticket, Fate::Open);
                }
            }
            64..96 if lane.has_open_batch() => lane.sync(),
            96..128 => {
                let pending = lane.send_pending().len();
                lane.send_advance(pending.min(usize::from(step - 95)));
            }
            128..=254 => {
                let message = MESSAGES[usize::from(step % 8)];
                let space = lane.recv_space();
                if space.len() >= message.len() {
                    space[..message.len()].copy_from_slice(message);
                    lane.recv_commit(message.len());
                }
            }
            255 => lane.close(CloseReason::PeerClosed),
            _ => {}
        }
        ledger.drain(&mut lane);
    }
    lane.close(CloseReason::PeerClosed);
    ledger.drain(&mut lane);
    assert!(ledger.fates.values().all(|fate| *fate == Fate::Ended), "{:?}", ledger.fates);
    assert_eq!(lane.in_flight_calls(), 0);
});
