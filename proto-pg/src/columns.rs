//! What a statement takes and gives: the types of its parameters and the columns of its result.

use crate::request::Oid;

/// The columns of a result, in order, borrowed from the connection's inbox until the next use of the connection.
///
/// Format: PostgreSQL documentation, "Frontend/Backend Protocol", section Message Formats, `RowDescription`.
#[derive(Debug, Clone)]
pub struct Columns<'a> {
    len: usize,
    rest: &'a [u8],
}

/// One column of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Column<'a> {
    /// Its name.
    pub name: &'a str,
    /// The table that it is a column of; 0 if it is none.
    pub table: Oid,
    /// Its number within that table, from 1; 0 if it is none.
    pub attribute: i16,
    /// Its type; of a domain, the type that it is made of.
    pub type_oid: Oid,
    /// The width of the type in bytes; negative if that varies.
    pub type_len_bytes: i16,
    /// What the type is modified by, such as the scale of a `numeric`; -1 for nothing.
    pub type_modifier: i32,
    /// True if its values come in binary. What describes a statement says false: that is settled when it is called.
    pub is_binary: bool,
}

/// The types of a statement's parameters, in order, borrowed from the connection's inbox until the next use of the connection.
///
/// Format: PostgreSQL documentation, "Frontend/Backend Protocol", section Message Formats, `ParameterDescription`.
#[derive(Debug, Clone)]
pub struct ParameterTypes<'a>(&'a [[u8; 4]]);

impl<'a> Columns<'a> {
    /// Checks the body of a `RowDescription` from end to end.
    pub(crate) fn decode(body: &'a [u8]) -> Option<Columns<'a>> {
        let columns = Columns::from_checked(body)?;
        let mut rest = columns.clone();
        for _ in 0..columns.len {
            rest.take_first()?;
        }
        rest.rest.is_empty().then_some(columns)
    }

    /// Wraps a body that [`Columns::decode`] has checked before.
    pub(crate) fn from_checked(body: &'a [u8]) -> Option<Columns<'a>> {
        let (count, rest) = body.split_first_chunk()?;
        Some(Columns { len: usize::from(u16::from_be_bytes(*count)), rest })
    }

    fn take_first(&mut self) -> Option<Column<'a>> {
        let end = self.rest.iter().position(|&byte| byte == 0)?;
        let name = std::str::from_utf8(&self.rest[..end]).ok()?;
        let mut fields = &self.rest[end + 1..];
        let column = Column {
            name,
            table: Oid::from_be_bytes(take(&mut fields)?),
            attribute: i16::from_be_bytes(take(&mut fields)?),
            type_oid: Oid::from_be_bytes(take(&mut fields)?),
            type_len_bytes: i16::from_be_bytes(take(&mut fields)?),
            type_modifier: i32::from_be_bytes(take(&mut fields)?),
            is_binary: i16::from_be_bytes(take(&mut fields)?) == 1,
        };
        self.rest = fields;
        Some(column)
    }
}

fn take<const LEN: usize>(bytes: &mut &[u8]) -> Option<[u8; LEN]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

impl<'a> Iterator for Columns<'a> {
    type Item = Column<'a>;

    fn next(&mut self) -> Option<Column<'a>> {
        self.len = self.len.checked_sub(1)?;
        self.take_first()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len, Some(self.len))
    }
}

impl ExactSizeIterator for Columns<'_> {}

impl<'a> ParameterTypes<'a> {
    /// Checks the body of a `ParameterDescription`.
    pub(crate) fn decode(body: &'a [u8]) -> Option<ParameterTypes<'a>> {
        let (count, rest) = body.split_first_chunk()?;
        let (types, left) = rest.as_chunks();
        let len = usize::from(u16::from_be_bytes(*count));
        (types.len() == len && left.is_empty()).then_some(ParameterTypes(types))
    }
}

impl Iterator for ParameterTypes<'_> {
    type Item = Oid;

    fn next(&mut self) -> Option<Oid> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(Oid::from_be_bytes(*first))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0.len(), Some(self.0.len()))
    }
}

impl ExactSizeIterator for ParameterTypes<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[u8] = b"\0\x02id\0\0\0\x40\0\0\x01\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0\
                             total\0\0\0\0\0\0\0\0\0\x06\xa4\xff\xff\0\x0a\0\x06\0\x01";

    #[test]
    fn columns_are_read_as_they_are_described() {
        let columns = Columns::decode(COLUMNS).unwrap();
        let id = Column {
            name: "id",
            table: 16_384,
            attribute: 1,
            type_oid: 23,
            type_len_bytes: 4,
            type_modifier: -1,
            is_binary: false,
        };
        let total = Column {
            name: "total",
            table: 0,
            attribute: 0,
            type_oid: 1700,
            type_len_bytes: -1,
            type_modifier: (10 << 16) + 6,
            is_binary: true,
        };
        assert_eq!(columns.len(), 2);
        assert_eq!(columns.collect::<Vec<_>>(), [id, total]);
        assert_eq!(Columns::decode(&[0, 0]).unwrap().count(), 0);
    }

    #[test]
    fn what_is_cut_short_or_too_long_is_refused() {
        for len in 0..COLUMNS.len() {
            assert!(Columns::decode(&COLUMNS[..len]).is_none(), "{len} bytes");
        }
        assert!(Columns::decode(&[COLUMNS, b"\0"].concat()).is_none());
        let types = b"\0\x02\0\0\0\x17\0\0\x06\xa4";
        assert_eq!(ParameterTypes::decode(types).unwrap().collect::<Vec<_>>(), [23, 1700]);
        for len in 0..types.len() {
            assert!(ParameterTypes::decode(&types[..len]).is_none(), "{len} bytes");
        }
        assert!(ParameterTypes::decode(&[&types[..], &[0; 4]].concat()).is_none());
    }
}
