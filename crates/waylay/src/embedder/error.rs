//! Why an embedder could not embed.

use std::error::Error;

use waylay_onnx::OnnxError;

use crate::embedding::EmbeddingError;

/// Why an [`Embedder`](super::Embedder) could not embed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbedderError {
    /// The pixels are of another size than [`Embedder::input`](super::Embedder::input).
    #[error("pixels of {found:?} (channels, height, width); need {expected:?}")]
    Pixels {
        /// Channels, height, width.
        expected: [usize; 3],
        /// Channels, height, width.
        found: [usize; 3],
    },
    /// The embeddings cannot be used.
    #[error(transparent)]
    Embedding(#[from] EmbeddingError),
    /// The ONNX network failed.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// Any other reason.
    #[error(transparent)]
    Other(Box<dyn Error + Send + Sync>),
}

impl EmbedderError {
    /// An error from another one, or from a text.
    pub fn other(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Other(reason.into())
    }
}
