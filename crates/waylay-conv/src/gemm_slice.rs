//! Matrix products of plain slices: the safe door to the `gemm` crate for exact nearest-neighbour search.

use gemm::Parallelism;

/// Writes `A·Bᵀ` to `out`, for row-major `a` `[m, k]`, `b` `[n, k]` and `out` `[m, n]`, on the calling thread.
///
/// Each value is summed over `k` in an order that depends on `m`, `n` and `k`, but not on the values.
///
/// # Panics
/// Where a slice's length is not the product of its two sizes.
pub fn matmul_transposed(a: &[f32], b: &[f32], m: usize, n: usize, k: usize, out: &mut [f32]) {
    assert_eq!(Some(a.len()), m.checked_mul(k), "`a` must hold m x k = {m} x {k} values");
    assert_eq!(Some(b.len()), n.checked_mul(k), "`b` must hold n x k = {n} x {k} values");
    assert_eq!(Some(out.len()), m.checked_mul(n), "`out` must hold m x n = {m} x {n} values");
    let (out_rows, rows) = (n as isize, k as isize);
    // SAFETY: gemm reads lhs[i, p] at `a + i·k + p` for i < m, p < k, reads rhs[p, j] at `b + j·k + p` for j < n,
    // and writes dst[i, j] at `out + i·n + j`; the three assertions keep these inside their slices, whose lengths
    // (hence every stride) fit `isize`. `out` is borrowed mutably, so it overlaps neither input. `f32` needs no drop.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            out_rows,
            false,
            a.as_ptr(),
            1,
            rows,
            b.as_ptr(),
            rows,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
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
