//! Rows rounded to 16 bits with one scale per row, and their dot products, tile by tile: on AVX-512 VNNI, or else in plain Rust,
//! which gives the very same numbers.
//!
//! Products are summed in 32 bits over stretches of [`STRETCH`] columns, where they cannot overflow, as the rows are rounded such
//! that by Cauchy-Schwarz no sum reaches 2^31; and over the stretches without the last bits, as many as it takes.
//!
//! Half of the multiplications are additions instead (Winograd 1968, "A new algorithm for inner product"): for two columns,
//! `a c + b d = (a + d) (b + c) - a b - c d`. What depends on one row alone is where its sums begin. That these wrap around on the way
//! changes nothing, as the last one does not.
//!
//! Of what rounding leaves, second digits of 8 bits are kept, row by row: their products with the leading bytes of the other side's
//! integers say, for a pair at a time, what the integers' product lacks, all but an eightieth.

use rayon::prelude::*;

use super::quantised::checked_dimension;
use super::rounding::{RowStatistics, STRETCH, round_row_finely};
use super::second::{Digits, SecondStatistics, Side, write_digits};
use crate::aligned::Aligned;
use crate::simd::vectorised;
use crate::turn::{EIGHT, eight_to_columns};

/// Queries in one tile of dot products.
pub const FINE_TILE_QUERIES: usize = 8;
/// Gallery rows in one tile of dot products, and in one panel of [`FineGallery`].
pub const FINE_PANEL_ROWS: usize = 32;
/// Columns of a cell.
const PAIR: usize = 2;
/// Cells that are multiplied with each other, after the other side's were added: four columns.
const FACTORS: usize = 2;
const STEP: usize = FACTORS * PAIR;
/// Cells of a stretch: the first is what its sums begin with.
const STRETCH_CELLS: usize = 1 + STRETCH / PAIR;

/// How many of the last bits a stretch's sum loses, such that all of them add up to less than 2^31.
fn lost_bits(dimension: usize) -> u32 {
    dimension.div_ceil(STRETCH).next_power_of_two().ilog2()
}

/// How far off [`fine_dot_tile`] is at most, beside one rounding to f32.
pub fn fine_error(dimension: usize) -> f32 {
    (dimension.div_ceil(STRETCH) << lost_bits(dimension)) as f32
}

/// Dot products of one tile, `[FINE_TILE_QUERIES, FINE_PANEL_ROWS]`.
pub type FineTile = [f32; FINE_TILE_QUERIES * FINE_PANEL_ROWS];

/// Cells that keep rows apart which are laid out at once.
const CELLS_APART: usize = 16;

/// Two columns of a row, or a number of 32 bits: what one lane takes.
type Cell = [i16; PAIR];

fn number(cell: Cell) -> i32 {
    i32::from(cell[0] as u16) | i32::from(cell[1]) << 16
}

/// How many cells a row has.
fn cell_count(dimension: usize) -> usize {
    dimension.div_ceil(STRETCH) + dimension.next_multiple_of(STEP) / PAIR
}

/// A gallery `[rows, dimension]`, rounded: two bytes per value and two for its digits, rows padded to whole panels, of [`FINE_PANEL_ROWS`].
pub struct FineGallery(Rounded);

/// Queries `[rows, dimension]`, rounded: two bytes per value and two for its digits, rows padded to whole tiles, of [`FINE_TILE_QUERIES`].
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

    pub(super) fn digits(&self, row: usize) -> &[Digits] {
        self.0.digits(row)
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

    pub(super) fn digits(&self, query: usize) -> &[Digits] {
        self.0.digits(query)
    }
}

/// Rows in groups, `[groups, cells of a row, rows of a group]`, and their digits row by row.
struct Rounded {
    cells: Aligned<Cell>,
    /// Cells of a group.
    size: usize,
    lost_bits: u32,
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
        let (count, row_cells) = (rows.len() / dimension, cell_count(dimension));
        let (size, row_digits) = (row_cells * group, Digits::count(dimension));
        // Lines of a power of two would meet in the same places of the first-level cache.
        let pitch = row_cells + CELLS_APART;
        let mut cells = Aligned::new(count.div_ceil(group) * size);
        let mut digits = vec![Digits::ZERO; count * row_digits];
        let mut statistics = vec![(RowStatistics::default(), SecondStatistics::default()); count];
        cells
            .par_chunks_mut(size)
            .zip(digits.par_chunks_mut(group * row_digits))
            .zip(rows.par_chunks(group * dimension))
            .zip(statistics.par_chunks_mut(group))
            .for_each_init(
                || (vec![0; dimension.next_multiple_of(STEP)], vec![[0; PAIR]; EIGHT * pitch]),
                |(integers, lines), (((cells, digits), rows), statistics)| {
                    let eights = rows.chunks(EIGHT * dimension).zip(digits.chunks_mut(EIGHT * row_digits));
                    let eights = eights.zip(statistics.chunks_mut(EIGHT)).enumerate();
                    for (eight, ((rows, digits), statistics)) in eights {
                        let count = statistics.len();
                        let rows = rows.chunks(dimension).zip(digits.chunks_mut(row_digits)).zip(statistics);
                        for (((row, digits), (first, second)), line) in rows.zip(lines.chunks_mut(pitch)) {
                            *first = round_row_finely(row, centre, integers);
                            *second = write_digits(side, row, centre, &integers[..dimension], first, digits);
                            arrange(integers, side == Side::Gallery, &mut line[..row_cells]);
                        }
                        interleave(lines, pitch, count, &mut cells[eight * EIGHT..], group);
                    }
                },
            );
        let (statistics, second_statistics) = statistics.into_iter().unzip();
        Self {
            cells,
            size,
            lost_bits: lost_bits(dimension),
            statistics,
            digits,
            row_digits,
            second_statistics,
        }
    }

    fn group(&self, index: usize) -> &[Cell] {
        &self.cells[index * self.size..][..self.size]
    }

    fn digits(&self, row: usize) -> &[Digits] {
        &self.digits[row * self.row_digits..][..self.row_digits]
    }
}

vectorised! {
    /// The cells of a row of `integers`, of which there are a multiple of [`STEP`]; those of a step `swapped` for one side.
    fn arrange(integers: &[i16], swapped: bool, cells: &mut [Cell]) {
        for (integers, cells) in integers.chunks(STRETCH).zip(cells.chunks_mut(STRETCH_CELLS)) {
            let (own, cells) = cells.split_first_mut().expect("a stretch has cells");
            let mut sum = 0_i32;
            for ([a, b, c, d], cells) in integers.as_chunks().0.iter().zip(cells.as_chunks_mut().0) {
                sum = sum.wrapping_sub(i32::from(*a) * i32::from(*b) + i32::from(*c) * i32::from(*d));
                *cells = if swapped { [[*b, *d], [*a, *c]] } else { [[*a, *c], [*b, *d]] };
            }
            *own = [sum as i16, (sum >> 16) as i16];
        }
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

/// The integers' dot products of one tile of queries with one panel of the gallery, written to `products`: off by at most
/// [`fine_error`], and one rounding to f32. Places that stand for no row or no query get values without meaning.
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
    let lost = queries.0.lost_bits;
    let (queries, panel) = (queries.0.group(tile), gallery.0.group(panel));
    assert_eq!(
        queries.len() * FINE_PANEL_ROWS,
        panel.len() * FINE_TILE_QUERIES,
        "queries and gallery must be equally long"
    );
    #[cfg(target_arch = "x86_64")]
    if super::is_accelerated() {
        // SAFETY: the processor has the three features that the function is compiled for.
        unsafe { vnni::dot_tile(queries, panel, lost, products) };
        return;
    }
    dot_tile_in_plain_rust(queries, panel, lost, products);
}

fn dot_tile_in_plain_rust(queries: &[Cell], panel: &[Cell], lost: u32, products: &mut FineTile) {
    let queries = queries.as_chunks::<FINE_TILE_QUERIES>().0;
    let panel = panel.as_chunks::<FINE_PANEL_ROWS>().0;
    for (place, product) in products.iter_mut().enumerate() {
        let (query, row) = (place / FINE_PANEL_ROWS, place % FINE_PANEL_ROWS);
        let stretches = queries.chunks(STRETCH_CELLS).zip(panel.chunks(STRETCH_CELLS));
        let sums = stretches.map(|(queries, panel)| {
            let begin = number(queries[0][query]).wrapping_add(number(panel[0][row]));
            let (queries, panel) = (queries[1..].as_chunks().0, panel[1..].as_chunks().0);
            let terms =
                queries.iter().zip(panel).flat_map(|(queries, panel): (&[_; FACTORS], &[_; FACTORS])| {
                    let [a, b] = std::array::from_fn(|factor| {
                        let (q, g): (Cell, Cell) = (queries[factor][query], panel[factor][row]);
                        std::array::from_fn::<_, PAIR, _>(|column| i32::from(q[column] + g[column]))
                    });
                    [a[0] * b[0], a[1] * b[1]]
                });
            terms.fold(begin, i32::wrapping_add) >> lost
        });
        *product = sums.sum::<i32>() as f32 * (1_u32 << lost) as f32;
    }
}

/// The tile on AVX-512 VNNI: 8 x 2 accumulators of 16 lanes, 2 x 2 registers of gallery rows, two of a query's columns, broadcast,
/// and their sums.
#[cfg(target_arch = "x86_64")]
mod vnni {
    use super::{Cell, FACTORS, FINE_PANEL_ROWS, FINE_TILE_QUERIES, FineTile, STRETCH_CELLS};
    use std::arch::x86_64::*;

    const REGISTER_LANES: usize = 16;
    const REGISTERS: usize = FINE_PANEL_ROWS / REGISTER_LANES;

    /// A cell of each row of a panel.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(rows: &[Cell; FINE_PANEL_ROWS]) -> [__m512i; REGISTERS] {
        let rows = rows.as_chunks::<REGISTER_LANES>().0;
        // SAFETY: each is 16 cells of 4 bytes.
        std::array::from_fn(|place| unsafe { _mm512_loadu_si512(rows[place].as_ptr().cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn broadcast(cell: &Cell) -> __m512i {
        // SAFETY: these are 4 bytes.
        _mm512_set1_epi32(unsafe { cell.as_ptr().cast::<i32>().read_unaligned() })
    }

    #[expect(clippy::needless_range_loop, reason = "iterators over the sums move them to memory")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub fn dot_tile(queries: &[Cell], panel: &[Cell], lost: u32, products: &mut FineTile) {
        let queries = queries.as_chunks::<FINE_TILE_QUERIES>().0;
        let panel = panel.as_chunks::<FINE_PANEL_ROWS>().0;
        let mut totals = [[_mm512_setzero_si512(); REGISTERS]; FINE_TILE_QUERIES];
        let shift = _mm_cvtsi32_si128(lost as i32);
        for (queries, panel) in queries.chunks(STRETCH_CELLS).zip(panel.chunks(STRETCH_CELLS)) {
            let mut sums = [load(&panel[0]); FINE_TILE_QUERIES];
            for query in 0..FINE_TILE_QUERIES {
                for place in 0..REGISTERS {
                    sums[query][place] = _mm512_add_epi32(sums[query][place], broadcast(&queries[0][query]));
                }
            }
            let steps = queries[1..].as_chunks::<FACTORS>().0.iter().zip(panel[1..].as_chunks::<FACTORS>().0);
            for (queries, rows) in steps {
                let rows = [load(&rows[0]), load(&rows[1])];
                for query in 0..FINE_TILE_QUERIES {
                    let cells = [broadcast(&queries[0][query]), broadcast(&queries[1][query])];
                    for place in 0..REGISTERS {
                        let a = _mm512_add_epi16(rows[0][place], cells[0]);
                        let b = _mm512_add_epi16(rows[1][place], cells[1]);
                        sums[query][place] = _mm512_dpwssd_epi32(sums[query][place], a, b);
                    }
                }
            }
            for query in 0..FINE_TILE_QUERIES {
                for place in 0..REGISTERS {
                    let sum = _mm512_sra_epi32(sums[query][place], shift);
                    totals[query][place] = _mm512_add_epi32(totals[query][place], sum);
                }
            }
        }
        let unit = _mm512_set1_ps((1_u32 << lost) as f32);
        let products = products.as_chunks_mut::<REGISTER_LANES>().0;
        for (product, total) in products.iter_mut().zip(totals.as_flattened()) {
            let total = _mm512_mul_ps(_mm512_cvtepi32_ps(*total), unit);
            // SAFETY: these are 16 numbers of 4 bytes.
            unsafe { _mm512_storeu_ps(product.as_mut_ptr(), total) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nearest::noise;

    #[test]
    fn tiles_agree_with_plain_loops_and_with_the_rows() {
        for dimension in [1, 2, 63, 64, 65, 129, 512, 577, 2048, 5000] {
            let origin = vec![0.0; dimension];
            let (q, g) = (noise(11 * dimension, 1), noise(50 * dimension, 2));
            let (queries, gallery) = (FineQueries::new(&q, &origin), FineGallery::new(&g, &origin));
            assert_eq!((queries.statistics().len(), gallery.panel_count()), (11, 2));
            for (tile, panel) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let (mut fast, mut plain) = ([1.0; _], [0.0; FINE_TILE_QUERIES * FINE_PANEL_ROWS]);
                fine_dot_tile(&queries, tile, &gallery, panel, &mut fast);
                let lost = lost_bits(dimension);
                dot_tile_in_plain_rust(queries.0.group(tile), gallery.0.group(panel), lost, &mut plain);
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
                    let norm = f64::from(query.norm + query.residual);
                    let bound = f64::from(query.residual * row.norm) + norm * f64::from(row.residual);
                    let rounding = f64::from(f32::EPSILON) / 2.0 * norm * f64::from(row.norm + row.residual);
                    let error = fine_error(dimension) * query.scale * row.scale;
                    let bound = bound + rounding + f64::from(error);
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
            // One column alone is rounded to 14 bits; a stretch to all that 31 bits of its sum allow.
            let least = if length == 1 { 2.6e8 } else { 2.1e9 } * length.div_ceil(STRETCH) as f32;
            assert!(tile[0].abs() > least, "{}", tile[0]);
        }
    }
}
