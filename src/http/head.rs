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
    /// One word each for metrics.
    pub const LABELS: [&str; 8] = [
        "malformed",
        "too_slow",
        "body_too_long",
        "target_too_long",
        "head_too_long",
        "unsupported_coding",
        "unsupported_method",
        "unsupported_version",
    ];

    /// The index of its label.
    pub fn label_index(self) -> usize {
        match self {
            Violation::Malformed(_) => 0,
            Violation::TooSlow => 1,
            Violation::BodyTooLong => 2,
            Violation::TargetTooLong => 3,
            Violation::HeadTooLong => 4,
            Violation::UnsupportedCoding => 5,
            Violation::UnsupportedMethod => 6,
            Violation::UnsupportedVersion => 7,
        }
    }

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
    // Their targets have a form of their own (RFC 9112, sections 3.2.3 and 3.2.4). The bytes after a CONNECT may not be HTTP.
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

/// Whether an incomplete or malformed target exceeds its limit before its first malformed byte. So a request gets the same
/// status however it is split into reads.
fn starts_with_too_long_target(bytes: &[u8], limits: &Limits) -> bool {
    let Some(method_len_bytes) = bytes.iter().position(|&byte| byte == b' ') else { return false };
    let Some(start) = bytes.get(..method_len_bytes + 1 + limits.target_len_max_bytes + 1) else {
        return false;
    };
    let mut request = httparse::Request::new(&mut []);
    matches!(request.parse(start), Ok(httparse::Status::Partial)) && request.path.is_none()
}

/// The result for a request line that names neither HTTP/1.0 nor HTTP/1.1. The parser stops at the first byte that differs;
/// only the end of the line shows whether this is another version of HTTP.
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
mod tests;
