//! What the command lines of the subcommands have in common: help, refusals, exit statuses, and the values of options.

use std::fmt;
use std::process::ExitCode;
use std::str::FromStr;

use stress::bench::Balancer;

use crate::usage_of;

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request<T> {
    /// The text of `--help`.
    Help,
    /// The work, with these options.
    Run(T),
}

/// Does what the command line asks for. Its exit status: 0, 1 when `run` fails, 2 when the command line is refused.
pub(crate) fn subcommand<T, E: fmt::Display>(
    name: &str,
    request: Result<Request<T>, lexopt::Error>,
    help: &str,
    run: impl FnOnce(T) -> Result<(), E>,
) -> ExitCode {
    let options = match request {
        Ok(Request::Help) => {
            print!("{help}");
            return ExitCode::SUCCESS;
        }
        Ok(Request::Run(options)) => options,
        Err(error) => return usage_of(name, &error.to_string()),
    };
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo stress {name}: {error}");
            ExitCode::FAILURE
        }
    }
}

pub(crate) fn balancer_named(name: &str) -> Result<Balancer, String> {
    let all = [Balancer::Stream, Balancer::Http];
    all.into_iter()
        .find(|balancer| balancer.name() == name)
        .ok_or_else(|| "there are stream and http".to_owned())
}

pub(crate) fn positive(text: &str) -> Result<u32, String> {
    u32::from_str(text)
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| "a number from 1 on is needed".to_owned())
}

/// `NAME=VALUE`
pub(crate) fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is needed")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Seconds, of `90s` or `4m`.
pub(crate) fn seconds(text: &str) -> Result<u32, String> {
    let of = |number: &str, unit_s: u32| u32::from_str(number).ok()?.checked_mul(unit_s);
    let seconds = match (text.strip_suffix('s'), text.strip_suffix('m')) {
        (Some(number), _) => of(number, 1),
        (None, Some(number)) => of(number, 60),
        (None, None) => None,
    };
    seconds.ok_or_else(|| "a time such as 90s or 4m is needed".to_owned())
}

/// Of a bank, without a path.
pub(crate) fn url(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("http://").or(text.strip_prefix("https://"));
    host.filter(|host| !host.is_empty())
        .map(|_| text.to_owned())
        .ok_or_else(|| "a URL that begins with http:// is needed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_its_unit() {
        assert_eq!((seconds("90s"), seconds("4m"), seconds("0s")), (Ok(90), Ok(240), Ok(0)));
        for wrong in ["", "4", "m", "-1s", "1.5m", "4h", "4000000000m"] {
            assert!(seconds(wrong).unwrap_err().contains("90s or 4m"), "{wrong}");
        }
    }
}
