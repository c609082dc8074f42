//! Processes: started, limited, stopped, waited for.

pub mod wait;

pub mod throwaway;

pub(crate) mod service;
pub use service::Service;

pub mod cgroup;

pub(crate) mod listening;
pub mod lock;
pub(crate) mod user;
