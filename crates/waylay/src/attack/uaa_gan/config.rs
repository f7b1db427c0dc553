//! Every hyper-parameter of UAA-GAN with its default, as a checked value: a TOML file, flags, or
//! both. Defaults are those that docs/ablation.md favours.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::discriminator::DiscriminatorKind;
use super::generator::{GeneratorConfig, Guidance};
use super::mining::Mining;
use crate::image::AugmentConfig;
use crate::out_of_range::OutOfRange;

/// A configuration as it is written down. Training takes only a [`CheckedConfig`].
///
/// ```
/// use waylay::attack::uaa_gan::UaaGanConfig;
///
/// let config = UaaGanConfig::from_toml("[training]\nsteps = 300\n")?.check()?;
/// assert_eq!((config.training.steps, config.training.batch), (300, 8));
/// assert!(UaaGanConfig::from_toml("[training]\nepochs = 3\n").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UaaGanConfig {
    /// The generator G.
    pub generator: GeneratorConfig,
    /// The discriminator D.
    pub discriminator: DiscriminatorConfig,
    /// Weights and margin of the losses.
    pub loss: LossConfig,
    /// Steps and optimisers.
    pub training: TrainingConfig,
    /// Random changes to training images.
    pub augment: AugmentConfig,
}

/// The attacks whose generators are trained here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `uaa-gan`: the paper's, whose generator sees the image alone.
    UaaGan,
    /// `guided-gan`: ours, whose generator sees feature maps or gradients of the target too.
    GuidedGan,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::UaaGan, Self::GuidedGan];

    /// The names of the files that a generator is stored in: weights, configuration, log.
    pub fn files(self) -> [&'static str; 3] {
        match self {
            Self::UaaGan => ["generator.safetensors", "generator.toml", "training.jsonl"],
            Self::GuidedGan => {
                ["guided-generator.safetensors", "guided-generator.toml", "guided-training.jsonl"]
            }
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UaaGan => "uaa-gan",
            Self::GuidedGan => "guided-gan",
        })
    }
}

/// The discriminator D.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiscriminatorConfig {
    /// Its design, or `none`. Default `patch`.
    pub kind: DiscriminatorKind,
    /// Channels after its first convolution; 1 to 512. Default 24.
    pub width: usize,
    /// Adam's learning rate; above 0, at most 1. Default 2e-4.
    pub learning_rate: f64,
}

impl Default for DiscriminatorConfig {
    fn default() -> Self {
        Self { kind: DiscriminatorKind::default(), width: 24, learning_rate: 2e-4 }
    }
}

/// L_G = λ_gan·L_GAN_G + λ_r·L_recon + λ_m·L_metric + λ_f·L_feature (Zhao et al., arXiv:1907.05793;
/// λ_gan is ours, 1 in the paper, and so is L_feature).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// Weight of L_GAN_G; 0 to 1e6. Default 0.1.
    pub lambda_gan: f64,
    /// Weight of L_recon in units of the largest ‖δ‖₂ that the budget allows, ε·√(C·H·W) (the unit
    /// is ours); 0 to 1e6. Default 20: with [`Self::hinge`] at 0.67, changes come out about that
    /// long.
    pub lambda_r: f64,
    /// c of L_recon = max(‖x̃ − x‖₂ − c, 0): changes up to this length cost nothing. 0 in the
    /// paper; the hinge is that of AdvGAN (Xiao et al., arXiv:1801.02610, eq. 3). Default 0.67.
    pub hinge: Hinge,
    /// Part of the steps over which λ_r rises from 0 to its value (ours); 0 to 1. Default 1. At δ =
    /// 0 the other terms have next to no gradient: under the full λ_r from the first step on, G can
    /// stay there.
    pub ramp_r: f64,
    /// Weight of L_feature, the similarity of the target's feature maps (ours); 0 to 1e6; 0 leaves
    /// it out. Default 30: stronger in fewer steps than L_metric alone, and on networks that were
    /// not trained against.
    pub lambda_f: f64,
    /// Weight of L_metric; 0 to 1e6. Default 3.
    pub lambda_m: f64,
    /// Part of the steps over which λ_m rises from a tenth of its value to all of it (ours); 0
    /// to 1. Default 1: at first the feature maps teach, then the embedding.
    pub ramp_m: f64,
    /// Margin m, in units of the mean distance between two training images; 0 to 1e3. Default 0.2:
    /// beyond that an image is left alone, and the others are worked on.
    pub margin: f64,
    /// How much more the images that withstand count: 0 for the mean over the batch as in the
    /// paper, β > 0 for log(mean(exp(β·L)))/β, which tends to the batch's largest term (ours); 0
    /// to 100. Default 0.
    pub sharpness: f64,
    /// Which x′ the triplet takes. Default `farthest`.
    pub mining: Mining,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            lambda_gan: 0.1,
            lambda_r: 20.0,
            hinge: Hinge::Length(0.67),
            ramp_r: 1.0,
            lambda_f: 30.0,
            lambda_m: 3.0,
            ramp_m: 1.0,
            margin: 0.2,
            sharpness: 0.0,
            mining: Mining::default(),
        }
    }
}

/// How long a change may be that costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number from 0 to 1, or \"pgd\"")]
pub enum Hinge {
    /// In units of the largest ‖δ‖₂ that the budget allows; 0 to 1.
    Length(f64),
    /// As long as another attack's changes.
    Like(Reference),
}

/// An attack that a generator is to be as visible as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reference {
    /// PGD with ten steps at the same budget, on some of the training images; 1.5 % shorter than
    /// its mean, so that the PSNR is no less than PGD's.
    Pgd,
}

/// How the learning rate moves over training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Stays.
    Constant,
    /// Falls along half a cosine to a fiftieth.
    #[default]
    Cosine,
}

/// Which optimiser trains the generator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptimiserKind {
    /// Muon on the kernels of convolutions but the last, Adam on the rest: needs far fewer steps.
    #[default]
    Muon,
    /// Adam on everything.
    Adam,
}

/// Steps and the generator's optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingConfig {
    /// Alternating updates of D and G; 1 to 1,000,000. Default 1,500.
    pub steps: usize,
    /// Images per step; 1 to 1,024. Default 8.
    pub batch: usize,
    /// Which optimiser. Default `muon`.
    pub optimiser: OptimiserKind,
    /// Adam's highest learning rate; above 0, at most 1. Default 1e-3.
    pub learning_rate: f64,
    /// Muon's highest learning rate; above 0, at most 1. Default 0.02.
    pub muon_learning_rate: f64,
    /// Muon's momentum; 0 to below 1. Default 0.95.
    pub momentum: f64,
    /// Steps over which the learning rate rises from zero; 0 to `steps`. Default 0.
    pub warmup: usize,
    /// How it falls. Default `cosine`.
    pub schedule: Schedule,
    /// Input diversity d (Xie et al., arXiv:1803.06978): with probability ½, the target sees an
    /// image with each axis resized by 1 − d to 1 + d and shifted by up to d/2 of its length; 0 to
    /// 0.5. Default 0: none. 0.15 is stronger on networks that were not trained against, and weaker
    /// on the one that was.
    pub diversity: f64,
    /// Adam's β₁; 0 to below 1. Default 0.5.
    pub beta_1: f64,
    /// Adam's β₂; 0 to below 1. Default 0.999.
    pub beta_2: f64,
}

impl Default for TrainingConfig {
    fn default() -> Self {
        Self {
            steps: 1_500,
            batch: 8,
            optimiser: OptimiserKind::default(),
            learning_rate: 1e-3,
            muon_learning_rate: 0.02,
            momentum: 0.95,
            warmup: 0,
            schedule: Schedule::default(),
            diversity: 0.0,
            beta_1: 0.5,
            beta_2: 0.999,
        }
    }
}

/// A value that training cannot use.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value is out of range.
    #[error(transparent)]
    Range(#[from] OutOfRange),
    /// Not TOML, or an unknown key.
    #[error("{0}")]
    Parse(String),
}

/// A configuration that training can use.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedConfig(UaaGanConfig);

impl std::ops::Deref for CheckedConfig {
    type Target = UaaGanConfig;
    fn deref(&self) -> &UaaGanConfig {
        &self.0
    }
}

impl UaaGanConfig {
    /// The paper's form as TOML: λ_gan = 1, Adam, no augmentation, no term of ours.
    pub const PAPER: &str = include_str!("paper.toml");
    /// What guided-gan changes of the defaults, as TOML.
    pub const GUIDED: &str = include_str!("guided.toml");
    /// Settings for the embedded sample, as TOML: smaller and shorter than for real images.
    pub const SAMPLE: &str = include_str!("sample.toml");

    /// Which attack a generator of this configuration is.
    pub fn family(&self) -> Family {
        match self.generator.guidance {
            Guidance::None => Family::UaaGan,
            Guidance::FeatureMaps | Guidance::Gradients => Family::GuidedGan,
        }
    }

    /// Reads TOML; absent keys take their defaults, unknown ones are an error.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|e| ConfigError::Parse(e.to_string().trim_end().to_owned()))
    }

    /// The configuration as TOML that [`UaaGanConfig::from_toml`] reads back.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(self).map_err(|e| ConfigError::Parse(e.to_string()))
    }

    /// The configuration, if every value is in its range.
    pub fn check(self) -> Result<CheckedConfig, ConfigError> {
        let range = OutOfRange::unless;
        let count = |key, value: usize, low: usize, high: usize, accepted| {
            range((low..=high).contains(&value), key, value.to_string(), accepted)
        };
        let weight =
            |key, value: f64| range((0.0..=1e6).contains(&value), key, value.to_string(), "0 to 1e6");
        let rate = |key, value: f64| {
            range(value > 0.0 && value <= 1.0, key, value.to_string(), "a number above 0 and at most 1")
        };
        let beta =
            |key, value: f64| range((0.0..1.0).contains(&value), key, value.to_string(), "0 to below 1");
        let (g, t, l, d) = (&self.generator, &self.training, &self.loss, &self.discriminator);

        count("generator.widths", g.widths.len(), 1, 5, "1 to 5 stages")?;
        range(
            g.widths.iter().all(|w| (4..=1024).contains(w)),
            "generator.widths",
            format!("{:?}", g.widths),
            "4 to 1,024 channels per stage",
        )?;
        range(
            g.blocks.len() == g.widths.len() && g.blocks.iter().all(|b| *b <= 16),
            "generator.blocks",
            format!("{:?}", g.blocks),
            "as many entries as `generator.widths`, each 0 to 16",
        )?;
        range(
            g.gain > 0.0 && g.gain <= 100.0,
            "generator.gain",
            g.gain.to_string(),
            "a number above 0 and at most 100",
        )?;
        range(
            (0.0..=10.0).contains(&g.head_scale),
            "generator.head_scale",
            g.head_scale.to_string(),
            "0 to 10",
        )?;
        count("generator.patch", g.patch, 0, 8, "0 to 8")?;
        count("generator.refinement_steps", g.refinement_steps, 1, 4, "1 to 4")?;
        count("discriminator.width", d.width, 1, 512, "1 to 512")?;
        rate("discriminator.learning_rate", d.learning_rate)?;
        weight("loss.lambda_gan", l.lambda_gan)?;
        weight("loss.lambda_r", l.lambda_r)?;
        let part = |key, value: f64| range((0.0..=1.0).contains(&value), key, value.to_string(), "0 to 1");
        if let Hinge::Length(length) = l.hinge {
            part("loss.hinge", length)?;
        }
        part("loss.ramp_r", l.ramp_r)?;
        part("loss.ramp_m", l.ramp_m)?;
        weight("loss.lambda_f", l.lambda_f)?;
        weight("loss.lambda_m", l.lambda_m)?;
        range((0.0..=1e3).contains(&l.margin), "loss.margin", l.margin.to_string(), "0 to 1e3")?;
        range((0.0..=100.0).contains(&l.sharpness), "loss.sharpness", l.sharpness.to_string(), "0 to 100")?;
        count("training.steps", t.steps, 1, 1_000_000, "1 to 1,000,000")?;
        count("training.batch", t.batch, 1, 1024, "1 to 1,024")?;
        rate("training.learning_rate", t.learning_rate)?;
        rate("training.muon_learning_rate", t.muon_learning_rate)?;
        beta("training.momentum", t.momentum)?;
        count("training.warmup", t.warmup, 0, t.steps, "0 to `training.steps`")?;
        range((0.0..=0.5).contains(&t.diversity), "training.diversity", t.diversity.to_string(), "0 to 0.5")?;
        beta("training.beta_1", t.beta_1)?;
        beta("training.beta_2", t.beta_2)?;
        self.augment.check()?;
        Ok(CheckedConfig(self))
    }

    /// λ_r at `step`, counted from 0.
    pub(super) fn lambda_r_at(&self, step: usize) -> f64 {
        self.loss.lambda_r * self.risen(self.loss.ramp_r, step)
    }

    /// λ_m at `step`, counted from 0.
    pub(super) fn lambda_m_at(&self, step: usize) -> f64 {
        self.loss.lambda_m * (0.1 + 0.9 * self.risen(self.loss.ramp_m, step))
    }

    /// How far a weight has risen, 0 to 1, that does so over `part` of the steps.
    fn risen(&self, part: f64, step: usize) -> f64 {
        let steps = part * self.training.steps as f64;
        if steps > 0.0 { (step as f64 / steps).min(1.0) } else { 1.0 }
    }
}

impl TrainingConfig {
    /// The generator's learning rate at `step`, counted from 0.
    pub(super) fn learning_rate_at(&self, step: usize) -> f64 {
        let rising = if step < self.warmup { (step + 1) as f64 / self.warmup as f64 } else { 1.0 };
        let falling = match self.schedule {
            Schedule::Constant => 1.0,
            Schedule::Cosine => {
                let angle = std::f64::consts::PI * step as f64 / self.steps as f64;
                0.02 + 0.98 * 0.5 * (1.0 + angle.cos())
            }
        };
        self.learning_rate * rising * falling
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_check_and_survive_toml() {
        let config = UaaGanConfig::default();
        assert_eq!(UaaGanConfig::from_toml(&config.to_toml().unwrap()).unwrap(), config);
        config.check().unwrap();
    }

    #[test]
    fn the_papers_form_has_its_losses_only() {
        let paper = UaaGanConfig::from_toml(UaaGanConfig::PAPER).unwrap().check().unwrap();
        let loss = paper.loss;
        assert_eq!((loss.lambda_gan, loss.lambda_f, loss.sharpness), (1.0, 0.0, 0.0));
        assert_eq!((loss.ramp_r, loss.ramp_m, loss.hinge), (0.0, 0.0, Hinge::Length(0.0)));
        assert_eq!(paper.training.diversity, 0.0);
        assert!(loss.lambda_r > 0.0 && loss.lambda_m > 0.0);
        assert_eq!(paper.augment, AugmentConfig::NONE);
        assert_eq!(paper.training.optimiser, OptimiserKind::Adam);
        assert_eq!(paper.family(), Family::UaaGan);
    }

    #[test]
    fn the_hinge_is_a_length_or_another_attacks() {
        let read = |text: &str| UaaGanConfig::from_toml(&format!("[loss]\nhinge = {text}"));
        assert_eq!(read("0.5").unwrap().loss.hinge, Hinge::Length(0.5));
        let like = read("\"pgd\"").unwrap();
        assert_eq!(like.loss.hinge, Hinge::Like(Reference::Pgd));
        assert_eq!(UaaGanConfig::from_toml(&like.to_toml().unwrap()).unwrap(), like);
        let error = read("\"fgsm\"").unwrap_err().to_string();
        assert!(error.contains("expected a number from 0 to 1, or \"pgd\""), "{error}");
        assert!(read("1.5").unwrap().check().unwrap_err().to_string().contains("loss.hinge"));
    }

    #[test]
    fn unknown_keys_and_values_out_of_range_are_named() {
        let unknown = UaaGanConfig::from_toml("[loss]\nlamda_r = 1.0").unwrap_err().to_string();
        assert!(unknown.contains("lamda_r"), "{unknown}");
        for (text, key) in [
            ("[training]\nsteps = 0", "training.steps"),
            ("[loss]\nlambda_m = nan", "loss.lambda_m"),
            ("[loss]\nsharpness = -1.0", "loss.sharpness"),
            ("[generator]\nblocks = [1]", "generator.blocks"),
            ("[training]\nlearning_rate = 0.0", "training.learning_rate"),
            ("[augment]\nshift = 9999", "augment.shift"),
        ] {
            let error = UaaGanConfig::from_toml(text).unwrap().check().unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn weights_rise_over_their_part_of_the_steps() {
        let mut config = UaaGanConfig::default();
        (config.training.steps, config.loss.lambda_r, config.loss.ramp_r) = (100, 2.0, 0.5);
        assert_eq!([0, 25, 50, 99].map(|step| config.lambda_r_at(step)), [0.0, 1.0, 2.0, 2.0]);
        config.loss.ramp_r = 0.0;
        assert_eq!(config.lambda_r_at(0), 2.0);
        (config.loss.lambda_m, config.loss.ramp_m) = (10.0, 1.0);
        assert_eq!([0, 50].map(|step| config.lambda_m_at(step)), [1.0, 5.5]);
        config.loss.ramp_m = 0.0;
        assert_eq!(config.lambda_m_at(0), 10.0);
    }

    #[test]
    fn the_learning_rate_rises_then_falls_to_a_fiftieth() {
        let training =
            TrainingConfig { steps: 100, warmup: 10, learning_rate: 1.0, ..TrainingConfig::default() };
        assert!(training.learning_rate_at(0) < 0.11);
        assert!(training.learning_rate_at(10) > 0.9);
        assert!(training.learning_rate_at(99) < 0.03);
    }
}
