//! The gradient of a convolution's weight: columns of the input times the gradient of the output, summed over all outputs.
//! Both are turned so that the sum runs over the rows that [`Kernel::multiply`] takes.

use std::ops::Range;

use rayon::prelude::*;

use crate::direct::Panel;
use crate::filters::interleave;
use crate::kernel::{Kernel, Lanes};
use crate::options::Geometry;
use crate::scratch;
use crate::simd::{self, vectorised};
use crate::window::Shared;

/// Outputs whose products are summed at once.
const OUTPUTS: usize = 128;
/// Most input channels that a task takes: as many rows as there are taps for each.
const CHANNELS: usize = 8;
/// Rows that are turned at once.
const EIGHT: usize = 8;

/// Gradient of the weight `[Co, Ci / groups, Kh, Kw]` from `x` and the gradient of the output.
pub(crate) fn gradient(g: &Geometry, x: &[f32], gradient: &[f32]) -> Vec<f32> {
    let mut weight = vec![0.0; g.out_channels * g.depth()];
    let kernel = Kernel::new();
    let panels = Panel::all(g, OUTPUTS);
    let filters = Filters { kernel, count: g.group_out() };
    let total = g.images * g.output_area() * filters.width();
    let share = g.group_in().div_ceil(rayon::current_num_threads()).min(CHANNELS);
    let chunks = g.group_in().div_ceil(share);
    scratch::with(g.options.groups * total, |turned| {
        let shared = Shared::new(turned);
        (0..g.options.groups * panels.len()).into_par_iter().for_each(|task| {
            let (group, index) = (task / panels.len(), task % panels.len());
            let len = panels[index].count * filters.width();
            let start = group * total + index * OUTPUTS * filters.width();
            // SAFETY: every panel of every group has a place of its own.
            let mut target = unsafe { shared.window(start, 1, len, len) };
            filters.turn(g, gradient, group * g.group_out(), &panels[index], target.row(0));
        });
        let (turned, shared) = (&*turned, Shared::new(&mut weight));
        (0..g.options.groups * chunks).into_par_iter().for_each(|task| {
            let (group, first) = (task / chunks, task % chunks * share);
            let channels = first..g.group_in().min(first + share);
            let work = Work { g, x, panels: &panels, filters, turned: &turned[group * total..][..total] };
            work.sum(group, channels, &shared);
        });
    });
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

    /// Writes the gradient of a panel of outputs: for each panel of filters, a row for each output, a column for each filter.
    fn turn(self, g: &Geometry, gradient: &[f32], group: usize, outputs: &Panel, target: &mut [f32]) {
        let mut rest = target;
        for (first, width) in self.panels() {
            let (target, after) = std::mem::take(&mut rest).split_at_mut(outputs.count * width);
            rest = after;
            for piece in &outputs.pieces {
                let (area, len) = (g.output_area(), piece.pixels.len());
                let row = |filter: usize| {
                    &gradient[(piece.image * g.out_channels + group + filter) * area + piece.pixels.start..]
                };
                let target = &mut target[piece.lane * width..][..len * width];
                for lane in (0..width).step_by(EIGHT) {
                    let rows = EIGHT.min(self.count.saturating_sub(first + lane));
                    let target = &mut target[lane..];
                    if rows == EIGHT {
                        turn_eight(row(first + lane), area, len, target, width);
                        continue;
                    }
                    for place in 0..EIGHT.min(width - lane) {
                        let column = target[place..].iter_mut().step_by(width);
                        if place < rows {
                            column.zip(row(first + lane + place)).take(len).for_each(|(t, v)| *t = *v);
                        } else {
                            column.for_each(|t| *t = 0.0);
                        }
                    }
                }
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
    turned: &'a [f32],
}

impl Work<'_> {
    /// Writes the gradient of the weights of some input channels of a group.
    fn sum(&self, group: usize, channels: Range<usize>, weight: &Shared<'_>) {
        let (g, kernel) = (self.g, self.filters.kernel);
        let (count, width) = (kernel.filters(), self.filters.width());
        let rows = channels.len() * g.kernel_area();
        let blocks = rows.div_ceil(count);
        let inputs = group * g.group_in() + channels.start..group * g.group_in() + channels.end;
        let sizes =
            [blocks * count * OUTPUTS, count * OUTPUTS, count * kernel.columns(), blocks * count * width];
        scratch::with(sizes.iter().sum(), |space| {
            let (columns, space) = space.split_at_mut(sizes[0]);
            let (turned, space) = space.split_at_mut(sizes[1]);
            let (block, sums) = space.split_at_mut(sizes[2]);
            sums.fill(0.0);
            for (index, panel) in self.panels.iter().enumerate() {
                let gradient = &self.turned[index * OUTPUTS * width..][..panel.count * width];
                let columns = &mut columns[..blocks * count * panel.count];
                columns[rows * panel.count..].fill(0.0);
                panel.fill(g, self.x, inputs.clone(), &mut columns[..rows * panel.count], panel.count);
                let blocks = columns.chunks_exact(count * panel.count);
                for (columns, sums) in blocks.zip(sums.chunks_exact_mut(count * width)) {
                    let turned = &mut turned[..count * panel.count];
                    interleave(columns, panel.count, count, turned);
                    let (mut gradient, mut sums) = (gradient, sums);
                    for (_, width) in self.filters.panels() {
                        let (own, rest) = gradient.split_at(panel.count * width);
                        let (target, after) = std::mem::take(&mut sums).split_at_mut(count * width);
                        (gradient, sums) = (rest, after);
                        let block = &mut block[..count * width];
                        kernel.multiply(Lanes::Packed(turned), own, width, width, block);
                        simd::add(target, block);
                    }
                }
            }
            let mut start = 0;
            for (first, width) in self.filters.panels() {
                for filter in first..g.group_out().min(first + width) {
                    let place =
                        (group * g.group_out() + filter) * g.depth() + channels.start * g.kernel_area();
                    // SAFETY: tasks differ in their input channels or their groups, so that no weight belongs to two.
                    let mut target = unsafe { weight.window(place, 1, rows, rows) };
                    let blocks = sums[start + filter - first..].chunks(count * self.filters.width());
                    for (target, sums) in target.row(0).chunks_mut(count).zip(blocks) {
                        target.iter_mut().zip(sums.iter().step_by(width)).for_each(|(t, sum)| *t = *sum);
                    }
                }
                start += count * width;
            }
        });
    }
}

vectorised! {
    /// `len` values of eight rows, `area` apart, to eight columns of rows that are `pitch` apart.
    fn turn_eight(rows: &[f32], area: usize, len: usize, out: &mut [f32], pitch: usize) {
        let f = |row: usize| &rows[row * area..][..len];
        let (a, b, c, d) = (f(0), f(1), f(2), f(3));
        let (e, f, g, h) = (f(4), f(5), f(6), f(7));
        for (t, row) in out.chunks_mut(pitch).enumerate().take(len) {
            row[..EIGHT].copy_from_slice(&[a[t], b[t], c[t], d[t], e[t], f[t], g[t], h[t]]);
        }
    }
}
