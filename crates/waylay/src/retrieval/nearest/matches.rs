//! How many gallery items are no farther than each of a query's matches.
//!
//! The matches' own distances are measured first. Then approximate dot products, of 16-bit integers, bound every distance
//! (`bounds.rs`): most pairs lie certainly within such a distance or beyond it, and are counted; the others are measured.

use rayon::prelude::*;
use waylay_conv::nearest::{
    FINE_PANEL_ROWS, FINE_TILE_QUERIES, FineGallery, FineQueries, LARGEST_DIMENSION, Limits, OpenRow,
    QueryBound, RowBounds, count_panel, fine_dot_tile, is_accelerated,
};

use super::bounds::Slack;
use super::centre::query_centre;
use super::{BATCH_QUERIES, Gallery, Metric};
use crate::retrieval::ranking::Matches;
use crate::retrieval::search::{is_harmless, largest};

/// With fewer multiplications, rounding takes longer than it saves.
const LEAST_WORK: usize = 1 << 29;
/// With fewer queries, rounding the gallery takes longer than it saves.
const FEWEST_QUERIES: usize = 32;
/// With more matches for a query, on average, too many pairs are near one of them, and distances of all pairs take less time.
const MOST_MATCHES: usize = 40;
/// One pair in this many may be a match or excluded: those are measured one by one.
const PAIRS_PER_KNOWN: usize = 16;
/// Queries that a thread takes at a time: their rounded rows stay in the second-level cache.
const BLOCK_QUERIES: usize = 128;
/// The size of a section of the gallery, rounded, which meets all queries before the next one takes its place.
const SECTION_BYTES: usize = 2 << 20;
/// Queries and rows, spread over all, that tell how many pairs will be left open.
const SAMPLED_QUERIES: usize = 4 * FINE_TILE_QUERIES;
const SAMPLED_ROWS: usize = 16 * FINE_PANEL_ROWS;
/// With more than one in this many left open, distances of all pairs take less time.
const PAIRS_PER_OPEN: usize = 10;
/// A query is given up where one row in this many has to be measured, and more than so many.
const ROWS_PER_OPEN: usize = 4;
const ALWAYS_OPEN: usize = 4096;

/// The gallery, and what its items are to the queries.
pub(super) struct Search<'a, F> {
    pub gallery: Gallery<'a>,
    pub metric: Metric,
    /// Matches and excluded items of a query.
    pub known: F,
}

/// Matches of each query from comparable rows of `dimension` values; `known` names the matches and the excluded items of a query.
/// `None` for each query where tiles of matrix products do better: little work, numbers near the ends of `f32`, many matches, much
/// of the gallery nearly at their distances, a processor without quick integer products.
pub(in crate::retrieval) fn matches<'r>(
    queries: &[f32],
    rows: &[f32],
    dimension: usize,
    metric: Metric,
    known: impl Fn(usize) -> [&'r [usize]; 2] + Sync,
) -> Vec<Option<Matches>> {
    let (query_count, row_count) = (queries.len() / dimension, rows.len() / dimension);
    let pairs = query_count.saturating_mul(row_count);
    let (matches, excluded) = (0..query_count)
        .map(&known)
        .fold((0, 0), |sums, [matches, excluded]| (sums.0 + matches.len(), sums.1 + excluded.len()));
    let pays = is_accelerated()
        && dimension <= LARGEST_DIMENSION
        && row_count < u32::MAX as usize
        && query_count >= FEWEST_QUERIES
        && pairs.saturating_mul(dimension) >= LEAST_WORK
        && matches <= MOST_MATCHES * query_count
        && matches + excluded <= pairs / PAIRS_PER_KNOWN
        && is_harmless(largest(queries).max(largest(rows)));
    if !pays {
        return vec![None; query_count];
    }
    let search = Search { gallery: Gallery::centred(rows, dimension), metric, known };
    if !search.leaves_few_open(queries) {
        return vec![None; query_count];
    }
    let batches = queries.chunks(BATCH_QUERIES * dimension).enumerate();
    batches.flat_map(|(batch, queries)| search.batch(batch * BATCH_QUERIES, queries)).collect()
}

impl<'r, F: Fn(usize) -> [&'r [usize]; 2] + Sync> Search<'_, F> {
    /// Whether bounds settle most pairs, as a sample tells.
    fn leaves_few_open(&self, queries: &[f32]) -> bool {
        let dimension = self.gallery.dimension;
        let spread = |values: &[f32], count: usize| -> (Vec<usize>, Vec<f32>) {
            let all = values.len() / dimension;
            let places: Vec<usize> = (0..count.min(all)).map(|place| place * all / count.min(all)).collect();
            let rows = places.iter().flat_map(|place| &values[place * dimension..][..dimension]);
            (places.clone(), rows.copied().collect())
        };
        let (places, queries) = spread(queries, SAMPLED_QUERIES);
        let (_, rows) = spread(self.gallery.rows, SAMPLED_ROWS);
        let slack = Slack::fine(self.metric, self.centre());
        let mut block = self.block(&places, &queries, &slack);
        let (rounded, bounds) = self.round(0, &rows, &slack);
        (0..rounded.panel_count()).for_each(|panel| block.count(&rounded, panel, &bounds));
        let open: usize = block.asked.iter().map(|asked| asked.open.len()).sum();
        open * PAIRS_PER_OPEN <= places.len() * rows.len() / dimension
    }

    /// The matches of some queries, of which `first` is the first one's number.
    pub fn batch(&self, first: usize, queries: &[f32]) -> Vec<Option<Matches>> {
        let dimension = self.gallery.dimension;
        let slack = Slack::fine(self.metric, self.centre());
        let mut blocks: Vec<Block> = queries
            .par_chunks(BLOCK_QUERIES * dimension)
            .enumerate()
            .map(|(block, rows)| {
                let first = first + block * BLOCK_QUERIES;
                let numbers: Vec<usize> = (first..first + rows.len() / dimension).collect();
                self.block(&numbers, rows, &slack)
            })
            .collect();
        let section_rows = (SECTION_BYTES / (2 * dimension)).next_multiple_of(FINE_PANEL_ROWS);
        for (section, rows) in self.gallery.rows.chunks(section_rows * dimension).enumerate() {
            let (rounded, bounds) = self.round(section * section_rows, rows, &slack);
            let seen = section * section_rows + rows.len() / dimension;
            blocks.par_iter_mut().with_max_len(1).for_each(|block| {
                for panel in 0..rounded.panel_count() {
                    block.count(&rounded, panel, &bounds);
                    block.settle(&self.gallery, self.metric, seen);
                }
            });
        }
        blocks.into_iter().flat_map(|block| block.asked).map(Asked::finish).collect()
    }

    fn centre(&self) -> &[f32] {
        self.gallery.centre.as_deref().unwrap_or_default()
    }

    /// Rows of the gallery from row `first` on, rounded.
    fn round(&self, first: usize, rows: &[f32], slack: &Slack) -> (FineGallery, RowBounds) {
        let rounded = FineGallery::new(rows, self.centre());
        let shares = rounded.statistics().iter().map(|row| slack.row(row));
        let bounds = RowBounds::new(first, FINE_PANEL_ROWS, shares);
        (rounded, bounds)
    }

    /// The queries `rows` of these numbers.
    fn block<'q>(&self, numbers: &[usize], rows: &'q [f32], slack: &Slack) -> Block<'q> {
        let queries = FineQueries::new(rows, &query_centre(self.centre(), self.metric));
        let asked = numbers.iter().zip(rows.chunks(self.gallery.dimension)).zip(queries.statistics());
        let asked = asked.map(|((number, row), statistics)| {
            let width = f64::from(slack.query_width(statistics));
            self.ask(*number, row, slack.query(statistics), width)
        });
        Block { rows, asked: asked.collect(), queries }
    }

    /// What is to be found out for a query.
    fn ask(&self, query: usize, row: &[f32], bound: QueryBound, width: f64) -> Asked {
        let [matches, excluded] = (self.known)(query);
        let measure = |items: &[usize]| {
            let mut found = Vec::with_capacity(items.len());
            self.gallery.measure(self.metric, row, items, true, |_, distance| found.push(distance));
            found
        };
        let mut distances = measure(matches);
        distances.sort_unstable_by(f32::total_cmp);
        let place = self.gallery.scan_place(self.metric, row);
        let limits = distances.iter().map(|distance| {
            let [least, most] = place.of(*distance);
            [((least - width) as f32).next_down(), ((most + width) as f32).next_up()]
        });
        let limits = Limits::new(limits.collect());
        Asked {
            bound,
            limits,
            distances,
            excluded: measure(excluded),
            open: Vec::new(),
            opened: 0,
            given_up: false,
        }
    }
}

/// Some queries.
struct Block<'a> {
    rows: &'a [f32],
    queries: FineQueries,
    asked: Vec<Asked>,
}

/// What is asked for a query, and found out so far.
struct Asked {
    bound: QueryBound,
    limits: Limits,
    /// Of the matches, ascending.
    distances: Vec<f32>,
    excluded: Vec<f32>,
    open: Vec<OpenRow>,
    /// Rows that had to be measured so far.
    opened: usize,
    given_up: bool,
}

impl Block<'_> {
    /// Counts what is certain of a panel, and collects the rest.
    fn count(&mut self, section: &FineGallery, panel: usize, bounds: &RowBounds) {
        let mut products = [0.0; FINE_TILE_QUERIES * FINE_PANEL_ROWS];
        for (tile, asked) in self.asked.chunks_mut(FINE_TILE_QUERIES).enumerate() {
            if asked.iter().all(|asked| asked.given_up || asked.distances.is_empty()) {
                continue;
            }
            fine_dot_tile(&self.queries, tile, section, panel, &mut products);
            for (asked, scores) in asked.iter_mut().zip(products.chunks_exact(FINE_PANEL_ROWS)) {
                if !asked.given_up {
                    let Asked { bound, limits, open, .. } = asked;
                    count_panel(scores, panel, bounds, bound, limits, open);
                }
            }
        }
    }

    /// Measures what was left open, of `seen` rows so far.
    fn settle(&mut self, gallery: &Gallery<'_>, metric: Metric, seen: usize) {
        for (asked, row) in self.asked.iter_mut().zip(self.rows.chunks(gallery.dimension)) {
            asked.opened += asked.open.len();
            asked.given_up |= asked.opened > ALWAYS_OPEN + seen / ROWS_PER_OPEN;
            if !asked.given_up {
                let Asked { limits, distances, open, .. } = asked;
                let items: Vec<usize> = open.iter().map(|row| row.index as usize).collect();
                gallery.measure(metric, row, &items, false, |place, distance| {
                    limits.settle(open[place], |limit| distance <= distances[limit]);
                });
            }
            asked.open.clear();
        }
    }
}

impl Asked {
    fn finish(self) -> Option<Matches> {
        let within = self.limits.counts().iter().map(|count| *count as usize).collect();
        (!self.given_up).then(|| Matches::counted(self.distances, within, &self.excluded))
    }
}
