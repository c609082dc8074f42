//! Why something of the bench did not work, each with the remedy where there is one.

use std::io;
use std::path::{Path, PathBuf};

/// What went wrong. Whatever was started before the error is stopped and removed by the time it is returned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller's [`Interrupt`](crate::wait::Interrupt) was raised: Ctrl-C or SIGTERM.
    #[error("interrupted, and stopped")]
    Interrupted,
    /// Options that are right one by one contradict each other.
    #[error("{0}")]
    Usage(String),
    /// What the bank did not keep of its promises, one a line.
    #[error("{}", .0.join("\n"))]
    Broken(Vec<String>),
    /// Something outside the bench has to change first. The text is one line and ends with the remedy.
    #[error("{0}")]
    Refused(String),
    /// A service or a tool failed: `what` it did, such as `ended with exit status: 1`. In a throwaway directory the log is gone
    /// when the error arrives, but for its last lines, the `tail`.
    #[error("{name} {what}; {}", end_of(log, tail))]
    Service { name: String, what: String, log: PathBuf, tail: String },
    /// PostgreSQL refused a file, named with its line, or a statement.
    #[error("{place}: {message}")]
    Sql { place: String, message: String },
    /// The operating system refused.
    #[error("cannot {attempt}: {source}")]
    Io { attempt: String, source: io::Error },
}

impl Error {
    /// Gives an [`io::Error`] the attempt that it lacks: `.map_err(Error::io("read x"))`.
    pub fn io(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { attempt: attempt.into(), source }
    }

    /// PostgreSQL's message with its detail and hint, or the client's own.
    pub fn sql(place: impl Into<String>) -> impl FnOnce(postgres::Error) -> Error {
        move |error| {
            let message = match (error.as_db_error(), std::error::Error::source(&error)) {
                (Some(told), _) => {
                    let more = [("detail", told.detail()), ("hint", told.hint()), ("in", told.where_())];
                    let more =
                        more.into_iter().filter_map(|(label, more)| Some(format!("; {label}: {}", more?)));
                    format!("{} {}{}", told.severity(), told.message(), more.collect::<String>())
                }
                (None, Some(source)) => format!("{error}: {source}"),
                (None, None) => error.to_string(),
            };
            Error::Sql { place: place.into(), message }
        }
    }
}

fn end_of(log: &Path, tail: &str) -> String {
    match tail {
        "" => format!("its log {} is empty", log.display()),
        _ => format!("the end of its log {}:\n{tail}", log.display()),
    }
}
