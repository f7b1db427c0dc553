//! Instance normalisation, forward and backward, one plane at a time. Source: Ulyanov et al.,
//! arXiv:1607.08022, eq. 1; the gradient follows by the chain rule. With the rectifier that follows
//! it in most networks.

use rayon::prelude::*;

use crate::activation::leaky;
use crate::simd::{reduce, squares, sum, vectorised};
use crate::window::written_in_parts;

/// Sizes of a batch of planes, the value added to each variance, and what values that are not above
/// 0 are scaled by in the end: 1 without a rectifier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planes {
    pub channels: usize,
    pub area: usize,
    pub epsilon: f64,
    pub slope: f32,
}

/// What becomes of the values of a plane: less the mean, times the scale, plus the shift.
#[derive(Clone, Copy, Debug)]
struct Affine {
    mean: f32,
    scale: f32,
    shift: f32,
}

impl Affine {
    #[inline(always)]
    fn of(self, value: f32) -> f32 {
        (value - self.mean) * self.scale + self.shift
    }
}

/// Output of the shape of `x` `[N, C, H, W]`.
pub(crate) fn forward(planes: Planes, x: &[f32], gamma: &[f32], beta: &[f32]) -> Vec<f32> {
    let plane = |index: usize, target: &mut [f32]| {
        let (channel, source) = (index % planes.channels, &x[index * planes.area..][..planes.area]);
        let (mean, scale) = statistics(source, planes.epsilon);
        let affine = Affine { mean, scale: scale * gamma[channel], shift: beta[channel] };
        normalise(target, source, affine, planes.slope);
    };
    written_in_parts(x.len(), planes.area, plane)
}

/// Turns the `gradient` of the output into that of `x`; gives those of the scale and the shift.
pub(crate) fn backward(
    planes: Planes,
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    gradient: &mut [f32],
) -> [Vec<f32>; 2] {
    assert_eq!(x.len(), gradient.len());
    let plane = |(index, (source, gradient)): (usize, (&[f32], &mut [f32]))| {
        let channel = index % planes.channels;
        let (mean, scale) = statistics(source, planes.epsilon);
        let factor = scale * gamma[channel];
        if planes.slope != 1.0 {
            let affine = Affine { mean, scale: factor, shift: beta[channel] };
            rectify(gradient, source, affine, planes.slope);
        }
        let total = sum(gradient);
        let aligned = f64::from(scale) * centred_dot(source, gradient, mean);
        let count = planes.area as f64;
        let means = [(total / count) as f32, (aligned / count) as f32];
        input_gradient(gradient, source, [mean, scale, factor], means);
        [total, aligned]
    };
    let pairs = x.par_chunks(planes.area).zip(gradient.par_chunks_mut(planes.area));
    let sums: Vec<[f64; 2]> = pairs.enumerate().map(plane).collect();
    [1, 0].map(|part| {
        let of =
            |channel| sums.iter().skip(channel).step_by(planes.channels).map(|sums| sums[part]).sum::<f64>();
        (0..planes.channels).map(|channel| of(channel) as f32).collect()
    })
}

/// Mean of a plane, and the reciprocal of its standard deviation.
pub(crate) fn statistics(plane: &[f32], epsilon: f64) -> (f32, f32) {
    let count = plane.len() as f64;
    let mean = (sum(plane) / count) as f32;
    let variance = squares(plane, mean) / count;
    (mean, (1.0 / (variance + epsilon).sqrt()) as f32)
}

vectorised! {
    /// What `affine` makes of `source`, times `slope` where that is not above 0.
    fn normalise(target: &mut [f32], source: &[f32], affine: Affine, slope: f32) {
        for (target, source) in target.iter_mut().zip(source) {
            let value = affine.of(*source);
            *target = leaky(value, value, slope);
        }
    }
}

vectorised! {
    /// Scales `gradient` by `slope` where what `affine` makes of `source` is not above 0.
    fn rectify(gradient: &mut [f32], source: &[f32], affine: Affine, slope: f32) {
        for (gradient, source) in gradient.iter_mut().zip(source) {
            *gradient = leaky(*gradient, affine.of(*source), slope);
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
    /// From the gradient of a normalised plane that of the plane; `statistics` are mean, scale and
    /// factor, `means` those of the gradient and of the gradient times the normalised plane.
    fn input_gradient(gradient: &mut [f32], source: &[f32], statistics: [f32; 3], means: [f32; 2]) {
        let [mean, scale, factor] = statistics;
        let slope = scale * means[1];
        for (gradient, source) in gradient.iter_mut().zip(source) {
            *gradient = factor * (*gradient - means[0] - (source - mean) * slope);
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
