//! Any network in an ONNX file as an [`Embedder`]: decoded, checked, folded, and run on Burn with gradients.
//!
//! ```text
//! bytes ─ proto ─► graph ─ fold ─► network ─ load ─► OnnxEmbedder
//!         decode   check   once    run       sizes   pixels to embeddings
//! ```

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
mod head;
#[cfg(test)]
mod hostile;
mod inspect;
mod load;
mod network;
mod normalised;
mod ops;
mod proto;
mod recognise;
mod source;
mod timing;
mod value;
mod verify;
pub mod write;

use std::path::Path;

use burn::tensor::{Device, Tensor};
use prost::Message;

use super::preprocess::Preprocess;
use super::{Embedder, EmbedderError, Features, Tap};
use crate::image::Resizing;
use crate::run::Hash;

pub use candidates::Candidate;
pub use conformance::{NodeTest, node_test};
pub use error::OnnxError;
pub use head::{Head, Pool, Whitening};
pub use inspect::{InspectOptions, Inspection, OperatorCount, Port, PresetRange, inspect, inspect_bytes};
use source::Source;
pub use timing::{Timing, time};
pub use verify::{Difference, GRADIENT_FACTOR, TOLERANCE, Verification, verify};

/// What an ONNX file does not say.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenOptions {
    /// From pixels to the network's input.
    pub preprocess: Preprocess,
    /// The tensor that is the embedding, by name. Default: the file's first output.
    pub output: Option<String>,
    /// What comes behind that tensor. Default: nothing.
    pub head: Head,
    /// Normalise even where the graph begins by doing that itself. Default: that is an error.
    pub normalise_twice: bool,
    /// Where it runs. Default: the processor.
    pub device: Device,
}

impl OpenOptions {
    /// The file's first output, as it is.
    pub fn new(preprocess: impl Into<Preprocess>) -> Self {
        Self {
            preprocess: preprocess.into(),
            output: None,
            head: Head::default(),
            normalise_twice: false,
            device: Device::flex(),
        }
    }
}

/// A network from an ONNX file. Every dimension of its output but the first makes the embedding.
#[derive(Debug)]
pub struct OnnxEmbedder {
    name: String,
    fingerprint: String,
    preprocess: Preprocess,
    loaded: load::Loaded,
}

impl OnnxEmbedder {
    /// Opens the file at `path`. Weights in other files are looked for in its folder only.
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self, OnnxError> {
        Self::build(&file_name(path), Source::open(path)?, options)
    }

    /// A network from bytes in memory, called `name`. Weights in other files are refused.
    pub fn from_bytes(name: &str, bytes: &[u8], options: OpenOptions) -> Result<Self, OnnxError> {
        Self::build(name, Source::memory(bytes), options)
    }

    fn build(name: &str, source: Source<'_>, options: OpenOptions) -> Result<Self, OnnxError> {
        let graph = decode(name, &source)?;
        let OpenOptions { preprocess, output, head, normalise_twice, device } = options;
        if let Some(found) = normalised::find(&graph)
            && !normalise_twice
            && !(preprocess.mean.is_empty() && preprocess.std.is_empty())
        {
            let reason = format!(
                "its graph normalises already: node `{}` {}; choose --preprocess none (pixels of 0 to 1) or raw-255 (0 to \
                 255), or allow both with --normalise-twice",
                found.node, found.text
            );
            return Err(OnnxError::Input { name: name.to_owned(), reason });
        }
        let fingerprint = fingerprint(&source, &preprocess, output.as_deref(), &head, &graph.external)?;
        let wanted = load::Wanted {
            output,
            size: preprocess.size,
            channels: preprocess.channels,
            layout: preprocess.layout,
            head,
        };
        let loaded = load::load(graph, &wanted, &device)?;
        preprocess.check(loaded.input[0])?;
        Ok(Self { name: name.to_owned(), fingerprint, preprocess, loaded })
    }

    /// Keeps nothing that convolutions make of their filters: that takes less memory, by as much as the constants take, and longer where
    /// images come one by one. For training, whose batches are large, and whose own networks need the memory.
    #[must_use]
    pub fn without_kept_filters(mut self) -> Self {
        self.loaded.network.drop_prepared();
        self
    }

    /// How pixels become the network's input; its `Display` is one line for people.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// The only batch size that the file's graph takes, in which case larger batches are looped over; none where any
    /// size runs at once.
    pub fn fixed_batch(&self) -> Option<usize> {
        self.loaded.fixed_batch
    }

    /// Tensors that can serve as the embedding; one may be proposed in place of the first output.
    pub fn candidates(&self) -> &[Candidate] {
        &self.loaded.candidates
    }

    fn check_size(&self, [_, c, h, w]: [usize; 4]) -> Result<(), EmbedderError> {
        match [c, h, w] {
            found if found == self.loaded.input => Ok(()),
            found => Err(EmbedderError::Pixels { expected: self.loaded.input, found }),
        }
    }
}

impl Embedder for OnnxEmbedder {
    fn name(&self) -> &str {
        &self.name
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn input(&self) -> [usize; 3] {
        self.loaded.input
    }

    fn resizing(&self) -> Resizing {
        self.preprocess.resizing()
    }

    fn preprocessing(&self) -> String {
        self.preprocess.to_string()
    }

    fn device(&self) -> Device {
        self.loaded.network.device().clone()
    }

    fn dim(&self) -> usize {
        self.loaded.dim
    }

    fn taps(&self) -> &[Tap] {
        &self.loaded.taps
    }

    fn embedding(&self, pixels: Tensor<4>) -> Result<Tensor<2>, EmbedderError> {
        self.check_size(pixels.dims())?;
        Ok(self.loaded.run(self.preprocess.apply(pixels), false)?.0)
    }

    fn forward(&self, pixels: Tensor<4>) -> Result<Features, EmbedderError> {
        self.check_size(pixels.dims())?;
        let (embedding, taps) = self.loaded.run(self.preprocess.apply(pixels), true)?;
        Ok(Features { embedding, taps })
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn decode(name: &str, source: &Source<'_>) -> Result<graph::Graph, OnnxError> {
    let model = proto::ModelProto::decode(source.bytes.clone()).map_err(|error| OnnxError::Decode {
        name: name.to_owned(),
        bytes: source.bytes.len(),
        source: error,
    })?;
    graph::Graph::build(model, name, source)
}

/// Over the file and the weights beside it, everything in the preprocessing but its name, the output's name, and the
/// head with its file.
fn fingerprint(
    source: &Source<'_>,
    preprocess: &Preprocess,
    output: Option<&str>,
    head: &Head,
    external: &[String],
) -> Result<String, OnnxError> {
    let Preprocess { name: _, size, channels, scale, mean, std, layout, .. } = preprocess;
    let mut rest = format!("{size:?} {channels:?} {scale:?} {mean:?} {std:?} {layout:?} {output:?}");
    // Left out where it is the default, as all files before it had it.
    if preprocess.resizing() != Resizing::default() {
        rest.push_str(&format!(" {:?}", preprocess.resizing()));
    }
    let mut matrix = None;
    if let Some(pool) = head.pool {
        rest.push_str(&format!(" {pool:?}"));
    }
    if let Some(path) = &head.whiten {
        let read = std::fs::read(path);
        matrix = Some(read.map_err(|source| OnnxError::Read { path: path.clone(), source })?);
    }
    external.iter().for_each(|digest| rest.push_str(&format!(" {digest}")));
    let mut hash = Hash::default();
    source.for_each_part(|part| hash.update(part));
    matrix.as_deref().into_iter().chain([rest.as_bytes()]).for_each(|part| hash.update(part));
    Ok(hash.finish())
}
