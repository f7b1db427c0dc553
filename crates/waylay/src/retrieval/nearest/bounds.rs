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
//! - `|g|²` of the statistics is off by at most 12 units of itself, less than `n + 27`.
//! - The scan does 8 roundings on numbers that add up to at most `(|q| + |g|)² + 8 |q| |g|`, three times `(|q| + |g|)²`; or
//!   `4 |q| |g|` for cosine.
//!
//! Together they stay below `2 n + 128` units of `(|q| + |g|)²`, respectively `|q| |g|`, with room for the second
//! order. Underflow loses at most 2^-149 in each of a few operations per column, less than `TINY` for every dimension that is
//! filtered.
//!
//! Evaluations know the distance that each limit is, and need less room around dot products of 16-bit integers:
//! - What measuring rounds is a share of the distance itself, and is taken off the limits: `n + 4` units of its square,
//!   respectively `2 n + 6` of the product of unit vectors.
//! - Dot products of 16-bit integers lose last bits, at most [`fine_error`] times both scales, and are rounded to f32, which is one
//!   unit of `|q'| |g'|`; two more are for the second digits' scale, below. In the terms of the scan, a row's scale is at most its norm
//!   by [`LEAST_FINE_NORM`].
//! - `|g|²` is off by 12 units of itself, and the scan's 8 roundings are of numbers up to `|g|² + 2 |q'| |g'|` and three times the
//!   spread, at most `4 |q| |g|`. Together at most 24 units of `|g|²`, and 24 more of `|q| |g|` for each of the factor's two.
//!
//! Where that leaves a pair open, second digits (waylay-conv's `second.rs`) narrow its bounds: with `q = q' + q" + r` and `q'` its
//! leading bytes but for `low`, `q · g` is what both products add up to, off by at most
//! `|low(q)| |g"| + |q'| |r(g)| + |low(g)| |q"| + |g'| |r(q)| + |dq| |dg|`, where `|q"|` is at most `|dq| + |r(q)|`.

use waylay_conv::nearest::{
    CloserBound, FineGallery, FineQueries, LEAST_FINE_NORM, QueryBound, RowBound, RowStatistics,
    SecondStatistics, fine_error, rounding_depth,
};

use super::Metric;
use super::refine::ScanPlace;

/// More than all underflows of one pair can lose together.
const TINY: f32 = 1e-34;
const UNIT: f32 = f32::EPSILON / 2.0;
/// Units that `|g|²` may be off by.
const NORM_UNITS: f32 = 12.0;
/// Units of rounding beside products of 16-bit integers, and limits that know of what measuring rounds.
const FINE_UNITS: usize = 24;
/// Units of rounding of the products of 16-bit integers and of second digits.
const PRODUCT_UNITS: f32 = 3.0;

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
    /// What products of 16-bit integers lose, as a share of both scales.
    lost: f32,
}

impl Slack {
    /// The bounds for rows of 8 bits, less `centre`.
    pub(super) fn new(metric: Metric, centre: &[f32]) -> Self {
        Self::of(metric, centre, 2 * rounding_depth(centre.len()) + 128)
    }

    /// The bounds for rows of 16 bits, less `centre`, and limits of [`Self::limit`].
    pub(super) fn fine(metric: Metric, centre: &[f32]) -> Self {
        let slack = Self::of(metric, centre, FINE_UNITS);
        let product = slack.product + PRODUCT_UNITS * UNIT;
        Self { product, shift: 0.0, lost: fine_error(centre.len()), ..slack }
    }

    fn of(metric: Metric, centre: &[f32], units: usize) -> Self {
        let rounding = units as f32 * UNIT;
        let (square, shift) = match metric {
            Metric::Euclidean => (rounding, 0.0),
            Metric::Cosine => (0.0, upper_norm(centre)),
        };
        Self { metric, shift, product: rounding, square, lost: 0.0 }
    }

    /// Where a row is certainly no farther than `distance`, as measured, and where it may be, in the terms of the scan; what measuring
    /// rounds is in it.
    pub(super) fn limit(&self, place: &ScanPlace, distance: f32, dimension: usize) -> [f32; 2] {
        let depth = rounding_depth(dimension) as f64;
        let rounding = f64::from(UNIT)
            * match self.metric {
                Metric::Euclidean => (depth + 4.0) * f64::from(distance).powi(2),
                Metric::Cosine => 2.0 * depth + 6.0,
            };
        let [least, most] = place.of(distance);
        outward([least - rounding, most + rounding])
    }

    /// The shares of queries in closer bounds.
    pub(super) fn closer_queries(&self, queries: &FineQueries) -> Vec<CloserBound> {
        let factor = self.factor();
        let share = |(first, second): (&RowStatistics, &SecondStatistics)| {
            let [low, digits, length, left, rest, lost] = self.parts(first, second);
            // The factors, their products and the sum of these are rounded a few times.
            let terms = [low, digits, length, left, rest, lost, factor.recip(), factor.recip()]
                .map(|term| term * factor * (1.0 + 16.0 * UNIT));
            CloserBound { offset: 0.0, scale: f64::from(factor) * f64::from(first.scale), terms }
        };
        queries.statistics().iter().zip(queries.second_statistics()).map(share).collect()
    }

    /// The shares of rows in closer bounds.
    pub(super) fn closer_rows(&self, rows: &FineGallery) -> Vec<CloserBound> {
        let share = |(first, second): (&RowStatistics, &SecondStatistics)| {
            let [low, digits, length, left, rest, lost] = self.parts(first, second);
            let offset = if self.metric == Metric::Euclidean { f64::from(first.norm_square) } else { 0.0 };
            let terms = [digits, low, left, length, rest, lost, NORM_UNITS * UNIT * first.norm_square, TINY];
            CloserBound { offset, scale: f64::from(first.scale), terms }
        };
        rows.statistics().iter().zip(rows.second_statistics()).map(share).collect()
    }

    /// Upper bounds of the parts of a row: of its integers less their leading bytes; of the second digits; of its integers, and of the
    /// row itself; of what the second digits leave, with half of what products round; of what the integers leave; of what their products
    /// lose, of which both sides have one factor.
    fn parts(&self, first: &RowStatistics, second: &SecondStatistics) -> [f32; 6] {
        let (rest, length) = (first.residual, first.norm + first.residual);
        let left = second.residual + PRODUCT_UNITS / 2.0 * UNIT * length;
        [second.low, rest + second.residual, length, left, rest, self.lost.sqrt() * first.scale]
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
            error: query.residual + self.lost / LEAST_FINE_NORM * query.scale,
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

/// The interval in f32, no shorter.
fn outward([least, most]: [f64; 2]) -> [f32; 2] {
    [(least as f32).next_down(), (most as f32).next_up()]
}

/// At least the norm of `values`.
fn upper_norm(values: &[f32]) -> f32 {
    let square: f64 = values.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    (square.sqrt() * (1.0 + 1e-6)) as f32
}
