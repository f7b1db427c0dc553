//! What every configuration says of a value that it cannot use.

use thiserror::Error;

/// A configured value out of its range.
#[derive(Clone, Debug, Error, PartialEq)]
#[error("`{key}` is {value}; need {accepted}")]
pub struct OutOfRange {
    /// The key, dotted as in the TOML files.
    pub key: &'static str,
    /// The value.
    pub value: String,
    /// What is accepted.
    pub accepted: &'static str,
}

impl OutOfRange {
    /// An error that says all of this, unless `ok`.
    pub(crate) fn unless(
        ok: bool,
        key: &'static str,
        value: String,
        accepted: &'static str,
    ) -> Result<(), Self> {
        if ok { Ok(()) } else { Err(Self { key, value, accepted }) }
    }
}
