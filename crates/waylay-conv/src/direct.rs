//! Implicit GEMM, for convolutions of any shape: each packed panel of im2col columns (the input
//! values that belong to a few neighbouring outputs, one row per channel and tap) is made where it
//! stays in cache, and is multiplied by all filters there.

use std::ops::Range;

use rayon::prelude::*;

use crate::epilogue::Epilogue;
use crate::filters::Filters;
use crate::kernel::{Kernel, LeftOperand};
use crate::options::Geometry;
use crate::scratch;
use crate::simd::{self, vectorised};
use crate::window::Shared;

/// Tasks per thread that there should be, where there is enough to do.
const TASKS: usize = 16;
/// Clusters of panels per thread that there must be for panels to come in clusters.
const CLUSTERS: usize = 8;
/// With fewer tasks per thread, one more or less is much: each is divided in two.
const UNEVEN: usize = 24;
/// Fewest blocks of filters in a task for which a panel is made anew.
const LEAST_BLOCKS: usize = 8;
/// Most panels that meet a block of filters one after the other, and most values that their columns
/// may hold: what they give lies side by side in the output.
const TOGETHER: usize = 4;
const SPACE: usize = 1 << 16;
/// Input channels whose columns are made at once, where tasks share them.
const CHANNELS: usize = 8;
/// Panels for which packing the filters pays.
const PACKED: usize = 12;
/// Most blocks of filters that meet a panel where it lies in the input, rows far apart.
const DIRECT: usize = 16;

/// Writes every value of the output `[N, Co, Ho, Wo]` for `x` `[N, Ci, H, W]`.
pub(crate) fn forward(
    g: &Geometry,
    x: &[f32],
    weight: &Filters<'_>,
    epilogue: &Epilogue<'_>,
    output: &Shared<'_>,
) {
    let kernel = Kernel::new();
    let (groups, depth) = (g.options.groups, g.depth());
    let blocks = g.group_out().div_ceil(kernel.filters());
    let panels = Panel::all(g, kernel.columns());
    let threads = rayon::current_num_threads();
    let many = panels.len() >= TOGETHER * CLUSTERS * threads;
    let together = if many { (SPACE / (depth * kernel.columns()).max(1)).clamp(1, TOGETHER) } else { 1 };
    let clusters: Vec<&[Panel]> = panels.chunks(together).collect();
    let whole = (clusters.len() * groups).max(1);
    let halves = if whole < UNEVEN * threads { 2 } else { 1 };
    let wanted = (TASKS * threads).div_ceil(whole).max(halves);
    let parts = if threads == 1 { 1 } else { wanted.min(blocks.div_ceil(LEAST_BLOCKS)) };
    let share = blocks.div_ceil(parts.max(1)).max(1);
    // Columns that several tasks need are made beforehand.
    let made = parts > 1 && !g.is_pointwise();
    let space = depth * kernel.columns();
    let places = if panels.len() < PACKED { weight.places(g) } else { None };
    let packed = if places.is_some() { 0 } else { groups * blocks * kernel.filters() * depth };
    let common = if made { groups * panels.len() * space } else { 0 };
    let work = Work { g, kernel, epilogue, output };
    scratch::with(packed + common, |filters| {
        let (filters, common) = filters.split_at_mut(packed);
        if packed > 0 {
            pack(g, kernel, weight, filters);
        }
        if made {
            make_columns(g, kernel, x, &panels, common);
        }
        let (filters, common) = (&*filters, &*common);
        let lanes = |group: usize, block: usize| match &places {
            Some(places) => weight.spread(g, group, block * kernel.filters(), places),
            None => {
                let len = kernel.filters() * depth;
                LeftOperand::Packed(&filters[(group * blocks + block) * len..][..len])
            }
        };
        let tasks = groups * clusters.len() * blocks.div_ceil(share);
        (0..tasks).into_par_iter().with_max_len(1).for_each(|task| {
            let (task, part) = (task / blocks.div_ceil(share), task % blocks.div_ceil(share));
            let (group, cluster) = (task / clusters.len(), task % clusters.len());
            let part = part * share..blocks.min((part + 1) * share);
            let few = part.len() <= DIRECT;
            let own = if made { 0 } else { together * space };
            scratch::with(own + kernel.filters() * kernel.columns(), |area| {
                let (own, block) = area.split_at_mut(own);
                let columns: Vec<_> = if made {
                    let first = group * panels.len() + cluster * together;
                    let columns = |(index, panel): (usize, &Panel)| {
                        (&common[(first + index) * space..][..space], kernel.width(panel.count))
                    };
                    clusters[cluster].iter().enumerate().map(columns).collect()
                } else {
                    let columns = |(panel, space): (&Panel, _)| {
                        panel.columns(g, x, group * g.group_in(), space, kernel.width(panel.count), few)
                    };
                    clusters[cluster].iter().zip(own.chunks_mut(space.max(1))).map(columns).collect()
                };
                let filters = part.map(|index| {
                    let first = index * kernel.filters();
                    let rows = kernel.filters().min(g.group_out() - first);
                    let first = group * g.group_out() + first;
                    (lanes(group, index), first..first + rows)
                });
                // SAFETY: tasks differ in their columns or in their filters, so that no output
                // belongs to two.
                unsafe { work.multiply(clusters[cluster], &columns, filters, block) };
            });
        });
    });
}

/// Where the sums of a convolution go.
struct Work<'a> {
    g: &'a Geometry,
    kernel: Kernel,
    epilogue: &'a Epilogue<'a>,
    output: &'a Shared<'a>,
}

impl Work<'_> {
    /// Writes the outputs of some panels, whose columns come with how far their rows are apart, for
    /// some blocks of filters with their output channels; `block` has room for one block of sums.
    ///
    /// # Safety
    /// No other thread may write these outputs at the same time.
    unsafe fn multiply<'a>(
        &self,
        panels: &[Panel],
        columns: &[(&[f32], usize)],
        filters: impl Iterator<Item = (LeftOperand<'a>, Range<usize>)>,
        block: &mut [f32],
    ) {
        for (left, channels) in filters {
            for (panel, (columns, pitch)) in panels.iter().zip(columns) {
                let width = self.kernel.width(panel.count);
                let sums = &mut block[..self.kernel.filters() * width];
                // SAFETY: the caller's promise.
                unsafe { self.prefetch(panel, channels.clone()) };
                self.kernel.multiply(&left, columns, *pitch, width, sums);
                // SAFETY: the caller's promise.
                unsafe { self.store(panel, channels.clone(), sums) };
            }
        }
    }

    /// Prefetches what will be added to a block of sums, while they are computed.
    ///
    /// # Safety
    /// No other thread may use these outputs at the same time.
    unsafe fn prefetch(&self, panel: &Panel, channels: Range<usize>) {
        let Self { g, epilogue, output, .. } = *self;
        if epilogue.add.is_none() && !epilogue.onto {
            return;
        }
        for channel in channels {
            for piece in &panel.pieces {
                let start = piece.start(g, channel);
                // SAFETY: the caller's promise.
                unsafe { epilogue.prefetch(output, start, piece.pixels.len()) };
            }
        }
    }

    /// Writes a block of sums of a panel, one row for each of `channels`.
    ///
    /// # Safety
    /// No other thread may write these outputs at the same time.
    unsafe fn store(&self, panel: &Panel, channels: Range<usize>, block: &[f32]) {
        let Self { g, kernel, epilogue, output } = *self;
        for piece in &panel.pieces {
            let at = [piece.start(g, channels.start), g.output_area()];
            let (sums, width) = (&block[piece.lane..], kernel.width(panel.count));
            // SAFETY: the caller's promise.
            unsafe { epilogue.store_rows(output, channels.clone(), at, sums, width, piece.pixels.len()) };
        }
    }
}

/// All filters in blocks.
fn pack(g: &Geometry, kernel: Kernel, weight: &Filters<'_>, filters: &mut [f32]) {
    let (depth, count) = (g.depth(), kernel.filters());
    let blocks = g.group_out().div_ceil(count);
    filters.par_chunks_mut(count * depth).enumerate().for_each(|(block, target)| {
        weight.interleave(g, block / blocks, block % blocks * count, count, target);
    });
}

/// The columns of all panels of all groups, each in a space of as many values as the largest has.
fn make_columns(g: &Geometry, kernel: Kernel, x: &[f32], panels: &[Panel], columns: &mut [f32]) {
    let (space, steps) = (g.depth() * kernel.columns(), g.group_in().div_ceil(CHANNELS));
    let columns = Shared::new(columns);
    (0..g.options.groups * panels.len() * steps).into_par_iter().for_each(|task| {
        let (place, step) = (task / steps, task % steps);
        let (group, panel) = (place / panels.len(), &panels[place % panels.len()]);
        let (first, width) = (step * CHANNELS, kernel.width(panel.count));
        let count = CHANNELS.min(g.group_in() - first);
        let (start, len) = (place * space + first * g.kernel_area() * width, count * g.kernel_area() * width);
        // SAFETY: every channel of every panel has a place of its own.
        let mut target = unsafe { columns.window(start, 1, len, len) };
        let first = group * g.group_in() + first;
        panel.fill(g, x, first..first + count, target.row(0), width);
    });
}

/// Neighbouring outputs, counted over all images.
pub(crate) struct Panel {
    pub count: usize,
    pub pieces: Vec<Piece>,
}

/// What of a panel lies in one image.
pub(crate) struct Piece {
    /// Place in the panel.
    pub lane: usize,
    pub image: usize,
    /// Pixels of the output plane.
    pub pixels: Range<usize>,
}

impl Panel {
    /// All outputs in panels of at most `columns`.
    pub fn all(g: &Geometry, columns: usize) -> Vec<Self> {
        let (area, total) = (g.output_area(), g.images * g.output_area());
        let panel = |first: usize| {
            let count = columns.min(total - first);
            let mut pieces = Vec::with_capacity(1);
            let mut lane = 0;
            while lane < count {
                let (image, start) = ((first + lane) / area, (first + lane) % area);
                let len = (area - start).min(count - lane);
                pieces.push(Piece { lane, image, pixels: start..start + len });
                lane += len;
            }
            Self { count, pieces }
        };
        (0..total).step_by(columns).map(panel).collect()
    }

    /// The columns of one group, whose first input channel is `first`, and how far their rows are
    /// apart: where the input itself does not serve a `few` blocks of filters, they are made in
    /// `space`, which has room for them, `width` apart.
    fn columns<'a>(
        &self,
        g: &Geometry,
        x: &'a [f32],
        first: usize,
        space: &'a mut [f32],
        width: usize,
        few: bool,
    ) -> (&'a [f32], usize) {
        if let [piece] = &self.pieces[..]
            && few
            && g.is_pointwise()
            && self.count == width
        {
            let start = (piece.image * g.in_channels + first) * g.input_area() + piece.pixels.start;
            return (&x[start..], g.input_area());
        }
        let space = &mut space[..g.depth() * width];
        self.fill(g, x, first..first + g.group_in(), space, width);
        (space, width)
    }

    /// Writes the columns of some input channels; rows are `width` long.
    pub fn fill(&self, g: &Geometry, x: &[f32], channels: Range<usize>, columns: &mut [f32], width: usize) {
        if self.count < width {
            columns.chunks_exact_mut(width).for_each(|row| row[self.count..].fill(0.0));
        }
        for piece in &self.pieces {
            let area = g.input_area();
            let start = (piece.image * g.in_channels + channels.start) * area;
            let planes = &x[start..][..channels.len() * area];
            let columns = &mut columns[piece.lane..];
            if g.is_pointwise() {
                piece.copy(planes, area, columns, width);
            } else if g.options.stride == [1; 2] && g.output[1] == g.input[1] {
                piece.shift(g, planes, columns, width);
            } else {
                piece.stride(g, planes, columns, width);
            }
        }
    }
}

impl Piece {
    /// Where it begins in output channel `channel`.
    fn start(&self, g: &Geometry, channel: usize) -> usize {
        (self.image * g.out_channels + channel) * g.output_area() + self.pixels.start
    }

    /// The columns of a pointwise convolution: the pixels themselves.
    fn copy(&self, planes: &[f32], area: usize, columns: &mut [f32], width: usize) {
        copy_rows(&planes[self.pixels.start..], area, columns, width, self.pixels.len());
    }

    /// The columns of a convolution that keeps the width, at stride 1: planes shifted by every tap,
    /// with zeros where that would bring in another row's values.
    fn shift(&self, g: &Geometry, planes: &[f32], columns: &mut [f32], width: usize) {
        let len = self.pixels.len();
        let ([height, across], [kh, kw]) = (g.input, g.kernel);
        let ([top, left, ..], [dy, dx]) = (g.options.padding, g.options.dilation);
        let taps: Vec<(isize, Range<usize>)> = (0..kh * kw)
            .map(|tap| {
                let down = (tap / kw * dy) as isize - top as isize;
                let right = (tap % kw * dx) as isize - left as isize;
                let offset = self.pixels.start as isize + down * across as isize + right;
                let begin = (-offset).clamp(0, len as isize) as usize;
                let end = (g.input_area() as isize - offset).clamp(begin as isize, len as isize) as usize;
                (offset, begin..end)
            })
            .collect();
        scratch::with((taps.len() + 2) * len, |space| {
            let (places, masks) = space.split_at_mut(2 * len);
            let (ys, xs) = places.split_at_mut(len);
            let (mut y, mut x) = (self.pixels.start / across, self.pixels.start % across);
            for (to_y, to_x) in ys.iter_mut().zip(xs.iter_mut()) {
                (*to_y, *to_x) = (y as f32, x as f32);
                x += 1;
                if x == across {
                    (y, x) = (y + 1, 0);
                }
            }
            for (tap, mask) in masks.chunks_exact_mut(len).enumerate() {
                let first = |place: usize, before: usize| before as f32 - place as f32;
                let least = [first(tap / kw * dy, top), first(tap % kw * dx, left)];
                inside(ys, xs, least, [least[0] + height as f32, least[1] + across as f32], mask);
            }
            shift_rows(planes, g.input_area(), &taps, masks, columns, width, len);
        });
    }

    /// The columns of any convolution.
    fn stride(&self, g: &Geometry, planes: &[f32], columns: &mut [f32], width: usize) {
        if g.kernel == [1; 2] && g.options.stride == [2; 2] && g.options.padding == [0; 4] {
            subsample_rows(g, planes, self.pixels.clone(), columns, width);
            return;
        }
        let ([_, kw], [_, step], [_, dx]) = (g.kernel, g.options.stride, g.options.dilation);
        let reach = (g.output[1].min(self.pixels.len()) - 1) * step + (kw - 1) * dx + 1;
        scratch::with(reach + step * reach.div_ceil(step), |space| {
            stride_rows(g, planes, self.pixels.clone(), space.split_at_mut(reach), columns, width);
        });
    }
}

vectorised! {
    /// The first `len` values of rows of `source`, `area` apart, to rows of `target`, `width`
    /// apart.
    fn copy_rows(source: &[f32], area: usize, target: &mut [f32], width: usize, len: usize) {
        for (target, source) in target.chunks_mut(width).zip(source.chunks(area)) {
            simd::copy(&mut target[..len], &source[..len]);
        }
    }
}

vectorised! {
    /// All bits set where both coordinates are at least `least` and below `end`, none elsewhere.
    fn inside(ys: &[f32], xs: &[f32], least: [f32; 2], end: [f32; 2], mask: &mut [f32]) {
        for (mask, (y, x)) in mask.iter_mut().zip(ys.iter().zip(xs)) {
            let inside = (*y >= least[0]) & (*y < end[0]) & (*x >= least[1]) & (*x < end[1]);
            *mask = f32::from_bits(if inside { u32::MAX } else { 0 });
        }
    }
}

vectorised! {
    /// One row for each plane and tap: the plane from the tap's offset on, where the mask's bits
    /// are set.
    fn shift_rows(
        planes: &[f32],
        area: usize,
        taps: &[(isize, std::ops::Range<usize>)],
        masks: &[f32],
        columns: &mut [f32],
        width: usize,
        len: usize,
    ) {
        let mut rows = columns.chunks_mut(width);
        for plane in planes.chunks_exact(area) {
            for ((offset, range), mask) in taps.iter().zip(masks.chunks_exact(len)) {
                let Some(row) = rows.next() else { return };
                let row = &mut row[..len];
                if range.len() < len {
                    row[..range.start].fill(0.0);
                    row[range.end..].fill(0.0);
                }
                if range.is_empty() {
                    continue;
                }
                let source = &plane[(offset + range.start as isize) as usize..][..range.len()];
                let pairs = source.iter().zip(&mask[range.clone()]);
                for (target, (value, mask)) in row[range.clone()].iter_mut().zip(pairs) {
                    *target = f32::from_bits(value.to_bits() & mask.to_bits());
                }
            }
        }
    }
}

vectorised! {
    /// The columns of a pointwise convolution of stride 2: every second pixel of every second line.
    fn subsample_rows(
        g: &Geometry,
        planes: &[f32],
        pixels: std::ops::Range<usize>,
        columns: &mut [f32],
        width: usize,
    ) {
        let (row, across) = (g.input[1], g.output[1]);
        for (plane, target) in planes.chunks_exact(g.input_area()).zip(columns.chunks_mut(width)) {
            let mut lane = 0;
            while lane < pixels.len() {
                let (oy, ox) = ((pixels.start + lane) / across, (pixels.start + lane) % across);
                let run = (across - ox).min(pixels.len() - lane);
                let source = &plane[2 * oy * row + 2 * ox..][..2 * run - 1];
                let (pairs, last) = source.as_chunks::<2>();
                let (most, rest) = target[lane..lane + run].split_at_mut(run - 1);
                most.iter_mut().zip(pairs).for_each(|(place, pair)| *place = pair[0]);
                rest[0] = last[0];
                lane += run;
            }
        }
    }
}

vectorised! {
    /// The columns of outputs `pixels` of one image: each input line that a tap's row needs is laid
    /// out with its zeros in `line`, and divided by its places' remainders of the stride, so that
    /// every tap's values lie side by side.
    fn stride_rows(
        g: &Geometry,
        planes: &[f32],
        pixels: std::ops::Range<usize>,
        space: (&mut [f32], &mut [f32]),
        columns: &mut [f32],
        width: usize,
    ) {
        let ([height, row], [kh, kw], [step_y, step]) = (g.input, g.kernel, g.options.stride);
        let ([top, left, ..], [dy, dx], across) = (g.options.padding, g.options.dilation, g.output[1]);
        let (line, phases) = space;
        for (channel, plane) in planes.chunks_exact(height * row).enumerate() {
            for ky in 0..kh {
                let rows = &mut columns[(channel * kh + ky) * kw * width..];
                let mut lane = 0;
                while lane < pixels.len() {
                    let (oy, ox) = ((pixels.start + lane) / across, (pixels.start + lane) % across);
                    let (run, place) = ((across - ox).min(pixels.len() - lane), lane);
                    let y = (oy * step_y + ky * dy).wrapping_sub(top);
                    let targets = rows.chunks_mut(width).take(kw).map(|target| &mut target[place..place + run]);
                    lane += run;
                    if y >= height {
                        targets.for_each(|target| target.iter_mut().for_each(|value| *value = 0.0));
                        continue;
                    }
                    let x = (ox * step) as isize - left as isize;
                    let line = &mut line[..(run - 1) * step + (kw - 1) * dx + 1];
                    let begin = (-x).clamp(0, line.len() as isize) as usize;
                    let end = (row as isize - x).clamp(begin as isize, line.len() as isize) as usize;
                    line[..begin].iter_mut().for_each(|value| *value = 0.0);
                    let source = &plane[y * row..][..row];
                    let source = &source[(x + begin as isize).clamp(0, row as isize) as usize..][..end - begin];
                    simd::copy(&mut line[begin..end], source);
                    line[end..].iter_mut().for_each(|value| *value = 0.0);
                    if step == 1 {
                        targets.enumerate().for_each(|(kx, target)| simd::copy(target, &line[kx * dx..][..run]));
                        continue;
                    }
                    let pitch = line.len().div_ceil(step);
                    simd::deal(line, step, phases);
                    for (kx, target) in targets.enumerate() {
                        let phase = &phases[kx * dx % step * pitch..][..pitch];
                        simd::copy(target, &phase[kx * dx / step..][..run]);
                    }
                }
            }
        }
    }
}
