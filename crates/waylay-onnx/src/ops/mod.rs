//! The operators, one family per file. A new operator is a function in a family's file and a line
//! in its list. Source: <https://onnx.ai/onnx/operators/>. Invalid arguments make Burn panic: every
//! function checks before it calls.

mod activation;
mod arithmetic;
mod attention;
mod call;
mod conv;
mod einsum;
mod join;
mod layout;
mod logic;
mod matrix;
mod normalization;
mod pad;
mod pool;
mod quantize;
mod reduce;
mod resize;
mod scatter;
mod shape;
mod slice;
mod window;

use std::ops::RangeInclusive;

pub(super) use call::Call;
pub(super) use conv::conv_then;

use super::OnnxError;
use super::graph::{Graph, Node};
use super::value::Value;

/// What a node gives, or one sentence on why its arguments do not fit.
pub(super) type Outcome = Result<Vec<Value>, String>;

/// An operator: how many inputs it takes and what it does.
pub(super) struct Operator {
    pub name: &'static str,
    pub inputs: RangeInclusive<usize>,
    run: Run,
}

enum Run {
    /// Reads its inputs.
    Reading(fn(&Call<'_>) -> Outcome),
    /// Takes its inputs where it can, so as to overwrite buffers that are not shared.
    Taking(fn(&mut Call<'_>) -> Outcome),
}

impl Operator {
    /// What it gives for `call`, whose inputs may be gone afterwards.
    pub fn run(&self, call: &mut Call<'_>) -> Outcome {
        match self.run {
            Run::Reading(run) => run(call),
            Run::Taking(run) => run(call),
        }
    }
}

/// All operators.
const FAMILIES: [&[Operator]; 18] = [
    activation::LIST,
    arithmetic::LIST,
    attention::LIST,
    conv::LIST,
    einsum::LIST,
    join::LIST,
    layout::LIST,
    logic::LIST,
    matrix::LIST,
    normalization::LIST,
    pad::LIST,
    pool::LIST,
    quantize::LIST,
    reduce::LIST,
    resize::LIST,
    scatter::LIST,
    shape::LIST,
    slice::LIST,
];

/// The operator called `name`.
pub(super) fn find(name: &str) -> Option<&'static Operator> {
    FAMILIES.iter().flat_map(|family| family.iter()).find(|o| o.name == name)
}

/// Nodes whose operator is not in the list, with the operator.
pub(super) fn unsupported(graph: &Graph) -> impl Iterator<Item = &Node> {
    graph.nodes.iter().filter(|n| find(&n.operator).is_none())
}

/// An error for the first operator that is not in the list.
pub(super) fn require_supported(graph: &Graph) -> Result<(), OnnxError> {
    match unsupported(graph).next() {
        None => Ok(()),
        Some(node) => Err(OnnxError::Unsupported {
            node: node.name.clone(),
            operator: node.operator.clone(),
            opset: graph.opset,
            supported: names().join(", "),
        }),
    }
}

/// Whether `operator` is a function of one number that networks put between layers.
pub(super) fn is_activation(operator: &str) -> bool {
    activation::LIST.iter().any(|o| o.name == operator)
}

/// The names of all operators, sorted.
pub(super) fn names() -> Vec<&'static str> {
    let mut names: Vec<_> = FAMILIES.iter().flat_map(|family| family.iter().map(|o| o.name)).collect();
    names.sort_unstable();
    names
}

/// Multiplications that `operator` does; only the operators that dominate are counted.
pub(super) fn multiply_adds(operator: &str, inputs: &[Vec<usize>], outputs: &[Vec<usize>]) -> u64 {
    let size = |dims: &[usize]| dims.iter().fold(1u64, |p, &d| p.saturating_mul(d as u64));
    let (Some(output), Some(second)) = (outputs.first(), inputs.get(1)) else { return 0 };
    let per_output = match operator {
        "Conv" => size(second.get(1..).unwrap_or_default()),
        "ConvTranspose" => {
            // Every input element is multiplied by all filters of its group.
            let per_input = size(second.get(1..).unwrap_or_default());
            return size(inputs.first().map(|d| &d[..]).unwrap_or_default()).saturating_mul(per_input);
        }
        // Scores, and the sum of values by them.
        "Attention" => {
            let [q, k] = [0, 1].map(|i| inputs.get(i).map(|d| &d[..]).unwrap_or_default());
            let keys = k.get(k.len().saturating_sub(2)).copied().unwrap_or(0) as u64;
            return size(q).saturating_mul(keys).saturating_mul(2);
        }
        "MatMul" | "Gemm" => inputs.first().and_then(|d| d.last()).map_or(0, |&k| k as u64),
        _ => 0,
    };
    size(output).saturating_mul(per_output)
}

const fn op(name: &'static str, inputs: RangeInclusive<usize>, run: fn(&Call<'_>) -> Outcome) -> Operator {
    Operator { name, inputs, run: Run::Reading(run) }
}

/// An operator that takes its inputs.
const fn taking(
    name: &'static str,
    inputs: RangeInclusive<usize>,
    run: fn(&mut Call<'_>) -> Outcome,
) -> Operator {
    Operator { name, inputs, run: Run::Taking(run) }
}

/// One output.
fn one(value: impl Into<Value>) -> Outcome {
    Ok(vec![value.into()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_operator_is_listed_twice() {
        let names = names();
        assert!(names.windows(2).all(|w| w[0] != w[1]), "{names:?}");
    }
}
