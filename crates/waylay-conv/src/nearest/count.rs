//! How many rows are certainly within each of a query's limits, from approximate dot products and their error bounds, and which
//! rows the bounds leave open.

use super::fine::FINE_PANEL_ROWS;
use super::scan::{GROUP_ROWS, QueryBound, RowBounds, RowGroup};

/// A query's limits, ascending, in the terms of [`scan()`](super::scan()), and where rows stand among them. In front of each list is an
/// entry that nothing is within, for rows that are within all limits.
#[derive(Clone, Debug)]
pub struct Limits {
    /// What a row's upper bound may be at most so that it is certainly within.
    within: Vec<f32>,
    /// What a row's lower bound may be at most so that it may be within.
    near: Vec<f32>,
    /// How many rows are certainly within each limit.
    rows: Vec<u32>,
}

impl Limits {
    /// Limits that are known to lie between two numbers each.
    pub fn new(limits: impl Iterator<Item = [f32; 2]>) -> Self {
        let limits = std::iter::once([f32::NAN; 2]).chain(limits);
        let (within, near): (Vec<f32>, Vec<f32>) = limits.map(|[least, most]| (least, most)).unzip();
        Self { rows: vec![0; within.len()], within, near }
    }

    /// How many rows were found to be within each limit.
    pub fn counts(&self) -> impl Iterator<Item = usize> {
        self.rows[1..].iter().map(|rows| *rows as usize)
    }

    /// Moves an open row of which closer bounds are known, by one limit at most. Whether it is still open, and whether it has moved.
    #[inline(always)]
    pub(super) fn narrow(&mut self, row: &mut OpenRow, [lower, upper]: [f64; 2]) -> [bool; 2] {
        let place = row.place as usize;
        let moved = upper <= f64::from(self.within[place]);
        // Added in any case, as no processor guesses which way it goes.
        self.rows[place] += u32::from(moved);
        row.place -= u32::from(moved);
        [lower <= f64::from(self.near[row.place as usize]), moved]
    }

    /// Moves an open row to the first of the limits that it is within, as `is_within` says: those before the one it stands at are
    /// asked.
    pub fn settle(&mut self, mut row: OpenRow, is_within: impl Fn(usize) -> bool) {
        while row.place > 0 && is_within(row.place as usize - 1) {
            self.rows[row.place as usize] += 1;
            row.place -= 1;
        }
    }
}

/// A row that bounds leave open for a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OpenRow {
    /// Which row of the gallery.
    pub row: u32,
    /// How many limits it may be beyond: it is certainly within those after them.
    pub(super) place: u32,
    /// The approximate dot product, as far as it is known.
    pub score: f64,
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
    let groups = &groups[0];
    #[cfg(target_arch = "x86_64")]
    let found = if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("popcnt") {
        // SAFETY: the processor has both features.
        unsafe { wide::find(scores, groups, query, limits) }
    } else {
        find_in_plain_rust(scores, groups, query, limits)
    };
    #[cfg(not(target_arch = "x86_64"))]
    let found = find_in_plain_rust(scores, groups, query, limits);
    let first = bounds.first_row() + panel * FINE_PANEL_ROWS;
    each_bit(found.open, |row| {
        let (score, place) = (f64::from(scores[row]), found.places[row]);
        open.push(OpenRow { row: (first + row) as u32, place, score });
    });
}

/// Calls `see` with the places of the bits that are set.
fn each_bit(mut mask: u64, mut see: impl FnMut(usize)) {
    while mask != 0 {
        see(mask.trailing_zeros() as usize);
        mask &= mask - 1;
    }
}

const GROUPS: usize = FINE_PANEL_ROWS / GROUP_ROWS;

/// Where the rows of a panel stand.
struct Places {
    /// How many limits each may be beyond.
    places: [u32; FINE_PANEL_ROWS],
    /// A bit for each row that is open.
    open: u64,
}

/// Counts rows within limits, and finds where they stand. Bounds may differ in their last bits from those of other instructions.
fn find_in_plain_rust(
    scores: &[f32; FINE_PANEL_ROWS],
    groups: &[RowGroup; GROUPS],
    query: &QueryBound,
    limits: &mut Limits,
) -> Places {
    let mut found = Places { places: [0; FINE_PANEL_ROWS], open: 0 };
    for (row, score) in scores.iter().enumerate() {
        let [scale, offset, error, norm, width] =
            groups[row / GROUP_ROWS].map(|column| column[row % GROUP_ROWS]);
        let spread = query.norm * error + query.error * norm;
        let lower = offset - score * scale * query.scale - spread;
        let upper = lower + 2.0 * spread + width;
        let place = limits.within.iter().filter(|limit| **limit < upper).count();
        limits.rows[place + 1..].iter_mut().for_each(|rows| *rows += 1);
        found.places[row] = place as u32;
        found.open |= u64::from(lower <= limits.near[place]) << row;
    }
    found
}

/// The same on AVX-512: 16 rows in one register.
#[cfg(target_arch = "x86_64")]
mod wide {
    use super::{FINE_PANEL_ROWS, GROUP_ROWS, GROUPS, Limits, Places, QueryBound, RowGroup};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f,popcnt")]
    pub fn find(
        scores: &[f32; FINE_PANEL_ROWS],
        groups: &[RowGroup; GROUPS],
        query: &QueryBound,
        limits: &mut Limits,
    ) -> Places {
        let mut bounds = [[_mm512_setzero_ps(); 2]; GROUPS];
        let scores = scores.as_chunks::<GROUP_ROWS>().0;
        for (bounds, (row, score)) in bounds.iter_mut().zip(groups.iter().zip(scores)) {
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
            *bounds = [lower, upper];
        }
        let one = _mm512_set1_epi32(1);
        let mut counts = [_mm512_setzero_si512(); GROUPS];
        // What the last limit that a row is not certainly within is near.
        let mut last = [_mm512_set1_ps(f32::NEG_INFINITY); GROUPS];
        let Limits { within, near, rows } = limits;
        for ((within, near), rows) in within[1..].iter().zip(&near[1..]).zip(&mut rows[1..]) {
            let (within, near) = (_mm512_set1_ps(*within), _mm512_set1_ps(*near));
            let mut beyond = 0;
            for group in 0..GROUPS {
                let above = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(within, bounds[group][1]);
                counts[group] = _mm512_mask_add_epi32(counts[group], above, counts[group], one);
                last[group] = _mm512_mask_mov_ps(last[group], above, near);
                beyond |= u64::from(above) << (group * GROUP_ROWS);
            }
            *rows += FINE_PANEL_ROWS as u32 - beyond.count_ones();
        }
        let mut found = Places { places: [0; FINE_PANEL_ROWS], open: 0 };
        for (group, places) in found.places.as_chunks_mut::<GROUP_ROWS>().0.iter_mut().enumerate() {
            // SAFETY: `places` is 16 numbers.
            unsafe { _mm512_storeu_si512(places.as_mut_ptr().cast(), counts[group]) };
            let near = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(bounds[group][0], last[group]);
            found.open |= u64::from(near) << (group * GROUP_ROWS);
        }
        found
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
        let pairs = [[-0.5, -0.49], [0.0, 0.0], [0.25, 0.375], [9.0, 10.0]];
        let mut limits = Limits::new(pairs.into_iter());
        let mut open = Vec::new();
        count_panel(&scores, 1, &bounds, &query, &mut limits, &mut open);
        let counts = |limits: &Limits| limits.counts().collect::<Vec<_>>();
        let groups: &[RowGroup; GROUPS] = bounds.panel(1, FINE_PANEL_ROWS).try_into().unwrap();
        let mut plain_limits = Limits::new(pairs.into_iter());
        let scores: &[f32; FINE_PANEL_ROWS] = scores.as_slice().try_into().unwrap();
        let plain = find_in_plain_rust(scores, groups, &query, &mut plain_limits);
        assert_eq!(counts(&limits), counts(&plain_limits));
        let within = |limit: usize| plain.places.iter().filter(|place| **place as usize <= limit).count();
        assert_eq!(counts(&limits), (0..4).map(within).collect::<Vec<_>>());
        assert_eq!(counts(&limits)[3], FINE_PANEL_ROWS - 1);
        assert!(within(0) < within(1) && within(1) < within(2));
        let places: Vec<u32> =
            (0..FINE_PANEL_ROWS as u32).filter(|place| plain.open >> place & 1 == 1).collect();
        assert_eq!(
            open.iter().map(|open| open.row).collect::<Vec<_>>(),
            places.iter().map(|p| p + 100 + FINE_PANEL_ROWS as u32).collect::<Vec<_>>()
        );
        assert!(!open.is_empty() && open.len() < FINE_PANEL_ROWS / 2);
        // Closer bounds move a row to the first limit that it is now within.
        let before = counts(&limits);
        let mut narrowed = limits.clone();
        for row in &open {
            let mut moved = *row;
            while narrowed.narrow(&mut moved, [-0.6, 0.0]) == [true; 2] {}
            assert_eq!(moved.place, row.place.min(1));
            assert!(!narrowed.clone().narrow(&mut row.clone(), [0.3, 0.31])[0] || row.place == 3);
        }
        let moved = |limit: usize| open.iter().filter(|row| row.place as usize > limit).count();
        assert_eq!(counts(&narrowed)[1], before[1] + moved(1));
        assert_eq!((counts(&narrowed)[0], counts(&narrowed)[3]), (before[0], before[3]));
        // What is settled is counted as if there were no bounds.
        for row in &open {
            limits.settle(*row, |limit| limit == 2);
        }
        let after = counts(&limits);
        let settled = open.iter().filter(|row| row.place == 3).count();
        assert_eq!(after, [before[0], before[1], before[2] + settled, before[3]]);
    }
}
