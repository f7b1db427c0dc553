//! Networks in ONNX files as embedders: [`waylay_onnx`] runs them, the preprocessing stands in
//! front.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use thiserror::Error;
use waylay_onnx::{Head, Model, ModelOptions, OnnxError};

use super::preprocess::{Channels, Preprocess, PreprocessError};
use super::{Embedder, EmbedderError, Features, Tap};
use crate::image::Resizing;

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

/// Why an ONNX file cannot be an embedder.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file cannot be run.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// The preprocessing is unknown or does not fit the network.
    #[error("preprocessing")]
    Preprocess(#[from] PreprocessError),
    /// Preprocessing and graph would both normalise.
    #[error(
        "input of `{name}`: its graph normalises already: {found}; need preprocessing `none` (pixels of 0 to 1) or `raw-255` (0 to 255)"
    )]
    NormalisesTwice {
        /// The file.
        name: String,
        /// The node, and what it does.
        found: String,
    },
}

/// A network from an ONNX file. Every dimension of its output but the first makes the embedding.
///
/// ```no_run
/// use waylay::prelude::*;
///
/// let embedder = OnnxEmbedder::open("model.onnx".as_ref(), OpenOptions::new(Preset::Imagenet))?;
/// println!("{} dimensions, from pixels of {:?}", embedder.dim(), embedder.input());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct OnnxEmbedder {
    model: Model,
    fingerprint: String,
    preprocess: Preprocess,
}

impl OnnxEmbedder {
    /// Opens the file at `path`. Weights in other files are looked for in its folder only.
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self, OpenError> {
        Self::build(|model_options| Model::open(path, model_options), options)
    }

    /// A network from bytes in memory, called `name`. Weights in other files are refused.
    pub fn from_bytes(name: &str, bytes: &[u8], options: OpenOptions) -> Result<Self, OpenError> {
        Self::build(|model_options| Model::from_bytes(name, bytes, model_options), options)
    }

    fn build(
        open: impl FnOnce(ModelOptions) -> Result<Model, OnnxError>,
        options: OpenOptions,
    ) -> Result<Self, OpenError> {
        let OpenOptions { preprocess, output, head, normalise_twice, device } = options;
        let settings = settings(&preprocess, output.as_deref(), &head);
        let channels = (preprocess.channels == Channels::Gray).then_some(1);
        let model = open(ModelOptions {
            size: preprocess.size,
            channels,
            layout: preprocess.layout,
            output,
            head,
            device,
        })?;
        if let Some(found) = model.normalisation()
            && !normalise_twice
            && !(preprocess.mean.is_empty() && preprocess.std.is_empty())
        {
            return Err(OpenError::NormalisesTwice { name: model.name().into(), found: found.into() });
        }
        preprocess.check(model.input()[0])?;
        Ok(Self { fingerprint: model.fingerprint(&settings), model, preprocess })
    }

    /// Keeps nothing that convolutions make of their filters: that takes less memory, by as much as
    /// the constants take, and longer where images come one by one. For training, whose batches are
    /// large, and whose own networks need the memory.
    #[must_use]
    pub fn without_kept_filters(mut self) -> Self {
        self.model = self.model.without_kept_filters();
        self
    }

    /// The network, without the preprocessing.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// How pixels become the network's input; its `Display` is one line for people.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    fn check_size(&self, [_, c, h, w]: [usize; 4]) -> Result<(), EmbedderError> {
        match [c, h, w] {
            found if found == self.model.input() => Ok(()),
            found => Err(EmbedderError::Pixels { expected: self.model.input(), found }),
        }
    }
}

impl Embedder for OnnxEmbedder {
    fn name(&self) -> &str {
        self.model.name()
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn input(&self) -> [usize; 3] {
        self.model.input()
    }

    fn resizing(&self) -> Resizing {
        self.preprocess.resizing()
    }

    fn preprocessing(&self) -> String {
        self.preprocess.to_string()
    }

    fn device(&self) -> Device {
        self.model.device().clone()
    }

    fn dim(&self) -> usize {
        self.model.dim()
    }

    fn taps(&self) -> &[Tap] {
        self.model.taps()
    }

    fn embedding(&self, pixels: Tensor<4>) -> Result<Tensor<2>, EmbedderError> {
        self.check_size(pixels.dims())?;
        Ok(self.model.run(self.preprocess.apply(pixels))?)
    }

    fn forward(&self, pixels: Tensor<4>) -> Result<Features, EmbedderError> {
        self.check_size(pixels.dims())?;
        let (embedding, taps) = self.model.run_with_taps(self.preprocess.apply(pixels))?;
        Ok(Features { embedding, taps })
    }
}

/// All that decides the embedding and is not in a file, but for the preprocessing's name.
fn settings(preprocess: &Preprocess, output: Option<&str>, head: &Head) -> String {
    let Preprocess { name: _, size, channels, scale, mean, std, layout, .. } = preprocess;
    let mut text = format!("{size:?} {channels:?} {scale:?} {mean:?} {std:?} {layout:?} {output:?}");
    // Left out where it is the default, as all files before it had it.
    if preprocess.resizing() != Resizing::default() {
        text.push_str(&format!(" {:?}", preprocess.resizing()));
    }
    if let Some(pool) = head.pool {
        text.push_str(&format!(" {pool:?}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use waylay_onnx::{Layer, write};

    use super::*;
    use crate::embedder::preprocess::Preset;

    fn open(preset: Preset) -> OnnxEmbedder {
        let bytes = write([3, 4, 4], &[Layer::Relu, Layer::Flatten]);
        OnnxEmbedder::from_bytes("net", &bytes, OpenOptions::new(preset)).unwrap()
    }

    #[test]
    fn the_fingerprint_knows_the_preprocessing_but_not_its_name() {
        assert_ne!(open(Preset::None).fingerprint(), open(Preset::Raw255).fingerprint());
        assert_eq!(open(Preset::None).fingerprint(), open(Preset::ZeroToOne).fingerprint());
    }

    #[test]
    fn pixels_are_preprocessed_and_those_of_another_size_refused() {
        let pixels = |side| Tensor::<4>::full([1, 3, side, side], 0.5, &Device::flex());
        let embedding = open(Preset::Raw255).embedding(pixels(4)).unwrap();
        assert_eq!(embedding.into_data().iter::<f32>().collect::<Vec<_>>(), [127.5; 48]);
        let error = open(Preset::None).embedding(pixels(5)).unwrap_err();
        assert!(matches!(error, EmbedderError::Pixels { expected: [3, 4, 4], found: [3, 5, 5] }), "{error}");
    }
}
