//! A bank that answers from one hand-written event loop. START HERE.
//!
//! This is the tour of one request. `ARCHITECTURE.md` has the two halves, core and shell, the words, and the invariants with the line
//! that enforces each.
//!
//! A *turn* is one pass over the loop ([`server`], [`event_loop`]). It has these stages, always in this order:
//!
//! 1. *wait*: `epoll` reports which sockets are ready. An event only sets a flag.
//! 2. *receive*: [`net::transport::fill`] moves bytes into an HTTP connection ([`engine::client::Client`]) or a connection to PostgreSQL
//!    ([`engine::lane::Lane`]).
//! 3. *advance*: [`engine::Engine::advance`] takes everything one step. [`http`] finds a complete request in the client's inbox, and
//!    [`bank`] turns it into a [`bank::Call`]. The engine queues the call. It gives every free lane its waiting calls as one batch: one
//!    transaction, one commit, one write. A lane holds answers until PostgreSQL has confirmed their commit; only then do they move to
//!    their clients.
//! 4. *send*: [`net::transport::flush`] moves pending bytes to the sockets.
//! 5. *expire*: acts on deadlines that had passed before the wait's last `epoll_wait` (the *poll*) began.
//! 6. *reap*: drops the sockets of closed connections, never earlier.
//!
//! `sim` runs all of this under seeded fault injection. It compiles only in tests and with the feature `sim`.
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
