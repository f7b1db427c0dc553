//! G: x̃ = G(x) = clip(x + ε·tanh(gain·g(x)), 0, 1). Source: Zhao et al., arXiv:1907.05793: an image-conditioned generator
//! under ‖x̃ − x‖∞ ≤ ε and x̃ ∈ [0, 1]. Ours: how the bound is kept (tanh, then clip), its layers, and conditioning on
//! the target's own feature maps; the choices are compared in docs/ablation.md.

mod unet;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::attack::Epsilon;
use crate::target::{Features, Target};

use unet::UNet;

pub use unet::calibration;

/// What the generator looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GeneratorKind {
    /// The image and the frozen target's own feature maps of it: the strongest; needs the target when crafting.
    #[default]
    FeatureConditioned,
    /// The image alone, as in the paper: works without the target once trained.
    ImageOnly,
}

/// How the generator is built.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GeneratorConfig {
    /// What it looks at. Default `feature-conditioned`.
    pub kind: GeneratorKind,
    /// Channels per resolution, from the smallest to the largest; 1 to 5 of 4 to 1,024. Default 128, 128, 64, 32.
    pub widths: Vec<usize>,
    /// Residual blocks per resolution on the way up, as many entries as `widths`; 0 to 16 each. Default 2, 2, 2, 1.
    pub blocks: Vec<usize>,
    /// Steepness of the tanh that keeps the budget; above 0, at most 100. Default 2.
    pub gain: f64,
    /// Factor on the last layer's first weights; 0 to 10. Default 1; smaller begins nearer to the clean image.
    pub head_scale: f64,
}

impl Default for GeneratorConfig {
    fn default() -> Self {
        Self {
            kind: GeneratorKind::default(),
            widths: vec![128, 128, 64, 32],
            blocks: vec![2, 2, 2, 1],
            gain: 2.0,
            head_scale: 1.0,
        }
    }
}

/// Turns images into adversarial ones in one forward pass.
#[derive(Module, Debug)]
pub struct Generator {
    net: UNet,
    gain: f64,
}

impl Generator {
    /// A generator with first weights from `random`, for the image size and feature maps of `target`.
    /// `None` where a feature-conditioned one is asked for and the target offers no feature map.
    pub fn new(
        config: &GeneratorConfig,
        target: &dyn Target,
        random: &mut impl Rng,
        device: &Device,
    ) -> Option<Self> {
        let conditioned = config.kind == GeneratorKind::FeatureConditioned;
        Some(Self { net: UNet::new(config, target, conditioned, random, device)?, gain: config.gain })
    }

    /// Sets the statistics that feature maps are normalised by: mean and standard deviation per channel of each tap
    /// of the target, from `calibration`. Nothing for an image-only generator.
    pub fn calibrated(self, statistics: &[(Vec<f32>, Vec<f32>)], device: &Device) -> Self {
        Self { net: self.net.calibrated(statistics, device), gain: self.gain }
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.num_params()
    }

    /// Pixels `x` `[N, C, H, W]` and what the target computes of them → x̃ within `epsilon` and [0, 1].
    pub fn perturb(&self, x: Tensor<4>, features: &Features, epsilon: Epsilon) -> Tensor<4> {
        let centred = x.clone() * 2.0 - 1.0;
        let g = self.net.forward(centred, features);
        (x + (g * self.gain).tanh() * epsilon.in_pixels()).clamp(0.0, 1.0)
    }
}

/// Factor between the image and the largest stage: keeps the work per image bounded.
fn head_factor([_, height, width]: [usize; 3]) -> usize {
    if height.max(width) <= 128 { 2 } else { 4 }
}
