//! One row of a result, decoded where it lies in the inbox.

use crate::array::Array;
use crate::types::{Date, FromColumn, Interval, Numeric, Time, Timestamp};
use std::error::Error;
use std::fmt::{self, Display, Formatter};

/// One row of a result in binary format, borrowed from the connection's inbox until the next call on the connection.
///
/// The shape of the row (count and lengths of its columns) was checked when the message arrived; a row of the
/// wrong shape closes the connection and never gets here. A getter can check the width of a value but not its type. To have
/// the types checked once, at the start of the session, declare them with [`Statement::returning`](crate::Statement::returning).
/// If a getter fails, the statement and its reader do not agree, and the owner should close the connection with
/// [`CloseReason::Row`](crate::CloseReason::Row).
///
/// Columns are found by walking from the first, so a getter costs time in proportion to its index.
///
/// Format: PostgreSQL documentation, "Frontend/Backend Protocol", section Message Formats, `DataRow`.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    columns_len: usize,
    columns: &'a [u8],
}

/// Why a column could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowError {
    /// The index that was asked for, from 0.
    pub column: usize,
    /// What is wrong with it.
    pub problem: ColumnProblem,
}

/// What is wrong with a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ColumnProblem {
    /// The row has only so many columns.
    Absent {
        /// The number of columns of the row.
        columns_len: usize,
    },
    /// The value is NULL; ask [`Row::is_null`] first where that may be.
    Null,
    /// The value has another width than its type.
    WrongLength {
        /// The width of the type, in bytes.
        expected_bytes: usize,
        /// The width of the value, in bytes.
        actual_bytes: usize,
    },
    /// A boolean other than 0 and 1.
    NotBool,
    /// Text that is not UTF-8.
    NotUtf8,
    /// A jsonb value without the version byte 1.
    NotJsonb,
    /// No `numeric`.
    NotNumeric,
    /// No array of this type of elements, or one of more than one dimension.
    NotArray,
    /// Something that only the reader of the value knows: for an implementation of [`FromColumn`] by others.
    Other(&'static str),
}

/// One row of a simple query's result, in text format: what `psql` would print. Borrowed from the connection's inbox until the next
/// use of the connection.
#[derive(Debug, Clone, Copy)]
pub struct TextRow<'a>(Row<'a>);

impl<'a> TextRow<'a> {
    pub(crate) fn new(row: Row<'a>) -> TextRow<'a> {
        TextRow(row)
    }

    /// The number of columns.
    pub fn columns_len(&self) -> usize {
        self.0.columns_len()
    }

    /// The text of a column, `None` for NULL.
    ///
    /// # Errors
    /// [`ColumnProblem::Absent`], [`ColumnProblem::NotUtf8`].
    pub fn text(&self, column: usize) -> Result<Option<&'a str>, RowError> {
        self.0.get(column)
    }

    /// The bytes of a column as they came, `None` for NULL.
    ///
    /// # Errors
    /// [`ColumnProblem::Absent`].
    pub fn raw(&self, column: usize) -> Result<Option<&'a [u8]>, RowError> {
        self.0.raw(column)
    }
}

impl<'a> Row<'a> {
    /// Checks the body of a `DataRow` from end to end. `None` if counts, lengths and bytes do not agree.
    pub(crate) fn decode(body: &'a [u8]) -> Option<Row<'a>> {
        let row = Row::from_checked(body)?;
        let mut rest = row.columns;
        for _ in 0..row.columns_len {
            (_, rest) = split_column(rest)?;
        }
        rest.is_empty().then_some(row)
    }

    /// Wraps the body of a `DataRow` whose columns [`Row::decode`] has checked before. `None` without a column count.
    pub(crate) fn from_checked(body: &'a [u8]) -> Option<Row<'a>> {
        let (count, columns) = body.split_first_chunk()?;
        let columns_len = usize::try_from(i16::from_be_bytes(*count)).ok()?;
        Some(Row { columns_len, columns })
    }

    /// The number of columns.
    pub fn columns_len(&self) -> usize {
        self.columns_len
    }

    /// The bytes of a column as they came, `None` for NULL.
    ///
    /// # Errors
    /// [`ColumnProblem::Absent`].
    pub fn raw(&self, column: usize) -> Result<Option<&'a [u8]>, RowError> {
        let absent = RowError { column, problem: ColumnProblem::Absent { columns_len: self.columns_len } };
        if column >= self.columns_len {
            return Err(absent);
        }
        let mut rest = self.columns;
        for _ in 0..column {
            (_, rest) = split_column(rest).ok_or(absent)?;
        }
        split_column(rest).map(|(value, _)| value).ok_or(absent)
    }

    /// True if the column is NULL.
    ///
    /// # Errors
    /// [`ColumnProblem::Absent`].
    pub fn is_null(&self, column: usize) -> Result<bool, RowError> {
        Ok(self.raw(column)?.is_none())
    }

    /// A column as any type that has [`FromColumn`]: `row.get::<f64>(2)?`, or `row.get::<Option<&str>>(0)?` where it may be
    /// NULL.
    ///
    /// # Errors
    /// [`ColumnProblem::Absent`], [`ColumnProblem::Null`], and what is wrong with the bytes.
    #[inline]
    pub fn get<T: FromColumn<'a>>(&self, column: usize) -> Result<T, RowError> {
        T::from_column(self.raw(column)?).map_err(|problem| RowError { column, problem })
    }

    /// The bytes of a column that must not be NULL: `bytea`, or a type this crate does not know.
    ///
    /// # Errors
    /// [`ColumnProblem::Absent`], [`ColumnProblem::Null`].
    pub fn bytes(&self, column: usize) -> Result<&'a [u8], RowError> {
        self.get(column)
    }

    /// A `boolean`.
    ///
    /// # Errors
    /// [`ColumnProblem::Absent`], `Null`, `WrongLength`, `NotBool`.
    pub fn bool(&self, column: usize) -> Result<bool, RowError> {
        self.get(column)
    }

    /// A `smallint`.
    ///
    /// # Errors
    /// [`ColumnProblem::Absent`], `Null`, `WrongLength`.
    pub fn i16(&self, column: usize) -> Result<i16, RowError> {
        self.get(column)
    }

    /// An `integer`.
    ///
    /// # Errors
    /// [`ColumnProblem::Absent`], `Null`, `WrongLength`.
    pub fn i32(&self, column: usize) -> Result<i32, RowError> {
        self.get(column)
    }

    /// A `bigint`.
    ///
    /// # Errors
    /// [`ColumnProblem::Absent`], `Null`, `WrongLength`.
    pub fn i64(&self, column: usize) -> Result<i64, RowError> {
        self.get(column)
    }

    /// A `real`.
    ///
    /// # Errors
    /// [`ColumnProblem::Absent`], `Null`, `WrongLength`.
    pub fn f32(&self, column: usize) -> Result<f32, RowError> {
        self.get(column)
    }

    /// A `double precision`.
    ///
    /// # Errors
    /// [`ColumnProblem::Absent`], `Null`, `WrongLength`.
    pub fn f64(&self, column: usize) -> Result<f64, RowError> {
        self.get(column)
    }

    /// A `numeric`; its `Display` is its decimal text.
    ///
    /// # Errors
    /// [`ColumnProblem::Absent`], `Null`, `NotNumeric`.
    pub fn numeric(&self, column: usize) -> Result<Numeric<'a>, RowError> {
        self.get(column)
    }

    /// A `text`, `varchar`, `char(n)`, `name`, `json`, or the label of an enum.
    ///
    /// # Errors
    /// [`ColumnProblem::Absent`], `Null`, `NotUtf8`.
    pub fn text(&self, column: usize) -> Result<&'a str, RowError> {
        self.get(column)
    }

    /// A `uuid`.
    ///
    /// # Errors
    /// [`ColumnProblem::Absent`], `Null`, `WrongLength`.
    pub fn uuid(&self, column: usize) -> Result<[u8; 16], RowError> {
        self.get(column)
    }

    /// A `date`.
    ///
    /// # Errors
    /// [`ColumnProblem::Absent`], `Null`, `WrongLength`.
    pub fn date(&self, column: usize) -> Result<Date, RowError> {
        self.get(column)
    }

    /// A `time`.
    ///
    /// # Errors
    /// [`ColumnProblem::Absent`], `Null`, `WrongLength`.
    pub fn time(&self, column: usize) -> Result<Time, RowError> {
        self.get(column)
    }

    /// A `timestamp` or a `timestamptz`.
    ///
    /// # Errors
    /// [`ColumnProblem::Absent`], `Null`, `WrongLength`.
    pub fn timestamp(&self, column: usize) -> Result<Timestamp, RowError> {
        self.get(column)
    }

    /// An `interval`.
    ///
    /// # Errors
    /// [`ColumnProblem::Absent`], `Null`, `WrongLength`.
    pub fn interval(&self, column: usize) -> Result<Interval, RowError> {
        self.get(column)
    }

    /// The JSON text of a `jsonb`, without the version byte that stands before it.
    ///
    /// # Errors
    /// [`ColumnProblem::Absent`], `Null`, `NotJsonb`.
    pub fn jsonb(&self, column: usize) -> Result<&'a [u8], RowError> {
        match self.bytes(column)?.split_first() {
            Some((1, json)) => Ok(json),
            Some(_) | None => Err(RowError { column, problem: ColumnProblem::NotJsonb }),
        }
    }

    /// A one-dimensional `bigint[]`; its elements may be NULL. For arrays of other types: `row.get::<Array<&str>>(0)`.
    ///
    /// # Errors
    /// [`ColumnProblem::Absent`], `Null`, `NotArray`.
    pub fn i64_array(&self, column: usize) -> Result<Array<'a, i64>, RowError> {
        self.get(column)
    }
}

/// Splits the first column off: an Int32 length, -1 for NULL, and that many bytes.
fn split_column(columns: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (len, rest) = columns.split_first_chunk()?;
    match i32::from_be_bytes(*len) {
        -1 => Some((None, rest)),
        len => {
            let (value, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
            Some((Some(value), rest))
        }
    }
}

impl Display for RowError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: {}", self.column, self.problem)
    }
}

impl Display for ColumnProblem {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            ColumnProblem::Absent { columns_len } => write!(f, "absent, the row has {columns_len} columns"),
            ColumnProblem::Null => f.write_str("is NULL"),
            ColumnProblem::WrongLength { expected_bytes, actual_bytes } => {
                write!(f, "{actual_bytes} bytes long, its type has {expected_bytes}")
            }
            ColumnProblem::NotBool => f.write_str("is not a boolean"),
            ColumnProblem::NotUtf8 => f.write_str("is not UTF-8"),
            ColumnProblem::NotJsonb => f.write_str("is not jsonb version 1"),
            ColumnProblem::Other(problem) => f.write_str(problem),
            ColumnProblem::NotNumeric => f.write_str("is not a numeric"),
            ColumnProblem::NotArray => {
                f.write_str("is not an array of one dimension with elements of this type")
            }
        }
    }
}

impl Error for RowError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(columns: &[Option<&[u8]>]) -> Vec<u8> {
        let mut body = i16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
        for column in columns {
            let len = column.map_or(-1, |bytes| i32::try_from(bytes.len()).unwrap());
            body.extend(len.to_be_bytes());
            body.extend(column.unwrap_or_default());
        }
        body
    }

    #[test]
    fn each_type_reads_its_own_format() {
        let body = body(&[
            Some(&[0xff, 0xfe]),
            Some(&[0x80, 0, 0, 0]),
            Some(&[0, 0, 0, 1, 0, 0, 0, 0]),
            Some("olá".as_bytes()),
            Some(b"\x01{}"),
            None,
            Some(&[1]),
            Some(b""),
        ]);
        let row = Row::decode(&body).unwrap();
        assert_eq!(row.columns_len(), 8);
        assert_eq!(row.i16(0), Ok(-2));
        assert_eq!(row.i32(1), Ok(i32::MIN));
        assert_eq!(row.i64(2), Ok(1 << 32));
        assert_eq!(row.text(3), Ok("olá"));
        assert_eq!(row.jsonb(4), Ok(&b"{}"[..]));
        assert_eq!((row.raw(5), row.is_null(5), row.is_null(4)), (Ok(None), Ok(true), Ok(false)));
        assert_eq!(row.bool(6), Ok(true));
        assert_eq!((row.get::<Option<i32>>(1), row.get::<Option<i32>>(5)), (Ok(Some(i32::MIN)), Ok(None)));
        assert_eq!(row.get::<crate::Jsonb<'_>>(4), Ok(crate::Jsonb("{}")));
        assert_eq!((row.text(7), row.bytes(7)), (Ok(""), Ok(&b""[..])));
    }

    #[test]
    fn what_is_more_than_a_primitive_has_a_type_of_its_own() {
        let interval = [&258i64.to_be_bytes()[..], &2i32.to_be_bytes(), &3i32.to_be_bytes()].concat();
        let body = body(&[
            Some(&1.5f32.to_be_bytes()),
            Some(&f64::MIN.to_be_bytes()),
            Some(&[7; 16]),
            Some(&(-1i32).to_be_bytes()),
            Some(&86_400_000_000i64.to_be_bytes()),
            Some(&i64::MAX.to_be_bytes()),
            Some(&interval),
            Some(&[0, 1, 0, 0, 0x40, 0, 0, 1, 0, 5]),
        ]);
        let row = Row::decode(&body).unwrap();
        assert_eq!((row.f32(0), row.f64(1), row.uuid(2)), (Ok(1.5), Ok(f64::MIN), Ok([7; 16])));
        assert_eq!(row.date(3), Ok(Date { days: -1 }));
        assert_eq!(row.time(4), Ok(Time { microseconds: 86_400_000_000 }));
        assert_eq!(row.timestamp(5), Ok(Timestamp::INFINITY));
        assert_eq!(row.interval(6), Ok(Interval { months: 3, days: 2, microseconds: 258 }));
        assert_eq!(row.numeric(7).unwrap().to_string(), "-5.0");
        assert_eq!(row.numeric(0).unwrap_err().problem, ColumnProblem::NotNumeric);
        assert_eq!(row.i64_array(0).unwrap_err().problem, ColumnProblem::NotArray);
    }

    #[test]
    fn a_column_that_does_not_fit_is_an_error_with_its_index() {
        let body = body(&[Some(&[0, 0, 0, 1]), None, Some(&[2]), Some(&[0xff])]);
        let row = Row::decode(&body).unwrap();
        let absent = ColumnProblem::Absent { columns_len: 4 };
        for column in [4, usize::MAX] {
            assert_eq!(row.raw(column), Err(RowError { column, problem: absent }));
            assert_eq!(row.is_null(column), Err(RowError { column, problem: absent }));
        }
        assert_eq!(row.i32(1), Err(RowError { column: 1, problem: ColumnProblem::Null }));
        let wrong = |expected_bytes| ColumnProblem::WrongLength { expected_bytes, actual_bytes: 4 };
        assert_eq!(row.i64(0), Err(RowError { column: 0, problem: wrong(8) }));
        assert_eq!(row.i16(0), Err(RowError { column: 0, problem: wrong(2) }));
        assert_eq!(row.bool(2), Err(RowError { column: 2, problem: ColumnProblem::NotBool }));
        assert_eq!(row.jsonb(2), Err(RowError { column: 2, problem: ColumnProblem::NotJsonb }));
        assert_eq!(row.text(3), Err(RowError { column: 3, problem: ColumnProblem::NotUtf8 }));
        assert_eq!(row.i64(0).unwrap_err().to_string(), "column 0: 4 bytes long, its type has 8");
    }

    #[test]
    fn a_row_of_the_wrong_shape_is_refused() {
        let good = body(&[Some(&[1, 2, 3]), None, Some(b"")]);
        assert!(Row::decode(&good).is_some());
        assert!(Row::decode(&body(&[])).is_some());
        for len in 0..good.len() {
            assert!(Row::decode(&good[..len]).is_none(), "{len} bytes");
        }
        assert!(Row::decode(&[&good[..], &[0]].concat()).is_none());
        assert!(Row::decode(&[0, 1, 0x7f, 0xff, 0xff, 0xff]).is_none());
    }
}
