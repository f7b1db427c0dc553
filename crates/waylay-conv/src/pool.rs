//! Max pooling, first over rows, then over columns; gradients go to the first maximum of a window,
//! as in PyTorch.

use rayon::prelude::*;

use crate::options::ConvOptions;
use crate::scratch;
use crate::simd::{self, vectorised};
use crate::window::written_in_parts;

/// Sizes of a pooling, of which `options` has stride, padding and dilation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pooling {
    pub input: [usize; 2],
    pub kernel: [usize; 2],
    pub output: [usize; 2],
    pub options: ConvOptions,
}

impl Pooling {
    /// Panics where there is no output.
    pub fn expect(input: [usize; 2], kernel: [usize; 2], options: ConvOptions) -> Self {
        let output = options.output_size(input, kernel);
        let output = output.unwrap_or_else(|| panic!("max_pool2d: {input:?} for {kernel:?} and {options:?}"));
        Self { input, kernel, output, options }
    }

    /// Places that the windows of a row cover, padding and all.
    fn reach(&self) -> usize {
        (self.output[1] - 1) * self.options.stride[1] + (self.kernel[1] - 1) * self.options.dilation[1] + 1
    }

    /// Calls `visit` with the places along `axis` that window `index` covers and that lie in the
    /// image, and their taps, in order.
    #[inline(always)]
    fn visit(&self, axis: usize, index: usize, mut visit: impl FnMut(usize, usize)) {
        let mut at = (index * self.options.stride[axis]).wrapping_sub(self.options.padding[axis]);
        for tap in 0..self.kernel[axis] {
            if at < self.input[axis] {
                visit(at, tap);
            }
            at = at.wrapping_add(self.options.dilation[axis]);
        }
    }
}

/// Maxima of `x`, planes of `input`: planes of `output`. A window of nothing but padding gives −∞,
/// one with a NaN a NaN.
pub(crate) fn max(p: &Pooling, x: &[f32]) -> Vec<f32> {
    let (area, len) = (p.input[0] * p.input[1], p.output[0] * p.output[1]);
    let (reach, step) = (p.reach(), p.options.stride[1]);
    let fill = |index: usize, target: &mut [f32]| {
        scratch::with(reach + step * reach.div_ceil(step), |space| {
            maxima(p, &x[index * area..][..area], space.split_at_mut(reach), target);
        });
    };
    written_in_parts(x.len() / area * len, len, fill)
}

/// Gradient of `x` from the gradient of the output.
pub(crate) fn max_gradient(p: &Pooling, x: &[f32], gradient: &[f32]) -> Vec<f32> {
    let ([height, width], [rows, columns]) = (p.input, p.output);
    let mut result = vec![0.0; x.len()];
    let sources = x.par_chunks(height * width).zip(gradient.par_chunks(rows * columns));
    result.par_chunks_mut(height * width).zip(sources).for_each(|(target, (plane, gradient))| {
        scratch::with(2 * width, |space| {
            let (line, taps) = space.split_at_mut(width);
            for (row, gradient) in gradient.chunks_exact(columns).enumerate() {
                line.fill(f32::NEG_INFINITY);
                taps.fill(f32::INFINITY);
                p.visit(0, row, |y, tap| raise_first(line, taps, &plane[y * width..][..width], tap as f32));
                for (column, slope) in gradient.iter().enumerate() {
                    let (mut most, mut first, mut place) = (f32::NEG_INFINITY, f32::INFINITY, None);
                    p.visit(1, column, |x, _| {
                        if exceeds(line[x], taps[x], most, first) {
                            (most, first, place) = (line[x], taps[x], Some(x));
                        }
                    });
                    if let Some(x) = place {
                        let y = row * p.options.stride[0] + first as usize * p.options.dilation[0];
                        target[(y - p.options.padding[0]) * width + x] += slope;
                    }
                }
            }
        });
    });
    result
}

/// Whether `value` is to be taken instead of `most`: it is larger, or as large and seen by an
/// earlier tap, or NaN.
#[inline(always)]
fn exceeds(value: f32, tap: f32, most: f32, first: f32) -> bool {
    (value > most) | ((value == most) & (tap < first)) | value.is_nan()
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

/// Raises each of `most` to the value beside it.
#[inline(always)]
fn raise(most: &mut [f32], values: &[f32]) {
    most.iter_mut().zip(values).for_each(|(most, value)| *most = larger(*most, *value));
}

vectorised! {
    /// The maxima of one plane: the larger of the rows that a row of windows covers, with what lies
    /// beside the image, are divided by their places' remainders of the stride, so that every tap's
    /// values lie side by side.
    fn maxima(p: &Pooling, plane: &[f32], space: (&mut [f32], &mut [f32]), target: &mut [f32]) {
        let ([_, width], [_, columns], step) = (p.input, p.output, p.options.stride[1]);
        let (line, phases) = space;
        line.fill(f32::NEG_INFINITY);
        let (pitch, begin) = (line.len().div_ceil(step), p.options.padding[1].min(line.len()));
        let end = line.len().min(begin + width);
        for (row, target) in target.chunks_exact_mut(columns).enumerate() {
            let inside = &mut line[begin..end];
            inside.fill(f32::NEG_INFINITY);
            p.visit(0, row, |y, _| raise(inside, &plane[y * width..][..width]));
            if step > 1 {
                simd::deal(line, step, phases);
            }
            for tap in 0..p.kernel[1] {
                let at = tap * p.options.dilation[1];
                let values = if step > 1 { &phases[at % step * pitch + at / step..] } else { &line[at..] };
                if tap == 0 {
                    simd::copy(target, &values[..columns]);
                } else {
                    raise(target, &values[..columns]);
                }
            }
        }
    }
}

vectorised! {
    /// [`raise`], with which tap each of `most` was seen by.
    fn raise_first(most: &mut [f32], taps: &mut [f32], values: &[f32], tap: f32) {
        for ((most, first), value) in most.iter_mut().zip(taps).zip(values) {
            let raised = exceeds(*value, tap, *most, *first);
            *most = if raised { *value } else { *most };
            *first = if raised { tap } else { *first };
        }
    }
}
