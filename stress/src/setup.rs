//! What has to be there before anything can run.

pub mod compile;
pub mod install;

pub(crate) mod tools;

mod workplace;
pub use workplace::Workplace;

mod left_out;
pub use left_out::left_out;
