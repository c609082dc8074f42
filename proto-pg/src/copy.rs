//! COPY: how its data is coded.

use std::error::Error;
use std::fmt::{self, Display, Formatter};

/// How the data of a COPY is coded.
///
/// Format: PostgreSQL documentation, "Frontend/Backend Protocol", section Message Formats, `CopyOutResponse`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyFormat {
    /// Whether it is `FORMAT binary`; else it is text or CSV.
    pub is_binary: bool,
    /// The number of columns.
    pub columns_len: usize,
}

/// No COPY FROM STDIN takes data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyEnded;

impl CopyFormat {
    /// Decodes the body of a `CopyInResponse` or a `CopyOutResponse`: the format, the number of columns, and the format of
    /// each, which is that of all.
    pub(crate) fn decode(body: &[u8]) -> Option<CopyFormat> {
        let (&[format, count_high, count_low], formats) = body.split_first_chunk()?;
        let columns_len = usize::from(u16::from_be_bytes([count_high, count_low]));
        let is_whole = format < 2 && formats.len() == 2 * columns_len;
        is_whole.then_some(CopyFormat { is_binary: format == 1, columns_len })
    }
}

impl Display for CopyEnded {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("no COPY FROM STDIN takes data")
    }
}

impl Error for CopyEnded {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_has_one_code_for_each_column() {
        let text = CopyFormat { is_binary: false, columns_len: 2 };
        assert_eq!(CopyFormat::decode(b"\0\0\x02\0\0\0\0"), Some(text));
        assert_eq!(CopyFormat::decode(b"\x01\0\0"), Some(CopyFormat { is_binary: true, columns_len: 0 }));
        for wrong in [&b""[..], b"\0\0", b"\0\0\x01", b"\0\0\x01\0\0\0", b"\x02\0\0"] {
            assert_eq!(CopyFormat::decode(wrong), None, "{wrong:?}");
        }
    }
}
