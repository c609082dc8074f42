//! A moment as people read it.

/// Year, month, day, hour, minute and second, UTC.
///
/// Format: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`: years begin in March, so
/// that the leap day is their last, and 400 of them have 146097 days.
pub(super) fn civil(unix_s: u64) -> [u64; 6] {
    let (days, second_of_day) = (unix_s / 86_400 + 719_468, unix_s % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    [year, month, day, second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60]
}

/// `2026-01-31T12-00-05Z`, which every file system takes.
pub(super) fn file_name(unix_s: u64) -> String {
    let [year, month, day, hour, minute, second] = civil(unix_s);
    format!("{year}-{month:02}-{day:02}T{hour:02}-{minute:02}-{second:02}Z")
}

/// `2026-01-31 12:00`
pub(super) fn minute(unix_s: u64) -> String {
    let [year, month, day, hour, minute, _] = civil(unix_s);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_leap_days_and_ends_of_years() {
        assert_eq!(civil(0), [1970, 1, 1, 0, 0, 0]);
        assert_eq!(civil(951_782_400), [2000, 2, 29, 0, 0, 0]);
        assert_eq!(civil(1_798_761_599), [2026, 12, 31, 23, 59, 59]);
        assert_eq!(civil(4_107_542_400), [2100, 3, 1, 0, 0, 0], "2100 has no leap day");
    }

    #[test]
    fn is_written_in_two_ways() {
        assert_eq!(file_name(1_800_000_065), "2027-01-15T08-01-05Z");
        assert_eq!(minute(1_800_000_065), "2027-01-15 08:01");
    }
}
