//! G: x̃ = G(x) = clip(x + ε·tanh(gain·g(x)), 0, 1). Source: Zhao et al., arXiv:1907.05793: an image-conditioned generator
//! under ‖x̃ − x‖∞ ≤ ε and x̃ ∈ [0, 1]. Ours: how the bound is kept (tanh, then clip), its layers, and conditioning on
//! the target's own feature maps and on its gradient at a first attempt; the choices are compared in docs/ablation.md.

mod unet;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use rand::Rng;
use serde::{Deserialize, Serialize};
use waylay_conv::{Activation, activate};

use crate::attack::{Epsilon, Scene, distance_look, opposite_look};
use crate::target::onnx::OnnxError;
use crate::target::{Features, Target};

use unet::UNet;

pub use unet::calibration;

/// What the generator looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GeneratorKind {
    /// The image, the target's feature maps of it, and the gradient that draws its embedding to its own opposite; at a second
    /// look the first attempt, the target's feature maps of that, and the gradient of the feature distance there: the
    /// strongest. At each look, crafting runs the target forward and backward once.
    #[default]
    GradientConditioned,
    /// The image and the frozen target's own feature maps of it: crafting runs the target forward once.
    FeatureConditioned,
    /// The image alone, as in the paper: works without the target once trained.
    ImageOnly,
}

/// How the generator is built.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GeneratorConfig {
    /// What it looks at. Default `gradient-conditioned`.
    pub kind: GeneratorKind,
    /// Channels per resolution, from the smallest to the largest; 1 to 5 of 4 to 1,024. Default 128, 128, 64, 32.
    pub widths: Vec<usize>,
    /// Residual blocks per resolution on the way up, as many entries as `widths`; 0 to 16 each. Default 2, 2, 2, 1.
    pub blocks: Vec<usize>,
    /// Steepness of the tanh that keeps the budget; above 0, at most 100. Default 2.
    pub gain: f64,
    /// Factor on the last layer's first weights; 0 to 10. Default 1; smaller begins nearer to the clean image.
    pub head_scale: f64,
    /// How often a gradient-conditioned generator looks: at the clean image, then at what it has made of it so far; 1 to
    /// 4. Default 2. The others look once.
    pub looks: usize,
}

impl Default for GeneratorConfig {
    fn default() -> Self {
        Self {
            kind: GeneratorKind::default(),
            widths: vec![128, 128, 64, 32],
            blocks: vec![2, 2, 2, 1],
            gain: 2.0,
            head_scale: 1.0,
            looks: 2,
        }
    }
}

/// Turns images into adversarial ones, without iterating: in one forward pass, or in as many as it has looks.
#[derive(Module, Debug)]
pub struct Generator {
    net: UNet,
    gain: f64,
    looks: usize,
    gradient: bool,
}

/// What the generator sees when it looks: images, what it has made of them so far, and what the target says to that.
#[derive(Clone, Debug)]
pub struct Look {
    /// The clean pixels, `[N, C, H, W]` in [0, 1].
    x: Tensor<4>,
    /// What the target computes of x̃ so far, x at the first look; `None` for an image-only generator.
    features: Option<Features>,
    /// What a gradient-conditioned generator sees beside that.
    attempt: Option<Attempt>,
}

/// How far a generator has come, and where to go on.
#[derive(Clone, Debug)]
struct Attempt {
    /// f_x, `[N, dim]`.
    clean: Tensor<2>,
    /// (x̃ − x)/ε so far, before x̃ is clipped to [0, 1]: 0 at the first look.
    change: Tensor<4>,
    /// The gradient of d(f_x, f_x̃) in x̃ so far, at the first look that of −f_x·f_x̃; scaled by [`legible`].
    gradient: Tensor<4>,
}

impl Look {
    /// Number of images.
    pub fn count(&self) -> usize {
        self.x.dims()[0]
    }

    /// What the target computes of x̃ so far; `None` for an image-only generator.
    pub fn features(&self) -> Option<&Features> {
        self.features.as_ref()
    }

    /// The looks at `rows` images from `first` on.
    pub fn narrow(&self, first: usize, rows: usize) -> Self {
        let images = |t: &Tensor<4>| t.clone().narrow(0, first, rows);
        let embeddings = |t: &Tensor<2>| t.clone().narrow(0, first, rows);
        Self {
            x: images(&self.x),
            features: self.features.as_ref().map(|features| Features {
                embedding: embeddings(&features.embedding),
                taps: features.taps.iter().map(images).collect(),
            }),
            attempt: self.attempt.as_ref().map(|attempt| Attempt {
                clean: embeddings(&attempt.clean),
                change: images(&attempt.change),
                gradient: images(&attempt.gradient),
            }),
        }
    }

    /// The looks of `self`, then those of `other`.
    pub fn join(self, other: Self) -> Self {
        let images = |a, b| Tensor::cat(vec![a, b], 0);
        let embeddings = |a, b| Tensor::cat(vec![a, b], 0);
        Self {
            x: images(self.x, other.x),
            features: self.features.zip(other.features).map(|(a, b)| Features {
                embedding: embeddings(a.embedding, b.embedding),
                taps: a.taps.into_iter().zip(b.taps).map(|(a, b)| images(a, b)).collect(),
            }),
            attempt: self.attempt.zip(other.attempt).map(|(a, b)| Attempt {
                clean: embeddings(a.clean, b.clean),
                change: images(a.change, b.change),
                gradient: images(a.gradient, b.gradient),
            }),
        }
    }
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
        let gradient = config.kind == GeneratorKind::GradientConditioned;
        let looks = if gradient { config.looks } else { 1 };
        Some(Self { net: UNet::new(config, target, random, device)?, gain: config.gain, looks, gradient })
    }

    /// Sets the statistics that feature maps are normalised by: mean and standard deviation per channel of each tap
    /// of the target, from `calibration`. Nothing for an image-only generator.
    pub fn calibrated(self, statistics: &[(Vec<f32>, Vec<f32>)], device: &Device) -> Self {
        Self { net: self.net.calibrated(statistics, device), ..self }
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.num_params()
    }

    /// How often it looks.
    pub fn looks(&self) -> usize {
        self.looks
    }

    /// Gradients of the target that each image takes.
    pub fn gradients(&self) -> usize {
        if self.gradient { self.looks } else { 0 }
    }

    /// Pixels `x` `[N, C, H, W]` → x̃ within the budget of `scene` and [0, 1]. An image-only generator does not run the
    /// target.
    pub fn perturb(&self, x: Tensor<4>, scene: &Scene<'_>) -> Result<Tensor<4>, OnnxError> {
        let mut look = self.first_look(x, scene)?;
        for _ in 1..self.looks {
            look = self.look_again(look, scene)?;
        }
        Ok(self.perturb_once(&look, scene.epsilon))
    }

    /// x̃ within `epsilon` and [0, 1] from one look: one forward pass.
    pub fn perturb_once(&self, look: &Look, epsilon: Epsilon) -> Tensor<4> {
        apply(lift(look.x.clone(), &self.net.device()), self.change(look, epsilon), epsilon)
    }

    /// What there is to see of clean pixels `[N, C, H, W]`.
    pub fn first_look(&self, x: Tensor<4>, scene: &Scene<'_>) -> Result<Look, OnnxError> {
        if self.gradient {
            let (features, gradient) = opposite_look(x.clone(), scene)?;
            let (clean, change) = (features.embedding.clone(), x.zeros_like());
            let gradient = legible(gradient.clone()) * worth_a_look(gradient, &clean, scene.epsilon);
            let attempt = Attempt { clean, change, gradient };
            return Ok(Look { x, features: Some(features), attempt: Some(attempt) });
        }
        let features = self.net.conditioned().then(|| scene.target.forward(x.clone())).transpose()?;
        Ok(Look { x, features, attempt: None })
    }

    /// What there is to see after one more look, without gradients in the generator's weights; for a generator that sees no
    /// gradients, what it saw before.
    pub fn look_again(&self, look: Look, scene: &Scene<'_>) -> Result<Look, OnnxError> {
        let Some(Attempt { clean, .. }) = &look.attempt else { return Ok(look) };
        let change = lift(self.change(&look, scene.epsilon), &look.x.device());
        let so_far = apply(look.x.clone(), change.clone(), scene.epsilon);
        let (features, gradient) = distance_look(clean, so_far, scene)?;
        let attempt = Attempt { clean: clean.clone(), change, gradient: legible(gradient) };
        Ok(Look { features: Some(features), attempt: Some(attempt), x: look.x })
    }

    /// tanh(gain·g) in [−1, 1], `[N, C, H, W]`.
    fn change(&self, look: &Look, epsilon: Epsilon) -> Tensor<4> {
        let scaled = |pixels: Tensor<4>| pixels * 2.0 - 1.0;
        let (images, clean) = match &look.attempt {
            None => (scaled(look.x.clone()), None),
            Some(Attempt { clean, change, gradient }) => {
                let so_far = apply(look.x.clone(), change.clone(), epsilon);
                let images = vec![scaled(so_far), change.clone(), gradient.clone()];
                (Tensor::cat(images, 1), Some(clean.clone()))
            }
        };
        let g = self.net.forward(lift(images, &self.net.device()), look.features.as_ref(), clean);
        activate(g * self.gain, Activation::Tanh)
    }
}

/// Largest value of a gradient as the generator sees it.
const LARGEST: f32 = 3.0;

/// A gradient with a mean size of 1 per image, clipped to ±[`LARGEST`]: its direction counts, its length says little.
fn legible(gradient: Tensor<4>) -> Tensor<4> {
    let [n, c, h, w] = gradient.dims();
    let size = gradient.clone().abs().reshape([n, c * h * w]).mean_dim(1).add_scalar(f32::MIN_POSITIVE);
    (gradient / size.reshape([n, 1, 1, 1])).clamp(-LARGEST, LARGEST)
}

/// Least change of f_x·f_x̃ within the budget, relative to f_x·f_x, that is not taken for rounding.
const LEAST: f32 = 1e-3;

/// 1 for each image whose embedding's length the `gradient` of −f_x·f_x̃ says anything about, 0 where the target brings
/// every embedding to one length: `[N, 1, 1, 1]`.
fn worth_a_look(gradient: Tensor<4>, clean: &Tensor<2>, epsilon: Epsilon) -> Tensor<4> {
    let [n, c, h, w] = gradient.dims();
    let within = gradient.abs().reshape([n, c * h * w]).sum_dim(1) * epsilon.in_pixels();
    let least = clean.clone().powi_scalar(2).sum_dim(1) * LEAST;
    within.greater(least).float().reshape([n, 1, 1, 1])
}

/// clip(x + ε·change, 0, 1).
fn apply(x: Tensor<4>, change: Tensor<4>, epsilon: Epsilon) -> Tensor<4> {
    (x + change * epsilon.in_pixels()).clamp(0.0, 1.0)
}

/// Puts a constant on the device of the weights, which may differentiate where the constant does not, or back.
fn lift<const D: usize>(tensor: Tensor<D>, device: &Device) -> Tensor<D> {
    match (device.is_autodiff(), tensor.is_autodiff()) {
        (true, false) => Tensor::from_inner(tensor),
        (false, true) => tensor.inner(),
        _ => tensor,
    }
}

/// Factor between the image and the largest stage: keeps the work per image bounded.
fn head_factor([_, height, width]: [usize; 3]) -> usize {
    if height.max(width) <= 128 { 2 } else { 4 }
}
