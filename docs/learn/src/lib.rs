//! The checker of the path in `docs/learn/path`: it runs a program, the path's own or the reader's, and says in the words
//! of the step's page what is wrong with it.
//!
//! - `steps`: the twelve steps, each with its page and its exercises.
//! - `arena`: a program that runs, as seen from outside: its address, its threads, what it has registered with `epoll`.
//! - `peer`: a client of it.
//! - `bank`: its PostgreSQL, and a proxy before it.
//! - `echo`, `http`, `calls`: the exercises of steps 1 to 6, of step 7, and of those with PostgreSQL.
//! - `mine`: the reader's folder.

#![allow(
    missing_docs,
    clippy::missing_errors_doc,
    clippy::format_push_string,
    clippy::format_collect,
    reason = "a tool of this workspace, whose names say what they are: comments are for reasons, units and bounds"
)]

pub mod steps;

pub mod mine;

mod calls;

mod http;

mod echo;

pub mod arena;

pub mod bank;

mod peer;
