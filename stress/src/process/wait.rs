//! Waiting for a condition, with a deadline and a way to be called off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::Error;

/// A flag that calls off every wait it was given to. Clones share the flag; the default one is never raised.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Is raised by SIGINT, SIGTERM and SIGHUP, which from now on do nothing else in this process, however often
    /// they come: what was started is stopped in order, not abandoned.
    pub fn on_signals() -> Result<Interrupt, Error> {
        let interrupt = Interrupt::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&interrupt.0))
                .map_err(Error::io(format!("handle signal {signal}")))?;
        }
        Ok(interrupt)
    }

    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Asks `probe` every 10 ms until it gives a value; `None` when `patience` has passed without one.
pub fn until<T>(
    patience: Duration,
    interrupt: &Interrupt,
    mut probe: impl FnMut() -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = probe()? {
            return Ok(Some(value));
        }
        if interrupt.is_raised() {
            return Err(Error::Interrupted);
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(POLL_INTERVAL);
    }
}

pub fn pause(duration: Duration, interrupt: &Interrupt) -> Result<(), Error> {
    until(duration, interrupt, || Ok(None::<()>)).map(drop)
}

const POLL_INTERVAL: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_first_value_or_gives_up_or_is_called_off() {
        let mut asked = 0;
        let mut third = || {
            asked += 1;
            Ok((asked == 3).then_some(asked))
        };
        let interrupt = Interrupt::default();
        assert_eq!(until(Duration::ZERO, &interrupt, &mut third).unwrap(), None, "after a last look");
        assert_eq!(until(Duration::from_mins(1), &interrupt, &mut third).unwrap(), Some(3));
        interrupt.0.store(true, Ordering::Relaxed);
        let value = until(Duration::from_mins(1), &interrupt, || Ok(None::<()>));
        assert!(matches!(value, Err(Error::Interrupted)));
    }
}
