//! Placeholder.
mod budget;

pub use budget::{Epsilon, EpsilonError};
