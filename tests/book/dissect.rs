//! Tells bytes of HTTP and of PostgreSQL's protocol field by field, each with the bytes that say it.
//!
//! Format: RFC 9112, "HTTP/1.1"; PostgreSQL documentation, "Frontend/Backend Protocol", section Message Formats; RFC 5802
//! for SCRAM.

use std::fmt::Write as _;

use crate::support::proxy::Way;

/// Begins a line whose bytes differ from run to run.
const VARIES: char = '~';
/// Bytes that a line shows before it says "and so on".
const SHOWN_BYTES_MAX: usize = 8;

/// HTTP, line by line, with the ends of the lines visible.
pub(crate) fn http(whose: &str, bytes: &[u8]) -> String {
    let text = str::from_utf8(bytes).expect("HTTP of ours is UTF-8");
    let mut told = title(' ', whose, bytes);
    for line in text.split_inclusive('\n') {
        let varies = line.starts_with("Date: ") || line.contains("\"realizada_em\"");
        let mark = if varies { VARIES } else { ' ' };
        writeln!(told, "{mark} {}", line.replace("\r\n", "\\r\\n")).expect("writing to memory");
    }
    told
}

/// Every message of one turn of a conversation with PostgreSQL.
pub(crate) fn postgresql(whose: &str, way: Way, bytes: &[u8]) -> String {
    let mut told = Telling::of(bytes, 0);
    while !told.rest.is_empty() {
        match way {
            Way::ToServer => told.said(),
            Way::ToClient => told.heard(),
        }
    }
    let mark = if told.is_of_any_length { VARIES } else { ' ' };
    title(mark, whose, bytes) + &told.text
}

fn title(mark: char, whose: &str, bytes: &[u8]) -> String {
    format!("{mark} {whose}, {} bytes:\n\n", bytes.len())
}

/// Leaves out what differs from run to run.
pub(crate) fn masked(text: &str) -> String {
    let mut lines: Vec<&str> =
        text.lines().map(|line| if line.starts_with(VARIES) { "~" } else { line }).collect();
    lines.dedup_by(|line, before| *line == "~" && *before == "~");
    lines.join("\n")
}

struct Telling<'a> {
    rest: &'a [u8],
    text: String,
    depth: usize,
    /// What is told now differs from run to run.
    varies: bool,
    /// And so does its length.
    is_of_any_length: bool,
}

impl<'a> Telling<'a> {
    fn of(rest: &'a [u8], depth: usize) -> Telling<'a> {
        Telling { rest, text: String::new(), depth, varies: false, is_of_any_length: false }
    }

    fn said(&mut self) {
        if self.rest[0] == 0 {
            return self.start_up();
        }
        let (tag, mut body) = self.message(|tag| match tag {
            b'p' => "the answer to a request to authenticate",
            b'P' => "Parse",
            b'D' => "Describe",
            b'B' => "Bind",
            b'E' => "Execute",
            b'S' => "Sync",
            b'X' => "Terminate",
            _ => panic!("our server never says {:?}", char::from(tag)),
        });
        match tag {
            b'p' if body.rest.starts_with(b"SCRAM") => {
                body.text("mechanism");
                body.int4("bytes that follow");
                body.varying_rest();
            }
            b'p' => body.varying_rest(),
            b'P' => {
                body.text("name");
                body.text("text");
                let count = body.int2("types of parameters");
                for _ in 0..count {
                    body.take(4, |oid| format!("  {}", type_name(number(oid))));
                }
            }
            b'D' => {
                body.take(1, |kind| match kind {
                    b"S" => "of a statement".to_owned(),
                    other => panic!("a Describe of {other:?}"),
                });
                body.text("name");
            }
            b'B' => body.bind(),
            b'E' => {
                body.text("portal");
                body.int4("rows at most, 0 for all");
            }
            _ => {}
        }
        self.finish(&body);
    }

    fn heard(&mut self) {
        let (tag, mut body) = self.message(|tag| match tag {
            b'R' => "Authentication",
            b'S' => "ParameterStatus",
            b'K' => "BackendKeyData",
            b'Z' => "ReadyForQuery",
            b'1' => "ParseComplete",
            b'2' => "BindComplete",
            b't' => "ParameterDescription",
            b'T' => "RowDescription",
            b'D' => "DataRow",
            b'C' => "CommandComplete",
            b'E' => "ErrorResponse",
            _ => panic!("not expected of PostgreSQL: {:?}", char::from(tag)),
        });
        match tag {
            b'R' => body.authentication(),
            b'S' | b'K' => body.varying_rest(),
            b'Z' => {
                body.take(1, |status| match status {
                    b"I" => "idle: no transaction is open".to_owned(),
                    other => panic!("status {other:?}"),
                });
            }
            b'D' => {
                for _ in 0..body.int2("columns") {
                    body.value(None);
                }
            }
            b't' => {
                for _ in 0..body.int2("types of parameters") {
                    body.take(4, |oid| format!("  {}", type_name(number(oid))));
                }
            }
            b'T' => {
                for _ in 0..body.int2("columns") {
                    body.text("name");
                    // The number of a table depends on what was made before it.
                    body.varies = body.rest[..4] != [0; 4];
                    body.take(18, |rest| {
                        format!("  {}, behind its table and position", type_name(number(&rest[6..10])))
                    });
                    body.varies = false;
                }
            }
            b'C' => body.text("tag"),
            b'E' => {
                while body.rest != [0] {
                    // File, line and routine of PostgreSQL's own source.
                    body.varies = matches!(body.rest[0], b'F' | b'L' | b'R' | b'W');
                    let end = 1 + body.rest.iter().position(|byte| *byte == 0).expect("a field ends");
                    let kind = body.rest[0];
                    body.take(end, |field| {
                        let text = String::from_utf8_lossy(&field[1..field.len() - 1]).replace('\n', "; ");
                        format!("{}: {text:.60}", error_field(kind))
                    });
                }
                body.varies = false;
                body.take(1, |_| "no more fields".to_owned());
            }
            _ => {}
        }
        self.finish(&body);
    }

    fn start_up(&mut self) {
        let len = usize::try_from(number(&self.rest[..4])).expect("a length");
        self.take(4, |_| format!("StartupMessage, {len} bytes; the only one without a tag"));
        let (body, rest) = self.rest.split_at(len - 4);
        let mut body = Telling::of(body, 1);
        body.take(4, |version| format!("protocol {}.{}", version[1], version[3]));
        while body.rest != [0] {
            let mut pair = body.rest.splitn(3, |byte| *byte == 0);
            let (name, value) = (pair.next().unwrap_or_default(), pair.next().unwrap_or_default());
            let shown = format!("{} = {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value));
            body.take(name.len() + value.len() + 2, |_| shown);
        }
        body.take(1, |_| "no more parameters".to_owned());
        self.rest = rest;
        self.finish(&body);
    }

    /// Tells the head of the next message, and splits its body off.
    fn message(&mut self, name: impl Fn(u8) -> &'static str) -> (u8, Telling<'a>) {
        let tag = self.rest[0];
        let len = usize::try_from(number(&self.rest[1..5])).expect("a length") + 1;
        // How many there are of these two, and how long they are, depends on the version of PostgreSQL.
        self.varies = matches!(name(tag), "ParameterStatus" | "ErrorResponse");
        self.is_of_any_length |= self.varies;
        self.take(5, |_| format!("{}, {len} bytes", name(tag)));
        self.varies = false;
        let (body, rest) = self.rest.split_at(len - 5);
        self.rest = rest;
        (tag, Telling::of(body, 1))
    }

    fn finish(&mut self, body: &Telling<'_>) {
        assert!(body.rest.is_empty(), "bytes that nobody told of: {:?} after {}", body.rest, body.text);
        self.text += &body.text;
    }

    fn bind(&mut self) {
        self.text("portal");
        let name = String::from_utf8_lossy(&self.rest[..1]).into_owned();
        self.text("statement");
        self.take(4, |formats| {
            assert_eq!(formats, [0, 1, 0, 1]);
            "1 format for all parameters: binary".to_owned()
        });
        let types: &[&str] = match name.as_str() {
            "t" => &["integer", "integer", "text", "text"],
            "s" => &["integer[]", "integer[]", "text[]", "text[]"],
            "e" => &["integer"],
            "v" => &["text[]", "text[]"],
            _ => &["bigint"],
        };
        let count = self.int2("parameters");
        assert_eq!(usize::try_from(count).expect("a count"), types.len(), "statement {name:?}");
        for of_type in types {
            self.value(Some(of_type));
        }
        self.take(4, |formats| {
            assert_eq!(formats, [0, 1, 0, 1]);
            "1 format for all results: binary".to_owned()
        });
    }

    /// A length and as many bytes. Of a result the type is not said, and guessed.
    fn value(&mut self, of_type: Option<&str>) {
        let len = number(&self.rest[..4]);
        let Ok(len) = usize::try_from(len) else {
            self.take(4, |_| "  NULL".to_owned());
            return;
        };
        let of_type = of_type.unwrap_or(match len {
            1 => "boolean",
            4 => "integer",
            8 => "bigint",
            _ if self.rest[4] == 1 => "jsonb",
            _ => "bigint[]",
        });
        self.varies = of_type == "jsonb";
        self.take(4 + len, |bytes| {
            let bytes = &bytes[4..];
            let told = match of_type {
                "text" => format!("{:?}", String::from_utf8_lossy(bytes)),
                "jsonb" => format!("version {}, {:.60} …", bytes[0], String::from_utf8_lossy(&bytes[1..])),
                "boolean" => (bytes == [1]).to_string(),
                "integer" | "bigint" => number(bytes).to_string(),
                array => format!("{{{}}}", elements(bytes, array).join(", ")),
            };
            format!("  {of_type} {told}")
        });
        self.varies = false;
    }

    fn authentication(&mut self) {
        let code = number(&self.rest[..4]);
        let name = match code {
            0 => "Ok",
            10 => "SASL: pick one of these mechanisms",
            11 => "SASLContinue",
            12 => "SASLFinal",
            other => panic!("authentication {other}"),
        };
        self.take(4, |_| format!("{code}: {name}"));
        match code {
            10 => {
                while self.rest != [0] {
                    self.text("mechanism");
                }
                self.take(1, |_| "no more mechanisms".to_owned());
            }
            11 | 12 => self.varying_rest(),
            _ => {}
        }
    }

    fn text(&mut self, what: &str) {
        let end = 1 + self.rest.iter().position(|byte| *byte == 0).expect("a text ends");
        self.take(end, |bytes| format!("{what}: {:?}", String::from_utf8_lossy(&bytes[..bytes.len() - 1])));
    }

    fn int2(&mut self, what: &str) -> i64 {
        self.integer(2, what)
    }

    fn int4(&mut self, what: &str) -> i64 {
        self.integer(4, what)
    }

    fn integer(&mut self, len: usize, what: &str) -> i64 {
        let value = number(&self.rest[..len]);
        self.take(len, |_| format!("{what}: {value}"));
        value
    }

    fn varying_rest(&mut self) {
        self.varies = true;
        self.take(self.rest.len(), |bytes| {
            let is_text = bytes.iter().all(|byte| *byte == 0 || !byte.is_ascii_control());
            if is_text && !bytes.starts_with(&[0]) {
                String::from_utf8_lossy(bytes).trim_end_matches('\0').replace('\0', " = ")
            } else {
                format!("process {}, and its secret key", number(&bytes[..4]))
            }
        });
        self.varies = false;
    }

    /// One line: the next `len` bytes, and what they mean.
    fn take(&mut self, len: usize, meaning: impl FnOnce(&[u8]) -> String) {
        let (bytes, rest) = self.rest.split_at(len);
        self.rest = rest;
        let mut shown: Vec<String> =
            bytes.iter().take(SHOWN_BYTES_MAX).map(|byte| format!("{byte:02x}")).collect();
        if len > SHOWN_BYTES_MAX {
            "…".clone_into(&mut shown[SHOWN_BYTES_MAX - 1]);
        }
        let mark = if self.varies { VARIES } else { ' ' };
        let indent = 2 * self.depth;
        let line = format!("{mark} {:<25}{:indent$}{}", shown.join(" "), "", meaning(bytes));
        writeln!(self.text, "{}", line.trim_end()).expect("writing to memory");
    }
}

/// A big-endian signed integer of 2, 4 or 8 bytes.
fn number(bytes: &[u8]) -> i64 {
    let is_negative = bytes[0] >= 0x80;
    bytes.iter().fold(if is_negative { -1 } else { 0 }, |value, byte| value << 8 | i64::from(*byte))
}

/// Of an array in one dimension: dimensions, whether there are NULLs, type, length, first index, elements.
fn elements(bytes: &[u8], of_type: &str) -> Vec<String> {
    let mut rest = &bytes[20..];
    let mut told = Vec::new();
    while !rest.is_empty() {
        let len = usize::try_from(number(&rest[..4])).expect("no NULL here");
        let (element, after) = rest[4..].split_at(len);
        told.push(match of_type {
            "text[]" => String::from_utf8_lossy(element).into_owned(),
            _ => number(element).to_string(),
        });
        rest = after;
    }
    told
}

fn type_name(oid: i64) -> &'static str {
    match oid {
        16 => "boolean",
        20 => "bigint",
        23 => "integer",
        25 => "text",
        1007 => "integer[]",
        1009 => "text[]",
        1016 => "bigint[]",
        3802 => "jsonb",
        _ => panic!("type {oid}"),
    }
}

fn error_field(kind: u8) -> &'static str {
    match kind {
        b'S' => "severity",
        b'V' => "severity, never translated",
        b'C' => "SQLSTATE",
        b'M' => "message",
        b'W' => "where",
        b'F' => "file",
        b'L' => "line",
        b'R' => "routine",
        other => panic!("field {:?}", char::from(other)),
    }
}
