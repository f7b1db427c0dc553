//! Convolution of any shape as products of matrices: filters times columns, in tiles whose columns stay in cache.

use std::ops::Range;

use rayon::prelude::*;

use crate::gemm::{Matrix, multiply};
use crate::im2col::{col2im, im2col};
use crate::options::Geometry;
use crate::scratch;
use crate::window::{Shared, Window};
use crate::winograd;

/// Values of the column matrix that a tile may hold: 4 MB, a core's share of the last cache.
const TILE: usize = 1 << 20;
/// Fewest and most columns that a tile may have.
const COLUMNS: [usize; 2] = [512, 1024];
/// Columns that the product takes at once: a block that is not full costs as much as one that is.
const BLOCK: usize = 64;

/// Output `[N, Co, Ho, Wo]` for `x` `[N, Ci, H, W]`, `weight` `[Co, Ci / groups, Kh, Kw]` and `bias` `[Co]`.
pub(crate) fn forward(g: &Geometry, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    if winograd::fits(g) { winograd::forward(g, x, weight, bias) } else { by_columns(g, x, weight, bias) }
}

fn by_columns(g: &Geometry, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let mut output = vec![0.0; g.images * g.out_channels * g.output_area()];
    let (groups, threads) = (g.options.groups, rayon::current_num_threads());
    let tiles = Plan::new(g, g.depth(), threads.div_ceil(groups)).all(g);
    let channels = blocks(g.group_out(), threads.div_ceil((tiles.len() * groups).max(1)), 16);
    let tasks = product(groups, &channels, &tiles);
    let shared = Shared::new(&mut output);
    tasks.into_par_iter().for_each(|(group, channels, tile)| {
        let first = group * g.group_out() + channels.start;
        let filters = Matrix::new(&weight[first * g.depth()..], channels.len(), g.depth(), g.depth());
        let target = Target { shared: &shared, first, count: channels.len(), bias };
        let inputs = group * g.group_in()..(group + 1) * g.group_in();
        with_columns(g, x, inputs, &tile, |columns| target.fill(g, &tile, filters, columns));
    });
    output
}

/// Gradient of `weight` from `x` and the gradient of the output.
pub(crate) fn weight_gradient(g: &Geometry, x: &[f32], gradient: &[f32]) -> Vec<f32> {
    if winograd::fits(g) {
        return winograd::weight_gradient(g, x, gradient);
    }
    let mut output = vec![0.0; g.out_channels * g.depth()];
    let (groups, threads) = (g.options.groups, rayon::current_num_threads());
    let inputs = blocks(g.group_in(), threads.div_ceil(groups), 1);
    let outputs = blocks(g.group_out(), threads.div_ceil(groups * inputs.len()), 16);
    let tasks = product(groups, &outputs, &inputs);
    let area = g.kernel_area();
    let shared = Shared::new(&mut output);
    tasks.into_par_iter().for_each(|(group, outputs, inputs)| {
        let first = group * g.group_out() + outputs.start;
        let (start, depth) = (first * g.depth() + inputs.start * area, inputs.len() * area);
        // SAFETY: tasks differ in their filters or in their input channels, so that no weight belongs to two.
        let mut target = unsafe { shared.window(start, outputs.len(), depth, g.depth()) };
        let channels = group * g.group_in() + inputs.start..group * g.group_in() + inputs.end;
        for (step, tile) in Plan::new(g, depth, 1).all(g).into_iter().enumerate() {
            with_columns(g, x, channels.clone(), &tile, |columns| {
                with_gradient(g, gradient, first, outputs.len(), &tile, |gradient| {
                    multiply(&mut target, step > 0, gradient, columns.transposed());
                });
            });
        }
    });
    output
}

/// Gradient of `x` from `weight` and the gradient of the output.
pub(crate) fn input_gradient(g: &Geometry, weight: &[f32], gradient: &[f32]) -> Vec<f32> {
    match g.transposed() {
        Some(transposed) => forward(&transposed, gradient, &flipped(g, weight), None),
        None => scattered_gradient(g, weight, gradient),
    }
}

/// [`input_gradient`] by spreading columns over the image.
fn scattered_gradient(g: &Geometry, weight: &[f32], gradient: &[f32]) -> Vec<f32> {
    let mut output = vec![0.0; g.images * g.in_channels * g.input_area()];
    let (groups, threads) = (g.options.groups, rayon::current_num_threads());
    let area = g.kernel_area();
    let plan = Plan::new(g, g.depth(), threads.div_ceil(groups));
    let images = plan.images(g);
    let parts = (g.depth() * COLUMNS[0]).div_ceil(TILE).max(threads.div_ceil(groups * images.len().max(1)));
    let channels = blocks(g.group_in(), parts, 1);
    let tasks = product(groups, &channels, &images);
    let shared = Shared::new(&mut output);
    tasks.into_par_iter().for_each(|(group, inputs, images)| {
        let (start, depth) = (inputs.start * area, inputs.len() * area);
        let filters = &weight[group * g.group_out() * g.depth() + start..];
        let filters = Matrix::new(filters, g.group_out(), depth, g.depth()).transposed();
        for tile in plan.tiles(g, images) {
            let pitch = tile.columns(g);
            scratch::with(depth * pitch, |columns| {
                with_gradient(g, gradient, group * g.group_out(), g.group_out(), &tile, |gradient| {
                    multiply(&mut Window::of(columns, pitch), false, filters, gradient);
                });
                for (place, image) in tile.images.clone().enumerate() {
                    let plane = image * g.in_channels + group * g.group_in() + inputs.start;
                    let len = inputs.len() * g.input_area();
                    // SAFETY: tasks differ in their images or in their channels, so that no pixel belongs to two.
                    let mut target = unsafe { shared.window(plane * g.input_area(), 1, len, len) };
                    let columns = &columns[place * tile.rows.len() * g.output[1]..];
                    col2im(g, columns, pitch, tile.rows.clone(), target.row(0));
                }
            });
        }
    });
    output
}

/// Filters of [`Geometry::transposed`]: input and output channels exchanged, taps in reverse.
fn flipped(g: &Geometry, weight: &[f32]) -> Vec<f32> {
    let (area, outs, ins) = (g.kernel_area(), g.group_out(), g.group_in());
    let mut flipped = vec![0.0; weight.len()];
    flipped.par_chunks_mut(outs * area).enumerate().for_each(|(input, filter)| {
        let (group, input) = (input / ins, input % ins);
        for (output, taps) in filter.chunks_exact_mut(area).enumerate() {
            let source = &weight[((group * outs + output) * ins + input) * area..][..area];
            taps.iter_mut().zip(source.iter().rev()).for_each(|(tap, source)| *tap = *source);
        }
    });
    flipped
}

/// Output rows of some images, computed by one product.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tile {
    images: Range<usize>,
    rows: Range<usize>,
}

impl Tile {
    /// Columns of the tile in all.
    fn columns(&self, g: &Geometry) -> usize {
        self.images.len() * self.per_image(g)
    }

    /// Columns that each image has in the tile.
    fn per_image(&self, g: &Geometry) -> usize {
        self.rows.len() * g.output[1]
    }

    /// Where the tile's columns begin in an output channel.
    fn start(&self, g: &Geometry) -> usize {
        self.rows.start * g.output[1]
    }
}

/// How many images, and how many output rows of each, make a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    images: usize,
    rows: usize,
}

impl Plan {
    /// The plan whose products, with a column matrix of `depth` rows, take least time on `threads` threads.
    fn new(g: &Geometry, depth: usize, threads: usize) -> Self {
        let [height, width] = g.output;
        let most = (TILE / depth).clamp(COLUMNS[0], COLUMNS[1]);
        let parts = (1..=height).map(|rows| Self { images: 1, rows });
        let merged = (2..=g.images).map(|images| Self { images, rows: height });
        let fitting = |plan: &Self| plan.images * plan.rows * width <= most;
        let best = parts.chain(merged).filter(fitting).min_by_key(|plan| plan.cost(g, threads));
        best.unwrap_or(Self { images: 1, rows: 1 })
    }

    /// Time of all products, in the time that half a block takes on all threads.
    fn cost(self, g: &Geometry, threads: usize) -> usize {
        let [height, width] = g.output;
        let tile = |images: usize, rows: usize| 2 * (images * rows * width).div_ceil(BLOCK) + 1;
        let group = |images: usize| {
            height / self.rows * tile(images, self.rows)
                + if height.is_multiple_of(self.rows) { 0 } else { tile(images, height % self.rows) }
        };
        let rest = g.images % self.images;
        let total = g.images / self.images * group(self.images) + if rest == 0 { 0 } else { group(rest) };
        let count = g.images.div_ceil(self.images) * height.div_ceil(self.rows);
        if (threads..4 * threads).contains(&count) {
            return count.div_ceil(threads) * threads * tile(self.images, self.rows);
        }
        // With fewer tiles than threads, threads share a tile, and each makes its columns anew.
        if count < threads { total * 5 / 4 } else { total }
    }

    /// All images, divided.
    fn images(self, g: &Geometry) -> Vec<Range<usize>> {
        steps(g.images, self.images)
    }

    /// The tiles of some images.
    fn tiles(self, g: &Geometry, images: Range<usize>) -> Vec<Tile> {
        steps(g.output[0], self.rows).into_iter().map(|rows| Tile { images: images.clone(), rows }).collect()
    }

    /// The tiles of all images.
    fn all(self, g: &Geometry) -> Vec<Tile> {
        self.images(g).into_iter().flat_map(|images| self.tiles(g, images)).collect()
    }
}

/// Divides `0..count` into ranges of `length`, the last of which may be shorter.
fn steps(count: usize, length: usize) -> Vec<Range<usize>> {
    (0..count.div_ceil(length)).map(|step| step * length..count.min((step + 1) * length)).collect()
}

/// Divides `0..count` into at most `parts` nearly equal ranges whose lengths are multiples of `unit`, but the last.
fn blocks(count: usize, parts: usize, unit: usize) -> Vec<Range<usize>> {
    steps(count, count.div_ceil(parts.max(1)).next_multiple_of(unit).max(1))
}

/// Every combination of a group, an `a` and a `b`.
fn product<A: Clone, B: Clone>(groups: usize, a: &[A], b: &[B]) -> Vec<(usize, A, B)> {
    (0..groups)
        .flat_map(|group| b.iter().flat_map(move |b| a.iter().map(move |a| (group, a.clone(), b.clone()))))
        .collect()
}

/// Calls `work` with the column matrix of `channels` of a tile; a pointwise convolution's input is its own.
fn with_columns(g: &Geometry, x: &[f32], channels: Range<usize>, tile: &Tile, work: impl FnOnce(Matrix<'_>)) {
    let (area, depth, pitch) = (g.input_area(), channels.len() * g.kernel_area(), tile.columns(g));
    let image = |image: usize| &x[(image * g.in_channels + channels.start) * area..][..channels.len() * area];
    if g.is_pointwise() && tile.images.len() == 1 {
        return work(Matrix::new(&image(tile.images.start)[tile.start(g)..], depth, pitch, area));
    }
    scratch::with(depth * pitch, |columns| {
        for (place, index) in tile.images.clone().enumerate() {
            let target = &mut columns[place * tile.per_image(g)..];
            im2col(g, image(index), tile.rows.clone(), target, pitch);
        }
        work(Matrix::new(columns, depth, pitch, pitch));
    });
}

/// Calls `work` with the gradient of `count` output channels from `first` on in a tile, one row per channel.
fn with_gradient(
    g: &Geometry,
    gradient: &[f32],
    first: usize,
    count: usize,
    tile: &Tile,
    work: impl FnOnce(Matrix<'_>),
) {
    let (area, per_image, pitch) = (g.output_area(), tile.per_image(g), tile.columns(g));
    let start =
        |image: usize, channel: usize| (image * g.out_channels + first + channel) * area + tile.start(g);
    if tile.images.len() == 1 {
        return work(Matrix::new(&gradient[start(tile.images.start, 0)..], count, pitch, area));
    }
    scratch::with(count * pitch, |rows| {
        for (channel, row) in rows.chunks_exact_mut(pitch).enumerate() {
            for (image, part) in tile.images.clone().zip(row.chunks_exact_mut(per_image)) {
                part.copy_from_slice(&gradient[start(image, channel)..][..per_image]);
            }
        }
        work(Matrix::new(rows, count, pitch, pitch));
    });
}

/// Where a product's rows go: `count` output channels from `first` on.
struct Target<'a> {
    shared: &'a Shared<'a>,
    first: usize,
    count: usize,
    bias: Option<&'a [f32]>,
}

impl Target<'_> {
    /// Writes filters times columns, plus bias, to the tile's place in the output.
    fn fill(&self, g: &Geometry, tile: &Tile, filters: Matrix<'_>, columns: Matrix<'_>) {
        if tile.images.len() == 1 {
            let mut window = self.window(g, tile, tile.images.start);
            if let Some(bias) = self.bias {
                (0..self.count).for_each(|row| window.row(row).fill(bias[self.first + row]));
            }
            return multiply(&mut window, self.bias.is_some(), filters, columns);
        }
        let pitch = tile.columns(g);
        scratch::with(self.count * pitch, |rows| {
            multiply(&mut Window::of(rows, pitch), false, filters, columns);
            for (place, image) in tile.images.clone().enumerate() {
                let mut window = self.window(g, tile, image);
                for (row, values) in rows.chunks_exact(pitch).enumerate() {
                    let values = &values[place * tile.per_image(g)..][..tile.per_image(g)];
                    let bias = self.bias.map_or(0.0, |bias| bias[self.first + row]);
                    window.row(row).iter_mut().zip(values).for_each(|(out, value)| *out = value + bias);
                }
            }
        });
    }

    fn window(&self, g: &Geometry, tile: &Tile, image: usize) -> Window<'_> {
        let start = (image * g.out_channels + self.first) * g.output_area() + tile.start(g);
        // SAFETY: targets that are filled at the same time differ in their channels or in their tiles, and tiles
        // share neither a row of an image nor, within one task, their life time.
        unsafe { self.shared.window(start, self.count, tile.per_image(g), g.output_area()) }
    }
}
