//! The candidates of each query, and the threshold that keeps them few.

use waylay_conv::nearest::{Candidates, PANEL_ROWS, QueryBound, RowStatistics, TILE_QUERIES};

use super::bounds::Slack;

/// Room that a pool begins with, for each neighbour wanted and at least: little, so that it is soon full, and pruning gives a
/// first threshold.
const ROOM_PER_NEIGHBOUR: usize = 3;
const LEAST_ROOM: usize = 256;

/// The candidates of one query after a part of the gallery.
pub(super) struct Pool {
    pub(super) candidates: Candidates,
    /// The part of the bounds that the query alone brings.
    pub(super) query_width: f32,
}

/// The candidates of a block of queries during the filter, padded to whole tiles.
pub(super) struct Pools {
    bounds: Vec<QueryBound>,
    candidates: Vec<Candidates>,
    query_widths: Vec<f32>,
    given_up: Vec<bool>,
    k: usize,
    allowed: usize,
    scratch: Vec<f32>,
}

impl Pools {
    /// Empty pools for `queries`, which are given up where more than `allowed` candidates are left.
    pub(super) fn new(queries: &[RowStatistics], slack: &Slack, k: usize, allowed: usize) -> Self {
        let padded = queries.len().next_multiple_of(TILE_QUERIES);
        let mut bounds: Vec<QueryBound> = queries.iter().map(|query| slack.query(query)).collect();
        bounds.resize(padded, QueryBound::NONE);
        let room = LEAST_ROOM + ROOM_PER_NEIGHBOUR * k;
        Self {
            bounds,
            candidates: vec![Candidates::with_capacity(room); padded],
            query_widths: queries.iter().map(|query| slack.query_width(query)).collect(),
            given_up: vec![false; queries.len()],
            k,
            allowed,
            scratch: Vec::new(),
        }
    }

    /// The queries of a tile, with room for a panel of candidates each; `None` if all are given up.
    pub(super) fn tile(&mut self, tile: usize) -> Option<(&[QueryBound], &mut [Candidates])> {
        let places = tile * TILE_QUERIES..(tile + 1) * TILE_QUERIES;
        for place in places.clone() {
            if self.candidates[place].free() < PANEL_ROWS {
                self.make_room(place);
            }
        }
        let is_open = |place| self.given_up.get(place).is_some_and(|given_up| !given_up);
        if !places.clone().any(is_open) {
            return None;
        }
        Some((&self.bounds[places.clone()], &mut self.candidates[places]))
    }

    /// What is left for each query, `None` for those given up.
    pub(super) fn finish(mut self) -> Vec<Option<Pool>> {
        for place in 0..self.given_up.len() {
            self.prune(place);
        }
        let pools = self.candidates.into_iter().zip(self.query_widths).zip(self.given_up);
        pools
            .map(|((mut candidates, query_width), given_up)| {
                candidates.shrink();
                (!given_up).then_some(Pool { candidates, query_width })
            })
            .collect()
    }

    #[cold]
    fn make_room(&mut self, place: usize) {
        self.prune(place);
        let candidates = &mut self.candidates[place];
        if candidates.len() > self.allowed {
            self.bounds[place] = QueryBound::NONE;
            self.given_up[place] = true;
            candidates.clear();
        } else if candidates.free() < (candidates.len() / 2).max(PANEL_ROWS) {
            candidates.grow(candidates.len() * 3 / 2 + PANEL_ROWS);
        }
    }

    fn prune(&mut self, place: usize) {
        let candidates = &mut self.candidates[place];
        let width = self.query_widths[place];
        if let Some(threshold) = prune(candidates, self.k, width, &mut self.scratch) {
            self.bounds[place].threshold = threshold;
        }
    }
}

impl Pool {
    /// One pool of the candidates of several parts of the gallery, `None` if any was given up.
    pub(super) fn merge(pools: Vec<Option<Self>>, k: usize) -> Option<Self> {
        let mut pools = pools.into_iter();
        let mut merged = pools.next()??;
        for pool in pools {
            merged.candidates.append(&pool?.candidates);
        }
        prune(&mut merged.candidates, k, merged.query_width, &mut Vec::new());
        Some(merged)
    }
}

/// Drops the candidates that k others are certainly nearer than. Returns the threshold for more candidates if there are k
/// already.
fn prune(candidates: &mut Candidates, k: usize, query_width: f32, scratch: &mut Vec<f32>) -> Option<f32> {
    if candidates.len() < k {
        return None;
    }
    scratch.clear();
    scratch.extend_from_slice(candidates.uppers());
    let (_, &mut upper, _) = scratch.select_nth_unstable_by(k - 1, f32::total_cmp);
    // Both bounds of a pair are missing the width of the query.
    let threshold = (f64::from(upper) + 2.0 * f64::from(query_width)) as f32;
    let threshold = threshold.next_up();
    candidates.retain(threshold);
    Some(threshold)
}
