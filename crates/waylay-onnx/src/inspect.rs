//! What is in an ONNX file, whether it can be run or not.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::constant::Values;
use crate::graph::Graph;
use crate::load::load;
use crate::model::decode;
use crate::ops;
use crate::options::{ModelOptions, Tap};
use crate::source::{Source, file_name};
use crate::{Candidate, OnnxError, normalised};

/// An input or output of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its declared shape; none for an open dimension.
    pub shape: Vec<Option<usize>>,
}

/// How often an operator is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OperatorCount {
    /// The operator, with its domain where that is not ONNX's own.
    pub name: String,
    /// Nodes that use it.
    pub count: usize,
    /// Whether it can be run.
    pub supported: bool,
}

/// What [`inspect`] finds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// The file's name.
    pub name: String,
    /// The program that made it; may be empty.
    pub producer: String,
    /// Version of ONNX's operator set.
    pub opset: i64,
    /// The image.
    pub input: Port,
    /// Its channels: where the file leaves them open, those of the options, else 3.
    pub channels: usize,
    /// All outputs.
    pub outputs: Vec<Port>,
    /// Operators by name.
    pub operators: Vec<OperatorCount>,
    /// Floating-point numbers in its weights.
    pub parameters: u64,
    /// Multiplications per image in convolutions and matrix products; none where it cannot be run.
    pub multiply_adds: Option<u64>,
    /// Dimensions of the embedding from its first output; none where it cannot be run.
    pub dim: Option<usize>,
    /// Feature maps inside the network.
    pub taps: Vec<Tap>,
    /// The only batch size the graph takes; none where it takes any, or cannot be run.
    pub fixed_batch: Option<usize>,
    /// Tensors that can serve as the embedding, the first output first; one may be proposed in its
    /// place.
    pub candidates: Vec<Candidate>,
    /// What the graph does to the image before anything else, where that is a normalisation.
    pub normalises: Option<String>,
    /// Why it cannot be run.
    pub problem: Option<String>,
}

/// Describes the file at `path`. Only a file that is no
/// valid graph is an error: operators that are not supported are listed.
pub fn inspect(path: &Path, options: &ModelOptions) -> Result<Inspection, OnnxError> {
    describe(decode(&file_name(path), &Source::open(path)?)?, options)
}

/// As [`inspect`], for bytes in memory.
pub fn inspect_bytes(name: &str, bytes: &[u8], options: &ModelOptions) -> Result<Inspection, OnnxError> {
    describe(decode(name, &Source::memory(bytes))?, options)
}

fn describe(graph: Graph, options: &ModelOptions) -> Result<Inspection, OnnxError> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    graph.nodes.iter().for_each(|n| *counts.entry(&n.operator).or_default() += 1);
    let operators = counts.into_iter().map(|(name, count)| OperatorCount {
        name: name.to_owned(),
        count,
        supported: ops::find(name).is_some(),
    });
    let weights = graph.constants.values().filter(|c| matches!(c.values, Values::Float(_)));
    let outputs = graph.outputs.iter().zip(&graph.output_dims);
    let stated = match graph.input_dims[..] {
        [_, a, b, c] => options.layout.channels_first([a, b, c])[0],
        _ => None,
    };
    let mut inspection = Inspection {
        name: graph.file.clone(),
        producer: graph.producer.clone(),
        opset: graph.opset,
        input: Port { name: graph.names[graph.input].clone(), shape: graph.input_dims.clone() },
        channels: stated.or(options.channels).unwrap_or(3),
        outputs: outputs
            .map(|(&id, dims)| Port { name: graph.names[id].clone(), shape: dims.clone() })
            .collect(),
        operators: operators.collect(),
        parameters: weights.map(|c| c.len() as u64).sum(),
        multiply_adds: None,
        dim: None,
        taps: Vec::new(),
        fixed_batch: None,
        candidates: Vec::new(),
        normalises: normalised::find(&graph),
        problem: None,
    };
    match load(graph, options) {
        Ok(loaded) => {
            inspection.multiply_adds = Some(loaded.multiply_adds);
            inspection.dim = Some(loaded.dim);
            inspection.taps = loaded.taps;
            inspection.fixed_batch = loaded.fixed_batch;
            inspection.candidates = loaded.candidates;
        }
        Err(error) => inspection.problem = Some(error.to_string()),
    }
    Ok(inspection)
}
