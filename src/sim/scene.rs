//! CORE, simulation only: what all actors of a world share: its chance, its faults, its clock and its log.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use crate::now::Now;
use crate::random::Random;
use crate::sim::check::{Check, Violation};
use crate::sim::fault::Fault;

/// A handle to the scene; every actor has one.
#[derive(Clone)]
pub(crate) struct Scene(Rc<Inner>);

struct Inner {
    random: RefCell<Random>,
    /// Out of 1,000 occasions, how many a fault takes.
    rates: [u64; Fault::ALL.len()],
    strikes: RefCell<[u64; Fault::ALL.len()]>,
    /// No fault strikes any more.
    is_calm: Cell<bool>,
    now: Cell<Now>,
    hash: Cell<u64>,
    /// The last events, while they are kept.
    events: RefCell<Option<VecDeque<String>>>,
    violation: RefCell<Option<Violation>>,
    sockets: Cell<u64>,
    /// What moved on the sockets, while it is kept.
    tape: RefCell<Option<Vec<Moved>>>,
}

/// Bytes of one system call or one packet.
pub(crate) struct Moved {
    /// The [`Scene::next_socket`] of its connection.
    pub(crate) socket: u64,
    pub(crate) at_us: u64,
    pub(crate) way: Way,
    pub(crate) bytes: Vec<u8>,
}

/// Where bytes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// They arrived at the server.
    ToServer,
    /// The server read them.
    Read,
    /// The server wrote them.
    FromServer,
}

/// How many of the last events are shown with a failure.
const EVENTS_SHOWN: usize = 200;
/// The longest that an instance stands still at a time: longer than most deadlines.
pub(crate) const STILL_MAX_US: u64 = 500_000;
/// 2023-11-14: a date like any other.
const START_UNIX_S: u64 = 1_700_000_000;

impl Scene {
    /// A scene whose chance starts at the seed. About half of the faults are on, each at a rate of its own: with all of
    /// them on, each would hide the others.
    pub(crate) fn new(seed: u64, keeps_events: bool) -> Scene {
        let mut random = Random::new(seed);
        let rates = Fault::ALL.map(|fault| match random.between(0, 5) {
            0..=2 => 0,
            3 => fault.rate_max().div_ceil(10),
            4 => fault.rate_max().div_ceil(3),
            _ => fault.rate_max(),
        });
        Scene::with_rates(seed, random, &rates, keeps_events)
    }

    /// A scene without faults that keeps its events and what moves on its sockets.
    pub(crate) fn quiet(seed: u64) -> Scene {
        let scene = Scene::with_rates(seed, Random::new(seed), &[0; Fault::ALL.len()], true);
        scene.keep_tape();
        scene
    }

    fn with_rates(seed: u64, random: Random, rates: &[u64; Fault::ALL.len()], keeps_events: bool) -> Scene {
        Scene(Rc::new(Inner {
            random: RefCell::new(random),
            rates: *rates,
            strikes: RefCell::new([0; Fault::ALL.len()]),
            is_calm: Cell::new(false),
            now: Cell::new(Now { unix_s: START_UNIX_S, ..Now::default() }),
            hash: Cell::new(seed),
            events: RefCell::new(keeps_events.then(VecDeque::new)),
            violation: RefCell::new(None),
            sockets: Cell::new(0),
            tape: RefCell::new(None),
        }))
    }

    /// Keeps what moves on the sockets from now on, until it is taken.
    pub(crate) fn keep_tape(&self) {
        self.0.tape.replace(Some(Vec::new()));
    }

    /// Whether what moves on the sockets is kept.
    pub(crate) fn keeps_tape(&self) -> bool {
        self.0.tape.borrow().is_some()
    }

    /// Takes what has moved on the sockets since the last time.
    pub(crate) fn take_tape(&self) -> Vec<Moved> {
        self.0.tape.borrow_mut().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Notes that bytes moved on a socket, if that is kept.
    pub(crate) fn record<'a>(&self, socket: u64, way: Way, bytes: impl FnOnce() -> &'a [u8]) {
        if let Some(tape) = &mut *self.0.tape.borrow_mut() {
            tape.push(Moved { socket, at_us: self.now().monotonic_us, way, bytes: bytes().to_vec() });
        }
    }

    /// The number of a new connection.
    pub(crate) fn next_socket(&self) -> u64 {
        self.0.sockets.update(|number| number + 1);
        self.0.sockets.get()
    }

    /// The current moment.
    pub(crate) fn now(&self) -> Now {
        self.0.now.get()
    }

    /// Moves the clocks on.
    pub(crate) fn advance_us(&self, us: u64) {
        let monotonic_us = self.now().monotonic_us.saturating_add(us);
        self.0.now.set(Now {
            monotonic_us,
            looked_us: monotonic_us,
            unix_s: START_UNIX_S + monotonic_us / 1_000_000,
        });
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&self, end: usize) -> usize {
        let bits = self.0.random.borrow_mut().bits();
        usize::try_from(bits % end as u64).unwrap_or(0)
    }

    /// A number from `low` to `high`.
    pub(crate) fn between(&self, low: u64, high: u64) -> u64 {
        self.0.random.borrow_mut().between(low, high)
    }

    /// One of these.
    pub(crate) fn one_of<T: Copy>(&self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// True `count` times out of 1,000.
    pub(crate) fn happens(&self, count: u64) -> bool {
        self.between(0, 999) < count
    }

    /// Whether this fault takes its occasion.
    pub(crate) fn strikes(&self, fault: Fault) -> bool {
        let rate = self.0.rates[fault as usize];
        let strikes = rate > 0 && !self.0.is_calm.get() && self.happens(rate);
        if strikes {
            self.0.strikes.borrow_mut()[fault as usize] += 1;
        }
        strikes
    }

    /// An instance is at a point where it may stand still; nothing else acts meanwhile.
    pub(crate) fn may_stand_still(&self) {
        if self.strikes(Fault::StandStill) {
            let still_us = self.between(1, STILL_MAX_US);
            self.advance_us(still_us);
            self.tell(|| format!("an instance stood still for {still_us} us"));
        }
    }

    /// How often each fault struck, in the order of [`Fault::ALL`].
    pub(crate) fn count_strikes(&self) -> [u64; Fault::ALL.len()] {
        *self.0.strikes.borrow()
    }

    /// Stops all faults.
    pub(crate) fn calm_down(&self) {
        self.0.is_calm.set(true);
    }

    /// Whether the faults have stopped.
    pub(crate) fn is_calm(&self) -> bool {
        self.0.is_calm.get()
    }

    /// Records an event; the text is made only if events are kept.
    pub(crate) fn tell(&self, event: impl FnOnce() -> String) {
        if let Some(events) = &mut *self.0.events.borrow_mut() {
            if events.len() == EVENTS_SHOWN {
                events.pop_front();
            }
            events.push_back(format!("{:>10} us  {}", self.now().monotonic_us, event()));
        }
    }

    /// Mixes bytes that moved, and when, into the hash of the run.
    pub(crate) fn moved(&self, bytes: &[u8]) {
        let mut hash = self.0.hash.get() ^ self.now().monotonic_us;
        for chunk in bytes.chunks(8) {
            let word = chunk.iter().fold(chunk.len() as u64, |word, &byte| (word << 8) | u64::from(byte));
            hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
        }
        self.0.hash.set(hash);
    }

    /// The hash of all bytes moved so far.
    pub(crate) fn hash(&self) -> u64 {
        self.0.hash.get()
    }

    /// Something happened that must never happen. The first one counts.
    pub(crate) fn violate(&self, check: Check, what: impl Into<String>) {
        let mut violation = self.0.violation.borrow_mut();
        if violation.is_none() {
            let first = Violation::new(check, what);
            self.tell(|| format!("VIOLATION of {first}"));
            *violation = Some(first);
        }
    }

    /// What must never happen and did.
    pub(crate) fn violation(&self) -> Option<Violation> {
        self.0.violation.borrow().clone()
    }

    /// Whether something happened that must never happen.
    pub(crate) fn is_violated(&self) -> bool {
        self.0.violation.borrow().is_some()
    }

    /// Takes the last events, oldest first.
    pub(crate) fn take_events(&self) -> Vec<String> {
        self.0.events.borrow_mut().as_mut().map(|events| events.drain(..).collect()).unwrap_or_default()
    }

    /// The last events, oldest first; none if they were not kept.
    pub(crate) fn events(&self) -> Vec<String> {
        self.0.events.borrow().iter().flatten().cloned().collect()
    }
}
