//! CORE: a moment, as the shell hands it in. The core has no clock of its own, so a test can move time as it likes.

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Microseconds since an arbitrary start; never goes back. Every wait is measured on it.
    pub monotonic_us: u64,
    /// When the last `epoll_wait` began, on the same clock: the *poll* of the sockets. Deadlines are judged by it, because the
    /// process may be stopped at any point after the poll (SIGSTOP, CPU quota), and does not know yet what arrives meanwhile.
    pub looked_us: u64,
    /// Seconds since 1970-01-01 00:00 UTC; may jump. Only the `Date` field is made of it.
    pub unix_s: u64,
}

impl Now {
    /// A turn that begins and ends at this time.
    #[cfg(test)]
    pub(crate) fn at_us(monotonic_us: u64) -> Now {
        Now { monotonic_us, looked_us: monotonic_us, ..Now::default() }
    }

    /// The monotonic microsecond at which a wait of `wait_ms` that starts now is over.
    pub fn after_ms(self, wait_ms: u64) -> u64 {
        self.monotonic_us.saturating_add(wait_ms.saturating_mul(1_000))
    }

    /// Whether the deadline, in monotonic microseconds, had been reached when the last poll of the sockets began. So
    /// everything that was ready before the deadline is known by now.
    pub fn is_past(self, deadline_us: u64) -> bool {
        self.looked_us >= deadline_us
    }
}
