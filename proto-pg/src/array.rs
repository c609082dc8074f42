//! A `bigint[]` in a row, read where it lies.

/// The elements of a one-dimensional `bigint[]`, in order; `None` for NULL.
///
/// Its shape was checked when it was made, so iterating never fails.
///
/// Format: PostgreSQL's `array_send`: Int32 dimensions, Int32 whether there are NULLs, Int32 element type; for each
/// dimension Int32 length and Int32 lower bound; for each element Int32 length, -1 for NULL, and its bytes.
#[derive(Debug, Clone)]
pub struct Int8Array<'a> {
    len: usize,
    elements: &'a [u8],
}

impl<'a> Int8Array<'a> {
    /// Checks an array from end to end. `None` if it is no `bigint[]`, or has more than one dimension.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Int8Array<'a>> {
        let (dimensions, rest) = take_i32(bytes)?;
        let (_has_null, rest) = take_i32(rest)?;
        let (element_type, rest) = take_i32(rest)?;
        if element_type != INT8 {
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
            (_, left) = take_element(left)?;
        }
        left.is_empty().then_some(Int8Array { len, elements })
    }
}

impl Iterator for Int8Array<'_> {
    type Item = Option<i64>;

    fn next(&mut self) -> Option<Option<i64>> {
        self.len = self.len.checked_sub(1)?;
        let (element, rest) = take_element(self.elements)?;
        self.elements = rest;
        Some(element)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len, Some(self.len))
    }
}

impl ExactSizeIterator for Int8Array<'_> {}

fn take_i32(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((i32::from_be_bytes(*number), rest))
}

fn take_element(bytes: &[u8]) -> Option<(Option<i64>, &[u8])> {
    match take_i32(bytes)? {
        (-1, rest) => Some((None, rest)),
        (8, rest) => {
            let (number, rest) = rest.split_first_chunk()?;
            Some((Some(i64::from_be_bytes(*number)), rest))
        }
        (_, _) => None,
    }
}

/// The type of the elements: oid 20, `bigint`.
const INT8: i32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

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
        let decoded = Int8Array::decode(&bytes).unwrap();
        assert_eq!(decoded.len(), 5);
        assert_eq!(decoded.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_empty_array_has_no_dimension() {
        assert_eq!(Int8Array::decode(&array(0, INT8, 0, &[])).unwrap().count(), 0);
    }

    #[test]
    fn what_is_cut_short_or_of_another_shape_is_refused() {
        let whole = array(1, INT8, 2, &[Some(1), None]);
        for len_bytes in 0..whole.len() {
            assert!(Int8Array::decode(&whole[..len_bytes]).is_none(), "{len_bytes} bytes");
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
            assert!(Int8Array::decode(&wrong).is_none(), "{wrong:?}");
        }
    }
}
