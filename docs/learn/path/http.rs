//! What step 7 has built, for the steps after it: requests, responses, and the outbox.

use std::io::{self, ErrorKind, Write};

use httparse::Status;

const HEAD_MAX_BYTES: usize = 8 * 1024;
const BODY_MAX_BYTES: usize = 16 * 1024;

pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) body: &'a [u8],
    /// The client wants no other answer after this one.
    pub(crate) is_last: bool,
    pub(crate) len_bytes: usize,
}

/// The first request of an inbox; `None` if it is not complete yet. An error is the status of the last answer: where the next
/// request begins is not known then.
pub(crate) fn parse(inbox: &[u8]) -> Result<Option<Request<'_>>, u16> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut fields);
    let head_bytes = match head.parse(inbox) {
        Ok(Status::Complete(bytes)) if bytes <= HEAD_MAX_BYTES => bytes,
        Ok(Status::Partial) if inbox.len() <= HEAD_MAX_BYTES => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(431),
        Err(_) => return Err(400),
    };
    let mut is_last = head.version == Some(0);
    let mut content_bytes = None;
    for field in head.headers.iter() {
        if field.name.eq_ignore_ascii_case("content-length") {
            let is_number = !field.value.is_empty() && field.value.iter().all(u8::is_ascii_digit);
            let text = str::from_utf8(field.value).ok().filter(|_| is_number && content_bytes.is_none());
            // A number too large for the type is too large for us.
            content_bytes = Some(text.ok_or(400_u16)?.parse::<usize>().map_err(|_| 413_u16)?);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(501);
        } else if field.name.eq_ignore_ascii_case("connection") {
            is_last |= field.value.eq_ignore_ascii_case(b"close");
        }
    }
    let content_bytes = content_bytes.unwrap_or(0);
    if content_bytes > BODY_MAX_BYTES {
        return Err(413);
    }
    let len_bytes = head_bytes + content_bytes;
    let Some(body) = inbox.get(head_bytes..len_bytes) else { return Ok(None) };
    let (method, path) = (head.method.unwrap_or_default(), head.path.unwrap_or_default());
    Ok(Some(Request { method, path, body, is_last, len_bytes }))
}

pub(crate) fn respond(outbox: &mut Vec<u8>, status: u16, body: &[u8], is_last: bool) {
    let connection = if is_last { "close" } else { "keep-alive" };
    let len_bytes = body.len();
    let head =
        format!("HTTP/1.1 {status} \r\nContent-Length: {len_bytes}\r\nConnection: {connection}\r\n\r\n");
    outbox.extend_from_slice(head.as_bytes());
    outbox.extend_from_slice(body);
}

/// Writes until the outbox is empty or the socket takes no more.
pub(crate) fn flush(stream: &mut impl Write, outbox: &mut Vec<u8>) -> io::Result<()> {
    while !outbox.is_empty() {
        match stream.write(outbox) {
            Ok(n) => drop(outbox.drain(..n)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
