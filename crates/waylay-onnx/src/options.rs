//! What a file leaves open, and what is known of a network once it is open.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::head::Head;

/// Order of the dimensions of the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Batch, channels, height, width.
    #[default]
    Nchw,
    /// Batch, height, width, channels.
    Nhwc,
}

impl Layout {
    /// Channels, height and width of an input whose dimensions behind the batch are `dims`.
    pub fn channels_first<T>(self, [a, b, c]: [T; 3]) -> [T; 3] {
        match self {
            Self::Nchw => [a, b, c],
            Self::Nhwc => [c, a, b],
        }
    }
}

/// A feature map inside the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tap {
    /// The tensor's name in the file.
    pub name: String,
    /// Channels, height, width.
    pub size: [usize; 3],
}

/// What an ONNX file does not say, or leaves open.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelOptions {
    /// Height and width, for a file that leaves them open; an error where it states others.
    /// Default: the file's own.
    pub size: Option<[usize; 2]>,
    /// Channels, 1 or 3, for a file that leaves them open. Default: 3.
    pub channels: Option<usize>,
    /// Order of the dimensions of the input. Default: NCHW.
    pub layout: Layout,
    /// The tensor that is the embedding, by name. Default: the file's first output.
    pub output: Option<String>,
    /// What comes behind that tensor. Default: nothing.
    pub head: Head,
    /// Where it runs. Default: the processor.
    pub device: Device,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            size: None,
            channels: None,
            layout: Layout::default(),
            output: None,
            head: Head::default(),
            device: Device::flex(),
        }
    }
}
