//! Convolution with 3x3 kernels and stride 1 by Winograd's F(4x4, 3x3): 36 products for 16 pixels instead of 144.
//! Source: Lavin and Gray, arXiv:1509.09308, sections 3 and 4.3, with the points 0, ±5/8, ±3/2 and ∞ in place of 0, ±1,
//! ±2 and ∞: all are exact in `f32`, and as they lie closer to one in size, less is lost to cancellation (Barabasz et
//! al., arXiv:1803.10986). What is lost all the same, the tests bound against `f64`.

use std::ops::Range;

use rayon::prelude::*;

use crate::gemm::{Matrix, multiply};
use crate::options::Geometry;
use crate::scratch;
use crate::simd::vectorised;
use crate::window::{Shared, Window};

/// Pixels of a tile's output across and down, and of its input.
const OUT: usize = 4;
const IN: usize = 6;
/// Products per tile, channel and filter.
const POINTS: usize = IN * IN;
/// The points other than 0 and ∞: ±A and ±B.
const A: f32 = 0.625;
const B: f32 = 1.5;
/// What the transforms make of them.
const SUM: f32 = A * A + B * B;
const PRODUCT: f32 = A * A * B * B;
const NEAR: f32 = 2.0 * A * A * (A * A - B * B);
const FAR: f32 = 2.0 * B * B * (B * B - A * A);
/// Fewest channels in and out for which the transforms pay.
const LEAST_CHANNELS: usize = 32;
/// Values that a task's transformed input and output may hold together.
const BLOCK: usize = 1 << 20;
/// Fewest tiles of a task, unless there are no more.
const LEAST_TILES: usize = 64;
/// Fewest tiles in all for which transforming the filters pays.
const LEAST_IN_ALL: usize = 32;

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

/// Tiles of a convolution: rows of tiles over all images, one after the other.
#[derive(Clone, Copy)]
struct Tiling {
    down: usize,
    across: usize,
}

/// Output `[N, Co, Ho, Wo]` for `x` `[N, Ci, H, W]`, `weight` `[Co, Ci, 3, 3]` and `bias` `[Co]`, where [`fits`].
pub(crate) fn forward(g: &Geometry, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    scratch::with(POINTS * g.out_channels * g.in_channels, |filters| {
        transform_filters(g, weight, filters);
        with_filters(g, x, filters, bias)
    })
}

/// [`forward`] with the transformed `filters`.
fn with_filters(g: &Geometry, x: &[f32], filters: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let tiling = Tiling { down: g.output[0].div_ceil(OUT), across: g.output[1].div_ceil(OUT) };
    let rows = g.images * tiling.down;
    let threads = rayon::current_num_threads();
    let tiles = (BLOCK / (POINTS * (g.in_channels + g.out_channels))).max(LEAST_TILES);
    let mut per_task = (tiles / tiling.across).clamp(1, rows);
    // Each thread as many tasks as any other, as far as there are enough.
    let tasks = rows.div_ceil(per_task);
    if tasks >= threads {
        per_task = rows.div_ceil(tasks.next_multiple_of(threads));
    } else if rows * tiling.across >= threads * LEAST_TILES {
        per_task = rows.div_ceil(threads);
    }
    let blocks: Vec<Range<usize>> =
        (0..rows.div_ceil(per_task)).map(|b| b * per_task..rows.min((b + 1) * per_task)).collect();
    // With fewer blocks than threads, threads share a block's filters and each transforms the input anew.
    let parts = threads.div_ceil(blocks.len());
    let share = g.out_channels.div_ceil(parts).next_multiple_of(16).min(g.out_channels);
    let tasks: Vec<(Range<usize>, Range<usize>)> = blocks
        .iter()
        .flat_map(|block| {
            (0..g.out_channels.div_ceil(share))
                .map(|part| (block.clone(), part * share..g.out_channels.min((part + 1) * share)))
        })
        .collect();
    let mut output = vec![0.0; g.images * g.out_channels * g.output_area()];
    let shared = Shared::new(&mut output);
    tasks.into_par_iter().for_each(|(rows, outs)| {
        let tiles = rows.len() * tiling.across;
        scratch::with(POINTS * g.in_channels * tiles, |input| {
            for channel in 0..g.in_channels {
                let input = &mut input[channel * tiles..];
                transform_input(g, tiling, x, rows.clone(), channel, input, g.in_channels * tiles);
            }
            scratch::with(POINTS * outs.len() * tiles, |products| {
                for point in 0..POINTS {
                    let filters = &filters[(point * g.out_channels + outs.start) * g.in_channels..];
                    let filters = Matrix::new(filters, outs.len(), g.in_channels, g.in_channels);
                    let input = &input[point * g.in_channels * tiles..][..g.in_channels * tiles];
                    let input = Matrix::new(input, g.in_channels, tiles, tiles);
                    let target = &mut products[point * outs.len() * tiles..][..outs.len() * tiles];
                    multiply(&mut Window::of(target, tiles), false, filters, input);
                }
                transform_output(g, tiling, products, rows, outs, bias, &shared);
            });
        });
    });
    output
}

/// Gradient of `weight` from `x` and the gradient of the output, where [`fits`]: Gᵀ [Σ (A dY Aᵀ) ⊙ (Bᵀ d B)] G, the
/// sum over all tiles.
pub(crate) fn weight_gradient(g: &Geometry, x: &[f32], gradient: &[f32]) -> Vec<f32> {
    let (outs, ins) = (g.out_channels, g.in_channels);
    let tiling = Tiling { down: g.output[0].div_ceil(OUT), across: g.output[1].div_ceil(OUT) };
    let rows = g.images * tiling.down;
    let most = (rayon::current_num_threads() * BLOCK / (POINTS * (ins + outs))).max(4 * LEAST_TILES);
    let per_block = rows.div_ceil(rows.div_ceil((most / tiling.across).max(1)));
    let mut products = vec![0.0; POINTS * outs * ins];
    for start in (0..rows).step_by(per_block) {
        let block = start..rows.min(start + per_block);
        let tiles = block.len() * tiling.across;
        scratch::with(POINTS * (ins + outs) * tiles, |space| {
            let (input, output) = space.split_at_mut(POINTS * ins * tiles);
            input.par_chunks_mut(POINTS * tiles).enumerate().for_each(|(channel, input)| {
                transform_input(g, tiling, x, block.clone(), channel, input, tiles);
            });
            output.par_chunks_mut(POINTS * tiles).enumerate().for_each(|(channel, output)| {
                transform_gradient(g, tiling, gradient, block.clone(), channel, output);
            });
            products.par_chunks_mut(outs * ins).enumerate().for_each(|(point, product)| {
                let output = Matrix::new(&output[point * tiles..], outs, tiles, POINTS * tiles);
                let input = Matrix::new(&input[point * tiles..], ins, tiles, POINTS * tiles);
                multiply(&mut Window::of(product, ins), start > 0, output, input.transposed());
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
}

/// Writes U = G g Gᵀ of every filter and channel: `[36, Co, Ci]`.
fn transform_filters(g: &Geometry, weight: &[f32], filters: &mut [f32]) {
    let (outs, ins) = (g.out_channels, g.in_channels);
    let shared = Shared::new(filters);
    (0..outs).into_par_iter().for_each(|out| {
        scratch::with((9 + 18 + POINTS) * ins, |space| {
            let (taps, rest) = space.split_at_mut(9 * ins);
            let (half, whole) = rest.split_at_mut(18 * ins);
            let filter = &weight[out * ins * 9..][..ins * 9];
            for (channel, kernel) in filter.as_chunks::<9>().0.iter().enumerate() {
                kernel.iter().enumerate().for_each(|(tap, value)| taps[tap * ins + channel] = *value);
            }
            // Down, then across.
            for column in 0..3 {
                let d = [0, 1, 2].map(|row| &taps[(row * 3 + column) * ins..][..ins]);
                filter_points(d, &mut half[column * IN * ins..][..IN * ins]);
            }
            for point in 0..IN {
                let d = [0, 1, 2].map(|column| &half[(column * IN + point) * ins..][..ins]);
                filter_points(d, &mut whole[point * IN * ins..][..IN * ins]);
            }
            for (point, values) in whole.chunks_exact(ins).enumerate() {
                // SAFETY: every filter writes rows of its own.
                let mut row = unsafe { shared.window((point * outs + out) * ins, 1, ins, ins) };
                row.row(0).copy_from_slice(values);
            }
        });
    });
}

/// V = Bᵀ d B of the tiles in `rows`, one channel: 36 times `tiles` values, `pitch` apart.
fn transform_input(
    g: &Geometry,
    tiling: Tiling,
    x: &[f32],
    rows: Range<usize>,
    channel: usize,
    input: &mut [f32],
    pitch: usize,
) {
    let tiles = rows.len() * tiling.across;
    let len = OUT * tiling.across + 2;
    let [top, left, ..] = g.options.padding;
    scratch::with(IN * len + IN * len * rows.len() + IN * tiles, |space| {
        let (lines, rest) = space.split_at_mut(IN * len);
        let (half, taps) = rest.split_at_mut(IN * len * rows.len());
        for (place, row) in rows.clone().enumerate() {
            let (image, down) = (row / tiling.down, row % tiling.down);
            let plane = &x[(image * g.in_channels + channel) * g.input_area()..][..g.input_area()];
            for (i, line) in lines.chunks_exact_mut(len).enumerate() {
                copy_line(plane, g.input, (down * OUT + i).checked_sub(top), left, line);
            }
            let lines = [0, 1, 2, 3, 4, 5].map(|i| &lines[i * len..][..len]);
            input_points(lines, &mut half[place * IN * len..][..IN * len], len);
        }
        for point in 0..IN {
            for place in 0..rows.len() {
                let line = &half[(place * IN + point) * len..][..len];
                deal(line, taps, place * tiling.across, tiles, tiling.across);
            }
            let d = [0, 1, 2, 3, 4, 5].map(|i| &taps[i * tiles..][..tiles]);
            input_points(d, &mut input[point * IN * pitch..], pitch);
        }
    });
}

/// P = A dY Aᵀ of the tiles in `rows`, one channel of the gradient: 36 times `tiles` values, one after the other.
fn transform_gradient(
    g: &Geometry,
    tiling: Tiling,
    gradient: &[f32],
    rows: Range<usize>,
    channel: usize,
    output: &mut [f32],
) {
    let tiles = rows.len() * tiling.across;
    let len = OUT * tiling.across;
    scratch::with(OUT * len + IN * len * rows.len() + OUT * tiles, |space| {
        let (lines, rest) = space.split_at_mut(OUT * len);
        let (half, taps) = rest.split_at_mut(IN * len * rows.len());
        for (place, row) in rows.clone().enumerate() {
            let (image, down) = (row / tiling.down, row % tiling.down);
            let plane = &gradient[(image * g.out_channels + channel) * g.output_area()..][..g.output_area()];
            for (i, line) in lines.chunks_exact_mut(len).enumerate() {
                copy_line(plane, g.output, Some(down * OUT + i), 0, line);
            }
            let lines = [0, 1, 2, 3].map(|i| &lines[i * len..][..len]);
            gradient_points(lines, &mut half[place * IN * len..][..IN * len]);
        }
        for point in 0..IN {
            for place in 0..rows.len() {
                let line = &half[(place * IN + point) * len..][..len];
                deal(line, taps, place * tiling.across, tiles, tiling.across);
            }
            let y = [0, 1, 2, 3].map(|i| &taps[i * tiles..][..tiles]);
            gradient_points(y, &mut output[point * IN * tiles..][..IN * tiles]);
        }
    });
}

/// Row `y` of a plane behind `left` zeros, with zeros after it; nothing but zeros where there is no such row.
fn copy_line(plane: &[f32], [height, width]: [usize; 2], y: Option<usize>, left: usize, line: &mut [f32]) {
    let inner = left.min(line.len())..(left + width).min(line.len());
    match y {
        Some(y) if y < height => {
            line[..inner.start].fill(0.0);
            line[inner.end..].fill(0.0);
            let source = &plane[y * width..][..inner.len()];
            line[inner].copy_from_slice(source);
        }
        _ => line.fill(0.0),
    }
}

/// Writes Y = Aᵀ M A plus bias of the tiles in `rows` for the filters `outs`.
fn transform_output(
    g: &Geometry,
    tiling: Tiling,
    products: &[f32],
    rows: Range<usize>,
    outs: Range<usize>,
    bias: Option<&[f32]>,
    shared: &Shared<'_>,
) {
    let tiles = rows.len() * tiling.across;
    let [height, width] = g.output;
    scratch::with((OUT * IN + OUT * OUT) * tiles, |space| {
        let (half, whole) = space.split_at_mut(OUT * IN * tiles);
        for out in outs.clone() {
            let product =
                |point: usize| &products[(point * outs.len() + out - outs.start) * tiles..][..tiles];
            for column in 0..IN {
                let m = [0, 1, 2, 3, 4, 5].map(|i| product(i * IN + column));
                output_points(m, 0.0, &mut half[column * OUT * tiles..][..OUT * tiles]);
            }
            let shift = bias.map_or(0.0, |bias| bias[out]);
            for line in 0..OUT {
                let m = [0, 1, 2, 3, 4, 5].map(|column| &half[(column * OUT + line) * tiles..][..tiles]);
                output_points(m, shift, &mut whole[line * OUT * tiles..][..OUT * tiles]);
            }
            for (place, row) in rows.clone().enumerate() {
                let (image, down) = (row / tiling.down, row % tiling.down);
                for line in 0..OUT.min(height - down * OUT) {
                    let start =
                        (image * g.out_channels + out) * g.output_area() + (down * OUT + line) * width;
                    // SAFETY: tasks differ in their rows of tiles or in their filters, so that no pixel belongs to two.
                    let mut window = unsafe { shared.window(start, 1, width, width) };
                    let parts = &whole[line * OUT * tiles..][..OUT * tiles];
                    weave(parts, tiles, place * tiling.across, window.row(0));
                }
            }
        }
    });
}

vectorised! {
    /// G d for every place.
    fn filter_points(d: [&[f32]; 3], out: &mut [f32]) {
        let len = d[0].len();
        let [a, b, c] = d.map(|d| &d[..len]);
        let (p0, rest) = out.split_at_mut(len);
        let (p1, rest) = rest.split_at_mut(len);
        let (p2, rest) = rest.split_at_mut(len);
        let (p3, rest) = rest.split_at_mut(len);
        let (p4, p5) = rest.split_at_mut(len);
        let p5 = &mut p5[..len];
        for i in 0..len {
            let (a, b, c) = (a[i], b[i], c[i]);
            let near = [(a + A * A * c) / NEAR, A * b / NEAR];
            let far = [(a + B * B * c) / FAR, B * b / FAR];
            p0[i] = a / PRODUCT;
            p1[i] = near[0] + near[1];
            p2[i] = near[0] - near[1];
            p3[i] = far[0] + far[1];
            p4[i] = far[0] - far[1];
            p5[i] = c;
        }
    }
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

vectorised! {
    /// Bᵀ d for every place; results `pitch` apart.
    fn input_points(d: [&[f32]; 6], out: &mut [f32], pitch: usize) {
        let len = d[0].len();
        let d = d.map(|d| &d[..len]);
        let (p0, rest) = out.split_at_mut(pitch);
        let (p1, rest) = rest.split_at_mut(pitch);
        let (p2, rest) = rest.split_at_mut(pitch);
        let (p3, rest) = rest.split_at_mut(pitch);
        let (p4, p5) = rest.split_at_mut(pitch);
        let (p0, p1, p2) = (&mut p0[..len], &mut p1[..len], &mut p2[..len]);
        let (p3, p4, p5) = (&mut p3[..len], &mut p4[..len], &mut p5[..len]);
        for i in 0..len {
            let p = points([d[0][i], d[1][i], d[2][i], d[3][i], d[4][i], d[5][i]]);
            p0[i] = p[0];
            p1[i] = p[1];
            p2[i] = p[2];
            p3[i] = p[3];
            p4[i] = p[4];
            p5[i] = p[5];
        }
    }
}

vectorised! {
    /// Aᵀ m plus `shift` for every place; results one after the other.
    fn output_points(m: [&[f32]; 6], shift: f32, out: &mut [f32]) {
        let len = m[0].len();
        let m = m.map(|m| &m[..len]);
        let (y0, rest) = out.split_at_mut(len);
        let (y1, rest) = rest.split_at_mut(len);
        let (y2, y3) = rest.split_at_mut(len);
        let y3 = &mut y3[..len];
        for i in 0..len {
            let near = [m[1][i] + m[2][i], A * (m[1][i] - m[2][i])];
            let far = [m[3][i] + m[4][i], B * (m[3][i] - m[4][i])];
            y0[i] = m[0][i] + near[0] + far[0] + shift;
            y1[i] = near[1] + far[1] + shift;
            y2[i] = A * A * near[0] + B * B * far[0] + shift;
            y3[i] = A * A * near[1] + B * B * far[1] + m[5][i] + shift;
        }
    }
}

vectorised! {
    /// A y for every place; results one after the other.
    fn gradient_points(y: [&[f32]; 4], out: &mut [f32]) {
        let len = y[0].len();
        let y = y.map(|y| &y[..len]);
        let (p0, rest) = out.split_at_mut(len);
        let (p1, rest) = rest.split_at_mut(len);
        let (p2, rest) = rest.split_at_mut(len);
        let (p3, rest) = rest.split_at_mut(len);
        let (p4, p5) = rest.split_at_mut(len);
        let p5 = &mut p5[..len];
        for i in 0..len {
            let [y0, y1, y2, y3] = [y[0][i], y[1][i], y[2][i], y[3][i]];
            let near = [y0 + A * A * y2, A * (y1 + A * A * y3)];
            let far = [y0 + B * B * y2, B * (y1 + B * B * y3)];
            p0[i] = y0;
            p1[i] = near[0] + near[1];
            p2[i] = near[0] - near[1];
            p3[i] = far[0] + far[1];
            p4[i] = far[0] - far[1];
            p5[i] = y3;
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
            let near = [(m[1][i] + m[2][i]) / NEAR, (m[1][i] - m[2][i]) / NEAR];
            let far = [(m[3][i] + m[4][i]) / FAR, (m[3][i] - m[4][i]) / FAR];
            w0[i] = m[0][i] / PRODUCT + near[0] + far[0];
            w1[i] = A * near[1] + B * far[1];
            w2[i] = A * A * near[0] + B * B * far[0] + m[5][i];
        }
    }
}

vectorised! {
    /// Value `4 t + k` of `line` becomes value `start + t` of part `k` of `taps`, whose six parts are `tiles` long.
    fn deal(line: &[f32], taps: &mut [f32], start: usize, tiles: usize, across: usize) {
        for (k, part) in taps.chunks_exact_mut(tiles).enumerate() {
            let part = &mut part[start..start + across];
            for (value, source) in part.iter_mut().zip(line[k..].chunks(OUT)) {
                *value = source[0];
            }
        }
    }
}

vectorised! {
    /// The reverse of [`deal`] with four parts, as far as `line` goes.
    fn weave(parts: &[f32], tiles: usize, start: usize, line: &mut [f32]) {
        let part = |k: usize| &parts[k * tiles + start..(k + 1) * tiles];
        let (a, b, c, d) = (part(0), part(1), part(2), part(3));
        let (whole, rest) = line.as_chunks_mut::<OUT>();
        let count = whole.len();
        for (t, pixels) in whole.iter_mut().enumerate() {
            *pixels = [a[t], b[t], c[t], d[t]];
        }
        for (k, pixel) in rest.iter_mut().enumerate() {
            *pixel = [a, b, c, d][k][count];
        }
    }
}
