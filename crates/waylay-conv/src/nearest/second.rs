//! Second digits of rows that are rounded to 16 bits: 8 bits more per column, and what they add to a dot product, a pair of rows at a
//! time, on AVX-512 VNNI, or else in plain Rust, which gives the very same integers.
//!
//! With `x = scale * (128 * leading + low + second / 248) + residual` on both sides, the integers `128 * leading + low` of a
//! product `q · g` lack, in units of theirs, `128 / 248 * (leading(q) · second(g) + second(q) · leading(g))`, and what is bounded by
//! the norms of the other parts. The sum fits 32 bits: its terms are at most `127 * 127`, two for each of 65,536 columns.

use super::rounding::{LARGEST_INTEGER, RESIDUAL_ERROR, ROUNDER, RowStatistics, growth, underflow};
use crate::simd::vectorised;

/// What is known of the second digits of one row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SecondStatistics {
    /// At least `|scale * low|`.
    pub low: f32,
    /// At least `|residual|`.
    pub residual: f32,
    /// What the other side's offset adds to the products of its digits.
    pub(super) offset: i32,
}

/// How many units of the second digits a unit of the integers is: what rounding leaves is half of one, and a hundredth for rounding in
/// turn, less than 127.
const SECOND: f32 = 248.0;
/// How many units of the integers a unit of their leading bytes is: the largest integer's byte is 127.
const LEADING: i16 = 128;
const _: () = assert!((LARGEST_INTEGER + LEADING / 2) / LEADING == 127);
/// Digits that are multiplied at once: rows of leading bytes, or of second digits, are a multiple of this.
const DIGITS: usize = 64;
/// What is added to a gallery's digits, as `vpdpbusd` wants one side unsigned.
const OFFSET: i32 = 128;

/// Digits of a row, [`DIGITS`] of them: a line of the processor's cache, which is read in one go.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Digits([i8; DIGITS]);

impl Digits {
    pub const ZERO: Self = Self([0; DIGITS]);

    /// How many make up the digits of a row: as many for leading bytes as for second digits.
    pub fn count(dimension: usize) -> usize {
        2 * dimension.div_ceil(DIGITS)
    }
}

/// Which side of a product a row is on: digits meet crosswise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Side {
    Query,
    Gallery,
}

vectorised! {
    /// Writes the digits of a row less the centre that was rounded to `integers`: leading bytes and second digits, or the other way
    /// round.
    pub(super) fn write_digits(
        side: Side,
        row: &[f32],
        centre: &[f32],
        integers: &[i16],
        statistics: &RowStatistics,
        digits: &mut [Digits],
    ) -> SecondStatistics {
        let scale = statistics.scale;
        let (step, inverse) = if scale > 0.0 { (scale / SECOND, SECOND / scale) } else { (0.0, 0.0) };
        let (mut lows, mut squares) = ([0.0_f32; DIGITS], [0.0_f32; DIGITS]);
        let mut write = |row: &[f32], centre: &[f32], integers: &[i16], leading: &mut [i8], second: &mut [i8]| {
            for column in 0..row.len() {
                let integer = integers[column];
                let residual = (row[column] - centre[column]) - f32::from(integer) * scale;
                let shifted = residual * inverse + ROUNDER;
                let left = residual - (shifted - ROUNDER) * step;
                let byte = (integer + LEADING / 2).div_euclid(LEADING);
                let low = f32::from(integer - byte * LEADING);
                leading[column] = byte as i8;
                second[column] = shifted.to_bits() as i8;
                lows[column] += low * low;
                squares[column] += left * left;
            }
        };
        let (first, last) = digits.split_at_mut(digits.len() / 2);
        let (leading, second) = if side == Side::Query { (first, last) } else { (last, first) };
        let rows = row.chunks(DIGITS).zip(centre.chunks(DIGITS)).zip(integers.chunks(DIGITS));
        for (((row, centre), integers), (leading, second)) in rows.zip(leading.iter_mut().zip(second)) {
            let (leading, second) = (&mut leading.0, &mut second.0);
            match (row.as_array::<DIGITS>(), centre.as_array::<DIGITS>(), integers.as_array::<DIGITS>()) {
                // Of a length that the compiler knows.
                (Some(row), Some(centre), Some(integers)) => write(row, centre, integers, leading, second),
                _ => write(row, centre, integers, leading, second),
            }
        }
        let all = digits.iter_mut().flat_map(|digits| &mut digits.0);
        let offset = match side {
            Side::Query => OFFSET * all.map(|digit| i32::from(*digit)).sum::<i32>(),
            Side::Gallery => {
                // Flipping the top bit adds 128.
                all.for_each(|digit| *digit ^= i8::MIN);
                0
            }
        };
        // As for the rounded row, but that what is left is off by 4 units of the residual too.
        let (growth, underflow) = (growth(row.len()), underflow(row.len()));
        SecondStatistics {
            low: lows.iter().sum::<f32>().sqrt() * scale * growth,
            residual: squares.iter().sum::<f32>().sqrt() * growth + underflow + statistics.norm * RESIDUAL_ERROR
                + statistics.residual * (2.0 * f32::EPSILON),
            offset,
        }
    }
}

/// Rows whose digits are multiplied at a time.
pub(super) const GROUP: usize = 4;
/// What a unit of digits' products is in units of the integers' products.
pub(super) const SUM_UNIT: f64 = LEADING as f64 / SECOND as f64;

/// The products of a query's digits with those of some rows, and what the offset adds; sums may wrap around.
pub(super) fn digit_sums_in_plain_rust<const N: usize>(query: &[Digits], rows: [&[Digits]; N]) -> [i32; N] {
    let term = |(q, g): (&i8, &i8)| i32::from(*q) * i32::from(*g as u8);
    let sum = |(q, g): (&Digits, &Digits)| q.0.iter().zip(&g.0).map(term).sum::<i32>();
    rows.map(|row| query.iter().zip(row).map(sum).fold(0, i32::wrapping_add))
}

#[cfg(target_arch = "x86_64")]
pub(super) mod vnni {
    use super::{Digits, GROUP};
    use std::arch::x86_64::*;

    /// Sums side by side, as each product has to wait for the one before in its sum.
    const SUMS: usize = 2;

    /// The same integers.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub fn digit_sums(query: &[Digits], rows: [&[Digits]; GROUP]) -> [i32; GROUP] {
        let load = |digits: &Digits| {
            // SAFETY: these are 64 bytes.
            unsafe { _mm512_loadu_si512(digits.0.as_ptr().cast()) }
        };
        let query = query.as_chunks::<SUMS>().0;
        let rows = rows.map(|row| &row.as_chunks::<SUMS>().0[..query.len()]);
        let mut sums = [[_mm512_setzero_si512(); SUMS]; GROUP];
        for (place, query) in query.iter().enumerate() {
            let query = query.each_ref().map(load);
            for (sum, row) in sums.iter_mut().zip(&rows) {
                for half in 0..SUMS {
                    sum[half] = _mm512_dpbusd_epi32(sum[half], load(&row[place][half]), query[half]);
                }
            }
        }
        add_lanes(sums.map(|[a, b]| _mm512_add_epi32(a, b)))
    }

    /// The sum of each register's lanes.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn add_lanes([a, b, c, d]: [__m512i; GROUP]) -> [i32; GROUP] {
        let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        let four = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
        let two = _mm256_add_epi32(_mm512_castsi512_si256(four), _mm512_extracti64x4_epi64::<1>(four));
        let one = _mm_add_epi32(_mm256_castsi256_si128(two), _mm256_extracti128_si256::<1>(two));
        let mut sums = [0; GROUP];
        // SAFETY: these are 4 numbers of 4 bytes.
        unsafe { _mm_storeu_si128(sums.as_mut_ptr().cast(), one) };
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nearest::noise;
    use crate::nearest::rounding::round_row_finely;

    /// As the processor at hand would, and without what the offset adds.
    fn digit_sums(query: &[Digits], rows: [&[Digits]; GROUP], offset: i32) -> [i32; GROUP] {
        let plain = digit_sums_in_plain_rust(query, rows);
        #[cfg(target_arch = "x86_64")]
        if crate::nearest::is_accelerated() {
            // SAFETY: the processor has the features that the function is compiled for.
            assert_eq!(unsafe { vnni::digit_sums(query, rows) }, plain);
        }
        plain.map(|sum| sum.wrapping_sub(offset))
    }

    /// A row's integers, digits and statistics.
    type Rounded = (Vec<i16>, Vec<Digits>, RowStatistics, SecondStatistics);

    fn rounded(side: Side, row: &[f32], centre: &[f32]) -> Rounded {
        let (mut integers, mut digits) = (vec![0; row.len()], vec![Digits::ZERO; Digits::count(row.len())]);
        let statistics = round_row_finely(row, centre, &mut integers);
        let second = write_digits(side, row, centre, &integers, &statistics, &mut digits);
        (integers, digits, statistics, second)
    }

    #[test]
    fn digits_make_up_for_what_rounding_leaves() {
        for dimension in [1, 2, 63, 64, 65, 200, 2048] {
            for scale in [1e-43, 1e-29, 1.0, 1e15] {
                let values = |seed| noise(dimension, seed).iter().map(|x| x * scale).collect::<Vec<f32>>();
                let (q, values, centre) = (values(1), [2, 3, 4, 5].map(values), values(7));
                let own = rounded(Side::Query, &q, &centre);
                let others = values.each_ref().map(|row| rounded(Side::Gallery, row, &centre));
                let sums = digit_sums(&own.1, others.each_ref().map(|other| &other.1[..]), own.3.offset);
                for ((digits, values), other) in sums.iter().zip(&values).zip(&others) {
                    let pairs = own.0.iter().zip(&other.0).map(|(a, b)| i64::from(*a) * i64::from(*b));
                    let units = f64::from(own.2.scale) * f64::from(other.2.scale);
                    let sum = units * (pairs.sum::<i64>() as f64 + f64::from(*digits) * SUM_UNIT);
                    let centred = |row: &[f32], i: usize| f64::from(row[i]) - f64::from(centre[i]);
                    let exact: f64 = (0..dimension).map(|i| centred(&q, i) * centred(values, i)).sum();
                    // What the norms of the other parts bound.
                    let [a, b] = [(own.2, own.3), (other.2, other.3)];
                    let size = |part: (RowStatistics, SecondStatistics)| {
                        let [norm, rest, left, low] =
                            [part.0.norm, part.0.residual, part.1.residual, part.1.low].map(f64::from);
                        [norm + rest, rest, left, low]
                    };
                    let ([a, p, r, l], [b, q, s, m]) = (size(a), size(b));
                    let bound = l * (q + s) + a * s + m * (p + r) + b * r + p * q;
                    let rounding = 1e-7 * (p * b + q * a);
                    assert!((sum - exact).abs() <= bound + rounding, "{dimension} {scale}: {sum} {exact}");
                    if scale == 1.0 {
                        assert!(bound < 1e-5 * a * b, "{dimension}: {bound}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_largest_sums_do_not_overflow() {
        let row = vec![Digits([127; DIGITS]); Digits::count(65_536)];
        let offset = OFFSET * 127 * (row.len() * DIGITS) as i32;
        for digit in [127_i8, -127] {
            let other: Vec<Digits> = row.iter().map(|_| Digits([digit ^ i8::MIN; DIGITS])).collect();
            let expected = i32::from(digit) * 127 * (row.len() * DIGITS) as i32;
            assert_eq!(digit_sums(&row, [&other; 4], offset), [expected; 4]);
        }
    }
}
