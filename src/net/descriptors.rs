//! SHELL: the limit of open files. Each client needs a descriptor, and so does each session with PostgreSQL: one that is lost
//! must find a descriptor for the next, however many clients wait.

use std::{fs, io};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for what is open only for a moment: the files and sockets of a name look-up, and a connection that is refused.
const SPARE: u64 = 8;

/// Raises the limit of open files of this process, as far as the system allows, so that `clients_max` clients and `sessions`
/// sessions fit beside what is open already. Returns how many clients fit.
///
/// # Errors
/// Not one client fits.
pub fn reserve(clients_max: u32, sessions: usize) -> io::Result<u32> {
    let others = fs::read_dir("/proc/self/fd")?.count() as u64 + sessions as u64 + SPARE;
    let wanted = others + u64::from(clients_max);
    let limit = raise_limit(wanted);
    let clients = u32::try_from(limit.saturating_sub(others)).unwrap_or(u32::MAX).min(clients_max);
    let remedy = format!("raise the limit of open files (ulimit -n) from {limit} to {wanted}");
    if clients == 0 {
        return Err(io::Error::other(format!("no descriptor is left for a client: {remedy}")));
    }
    if clients < clients_max {
        log::warn!("CLIENTS_MAX is {clients_max}, and there are descriptors for {clients} clients: {remedy}");
    }
    Ok(clients)
}

/// The limit of open files, after it was raised if it was lower than this.
fn raise_limit(wanted: u64) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(limit) = current.filter(|&limit| limit < wanted) else { return current.unwrap_or(u64::MAX) };
    let raised = wanted.min(maximum.unwrap_or(u64::MAX));
    match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }) {
        Ok(()) => raised,
        Err(_) => limit,
    }
}
