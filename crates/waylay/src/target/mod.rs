//! Targets: frozen networks that turn images into embeddings, differentiable in their input.
//!
//! A target owns everything between plain pixels and its embedding: resizing, channel order, scale, mean and
//! standard deviation live in [`preprocess`] and nowhere else. An attack never sees a normalised image.

mod embeddings;
mod metric;
pub mod onnx;
pub mod preprocess;
mod sample;
mod stream;

use burn::tensor::{Device, Tensor};

use crate::image::{ImageBatch, Resizing};

pub use embeddings::{EmbeddingError, Embeddings};
pub use metric::{Metric, MetricError};
pub use sample::sample_target;
pub use stream::{STREAM_BATCH, StreamError, embed_stream};

/// What a target computes for a batch of pixels.
#[derive(Clone, Debug)]
pub struct Features {
    /// `[N, dim]`, as the network gives it: not normalised.
    pub embedding: Tensor<2>,
    /// The feature maps announced by [`Target::taps`], in that order, each `[N, C, H, W]`.
    pub taps: Vec<Tensor<4>>,
}

/// A feature map inside the target that a generator can be conditioned on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tap {
    /// The tensor's name in the network.
    pub name: String,
    /// Channels, height, width.
    pub size: [usize; 3],
}

/// A frozen network that embeds images of one size.
pub trait Target: Send + Sync {
    /// Name for people: a file name, or `sample`.
    fn name(&self) -> &str;

    /// SHA-256 of the network and its preprocessing, in hexadecimal: two targets that differ in either differ here.
    fn fingerprint(&self) -> &str;

    /// `[C, H, W]` of the pixels it takes: the size at which images are attacked and saved.
    fn input(&self) -> [usize; 3];

    /// How images of other sizes become ones of that size.
    fn resizing(&self) -> Resizing {
        Resizing::default()
    }

    /// Where its weights are, and its input must be.
    fn device(&self) -> Device {
        Device::flex()
    }

    /// Dimensions of the embedding.
    fn dim(&self) -> usize;

    /// Feature maps for conditioning, from the largest size to the smallest: for each spatial size below the input's, up
    /// to four activations evenly spaced from the first to the last of that size, and the last map. Empty for networks without such maps.
    fn taps(&self) -> &[Tap];

    /// The embedding `[N, dim]` of pixels `[N, C, H, W]` in [0, 1], without the taps. Differentiable in `pixels` when they are
    /// tracked.
    fn embedding(&self, pixels: Tensor<4>) -> Result<Tensor<2>, onnx::OnnxError> {
        Ok(self.forward(pixels)?.embedding)
    }

    /// Embeds pixels `[N, C, H, W]` in [0, 1]. Differentiable in `pixels` when they are tracked.
    fn forward(&self, pixels: Tensor<4>) -> Result<Features, onnx::OnnxError>;

    /// Embeds a checked batch of any count, a few images at a time, without gradients.
    fn embed(&self, images: &ImageBatch, device: &Device) -> Result<Embeddings, onnx::OnnxError>;
}
