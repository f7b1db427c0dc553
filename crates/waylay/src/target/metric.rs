//! How a retrieval system compares embeddings.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The distance a system ranks by, and an attack enlarges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// 1 − cos, from 0 to 2; embeddings are normalised first, a zero embedding stays zero.
    #[default]
    Cosine,
    /// Euclidean length of the difference of the embeddings as the network gives them.
    Euclidean,
}

/// A name that is not a [`Metric`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("metric `{0}`; need `cosine` or `euclidean`")]
pub struct MetricError(String);

impl FromStr for Metric {
    type Err = MetricError;
    fn from_str(name: &str) -> Result<Self, MetricError> {
        match name {
            "cosine" => Ok(Self::Cosine),
            "euclidean" => Ok(Self::Euclidean),
            other => Err(MetricError(other.into())),
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cosine => "cosine",
            Self::Euclidean => "euclidean",
        })
    }
}
