//! A closure as an embedder.

use burn::tensor::Tensor;

use super::{Embedder, EmbedderError};
use crate::hash::sha256;

/// An [`Embedder`] that calls a closure. Made by [`embedder_fn`].
pub struct EmbedderFn<F> {
    name: String,
    fingerprint: String,
    input: [usize; 3],
    dim: usize,
    embed: F,
}

/// An embedder of pixels of `input` = `[C, H, W]` that calls `embed`, which turns pixels `[N, C, H,
/// W]` in [0, 1] into embeddings `[N, dim]` on the processor, with operations that Burn can
/// differentiate.
///
/// Its fingerprint is made from name, sizes and nothing else: give closures that differ names that
/// differ.
///
/// ```
/// use waylay::embedder::{Embedder, embedder_fn};
///
/// // The mean of every channel over the image.
/// let means = embedder_fn("channel means", [3, 32, 32], 3, |pixels| {
///     pixels.mean_dim(3).mean_dim(2).flatten(1, 3)
/// });
/// assert_eq!((means.input(), means.dim()), ([3, 32, 32], 3));
/// ```
pub fn embedder_fn<F>(name: impl Into<String>, input: [usize; 3], dim: usize, embed: F) -> EmbedderFn<F>
where
    F: Fn(Tensor<4>) -> Tensor<2> + Send + Sync,
{
    let name = name.into();
    let fingerprint = sha256([format!("closure {name:?} {input:?} {dim}")]);
    EmbedderFn { name, fingerprint, input, dim, embed }
}

impl<F> Embedder for EmbedderFn<F>
where
    F: Fn(Tensor<4>) -> Tensor<2> + Send + Sync,
{
    fn name(&self) -> &str {
        &self.name
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn input(&self) -> [usize; 3] {
        self.input
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn embedding(&self, pixels: Tensor<4>) -> Result<Tensor<2>, EmbedderError> {
        let [count, c, h, w] = pixels.dims();
        if [c, h, w] != self.input {
            return Err(EmbedderError::Pixels { expected: self.input, found: [c, h, w] });
        }
        let embedding = (self.embed)(pixels);
        if embedding.dims() != [count, self.dim] {
            let found = embedding.dims();
            let name = &self.name;
            return Err(EmbedderError::other(format!(
                "`{name}` gives {found:?}; need [{count}, {}]",
                self.dim
            )));
        }
        Ok(embedding)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::image::ImageBatch;

    #[test]
    fn a_closure_embeds_and_its_mistakes_are_errors() {
        let means = embedder_fn("means", [1, 16, 16], 1, |x| x.mean_dim(3).mean_dim(2).flatten(1, 3));
        let images = ImageBatch::new([20, 1, 16, 16], vec![0.25; 20 * 256]).unwrap();
        assert_eq!(means.embed(&images, &Device::flex()).unwrap().values(), [0.25; 20]);
        let small = ImageBatch::new([1, 1, 16, 8], vec![0.0; 128]).unwrap();
        let error = means.embed(&small, &Device::flex()).unwrap_err().to_string();
        assert!(error.contains("[1, 16, 8]") && error.contains("need [1, 16, 16]"), "{error}");
        let wrong = embedder_fn("wrong", [1, 16, 16], 7, |x| x.mean_dim(3).mean_dim(2).flatten(1, 3));
        let error = wrong.embed(&images, &Device::flex()).unwrap_err().to_string();
        assert!(error.contains("`wrong` gives [16, 1]; need [16, 7]"), "{error}");
    }
}
