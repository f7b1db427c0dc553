//! One full-length gradient step. Source: Goodfellow et al., arXiv:1412.6572, eq. in sec. 4, with
//! the random start of Tramèr et al., arXiv:1705.07204, sec. 4.1. Differs: enlarges an objective of
//! the embedding, by default d(f_x, f_x̃), whose gradient at x itself is zero, hence the start.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::pgd::{ascend, uniform_start};
use crate::attack::objective::{labelled, named};
use crate::attack::{Attack, AttackError, Evade, Knowledge, Objective, Scene};
use crate::image::ImageBatch;

/// One step of length ε along the gradient's sign from a uniformly random start.
#[derive(Clone, Debug)]
pub struct Fgsm {
    objective: Arc<dyn Objective>,
}

impl Default for Fgsm {
    fn default() -> Self {
        Self { objective: Arc::new(Evade) }
    }
}

impl Fgsm {
    /// The same attack with another objective than [`Evade`].
    #[must_use]
    pub fn towards(self, objective: impl Objective + 'static) -> Self {
        Self { objective: Arc::new(objective) }
    }
}

impl Attack for Fgsm {
    fn name(&self) -> String {
        named("fgsm".into(), self.objective.name())
    }

    fn label(&self) -> String {
        format!("{}, {}", labelled("FGSM", self.objective.name()), self.knowledge())
    }

    fn knowledge(&self) -> Knowledge {
        Knowledge::gradients(1, 2)
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!({ "random_start": true, "objective": self.objective.name() })
    }

    fn propose(&self, clean: &ImageBatch, first: usize, scene: &Scene<'_>) -> Result<Tensor<4>, AttackError> {
        let x = clean.to_tensor(&scene.device);
        let f_x = scene.target.embedding(x.clone())?;
        let start = uniform_start(clean, first, scene, "fgsm");
        ascend(&*self.objective, x, f_x, start, 1, scene.epsilon.in_pixels(), scene)
    }
}
