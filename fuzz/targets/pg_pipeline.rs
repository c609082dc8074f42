//! Calls, Syncs, short sends and answers in any order: each ticket is told exactly one end, in its turn, and the true one.
//!
//! The input is a script: each byte is one step of the owner, the transport or the server.
#![no_main]

use std::collections::VecDeque;

use fuzz::{CALLS_MAX, Pieces, ready_connection};
use libfuzzer_sys::fuzz_target;
use proto_pg::{CloseReason, Connection, Event, Value};

/// What a server may say, in the order or not.
const MESSAGES: [&[u8]; 8] = [
    b"2\0\0\0\x04",
    b"D\0\0\0\x0e\0\x01\0\0\0\x04\0\0\0\x08",
    b"C\0\0\0\x0dSELECT 1\0",
    b"Z\0\0\0\x05I",
    ERROR,
    b"N\0\0\0\x1cSNOTICE\0C00000\0Mfailed\0\0",
    b"S\0\0\0\x12TimeZone\0UTC\0\0",
    b"I\0\0\0\x04",
];
const ERROR: &[u8] = b"E\0\0\0\x1bSERROR\0C40001\0Mfailed\0\0";

// Each is as long as it says: one that is not would end the connection, and with it what is tested here.
const _: () = {
    let mut index = 0;
    while index < MESSAGES.len() {
        assert!(MESSAGES[index][4] as usize + 1 == MESSAGES[index].len());
        index += 1;
    }
};

/// What the owner of a connection knows by what he did and was told, and so what he may be told next.
#[derive(Default)]
struct Ledger {
    /// Those that have not ended, oldest first. Only the newest can be without its Sync.
    batches: VecDeque<Batch>,
    /// How many bytes have left.
    sent_bytes: usize,
    /// He was told what can only be told of a connection that closes.
    is_closing: bool,
    is_closed: bool,
}

#[derive(Default)]
struct Batch {
    /// Those that still await an end, in order.
    tickets: VecDeque<u16>,
    /// How many of them, from the first on, are done.
    done: usize,
    /// How many bytes have left when its Sync has.
    sync_end: Option<usize>,
    error: Option<ErrorOf>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ErrorOf {
    OneCall,
    /// It came when all calls so far were done.
    AllCalls,
}

impl Ledger {
    /// The batch that the next call or Sync belongs to.
    fn newest(&mut self) -> &mut Batch {
        if self.batches.back().is_none_or(|batch| batch.sync_end.is_some()) {
            self.batches.push_back(Batch::default());
        }
        self.batches.back_mut().expect("there is one now")
    }

    fn oldest(&mut self) -> &mut Batch {
        self.batches.front_mut().expect("there is a batch that this can be about")
    }

    /// An error that is no call's own: the owner is told only when the batch has ended.
    fn error_arrives(&mut self) {
        if let Some(batch) = self.batches.front_mut().filter(|batch| batch.done == batch.tickets.len()) {
            batch.error.get_or_insert(ErrorOf::AllCalls);
        }
    }

    fn drain(&mut self, connection: &mut Connection<u16>) {
        while let Some(event) = connection.poll_event() {
            assert!(!self.is_closed, "{event:?} after the last word");
            match event {
                Event::RolledBack { ticket } => self.rolled_back(ticket),
                Event::InDoubt { ticket } => self.in_doubt(ticket),
                Event::Closed { .. } => self.is_closed = true,
                other => {
                    assert!(!self.is_closing, "{other:?} between the verdicts");
                    self.goes_on(&other);
                }
            }
        }
        assert_eq!(
            connection.in_flight_calls(),
            self.batches.iter().map(|batch| batch.tickets.len()).sum::<usize>()
        );
    }

    fn goes_on(&mut self, event: &Event<'_, u16>) {
        match event {
            Event::Row { ticket, .. } => assert_eq!(self.running(), *ticket),
            Event::Done { ticket, .. } => {
                assert_eq!(self.running(), *ticket);
                self.oldest().done += 1;
            }
            Event::Failed { ticket, .. } => {
                assert_eq!(self.running(), *ticket);
                let batch = self.oldest();
                batch.tickets.remove(batch.done);
                batch.error = Some(ErrorOf::OneCall);
            }
            Event::Committed => {
                let batch = self.batches.pop_front().expect("a batch to commit");
                assert!(batch.sync_end.is_some() && batch.error.is_none());
                assert_eq!(batch.done, batch.tickets.len());
            }
            Event::Aborted { error } => {
                let batch = self.batches.pop_front().expect("a batch to abort");
                assert!(batch.sync_end.is_some() && batch.tickets.is_empty());
                let told_here = if error.is_some() { ErrorOf::AllCalls } else { ErrorOf::OneCall };
                assert!(batch.error == Some(told_here));
            }
            _ => {}
        }
    }

    /// The ticket that the server works on.
    fn running(&mut self) -> u16 {
        let batch = self.oldest();
        assert!(batch.error.is_none(), "the server skips the rest of a batch that failed");
        batch.tickets[batch.done]
    }

    /// True if the batch failed, or its Sync never left.
    fn rolled_back(&mut self, ticket: u16) {
        let sent_bytes = self.sent_bytes;
        let batch = self.ends(ticket);
        if batch.error.is_none() {
            assert!(batch.sync_end.is_none_or(|sync_end| sync_end > sent_bytes), "{ticket} may have run");
            self.is_closing = true;
        }
    }

    /// True if the Sync left, and nothing came back that says more.
    fn in_doubt(&mut self, ticket: u16) {
        let sent_bytes = self.sent_bytes;
        let batch = self.ends(ticket);
        assert!(batch.error.is_none(), "{ticket} was rolled back");
        assert!(batch.sync_end.is_some_and(|sync_end| sync_end <= sent_bytes), "{ticket} never ran");
        self.is_closing = true;
    }

    /// The batch of a ticket that is told its end: it is the oldest there is.
    fn ends(&mut self, ticket: u16) -> &mut Batch {
        // Of a connection that closes, the owner is not told where a batch ends.
        while self.oldest().tickets.is_empty() {
            self.batches.pop_front();
        }
        let batch = self.oldest();
        assert_eq!(batch.tickets.pop_front(), Some(ticket));
        batch.done = batch.done.saturating_sub(1);
        batch
    }
}

fuzz_target!(|script: &[u8]| {
    let mut connection = ready_connection();
    let mut ledger = Ledger::default();
    for (ticket, &step) in (0..).zip(script) {
        match step {
            0..64
                if connection.is_ready()
                    && connection.call(ticket, 0, &[Value::Int4(step.into())]).is_ok() =>
            {
                ledger.newest().tickets.push_back(ticket);
            }
            64..96 if connection.is_ready() && connection.batches_in_flight() < CALLS_MAX.into() => {
                connection.sync();
                ledger.newest().sync_end = Some(ledger.sent_bytes + connection.send_pending().len());
            }
            96..128 => {
                let n = connection.send_pending().len().min(usize::from(step - 95));
                connection.send_advance(n);
                ledger.sent_bytes += n;
            }
            128..=253 => {
                let message = MESSAGES[usize::from(step % 8)];
                let n = Pieces::whole(message).arrive(connection.recv_space());
                connection.recv_commit(n);
                if message == ERROR {
                    ledger.error_arrives();
                }
            }
            254 if !connection.has_open_batch() => connection.terminate(),
            255 => connection.close(CloseReason::PeerClosed),
            _ => {}
        }
        ledger.drain(&mut connection);
    }
    connection.close(CloseReason::PeerClosed);
    ledger.drain(&mut connection);
    assert!(ledger.is_closed && connection.in_flight_calls() == 0);
});
