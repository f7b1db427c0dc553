//! Convolution with 3x3 kernels by Winograd's method. At stride 1 it is F(4x4, 3x3): 36 products for 16 pixels instead of 144.
//! Source: Lavin and Gray, arXiv:1509.09308, sections 3 and 4.3, with the points 0, ±5/8, ±3/2 and ∞ in place of 0, ±1,
//! ±2 and ∞: all are exact in `f32`, and as they lie closer to one in size, less is lost to cancellation (Barabasz et
//! al., arXiv:1803.10986). What is lost all the same, the tests bound against `f64`.
//!
//! At stride 2, the first and the third tap see every other pixel, and the second one those between: the sum of a convolution with two
//! taps and of one with one tap, both of stride 1. With the same points less 0, F(4, 2) of the former takes 5 products for four pixels,
//! and the latter 4, as its products at ∞ are 0; in two dimensions, 81 instead of 144. At each point, what the two, or four, parts give
//! is summed before it is transformed back: they are as many channels.

use std::ops::Range;

use rayon::prelude::*;

use crate::filters::Filters;
use crate::finish::Finish;
use crate::frozen::Kept;
use crate::kernel::{Kernel, Lanes};
use crate::options::Geometry;
use crate::scratch;
use crate::simd::{self, vectorised};
use crate::threads;
use crate::turn::multiply_rows;
use crate::window::Shared;

/// Pixels of a tile's output across and down.
const OUT: usize = 4;
/// Points across and down: 0, A, -A, B, -B and ∞.
const IN: usize = 6;
/// Pairs of points, one down and one across.
const POINTS: usize = IN * IN;
/// Weights per channel and filter.
const TAPS: usize = 9;
/// The points other than 0 and ∞: ±A and ±B.
const A: f32 = 0.625;
const B: f32 = 1.5;
/// What the transforms make of them.
const SUM: f32 = A * A + B * B;
const PRODUCT: f32 = A * A * B * B;
const NEAR: f32 = 2.0 * A * A * (A * A - B * B);
const FAR: f32 = 2.0 * B * B * (B * B - A * A);

/// What becomes of a tile's input across, and down.
struct Form {
    /// Pixels from one tile to the next, and of a tile.
    step: usize,
    span: usize,
    /// Parts that have a product at each of the points, and that those before have together.
    parts: [usize; IN],
    before: [usize; IN],
    /// Parts of all points.
    total: usize,
    /// Fewest tiles in all for which transforming the filters pays, and with filters that are kept.
    least: [usize; 2],
}

/// At stride 1.
static EACH: Form =
    Form { step: OUT, span: OUT + 2, parts: [1; IN], before: [0, 1, 2, 3, 4, 5], total: 6, least: [32, 16] };
/// At stride 2.
static EVERY_OTHER: Form = Form {
    step: 2 * OUT,
    span: 2 * OUT + 1,
    parts: [0, 2, 2, 2, 2, 1],
    before: [0, 0, 2, 4, 6, 8],
    total: 9,
    least: [96, 32],
};

impl Form {
    fn of(g: &Geometry) -> &'static Self {
        if g.options.stride == [1; 2] { &EACH } else { &EVERY_OTHER }
    }

    /// Products per tile, channel and filter.
    fn rows(&self) -> usize {
        self.total * self.total
    }

    /// Which of the products that is: of a point, and a part of it, down and across.
    fn row(&self, [down, down_part]: [usize; 2], [across, across_part]: [usize; 2]) -> usize {
        self.before[down] * self.total
            + self.parts[down] * self.before[across]
            + down_part * self.parts[across]
            + across_part
    }
}

/// Channels whose filters are transformed at once.
const CHANNELS: usize = 32;
/// Fewest channels in and out for which the transforms pay.
const LEAST_CHANNELS: usize = 32;
/// Most values of transformed filters that are kept: reading more takes as long as other ways to the output.
const MOST_KEPT: usize = 10 << 20;
/// Fewest tiles in all for which transforming the weight's gradient back pays.
const LEAST_FOR_WEIGHTS: usize = 64;
/// Fewest panels per thread for which a thread takes whole panels.
const LEAST_PANELS: usize = 4;
/// Values that a block of the weight gradient's transformed input and output may hold together, per thread.
const BLOCK: usize = 1 << 20;
/// Tiles that the weight gradient transforms at once.
const STRIP: usize = 64;

/// Whether this module computes the convolution, and is likely to be faster than columns; `is_kept` says whether its transformed filters
/// are, or will be.
pub(crate) fn fits(g: &Geometry, is_kept: bool) -> bool {
    let o = &g.options;
    o.winograd
        && g.kernel == [3; 2]
        && (o.stride == [1; 2] || o.stride == [2; 2])
        && o.dilation == [1; 2]
        && o.groups == 1
        && g.in_channels >= LEAST_CHANNELS
        && g.out_channels >= LEAST_CHANNELS
        && g.output[0] >= OUT
        && g.output[1] >= OUT
        && g.images * g.output[0].div_ceil(OUT) * g.output[1].div_ceil(OUT)
            >= Form::of(g).least[usize::from(is_kept)]
}

/// Whether transformed filters are worth their memory, if they need not be made again.
pub(crate) fn keeps(g: &Geometry) -> bool {
    g.options.winograd
        && g.kernel == [3; 2]
        && Form::of(g).rows() * g.in_channels * g.out_channels <= MOST_KEPT
}

/// Whether this module is likely to be the fastest way to the weight's gradient.
pub(crate) fn fits_weight(g: &Geometry) -> bool {
    fits(g, false) && g.options.stride == [1; 2] && Tiling::new(g).count(g) >= LEAST_FOR_WEIGHTS
}

/// Tiles of a convolution, row by row over all images, one after the other.
#[derive(Clone, Copy)]
struct Tiling {
    down: usize,
    across: usize,
}

/// Neighbouring tiles in one row of tiles.
struct Run {
    /// Place among the tiles asked for.
    lane: usize,
    image: usize,
    down: usize,
    across: usize,
    len: usize,
}

impl Tiling {
    fn new(g: &Geometry) -> Self {
        Self { down: g.output[0].div_ceil(OUT), across: g.output[1].div_ceil(OUT) }
    }

    fn count(self, g: &Geometry) -> usize {
        g.images * self.down * self.across
    }

    /// The runs that `tiles` are made of.
    fn runs(self, tiles: Range<usize>) -> Vec<Run> {
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

/// Tiles that meet the filters together.
struct Panel {
    runs: Vec<Run>,
    /// Tiles, up to whole vectors.
    width: usize,
    /// Where its transformed input begins, where that of all panels is kept.
    start: usize,
}

impl Panel {
    /// Its tiles.
    fn count(&self) -> usize {
        self.runs.last().map_or(0, |run| run.lane + run.len)
    }
}

/// A convolution under way.
struct Work<'a> {
    g: &'a Geometry,
    form: &'static Form,
    kernel: Kernel,
    weight: &'a Filters<'a>,
    finish: &'a Finish<'a>,
    output: &'a Shared<'a>,
}

/// Writes every value of the output `[N, Co, Ho, Wo]` for `x` `[N, Ci, H, W]`, where [`fits`].
pub(crate) fn forward(
    g: &Geometry,
    x: &[f32],
    weight: &Filters<'_>,
    kept: Option<&Kept>,
    finish: &Finish<'_>,
    output: &Shared<'_>,
) {
    let (kernel, tiling, form) = (Kernel::new(), Tiling::new(g), Form::of(g));
    let mut total = 0;
    let panels: Vec<Panel> = (0..tiling.count(g))
        .step_by(kernel.columns())
        .map(|first| {
            let tiles = first..tiling.count(g).min(first + kernel.columns());
            let (width, start) = (kernel.width(tiles.len()), total);
            total += form.rows() * g.in_channels * width;
            Panel { runs: tiling.runs(tiles), width, start }
        })
        .collect();
    let work = Work { g, form, kernel, weight, finish, output };
    let kept = kept.map(|kept| kept.transformed(g.options.stride[0], || work.all_filters()));
    if panels.len() >= LEAST_PANELS * threads::count() {
        work.panel_by_panel(x, &panels, kept);
    } else {
        work.filter_by_filter(x, &panels, total, kept);
    }
}

impl Work<'_> {
    /// All filters, transformed, on this thread.
    fn all_filters(&self) -> Vec<f32> {
        let mut filters = vec![0.0; self.blocks() * self.block_len()];
        let blocks = filters.chunks_exact_mut(self.block_len()).enumerate();
        blocks.for_each(|(block, filters)| self.transform_filters(block, filters));
        filters
    }

    /// Every thread takes whole panels, and meets all filters, which are transformed beforehand.
    fn panel_by_panel(&self, x: &[f32], panels: &[Panel], kept: Option<&[f32]>) {
        let (g, len) = (self.g, self.block_len());
        scratch::with(if kept.is_some() { 0 } else { self.blocks() * len }, |filters| {
            filters.par_chunks_mut(len).enumerate().for_each(|(block, filters)| {
                self.transform_filters(block, filters);
            });
            let filters = kept.unwrap_or(filters);
            panels.par_iter().with_max_len(1).for_each(|panel| {
                scratch::with(self.form.rows() * g.in_channels * panel.width, |input| {
                    let shared = Shared::new(input);
                    for channel in 0..g.in_channels {
                        self.transform_input(x, panel, channel, &shared, 0);
                    }
                    for (block, filters) in filters.chunks_exact(len).enumerate() {
                        self.fill(block, filters, input, panel);
                    }
                });
            });
        });
    }

    /// Every thread takes some filters, which it transforms itself, and meets all panels, whose input is transformed
    /// beforehand.
    fn filter_by_filter(&self, x: &[f32], panels: &[Panel], total: usize, kept: Option<&[f32]>) {
        let g = self.g;
        scratch::with(total, |inputs| {
            let shared = Shared::new(inputs);
            (0..g.in_channels).into_par_iter().for_each(|channel| {
                panels.iter().for_each(|panel| self.transform_input(x, panel, channel, &shared, panel.start));
            });
            let inputs = &*inputs;
            (0..self.blocks()).into_par_iter().with_max_len(1).for_each(|block| {
                let len = self.block_len();
                scratch::with(if kept.is_some() { 0 } else { len }, |filters| {
                    let filters = match kept {
                        Some(kept) => &kept[block * len..][..len],
                        None => {
                            self.transform_filters(block, filters);
                            filters
                        }
                    };
                    for panel in panels {
                        self.fill(block, filters, &inputs[panel.start..], panel);
                    }
                });
            });
        });
    }

    /// Blocks of filters.
    fn blocks(&self) -> usize {
        self.g.out_channels.div_ceil(self.kernel.filters())
    }

    /// Values of a block of transformed filters.
    fn block_len(&self) -> usize {
        self.form.rows() * self.g.in_channels * self.kernel.filters()
    }

    /// Writes V = Bᵀ d B of one channel in a panel: a row for each product, which a whole panel's channels lie apart.
    fn transform_input(&self, x: &[f32], panel: &Panel, channel: usize, input: &Shared<'_>, start: usize) {
        let (start, pitch) = (start + channel * panel.width, self.g.in_channels * panel.width);
        let rows = Rows { shared: input, start, pitch, width: panel.width };
        // SAFETY: every channel of every panel has rows of its own.
        unsafe {
            if self.form.step == OUT {
                transform_input(self.g, x, channel, &panel.runs, rows);
            } else {
                transform_strided(self.g, x, channel, &panel.runs, rows);
            }
        }
    }

    /// U = G g Gᵀ of a block of filters: for each product, a row for each channel, a column for each filter.
    fn transform_filters(&self, block: usize, filters: &mut [f32]) {
        let (ins, count) = (self.g.in_channels, self.kernel.filters());
        // Some channels at a time: a row per tap and channel, the same with all channels of a tap together, halfway.
        let most = CHANNELS.min(ins) * count;
        scratch::with((2 * TAPS + 3 * self.form.total) * most + ins * TAPS * count, |space| {
            let (rows, space) = space.split_at_mut(ins * TAPS * count);
            self.weight.interleave(self.g, 0, block * count, count, rows);
            for (step, rows) in rows.chunks(CHANNELS * TAPS * count).enumerate() {
                let len = rows.len() / TAPS;
                let (taps, half) = space.split_at_mut(TAPS * len);
                gather_taps(rows, count, taps);
                let start = |row: usize| (row * ins + step * CHANNELS) * count;
                if self.form.step == OUT {
                    for column in 0..3 {
                        let d = [0, 3, 6].map(|row| &taps[(row + column) * len..][..len]);
                        filter_points(d, six(&mut half[column * len..], 3 * len, len));
                    }
                    for (row, half) in half.chunks_exact(3 * len).take(IN).enumerate() {
                        let d = [0, 1, 2].map(|column| &half[column * len..][..len]);
                        filter_points(d, six(&mut filters[start(row * IN)..], ins * count, len));
                    }
                } else {
                    for column in 0..3 {
                        let d = [0, 3, 6].map(|row| &taps[(row + column) * len..][..len]);
                        strided_filter_points(
                            d,
                            &mut half[column * len..],
                            std::array::from_fn(|row| row * 3 * len),
                        );
                    }
                    for (row, half) in half.chunks_exact(3 * len).take(self.form.total).enumerate() {
                        let d = [0, 1, 2].map(|column| &half[column * len..][..len]);
                        let places = strided_rows(row).map(start);
                        strided_filter_points(d, filters, places);
                    }
                }
            }
        });
    }

    /// Writes the outputs of a block of filters in a panel.
    fn fill(&self, block: usize, filters: &[f32], input: &[f32], panel: &Panel) {
        let (g, kernel, width) = (self.g, self.kernel, panel.width);
        let (count, first) = (kernel.filters(), block * kernel.filters());
        scratch::with(POINTS * count * width, |products| {
            let (mut filters, mut input) = (filters, input);
            for (point, product) in products.chunks_exact_mut(count * width).enumerate() {
                let depth = self.form.parts[point / IN] * self.form.parts[point % IN] * g.in_channels;
                let (a, b);
                (a, filters) = filters.split_at(depth * count);
                (b, input) = input.split_at(depth * width);
                kernel.multiply_some(a, b, width, panel.count(), product);
            }
            for row in 0..count.min(g.out_channels - first) {
                self.transform_output(first + row, &products[row * width..], count * width, panel);
            }
        });
    }

    /// Writes Y = Aᵀ M A of one filter in a panel; the 36 rows of `products` are `pitch` apart.
    fn transform_output(&self, out: usize, products: &[f32], pitch: usize, panel: &Panel) {
        let (g, width) = (self.g, panel.width);
        let [height, across] = g.output;
        scratch::with((OUT * IN + OUT * OUT + OUT * OUT) * width, |space| {
            let (half, rest) = space.split_at_mut(OUT * IN * width);
            let (whole, pixels) = rest.split_at_mut(OUT * OUT * width);
            for column in 0..IN {
                let m = |row: usize| &products[(row * IN + column) * pitch..][..width];
                let m = [m(0), m(1), m(2), m(3), m(4), m(5)];
                output_points(m, half, [0, 1, 2, 3].map(|line| (line * IN + column) * width));
            }
            for line in 0..OUT {
                let m = |column: usize| &half[(line * IN + column) * width..][..width];
                let m = [m(0), m(1), m(2), m(3), m(4), m(5)];
                output_points(m, whole, [0, 1, 2, 3].map(|k| (line * OUT + k) * width));
            }
            for (whole, pixels) in whole.chunks_exact(OUT * width).zip(pixels.chunks_exact_mut(OUT * width)) {
                weave(whole, pixels);
            }
            for run in &panel.runs {
                let (y, x) = (run.down * OUT, run.across * OUT);
                let (lines, len) = (OUT.min(height - y), (OUT * run.len).min(across - x));
                let start = ((run.image * g.out_channels + out) * height + y) * across + x;
                let pixels = &pixels[run.lane * OUT..];
                // SAFETY: no two threads take the same filter in the same panel.
                unsafe {
                    self.finish.store_lines(
                        self.output,
                        out,
                        [start, across],
                        [lines, len],
                        pixels,
                        width * OUT,
                    )
                };
            }
        });
    }
}

/// Gradient of `weight` from `x` and the gradient of the output, where [`fits`]: Gᵀ [Σ (A dY Aᵀ) ⊙ (Bᵀ d B)] G, the
/// sum over all tiles.
pub(crate) fn weight_gradient(g: &Geometry, x: &[f32], gradient: &[f32]) -> Vec<f32> {
    let (outs, ins) = (g.out_channels, g.in_channels);
    let tiling = Tiling::new(g);
    let total = tiling.count(g);
    let most = (rayon::current_num_threads() * BLOCK / (POINTS * (ins + outs))).max(4 * STRIP);
    let per_block = total.div_ceil(total.div_ceil(most));
    scratch::with(POINTS * outs * ins, |products| {
        for first in (0..total).step_by(per_block) {
            let tiles = per_block.min(total - first);
            let strips: Vec<(Range<usize>, Vec<Run>)> = (0..tiles)
                .step_by(STRIP)
                .map(|start| start..tiles.min(start + STRIP))
                .map(|strip| (strip.clone(), tiling.runs(first + strip.start..first + strip.end)))
                .collect();
            scratch::with(POINTS * (ins + outs) * tiles, |space| {
                let shared = Shared::new(space);
                (0..ins + outs).into_par_iter().for_each(|channel| {
                    for (strip, runs) in &strips {
                        let start = channel * POINTS * tiles + strip.start;
                        let rows = Rows { shared: &shared, start, pitch: tiles, width: strip.len() };
                        // SAFETY: every channel has rows of its own, and strips do not overlap.
                        unsafe {
                            if channel < ins {
                                transform_input(g, x, channel, runs, rows);
                            } else {
                                transform_gradient(g, gradient, channel - ins, runs, rows);
                            }
                        }
                    }
                });
                let (input, output) = space.split_at(POINTS * ins * tiles);
                let places: Vec<u32> = (0..tiles as u32).collect();
                products.par_chunks_mut(outs * ins).with_max_len(1).enumerate().for_each(
                    |(point, product)| {
                        let (input, output) = (&input[point * tiles..], &output[point * tiles..]);
                        let (pitch, filters) = (POINTS * tiles, Kernel::new().filters());
                        let lanes = |block: usize| {
                            let first = block * filters;
                            Lanes::rows(&output[first * pitch..], pitch, outs - first, &places)
                        };
                        multiply_rows(product, ins, first > 0, lanes, input, pitch, [ins, tiles]);
                    },
                );
            });
        }
        let mut weight = vec![0.0; outs * ins * 9];
        weight.par_chunks_mut(ins * 9).enumerate().for_each(|(out, filter)| {
            scratch::with((18 + 9) * ins, |space| {
                let (half, taps) = space.split_at_mut(18 * ins);
                let product = |point: usize| &products[(point * outs + out) * ins..][..ins];
                for column in 0..IN {
                    let m = [0, 1, 2, 3, 4, 5].map(|i| product(i * IN + column));
                    weight_points(m, &mut half[column * 3 * ins..][..3 * ins]);
                }
                for row in 0..3 {
                    let m = [0, 1, 2, 3, 4, 5].map(|column| &half[(column * 3 + row) * ins..][..ins]);
                    weight_points(m, &mut taps[row * 3 * ins..][..3 * ins]);
                }
                for (channel, kernel) in filter.as_chunks_mut::<9>().0.iter_mut().enumerate() {
                    kernel.iter_mut().enumerate().for_each(|(tap, value)| *value = taps[tap * ins + channel]);
                }
            });
        });
        weight
    })
}

/// Where the 36 rows of one channel's transformed tiles go.
#[derive(Clone, Copy)]
struct Rows<'a> {
    shared: &'a Shared<'a>,
    start: usize,
    pitch: usize,
    width: usize,
}

impl<'a> Rows<'a> {
    /// The row of a product.
    ///
    /// # Safety
    /// While it lives, nobody else may use it.
    #[inline(always)]
    unsafe fn row(self, row: usize) -> &'a mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { self.shared.slice(self.start + row * self.pitch, self.width) }
    }

    /// The rows at stride 1 of the six points that are level with each other in row `row`.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn level(self, row: usize) -> [&'a mut [f32]; IN] {
        let first = row * IN;
        // SAFETY: they differ; and the caller's promise.
        unsafe {
            [
                self.row(first),
                self.row(first + 1),
                self.row(first + 2),
                self.row(first + 3),
                self.row(first + 4),
                self.row(first + 5),
            ]
        }
    }
}

/// Writes V = Bᵀ d B of one channel of some tiles; zeros after the last tile.
///
/// # Safety
/// No other thread may use `rows` at the same time.
unsafe fn transform_input(g: &Geometry, x: &[f32], channel: usize, runs: &[Run], rows: Rows<'_>) {
    let width = rows.width;
    // Six lines of each tile's first four pixels, and of the two after each run; their vertical transforms; and those dealt by
    // their place in the tile.
    let (lines, ends) = (IN * OUT * width, IN * 2 * runs.len());
    scratch::with(2 * (lines + ends) + (OUT + 2) * IN * width, |space| {
        let (line, rest) = space.split_at_mut(lines + ends);
        let (half, rest) = rest.split_at_mut(lines);
        let (half_end, dealt) = rest.split_at_mut(ends);
        line.fill(0.0);
        let (line, end) = line.split_at_mut(lines);
        copy_runs(&EACH, g, x, channel, runs, [line, end], width);
        input_down(line, OUT * width, half);
        input_down(end, 2 * runs.len(), half_end);
        deal(half, &mut dealt[..OUT * IN * width]);
        let (own, next) = dealt.split_at_mut(OUT * IN * width);
        next[..IN * width - 1].copy_from_slice(&own[1..IN * width]);
        next[IN * width..2 * IN * width - 1].copy_from_slice(&own[IN * width + 1..2 * IN * width]);
        for (place, run) in runs.iter().enumerate() {
            for row in 0..IN {
                for k in 0..2 {
                    next[(k * IN + row) * width + run.lane + run.len - 1] =
                        half_end[(row * runs.len() + place) * 2 + k];
                }
            }
        }
        for row in 0..IN {
            let d = |k: usize| &dealt[(k * IN + row) * width..][..width];
            let d = [d(0), d(1), d(2), d(3), d(4), d(5)];
            // SAFETY: the caller's promise.
            input_points(d, unsafe { rows.level(row) });
        }
    });
}

/// Copies what tiles see of one channel: to `lines`, up to where the next tile begins, and to `ends`, what the last tile of each run sees
/// beyond that.
fn copy_runs(
    form: &Form,
    g: &Geometry,
    x: &[f32],
    channel: usize,
    runs: &[Run],
    [lines, ends]: [&mut [f32]; 2],
    width: usize,
) {
    let ([top, left, ..], step, beyond) = (g.options.padding, form.step, form.span - form.step);
    for (place, run) in runs.iter().enumerate() {
        let plane = &x[(run.image * g.in_channels + channel) * g.input_area()..][..g.input_area()];
        expect(g, x, channel, run, step);
        let at = [(run.down * step).wrapping_sub(top), (run.across * step).wrapping_sub(left)];
        copy_lines(plane, g.input, at, step * run.len, step * width, &mut lines[step * run.lane..]);
        let at = [at[0], at[1].wrapping_add(step * run.len)];
        copy_lines(plane, g.input, at, beyond, beyond * runs.len(), &mut ends[beyond * place..]);
    }
}

/// Brings near what the next channel has where a run is.
fn expect(g: &Geometry, x: &[f32], channel: usize, run: &Run, step: usize) {
    if channel + 1 < g.in_channels {
        let plane = &x[(run.image * g.in_channels + channel + 1) * g.input_area()..][..g.input_area()];
        let [height, width] = g.input;
        let first = (run.down * step).min(height);
        let rows = first..(first + step).min(height);
        simd::prefetch(&plane[rows.start * width..rows.end * width]);
    }
}

/// The products at stride 2 that come from row `row` of what the transform down gave: of the points after 0, and for each but ∞ of the
/// taps at the ends and then of the one between.
fn strided_rows(row: usize) -> [usize; 9] {
    let place = |index: usize| [1 + index / 2, index % 2];
    std::array::from_fn(|column| EVERY_OTHER.row(place(row), place(column)))
}

/// [`transform_input`] at stride 2.
///
/// # Safety
/// No other thread may use `rows` at the same time.
unsafe fn transform_strided(g: &Geometry, x: &[f32], channel: usize, runs: &[Run], rows: Rows<'_>) {
    let width = rows.width;
    let Form { step, span, total, .. } = EVERY_OTHER;
    // The lines of each tile's first eight pixels, and of the one after each run; their vertical transforms; and those dealt by their
    // place in the tile.
    let (lines, ends) = (span * step * width, span * runs.len());
    scratch::with(2 * (lines + ends) + span * total * width, |space| {
        let (line, rest) = space.split_at_mut(lines + ends);
        let (half, rest) = rest.split_at_mut(lines);
        let (half_end, dealt) = rest.split_at_mut(ends);
        line.fill(0.0);
        let (line, end) = line.split_at_mut(lines);
        copy_runs(&EVERY_OTHER, g, x, channel, runs, [line, end], width);
        strided_down(line, step * width, half);
        strided_down(end, runs.len(), half_end);
        deal_eight(half, &mut dealt[..step * total * width]);
        let (own, next) = dealt.split_at_mut(step * total * width);
        next[..total * width - 1].copy_from_slice(&own[1..total * width]);
        for (place, run) in runs.iter().enumerate() {
            for row in 0..total {
                next[row * width + run.lane + run.len - 1] = half_end[row * runs.len() + place];
            }
        }
        for row in 0..total {
            let d = |k: usize| &dealt[(k * total + row) * width..][..width];
            let at = strided_rows(row);
            // SAFETY: these rows differ; and the caller's promise.
            let row = |k: usize| unsafe { rows.row(at[k]) };
            end_rows([d(0), d(2), d(4), d(6), d(8)], [row(0), row(2), row(4), row(6), row(8)]);
            middle_rows([d(1), d(3), d(5), d(7)], [row(1), row(3), row(5), row(7)]);
        }
    });
}

/// Writes P = A dY Aᵀ of one channel of the gradient in some tiles.
///
/// # Safety
/// No other thread may use `rows` at the same time.
unsafe fn transform_gradient(g: &Geometry, gradient: &[f32], channel: usize, runs: &[Run], rows: Rows<'_>) {
    let width = rows.width;
    scratch::with((OUT * OUT + 2 * IN * OUT) * width, |space| {
        let (line, rest) = space.split_at_mut(OUT * OUT * width);
        let (half, dealt) = rest.split_at_mut(IN * OUT * width);
        line.fill(0.0);
        for run in runs {
            let plane =
                &gradient[(run.image * g.out_channels + channel) * g.output_area()..][..g.output_area()];
            let line = &mut line[OUT * run.lane..];
            copy_lines(plane, g.output, [run.down * OUT, run.across * OUT], OUT * run.len, OUT * width, line);
        }
        gradient_down(line, OUT * width, half);
        deal(half, dealt);
        for row in 0..IN {
            let y = |k: usize| &dealt[(k * IN + row) * width..][..width];
            let y = [y(0), y(1), y(2), y(3)];
            // SAFETY: the caller's promise.
            gradient_points(y, unsafe { rows.level(row) });
        }
    });
}

/// G g of one place.
#[inline(always)]
fn tap_points([a, b, c]: [f32; 3]) -> [f32; 6] {
    let near = [(a + A * A * c) * (1.0 / NEAR), b * (A / NEAR)];
    let far = [(a + B * B * c) * (1.0 / FAR), b * (B / FAR)];
    [a * (1.0 / PRODUCT), near[0] + near[1], near[0] - near[1], far[0] + far[1], far[0] - far[1], c]
}

/// Bᵀ d of one place.
#[inline(always)]
fn points([d0, d1, d2, d3, d4, d5]: [f32; 6]) -> [f32; 6] {
    let near = [d4 - B * B * d2, A * (d3 - B * B * d1)];
    let far = [d4 - A * A * d2, B * (d3 - A * A * d1)];
    [
        PRODUCT * d0 - SUM * d2 + d4,
        near[0] + near[1],
        near[0] - near[1],
        far[0] + far[1],
        far[0] - far[1],
        PRODUCT * d1 - SUM * d3 + d5,
    ]
}

/// G g of one place for the taps at the ends, which has no product at 0.
#[inline(always)]
fn end_points([a, c]: [f32; 2]) -> [f32; 5] {
    let near = [a * (A / NEAR), c * (A * A / NEAR)];
    let far = [a * (B / FAR), c * (B * B / FAR)];
    [near[1] + near[0], near[1] - near[0], far[1] + far[0], far[1] - far[0], c]
}

/// Bᵀ d of one place at stride 2, but at ∞.
#[inline(always)]
fn finite_points([d0, d1, d2, d3]: [f32; 4]) -> [f32; 4] {
    let near = [d3 - B * B * d1, A * (d2 - B * B * d0)];
    let far = [d3 - A * A * d1, B * (d2 - A * A * d0)];
    [near[0] + near[1], near[0] - near[1], far[0] + far[1], far[0] - far[1]]
}

/// A y of one place.
#[inline(always)]
fn spread([y0, y1, y2, y3]: [f32; 4]) -> [f32; 6] {
    let near = [y0 + A * A * y2, A * (y1 + A * A * y3)];
    let far = [y0 + B * B * y2, B * (y1 + B * B * y3)];
    [y0, near[0] + near[1], near[0] - near[1], far[0] + far[1], far[0] - far[1], y3]
}

/// Aᵀ m of one place.
#[inline(always)]
fn gathered(m: [f32; 6]) -> [f32; 4] {
    let near = [m[1] + m[2], A * (m[1] - m[2])];
    let far = [m[3] + m[4], B * (m[3] - m[4])];
    [
        m[0] + near[0] + far[0],
        near[1] + far[1],
        A * A * near[0] + B * B * far[0],
        A * A * near[1] + B * B * far[1] + m[5],
    ]
}

vectorised! {
    /// From a row per channel and tap, of `count` values, to all channels' rows of a tap one after the other.
    fn gather_taps(rows: &[f32], count: usize, taps: &mut [f32]) {
        let len = rows.len() / TAPS;
        for (channel, rows) in rows.chunks_exact(TAPS * count).enumerate() {
            for (tap, row) in rows.chunks_exact(count).enumerate() {
                simd::copy(&mut taps[tap * len + channel * count..][..count], row);
            }
        }
    }
}

vectorised! {
    /// G g for every place.
    fn filter_points(d: [&[f32]; 3], out: [&mut [f32]; 6]) {
        let len = d[0].len();
        let (a, b, c) = (&d[0][..len], &d[1][..len], &d[2][..len]);
        let [o0, o1, o2, o3, o4, o5] = out;
        let (o0, o1, o2) = (&mut o0[..len], &mut o1[..len], &mut o2[..len]);
        let (o3, o4, o5) = (&mut o3[..len], &mut o4[..len], &mut o5[..len]);
        for i in 0..len {
            let p = tap_points([a[i], b[i], c[i]]);
            (o0[i], o1[i], o2[i], o3[i], o4[i], o5[i]) = (p[0], p[1], p[2], p[3], p[4], p[5]);
        }
    }
}

vectorised! {
    /// G g for every place at stride 2, from the places `at` on, which are as far apart at least as there are values.
    fn strided_filter_points(d: [&[f32]; 3], out: &mut [f32], at: [usize; 9]) {
        let len = d[0].len();
        let (a, b, c) = (&d[0][..len], &d[1][..len], &d[2][..len]);
        let places = at.map(|start| start..start + len);
        let [o0, o1, o2, o3, o4, o5, o6, o7, o8] = out.get_disjoint_mut(places).expect("places that differ");
        for i in 0..len {
            let ([p, q, r, s, t], [u, v, w, x, _]) = (end_points([a[i], c[i]]), end_points([b[i], 0.0]));
            (o0[i], o2[i], o4[i], o6[i], o8[i]) = (p, q, r, s, t);
            (o1[i], o3[i], o5[i], o7[i]) = (u, v, w, x);
        }
    }
}

vectorised! {
    /// Copies what a plane has of `len` values from `[y, x]` on, of as many rows as there are lines, to lines `pitch` apart. Places left of and
    /// above the plane are negative, wrapped.
    fn copy_lines(
        plane: &[f32],
        size: [usize; 2],
        at: [usize; 2],
        len: usize,
        pitch: usize,
        lines: &mut [f32],
    ) {
        let ([height, width], y, x) = (size, at[0], at[1] as isize);
        let begin = (-x).clamp(0, len as isize) as usize;
        let end = (width as isize - x).clamp(begin as isize, len as isize) as usize;
        let from = (x + begin as isize).clamp(0, width as isize) as usize;
        for (i, line) in lines.chunks_mut(pitch).enumerate() {
            let y = y.wrapping_add(i);
            if y < height {
                simd::copy(&mut line[begin..end], &plane[y * width + from..][..end - begin]);
            }
        }
    }
}

vectorised! {
    /// Value `4 t + k` becomes value `t` of part `k` of four.
    fn deal(values: &[f32], parts: &mut [f32]) {
        let quads = values.as_chunks::<OUT>().0;
        let len = quads.len();
        let (a, rest) = parts.split_at_mut(len);
        let (b, rest) = rest.split_at_mut(len);
        let (c, d) = rest.split_at_mut(len);
        let d = &mut d[..len];
        for (t, [p, q, r, s]) in quads.iter().enumerate() {
            a[t] = *p;
            b[t] = *q;
            c[t] = *r;
            d[t] = *s;
        }
    }
}

vectorised! {
    /// Value `8 t + k` becomes value `t` of part `k` of eight.
    fn deal_eight(values: &[f32], parts: &mut [f32]) {
        let eights = values.as_chunks::<8>().0;
        for (k, part) in parts.chunks_exact_mut(eights.len()).enumerate() {
            part.iter_mut().zip(eights).for_each(|(value, eight)| *value = eight[k]);
        }
    }
}

vectorised! {
    /// The reverse of [`deal`].
    fn weave(parts: &[f32], values: &mut [f32]) {
        let quads = values.as_chunks_mut::<OUT>().0;
        let len = quads.len();
        let (a, rest) = parts.split_at(len);
        let (b, rest) = rest.split_at(len);
        let (c, d) = rest.split_at(len);
        let d = &d[..len];
        for (t, quad) in quads.iter_mut().enumerate() {
            *quad = [a[t], b[t], c[t], d[t]];
        }
    }
}

/// Six rows of `out`, `pitch` apart, the last of at least `len` values.
fn six(out: &mut [f32], pitch: usize, len: usize) -> [&mut [f32]; 6] {
    let (a, rest) = out.split_at_mut(pitch);
    let (b, rest) = rest.split_at_mut(pitch);
    let (c, rest) = rest.split_at_mut(pitch);
    let (d, rest) = rest.split_at_mut(pitch);
    let (e, f) = rest.split_at_mut(pitch);
    [a, b, c, d, e, &mut f[..len]]
}

/// Bᵀ d for every place of six lines, `pitch` apart; results as far apart.
fn input_down(lines: &[f32], pitch: usize, out: &mut [f32]) {
    let d = |k: usize| &lines[k * pitch..][..pitch];
    input_points([d(0), d(1), d(2), d(3), d(4), d(5)], six(out, pitch, pitch));
}

/// The same at stride 2, of nine lines.
fn strided_down(lines: &[f32], pitch: usize, out: &mut [f32]) {
    let d = |k: usize| &lines[k * pitch..][..pitch];
    let lines = std::array::from_fn(|k| k * pitch..(k + 1) * pitch);
    let [p, q, r, s, t, u, v, w, x] = out.get_disjoint_mut(lines).expect("lines that differ");
    end_rows([d(0), d(2), d(4), d(6), d(8)], [p, r, t, v, x]);
    middle_rows([d(1), d(3), d(5), d(7)], [q, s, u, w]);
}

/// A y for every place of four lines, `pitch` apart; results as far apart.
fn gradient_down(lines: &[f32], pitch: usize, out: &mut [f32]) {
    let y = |k: usize| &lines[k * pitch..][..pitch];
    gradient_points([y(0), y(1), y(2), y(3)], six(out, pitch, pitch));
}

vectorised! {
    /// Bᵀ d for every place.
    fn input_points(d: [&[f32]; 6], out: [&mut [f32]; 6]) {
        let len = d[0].len();
        let d = [&d[0][..len], &d[1][..len], &d[2][..len], &d[3][..len], &d[4][..len], &d[5][..len]];
        let [o0, o1, o2, o3, o4, o5] = out;
        let (o0, o1, o2) = (&mut o0[..len], &mut o1[..len], &mut o2[..len]);
        let (o3, o4, o5) = (&mut o3[..len], &mut o4[..len], &mut o5[..len]);
        for i in 0..len {
            let p = points([d[0][i], d[1][i], d[2][i], d[3][i], d[4][i], d[5][i]]);
            (o0[i], o1[i], o2[i], o3[i], o4[i], o5[i]) = (p[0], p[1], p[2], p[3], p[4], p[5]);
        }
    }
}

vectorised! {
    /// Bᵀ d for every place that the taps at the ends see at stride 2.
    fn end_rows(d: [&[f32]; 5], out: [&mut [f32]; 5]) {
        let len = d[0].len();
        let d = [&d[0][..len], &d[1][..len], &d[2][..len], &d[3][..len], &d[4][..len]];
        let [o0, o1, o2, o3, o4] = out;
        let (o0, o1, o2) = (&mut o0[..len], &mut o1[..len], &mut o2[..len]);
        let (o3, o4) = (&mut o3[..len], &mut o4[..len]);
        for i in 0..len {
            let p = finite_points([d[0][i], d[1][i], d[2][i], d[3][i]]);
            (o0[i], o1[i], o2[i], o3[i]) = (p[0], p[1], p[2], p[3]);
            o4[i] = PRODUCT * d[0][i] - SUM * d[2][i] + d[4][i];
        }
    }
}

vectorised! {
    /// The same for the tap between them, which has no product at ∞.
    fn middle_rows(d: [&[f32]; 4], out: [&mut [f32]; 4]) {
        let len = d[0].len();
        let d = [&d[0][..len], &d[1][..len], &d[2][..len], &d[3][..len]];
        let [o0, o1, o2, o3] = out;
        let (o0, o1) = (&mut o0[..len], &mut o1[..len]);
        let (o2, o3) = (&mut o2[..len], &mut o3[..len]);
        for i in 0..len {
            let p = finite_points([d[0][i], d[1][i], d[2][i], d[3][i]]);
            (o0[i], o1[i], o2[i], o3[i]) = (p[0], p[1], p[2], p[3]);
        }
    }
}

vectorised! {
    /// A y for every place.
    fn gradient_points(y: [&[f32]; 4], out: [&mut [f32]; 6]) {
        let len = y[0].len();
        let y = [&y[0][..len], &y[1][..len], &y[2][..len], &y[3][..len]];
        let [o0, o1, o2, o3, o4, o5] = out;
        let (o0, o1, o2) = (&mut o0[..len], &mut o1[..len], &mut o2[..len]);
        let (o3, o4, o5) = (&mut o3[..len], &mut o4[..len], &mut o5[..len]);
        for i in 0..len {
            let p = spread([y[0][i], y[1][i], y[2][i], y[3][i]]);
            (o0[i], o1[i], o2[i], o3[i], o4[i], o5[i]) = (p[0], p[1], p[2], p[3], p[4], p[5]);
        }
    }
}

vectorised! {
    /// Aᵀ m for every place; results from the places `at` on, which ascend.
    fn output_points(m: [&[f32]; 6], out: &mut [f32], at: [usize; 4]) {
        let len = m[0].len();
        let m = [&m[0][..len], &m[1][..len], &m[2][..len], &m[3][..len], &m[4][..len], &m[5][..len]];
        let (y0, rest) = out[at[0]..].split_at_mut(at[1] - at[0]);
        let (y1, rest) = rest.split_at_mut(at[2] - at[1]);
        let (y2, y3) = rest.split_at_mut(at[3] - at[2]);
        let (y0, y1, y2, y3) = (&mut y0[..len], &mut y1[..len], &mut y2[..len], &mut y3[..len]);
        for i in 0..len {
            let y = gathered([m[0][i], m[1][i], m[2][i], m[3][i], m[4][i], m[5][i]]);
            (y0[i], y1[i], y2[i], y3[i]) = (y[0], y[1], y[2], y[3]);
        }
    }
}

vectorised! {
    /// Gᵀ m for every place; results one after the other.
    fn weight_points(m: [&[f32]; 6], out: &mut [f32]) {
        let len = m[0].len();
        let m = m.map(|m| &m[..len]);
        let (w0, rest) = out.split_at_mut(len);
        let (w1, w2) = rest.split_at_mut(len);
        let w2 = &mut w2[..len];
        for i in 0..len {
            let near = [(m[1][i] + m[2][i]) * (1.0 / NEAR), (m[1][i] - m[2][i]) * (1.0 / NEAR)];
            let far = [(m[3][i] + m[4][i]) * (1.0 / FAR), (m[3][i] - m[4][i]) * (1.0 / FAR)];
            w0[i] = m[0][i] * (1.0 / PRODUCT) + near[0] + far[0];
            w1[i] = A * near[1] + B * far[1];
            w2[i] = A * A * near[0] + B * B * far[0] + m[5][i];
        }
    }
}
