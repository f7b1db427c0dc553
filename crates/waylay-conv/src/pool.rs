//! Maxima of windows, first over rows, then over columns; gradients go to the first maximum of a window, as in PyTorch.

use rayon::prelude::*;

use crate::options::ConvOptions;
use crate::scratch;
use crate::simd::vectorised;

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

    /// Places along `axis` that window `index` covers and that lie in the image, in order.
    fn places(&self, axis: usize, index: usize) -> impl Iterator<Item = usize> + Clone {
        let (start, before) = (index * self.options.stride[axis], self.options.padding[axis]);
        let (step, size) = (self.options.dilation[axis], self.input[axis]);
        (0..self.kernel[axis])
            .filter_map(move |tap| (start + tap * step).checked_sub(before))
            .filter(move |at| *at < size)
    }
}

/// Maxima of `x`, planes of `input`: planes of `output`. A window of nothing but padding gives −∞, one with a NaN a NaN.
pub(crate) fn max(p: &Pooling, x: &[f32]) -> Vec<f32> {
    let ([height, width], [rows, columns]) = (p.input, p.output);
    let planes = x.len() / (height * width);
    let mut output = vec![f32::NEG_INFINITY; planes * rows * columns];
    let pairs = output.par_chunks_mut(rows * columns).zip(x.par_chunks(height * width));
    pairs.for_each(|(target, plane)| {
        scratch::with(width, |line| {
            for (row, target) in target.chunks_exact_mut(columns).enumerate() {
                line.fill(f32::NEG_INFINITY);
                for y in p.places(0, row) {
                    raise(line, &plane[y * width..][..width]);
                }
                for (column, target) in target.iter_mut().enumerate() {
                    *target = p.places(1, column).fold(*target, |most, at| larger(most, line[at]));
                }
            }
        });
    });
    output
}

/// Gradient of `x` from the gradient of the output.
pub(crate) fn max_gradient(p: &Pooling, x: &[f32], gradient: &[f32]) -> Vec<f32> {
    let ([height, width], [rows, columns]) = (p.input, p.output);
    let mut result = vec![0.0; x.len()];
    let sources = x.par_chunks(height * width).zip(gradient.par_chunks(rows * columns));
    result.par_chunks_mut(height * width).zip(sources).for_each(|(target, (plane, gradient))| {
        for (row, gradient) in gradient.chunks_exact(columns).enumerate() {
            for (column, slope) in gradient.iter().enumerate() {
                let mut most = (f32::NEG_INFINITY, None);
                for y in p.places(0, row) {
                    for at in p.places(1, column) {
                        let value = plane[y * width + at];
                        if value > most.0 || value.is_nan() || most.1.is_none() {
                            most = (value, Some(y * width + at));
                        }
                    }
                }
                if let Some(at) = most.1 {
                    target[at] += slope;
                }
            }
        }
    });
    result
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

vectorised! {
    /// Raises each of `most` to the value beside it.
    fn raise(most: &mut [f32], values: &[f32]) {
        most.iter_mut().zip(values).for_each(|(most, value)| *most = larger(*most, *value));
    }
}
