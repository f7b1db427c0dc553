//! How many gallery items are no farther than each of a query's matches.
//!
//! The matches' own distances are measured first. Then approximate dot products, of 16-bit integers, bound every distance
//! (`bounds.rs`): most pairs lie certainly within such a distance or beyond it, and are counted. Second digits narrow the bounds of the
//! others; what they still leave open is measured.

use rayon::prelude::*;
use waylay_conv::nearest::{
    CloserBound, FINE_PANEL_ROWS, FINE_TILE_QUERIES, FineGallery, FineQueries, LARGEST_DIMENSION, Limits,
    Narrowed, OpenRow, QueryBound, ROWS_AT_ONCE, RowBounds, count_panel, fine_dot_tile, is_accelerated,
    narrow, prefetch,
};

use super::bounds::Slack;
use super::centre::query_centre;
use super::{BATCH_QUERIES, Gallery, Metric, SECTION_BYTES};
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
const BLOCK_QUERIES: usize = 48;
/// The most rows of a section, as those that stay open are listed for each query.
const SECTION_ROWS: usize = 4096;
/// Sections whose pairs are measured together: their own values fit the last level of cache.
const SECTIONS_MEASURED: usize = 2;
/// Of the rows of a section, lists have room for one in so many.
const ROWS_PER_LISTED: usize = 8;
/// Queries and rows, spread over all, that tell how many pairs will be left open.
const SAMPLED_QUERIES: usize = 4 * FINE_TILE_QUERIES;
const SAMPLED_ROWS: usize = 24 * FINE_PANEL_ROWS;
/// With more than one in this many left open, or left to be measured, distances of all pairs take less time.
const PAIRS_PER_OPEN: usize = 4;
const PAIRS_PER_LEFT: usize = 20;
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
        let asked = self.ask_all(&places, &queries, &slack);
        let mut block = self.block(asked, &queries, &slack);
        let section = self.section(0, &rows, &slack);
        let pairs = places.len() * rows.len() / dimension;
        let mut open = section.lists(places.len());
        block.count(&section, &mut open);
        let all = open.iter().map(Vec::len).sum::<usize>();
        block.narrow(&section, &mut open);
        let left = block.asked.iter().map(|asked| asked.left.len()).sum::<usize>();
        all * PAIRS_PER_OPEN <= pairs && left * PAIRS_PER_LEFT <= pairs
    }

    /// The matches of some queries, of which `first` is the first one's number.
    pub fn batch(&self, first: usize, queries: &[f32]) -> Vec<Option<Matches>> {
        let dimension = self.gallery.dimension;
        let slack = Slack::fine(self.metric, self.centre());
        let numbers: Vec<usize> = (first..first + queries.len() / dimension).collect();
        let mut asked = self.ask_all(&numbers, queries, &slack).into_iter();
        let parts: Vec<(&[f32], Vec<Asked>)> = queries
            .chunks(BLOCK_QUERIES * dimension)
            .map(|rows| (rows, asked.by_ref().take(rows.len() / dimension).collect()))
            .collect();
        let mut blocks: Vec<Block> =
            parts.into_par_iter().map(|(rows, asked)| self.block(asked, rows, &slack)).collect();
        let section_rows =
            (SECTION_BYTES / (2 * dimension)).clamp(1, SECTION_ROWS).next_multiple_of(FINE_PANEL_ROWS);
        for (index, rows) in self.gallery.rows.chunks(section_rows * dimension).enumerate() {
            let section = self.section(index * section_rows, rows, &slack);
            let seen = section.first + rows.len() / dimension;
            blocks.par_iter_mut().with_max_len(1).for_each(|block| {
                let mut open = section.lists(block.asked.len());
                block.count(&section, &mut open);
                block.narrow(&section, &mut open);
            });
            if (index + 1) % SECTIONS_MEASURED != 0 && seen < self.gallery.row_count() {
                continue;
            }
            // Afterwards, as the sections' own values have to be in cache for that, not only the rounded ones.
            blocks.par_iter_mut().with_max_len(1).for_each(|block| {
                block.settle(&self.gallery, self.metric, seen);
            });
        }
        blocks.into_iter().flat_map(|block| block.asked).map(Asked::finish).collect()
    }

    fn centre(&self) -> &[f32] {
        self.gallery.centre.as_deref().unwrap_or_default()
    }

    /// Rows of the gallery from row `first` on, rounded.
    fn section(&self, first: usize, rows: &[f32], slack: &Slack) -> Section {
        let rounded = FineGallery::new(rows, self.centre());
        let shares = rounded.statistics().iter().map(|row| slack.row(row));
        let bounds = RowBounds::new(first, FINE_PANEL_ROWS, shares);
        let closer = slack.closer_rows(&rounded);
        Section { first, rounded, bounds, closer }
    }

    /// The queries `rows`, of which this is asked.
    fn block<'q>(&self, asked: Vec<Asked>, rows: &'q [f32], slack: &Slack) -> Block<'q> {
        let queries = FineQueries::new(rows, &query_centre(self.centre(), self.metric));
        let bounds = queries.statistics().iter().map(|query| slack.query(query)).collect();
        let closer = slack.closer_queries(&queries);
        Block { rows, asked, queries, bounds, closer }
    }

    /// What is to be found out for the queries `rows` of these numbers.
    fn ask_all(&self, numbers: &[usize], rows: &[f32], slack: &Slack) -> Vec<Asked> {
        // Queries of the same person, say, one after the other, as they want the same values, which are in cache then.
        let mut order: Vec<usize> = (0..numbers.len()).collect();
        order.sort_by_cached_key(|place| (self.known)(numbers[*place]).into_iter().flatten().min());
        let dimension = self.gallery.dimension;
        let ask =
            |place: usize| (place, self.ask(numbers[place], &rows[place * dimension..][..dimension], slack));
        let mut asked: Vec<(usize, Asked)> = order.into_par_iter().map(ask).collect();
        asked.sort_unstable_by_key(|(place, _)| *place);
        asked.into_iter().map(|(_, asked)| asked).collect()
    }

    /// What is to be found out for a query.
    fn ask(&self, query: usize, row: &[f32], slack: &Slack) -> Asked {
        let [matches, excluded] = (self.known)(query);
        let measure = |items: &[usize]| {
            let mut found = Vec::with_capacity(items.len());
            self.gallery.measure(self.metric, row, items, |_, distance| found.push(distance));
            found
        };
        let mut distances = measure(matches);
        let excluded_distances = measure(excluded);
        let items = matches.iter().chain(excluded).map(|item| *item as u32);
        let mut known: Vec<(u32, f32)> =
            items.zip(distances.iter().chain(&excluded_distances).copied()).collect();
        known.sort_unstable_by_key(|(item, _)| *item);
        distances.sort_unstable_by(f32::total_cmp);
        let place = self.gallery.scan_place(self.metric, row);
        let limits = distances.iter().map(|distance| slack.limit(&place, *distance, row.len()));
        Asked {
            limits: Limits::new(limits),
            distances,
            excluded: excluded_distances,
            known,
            left: Vec::new(),
            opened: 0,
            given_up: false,
        }
    }
}

/// Some rows of the gallery.
struct Section {
    /// Which row of the gallery the first one is.
    first: usize,
    rounded: FineGallery,
    bounds: RowBounds,
    closer: Vec<CloserBound>,
}

impl Section {
    /// Empty lists of rows, with room for what bounds often leave open.
    fn lists(&self, count: usize) -> Vec<Vec<OpenRow>> {
        let room = self.closer.len() / ROWS_PER_LISTED;
        std::iter::repeat_with(|| Vec::with_capacity(room)).take(count).collect()
    }
}

/// Some queries.
struct Block<'a> {
    rows: &'a [f32],
    queries: FineQueries,
    bounds: Vec<QueryBound>,
    closer: Vec<CloserBound>,
    asked: Vec<Asked>,
}

/// What is asked for a query, and found out so far.
struct Asked {
    limits: Limits,
    /// Of the matches, ascending.
    distances: Vec<f32>,
    excluded: Vec<f32>,
    /// The matches and the excluded items, ascending, and their distances.
    known: Vec<(u32, f32)>,
    /// Rows of the gallery that closer bounds leave open, not measured yet.
    left: Vec<OpenRow>,
    /// Rows that had to be measured so far.
    opened: usize,
    given_up: bool,
}

impl Block<'_> {
    /// Counts what is certain of a section, and lists the rest in `open`, for each query.
    fn count(&mut self, section: &Section, open: &mut [Vec<OpenRow>]) {
        let mut products = [0.0; FINE_TILE_QUERIES * FINE_PANEL_ROWS];
        for panel in 0..section.rounded.panel_count() {
            let tiles = self.asked.chunks_mut(FINE_TILE_QUERIES).zip(self.bounds.chunks(FINE_TILE_QUERIES));
            let tiles = tiles.zip(open.chunks_mut(FINE_TILE_QUERIES)).enumerate();
            for (tile, ((asked, bounds), open)) in tiles {
                if asked.iter().all(|asked| asked.given_up || asked.distances.is_empty()) {
                    continue;
                }
                fine_dot_tile(&self.queries, tile, &section.rounded, panel, &mut products);
                let rows = products.chunks_exact(FINE_PANEL_ROWS);
                for (((asked, bound), open), scores) in asked.iter_mut().zip(bounds).zip(open).zip(rows) {
                    if !asked.given_up {
                        count_panel(scores, panel, &section.bounds, bound, &mut asked.limits, open);
                    }
                }
            }
        }
    }

    /// Finds closer bounds for what is listed, and keeps what they leave open.
    fn narrow(&mut self, section: &Section, open: &mut [Vec<OpenRow>]) {
        let queries = Narrowed { rows: &self.queries, bounds: &self.closer };
        let gallery = Narrowed { rows: &section.rounded, bounds: &section.closer };
        for (query, (asked, open)) in self.asked.iter_mut().zip(open).enumerate() {
            let Asked { limits, left, .. } = asked;
            narrow(&queries, query, &gallery, section.first, limits, open);
            left.append(open);
        }
    }

    /// Measures what is left, of `seen` rows so far.
    fn settle(&mut self, gallery: &Gallery<'_>, metric: Metric, seen: usize) {
        let mut queries = self.asked.iter_mut().zip(self.rows.chunks(gallery.dimension)).peekable();
        while let Some((asked, query)) = queries.next() {
            asked.settle_known();
            if let Some((next, query)) = queries.peek() {
                prefetch(query);
                next.left.iter().take(ROWS_AT_ONCE).for_each(|row| prefetch(gallery.row(row.row as usize)));
            }
            let Asked { limits, distances, left, opened, given_up, .. } = asked;
            *opened += left.len();
            *given_up |= *opened > ALWAYS_OPEN + seen / ROWS_PER_OPEN;
            if !*given_up {
                let items: Vec<usize> = left.iter().map(|row| row.row as usize).collect();
                gallery.measure(metric, query, &items, |place, distance| {
                    limits.settle(left[place], |limit| distance <= distances[limit]);
                });
            }
            left.clear();
        }
    }
}

impl Asked {
    /// Settles the rows left whose distance is known already.
    fn settle_known(&mut self) {
        let Self { limits, distances, known, left, .. } = self;
        left.retain(|row| {
            let place = known.binary_search_by_key(&row.row, |(item, _)| *item);
            if let Ok(place) = place {
                limits.settle(*row, |limit| known[place].1 <= distances[limit]);
            }
            place.is_err()
        });
    }

    fn finish(self) -> Option<Matches> {
        let within = self.limits.counts().collect();
        (!self.given_up).then(|| Matches::counted(self.distances, within, &self.excluded))
    }
}
