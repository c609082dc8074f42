//! One line per step with its state: `postgresql 15.18 ... ready (1.2 s)`.

use std::io::{self, Write};
use std::time::Instant;

use crate::Error;

/// Where the steps are told: to the user, or to nobody, as in tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Steps {
    #[default]
    Silent,
    Printed,
}

impl Steps {
    /// Does `work` as the step `name`, telling when it begins and how it ended. `done` is the word for success.
    pub fn run<T>(self, name: &str, done: &str, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        self.tell(&format!("{name} ... "));
        let begun = Instant::now();
        let result = work();
        let state = match result {
            Ok(_) => done,
            Err(Error::Interrupted) => "interrupted",
            Err(_) => "failed",
        };
        self.tell(&format!("{state} ({:.1} s)\n", begun.elapsed().as_secs_f32()));
        result
    }

    pub fn line(self, line: &str) {
        self.tell(&format!("{line}\n"));
    }

    fn tell(self, text: &str) {
        if self == Steps::Printed {
            // A reader that went away (`| head`) is no reason to fall over: the services still have to be stopped.
            let mut out = io::stdout().lock();
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }
    }
}
