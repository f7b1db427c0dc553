//! Depthwise convolution: one filter per channel.
//!
//! A padded plane is first divided into phases, one per remainder of its rows and columns by the
//! stride. Every tap then sees one phase from a fixed offset on, so that each pass is a long loop
//! over contiguous values, whatever the stride, dilation and padding.

use rayon::prelude::*;

use crate::epilogue::Epilogue;
use crate::im2col::gather;
use crate::options::Geometry;
use crate::scratch;
use crate::simd::{reduce, vectorised};
use crate::window::written_in_parts;

/// Output `[N, C, Ho, Wo]` for `x` `[N, C, H, W]` and `weight` `[C, 1, Kh, Kw]`.
pub(crate) fn forward(g: &Geometry, x: &[f32], weight: &[f32], epilogue: &Epilogue<'_>) -> Vec<f32> {
    let phases = Phases::new(g);
    let plane = |index: usize, target: &mut [f32]| {
        let channel = index % g.in_channels;
        scratch::with(phases.len() + phases.span, |buffer| {
            let (planes, rows) = buffer.split_at_mut(phases.len());
            phases.split(g, &x[index * g.input_area()..][..g.input_area()], planes);
            rows.fill(epilogue.bias.map_or(0.0, |bias| bias[channel]));
            let filter = &weight[channel * g.kernel_area()..][..g.kernel_area()];
            correlate(rows, planes, &phases.offsets, filter);
            phases.unpad(g, rows, target);
            epilogue.rest(index * g.output_area(), target);
        });
    };
    written_in_parts(g.images * g.out_channels * g.output_area(), g.output_area(), plane)
}

/// Gradient of `weight` from `x` and the gradient of the output.
pub(crate) fn weight_gradient(g: &Geometry, x: &[f32], gradient: &[f32]) -> Vec<f32> {
    let phases = Phases::new(g);
    let mut output = vec![0.0; g.out_channels * g.kernel_area()];
    output.par_chunks_mut(g.kernel_area()).enumerate().for_each(|(channel, filter)| {
        scratch::with(phases.len() + phases.span, |buffer| {
            let (planes, rows) = buffer.split_at_mut(phases.len());
            for image in 0..g.images {
                let index = image * g.in_channels + channel;
                phases.split(g, &x[index * g.input_area()..][..g.input_area()], planes);
                phases.pad(g, &gradient[index * g.output_area()..][..g.output_area()], rows);
                dots(filter, rows, planes, &phases.offsets);
            }
        });
    });
    output
}

/// Gradient of `x` from `weight` and the gradient of the output.
pub(crate) fn input_gradient(g: &Geometry, weight: &[f32], gradient: &[f32]) -> Vec<f32> {
    let phases = Phases::new(g);
    let taps = phases.backward_taps();
    let guard = phases.size - phases.span;
    let plane = |index: usize, target: &mut [f32]| {
        // Pixels that no tap reaches.
        target.fill(0.0);
        let filter = &weight[index % g.in_channels * g.kernel_area()..][..g.kernel_area()];
        scratch::with(phases.len() + guard + phases.size, |buffer| {
            let (planes, guarded) = buffer.split_at_mut(phases.len());
            guarded.fill(0.0);
            let rows = &mut guarded[guard..][..phases.span];
            phases.pad(g, &gradient[index * g.output_area()..][..g.output_area()], rows);
            planes.fill(0.0);
            for (plane, (taps, offsets)) in planes.chunks_exact_mut(phases.size).zip(&taps) {
                let filter: Vec<f32> = taps.iter().map(|&tap| filter[tap]).collect();
                correlate(plane, guarded, offsets, &filter);
            }
            phases.join(g, planes, target);
        });
    };
    written_in_parts(g.images * g.in_channels * g.input_area(), g.input_area(), plane)
}

/// How a padded plane divides into phases.
struct Phases {
    /// Phases down and across: the stride.
    count: [usize; 2],
    /// Values between the rows of a phase.
    pitch: usize,
    /// Values of a phase.
    size: usize,
    /// Values from the first to the last output pixel, when output rows are `pitch` apart too.
    span: usize,
    /// For each tap, where among all phases the value for the first output pixel lies.
    offsets: Vec<usize>,
}

impl Phases {
    fn new(g: &Geometry) -> Self {
        let count = g.options.stride;
        let shift = |axis: usize, tap: usize| tap * g.options.dilation[axis];
        let extent = |axis: usize| {
            let furthest = (0..g.kernel[axis]).map(|tap| shift(axis, tap) / count[axis]).max();
            g.output[axis] + furthest.unwrap_or(0)
        };
        let (pitch, size) = (extent(1), extent(0) * extent(1));
        let offset = |ky: usize, kx: usize| {
            let (down, across) = (shift(0, ky), shift(1, kx));
            let phase = down % count[0] * count[1] + across % count[1];
            phase * size + down / count[0] * pitch + across / count[1]
        };
        let offsets = (0..g.kernel_area()).map(|tap| offset(tap / g.kernel[1], tap % g.kernel[1])).collect();
        Self { count, pitch, size, span: (g.output[0] - 1) * pitch + g.output[1], offsets }
    }

    /// Values of all phases.
    fn len(&self) -> usize {
        self.count[0] * self.count[1] * self.size
    }

    /// For each phase, its taps and where each of them begins in a gradient that follows a guard of
    /// zeros.
    fn backward_taps(&self) -> Vec<(Vec<usize>, Vec<usize>)> {
        let guard = self.size - self.span;
        let phase = |phase: usize| {
            let taps: Vec<usize> =
                (0..self.offsets.len()).filter(|&tap| self.offsets[tap] / self.size == phase).collect();
            let offsets = taps.iter().map(|&tap| guard - self.offsets[tap] % self.size).collect();
            (taps, offsets)
        };
        (0..self.count[0] * self.count[1]).map(phase).collect()
    }

    /// Calls `visit` with a range of a plane and the place, among the phases, of its every
    /// `stride`-th value.
    fn for_each_row(
        &self,
        g: &Geometry,
        mut visit: impl FnMut(std::ops::Range<usize>, std::ops::Range<usize>),
    ) {
        let [height, width] = g.input;
        let [top, left, ..] = g.options.padding;
        for iy in 0..height {
            let (py, row) = ((iy + top) % self.count[0], (iy + top) / self.count[0]);
            if row >= self.size / self.pitch {
                continue;
            }
            for px in 0..self.count[1] {
                let first = left.saturating_sub(px).div_ceil(self.count[1]);
                let begin = first * self.count[1] + px - left;
                let count = width.saturating_sub(begin).div_ceil(self.count[1]);
                let count = count.min(self.pitch.saturating_sub(first));
                if count > 0 {
                    let place = (py * self.count[1] + px) * self.size + row * self.pitch + first;
                    visit(iy * width + begin..(iy + 1) * width, place..place + count);
                }
            }
        }
    }

    /// Divides `plane` `[H, W]`, padded with zeros, into phases.
    fn split(&self, g: &Geometry, plane: &[f32], phases: &mut [f32]) {
        phases.fill(0.0);
        self.for_each_row(g, |source, target| gather(&mut phases[target], &plane[source], self.count[1]));
    }

    /// Puts phases together into `plane` `[H, W]`, dropping the padding.
    fn join(&self, g: &Geometry, phases: &[f32], plane: &mut [f32]) {
        self.for_each_row(g, |target, source| match self.count[1] {
            1 => plane[target][..source.len()].copy_from_slice(&phases[source]),
            stride => {
                let target = plane[target].iter_mut().step_by(stride);
                target.zip(&phases[source]).for_each(|(target, source)| *target = *source);
            }
        });
    }

    /// Lays out an output plane with rows `pitch` apart and zeros between them.
    fn pad(&self, g: &Geometry, plane: &[f32], rows: &mut [f32]) {
        let width = g.output[1];
        for (target, source) in rows.chunks_mut(self.pitch).zip(plane.chunks_exact(width)) {
            target[..width].copy_from_slice(source);
            target[width..].fill(0.0);
        }
    }

    /// Drops what lies between rows that are `pitch` apart.
    fn unpad(&self, g: &Geometry, rows: &[f32], plane: &mut [f32]) {
        let width = g.output[1];
        for (source, target) in rows.chunks(self.pitch).zip(plane.chunks_exact_mut(width)) {
            target.copy_from_slice(&source[..width]);
        }
    }
}

vectorised! {
    /// Adds to each value of `target` the sum over taps of weight times the value of `source` at
    /// offset plus place.
    fn correlate(target: &mut [f32], source: &[f32], offsets: &[usize], weights: &[f32]) {
        let (offsets, rest) = offsets.as_chunks::<9>();
        let (weights, rest_weights) = weights.as_chunks::<9>();
        for (offsets, weights) in offsets.iter().zip(weights) {
            correlate_taps(target, source, offsets, weights);
        }
        let (offsets, rest) = rest.as_chunks::<2>();
        let (weights, rest_weights) = rest_weights.as_chunks::<2>();
        for (offsets, weights) in offsets.iter().zip(weights) {
            correlate_taps(target, source, offsets, weights);
        }
        for (offset, weight) in rest.iter().zip(rest_weights) {
            correlate_taps(target, source, &[*offset], &[*weight]);
        }
    }
}

#[inline(always)]
fn correlate_taps<const T: usize>(
    target: &mut [f32],
    source: &[f32],
    offsets: &[usize; T],
    weights: &[f32; T],
) {
    let len = target.len();
    let taps = offsets.map(|offset| &source[offset..][..len]);
    for i in 0..len {
        let mut sum = target[i];
        for t in 0..T {
            sum += weights[t] * taps[t][i];
        }
        target[i] = sum;
    }
}

vectorised! {
    /// Adds to each of `sums` the sum of products of `values` and as many values of `source` from
    /// its offset on.
    fn dots(sums: &mut [f32], values: &[f32], source: &[f32], offsets: &[usize]) {
        for (sum, offset) in sums.iter_mut().zip(offsets) {
            *sum += reduce(values, &source[*offset..][..values.len()], |value, tap| value * tap) as f32;
        }
    }
}
