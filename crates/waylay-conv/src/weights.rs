//! The gradient with respect to a convolution's weights: im2col columns of the input times the
//! gradient of the output, summed over all outputs. Both are transposed so that the sum runs over
//! the rows that [`Kernel::multiply`] takes.

use std::ops::Range;

use rayon::prelude::*;

use crate::direct::Panel;
use crate::kernel::{Kernel, LeftOperand};
use crate::options::Geometry;
use crate::scratch;
use crate::simd;
use crate::transpose::transpose;
use crate::window::Shared;

/// Outputs whose products are summed at once.
const OUTPUTS: usize = 128;
/// Most input channels that a task takes: as many rows as there are taps for each.
const CHANNELS: usize = 8;
/// Tasks per thread with which it does not matter that the last ones differ.
const ENOUGH: usize = 4;

/// Gradient of the weight `[Co, Ci / groups, Kh, Kw]` from `x` and the gradient of the output.
pub(crate) fn gradient(g: &Geometry, x: &[f32], gradient: &[f32]) -> Vec<f32> {
    let kernel = Kernel::new();
    let panels = Panel::all(g, OUTPUTS);
    let filters = Filters { kernel, count: g.group_out() };
    let total = g.images * g.output_area() * filters.width();
    let threads = rayon::current_num_threads();
    let tasks = |share: usize| g.options.groups * g.group_in().div_ceil(share);
    let mut share = g.group_in().div_ceil(threads).min(CHANNELS);
    let mut parts = 1;
    if tasks(share) < ENOUGH * threads && !(g.options.groups * g.group_in()).is_multiple_of(share * threads) {
        // Channels cannot be divided well, but outputs can: each part of them is summed up on its
        // own.
        (share, parts) = (g.group_in().min(CHANNELS), threads.min(panels.len()));
    }
    let (tasks, chunks) = (tasks(share), g.group_in().div_ceil(share));
    let len = g.out_channels * g.depth();
    let mut weight = vec![0.0; parts * len];
    scratch::with(g.options.groups * total, |transposed| {
        let shared = Shared::new(transposed);
        (0..g.options.groups * panels.len()).into_par_iter().for_each(|task| {
            let (group, index) = (task / panels.len(), task % panels.len());
            let len = panels[index].count * filters.width();
            let start = group * total + index * OUTPUTS * filters.width();
            // SAFETY: every panel of every group has a place of its own.
            let mut target = unsafe { shared.window(start, 1, len, len) };
            filters.transpose(g, gradient, group * g.group_out(), &panels[index], target.row(0));
        });
        let (transposed, shared) = (&*transposed, Shared::new(&mut weight));
        (0..parts * tasks).into_par_iter().with_max_len(1).for_each(|task| {
            let (part, group, first) = (task / tasks, task % tasks / chunks, task % chunks * share);
            let channels = first..g.group_in().min(first + share);
            let own = part * panels.len() / parts..(part + 1) * panels.len() / parts;
            let transposed = &transposed[group * total + own.start * OUTPUTS * filters.width()..];
            let work = Work { g, x, panels: &panels[own], filters, transposed };
            work.sum(group, channels, &shared, part * len);
        });
    });
    let (sums, others) = weight.split_at_mut(len);
    others.chunks_exact(len.max(1)).for_each(|part| simd::add(sums, part));
    weight.truncate(len);
    weight
}

/// The filters of a group, in panels.
#[derive(Clone, Copy)]
struct Filters {
    kernel: Kernel,
    count: usize,
}

impl Filters {
    /// First filter and width of each panel.
    fn panels(self) -> impl Iterator<Item = (usize, usize)> {
        let step = self.kernel.columns();
        (0..self.count)
            .step_by(step)
            .map(move |first| (first, self.kernel.width(step.min(self.count - first))))
    }

    /// Width of all panels.
    fn width(self) -> usize {
        self.panels().map(|(_, width)| width).sum()
    }

    /// Writes the gradient of a panel of outputs: for each panel of filters, a row for each output,
    /// a column for each filter.
    fn transpose(self, g: &Geometry, gradient: &[f32], group: usize, outputs: &Panel, target: &mut [f32]) {
        let mut rest = target;
        for (first, width) in self.panels() {
            let (target, after) = std::mem::take(&mut rest).split_at_mut(outputs.count * width);
            rest = after;
            for piece in &outputs.pieces {
                let (area, len) = (g.output_area(), piece.pixels.len());
                let row = (piece.image * g.out_channels + group + first) * area + piece.pixels.start;
                let target = &mut target[piece.lane * width..][..len * width];
                let rows = width.min(self.count - first);
                transpose(&gradient[row..], area, rows, target, width);
            }
        }
    }
}

/// What the tasks of one group share.
struct Work<'a> {
    g: &'a Geometry,
    x: &'a [f32],
    panels: &'a [Panel],
    filters: Filters,
    transposed: &'a [f32],
}

impl Work<'_> {
    /// Writes the gradient of the weights of some input channels of a group, where the weights
    /// begin at `start`.
    fn sum(&self, group: usize, channels: Range<usize>, weight: &Shared<'_>, start: usize) {
        let (g, kernel) = (self.g, self.filters.kernel);
        let (count, width) = (kernel.filters(), self.filters.width());
        let rows = channels.len() * g.kernel_area();
        let blocks = rows.div_ceil(count);
        let inputs = group * g.group_in() + channels.start..group * g.group_in() + channels.end;
        let sizes = [blocks * count * OUTPUTS, count * kernel.columns(), blocks * count * width];
        let places: Vec<u32> = (0..OUTPUTS as u32).collect();
        scratch::with(sizes.iter().sum(), |space| {
            let (columns, space) = space.split_at_mut(sizes[0]);
            let (block, sums) = space.split_at_mut(sizes[1]);
            sums.fill(0.0);
            for (index, panel) in self.panels.iter().enumerate() {
                let gradient = &self.transposed[index * OUTPUTS * width..][..panel.count * width];
                let columns = &mut columns[..blocks * count * panel.count];
                columns[rows * panel.count..].fill(0.0);
                panel.fill(g, self.x, inputs.clone(), &mut columns[..rows * panel.count], panel.count);
                let blocks = columns.chunks_exact(count * panel.count);
                for (columns, sums) in blocks.zip(sums.chunks_exact_mut(count * width)) {
                    let columns = LeftOperand::rows(columns, panel.count, count, &places[..panel.count]);
                    let (mut gradient, mut sums) = (gradient, sums);
                    for (_, width) in self.filters.panels() {
                        let (own, rest) = gradient.split_at(panel.count * width);
                        let (target, after) = std::mem::take(&mut sums).split_at_mut(count * width);
                        (gradient, sums) = (rest, after);
                        let block = &mut block[..count * width];
                        kernel.multiply(&columns, own, width, width, block);
                        simd::add(target, block);
                    }
                }
            }
            let mut done = 0;
            for (first, width) in self.filters.panels() {
                for filter in first..g.group_out().min(first + width) {
                    let place = start
                        + (group * g.group_out() + filter) * g.depth()
                        + channels.start * g.kernel_area();
                    // SAFETY: tasks differ in their parts, their input channels or their groups, so
                    // that no weight belongs to two.
                    let mut target = unsafe { weight.window(place, 1, rows, rows) };
                    let blocks = sums[done + filter - first..].chunks(count * self.filters.width());
                    for (target, sums) in target.row(0).chunks_mut(count).zip(blocks) {
                        target.iter_mut().zip(sums.iter().step_by(width)).for_each(|(t, sum)| *t = *sum);
                    }
                }
                done += count * width;
            }
        });
    }
}
