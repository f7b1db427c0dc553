//! The gradient with respect to the input of a strided convolution: pixels whose places leave the
//! same remainders, divided by the stride, have seen the same taps, and their gradients are a
//! convolution at stride 1 of the output's gradient with those taps.

use rayon::prelude::*;

use crate::direct;
use crate::epilogue::Epilogue;
use crate::filters::Filters;
use crate::options::{ConvOptions, Geometry};
use crate::simd::vectorised;
use crate::window::written;

/// Taps and sizes along one axis for the pixels with one remainder.
struct Axis {
    /// First of the taps, which are a stride apart.
    first: usize,
    taps: usize,
    /// Pixels.
    size: usize,
    before: usize,
    after: usize,
}

impl Axis {
    /// `None` where the output's gradient would have to be cut instead of padded.
    fn new(g: &Geometry, axis: usize, remainder: usize) -> Option<Self> {
        let (stride, kernel) = (g.options.stride[axis], g.kernel[axis]);
        let shifted = remainder + g.options.padding[axis];
        let (first, base) = (shifted % stride, shifted / stride);
        let taps = kernel.saturating_sub(first).div_ceil(stride);
        let size = g.input[axis].saturating_sub(remainder).div_ceil(stride);
        if taps == 0 || size == 0 {
            return Some(Self { first, taps: 0, size, before: 0, after: 0 });
        }
        let before = (taps - 1).checked_sub(base)?;
        let after = (size + taps - 1).checked_sub(g.output[axis] + before)?;
        Some(Self { first, taps, size, before, after })
    }
}

/// Gradient of `x` from `weight` and the gradient of the output; `None` for dilated convolutions
/// and for padding that reaches further than the kernel.
pub(crate) fn input_gradient(g: &Geometry, weight: &[f32], gradient: &[f32]) -> Option<Vec<f32>> {
    let [down, across] = g.options.stride;
    let axes = |axis: usize| {
        (0..g.options.stride[axis]).map(move |r| Axis::new(g, axis, r)).collect::<Option<Vec<_>>>()
    };
    let (rows, columns) = (axes(0)?, axes(1)?);
    if g.options.dilation != [1; 2] {
        return None;
    }
    let mut output = vec![0.0; g.images * g.in_channels * g.input_area()];
    for (remainder, row) in rows.iter().enumerate() {
        let phases: Vec<_> = columns.iter().map(|column| phase(g, weight, gradient, row, column)).collect();
        output.par_chunks_mut(g.input_area()).enumerate().for_each(|(plane, output)| {
            for (y, line) in output.chunks_exact_mut(g.input[1]).skip(remainder).step_by(down).enumerate() {
                let part = |index: usize| {
                    let size = columns[index].size;
                    let start = (plane * row.size + y) * size;
                    phases[index].get(start..start + size).unwrap_or_default()
                };
                if across == 2 {
                    weave(part(0), part(1), line);
                } else {
                    for index in 0..across {
                        let places = line.iter_mut().skip(index).step_by(across);
                        places.zip(part(index)).for_each(|(place, value)| *place = *value);
                    }
                }
            }
        });
    }
    Some(output)
}

/// The gradients of the pixels of one remainder down and one across, `[N, Ci, rows, columns]`;
/// nothing where no tap sees them.
fn phase(g: &Geometry, weight: &[f32], gradient: &[f32], row: &Axis, column: &Axis) -> Vec<f32> {
    if row.taps * column.taps == 0 {
        return Vec::new();
    }
    let [stride_y, stride_x] = g.options.stride;
    let taps = (0..row.taps * column.taps).rev().map(|place| {
        let (ky, kx) = (place / column.taps, place % column.taps);
        (row.first + ky * stride_y) * g.kernel[1] + column.first + kx * stride_x
    });
    let filters = Filters::transposed(weight, g.kernel_area(), taps.collect());
    let convolution = Geometry {
        images: g.images,
        in_channels: g.out_channels,
        out_channels: g.in_channels,
        input: g.output,
        kernel: [row.taps, column.taps],
        output: [row.size, column.size],
        options: ConvOptions {
            padding: [row.before, column.before, row.after, column.after],
            groups: g.options.groups,
            ..ConvOptions::default()
        },
    };
    let len = g.images * g.in_channels * row.size * column.size;
    written(len, |output| direct::forward(&convolution, gradient, &filters, &Epilogue::default(), output))
}

vectorised! {
    /// `even` and `odd` values by turns; zeros where there are none.
    fn weave(even: &[f32], odd: &[f32], line: &mut [f32]) {
        let (pairs, last) = line.as_chunks_mut::<2>();
        match (even.is_empty(), odd.is_empty()) {
            (false, false) => {
                let sources = even.iter().zip(odd);
                pairs.iter_mut().zip(sources).for_each(|(pair, (even, odd))| *pair = [*even, *odd]);
            }
            (false, true) => pairs.iter_mut().zip(even).for_each(|(pair, even)| *pair = [*even, 0.0]),
            (true, false) => pairs.iter_mut().zip(odd).for_each(|(pair, odd)| *pair = [0.0, *odd]),
            (true, true) => {}
        }
        if let ([last], Some(value)) = (last, even.get(pairs.len())) {
            *last = *value;
        }
    }
}
