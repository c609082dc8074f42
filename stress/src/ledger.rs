//! Whether the bank's books are right.

mod judge;
pub use judge::Judge;

mod counts;
pub use counts::{Counts, settled};

mod audit;
pub use audit::{Ledger, Tally, audit};
