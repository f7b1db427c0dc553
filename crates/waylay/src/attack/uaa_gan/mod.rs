//! UAA-GAN: a generator, trained without labels against a frozen feature extractor, that moves the
//! embedding of any query far from where it was in one forward pass, and sees nothing but the
//! image. Source: Zhao, Zhang, Liu, Wen, "Unsupervised Adversarial Attacks on Deep Feature-based
//! Retrieval with GAN", arXiv:1907.05793. What the paper leaves open is marked "ours" where it is
//! chosen.
//!
//! Guided-gan, ours, is the same generator and training with the target's feature maps or gradients
//! as further input ([`Guidance`]): another threat model, and therefore another name.

mod config;
mod discriminator;
mod diversity;
mod file;
mod generator;
mod loss;
mod mining;
mod optimiser;
mod train;

use burn::tensor::Tensor;

use super::objective::{labelled, named};
use super::{Attack, AttackError, Knowledge, Scene};
use crate::image::ImageBatch;

pub use config::{
    CheckedConfig, ConfigError, DiscriminatorConfig, Family, Hinge, LossConfig, OptimiserKind, Reference,
    Schedule, TrainingConfig, UaaGanConfig,
};
pub use discriminator::{Discriminator, DiscriminatorKind};
pub use file::{GeneratorFile, GeneratorFileError};
pub use generator::{Generator, GeneratorConfig, Guidance, StepInput};
pub use loss::{
    change, feature_similarity, lsgan_discriminator, lsgan_generator, over_batch, reconstruction, triplet,
};
pub use mining::{Mining, mine};
pub use train::{StepLog, TrainError, Trained, train};

/// A trained generator as an attack: `uaa-gan` without guidance, `guided-gan` with it.
pub struct GeneratorAttack {
    /// The generator, without automatic differentiation.
    pub generator: Generator,
    /// Name of the objective that it was trained towards.
    pub objective: String,
    /// How it was trained.
    pub config: UaaGanConfig,
}

impl Attack for GeneratorAttack {
    fn name(&self) -> String {
        named(self.config.family().to_string(), &self.objective)
    }

    fn label(&self) -> String {
        let name = match self.config.family() {
            Family::GuidedGan => "Guided GAN",
            Family::UaaGan => "UAA-GAN",
        };
        format!("{}, {}", labelled(name, &self.objective), self.knowledge())
    }

    fn knowledge(&self) -> Knowledge {
        self.generator.knowledge()
    }

    fn config(&self) -> serde_json::Value {
        let mut config = serde_json::json!(self.config);
        config["objective"] = self.objective.as_str().into();
        config
    }

    fn propose(
        &self,
        clean: &ImageBatch,
        _first: usize,
        scene: &Scene<'_>,
    ) -> Result<Tensor<4>, AttackError> {
        let x = clean.to_tensor(&scene.device);
        Ok(self.generator.perturb(x, scene)?)
    }
}
