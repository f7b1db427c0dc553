//! One command per file.

pub mod fetch;
