//! Second digits of rows that are rounded to 16 bits: 8 bits more per column, and what they add to a dot product, a pair of rows at a
//! time, on AVX-512 VNNI, or else in plain Rust, which gives the very same integers.
//!
//! With `x = scale * (256 * leading + low + second / 248) + residual` on both sides, the integers `256 * leading + low` of a product
//! `q · g` lack, in units of theirs, `256 / 248 * (leading(q) · second(g) + second(q) · leading(g))`, and what is bounded by the norms of
//! the other parts. The sum fits 32 bits: its terms are at most `128 * 127`, two for each of 65,536 columns.

use super::exact::ROWS_AT_ONCE;
use super::rounding::{RESIDUAL_ERROR, ROUNDER, RowStatistics, growth, underflow};
use crate::simd::vectorised;

/// What is known of the second digits of one row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SecondStatistics {
    /// At least `|scale * low|`.
    pub low: f32,
    /// At least `|residual|`.
    pub residual: f32,
}

/// How many units of the second digits a unit of the integers is: what rounding leaves is half of one, and a hundredth for rounding in
/// turn, less than 127.
const SECOND: f32 = 248.0;
/// How many units of the integers a unit of their leading bytes is.
const LEADING: i16 = 256;
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

/// Writes the digits of a row less the centre that was rounded to `integers`: leading bytes and second digits, or the other way round.
pub(super) fn write_digits(
    side: Side,
    row: &[f32],
    centre: &[f32],
    integers: &[i16],
    statistics: &RowStatistics,
    digits: &mut [Digits],
) -> SecondStatistics {
    let (first, last) = digits.split_at_mut(digits.len() / 2);
    let (leading, second) = if side == Side::Query { (first, last) } else { (last, first) };
    let found = second_digits(row, centre, integers, statistics, leading, second);
    if side == Side::Gallery {
        // Flipping the top bit adds 128.
        digits.iter_mut().flat_map(|digits| &mut digits.0).for_each(|digit| *digit ^= i8::MIN);
    }
    found
}

vectorised! {
    /// The leading bytes of `integers`, which a row less the centre was rounded to, and the second digits.
    pub(super) fn second_digits(
        row: &[f32],
        centre: &[f32],
        integers: &[i16],
        statistics: &RowStatistics,
        leading: &mut [Digits],
        second: &mut [Digits],
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
                let byte = integer.saturating_add(LEADING / 2).div_euclid(LEADING);
                let low = f32::from(integer - byte * LEADING);
                leading[column] = byte as i8;
                second[column] = shifted.to_bits() as i8;
                lows[column] += low * low;
                squares[column] += left * left;
            }
        };
        let digits = leading.iter_mut().zip(second);
        for (((row, centre), integers), (leading, second)) in row.chunks(DIGITS).zip(centre.chunks(DIGITS)).zip(integers.chunks(DIGITS)).zip(digits) {
            let (leading, second) = (&mut leading.0, &mut second.0);
            match (row.as_array::<DIGITS>(), centre.as_array::<DIGITS>(), integers.as_array::<DIGITS>()) {
                // Of a length that the compiler knows.
                (Some(row), Some(centre), Some(integers)) => write(row, centre, integers, leading, second),
                _ => write(row, centre, integers, leading, second),
            }
        }
        // As for the rounded row, but that what is left is off by 4 units of the residual too.
        let (growth, underflow) = (growth(row.len()), underflow(row.len()));
        SecondStatistics {
            low: lows.iter().sum::<f32>().sqrt() * scale * growth,
            residual: squares.iter().sum::<f32>().sqrt() * growth + underflow + statistics.norm * RESIDUAL_ERROR
                + statistics.residual * (2.0 * f32::EPSILON),
        }
    }
}

/// Calls `see` with the place of each of some rows and what its integers' dot product with a query's lacks, in the same units, from the
/// digits of both.
pub(super) fn products<'a>(
    query: &[Digits],
    mut rows: impl ExactSizeIterator<Item = &'a [Digits]>,
    mut see: impl FnMut(usize, f64),
) {
    let unit = f64::from(LEADING) / f64::from(SECOND);
    let mut see_all = |first: usize, sums: &[i32]| {
        (first..).zip(sums).for_each(|(place, sum)| see(place, f64::from(*sum) * unit));
    };
    let count = rows.len();
    let mut next = || rows.next().expect("as many rows as there are");
    for first in (0..count).step_by(ROWS_AT_ONCE) {
        match count - first {
            1 => see_all(first, &digit_sums(query, [next()])),
            2 => see_all(first, &digit_sums(query, [next(), next()])),
            3 => see_all(first, &digit_sums(query, [next(), next(), next()])),
            _ => see_all(first, &digit_sums(query, [next(), next(), next(), next()])),
        }
    }
}

/// The digits' products, summed.
fn digit_sums<const N: usize>(query: &[Digits], rows: [&[Digits]; N]) -> [i32; N] {
    assert!(rows.iter().all(|row| row.len() == query.len()), "all rows must be as long as the query");
    #[cfg(target_arch = "x86_64")]
    if super::is_accelerated() {
        // SAFETY: the processor has the features that the function is compiled for.
        return unsafe { vnni::digit_sums(query, rows) };
    }
    digit_sums_in_plain_rust(query, rows)
}

fn digit_sums_in_plain_rust<const N: usize>(query: &[Digits], rows: [&[Digits]; N]) -> [i32; N] {
    let term = |(q, g): (&i8, &i8)| i32::from(*q) * (i32::from(*g as u8) - OFFSET);
    let sum = |(q, g): (&Digits, &Digits)| q.0.iter().zip(&g.0).map(term).sum::<i32>();
    rows.map(|row| query.iter().zip(row).map(sum).sum())
}

#[cfg(target_arch = "x86_64")]
mod vnni {
    use super::{Digits, OFFSET};
    use std::arch::x86_64::*;

    /// Sums side by side, as each product has to wait for the one before in its sum.
    const SUMS: usize = 2;

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub fn digit_sums<const N: usize>(query: &[Digits], rows: [&[Digits]; N]) -> [i32; N] {
        let load = |digits: &Digits| {
            // SAFETY: these are 64 bytes.
            unsafe { _mm512_loadu_si512(digits.0.as_ptr().cast()) }
        };
        let offset = _mm512_set1_epi8(OFFSET as i8);
        let rows = rows.map(|row| row.as_chunks::<SUMS>().0);
        // Sums may wrap around; what remains when the offset's share is taken off does not.
        let (mut sums, mut share) = ([[_mm512_setzero_si512(); SUMS]; N], [_mm512_setzero_si512(); SUMS]);
        for (place, query) in query.as_chunks::<SUMS>().0.iter().enumerate() {
            for half in 0..SUMS {
                let query = load(&query[half]);
                share[half] = _mm512_dpbusd_epi32(share[half], offset, query);
                for (sum, row) in sums.iter_mut().zip(&rows) {
                    sum[half] = _mm512_dpbusd_epi32(sum[half], load(&row[place][half]), query);
                }
            }
        }
        let share = _mm512_add_epi32(share[0], share[1]);
        sums.map(|[a, b]| _mm512_reduce_add_epi32(_mm512_sub_epi32(_mm512_add_epi32(a, b), share)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nearest::noise;
    use crate::nearest::rounding::round_row_finely;

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
                let (q, rows, centre) = (values(1), [2, 3, 4, 5, 6].map(values), values(7));
                let own = rounded(Side::Query, &q, &centre);
                let others = rows.each_ref().map(|row| rounded(Side::Gallery, row, &centre));
                let digits = || others.iter().map(|other| &other.1[..]);
                let mut found = Vec::new();
                products(&own.1, digits(), |place, product| found.push((place, product)));
                for (place, (row, other)) in rows.iter().zip(&others).enumerate() {
                    assert_eq!(digit_sums(&own.1, [&other.1]), digit_sums_in_plain_rust(&own.1, [&other.1]));
                    let pairs = own.0.iter().zip(&other.0).map(|(a, b)| i64::from(*a) * i64::from(*b));
                    let units = f64::from(own.2.scale) * f64::from(other.2.scale);
                    let sum = units * (pairs.sum::<i64>() as f64 + found[place].1);
                    let centred = |row: &[f32], i: usize| f64::from(row[i]) - f64::from(centre[i]);
                    let exact: f64 = (0..dimension).map(|i| centred(&q, i) * centred(row, i)).sum();
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
                assert!(found.iter().enumerate().all(|(place, found)| found.0 == place) && found.len() == 5);
            }
        }
    }

    #[test]
    fn the_largest_sums_do_not_overflow() {
        let row = vec![Digits([-128; DIGITS]); Digits::count(65_536)];
        for (digit, sum) in [(-128_i8, -128 * -128), (127, -128 * 127)] {
            let other: Vec<Digits> =
                row.iter().map(|_| Digits([(digit as u8 ^ 0x80) as i8; DIGITS])).collect();
            let half = row.len() / 2;
            let expected = sum * (half * DIGITS) as i32;
            assert_eq!(digit_sums(&row[..half], [&other[..half]]), [expected]);
            assert_eq!(digit_sums_in_plain_rust(&row[..half], [&other[..half]]), [expected]);
        }
    }
}
