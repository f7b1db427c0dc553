//! Closer bounds of the rows that products of 16-bit integers leave open for a query, from their second digits.

use super::count::{Limits, OpenRow};
use super::exact::add_halves;
use super::fine::{FineGallery, FineQueries};
use super::second::{Digits, GROUP, SUM_UNIT, digit_sums_in_plain_rust};

/// Terms of the bounds that second digits give.
pub const TERMS: usize = 8;

/// The share that one query or one row has in the bounds of its pairs. These lie around
///
/// `query.offset + row.offset - query.scale * row.scale * score`,
///
/// as far off as the products of both sides' `terms` add up to, where `score` is the sum of the integers' products and of what second
/// digits add.
#[derive(Clone, Copy)]
pub struct CloserBound {
    /// What does not depend on the score.
    pub offset: f64,
    /// Factor of the score.
    pub scale: f64,
    /// Factors of the bounds' terms.
    pub terms: [f32; TERMS],
}

/// Rounded queries or a rounded gallery, and the share of each row in the bounds.
pub struct Narrowed<'a, T> {
    /// [`FineQueries`] or [`FineGallery`].
    pub rows: &'a T,
    /// One entry per row.
    pub bounds: &'a [CloserBound],
}

/// Moves rows that bounds leave open among a query's limits, by closer bounds, and keeps those that are still open. Rows are counted
/// from `first`, the gallery's first one.
///
/// # Panics
/// If queries and gallery are not of the same dimension, or there is no such query or row.
pub fn narrow(
    queries: &Narrowed<'_, FineQueries>,
    query: usize,
    gallery: &Narrowed<'_, FineGallery>,
    first: usize,
    limits: &mut Limits,
    open: &mut Vec<OpenRow>,
) {
    assert_eq!(
        queries.rows.digits(query).len(),
        gallery.rows.digits(0).len(),
        "queries and gallery must be equally long"
    );
    let pairs = Pairs {
        digits: queries.rows.digits(query),
        offset: queries.rows.second_statistics()[query].offset,
        bound: &queries.bounds[query],
        gallery,
        first,
    };
    #[cfg(target_arch = "x86_64")]
    if super::is_accelerated() {
        // SAFETY: the processor has the features that the function is compiled for.
        unsafe { vnni::keep_open(&pairs, limits, open) };
        return;
    }
    pairs.keep_open(limits, open, &Plain);
}

/// A query, and the rows that it meets.
struct Pairs<'a> {
    digits: &'a [Digits],
    /// What the offset of the rows' digits adds to products.
    offset: i32,
    bound: &'a CloserBound,
    gallery: &'a Narrowed<'a, FineGallery>,
    first: usize,
}

/// What instruction sets do in their own ways, with the very same results.
trait Sums {
    /// The products of a query's digits with those of some rows.
    fn digits(&self, query: &[Digits], rows: [&[Digits]; GROUP]) -> [i32; GROUP];

    /// The products of a query's terms with those of some rows, summed as [`add_halves`] does.
    fn terms(&self, query: &[f32; TERMS], rows: [&[f32; TERMS]; GROUP]) -> [f32; GROUP];
}

struct Plain;

impl Sums for Plain {
    fn digits(&self, query: &[Digits], rows: [&[Digits]; GROUP]) -> [i32; GROUP] {
        digit_sums_in_plain_rust(query, rows)
    }

    fn terms(&self, query: &[f32; TERMS], rows: [&[f32; TERMS]; GROUP]) -> [f32; GROUP] {
        rows.map(|row| add_halves::<TERMS>(std::array::from_fn(|term| query[term] * row[term])))
    }
}

impl Pairs<'_> {
    /// Inlined, to be compiled for several instruction sets.
    #[inline(always)]
    fn keep_open(&self, limits: &mut Limits, open: &mut Vec<OpenRow>, sums: &impl Sums) {
        if open.is_empty() {
            return;
        }
        self.add_digits(open, sums);
        // A row that has moved to a limit and is open there may be within that one too.
        while self.move_rows(limits, open, sums) {}
    }

    /// Adds to the scores what second digits say.
    #[inline(always)]
    fn add_digits(&self, open: &mut [OpenRow], sums: &impl Sums) {
        for start in (0..open.len()).step_by(GROUP) {
            let places = group(open.len(), start);
            let sums = sums
                .digits(self.digits, places.map(|place| self.gallery.rows.digits(self.place(&open[place]))));
            for (row, sum) in open[start..].iter_mut().zip(sums) {
                row.score += f64::from(sum.wrapping_sub(self.offset)) * SUM_UNIT;
            }
        }
    }

    /// Moves rows by one limit at most, and keeps those that are still open. Whether there are some among these that have moved.
    #[inline(always)]
    fn move_rows(&self, limits: &mut Limits, open: &mut Vec<OpenRow>, sums: &impl Sums) -> bool {
        let (count, mut kept, mut again) = (open.len(), 0, false);
        for start in (0..count).step_by(GROUP) {
            let places = group(count, start);
            let bounds = places.map(|place| &self.gallery.bounds[self.place(&open[place])]);
            let spreads = sums.terms(&self.bound.terms, bounds.map(|bound| &bound.terms));
            for ((place, bound), spread) in (start..count).zip(bounds).zip(spreads) {
                let mut row = open[place];
                let estimate = self.bound.offset + bound.offset - self.bound.scale * bound.scale * row.score;
                let spread = f64::from(spread);
                let [is_open, moved] = limits.narrow(&mut row, [estimate - spread, estimate + spread]);
                open[kept] = row;
                kept += usize::from(is_open);
                again |= is_open & moved;
            }
        }
        open.truncate(kept);
        again
    }

    #[inline(always)]
    fn place(&self, row: &OpenRow) -> usize {
        row.row as usize - self.first
    }
}

/// Some places from `start` on; after the end the last one again.
#[inline(always)]
fn group(count: usize, start: usize) -> [usize; GROUP] {
    std::array::from_fn(|place| (start + place).min(count - 1))
}

#[cfg(target_arch = "x86_64")]
mod vnni {
    use super::{Digits, GROUP, Limits, OpenRow, Pairs, Sums, TERMS};
    use crate::nearest::second::vnni::digit_sums;
    use std::arch::x86_64::*;

    /// Made where the processor has the features.
    struct Vnni;

    impl Sums for Vnni {
        #[inline(always)]
        fn digits(&self, query: &[Digits], rows: [&[Digits]; GROUP]) -> [i32; GROUP] {
            // SAFETY: the processor has the features.
            unsafe { digit_sums(query, rows) }
        }

        #[inline(always)]
        fn terms(&self, query: &[f32; TERMS], rows: [&[f32; TERMS]; GROUP]) -> [f32; GROUP] {
            // SAFETY: the processor has the features.
            unsafe { term_sums(query, rows) }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub fn keep_open(pairs: &Pairs<'_>, limits: &mut Limits, open: &mut Vec<OpenRow>) {
        pairs.keep_open(limits, open, &Vnni);
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn term_sums(query: &[f32; TERMS], rows: [&[f32; TERMS]; GROUP]) -> [f32; GROUP] {
        // SAFETY: these are 8 numbers.
        let load = |terms: &[f32; TERMS]| unsafe { _mm256_loadu_ps(terms.as_ptr()) };
        let query = load(query);
        let [a, b, c, d] = rows.map(|row| {
            let products = _mm256_mul_ps(query, load(row));
            _mm_add_ps(_mm256_castps256_ps128(products), _mm256_extractf128_ps::<1>(products))
        });
        let ab = _mm_add_ps(_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b));
        let cd = _mm_add_ps(_mm_unpacklo_ps(c, d), _mm_unpackhi_ps(c, d));
        let sums = _mm_add_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab));
        let mut found = [0.0; GROUP];
        // SAFETY: these are 4 numbers.
        unsafe { _mm_storeu_ps(found.as_mut_ptr(), sums) };
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nearest::{FINE_PANEL_ROWS, FINE_TILE_QUERIES, fine_dot_tile, noise};

    #[test]
    fn rows_move_among_limits_and_are_kept_while_bounds_leave_them_open() {
        for dimension in [1, 70, 600, 2048] {
            let origin = vec![0.0; dimension];
            let (q, g) = (noise(3 * dimension, 1), noise(21 * dimension, 2));
            let (queries, gallery) = (FineQueries::new(&q, &origin), FineGallery::new(&g, &origin));
            let mut tile = [0.0; FINE_TILE_QUERIES * FINE_PANEL_ROWS];
            fine_dot_tile(&queries, 0, &gallery, 0, &mut tile);
            let share = |scale: f32| CloserBound {
                offset: 0.0,
                scale: f64::from(scale),
                terms: [(0.05_f32 / TERMS as f32).sqrt(); TERMS],
            };
            let [own, other] = [queries.statistics(), gallery.statistics()]
                .map(|rows| rows.iter().map(|row| share(row.scale)).collect::<Vec<_>>());
            let queries = Narrowed { rows: &queries, bounds: &own };
            let gallery = Narrowed { rows: &gallery, bounds: &other };
            for query in 0..3 {
                let exact = |row: usize| -> f64 {
                    let rows = q[query * dimension..].iter().zip(&g[row * dimension..]).take(dimension);
                    rows.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
                };
                // The distance is the negative product; limits lie a tenth of what that spans apart.
                let distances: Vec<f64> = (0..21).map(|row| -exact(row)).collect();
                let [least, most] =
                    [f64::min, f64::max].map(|f| distances.iter().copied().reduce(f).unwrap());
                let step = (most - least) / 10.0;
                let limit = |place: usize| (least + place as f64 * step) as f32;
                let mut limits = Limits::new((0..10).map(|place| [limit(place); 2]));
                let mut plain_limits = limits.clone();
                let mut open: Vec<OpenRow> = (0..21)
                    .map(|row| OpenRow {
                        row: row as u32 + 100,
                        place: 10,
                        score: f64::from(tile[query * FINE_PANEL_ROWS + row]),
                    })
                    .collect();
                let mut plain_open = open.clone();
                narrow(&queries, query, &gallery, 100, &mut limits, &mut open);
                let pairs = Pairs {
                    digits: queries.rows.digits(query),
                    offset: queries.rows.second_statistics()[query].offset,
                    bound: &own[query],
                    gallery: &gallery,
                    first: 100,
                };
                pairs.keep_open(&mut plain_limits, &mut plain_open, &Plain);
                assert_eq!(open, plain_open);
                assert_eq!(limits.counts().collect::<Vec<_>>(), plain_limits.counts().collect::<Vec<_>>());
                // Bounds are 0.05 apart from it.
                for (place, count) in limits.counts().enumerate() {
                    let within = |margin: f64| {
                        distances.iter().filter(|d| **d + margin <= f64::from(limit(place))).count()
                    };
                    assert!((within(0.0501)..=within(0.0499)).contains(&count), "{dimension} {place}");
                }
                for (row, distance) in distances.iter().enumerate() {
                    let gaps = (0..10).map(|place| (distance - f64::from(limit(place))).abs());
                    let is_open = open.iter().any(|open| open.row as usize == row + 100);
                    let gap = gaps.fold(f64::INFINITY, f64::min);
                    assert!((gap - 0.05).abs() < 1e-4 || is_open == (gap < 0.05), "{dimension} {row}: {gap}");
                }
                for row in &open {
                    let place = row.row as usize - 100;
                    let error = own[query].scale * other[place].scale * row.score - exact(place);
                    assert!(error.abs() < 1e-6 * dimension as f64, "{dimension}: {error}");
                }
            }
        }
    }
}
