//! The bench of the bank: PostgreSQL, the server's instances and nginx as private, throwaway services; loads for them, and
//! what is measured and judged under load.
//!
//! Every piece works alone, several at a time in one process, on free ports and in directories of its own, and is gone when
//! its value is dropped, also by a panic. A room builds only on those above it:
//!
//! - [`process`]: a [`Service`] is one process with its log, its [`cgroup::Group`] of limits and its way to stop;
//!   [`throwaway::Throwaway`] is a directory that disappears; [`wait::until`] waits for a condition instead of a time.
//! - [`http`]: the one HTTP client. [`steps`]: one line for each step of a work.
//! - [`setup`]: what has to be there: programs of others, found or installed, and the server, built.
//! - [`stack`]: [`Postgres`], [`Instance`] and [`Balancer`], each alone or as a whole [`Stack`].
//! - [`load`]: what clients ask and are told; a closed and an open load, wrk and k6, attackers.
//! - [`ledger`]: whether the bank's books are right, by its counts or by what each client was told.
//! - [`measure`]: a bank under load, measured, as `cargo stress run` does. [`reports`]: the runs that are kept.
//! - [`trials`]: the challenge in k6, overload, hostile clients, the soak, and the planted bugs.
//! - [`cluster`]: the bank on several hosts, under Patroni, and what it is put to there.
//! - [`mod@profile`]: an instance sampled under load. [`mod@syscalls`]: its system calls, explained.
//!
//! What fails leaves nothing running and nothing behind, and its [`Error`] ends with the remedy where there is one.
//!
//! The subcommands are in the binary. Linux only: it relies on `/proc`, on cgroups, and on `setpriv` of util-linux.

#![allow(
    missing_docs,
    clippy::missing_errors_doc,
    reason = "a tool of this workspace, whose names say what they are: comments are for reasons, units and bounds"
)]

pub mod process;
pub use process::{Frozen, Service, cgroup, lock, throwaway, wait};

pub mod http;

mod arguments;
pub mod files;
pub mod steps;
mod table;

pub mod setup;
pub use setup::{Workplace, compile, install, left_out};

pub mod stack;
pub use stack::{
    Balancer, BalancerOptions, Bank, Instance, InstanceOptions, LIMITS, Ports, Postgres, PostgresOptions,
    Readiness, Solo, SoloOptions, Split, Stack, StackOptions, TUNED_LIMITS,
};

pub mod load;

pub mod ledger;

pub mod measure;

pub mod reports;

pub mod trials;

pub mod cluster;

pub mod profile;

pub mod syscalls;
pub use syscalls::strace;

mod error;
pub use error::Error;

/// The options of one subcommand, of a line as users write it.
///
/// # Panics
/// When they are refused.
pub fn options<T: clap::Args>(line: &str) -> T {
    let words = [""].into_iter().chain(line.split_whitespace());
    let matches = T::augment_args(clap::Command::new("stress")).get_matches_from(words);
    T::from_arg_matches(&matches).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// The client that [`Postgres::connect`] gives.
pub use postgres;
/// What [`Service::signal`] sends.
pub use rustix::process::Signal;
