//! How much an attack may change a pixel.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An L∞ budget that cannot be used.
#[derive(Clone, Debug, Error, PartialEq)]
#[error("epsilon {value}; need a number above 0 and at most 255 (8 means 8/255)")]
pub struct EpsilonError {
    /// What was given, in 1/255.
    pub value: f64,
}

/// An L∞ budget: the most that any pixel may change, above 0 and at most 255/255. Default 8/255.
/// Written and serialised in 1/255: `8` is 8/255 of the pixel range.
///
/// ```
/// use waylay::prelude::*;
///
/// let epsilon = Epsilon::from_255(8.0)?;
/// assert_eq!((epsilon.in_255(), epsilon.in_pixels()), (8.0, 8.0 / 255.0));
/// assert!(Epsilon::from_255(0.0).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Epsilon(f64);

impl Epsilon {
    /// A budget of `value`/255; an error for 0, negatives, more than 255, and NaN.
    pub fn from_255(value: f64) -> Result<Self, EpsilonError> {
        if value > 0.0 && value <= 255.0 { Ok(Self(value)) } else { Err(EpsilonError { value }) }
    }

    /// The budget in 1/255.
    pub fn in_255(self) -> f64 {
        self.0
    }

    /// The budget in pixel units, [0, 1].
    pub fn in_pixels(self) -> f32 {
        (self.0 / 255.0) as f32
    }
}

impl Default for Epsilon {
    fn default() -> Self {
        Self(8.0)
    }
}

impl TryFrom<f64> for Epsilon {
    type Error = EpsilonError;
    fn try_from(value: f64) -> Result<Self, EpsilonError> {
        Self::from_255(value)
    }
}

impl From<Epsilon> for f64 {
    fn from(epsilon: Epsilon) -> Self {
        epsilon.0
    }
}
