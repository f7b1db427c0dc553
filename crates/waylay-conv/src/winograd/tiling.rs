//! Tiling: where the tiles of a convolution lie.

use std::ops::Range;

use super::OUT;
use crate::options::Geometry;

/// Tiles of a convolution, row by row over all images, one after the other.
#[derive(Clone, Copy)]
pub(super) struct Tiling {
    down: usize,
    across: usize,
}

/// Neighbouring tiles in one row of tiles.
pub(super) struct Run {
    /// Place among the tiles asked for.
    pub lane: usize,
    pub image: usize,
    pub down: usize,
    pub across: usize,
    pub len: usize,
}

impl Tiling {
    pub fn new(g: &Geometry) -> Self {
        Self { down: g.output[0].div_ceil(OUT), across: g.output[1].div_ceil(OUT) }
    }

    pub fn count(self, g: &Geometry) -> usize {
        g.images * self.down * self.across
    }

    /// The runs that `tiles` are made of.
    pub fn runs(self, tiles: Range<usize>) -> Vec<Run> {
        let (mut runs, mut next) = (Vec::new(), tiles.start);
        while next < tiles.end {
            let (row, across) = (next / self.across, next % self.across);
            let len = (self.across - across).min(tiles.end - next);
            let lane = next - tiles.start;
            next += len;
            runs.push(Run { lane, image: row / self.down, down: row % self.down, across, len });
        }
        runs
    }
}
