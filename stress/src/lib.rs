//! The bench of the bank: PostgreSQL, the server's instances and nginx as private, throwaway services.
//!
//! Every piece works alone, several at a time in one process, on free ports and in directories of its own, and is
//! gone when its value is dropped, also by a panic:
//!
//! - [`Postgres`]: a new PostgreSQL server on a Unix socket.
//! - [`Instance`]: one process of the server under test.
//! - [`Nginx`]: the load balancer, from the project's own `nginx.conf`.
//! - [`Stack`]: all of them together, as `cargo stress up` starts them.
//! - [`Observer`]: Prometheus, its exporter for PostgreSQL, or InfluxDB: what the dashboards get their data from.
//! - [`mod@bench`]: a stack under load, measured, as `cargo stress run` and `cargo stress k6` do.
//! - [`mod@long_run`]: a stack under load for long, with a fault each minute, as `cargo stress soak` does; the
//!   [`judge`] holds the ledger against what clients were told, of [`traffic`] such as theirs.
//! - [`reports`]: the runs that are kept, and a page over all of them.
//! - [`Solo`]: PostgreSQL and one instance alone; [`mod@profile`] samples it under load, as `cargo stress flamegraph` does,
//!   and [`mod@syscalls`] writes down its system calls, as `cargo stress trace` does.
//! - [`mod@endurance`]: one instance under more load than it can bear, and among clients in bad faith, as `cargo stress endure`
//!   does.
//!
//! The layers below: a [`Service`] is one process with its log, its [`cgroup::Group`] of limits and its way to stop;
//! [`throwaway::Throwaway`] is a directory that disappears; [`wait::until`] waits for a condition instead of a time.
//!
//! Linux only: it relies on `/proc`, on cgroups, and on `setpriv` of util-linux.

pub mod bench;
pub mod reports;

pub mod profile;

pub mod syscalls;

pub mod endurance;
pub mod judge;
pub mod long_run;
pub mod traffic;

mod solo;
pub use solo::{Solo, SoloOptions};

mod stack;
pub use stack::{Ports, Stack, StackOptions};

mod split;
pub use split::{LIMITS, Split, TUNED_LIMITS};

mod postgresql;
pub use postgresql::{Durability, Postgres, PostgresOptions};

mod frozen;
pub use frozen::Frozen;

mod instance;
pub use instance::{Instance, InstanceOptions, Readiness};

mod nginx;
pub use nginx::{Nginx, NginxOptions};
mod nginx_conf;

mod observer;
pub use observer::Observer;
mod listening;

mod service;
pub use service::Service;

pub mod cgroup;
pub mod compile;
pub mod health;
pub mod install;
pub mod lock;
pub mod steps;
pub mod strace;
pub mod throwaway;
pub mod tools;
mod user;
pub mod wait;

mod error;
pub use error::Error;

mod left_out;
pub use left_out::left_out;

/// The client that [`Postgres::connect`] gives.
pub use postgres;
/// What [`Instance::signal`] and [`Postgres::signal`] send.
pub use rustix::process::Signal;
