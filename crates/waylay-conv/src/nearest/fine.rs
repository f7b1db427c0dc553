//! Rows rounded to 16 bits with one scale per row, and their dot products, tile by tile: on AVX-512 VNNI, or else in plain Rust,
//! which gives the very same numbers.
//!
//! Products are summed in 32 bits over stretches of [`STRETCH`] columns, where they cannot overflow, as the rows are rounded such
//! that by Cauchy-Schwarz no sum reaches 2^31; and over the stretches in f32, a few of them at a time.
//!
//! Of what rounding leaves, second digits of 8 bits are kept, row by row: their products with the leading bytes of the other side's
//! integers say, for a pair at a time, what the integers' product lacks, all but a seventieth.

use rayon::prelude::*;

use super::quantised::checked_dimension;
use super::rounding::{RowStatistics, STRETCH, round_row_finely};
use super::second::{self, Digits, SecondStatistics, Side, write_digits};
use crate::simd::vectorised;
use crate::turn::{EIGHT, eight_to_columns};

/// Queries in one tile of dot products.
pub const FINE_TILE_QUERIES: usize = 8;
/// Gallery rows in one tile of dot products, and in one panel of [`FineGallery`].
pub const FINE_PANEL_ROWS: usize = 48;
/// Columns that one 32-bit lane multiplies at once.
const PAIR: usize = 2;
/// Steps of two columns that a stretch has.
const STEPS: usize = STRETCH / PAIR;

/// Stretches that are summed on their own: long sums of short ones round less than one long sum.
const CHAIN: usize = 8;

/// How many units of the product of the integers' norms [`fine_dot_tile`] is off by at most: a stretch's sum is rounded, and then added to
/// those of its chain, and these to each other.
pub fn fine_rounding_depth(dimension: usize) -> usize {
    let stretches = dimension.div_ceil(STRETCH);
    1 + stretches.min(CHAIN) + stretches.div_ceil(CHAIN)
}

/// Dot products of one tile, `[FINE_TILE_QUERIES, FINE_PANEL_ROWS]`.
pub type FineTile = [f32; FINE_TILE_QUERIES * FINE_PANEL_ROWS];

/// Cells that keep rows apart which are laid out at once.
const CELLS_APART: usize = 16;

/// Two neighbouring columns of a row.
type Cell = [i16; PAIR];

/// A gallery `[rows, dimension]`, rounded: two bytes per value, rows padded to whole panels, of [`FINE_PANEL_ROWS`].
pub struct FineGallery(Rounded);

/// Queries `[rows, dimension]`, rounded: two bytes per value, rows padded to whole tiles, of [`FINE_TILE_QUERIES`].
pub struct FineQueries(Rounded);

impl FineGallery {
    /// Rounds `rows` `[R, D]`, row-major and finite, less `centre` `[D]`, in parallel.
    ///
    /// # Panics
    /// If `D` is not 1 to [`LARGEST_DIMENSION`](super::LARGEST_DIMENSION), or does not divide the length of `rows`.
    pub fn new(rows: &[f32], centre: &[f32]) -> Self {
        Self(Rounded::new(rows, centre, Side::Gallery))
    }

    /// How many panels there are; the last one may have rows to spare.
    pub fn panel_count(&self) -> usize {
        self.0.statistics.len().div_ceil(FINE_PANEL_ROWS)
    }

    /// One entry per row.
    pub fn statistics(&self) -> &[RowStatistics] {
        &self.0.statistics
    }

    /// One entry per row.
    pub fn second_statistics(&self) -> &[SecondStatistics] {
        &self.0.second_statistics
    }
}

impl FineQueries {
    /// Rounds `rows` `[R, D]`, row-major and finite, less `centre` `[D]`, in parallel.
    ///
    /// # Panics
    /// If `D` is not 1 to [`LARGEST_DIMENSION`](super::LARGEST_DIMENSION), or does not divide the length of `rows`.
    pub fn new(rows: &[f32], centre: &[f32]) -> Self {
        Self(Rounded::new(rows, centre, Side::Query))
    }

    /// One entry per query.
    pub fn statistics(&self) -> &[RowStatistics] {
        &self.0.statistics
    }

    /// One entry per query.
    pub fn second_statistics(&self) -> &[SecondStatistics] {
        &self.0.second_statistics
    }
}

/// Rows in groups, `[groups, pairs of columns, rows of a group]`, and their digits row by row.
struct Rounded {
    cells: Vec<Cell>,
    /// Cells of a group.
    size: usize,
    statistics: Vec<RowStatistics>,
    digits: Vec<Digits>,
    /// How many a row has.
    row_digits: usize,
    second_statistics: Vec<SecondStatistics>,
}

impl Rounded {
    fn new(rows: &[f32], centre: &[f32], side: Side) -> Self {
        let dimension = checked_dimension(rows, centre);
        let group = if side == Side::Query { FINE_TILE_QUERIES } else { FINE_PANEL_ROWS };
        let (count, pairs) = (rows.len() / dimension, dimension.div_ceil(PAIR));
        let (size, row_digits) = (pairs * group, Digits::count(dimension));
        // Lines of a power of two would meet in the same places of the first-level cache.
        let pitch = pairs + CELLS_APART;
        let mut cells = vec![[0; PAIR]; count.div_ceil(group) * size];
        let mut digits = vec![Digits::ZERO; count * row_digits];
        let mut statistics = vec![(RowStatistics::default(), SecondStatistics::default()); count];
        cells
            .par_chunks_mut(size)
            .zip(digits.par_chunks_mut(group * row_digits))
            .zip(rows.par_chunks(group * dimension))
            .zip(statistics.par_chunks_mut(group))
            .for_each_init(
                || vec![[0; PAIR]; EIGHT * pitch],
                |lines, (((cells, digits), rows), statistics)| {
                    let eights = rows.chunks(EIGHT * dimension).zip(digits.chunks_mut(EIGHT * row_digits));
                    let eights = eights.zip(statistics.chunks_mut(EIGHT)).enumerate();
                    for (eight, ((rows, digits), statistics)) in eights {
                        let count = statistics.len();
                        let rows = rows.chunks(dimension).zip(digits.chunks_mut(row_digits)).zip(statistics);
                        for (((row, digits), (first, second)), line) in rows.zip(lines.chunks_mut(pitch)) {
                            let line = line[..pairs].as_flattened_mut();
                            *first = round_row_finely(row, centre, line);
                            *second = write_digits(side, row, centre, &line[..dimension], first, digits);
                        }
                        interleave(lines, pitch, count, &mut cells[eight * EIGHT..], group);
                    }
                },
            );
        let (statistics, second_statistics) = statistics.into_iter().unzip();
        Self { cells, size, statistics, digits, row_digits, second_statistics }
    }

    fn group(&self, index: usize) -> &[Cell] {
        &self.cells[index * self.size..][..self.size]
    }

    fn digits(&self, row: usize) -> &[Digits] {
        &self.digits[row * self.row_digits..][..self.row_digits]
    }
}

vectorised! {
    /// The first cells of up to [`EIGHT`] lines, `pitch` apart, to columns of `target`, whose rows are `width` long.
    fn interleave(lines: &[Cell], pitch: usize, count: usize, target: &mut [Cell], width: usize) {
        if count < EIGHT {
            for (place, line) in lines.chunks(pitch).take(count).enumerate() {
                let places = target[place..].iter_mut().step_by(width);
                places.zip(line).for_each(|(place, cell)| *place = *cell);
            }
            return;
        }
        eight_to_columns(lines, pitch, target.len().div_ceil(width), target, width);
    }
}

/// Calls `see` with the place of each of some rows of the gallery and what its integers' dot product with a query lacks, in the same
/// units, but for what the norms of the rows' other parts bound: see [`SecondStatistics`].
///
/// # Panics
/// If queries and gallery are not of the same dimension, or there is no such query or row.
pub fn second_products(
    queries: &FineQueries,
    query: usize,
    gallery: &FineGallery,
    rows: impl ExactSizeIterator<Item = usize>,
    see: impl FnMut(usize, f64),
) {
    second::products(queries.0.digits(query), rows.map(|row| gallery.0.digits(row)), see);
}

/// The integers' dot products of one tile of queries with one panel of the gallery, written to `products`: off by at most
/// [`fine_rounding_depth`] units of the product of the integers' norms. Places that stand for no row or no query get values without
/// meaning. The tile's share of the next panel is brought near meanwhile.
///
/// # Panics
/// If queries and gallery are not of the same dimension, or there is no such tile or panel.
pub fn fine_dot_tile(
    queries: &FineQueries,
    tile: usize,
    gallery: &FineGallery,
    panel: usize,
    products: &mut FineTile,
) {
    let tiles = queries.0.statistics.len().div_ceil(FINE_TILE_QUERIES);
    let next = if panel + 1 < gallery.panel_count() { gallery.0.group(panel + 1) } else { &[] };
    let next = &next[next.len() * tile / tiles..next.len() * (tile + 1) / tiles];
    let (queries, panel) = (queries.0.group(tile), gallery.0.group(panel));
    assert_eq!(
        queries.len() * FINE_PANEL_ROWS,
        panel.len() * FINE_TILE_QUERIES,
        "queries and gallery must be equally long"
    );
    #[cfg(target_arch = "x86_64")]
    if super::is_accelerated() {
        // SAFETY: the processor has the three features that the function is compiled for.
        unsafe { vnni::dot_tile(queries, panel, next, products) };
        return;
    }
    dot_tile_in_plain_rust(queries, panel, products);
}

fn dot_tile_in_plain_rust(queries: &[Cell], panel: &[Cell], products: &mut FineTile) {
    products.fill(0.0);
    let chains = queries.chunks(CHAIN * STEPS * FINE_TILE_QUERIES);
    for (queries, panel) in chains.zip(panel.chunks(CHAIN * STEPS * FINE_PANEL_ROWS)) {
        let mut chain = [0.0; FINE_TILE_QUERIES * FINE_PANEL_ROWS];
        let stretches = queries.chunks(STEPS * FINE_TILE_QUERIES).zip(panel.chunks(STEPS * FINE_PANEL_ROWS));
        for (queries, panel) in stretches {
            let mut sums = [0_i32; FINE_TILE_QUERIES * FINE_PANEL_ROWS];
            for (queries, rows) in queries.chunks(FINE_TILE_QUERIES).zip(panel.chunks(FINE_PANEL_ROWS)) {
                for (sums, query) in sums.chunks_mut(FINE_PANEL_ROWS).zip(queries) {
                    for (sum, row) in sums.iter_mut().zip(rows) {
                        let terms = query.iter().zip(row).map(|(q, g)| i32::from(*q) * i32::from(*g));
                        *sum += terms.sum::<i32>();
                    }
                }
            }
            chain.iter_mut().zip(sums).for_each(|(chain, sum)| *chain += sum as f32);
        }
        products.iter_mut().zip(chain).for_each(|(product, chain)| *product += chain);
    }
}

/// The tile on AVX-512 VNNI: 8 x 3 accumulators of 16 lanes, 3 registers of gallery rows, and one of a query's two columns,
/// broadcast.
#[cfg(target_arch = "x86_64")]
mod vnni {
    use super::{CHAIN, Cell, FINE_PANEL_ROWS, FINE_TILE_QUERIES, FineTile, STEPS};
    use std::arch::x86_64::*;

    const REGISTER_LANES: usize = 16;
    const REGISTERS: usize = FINE_PANEL_ROWS / REGISTER_LANES;
    /// Cells of a line of the cache.
    const LINE: usize = 16;

    #[expect(clippy::needless_range_loop, reason = "iterators over the sums move them to memory")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub fn dot_tile(queries: &[Cell], panel: &[Cell], next: &[Cell], products: &mut FineTile) {
        let mut chains = [0.0; FINE_TILE_QUERIES * FINE_PANEL_ROWS];
        let chains = chains.as_chunks_mut::<REGISTER_LANES>().0;
        let queries = queries.as_chunks::<FINE_TILE_QUERIES>().0;
        let panel = panel.as_chunks::<FINE_PANEL_ROWS>().0;
        let targets = products.as_chunks_mut::<REGISTER_LANES>().0;
        let count = queries.len().div_ceil(STEPS);
        let mut ahead = next.chunks(next.len().div_ceil(count).next_multiple_of(LINE).max(LINE));
        for (stretch, (queries, panel)) in queries.chunks(STEPS).zip(panel.chunks(STEPS)).enumerate() {
            for line in ahead.next().unwrap_or_default().chunks(LINE) {
                _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
            }
            let begins = stretch % CHAIN == 0;
            let ends = (stretch + 1) % CHAIN == 0 || stretch + 1 == count;
            let mut sums = [[_mm512_setzero_si512(); REGISTERS]; FINE_TILE_QUERIES];
            for (queries, row) in queries.iter().zip(panel) {
                let row = row.as_chunks::<REGISTER_LANES>().0;
                // SAFETY: each is 16 cells of 4 bytes.
                let rows: [__m512i; REGISTERS] =
                    std::array::from_fn(|place| unsafe { _mm512_loadu_si512(row[place].as_ptr().cast()) });
                for query in 0..FINE_TILE_QUERIES {
                    // SAFETY: this is two integers of 2 bytes.
                    let cell = unsafe { queries[query].as_ptr().cast::<i32>().read_unaligned() };
                    let cell = _mm512_set1_epi32(cell);
                    for place in 0..REGISTERS {
                        sums[query][place] = _mm512_dpwssd_epi32(sums[query][place], rows[place], cell);
                    }
                }
            }
            for query in 0..FINE_TILE_QUERIES {
                for place in 0..REGISTERS {
                    let index = query * REGISTERS + place;
                    let (chain, target) = (chains[index].as_mut_ptr(), targets[index].as_mut_ptr());
                    let mut sum = _mm512_cvtepi32_ps(sums[query][place]);
                    // SAFETY: both places are 16 numbers of 4 bytes.
                    unsafe {
                        if !begins {
                            sum = _mm512_add_ps(_mm512_loadu_ps(chain), sum);
                        }
                        if !ends {
                            _mm512_storeu_ps(chain, sum);
                        } else if stretch < CHAIN {
                            _mm512_storeu_ps(target, sum);
                        } else {
                            _mm512_storeu_ps(target, _mm512_add_ps(_mm512_loadu_ps(target), sum));
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nearest::noise;

    #[test]
    fn tiles_agree_with_plain_loops_and_with_the_rows() {
        for dimension in [1, 2, 63, 64, 65, 129, 512, 577, 2048] {
            let origin = vec![0.0; dimension];
            let (q, g) = (noise(11 * dimension, 1), noise(50 * dimension, 2));
            let (queries, gallery) = (FineQueries::new(&q, &origin), FineGallery::new(&g, &origin));
            assert_eq!((queries.statistics().len(), gallery.panel_count()), (11, 2));
            for (tile, panel) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let (mut fast, mut plain) = ([1.0; _], [0.0; FINE_TILE_QUERIES * FINE_PANEL_ROWS]);
                fine_dot_tile(&queries, tile, &gallery, panel, &mut fast);
                dot_tile_in_plain_rust(queries.0.group(tile), gallery.0.group(panel), &mut plain);
                assert_eq!(fast, plain, "{dimension}");
                for (place, product) in fast.into_iter().enumerate() {
                    let query = tile * FINE_TILE_QUERIES + place / FINE_PANEL_ROWS;
                    let row = panel * FINE_PANEL_ROWS + place % FINE_PANEL_ROWS;
                    if query >= 11 || row >= 50 {
                        continue;
                    }
                    let pairs = q[query * dimension..].iter().zip(&g[row * dimension..]).take(dimension);
                    let exact: f64 = pairs.map(|(q, g)| f64::from(*q) * f64::from(*g)).sum();
                    let (query, row) = (&queries.statistics()[query], &gallery.statistics()[row]);
                    let found = f64::from(product) * f64::from(query.scale) * f64::from(row.scale);
                    let unit = f64::from(f32::EPSILON) / 2.0 * fine_rounding_depth(dimension) as f64;
                    let norm = f64::from(query.norm + query.residual);
                    let bound = f64::from(query.residual * row.norm) + norm * f64::from(row.residual);
                    let bound = bound + unit * norm * f64::from(row.norm + row.residual);
                    assert!((found - exact).abs() <= bound * (1.0 + 1e-6), "{dimension}: {found} {exact}");
                    assert!(dimension < 64 || bound < 2e-4 * norm * f64::from(row.norm), "{dimension}");
                }
            }
        }
    }

    #[test]
    fn the_largest_dot_products_do_not_overflow() {
        let dimension = 3 * STRETCH;
        for (length, sign) in [(1, 1.0), (STRETCH, 1.0), (dimension, -1.0)] {
            let row: Vec<f32> =
                (0..dimension).map(|column| if column < length { 7.0 } else { 0.0 }).collect();
            let other: Vec<f32> = row.iter().map(|value| value * sign).collect();
            let origin = vec![0.0; dimension];
            let (queries, gallery) = (FineQueries::new(&row, &origin), FineGallery::new(&other, &origin));
            let mut tile = [0.0; FINE_TILE_QUERIES * FINE_PANEL_ROWS];
            fine_dot_tile(&queries, 0, &gallery, 0, &mut tile);
            let found = tile[0] * queries.statistics()[0].scale * gallery.statistics()[0].scale;
            let exact = 49.0 * length as f32 * sign;
            assert!((found - exact).abs() < 2e-4 * exact.abs(), "{found} {exact}");
            assert!(tile[0].abs() > 1e9 * length.div_ceil(STRETCH) as f32, "{}", tile[0]);
        }
    }
}
