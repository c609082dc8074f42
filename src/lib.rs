//! A bank that answers from one hand-written event loop. START HERE.
//!
//! The library is two halves. The **shell** (`server`, `system`, `link`, `resolver`, `watched`, `socket`, `turn`, `wire`,
//! `pump`, `token`, `log_writer`, `log_rate`, `healthcheck`) owns sockets, `Poll`, the clock and the signals. It moves bytes and decides
//! nothing: of `proto-pg` it knows the connection, as a byte pipe that it can end, and the hosts of the URL. The **core** (everything
//! else, and the crate `proto-pg`) takes bytes and the time, gives bytes and events, and never names a socket or a clock;
//! tests see to both. So the core runs the same under the real loop and under a test that cuts its input between any two bytes.
//!
//! # One request, forward only
//!
//! A turn of the loop ([`server`], [`turn`]) has five stages, always in this order:
//!
//! 1. *wait*: `epoll` tells which sockets are ready. An event only sets a flag.
//! 2. *receive*: [`pump::fill`] moves bytes into a [`client::Client`] or a [`lane::Lane`].
//! 3. *advance*: [`engine::Engine::advance`] takes everything one step. A client has [`http`] find a complete request
//!    and [`api`] turn it into a [`api::Call`]; the engine queues it, and gives every free lane what waits as one
//!    **batch**: one transaction, one commit, one write. Answers that came back are held by the lane until
//!    PostgreSQL has confirmed that commit, and only then written to their clients.
//! 4. *send*: [`pump::flush`] moves pending bytes to the sockets.
//! 5. *reap*: closed clients are dropped, never earlier.
//!
//! # What always holds
//!
//! * A 200 is written only after its transaction was committed.
//! * A call that may have run is never sent again: it is answered 503, and counted as in doubt.
//! * A late answer finds a stale [`slots::Slot`] and is dropped; it never reaches a stranger.
//! * Every queue, buffer and wait has its limit in [`config`].
//!
//! `sim` keeps it so: it runs the core in worlds made of one seed, where everything around it fails. It is there in tests
//! and with the feature `sim` alone; `docs/simulation.md` has the details.
//!
//! The modules below stand in reading order; each uses only those after it.

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
pub mod planted;
