//! How the values of options are read.

type Parsed<T> = Result<T, String>;

pub(crate) fn positive(text: &str) -> Parsed<u32> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "a number from 1 on is needed".to_owned())
}

pub(crate) fn above_zero(text: &str) -> Parsed<f64> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "a number above 0 is needed".to_owned())
}

/// `NAME=VALUE`
pub(crate) fn setting(text: &str) -> Parsed<(String, String)> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is needed")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// `NAME=PID`
pub(crate) fn part(text: &str) -> Parsed<(String, u32)> {
    let (name, pid) = setting(text).map_err(|_| "NAME=PID is needed")?;
    Ok((name, positive(&pid)?))
}

/// Whole seconds, of `90s` or `4m`.
pub(crate) fn seconds(text: &str) -> Parsed<u32> {
    let duration = humantime::parse_duration(text).map_err(|_| "a time such as 90s or 4m is needed")?;
    u32::try_from(duration.as_secs()).map_err(|_| "that is too long".to_owned())
}

pub(crate) fn some_seconds(text: &str) -> Parsed<u32> {
    let seconds = seconds(text)?;
    if seconds > 0 { Ok(seconds) } else { Err("it has to be longer".to_owned()) }
}

pub(crate) fn url(text: &str) -> Parsed<String> {
    let host = text.strip_prefix("http://").or(text.strip_prefix("https://"));
    let url = host.filter(|host| !host.is_empty()).map(|_| text.to_owned());
    url.ok_or_else(|| "a URL that begins with http:// is needed".to_owned())
}

pub(crate) fn address(text: &str) -> Parsed<String> {
    let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    port.map(|_| text.to_owned()).ok_or_else(|| "HOST:PORT, or several with commas, is needed".to_owned())
}

/// Thousandths, of a share such as 0.15.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 10 and 64000")]
pub(crate) fn cpu_thousandths(text: &str) -> Parsed<u32> {
    let share = text.parse::<f64>().ok().filter(|share| (0.01..=64.0).contains(share));
    let thousandths = share.map(|share| (share * 1000.0).round() as u32);
    thousandths.ok_or_else(|| "a share of a CPU from 0.01 on is needed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_its_unit() {
        assert_eq!((seconds("90s"), seconds("4m"), seconds("0s")), (Ok(90), Ok(240), Ok(0)));
        for wrong in ["", "4", "m", "-1s", "4000000000m"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
