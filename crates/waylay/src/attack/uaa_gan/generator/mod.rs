//! G: x̃ = G(x) = clip(x + ε·tanh(gain·g(x)), 0, 1). Source: Zhao et al., arXiv:1907.05793: an
//! image-conditioned generator under ‖x̃ − x‖∞ ≤ ε and x̃ ∈ [0, 1]. Ours: how the bound is kept
//! (tanh, then clip), its layers, and the guidance by the target's feature maps and gradients,
//! which makes it another attack, guided-gan; choices are compared in docs/ablation.md.

mod unet;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use rand::Rng;
use serde::{Deserialize, Serialize};
use waylay_conv::{Activation, activate};

use crate::attack::{Access, Epsilon, Evade, Knowledge, Opposite, Scene, gradient_and_features};
use crate::embedder::EmbedderError;
use crate::embedder::{Embedder, Features};

use unet::UNet;

pub use unet::calibration;

/// What the generator sees beside the image when it crafts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guidance {
    /// Nothing: UAA-GAN, the paper's. Once trained it needs no target.
    #[default]
    None,
    /// The frozen target's own feature maps of the image: crafting runs the target forward once.
    /// Guided-gan, ours.
    FeatureMaps,
    /// In the first refinement step the target's feature maps of the image, and the gradient
    /// towards the opposite of its embedding; in a later one x̃ so far, the feature maps of that,
    /// and the gradient of the feature distance there. Each step runs the target forward and
    /// backward once. Guided-gan, ours; nearest prior work: Jiang et al., "Learning to Defend by
    /// Learning to Attack" (AISTATS 2021; arXiv:1811.01213), whose Grad L2L and 2-step L2L take a
    /// classifier's gradient.
    Gradients,
}

/// How the generator is built.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GeneratorConfig {
    /// What it sees beside the image. Default `none`: UAA-GAN. The others are guided-gan.
    pub guidance: Guidance,
    /// Channels per resolution, from the smallest to the largest; 1 to 5 of 4 to 1,024. Default
    /// 128, 128, 64, 32.
    pub widths: Vec<usize>,
    /// Side of the square of pixels that one place of the largest resolution stands for; 0 for 2
    /// where images have at most 256 pixels a side and 4 where they are larger; at most 8. Default
    /// 0.
    pub patch: usize,
    /// Residual blocks per resolution on the way up, as many entries as `widths`; 0 to 16 each.
    /// Default 2, 2, 2, 1.
    pub blocks: Vec<usize>,
    /// Steepness of the tanh that keeps the budget; above 0, at most 100. Default 2.
    pub gain: f64,
    /// Factor on the last layer's first weights; 0 to 10. Default 1; smaller begins nearer to the
    /// clean image.
    pub head_scale: f64,
    /// Forward passes of a generator guided by gradients: the first sees the clean image, each
    /// later one x̃ of the one before; 1 to 4. Default 2. Other generators take one.
    pub refinement_steps: usize,
}

impl Default for GeneratorConfig {
    fn default() -> Self {
        Self {
            guidance: Guidance::default(),
            widths: vec![128, 128, 64, 32],
            patch: 0,
            blocks: vec![2, 2, 2, 1],
            gain: 2.0,
            head_scale: 1.0,
            refinement_steps: 2,
        }
    }
}

/// Turns images into adversarial ones in one forward pass, or in one per refinement step.
#[derive(Module, Debug)]
pub struct Generator {
    net: UNet,
    gain: f64,
    refinement_steps: usize,
    gradient: bool,
}

/// The input of one refinement step: the images, x̃ so far, and what the target computes of that.
#[derive(Clone, Debug)]
pub struct StepInput {
    /// The clean pixels, `[N, C, H, W]` in [0, 1].
    x: Tensor<4>,
    /// What the target computes of x̃ so far, x in the first step; `None` without guidance.
    features: Option<Features>,
    /// What a generator guided by gradients sees beside that.
    attempt: Option<Attempt>,
}

/// x̃ so far, and the gradient there.
#[derive(Clone, Debug)]
struct Attempt {
    /// f_x, `[N, dim]`.
    clean: Tensor<2>,
    /// (x̃ − x)/ε so far, before x̃ is clipped to [0, 1]: 0 in the first step.
    change: Tensor<4>,
    /// The gradient of d(f_x, f_x̃) with respect to x̃ so far, in the first step that of −f_x·f_x̃;
    /// scaled by [`normalise_gradient`].
    gradient: Tensor<4>,
}

impl StepInput {
    /// Number of images.
    pub fn count(&self) -> usize {
        self.x.dims()[0]
    }

    /// What the target computes of x̃ so far; `None` without guidance.
    pub fn features(&self) -> Option<&Features> {
        self.features.as_ref()
    }

    /// The inputs of `rows` images from `first` on.
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

    /// The inputs of `self`, then those of `other`.
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
    /// A generator with first weights from `random`, for the image size and feature maps of
    /// `target`. `None` where it is to be guided by feature maps and the target offers none.
    pub fn new(
        config: &GeneratorConfig,
        target: &dyn Embedder,
        random: &mut impl Rng,
        device: &Device,
    ) -> Option<Self> {
        let gradient = config.guidance == Guidance::Gradients;
        let refinement_steps = if gradient { config.refinement_steps } else { 1 };
        let net = UNet::new(config, target, random, device)?;
        Some(Self { net, gain: config.gain, refinement_steps, gradient })
    }

    /// Sets the statistics that feature maps are normalised by: mean and standard deviation per
    /// channel of each tap of the target, from `calibration`. Nothing without guidance.
    pub fn calibrated(self, statistics: &[(Vec<f32>, Vec<f32>)], device: &Device) -> Self {
        Self { net: self.net.calibrated(statistics, device), ..self }
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.num_params()
    }

    /// Forward passes of it that an image takes.
    pub fn refinement_steps(&self) -> usize {
        self.refinement_steps
    }

    /// What it takes of the target for one image.
    pub fn knowledge(&self) -> Knowledge {
        match (self.gradient, self.net.conditioned()) {
            (true, _) => Knowledge::gradients(self.refinement_steps, self.refinement_steps),
            (false, true) => {
                Knowledge { access: Access::FeatureMaps, target_forwards: 1, target_gradients: 0 }
            }
            (false, false) => Knowledge::IMAGE,
        }
    }

    /// Pixels `x` `[N, C, H, W]` → x̃ within the budget of `scene` and [0, 1]. Without guidance the
    /// target does not run.
    pub fn perturb(&self, x: Tensor<4>, scene: &Scene<'_>) -> Result<Tensor<4>, EmbedderError> {
        let mut input = self.first_input(x, scene)?;
        for _ in 1..self.refinement_steps {
            input = self.next_input(input, scene)?;
        }
        Ok(self.perturb_once(&input, scene.epsilon))
    }

    /// x̃ within `epsilon` and [0, 1] in one forward pass.
    pub fn perturb_once(&self, input: &StepInput, epsilon: Epsilon) -> Tensor<4> {
        apply(lift(input.x.clone(), &self.net.device()), self.change(input, epsilon), epsilon)
    }

    /// The input of the first refinement step for clean pixels `[N, C, H, W]`.
    pub fn first_input(&self, x: Tensor<4>, scene: &Scene<'_>) -> Result<StepInput, EmbedderError> {
        if self.gradient {
            let (features, gradient) = gradient_and_features(&Opposite, None, x.clone(), scene)?;
            let (clean, change) = (features.embedding.clone(), x.zeros_like());
            let gradient =
                normalise_gradient(gradient.clone()) * gradient_mask(gradient, &clean, scene.epsilon);
            let attempt = Attempt { clean, change, gradient };
            return Ok(StepInput { x, features: Some(features), attempt: Some(attempt) });
        }
        let features = self.net.conditioned().then(|| scene.target.forward(x.clone())).transpose()?;
        Ok(StepInput { x, features, attempt: None })
    }

    /// The input of the step after `input`, without gradients with respect to the generator's
    /// weights; `input` itself for a generator that sees no gradients.
    pub fn next_input(&self, input: StepInput, scene: &Scene<'_>) -> Result<StepInput, EmbedderError> {
        let Some(Attempt { clean, .. }) = &input.attempt else { return Ok(input) };
        let change = lift(self.change(&input, scene.epsilon), &input.x.device());
        let so_far = apply(input.x.clone(), change.clone(), scene.epsilon);
        let (features, gradient) = gradient_and_features(&Evade, Some(clean), so_far, scene)?;
        let attempt = Attempt { clean: clean.clone(), change, gradient: normalise_gradient(gradient) };
        Ok(StepInput { features: Some(features), attempt: Some(attempt), x: input.x })
    }

    /// tanh(gain·g) in [−1, 1], `[N, C, H, W]`.
    fn change(&self, input: &StepInput, epsilon: Epsilon) -> Tensor<4> {
        let scaled = |pixels: Tensor<4>| pixels * 2.0 - 1.0;
        let (images, clean) = match &input.attempt {
            None => (scaled(input.x.clone()), None),
            Some(Attempt { clean, change, gradient }) => {
                let so_far = apply(input.x.clone(), change.clone(), epsilon);
                let images = vec![scaled(so_far), change.clone(), gradient.clone()];
                (Tensor::cat(images, 1), Some(clean.clone()))
            }
        };
        let g = self.net.forward(lift(images, &self.net.device()), input.features.as_ref(), clean);
        activate(g * self.gain, Activation::Tanh)
    }
}

/// Largest value of a gradient as the generator sees it.
const LARGEST: f32 = 3.0;

/// A gradient with a mean absolute value of 1 per image, clipped to ±[`LARGEST`]: its direction
/// counts, its length says little.
fn normalise_gradient(gradient: Tensor<4>) -> Tensor<4> {
    let [n, c, h, w] = gradient.dims();
    let size = gradient.clone().abs().reshape([n, c * h * w]).mean_dim(1).add_scalar(f32::MIN_POSITIVE);
    (gradient / size.reshape([n, 1, 1, 1])).clamp(-LARGEST, LARGEST)
}

/// Least change of f_x·f_x̃ within the budget, relative to f_x·f_x, that is not taken for rounding.
const LEAST: f32 = 1e-3;

/// 1 for each image whose `gradient` of −f_x·f_x̃ is above rounding, 0 where it is not, as where
/// the target brings every embedding to one length: `[N, 1, 1, 1]`.
fn gradient_mask(gradient: Tensor<4>, clean: &Tensor<2>, epsilon: Epsilon) -> Tensor<4> {
    let [n, c, h, w] = gradient.dims();
    let within = gradient.abs().reshape([n, c * h * w]).sum_dim(1) * epsilon.in_pixels();
    let least = clean.clone().powi_scalar(2).sum_dim(1) * LEAST;
    within.greater(least).float().reshape([n, 1, 1, 1])
}

/// clip(x + ε·change, 0, 1).
fn apply(x: Tensor<4>, change: Tensor<4>, epsilon: Epsilon) -> Tensor<4> {
    (x + change * epsilon.in_pixels()).clamp(0.0, 1.0)
}

/// Puts a constant on the device of the weights, which may differentiate where the constant does
/// not, or back.
fn lift<const D: usize>(tensor: Tensor<D>, device: &Device) -> Tensor<D> {
    match (device.is_autodiff(), tensor.is_autodiff()) {
        (true, false) => Tensor::from_inner(tensor),
        (false, true) => tensor.inner(),
        _ => tensor,
    }
}

/// Factor between the image and the largest stage: keeps the work per image bounded.
fn head_factor(patch: usize, [_, height, width]: [usize; 3]) -> usize {
    match patch {
        0 if height.max(width) <= 256 => 2,
        0 => 4,
        patch => patch,
    }
}
