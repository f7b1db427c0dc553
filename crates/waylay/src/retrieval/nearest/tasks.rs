//! How a search is divided among threads.

use std::ops::Range;

use rayon::prelude::*;
use waylay_conv::nearest::TILE_QUERIES;

use super::Search;

/// Most queries of one task: few enough that their packed rows stay in the second-level cache.
const BLOCK_QUERIES: usize = 128 / TILE_QUERIES * TILE_QUERIES;
/// Fewest steps of the gallery that are worth a task.
const FEWEST_STEPS: usize = 16;
/// Tasks for each thread where the gallery has to be divided, so that none waits long for another.
const TASKS_PER_THREAD: usize = 4;

impl Search<'_> {
    /// Cuts a batch into blocks of at most [`BLOCK_QUERIES`], and the `steps` of the gallery into ranges if the blocks alone
    /// are too few for the threads; runs the task on each, which gives one `T` per query. Returns for each query what its
    /// ranges gave, in their order.
    pub(super) fn in_tasks<T: Send>(
        &self,
        queries: &[f32],
        steps: usize,
        task: impl Fn(&[f32], Range<usize>) -> Vec<T> + Sync,
    ) -> Vec<Vec<T>> {
        let dimension = self.gallery.dimension;
        let query_count = queries.len() / dimension;
        let threads = rayon::current_num_threads();
        let mut blocks = query_count.div_ceil(BLOCK_QUERIES);
        if blocks > threads {
            blocks = blocks.next_multiple_of(threads);
        }
        let block = query_count.div_ceil(blocks).next_multiple_of(TILE_QUERIES);
        let blocks = query_count.div_ceil(block);
        let ranges = if threads == 1 { 1 } else { (TASKS_PER_THREAD * threads).div_ceil(blocks) };
        let range = steps.div_ceil(ranges).max(FEWEST_STEPS);
        let ranges = steps.div_ceil(range);
        let results: Vec<Vec<T>> = (0..blocks * ranges)
            .into_par_iter()
            .with_max_len(1)
            .map(|place| {
                let first = place / ranges * block;
                let last = (first + block).min(query_count);
                let start = place % ranges * range;
                task(&queries[first * dimension..last * dimension], start..(start + range).min(steps))
            })
            .collect();
        let mut by_query: Vec<Vec<T>> = (0..query_count).map(|_| Vec::new()).collect();
        for (place, results) in results.into_iter().enumerate() {
            for (offset, result) in results.into_iter().enumerate() {
                by_query[place / ranges * block + offset].push(result);
            }
        }
        by_query
    }
}
