//! The exercises of the echo: steps 1 to 6.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::arena::{Arena, Running, Verdict};
use crate::peer::Peer;

pub(crate) fn one_client(arena: &Arena) -> Verdict {
    let program = arena.start()?;
    let mut peer = program.connect()?;
    peer.echo(b"hello")?;
    peer.echo(b"and again")
}

pub(crate) fn a_silent_client(arena: &Arena) -> Verdict {
    let program = arena.start()?;
    let _silent = program.connect()?;
    program.connect()?.echo(b"hello").map_err(|what| {
        format!("While one client is connected and says nothing, another one is not served: {what}.")
    })
}

pub(crate) fn many_clients(arena: &Arena) -> Verdict {
    let program = arena.start()?;
    let mut peers = program.connect_many(64)?;
    for round in 0..3 {
        for (index, peer) in peers.iter_mut().enumerate() {
            let text = format!("client {index}, round {round}");
            peer.echo(text.as_bytes()).map_err(|what| format!("Client {index} of 64: {what}."))?;
        }
    }
    Ok(())
}

pub(crate) fn clients_leave(arena: &Arena) -> Verdict {
    let mut program = arena.start()?;
    let mut stays = program.connect()?;
    for _ in 0..20 {
        // Leaves without reading its answer: the program's write may fail.
        program.connect()?.send(b"bye")?;
    }
    let mut ends = program.connect()?;
    ends.send(b"the end")?;
    ends.end_sending()?;
    let back = ends.receive_all().map_err(|what| {
        format!("A client ended its sending half: {what}. A read of 0 bytes is the end: close the socket.")
    })?;
    if back != b"the end" {
        return Err(format!("A client sent 7 bytes and ended; {} came back.", back.len()));
    }
    stays
        .echo(b"still here")
        .map_err(|what| format!("After others had left, a client got no answer: {what}."))?;
    program.is_alive()
}

pub(crate) fn one_thread(arena: &Arena) -> Verdict {
    let program = arena.start()?;
    let mut peers = program.connect_many(50)?;
    for peer in &mut peers {
        peer.echo(b"hello")?;
    }
    match program.threads() {
        Some(1) => Ok(()),
        Some(count) => Err(format!(
            "With 50 clients it has {count} threads. One is enough: it asks `poll` who is ready."
        )),
        None => Err("The program has ended.".into()),
    }
}

pub(crate) fn sleeps(arena: &Arena) -> Verdict {
    let program = arena.start()?;
    let mut peers = program.connect_many(3)?;
    for peer in &mut peers {
        peer.echo(b"hello")?;
    }
    program.wait_quiet()
}

const EDGE_TRIGGERED: u32 = 1 << 31;

/// Every client and the listener are registered, either all with `EPOLLET` or none.
fn registered(arena: &Arena, is_edge_triggered: bool) -> Verdict {
    let program = arena.start()?;
    let mut peers = program.connect_many(20)?;
    for peer in &mut peers {
        peer.echo(b"hello")?;
    }
    let Some(events) = program.registered() else {
        return Err("It has no `epoll` descriptor: the kernel does not keep its list.".into());
    };
    if events.len() < 21 {
        return Err(format!(
            "{} sockets are registered with `epoll`. There are 20 clients and a listener: register each once, when it is \
             accepted.",
            events.len()
        ));
    }
    let edges = events.iter().filter(|events| **events & EDGE_TRIGGERED != 0).count();
    match is_edge_triggered {
        false if edges > 0 => Err(format!(
            "{edges} sockets are registered with `EPOLLET`. This step is level-triggered; the next one is not. (mio is always \
             edge-triggered: use `rustix::event::epoll` here.)"
        )),
        true if edges < 21 => Err(format!(
            "{edges} of {} sockets are registered with `EPOLLET`: the flag `EventFlags::ET`.",
            events.len()
        )),
        _ => Ok(()),
    }
}

pub(crate) fn registered_by_level(arena: &Arena) -> Verdict {
    registered(arena, false)
}

pub(crate) fn registered_by_edge(arena: &Arena) -> Verdict {
    registered(arena, true)
}

pub(crate) fn one_edge_for_many_bytes(arena: &Arena) -> Verdict {
    let program = arena.start()?;
    let mut peer = program.connect()?;
    peer.echo(b"hello")?;
    // Below the window of a new connection, so that all of it arrives, and one edge tells.
    let bytes = pattern(0, 32 * 1024);
    program.while_stopped(|| peer.send(bytes))?;
    let back = peer.receive(bytes.len()).map_err(|what| {
        format!(
            "32,768 bytes arrived at once: {what}. The rest is still in the socket. One edge told of all of it, and none will tell \
             of the rest: read until `WouldBlock`."
        )
    })?;
    if back == bytes { Ok(()) } else { Err("32,768 bytes arrived at once, and other ones came back.".into()) }
}

pub(crate) fn one_edge_for_many_clients(arena: &Arena) -> Verdict {
    let program = arena.start()?;
    let mut peers = program.while_stopped(|| {
        let mut peers = program.connect_many(20)?;
        for peer in &mut peers {
            peer.send(b"hello")?;
        }
        Ok(peers)
    })?;
    for (index, peer) in peers.iter_mut().enumerate() {
        peer.receive(5).map_err(|what| {
            format!(
                "20 clients connected at once. Client {} got no answer: {what}. One edge told of all of them: accept until \
                 `WouldBlock`.",
                index + 1
            )
        })?;
    }
    Ok(())
}

/// More than the kernel's buffers between the two can hold, even where they have grown.
const MORE_THAN_BUFFERS_BYTES: usize = 64 * 1024 * 1024;

/// A piece of an endless stream whose bytes tell their place: at most `PIECE_MAX_BYTES`, from `start` on.
fn pattern(start: usize, len: usize) -> &'static [u8] {
    static BYTES: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..=250).cycle().take(251 + PIECE_MAX_BYTES).collect());
    &BYTES[start % 251..][..len]
}

const PIECE_MAX_BYTES: usize = 64 * 1024;

/// A client that sends as much as it can, in a thread of its own, and then ends its sending half.
struct Sender {
    /// Counts what left.
    sent_bytes: Arc<AtomicUsize>,
    thread: thread::JoinHandle<Verdict>,
}

impl Sender {
    fn start(mut peer: Peer, len: usize) -> Sender {
        let sent_bytes = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&sent_bytes);
        let thread = thread::spawn(move || {
            let mut sent = 0;
            while sent < len {
                let piece = pattern(sent, (len - sent).min(PIECE_MAX_BYTES));
                match peer.send_some(piece) {
                    Ok(n) => sent += n,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // The timeout of a write: nothing is taken. Whoever started this decides how long that may last.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(format!("the connection broke after {sent} bytes: {error}")),
                }
                count.store(sent, Ordering::Relaxed);
            }
            peer.end_sending()
        });
        Sender { sent_bytes, thread }
    }

    fn sent_bytes(&self) -> usize {
        self.sent_bytes.load(Ordering::Relaxed)
    }
}

/// A client that sends much and reads nothing, until nothing moves any more.
fn stalled(program: &Running, len: usize) -> Verdict<(Peer, Sender)> {
    let peer = program.connect()?;
    let sender = Sender::start(peer.twin()?, len);
    // A program that sleeps is not enough: on a busy machine it is the sender that did not get its turn.
    loop {
        let before_bytes = sender.sent_bytes();
        let is_over = || (sender.sent_bytes() >= len || peer.is_full()).then_some(());
        let has_stopped = program.eventually(is_over).is_some();
        if has_stopped {
            program.wait_quiet()?;
        }
        if sender.sent_bytes() == before_bytes {
            let busy = || {
                "The checker itself could not send: the machine is too busy to tell. Try again.".to_owned()
            };
            return has_stopped.then_some((peer, sender)).ok_or_else(busy);
        }
    }
}

pub(crate) fn slow_reader(arena: &Arena) -> Verdict {
    let program = arena.start()?;
    let len = MORE_THAN_BUFFERS_BYTES;
    let (mut peer, sender) = stalled(&program, len)?;
    // Now it reads, and gets all that it sent.
    let mut received = 0;
    while received < len {
        let piece = peer.receive((len - received).min(PIECE_MAX_BYTES)).map_err(|what| {
            format!(
                "A client sent {} MiB and only then began to read. After {received} bytes: {what}. What a write does not take has \
                 to stay in an outbox.",
                len >> 20
            )
        })?;
        if piece != pattern(received, piece.len()) {
            return Err(format!(
                "A client sent {} MiB and only then began to read. In the 64 KiB after byte {received} something else came back: \
                 bytes are lost. What a write does not take has to stay in an outbox.",
                len >> 20
            ));
        }
        received += piece.len();
    }
    if !peer.is_closed() {
        return Err(
            "A client ended its sending half and has all its bytes back; its connection is not closed."
                .into(),
        );
    }
    sender.thread.join().unwrap_or_else(|_| Err("the sender panicked".into()))
}

pub(crate) fn back_pressure(arena: &Arena) -> Verdict {
    let program = arena.start()?;
    let len = MORE_THAN_BUFFERS_BYTES;
    let (_peer, sender) = stalled(&program, len)?;
    if sender.sent_bytes() >= len {
        return Err(format!(
            "A client that reads nothing could send {} MiB. Its answers fill your memory, or they are lost. While the outbox is \
             full, do not read from that client.",
            len >> 20
        ));
    }
    program
        .connect()?
        .echo(b"hello")
        .map_err(|what| format!("While one client reads nothing, another one is not served: {what}."))
}

/// Long enough that the checker itself does not pause for so long.
const IDLE_MS: u32 = 1_000;

pub(crate) fn idle_clients_leave(arena: &Arena) -> Verdict {
    idle_clients_leave_while(arena, |busy| busy.echo(b"tick"))
}

/// `tick` is what a client does that must stay.
pub(crate) fn idle_clients_leave_while(arena: &Arena, tick: fn(&mut Peer) -> Verdict) -> Verdict {
    // A pause of the machine may make a busy client idle: then the result says nothing, and it is tried again.
    for _ in 0..5 {
        if let Some(verdict) = idle_clients_leave_once(arena, tick)? {
            return verdict;
        }
    }
    Err("The machine is too busy to tell: the checker paused for half a second, five times. Try again."
        .into())
}

fn idle_clients_leave_once(arena: &Arena, tick: fn(&mut Peer) -> Verdict) -> Verdict<Option<Verdict>> {
    let program = arena.start_with_idle_ms(IDLE_MS)?;
    let mut busy = program.connect()?;
    let mut idle = program.connect_many(20)?;
    let patience = program.patience().max(Duration::from_millis(u64::from(IDLE_MS) * 3));
    let deadline = Instant::now() + patience;
    let mut last_answer = Instant::now();
    loop {
        // The busy one is asked once more when they have left: it was the first to connect.
        let is_over = idle.iter_mut().all(Peer::is_closed_now);
        if !is_over && Instant::now() > deadline {
            return Ok(Some(Err(format!(
                "IDLE_MS is {IDLE_MS}. 20 clients said nothing, and some are still connected after {patience:?}. Give each a \
                 deadline."
            ))));
        }
        let result = tick(&mut busy);
        let pause = last_answer.elapsed();
        last_answer = Instant::now();
        if let Err(what) = result {
            if pause > Duration::from_millis(u64::from(IDLE_MS) / 2) {
                return Ok(None);
            }
            return Ok(Some(Err(format!(
                "A client that sends all the time was disconnected: {what}. Each event of a client has to renew its deadline."
            ))));
        }
        if is_over {
            return Ok(Some(Ok(())));
        }
    }
}

pub(crate) fn stuck_clients_leave(arena: &Arena) -> Verdict {
    let program = arena.start_with_idle_ms(IDLE_MS)?;
    let peer = program.connect()?;
    let sender = Sender::start(peer.twin()?, MORE_THAN_BUFFERS_BYTES);
    if program.eventually(|| sender.thread.is_finished().then_some(())).is_none() {
        return Err(format!(
            "IDLE_MS is {IDLE_MS}. A client sends and reads nothing; nothing moves any more, and it is still connected. Its \
             deadline has to count as well."
        ));
    }
    match sender.thread.join() {
        Ok(Err(_)) => Ok(()),
        _ => Err("A client that reads nothing could send everything: see step 5.".into()),
    }
}
