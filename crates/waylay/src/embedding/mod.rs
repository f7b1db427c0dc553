//! Embeddings, and how two of them are compared.

mod embeddings;
mod metric;

pub use embeddings::{EmbeddingError, Embeddings};
pub use metric::{Metric, MetricError};
