//! The search without a filter: the distances of all pairs, one by one.

use std::ops::Range;

use waylay_conv::nearest::ROWS_AT_ONCE;

use super::Search;
use super::refine::{keep_smallest, key};
use super::tasks::Tasks;

/// Gallery rows that stay in the first-level cache while a block of queries passes by.
const STEP_ROWS: usize = 2 * ROWS_AT_ONCE;

impl Search<'_> {
    /// The sorted keys of the nearest rows of each query.
    pub(super) fn nearest_exhaustive(&self, queries: &[f32]) -> Vec<Vec<u64>> {
        let steps = self.gallery.row_count().div_ceil(STEP_ROWS);
        let dimension = self.gallery.dimension;
        Tasks::new(queries.len() / dimension, steps)
            .run(queries, dimension, steps, |queries, steps| self.compare_all(queries, steps))
            .into_iter()
            .map(|parts| {
                let mut keys = parts.concat();
                keep_smallest(&mut keys, self.k);
                keys.sort_unstable();
                keys
            })
            .collect()
    }

    /// The nearest of some steps of the gallery for each query, in any order.
    fn compare_all(&self, queries: &[f32], steps: Range<usize>) -> Vec<Vec<u64>> {
        let dimension = self.gallery.dimension;
        let mut nearest = vec![Vec::with_capacity(2 * self.k + STEP_ROWS); queries.len() / dimension];
        let mut thresholds = vec![u64::MAX; nearest.len()];
        for start in steps.map(|step| step * STEP_ROWS) {
            let end = (start + STEP_ROWS).min(self.gallery.row_count());
            for (query, (keys, threshold)) in
                queries.chunks(dimension).zip(nearest.iter_mut().zip(&mut thresholds))
            {
                for first in (start..end).step_by(ROWS_AT_ONCE) {
                    // The last row may stand in for some beyond it, which are then left out.
                    let rows = std::array::from_fn(|place| (first + place).min(end - 1));
                    let found = self.distances(query, rows).into_iter().zip(first..end);
                    keys.extend(found.map(|(d, row)| key(d, row)).filter(|key| *key < *threshold));
                }
                if keys.len() > 2 * self.k {
                    keep_smallest(keys, self.k);
                    *threshold = keys[self.k - 1];
                }
            }
        }
        for keys in &mut nearest {
            keep_smallest(keys, self.k);
        }
        nearest
    }
}
