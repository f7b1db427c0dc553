//! waylay answers one question for the people who run image search, person re-identification or
//! face search on deep features: how easily can a barely visible change to the query make the
//! system lose the right answer?
//!
//! The flow is one way: [`image`] → [`dataset`] → [`embedder`] → [`attack`] → [`retrieval`] and
//! [`quality`] → [`audit`] → [`report`]. A module uses those to its left and none to its right; all
//! of them may use [`seed`], [`progress`], [`output`], [`device`] and [`hash`].
//!
//! ```no_run
//! use std::path::Path;
//! use waylay::prelude::*;
//!
//! let embedder = OnnxEmbedder::open(Path::new("model.onnx"), OpenOptions::new(Preset::Imagenet))?;
//! let split = dataset::read_data(Path::new("images"), &dataset::FolderOptions::default())?;
//! let out = OutputDir::create(Path::new("report"), false)?;
//! let audit = Audit::new(&embedder, &split).epsilon(Epsilon::from_255(8.0)?);
//! let found = audit.attack(PgdConfig::default().check()?).run(&out, &Silent)?;
//! println!("{}", found.verdict);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod attack;
pub mod audit;
pub mod dataset;
pub mod device;
pub mod embedder;
pub mod embedding;
pub mod fit;
pub mod hash;
pub mod image;
mod layer;
pub mod out_of_range;
pub mod output;
pub mod progress;
pub mod quality;
pub mod report;
pub mod retrieval;
pub mod seed;

pub use burn;
pub use waylay_onnx as onnx;

/// What most programs need: `use waylay::prelude::*`.
pub mod prelude {
    pub use crate::attack::{
        Access, Attack, AttackError, Epsilon, Evade, Fgsm, Knowledge, Noise, Objective, Opposite, Pgd,
        PgdConfig, Scene, craft,
    };
    pub use crate::audit::{Audit, AuditReport, Context, GeneratorSource};
    pub use crate::dataset::{self, Split};
    pub use crate::device::Device;
    pub use crate::embedder::preprocess::{Preprocess, Preset};
    pub use crate::embedder::{Embedder, EmbedderError, embedder_fn, sample_embedder};
    pub use crate::embedder::{OnnxEmbedder, OpenOptions};
    pub use crate::embedding::{Embeddings, Metric};
    pub use crate::image::ImageBatch;
    pub use crate::output::OutputDir;
    pub use crate::progress::{Progress, Silent};
    pub use crate::quality;
    pub use crate::report;
    pub use crate::retrieval::{self, Relevance};
    pub use crate::seed::Seed;
}

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
