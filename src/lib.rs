//! A bank that answers from one hand-written event loop. START HERE.
//!
//! `ARCHITECTURE.md` has the map on one page; this is the tour. The library is two halves. The **core** decides everything and touches
//! nothing: it takes bytes and the time, and gives bytes and events. The **shell** ([`server`] and most of [`net`]) owns sockets, `Poll`,
//! the clock, the signals and the log, and decides nothing. The shell is the feature `shell`; without it the core, the event loop and
//! the simulation compile, so the core cannot name a socket. The core therefore runs the same under the real loop, in the simulation,
//! and under a test that cuts its input between any two bytes.
//!
//! # Words
//!
//! A *client* is one HTTP connection. A *lane* is one connection to PostgreSQL; the *reader*, off by default, is a lane to a standby. A
//! *call* is a request that needs PostgreSQL. A *batch* is the calls that share one transaction. A *turn* is one pass over the loop. A
//! *poll* is the `epoll_wait` before it.
//!
//! # One request, forward only
//!
//! A turn of the loop ([`server`], [`event_loop`]) has these stages, always in this order:
//!
//! 1. *wait*: `epoll` tells which sockets are ready. An event only sets a flag.
//! 2. *receive*: [`net::transport::fill`] moves bytes into a [`engine::client::Client`] or a [`engine::lane::Lane`].
//! 3. *advance*: [`engine::Engine::advance`] takes everything one step. A client has [`http`] find a complete request and [`bank`] turn it
//!    into a [`bank::Call`]. The engine queues it, and gives every free lane what waits as one batch: one transaction, one commit, one
//!    write. A lane holds answers until PostgreSQL has confirmed their commit; only then do they move to their clients.
//! 4. *send*: [`net::transport::flush`] moves pending bytes to the sockets.
//! 5. *expire*: deadlines that had passed before the wait began are acted on.
//! 6. *reap*: closed clients are dropped, never earlier.
//!
//! # What always holds
//!
//! * A 200 is written only after its transaction was committed.
//! * A call that may have run is never sent again: it is answered 503, and counted as in doubt.
//! * A late answer finds a stale [`slots::Slot`] and is dropped; it never reaches another client.
//! * Every queue, buffer and wait has its limit in [`config`].
//!
//! `sim` checks these invariants under seeded fault injection. It compiles in tests and with the feature `sim` alone.
//!
//! The modules stand in reading order; each uses only those after it.

#[cfg(feature = "shell")]
pub mod server;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod event_loop;
pub mod net;
pub mod engine;
pub mod metrics;
pub mod bank;
pub mod config;
pub mod http;
pub mod buf;
pub mod slots;
pub mod now;
pub mod random;
