//! Kernels of exact nearest-neighbour search: quick approximate dot products that rule most pairs out, and the exact sums
//! that judge the rest.
//!
//! [`QuantisedGallery`] and [`QuantisedQueries`] hold rows in 8 bits, [`dot_tile`] multiplies them, [`scan()`] keeps
//! the pairs that error bounds leave open as [`Candidates`], and [`squared_distances`] or [`dot_products`] measure
//! those.
//!
//! [`FineGallery`] and [`FineQueries`] hold rows in 16 bits, [`fine_dot_tile`] multiplies them, and [`count_panel`] counts what is within
//! some limits, but for the pairs that the bounds leave open; [`narrow()`] finds closer ones for those.
//! How wide the bounds have to be is the caller's to say, in [`RowBound`], [`QueryBound`] and [`CloserBound`].

mod candidates;
mod count;
mod exact;
mod fine;
mod narrow;
mod quantised;
mod rounding;
mod scan;
mod second;
mod tile;

pub use candidates::Candidates;
pub use count::{Limits, OpenRow, count_panel};
pub use exact::{ROWS_AT_ONCE, count_at_most, dot_products, prefetch, rounding_depth, squared_distances};
pub use fine::{
    FINE_PANEL_ROWS, FINE_TILE_QUERIES, FineGallery, FineQueries, FineTile, fine_dot_tile, fine_error,
};
pub use narrow::{CloserBound, Narrowed, TERMS, narrow};
pub use quantised::{LARGEST_DIMENSION, PANEL_ROWS, QuantisedGallery, QuantisedQueries, TILE_QUERIES};
pub use rounding::{LEAST_FINE_NORM, RowStatistics};
pub use scan::{QueryBound, RowBound, RowBounds, scan};
pub use second::SecondStatistics;
pub use tile::{Tile, dot_tile, is_accelerated};

/// Numbers between -1 and 1 for tests.
#[cfg(test)]
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let value = |i: usize| {
        let mixed = (i as u32).wrapping_mul(0x9E37_79B9) ^ seed.wrapping_mul(0x85EB_CA6B);
        let mixed = (mixed ^ (mixed >> 15)).wrapping_mul(0x2C1B_3C6D);
        ((mixed ^ (mixed >> 13)) >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(value).collect()
}
