//! Products of matrices in plain slices, for exact nearest-neighbour search.

use crate::filters::interleave;
use crate::kernel::{Kernel, Lanes};
use crate::scratch;
use crate::turn::multiply_rows;

/// Writes `A·Bᵀ` to `out`, for row-major `a` `[m, k]`, `b` `[n, k]` and `out` `[m, n]`, on the calling thread.
///
/// Each value is summed over `k` in an order that depends on `k` alone.
///
/// # Panics
/// Where a slice's length is not the product of its two sizes.
pub fn matmul_transposed(a: &[f32], b: &[f32], m: usize, n: usize, k: usize, out: &mut [f32]) {
    assert_eq!(Some(a.len()), m.checked_mul(k), "`a` must hold m x k = {m} x {k} values");
    assert_eq!(Some(b.len()), n.checked_mul(k), "`b` must hold n x k = {n} x {k} values");
    assert_eq!(Some(out.len()), m.checked_mul(n), "`out` must hold m x n = {m} x {n} values");
    if out.is_empty() || k == 0 {
        out.fill(0.0);
        return;
    }
    let filters = Kernel::new().filters();
    let block = filters * k;
    scratch::with(a.len().next_multiple_of(block), |packed| {
        for (packed, rows) in packed.chunks_exact_mut(block).zip(a.chunks(block)) {
            interleave(rows, k, filters, packed);
        }
        let packed = &*packed;
        multiply_rows(out, false, |index| Lanes::Packed(&packed[index * block..][..block]), b, k, [n, k]);
    });
}

#[cfg(test)]
mod tests {
    use super::matmul_transposed;

    #[test]
    fn the_product_agrees_with_three_loops_at_awkward_sizes() {
        for (m, n, k) in
            [(0, 3, 2), (3, 0, 2), (2, 2, 0), (1, 1, 1), (1, 40, 7), (5, 1, 300), (17, 33, 65), (64, 256, 9)]
        {
            let a: Vec<f32> = (0..m * k).map(|i| (i * 7 % 11) as f32 - 5.0).collect();
            let b: Vec<f32> = (0..n * k).map(|i| (i * 5 % 13) as f32 - 6.0).collect();
            let mut out = vec![f32::NAN; m * n];
            matmul_transposed(&a, &b, m, n, k, &mut out);
            for i in 0..m {
                for j in 0..n {
                    let exact: f32 = (0..k).map(|p| a[i * k + p] * b[j * k + p]).sum();
                    assert_eq!(out[i * n + j], exact, "{m} x {n} x {k} at {i}, {j}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "`b` must hold")]
    fn a_slice_that_is_too_short_is_refused() {
        matmul_transposed(&[0.0; 4], &[0.0; 3], 2, 2, 2, &mut [0.0; 4]);
    }
}
