//! One row rounded to 8 or 16 bits, and how much of it that loses.
//!
//! A row `x` less some centre becomes `scale * integers + residual`, with integers in `-127..=127`, or as large as their
//! products' sums, and the sums of two, allow.

use super::exact::add_halves;
use crate::simd::vectorised;

/// Rows below this size are not worth a scale (its inverse could overflow): they become all zero, and the residual is the
/// whole row.
const SMALLEST_SCALED: f32 = 1e-30;
/// Adding this to a number below 2^22 leaves the rounded number in the low 22 bits.
pub(super) const ROUNDER: f32 = 12_582_912.0;
/// The bits of an f32 without its sign.
const MAGNITUDE: u32 = 0x7fff_ffff;
/// Partial sums of the statistics.
const LANES: usize = 32;
/// Columns whose products of integers of 16 bits are summed in 32 bits: with fewer, integers could be larger.
pub(super) const STRETCH: usize = 2 * LANES;

/// The largest integer of 16 bits that rows are rounded to: the sum of two fits 16 bits too, and its leading byte is rounded to no more
/// than 127.
pub(super) const LARGEST_INTEGER: i16 = 127 * 128 + 63;

/// Less than the norm of a row's integers of 16 bits, if its scale is not 0: either the largest of them or the norm of a stretch is as
/// large as it may be.
pub const LEAST_FINE_NORM: f32 = 16_000.0;

/// How much of a centred value its residual is off by at most: two units for the rounding of the centred value, and of `integer * scale`,
/// which is hardly more, and one to spare; their difference is exact, as neither is more than twice the other.
pub(super) const RESIDUAL_ERROR: f32 = 1.5 * f32::EPSILON;

/// What is known of one row after rounding it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowStatistics {
    /// The largest magnitude in the row itself.
    pub largest: f32,
    /// The factor of the integers; 0 where all of them are 0.
    pub scale: f32,
    /// `|x - centre|²`, off by at most 12 units of itself, and what underflows.
    pub norm_square: f32,
    /// At least `|x - centre|`.
    pub norm: f32,
    /// At least `|x - centre - scale * integers|`.
    pub residual: f32,
}

vectorised! {
    /// Rounds one row less the centre into `integers` of 8 bits (two's complement, zeros after the end of the row).
    pub(super) fn round_row(row: &[f32], centre: &[f32], integers: &mut [u8]) -> RowStatistics {
        let measured = measure(row, centre);
        round_by(row, centre, &measured, measured.span, 127.0, integers, |bits| bits as u8)
    }
}

vectorised! {
    /// Rounds one row less the centre into `integers` of 16 bits (zeros after the end of the row), at most [`LARGEST_INTEGER`] in
    /// magnitude, such that the squares of those of a stretch of [`STRETCH`] columns from a multiple of it on add up to less than 2^31.
    pub(super) fn round_row_finely(row: &[f32], centre: &[f32], integers: &mut [i16]) -> RowStatistics {
        let measured = measure(row, centre);
        // A sum of some squares is off by at most their number in units; rounding adds half a unit per column to a norm.
        let norm = measured.stretch.sqrt() * (1.0 + STRETCH as f32 * f32::EPSILON);
        let most = f32::from(LARGEST_INTEGER);
        let room = 46_340.0 - (STRETCH as f32).sqrt();
        let (span, most) = if norm * most > measured.span * room { (norm, room) } else { (measured.span, most) };
        round_by(row, centre, &measured, span, most, integers, |bits| bits as i16)
    }
}

/// What is known of a row before rounding it.
struct Measured {
    largest: f32,
    /// The largest magnitude less the centre.
    span: f32,
    /// Sum of all squares less the centre.
    norm_square: f32,
    /// The largest sum of the squares of a stretch.
    stretch: f32,
}

/// The same in lanes.
#[derive(Default)]
struct Lanes {
    // As integers, the bits of magnitudes sort like the magnitudes.
    largest: [u32; LANES],
    span: [u32; LANES],
}

impl Lanes {
    /// Looks at up to as many columns as there are lanes, and adds their squares up.
    #[inline(always)]
    fn look(&mut self, row: &[f32], centre: &[f32], squares: &mut [f32; LANES]) {
        for (lane, (value, centre)) in row.iter().zip(centre).enumerate() {
            let centred = value - centre;
            self.largest[lane] = self.largest[lane].max(value.to_bits() & MAGNITUDE);
            self.span[lane] = self.span[lane].max(centred.to_bits() & MAGNITUDE);
            squares[lane] += centred * centred;
        }
    }
}

#[inline(always)]
fn measure(row: &[f32], centre: &[f32]) -> Measured {
    assert_eq!(row.len(), centre.len());
    let mut lanes = Lanes::default();
    let (mut norm_square, mut stretch) = (0.0_f64, 0.0_f32);
    for (row, centre) in row.chunks(STRETCH).zip(centre.chunks(STRETCH)) {
        let mut squares = [0.0; LANES];
        match (row.as_chunks::<LANES>(), centre.as_chunks::<LANES>()) {
            // Whole lanes, whose number the compiler knows.
            (([a, b], []), ([c, d], [])) => {
                lanes.look(a, c, &mut squares);
                lanes.look(b, d, &mut squares);
            }
            _ => {
                let parts = row.chunks(LANES).zip(centre.chunks(LANES));
                parts.for_each(|(row, centre)| lanes.look(row, centre, &mut squares));
            }
        }
        let sum = add_halves(squares);
        norm_square += f64::from(sum);
        stretch = stretch.max(sum);
    }
    let most = |values: [u32; LANES]| f32::from_bits(values.into_iter().fold(0, u32::max));
    Measured {
        largest: most(lanes.largest),
        span: most(lanes.span),
        norm_square: norm_square as f32,
        stretch,
    }
}

/// Rounds a row such that `span` becomes `most`.
#[inline(always)]
fn round_by<T: Copy + Default>(
    row: &[f32],
    centre: &[f32],
    measured: &Measured,
    span: f32,
    most: f32,
    integers: &mut [T],
    integer: impl Fn(u32) -> T,
) -> RowStatistics {
    let scaled = measured.span >= SMALLEST_SCALED && span.is_finite();
    let (scale, inverse) = if scaled { (span / most, most / span) } else { (0.0, 0.0) };
    // The bits of the integer nearest to `value / scale`, and what is left of the value.
    let round = |value: f32| {
        let shifted = value * inverse + ROUNDER;
        (integer(shifted.to_bits()), value - (shifted - ROUNDER) * scale)
    };
    let mut squares = [0.0_f32; LANES];
    let (filled, spare) = integers.split_at_mut(row.len());
    let (filled_chunks, filled_rest) = filled.as_chunks_mut::<LANES>();
    let (chunks, rest) = row.as_chunks::<LANES>();
    let (centre_chunks, centre_rest) = centre.as_chunks::<LANES>();
    for ((chunk, centre), integers) in chunks.iter().zip(centre_chunks).zip(filled_chunks) {
        for lane in 0..LANES {
            let (integer, residual) = round(chunk[lane] - centre[lane]);
            integers[lane] = integer;
            squares[lane] += residual * residual;
        }
    }
    for (lane, (&value, target)) in rest.iter().zip(filled_rest).enumerate() {
        let (integer, residual) = round(value - centre_rest[lane]);
        *target = integer;
        squares[lane] += residual * residual;
    }
    spare.fill(T::default());
    let residual_square: f32 = squares.iter().sum();

    let (growth, underflow) = (growth(row.len()), underflow(row.len()));
    let norm = measured.norm_square.sqrt() * growth + underflow;
    let residual = residual_square.sqrt() * growth + underflow + norm * RESIDUAL_ERROR;
    RowStatistics { largest: measured.largest, scale, norm_square: measured.norm_square, norm, residual }
}

/// What makes the root of a sum of squares an upper bound in spite of rounding: a sum of D squares is off by at most
/// (D / 32 + 36) * 2^-24 of itself (the root: by less).
#[inline(always)]
pub(super) fn growth(columns: usize) -> f32 {
    1.0 + (columns / LANES + 64) as f32 * f32::EPSILON
}

/// What squares that underflow can have taken from a norm: at most 2^-149 each.
#[inline(always)]
pub(super) fn underflow(columns: usize) -> f32 {
    (columns as f32).sqrt() * 1e-22
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
