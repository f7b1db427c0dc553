//! UAA-GAN: a generator, trained without labels against a frozen feature extractor, that moves the embedding of any
//! query far from where it was in one forward pass; by choice it sees a gradient of the target too.
//! Source: Zhao, Zhang, Liu, Wen, "Unsupervised Adversarial Attacks on Deep Feature-based Retrieval with GAN",
//! arXiv:1907.05793. What the paper leaves open is marked "ours" where it is chosen.

mod config;
mod discriminator;
mod file;
mod generator;
mod loss;
mod mining;
mod optimiser;
mod train;

use burn::tensor::Tensor;

use super::{Attack, AttackError, Scene};
use crate::image::ImageBatch;

pub use config::{
    CheckedConfig, ConfigError, DiscriminatorConfig, LossConfig, Schedule, TrainingConfig, UaaGanConfig,
};
pub use discriminator::{Discriminator, DiscriminatorKind};
pub use file::{GeneratorFile, GeneratorFileError};
pub use generator::{Generator, GeneratorConfig, GeneratorKind, Look};
pub use loss::{lsgan_discriminator, lsgan_generator, over_batch, reconstruction, triplet};
pub use mining::{Mining, mine};
pub use optimiser::OptimiserKind;
pub use train::{StepLog, TrainError, Trained, train};

/// A trained generator as an attack.
pub struct UaaGan {
    /// The generator, without automatic differentiation.
    pub generator: Generator,
    /// How it was trained.
    pub config: UaaGanConfig,
}

impl Attack for UaaGan {
    fn name(&self) -> String {
        "uaa-gan".into()
    }

    /// Says how many gradients of the target each image takes, if any.
    fn label(&self) -> String {
        match self.generator.gradients() {
            0 => "UAA-GAN".into(),
            1 => "UAA-GAN, 1 gradient".into(),
            gradients => format!("UAA-GAN, {gradients} gradients"),
        }
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!(self.config)
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
