//! How the distance of two embeddings is measured.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A name that is no [`Metric`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("metric `{name}`; need `cosine` or `euclidean`")]
pub struct MetricError {
    /// What was given.
    pub name: String,
}

/// A distance between embeddings; smaller is more alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// One minus the cosine of the angle, 0 to 2. An embedding of length zero is at distance 1 from
    /// everything.
    #[default]
    Cosine,
    /// Length of the difference of the embeddings as the network gave them, 0 upward.
    Euclidean,
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cosine => "cosine",
            Self::Euclidean => "euclidean",
        })
    }
}

impl FromStr for Metric {
    type Err = MetricError;

    fn from_str(name: &str) -> Result<Self, MetricError> {
        match name {
            "cosine" => Ok(Self::Cosine),
            "euclidean" => Ok(Self::Euclidean),
            _ => Err(MetricError { name: name.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_reads_back_from_its_name_and_from_json() {
        for metric in [Metric::Cosine, Metric::Euclidean] {
            assert_eq!(metric.to_string().parse(), Ok(metric));
            assert_eq!(serde_json::to_string(&metric).unwrap(), format!("\"{metric}\""));
        }
        let error = "manhattan".parse::<Metric>().unwrap_err();
        assert_eq!(error.to_string(), "metric `manhattan`; need `cosine` or `euclidean`");
    }
}
