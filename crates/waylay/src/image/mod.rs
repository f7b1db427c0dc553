//! Images: checked batches of pixels, and files in and out.

mod augment;
mod batch;
mod convert;
pub mod io;
mod jpeg;
mod resize;

pub use augment::{AugmentConfig, Augmented};
pub use batch::{ImageBatch, ImageError};
pub use io::{ImageWriteError, Picture, ReadError, write_png};
pub use resize::{Fit, Interpolation, Resizing};
