//! How a search is divided among threads.

use std::ops::Range;

use rayon::prelude::*;
use waylay_conv::nearest::TILE_QUERIES;

/// Most queries of one task: few enough that their packed rows stay in the second-level cache.
const BLOCK_QUERIES: usize = 128 / TILE_QUERIES * TILE_QUERIES;
/// Fewest steps of the gallery that are worth a task.
const FEWEST_STEPS: usize = 16;
/// Tasks for each thread where the gallery has to be divided, so that none waits long for another.
const TASKS_PER_THREAD: usize = 4;

/// A batch of queries in blocks of at most [`BLOCK_QUERIES`], and the gallery in ranges if the blocks alone are too few for
/// the threads: a task for each block and range.
pub(super) struct Tasks {
    queries: usize,
    /// Queries in each block but the last.
    block: usize,
    pub(super) ranges: usize,
}

impl Tasks {
    /// The tasks of a batch of `queries`, at least one, with a gallery of `steps`.
    pub(super) fn new(queries: usize, steps: usize) -> Self {
        let threads = rayon::current_num_threads();
        let mut blocks = queries.div_ceil(BLOCK_QUERIES);
        if blocks > threads {
            blocks = blocks.next_multiple_of(threads);
        }
        let block = queries.div_ceil(blocks).next_multiple_of(TILE_QUERIES);
        let wanted =
            if threads == 1 { 1 } else { (TASKS_PER_THREAD * threads).div_ceil(queries.div_ceil(block)) };
        Self { queries, block, ranges: wanted.min(steps.div_ceil(FEWEST_STEPS)).max(1) }
    }

    /// How many blocks of queries there are.
    pub(super) fn blocks(&self) -> usize {
        self.queries.div_ceil(self.block)
    }

    /// How many tasks there are; those of one block follow each other, in the order of their ranges.
    pub(super) fn count(&self) -> usize {
        self.blocks() * self.ranges
    }

    /// The queries of a block.
    pub(super) fn queries(&self, block: usize) -> Range<usize> {
        block * self.block..((block + 1) * self.block).min(self.queries)
    }

    /// What falls to a task of `steps` that the ranges share.
    pub(super) fn share(&self, task: usize, steps: usize) -> Range<usize> {
        let range = task % self.ranges;
        range * steps / self.ranges..(range + 1) * steps / self.ranges
    }

    /// Does each task, which gives one `T` per query, on the queries' rows of `dimension` and the task's share of `steps`.
    pub(super) fn run<T: Send>(
        &self,
        queries: &[f32],
        dimension: usize,
        steps: usize,
        task: impl Fn(&[f32], Range<usize>) -> Vec<T> + Sync,
    ) -> Vec<Vec<T>> {
        let results = (0..self.count()).into_par_iter().with_max_len(1).map(|place| {
            let rows = self.queries(place / self.ranges);
            task(&queries[rows.start * dimension..rows.end * dimension], self.share(place, steps))
        });
        self.by_query(results.collect())
    }

    /// For each query what its ranges gave, in their order, from what each task gave for each of its queries.
    pub(super) fn by_query<T>(&self, results: Vec<Vec<T>>) -> Vec<Vec<T>> {
        let mut by_query: Vec<Vec<T>> = (0..self.queries).map(|_| Vec::with_capacity(self.ranges)).collect();
        for (place, results) in results.into_iter().enumerate() {
            for (query, result) in self.queries(place / self.ranges).zip(results) {
                by_query[query].push(result);
            }
        }
        by_query
    }
}
