//! A connection URI is read or refused, never with a panic. What was read can be written and read again, and a password
//! shows nowhere, not even one that is not encoded as it should be.
#![no_main]

use std::fmt::Write as _;

use libfuzzer_sys::fuzz_target;
use proto_pg::{Host, LoadBalanceHosts, Url, UrlError};

const PASSWORD: &str = "Geheim-4711";

/// The same in other words: every part in its own place, and every byte encoded.
fn written(url: &Url) -> String {
    let mut text = String::from("postgresql://");
    let text = &mut text;
    encode(text, "", url.user.as_deref());
    encode(text, ":", url.password.as_deref());
    for (index, host) in url.hosts.iter().enumerate() {
        let (name, port) = match host {
            Host::Tcp { name, address, port } => (&address.as_ref().unwrap_or(name)[..], port.to_string()),
            Host::Unix { socket_path } => {
                let (directory, port) = socket_path.rsplit_once("/.s.PGSQL.").expect("the name of a socket");
                (directory, port.to_owned())
            }
        };
        encode(text, if index == 0 { "@" } else { "," }, Some(name));
        encode(text, ":", Some(&port));
    }
    encode(text, "/", url.database.as_deref());
    let seconds = url.connect_timeout_seconds.unwrap_or(0);
    write!(text, "?connect_timeout={seconds}").expect("memory takes text");
    if let Some(name) = &url.application_name {
        encode(text, "&application_name=", Some(name));
    }
    encode(text, "&options=", url.options.as_deref());
    write!(text, "&tcp_user_timeout={}", url.tcp_user_timeout_ms.unwrap_or(0)).expect("memory takes text");
    write!(text, "&target_session_attrs={}", url.target_session_attrs.name()).expect("memory takes text");
    let balance = match url.load_balance_hosts {
        LoadBalanceHosts::Disable => "disable",
        LoadBalanceHosts::Random => "random",
    };
    write!(text, "&load_balance_hosts={balance}").expect("memory takes text");
    write!(text, "&keepalives={}", u8::from(url.keepalive.is_some())).expect("memory takes text");
    if let Some(keepalive) = url.keepalive {
        let numbers = [
            ("idle", keepalive.idle_seconds),
            ("interval", keepalive.interval_seconds),
            ("count", keepalive.count),
        ];
        for (name, number) in numbers {
            write!(text, "&keepalives_{name}={}", number.unwrap_or(0)).expect("memory takes text");
        }
    }
    std::mem::take(text)
}

fn encode(text: &mut String, before: &str, part: Option<&str>) {
    text.push_str(before);
    for byte in part.unwrap_or_default().bytes() {
        let digit = |four_bits: u8| char::from(b"0123456789abcdef"[usize::from(four_bits)]);
        text.extend(['%', digit(byte >> 4), digit(byte & 15)]);
    }
}

fn is_c_space(char: char) -> bool {
    matches!(char, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

/// Reads a URI, and sees to it that neither what is read nor an error shows the password.
fn parse_in_secret(text: &str) -> Result<Url, UrlError> {
    let read = Url::parse(text);
    let shown = match &read {
        Ok(url) => format!("{url:?} {:?}", url.session("nobody")),
        Err(error) => format!("{error} {error:?}"),
    };
    assert!(!shown.contains(PASSWORD), "{shown}");
    read
}

fuzz_target!(|text: &str| {
    if let Ok(url) = Url::parse(text) {
        assert!(!url.hosts.is_empty());
        assert_eq!(Url::parse(&written(&url)), Ok(url));
    }
    if text.contains(PASSWORD) {
        return;
    }
    let password = format!("{text}{PASSWORD}");
    let uri = format!("postgresql://user:{password}@host");
    // Behind an `@` or a `/` it is no password, but what the URI says it is, such as the directory of a socket.
    let is_password = !text.contains(['@', '/']);
    let read =
        if is_password || Url::parse(&uri).is_err() { parse_in_secret(&uri) } else { Url::parse(&uri) };
    if !text.contains(['%', '@', '/', '\0']) && !text.contains(is_c_space) {
        assert_eq!(read.expect("no byte of it has a meaning").password, Some(password));
    }
    let _ = parse_in_secret(&format!("postgresql://user:{PASSWORD}{text}"));
    let _ = parse_in_secret(&format!("host=db user=x password={PASSWORD} {text}"));
    let _ = parse_in_secret(&format!("user:{PASSWORD}@{text}"));
});
