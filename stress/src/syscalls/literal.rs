//! Turns a string as strace shows it back into its bytes.

/// The bytes of the first string among the arguments of a call: `9<...>, "GET /\r\n", 2048, ...`.
///
/// Format: the manual page strace(1), option `-s` and "printing strings": as in C, with octal escapes of up to three
/// digits, as few as the next byte allows.
pub(super) fn first_string(arguments: &str) -> Option<Vec<u8>> {
    let (_, rest) = arguments.split_once(", \"")?;
    let mut bytes = rest.bytes().peekable();
    let mut found = Vec::new();
    loop {
        match bytes.next()? {
            b'"' => return Some(found),
            b'\\' => found.push(match bytes.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 0x0b,
                b'f' => 0x0c,
                digit @ b'0'..=b'7' => {
                    let mut value = u32::from(digit - b'0');
                    for _ in 0..2 {
                        let Some(digit) = bytes.next_if(|byte| (b'0'..=b'7').contains(byte)) else { break };
                        value = value * 8 + u32::from(digit - b'0');
                    }
                    u8::try_from(value).ok()?
                }
                other => other,
            }),
            byte => found.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_escapes_of_strace() {
        let bytes = |arguments| first_string(arguments);
        assert_eq!(bytes(r#"9<TCP:[1]>, "GET /\r\n", 2048, 0, NULL, NULL"#).unwrap(), b"GET /\r\n");
        assert_eq!(bytes(r#"8, "D\0\0\0\0331\377\1\n\"\\", 9"#).unwrap(), b"D\0\0\0\x1b1\xff\x01\n\"\\");
        assert_eq!(bytes("8, 0x55, 10"), None);
        assert_eq!(bytes(r#"8, "cut"#), None);
    }
}
