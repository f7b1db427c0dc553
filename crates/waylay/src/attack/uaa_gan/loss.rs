//! The losses of UAA-GAN. Source: Zhao et al., arXiv:1907.05793, as named beside each function.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;

use crate::attack::cosine_rows;

/// L_GAN_G = E[(D(x̃) − 1)²]: perturbed images should look clean. `logits` `[N, patches]` of D(x̃).
pub fn lsgan_generator(logits: Tensor<2>) -> Tensor<1> {
    logits.sub_scalar(1.0).powi_scalar(2).mean()
}

/// L_GAN_D = E[(D(x) − 1)²] + E[D(x̃)²]: clean towards 1, perturbed towards 0. Both `[N, patches]`.
pub fn lsgan_discriminator(clean: Tensor<2>, perturbed: Tensor<2>) -> Tensor<1> {
    clean.sub_scalar(1.0).powi_scalar(2).mean() + perturbed.powi_scalar(2).mean()
}

/// ‖x̃ − x‖₂ per image, `[N]`. Both `[N, C, H, W]` in [0, 1].
/// Ours: 1e-12 under the root, so that the gradient stays finite where nothing has changed.
pub fn change(x: Tensor<4>, perturbed: Tensor<4>) -> Tensor<1> {
    (perturbed - x).flatten::<2>(1, 3).powi_scalar(2).sum_dim(1).add_scalar(1e-12).sqrt().flatten(0, 1)
}

/// L_recon = max(‖x̃ − x‖₂ − c, 0), the mean over the batch: `changes` `[N]` of [`change`], c =
/// `hinge` in the same unit. The paper has no c; source of the hinge: AdvGAN, Xiao et al.,
/// arXiv:1801.02610, eq. 3.
pub fn reconstruction(changes: Tensor<1>, hinge: f64) -> Tensor<1> {
    relu(changes.sub_scalar(hinge)).mean()
}

/// L_feature, ours: the mean cosine between the feature maps of x and of x̃, every map of an image
/// taken as one vector; 0 without maps. Source: the loss of Zhang et al., arXiv:2201.11528, eq. 3,
/// on several layers instead of one. Pairs of `[N, C, H, W]`.
pub fn feature_similarity(clean: &[Tensor<4>], perturbed: &[Tensor<4>]) -> Option<Tensor<1>> {
    let cosines = clean.iter().zip(perturbed).map(|(clean, perturbed)| {
        let flat = |map: &Tensor<4>| map.clone().flatten::<2>(1, 3);
        cosine_rows(flat(clean), flat(perturbed)).mean()
    });
    let sum = cosines.reduce(|sum, cosine| sum + cosine)?;
    Some(sum / clean.len().max(1) as f64)
}

/// L_metric = max(d(f_x, f_x′) + m − d(f_x, f_x̃), 0) of every image, d the value of the objective,
/// for the paper's a distance. All are `[N]`.
pub fn triplet(to_other: Tensor<1>, to_perturbed: Tensor<1>, margin: f64) -> Tensor<1> {
    relu(to_other.add_scalar(margin) - to_perturbed)
}

/// One number for the `losses` `[N]` of a batch: the mean at `sharpness` 0, else
/// log(mean(exp(β·L)))/β with β = `sharpness`. Ours: the gradient of image i is softmax(β·L)ᵢ, so
/// that the images that withstand count more.
pub fn over_batch(losses: Tensor<1>, sharpness: f64) -> Tensor<1> {
    if sharpness == 0.0 {
        return losses.mean();
    }
    let scaled = losses.mul_scalar(sharpness);
    let largest = scaled.clone().detach().max();
    ((scaled - largest.clone()).exp().mean().log() + largest).div_scalar(sharpness)
}
