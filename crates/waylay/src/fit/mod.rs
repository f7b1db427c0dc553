//! Trains a small embedding network from labelled images: how the embedded sample's target was
//! made. Source: supervised contrastive loss, Khosla et al., arXiv:2004.11362, eq. 2.

mod network;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor, TensorData};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use waylay_conv::Adam;

use crate::image::{AugmentConfig, ImageBatch, ImageError};
use crate::layer::Statistics;
use crate::out_of_range::OutOfRange;
use crate::progress::Progress;
use crate::seed::Seed;

use network::Network;

/// How a network is built and trained. Used only through [`FitConfig::check`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FitConfig {
    /// Height and width of the input; 16 to 512. Default 112.
    pub size: usize,
    /// Channels of the strided convolutions; 1 to 6 of 1 to 1,024. Default 16, 32, 64, 128, 128.
    pub widths: Vec<usize>,
    /// Plain convolutions after each strided one; 0 to 4. Default 0.
    pub depth: usize,
    /// Dimensions of the embedding; 2 to 4,096. Default 128.
    pub dim: usize,
    /// Training steps; 1 to 1,000,000. Default 400.
    pub steps: usize,
    /// Images per step; 2 to 4,096. Default 64.
    pub batch: usize,
    /// Adam's learning rate; above 0, at most 1. Default 1e-3.
    pub learning_rate: f64,
    /// Temperature of the loss; 0.001 to 10. Default 0.1.
    pub temperature: f64,
    /// Random changes to training images. Default: the attack's, without blending.
    pub augment: AugmentConfig,
}

impl Default for FitConfig {
    fn default() -> Self {
        Self {
            size: 112,
            widths: vec![16, 32, 64, 128, 128],
            depth: 0,
            dim: 128,
            steps: 400,
            batch: 64,
            learning_rate: 1e-3,
            temperature: 0.1,
            augment: AugmentConfig { mix: 0.0, ..AugmentConfig::default() },
        }
    }
}

/// Why a network could not be trained.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FitError {
    /// A value is out of range.
    #[error(transparent)]
    Range(#[from] OutOfRange),
    /// Labels and images do not pair up, or there is nothing to tell apart.
    #[error(
        "{images} images with {labels} labels of {identities} identities; need a label per image and two identities"
    )]
    Labels {
        /// Images given.
        images: usize,
        /// Labels given.
        labels: usize,
        /// Different labels.
        identities: usize,
    },
    /// The loss is NaN or infinite.
    #[error("loss is {value} at step {step}; need finite losses: lower the learning rate")]
    Diverged {
        /// Step, from 1.
        step: usize,
        /// The loss.
        value: f64,
    },
    /// The images are not valid.
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl FitConfig {
    /// The configuration, if every value is in its range.
    pub fn check(self) -> Result<CheckedFit, FitError> {
        let range = OutOfRange::unless;
        range((16..=512).contains(&self.size), "size", self.size.to_string(), "16 to 512")?;
        range(
            (1..=6).contains(&self.widths.len()) && self.widths.iter().all(|w| (1..=1024).contains(w)),
            "widths",
            format!("{:?}", self.widths),
            "1 to 6 numbers of 1 to 1,024",
        )?;
        range(self.depth <= 4, "depth", self.depth.to_string(), "0 to 4")?;
        range((2..=4096).contains(&self.dim), "dim", self.dim.to_string(), "2 to 4,096")?;
        range((1..=1_000_000).contains(&self.steps), "steps", self.steps.to_string(), "1 to 1,000,000")?;
        range((2..=4096).contains(&self.batch), "batch", self.batch.to_string(), "2 to 4,096")?;
        let rate = self.learning_rate;
        range(
            rate > 0.0 && rate <= 1.0,
            "learning_rate",
            rate.to_string(),
            "a number above 0 and at most 1",
        )?;
        let heat = self.temperature;
        range((0.001..=10.0).contains(&heat), "temperature", heat.to_string(), "0.001 to 10")?;
        self.augment.check()?;
        Ok(CheckedFit(self))
    }
}

/// A configuration that training can use.
#[derive(Clone, Debug)]
pub struct CheckedFit(FitConfig);

/// What training gives.
pub struct Fitted {
    /// The network as an ONNX file: input `pixels` `[N, C, size, size]` in [0, 1], output
    /// `embedding` `[N, dim]`.
    pub onnx: Vec<u8>,
    /// Loss per step.
    pub losses: Vec<f64>,
}

/// Trains on gray or RGB `images` of the configured size with one label per image.
pub fn fit(
    config: &CheckedFit,
    images: &ImageBatch,
    labels: &[usize],
    seed: Seed,
    device: &Device,
    progress: &dyn Progress,
) -> Result<Fitted, FitError> {
    let config = &config.0;
    let identities = labels.iter().collect::<std::collections::BTreeSet<_>>().len();
    if labels.len() != images.count() || identities < 2 {
        return Err(FitError::Labels { images: images.count(), labels: labels.len(), identities });
    }
    let tracked = device.clone().autodiff();
    let mut network = Network::new(config, images.size()[0], &mut seed.stream("fit/init"), &tracked);
    let mut sampling = seed.stream("fit/sampling");
    let mut optimiser = Adam::init(0.9, 0.999, 1e-8);
    let mut losses = Vec::with_capacity(config.steps);
    let mut statistics: Vec<Statistics> = Vec::new();

    progress.begin("Fit the network", config.steps);
    for step in 0..config.steps {
        let picked: Vec<usize> =
            (0..config.batch).map(|_| sampling.random_range(0..images.count())).collect();
        let batch = config.augment.apply(&images.select(&picked), &mut sampling)?.images;
        let x = batch.to_tensor(&tracked);
        let batch_labels: Vec<usize> = picked.iter().map(|&i| labels[i]).collect();
        let (embeddings, seen) = network.forward(x);
        if statistics.is_empty() {
            statistics = seen;
        } else {
            statistics.iter_mut().zip(&seen).for_each(|(all, batch)| all.follow(batch));
        }
        let loss = contrastive(embeddings, &batch_labels, config.temperature);
        let value = loss.clone().into_data().iter::<f64>().next().unwrap_or(f64::NAN);
        if !value.is_finite() {
            return Err(FitError::Diverged { step: step + 1, value });
        }
        let gradients = GradientsParams::from_grads(loss.backward(), &network);
        let falling = 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / config.steps as f64).cos());
        network = optimiser.step(config.learning_rate * falling.max(0.01), network, gradients);
        progress.advance(&format!("loss {value:.3}"));
        losses.push(value);
    }
    progress.end();
    Ok(Fitted { onnx: network.valid().to_onnx(images.size(), &statistics), losses })
}

/// Supervised contrastive loss of `embeddings` `[N, dim]` (normalised here); images without a
/// partner count nothing.
fn contrastive(embeddings: Tensor<2>, labels: &[usize], temperature: f64) -> Tensor<1> {
    let n = labels.len();
    let device = embeddings.device();
    let length = embeddings.clone().powi_scalar(2).sum_dim(1).add_scalar(1e-12).sqrt();
    let z = embeddings / length;
    let mut itself = vec![0.0f32; n * n];
    let mut partners = vec![0.0f32; n * n];
    for i in 0..n {
        itself[i * n + i] = -1e9;
        let alike = |j: &usize| *j != i && labels[*j] == labels[i];
        let count = (0..n).filter(alike).count().max(1) as f32;
        (0..n).filter(alike).for_each(|j| partners[i * n + j] = 1.0 / (count * n as f32));
    }
    let square = |values: Vec<f32>| Tensor::<2>::from_data(TensorData::new(values, [n, n]), &device);
    let similarity = z.clone().matmul(z.transpose()) / temperature + square(itself);
    (log_softmax(similarity, 1) * square(partners)).sum().neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embeddings_that_gather_by_label_have_a_lower_loss() {
        let device = Device::flex();
        let labels = [0, 0, 1, 1];
        let loss = |rows: [[f32; 2]; 4]| -> f32 {
            contrastive(Tensor::from_floats(rows, &device), &labels, 0.5).into_scalar()
        };
        let gathered = loss([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]);
        let mixed = loss([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.1, 1.0]]);
        assert!(gathered < mixed, "{gathered} {mixed}");
    }

    #[test]
    fn labels_must_pair_up_with_images() {
        let images = ImageBatch::new([2, 1, 16, 16], vec![0.5; 512]).unwrap();
        let config = FitConfig { size: 16, ..FitConfig::default() }.check().unwrap();
        let result = fit(&config, &images, &[1, 1], Seed(0), &Device::flex(), &crate::progress::Silent);
        assert!(matches!(result, Err(FitError::Labels { .. })));
    }
}
