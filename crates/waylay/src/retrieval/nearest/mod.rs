//! The `k` nearest gallery items of each query by filter and refine: what sorting all distances would give, in a fraction
//! of the time.
//!
//! Filter: approximate dot products, of 8-bit integers, come with bounds that the distance is proven to lie within
//! (`bounds.rs`). The k-th smallest upper bound seen so far is a threshold that no lower bound of a true neighbour exceeds.
//! Refine: the pairs left get their distance, summed in a fixed order. Queries that too many pairs are left for, as where
//! many embeddings nearly coincide, are given back. With few queries, all pairs get their distance.
//!
//! And, by the same means, the ranks of a query's matches (`matches.rs`).

mod bounds;
mod centre;
mod exhaustive;
mod filter;
mod matches;
mod pool;
mod refine;
mod tasks;
#[cfg(test)]
mod tests;

use rayon::prelude::*;
use waylay_conv::nearest::{LARGEST_DIMENSION, is_accelerated};

use super::Metric;
use super::search::{Hit, is_harmless, largest};
use centre::centre;
pub(super) use matches::matches;
use pool::Pool;
use refine::distance_and_index;

/// With fewer multiplications, rounding and pruning take longer than they save.
const LEAST_FILTER_WORK: usize = 1 << 29;
/// With fewer multiplications, there is nothing to divide among threads.
const LEAST_WORK: usize = 1 << 21;
/// With fewer queries, rounding the gallery takes longer than it saves.
const FEWEST_FILTER_QUERIES: usize = 32;
/// With fewer queries where there is no quick integer product, distances one by one take less time than tiles.
const FEWEST_TILED_QUERIES: usize = 8;
/// With fewer gallery items for each that is wanted, the filter rules out too little.
const FEWEST_ROWS_PER_NEIGHBOUR: usize = 16;
/// No query is given up with fewer candidates than this many, and this many for each neighbour wanted.
const ALWAYS_ALLOWED: usize = 1024;
const ALLOWED_PER_NEIGHBOUR: usize = 4;
/// Queries that are in work at the same time, which bounds the memory for candidates.
const BATCH_QUERIES: usize = 4096;
/// The size of a section of the gallery, rounded, which meets all queries before the next one takes its place: little beside the
/// gallery, much beside the second-level cache.
const SECTION_BYTES: usize = 2 << 20;

/// How the nearest are found. Both ways give the same result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    /// By 8-bit integer dot products, and distances of what they leave.
    Filter,
    /// By the distances of all pairs.
    Exhaustive,
}

impl Method {
    /// The quickest for a search of this shape; `None` where tiles of matrix products are.
    fn quickest(queries: usize, rows: usize, dimension: usize, k: usize) -> Option<Self> {
        let work = queries.saturating_mul(rows).saturating_mul(dimension);
        if work < LEAST_WORK || dimension > LARGEST_DIMENSION || rows >= u32::MAX as usize {
            return None;
        }
        let few = if is_accelerated() { FEWEST_FILTER_QUERIES } else { FEWEST_TILED_QUERIES };
        if queries < few {
            return Some(Self::Exhaustive);
        }
        let pays = work >= LEAST_FILTER_WORK && rows / k >= FEWEST_ROWS_PER_NEIGHBOUR;
        (pays && is_accelerated()).then_some(Self::Filter)
    }
}

/// A gallery made ready for searches.
struct Gallery<'a> {
    /// `[G, dimension]`.
    rows: &'a [f32],
    dimension: usize,
    /// For the filter, a point `[dimension]` that rows are measured from, which makes them short if they are near each other.
    centre: Option<Vec<f32>>,
}

/// One search: rows are unit vectors or zero for cosine, and of harmless size for Euclidean distance.
struct Search<'a> {
    gallery: &'a Gallery<'a>,
    metric: Metric,
    k: usize,
    /// Up to this many candidates, no query is given up.
    allowed: usize,
}

/// The `k` gallery items nearest to each query, nearest first, equals by index, from comparable rows of `dimension`
/// values; `k` is 1 to the size of the gallery. `None` for each query where tiles of matrix products do better: little work,
/// numbers near the ends of `f32`, much of the gallery wanted or nearly at one distance, a processor without quick integer
/// products.
pub(super) fn top_k(
    queries: &[f32],
    rows: &[f32],
    dimension: usize,
    k: usize,
    metric: Metric,
) -> Vec<Option<Vec<Hit>>> {
    let (query_count, row_count) = (queries.len() / dimension, rows.len() / dimension);
    let Some(method) = Method::quickest(query_count, row_count, dimension, k) else {
        return vec![None; query_count];
    };
    let gallery = Gallery::new(rows, dimension, method);
    let allowed = ALWAYS_ALLOWED + ALLOWED_PER_NEIGHBOUR * k;
    let (found, gallery_largest) = Search { gallery: &gallery, metric, k, allowed }.run(queries);
    if is_harmless(largest(queries).max(gallery_largest)) { found } else { vec![None; query_count] }
}

impl<'a> Gallery<'a> {
    fn new(rows: &'a [f32], dimension: usize, method: Method) -> Self {
        match method {
            Method::Filter => Self::centred(rows, dimension),
            Method::Exhaustive => Self { rows, dimension, centre: None },
        }
    }

    fn centred(rows: &'a [f32], dimension: usize) -> Self {
        Self { rows, dimension, centre: Some(centre(rows, dimension)) }
    }

    fn row_count(&self) -> usize {
        self.rows.len() / self.dimension
    }

    fn row(&self, index: usize) -> &[f32] {
        &self.rows[index * self.dimension..][..self.dimension]
    }
}

impl Search<'_> {
    /// The nearest rows of each of `queries` `[Q, dimension]`, `None` for those given up; and the gallery's largest magnitude,
    /// as the search means nothing where numbers are near the ends of `f32`.
    fn run(&self, queries: &[f32]) -> (Vec<Option<Vec<Hit>>>, f32) {
        let mut found = Vec::with_capacity(queries.len() / self.gallery.dimension);
        let mut gallery_largest = 0.0_f32;
        for batch in queries.chunks(BATCH_QUERIES * self.gallery.dimension) {
            let (nearest, largest) = self.nearest(batch);
            gallery_largest = gallery_largest.max(largest);
            found.extend(nearest);
        }
        (found, gallery_largest)
    }

    /// The same for a batch.
    fn nearest(&self, queries: &[f32]) -> (Vec<Option<Vec<Hit>>>, f32) {
        let Some(centre) = &self.gallery.centre else {
            let found = self.nearest_exhaustive(queries).into_iter().map(|keys| Some(hits(&keys))).collect();
            return (found, largest(self.gallery.rows));
        };
        let (pools, largest) = self.filter(queries, centre);
        let found = pools
            .into_par_iter()
            .zip(queries.par_chunks(self.gallery.dimension))
            .map(|(pools, query)| Some(hits(&self.refine(query, Pool::merge(pools, self.k)?))))
            .collect();
        (found, largest)
    }
}

fn hits(keys: &[u64]) -> Vec<Hit> {
    let hit = |&key: &u64| {
        let (distance, index) = distance_and_index(key);
        Hit { index: index as usize, distance }
    };
    keys.iter().map(hit).collect()
}
