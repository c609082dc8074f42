//! CORE: what a request names: the grammar of its target and of its `Host`.
//!
//! Format: RFC 3986, "URI Generic Syntax", section 3 and appendix A; RFC 9112, section 3.2, and RFC 9110, section 4.2, for
//! what of it a request may use.

// Addresses as text; there are no sockets in it.
use core::net::Ipv6Addr;

/// The path of a request target in origin form (`/path?query`) or absolute form (`http://host:port/path?query`), `/` where
/// that is empty. `None` if it is in neither or breaks its grammar.
///
/// An absolute target names a host and no user (RFC 9110, sections 4.2.1 and 4.2.4). Its scheme may be `https`: a
/// proxy in front takes off TLS and may pass on what it was asked for.
pub fn path_of_target(target: &str) -> Option<&str> {
    let path_and_query = if target.starts_with('/') { target } else { after_authority(target)? };
    let path_len_bytes = span(path_and_query.as_bytes(), PATH);
    let (path, query) = path_and_query.split_at_checked(path_len_bytes)?;
    let is_well_formed = match query.strip_prefix('?') {
        Some(query) => span(query.as_bytes(), PATH | QUERY) == query.len(),
        None => query.is_empty(),
    };
    is_well_formed.then_some(if path.is_empty() { "/" } else { path })
}

/// Whether these bytes are `uri-host [ ":" port ]` with a host that is not empty.
pub fn is_host_and_port(bytes: &[u8]) -> bool {
    let host_len_bytes = match bytes.first() {
        Some(b'[') => literal_len_bytes(bytes),
        _ => span(bytes, NAME),
    };
    match &bytes[host_len_bytes..] {
        [] => host_len_bytes > 0,
        [b':', port @ ..] => host_len_bytes > 0 && port.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// What follows the authority of an absolute target with a scheme served here.
fn after_authority(target: &str) -> Option<&str> {
    let schemes = ["http://", "https://"];
    let rest = schemes.into_iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })?;
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    is_host_and_port(authority.as_bytes()).then_some(rest)
}

/// The length of `"[" ( IPv6address / IPvFuture ) "]"` at the start of these bytes, or 0.
fn literal_len_bytes(bytes: &[u8]) -> usize {
    let Some(end) = bytes.iter().position(|&byte| byte == b']') else { return 0 };
    let Some(address) = bytes.get(1..end) else { return 0 };
    let is_address = match address {
        // `"v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" )`
        [b'v' | b'V', future @ ..] => {
            let digits = future.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
            match &future[digits..] {
                [b'.', rest @ ..] => {
                    digits > 0
                        && !rest.is_empty()
                        && rest.iter().all(|&byte| byte == b':' || CLASSES[usize::from(byte)] & NAME != 0)
                }
                _ => false,
            }
        }
        _ => str::from_utf8(address).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok()),
    };
    if is_address { end + 1 } else { 0 }
}

/// How many bytes at the start are of these classes or percent-encoded.
fn span(bytes: &[u8], classes: u8) -> usize {
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        let plain = rest.iter().position(|&byte| CLASSES[usize::from(byte)] & classes == 0);
        let Some(plain) = plain else { return bytes.len() };
        at += plain;
        match &rest[plain..] {
            [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => at += 3,
            _ => return at,
        }
    }
}

/// A registered name or an IPv4 address: `unreserved` and `sub-delims`.
const NAME: u8 = 1;
/// An absolute path: `pchar` and `/`.
const PATH: u8 = 2;
/// What a query has beside that.
const QUERY: u8 = 4;

/// The classes of each byte.
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0_u8;
    // 0x7f is in no class, nor is what follows it.
    while byte < 0x7f {
        classes[byte as usize] = match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => NAME | PATH,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => NAME | PATH,
            b':' | b'@' | b'/' => PATH,
            b'?' => QUERY,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_in_origin_and_absolute_form() {
        for (target, path) in [
            ("/", "/"),
            ("/healthz", "/healthz"),
            ("/healthz?a=/b?c", "/healthz"),
            ("/?", "/"),
            ("//healthz", "//healthz"),
            ("/a:b@c;d=e,f/..//", "/a:b@c;d=e,f/..//"),
            ("/%41%fF?%00", "/%41%fF"),
            ("/-._~!$&'()*+,;=", "/-._~!$&'()*+,;="),
            ("http://bank/healthz", "/healthz"),
            ("HTTP://bank:80/healthz?x", "/healthz"),
            ("https://bank", "/"),
            ("http://bank:", "/"),
            ("http://bank?x=/healthz", "/"),
            ("http://[::1]:80/a", "/a"),
        ] {
            assert_eq!(path_of_target(target), Some(path), "{target}");
        }
    }

    #[test]
    fn what_is_in_no_form_of_a_target_is_refused() {
        for target in [
            "",
            "*",
            "!",
            "healthz",
            "\"",
            "<>",
            "\\",
            "#",
            "?",
            "?x",
            "%",
            "%41",
            "bank:80",
            "a:b",
            "mailto:a@b",
            "ftp://bank/",
            "http:",
            "http:/",
            "http:/healthz",
            "http://",
            "http:///healthz",
            "http://?x",
            "http://:80/",
            "http://u@a/healthz",
            "http://u:p@a/",
            "http://@a/",
            "http://a:b/",
            "http://a:1:2/",
            "http://::1/",
            "http://[::1/",
            "http://[]/",
            "http://a%zz/",
            "http://a#b",
            "http://a/#b",
            "http://a\\b/",
            "http//a/",
            " /",
            "\u{e4}",
        ] {
            assert_eq!(path_of_target(target), None, "{target}");
        }
    }

    /// One table for path and query: of all bytes, only `?` is in one of them alone.
    #[test]
    fn the_bytes_of_path_and_query_are_those_of_the_grammar() {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/?".contains(c);
        for c in (0..=0x100).filter_map(char::from_u32) {
            for target in
                [format!("/{c}"), format!("/a?{c}"), format!("http://a/{c}b"), format!("http://a?{c}")]
            {
                assert_eq!(path_of_target(&target).is_some(), allowed(c), "{target:?}");
            }
        }
        for encoded in ["%", "%4", "%zz", "%4g", "%g4", "%%41", "%+4", "%4\u{e4}"] {
            for target in [format!("/{encoded}"), format!("/a?{encoded}"), format!("/{encoded}?a")] {
                assert_eq!(path_of_target(&target), None, "{target}");
            }
        }
    }

    #[test]
    fn a_host_follows_its_grammar() {
        for good in [
            "bank",
            "bank:9999",
            "bank:",
            "bank:99999999999",
            "a_b",
            "A-b.c~",
            "1.2.3.4:80",
            "999.1",
            "!$&'()*+,;=",
            "%41",
            "a%fFb:1",
            "[::]",
            "[::1]",
            "[::1]:80",
            "[::1]:",
            "[1:2:3:4:5:6:7:8]",
            "[1:2:3:4:5:6:7::]",
            "[::ffff:1.2.3.4]",
            "[1:2:3:4:5:6:1.2.3.4]",
            "[v1.a:b]",
            "[VfF.!]",
        ] {
            assert!(is_host_and_port(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":",
            ":80",
            "a:b",
            "a:1:2",
            "a:-1",
            "a:+1",
            "a: 1",
            "::1",
            "[::1",
            "::1]",
            "]",
            "[",
            "[]",
            "[]:80",
            "[zz]",
            "[::1]x",
            "[::1]80",
            "[[::1]]",
            "[1.2.3.4]",
            "[::1%25eth0]",
            "[::1%eth0]",
            "[1:2:3:4:5:6:7]",
            "[1:2:3:4:5:6:7:8:9]",
            "[1:2:3:4:5:6:7:8::]",
            "[12345::]",
            "[::1.2.3]",
            "[::01.2.3.4]",
            "[:::]",
            "[ ::1]",
            "[v.a]",
            "[v1.]",
            "[v1]",
            "[vg.a]",
            "[v1.a/b]",
            "a%",
            "a%4",
            "a%zz",
            "a b",
            "a/b",
            "a?b",
            "a#b",
            "u@a",
            "a\\b",
            "a\"",
            "<a>",
            "a\u{e4}",
            "a\u{1}",
            "a,b:c",
        ] {
            assert!(!is_host_and_port(bad.as_bytes()), "{bad}");
        }
        assert!(!is_host_and_port(b"\xff") && !is_host_and_port(b"[\xff]"));
    }
}
