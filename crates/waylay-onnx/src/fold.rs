//! Graph optimisation, once, before it runs: identities are removed, constants folded, a
//! BatchNormalization behind a convolution becomes part of its weights, and dead nodes are dropped.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use burn::tensor::{Device, Tensor};

use crate::OnnxError;
use crate::constant::{Constant, Values};
use crate::graph::{Attribute, Graph, Id, Node};
use crate::ops::{self, Call};
use crate::recognise::recognise;
use crate::value::{Known, Value};

/// Folds `graph`, whose only output is then `output`.
pub(crate) fn fold(graph: &mut Graph, output: Id, device: &Device) -> Result<(), OnnxError> {
    graph.outputs = vec![output];
    drop_unused(graph);
    ops::require_supported(graph)?;
    remove_identities(graph);
    evaluate_constants(graph, device)?;
    fold_batch_norms(graph);
    recognise(graph);
    drop_unused(graph);
    Ok(())
}

/// Runs `call`'s node; the reason of a failure becomes an error that names the node. What is known
/// without an image stays known, and integers that an operator computed as floats become integers
/// again.
pub(crate) fn apply(node: &Node, mut call: Call<'_>) -> Result<Vec<Value>, OnnxError> {
    let fail = |reason| OnnxError::Node { node: node.name.clone(), operator: node.operator.clone(), reason };
    let operator = ops::find(&node.operator).ok_or_else(|| fail("the operator is not supported".into()))?;
    let known = call.all_known();
    let ints = call.constant(0).is_ok_and(|c| c.as_ints().is_some());
    let mut values = operator.run(&mut call).map_err(fail)?;
    if known {
        for value in &mut values {
            if let Value::Tensor(tensor) = value {
                let mut constant = tensor.clone().into_constant();
                if ints && let Values::Float(floats) = &constant.values {
                    constant.values = Values::Int(floats.iter().map(|&v| v as i64).collect());
                }
                *value = Value::known(constant);
            }
        }
    }
    Ok(values)
}

/// As [`apply`] for a convolution, with what follows it.
pub(crate) fn apply_then(
    node: &Node,
    call: Call<'_>,
    add: Option<Tensor<4>>,
    relu: bool,
) -> Result<Vec<Value>, OnnxError> {
    ops::conv_then(&call, add, relu).map_err(|reason| OnnxError::Node {
        node: node.name.clone(),
        operator: node.operator.clone(),
        reason,
    })
}

/// Whether the branches of `If` that `node` stands in are taken; none where a condition is not
/// known.
pub(crate) fn is_live<'v>(node: &Node, find: impl Fn(Id) -> Option<&'v Value>) -> Option<bool> {
    for &(id, wanted) in &node.guards {
        match find(id).and_then(Value::as_flag) {
            Some(found) if found == wanted => {}
            Some(_) => return Some(false),
            None => return None,
        }
    }
    Some(true)
}

/// Where the condition of an `If` is known, the outputs of the branch that is not taken are as good
/// as left out.
fn forget_dead_branch(node: &mut Node, known: &BTreeMap<Id, Value>) {
    let condition = node.inputs[0].and_then(|id| known.get(&id)).and_then(Value::as_flag);
    let half = node.inputs.len() / 2;
    match condition {
        Some(true) => node.inputs[1 + half..].fill(None),
        Some(false) => node.inputs[1..1 + half].fill(None),
        None => {}
    }
}

fn drop_unused(graph: &mut Graph) {
    let mut needed = vec![false; graph.names.len()];
    graph.outputs.iter().for_each(|&id| needed[id] = true);
    let mut kept: Vec<Node> = Vec::new();
    for node in std::mem::take(&mut graph.nodes).into_iter().rev() {
        if node.outputs.iter().flatten().any(|&id| needed[id]) {
            node.reads().for_each(|id| needed[id] = true);
            kept.push(node);
        }
    }
    kept.reverse();
    // An output that nobody reads (the mask of a Dropout, the running mean of a BatchNormalization)
    // is as good as left out.
    for node in &mut kept {
        for output in &mut node.outputs {
            *output = output.filter(|&id| needed[id]);
        }
    }
    graph.nodes = kept;
    graph.constants.retain(|&id, _| needed[id]);
}

/// Users of an Identity, or of a Dropout whose mask is not used, read its input instead.
fn remove_identities(graph: &mut Graph) {
    let mut alias: HashMap<Id, Id> = HashMap::new();
    let mut kept = Vec::with_capacity(graph.nodes.len());
    for mut node in std::mem::take(&mut graph.nodes) {
        for input in node.inputs.iter_mut().flatten() {
            *input = alias.get(input).copied().unwrap_or(*input);
        }
        for (guard, _) in &mut node.guards {
            *guard = alias.get(guard).copied().unwrap_or(*guard);
        }
        let silent = match node.operator.as_str() {
            _ if !node.guards.is_empty() => false,
            "Identity" => true,
            "Dropout" => node.inputs.get(2).copied().flatten().is_none(),
            _ => false,
        };
        match (silent, &node.inputs[..], &node.outputs[..]) {
            (true, [Some(from), ..], [Some(to)] | [Some(to), None]) => {
                alias.insert(*to, *from);
            }
            _ => kept.push(node),
        }
    }
    graph.nodes = kept;
    for output in &mut graph.outputs {
        *output = alias.get(output).copied().unwrap_or(*output);
    }
}

/// Computes every node whose inputs are all constants.
fn evaluate_constants(graph: &mut Graph, device: &Device) -> Result<(), OnnxError> {
    let constants = std::mem::take(&mut graph.constants);
    let mut known: BTreeMap<Id, Value> = constants.into_iter().map(|(id, c)| (id, Value::known(c))).collect();
    // How many nodes still read a value, and outputs are: what nobody reads any more goes at once.
    let mut readers: HashMap<Id, usize> = HashMap::new();
    let read = graph.nodes.iter().flat_map(Node::reads).chain(graph.outputs.iter().copied());
    read.for_each(|id| *readers.entry(id).or_default() += 1);
    let mut kept = Vec::with_capacity(graph.nodes.len());
    for mut node in std::mem::take(&mut graph.nodes) {
        let reads: Vec<Id> = node.reads().collect();
        if node.operator == "If" {
            forget_dead_branch(&mut node, &known);
        }
        match is_live(&node, |id| known.get(&id)) {
            Some(false) => continue,
            Some(true) if node.inputs.iter().flatten().all(|id| known.contains_key(id)) => {}
            _ => {
                kept.push(node);
                continue;
            }
        }
        let inputs = node.inputs.iter().map(|i| i.and_then(|id| known.get(&id).cloned())).collect();
        let call = Call { node: &node, opset: graph.opset, inputs, device, batch: 1, prepared: None };
        let values = apply(&node, call)?;
        for (id, value) in node.outputs.iter().zip(values) {
            if let Some(id) = *id {
                known.insert(id, value);
            }
        }
        for id in reads {
            let left = readers.entry(id).and_modify(|count| *count = count.saturating_sub(1)).or_default();
            if *left == 0 {
                known.remove(&id);
            }
        }
    }
    graph.nodes = kept;
    let unwrap =
        |known: Arc<Known>| Arc::try_unwrap(known).map_or_else(|k| k.constant.clone(), |k| k.constant);
    graph.constants = known
        .into_iter()
        .filter_map(|(id, value)| match value {
            Value::Known(known) => Some((id, unwrap(known))),
            Value::Tensor(_) => None,
        })
        .collect();
    Ok(())
}

/// Conv → BatchNormalization becomes Conv where no other node reads what is between them.
fn fold_batch_norms(graph: &mut Graph) {
    let mut uses: HashMap<Id, usize> = HashMap::new();
    let read = graph.nodes.iter().flat_map(|n| n.inputs.iter().flatten()).chain(&graph.outputs);
    read.for_each(|&id| *uses.entry(id).or_default() += 1);
    let mut makers: HashMap<Id, usize> = HashMap::new();
    for at in 0..graph.nodes.len() {
        let node = &graph.nodes[at];
        if node.operator == "BatchNormalization"
            && let Some(&[Some(x), ..]) = node.inputs.get(..)
            && uses.get(&x) == Some(&1)
            && let Some(&conv) = makers.get(&x)
            && let Some((weight, bias)) = folded(graph, &graph.nodes[conv], node)
        {
            let name = graph.nodes[conv].name.clone();
            let weight_id = graph.add_value(format!("{name}: weight with normalisation"));
            let bias_id = graph.add_value(format!("{name}: bias with normalisation"));
            graph.constants.insert(weight_id, weight);
            graph.constants.insert(bias_id, bias);
            let output = graph.nodes[at].outputs[0];
            let image = graph.nodes[conv].inputs[0];
            let before = graph.nodes[conv].inputs[1].filter(|id| uses.get(id) == Some(&1));
            before.and_then(|id| graph.constants.remove(&id));
            graph.nodes[conv].inputs = vec![image, Some(weight_id), Some(bias_id)];
            graph.nodes[conv].outputs = vec![output];
            // Without outputs the node is dropped.
            graph.nodes[at].outputs.clear();
        }
        let node = &graph.nodes[at];
        if node.operator == "Conv"
            && let Some(&Some(out)) = node.outputs.first()
        {
            makers.insert(out, at);
        }
    }
}

/// The weights and bias of `conv` with `norm` applied after it, computed in `f64`.
fn folded(graph: &Graph, conv: &Node, norm: &Node) -> Option<(Constant, Constant)> {
    let floats = |node: &Node, index: usize| {
        let id = (*node.inputs.get(index)?)?;
        let constant = graph.constants.get(&id)?;
        Some((constant.dims.clone(), constant.as_floats()?))
    };
    let (dims, weight) = floats(conv, 1)?;
    let filters = *dims.first()?;
    let vector = |node: &Node, index| floats(node, index).filter(|(d, _)| *d == [filters]).map(|(_, v)| v);
    let bias = match conv.inputs.get(2) {
        Some(Some(_)) => Some(vector(conv, 2)?),
        _ => None,
    };
    let (gamma, beta) = (vector(norm, 1)?, vector(norm, 2)?);
    let (mean, variance) = (vector(norm, 3)?, vector(norm, 4)?);
    let epsilon = match norm.attributes.get("epsilon") {
        Some(Attribute::Float(e)) => f64::from(*e),
        None => 1e-5,
        Some(_) => return None,
    };
    let plain =
        |name: &str, usual: i64| norm.attributes.get(name).is_none_or(|v| *v == Attribute::Int(usual));
    if filters == 0 || !plain("training_mode", 0) || !plain("spatial", 1) {
        return None;
    }
    let scale: Vec<f64> =
        gamma.iter().zip(variance).map(|(g, v)| f64::from(*g) / (f64::from(*v) + epsilon).sqrt()).collect();
    if scale.iter().any(|s| !s.is_finite()) {
        return None;
    }
    let width = weight.len() / filters;
    let weight =
        weight.iter().enumerate().map(|(i, w)| (f64::from(*w) * scale[i / width.max(1)]) as f32).collect();
    let shift = |i: usize| {
        let before = bias.map_or(0.0, |b| f64::from(b[i]));
        ((before - f64::from(mean[i])) * scale[i] + f64::from(beta[i])) as f32
    };
    let bias = Constant { dims: vec![filters], values: Values::Float((0..filters).map(shift).collect()) };
    Some((Constant { dims, values: Values::Float(weight) }, bias))
}
