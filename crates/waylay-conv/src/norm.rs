//! Instance normalisation, forward and backward, one plane at a time.
//! Source: Ulyanov et al., arXiv:1607.08022, eq. 1; the gradient follows by the chain rule.

use rayon::prelude::*;

use crate::simd::{reduce, squares, sum, vectorised};
use crate::window::{written_in_parts, written_with_notes};

/// Sizes of a batch of planes and the value added to each variance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planes {
    pub channels: usize,
    pub area: usize,
    pub epsilon: f64,
}

/// Gradients of the input, the scale and the shift.
pub(crate) struct NormGradients {
    pub x: Vec<f32>,
    pub gamma: Vec<f32>,
    pub beta: Vec<f32>,
}

/// Output of the shape of `x` `[N, C, H, W]`.
pub(crate) fn forward(planes: Planes, x: &[f32], gamma: &[f32], beta: &[f32]) -> Vec<f32> {
    let plane = |index: usize, target: &mut [f32]| {
        let (channel, source) = (index % planes.channels, &x[index * planes.area..][..planes.area]);
        let (mean, scale) = statistics(source, planes.epsilon);
        affine(target, source, mean, scale * gamma[channel], beta[channel]);
    };
    // SAFETY: `affine` writes a value for each of a plane's.
    unsafe { written_in_parts(x.len(), planes.area, plane) }
}

/// Gradients for `x` from the gradient of the output.
pub(crate) fn backward(planes: Planes, x: &[f32], gamma: &[f32], gradient: &[f32]) -> NormGradients {
    let plane = |index: usize, target: &mut [f32]| {
        let part = index * planes.area..(index + 1) * planes.area;
        let (source, gradient) = (&x[part.clone()], &gradient[part]);
        let (mean, scale) = statistics(source, planes.epsilon);
        let total = sum(gradient);
        let aligned = f64::from(scale) * centred_dot(source, gradient, mean);
        let count = planes.area as f64;
        let means = [(total / count) as f32, (aligned / count) as f32];
        let factor = scale * gamma[index % planes.channels];
        input_gradient(target, source, gradient, [mean, scale, factor], means);
        [total, aligned]
    };
    // SAFETY: `input_gradient` writes a value for each of a plane's.
    let (output, sums) = unsafe { written_with_notes(x.len(), planes.area, plane) };
    let channel = |part: usize| {
        let sum =
            |channel: usize| sums.iter().skip(channel).step_by(planes.channels).map(|sums| sums[part]).sum();
        (0..planes.channels)
            .map(|channel| {
                let sum: f64 = sum(channel);
                sum as f32
            })
            .collect()
    };
    NormGradients { gamma: channel(1), beta: channel(0), x: output }
}

/// Mean of a plane, and the reciprocal of its standard deviation.
pub(crate) fn statistics(plane: &[f32], epsilon: f64) -> (f32, f32) {
    let count = plane.len() as f64;
    let mean = (sum(plane) / count) as f32;
    let variance = squares(plane, mean) / count;
    (mean, (1.0 / (variance + epsilon).sqrt()) as f32)
}

vectorised! {
    /// Shifts `source` by `-mean`, scales it and shifts it by `shift`.
    fn affine(target: &mut [f32], source: &[f32], mean: f32, scale: f32, shift: f32) {
        for (target, source) in target.iter_mut().zip(source) {
            *target = (source - mean) * scale + shift;
        }
    }
}

vectorised! {
    /// Sum of the products of `source - mean` and `gradient`.
    pub(crate) fn centred_dot(source: &[f32], gradient: &[f32], mean: f32) -> f64 {
        reduce(source, gradient, |source, gradient| (source - mean) * gradient)
    }
}

vectorised! {
    /// Gradient of a plane; `statistics` are mean, scale and factor, `means` those of the gradient and of the
    /// gradient times the normalised plane.
    fn input_gradient(target: &mut [f32], source: &[f32], gradient: &[f32], statistics: [f32; 3], means: [f32; 2]) {
        let [mean, scale, factor] = statistics;
        let slope = scale * means[1];
        for ((target, source), gradient) in target.iter_mut().zip(source).zip(gradient) {
            *target = factor * (gradient - means[0] - (source - mean) * slope);
        }
    }
}

/// Sum over images and pixels of each channel of `values` `[N, C, H, W]`: the gradient of a bias.
pub(crate) fn channel_sums(values: &[f32], channels: usize, area: usize) -> Vec<f32> {
    let planes: Vec<f64> = values.par_chunks(area).map(sum).collect();
    (0..channels).map(|channel| planes.iter().skip(channel).step_by(channels).sum::<f64>() as f32).collect()
}

/// Adds `shifts`, one per channel, to `values` `[N, C, H, W]`.
pub(crate) fn shift_channels(values: &mut [f32], shifts: &[f32], area: usize) {
    values.par_chunks_mut(area).enumerate().for_each(|(index, plane)| {
        let shift = shifts[index % shifts.len()];
        plane.iter_mut().for_each(|value| *value += shift);
    });
}
