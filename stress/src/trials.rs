//! What the bank is put to, and whether it keeps its promises.

mod challenge;
pub use challenge::{Challenge, ChallengeOptions, Mode};

mod ground;
pub use ground::{EndureOptions, TrialName, descriptors, require_groups};

mod promise;
pub use promise::{Percentiles, Promise, verdict};

pub mod overload;

pub mod hostile;

pub mod soak;

pub mod planted;
