//! Files and folders that appear whole or not at all.

mod atomic;
mod folder;

pub use atomic::{AtomicFile, WriteError, write_atomic};
pub use folder::{OutputDir, OutputError};
