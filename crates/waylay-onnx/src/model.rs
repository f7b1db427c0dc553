//! An opened file: its sizes are known, and it runs on batches of any size, with gradients where
//! the input is tracked.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::OnnxError;
use crate::build;
use crate::candidates::Candidate;
use crate::graph::Graph;
use crate::load::{Loaded, load};
use crate::normalised;
use crate::options::{ModelOptions, Tap};
use crate::proto::ModelProto;
use crate::source::{Source, file_name};

/// A network from an ONNX file, with one image as its input. Every dimension of its output but the
/// first makes the embedding.
///
/// ```no_run
/// use burn::tensor::{Device, Tensor};
/// use waylay_onnx::{Model, ModelOptions};
///
/// let model = Model::open("model.onnx".as_ref(), ModelOptions::default())?;
/// let [channels, height, width] = model.input();
/// let device = Device::flex().autodiff();
/// let x = Tensor::<4>::zeros([1, channels, height, width], &device).require_grad();
/// let gradients = model.run(x.clone())?.powi_scalar(2).sum().backward();
/// // Of the squared length of the embedding, with respect to the input.
/// let gradient = x.grad(&gradients);
/// # Ok::<(), waylay_onnx::OnnxError>(())
/// ```
#[derive(Debug)]
pub struct Model {
    name: String,
    /// Of the file and the head's.
    hash: Sha256,
    /// Digests of the weights that lie beside the file.
    external: Vec<String>,
    normalisation: Option<String>,
    loaded: Loaded,
}

impl Model {
    /// Opens the file at `path`. Weights in other files are looked for in its folder only.
    pub fn open(path: &Path, options: ModelOptions) -> Result<Self, OnnxError> {
        Self::build(&file_name(path), Source::open(path)?, options)
    }

    /// A network from bytes in memory, called `name`. Weights in other files are refused.
    pub fn from_bytes(name: &str, bytes: &[u8], options: ModelOptions) -> Result<Self, OnnxError> {
        Self::build(name, Source::memory(bytes), options)
    }

    fn build(name: &str, source: Source<'_>, options: ModelOptions) -> Result<Self, OnnxError> {
        let graph = decode(name, &source)?;
        let mut hash = Sha256::new();
        source.for_each_part(|part| hash.update(part));
        if let Some(path) = &options.head.whiten {
            let read = std::fs::read(path);
            hash.update(read.map_err(|source| OnnxError::Read { path: path.clone(), source })?);
        }
        let external = graph.external.clone();
        let normalisation = normalised::find(&graph);
        Ok(Self { name: name.to_owned(), hash, external, normalisation, loaded: load(graph, &options)? })
    }

    /// Keeps nothing that convolutions make of their filters: that takes less memory, by as much as
    /// the constants take, and longer where images come one by one. For training, whose batches are
    /// large, and whose own networks need the memory.
    #[must_use]
    pub fn without_kept_filters(mut self) -> Self {
        self.loaded.network.drop_prepared();
        self
    }

    /// The file's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256, in hexadecimal, of the file, the whitening matrix, `settings`, and the weights
    /// beside the file: whatever decides the embedding, where `settings` says all that is not in
    /// the files.
    pub fn fingerprint(&self, settings: &str) -> String {
        let mut hash = self.hash.clone();
        hash.update(settings);
        self.external.iter().for_each(|digest| hash.update(format!(" {digest}")));
        crate::hash::hexadecimal(hash)
    }

    /// Channels, height and width of the image, whatever the layout.
    pub fn input(&self) -> [usize; 3] {
        self.loaded.input
    }

    /// Shape of the input without the batch: `[C, H, W]`, or `[H, W, C]` with
    /// [`Layout::Nhwc`](crate::Layout::Nhwc).
    pub fn input_shape(&self) -> [usize; 3] {
        self.loaded.network_shape()
    }

    /// Dimensions of the embedding.
    pub fn dim(&self) -> usize {
        self.loaded.dim
    }

    /// Feature maps, from the largest size to the smallest: for each spatial size below the
    /// input's, up to four activations evenly spaced from the first to the last of that size, and
    /// the last map.
    pub fn taps(&self) -> &[Tap] {
        &self.loaded.taps
    }

    /// Where it runs, and its input must be.
    pub fn device(&self) -> &Device {
        self.loaded.network.device()
    }

    /// The only batch size that the graph takes, in which case larger batches are looped over; none
    /// where any size runs at once.
    pub fn fixed_batch(&self) -> Option<usize> {
        self.loaded.fixed_batch
    }

    /// Tensors that can serve as the embedding; one may be proposed in place of the first output.
    pub fn candidates(&self) -> &[Candidate] {
        &self.loaded.candidates
    }

    /// What the graph does to the image before anything else, where that is a normalisation: in
    /// words, with the node.
    pub fn normalisation(&self) -> Option<&str> {
        self.normalisation.as_deref()
    }

    /// Embeddings `[N, dim]` of an input `[N, ...]` as [`Self::input_shape`] states, of any batch
    /// size, already normalised as the network was trained with. Differentiable with respect to the
    /// input where that is tracked.
    pub fn run(&self, input: Tensor<4>) -> Result<Tensor<2>, OnnxError> {
        self.check(input.dims())?;
        Ok(self.loaded.run(input, false)?.0)
    }

    /// [`Self::run`], with the feature maps of [`Self::taps`], each `[N, C, H, W]`.
    pub fn run_with_taps(&self, input: Tensor<4>) -> Result<(Tensor<2>, Vec<Tensor<4>>), OnnxError> {
        self.check(input.dims())?;
        self.loaded.run(input, true)
    }

    fn check(&self, [_, a, b, c]: [usize; 4]) -> Result<(), OnnxError> {
        let expected = self.input_shape();
        if [a, b, c] == expected {
            return Ok(());
        }
        let reason =
            format!("shape [N, {a}, {b}, {c}]; need [N, {}, {}, {}]", expected[0], expected[1], expected[2]);
        Err(OnnxError::Input { name: self.name.clone(), reason })
    }
}

/// The checked graph in `source`.
pub(crate) fn decode(name: &str, source: &Source<'_>) -> Result<Graph, OnnxError> {
    let model = ModelProto::decode(source.bytes.clone()).map_err(|error| OnnxError::Decode {
        name: name.to_owned(),
        bytes: source.bytes.len(),
        source: error,
    })?;
    build::build(model, name, source)
}
