//! Bytes in readable form: the first line of HTTP, the messages of PostgreSQL by name.
//!
//! Format: RFC 9112, "HTTP/1.1"; PostgreSQL documentation, "Frontend/Backend Protocol", section Message Formats.

/// Who says something to PostgreSQL or hears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// We do.
    Frontend,
    /// The server does.
    Backend,
}

/// One line about a request or an answer.
pub(super) fn http(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let (head, content) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let first = head.lines().next().unwrap_or_default();
    if content.is_empty() {
        return first.to_owned();
    }
    format!("{first}  +  {}", shortened(content))
}

/// One line for each message.
pub(super) fn postgresql(mut bytes: &[u8], side: Side) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some((tag, body, rest)) = split_message(bytes) {
        lines.push(match (side, tag) {
            (Side::Frontend, b'P') => "Parse".to_owned(),
            (Side::Frontend, b'B') => bind(body),
            (Side::Frontend, b'E') => "Execute".to_owned(),
            (Side::Frontend, b'S') => "Sync".to_owned(),
            (Side::Frontend, b'X') => "Terminate".to_owned(),
            (Side::Backend, b'1') => "ParseComplete".to_owned(),
            (Side::Backend, b'2') => "BindComplete".to_owned(),
            (Side::Backend, b'D') => data_row(body),
            (Side::Backend, b'C') => {
                format!(
                    "CommandComplete: {}",
                    String::from_utf8_lossy(body.strip_suffix(b"\0").unwrap_or(body))
                )
            }
            (Side::Backend, b'Z') => ready_for_query(body),
            (Side::Backend, b'E') => "ErrorResponse".to_owned(),
            (Side::Backend, b'N') => "NoticeResponse".to_owned(),
            (Side::Backend, b'S') => "ParameterStatus".to_owned(),
            (Side::Frontend | Side::Backend, tag) => format!("a message {:?}", char::from(tag)),
        });
        bytes = rest;
    }
    if !bytes.is_empty() {
        lines.push(format!("{} bytes of a message", bytes.len()));
    }
    lines
}

/// Tag, body, what follows. `None` if the message is not whole.
fn split_message(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (head, _) = bytes.split_first_chunk::<5>()?;
    let len_bytes = usize::try_from(u32::from_be_bytes([head[1], head[2], head[3], head[4]])).ok()?;
    let (body, rest) = bytes[1..].split_at_checked(len_bytes)?;
    Some((head[0], body.get(4..)?, rest))
}

/// Portal, statement, formats, values.
fn bind(body: &[u8]) -> String {
    let told = || {
        let (_portal, rest) = split_text(body)?;
        let (statement, rest) = split_text(rest)?;
        let (formats, rest) = split_count(rest)?;
        let (_, rest) = rest.split_at_checked(2 * formats)?;
        let (values, rest) = split_count(rest)?;
        Some(format!("Bind of statement {statement:?} to {}", list(values, rest)?))
    };
    told().unwrap_or_else(|| "Bind".to_owned())
}

fn data_row(body: &[u8]) -> String {
    let told = || {
        let (columns, rest) = split_count(body)?;
        Some(format!("DataRow {}", list(columns, rest)?))
    };
    told().unwrap_or_else(|| "DataRow".to_owned())
}

fn ready_for_query(body: &[u8]) -> String {
    match body {
        b"I" => "ReadyForQuery, idle: the transaction is committed".to_owned(),
        b"T" => "ReadyForQuery, in a transaction".to_owned(),
        _ => "ReadyForQuery, in a failed transaction".to_owned(),
    }
}

/// Values in parentheses, each an Int32 length, -1 for NULL, and its bytes.
fn list(count: usize, mut bytes: &[u8]) -> Option<String> {
    let mut values = Vec::new();
    for _ in 0..count {
        let (len, rest) = bytes.split_first_chunk()?;
        match i32::from_be_bytes(*len) {
            -1 => {
                values.push("NULL".to_owned());
                bytes = rest;
            }
            len => {
                let (bytes_of_value, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
                values.push(value(bytes_of_value));
                bytes = rest;
            }
        }
    }
    Some(format!("({})", values.join(", ")))
}

/// The protocol does not say the type, so it is guessed: text if it reads as such, jsonb by its version byte, or else a
/// number by its width.
fn value(bytes: &[u8]) -> String {
    let is_text = |bytes: &[u8]| {
        str::from_utf8(bytes).is_ok_and(|text| !text.is_empty() && !text.chars().any(char::is_control))
    };
    match bytes {
        text if is_text(text) => format!("'{}'", shortened(&String::from_utf8_lossy(text))),
        [1, json @ ..] if is_text(json) => format!("jsonb {}", shortened(&String::from_utf8_lossy(json))),
        number => match (number.first_chunk(), number.first_chunk(), number.len()) {
            (Some(bytes), _, 4) => i32::from_be_bytes(*bytes).to_string(),
            (_, Some(bytes), 8) => i64::from_be_bytes(*bytes).to_string(),
            (_, _, len) => format!("{len} bytes"),
        },
    }
}

/// Text up to its end in NUL, and what follows.
fn split_text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]))
}

fn split_count(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (count, rest) = bytes.split_first_chunk()?;
    Some((usize::from(u16::from_be_bytes(*count)), rest))
}

fn shortened(text: &str) -> String {
    let len = text.chars().count();
    if len <= SHOWN_CHARS_MAX {
        return text.to_owned();
    }
    format!("{}... ({len} characters)", text.chars().take(SHOWN_CHARS_MAX).collect::<String>())
}

const SHOWN_CHARS_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let len_bytes = u32::try_from(body.len() + 4).unwrap();
        [&[tag][..], &len_bytes.to_be_bytes(), body].concat()
    }

    #[test]
    fn names_what_we_say() {
        let bind = b"\0t\0\0\x01\0\x01\0\x03\0\0\0\x04\0\0\0\x07\0\0\0\x01c\xff\xff\xff\xff\0\x01\0\x01";
        let bytes = [message(b'B', bind), message(b'E', b"\0\0\0\0\0"), message(b'S', b"")].concat();
        let lines = postgresql(&bytes, Side::Frontend);
        assert_eq!(lines, ["Bind of statement \"t\" to (7, 'c', NULL)", "Execute", "Sync"]);
    }

    #[test]
    fn names_what_we_hear() {
        let row = b"\0\x02\0\0\0\x08\0\0\0\0\0\0\0\x0a\0\0\0\x03\x01{}";
        let bytes = [
            message(b'2', b""),
            message(b'D', row),
            message(b'C', b"SELECT 1\0"),
            message(b'Z', b"I"),
            message(b'?', b""),
        ]
        .concat();
        let lines = postgresql(&bytes, Side::Backend);
        let expected = [
            "BindComplete",
            "DataRow (10, jsonb {})",
            "CommandComplete: SELECT 1",
            "ReadyForQuery, idle: the transaction is committed",
            "a message '?'",
        ];
        assert_eq!(lines, expected);
        assert_eq!(postgresql(&bytes[..3], Side::Backend), ["3 bytes of a message"]);
        assert_eq!(postgresql(&message(b'B', b"\0t"), Side::Frontend), ["Bind"]);
    }

    #[test]
    fn shows_the_first_line_and_the_content_of_http() {
        assert_eq!(
            http(b"GET /clientes/1/extrato HTTP/1.1\r\nHost: a\r\n\r\n"),
            "GET /clientes/1/extrato HTTP/1.1"
        );
        let long = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(100));
        let told = http(long.as_bytes());
        assert!(
            told.starts_with("HTTP/1.1 200 OK  +  xxx") && told.ends_with("x... (100 characters)"),
            "{told}"
        );
    }
}
