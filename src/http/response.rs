//! CORE: writes HTTP/1.1 responses: status line, fields, content.
//!
//! Format: RFC 9112, section 4, "Status Line"; RFC 9110, sections 6.6.1 (`Date`) and 8.6 (`Content-Length`).

use std::io::Write as _;

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
// Out of line, so that profiles name it.
#[inline(never)]
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
// `write!` takes 1 % of a transaction more.
pub fn write_decimal(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(response: &Response<'_>, persistence: Persistence, is_head_only: bool) -> String {
        let mut out = Vec::new();
        write_response(&mut out, response, persistence, is_head_only, &date_at(784_111_777));
        String::from_utf8(out).unwrap()
    }

    const OK: Response<'_> =
        Response { status: Status::Ok, content_type: "text/plain", extra_field: "", body: b"Healthy" };

    #[test]
    fn a_response_is_exact() {
        assert_eq!(
            written(&OK, Persistence::KeepAlive, false),
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 7\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\nHealthy"
        );
    }

    #[test]
    fn head_leaves_the_content_out_and_its_length_in() {
        let answer = written(&OK, Persistence::KeepAlive, true);
        assert!(answer.contains("Content-Length: 7\r\n"));
        assert!(answer.ends_with("\r\n\r\n"));
    }

    #[test]
    fn what_becomes_of_the_connection_is_said_where_it_must_be() {
        assert!(!written(&OK, Persistence::KeepAlive, false).contains("Connection"));
        assert!(
            written(&OK, Persistence::KeepAliveSaid, false).contains("\r\nConnection: keep-alive\r\n\r\n")
        );
        assert!(written(&OK, Persistence::Close, false).contains("\r\nConnection: close\r\n\r\n"));
    }

    #[test]
    fn an_extra_field_stands_among_the_fields() {
        let answer =
            written(&Response { extra_field: "Retry-After: 1\r\n", ..OK }, Persistence::Close, false);
        assert!(answer.contains("GMT\r\nRetry-After: 1\r\nConnection: close\r\n\r\nHealthy"));
    }

    #[test]
    fn every_status_has_its_code_and_its_place() {
        for (position, status) in Status::ALL.into_iter().enumerate() {
            assert_eq!(status as usize, position, "metrics are indexed by it");
            assert!(status.text().starts_with(&format!("{} ", status.code())));
        }
        assert!(Status::ALL.is_sorted_by_key(|status| status.code()));
    }

    #[test]
    fn a_date_has_29_bytes_whatever_the_clock_says() {
        assert_eq!(&date_at(0), b"Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(&date_at(1_709_164_800), b"Thu, 29 Feb 2024 00:00:00 GMT");
        assert_eq!(&date_at(u64::MAX), b"Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
