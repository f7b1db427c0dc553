//! Dispatch: which kernel computes a convolution, forward and backward, by its shape.

use rayon::prelude::*;

use crate::epilogue::Epilogue;
use crate::filters::Filters;
use crate::gemm::{Matrix, multiply};
use crate::im2col::col2im;
use crate::options::Geometry;
use crate::window::{Shared, Window, written};
use crate::{direct, norm, scratch, strided, weights, winograd};

/// Values of the column matrix that a task of [`scattered_gradient`] may hold.
const TILE: usize = 1 << 20;

/// Most channels that are few.
const FEW: usize = 4;

/// Output `[N, Co, Ho, Wo]` for `x` `[N, Ci, H, W]` and `filters` `[Co, Ci / groups, Kh, Kw]`.
pub(crate) fn forward(g: &Geometry, x: &[f32], filters: &Filters<'_>, epilogue: &Epilogue<'_>) -> Vec<f32> {
    if let Some(weight) = filters.plain()
        && few(g.group_out(), g)
        && epilogue.add.is_none()
        && !epilogue.relu
        && let Some(transposed) = g.transposed()
    {
        let mut output = scattered_gradient(&transposed, &flipped(g, weight), x);
        if let Some(bias) = epilogue.bias {
            norm::shift_channels(&mut output, bias, g.output_area());
        }
        return output;
    }
    let len = g.images * g.out_channels * g.output_area();
    written(len, |output| fill(g, x, filters, epilogue, output))
}

/// [`forward`] over what `output` holds, which is added; not for depthwise convolutions.
pub(crate) fn forward_onto(
    g: &Geometry,
    x: &[f32],
    filters: &Filters<'_>,
    epilogue: &Epilogue<'_>,
    output: &mut [f32],
) {
    assert!(output.len() == g.images * g.out_channels * g.output_area() && epilogue.onto);
    fill(g, x, filters, epilogue, &Shared::new(output));
}

fn fill(g: &Geometry, x: &[f32], filters: &Filters<'_>, epilogue: &Epilogue<'_>, output: &Shared<'_>) {
    let keeper = filters.keeper().filter(|_| winograd::keeps(g));
    if winograd::fits(g, keeper.is_some()) {
        winograd::forward(g, x, filters, keeper, epilogue, output);
    } else {
        direct::forward(g, x, filters, epilogue, output);
    }
}

/// Whether so few channels come out, or so many taps see each value, that columns are better made
/// of the products.
fn few(channels: usize, g: &Geometry) -> bool {
    channels <= FEW && g.kernel_area() > 1
}

/// Gradient of `weight` from `x` and the gradient of the output.
pub(crate) fn weight_gradient(g: &Geometry, x: &[f32], gradient: &[f32]) -> Vec<f32> {
    if winograd::fits_weight(g) {
        return winograd::weight_gradient(g, x, gradient);
    }
    if few(g.group_out(), g)
        && let Some(transposed) = g.transposed()
    {
        return flipped(&transposed, &weights::gradient(&transposed, gradient, x));
    }
    weights::gradient(g, x, gradient)
}

/// Gradient of `x` from `weight` and the gradient of the output.
pub(crate) fn input_gradient(g: &Geometry, weight: &[f32], gradient: &[f32]) -> Vec<f32> {
    if few(g.group_in(), g) {
        return scattered_gradient(g, weight, gradient);
    }
    match g.transposed() {
        Some(transposed) => {
            let taps = (0..g.kernel_area()).rev().collect();
            let filters = Filters::transposed(weight, g.kernel_area(), taps);
            forward(&transposed, gradient, &filters, &Epilogue::default())
        }
        None => strided::input_gradient(g, weight, gradient)
            .unwrap_or_else(|| scattered_gradient(g, weight, gradient)),
    }
}

/// [`input_gradient`] by spreading columns over the image: what takes any convolution.
fn scattered_gradient(g: &Geometry, weight: &[f32], gradient: &[f32]) -> Vec<f32> {
    let (groups, across) = (g.options.groups, g.output[1]);
    let rows = (TILE / (g.depth() * across)).max(1);
    let mut output = vec![0.0; g.images * g.in_channels * g.input_area()];
    output.par_chunks_mut(g.group_in() * g.input_area()).enumerate().for_each(|(index, target)| {
        let filters = &weight[index % groups * g.group_out() * g.depth()..];
        let filters = Matrix::new(filters, g.group_out(), g.depth(), g.depth()).transposed();
        let gradient = &gradient[index * g.group_out() * g.output_area()..];
        for first in (0..g.output[0]).step_by(rows) {
            let rows = first..g.output[0].min(first + rows);
            let pitch = rows.len() * across;
            let gradient = Matrix::new(&gradient[first * across..], g.group_out(), pitch, g.output_area());
            scratch::with(g.depth() * pitch, |columns| {
                multiply(&mut Window::of(columns, pitch), false, filters, gradient);
                col2im(g, columns, pitch, rows, target);
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
