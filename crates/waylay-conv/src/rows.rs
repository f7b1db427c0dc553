//! Layer normalisation and softmax: of rows, the last dimension of a tensor, each by itself.
//! Sources: Ba et al., arXiv:1607.06450, eq. 4; the gradients follow by the chain rule.

use rayon::prelude::*;

use crate::activation::exp;
use crate::norm::{centred_dot, statistics};
use crate::simd::{reduce, sum, vectorised};
use crate::window::written_in_parts;

/// Values that one task takes at a time, at least one row.
const BLOCK: usize = 1 << 14;

/// Values of the whole rows that one task takes.
fn part(width: usize) -> usize {
    (BLOCK / width).max(1) * width
}

/// `x`, rows of `gamma`'s length, each with mean 0 and variance 1, scaled by `gamma` and shifted by
/// `beta`.
pub(crate) fn normalise(x: &[f32], gamma: &[f32], beta: &[f32], epsilon: f64) -> Vec<f32> {
    let (width, size) = (gamma.len(), part(gamma.len()));
    let rows = |index: usize, target: &mut [f32]| {
        let source = &x[index * size..][..target.len()];
        for (target, source) in target.chunks_exact_mut(width).zip(source.chunks_exact(width)) {
            let (mean, scale) = statistics(source, epsilon);
            affine(target, source, [mean, scale], gamma, beta);
        }
    };
    written_in_parts(x.len(), size, rows)
}

/// Gradient of `x` from the gradient of [`normalise`]'s output.
pub(crate) fn normalise_gradient(x: &[f32], gamma: &[f32], gradient: &[f32], epsilon: f64) -> Vec<f32> {
    let (width, size) = (gamma.len(), part(gamma.len()));
    assert_eq!(x.len(), gradient.len());
    let rows = |index: usize, target: &mut [f32]| {
        let start = index * size;
        let sources = x[start..].chunks_exact(width).zip(gradient[start..].chunks_exact(width));
        for (target, (source, gradient)) in target.chunks_exact_mut(width).zip(sources) {
            let (mean, scale) = statistics(source, epsilon);
            product(target, gradient, gamma);
            let count = width as f64;
            let total = (sum(target) / count) as f32;
            let aligned = (centred_dot(source, target, mean) / count) as f32;
            input_gradient(target, source, [mean, scale, total, aligned * scale * scale]);
        }
    };
    written_in_parts(x.len(), size, rows)
}

/// Gradients of the scale and of the shift, of `width` values.
pub(crate) fn normalise_parameter_gradients(
    x: &[f32],
    gradient: &[f32],
    width: usize,
    epsilon: f64,
) -> [Vec<f32>; 2] {
    let size = part(width);
    let sums: Vec<[Vec<f32>; 2]> = x
        .par_chunks(size)
        .zip(gradient.par_chunks(size))
        .map(|(x, gradient)| {
            let mut sums = [vec![0.0; width], vec![0.0; width]];
            for (source, gradient) in x.chunks_exact(width).zip(gradient.chunks_exact(width)) {
                let (mean, scale) = statistics(source, epsilon);
                for (at, (source, gradient)) in source.iter().zip(gradient).enumerate() {
                    sums[0][at] += (source - mean) * scale * gradient;
                    sums[1][at] += gradient;
                }
            }
            sums
        })
        .collect();
    [0, 1].map(|which| {
        let mut total = vec![0.0_f64; width];
        for part in &sums {
            total.iter_mut().zip(&part[which]).for_each(|(total, part)| *total += f64::from(*part));
        }
        total.into_iter().map(|total| total as f32).collect()
    })
}

/// Each of `values`' rows becomes exp(v)/Σ exp(v).
pub(crate) fn softmax(values: &mut [f32], width: usize) {
    values.par_chunks_mut(part(width)).for_each(|rows| {
        for row in rows.chunks_exact_mut(width) {
            let largest = largest(row);
            exponentials(row, largest);
            scale(row, (1.0 / sum(row)) as f32);
        }
    });
}

/// `gradient`, of the output `y`, becomes that of the input.
pub(crate) fn softmax_gradient(gradient: &mut [f32], y: &[f32], width: usize) {
    assert_eq!(gradient.len(), y.len());
    let size = part(width);
    gradient.par_chunks_mut(size).zip(y.par_chunks(size)).for_each(|(gradient, y)| {
        for (gradient, y) in gradient.chunks_exact_mut(width).zip(y.chunks_exact(width)) {
            let mean = dot(gradient, y) as f32;
            weigh(gradient, y, mean);
        }
    });
}

vectorised! {
    fn affine(target: &mut [f32], source: &[f32], statistics: [f32; 2], gamma: &[f32], beta: &[f32]) {
        let [mean, scale] = statistics;
        let factors = gamma.iter().zip(beta);
        for ((target, source), (gamma, beta)) in target.iter_mut().zip(source).zip(factors) {
            *target = (source - mean) * scale * gamma + beta;
        }
    }
}

vectorised! {
    fn product(target: &mut [f32], a: &[f32], b: &[f32]) {
        target.iter_mut().zip(a).zip(b).for_each(|((target, a), b)| *target = a * b);
    }
}

vectorised! {
    /// From a row's gradient times the scales to the input's gradient.
    fn input_gradient(target: &mut [f32], source: &[f32], statistics: [f32; 4]) {
        let [mean, scale, total, slope] = statistics;
        for (target, source) in target.iter_mut().zip(source) {
            *target = scale * (*target - total - (source - mean) * slope);
        }
    }
}

vectorised! {
    /// The largest of `values`, NaN left out.
    fn largest(values: &[f32]) -> f32 {
        let (parts, rest) = values.as_chunks::<16>();
        let mut lanes = [f32::NEG_INFINITY; 16];
        for part in parts {
            for (lane, value) in lanes.iter_mut().zip(part) {
                *lane = if *value > *lane { *value } else { *lane };
            }
        }
        lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |most, value| if *value > most { *value } else { most })
    }
}

vectorised! {
    fn exponentials(values: &mut [f32], largest: f32) {
        values.iter_mut().for_each(|value| *value = exp(*value - largest));
    }
}

vectorised! {
    fn scale(values: &mut [f32], factor: f32) {
        values.iter_mut().for_each(|value| *value *= factor);
    }
}

vectorised! {
    fn dot(a: &[f32], b: &[f32]) -> f64 {
        reduce(a, b, |a, b| a * b)
    }
}

vectorised! {
    fn weigh(gradient: &mut [f32], y: &[f32], mean: f32) {
        gradient.iter_mut().zip(y).for_each(|(gradient, y)| *gradient = (*gradient - mean) * y);
    }
}
