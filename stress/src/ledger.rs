//! Whether the bank's books are right.

mod judge;
pub use judge::{Judge, wait_at_rest};

mod counts;
pub use counts::{Counts, settled};

mod audit;
pub use audit::{Ledger, Tally, audit};
