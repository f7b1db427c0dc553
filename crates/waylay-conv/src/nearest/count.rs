//! How many rows are certainly within each of a query's limits, from approximate dot products and their error bounds, and which
//! rows the bounds leave open.

use super::fine::FINE_PANEL_ROWS;
use super::scan::{GROUP_ROWS, QueryBound, RowBounds, RowGroup};

/// A query's limits, ascending, in the terms of [`scan()`](super::scan()).
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// What a row's upper bound may be at most so that it is certainly within, and its lower bound so that it may be.
    pairs: Vec<[f32; 2]>,
    counts: Vec<u32>,
}

impl Limits {
    /// Limits that are known to lie between two numbers each.
    pub fn new(pairs: Vec<[f32; 2]>) -> Self {
        let counts = vec![0; pairs.len()];
        Self { pairs, counts }
    }

    /// How many rows were found to be within each limit.
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// Adds an open row to the limits that it is within, as `is_within` says, the last ones: it counts for those already that its
    /// upper bound is within.
    pub fn settle(&mut self, row: OpenRow, is_within: impl Fn(usize) -> bool) {
        let certain = self.pairs.partition_point(|[least, _]| *least < row.upper);
        let uncertain = (0..certain).rev().take_while(|limit| is_within(*limit));
        uncertain.for_each(|limit| self.counts[limit] += 1);
    }
}

/// A row that bounds leave open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OpenRow {
    /// Which row of the gallery.
    pub index: u32,
    /// Upper bound in the terms of the scan.
    pub upper: f32,
}

/// Counts the rows of one panel whose upper bound is within each of the limits, and appends those to `open` that the bounds leave
/// open for any of them. `scores` is a row of a [`FineTile`](super::FineTile); `panel` is counted from the first of `bounds`.
///
/// # Panics
/// If there is no such panel, or there are not [`FINE_PANEL_ROWS`] scores.
pub fn count_panel(
    scores: &[f32],
    panel: usize,
    bounds: &RowBounds,
    query: &QueryBound,
    limits: &mut Limits,
    open: &mut Vec<OpenRow>,
) {
    let scores: &[f32; FINE_PANEL_ROWS] = scores.try_into().expect("a panel's scores");
    let groups = bounds.panel(panel, FINE_PANEL_ROWS).as_chunks().0;
    let groups: &[RowGroup; GROUPS] = &groups[0];
    #[cfg(target_arch = "x86_64")]
    let (uppers, mut mask) = if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("popcnt") {
        // SAFETY: the processor has AVX-512F and POPCNT.
        unsafe { wide::count(scores, groups, query, limits) }
    } else {
        count_in_plain_rust(scores, groups, query, limits)
    };
    #[cfg(not(target_arch = "x86_64"))]
    let (uppers, mut mask) = count_in_plain_rust(scores, groups, query, limits);
    let first = bounds.first_row() + panel * FINE_PANEL_ROWS;
    while mask != 0 {
        let place = mask.trailing_zeros() as usize;
        open.push(OpenRow { index: (first + place) as u32, upper: uppers[place] });
        mask &= mask - 1;
    }
}

const GROUPS: usize = FINE_PANEL_ROWS / GROUP_ROWS;

/// Counts, and gives the upper bounds and a bit for each row that is open; the bounds may differ in their last bits from those of
/// other instructions.
fn count_in_plain_rust(
    scores: &[f32; FINE_PANEL_ROWS],
    groups: &[RowGroup; GROUPS],
    query: &QueryBound,
    limits: &mut Limits,
) -> ([f32; FINE_PANEL_ROWS], u64) {
    let (mut uppers, mut open) = ([0.0; FINE_PANEL_ROWS], 0_u64);
    for (place, (upper, score)) in uppers.iter_mut().zip(scores).enumerate() {
        let [scale, offset, error, norm, width] =
            groups[place / GROUP_ROWS].map(|column| column[place % GROUP_ROWS]);
        let spread = query.norm * error + query.error * norm;
        let lower = offset - score * scale * query.scale - spread;
        *upper = lower + 2.0 * spread + width;
        for (count, [within, near]) in limits.counts.iter_mut().zip(&limits.pairs) {
            *count += u32::from(*upper <= *within);
            open |= u64::from(lower <= *near && *upper > *within) << place;
        }
    }
    (uppers, open)
}

/// The count on AVX-512: 16 rows in one register.
#[cfg(target_arch = "x86_64")]
mod wide {
    use super::{FINE_PANEL_ROWS, GROUP_ROWS, GROUPS, Limits, QueryBound, RowGroup};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f,popcnt")]
    pub fn count(
        scores: &[f32; FINE_PANEL_ROWS],
        groups: &[RowGroup; GROUPS],
        query: &QueryBound,
        limits: &mut Limits,
    ) -> ([f32; FINE_PANEL_ROWS], u64) {
        let mut uppers = [0.0; FINE_PANEL_ROWS];
        let mut bounds = [[_mm512_setzero_ps(); 2]; GROUPS];
        let targets = uppers.as_chunks_mut::<GROUP_ROWS>().0;
        let scores = scores.as_chunks::<GROUP_ROWS>().0;
        for ((bounds, target), (row, score)) in bounds.iter_mut().zip(targets).zip(groups.iter().zip(scores))
        {
            // SAFETY: each of the five arrays has 16 numbers.
            let [scale, offset, error, norm, width] =
                row.each_ref().map(|column| unsafe { _mm512_loadu_ps(column.as_ptr()) });
            // SAFETY: `score` is 16 numbers.
            let score = unsafe { _mm512_loadu_ps(score.as_ptr()) };
            let product = _mm512_mul_ps(score, scale);
            let estimate = _mm512_fnmadd_ps(product, _mm512_set1_ps(query.scale), offset);
            let spread = _mm512_mul_ps(error, _mm512_set1_ps(query.norm));
            let spread = _mm512_fmadd_ps(norm, _mm512_set1_ps(query.error), spread);
            let lower = _mm512_sub_ps(estimate, spread);
            let upper = _mm512_add_ps(_mm512_fmadd_ps(spread, _mm512_set1_ps(2.0), lower), width);
            // SAFETY: `target` is 16 numbers.
            unsafe { _mm512_storeu_ps(target.as_mut_ptr(), upper) };
            *bounds = [lower, upper];
        }
        let mut open = [0_u16; GROUPS];
        for (count, [within, near]) in limits.counts.iter_mut().zip(&limits.pairs) {
            let (within, near) = (_mm512_set1_ps(*within), _mm512_set1_ps(*near));
            for ([lower, upper], open) in bounds.iter().zip(&mut open) {
                let inside = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(*upper, within);
                let near = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(*lower, near);
                *count += inside.count_ones();
                *open |= near & !inside;
            }
        }
        let open = open.iter().rev().fold(0, |mask, open| mask << GROUP_ROWS | u64::from(*open));
        (uppers, open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nearest::{RowBound, noise};

    #[test]
    fn every_instruction_set_counts_what_is_within_and_keeps_what_is_open() {
        let values = noise(2 * FINE_PANEL_ROWS, 1);
        let bound = |&x: &f32| RowBound {
            scale: x,
            offset: x * x,
            error: x.abs() / 64.0,
            norm: 0.5,
            width: 1.0 / 64.0,
        };
        // One row is missing.
        let bounds =
            RowBounds::new(100, FINE_PANEL_ROWS, values[..2 * FINE_PANEL_ROWS - 1].iter().map(bound));
        let query = QueryBound { scale: 0.5, norm: 0.25, error: 1.0 / 64.0, threshold: 0.0 };
        let scores = noise(FINE_PANEL_ROWS, 2);
        let mut limits = Limits::new(vec![[-0.5, -0.49], [0.0, 0.0], [0.25, 0.375], [9.0, 10.0]]);
        let mut open = Vec::new();
        count_panel(&scores, 1, &bounds, &query, &mut limits, &mut open);
        let groups: &[RowGroup; GROUPS] = bounds.panel(1, FINE_PANEL_ROWS).try_into().unwrap();
        let mut plain = Limits::new(limits.pairs.clone());
        let (uppers, mask) =
            count_in_plain_rust(scores.as_slice().try_into().unwrap(), groups, &query, &mut plain);
        assert_eq!(limits.counts(), plain.counts());
        assert_eq!(limits.counts()[3] as usize, FINE_PANEL_ROWS - 1);
        assert!(limits.counts()[0] < limits.counts()[1] && limits.counts()[1] < limits.counts()[2]);
        let places: Vec<u32> = (0..48).filter(|place| mask >> place & 1 == 1).collect();
        assert_eq!(
            open.iter().map(|row| row.index).collect::<Vec<_>>(),
            places.iter().map(|p| p + 148).collect::<Vec<_>>()
        );
        assert!(!open.is_empty() && open.len() < FINE_PANEL_ROWS / 2);
        // What is settled is counted as if there were no bounds.
        for row in &open {
            assert!((row.upper - uppers[row.index as usize - 148]).abs() < 1e-6);
            limits.settle(*row, |limit| limit == 3);
        }
        let (before, after) = (plain.counts(), limits.counts());
        assert!(
            after[3] == before[3] && after[..3].iter().zip(before).all(|(after, before)| after <= before)
        );
    }
}
