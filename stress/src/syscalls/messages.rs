//! Bytes in readable form: the first line of HTTP, the messages of PostgreSQL by name.
//!
//! Format: RFC 9112, "HTTP/1.1"; PostgreSQL documentation, "Frontend/Backend Protocol", section Message Formats.

/// Who says something to PostgreSQL, or hears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Frontend,
    Backend,
}

pub(super) fn http(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let (head, content) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let first = head.lines().next().unwrap_or_default();
    if content.is_empty() { first.to_owned() } else { format!("{first}  +  {}", shortened(content)) }
}

/// One line for each message.
pub(super) fn postgresql(mut bytes: &[u8], side: Side) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some((tag, body, rest)) = split_message(bytes) {
        let (name, more) = match (side, tag) {
            (Side::Frontend, b'P') => ("Parse", None),
            (Side::Frontend, b'B') => ("Bind", bind(body)),
            (Side::Frontend, b'E') => ("Execute", None),
            (Side::Frontend, b'S') => ("Sync", None),
            (Side::Frontend, b'X') => ("Terminate", None),
            (Side::Backend, b'1') => ("ParseComplete", None),
            (Side::Backend, b'2') => ("BindComplete", None),
            (Side::Backend, b'D') => {
                let columns = || list(split_count(body)?).map(|columns| format!(" {columns}"));
                ("DataRow", columns())
            }
            (Side::Backend, b'C') => ("CommandComplete", split_text(body).map(|(tag, _)| format!(": {tag}"))),
            (Side::Backend, b'Z') => {
                let state = match body {
                    b"I" => "idle: the transaction is committed",
                    b"T" => "in a transaction",
                    _ => "in a failed transaction",
                };
                ("ReadyForQuery", Some(format!(", {state}")))
            }
            (Side::Backend, b'E') => ("ErrorResponse", None),
            (Side::Backend, b'N') => ("NoticeResponse", None),
            (Side::Backend, b'S') => ("ParameterStatus", None),
            (Side::Frontend | Side::Backend, tag) => ("a message", Some(format!(" {:?}", char::from(tag)))),
        };
        lines.push(format!("{name}{}", more.unwrap_or_default()));
        bytes = rest;
    }
    if !bytes.is_empty() {
        lines.push(format!("{} bytes of a message", bytes.len()));
    }
    lines
}

/// Tag, body, what follows. `None` if the message is not whole.
fn split_message(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let len_bytes = usize::try_from(u32::from_be_bytes(*rest.first_chunk()?)).ok()?;
    let (body, rest) = rest.split_at_checked(len_bytes)?;
    Some((*tag, body.get(4..)?, rest))
}

/// Portal, statement, formats, values.
fn bind(body: &[u8]) -> Option<String> {
    let (_portal, rest) = split_text(body)?;
    let (statement, rest) = split_text(rest)?;
    let (formats, rest) = split_count(rest)?;
    let (_, rest) = rest.split_at_checked(2 * formats)?;
    Some(format!(" of statement {statement:?} to {}", list(split_count(rest)?)?))
}

/// So many values in parentheses, each an Int32 length, -1 for NULL, and its bytes.
fn list((count, mut bytes): (usize, &[u8])) -> Option<String> {
    let mut values = Vec::new();
    for _ in 0..count {
        let (len, rest) = bytes.split_first_chunk()?;
        let len = i32::from_be_bytes(*len);
        let (value, rest) = rest.split_at_checked(usize::try_from(len.max(0)).ok()?)?;
        values.push(if len < 0 { "NULL".to_owned() } else { told(value) });
        bytes = rest;
    }
    Some(format!("({})", values.join(", ")))
}

/// The protocol does not say the type, so it is guessed: text if it reads as such, jsonb by its version byte, or else a
/// number by its width.
fn told(value: &[u8]) -> String {
    let text = |bytes| {
        str::from_utf8(bytes).ok().filter(|text| !text.is_empty() && !text.contains(char::is_control))
    };
    if let Some(text) = text(value) {
        return format!("'{}'", shortened(text));
    }
    if let Some(json) = value.strip_prefix(&[1]).and_then(text) {
        return format!("jsonb {}", shortened(json));
    }
    let number = match value.len() {
        4 => value.first_chunk().map(|bytes| i32::from_be_bytes(*bytes).to_string()),
        8 => value.first_chunk().map(|bytes| i64::from_be_bytes(*bytes).to_string()),
        _ => None,
    };
    number.unwrap_or_else(|| format!("{} bytes", value.len()))
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
    match text.chars().count() {
        len if len > SHOWN_CHARS_MAX => {
            format!("{}... ({len} characters)", text.chars().take(SHOWN_CHARS_MAX).collect::<String>())
        }
        _ => text.to_owned(),
    }
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
    fn names_what_we_say_and_hear() {
        let bind = b"\0t\0\0\x01\0\x01\0\x03\0\0\0\x04\0\0\0\x07\0\0\0\x01c\xff\xff\xff\xff\0\x01\0\x01";
        let row = b"\0\x02\0\0\0\x08\0\0\0\0\0\0\0\x0a\0\0\0\x03\x01{}";
        for (side, tag, body, told) in [
            (Side::Frontend, b'B', &bind[..], "Bind of statement \"t\" to (7, 'c', NULL)"),
            (Side::Frontend, b'B', b"\0t", "Bind"),
            (Side::Frontend, b'E', b"\0\0\0\0\0", "Execute"),
            (Side::Frontend, b'S', b"", "Sync"),
            (Side::Backend, b'2', b"", "BindComplete"),
            (Side::Backend, b'D', row, "DataRow (10, jsonb {})"),
            (Side::Backend, b'C', b"SELECT 1\0", "CommandComplete: SELECT 1"),
            (Side::Backend, b'Z', b"I", "ReadyForQuery, idle: the transaction is committed"),
            (Side::Backend, b'?', b"", "a message '?'"),
        ] {
            let bytes = [message(tag, body), b"Z\0".to_vec()].concat();
            assert_eq!(postgresql(&bytes, side), [told, "2 bytes of a message"]);
        }
    }

    #[test]
    fn shows_the_first_line_and_the_content_of_http() {
        let request = b"GET /clientes/1/extrato HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(http(request), "GET /clientes/1/extrato HTTP/1.1");
        let told = http(format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(100)).as_bytes());
        let is_whole = told.starts_with("HTTP/1.1 200 OK  +  xxx") && told.ends_with("x... (100 characters)");
        assert!(is_whole, "{told}");
    }
}
