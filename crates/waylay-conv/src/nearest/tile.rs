//! Integer dot products of a tile of queries with a panel of the gallery: on AVX-512 VNNI, or else in plain Rust, which
//! gives the very same integers.

use super::quantised::{GROUP, PANEL_ROWS, QuantisedGallery, QuantisedQueries, TILE_QUERIES};

/// Dot products of one tile, `[TILE_QUERIES, PANEL_ROWS]`.
pub type Tile = [i32; TILE_QUERIES * PANEL_ROWS];

/// Whether [`dot_tile`] runs on AVX-512 VNNI here. Without it, an f32 matrix product is quicker.
pub fn is_accelerated() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vnni")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// The integer dot products of one tile of queries with one panel of the gallery, written to `products`. Places that stand
/// for no row or no query get values without meaning.
///
/// # Panics
/// If queries and gallery are not of the same dimension, or there is no such tile or panel.
pub fn dot_tile(
    queries: &QuantisedQueries,
    tile: usize,
    gallery: &QuantisedGallery,
    panel: usize,
    products: &mut Tile,
) {
    let (queries, corrections) = queries.tile(tile);
    let panel = gallery.panel(panel);
    assert_eq!(
        queries.len() * PANEL_ROWS,
        panel.len() * TILE_QUERIES,
        "queries and gallery must be equally long"
    );
    #[cfg(target_arch = "x86_64")]
    if is_accelerated() {
        // SAFETY: the processor has the three features that the function is compiled for.
        unsafe { vnni::dot_tile(queries, corrections, panel, products) };
        return;
    }
    dot_tile_in_plain_rust(queries, corrections, panel, products);
}

fn dot_tile_in_plain_rust(
    queries: &[i8],
    corrections: &[i32; TILE_QUERIES],
    panel: &[u8],
    products: &mut Tile,
) {
    for (products, &correction) in products.chunks_mut(PANEL_ROWS).zip(corrections) {
        products.fill(correction);
    }
    let steps = queries.chunks_exact(TILE_QUERIES * GROUP).zip(panel.chunks_exact(PANEL_ROWS * GROUP));
    for (queries, rows) in steps {
        for (products, query) in products.chunks_mut(PANEL_ROWS).zip(queries.as_chunks::<GROUP>().0) {
            for (product, row) in products.iter_mut().zip(rows.as_chunks::<GROUP>().0) {
                for column in 0..GROUP {
                    *product += i32::from(row[column]) * i32::from(query[column]);
                }
            }
        }
    }
}

/// The tile on AVX-512 VNNI: 6 x 4 accumulators of 16 lanes, 4 registers of gallery rows, and one of a query's four
/// columns, broadcast.
#[cfg(target_arch = "x86_64")]
mod vnni {
    use super::{GROUP, PANEL_ROWS, TILE_QUERIES, Tile};
    use std::arch::x86_64::*;

    const REGISTER_LANES: usize = 16;
    const REGISTERS: usize = PANEL_ROWS / REGISTER_LANES;

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub fn dot_tile(queries: &[i8], corrections: &[i32; TILE_QUERIES], panel: &[u8], products: &mut Tile) {
        let groups = queries.len() / (TILE_QUERIES * GROUP);
        assert!(panel.len() >= groups * PANEL_ROWS * GROUP);
        let mut sums = [[_mm512_setzero_si512(); REGISTERS]; TILE_QUERIES];
        for (sums, &correction) in sums.iter_mut().zip(corrections) {
            *sums = [_mm512_set1_epi32(correction); REGISTERS];
        }
        let mut query = queries.as_ptr();
        let mut row = panel.as_ptr();
        for _ in 0..groups {
            let mut rows = [_mm512_setzero_si512(); REGISTERS];
            for (register, rows) in rows.iter_mut().enumerate() {
                // SAFETY: `row` is at the start of one of the `groups` steps of PANEL_ROWS * GROUP = REGISTERS * 64 bytes
                // that `panel` was checked to hold.
                *rows = unsafe { _mm512_loadu_si512(row.add(register * 64).cast()) };
            }
            for (place, sums) in sums.iter_mut().enumerate() {
                // SAFETY: `query` is at the start of one of the `groups` steps of TILE_QUERIES * GROUP bytes that
                // `queries` holds.
                let columns = unsafe { query.add(place * GROUP).cast::<i32>().read_unaligned() };
                let columns = _mm512_set1_epi32(columns);
                for (sum, rows) in sums.iter_mut().zip(rows) {
                    *sum = _mm512_dpbusd_epi32(*sum, rows, columns);
                }
            }
            // SAFETY: this moves by one step, at most to the end of each slice.
            unsafe {
                query = query.add(TILE_QUERIES * GROUP);
                row = row.add(PANEL_ROWS * GROUP);
            }
        }
        let targets = products.as_chunks_mut::<REGISTER_LANES>().0;
        for (target, sum) in targets.iter_mut().zip(sums.iter().flatten()) {
            // SAFETY: `target` is 16 integers, 64 bytes.
            unsafe { _mm512_storeu_si512(target.as_mut_ptr().cast(), *sum) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nearest::{LARGEST_DIMENSION, noise};

    #[test]
    fn integer_tiles_agree_with_plain_loops() {
        for dimension in [1, 3, 4, 17, 129, 512] {
            let origin = vec![0.0; dimension];
            let queries = QuantisedQueries::new(&noise(7 * dimension, 1), &origin);
            let gallery = QuantisedGallery::new(&noise(70 * dimension, 2), &origin);
            for (tile, panel) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let (mut fast, mut plain) = ([0; TILE_QUERIES * PANEL_ROWS], [1; TILE_QUERIES * PANEL_ROWS]);
                dot_tile(&queries, tile, &gallery, panel, &mut fast);
                let (query_bytes, corrections) = queries.tile(tile);
                dot_tile_in_plain_rust(query_bytes, corrections, gallery.panel(panel), &mut plain);
                assert_eq!(fast, plain, "{dimension}");
            }
        }
    }

    #[test]
    fn the_largest_dot_products_do_not_overflow() {
        let dimension = LARGEST_DIMENSION;
        let largest = 127 * 127 * dimension as i32;
        for sign in [1, -1] {
            let queries = QuantisedQueries::new(&vec![sign as f32; dimension], &vec![0.0; dimension]);
            let gallery = QuantisedGallery::new(&vec![1.0; dimension], &vec![0.0; dimension]);
            let mut tile = [0; TILE_QUERIES * PANEL_ROWS];
            dot_tile(&queries, 0, &gallery, 0, &mut tile);
            assert_eq!(tile[0], sign * largest);
        }
    }
}
