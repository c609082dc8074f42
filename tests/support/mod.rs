//! What the integration tests share: a private PostgreSQL with a fresh database per test, one server per test, and a
//! client that sends and reads bytes.

// Each test binary compiles this module for itself and uses its own part of it.
#![allow(dead_code, unused_imports, unused_macros, reason = "each test binary uses its own part")]

pub(crate) mod balanced;
pub(crate) mod bank;
pub(crate) mod cluster;
pub(crate) mod edge;
pub(crate) mod framing;
pub(crate) mod load;
pub(crate) mod pgbouncer;
pub(crate) mod proxy;
pub(crate) mod session;
pub(crate) mod wire;

pub(crate) use balanced::Balanced;
pub(crate) use bank::{Bank, SERVER, unsent_lock, wait_for};
pub(crate) use cluster::{Database, text_of, workspace};
pub(crate) use edge::{Edge, every_edge};
pub(crate) use proxy::Proxy;
pub(crate) use wire::{Answer, Wire, full_listener, get, post, request, transaction};
