//! The test which pairs stay in play, from approximate dot products and their error bounds.
//!
//! For a query and a row, with approximate dot product `score * query.scale * row.scale`:
//!
//! `lower = row.offset - query.scale * row.scale * score - query.norm * row.error - query.error * row.norm`
//!
//! and `upper` is the mirror image, `lower + 2 * (query.norm * row.error + query.error * row.norm) + row.width`. A pair
//! whose `lower` is at most `query.threshold` is kept as a candidate.

use super::candidates::Candidates;

/// Rows that are tested at once.
pub(super) const GROUP_ROWS: usize = 16;

/// The bounds' share of one row.
#[derive(Clone, Copy)]
pub struct RowBound {
    /// Factor of the scores.
    pub scale: f32,
    /// The part of the lower bound that the row alone brings.
    pub offset: f32,
    /// Error per unit of the query's norm.
    pub error: f32,
    /// Error per unit of the query's error.
    pub norm: f32,
    /// Twice the error that the row alone brings, and that `offset` contains.
    pub width: f32,
}

/// The bounds' share of one query.
#[derive(Clone, Copy)]
pub struct QueryBound {
    /// Factor of the scores.
    pub scale: f32,
    /// Factor of the rows' error.
    pub norm: f32,
    /// Factor of the rows' norm.
    pub error: f32,
    /// The largest lower bound that is kept.
    pub threshold: f32,
}

impl QueryBound {
    /// A query that keeps nothing.
    pub const NONE: Self = Self { scale: 0.0, norm: 0.0, error: 0.0, threshold: f32::NEG_INFINITY };
}

/// The bounds' share of consecutive rows of a gallery, padded to whole panels.
pub struct RowBounds {
    first_row: usize,
    groups: Vec<RowGroup>,
}

/// `[scale, offset, error, norm, width]` of 16 rows each.
pub(super) type RowGroup = [[f32; GROUP_ROWS]; 5];

/// A padding row, which no query ever keeps.
const NO_ROW: RowBound = RowBound { scale: 0.0, offset: f32::INFINITY, error: 0.0, norm: 0.0, width: 0.0 };

impl RowBounds {
    /// The bounds of `rows`, in their order, the first of which is row `first_row` of the gallery; panels are of `panel_rows`, a
    /// multiple of 16.
    pub fn new(first_row: usize, panel_rows: usize, rows: impl ExactSizeIterator<Item = RowBound>) -> Self {
        let padded = rows.len().next_multiple_of(panel_rows);
        let mut groups = vec![[[0.0; GROUP_ROWS]; 5]; padded / GROUP_ROWS];
        for (index, row) in rows.chain(std::iter::repeat(NO_ROW)).take(padded).enumerate() {
            let values = [row.scale, row.offset, row.error, row.norm, row.width];
            for (column, value) in groups[index / GROUP_ROWS].iter_mut().zip(values) {
                column[index % GROUP_ROWS] = value;
            }
        }
        Self { first_row, groups }
    }

    /// Which row of the gallery the first one is.
    pub(super) fn first_row(&self) -> usize {
        self.first_row
    }

    /// The groups of a panel.
    pub(super) fn panel(&self, panel: usize, panel_rows: usize) -> &[RowGroup] {
        let groups = panel_rows / GROUP_ROWS;
        &self.groups[panel * groups..][..groups]
    }
}

/// Tests rows from `start` on, counted from the first of `bounds`, for every query, and appends those kept to its candidates.
/// `scores` is `[queries, rows]`; `start` and the number of rows are multiples of 16.
///
/// # Panics
/// If sizes do not fit, a row lies beyond the padding of `bounds`, or candidates have no room for all rows.
#[inline]
pub fn scan(
    scores: &[i32],
    start: usize,
    bounds: &RowBounds,
    queries: &[QueryBound],
    candidates: &mut [Candidates],
) {
    assert_eq!(queries.len(), candidates.len(), "one list of candidates per query");
    if queries.is_empty() {
        return;
    }
    let rows = scores.len() / queries.len();
    assert_eq!(scores.len(), queries.len() * rows, "as many scores for each query");
    assert!(rows.is_multiple_of(GROUP_ROWS) && start.is_multiple_of(GROUP_ROWS), "rows come in groups of 16");
    assert!(
        candidates.iter().all(|candidates| candidates.free() >= rows),
        "candidates need room for all rows"
    );
    let groups = &bounds.groups[start / GROUP_ROWS..][..rows / GROUP_ROWS];
    let first_row = bounds.first_row + start;
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("popcnt") {
        // SAFETY: the processor has AVX-512F and POPCNT, and `scores` holds 16 numbers for each query and group.
        unsafe { wide::scan(scores, first_row, groups, queries, candidates) };
        return;
    }
    scan_in_plain_rust(scores, first_row, groups, queries, candidates);
}

/// [`scan()`] without special instructions; the bounds may differ in their last bits.
fn scan_in_plain_rust(
    scores: &[i32],
    first_row: usize,
    groups: &[RowGroup],
    queries: &[QueryBound],
    candidates: &mut [Candidates],
) {
    let stride = groups.len() * GROUP_ROWS;
    for (group, [scale, offset, error, norm, width]) in groups.iter().enumerate() {
        for (place, (query, candidates)) in queries.iter().zip(candidates.iter_mut()).enumerate() {
            let scores = &scores[place * stride + group * GROUP_ROWS..][..GROUP_ROWS];
            let mut lowers = [0.0_f32; GROUP_ROWS];
            let mut errors = [0.0_f32; GROUP_ROWS];
            let mut nearest = f32::INFINITY;
            for lane in 0..GROUP_ROWS {
                errors[lane] = query.norm * error[lane] + query.error * norm[lane];
                let product = scores[lane] as f32 * scale[lane] * query.scale;
                lowers[lane] = offset[lane] - product - errors[lane];
                nearest = if lowers[lane] < nearest { lowers[lane] } else { nearest };
            }
            if nearest > query.threshold {
                continue;
            }
            for lane in 0..GROUP_ROWS {
                if lowers[lane] <= query.threshold {
                    let index = (first_row + group * GROUP_ROWS + lane) as u32;
                    candidates.push(index, lowers[lane], lowers[lane] + 2.0 * errors[lane] + width[lane]);
                }
            }
        }
    }
}

/// The scan on AVX-512: 16 rows in one register.
#[cfg(target_arch = "x86_64")]
mod wide {
    use super::{Candidates, GROUP_ROWS, QueryBound, RowGroup};
    use std::arch::x86_64::*;

    /// # Safety
    /// `scores` holds 16 numbers for each query and group.
    #[target_feature(enable = "avx512f,popcnt")]
    pub unsafe fn scan(
        scores: &[i32],
        first_row: usize,
        groups: &[RowGroup],
        queries: &[QueryBound],
        candidates: &mut [Candidates],
    ) {
        let stride = groups.len() * GROUP_ROWS;
        let lane_numbers = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        for (group, row) in groups.iter().enumerate() {
            // SAFETY: each of the five arrays has 16 numbers.
            let [scale, offset, error, norm, width] =
                row.each_ref().map(|column| unsafe { _mm512_loadu_ps(column.as_ptr()) });
            for (place, query) in queries.iter().enumerate() {
                let source = scores.as_ptr().wrapping_add(place * stride + group * GROUP_ROWS);
                // SAFETY: the caller promises 16 scores of 4 bytes for each query and group.
                let score = unsafe { _mm512_loadu_si512(source.cast()) };
                let score = _mm512_cvtepi32_ps(score);
                let product = _mm512_mul_ps(score, scale);
                let estimate = _mm512_fnmadd_ps(product, _mm512_set1_ps(query.scale), offset);
                let spread = _mm512_mul_ps(error, _mm512_set1_ps(query.norm));
                let spread = _mm512_fmadd_ps(norm, _mm512_set1_ps(query.error), spread);
                let lower = _mm512_sub_ps(estimate, spread);
                let kept = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(lower, _mm512_set1_ps(query.threshold));
                if kept == 0 {
                    continue;
                }
                let upper = _mm512_fmadd_ps(spread, _mm512_set1_ps(2.0), lower);
                let upper = _mm512_add_ps(upper, width);
                let first = _mm512_set1_epi32((first_row + group * GROUP_ROWS) as i32);
                let index = _mm512_add_epi32(first, lane_numbers);
                let list = &mut candidates[place];
                let target = list.length..list.length + GROUP_ROWS;
                let indices = &mut list.indices[target.clone()];
                let lowers = &mut list.lowers[target.clone()];
                let uppers = &mut list.uppers[target];
                // SAFETY: each of the three targets was sliced to 16 places of 4 bytes.
                unsafe {
                    let index = _mm512_maskz_compress_epi32(kept, index);
                    _mm512_storeu_si512(indices.as_mut_ptr().cast(), index);
                    _mm512_storeu_ps(lowers.as_mut_ptr(), _mm512_maskz_compress_ps(kept, lower));
                    _mm512_storeu_ps(uppers.as_mut_ptr(), _mm512_maskz_compress_ps(kept, upper));
                }
                list.length += kept.count_ones() as usize;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nearest::{PANEL_ROWS, noise};

    #[test]
    fn every_instruction_set_keeps_the_pairs_within_the_threshold() {
        let (queries, rows) = (5, 2 * PANEL_ROWS);
        let values = noise(rows, 1);
        let bound = |&x: &f32| RowBound { scale: x, offset: x * x, error: x.abs(), norm: 1.0, width: 0.5 };
        let bounds = RowBounds::new(100, PANEL_ROWS, values[..rows - 3].iter().map(bound));
        let query = |&x: &f32| QueryBound { scale: x, norm: 0.25, error: 0.125, threshold: x };
        let queries: Vec<QueryBound> = noise(queries, 2).iter().map(query).collect();
        let scores: Vec<i32> = noise(queries.len() * rows, 3).iter().map(|x| (x * 8.0) as i32).collect();
        let empty = vec![Candidates::with_capacity(rows); queries.len()];
        let (mut fast, mut plain) = (empty.clone(), empty);
        scan(&scores, 0, &bounds, &queries, &mut fast);
        scan_in_plain_rust(&scores, 100, &bounds.groups, &queries, &mut plain);
        for (place, query) in queries.iter().enumerate() {
            let lower = |row: usize| {
                let score = scores[place * rows + row] as f32;
                values[row] * values[row]
                    - score * values[row] * query.scale
                    - query.norm * values[row].abs()
                    - query.error
            };
            let expected: Vec<u32> = (0..rows - 3)
                .filter(|&row| lower(row) <= query.threshold)
                .map(|row| row as u32 + 100)
                .collect();
            for found in [&fast[place], &plain[place]] {
                assert_eq!(found.indices(), expected);
                for (index, (a, b)) in found.indices().iter().zip(found.lowers().iter().zip(found.uppers())) {
                    let spread = 2.0 * (query.norm * values[*index as usize - 100].abs() + query.error) + 0.5;
                    assert!((a - lower(*index as usize - 100)).abs() < 1e-5 && (b - a - spread).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "room for all rows")]
    fn candidates_without_room_are_refused() {
        let bounds = RowBounds::new(0, PANEL_ROWS, std::iter::repeat_n(NO_ROW, 16));
        scan(&[0; 16], 0, &bounds, &[QueryBound::NONE], &mut [Candidates::with_capacity(15)]);
    }
}
