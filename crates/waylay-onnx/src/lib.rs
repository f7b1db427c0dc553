//! Any image network in an ONNX file, run on [Burn](burn) and differentiable with respect to its
//! input: decoded, checked, folded, fused, and computed by the kernels of [`waylay_conv`].
//!
//! ```text
//! bytes ─ proto ─► build ─► graph ─ fold ─► network ─ load ─► Model
//!         decode   check             once    run       sizes   input to embedding
//! ```
//!
//! [`Model`] is a file that can be run. [`inspect()`] says what is in one, also where it cannot be
//! run; [`verify()`] compares values and gradients with arrays that another framework computed;
//! [`time`] says how long it takes; [`write()`] makes a file of a plain chain of layers. Everything
//! a file can get wrong ends in an [`OnnxError`], never in a panic.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use waylay_onnx::{Layer, Model, ModelOptions, write};
//!
//! let bytes = write([3, 8, 8], &[Layer::Relu, Layer::GlobalAveragePool, Layer::Flatten]);
//! let model = Model::from_bytes("mean", &bytes, ModelOptions::default())?;
//! let x = Tensor::<4>::ones([2, 3, 8, 8], &Device::flex().autodiff()).require_grad();
//! let embedding = model.run(x.clone())?;
//! assert_eq!(embedding.dims(), [2, 3]);
//! let gradient = x.grad(&embedding.sum().backward()).expect("the input is tracked");
//! assert_eq!(gradient.dims(), [2, 3, 8, 8]);
//! # Ok::<(), waylay_onnx::OnnxError>(())
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod build;
mod candidates;
mod conformance;
mod constant;
mod error;
mod fold;
mod functions;
mod fuse;
#[cfg(test)]
mod fuzz;
mod graph;
mod hash;
mod head;
#[cfg(test)]
mod hostile;
mod inspect;
mod load;
mod model;
mod network;
mod normalised;
mod ops;
mod options;
mod proto;
mod recognise;
mod source;
mod timing;
mod trace;
mod value;
mod verify;
mod write;

pub use burn;

pub use candidates::Candidate;
pub use conformance::{NodeTest, node_test};
pub use error::OnnxError;
pub use head::{Head, Pool, Whitening};
pub use inspect::{Inspection, OperatorCount, Port, inspect, inspect_bytes};
pub use model::Model;
pub use options::{Layout, ModelOptions, Tap};
pub use timing::{Timing, time};
pub use verify::{Difference, GRADIENT_FACTOR, TOLERANCE, Verification, verify};
pub use write::{Layer, write};

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
