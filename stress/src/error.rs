//! Why something of the bench did not work, each with the remedy where there is one.

use std::error::Error as StdError;
use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::PathBuf;

/// What went wrong. Whatever was started before the error is stopped and removed by the time it is returned.
#[derive(Debug)]
pub enum Error {
    /// The caller's [`Interrupt`](crate::wait::Interrupt) was raised: Ctrl-C or SIGTERM.
    Interrupted,
    /// Something outside the bench has to change first. The text is one line and ends with the remedy.
    Refused(String),
    /// A service or a tool failed. Its log says why; the last lines are repeated here.
    Service {
        name: String,
        /// What it did, for example `exited with status 1`.
        what: String,
        /// The whole log. In a throwaway directory it is gone when the error arrives, but for its `tail`.
        log: PathBuf,
        tail: String,
    },
    /// A file of SQL, or a statement of ours, was refused by PostgreSQL.
    Sql {
        /// The file with its line, or the statement.
        place: String,
        /// PostgreSQL's message with its detail and hint.
        message: String,
    },
    Io {
        /// What was tried, to be read after "cannot".
        attempt: String,
        source: io::Error,
    },
}

impl Error {
    /// Gives an [`io::Error`] the attempt that it lacks: `.map_err(Error::io("read x"))`.
    pub fn io(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { attempt: attempt.into(), source }
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Error::Interrupted => f.write_str("interrupted, and stopped"),
            Error::Refused(why) => f.write_str(why),
            Error::Service { name, what, log, tail } if tail.is_empty() => {
                write!(f, "{name} {what}; its log {} is empty", log.display())
            }
            Error::Service { name, what, log, tail } => {
                write!(f, "{name} {what}; the end of its log {}:\n{tail}", log.display())
            }
            Error::Sql { place, message } => write!(f, "{place}: {message}"),
            Error::Io { attempt, source } => write!(f, "cannot {attempt}: {source}"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            Error::Interrupted | Error::Refused(_) | Error::Service { .. } | Error::Sql { .. } => None,
        }
    }
}
