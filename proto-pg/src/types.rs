//! The values of columns and parameters that are more than a Rust primitive, and how a column becomes one of them.
//!
//! Formats: PostgreSQL's `*_send` and `*_recv` functions, such as `numeric_send` in `numeric.c`.

use crate::request::{Oid, oid};
use crate::row::ColumnProblem;
use std::error::Error;
use std::fmt::{self, Debug, Display, Formatter};

/// A `date`: days since 2000-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    /// Days since 2000-01-01; the least and the greatest number are the infinities.
    pub days: i32,
}

/// A `time`: the time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Microseconds since midnight, 0 to 86 400 000 000 (`24:00:00`).
    pub microseconds: i64,
}

/// A `timestamptz`, or a `timestamp`, which is the same number without a time zone that it could be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Microseconds since 2000-01-01 00:00:00 (UTC for a `timestamptz`); the least and the greatest number are the
    /// infinities.
    pub microseconds: i64,
}

/// An `interval`: three numbers, since a month has no fixed number of days and a day none of hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Interval {
    /// Months; 12 for a year.
    pub months: i32,
    /// Days.
    pub days: i32,
    /// Microseconds.
    pub microseconds: i64,
}

/// A `jsonb`: its JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Jsonb<'a>(pub &'a str);

/// A `numeric` in a row, read where it lies. Its `Display` is the decimal text that PostgreSQL gives, such as `-12.50`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Numeric<'a> {
    kind: NumericKind,
    /// The power of 10000 that the first digit counts.
    weight: i16,
    /// Digits behind the point.
    scale: u16,
    /// Base 10000, two bytes each.
    digits: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NumericKind {
    Positive,
    Negative,
    NotANumber,
    Infinity,
    NegativeInfinity,
}

/// A decimal text that can be the parameter of a `numeric`: `12.50`, `-3`, `.5`, `NaN`, `Infinity`, `-Infinity`. Without an
/// exponent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decimal<'a>(&'a str);

/// The text is no [`Decimal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotDecimal;

const DAYS_1970_TO_2000: i32 = 10_957;
const MICROSECONDS_1970_TO_2000: i64 = DAYS_1970_TO_2000 as i64 * 86_400_000_000;

impl Date {
    /// Later than all others.
    pub const INFINITY: Date = Date { days: i32::MAX };
    /// Earlier than all others.
    pub const NEGATIVE_INFINITY: Date = Date { days: i32::MIN };

    /// The date that is so many days after 1970-01-01. `None` if the difference to 2000-01-01 is out of range.
    pub fn from_unix_days(days: i32) -> Option<Date> {
        Some(Date { days: days.checked_sub(DAYS_1970_TO_2000)? })
    }

    /// Days since 1970-01-01. `None` for the infinities.
    pub fn unix_days(self) -> Option<i32> {
        let is_finite = self != Date::INFINITY && self != Date::NEGATIVE_INFINITY;
        if is_finite { self.days.checked_add(DAYS_1970_TO_2000) } else { None }
    }
}

impl Timestamp {
    /// Later than all others.
    pub const INFINITY: Timestamp = Timestamp { microseconds: i64::MAX };
    /// Earlier than all others.
    pub const NEGATIVE_INFINITY: Timestamp = Timestamp { microseconds: i64::MIN };

    /// The moment that is so many microseconds after 1970-01-01 00:00:00. `None` if the difference to 2000-01-01 is out of
    /// range.
    pub fn from_unix_microseconds(microseconds: i64) -> Option<Timestamp> {
        Some(Timestamp { microseconds: microseconds.checked_sub(MICROSECONDS_1970_TO_2000)? })
    }

    /// Microseconds since 1970-01-01 00:00:00. `None` for the infinities, and from the year 294247 on.
    pub fn unix_microseconds(self) -> Option<i64> {
        let is_finite = self != Timestamp::INFINITY && self != Timestamp::NEGATIVE_INFINITY;
        if is_finite { self.microseconds.checked_add(MICROSECONDS_1970_TO_2000) } else { None }
    }
}

impl<'a> Numeric<'a> {
    fn decode(bytes: &'a [u8]) -> Option<Numeric<'a>> {
        let (head, digits) = bytes.split_first_chunk::<8>()?;
        let field = |at: usize| [head[at], head[at + 1]];
        let kind = match u16::from_be_bytes(field(4)) {
            0 => NumericKind::Positive,
            0x4000 => NumericKind::Negative,
            0xc000 => NumericKind::NotANumber,
            0xd000 => NumericKind::Infinity,
            0xf000 => NumericKind::NegativeInfinity,
            _ => return None,
        };
        let has_all = digits.len() == 2 * usize::from(u16::from_be_bytes(field(0)));
        let numeric = Numeric {
            kind,
            weight: i16::from_be_bytes(field(2)),
            scale: u16::from_be_bytes(field(6)),
            digits,
        };
        (has_all && numeric.digits().all(|digit| digit < NUMERIC_BASE)).then_some(numeric)
    }

    fn digits(&self) -> impl Iterator<Item = u16> {
        self.digits.chunks_exact(2).map(|digit| u16::from_be_bytes([digit[0], digit[1]]))
    }

    /// The digit that counts this power of 10000; 0 where none is stored.
    fn digit(&self, power: i32) -> u16 {
        let index = i32::from(self.weight) - power;
        usize::try_from(index).ok().and_then(|index| self.digits().nth(index)).unwrap_or(0)
    }

    /// True for `NaN`.
    pub fn is_nan(&self) -> bool {
        self.kind == NumericKind::NotANumber
    }
}

/// One digit on the wire is four decimal ones.
const NUMERIC_BASE: u16 = 10_000;

impl Display for Numeric<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.kind {
            NumericKind::NotANumber => return f.write_str("NaN"),
            NumericKind::Infinity => return f.write_str("Infinity"),
            NumericKind::NegativeInfinity => return f.write_str("-Infinity"),
            NumericKind::Negative => f.write_str("-")?,
            NumericKind::Positive => {}
        }
        let first = i32::from(self.weight.max(0));
        write!(f, "{}", self.digit(first))?;
        // Each digit is looked for from the front only as long as there are some.
        let mut stored = self.digits().skip(usize::from(self.weight >= 0));
        let mut power = first - 1;
        let mut next = |power: i32| {
            if i32::from(self.weight) >= power { stored.next().unwrap_or(0) } else { 0 }
        };
        while power >= 0 {
            write!(f, "{:04}", next(power))?;
            power -= 1;
        }
        let mut left = usize::from(self.scale);
        if left > 0 {
            f.write_str(".")?;
        }
        while left > 0 {
            let digit = next(power);
            let width = left.min(4);
            // The scale may end within a digit.
            write!(f, "{:0width$}", digit / [1000, 100, 10, 1][width - 1])?;
            left -= width;
            power -= 1;
        }
        Ok(())
    }
}

impl Debug for Numeric<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Numeric({self})")
    }
}

impl<'a> Decimal<'a> {
    /// Checks that a text is a number.
    ///
    /// # Errors
    /// It is none, or has more digits than a `numeric`: 131072 before the point, 16383 behind it.
    pub fn new(text: &'a str) -> Result<Decimal<'a>, NotDecimal> {
        let decimal = Decimal(text);
        if decimal.special().is_some() {
            return Ok(decimal);
        }
        let (_sign, whole, fraction) = decimal.parts();
        let is_number = [whole, fraction].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
            && whole.len() + fraction.len() > 0
            && whole.len() <= 131_072
            && fraction.len() <= 16_383;
        if is_number { Ok(decimal) } else { Err(NotDecimal) }
    }

    /// The text.
    pub fn as_str(&self) -> &'a str {
        self.0
    }

    /// The sign field of what is no finite number.
    fn special(&self) -> Option<u16> {
        match self.0 {
            "NaN" => Some(0xc000),
            "Infinity" => Some(0xd000),
            "-Infinity" => Some(0xf000),
            _ => None,
        }
    }

    /// The sign field, and the digits before and behind the point.
    fn parts(&self) -> (u16, &'a str, &'a str) {
        let (sign, digits) = match self.0.as_bytes().first() {
            Some(b'-') => (0x4000, &self.0[1..]),
            Some(b'+') => (0, &self.0[1..]),
            _ => (0, self.0),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        (sign, whole, fraction)
    }

    /// The length of what [`Decimal::encode`] puts, in bytes.
    pub(crate) fn len_bytes(&self) -> usize {
        let (_sign, whole, fraction) = self.parts();
        let digits = whole.len().div_ceil(4) + fraction.len().div_ceil(4);
        if self.special().is_some() { 8 } else { 8 + 2 * digits }
    }

    /// Puts the binary format of a `numeric`. The server takes leading and trailing zeros off by itself.
    pub(crate) fn encode(&self, mut put: impl FnMut(u16)) {
        if let Some(sign) = self.special() {
            [0, 0, sign, 0].into_iter().for_each(put);
            return;
        }
        let (sign, whole, fraction) = self.parts();
        let (whole_len, fraction_len) = (whole.len().div_ceil(4), fraction.len().div_ceil(4));
        // `Decimal::new` keeps the text below 32768 + 4096 digits of base 10000.
        let field = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
        put(field(whole_len + fraction_len));
        put(field(whole_len).wrapping_sub(1));
        put(sign);
        put(field(fraction.len()));
        let value = |digits: &[u8]| digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
        // The first digit of base 10000 has what is left over.
        let (head, rest) = whole.as_bytes().split_at(whole.len() - whole.len() / 4 * 4);
        if !head.is_empty() {
            put(value(head));
        }
        rest.chunks(4).map(value).for_each(&mut put);
        for digits in fraction.as_bytes().chunks(4) {
            put(value(digits) * [1000, 100, 10, 1][digits.len() - 1]);
        }
    }
}

impl Display for Decimal<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Display for NotDecimal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("expected a decimal number such as -12.50, NaN, Infinity or -Infinity")
    }
}

impl Error for NotDecimal {}

/// A type that a column in binary format can be read as: see [`Row::get`](crate::Row::get).
///
/// It may be implemented for types of other crates, such as those of a decimal or calendar crate, in terms of those here: `bool`,
/// `i16`, `i32`, `i64`, `f32`, `f64`, `&str`, `&[u8]`, `[u8; 16]` (`uuid`), [`Date`], [`Time`], [`Timestamp`], [`Interval`],
/// [`Numeric`], [`Jsonb`], [`Array`](crate::Array) of these, and `Option` of all. [`ColumnProblem::Other`] is for values that they
/// cannot hold.
pub trait FromColumn<'a>: Sized {
    /// Reads a value; `None` is NULL.
    ///
    /// # Errors
    /// What is wrong with the column.
    fn from_column(value: Option<&'a [u8]>) -> Result<Self, ColumnProblem>;
}

/// A type that the elements of an [`Array`](crate::Array) can be read as.
pub trait Element<'a>: FromColumn<'a> {
    /// True if elements of this type are read as `Self`.
    fn is_of(element_type: Oid) -> bool;
}

impl<'a, T: FromColumn<'a>> FromColumn<'a> for Option<T> {
    fn from_column(value: Option<&'a [u8]>) -> Result<Option<T>, ColumnProblem> {
        match value {
            None => Ok(None),
            Some(_) => T::from_column(value).map(Some),
        }
    }
}

/// Reads a value of one width.
fn fixed<const LEN: usize>(value: Option<&[u8]>) -> Result<[u8; LEN], ColumnProblem> {
    let bytes = value.ok_or(ColumnProblem::Null)?;
    let problem = ColumnProblem::WrongLength { expected_bytes: LEN, actual_bytes: bytes.len() };
    bytes.try_into().map_err(|_| problem)
}

macro_rules! column {
    ($a:lifetime, $type:ty, $oids:pat, $value:ident => $read:expr) => {
        impl<$a> FromColumn<$a> for $type {
            #[inline]
            fn from_column($value: Option<&$a [u8]>) -> Result<$type, ColumnProblem> {
                $read
            }
        }
        impl<$a> Element<$a> for $type {
            fn is_of(element_type: Oid) -> bool {
                matches!(element_type, $oids)
            }
        }
    };
}

column!('a, bool, oid::BOOL, value => match fixed(value)? {
    [0] => Ok(false),
    [1] => Ok(true),
    [_] => Err(ColumnProblem::NotBool),
});
column!('a, i16, oid::INT2, value => fixed(value).map(i16::from_be_bytes));
column!('a, i32, oid::INT4, value => fixed(value).map(i32::from_be_bytes));
column!('a, i64, oid::INT8, value => fixed(value).map(i64::from_be_bytes));
column!('a, f32, oid::FLOAT4, value => fixed(value).map(f32::from_be_bytes));
column!('a, f64, oid::FLOAT8, value => fixed(value).map(f64::from_be_bytes));
// From the first that is no type of PostgreSQL's own, it may be an enum or a domain.
column!(
    'a, &'a str,
    oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::JSON | oid::UNKNOWN | FIRST_NORMAL_OID..,
    value => std::str::from_utf8(value.ok_or(ColumnProblem::Null)?).map_err(|_| ColumnProblem::NotUtf8)
);
column!('a, &'a [u8], _, value => value.ok_or(ColumnProblem::Null));
column!('a, [u8; 16], oid::UUID, value => fixed(value));
column!('a, Date, oid::DATE, value => fixed(value).map(|bytes| Date { days: i32::from_be_bytes(bytes) }));
column!('a, Time, oid::TIME, value => {
    fixed(value).map(|bytes| Time { microseconds: i64::from_be_bytes(bytes) })
});
column!('a, Timestamp, oid::TIMESTAMP | oid::TIMESTAMPTZ, value => {
    fixed(value).map(|bytes| Timestamp { microseconds: i64::from_be_bytes(bytes) })
});
column!('a, Interval, oid::INTERVAL, value => {
    let bytes: [u8; 16] = fixed(value)?;
    let (microseconds, rest) = bytes.split_at(8);
    let (days, months) = rest.split_at(4);
    Ok(Interval {
        months: fixed(Some(months)).map(i32::from_be_bytes)?,
        days: fixed(Some(days)).map(i32::from_be_bytes)?,
        microseconds: fixed(Some(microseconds)).map(i64::from_be_bytes)?,
    })
});
column!('a, Numeric<'a>, oid::NUMERIC, value => {
    Numeric::decode(value.ok_or(ColumnProblem::Null)?).ok_or(ColumnProblem::NotNumeric)
});
column!('a, Jsonb<'a>, oid::JSONB, value => match value.ok_or(ColumnProblem::Null)?.split_first() {
    Some((1, json)) => std::str::from_utf8(json).map(Jsonb).map_err(|_| ColumnProblem::NotUtf8),
    Some(_) | None => Err(ColumnProblem::NotJsonb),
});

/// Types of extensions and users have this number or a higher one. Source: PostgreSQL's `transam.h`.
const FIRST_NORMAL_OID: Oid = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(fields: &[u16]) -> Vec<u8> {
        fields.iter().flat_map(|field| field.to_be_bytes()).collect()
    }

    fn text(fields: &[u16]) -> Option<String> {
        Numeric::decode(&numeric(fields)).map(|numeric| numeric.to_string())
    }

    #[test]
    fn a_numeric_reads_as_postgresql_prints_it() {
        for (fields, expected) in [
            (&[0, 0, 0, 0][..], "0"),
            (&[0, 0, 0, 2], "0.00"),
            (&[1, 0, 0, 0, 7], "7"),
            (&[1, 1, 0, 0, 1], "10000"),
            (&[2, 1, 0x4000, 0, 1, 23], "-10023"),
            (&[2, 0, 0, 2, 12, 5000], "12.50"),
            (&[1, 0xffff, 0, 1, 5000], "0.5"),
            (&[1, 0xfffe, 0, 6, 1200], "0.000012"),
            (&[1, 0, 0, 5, 3], "3.00000"),
            (&[0, 0, 0xc000, 0], "NaN"),
            (&[0, 0, 0xd000, 0x20], "Infinity"),
            (&[0, 0, 0xf000, 0x20], "-Infinity"),
        ] {
            assert_eq!(text(fields).as_deref(), Some(expected), "{fields:?}");
        }
        for wrong in [&[1, 0, 0, 0][..], &[0, 0, 0, 0, 1], &[1, 0, 0, 0, 10_000], &[0, 0, 1, 0], &[0, 0, 0]] {
            assert_eq!(text(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_decimal_goes_out_as_the_number_that_it_says() {
        for (sent, expected) in [
            ("0", "0"),
            ("12.50", "12.50"),
            ("-3", "-3"),
            (".5", "0.5"),
            ("+1.", "1"),
            ("123456789.123456789", "123456789.123456789"),
            ("10000", "10000"),
            ("0.00001", "0.00001"),
            ("NaN", "NaN"),
            ("-Infinity", "-Infinity"),
        ] {
            let decimal = Decimal::new(sent).unwrap();
            let mut bytes = vec![];
            decimal.encode(|field| bytes.extend(field.to_be_bytes()));
            assert_eq!(bytes.len(), decimal.len_bytes(), "{sent}");
            assert_eq!(Numeric::decode(&bytes).unwrap().to_string(), expected);
        }
        let long = "1".repeat(131_073);
        for wrong in ["", "-", ".", "1e5", "1.2.3", "--1", "0x1", "nan", " 1", &long] {
            assert_eq!(Decimal::new(wrong), Err(NotDecimal), "{wrong}");
        }
    }

    #[test]
    fn moments_count_from_1970_or_from_2000() {
        assert_eq!(Timestamp { microseconds: 0 }.unix_microseconds(), Some(946_684_800_000_000));
        assert_eq!(Timestamp::from_unix_microseconds(0).unwrap().microseconds, -946_684_800_000_000);
        assert_eq!(Timestamp::INFINITY.unix_microseconds(), None);
        assert_eq!(Timestamp::from_unix_microseconds(i64::MIN), None);
        assert_eq!(Date::from_unix_days(10_957), Some(Date { days: 0 }));
        assert_eq!(
            (Date { days: -1 }.unix_days(), Date::NEGATIVE_INFINITY.unix_days()),
            (Some(10_956), None)
        );
    }
}
