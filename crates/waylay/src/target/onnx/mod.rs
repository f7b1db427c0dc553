//! Placeholder.
use thiserror::Error;

/// Placeholder.
#[derive(Debug, Error)]
#[error("placeholder")]
pub struct OnnxError;
