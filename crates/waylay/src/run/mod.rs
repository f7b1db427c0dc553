//! What a run leaves on disk: files that appear whole or not at all.

mod atomic;
mod output;

pub use atomic::{WriteError, write_atomic};
pub use output::{OutputDir, OutputError};
