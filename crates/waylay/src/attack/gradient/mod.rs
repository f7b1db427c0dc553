//! Optimisers that follow gradients of an objective with respect to the pixels, and those
//! gradients.

mod fgsm;
mod pgd;

use burn::tensor::Tensor;

use super::{Objective, Scene};
use crate::embedder::{EmbedderError, Features};

pub use fgsm::Fgsm;
pub use pgd::{Pgd, PgdConfig, PgdConfigError, Start};

/// The gradient of `objective` at `pixels` `[N, C, H, W]` with respect to them, of the same shape,
/// and the embeddings `[N, dim]` of `pixels`. `clean` are the clean images' embeddings f_x `[N,
/// dim]`; those of `pixels` themselves, held fixed, where left out. Nothing is tracked. The
/// gradient is 0 where the target does not depend on its input.
pub fn gradient(
    objective: &dyn Objective,
    clean: Option<&Tensor<2>>,
    pixels: Tensor<4>,
    scene: &Scene<'_>,
) -> Result<(Tensor<2>, Tensor<4>), EmbedderError> {
    let leaf = leaf(pixels, scene);
    let embedding = scene.target.embedding(leaf.clone())?;
    let gradient = differentiate(objective, clean, leaf, embedding.clone(), scene);
    Ok((embedding.inner(), gradient))
}

/// [`gradient()`], with all that the target computes of `pixels` instead of the embeddings alone.
pub fn gradient_and_features(
    objective: &dyn Objective,
    clean: Option<&Tensor<2>>,
    pixels: Tensor<4>,
    scene: &Scene<'_>,
) -> Result<(Features, Tensor<4>), EmbedderError> {
    let leaf = leaf(pixels, scene);
    let Features { embedding, taps } = scene.target.forward(leaf.clone())?;
    let gradient = differentiate(objective, clean, leaf, embedding.clone(), scene);
    let taps = taps.into_iter().map(Tensor::inner).collect();
    Ok((Features { embedding: embedding.inner(), taps }, gradient))
}

/// `pixels` as a leaf of automatic differentiation.
fn leaf(pixels: Tensor<4>, scene: &Scene<'_>) -> Tensor<4> {
    Tensor::<4>::from_data(pixels.into_data(), &scene.device.clone().autodiff()).require_grad()
}

/// The gradient of `objective` with respect to `leaf`, whose embeddings are `adversarial`.
fn differentiate(
    objective: &dyn Objective,
    clean: Option<&Tensor<2>>,
    leaf: Tensor<4>,
    adversarial: Tensor<2>,
    scene: &Scene<'_>,
) -> Tensor<4> {
    let clean = clean.map_or_else(|| adversarial.clone().detach(), |f_x| Tensor::from_inner(f_x.clone()));
    let value = objective.value(clean, adversarial, scene.metric);
    let gradient = leaf.grad(&value.sum().backward());
    gradient.unwrap_or_else(|| leaf.inner().zeros_like())
}
