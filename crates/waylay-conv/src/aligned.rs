//! Buffers aligned to 64 bytes, a cache line: a vector that crosses cache lines takes two accesses.

use std::ops::{Deref, DerefMut, Range};

/// Bytes of a cache line.
const LINE: usize = 64;

/// Values from the beginning of a cache line on.
#[derive(Debug)]
pub(crate) struct Aligned<T> {
    values: Vec<T>,
    /// Which of them count.
    range: Range<usize>,
}

impl<T: Copy + Default> Aligned<T> {
    /// `len` values, zeros; `T` has a size that divides a line's.
    pub fn new(len: usize) -> Self {
        let values = vec![T::default(); len + LINE / size_of::<T>() - 1];
        let first = values.as_ptr().align_offset(LINE).min(values.len() - len);
        Self { values, range: first..first + len }
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values[self.range.clone()]
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values[self.range.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_begin_with_a_cache_line() {
        for len in [0, 1, 15, 16, 17, 1000] {
            let (floats, bytes, pairs) =
                (Aligned::<f32>::new(len), Aligned::<u8>::new(len), Aligned::<[i16; 2]>::new(len));
            assert_eq!([floats.len(), bytes.len(), pairs.len()], [len; 3]);
            for address in [floats.as_ptr().addr(), bytes.as_ptr().addr(), pairs.as_ptr().addr()] {
                assert_eq!(address % LINE, 0, "{len} values");
            }
        }
    }
}
