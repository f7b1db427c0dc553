//! Embeddings as a target returns them.

use rayon::prelude::*;
use thiserror::Error;

/// What is wrong with numbers that were offered as [`Embeddings`].
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum EmbeddingError {
    /// The count is not a multiple of the dimension.
    #[error("{found} values for embeddings of {dim} dimensions; need a positive multiple")]
    Count {
        /// Dimensions per embedding.
        dim: usize,
        /// Values given.
        found: usize,
    },
    /// A value is infinite or not a number.
    #[error("embedding {row} holds {value} at dimension {column}; need finite numbers")]
    NotFinite {
        /// Which embedding.
        row: usize,
        /// Which dimension.
        column: usize,
        /// The value.
        value: f32,
    },
}

/// `N` embeddings of `dim` finite values each, row-major, as the network gave them: not normalised.
/// A cosine metric normalises rows itself; a Euclidean one takes them as they are.
///
/// ```
/// use waylay::prelude::*;
///
/// let embeddings = Embeddings::new(2, vec![3.0, 4.0, 0.0, 2.0])?;
/// assert_eq!((embeddings.count(), embeddings.row(1)), (2, &[0.0, 2.0][..]));
/// assert_eq!(embeddings.normalised().row(0), [0.6, 0.8]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    values: Vec<f32>,
    dim: usize,
}

impl Embeddings {
    /// Embeddings of `dim` values each; an error where the count does not fit or a value is not
    /// finite.
    pub fn new(dim: usize, values: Vec<f32>) -> Result<Self, EmbeddingError> {
        if dim == 0 || values.is_empty() || !values.len().is_multiple_of(dim) {
            return Err(EmbeddingError::Count { dim, found: values.len() });
        }
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Err(EmbeddingError::NotFinite { row: at / dim, column: at % dim, value: values[at] });
        }
        Ok(Self { values, dim })
    }

    /// Number of embeddings.
    pub fn count(&self) -> usize {
        self.values.len() / self.dim
    }

    /// Values per embedding.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// All values, row after row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All values, row after row, without a copy.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }

    /// Embedding `index`.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.dim..(index + 1) * self.dim]
    }

    /// Every row divided by its Euclidean length; a zero row stays zero.
    pub fn normalised(&self) -> Self {
        let mut values = self.values.clone();
        values.par_chunks_exact_mut(self.dim).for_each(|row| {
            let length = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            if length > 0.0 {
                row.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
            }
        });
        Self { values, dim: self.dim }
    }
}
