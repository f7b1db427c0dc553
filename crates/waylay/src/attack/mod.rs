//! Attacks: each proposes a changed query; [`craft()`] alone enforces the budget, [0, 1] and the
//! 8-bit grid.
//!
//! An attack is an optimiser ([`Pgd`], [`Fgsm`], the training in [`uaa_gan`]) with an [`Objective`]
//! under an access ([`Knowledge`]).

mod budget;
mod craft;
mod distance;
mod gradient;
mod knowledge;
mod noise;
mod objective;
pub mod uaa_gan;

use burn::tensor::{Device, Tensor};
use thiserror::Error;

use crate::embedder::{Embedder, EmbedderError};
use crate::embedding::Metric;
use crate::image::{ImageBatch, ImageError};
use crate::seed::Seed;

pub use budget::{Epsilon, EpsilonError};
pub use craft::{Crafted, craft};
pub use distance::{cosine_rows, feature_distance};
pub use gradient::{Fgsm, Pgd, PgdConfig, PgdConfigError, Start, gradient, gradient_and_features};
pub use knowledge::{Access, Knowledge};
pub use noise::Noise;
pub(crate) use objective::named;
pub use objective::{Evade, Objective, Opposite};

/// What an attack may know: the system under attack and the budget. There are no labels in it.
pub struct Scene<'a> {
    /// The frozen network.
    pub target: &'a dyn Embedder,
    /// How the system compares embeddings.
    pub metric: Metric,
    /// The most that a pixel may change.
    pub epsilon: Epsilon,
    /// The run's randomness.
    pub seed: Seed,
    /// Where tensors live; without automatic differentiation.
    pub device: Device,
}

impl Scene<'_> {
    /// The budget of `attack` here: the scene's, or its own where that is smaller.
    pub fn budget(&self, attack: &dyn Attack) -> Epsilon {
        attack.epsilon().filter(|own| *own < self.epsilon).unwrap_or(self.epsilon)
    }
}

/// Why an attack could not be carried out.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AttackError {
    /// The target failed.
    #[error("run the target")]
    Embedder(#[from] EmbedderError),
    /// Images do not have the target's size.
    #[error("images of {found:?} (channels, height, width) for a target that takes {expected:?}")]
    Size {
        /// What the target takes.
        expected: [usize; 3],
        /// What was given.
        found: [usize; 3],
    },
    /// The attack returned images of another shape.
    #[error(
        "attack `{attack}` proposed images of shape {found:?} (batch, channels, height, width); need {expected:?}"
    )]
    Shape {
        /// The attack's name.
        attack: String,
        /// The clean images' shape.
        expected: [usize; 4],
        /// The proposal's.
        found: [usize; 4],
    },
    /// The attack returned something that is not an image.
    #[error("attack `{attack}` proposed {value} at image {image}; need finite numbers")]
    NotFinite {
        /// The attack's name.
        attack: String,
        /// Which image.
        image: usize,
        /// The value.
        value: f32,
    },
    /// The crafted images are not valid pixels.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// A way to change queries so that their embedding moves away. An author writes only
/// [`Attack::propose`].
///
/// ```
/// use waylay::burn::tensor::Tensor;
/// use waylay::prelude::*;
///
/// /// Makes every query as much brighter as the budget allows.
/// struct Brighter;
///
/// impl Attack for Brighter {
///     fn name(&self) -> String {
///         "brighter".into()
///     }
///
///     fn label(&self) -> String {
///         format!("Brighter, {}", self.knowledge())
///     }
///
///     fn knowledge(&self) -> Knowledge {
///         Knowledge::IMAGE
///     }
///
///     fn propose(
///         &self,
///         clean: &ImageBatch,
///         _first: usize,
///         scene: &Scene<'_>,
///     ) -> Result<Tensor<4>, AttackError> {
///         Ok(clean.to_tensor(&scene.device) + scene.epsilon.in_pixels())
///     }
/// }
/// ```
pub trait Attack: Send + Sync {
    /// Short name, as in `report.json` and lists of attacks.
    fn name(&self) -> String;

    /// Name for people, with what it takes of the target as [`Attack::knowledge`] tells it: `PGD,
    /// 10 gradients`.
    fn label(&self) -> String;

    /// What it takes of the target for one query.
    fn knowledge(&self) -> Knowledge;

    /// A budget of its own, which counts where it is smaller than the scene's.
    fn epsilon(&self) -> Option<Epsilon> {
        None
    }

    /// The checked configuration, for the report. Default: empty.
    fn config(&self) -> serde_json::Value {
        serde_json::json!({})
    }

    /// Proposes one image per clean image `[N, C, H, W]`; [`craft`] clips it to the budget
    /// afterwards. `first` is the index of the batch's first image among all queries, for streams
    /// of random numbers that do not depend on how queries are batched.
    fn propose(&self, clean: &ImageBatch, first: usize, scene: &Scene<'_>) -> Result<Tensor<4>, AttackError>;
}
