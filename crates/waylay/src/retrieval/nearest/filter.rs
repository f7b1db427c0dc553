//! The filter: integer dot products of all pairs, tile by tile, and the pools of candidates that they leave.

use std::borrow::Cow;
use std::ops::Range;

use waylay_conv::nearest::{PANEL_ROWS, QuantisedQueries, RowBounds, TILE_QUERIES, dot_tile, scan};

use super::bounds::Slack;
use super::pool::{Pool, Pools};
use super::{Metric, Rounded, Search};

/// A query is also given up only if more than one in this many rows is left: below that, distances one by one take less time
/// than products with all rows.
const ROWS_PER_ALLOWED: usize = 32;

impl Search<'_> {
    /// Pools of candidates for each query, one for each range of the gallery; `None` for those given up.
    pub(super) fn filter(&self, queries: &[f32], rounded: &Rounded) -> Vec<Vec<Option<Pool>>> {
        let slack = Slack::new(self.metric, &rounded.centre);
        let bounds = RowBounds::new(rounded.rows.statistics().iter().map(|row| slack.row(row)));
        let query_centre = match self.metric {
            Metric::Euclidean => Cow::Borrowed(&rounded.centre),
            Metric::Cosine => Cow::Owned(vec![0.0; rounded.centre.len()]),
        };
        self.in_tasks(queries, rounded.rows.panel_count(), |queries, panels| {
            let queries = QuantisedQueries::new(queries, &query_centre);
            self.filter_panels(&queries, rounded, panels, &slack, &bounds)
        })
    }

    /// Pools of candidates for a block of queries, of some panels of the gallery.
    fn filter_panels(
        &self,
        queries: &QuantisedQueries,
        rounded: &Rounded,
        panels: Range<usize>,
        slack: &Slack,
        bounds: &RowBounds,
    ) -> Vec<Option<Pool>> {
        let allowed = self.allowed.max(panels.len() * PANEL_ROWS / ROWS_PER_ALLOWED);
        let mut pools = Pools::new(queries.statistics(), slack, self.k, allowed);
        let mut products = [0; TILE_QUERIES * PANEL_ROWS];
        for panel in panels {
            for tile in 0..queries.tile_count() {
                if let Some((queries_left, candidates)) = pools.tile(tile) {
                    dot_tile(queries, tile, &rounded.rows, panel, &mut products);
                    scan(&products, panel * PANEL_ROWS, bounds, queries_left, candidates);
                }
            }
        }
        pools.finish()
    }
}
