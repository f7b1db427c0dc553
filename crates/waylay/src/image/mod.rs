//! Images: checked batches of pixels, and files in and out.

mod batch;
pub mod io;

pub use batch::{ImageBatch, ImageError};
pub use io::Picture;
