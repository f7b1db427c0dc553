//! PReLU, the parametric rectifier: values above 0 pass, others are scaled by a slope per channel
//! or by one slope for all. Source: He et al., arXiv:1502.01852, eq. 1.

use rayon::prelude::*;

use crate::activation::leaky;
use crate::simd::{reduce, vectorised};
use crate::window::written_in_parts;

/// Output of the shape of `x` `[N, C, H, W]`, whose planes have `area` pixels, for `alpha` `[C]` or
/// `[1]`.
pub(crate) fn forward(x: &[f32], alpha: &[f32], channels: usize, area: usize) -> Vec<f32> {
    let plane = |index: usize, target: &mut [f32]| {
        let source = &x[index * area..][..area];
        rectify(target, source, slope(alpha, index % channels));
    };
    written_in_parts(x.len(), area, plane)
}

/// [`forward`], each of `x` replaced by what becomes of it.
pub(crate) fn apply(x: &mut [f32], alpha: &[f32], channels: usize, area: usize) {
    x.par_chunks_mut(area).enumerate().for_each(|(index, values)| {
        rectify_in_place(values, slope(alpha, index % channels));
    });
}

/// Turns the `gradient` of the output into that of `x`.
pub(crate) fn input_gradient(x: &[f32], alpha: &[f32], gradient: &mut [f32], channels: usize, area: usize) {
    assert_eq!(x.len(), gradient.len());
    let planes = x.par_chunks(area).zip(gradient.par_chunks_mut(area));
    planes.enumerate().for_each(|(index, (x, gradient))| {
        scale_gradient(gradient, x, slope(alpha, index % channels));
    });
}

/// Gradient of the `slopes` values of `alpha`, one per channel or one in all.
pub(crate) fn slope_gradient(
    x: &[f32],
    gradient: &[f32],
    channels: usize,
    area: usize,
    slopes: usize,
) -> Vec<f32> {
    let planes: Vec<f64> = x
        .par_chunks(area)
        .zip(gradient.par_chunks(area))
        .map(|(x, gradient)| negative_dot(x, gradient))
        .collect();
    let mut sums = vec![0.0; slopes];
    for (index, sum) in planes.into_iter().enumerate() {
        sums[index % channels % slopes] += sum;
    }
    sums.into_iter().map(|sum| sum as f32).collect()
}

fn slope(alpha: &[f32], channel: usize) -> f32 {
    alpha[channel % alpha.len()]
}

vectorised! {
    fn rectify(target: &mut [f32], values: &[f32], slope: f32) {
        target.iter_mut().zip(values).for_each(|(target, &value)| *target = leaky(value, value, slope));
    }
}

vectorised! {
    fn rectify_in_place(values: &mut [f32], slope: f32) {
        values.iter_mut().for_each(|value| *value = leaky(*value, *value, slope));
    }
}

vectorised! {
    fn scale_gradient(gradient: &mut [f32], x: &[f32], slope: f32) {
        gradient.iter_mut().zip(x).for_each(|(gradient, &x)| *gradient = leaky(*gradient, x, slope));
    }
}

vectorised! {
    /// Sum of the products of `x` and `gradient` where `x` is not above 0.
    fn negative_dot(x: &[f32], gradient: &[f32]) -> f64 {
        reduce(x, gradient, |x, gradient| if x > 0.0 { 0.0 } else { x * gradient })
    }
}
