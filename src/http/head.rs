//! CORE: HTTP/1.1 on the wire: the head of a request and what it says about framing. Knows no route.
//!
//! Where the specification lets a server choose between refusing and repairing, this one refuses: what two parties
//! may read differently is how requests are smuggled past a proxy.
//!
//! Format: RFC 9112 (HTTP/1.1) and RFC 9110 (HTTP Semantics).

use std::mem::MaybeUninit;

use crate::http::response::{Persistence, Status};
use crate::http::uri;

/// What one request may measure. Each has its status in [`Violation`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Request line and all fields, with the empty line that ends them.
    pub head_len_max_bytes: usize,
    /// The request target alone.
    pub target_len_max_bytes: usize,
    /// The content, after the chunked coding is taken off.
    pub body_len_max_bytes: usize,
}

/// Fields of one head. A constant, since the parser keeps them on the stack.
pub const FIELDS_MAX: usize = 64;

/// Why the bytes are no request that can be served. After any of these the connection's framing is lost: it is
/// answered and closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// 400: not HTTP/1.1, or open to more than one reading. The text says what is wrong.
    Malformed(&'static str),
    /// 408: the rest did not arrive in time.
    TooSlow,
    /// 413: the content, declared or chunked, is over its limit, or the chunked coding around it is.
    BodyTooLong,
    /// 414: the request target is over its limit.
    TargetTooLong,
    /// 431: the head is over its limit in bytes or fields.
    HeadTooLong,
    /// 501: a transfer coding other than chunked.
    UnsupportedCoding,
    /// 501: a method that is about no resource: `CONNECT`, or `OPTIONS` of `*`.
    UnsupportedMethod,
    /// 505: a version other than 1.0 and 1.1.
    UnsupportedVersion,
}

impl Violation {
    /// The status that this violation is answered with.
    pub fn status(self) -> Status {
        match self {
            Violation::Malformed(_) => Status::BadRequest,
            Violation::TooSlow => Status::RequestTimeout,
            Violation::BodyTooLong => Status::ContentTooLarge,
            Violation::TargetTooLong => Status::UriTooLong,
            Violation::HeadTooLong => Status::RequestHeaderFieldsTooLarge,
            Violation::UnsupportedCoding | Violation::UnsupportedMethod => Status::NotImplemented,
            Violation::UnsupportedVersion => Status::HttpVersionNotSupported,
        }
    }

    /// What is wrong, for the body of the answer.
    pub fn reason(self) -> &'static str {
        match self {
            Violation::Malformed(reason) => reason,
            Violation::TooSlow => "the request did not arrive in time",
            Violation::BodyTooLong => "the body is too long",
            Violation::TargetTooLong => "the request target is too long",
            Violation::HeadTooLong => "the head is too long or has too many fields",
            Violation::UnsupportedCoding => "the only transfer coding supported is chunked",
            Violation::UnsupportedMethod => "neither CONNECT nor OPTIONS of the whole server is supported",
            Violation::UnsupportedVersion => "the only versions supported are HTTP/1.0 and HTTP/1.1",
        }
    }
}

/// The head of one request.
#[derive(Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// As sent: methods are case-sensitive.
    pub method: &'a str,
    /// The path of the target, without authority and query, not percent-decoded.
    pub path: &'a str,
    /// How the content that follows is delimited.
    pub framing: Framing,
    /// What becomes of the connection after the answer.
    pub persistence: Persistence,
    /// Whether the client waits for `100 Continue` before it sends the content.
    pub expects_continue: bool,
    /// Where the content starts.
    pub len_bytes: usize,
}

/// How the content of a request is delimited (RFC 9112, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// `Content-Length`, or 0 where no field says anything.
    Length {
        /// Bytes of content, within [`Limits::body_len_max_bytes`].
        len_bytes: usize,
    },
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// Bytes of the whole empty lines that `bytes` starts with. They are ignored before a request line, where old clients put
/// one behind the content of a POST (RFC 9112, section 2.2).
pub fn empty_lines_len_bytes(bytes: &[u8]) -> usize {
    2 * bytes.chunks_exact(2).take_while(|pair| pair == b"\r\n").count()
}

/// Reads the head of a request from the start of `bytes`. `Ok(None)` means that more bytes are needed.
///
/// The caller has dropped the empty lines before it ([`empty_lines_len_bytes`]).
///
/// # Errors
/// A [`Violation`]: nothing after it on this connection can be trusted.
// Out of line, so that profiles name it.
#[inline(never)]
pub fn parse_head<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Option<Head<'a>>, Violation> {
    // The parser would skip these, bare line feeds among them.
    if let Some(b'\r' | b'\n') = bytes.first() {
        return Err(NO_CRLF);
    }
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(bytes, &mut fields);
    let is_target_too_long = match request.path {
        Some(target) => target.len() > limits.target_len_max_bytes,
        None => starts_with_too_long_target(bytes, limits),
    };
    if is_target_too_long {
        return Err(Violation::TargetTooLong);
    }
    let len_bytes = match parsed {
        Ok(httparse::Status::Complete(len_bytes)) => len_bytes,
        Ok(httparse::Status::Partial) if bytes.len() >= limits.head_len_max_bytes => {
            return Err(Violation::HeadTooLong);
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Violation::HeadTooLong),
        Err(httparse::Error::Version) => return other_version(bytes, limits),
        Err(httparse::Error::Token) => return Err(Violation::Malformed("the request line is malformed")),
        Err(httparse::Error::NewLine) => return Err(NO_CRLF),
        Err(httparse::Error::HeaderName) => return Err(Violation::Malformed("a field name is malformed")),
        Err(httparse::Error::HeaderValue) => return Err(Violation::Malformed("a field value is malformed")),
        Err(httparse::Error::Status) => return Err(Violation::Malformed("the head is malformed")),
    };
    if len_bytes > limits.head_len_max_bytes {
        return Err(Violation::HeadTooLong);
    }
    if has_bare_line_feed(&bytes[..len_bytes]) {
        return Err(NO_CRLF);
    }
    let (Some(method), Some(target), Some(minor_version)) = (request.method, request.path, request.version)
    else {
        return Err(Violation::Malformed("the request line is malformed"));
    };
    let is_1_1 = minor_version == 1;
    let fields = Fields::read(request.headers)?;
    if is_1_1 && !fields.has_host {
        return Err(Violation::Malformed("the Host field is missing"));
    }
    let framing = fields.framing(is_1_1, limits)?;
    // Their targets have a form of their own (RFC 9112, sections 3.2.3 and 3.2.4). Behind a CONNECT may come no more HTTP.
    if method == "CONNECT" || (target == "*" && method == "OPTIONS") {
        return Err(Violation::UnsupportedMethod);
    }
    let Some(path) = uri::path_of_target(target) else {
        return Err(Violation::Malformed("the request target is malformed"));
    };
    Ok(Some(Head {
        method,
        path,
        framing,
        persistence: fields.persistence(is_1_1),
        expects_continue: is_1_1 && fields.expects_continue,
        len_bytes,
    }))
}

const NO_CRLF: Violation = Violation::Malformed("a line does not end in CRLF");

/// What the fields say about the message itself; all others are passed over.
#[derive(Default)]
struct Fields {
    has_host: bool,
    content_length: Option<ContentLength>,
    transfer_coding: Option<TransferCodings>,
    says_close: bool,
    says_keep_alive: bool,
    expects_continue: bool,
}

#[derive(Clone, Copy)]
enum ContentLength {
    Bytes(usize),
    /// All digits, but more than a machine word holds.
    Huge,
}

/// The list of transfer codings, which may come in several fields (RFC 9110, section 5.3).
#[derive(Clone, Copy)]
enum TransferCodings {
    None,
    Chunked,
    /// Others, without chunked or with it as the last.
    Unsupported {
        is_last_chunked: bool,
    },
    /// Something follows `chunked`, which has to be the last and stand there once (RFC 9112, section 6.1).
    Misplaced,
}

impl Fields {
    fn read(fields: &[httparse::Header<'_>]) -> Result<Fields, Violation> {
        let mut found = Fields::default();
        for field in fields {
            let value = field.value.trim_ascii();
            if field.name.eq_ignore_ascii_case("host") {
                if found.has_host {
                    return Err(Violation::Malformed("the Host field is repeated"));
                }
                if !value.is_empty() && !uri::is_host_and_port(value) {
                    return Err(Violation::Malformed("the Host field is malformed"));
                }
                found.has_host = true;
            } else if field.name.eq_ignore_ascii_case("content-length") {
                if found.content_length.is_some() {
                    return Err(Violation::Malformed("Content-Length is repeated"));
                }
                found.content_length = Some(parse_content_length(value)?);
            } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
                let before = found.transfer_coding.unwrap_or(TransferCodings::None);
                found.transfer_coding = Some(members(value).fold(before, TransferCodings::then));
            } else if field.name.eq_ignore_ascii_case("connection") {
                for option in members(value) {
                    found.says_close |= option.eq_ignore_ascii_case(b"close");
                    found.says_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            } else if field.name.eq_ignore_ascii_case("expect") {
                found.expects_continue |=
                    members(value).any(|member| member.eq_ignore_ascii_case(b"100-continue"));
            }
        }
        Ok(found)
    }

    /// RFC 9112, section 6.3; every combination it calls an error or a possible attack is refused.
    fn framing(&self, is_1_1: bool, limits: &Limits) -> Result<Framing, Violation> {
        match (self.transfer_coding, self.content_length) {
            (Some(_), Some(_)) => {
                Err(Violation::Malformed("both Transfer-Encoding and Content-Length are given"))
            }
            (Some(_), None) if !is_1_1 => Err(Violation::Malformed("Transfer-Encoding needs HTTP/1.1")),
            (Some(TransferCodings::None), None) => Err(Violation::Malformed("Transfer-Encoding is empty")),
            (Some(TransferCodings::Misplaced), None) => {
                Err(Violation::Malformed("chunked is not the last transfer coding"))
            }
            (Some(TransferCodings::Unsupported { .. }), None) => Err(Violation::UnsupportedCoding),
            (Some(TransferCodings::Chunked), None) => Ok(Framing::Chunked),
            (None, Some(ContentLength::Bytes(len_bytes))) if len_bytes <= limits.body_len_max_bytes => {
                Ok(Framing::Length { len_bytes })
            }
            (None, Some(ContentLength::Bytes(_) | ContentLength::Huge)) => Err(Violation::BodyTooLong),
            (None, None) => Ok(Framing::Length { len_bytes: 0 }),
        }
    }

    fn persistence(&self, is_1_1: bool) -> Persistence {
        match (self.says_close, is_1_1, self.says_keep_alive) {
            (true, _, _) | (false, false, false) => Persistence::Close,
            (false, false, true) => Persistence::KeepAliveSaid,
            (false, true, _) => Persistence::KeepAlive,
        }
    }
}

/// The members of a comma-separated list, without the white space around them (RFC 9110, section 5.6.1).
fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

fn parse_content_length(value: &[u8]) -> Result<ContentLength, Violation> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Violation::Malformed("Content-Length is not a plain decimal"));
    }
    let bytes = value
        .iter()
        .try_fold(0usize, |sum, digit| sum.checked_mul(10)?.checked_add(usize::from(digit - b'0')));
    Ok(bytes.map_or(ContentLength::Huge, ContentLength::Bytes))
}

impl TransferCodings {
    /// The list with one more coding at its end.
    fn then(self, coding: &[u8]) -> TransferCodings {
        let is_chunked = coding.eq_ignore_ascii_case(b"chunked");
        match self {
            TransferCodings::None if is_chunked => TransferCodings::Chunked,
            TransferCodings::None | TransferCodings::Unsupported { is_last_chunked: false } => {
                TransferCodings::Unsupported { is_last_chunked: is_chunked }
            }
            TransferCodings::Chunked
            | TransferCodings::Unsupported { is_last_chunked: true }
            | TransferCodings::Misplaced => TransferCodings::Misplaced,
        }
    }
}

/// Whether a target that is not complete, or malformed somewhere, is too long before anything else is wrong: the request
/// is refused for what shows first, however much of it is here.
fn starts_with_too_long_target(bytes: &[u8], limits: &Limits) -> bool {
    let Some(method_len_bytes) = bytes.iter().position(|&byte| byte == b' ') else { return false };
    let Some(start) = bytes.get(..method_len_bytes + 1 + limits.target_len_max_bytes + 1) else {
        return false;
    };
    let mut request = httparse::Request::new(&mut []);
    matches!(request.parse(start), Ok(httparse::Status::Partial)) && request.path.is_none()
}

/// What to say of a request line that names neither HTTP/1.0 nor HTTP/1.1. The parser gives up at the first byte that is
/// in neither; whether this is HTTP of another version shows only at the end of the line.
fn other_version<'a>(bytes: &[u8], limits: &Limits) -> Result<Option<Head<'a>>, Violation> {
    let line = bytes.split_inclusive(|&byte| byte == b'\n').next().unwrap_or_default();
    let version = line.splitn(3, |&byte| byte == b' ').nth(2).map_or(line, <[u8]>::trim_ascii_end);
    let is_version_so_far = version.len() <= VERSION_FORM.len()
        && version.iter().zip(VERSION_FORM).all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            _ => byte == form,
        });
    if is_version_so_far && !line.ends_with(b"\n") && bytes.len() < limits.head_len_max_bytes {
        Ok(None)
    } else if is_version_so_far && version.len() == VERSION_FORM.len() {
        Err(Violation::UnsupportedVersion)
    } else {
        Err(Violation::Malformed("the request line names no HTTP version"))
    }
}

/// A version as RFC 9112, section 2.3, has it; 0 stands for any digit.
const VERSION_FORM: &[u8] = b"HTTP/0.0";

fn has_bare_line_feed(head: &[u8]) -> bool {
    let pairs = head.iter().zip(head.iter().skip(1));
    // Looks at every pair, found or not: without a way out the compiler takes 16 at a time.
    let bare = pairs.map(|(&before, &byte)| u8::from(byte == b'\n' && before != b'\r'));
    bare.fold(0, |found, bare| found | bare) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { head_len_max_bytes: 8_192, target_len_max_bytes: 4_096, body_len_max_bytes: 16_384 };

    fn parse(text: &str) -> Result<Option<Head<'_>>, Violation> {
        parse_head(text.as_bytes(), &LIMITS)
    }

    /// The head of a request with these fields behind a valid `Host`.
    fn with_fields(fields: &str) -> Result<(Framing, Persistence, bool), Violation> {
        let text = format!("POST / HTTP/1.1\r\nHost: bank\r\n{fields}\r\n");
        parse(&text).map(|head| head.expect("the head is whole")).map(|head| {
            assert_eq!(head.len_bytes, text.len());
            (head.framing, head.persistence, head.expects_continue)
        })
    }

    fn framing(fields: &str) -> Result<Framing, Violation> {
        with_fields(fields).map(|(framing, _, _)| framing)
    }

    fn malformed<T: std::fmt::Debug>(result: Result<T, Violation>) -> &'static str {
        match result {
            Err(Violation::Malformed(reason)) => reason,
            other => panic!("expected a malformed head, found {other:?}"),
        }
    }

    #[test]
    fn every_prefix_of_a_head_asks_for_more() {
        let text = "POST /clientes/1/transacoes?x=1 HTTP/1.1\r\nHost: bank:9999\r\nContent-Length: 5\r\n\r\n";
        for len_bytes in 0..text.len() {
            assert_eq!(parse(&text[..len_bytes]), Ok(None), "{len_bytes} bytes");
        }
        let expected = Head {
            method: "POST",
            path: "/clientes/1/transacoes",
            framing: Framing::Length { len_bytes: 5 },
            persistence: Persistence::KeepAlive,
            expects_continue: false,
            len_bytes: text.len(),
        };
        assert_eq!(parse(text), Ok(Some(expected)));
        assert_eq!(
            parse(&format!("{text}hello")).map(|head| head.map(|head| head.len_bytes)),
            Ok(Some(text.len()))
        );
    }

    /// The verdict over a whole head, before which no part of it may give another one.
    fn verdict(text: &str) -> Result<String, Violation> {
        let whole = parse(text).map(|head| head.expect("the head is whole").path.to_owned());
        for len_bytes in 0..text.len() {
            let part = parse_head(&text.as_bytes()[..len_bytes], &LIMITS);
            assert!(
                matches!(part, Ok(None)) || part.err() == whole.as_ref().err().copied(),
                "{len_bytes} of {text:?}"
            );
        }
        whole
    }

    #[test]
    fn the_target_follows_the_grammar_of_its_form() {
        let target = |target: &str| verdict(&format!("GET {target} HTTP/1.1\r\nHost: bank\r\n\r\n"));
        for (good, path) in [
            ("/healthz?a=b", "/healthz"),
            ("http://bank/healthz?x", "/healthz"),
            ("HTTPS://bank", "/"),
            ("//healthz", "//healthz"),
        ] {
            assert_eq!(target(good), Ok(path.to_owned()), "{good}");
        }
        for bad in [
            "*",
            "!",
            "healthz",
            "\"",
            "<>",
            "\\",
            "#",
            "%zz",
            "bank:80",
            "http:///healthz",
            "http://u@a/healthz",
            "/\"",
            "/<>",
            "/\\",
            "/%zz",
            "/#",
            "/\u{e4}",
            "/a?\"",
            "/a?<>",
            "/a?\\",
            "/a?%zz",
            "/a?#",
            "/a?\u{e4}",
            "/[",
            "/a?|",
        ] {
            assert_eq!(target(bad), Err(Violation::Malformed("the request target is malformed")), "{bad}");
        }
        // Not even text.
        malformed(parse_head(b"GET /\xff HTTP/1.1\r\nHost: bank\r\n\r\n", &LIMITS));
    }

    #[test]
    fn methods_about_no_resource_are_not_supported() {
        for line in ["CONNECT bank:80", "CONNECT /healthz", "CONNECT /nowhere", "CONNECT *", "OPTIONS *"] {
            let text = format!("{line} HTTP/1.1\r\nHost: bank\r\n\r\n");
            assert_eq!(verdict(&text), Err(Violation::UnsupportedMethod), "{line}");
        }
        assert!(verdict("OPTIONS /healthz HTTP/1.1\r\nHost: bank\r\n\r\n").is_ok());
        for line in ["options *", "OPTIONS **", "connect bank:80", "POST *"] {
            malformed(verdict(&format!("{line} HTTP/1.1\r\nHost: bank\r\n\r\n")));
        }
    }

    #[test]
    fn the_request_line_is_strict() {
        for line in [
            "GET  / HTTP/1.1",
            "GET /",
            "GET / HTTP/1.1 ",
            "G(T / HTTP/1.1",
            "GET / http/1.1",
            "GET / HTTP/11",
            "GET / HTTPS/1.1",
            "GET /\u{7f} HTTP/1.1",
            "GET /\t HTTP/1.1",
            " GET / HTTP/1.1",
        ] {
            malformed(parse(&format!("{line}\r\nHost: bank\r\n\r\n")));
        }
    }

    #[test]
    fn only_whole_empty_lines_count_as_such() {
        for (text, len_bytes) in [
            ("", 0),
            ("\r", 0),
            ("\r\n", 2),
            ("\r\n\r", 2),
            ("\r\n\r\nGET", 4),
            ("\n", 0),
            ("\r\n\n\r\n", 2),
            ("GET\r\n", 0),
        ] {
            assert_eq!(empty_lines_len_bytes(text.as_bytes()), len_bytes, "{text:?}");
        }
    }

    #[test]
    fn other_versions_are_named_as_such() {
        for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3.0"] {
            let text = format!("GET / {version}\r\nHost: bank\r\n\r\n");
            assert_eq!(parse(&text), Err(Violation::UnsupportedVersion), "{version}");
        }
    }

    #[test]
    fn another_version_is_named_only_when_its_line_is_whole() {
        let text = "POST / HTTP/2.1 \r\n";
        for len_bytes in 0..text.len() {
            assert_eq!(parse(&text[..len_bytes]), Ok(None), "{len_bytes} bytes");
        }
        assert_eq!(parse(text), Err(Violation::UnsupportedVersion));
        for hopeless in ["POST / HTTP/2.x", "POST / HTTP/22", "POST / HTTP/2.1x", "POST / x"] {
            assert!(matches!(parse(hopeless), Err(Violation::Malformed(_))), "{hopeless}");
        }
    }

    #[test]
    fn a_line_that_ends_in_a_bare_line_feed_is_refused() {
        for text in [
            "GET / HTTP/1.1\nHost: bank\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: bank\n\r\n",
            "GET / HTTP/1.1\r\nHost: bank\r\n\n",
            "\nGET / HTTP/1.1\r\nHost: bank\r\n\r\n",
            "\rGET / HTTP/1.1\r\nHost: bank\r\n\r\n",
            "\n",
        ] {
            assert_eq!(malformed(parse(text)), "a line does not end in CRLF", "{text:?}");
        }
        malformed(parse("GET / HTTP/1.1\r\nHost: ba\rnk\r\n\r\n"));
    }

    #[test]
    fn fields_are_strict() {
        for fields in [
            "A : b\r\n",
            " A: b\r\n",
            "A: b\r\n c\r\n",
            "A\r\n",
            ": b\r\n",
            "A: \0\r\n",
            "A: \u{7f}\r\n",
            "Ä: b\r\n",
        ] {
            malformed(with_fields(fields));
        }
        assert!(with_fields("A: tab\tand \u{e4}\r\nEmpty:\r\n").is_ok());
    }

    #[test]
    fn a_1_1_request_has_exactly_one_valid_host() {
        assert_eq!(malformed(parse("GET / HTTP/1.1\r\n\r\n")), "the Host field is missing");
        assert_eq!(malformed(with_fields("host: bank\r\n")), "the Host field is repeated");
        for host in [
            "a b",
            "a/b",
            "user@bank",
            "a\"",
            "a?b",
            ":80",
            "a:b",
            "a:1:2",
            "::1",
            "[::1",
            "]",
            "[]",
            "[zz]",
            "[::1]x",
            "a%",
            "a%zz",
            "a\u{e4}",
        ] {
            let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(malformed(verdict(&text)), "the Host field is malformed", "{host}");
        }
        for host in ["", "bank", "bank:9999", "bank:", "[::1]:80", "[v1.a]", "a_b", "a%41"] {
            assert!(verdict(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).is_ok(), "{host}");
        }
        assert!(parse("GET / HTTP/1.0\r\n\r\n").is_ok());
        malformed(parse("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"));
    }

    #[test]
    fn content_length_is_one_plain_decimal() {
        assert_eq!(framing(""), Ok(Framing::Length { len_bytes: 0 }));
        assert_eq!(framing("content-length:  16384 \r\n"), Ok(Framing::Length { len_bytes: 16_384 }));
        assert_eq!(framing("Content-Length: 000\r\n"), Ok(Framing::Length { len_bytes: 0 }));
        for too_long in ["16385", "18446744073709551616", "99999999999999999999999"] {
            assert_eq!(
                framing(&format!("Content-Length: {too_long}\r\n")),
                Err(Violation::BodyTooLong),
                "{too_long}"
            );
        }
        for value in ["", "+5", "-1", "0x5", "5,5", "5, 5", "5 5", "five", "5.0"] {
            malformed(framing(&format!("Content-Length: {value}\r\n")));
        }
        malformed(framing("Content-Length: 5\r\nContent-Length: 5\r\n"));
        malformed(framing("Content-Length: 5\r\nContent-Length: 6\r\n"));
    }

    #[test]
    fn chunked_is_the_only_transfer_coding() {
        for value in ["chunked", "CHUNKED", " chunked , ", ",chunked"] {
            assert_eq!(framing(&format!("Transfer-Encoding: {value}\r\n")), Ok(Framing::Chunked), "{value}");
        }
        for value in ["gzip", "identity", "gzip, chunked", "gzip, br, chunked", "chunkedd"] {
            let framing = framing(&format!("Transfer-Encoding: {value}\r\n"));
            assert_eq!(framing, Err(Violation::UnsupportedCoding), "{value}");
        }
        for value in
            ["", ",", "chunked, chunked", "chunked, gzip", "chunked, gzip, chunked", "gzip, chunked, chunked"]
        {
            malformed(framing(&format!("Transfer-Encoding: {value}\r\n")));
        }
        malformed(framing("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"));
        malformed(framing("Content-Length: 5\r\nTransfer-Encoding: gzip\r\n"));
        malformed(parse("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"));
    }

    #[test]
    fn a_list_of_transfer_codings_is_the_same_in_one_field_and_in_several() {
        for list in [
            "",
            ",",
            "chunked",
            ",chunked,",
            "gzip",
            "gzip,chunked",
            "gzip,br",
            "gzip,br,chunked",
            "chunked,chunked",
            "chunked,gzip",
            "chunked,gzip,chunked",
            "gzip,chunked,chunked",
        ] {
            let whole = framing(&format!("Transfer-Encoding: {list}\r\n"));
            for (at, _) in list.match_indices(',') {
                let (left, right) = (&list[..at], &list[at + 1..]);
                let fields = format!("Transfer-Encoding: {left}\r\nA: b\r\ntransfer-encoding: {right}\r\n");
                assert_eq!(framing(&fields), whole, "{list} cut at {at}");
            }
            let each = list.split(',').map(|coding| format!("Transfer-Encoding: {coding}\r\n"));
            assert_eq!(framing(&each.collect::<String>()), whole, "{list}");
        }
    }

    #[test]
    fn persistence_follows_version_and_connection_field() {
        let persistence = |version: &str, field: &str| {
            let text = format!("GET / HTTP/{version}\r\nHost: bank\r\n{field}\r\n");
            parse(&text).unwrap().unwrap().persistence
        };
        assert_eq!(persistence("1.1", ""), Persistence::KeepAlive);
        assert_eq!(persistence("1.1", "Connection: Close\r\n"), Persistence::Close);
        assert_eq!(persistence("1.1", "Connection: te, close\r\n"), Persistence::Close);
        assert_eq!(persistence("1.1", "Connection: keep-alive\r\nConnection: close\r\n"), Persistence::Close);
        assert_eq!(persistence("1.1", "Connection: closed\r\n"), Persistence::KeepAlive);
        assert_eq!(persistence("1.0", ""), Persistence::Close);
        assert_eq!(persistence("1.0", "Connection: Keep-Alive\r\n"), Persistence::KeepAliveSaid);
        assert_eq!(persistence("1.0", "Connection: keep-alive, close\r\n"), Persistence::Close);
    }

    #[test]
    fn only_a_1_1_client_expects_continue() {
        assert!(with_fields("Expect: 100-Continue\r\n").unwrap().2);
        assert!(!with_fields("Expect: something-else\r\n").unwrap().2);
        let text = "POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n";
        assert!(!parse(text).unwrap().unwrap().expects_continue);
    }

    #[test]
    fn a_head_at_its_limit_passes_and_one_byte_more_does_not() {
        let head_of = |len_bytes: usize| {
            let rest = "GET / HTTP/1.1\r\nHost: bank\r\nA: \r\n\r\n".len();
            format!("GET / HTTP/1.1\r\nHost: bank\r\nA: {}\r\n\r\n", "x".repeat(len_bytes - rest))
        };
        assert!(parse(&head_of(8_192)).unwrap().is_some());
        assert_eq!(parse(&head_of(8_193)), Err(Violation::HeadTooLong));
        let unfinished = head_of(9_000);
        assert_eq!(parse(&unfinished[..8_191]), Ok(None));
        assert_eq!(parse(&unfinished[..8_192]), Err(Violation::HeadTooLong));
    }

    #[test]
    fn the_number_of_fields_is_limited() {
        let head_of =
            |fields: usize| format!("GET / HTTP/1.1\r\nHost: bank\r\n{}\r\n", "A: b\r\n".repeat(fields - 1));
        assert!(parse(&head_of(FIELDS_MAX)).unwrap().is_some());
        assert_eq!(parse(&head_of(FIELDS_MAX + 1)), Err(Violation::HeadTooLong));
    }

    #[test]
    fn a_target_at_its_limit_passes_and_one_byte_more_does_not() {
        let head_of =
            |len_bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: bank\r\n\r\n", "x".repeat(len_bytes - 1));
        assert!(parse(&head_of(4_096)).unwrap().is_some());
        assert_eq!(parse(&head_of(4_097)), Err(Violation::TargetTooLong));
        assert_eq!(parse(&head_of(9_000)), Err(Violation::TargetTooLong));
        let unfinished = head_of(5_000);
        assert_eq!(parse(&unfinished[..4 + 4_096]), Ok(None));
        assert_eq!(parse(&unfinished[..4 + 4_097]), Err(Violation::TargetTooLong));
    }

    /// Found by fuzzing: a line that was read at once was too long, and malformed when it came byte by byte.
    #[test]
    fn a_target_both_malformed_and_too_long_is_refused_for_what_shows_first() {
        let first_refusal =
            |text: &str| (0..=text.len()).find_map(|len_bytes| parse(&text[..len_bytes]).err());
        let long = "x".repeat(5_000);
        for (text, is_too_long) in [
            (format!("GET /\u{1}{long}"), false),
            (format!("G\u{1}T /{long}"), false),
            (format!("GET /\r\n{long}"), false),
            (format!("GET  /{long}"), false),
            (format!("GET /{long}\u{1}"), true),
            (format!("GET /{long} HTTP/x"), true),
        ] {
            let at_once = parse(&text).unwrap_err();
            assert_eq!(at_once == Violation::TargetTooLong, is_too_long, "{text:.20}");
            assert_eq!(first_refusal(&text), Some(at_once), "{text:.20}");
        }
    }
}
