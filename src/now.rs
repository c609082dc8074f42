//! CORE: a moment, as the shell hands it in. The core has no clock of its own, so a test can move time as it likes.

/// One reading of both clocks, taken once a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Microseconds since an arbitrary start; never goes back. Every wait is measured on it.
    pub monotonic_us: u64,
    /// Seconds since 1970-01-01 00:00 UTC; may jump. Only the `Date` field is made of it.
    pub unix_s: u64,
}

impl Now {
    /// The monotonic microsecond at which a wait of `wait_ms` that starts now is over.
    pub fn after_ms(self, wait_ms: u64) -> u64 {
        self.monotonic_us.saturating_add(wait_ms.saturating_mul(1_000))
    }

    /// Whether the deadline, in monotonic microseconds, has been reached.
    pub fn is_past(self, deadline_us: u64) -> bool {
        self.monotonic_us >= deadline_us
    }
}
