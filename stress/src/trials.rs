//! What the bank is put to, and whether it keeps its promises.

mod challenge;
pub use challenge::{Challenge, ChallengeOptions, Mode, Target};

mod ground;
pub use ground::{EndureOptions, descriptors, require_groups};

mod promise;
pub use promise::{Percentiles, Promise, verdict};

pub mod overload;

pub mod hostile;

pub mod soak;

pub mod planted;
