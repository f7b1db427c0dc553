//! One full-length gradient step on the feature distance.
//! Source: Goodfellow et al., arXiv:1412.6572, eq. in sec. 4, with the random start of Tramèr et al.,
//! arXiv:1705.07204, sec. 4.1. Differs: enlarges d(f_x, f_x̃), whose gradient at x itself is zero, hence the start.

use burn::tensor::Tensor;

use super::pgd::{ascend, uniform_start};
use super::{Attack, AttackError, Knowledge, Scene};
use crate::image::ImageBatch;

/// One step of length ε along the gradient's sign from a uniformly random start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fgsm;

impl Attack for Fgsm {
    fn name(&self) -> String {
        "fgsm".into()
    }

    fn label(&self) -> String {
        format!("FGSM, {}", self.knowledge())
    }

    fn knowledge(&self) -> Knowledge {
        Knowledge::gradients(1, 2)
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!({ "random_start": true })
    }

    fn propose(&self, clean: &ImageBatch, first: usize, scene: &Scene<'_>) -> Result<Tensor<4>, AttackError> {
        let x = clean.to_tensor(&scene.device);
        let f_x = scene.target.embedding(x.clone())?;
        let start = uniform_start(clean, first, scene, "fgsm");
        ascend(x, f_x, start, 1, scene.epsilon.in_pixels(), scene)
    }
}
