//! D: tells clean images from perturbed ones. Source: the paper's L_GAN_D (least squares, Mao et al.,
//! arXiv:1611.04076, eq. 9). Ours: its layers, which the paper leaves open; the choices are compared in docs/ablation.md.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use rand::Rng;
use serde::{Deserialize, Serialize};
use waylay_conv::{Activation, activate};

use crate::layer::{Conv, Norm};

/// Slope of the leaky ReLU below zero.
const SLOPE: f32 = 0.2;

/// The discriminator's design.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiscriminatorKind {
    /// No discriminator: L_GAN is left out.
    None,
    /// One logit per patch (PatchGAN, Isola et al., arXiv:1611.07004, sec. 3.2.2).
    #[default]
    Patch,
    /// One logit per image: the mean of the patch logits before the loss, so only the whole image is judged.
    Global,
}

/// Three strided 4×4 convolutions and a head.
#[derive(Module, Debug)]
pub struct Discriminator {
    stem: Conv,
    middle: Conv,
    middle_norm: Norm,
    deep: Conv,
    deep_norm: Norm,
    head: Conv,
    global: bool,
}

impl Discriminator {
    /// For images of `channels` channels and at least 16×16 pixels; `width` channels after the first convolution.
    /// `None` for [`DiscriminatorKind::None`].
    pub fn new(
        kind: DiscriminatorKind,
        channels: usize,
        width: usize,
        random: &mut impl Rng,
        device: &Device,
    ) -> Option<Self> {
        if kind == DiscriminatorKind::None {
            return None;
        }
        let mut conv = |from, to, stride, kernel| Conv::new([from, to], kernel, stride, 1, random, device);
        Some(Self {
            stem: conv(channels, width, 2, 4),
            middle: conv(width, 2 * width, 2, 4),
            middle_norm: Norm::new(2 * width, device),
            deep: conv(2 * width, 4 * width, 2, 4),
            deep_norm: Norm::new(4 * width, device),
            head: conv(4 * width, 1, 1, 3),
            global: kind == DiscriminatorKind::Global,
        })
    }

    /// Pixels `[N, C, H, W]` → logits `[N, patches]`; towards 1 for clean, towards 0 for perturbed.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let h = activate(self.stem.forward(x * 2.0 - 1.0), Activation::LeakyRelu(SLOPE));
        let h = self.middle_norm.forward_leaky(self.middle.forward(h), SLOPE);
        let h = self.deep_norm.forward_leaky(self.deep.forward(h), SLOPE);
        let logits = self.head.forward(h).flatten(1, 3);
        if self.global { logits.mean_dim(1) } else { logits }
    }
}
