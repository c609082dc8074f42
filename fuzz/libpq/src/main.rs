//! Asks libpq about made-up connection strings and passwords, and compares what it reads with what `proto-pg` reads.
//!
//! `against-libpq [STRINGS [SEED]]`: string number n is made of the seed `SEED + n`, so a failure replays with
//! `against-libpq 1 THAT_SEED`. What may differ stands in a table of `docs/reference/settings.md`, whose first column is
//! read here: a difference that has no row fails, and a row that no string has shown.

mod made_up;
mod oracle;
mod scram;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::ExitCode;

use made_up::Random;
use oracle::Options;
use proto_pg::{Host, Keepalive, LoadBalanceHosts, Url, UrlError};

/// The deliberate differences.
const PAGE: &str = include_str!("../../../docs/reference/settings.md");
/// Passwords cost 8,192 rounds of a hash each.
const STRINGS_PER_PASSWORD: u64 = 500;
/// Below, it is left to chance whether every difference is shown.
const STRINGS_FOR_ALL: u64 = 100_000;
/// From this version on libpq reads white space in a URI as `proto-pg` does.
const TRIMS_SPACES: i32 = 180_000;

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|number| number.parse().ok()).collect();
    let strings = numbers.first().copied().unwrap_or(1_000_000);
    let seed = numbers.get(1).copied().unwrap_or(0);
    let keywords = oracle::keywords();
    println!("libpq {}, {strings} strings from seed {seed}", oracle::version());

    let table = PAGE.split_once("| difference | libpq | here |").map_or("", |(_, table)| table);
    // The first line is what is left of the head.
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let listed: Vec<&str> =
        rows.filter_map(|line| Some(line.strip_prefix("| `")?.split_once("` |")?.0)).collect();
    let mut failures = 0;
    if listed != DIFFERENCES {
        failures += 1;
        println!("docs/reference/settings.md lists {listed:?}, and here are {DIFFERENCES:?}");
    }

    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in seed..seed.saturating_add(strings) {
        let text = made_up::connection_string(&mut Random::new(seed), &keywords);
        match compare(&text) {
            Ok(outcome) => *counts.entry(outcome).or_default() += 1,
            Err(why) => {
                failures += 1;
                println!("seed {seed}: {text:?}: {why}");
            }
        }
        if seed % STRINGS_PER_PASSWORD == 0 {
            let password = made_up::password(&mut Random::new(seed));
            if let Err(why) = scram::log_in(&password) {
                failures += 1;
                println!("seed {seed}: password {password:?}: {why}");
            } else {
                *counts.entry("(password logs in)").or_default() += 1;
            }
        }
        if failures >= 20 {
            break;
        }
    }

    for (outcome, count) in &counts {
        println!("{count:>9} {outcome}");
    }
    for name in DIFFERENCES.iter().filter(|name| !counts.contains_key(**name)) {
        if strings >= STRINGS_FOR_ALL && !(*name == WHITE_SPACE && oracle::version() >= TRIMS_SPACES) {
            failures += 1;
            println!("no string has shown the difference {name:?}");
        }
    }
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

const NO_DEFAULT_HOST: &str = "no default host";
const NOT_SUPPORTED: &str = "not supported";
const CHECKED_AT_ONCE: &str = "checked at once";
const KEEPALIVE_RANGE: &str = "keep-alive range";
const SHORT_ADDRESS: &str = "short address";
const ABSTRACT_SOCKET: &str = "abstract socket";
const STRAY_AT: &str = "stray @";
const NOT_UTF8: &str = "not UTF-8";
const WHITE_SPACE: &str = "white space";
const NEWLINE: &str = "newline at the end";

const DIFFERENCES: [&str; 10] = [
    NO_DEFAULT_HOST,
    NOT_SUPPORTED,
    CHECKED_AT_ONCE,
    KEEPALIVE_RANGE,
    SHORT_ADDRESS,
    ABSTRACT_SOCKET,
    STRAY_AT,
    NOT_UTF8,
    WHITE_SPACE,
    NEWLINE,
];

/// Reads a string both ways.
///
/// # Errors
/// They differ, and not in a way that is listed.
fn compare(text: &str) -> Result<&'static str, String> {
    let ours = Url::parse(text);
    let plainly = judge(text, &ours, &oracle::parse(text));
    let is_uri = text.starts_with("postgresql://") || text.starts_with("postgres://");
    if plainly.is_ok() || !is_uri {
        return plainly;
    }
    let without_newline = text.trim_end_matches(['\r', '\n']);
    if without_newline.len() < text.len() && judge(text, &ours, &oracle::parse(without_newline)).is_ok() {
        return Ok(NEWLINE);
    }
    if oracle::version() < TRIMS_SPACES {
        if matches!(ours, Err(UrlError::WhiteSpace { .. })) && without_newline.contains(is_space) {
            return Ok(WHITE_SPACE);
        }
        // It was not refused, so its spaces stand at the ends of its parts.
        let without_spaces = without_newline.replace(' ', "");
        if without_spaces.len() < without_newline.len() {
            return judge(text, &ours, &oracle::parse(&without_spaces)).map(|_| WHITE_SPACE);
        }
    }
    plainly
}

fn judge(
    text: &str,
    ours: &Result<Url, UrlError>,
    theirs: &Result<Options, String>,
) -> Result<&'static str, String> {
    match (ours, theirs) {
        (Err(_), Err(_)) => Ok("(refused by both)"),
        (Ok(_), Err(error)) => Err(format!("libpq refuses it: {error}")),
        (Err(error), Ok(options)) => reason(text, error, options)
            .ok_or_else(|| format!("refused: {error}; libpq reads {}", shown(options))),
        (Ok(url), Ok(options)) => match meaning(options) {
            Some(expected) if read(url) == expected => Ok("(the same)"),
            expected => Err(format!(
                "it is {url:?}, {:?}; libpq reads {}, {expected:?}",
                url.password,
                shown(options)
            )),
        },
    }
}

fn shown(options: &Options) -> String {
    let one = |(keyword, value): (&String, &Vec<u8>)| format!("{keyword}={}", value.escape_ascii());
    options.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// Which difference it is that this is refused although libpq reads these options. None, if they give no reason to.
fn reason(text: &str, error: &UrlError, options: &Options) -> Option<&'static str> {
    let lists = ["host", "hostaddr", "port"].map(|keyword| list(options, keyword));
    let [hosts, addresses, ports] = &lists;
    let number = |name: &str| options.get(name).map(|value| integer(value));
    let (is_so, difference) = match error {
        UrlError::HostMissing => {
            let has_none = |index: usize| {
                [hosts, addresses].iter().all(|list| list.get(index).is_none_or(|it| it.is_empty()))
            };
            ((0..hosts.len().max(addresses.len()).max(1)).any(has_none), NO_DEFAULT_HOST)
        }
        UrlError::Unsupported { name: "host", .. } => {
            (hosts.iter().any(|host| host.starts_with(b"@")), ABSTRACT_SOCKET)
        }
        UrlError::Unsupported { name, .. } => {
            let value = options.get(*name)?;
            (
                !ASK_FOR_NOTHING
                    .iter()
                    .any(|(keyword, values)| keyword == name && values.contains(&&value[..])),
                NOT_SUPPORTED,
            )
        }
        UrlError::Port => (
            ports.iter().any(|port| !port.is_empty() && !matches!(integer(port), Some(1..=65_535))),
            CHECKED_AT_ONCE,
        ),
        UrlError::PortCount { .. } => {
            (ports.len() > 1 && ports.len() != hosts.len().max(addresses.len()).max(1), CHECKED_AT_ONCE)
        }
        UrlError::AddressCount { .. } => (hosts.len() != addresses.len(), CHECKED_AT_ONCE),
        UrlError::ParameterValue { name: "hostaddr", .. } => {
            let is_bad = |text: &&[u8]| !text.is_empty() && !is_address(text);
            let is_short = addresses
                .iter()
                .filter(|text| is_bad(text))
                .all(|text| text.iter().all(|byte| b"0123456789.".contains(byte)));
            (addresses.iter().any(is_bad), if is_short { SHORT_ADDRESS } else { CHECKED_AT_ONCE })
        }
        UrlError::ParameterValue { name, .. } if CHOICES.iter().any(|(keyword, _)| keyword == name) => {
            (choice(options, name).is_none(), CHECKED_AT_ONCE)
        }
        UrlError::ParameterValue { name, .. } => match number(name)? {
            None => (true, CHECKED_AT_ONCE),
            Some(number) => (number > keepalive_max(name)?, KEEPALIVE_RANGE),
        },
        // These two also of a part that a parameter overrides, which libpq does not tell.
        UrlError::StrayAt => (has_stray_at(text), STRAY_AT),
        UrlError::Encoding { .. } => (has_high_byte(text), NOT_UTF8),
        _ => return None,
    };
    is_so.then_some(difference)
}

/// Whether an `@` stands between the user and the parameters of a URI.
fn has_stray_at(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else { return false };
    let behind_user = match rest.find(['@', '/']) {
        Some(at) if rest[at..].starts_with('@') => &rest[at + 1..],
        _ => rest,
    };
    // A bracket may have a question mark in it.
    behind_user.contains('@')
}

/// Whether a byte of 128 or more is encoded.
fn has_high_byte(text: &str) -> bool {
    let is_high =
        |digits: &str| digits.starts_with(|char: char| char.is_ascii_hexdigit() && !char.is_digit(8));
    text.split('%').skip(1).any(is_high)
}

/// What a string comes to: all that has a field of [`Url`].
#[derive(Debug, PartialEq)]
struct Meaning {
    hosts: Vec<Host>,
    /// `user`, `password`, `dbname`, `options`.
    texts: [Option<String>; 4],
    application_name: Option<String>,
    /// `connect_timeout`, `tcp_user_timeout`, `keepalives_idle`, `keepalives_interval`, `keepalives_count`.
    numbers: [Option<u32>; 5],
    has_keepalive: bool,
    /// `target_session_attrs`, `load_balance_hosts`.
    choices: [&'static str; 2],
}

fn read(url: &Url) -> Meaning {
    let keepalive: Keepalive = url.keepalive.unwrap_or_default();
    Meaning {
        hosts: url.hosts.clone(),
        texts: [&url.user, &url.password, &url.database, &url.options].map(Clone::clone),
        application_name: url.application_name.clone(),
        numbers: [
            url.connect_timeout_seconds,
            url.tcp_user_timeout_ms,
            keepalive.idle_seconds,
            keepalive.interval_seconds,
            keepalive.count,
        ],
        has_keepalive: url.keepalive.is_some(),
        choices: [
            url.target_session_attrs.name(),
            match url.load_balance_hosts {
                LoadBalanceHosts::Disable => "disable",
                LoadBalanceHosts::Random => "random",
            },
        ],
    }
}

/// The values that ask for nothing which is missing.
const ASK_FOR_NOTHING: [(&str, &[&[u8]]); 11] = [
    ("sslmode", &[b"disable", b"allow", b"prefer"]),
    ("gssencmode", &[b"disable", b"prefer"]),
    ("channel_binding", &[b"disable", b"prefer"]),
    ("sslnegotiation", &[b"postgres"]),
    ("sslcertmode", &[b"disable", b"allow"]),
    ("sslcompression", &[b"", b"0"]),
    ("sslsni", &[b"", b"0", b"1"]),
    ("gssdelegation", &[b"", b"0"]),
    ("replication", &[b"", b"0", b"false", b"off", b"no"]),
    ("min_protocol_version", &[b"", b"3.0"]),
    ("max_protocol_version", &[b"", b"3.0", b"latest"]),
];

/// What libpq would do with these options, or none if it would do something that is missing here. Read off the
/// functions of `fe-connect.c` that use them.
fn meaning(options: &Options) -> Option<Meaning> {
    let asks_for_nothing = |(keyword, value): (&String, &Vec<u8>)| {
        let listed = ASK_FOR_NOTHING.iter().find(|(name, _)| name == keyword);
        FIELDS.contains(&&keyword[..])
            || listed.map_or(value.is_empty(), |(_, values)| values.contains(&&value[..]))
    };
    if !options.iter().all(asks_for_nothing) {
        return None;
    }
    let text =
        |keyword: &str| options.get(keyword).map(|value| String::from_utf8(value.clone())).transpose().ok();
    let some = |keyword: &str| text(keyword).map(|text| text.filter(|text| !text.is_empty()));
    if let Some(encoding) = some("client_encoding")? {
        let name = encoding.to_ascii_lowercase().replace(|char: char| !char.is_ascii_alphanumeric(), "");
        if !["utf8", "unicode"].contains(&&name[..]) {
            return None;
        }
    }
    let number = |keyword: &str, max: i32| match options.get(keyword) {
        Some(value) => integer(value)
            .filter(|number| *number <= max)
            .map(|number| u32::try_from(number).ok().filter(|it| *it > 0)),
        None => Some(None),
    };
    let has_keepalive = match options.get("keepalives") {
        Some(value) => integer(value)? != 0,
        None => true,
    };
    let keepalive = |keyword| {
        let number = number(keyword, keepalive_max(keyword)?)?;
        Some(number.filter(|_| has_keepalive))
    };
    Some(Meaning {
        hosts: hosts(options)?,
        texts: [some("user")?, some("password")?, some("dbname")?, some("options")?],
        application_name: match text("application_name")? {
            Some(name) => Some(name),
            None => some("fallback_application_name")?,
        },
        numbers: [
            number("connect_timeout", i32::MAX)?,
            number("tcp_user_timeout", i32::MAX)?,
            keepalive("keepalives_idle")?,
            keepalive("keepalives_interval")?,
            keepalive("keepalives_count")?,
        ],
        has_keepalive,
        choices: [choice(options, "target_session_attrs")?, choice(options, "load_balance_hosts")?],
    })
}

/// What each of these takes, its default first.
const CHOICES: [(&str, &[&str]); 2] = [
    ("target_session_attrs", &["any", "read-write", "read-only", "primary", "standby", "prefer-standby"]),
    ("load_balance_hosts", &["disable", "random"]),
];

/// The value of one of [`CHOICES`]. An empty one is none of them.
fn choice(options: &Options, keyword: &str) -> Option<&'static str> {
    let (_, choices) = CHOICES.iter().find(|(name, _)| *name == keyword)?;
    match options.get(keyword) {
        Some(value) => choices.iter().find(|choice| choice.as_bytes() == &value[..]).copied(),
        None => Some(choices[0]),
    }
}

/// The options that [`Url`] has fields for, and `client_encoding`.
const FIELDS: [&str; 18] = [
    "host",
    "hostaddr",
    "port",
    "user",
    "password",
    "dbname",
    "options",
    "application_name",
    "fallback_application_name",
    "client_encoding",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "target_session_attrs",
    "load_balance_hosts",
];

/// Where libpq would connect to, in order.
fn hosts(options: &Options) -> Option<Vec<Host>> {
    let [names, addresses, ports] = ["host", "hostaddr", "port"].map(|keyword| list(options, keyword));
    let count = if addresses.is_empty() { names.len() } else { addresses.len() };
    if (!names.is_empty() && names.len() != count) || (ports.len() > 1 && ports.len() != count) {
        return None;
    }
    let mut hosts = Vec::new();
    for index in 0..count {
        let element =
            |list: &[&[u8]]| String::from_utf8(list.get(index).copied().unwrap_or_default().to_vec()).ok();
        let port = match ports.get(if ports.len() == 1 { 0 } else { index }).copied() {
            None | Some(b"") => 5_432,
            Some(port) => u16::try_from(integer(port)?).ok().filter(|port| *port > 0)?,
        };
        let name = element(&names)?;
        let address = element(&addresses)?;
        hosts.push(match (&name[..], &address[..]) {
            ("", "") => return None,
            (_, "") if name.starts_with('@') => return None,
            (_, "") if name.starts_with('/') => Host::Unix { socket_path: format!("{name}/.s.PGSQL.{port}") },
            (_, "") => Host::Tcp { name, address: None, port },
            _ if is_address(address.as_bytes()) && (name.is_empty() || name.starts_with('/')) => {
                Host::Tcp { name: address, address: None, port }
            }
            _ if is_address(address.as_bytes()) => Host::Tcp { name, address: Some(address), port },
            _ => return None,
        });
    }
    Some(hosts).filter(|hosts| !hosts.is_empty())
}

/// A comma-separated list; one that is empty is none.
fn list<'a>(options: &'a Options, keyword: &str) -> Vec<&'a [u8]> {
    let value = options.get(keyword).map_or(&b""[..], Vec::as_slice);
    if value.is_empty() { Vec::new() } else { value.split(|byte| *byte == b',').collect() }
}

/// `parse_int_param`: `strtol`, and nothing but space behind it.
fn integer(text: &[u8]) -> Option<i32> {
    str::from_utf8(text).ok()?.trim_matches(is_space).parse().ok()
}

fn is_space(char: char) -> bool {
    matches!(char, ' ' | '\t'..='\r')
}

fn is_address(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let (plain, scope) = text.split_once('%').unwrap_or((&text, ""));
    plain.parse::<IpAddr>().is_ok_and(|address| scope.is_empty() || address.is_ipv6())
}

fn keepalive_max(keyword: &str) -> Option<i32> {
    match keyword {
        "keepalives_idle" | "keepalives_interval" => Some(32_767),
        "keepalives_count" => Some(127),
        _ => None,
    }
}
