//! Which tensors of a graph can serve as the embedding, and which one should where the output is a
//! classifier's.

use serde::Serialize;

use crate::graph::{Graph, Id, Node};
use crate::trace::Trace;

/// Class counts of well-known data sets: CIFAR, Places, ImageNet, ImageNet with background,
/// ImageNet-12k, -21k.
const CLASS_COUNTS: [usize; 10] = [10, 100, 200, 365, 1000, 1001, 11_221, 11_821, 21_841, 21_843];

/// A tensor that can be the embedding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Its shape without the batch.
    pub shape: Vec<usize>,
    /// What it is.
    pub what: String,
    /// Whether it is a map or tokens, which need a [`Pool`](crate::Pool) behind them.
    pub needs_pooling: bool,
    /// Whether it should be taken in place of the first output, which looks like a classifier's.
    pub proposed: bool,
}

/// Operators behind a classifier's product that change no ranking, and those between its features
/// and it.
const BEHIND: [&str; 7] = ["Softmax", "LogSoftmax", "Identity", "Reshape", "Flatten", "Squeeze", "Dropout"];

/// Candidates of a graph whose output is `output`, by the shapes that a dry run met.
pub(crate) fn find(
    graph: &Graph,
    output: Id,
    trace: &Trace,
    is_weight: impl Fn(Id) -> bool,
) -> Vec<Candidate> {
    let shape = |id: Id| trace.shapes.iter().find(|s| s.0 == id).map(|s| s.1[1..].to_vec());
    let maker = |id: Id| graph.nodes.iter().find(|n| n.outputs.contains(&Some(id)));
    let mut found: Vec<Candidate> = Vec::new();
    let mut add = |id: Id, what: &str, needs_pooling: bool, proposed: bool| {
        let Some(shape) = shape(id) else { return };
        match found.iter_mut().find(|c| c.name == graph.names[id]) {
            Some(known) => known.proposed |= proposed,
            None => {
                let name = graph.names[id].clone();
                found.push(Candidate { name, shape, what: what.into(), needs_pooling, proposed })
            }
        }
    };
    add(output, "the output", false, false);
    // Back from the output to the last product with weights.
    let (mut at, mut softmax, mut spatial) = (output, false, false);
    let last = loop {
        let Some(node) = maker(at) else { break None };
        let Some(data) = data_input(node, &is_weight) else { break None };
        let dense = matches!(node.operator.as_str(), "Gemm" | "MatMul");
        if dense || (node.operator == "Conv" && spatial) {
            break Some((node, data));
        }
        softmax |= node.operator.contains("Softmax");
        let pooling = matches!(node.operator.as_str(), "GlobalAveragePool" | "ReduceMean" | "AveragePool");
        spatial |= pooling;
        let bias = node.operator == "Add" && node.inputs.iter().flatten().any(|&id| is_weight(id));
        let activation = spatial && node.operator == "Relu";
        if !(BEHIND.contains(&node.operator.as_str()) || pooling || bias || activation) {
            break None;
        }
        at = data;
    };
    if let Some((node, data)) = last {
        let width = shape(output).map(|s| s.iter().product::<usize>()).unwrap_or(0);
        let classifier = softmax || CLASS_COUNTS.contains(&width);
        let what = format!("what the last {} takes: the penultimate layer", node.operator);
        add(data, &what, false, classifier);
    }
    // The last maps over the image, and the last tokens.
    let tensors = || trace.shapes.iter().rev();
    if let Some((id, _)) =
        tensors().find(|(id, d)| d.len() == 4 && d[2] > 1 && d[3] > 1 && trace.maps.contains(id))
    {
        add(*id, "the last spatial map", true, false);
    }
    if let Some((id, _)) = tensors().find(|(_, d)| d.len() == 3 && d[1] > 1 && d[2] >= 16) {
        add(*id, "the last sequence of tokens", true, false);
    }
    found
}

/// The one input of `node` that depends on the image, where there is one.
fn data_input(node: &Node, is_weight: &impl Fn(Id) -> bool) -> Option<Id> {
    let mut data = node.inputs.iter().flatten().copied().filter(|&id| !is_weight(id));
    match (data.next(), data.next()) {
        (Some(id), None) => Some(id),
        _ => None,
    }
}
