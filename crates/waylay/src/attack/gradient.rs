//! Gradients of distances between embeddings with respect to the pixels.

use burn::tensor::Tensor;

use super::{Scene, feature_distance};
use crate::embedder::EmbedderError;
use crate::embedder::Features;

/// The gradient of d(f_x, f(pixels)) with respect to `pixels` `[N, C, H, W]`, of the same shape; `f_x` is `[N, dim]`. Nothing is tracked.
/// The gradient is 0 where the target does not depend on its input.
pub fn distance_gradient(
    f_x: &Tensor<2>,
    pixels: Tensor<4>,
    scene: &Scene<'_>,
) -> Result<Tensor<4>, EmbedderError> {
    let leaf = leaf(pixels, scene);
    let embedding = scene.target.embedding(leaf.clone())?;
    let distance = feature_distance(scene.metric, Tensor::from_inner(f_x.clone()), embedding);
    Ok(slope(leaf, distance))
}

/// What the target computes of some pixels, and a gradient with respect to them.
pub type FeaturesAndGradient = (Features, Tensor<4>);

/// As [`distance_gradient`], with what the target computes of `pixels` before it.
pub fn distance_step(
    f_x: &Tensor<2>,
    pixels: Tensor<4>,
    scene: &Scene<'_>,
) -> Result<FeaturesAndGradient, EmbedderError> {
    step(pixels, scene, |embedding| {
        feature_distance(scene.metric, Tensor::from_inner(f_x.clone()), embedding)
    })
}

/// What the target computes of `pixels` `[N, C, H, W]`, and the gradient of −f(pixels)·f_x for f_x = f(pixels), held fixed:
/// towards the opposite of the embedding. Unlike the gradient of the distance it is not 0 there.
/// Source: Zheng et al., arXiv:1809.02681, the direction of their opposite-direction feature attack.
pub fn opposite_step(pixels: Tensor<4>, scene: &Scene<'_>) -> Result<FeaturesAndGradient, EmbedderError> {
    step(pixels, scene, opposite)
}

/// As [`opposite_step`], with the embedding `[N, dim]` instead of all features.
pub fn opposite_gradient(
    pixels: Tensor<4>,
    scene: &Scene<'_>,
) -> Result<(Tensor<2>, Tensor<4>), EmbedderError> {
    let leaf = leaf(pixels, scene);
    let embedding = scene.target.embedding(leaf.clone())?;
    let gradient = slope(leaf, opposite(embedding.clone()));
    Ok((embedding.inner(), gradient))
}

/// −f·f_x for f_x = f, held fixed; `[N]`.
fn opposite(embedding: Tensor<2>) -> Tensor<1> {
    let fixed = embedding.clone().detach();
    -(embedding * fixed).sum_dim(1).squeeze_dim::<1>(1)
}

/// What the target computes of `pixels`, and the gradient with respect to them of what `measure` makes of each embedding.
fn step(
    pixels: Tensor<4>,
    scene: &Scene<'_>,
    measure: impl FnOnce(Tensor<2>) -> Tensor<1>,
) -> Result<FeaturesAndGradient, EmbedderError> {
    let leaf = leaf(pixels, scene);
    let Features { embedding, taps } = scene.target.forward(leaf.clone())?;
    let gradient = slope(leaf, measure(embedding.clone()));
    let features =
        Features { embedding: embedding.inner(), taps: taps.into_iter().map(Tensor::inner).collect() };
    Ok((features, gradient))
}

/// `pixels` as a leaf of automatic differentiation.
fn leaf(pixels: Tensor<4>, scene: &Scene<'_>) -> Tensor<4> {
    Tensor::<4>::from_data(pixels.into_data(), &scene.device.clone().autodiff()).require_grad()
}

/// The gradient of the sum of `values` with respect to `leaf`.
fn slope(leaf: Tensor<4>, values: Tensor<1>) -> Tensor<4> {
    let gradient = leaf.grad(&values.sum().backward());
    gradient.unwrap_or_else(|| leaf.inner().zeros_like())
}
