//! Convolution with 3x3 kernels and stride 1 by Winograd's F(4x4, 3x3): 36 products for 16 pixels instead of 144.
//! Source: Lavin and Gray, arXiv:1509.09308, sections 3 and 4.3, with the points 0, ±5/8, ±3/2 and ∞ in place of 0, ±1,
//! ±2 and ∞: all are exact in `f32`, and as they lie closer to one in size, less is lost to cancellation (Barabasz et
//! al., arXiv:1803.10986). What is lost all the same, the tests bound against `f64`.

use std::ops::Range;

use rayon::prelude::*;

use crate::filters::Filters;
use crate::finish::Finish;
use crate::kernel::{Kernel, Lanes};
use crate::options::Geometry;
use crate::scratch;
use crate::simd::{self, vectorised};
use crate::turn::multiply_rows;
use crate::window::Shared;

/// Pixels of a tile's output across and down, and of its input.
const OUT: usize = 4;
const IN: usize = 6;
/// Products per tile, channel and filter.
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
/// Channels whose filters are transformed at once.
const CHANNELS: usize = 32;
/// Fewest channels in and out for which the transforms pay.
const LEAST_CHANNELS: usize = 32;
/// Fewest tiles in all for which transforming the filters pays.
const LEAST_IN_ALL: usize = 32;
/// Fewest tiles in all for which transforming the weight's gradient back pays.
const LEAST_FOR_WEIGHTS: usize = 64;
/// Fewest panels per thread for which a thread takes whole panels.
const LEAST_PANELS: usize = 4;
/// Values that a block of the weight gradient's transformed input and output may hold together, per thread.
const BLOCK: usize = 1 << 20;
/// Tiles that the weight gradient transforms at once.
const STRIP: usize = 64;

/// Whether this module computes the convolution, and is likely to be faster than columns.
pub(crate) fn fits(g: &Geometry) -> bool {
    let o = &g.options;
    o.winograd
        && g.kernel == [3; 2]
        && o.stride == [1; 2]
        && o.dilation == [1; 2]
        && o.groups == 1
        && g.in_channels >= LEAST_CHANNELS
        && g.out_channels >= LEAST_CHANNELS
        && g.output[0] >= OUT
        && g.output[1] >= OUT
        && g.images * g.output[0].div_ceil(OUT) * g.output[1].div_ceil(OUT) >= LEAST_IN_ALL
}

/// Whether this module is likely to be the fastest way to the weight's gradient.
pub(crate) fn fits_weight(g: &Geometry) -> bool {
    fits(g) && Tiling::new(g).count(g) >= LEAST_FOR_WEIGHTS
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
    finish: &Finish<'_>,
    output: &Shared<'_>,
) {
    let (kernel, tiling) = (Kernel::new(), Tiling::new(g));
    let mut total = 0;
    let panels: Vec<Panel> = (0..tiling.count(g))
        .step_by(kernel.columns())
        .map(|first| {
            let tiles = first..tiling.count(g).min(first + kernel.columns());
            let (width, start) = (kernel.width(tiles.len()), total);
            total += POINTS * g.in_channels * width;
            Panel { runs: tiling.runs(tiles), width, start }
        })
        .collect();
    let work = Work { g, kernel, weight, finish, output };
    if panels.len() >= LEAST_PANELS * rayon::current_num_threads() {
        work.panel_by_panel(x, &panels);
    } else {
        work.filter_by_filter(x, &panels, total);
    }
}

impl Work<'_> {
    /// Every thread takes whole panels, and meets all filters, which are transformed beforehand.
    fn panel_by_panel(&self, x: &[f32], panels: &[Panel]) {
        let (g, len) = (self.g, self.block_len());
        scratch::with(self.blocks() * len, |filters| {
            filters.par_chunks_mut(len).enumerate().for_each(|(block, filters)| {
                self.transform_filters(block, filters);
            });
            let filters = &*filters;
            panels.par_iter().for_each(|panel| {
                scratch::with(POINTS * g.in_channels * panel.width, |input| {
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
    fn filter_by_filter(&self, x: &[f32], panels: &[Panel], total: usize) {
        let g = self.g;
        scratch::with(total, |inputs| {
            let shared = Shared::new(inputs);
            (0..g.in_channels).into_par_iter().for_each(|channel| {
                panels.iter().for_each(|panel| self.transform_input(x, panel, channel, &shared, panel.start));
            });
            let inputs = &*inputs;
            (0..self.blocks()).into_par_iter().for_each(|block| {
                scratch::with(self.block_len(), |filters| {
                    self.transform_filters(block, filters);
                    for panel in panels {
                        let input = &inputs[panel.start..][..POINTS * g.in_channels * panel.width];
                        self.fill(block, filters, input, panel);
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
        POINTS * self.g.in_channels * self.kernel.filters()
    }

    /// Writes V = Bᵀ d B of one channel in a panel: a row for each of 36 points, which a whole panel's channels lie apart.
    fn transform_input(&self, x: &[f32], panel: &Panel, channel: usize, input: &Shared<'_>, start: usize) {
        let (start, pitch) = (start + channel * panel.width, self.g.in_channels * panel.width);
        // SAFETY: every channel of every panel has rows of its own.
        unsafe {
            transform_input(
                self.g,
                x,
                channel,
                &panel.runs,
                Rows { shared: input, start, pitch, width: panel.width },
            );
        }
    }

    /// U = G g Gᵀ of a block of filters: for each of 36 points, a row for each channel, a column for each filter.
    fn transform_filters(&self, block: usize, filters: &mut [f32]) {
        let (ins, count) = (self.g.in_channels, self.kernel.filters());
        // Some channels at a time: a row per tap and channel, the same with all channels of a tap together, halfway.
        let most = CHANNELS.min(ins) * count;
        scratch::with((2 * TAPS + 3 * IN) * most + ins * TAPS * count, |space| {
            let (rows, space) = space.split_at_mut(ins * TAPS * count);
            self.weight.interleave(self.g, 0, block * count, count, rows);
            for (step, rows) in rows.chunks(CHANNELS * TAPS * count).enumerate() {
                let len = rows.len() / TAPS;
                let (taps, half) = space.split_at_mut(TAPS * len);
                gather_taps(rows, count, taps);
                for column in 0..3 {
                    let d = [0, 3, 6].map(|row| &taps[(row + column) * len..][..len]);
                    filter_points(d, six(&mut half[column * len..], 3 * len, len));
                }
                for (row, half) in half.chunks_exact(3 * len).take(IN).enumerate() {
                    let d = [0, 1, 2].map(|column| &half[column * len..][..len]);
                    let start = row * IN * ins * count + step * CHANNELS * count;
                    filter_points(d, six(&mut filters[start..], ins * count, len));
                }
            }
        });
    }

    /// Writes the outputs of a block of filters in a panel.
    fn fill(&self, block: usize, filters: &[f32], input: &[f32], panel: &Panel) {
        let (g, kernel, width) = (self.g, self.kernel, panel.width);
        let (count, first) = (kernel.filters(), block * kernel.filters());
        scratch::with(POINTS * count * width, |products| {
            let filters = filters.chunks_exact(g.in_channels * count);
            let inputs = input.chunks_exact(g.in_channels * width);
            for ((filters, input), product) in
                filters.zip(inputs).zip(products.chunks_exact_mut(count * width))
            {
                kernel.multiply_some(filters, input, width, panel.count(), product);
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
                products.par_chunks_mut(outs * ins).enumerate().for_each(|(point, product)| {
                    let (input, output) = (&input[point * tiles..], &output[point * tiles..]);
                    let (pitch, filters) = (POINTS * tiles, Kernel::new().filters());
                    let lanes = |block: usize| {
                        let first = block * filters;
                        Lanes::rows(&output[first * pitch..], pitch, outs - first, &places)
                    };
                    multiply_rows(product, ins, first > 0, lanes, input, pitch, [ins, tiles]);
                });
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

impl Rows<'_> {
    /// Calls `work` with the places of the six points that are level with each other in row `row`.
    ///
    /// # Safety
    /// No other thread may use these rows at the same time.
    unsafe fn of(self, row: usize, work: impl FnOnce([&mut [f32]; IN])) {
        let window = |column: usize| {
            let start = self.start + (row * IN + column) * self.pitch;
            // SAFETY: the six rows differ, and nobody else uses them.
            unsafe { self.shared.window(start, 1, self.width, self.width) }
        };
        let mut w = [window(0), window(1), window(2), window(3), window(4), window(5)];
        let [a, b, c, d, e, f] = &mut w;
        work([a.row(0), b.row(0), c.row(0), d.row(0), e.row(0), f.row(0)]);
    }
}

/// Writes V = Bᵀ d B of one channel of some tiles; zeros after the last tile.
///
/// # Safety
/// No other thread may use `rows` at the same time.
unsafe fn transform_input(g: &Geometry, x: &[f32], channel: usize, runs: &[Run], rows: Rows<'_>) {
    let ([top, left, ..], width) = (g.options.padding, rows.width);
    // Six lines of each tile's first four pixels, and of the two after each run; their vertical transforms; and those dealt by
    // their place in the tile.
    let (lines, ends) = (IN * OUT * width, IN * 2 * runs.len());
    scratch::with(2 * (lines + ends) + (OUT + 2) * IN * width, |space| {
        let (line, rest) = space.split_at_mut(lines + ends);
        let (half, rest) = rest.split_at_mut(lines);
        let (half_end, dealt) = rest.split_at_mut(ends);
        line.fill(0.0);
        let (line, end) = line.split_at_mut(lines);
        for (place, run) in runs.iter().enumerate() {
            let plane = &x[(run.image * g.in_channels + channel) * g.input_area()..][..g.input_area()];
            let at = [(run.down * OUT).wrapping_sub(top), (run.across * OUT).wrapping_sub(left)];
            copy_lines(plane, g.input, at, OUT * run.len, OUT * width, &mut line[OUT * run.lane..]);
            let at = [at[0], at[1].wrapping_add(OUT * run.len)];
            copy_lines(plane, g.input, at, 2, 2 * runs.len(), &mut end[2 * place..]);
        }
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
            unsafe { rows.of(row, |out| input_points(d, out)) };
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
            unsafe { rows.of(row, |out| gradient_points(y, out)) };
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
    /// Copies what a plane has of `len` values from `[y, x]` on, of up to six rows, to lines `pitch` apart. Places left of and
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
