//! How far an approximate distance can be from the one that refining gives.
//!
//! Let `q = q' + dq` and `g = g' + dg`, where `q' · g'` is what the filter computes. Then `q · g - q' · g' = q' · dg + dq · g`,
//! so by Cauchy-Schwarz the approximation is off by at most `|q'| |dg| + |dq| |g|`, with `|q'| <= |q| + |dq|`. A squared
//! distance `|q|² + |g|² - 2 q · g` is off by twice that.
//!
//! All of this holds for rows less some centre `c` too. Distances do not change if both sides are moved; for cosine only the
//! gallery is, and `q · c` is left out, the same for all rows. In what follows, `|g|` of a cosine is then at most
//! `|g - c| + |c|`.
//!
//! The rest is rounding, with unit `u = 2^-24` and `n` the [`rounding_depth`]. What is bounded is the square of a Euclidean
//! distance, and a cosine distance less 1, both as refining returns them, so that pairs which rounding makes equal stay in
//! play together:
//! - The squared distance is off by at most `n + 1` units of itself (one for the square of a rounded difference), and its
//!   root rounds once more, which is 2 units of the square. It is at most `(|q| + |g|)²`.
//! - The dot product of unit rows is off by at most `n` units of `|q| |g|`, less than 1 + 3 u. Subtracting it from 1 rounds
//!   by at most 2 units, and bringing the difference into 0 to 2 moves it by at most `n + 3`: `2 n + 5` in all. Where a row
//!   is zero, nothing rounds.
//! - `|g|²` of the statistics is off by at most `D / 32 + 34` units of itself, which is at most `n + 27`.
//! - The scan does 8 roundings on numbers that add up to at most `(|q| + |g|)² + 8 |q| |g|`, three times `(|q| + |g|)²`; or
//!   `4 |q| |g|` for cosine.
//!
//! Together they stay below `2 n + 128` units of `(|q| + |g|)²`, respectively `|q| |g|`, with room for the second
//! order. Dot products of 16-bit integers are summed in f32 in the end, which is off by at most `D / 64 + 2` units of
//! `|q'| |g'|`, less than `n`: bounds for them have `n` units more. Underflow loses at most 2^-149 in each of a few operations
//! per column, less than `TINY` for every dimension that is filtered.

use waylay_conv::nearest::{QueryBound, RowBound, RowStatistics, rounding_depth};

use super::Metric;

/// More than all underflows of one pair can lose together.
const TINY: f32 = 1e-34;
const UNIT: f32 = f32::EPSILON / 2.0;

/// The bounds of a search, but for the query and the row.
#[derive(Clone, Copy)]
pub(super) struct Slack {
    metric: Metric,
    /// At least `|c|` if the gallery alone is moved by it, else zero.
    shift: f32,
    /// Rounding, as a share of `|q| |g|`.
    product: f32,
    /// Rounding, as a share of `|q|²` and of `|g|²`.
    square: f32,
}

impl Slack {
    /// The bounds for rows of 8 bits, less `centre`.
    pub(super) fn new(metric: Metric, centre: &[f32]) -> Self {
        Self::of(metric, centre, 2 * rounding_depth(centre.len()) + 128)
    }

    /// The bounds for rows of 16 bits, less `centre`.
    pub(super) fn fine(metric: Metric, centre: &[f32]) -> Self {
        Self::of(metric, centre, 3 * rounding_depth(centre.len()) + 128)
    }

    fn of(metric: Metric, centre: &[f32], units: usize) -> Self {
        let rounding = units as f32 * UNIT;
        let (square, shift) = match metric {
            Metric::Euclidean => (rounding, 0.0),
            Metric::Cosine => (0.0, upper_norm(centre)),
        };
        Self { metric, shift, product: rounding, square }
    }

    /// The share of a gallery row.
    pub(super) fn row(&self, row: &RowStatistics) -> RowBound {
        let factor = self.factor();
        let square = self.square * row.norm * row.norm + TINY;
        let offset = match self.metric {
            Metric::Euclidean => row.norm_square,
            Metric::Cosine => 0.0,
        };
        RowBound {
            scale: row.scale,
            offset: offset - square,
            error: factor * (row.residual + self.product * (row.norm + self.shift)),
            norm: factor * row.norm,
            width: 2.0 * square,
        }
    }

    /// The share of a query that has no threshold yet.
    pub(super) fn query(&self, query: &RowStatistics) -> QueryBound {
        QueryBound {
            scale: self.factor() * query.scale,
            norm: query.norm + query.residual,
            error: query.residual,
            threshold: f32::MAX,
        }
    }

    /// The part of the bounds that depends on the query alone: the scan leaves it out, like `|q|²`.
    pub(super) fn query_width(&self, query: &RowStatistics) -> f32 {
        self.square * query.norm * query.norm
    }

    fn factor(&self) -> f32 {
        match self.metric {
            Metric::Euclidean => 2.0,
            Metric::Cosine => 1.0,
        }
    }
}

/// At least the norm of `values`.
fn upper_norm(values: &[f32]) -> f32 {
    let square: f64 = values.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    (square.sqrt() * (1.0 + 1e-6)) as f32
}
