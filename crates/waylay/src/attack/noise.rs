//! Random signs at the full budget: what any change of this size does without looking at the
//! target.

use burn::tensor::{Tensor, TensorData};
use rand::RngExt;

use super::{Attack, AttackError, Knowledge, Scene};
use crate::image::ImageBatch;

/// Adds +ε or −ε to every value, each with probability one half.
#[derive(Clone, Copy, Debug, Default)]
pub struct Noise;

impl Attack for Noise {
    fn name(&self) -> String {
        "noise".into()
    }

    fn label(&self) -> String {
        "Random-sign noise".into()
    }

    fn knowledge(&self) -> Knowledge {
        Knowledge::IMAGE
    }

    fn propose(&self, clean: &ImageBatch, first: usize, scene: &Scene<'_>) -> Result<Tensor<4>, AttackError> {
        let epsilon = scene.epsilon.in_pixels();
        let pixels: Vec<f32> = (0..clean.count())
            .flat_map(|i| {
                let mut random = scene.seed.stream(&format!("noise/{}", first + i));
                clean
                    .image(i)
                    .iter()
                    .map(move |v| if random.random::<bool>() { v + epsilon } else { v - epsilon })
            })
            .collect();
        Ok(Tensor::from_data(TensorData::new(pixels, clean.shape()), &scene.device))
    }
}
