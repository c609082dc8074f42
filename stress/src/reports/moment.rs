//! A moment as people read it.

use std::time::{Duration, UNIX_EPOCH};

/// `2026-01-31T12-00-05Z`, which every file system takes.
pub(super) fn file_name(unix_s: u64) -> String {
    rfc_3339(unix_s).replace(':', "-")
}

/// `2026-01-31 12:00`
pub(super) fn minute(unix_s: u64) -> String {
    rfc_3339(unix_s).chars().take("2026-01-31T12:00".len()).map(|c| if c == 'T' { ' ' } else { c }).collect()
}

fn rfc_3339(unix_s: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(unix_s)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_in_two_ways() {
        assert_eq!(file_name(1_800_000_065), "2027-01-15T08-01-05Z");
        assert_eq!(minute(1_800_000_065), "2027-01-15 08:01");
    }
}
