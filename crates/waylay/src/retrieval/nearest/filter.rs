//! The filter: integer dot products of all pairs, tile by tile, and the pools of candidates that they leave.
//!
//! The gallery is rounded section by section, each of which meets all queries before the next one takes its place: the
//! rounded gallery is never held whole.

use std::ops::Range;

use rayon::prelude::*;
use waylay_conv::nearest::{
    PANEL_ROWS, QuantisedGallery, QuantisedQueries, RowBounds, TILE_QUERIES, dot_tile, scan,
};

use super::bounds::Slack;
use super::centre::query_centre;
use super::pool::{Pool, Pools};
use super::tasks::Tasks;
use super::{SECTION_BYTES, Search};

/// A query is also given up only if more than one in this many rows is left: below that, distances one by one take less time
/// than products with all rows.
const ROWS_PER_ALLOWED: usize = 32;

impl Search<'_> {
    /// Pools of candidates for each query, one for each range of the gallery, `None` for those given up; and the gallery's
    /// largest magnitude.
    pub(super) fn filter(&self, queries: &[f32], centre: &[f32]) -> (Vec<Vec<Option<Pool>>>, f32) {
        let slack = Slack::new(self.metric, centre);
        let query_centre = query_centre(centre, self.metric);
        let dimension = self.gallery.dimension;
        let panels = self.gallery.row_count().div_ceil(PANEL_ROWS);
        let tasks = Tasks::new(queries.len() / dimension, panels);
        let blocks: Vec<QuantisedQueries> = (0..tasks.blocks())
            .into_par_iter()
            .map(|block| tasks.queries(block))
            .map(|rows| {
                QuantisedQueries::new(&queries[rows.start * dimension..rows.end * dimension], &query_centre)
            })
            .collect();
        let allowed = self.allowed.max(panels.div_ceil(tasks.ranges) * PANEL_ROWS / ROWS_PER_ALLOWED);
        let mut pools: Vec<Pools> = (0..tasks.count())
            .map(|task| Pools::new(blocks[task / tasks.ranges].statistics(), &slack, self.k, allowed))
            .collect();

        let section_panels = (SECTION_BYTES / (dimension * PANEL_ROWS)).max(tasks.ranges);
        let mut largest = 0.0_f32;
        for (section, rows) in self.gallery.rows.chunks(section_panels * PANEL_ROWS * dimension).enumerate() {
            let rounded = QuantisedGallery::new(rows, centre);
            let statistics = rounded.statistics();
            largest = statistics.iter().fold(largest, |most, row| most.max(row.largest));
            let first_row = section * section_panels * PANEL_ROWS;
            let bounds = RowBounds::new(first_row, PANEL_ROWS, statistics.iter().map(|row| slack.row(row)));
            pools.par_iter_mut().with_max_len(1).enumerate().for_each(|(task, pools)| {
                let panels = tasks.share(task, rounded.panel_count());
                filter_panels(&blocks[task / tasks.ranges], &rounded, panels, &bounds, pools);
            });
        }
        (tasks.by_query(pools.into_par_iter().map(Pools::finish).collect()), largest)
    }
}

/// Adds what some panels of a section leave open for a block of queries to their pools.
fn filter_panels(
    queries: &QuantisedQueries,
    section: &QuantisedGallery,
    panels: Range<usize>,
    bounds: &RowBounds,
    pools: &mut Pools,
) {
    let mut products = [0; TILE_QUERIES * PANEL_ROWS];
    for panel in panels {
        for tile in 0..queries.tile_count() {
            if let Some((queries_left, candidates)) = pools.tile(tile) {
                dot_tile(queries, tile, section, panel, &mut products);
                scan(&products, panel * PANEL_ROWS, bounds, queries_left, candidates);
            }
        }
    }
}
