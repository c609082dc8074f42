//! Values of the command line that several subcommands take.

use std::str::FromStr;

/// A number from 1 on.
pub(crate) fn positive(text: &str) -> Result<u32, String> {
    u32::from_str(text)
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| "a number from 1 on is needed".to_owned())
}
