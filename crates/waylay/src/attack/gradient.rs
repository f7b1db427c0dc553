//! Where the embedding moves away fastest: the gradient of the feature distance in the pixels.

use burn::tensor::Tensor;

use super::{Scene, feature_distance};
use crate::target::Features;
use crate::target::onnx::OnnxError;

/// What the target computes of `pixels` `[N, C, H, W]`, and the gradient of d(f_x, f(pixels)) in them, of the same shape;
/// `f_x` is `[N, dim]`. Neither is tracked. The gradient is 0 where the target does not depend on its input.
pub fn distance_gradient(
    f_x: &Tensor<2>,
    pixels: Tensor<4>,
    scene: &Scene<'_>,
) -> Result<(Features, Tensor<4>), OnnxError> {
    let leaf = Tensor::<4>::from_data(pixels.into_data(), &scene.device.clone().autodiff()).require_grad();
    let Features { embedding, taps } = scene.target.forward(leaf.clone())?;
    let distance = feature_distance(scene.metric, Tensor::from_inner(f_x.clone()), embedding.clone()).sum();
    let gradient = leaf.grad(&distance.backward());
    let gradient = gradient.unwrap_or_else(|| leaf.inner().zeros_like());
    let features =
        Features { embedding: embedding.inner(), taps: taps.into_iter().map(Tensor::inner).collect() };
    Ok((features, gradient))
}
