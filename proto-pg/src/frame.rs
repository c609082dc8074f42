//! Framing and decoding: a fixed inbox, and messages borrowed from it.
//!
//! Format: PostgreSQL documentation, "Frontend/Backend Protocol", section Message Formats. After start-up every
//! message is one tag byte, an Int32 length that counts itself but not the tag, and the body.

use crate::columns::{Columns, ParameterTypes};
use crate::copy::CopyFormat;
use crate::error::{Fields, ProtocolError, ServerError};
use crate::row::Row;
use std::ops::Range;

/// Bytes from the server, in a buffer that never grows: `parsed <= filled <= bytes.len()`.
///
/// `bytes[..parsed]` are done with, `bytes[parsed..filled]` wait, the rest is free. The longest message allowed is
/// the size of the buffer, so a message that is not refused always fits, with two exceptions: errors and notices may be
/// longer. They are text for a log, so one that does not fit is decoded as it streams by. Data of a COPY comes in pieces then.
pub(crate) struct Inbox {
    bytes: Box<[u8]>,
    parsed: usize,
    filled: usize,
    text_len_max_bytes: usize,
    long: Option<Long>,
}

/// A message that is longer than the inbox.
enum Long {
    Text(LongText),
    /// Data of a COPY, of which so much is yet to come. It is handed on in pieces.
    Copy {
        left_bytes: usize,
    },
}

/// An error or a notice that is longer than the inbox.
struct LongText {
    tag: u8,
    /// How much of its body is yet to come.
    left_bytes: usize,
    fields: Fields,
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
        version: i32,
        options_refused: i32,
    },
    BackendKeyData {
        process_id: i32,
        secret_key: &'a [u8],
    },
    ParseComplete,
    BindComplete,
    /// Its columns have been checked; [`Row::from_checked`] gives access to them.
    DataRow,
    /// `CommandComplete`, or `EmptyQueryResponse`, which stands in for it when a statement has no text. `commits` says that
    /// everything up to here will not be rolled back any more.
    CommandComplete {
        commits: bool,
    },
    CloseComplete,
    PortalSuspended,
    CopyOut(CopyFormat),
    CopyIn(CopyFormat),
    /// All of its body is data.
    CopyData,
    CopyDone,
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
    ParameterDescription(ParameterTypes<'a>),
    RowDescription(Columns<'a>),
    NoData,
    /// Unknown, or an answer to something that this client never says (a function call, replication, ...).
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
    pub(crate) fn new(len_bytes: usize, text_len_max_bytes: usize) -> Inbox {
        assert!(len_bytes >= HEAD_LEN_BYTES, "message_len_max_bytes must hold at least a message head");
        let bytes = vec![0; len_bytes].into_boxed_slice();
        Inbox { bytes, parsed: 0, filled: 0, text_len_max_bytes, long: None }
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

    // ANCHOR: next_frame
    /// Takes the next complete message; `None` means that more bytes are needed.
    ///
    /// # Errors
    /// The length field is too short or too long; nothing is taken and the stream cannot be read any further.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame>, ProtocolError> {
        if self.long.is_some() {
            return Ok(self.stream_long());
        }
        let waiting = &self.bytes[self.parsed..self.filled];
        let Some(&[tag, a, b, c, d]) = waiting.first_chunk() else { return Ok(None) };
        let len_field = i32::from_be_bytes([a, b, c, d]);
        let too_short = ProtocolError::LengthTooShort { tag, len_bytes: len_field };
        let body_len = usize::try_from(len_field).ok().and_then(|len| len.checked_sub(4)).ok_or(too_short)?;
        let len_bytes = HEAD_LEN_BYTES.saturating_add(body_len);
        if len_bytes > self.bytes.len() {
            let is_text = matches!(tag, b'E' | b'N');
            let limit_bytes = self.bytes.len().max(if is_text { self.text_len_max_bytes } else { 0 });
            let long = if tag == b'd' {
                Long::Copy { left_bytes: body_len }
            } else if len_bytes > limit_bytes {
                return Err(ProtocolError::MessageTooLong { tag, len_bytes, limit_bytes });
            } else {
                Long::Text(LongText { tag, left_bytes: body_len, fields: Fields::default() })
            };
            self.parsed += HEAD_LEN_BYTES;
            self.long = Some(long);
            return Ok(self.stream_long());
        }
        if waiting.len() < len_bytes {
            return Ok(None);
        }
        let body = self.parsed + HEAD_LEN_BYTES..self.parsed + len_bytes;
        self.parsed = body.end;
        self.check();
        Ok(Some(Frame { tag, body }))
    }
    // ANCHOR_END: next_frame

    /// Takes what has arrived of a long message. The frame of a text, when it is complete, has no body: [`Inbox::message`] has
    /// what was kept of it. Each piece of a COPY's data is a frame.
    fn stream_long(&mut self) -> Option<Frame> {
        let waiting = self.parsed..self.filled;
        match self.long.as_mut()? {
            Long::Text(text) => {
                let n = text.left_bytes.min(waiting.len());
                text.fields.feed(&self.bytes[self.parsed..self.parsed + n]);
                text.left_bytes -= n;
                self.parsed += n;
                let frame = Frame { tag: text.tag, body: self.parsed..self.parsed };
                let is_complete = text.left_bytes == 0;
                self.check();
                is_complete.then_some(frame)
            }
            Long::Copy { left_bytes } => {
                let n = waiting.len().min(*left_bytes);
                if n == 0 {
                    return None;
                }
                *left_bytes -= n;
                if *left_bytes == 0 {
                    self.long = None;
                }
                let body = self.parsed..self.parsed + n;
                self.parsed = body.end;
                self.check();
                Some(Frame { tag: b'd', body })
            }
        }
    }

    /// True if more of the data of a COPY follows that the last frame was a piece of.
    pub(crate) fn is_within_copy(&self) -> bool {
        matches!(self.long, Some(Long::Copy { .. }))
    }

    /// Decodes the message that [`Inbox::next_frame`] has just given.
    ///
    /// # Errors
    /// [`ProtocolError::Malformed`].
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "counted by benches/instructions.rs")]
    pub(crate) fn message(&mut self, frame: &Frame) -> Result<Message<'_>, ProtocolError> {
        if self.long.is_some() {
            self.long_message(frame)
        } else {
            Message::decode(frame.tag, self.body(frame))
        }
    }

    #[inline(never)]
    fn long_message(&mut self, frame: &Frame) -> Result<Message<'_>, ProtocolError> {
        match self.long.take() {
            Some(Long::Text(text)) => {
                let error = text.fields.finish().ok_or(ProtocolError::Malformed { tag: frame.tag })?;
                Ok(if frame.tag == b'E' { Message::Error(error) } else { Message::Notice(error) })
            }
            Some(long @ Long::Copy { .. }) => {
                self.long = Some(long);
                Ok(Message::CopyData)
            }
            None => Message::decode(frame.tag, self.body(frame)),
        }
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
    // In line for the messages of every call, so that none of the others is in their way.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "counted by benches/instructions.rs")]
    pub(crate) fn decode(tag: u8, body: &'a [u8]) -> Result<Message<'a>, ProtocolError> {
        let malformed = ProtocolError::Malformed { tag };
        match (tag, body) {
            (b'D', body) => Row::decode(body).map(|_| Message::DataRow).ok_or(malformed),
            (b'2', []) => Ok(Message::BindComplete),
            (b'C', [tag @ .., 0]) if tag.iter().all(|byte| *byte != 0) => {
                Ok(Message::CommandComplete { commits: matches!(tag, b"COMMIT" | b"PREPARE TRANSACTION") })
            }
            (b'Z', &[status]) => Ok(Message::ReadyForQuery { status }),
            (b'2' | b'C' | b'Z', _) => Err(malformed),
            (_, body) => Message::decode_other(tag, Reader(body)).ok_or(malformed),
        }
    }

    #[inline(never)]
    fn decode_other(tag: u8, mut body: Reader<'a>) -> Option<Message<'a>> {
        let message = match tag {
            b'I' => Message::CommandComplete { commits: false },
            b'd' => return Some(Message::CopyData),
            b'c' => Message::CopyDone,
            b'H' => return CopyFormat::decode(body.0).map(Message::CopyOut),
            b'G' => return CopyFormat::decode(body.0).map(Message::CopyIn),
            b'3' => Message::CloseComplete,
            b's' => Message::PortalSuspended,
            b'1' => Message::ParseComplete,
            b'E' => return ServerError::decode(body.0).map(Message::Error),
            b'N' => return ServerError::decode(body.0).map(Message::Notice),
            b't' => return ParameterTypes::decode(body.0).map(Message::ParameterDescription),
            b'T' => return Columns::decode(body.0).map(Message::RowDescription),
            b'n' => Message::NoData,
            b'S' => Message::Parameter { name: body.text()?, value: body.text()? },
            b'A' => Message::Notification {
                process_id: body.i32()?,
                channel: body.text()?,
                payload: body.text()?,
            },
            b'K' => Message::BackendKeyData { process_id: body.i32()?, secret_key: body.rest() },
            b'R' => Message::Authentication(AuthenticationRequest::decode(&mut body)?),
            b'v' => {
                let (version, options_refused) = (body.i32()?, body.i32()?);
                // As many names follow; only their number is of use.
                if options_refused < 0 {
                    return None;
                }
                for _ in 0..options_refused {
                    body.bytes_to_nul()?;
                }
                Message::NegotiateProtocolVersion { version, options_refused }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::{STEP, every_message, message};

    /// The frames that come out when the bytes arrive in these pieces.
    fn frames<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<(u8, Vec<u8>)> {
        let mut inbox = Inbox::new(64, 64);
        let mut frames = vec![];
        for mut piece in pieces {
            while !piece.is_empty() {
                let space = inbox.space();
                let n = space.len().min(piece.len());
                assert!(n > 0, "no room after a drain");
                space[..n].copy_from_slice(&piece[..n]);
                inbox.commit(n);
                piece = &piece[n..];
                while let Some(frame) = inbox.next_frame().unwrap() {
                    frames.push((frame.tag, inbox.body(&frame).to_vec()));
                }
            }
        }
        assert_eq!(inbox.next_frame(), Ok(None));
        frames
    }

    #[test]
    fn any_cut_gives_the_same_frames() {
        let bodies: Vec<Vec<u8>> = [0, 1, 58, 59, 0, 7].map(|len| vec![b'x'; len]).to_vec();
        let expected: Vec<(u8, Vec<u8>)> = bodies.iter().map(|body| (b'D', body.clone())).collect();
        let bytes: Vec<u8> = bodies.iter().flat_map(|body| message(b'D', body)).collect();
        assert_eq!(frames([&bytes[..]].into_iter()), expected);
        for size in (1..=bytes.len()).step_by(STEP) {
            assert_eq!(frames(bytes.chunks(size)), expected, "pieces of {size}");
        }
        for at in (0..=bytes.len()).step_by(STEP) {
            let (head, tail) = bytes.split_at(at);
            assert_eq!(frames([head, tail].into_iter()), expected, "cut at {at}");
        }
    }

    #[test]
    fn space_is_empty_only_while_complete_messages_wait() {
        let mut inbox = Inbox::new(10, 10);
        inbox.space().copy_from_slice(b"1\0\0\0\x042\0\0\0\x04");
        inbox.commit(10);
        assert_eq!(inbox.space(), b"");
        assert_eq!(inbox.next_frame(), Ok(Some(Frame { tag: b'1', body: 5..5 })));
        assert_eq!(inbox.space().len(), 5);
        assert_eq!(inbox.next_frame().unwrap().unwrap().tag, b'2');
        assert_eq!(inbox.next_frame(), Ok(None));
        assert_eq!(inbox.space().len(), 10);
    }

    #[test]
    fn a_length_out_of_bounds_is_refused_from_the_head_alone() {
        let next = |tag: u8, len: i32| {
            let mut inbox = Inbox::new(16, 20);
            inbox.space()[0] = tag;
            inbox.space()[1..5].copy_from_slice(&len.to_be_bytes());
            inbox.commit(5);
            inbox.next_frame()
        };
        for len_bytes in [3, 0, -1, i32::MIN] {
            assert_eq!(next(b'D', len_bytes), Err(ProtocolError::LengthTooShort { tag: b'D', len_bytes }));
        }
        assert_eq!(next(b'D', 4), Ok(Some(Frame { tag: b'D', body: 5..5 })));
        assert_eq!(next(b'D', 15), Ok(None));
        for (len, len_bytes) in [(16, 17), (i32::MAX, 1 << 31)] {
            let too_long = ProtocolError::MessageTooLong { tag: b'D', len_bytes, limit_bytes: 16 };
            assert_eq!(next(b'D', len), Err(too_long));
        }
        for tag in [b'E', b'N'] {
            assert_eq!(next(tag, 19), Ok(None), "a text has a limit of its own");
            for (len, len_bytes) in [(20, 21), (i32::MAX, 1 << 31)] {
                let too_long = ProtocolError::MessageTooLong { tag, len_bytes, limit_bytes: 20 };
                assert_eq!(next(tag, len), Err(too_long));
            }
        }
    }

    #[test]
    fn a_body_must_have_exactly_its_fields() {
        for bytes in every_message() {
            let (tag, body) = (bytes[0], &bytes[HEAD_LEN_BYTES..]);
            let decode = |body: &[u8]| match Message::decode(tag, body) {
                Ok(message) => format!("{message:?}"),
                Err(error) => format!("{error}"),
            };
            let case = format!("{}: {}", bytes.escape_ascii(), decode(body));
            let is_unrequested = decode(body) == "Unrequested";
            assert_eq!(is_unrequested, b"WVx?".contains(&tag), "{case}");
            let longer = decode(&[body, &[1]].concat());
            // The key may have any length, and data is any bytes.
            let is_free = is_unrequested || matches!(tag, b'K' | b'd');
            assert!(is_free || longer.starts_with("malformed"), "{case}, one byte more: {longer}");
            for len in 0..body.len() {
                let shorter = decode(&body[..len]);
                assert!(
                    shorter.starts_with("malformed") || (tag == b'K' && len >= 4),
                    "{case}, only {len}: {shorter}"
                );
            }
        }
    }

    #[test]
    fn text_must_be_utf8_and_counts_must_not_be_negative() {
        assert!(Message::decode(b'S', b"name\0\xff\0").is_err());
        assert!(Message::decode(b'D', &[0xff, 0xff]).is_err());
        assert!(Message::decode(b'D', &[0, 1, 0xff, 0xff, 0xff, 0xfe]).is_err());
        assert!(Message::decode(b'v', &[0, 3, 0, 0, 0xff, 0xff, 0xff, 0xff]).is_err());
    }
}
