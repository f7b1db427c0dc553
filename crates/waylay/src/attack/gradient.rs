//! Where the embedding moves away fastest: gradients in the pixels.

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
    gradient(pixels, scene, |embedding| {
        feature_distance(scene.metric, Tensor::from_inner(f_x.clone()), embedding)
    })
}

/// What the target computes of `pixels` `[N, C, H, W]`, and the gradient of −f(pixels)·f_x for f_x = f(pixels), held fixed:
/// where the embedding is drawn to its own opposite. Unlike the gradient of the distance it is not 0 there.
/// Source: Zheng et al., arXiv:1809.02681, the direction of their opposite-direction feature attack.
pub fn opposite_gradient(pixels: Tensor<4>, scene: &Scene<'_>) -> Result<(Features, Tensor<4>), OnnxError> {
    gradient(pixels, scene, |embedding| {
        let fixed = embedding.clone().detach();
        -(embedding * fixed).sum_dim(1).squeeze_dim::<1>(1)
    })
}

/// What the target computes of `pixels`, and the gradient in them of what `measure` makes of each embedding.
fn gradient(
    pixels: Tensor<4>,
    scene: &Scene<'_>,
    measure: impl FnOnce(Tensor<2>) -> Tensor<1>,
) -> Result<(Features, Tensor<4>), OnnxError> {
    let leaf = Tensor::<4>::from_data(pixels.into_data(), &scene.device.clone().autodiff()).require_grad();
    let Features { embedding, taps } = scene.target.forward(leaf.clone())?;
    let gradient = leaf.grad(&measure(embedding.clone()).sum().backward());
    let gradient = gradient.unwrap_or_else(|| leaf.inner().zeros_like());
    let features =
        Features { embedding: embedding.inner(), taps: taps.into_iter().map(Tensor::inner).collect() };
    Ok((features, gradient))
}
