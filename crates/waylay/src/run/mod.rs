//! What every run has: a seed, progress, files that appear whole or not at all.

mod progress;
mod seed;

pub use burn::tensor::Device;
pub use progress::{Progress, Silent};
pub use seed::Seed;
