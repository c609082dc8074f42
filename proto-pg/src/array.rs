//! An array in a row, read where it lies.

use crate::request::Oid;
use crate::row::ColumnProblem;
use crate::types::{Element, FromColumn};
use std::fmt::{self, Debug, Formatter};
use std::marker::PhantomData;

/// The elements of a one-dimensional array, in order; `None` for NULL. Where the indices begin is not kept.
///
/// Every element was checked when it was made, so iterating never fails.
///
/// Format: PostgreSQL's `array_send`: Int32 dimensions, Int32 whether there are NULLs, Int32 element type; for each
/// dimension Int32 length and Int32 lower bound; for each element Int32 length, -1 for NULL, and its bytes.
#[derive(Clone)]
pub struct Array<'a, T> {
    len: usize,
    elements: &'a [u8],
    element: PhantomData<fn() -> T>,
}

impl<'a, T: Element<'a>> Array<'a, T> {
    /// Checks an array from end to end. `None` if it is no array of this type, or has more than one dimension.
    fn decode(bytes: &'a [u8]) -> Option<Array<'a, T>> {
        let (dimensions, rest) = take_i32(bytes)?;
        let (_has_null, rest) = take_i32(rest)?;
        let (element_type, rest) = take_i32(rest)?;
        if !T::is_of(Oid::from_be_bytes(element_type.to_be_bytes())) {
            return None;
        }
        let (len, elements) = match dimensions {
            0 => (0, rest),
            1 => {
                let (len, rest) = take_i32(rest)?;
                let (_lower_bound, rest) = take_i32(rest)?;
                (usize::try_from(len).ok()?, rest)
            }
            _ => return None,
        };
        let mut left = elements;
        for _ in 0..len {
            let element;
            (element, left) = take_element(left)?;
            Option::<T>::from_column(element).ok()?;
        }
        left.is_empty().then_some(Array { len, elements, element: PhantomData })
    }
}

impl<'a, T: Element<'a>> Iterator for Array<'a, T> {
    type Item = Option<T>;

    fn next(&mut self) -> Option<Option<T>> {
        self.len = self.len.checked_sub(1)?;
        let (element, rest) = take_element(self.elements)?;
        self.elements = rest;
        Option::<T>::from_column(element).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len, Some(self.len))
    }
}

impl<'a, T: Element<'a>> ExactSizeIterator for Array<'a, T> {}

impl<'a, T: Element<'a> + Clone + Debug> Debug for Array<'a, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

impl<'a, T: Element<'a>> FromColumn<'a> for Array<'a, T> {
    fn from_column(value: Option<&'a [u8]>) -> Result<Array<'a, T>, ColumnProblem> {
        Array::decode(value.ok_or(ColumnProblem::Null)?).ok_or(ColumnProblem::NotArray)
    }
}

fn take_i32(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((i32::from_be_bytes(*number), rest))
}

fn take_element(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    match take_i32(bytes)? {
        (-1, rest) => Some((None, rest)),
        (len, rest) => {
            let (element, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
            Some((Some(element), rest))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INT8: i32 = 20;

    fn array(dimensions: i32, element_type: i32, len: i32, elements: &[Option<i64>]) -> Vec<u8> {
        let mut bytes: Vec<u8> = [dimensions, 1, element_type].iter().flat_map(|n| n.to_be_bytes()).collect();
        if dimensions > 0 {
            bytes.extend([len, 1].iter().flat_map(|n| n.to_be_bytes()));
        }
        for element in elements {
            match element {
                Some(number) => {
                    bytes.extend(8i32.to_be_bytes());
                    bytes.extend(number.to_be_bytes());
                }
                None => bytes.extend((-1i32).to_be_bytes()),
            }
        }
        bytes
    }

    #[test]
    fn elements_come_in_order_with_their_nulls() {
        let expected = [Some(i64::MIN), None, Some(-1), Some(i64::MAX), None];
        let bytes = array(1, INT8, 5, &expected);
        let decoded = Array::<i64>::decode(&bytes).unwrap();
        assert_eq!(decoded.len(), 5);
        assert_eq!(decoded.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_empty_array_has_no_dimension() {
        assert_eq!(Array::<i64>::decode(&array(0, INT8, 0, &[])).unwrap().count(), 0);
    }

    #[test]
    fn what_is_cut_short_or_of_another_shape_is_refused() {
        let whole = array(1, INT8, 2, &[Some(1), None]);
        for len_bytes in 0..whole.len() {
            assert!(Array::<i64>::decode(&whole[..len_bytes]).is_none(), "{len_bytes} bytes");
        }
        let mut longer = whole.clone();
        longer.push(0);
        for wrong in [
            longer,
            array(1, 23, 1, &[Some(1)]),
            array(2, INT8, 1, &[Some(1)]),
            array(-1, INT8, 0, &[]),
            array(1, INT8, -1, &[]),
            array(1, INT8, i32::MAX, &[Some(1)]),
            array(0, INT8, 0, &[Some(1)]),
        ] {
            assert!(Array::<i64>::decode(&wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn elements_of_any_type_are_checked_when_the_array_is() {
        let text = |elements: &[u8]| {
            [&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 25, 0, 0, 0, 2, 0, 0, 0, 1], elements].concat()
        };
        let bytes = text(b"\0\0\0\x01a\xff\xff\xff\xff");
        assert_eq!(Array::<&str>::decode(&bytes).unwrap().collect::<Vec<_>>(), [Some("a"), None]);
        assert_eq!(format!("{:?}", Array::<&str>::decode(&bytes).unwrap()), "[Some(\"a\"), None]");
        assert!(Array::<&str>::decode(&text(b"\0\0\0\x01\xff\xff\xff\xff\xff")).is_none());
        assert!(Array::<&[u8]>::decode(&text(b"\0\0\0\x01\xff\xff\xff\xff\xff")).is_some());
        assert!(Array::<bool>::decode(&bytes).is_none());
        assert!(Array::<&str>::decode(&text(b"\0\0\0\x01a\xff\xff\xff\xfe")).is_none());
    }
}
