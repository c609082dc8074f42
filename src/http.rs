//! CORE: HTTP/1.1 on the wire: the head of a request, the framing of its body, the head of a response. Knows no route.
//!
//! Where the specification lets a server choose between refusing and repairing, this one refuses: what two parties
//! may read differently is how requests are smuggled past a proxy.
//!
//! Format: RFC 9112 (HTTP/1.1) and RFC 9110 (HTTP Semantics).

use std::io::Write as _;
use std::mem::MaybeUninit;

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
    /// 413: the content, declared or chunked, is over its limit.
    BodyTooLong,
    /// 414: the request target is over its limit.
    TargetTooLong,
    /// 431: the head is over its limit in bytes or fields.
    HeadTooLong,
    /// 501: a transfer coding other than chunked.
    UnsupportedCoding,
    /// 505: a version other than 1.0 and 1.1.
    UnsupportedVersion,
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

/// What becomes of a connection after the answer (RFC 9112, section 9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// It stays open: the rule of HTTP/1.1, so the answer need not say it.
    KeepAlive,
    /// It stays open although the client speaks 1.0: the answer has to say it.
    KeepAliveSaid,
    /// It ends with this answer.
    Close,
}

/// Reads the head of a request from the start of `bytes`. `Ok(None)` means that more bytes are needed.
///
/// # Errors
/// A [`Violation`]: nothing after it on this connection can be trusted.
pub fn parse_head<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Option<Head<'a>>, Violation> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(bytes, &mut fields);
    let target_len_bytes = request.path.map_or_else(|| unfinished_target_len(bytes), str::len);
    if target_len_bytes > limits.target_len_max_bytes {
        return Err(Violation::TargetTooLong);
    }
    let len_bytes = match parsed {
        Ok(httparse::Status::Complete(len_bytes)) => len_bytes,
        Ok(httparse::Status::Partial) if bytes.len() >= limits.head_len_max_bytes => {
            return Err(Violation::HeadTooLong);
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Violation::HeadTooLong),
        Err(httparse::Error::Version) if names_other_version(bytes) => {
            return Err(Violation::UnsupportedVersion);
        }
        Err(httparse::Error::Version) => {
            return Err(Violation::Malformed("the request line names no HTTP version"));
        }
        Err(httparse::Error::Token) => return Err(Violation::Malformed("the request line is malformed")),
        Err(httparse::Error::NewLine) => return Err(Violation::Malformed("a line does not end in CRLF")),
        Err(httparse::Error::HeaderName) => return Err(Violation::Malformed("a field name is malformed")),
        Err(httparse::Error::HeaderValue) => return Err(Violation::Malformed("a field value is malformed")),
        Err(httparse::Error::Status) => return Err(Violation::Malformed("the head is malformed")),
    };
    if len_bytes > limits.head_len_max_bytes {
        return Err(Violation::HeadTooLong);
    }
    if has_bare_line_feed(&bytes[..len_bytes]) {
        return Err(Violation::Malformed("a line does not end in CRLF"));
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
    Ok(Some(Head {
        method,
        path: path_of(target),
        framing: fields.framing(is_1_1, limits)?,
        persistence: fields.persistence(is_1_1),
        expects_continue: is_1_1 && fields.expects_continue,
        len_bytes,
    }))
}

/// What the fields say about the message itself; all others are passed over.
#[derive(Default)]
struct Fields {
    has_host: bool,
    content_length: Option<ContentLength>,
    transfer_coding: Option<TransferCoding>,
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

#[derive(Clone, Copy)]
enum TransferCoding {
    Chunked,
    Unsupported,
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
                if !value.iter().all(|&byte| is_authority_byte(byte)) {
                    return Err(Violation::Malformed("the Host field is malformed"));
                }
                found.has_host = true;
            } else if field.name.eq_ignore_ascii_case("content-length") {
                if found.content_length.is_some() {
                    return Err(Violation::Malformed("Content-Length is repeated"));
                }
                found.content_length = Some(parse_content_length(value)?);
            } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
                if found.transfer_coding.is_some() {
                    return Err(Violation::Malformed("Transfer-Encoding is repeated"));
                }
                found.transfer_coding = Some(parse_transfer_coding(value)?);
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
            (Some(TransferCoding::Unsupported), None) => Err(Violation::UnsupportedCoding),
            (Some(TransferCoding::Chunked), None) => Ok(Framing::Chunked),
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

/// `chunked` has to be the last coding and stand there once (RFC 9112, section 6.1).
fn parse_transfer_coding(value: &[u8]) -> Result<TransferCoding, Violation> {
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let codings = members(value).count();
    let chunked = members(value).filter(|coding| is_chunked(coding)).count();
    match (codings, chunked) {
        (0, _) => Err(Violation::Malformed("Transfer-Encoding is empty")),
        (1, 1) => Ok(TransferCoding::Chunked),
        (_, 0) => Ok(TransferCoding::Unsupported),
        (_, 1) if members(value).last().is_some_and(is_chunked) => Ok(TransferCoding::Unsupported),
        (_, _) => Err(Violation::Malformed("chunked is not the last transfer coding")),
    }
}

/// The bytes of `uri-host [ ":" port ]` (RFC 3986, section 3.2): unreserved, sub-delims, percent, brackets, colon.
fn is_authority_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%[]:".contains(&byte)
}

/// The path of a target in origin form or absolute form (RFC 9112, section 3.2). Others are returned as they are and
/// match no route.
fn path_of(target: &str) -> &str {
    let after_authority = ["http://", "https://"]
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
        .map_or(target, |scheme| target[scheme.len()..].trim_start_matches(|c| !matches!(c, '/' | '?')));
    let path = after_authority.split_once('?').map_or(after_authority, |(path, _query)| path);
    if path.is_empty() { "/" } else { path }
}

/// How long the target is so far, when the request line is not complete.
fn unfinished_target_len(bytes: &[u8]) -> usize {
    let mut words = bytes.splitn(3, |&byte| byte == b' ');
    words.nth(1).map_or(0, <[u8]>::len)
}

/// Whether the first line ends in `HTTP/` digit `.` digit, so that it is HTTP, but of another version.
fn names_other_version(bytes: &[u8]) -> bool {
    let mut lines =
        bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end).filter(|line| !line.is_empty());
    let version = lines.next().and_then(|line| line.rsplit(|&byte| byte == b' ').next());
    matches!(version, Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

fn has_bare_line_feed(head: &[u8]) -> bool {
    head.first() == Some(&b'\n')
        || head.windows(2).filter(|pair| pair[1] == b'\n' && pair[0] != b'\r').count() > 0
}

/// Takes the chunked coding off a body, in place and as it arrives (RFC 9112, section 7.1).
///
/// It looks at every byte once, however small the pieces are, and keeps nothing but its state: content is moved to the
/// front of the buffer it came in. Chunk extensions and trailer fields are checked and dropped.
#[derive(Debug)]
pub struct ChunkedDecoder {
    state: ChunkState,
    content_len_bytes: usize,
    /// Extensions and trailers so far: neither is content, so the limit of the body does not bound them.
    dropped_bytes: usize,
}

/// What a [`ChunkedDecoder`] expects next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkState {
    SizeFirstDigit,
    Size { size: usize },
    Extension { size: usize },
    SizeLineFeed { size: usize },
    Data { remaining_bytes: usize },
    DataCarriageReturn,
    DataLineFeed,
    TrailerLineStart,
    TrailerName,
    TrailerValue,
    TrailerLineFeed,
    LastLineFeed,
    Done,
}

/// What one call of [`ChunkedDecoder::decode`] did to its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of content, now at the front of the buffer.
    pub content_bytes: usize,
    /// Bytes of the coding that were read. Less than the buffer only when the body has ended: the rest is the next
    /// request.
    pub read_bytes: usize,
    /// Whether the body has ended.
    pub is_done: bool,
}

impl Default for ChunkedDecoder {
    fn default() -> Self {
        ChunkedDecoder { state: ChunkState::SizeFirstDigit, content_len_bytes: 0, dropped_bytes: 0 }
    }
}

impl ChunkedDecoder {
    /// Decodes bytes that were not seen before.
    ///
    /// # Errors
    /// `Malformed` for a byte that the grammar does not allow, `BodyTooLong` when the content exceeds its limit,
    /// `HeadTooLong` when extensions and trailers together exceed that of a head.
    pub fn decode(&mut self, buffer: &mut [u8], limits: &Limits) -> Result<Decoded, Violation> {
        let mut content_bytes = 0;
        let mut read_bytes = 0;
        while read_bytes < buffer.len() && self.state != ChunkState::Done {
            if let ChunkState::Data { remaining_bytes } = self.state {
                let taken_bytes = remaining_bytes.min(buffer.len() - read_bytes);
                buffer.copy_within(read_bytes..read_bytes + taken_bytes, content_bytes);
                content_bytes += taken_bytes;
                read_bytes += taken_bytes;
                self.state = match remaining_bytes - taken_bytes {
                    0 => ChunkState::DataCarriageReturn,
                    remaining_bytes => ChunkState::Data { remaining_bytes },
                };
            } else {
                self.state = self.after(buffer[read_bytes], limits)?;
                read_bytes += 1;
            }
        }
        Ok(Decoded { content_bytes, read_bytes, is_done: self.state == ChunkState::Done })
    }

    /// The state after one byte that is not content.
    fn after(&mut self, byte: u8, limits: &Limits) -> Result<ChunkState, Violation> {
        let is_dropped = matches!(
            self.state,
            ChunkState::Extension { .. }
                | ChunkState::TrailerLineStart
                | ChunkState::TrailerName
                | ChunkState::TrailerValue
        );
        self.dropped_bytes += usize::from(is_dropped);
        if self.dropped_bytes > limits.head_len_max_bytes {
            return Err(Violation::HeadTooLong);
        }
        match (self.state, byte) {
            (ChunkState::SizeFirstDigit, digit) => self.with_digit(0, digit, limits),
            (ChunkState::Size { size } | ChunkState::Extension { size }, b'\r') => {
                Ok(ChunkState::SizeLineFeed { size })
            }
            (ChunkState::Size { size }, b';') => Ok(ChunkState::Extension { size }),
            (ChunkState::Size { size }, digit) => self.with_digit(size, digit, limits),
            (ChunkState::Extension { size }, byte) if is_text(byte) => Ok(ChunkState::Extension { size }),
            (ChunkState::SizeLineFeed { size: 0 }, b'\n') => Ok(ChunkState::TrailerLineStart),
            (ChunkState::SizeLineFeed { size }, b'\n') => {
                self.content_len_bytes += size;
                Ok(ChunkState::Data { remaining_bytes: size })
            }
            (ChunkState::DataCarriageReturn, b'\r') => Ok(ChunkState::DataLineFeed),
            (ChunkState::DataLineFeed, b'\n') => Ok(ChunkState::SizeFirstDigit),
            (ChunkState::TrailerLineStart, b'\r') => Ok(ChunkState::LastLineFeed),
            (ChunkState::TrailerLineStart | ChunkState::TrailerName, byte) if is_token(byte) => {
                Ok(ChunkState::TrailerName)
            }
            (ChunkState::TrailerName, b':') => Ok(ChunkState::TrailerValue),
            (ChunkState::TrailerValue, b'\r') => Ok(ChunkState::TrailerLineFeed),
            (ChunkState::TrailerValue, byte) if is_text(byte) => Ok(ChunkState::TrailerValue),
            (ChunkState::TrailerLineFeed, b'\n') => Ok(ChunkState::TrailerLineStart),
            (ChunkState::LastLineFeed, b'\n') => Ok(ChunkState::Done),
            (
                ChunkState::TrailerLineStart
                | ChunkState::TrailerName
                | ChunkState::TrailerValue
                | ChunkState::TrailerLineFeed
                | ChunkState::LastLineFeed,
                _,
            ) => Err(Violation::Malformed("the trailer section is malformed")),
            (
                ChunkState::Extension { .. }
                | ChunkState::SizeLineFeed { .. }
                | ChunkState::DataCarriageReturn
                | ChunkState::DataLineFeed
                | ChunkState::Data { .. }
                | ChunkState::Done,
                _,
            ) => Err(Violation::Malformed("a chunk is malformed")),
        }
    }

    /// The state after one more hexadecimal digit of a chunk's size. Checked digit by digit, so it cannot overflow.
    fn with_digit(&self, size: usize, digit: u8, limits: &Limits) -> Result<ChunkState, Violation> {
        let Some(digit) = char::from(digit).to_digit(16) else {
            return Err(Violation::Malformed("a chunk size is malformed"));
        };
        let size = size * 16 + digit as usize;
        if self.content_len_bytes + size > limits.body_len_max_bytes {
            return Err(Violation::BodyTooLong);
        }
        Ok(ChunkState::Size { size })
    }
}

/// The bytes of a field name (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The bytes of a field value: visible, space, tab, and what is above ASCII (RFC 9110, section 5.5).
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// The statuses this server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named as in RFC 9110, section 15, or RFC 6585")]
pub enum Status {
    Ok,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    ContentTooLarge,
    UriTooLong,
    UnprocessableContent,
    RequestHeaderFieldsTooLarge,
    NotImplemented,
    ServiceUnavailable,
    HttpVersionNotSupported,
}

impl Status {
    /// Every status, in the order of their codes.
    pub const ALL: [Status; 12] = [
        Status::Ok,
        Status::BadRequest,
        Status::NotFound,
        Status::MethodNotAllowed,
        Status::RequestTimeout,
        Status::ContentTooLarge,
        Status::UriTooLong,
        Status::UnprocessableContent,
        Status::RequestHeaderFieldsTooLarge,
        Status::NotImplemented,
        Status::ServiceUnavailable,
        Status::HttpVersionNotSupported,
    ];

    /// Code and reason, as the status line has them.
    pub fn text(self) -> &'static str {
        match self {
            Status::Ok => "200 OK",
            Status::BadRequest => "400 Bad Request",
            Status::NotFound => "404 Not Found",
            Status::MethodNotAllowed => "405 Method Not Allowed",
            Status::RequestTimeout => "408 Request Timeout",
            Status::ContentTooLarge => "413 Content Too Large",
            Status::UriTooLong => "414 URI Too Long",
            Status::UnprocessableContent => "422 Unprocessable Content",
            Status::RequestHeaderFieldsTooLarge => "431 Request Header Fields Too Large",
            Status::NotImplemented => "501 Not Implemented",
            Status::ServiceUnavailable => "503 Service Unavailable",
            Status::HttpVersionNotSupported => "505 HTTP Version Not Supported",
        }
    }

    /// The three digits alone.
    pub fn code(self) -> &'static str {
        &self.text()[..3]
    }
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
            Violation::UnsupportedCoding => Status::NotImplemented,
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
            Violation::UnsupportedVersion => "the only versions supported are HTTP/1.0 and HTTP/1.1",
        }
    }
}

/// One response, complete with its content.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// The status line.
    pub status: Status,
    /// The value of `Content-Type`.
    pub content_type: &'a str,
    /// One more field, with its CRLF, or nothing.
    pub extra_field: &'a str,
    /// The content. Its length is sent also where it is left out itself, for HEAD.
    pub body: &'a [u8],
}

/// The value of the `Date` field for one second (RFC 9110, section 5.6.7).
pub type Date = [u8; 29];

/// The value of the `Date` field at `unix_s` seconds after 1970-01-01 00:00 UTC.
pub fn date_at(unix_s: u64) -> Date {
    /// 9999-12-31 23:59:59, the last second that the format can name.
    const LAST_UNIX_S: u64 = 253_402_300_799;
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(unix_s.min(LAST_UNIX_S));
    let mut date = [b' '; 29];
    // The format is always 29 bytes long up to the year 9999, so the write fits.
    let written = write!(date.as_mut_slice(), "{}", httpdate::HttpDate::from(time));
    debug_assert!(written.is_ok(), "an HTTP date is 29 bytes long");
    date
}

/// Appends a response. Every one has an exact `Content-Length` and a `Date`.
pub fn write_response(
    out: &mut Vec<u8>,
    response: &Response<'_>,
    persistence: Persistence,
    is_head_only: bool,
    date: &Date,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(response.status.text().as_bytes());
    out.extend_from_slice(b"\r\nContent-Type: ");
    out.extend_from_slice(response.content_type.as_bytes());
    out.extend_from_slice(b"\r\nContent-Length: ");
    write_decimal(out, response.body.len());
    out.extend_from_slice(b"\r\nDate: ");
    out.extend_from_slice(date);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(response.extra_field.as_bytes());
    out.extend_from_slice(match persistence {
        Persistence::KeepAlive => b"\r\n".as_slice(),
        Persistence::KeepAliveSaid => b"Connection: keep-alive\r\n\r\n",
        Persistence::Close => b"Connection: close\r\n\r\n",
    });
    if !is_head_only {
        out.extend_from_slice(response.body);
    }
}

/// Appends the interim response that lets an expecting client send its content (RFC 9110, section 10.1.1).
pub fn write_continue(out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
}

/// Appends a number in decimal digits.
pub fn write_decimal(out: &mut Vec<u8>, number: impl std::fmt::Display) {
    let written = write!(out, "{number}");
    debug_assert!(written.is_ok(), "writing to memory does not fail");
}
