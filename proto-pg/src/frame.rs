//! Framing and decoding: a fixed inbox, and messages borrowed from it.
//!
//! Format: PostgreSQL documentation, "Frontend/Backend Protocol", section Message Formats. After start-up every
//! message is one tag byte, an Int32 length that counts itself but not the tag, and the body.

use crate::error::{ProtocolError, ServerError};
use crate::row::Row;
use std::ops::Range;

/// Bytes from the server, in a buffer that never grows: `parsed <= filled <= bytes.len()`.
///
/// `bytes[..parsed]` are done with, `bytes[parsed..filled]` wait, the rest is free. The longest message allowed is
/// the size of the buffer, so a message that is not refused always fits.
pub(crate) struct Inbox {
    bytes: Box<[u8]>,
    parsed: usize,
    filled: usize,
}

/// A complete message in the inbox; its bytes stay in place until the next [`Inbox::space`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) tag: u8,
    pub(crate) body: Range<usize>,
}

/// A message from the server. The ones that come with every call (`BindComplete`, `DataRow`, `CommandComplete`,
/// `ReadyForQuery`) borrow everything and allocate nothing.
#[derive(Debug)]
pub(crate) enum Message<'a> {
    Authentication(AuthenticationRequest<'a>),
    NegotiateProtocolVersion {
        options_refused: i32,
    },
    BackendKeyData {
        process_id: i32,
        secret_key: i32,
    },
    ParseComplete,
    BindComplete,
    /// Its columns have been checked; [`Row::from_checked`] gives access to them.
    DataRow,
    /// `CommandComplete`, or `EmptyQueryResponse`, which stands in for it when a statement has no text.
    CommandComplete,
    ReadyForQuery {
        status: u8,
    },
    Error(ServerError),
    Notice(ServerError),
    Parameter {
        name: &'a str,
        value: &'a str,
    },
    Notification {
        process_id: i32,
        channel: &'a str,
        payload: &'a str,
    },
    /// Unknown, or an answer to something that this client never says (Describe, Close, COPY, a row limit, ...).
    Unrequested,
}

/// The many faces of tag `R`.
#[derive(Debug)]
pub(crate) enum AuthenticationRequest<'a> {
    Ok,
    CleartextPassword,
    Md5Password { salt: [u8; 4] },
    Sasl { mechanisms: &'a [u8] },
    SaslContinue(&'a [u8]),
    SaslFinal(&'a [u8]),
    Other { code: i32 },
}

/// A tag and a length.
pub(crate) const HEAD_LEN_BYTES: usize = 5;

impl Inbox {
    pub(crate) fn new(len_bytes: usize) -> Inbox {
        assert!(len_bytes >= HEAD_LEN_BYTES, "message_len_max_bytes must hold at least a message head");
        Inbox { bytes: vec![0; len_bytes].into_boxed_slice(), parsed: 0, filled: 0 }
    }

    /// Free space behind what waits. What waits is moved to the front first; after a drain that is at most one
    /// incomplete message. Empty only if complete messages wait to be drained.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if self.parsed > 0 {
            self.bytes.copy_within(self.parsed..self.filled, 0);
            self.filled -= self.parsed;
            self.parsed = 0;
        }
        self.check();
        &mut self.bytes[self.filled..]
    }

    pub(crate) fn commit(&mut self, n: usize) {
        self.filled += n;
        self.check();
    }

    /// Takes the next complete message; `None` means that more bytes are needed.
    ///
    /// # Errors
    /// The length field is too short or too long; nothing is taken and the stream cannot be read any further.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame>, ProtocolError> {
        let waiting = &self.bytes[self.parsed..self.filled];
        let Some(&[tag, a, b, c, d]) = waiting.first_chunk() else { return Ok(None) };
        let len_field = i32::from_be_bytes([a, b, c, d]);
        let too_short = ProtocolError::LengthTooShort { tag, len_bytes: len_field };
        let body_len = usize::try_from(len_field).ok().and_then(|len| len.checked_sub(4)).ok_or(too_short)?;
        let len_bytes = HEAD_LEN_BYTES.saturating_add(body_len);
        if len_bytes > self.bytes.len() {
            return Err(ProtocolError::MessageTooLong { tag, len_bytes, limit_bytes: self.bytes.len() });
        }
        if waiting.len() < len_bytes {
            return Ok(None);
        }
        let body = self.parsed + HEAD_LEN_BYTES..self.parsed + len_bytes;
        self.parsed = body.end;
        self.check();
        Ok(Some(Frame { tag, body }))
    }

    pub(crate) fn body(&self, frame: &Frame) -> &[u8] {
        &self.bytes[frame.body.clone()]
    }

    fn check(&self) {
        assert!(self.parsed <= self.filled && self.filled <= self.bytes.len(), "inbox cursors out of order");
    }
}

impl<'a> Message<'a> {
    /// Decodes one message; every byte of the body must be accounted for.
    ///
    /// # Errors
    /// [`ProtocolError::Malformed`].
    pub(crate) fn decode(tag: u8, body: &'a [u8]) -> Result<Message<'a>, ProtocolError> {
        Message::decode_body(tag, Reader(body)).ok_or(ProtocolError::Malformed { tag })
    }

    fn decode_body(tag: u8, mut body: Reader<'a>) -> Option<Message<'a>> {
        let message = match tag {
            // The hot ones first.
            b'D' => return Row::decode(body.0).map(|_| Message::DataRow),
            b'2' => Message::BindComplete,
            b'C' => {
                body.bytes_to_nul()?;
                Message::CommandComplete
            }
            b'Z' => Message::ReadyForQuery { status: body.u8()? },
            b'I' => Message::CommandComplete,
            b'1' => Message::ParseComplete,
            b'E' => return ServerError::decode(body.0).map(Message::Error),
            b'N' => return ServerError::decode(body.0).map(Message::Notice),
            b'S' => Message::Parameter { name: body.text()?, value: body.text()? },
            b'A' => Message::Notification {
                process_id: body.i32()?,
                channel: body.text()?,
                payload: body.text()?,
            },
            b'K' => Message::BackendKeyData { process_id: body.i32()?, secret_key: body.i32()? },
            b'R' => Message::Authentication(AuthenticationRequest::decode(&mut body)?),
            b'v' => {
                let (_newest_version, options_refused) = (body.i32()?, body.i32()?);
                // The names of the options are as many as the count says; only the count is of use.
                for _ in 0..options_refused {
                    body.bytes_to_nul()?;
                }
                Message::NegotiateProtocolVersion { options_refused }
            }
            _ => return Some(Message::Unrequested),
        };
        body.0.is_empty().then_some(message)
    }
}

impl<'a> AuthenticationRequest<'a> {
    fn decode(body: &mut Reader<'a>) -> Option<AuthenticationRequest<'a>> {
        Some(match body.i32()? {
            0 => AuthenticationRequest::Ok,
            3 => AuthenticationRequest::CleartextPassword,
            5 => AuthenticationRequest::Md5Password { salt: body.chunk()? },
            10 => AuthenticationRequest::Sasl { mechanisms: body.rest() },
            11 => AuthenticationRequest::SaslContinue(body.rest()),
            12 => AuthenticationRequest::SaslFinal(body.rest()),
            code => {
                body.rest();
                AuthenticationRequest::Other { code }
            }
        })
    }
}

/// Takes fields off the front of a body; `None` if they are not there.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn chunk<const LEN: usize>(&mut self) -> Option<[u8; LEN]> {
        let (chunk, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*chunk)
    }

    fn u8(&mut self) -> Option<u8> {
        self.chunk().map(u8::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.chunk().map(i32::from_be_bytes)
    }

    fn bytes_to_nul(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|&byte| byte == 0)?;
        let (bytes, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        Some(bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes_to_nul()?).ok()
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
