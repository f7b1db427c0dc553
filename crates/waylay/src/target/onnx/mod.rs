//! Any network in an ONNX file as a [`Target`]: decoded, checked, folded, and run on Burn with gradients.
//!
//! ```text
//! bytes ─ proto ─► graph ─ fold ─► network ─ load ─► OnnxTarget
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
mod timing;
mod value;
mod verify;
pub mod write;

use std::path::Path;

use burn::tensor::{Device, Tensor};
use prost::Message;
use prost::bytes::Bytes;
use waylay_conv::MappedFile;

use super::preprocess::Preprocess;
use super::{Embeddings, Features, Tap, Target};
use crate::image::{ImageBatch, Resizing};
use crate::run::sha256;

pub use candidates::Candidate;
pub use conformance::{NodeTest, node_test};
pub use error::OnnxError;
pub use head::{Head, Pool, Whitening};
pub use inspect::{InspectOptions, Inspection, OperatorCount, Port, PresetRange, inspect, inspect_bytes};
pub use timing::{Timing, time};
pub use verify::{Difference, GRADIENT_FACTOR, TOLERANCE, Verification, verify};

/// Largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 2 << 30;
/// Images embedded at once.
const EMBED_BATCH: usize = 16;

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
}

impl OpenOptions {
    /// The file's first output, as it is.
    pub fn new(preprocess: impl Into<Preprocess>) -> Self {
        Self { preprocess: preprocess.into(), output: None, head: Head::default(), normalise_twice: false }
    }
}

/// A network from an ONNX file. Every dimension of its output but the first makes the embedding.
#[derive(Debug)]
pub struct OnnxTarget {
    name: String,
    fingerprint: String,
    preprocess: Preprocess,
    loaded: load::Loaded,
}

impl OnnxTarget {
    /// Opens the file at `path`. Weights in other files are looked for in its folder only.
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self, OnnxError> {
        Self::build(&file_name(path), read(path)?, path.parent(), options)
    }

    /// A network from bytes in memory, called `name`. Weights in other files are refused.
    pub fn from_bytes(name: &str, bytes: &[u8], options: OpenOptions) -> Result<Self, OnnxError> {
        Self::build(name, Bytes::copy_from_slice(bytes), None, options)
    }

    fn build(
        name: &str,
        bytes: Bytes,
        folder: Option<&Path>,
        options: OpenOptions,
    ) -> Result<Self, OnnxError> {
        let graph = decode(name, bytes.clone(), folder)?;
        let OpenOptions { preprocess, output, head, normalise_twice } = options;
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
        let fingerprint = fingerprint(&bytes, &preprocess, output.as_deref(), &head, &graph.external)?;
        let wanted = load::Wanted {
            output,
            size: preprocess.size,
            channels: preprocess.channels,
            layout: preprocess.layout,
            head,
        };
        let loaded = load::load(graph, &wanted)?;
        preprocess.check(loaded.input[0])?;
        Ok(Self { name: name.to_owned(), fingerprint, preprocess, loaded })
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

    fn check_size(&self, [_, c, h, w]: [usize; 4]) -> Result<(), OnnxError> {
        match [c, h, w] {
            found if found == self.loaded.input => Ok(()),
            found => Err(OnnxError::Pixels { expected: self.loaded.input, found }),
        }
    }
}

impl Target for OnnxTarget {
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

    fn dim(&self) -> usize {
        self.loaded.dim
    }

    fn taps(&self) -> &[Tap] {
        &self.loaded.taps
    }

    fn forward(&self, pixels: Tensor<4>) -> Result<Features, OnnxError> {
        self.check_size(pixels.dims())?;
        let (embedding, taps) = self.loaded.run(self.preprocess.apply(pixels), true)?;
        Ok(Features { embedding, taps })
    }

    fn embed(&self, images: &ImageBatch, device: &Device) -> Result<Embeddings, OnnxError> {
        self.check_size(images.shape())?;
        let device = device.clone().without_autodiff();
        let mut values = Vec::with_capacity(images.count() * self.dim());
        for part in images.chunks(EMBED_BATCH) {
            let input = self.preprocess.apply(part.to_tensor(&device));
            let (embedding, _) = self.loaded.run(input, false)?;
            values.extend(embedding.into_data().iter::<f32>());
        }
        Ok(Embeddings::new(self.dim(), values)?)
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// The file as it lies in the system's cache: weights are copied once, into the tensors that they become.
fn read(path: &Path) -> Result<Bytes, OnnxError> {
    let fail = |source| OnnxError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(fail)?;
    let size = file.metadata().map_err(fail)?.len();
    if size > MAX_FILE_BYTES {
        let reason = format!("{size} bytes; at most {MAX_FILE_BYTES} are read");
        return Err(OnnxError::Graph { name: file_name(path), reason });
    }
    Ok(Bytes::from_owner(MappedFile::whole(&file).map_err(fail)?))
}

fn decode(name: &str, bytes: Bytes, folder: Option<&Path>) -> Result<graph::Graph, OnnxError> {
    let length = bytes.len();
    let model = proto::ModelProto::decode(bytes).map_err(|source| OnnxError::Decode {
        name: name.to_owned(),
        bytes: length,
        source,
    })?;
    graph::Graph::build(model, name, folder)
}

/// Over the file and the weights beside it, everything in the preprocessing but its name, the output's name, and the
/// head with its file.
fn fingerprint(
    bytes: &[u8],
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
    let parts = std::iter::once(bytes).chain(matrix.as_deref()).chain([rest.as_bytes()]);
    Ok(sha256(parts))
}
