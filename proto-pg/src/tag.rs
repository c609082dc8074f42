//! What a statement did: the tag of its `CommandComplete`, read where it lies.

use std::fmt::{self, Debug, Display, Formatter};

/// What a statement did, as the server says it: `INSERT 0 3`, `UPDATE 1`, `SELECT 10`, `COMMIT`. Borrowed from the
/// connection's inbox until the next use of the connection.
///
/// Empty for a statement without text, and for a step that runs nothing.
///
/// Format: PostgreSQL documentation, "Frontend/Backend Protocol", section Message Formats, `CommandComplete`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CommandTag<'a>(&'a [u8]);

impl<'a> CommandTag<'a> {
    /// Takes the body of a `CommandComplete`, with the zero byte at its end, or an empty body.
    pub(crate) fn from_checked(body: &'a [u8]) -> CommandTag<'a> {
        CommandTag(body.split_last().map_or(body, |(_zero, tag)| tag))
    }

    /// The whole tag. Empty if it is not UTF-8, which no server sends.
    pub fn as_str(&self) -> &'a str {
        std::str::from_utf8(self.0).unwrap_or_default()
    }

    /// How many rows it inserted, updated, deleted, merged, selected, fetched, moved or copied. `None` for a command
    /// that counts no rows, such as `CREATE TABLE`.
    pub fn rows(&self) -> Option<u64> {
        let digits = self.0.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let digits = &self.0[self.0.len() - digits..];
        // Nothing, or more than a count can be.
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    /// The command: the tag without the numbers behind it, such as `INSERT` or `CREATE TABLE`.
    pub fn command(&self) -> &'a str {
        self.as_str().trim_end_matches(|c: char| c.is_ascii_digit() || c == ' ')
    }
}

impl Display for CommandTag<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(&self.0.escape_ascii(), f)
    }
}

impl Debug for CommandTag<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "CommandTag({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source of the tags: PostgreSQL's `cmdtaglist.h`.
    #[test]
    fn rows_are_counted_for_those_commands_that_have_them() {
        for (body, command, rows) in [
            (&b"INSERT 0 3\0"[..], "INSERT", Some(3)),
            (b"INSERT 16384 1\0", "INSERT", Some(1)),
            (b"UPDATE 0\0", "UPDATE", Some(0)),
            (b"SELECT 18446744073709551615\0", "SELECT", Some(u64::MAX)),
            (b"SELECT 18446744073709551616\0", "SELECT", None),
            (b"CREATE TABLE AS\0", "CREATE TABLE AS", None),
            (b"COMMIT\0", "COMMIT", None),
            (b"\0", "", None),
            (b"", "", None),
            (b"COPY 5\0", "COPY", Some(5)),
            (b"7\0", "", Some(7)),
        ] {
            let tag = CommandTag::from_checked(body);
            assert_eq!((tag.command(), tag.rows()), (command, rows), "{}", body.escape_ascii());
        }
        assert_eq!(CommandTag::from_checked(b"UPDATE 1\xff\0").to_string(), r"UPDATE 1\xff");
    }
}
