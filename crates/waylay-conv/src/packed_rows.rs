//! GEMM with a packed operand, A·Bᵀ of plain slices, for exact nearest-neighbour search.

use crate::filters::interleave;
use crate::kernel::{Kernel, LeftOperand};
use crate::transpose::multiply_rows;

/// A row-major matrix `[m, k]`, laid out for products with the rows of others.
#[derive(Clone, Debug)]
pub struct PackedRows {
    /// Blocks of as many rows as the kernel takes.
    blocks: Vec<f32>,
    rows: usize,
    columns: usize,
}

impl PackedRows {
    /// The matrix `values` of rows of `columns` values.
    ///
    /// # Panics
    /// Where rows are empty, or `values` is not whole rows.
    pub fn new(values: &[f32], columns: usize) -> Self {
        assert!(
            columns > 0 && values.len().is_multiple_of(columns),
            "`values` must be whole rows of {columns}"
        );
        let filters = Kernel::new().filters();
        let block = filters * columns;
        let mut blocks = vec![0.0; values.len().next_multiple_of(block)];
        for (packed, rows) in blocks.chunks_exact_mut(block).zip(values.chunks(block)) {
            interleave(rows, columns, filters, packed);
        }
        Self { blocks, rows: values.len() / columns, columns }
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Writes `A·Bᵀ` for row-major `b` `[n, k]` on the calling thread: the first `n` values of each
    /// of `m` rows of `out`, which are `pitch` apart.
    ///
    /// Each value is summed over `k` in an order that depends on `k` alone.
    ///
    /// # Panics
    /// Where `b` is not whole rows of `k` values, they are more than `pitch`, or `out` does not
    /// hold `m` rows.
    pub fn multiply_transposed(&self, b: &[f32], out: &mut [f32], pitch: usize) {
        let (n, k) = (b.len() / self.columns, self.columns);
        assert!(b.len().is_multiple_of(k), "`b` must be whole rows of k = {k} values");
        assert!(n <= pitch, "n = {n} values do not fit rows that are {pitch} apart");
        if n == 0 || self.rows == 0 {
            return;
        }
        let held = out.len().checked_sub(n).map_or(0, |len| len / pitch + 1);
        assert!(held >= self.rows, "`out` must hold m = {} rows of {n} values, {pitch} apart", self.rows);
        let out = &mut out[..(self.rows - 1) * pitch + n];
        let block = Kernel::new().filters() * k;
        let lanes = |index: usize| LeftOperand::Packed(&self.blocks[index * block..][..block]);
        multiply_rows(out, pitch, false, lanes, b, k, [n, k]);
    }
}

#[cfg(test)]
mod tests {
    use super::PackedRows;

    #[test]
    fn the_product_agrees_with_three_loops_at_awkward_sizes() {
        for (m, n, k) in
            [(0, 3, 2), (3, 0, 2), (1, 1, 1), (1, 40, 7), (5, 1, 300), (17, 33, 65), (64, 256, 9)]
        {
            let a: Vec<f32> = (0..m * k).map(|i| (i * 7 % 11) as f32 - 5.0).collect();
            let b: Vec<f32> = (0..n * k).map(|i| (i * 5 % 13) as f32 - 6.0).collect();
            for pitch in [n, n + 3] {
                let mut out = vec![f32::NAN; m * pitch];
                let packed = PackedRows::new(&a, k);
                assert_eq!(packed.rows(), m);
                packed.multiply_transposed(&b, &mut out, pitch);
                for (i, row) in out.chunks(pitch.max(1)).enumerate() {
                    for (j, found) in row.iter().enumerate() {
                        if j >= n {
                            assert!(found.is_nan(), "{m} x {n} x {k}: written beyond the row");
                            continue;
                        }
                        let exact: f32 = (0..k).map(|p| a[i * k + p] * b[j * k + p]).sum();
                        assert_eq!(*found, exact, "{m} x {n} x {k} at {i}, {j}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_sum_does_not_depend_on_its_neighbours() {
        let (m, n, k) = (9, 50, 301);
        let noise = |count: usize, seed: usize| -> Vec<f32> {
            (0..count).map(|i| ((i + seed) * 7919 % 1009) as f32 / 1009.0).collect()
        };
        let (a, b) = (noise(m * k, 1), noise(n * k, 2));
        let mut all = vec![0.0; m * n];
        PackedRows::new(&a, k).multiply_transposed(&b, &mut all, n);
        for (i, j) in [(0, 0), (8, 49), (3, 17), (7, 40)] {
            let mut one = [0.0];
            PackedRows::new(&a[i * k..][..k], k).multiply_transposed(&b[j * k..][..k], &mut one, 1);
            assert_eq!(one[0], all[i * n + j], "{i}, {j}");
        }
    }

    #[test]
    #[should_panic(expected = "`out` must hold")]
    fn a_slice_that_is_too_short_is_refused() {
        PackedRows::new(&[0.0; 4], 2).multiply_transposed(&[0.0; 4], &mut [0.0; 3], 2);
    }
}
