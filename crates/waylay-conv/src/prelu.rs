//! Parametric rectifier: values above 0 pass, others are scaled by a slope per channel or by one slope for all.
//! Source: He et al., arXiv:1502.01852, eq. 1.

use rayon::prelude::*;

use crate::simd::{reduce, vectorised};
use crate::window::written_in_parts;

/// Output of the shape of `x` `[N, C, H, W]`, whose planes have `area` pixels, for `alpha` `[C]` or `[1]`.
pub(crate) fn forward(x: &[f32], alpha: &[f32], channels: usize, area: usize) -> Vec<f32> {
    let plane = |index: usize, target: &mut [f32]| {
        let source = &x[index * area..][..area];
        rectify(target, source, source, slope(alpha, index % channels));
    };
    // SAFETY: `rectify` writes a value for each of a plane's.
    unsafe { written_in_parts(x.len(), area, plane) }
}

/// Gradient of `x` from the gradient of the output.
pub(crate) fn input_gradient(
    x: &[f32],
    alpha: &[f32],
    gradient: &[f32],
    channels: usize,
    area: usize,
) -> Vec<f32> {
    assert_eq!(x.len(), gradient.len());
    let plane = |index: usize, target: &mut [f32]| {
        let (source, gradient) = (&x[index * area..][..area], &gradient[index * area..][..area]);
        rectify(target, source, gradient, slope(alpha, index % channels));
    };
    // SAFETY: `rectify` writes a value for each of a plane's.
    unsafe { written_in_parts(x.len(), area, plane) }
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
    /// Passes `values` where `signs` are above 0 and scales them by `slope` elsewhere.
    fn rectify(target: &mut [f32], signs: &[f32], values: &[f32], slope: f32) {
        for ((target, &sign), &value) in target.iter_mut().zip(signs).zip(values) {
            *target = if sign > 0.0 { value } else { value * slope };
        }
    }
}

vectorised! {
    /// Sum of the products of `x` and `gradient` where `x` is not above 0.
    fn negative_dot(x: &[f32], gradient: &[f32]) -> f64 {
        reduce(x, gradient, |x, gradient| if x > 0.0 { 0.0 } else { x * gradient })
    }
}
