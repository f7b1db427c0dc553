//! What can be wrong with an ONNX file, or with what it is asked to do.

use std::path::PathBuf;

use thiserror::Error;

/// Why a network could not be opened or run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// The file could not be read.
    #[error("read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bytes are not an ONNX model.
    #[error("`{name}` is not a complete ONNX file ({bytes} bytes)")]
    Decode {
        /// The file's name.
        name: String,
        /// Its length.
        bytes: usize,
        /// Where decoding stopped.
        source: prost::DecodeError,
    },
    /// The file decodes, but what it describes is not a valid graph.
    #[error("`{name}` is not a valid network: {reason}")]
    Graph {
        /// The file's name.
        name: String,
        /// What is wrong, with names and numbers.
        reason: String,
    },
    /// A constant cannot be used.
    #[error("tensor `{tensor}`: {reason}")]
    Tensor {
        /// The constant's name.
        tensor: String,
        /// What is wrong, with numbers.
        reason: String,
    },
    /// An operator that is not in the list.
    #[error("node `{node}`: operator {operator} (opset {opset}) is not supported; supported: {supported}")]
    Unsupported {
        /// The node's name.
        node: String,
        /// The operator, with its domain where that is not ONNX's own.
        operator: String,
        /// The version of the operator set that the file asks for.
        opset: i64,
        /// All operators that are supported.
        supported: String,
    },
    /// A node's inputs or attributes do not fit its operator.
    #[error("node `{node}` ({operator}): {reason}")]
    Node {
        /// The node's name.
        node: String,
        /// The operator.
        operator: String,
        /// What is wrong, with numbers.
        reason: String,
    },
    /// The network's input is not an image.
    #[error("input of `{name}`: {reason}")]
    Input {
        /// The file's name.
        name: String,
        /// What is wrong, with numbers.
        reason: String,
    },
    /// The tensor that should be the embedding cannot be one.
    #[error("output of `{name}`: {reason}")]
    Output {
        /// The file's name.
        name: String,
        /// What is wrong, with numbers.
        reason: String,
    },
    /// The file of reference arrays cannot be used.
    #[error("reference `{}`: {reason}", path.display())]
    Reference {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}
