//! One row rounded to 8 bits, and how much of it that loses.
//!
//! A row `x` less some centre becomes `scale * integers + residual`, with integers in `-127..=127`.

use crate::simd::vectorised;

/// Rows below this size are not worth a scale (its inverse could overflow): they become all zero, and the residual is the
/// whole row.
const SMALLEST_SCALED: f32 = 1e-30;
/// Adding this to a number below 2^22 leaves the rounded number in the low bits.
const ROUNDER: f32 = 12_582_912.0;
/// The bits of an f32 without its sign.
const MAGNITUDE: u32 = 0x7fff_ffff;
/// Partial sums of the statistics.
const LANES: usize = 32;

/// What is known of one row after rounding it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowStatistics {
    /// The largest magnitude in the row itself.
    pub largest: f32,
    /// The factor of the integers; 0 where all of them are 0.
    pub scale: f32,
    /// `|x - centre|²`, with the rounding of an f32 sum in 32 lanes.
    pub norm_square: f32,
    /// At least `|x - centre|`.
    pub norm: f32,
    /// At least `|x - centre - scale * integers|`.
    pub residual: f32,
}

vectorised! {
    /// Rounds one row less the centre into `integers` (two's complement, zeros after the end of the row).
    pub(super) fn round_row(row: &[f32], centre: &[f32], integers: &mut [u8]) -> RowStatistics {
        assert_eq!(row.len(), centre.len());
        // As integers, the bits of magnitudes sort like the magnitudes.
        let mut largest = [0_u32; LANES];
        let mut largest_centred = [0_u32; LANES];
        let mut squares = [0.0_f32; LANES];
        let mut look = |lane: usize, value: f32, centre: f32| {
            let centred = value - centre;
            largest[lane] = largest[lane].max(value.to_bits() & MAGNITUDE);
            largest_centred[lane] = largest_centred[lane].max(centred.to_bits() & MAGNITUDE);
            squares[lane] += centred * centred;
        };
        let (chunks, rest) = row.as_chunks::<LANES>();
        let (centre_chunks, centre_rest) = centre.as_chunks::<LANES>();
        for (chunk, centre) in chunks.iter().zip(centre_chunks) {
            for lane in 0..LANES {
                look(lane, chunk[lane], centre[lane]);
            }
        }
        for (lane, (&value, &centre)) in rest.iter().zip(centre_rest).enumerate() {
            look(lane, value, centre);
        }
        let largest = f32::from_bits(largest.into_iter().fold(0, u32::max));
        let span = f32::from_bits(largest_centred.into_iter().fold(0, u32::max));
        let norm_square: f32 = squares.iter().sum();
        let scaled = span >= SMALLEST_SCALED && span.is_finite();
        let (scale, inverse) = if scaled { (span / 127.0, 127.0 / span) } else { (0.0, 0.0) };

        let mut squares = [0.0_f32; LANES];
        let (filled, spare) = integers.split_at_mut(row.len());
        let (filled_chunks, filled_rest) = filled.as_chunks_mut::<LANES>();
        for ((chunk, centre), integers) in chunks.iter().zip(centre_chunks).zip(filled_chunks) {
            for lane in 0..LANES {
                let (integer, residual) = round(chunk[lane] - centre[lane], scale, inverse);
                integers[lane] = integer;
                squares[lane] += residual * residual;
            }
        }
        for (lane, (&value, target)) in rest.iter().zip(filled_rest).enumerate() {
            let (integer, residual) = round(value - centre_rest[lane], scale, inverse);
            *target = integer;
            squares[lane] += residual * residual;
        }
        spare.fill(0);
        let residual_square: f32 = squares.iter().sum();

        // Upper bounds in spite of rounding: a sum of D squares is off by at most (D / 32 + 36) * 2^-24 of itself (the root:
        // by less), squares that underflow lose at most 2^-149 each, and a residual is off by at most 2^-22 of the centred
        // value that it belongs to (the rounding of the centred value itself, which is relative to its own size however
        // much cancels; of `integer * scale`, at most twice the value; and of their difference, at most the value).
        let growth = 1.0 + (row.len() / LANES + 64) as f32 * f32::EPSILON;
        let underflow = (row.len() as f32).sqrt() * 1e-22;
        let norm = norm_square.sqrt() * growth + underflow;
        let residual = residual_square.sqrt() * growth + underflow + norm * (3.0 * f32::EPSILON);
        RowStatistics { largest, scale, norm_square, norm, residual }
    }
}

/// The integer (as a byte) nearest to `value / scale`, and what is left of the value.
#[inline(always)]
fn round(value: f32, scale: f32, inverse: f32) -> (u8, f32) {
    let shifted = value * inverse + ROUNDER;
    (shifted.to_bits() as u8, value - (shifted - ROUNDER) * scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nearest::noise;

    #[test]
    fn norms_and_residuals_bound_what_they_stand_for() {
        for dimension in [1, 7, 33, 500] {
            for (scale, offset) in
                [1e-43, 1e-30, 1e-5, 1.0, 1e15].into_iter().flat_map(|scale| [(scale, 0.0), (scale, 0.3)])
            {
                let row: Vec<f32> = noise(dimension, 5).iter().map(|x| x * scale).collect();
                let centre: Vec<f32> = row.iter().map(|x| x * 0.9 + scale * offset).collect();
                let mut integers = vec![1; dimension + 3];
                let found = round_row(&row, &centre, &mut integers);
                assert_eq!(integers[dimension..], [0; 3]);
                let (mut norm, mut residual) = (0.0_f64, 0.0_f64);
                for ((&x, &c), &integer) in row.iter().zip(&centre).zip(&integers) {
                    let centred = f64::from(x) - f64::from(c);
                    norm += centred.powi(2);
                    residual += (centred - f64::from(integer as i8) * f64::from(found.scale)).powi(2);
                }
                let (norm, residual) = (norm.sqrt(), residual.sqrt());
                assert!(residual <= f64::from(found.residual), "{dimension} {scale} {offset}");
                assert!(norm <= f64::from(found.norm), "{dimension} {scale} {offset}");
                assert!(f64::from(found.residual) <= norm * 1.001 + 1e-20, "{dimension} {scale} {offset}");
            }
        }
    }
}
