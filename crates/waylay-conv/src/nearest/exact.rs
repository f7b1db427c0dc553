//! Sums over the columns of a pair of rows: one fixed formula, the same bits on every machine.
//!
//! Sums run in 64 lanes (`column % 64`) in f32 without fused multiply-add, over 512 columns at a time, as long sums of short ones round
//! less than one long sum; and the lanes are added in a fixed tree, so that vector width and instruction set cannot change the result.

use crate::simd::vectorised;

/// How many rows are compared with a query at a time.
pub const ROWS_AT_ONCE: usize = 4;

/// How many partial sums a sum is accumulated in.
const LANES: usize = 64;

/// Values of a lane that are summed on their own.
const BLOCK: usize = 8;

/// The longest chain of f32 roundings that a column goes through here: subtraction, product, its lane's additions within
/// a block and over the blocks, and the tree over the lanes.
pub fn rounding_depth(dimension: usize) -> usize {
    let values = dimension.div_ceil(LANES);
    values.min(BLOCK) + values.div_ceil(BLOCK) + LANES.ilog2() as usize + 2
}

/// `|query - row|²` for each row.
///
/// # Panics
/// If a row is not as long as the query.
#[inline]
pub fn squared_distances<const N: usize>(query: &[f32], rows: [&[f32]; N]) -> [f32; N] {
    sums::<true, N>(query, rows)
}

/// `query · row` for each row.
///
/// # Panics
/// If a row is not as long as the query.
#[inline]
pub fn dot_products<const N: usize>(query: &[f32], rows: [&[f32]; N]) -> [f32; N] {
    sums::<false, N>(query, rows)
}

vectorised! {
    /// How many of `values` are at most `limit`.
    pub fn count_at_most(values: &[f32], limit: f32) -> usize {
        // Counted in 32 bits, as wide as the values.
        values.chunks(1 << 20).map(|values| values.iter().map(|v| u32::from(*v <= limit)).sum::<u32>() as usize).sum()
    }
}

/// Asks for a row to be brought near the processor, as it is about to be read: to the second-level cache, as a few rows may not fit the
/// first.
#[inline]
pub fn prefetch(row: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in row.chunks(16) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch reads nothing into the program and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = row;
}

/// Sums of squared differences, or else of products.
#[inline]
fn sums<const DIFFERENCES: bool, const N: usize>(query: &[f32], rows: [&[f32]; N]) -> [f32; N] {
    assert!(rows.iter().all(|row| row.len() == query.len()), "all rows must be as long as the query");
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has AVX-512F, and the rows are as long as the query.
        return unsafe { wide::sums::<DIFFERENCES, N>(query, rows) };
    }
    sums_in_plain_rust::<DIFFERENCES, N>(query, rows)
}

fn sums_in_plain_rust<const DIFFERENCES: bool, const N: usize>(query: &[f32], rows: [&[f32]; N]) -> [f32; N] {
    let term = |q: f32, g: f32| if DIFFERENCES { (q - g) * (q - g) } else { q * g };
    rows.map(|row| {
        let mut total = [0.0_f32; LANES];
        for (q, g) in query.chunks(BLOCK * LANES).zip(row.chunks(BLOCK * LANES)) {
            let mut lanes = [0.0_f32; LANES];
            for (q, g) in q.chunks(LANES).zip(g.chunks(LANES)) {
                lanes.iter_mut().zip(q.iter().zip(g)).for_each(|(lane, (&q, &g))| *lane += term(q, g));
            }
            total.iter_mut().zip(lanes).for_each(|(total, lane)| *total += lane);
        }
        add_lanes(total)
    })
}

/// The sum of the lanes in a fixed tree. Not inlined, as the compiler would otherwise arrange the loop over the columns in
/// the narrow vectors of this tree.
#[inline(never)]
fn add_lanes(lanes: [f32; LANES]) -> f32 {
    add_halves(lanes)
}

/// The sum of the lanes, in halves.
#[inline(always)]
pub(super) fn add_halves<const N: usize>(mut lanes: [f32; N]) -> f32 {
    let mut width = N / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The same sums on AVX-512: four registers of 16 lanes.
#[cfg(target_arch = "x86_64")]
mod wide {
    use super::{BLOCK, LANES};
    use std::arch::x86_64::*;

    const REGISTER_LANES: usize = 16;
    const REGISTERS: usize = LANES / REGISTER_LANES;

    /// # Safety
    /// All rows are as long as the query.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn sums<const DIFFERENCES: bool, const N: usize>(
        query: &[f32],
        rows: [&[f32]; N],
    ) -> [f32; N] {
        let mut total = [[_mm512_setzero_ps(); REGISTERS]; N];
        for start in (0..query.len()).step_by(BLOCK * LANES) {
            let mut lanes = [[_mm512_setzero_ps(); REGISTERS]; N];
            let end = query.len().min(start + BLOCK * LANES);
            let whole = start + (end - start) / LANES * LANES;
            for first in (start..whole).step_by(LANES) {
                for register in 0..REGISTERS {
                    let column = first + register * REGISTER_LANES;
                    // SAFETY: `column + 16 <= whole`, which is at most the length of the query.
                    let own = unsafe { _mm512_loadu_ps(query.as_ptr().add(column)) };
                    for (row, lanes) in rows.iter().zip(&mut lanes) {
                        // SAFETY: likewise, as the row is as long as the query.
                        let other = unsafe { _mm512_loadu_ps(row.as_ptr().add(column)) };
                        lanes[register] = _mm512_add_ps(lanes[register], term::<DIFFERENCES>(own, other));
                    }
                }
            }
            // One bit for each column that is left; those of the first register come first.
            let left = (1_u64 << (end - whole)) - 1;
            for register in 0..REGISTERS {
                let (column, mask) =
                    (whole + register * REGISTER_LANES, (left >> (register * REGISTER_LANES)) as u16);
                if mask == 0 {
                    break;
                }
                // SAFETY: the mask lets only columns below the length of the query be read.
                let own = unsafe { _mm512_maskz_loadu_ps(mask, query.as_ptr().add(column)) };
                for (row, lanes) in rows.iter().zip(&mut lanes) {
                    // SAFETY: likewise, as the row is as long as the query.
                    let other = unsafe { _mm512_maskz_loadu_ps(mask, row.as_ptr().add(column)) };
                    let term = term::<DIFFERENCES>(own, other);
                    lanes[register] = _mm512_mask_add_ps(lanes[register], mask, lanes[register], term);
                }
            }
            for (total, lanes) in total.iter_mut().flatten().zip(lanes.as_flattened()) {
                *total = _mm512_add_ps(*total, *lanes);
            }
        }
        total.map(|lanes| add_lanes(lanes))
    }

    /// The tree of the plain version: halves of 32, 16, 8, 4, 2 and 1 lanes.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn add_lanes([a, b, c, d]: [__m512; REGISTERS]) -> f32 {
        let sixteen = _mm512_add_ps(_mm512_add_ps(a, c), _mm512_add_ps(b, d));
        let upper = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(sixteen));
        let eight = _mm256_add_ps(_mm512_castps512_ps256(sixteen), _mm256_castpd_ps(upper));
        let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn term<const DIFFERENCES: bool>(a: __m512, b: __m512) -> __m512 {
        if DIFFERENCES {
            let difference = _mm512_sub_ps(a, b);
            _mm512_mul_ps(difference, difference)
        } else {
            _mm512_mul_ps(a, b)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nearest::noise;

    #[test]
    fn sums_are_the_same_bits_with_every_instruction_set() {
        for dimension in (1..=3 * LANES + 1).chain([511, 512, 513, 575, 577, 2048, 2049]) {
            let (query, values) = (noise(dimension, 1), noise(ROWS_AT_ONCE * dimension, 2));
            let rows = std::array::from_fn(|row| &values[row * dimension..][..dimension]);
            let bits = |sums: [f32; ROWS_AT_ONCE]| sums.map(f32::to_bits);
            let plain = sums_in_plain_rust::<true, 4>(&query, rows);
            assert_eq!(bits(squared_distances(&query, rows)), bits(plain), "{dimension}");
            let plain = sums_in_plain_rust::<false, 4>(&query, rows);
            assert_eq!(bits(dot_products(&query, rows)), bits(plain), "{dimension}");
        }
    }

    #[test]
    fn sums_are_as_near_to_exact_as_their_depth_promises() {
        for dimension in [1, 33, 2000] {
            let (query, row) = (noise(dimension, 3), noise(dimension, 4));
            let pairs = || query.iter().zip(&row).map(|(&q, &g)| (f64::from(q), f64::from(g)));
            let share = rounding_depth(dimension) as f64 * f64::from(f32::EPSILON);
            let found = f64::from(dot_products(&query, [&row; ROWS_AT_ONCE])[0]);
            let (exact, size): (f64, f64) = pairs()
                .map(|(q, g)| q * g)
                .fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
            assert!((found - exact).abs() <= share * size, "{dimension}");
            let found = f64::from(squared_distances(&query, [&row; ROWS_AT_ONCE])[0]);
            let exact: f64 = pairs().map(|(q, g)| (q - g).powi(2)).sum();
            assert!((found - exact).abs() <= share * exact, "{dimension}");
        }
    }

    #[test]
    fn values_up_to_a_limit_are_counted() {
        for count in [0, 1, 15, 100, (1 << 20) + 3] {
            let values = noise(count, 7);
            for limit in [-2.0, -0.25, 0.0, 2.0] {
                let plain = values.iter().filter(|value| **value <= limit).count();
                assert_eq!(count_at_most(&values, limit), plain, "{count} {limit}");
            }
        }
        assert_eq!(count_at_most(&[f32::NAN, 1.0, f32::INFINITY], 1.0), 1);
    }

    #[test]
    #[should_panic(expected = "as long as the query")]
    fn a_row_of_another_length_is_refused() {
        let long = [0.0; 5];
        squared_distances(&[0.0; 5], [&long, &long, &long[..4], &long]);
    }
}
