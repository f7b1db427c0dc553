//! What every run has: a seed, progress, files that appear whole or not at all.

mod atomic;
mod device;
mod hash;
mod output;
mod progress;
mod range;
mod seed;

pub use atomic::{AtomicFile, WriteError, write_atomic};
pub use burn::tensor::Device;
pub use device::{DeviceError, DeviceKind};
pub use hash::{Hash, sha256};
pub use output::{OutputDir, OutputError};
pub use progress::{Progress, Silent};
pub use range::OutOfRange;
pub use seed::Seed;
pub use waylay_conv::keep_freed_memory;
