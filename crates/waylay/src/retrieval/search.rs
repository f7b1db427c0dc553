//! Exact search: all distances are tiles of matrix products, of which what is nearest is kept.
//!
//! Euclidean distances of tiles come from |q|² + |g|² − 2 q·g, as in faiss' flat index: exact to
//! about 1e-7 of the squared lengths, so that the distance of an embedding to itself can come out
//! as up to 1e-3 of its length instead of 0.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Range;

use rayon::prelude::*;
use waylay_conv::PackedRows;

use super::ranking::Matches;
use super::{Relevance, RetrievalError};
use crate::embedding::Embeddings;
use crate::embedding::Metric;

/// Queries per tile: each brings the whole gallery into the order of the matrix product once, so
/// they should be few; and threads share them, so there should be some.
const QUERY_TILE: usize = 512;
/// Gallery items per tile.
const GALLERY_TILE: usize = 1024;

/// Distances of every query to every gallery item.
#[derive(Clone, Debug, PartialEq)]
pub struct Distances {
    values: Vec<f32>,
    gallery: usize,
}

impl Distances {
    /// All distances, `[queries, gallery]` row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Number of queries.
    pub fn queries(&self) -> usize {
        self.values.len() / self.gallery
    }

    /// Number of gallery items.
    pub fn gallery(&self) -> usize {
        self.gallery
    }

    /// Distances of query `index` to the gallery, in the gallery's order.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.gallery..(index + 1) * self.gallery]
    }
}

/// A gallery item found for a query. The order is that of the results: by distance, equals by
/// index.
#[derive(Clone, Copy, Debug)]
pub struct Hit {
    /// Which gallery item.
    pub index: usize,
    /// Its distance to the query.
    pub distance: f32,
}

impl Ord for Hit {
    fn cmp(&self, other: &Self) -> Ordering {
        self.distance.total_cmp(&other.distance).then(self.index.cmp(&other.index))
    }
}

impl PartialOrd for Hit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Hit {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Hit {}

/// Distances of every query to every gallery item; an error where their dimensions differ.
///
/// Equal gallery embeddings are at bitwise equal distances. A Euclidean distance beyond `f32` is
/// infinite.
pub fn distances(
    queries: &Embeddings,
    gallery: &Embeddings,
    metric: Metric,
) -> Result<Distances, RetrievalError> {
    let pair = Pair::new(queries, gallery, metric)?;
    let mut values = vec![0.0; pair.queries.count() * pair.gallery.count()];
    values.par_chunks_mut(QUERY_TILE * pair.gallery.count()).enumerate().for_each(|(tile, block)| {
        pair.fill(tile * QUERY_TILE, block);
    });
    Ok(Distances { values, gallery: gallery.count() })
}

/// The `k` gallery items nearest to each query, nearest first, equals by gallery index; an error
/// where `k` is not 1 to the size of the gallery, or the dimensions differ. Beside the gallery (and
/// its rows of length 1, for cosine), memory grows with `k` and the queries alone.
///
/// The distances are those of [`distances`].
pub fn top_k(
    queries: &Embeddings,
    gallery: &Embeddings,
    k: usize,
    metric: Metric,
) -> Result<Vec<Vec<Hit>>, RetrievalError> {
    if k == 0 || k > gallery.count() {
        return Err(RetrievalError::Results { k, gallery: gallery.count() });
    }
    Ok(Pair::new(queries, gallery, metric)?.top_k(k))
}

/// The matches of each query. Holds a tile of distances per thread, never the whole matrix.
pub(super) fn matches(
    queries: &Embeddings,
    gallery: &Embeddings,
    relevance: &Relevance,
    metric: Metric,
) -> Result<Vec<Matches>, RetrievalError> {
    let pair = Pair::new(queries, gallery, metric)?;
    Ok(pair.for_each_query(|query, distances| {
        Matches::among(distances, relevance.matches(query), relevance.excluded(query))
    }))
}

/// Adds to `nearest`, the `k` best so far, what is nearer among `distances` of gallery items from
/// `start`. Items come in the order of the gallery, so a later one at the same distance never
/// displaces an earlier one.
fn keep_nearest(nearest: &mut BinaryHeap<Hit>, k: usize, start: usize, distances: &[f32]) {
    let mut worst = nearest.peek().filter(|_| nearest.len() == k).map(|hit| hit.distance);
    for (offset, &distance) in distances.iter().enumerate() {
        if worst.is_some_and(|worst| distance >= worst) {
            continue;
        }
        if nearest.len() == k {
            nearest.pop();
        }
        nearest.push(Hit { index: start + offset, distance });
        worst = nearest.peek().filter(|_| nearest.len() == k).map(|hit| hit.distance);
    }
}

/// Whether no product of values up to this magnitude overflows, nor do all of them vanish.
fn is_harmless(largest: f32) -> bool {
    largest == 0.0 || (1e-9..1e9).contains(&largest)
}

/// The largest magnitude.
fn largest(values: &[f32]) -> f32 {
    // Without their sign, the bits of finite numbers sort like the numbers, and their maximum is
    // found in vectors.
    let bits = |values: &[f32]| values.iter().fold(0, |most, value| value.abs().to_bits().max(most));
    f32::from_bits(values.par_chunks(1 << 16).map(bits).max().unwrap_or(0))
}

/// The values that a metric compares: rows of length 1 (or 0) for cosine, and the rows as they are
/// for Euclidean distance.
fn comparable(embeddings: &Embeddings, metric: Metric) -> Cow<'_, [f32]> {
    match metric {
        Metric::Cosine => embeddings.normalised().into_values().into(),
        Metric::Euclidean => embeddings.values().into(),
    }
}

/// Rows ready for products: unit rows for cosine; for Euclidean, rows divided by the common
/// `scale`, with their squared lengths.
struct Rows<'a> {
    values: Cow<'a, [f32]>,
    squares: Vec<f32>,
    dim: usize,
}

impl<'a> Rows<'a> {
    fn new(values: Cow<'a, [f32]>, dim: usize, metric: Metric, scale: f64) -> Self {
        match metric {
            Metric::Cosine => Self { values, squares: Vec::new(), dim },
            Metric::Euclidean => {
                let values: Cow<[f32]> = if scale == 1.0 {
                    values
                } else {
                    values.iter().map(|v| (f64::from(*v) / scale) as f32).collect()
                };
                let square = |row: &[f32]| row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() as f32;
                let squares = values.par_chunks_exact(dim).map(square).collect();
                Self { values, squares, dim }
            }
        }
    }

    fn count(&self) -> usize {
        self.values.len() / self.dim
    }

    fn rows(&self, rows: Range<usize>) -> &[f32] {
        &self.values[rows.start * self.dim..rows.end * self.dim]
    }
}

/// Queries and gallery, prepared for one metric.
struct Pair<'a> {
    queries: Rows<'a>,
    gallery: Rows<'a>,
    metric: Metric,
    /// A power of two near the largest value, so that no product overflows or vanishes; dividing by
    /// it is exact. 1 where nothing could.
    scale: f64,
}

impl<'a> Pair<'a> {
    fn new(queries: &'a Embeddings, gallery: &'a Embeddings, metric: Metric) -> Result<Self, RetrievalError> {
        let dim = gallery.dim();
        if queries.dim() != dim {
            return Err(RetrievalError::Dimensions { query: queries.dim(), gallery: dim });
        }
        let (queries, gallery) = (comparable(queries, metric), comparable(gallery, metric));
        let largest = largest(&queries).max(largest(&gallery));
        let scale = if is_harmless(largest) { 1.0 } else { f64::from(largest).log2().floor().exp2() };
        let (queries, gallery) =
            (Rows::new(queries, dim, metric, scale), Rows::new(gallery, dim, metric, scale));
        Ok(Self { queries, gallery, metric, scale })
    }

    /// The `k` nearest of each query.
    fn top_k(&self, k: usize) -> Vec<Vec<Hit>> {
        let tiles: Vec<Vec<Vec<Hit>>> = self
            .query_tiles(QUERY_TILE)
            .into_par_iter()
            .map(|rows| {
                let mut nearest = vec![BinaryHeap::with_capacity(k + 1); rows.len()];
                self.visit(rows, |row, start, distances| {
                    keep_nearest(&mut nearest[row], k, start, distances)
                });
                nearest.into_iter().map(BinaryHeap::into_sorted_vec).collect()
            })
            .collect();
        tiles.into_iter().flatten().collect()
    }

    /// What `judge` makes of each query's index and its distances to the whole gallery, in the
    /// order of the queries.
    fn for_each_query<T: Send>(&self, judge: impl Fn(usize, &[f32]) -> T + Sync) -> Vec<T> {
        let count = self.gallery.count();
        let tiles: Vec<Vec<T>> = self
            .query_tiles(QUERY_TILE.min((1 << 23) / count).max(8))
            .into_par_iter()
            .map(|rows| {
                let mut block = vec![0.0; rows.len() * count];
                self.fill(rows.start, &mut block);
                rows.zip(block.chunks_exact(count)).map(|(query, row)| judge(query, row)).collect()
            })
            .collect();
        tiles.into_iter().flatten().collect()
    }

    fn query_tiles(&self, size: usize) -> Vec<Range<usize>> {
        let count = self.queries.count();
        (0..count).step_by(size).map(|start| start..(start + size).min(count)).collect()
    }

    /// Writes the distances of the queries from `first` on to `block`, whole rows of the gallery's
    /// length.
    fn fill(&self, first: usize, block: &mut [f32]) {
        let count = self.gallery.count();
        let rows = first..first + block.len() / count;
        let queries = PackedRows::new(self.queries.rows(rows.clone()), self.queries.dim);
        for start in (0..count).step_by(GALLERY_TILE) {
            let end = count.min(start + GALLERY_TILE);
            queries.multiply_transposed(self.gallery.rows(start..end), &mut block[start..], count);
            for (query, row) in rows.clone().zip(block.chunks_exact_mut(count)) {
                self.to_distances(query, start, &mut row[start..end]);
            }
        }
    }

    /// Calls `see(row, start, distances)` for each of the queries `rows` (counted from 0) and each
    /// stretch of the gallery from `start` on, in the gallery's order.
    fn visit(&self, rows: Range<usize>, mut see: impl FnMut(usize, usize, &[f32])) {
        let count = self.gallery.count();
        let queries = PackedRows::new(self.queries.rows(rows.clone()), self.queries.dim);
        let mut tile = vec![0.0; rows.len() * GALLERY_TILE.min(count)];
        for start in (0..count).step_by(GALLERY_TILE) {
            let width = GALLERY_TILE.min(count - start);
            queries.multiply_transposed(self.gallery.rows(start..start + width), &mut tile, width);
            for (row, products) in tile.chunks_exact_mut(width).take(rows.len()).enumerate() {
                self.to_distances(rows.start + row, start, products);
                see(row, start, products);
            }
        }
    }

    /// Turns products of `query` with the gallery from `start` on into distances, in place. None is
    /// NaN or negative.
    fn to_distances(&self, query: usize, start: usize, products: &mut [f32]) {
        match self.metric {
            Metric::Cosine => products.iter_mut().for_each(|v| *v = (1.0 - *v).clamp(0.0, 2.0)),
            Metric::Euclidean => {
                let (square, scale) = (self.queries.squares[query], self.scale as f32);
                for (v, other) in products.iter_mut().zip(&self.gallery.squares[start..]) {
                    let squared = square + other - 2.0 * *v;
                    *v = if squared > 0.0 { squared.sqrt() * scale } else { 0.0 };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noise(count: usize, dim: usize, seed: u32) -> Embeddings {
        let value = |i: usize| {
            let mixed = (i as u32).wrapping_mul(0x9E37_79B9) ^ seed.wrapping_mul(0x85EB_CA6B);
            let mixed = (mixed ^ (mixed >> 15)).wrapping_mul(0x2C1B_3C6D);
            (mixed >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        Embeddings::new(dim, (0..count * dim).map(value).collect()).unwrap()
    }

    fn plainly(q: &[f32], g: &[f32], metric: Metric) -> f64 {
        let dot =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        match metric {
            Metric::Cosine => 1.0 - dot(q, g) / (dot(q, q) * dot(g, g)).sqrt(),
            Metric::Euclidean => {
                q.iter().zip(g).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
            }
        }
    }

    #[test]
    fn distances_agree_with_two_loops_across_tile_borders() {
        let (queries, gallery) = (noise(70, 24, 1), noise(1100, 24, 2));
        for metric in [Metric::Cosine, Metric::Euclidean] {
            let found = distances(&queries, &gallery, metric).unwrap();
            for q in 0..queries.count() {
                for g in 0..gallery.count() {
                    let exact = plainly(queries.row(q), gallery.row(g), metric);
                    assert!((f64::from(found.row(q)[g]) - exact).abs() < 2e-6, "{metric} {q} {g}");
                }
            }
        }
    }

    #[test]
    fn equal_embeddings_are_at_equal_distances_wherever_they_stand() {
        for dim in [1, 2, 3, 31, 700] {
            for count in [1, 2, 15, 16, 17, 63, 255, 1023, 1025, 2049] {
                for queries in [1, 2, 3, 65] {
                    let row = noise(1, dim, 3).values().to_vec();
                    let gallery = Embeddings::new(dim, row.repeat(count)).unwrap();
                    for metric in [Metric::Cosine, Metric::Euclidean] {
                        let found = distances(&noise(queries, dim, 4), &gallery, metric).unwrap();
                        for q in 0..queries {
                            let row = found.row(q);
                            assert!(row.iter().all(|d| *d == row[0]), "{metric} {queries} x {count} x {dim}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn numbers_near_the_ends_of_f32_neither_panic_nor_lose_their_order() {
        for scale in [1e-42, 1e-30, 1e30, 3e38] {
            let gallery = Embeddings::new(2, vec![scale, 0.0, -scale, 0.0, scale / 2.0, 0.0]).unwrap();
            let query = Embeddings::new(2, vec![scale, 0.0]).unwrap();
            for metric in [Metric::Cosine, Metric::Euclidean] {
                let hits = &top_k(&query, &gallery, 3, metric).unwrap()[0];
                assert_eq!(hits.iter().map(|h| h.index).collect::<Vec<_>>(), [0, 2, 1], "{metric} {scale}");
                assert!(hits.iter().all(|h| h.distance >= 0.0));
            }
        }
    }

    #[test]
    fn a_zero_embedding_is_at_cosine_distance_one() {
        let zero = Embeddings::new(3, vec![0.0; 3]).unwrap();
        assert!(
            distances(&zero, &noise(9, 3, 5), Metric::Cosine).unwrap().values().iter().all(|d| *d == 1.0)
        );
    }

    #[test]
    fn impossible_requests_are_errors() {
        let (a, b) = (noise(2, 3, 6), noise(4, 5, 7));
        let error = distances(&a, &b, Metric::Cosine).unwrap_err();
        assert_eq!(error.to_string(), "queries of 3 dimensions in a gallery of 5 dimensions; need the same");
        for k in [0, 3] {
            let error = top_k(&a, &a, k, Metric::Euclidean).unwrap_err();
            assert_eq!(error, RetrievalError::Results { k, gallery: 2 });
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn the_first_k_are_the_sorted_distances(
            rows in 1_usize..80, count in 1_usize..2200, k in 1_usize..30, seed: u32, coarse: bool,
        ) {
            let k = k.min(count);
            let shape = |e: Embeddings| {
                let ties = |v: &f32| if coarse { v.round() } else { *v };
                Embeddings::new(e.dim(), e.values().iter().map(ties).collect()).unwrap()
            };
            let (queries, gallery) = (shape(noise(rows, 6, seed)), shape(noise(count, 6, !seed)));
            for metric in [Metric::Cosine, Metric::Euclidean] {
                let all = distances(&queries, &gallery, metric).unwrap();
                let found = top_k(&queries, &gallery, k, metric).unwrap();
                for (q, hits) in found.iter().enumerate() {
                    let mut sorted: Vec<Hit> =
                        all.row(q).iter().enumerate().map(|(index, &distance)| Hit { index, distance }).collect();
                    sorted.sort();
                    prop_assert_eq!(hits.as_slice(), &sorted[..k]);
                }
            }
        }
    }
}
