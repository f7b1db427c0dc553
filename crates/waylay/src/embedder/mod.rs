//! Embedders: networks, or anything else, that turn images into embeddings, differentiable with
//! respect to the pixels.
//!
//! An embedder owns everything between plain pixels and the embedding: resizing, channel order,
//! scale, mean and standard deviation. An attack never sees a normalised image. [`OnnxEmbedder`]
//! runs ONNX files; [`embedder_fn`] makes one from a closure; a Burn module is one with an `impl`
//! of [`Embedder::embedding`] and four short methods.

mod closure;
mod error;
mod onnx;
pub mod preprocess;
mod sample;
mod stream;

use burn::tensor::{Device, Tensor};

use crate::embedding::Embeddings;
use crate::image::{ImageBatch, Resizing};

pub use closure::{EmbedderFn, embedder_fn};
pub use error::EmbedderError;
pub use onnx::{OnnxEmbedder, OpenError, OpenOptions};
pub use sample::sample_embedder;
pub use stream::{STREAM_BATCH, StreamError, embed_stream};
pub use waylay_onnx::Tap;

/// Images embedded at once where no gradients are needed.
const EMBED_BATCH: usize = 16;

/// What an embedder computes for a batch of pixels.
#[derive(Clone, Debug)]
pub struct Features {
    /// `[N, dim]`, as the network gives it: not normalised.
    pub embedding: Tensor<2>,
    /// The feature maps announced by [`Embedder::taps`], in that order, each `[N, C, H, W]`.
    pub taps: Vec<Tensor<4>>,
}

/// A frozen network that embeds images of one size.
///
/// ```
/// use waylay::burn::tensor::Tensor;
/// use waylay::prelude::*;
///
/// /// The mean colour.
/// struct MeanColour;
///
/// impl Embedder for MeanColour {
///     fn name(&self) -> &str {
///         "mean colour"
///     }
///
///     fn fingerprint(&self) -> &str {
///         "mean colour"
///     }
///
///     fn input(&self) -> [usize; 3] {
///         [3, 32, 32]
///     }
///
///     fn dim(&self) -> usize {
///         3
///     }
///
///     fn embedding(&self, pixels: Tensor<4>) -> Result<Tensor<2>, EmbedderError> {
///         Ok(pixels.mean_dim(3).mean_dim(2).flatten(1, 3))
///     }
/// }
/// ```
pub trait Embedder: Send + Sync {
    /// Name for people: a file name, or `sample`.
    fn name(&self) -> &str;

    /// SHA-256 of the network and its preprocessing, in hexadecimal: two embedders that differ in
    /// either differ here. Generator files state it, and are refused for another one.
    fn fingerprint(&self) -> &str;

    /// `[C, H, W]` of the pixels it takes: the size at which images are attacked and saved.
    fn input(&self) -> [usize; 3];

    /// Dimensions of the embedding.
    fn dim(&self) -> usize;

    /// The embedding `[N, dim]` of pixels `[N, C, H, W]` in [0, 1], of any batch size.
    /// Differentiable with respect to `pixels` where they are tracked.
    fn embedding(&self, pixels: Tensor<4>) -> Result<Tensor<2>, EmbedderError>;

    /// How images of other sizes become ones of that size. Default: bilinear stretching.
    fn resizing(&self) -> Resizing {
        Resizing::default()
    }

    /// How pixels become the network's input, in one line for people. Default: as they are.
    fn preprocessing(&self) -> String {
        "pixels of 0 to 1".into()
    }

    /// Where its weights are, and its input must be. Default: the processor.
    fn device(&self) -> Device {
        Device::flex()
    }

    /// Feature maps for conditioning, from the largest size to the smallest: for each spatial size
    /// below the input's, up to four activations evenly spaced from the first to the last of that
    /// size, and the last map. Default: none.
    fn taps(&self) -> &[Tap] {
        &[]
    }

    /// [`Embedder::embedding`] with the feature maps that [`Embedder::taps`] announces. Default:
    /// without any.
    fn forward(&self, pixels: Tensor<4>) -> Result<Features, EmbedderError> {
        Ok(Features { embedding: self.embedding(pixels)?, taps: Vec::new() })
    }

    /// Embeds a checked batch of any count, a few images at a time, without gradients. An error
    /// where an embedding is not finite.
    fn embed(&self, images: &ImageBatch, device: &Device) -> Result<Embeddings, EmbedderError> {
        let [_, c, h, w] = images.shape();
        if [c, h, w] != self.input() {
            return Err(EmbedderError::Pixels { expected: self.input(), found: [c, h, w] });
        }
        let device = device.clone().without_autodiff();
        let mut values = Vec::with_capacity(images.count() * self.dim());
        for part in images.chunks(EMBED_BATCH) {
            values.extend(self.embedding(part.to_tensor(&device))?.into_data().iter::<f32>());
        }
        Ok(Embeddings::new(self.dim(), values)?)
    }
}
