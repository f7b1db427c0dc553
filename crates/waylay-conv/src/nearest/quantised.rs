//! Rows rounded to 8 bits with one scale per row, in the order in which [`dot_tile`](super::dot_tile) reads them.
//!
//! Gallery rows are stored as `integer + 128` (unsigned, as `vpdpbusd` wants its first operand), and a query brings
//! `-128 * sum(integers)` along, where the accumulators start, which takes the offset out again.

use rayon::prelude::*;

use super::rounding::{RowStatistics, round_row};

/// Queries in one tile of dot products.
pub const TILE_QUERIES: usize = 6;
/// Gallery rows in one tile of dot products, and in one panel of [`QuantisedGallery`].
pub const PANEL_ROWS: usize = 64;
/// The longest rows whose dot products cannot overflow: every partial sum is, for some split of the columns in two,
/// `-128 * sum(right half of q) + sum(left half of q * g)`, so at most `128 * 127 * 65,536 < 2^30` in size; and
/// `vpdpbusd` adds without saturation in between.
pub const LARGEST_DIMENSION: usize = 65_536;
/// Columns that one 32-bit lane multiplies at once.
pub(super) const GROUP: usize = 4;

/// A gallery `[rows, dimension]`, rounded: a byte per value, rows padded to whole panels.
pub struct QuantisedGallery {
    /// `[panels, groups, PANEL_ROWS, GROUP]`.
    bytes: Vec<u8>,
    groups: usize,
    statistics: Vec<RowStatistics>,
}

/// Queries `[rows, dimension]`, rounded: a byte per value, rows padded to whole tiles.
pub struct QuantisedQueries {
    /// `[tiles, groups, TILE_QUERIES, GROUP]`.
    bytes: Vec<i8>,
    groups: usize,
    /// `-128 * sum(integers)`, `[tiles, TILE_QUERIES]`.
    corrections: Vec<i32>,
    statistics: Vec<RowStatistics>,
}

impl QuantisedGallery {
    /// Rounds `rows` `[R, D]`, row-major and finite, less `centre` `[D]`, in parallel.
    ///
    /// # Panics
    /// If `D` is not 1 to [`LARGEST_DIMENSION`], or does not divide the length of `rows`.
    pub fn new(rows: &[f32], centre: &[f32]) -> Self {
        let dimension = checked_dimension(rows, centre);
        let row_count = rows.len() / dimension;
        let groups = dimension.div_ceil(GROUP);
        let panel_bytes = groups * PANEL_ROWS * GROUP;
        let mut bytes = vec![0; row_count.div_ceil(PANEL_ROWS) * panel_bytes];
        let mut statistics = vec![RowStatistics::default(); row_count];
        bytes
            .par_chunks_mut(panel_bytes)
            .zip(rows.par_chunks(PANEL_ROWS * dimension))
            .zip(statistics.par_chunks_mut(PANEL_ROWS))
            .for_each_init(
                || vec![0; groups * GROUP],
                |line, ((panel, rows), statistics)| {
                    let cells = panel.as_chunks_mut::<GROUP>().0;
                    for (place, row) in rows.chunks(dimension).enumerate() {
                        statistics[place] = round_row(row, centre, line);
                        for (group, &integers) in line.as_chunks::<GROUP>().0.iter().enumerate() {
                            // Flipping the top bit adds 128.
                            cells[group * PANEL_ROWS + place] = integers.map(|byte| byte ^ 0x80);
                        }
                    }
                },
            );
        Self { bytes, groups, statistics }
    }

    /// How many panels of [`PANEL_ROWS`] rows there are; the last one may have rows to spare.
    pub fn panel_count(&self) -> usize {
        self.statistics.len().div_ceil(PANEL_ROWS)
    }

    /// One entry per row.
    pub fn statistics(&self) -> &[RowStatistics] {
        &self.statistics
    }

    pub(super) fn panel(&self, panel: usize) -> &[u8] {
        let size = self.groups * PANEL_ROWS * GROUP;
        &self.bytes[panel * size..][..size]
    }
}

impl QuantisedQueries {
    /// Rounds `rows` `[R, D]`, row-major and finite, less `centre` `[D]`, on the calling thread.
    ///
    /// # Panics
    /// If `D` is not 1 to [`LARGEST_DIMENSION`], or does not divide the length of `rows`.
    pub fn new(rows: &[f32], centre: &[f32]) -> Self {
        let dimension = checked_dimension(rows, centre);
        let row_count = rows.len() / dimension;
        let groups = dimension.div_ceil(GROUP);
        let tiles = row_count.div_ceil(TILE_QUERIES);
        let mut bytes = vec![0; tiles * groups * TILE_QUERIES * GROUP];
        let mut corrections = vec![0; tiles * TILE_QUERIES];
        let mut statistics = Vec::with_capacity(row_count);
        let mut line = vec![0; groups * GROUP];
        let cells = bytes.as_chunks_mut::<GROUP>().0;
        for (index, row) in rows.chunks(dimension).enumerate() {
            statistics.push(round_row(row, centre, &mut line));
            let first = index / TILE_QUERIES * groups * TILE_QUERIES + index % TILE_QUERIES;
            for (group, integers) in line.as_chunks::<GROUP>().0.iter().enumerate() {
                let integers = integers.map(|byte| byte as i8);
                cells[first + group * TILE_QUERIES] = integers;
                corrections[index] -= 128 * integers.iter().map(|&x| i32::from(x)).sum::<i32>();
            }
        }
        Self { bytes, groups, corrections, statistics }
    }

    /// How many tiles of [`TILE_QUERIES`] queries there are; the last one may have places to spare.
    pub fn tile_count(&self) -> usize {
        self.corrections.len() / TILE_QUERIES
    }

    /// One entry per query.
    pub fn statistics(&self) -> &[RowStatistics] {
        &self.statistics
    }

    pub(super) fn tile(&self, tile: usize) -> (&[i8], &[i32; TILE_QUERIES]) {
        let size = self.groups * TILE_QUERIES * GROUP;
        (&self.bytes[tile * size..][..size], &self.corrections.as_chunks().0[tile])
    }
}

pub(super) fn checked_dimension(rows: &[f32], centre: &[f32]) -> usize {
    let dimension = centre.len();
    let fits = (1..=LARGEST_DIMENSION).contains(&dimension);
    assert!(fits, "rows of {dimension} dimensions; need 1 to {LARGEST_DIMENSION}");
    assert!(rows.len().is_multiple_of(dimension), "`rows` must be whole rows of {dimension} values");
    dimension
}
