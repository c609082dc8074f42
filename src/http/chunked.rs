//! CORE: takes the chunked coding off a body.
//!
//! Format: RFC 9112, section 7.1, "Chunked Transfer Coding".

use crate::http::head::{Limits, Violation};

/// Takes the chunked coding off a body, in place and as it arrives (RFC 9112, section 7.1).
///
/// It looks at every byte once, however small the pieces are, and keeps nothing but its state: content is moved to the
/// front of the buffer it came in. Chunk extensions and trailer fields are checked and dropped.
#[derive(Debug)]
pub struct ChunkedDecoder {
    state: ChunkState,
    /// What the chunks so far declare.
    content_len_bytes: usize,
    /// Every byte so far that is not content, which the limit of the body does not bound.
    coding_len_bytes: usize,
}

/// What the coding of a chunk takes at least, as in `1 CRLF x CRLF`. However small a client makes its chunks, they fit.
const CHUNK_CODING_LEN_BYTES: usize = 5;

/// What a [`ChunkedDecoder`] expects next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkState {
    SizeFirstDigit,
    Size { size: usize },
    Extension { size: usize, at: Extension },
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

/// The state within a chunk's extensions: `*( BWS ";" BWS name [ BWS "=" BWS value ] )`, where a name is a token, a value
/// a token or a quoted string, and BWS any spaces and tabs (RFC 9112, section 7.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    BeforeSemicolon,
    BeforeName,
    Name,
    AfterName,
    BeforeValue,
    Token,
    Quoted,
    QuotedPair,
    AfterQuoted,
}

impl Extension {
    /// The state after one more byte; `None` if the grammar does not allow the byte. The end of the line is handled elsewhere.
    fn after(self, byte: u8) -> Option<Extension> {
        match (self, byte) {
            (Extension::BeforeSemicolon | Extension::Token | Extension::AfterQuoted, b' ' | b'\t') => {
                Some(Extension::BeforeSemicolon)
            }
            (
                Extension::BeforeSemicolon
                | Extension::Name
                | Extension::AfterName
                | Extension::Token
                | Extension::AfterQuoted,
                b';',
            )
            | (Extension::BeforeName, b' ' | b'\t') => Some(Extension::BeforeName),
            (Extension::Name | Extension::AfterName, b' ' | b'\t') => Some(Extension::AfterName),
            (Extension::Name | Extension::AfterName, b'=') | (Extension::BeforeValue, b' ' | b'\t') => {
                Some(Extension::BeforeValue)
            }
            (Extension::BeforeName | Extension::Name, byte) if is_token(byte) => Some(Extension::Name),
            (Extension::BeforeValue | Extension::Token, byte) if is_token(byte) => Some(Extension::Token),
            (Extension::BeforeValue, b'"') => Some(Extension::Quoted),
            (Extension::Quoted, b'"') => Some(Extension::AfterQuoted),
            (Extension::Quoted, b'\\') => Some(Extension::QuotedPair),
            (Extension::Quoted | Extension::QuotedPair, byte) if is_text(byte) => Some(Extension::Quoted),
            (
                Extension::BeforeSemicolon
                | Extension::BeforeName
                | Extension::Name
                | Extension::AfterName
                | Extension::BeforeValue
                | Extension::Token
                | Extension::Quoted
                | Extension::QuotedPair
                | Extension::AfterQuoted,
                _,
            ) => None,
        }
    }

    /// Whether the line may end here.
    fn may_end(self) -> bool {
        match self {
            Extension::Name | Extension::Token | Extension::AfterQuoted => true,
            Extension::BeforeSemicolon
            | Extension::BeforeName
            | Extension::AfterName
            | Extension::BeforeValue
            | Extension::Quoted
            | Extension::QuotedPair => false,
        }
    }
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
        ChunkedDecoder { state: ChunkState::SizeFirstDigit, content_len_bytes: 0, coding_len_bytes: 0 }
    }
}

impl ChunkedDecoder {
    /// Decodes bytes that were not seen before.
    ///
    /// # Errors
    /// `Malformed` for a byte that the grammar does not allow, `BodyTooLong` when the content exceeds its limit, or the
    /// coding around it that of a head and `CHUNK_CODING_LEN_BYTES` for each byte of content.
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
        self.coding_len_bytes += 1;
        let chunks_len_bytes = CHUNK_CODING_LEN_BYTES * self.content_len_bytes;
        if self.coding_len_bytes > limits.head_len_max_bytes + chunks_len_bytes {
            return Err(Violation::BodyTooLong);
        }
        match (self.state, byte) {
            (ChunkState::SizeFirstDigit, digit) => self.with_digit(0, digit, limits),
            (ChunkState::Size { size }, b'\r') => Ok(ChunkState::SizeLineFeed { size }),
            (ChunkState::Size { size }, b';') => {
                Ok(ChunkState::Extension { size, at: Extension::BeforeName })
            }
            (ChunkState::Size { size }, b' ' | b'\t') => {
                Ok(ChunkState::Extension { size, at: Extension::BeforeSemicolon })
            }
            (ChunkState::Size { size }, digit) => self.with_digit(size, digit, limits),
            (ChunkState::Extension { size, at }, b'\r') if at.may_end() => {
                Ok(ChunkState::SizeLineFeed { size })
            }
            (ChunkState::Extension { size, at }, byte) => match at.after(byte) {
                Some(at) => Ok(ChunkState::Extension { size, at }),
                None => Err(Violation::Malformed("a chunk extension is malformed")),
            },
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
                ChunkState::SizeLineFeed { .. }
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

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { head_len_max_bytes: 64, target_len_max_bytes: 64, body_len_max_bytes: 32 };

    /// Decodes a body that arrives in these pieces. Returns the content and what was left for the next request.
    fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>), Violation> {
        let mut decoder = ChunkedDecoder::default();
        let (mut content, mut rest, mut is_done) = (Vec::new(), Vec::new(), false);
        for piece in pieces {
            let mut buffer = piece.to_vec();
            let step = decoder.decode(&mut buffer, &LIMITS)?;
            content.extend_from_slice(&buffer[..step.content_bytes]);
            rest.extend_from_slice(&buffer[step.read_bytes..]);
            is_done = step.is_done;
            assert!(is_done || step.read_bytes == buffer.len(), "only the end of the body leaves something");
        }
        if is_done { Ok((content, rest)) } else { Err(Violation::TooSlow) }
    }

    /// The verdict over the whole, which must be the same at every split point and one byte at a time.
    fn verdict(text: &str) -> Result<(String, String), Violation> {
        let bytes = text.as_bytes();
        let as_text = |(content, rest): (Vec<u8>, Vec<u8>)| {
            (String::from_utf8(content).unwrap(), String::from_utf8(rest).unwrap())
        };
        let whole = decode(&[bytes]).map(as_text);
        for at in 0..=bytes.len() {
            let (left, right) = bytes.split_at(at);
            assert_eq!(decode(&[left, right]).map(as_text), whole, "split at {at} of {text:?}");
        }
        assert_eq!(decode(&bytes.chunks(1).collect::<Vec<_>>()).map(as_text), whole, "bytewise {text:?}");
        whole
    }

    fn content(text: &str) -> String {
        let (content, rest) = verdict(text).unwrap();
        assert_eq!(rest, "");
        content
    }

    #[test]
    fn content_is_joined_and_the_coding_dropped() {
        assert_eq!(content("0\r\n\r\n"), "");
        assert_eq!(content("5\r\nhello\r\n0\r\n\r\n"), "hello");
        assert_eq!(content("2\r\nhe\r\n1\r\nl\r\n02\r\nlo\r\n000\r\n\r\n"), "hello");
        assert_eq!(content("a\r\n0123456789\r\n0\r\n\r\n"), "0123456789");
        assert_eq!(content("A\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\n"), "\r\n\r\n\r\n\r\n\r\n");
    }

    #[test]
    fn extensions_and_trailers_are_checked_and_dropped() {
        assert_eq!(content("5;a=b;c=\"d\"\r\nhello\r\n0;last\r\n\r\n"), "hello");
        assert_eq!(content("1\r\nx\r\n0\r\nExpires: never\r\nA:\r\n\r\n"), "x");
        for bad in [
            "1;\u{1}\r\nx\r\n0\r\n\r\n",
            "1;a\nx\r\n0\r\n\r\n",
            "0\r\nA : b\r\n\r\n",
            "0\r\n folded\r\n\r\n",
            "0\r\nA: \0\r\n\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\nA\r\n\r\n",
            "0\r\n: b\r\n\r\n",
            "0\r\nA: b\r\n\n",
        ] {
            assert!(matches!(verdict(bad), Err(Violation::Malformed(_))), "{bad:?}");
        }
    }

    #[test]
    fn extensions_follow_their_grammar() {
        for good in [
            ";a",
            ";a=b",
            " ;a=b",
            "\t; a\t= \tb",
            ";a =b",
            ";a= b",
            ";a;b",
            ";a ;b",
            ";a=b ;c",
            ";a=\"\"",
            ";a=\"b;c=\\\"d\\\\\"",
            ";a=\"b\" ; c",
            ";a=\"\u{e4}\t\"",
            ";!#$%&'*+-.^_`|~=1",
        ] {
            assert_eq!(content(&format!("1{good}\r\nx\r\n0{good}\r\n\r\n")), "x", "{good:?}");
        }
        for bad in [
            " ",
            "\t",
            " a",
            ";",
            "; ",
            ";;a",
            ";a;",
            ";=",
            ";=b",
            ";a=",
            ";a= ",
            ";a ",
            ";a=b ",
            ";a=\"b",
            ";a=\"b\\\"",
            ";a=\"b\" ",
            ";a=\"b\"c",
            ";a=b\"c\"",
            ";\"a\"",
            ";a=b=c",
            ";a b",
            ";a=b c",
            ";\u{e4}",
            ";a=\u{e4}",
            ";a=\"\u{7f}\"",
            ";a=\"\\\u{1}\"",
            ";(",
            "\u{b};a",
            ";a\u{c}=b",
            ";a=\"\n\"",
        ] {
            let text = format!("1{bad}\r\nx\r\n0\r\n\r\n");
            assert!(matches!(verdict(&text), Err(Violation::Malformed(_))), "{bad:?}");
        }
    }

    #[test]
    fn what_follows_the_body_is_left() {
        assert_eq!(
            verdict_rest("3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1"),
            ("abc".to_owned(), "GET / HTTP/1.1".to_owned())
        );
    }

    /// As `verdict`, but in one piece: what is left depends on where the pieces are cut.
    fn verdict_rest(text: &str) -> (String, String) {
        let (content, rest) = decode(&[text.as_bytes()]).unwrap();
        (String::from_utf8(content).unwrap(), String::from_utf8(rest).unwrap())
    }

    #[test]
    fn bad_chunks_are_refused() {
        for bad in [
            "\r\n",
            "x\r\n",
            " 1\r\nx\r\n0\r\n\r\n",
            "1 \r\nx\r\n0\r\n\r\n",
            "1 2\r\nx\r\n0\r\n\r\n",
            "+1\r\nx\r\n0\r\n\r\n",
            "-1\r\nx\r\n0\r\n\r\n",
            "0x1\r\nx\r\n0\r\n\r\n",
            "1\nx\r\n0\r\n\r\n",
            "1\r\nx\n0\r\n\r\n",
            "1\r\nxy\r\n0\r\n\r\n",
            "1\r\nx0\r\n\r\n",
            "1\rx",
        ] {
            assert!(matches!(verdict(bad), Err(Violation::Malformed(_))), "{bad:?}");
        }
    }

    #[test]
    fn an_unfinished_body_is_not_done() {
        let whole = "3\r\nabc\r\n0\r\nA: b\r\n\r\n";
        for len_bytes in 0..whole.len() {
            assert_eq!(verdict(&whole[..len_bytes]), Err(Violation::TooSlow), "{len_bytes} bytes");
        }
    }

    #[test]
    fn the_content_is_limited_before_it_arrives() {
        let chunk = |len: usize| format!("{len:x}\r\n{}\r\n", "x".repeat(len));
        assert_eq!(content(&format!("{}0\r\n\r\n", chunk(32))).len(), 32);
        assert_eq!(content(&format!("{}{}0\r\n\r\n", chunk(16), chunk(16))).len(), 32);
        assert_eq!(verdict("21\r\n"), Err(Violation::BodyTooLong));
        assert_eq!(verdict(&format!("{}1\r\n", chunk(32))), Err(Violation::BodyTooLong));
        assert_eq!(verdict("ffffffffffffffffffffffff"), Err(Violation::BodyTooLong));
    }

    /// The limit here is that of a head, 64 bytes, and five for each byte of content.
    #[test]
    fn all_that_is_not_content_counts_against_one_limit() {
        for (before, after) in [
            ("", "\r\n\r\n"),
            ("0;a=", "\r\n\r\n"),
            ("0;a=\"", "\"\r\n\r\n"),
            ("0\r\nA:", "\r\n\r\n"),
            ("0\r\n", ":\r\n\r\n"),
            ("0;aaaaaaaaaaaaaaaaaaaaaaaaaa\r\nA:", "\r\n\r\n"),
        ] {
            let coding =
                |len: usize| format!("{before}{}{after}", "0".repeat(len - before.len() - after.len()));
            assert_eq!(content(&coding(64)), "", "{before:?}");
            assert_eq!(verdict(&coding(65)), Err(Violation::BodyTooLong), "{before:?}");
            let behind_content = |len: usize| format!("1\r\nx\r\n{}", coding(len));
            assert_eq!(content(&behind_content(64)), "x", "{before:?}");
            assert_eq!(verdict(&behind_content(65)), Err(Violation::BodyTooLong), "{before:?}");
        }
        assert_eq!(verdict(&"0".repeat(64)), Err(Violation::TooSlow));
        assert_eq!(verdict(&"0".repeat(65)), Err(Violation::BodyTooLong));
        assert_eq!(verdict(&format!("1 {}", " ".repeat(63))), Err(Violation::BodyTooLong));
        assert_eq!(verdict(&format!("0\r\n{}", "A:b\r\n".repeat(13))), Err(Violation::BodyTooLong));
        // In the smallest chunks that there are.
        assert_eq!(content(&("1\r\nx\r\n".repeat(32) + "0\r\n\r\n")).len(), 32);
    }
}
