//! Convolution with 3x3 kernels by Winograd's method. At stride 1 it is F(4x4, 3x3): 36 products
//! for 16 pixels instead of 144. Source: Lavin and Gray, arXiv:1509.09308, sections 3 and 4.3, with
//! the points 0, ±5/8, ±3/2 and ∞ in place of 0, ±1, ±2 and ∞: all are exact in `f32`, and as they
//! lie closer to one in size, less is lost to cancellation (Barabasz et al., arXiv:1803.10986).
//! What is lost all the same, the tests bound against `f64`.
//!
//! At stride 2, the first and the third tap see every other pixel, and the second one those
//! between: the sum of a convolution with two taps and of one with one tap, both of stride 1. With
//! the same points less 0, F(4, 2) of the former takes 5 products for four pixels, and the latter
//! 4, as its products at ∞ are 0; in two dimensions, 81 instead of 144. At each point, what the
//! two, or four, parts give is summed before it is transformed back: they are as many channels.

use std::ops::Range;

use rayon::prelude::*;

use self::input::{PointRows, View};
use self::points::{Input, StridedInput};
use self::tiling::{Run, Tiling};
pub(crate) use self::weight::{fits_weight, weight_gradient};
use crate::epilogue::Epilogue;
use crate::filters::Filters;
use crate::kernel::Kernel;
use crate::options::Geometry;
use crate::prepared::PreparedFilters;
use crate::scratch;
use crate::window::Shared;

mod filters;
mod input;
mod output;
mod points;
mod tiling;
mod weight;

/// Pixels of a tile's output across and down.
const OUT: usize = 4;
/// Points across and down: 0, A, -A, B, -B and ∞.
const IN: usize = 6;
/// Pairs of points, one down and one across.
const POINTS: usize = IN * IN;
/// Weights per channel and filter.
const TAPS: usize = 9;

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
    /// Points that have products.
    points: usize,
    /// Fewest tiles in all for which transforming the filters pays, and with filters that are kept.
    least: [usize; 2],
}

/// At stride 1.
static EACH: Form = Form {
    step: OUT,
    span: OUT + 2,
    parts: [1; IN],
    before: [0, 1, 2, 3, 4, 5],
    total: 6,
    points: IN,
    least: [32, 16],
};
/// At stride 2.
static EVERY_OTHER: Form = Form {
    step: 2 * OUT,
    span: 2 * OUT + 1,
    parts: [0, 2, 2, 2, 2, 1],
    before: [0, 0, 2, 4, 6, 8],
    total: 9,
    points: IN - 1,
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

    /// Values of the transformed input of a panel with so many channels and tiles.
    fn input_len(&self, channels: usize, width: usize) -> usize {
        self.rows() * channels * width + self.points * self.points * APART
    }

    /// Which of the points that have products that is, by what the transforms down and across give.
    #[inline(always)]
    fn point(&self, [down, across]: [usize; 2]) -> usize {
        if self.total == IN { down * IN + across } else { down / 2 * self.points + across / 2 }
    }

    /// Which of the products that is, by what the transforms down and across give: all parts of a
    /// point lie together.
    #[inline(always)]
    fn row(&self, [down, across]: [usize; 2]) -> usize {
        if self.total == IN {
            return down * IN + across;
        }
        // A point at stride 2, of which there is none at 0, and a part of it.
        let place = |index: usize| (1 + index / 2, index % 2);
        let ((down, down_part), (across, across_part)) = (place(down), place(across));
        self.before[down] * self.total
            + self.parts[down] * self.before[across]
            + down_part * self.parts[across]
            + across_part
    }
}

/// Fewest channels in and out for which the transforms pay.
const LEAST_CHANNELS: usize = 32;
/// Most values of transformed filters that are kept: reading more takes as long as other ways to
/// the output.
const MOST_KEPT: usize = 10 << 20;
/// Values between the points of a panel's transformed input: if they lay a power of two apart,
/// those of a channel would meet in one place of the first-level cache.
const APART: usize = 16;
/// Fewest panels per thread for which a thread takes whole panels.
const LEAST_PANELS: usize = 4;
/// Channels whose input a task transforms, where tasks share them.
const TOGETHER: usize = 8;

/// Whether this module computes the convolution, and is likely to be faster than columns; `is_kept`
/// says whether its transformed filters are, or will be.
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

/// Tiles that meet the filters together.
struct Panel {
    runs: Vec<Run>,
    view: View,
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
    epilogue: &'a Epilogue<'a>,
    output: &'a Shared<'a>,
}

/// Writes every value of the output `[N, Co, Ho, Wo]` for `x` `[N, Ci, H, W]`, where [`fits`].
pub(crate) fn forward(
    g: &Geometry,
    x: &[f32],
    weight: &Filters<'_>,
    keeper: Option<&PreparedFilters>,
    epilogue: &Epilogue<'_>,
    output: &Shared<'_>,
) {
    let (kernel, tiling, form) = (Kernel::new(), Tiling::new(g), Form::of(g));
    let ([top, left, ..], mut total) = (g.options.padding, 0);
    let panels: Vec<Panel> = (0..tiling.count(g))
        .step_by(kernel.columns())
        .map(|first| {
            let tiles = first..tiling.count(g).min(first + kernel.columns());
            let (width, start) = (kernel.width(tiles.len()), total);
            total += form.input_len(g.in_channels, width);
            let runs = tiling.runs(tiles);
            let view = View::new(&runs, width, [form.step, form.span], [top, left], (g.in_channels, g.input));
            Panel { runs, view, width, start }
        })
        .collect();
    let work = Work { g, form, kernel, weight, epilogue, output };
    let kept = keeper.map(|keeper| keeper.transformed(g.options.stride[0], || work.all_filters()));
    if panels.len() >= LEAST_PANELS * rayon::current_num_threads() {
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

    /// Every thread takes whole panels, and multiplies them by all filters, which are transformed
    /// beforehand.
    fn panel_by_panel(&self, x: &[f32], panels: &[Panel], kept: Option<&[f32]>) {
        let (g, len) = (self.g, self.block_len());
        scratch::with(if kept.is_some() { 0 } else { self.blocks() * len }, |filters| {
            filters.par_chunks_mut(len).enumerate().for_each(|(block, filters)| {
                self.transform_filters(block, filters);
            });
            let filters = kept.unwrap_or(filters);
            panels.par_iter().with_max_len(1).for_each(|panel| {
                scratch::with(self.form.input_len(g.in_channels, panel.width), |input| {
                    let shared = Shared::new(input);
                    self.transform_input(x, panel, 0..g.in_channels, &shared, 0);
                    for (block, filters) in filters.chunks_exact(len).enumerate() {
                        self.fill(block, filters, input, panel);
                    }
                });
            });
        });
    }

    /// Every thread takes some filters, which it transforms itself, and multiplies all panels by
    /// them, whose input is transformed beforehand.
    fn filter_by_filter(&self, x: &[f32], panels: &[Panel], total: usize, kept: Option<&[f32]>) {
        let g = self.g;
        scratch::with(total, |inputs| {
            let shared = Shared::new(inputs);
            (0..g.in_channels.div_ceil(TOGETHER)).into_par_iter().for_each(|part| {
                let channels = part * TOGETHER..g.in_channels.min((part + 1) * TOGETHER);
                for panel in panels {
                    self.transform_input(x, panel, channels.clone(), &shared, panel.start);
                }
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

    /// Transforms a block of filters.
    fn transform_filters(&self, block: usize, filters: &mut [f32]) {
        filters::transform_block(self.g, self.form, self.kernel, self.weight, block, filters);
    }

    /// Writes V = Bᵀ d B of some channels in a panel: a row for each product, which a whole panel's
    /// channels lie apart.
    fn transform_input(
        &self,
        x: &[f32],
        panel: &Panel,
        channels: Range<usize>,
        input: &Shared<'_>,
        start: usize,
    ) {
        let Self { g, form, kernel, .. } = *self;
        let Panel { view, width, .. } = panel;
        let first = |channel: usize| start + channel * width;
        // SAFETY: every channel of every panel has rows of its own.
        let to = |form, channel| unsafe { form_rows(form, input, first(channel), [*width, g.in_channels]) };
        if form.step == OUT {
            view.transform::<Input, _, 6, 6>(kernel, x, channels, |channel| to(&EACH, channel));
        } else {
            view.transform::<StridedInput, _, 9, 9>(kernel, x, channels, |channel| to(&EVERY_OTHER, channel));
        }
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
                (b, input) = input.split_at(if depth > 0 { depth * width + APART } else { 0 });
                kernel.multiply_some(a, &b[..depth * width], width, panel.count(), product);
            }
            for row in 0..count.min(g.out_channels - first) {
                let products = (&products[row * width..], count * width);
                // SAFETY: no two threads take the same filter in the same panel.
                unsafe {
                    output::store(
                        g,
                        kernel,
                        (self.epilogue, self.output),
                        first + row,
                        products,
                        &panel.runs,
                        width,
                    );
                }
            }
        });
    }
}

/// The rows of a channel of a panel of `width` tiles, whose first one begins at `start`; a
/// product's rows are as many as there are `channels`.
///
/// # Safety
/// While they live, no other thread may use them.
#[inline(always)]
unsafe fn form_rows<'a>(
    form: &'static Form,
    shared: &'a Shared<'a>,
    start: usize,
    [width, channels]: [usize; 2],
) -> PointRows<'a, impl Fn([usize; 2]) -> usize> {
    let pitch = channels * width;
    let start = move |place: [usize; 2]| start + form.row(place) * pitch + form.point(place) * APART;
    // SAFETY: the caller's promise.
    unsafe { PointRows::new(shared, start, width) }
}
