//! The main job: every attack at one budget against one target, measured on the files that were written.

pub mod outcome;

pub use outcome::Audit;
