//! ONNX's own tests of single operators, run here.

use std::collections::HashMap;

use burn::tensor::Device;
use prost::Message;

use crate::OnnxError;
use crate::build::build_with;
use crate::constant::{Constant, Values};
use crate::fold::{apply, is_live};
use crate::graph::Graph;
use crate::ops::{self, Call};
use crate::proto::{ModelProto, TensorProto};
use crate::source::Source;
use crate::value::{Ranked, Value};

/// What became of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeTest {
    /// All outputs agree.
    Passed {
        /// Whether the operator ran on tensors, with gradients; otherwise it takes only what is
        /// known without an image.
        on_image_path: bool,
    },
    /// An operator that is not in the list, so the test says nothing.
    Unsupported {
        /// Which.
        operator: String,
    },
    /// Numbers that no image network holds: text, complex numbers, floats of 8 bits or less,
    /// integers of 4 or less.
    OtherType,
    /// An output differs, or an error.
    Failed {
        /// How.
        reason: String,
    },
}

/// Runs `model` on `inputs` and compares with `outputs`, all messages of `onnx.proto`
/// (`ModelProto`, `TensorProto`): the layout of the backend tests of the package `onnx`. Outputs
/// agree where |a − b| ≤ `atol` + `rtol`·|b|.
pub fn node_test(model: &[u8], inputs: &[Vec<u8>], outputs: &[Vec<u8>], [rtol, atol]: [f32; 2]) -> NodeTest {
    match run(model, inputs, outputs, [rtol, atol]) {
        Ok(result) => result,
        Err(error) => NodeTest::Failed { reason: error.to_string() },
    }
}

fn run(
    model: &[u8],
    inputs: &[Vec<u8>],
    outputs: &[Vec<u8>],
    tolerance: [f32; 2],
) -> Result<NodeTest, OnnxError> {
    // Half precision is computed in `f32`, and so is off by what the expected result was rounded
    // by.
    let rounded = |t: &TensorProto| match t.data_type {
        Some(10) => 2f32.powi(-9),
        Some(16) => 2f32.powi(-7),
        _ => 0.0,
    };
    let failed = |reason: String| NodeTest::Failed { reason };
    let tensor = |bytes: &Vec<u8>| {
        TensorProto::decode(&bytes[..]).map_err(|source| OnnxError::Decode {
            name: "tensor".into(),
            bytes: bytes.len(),
            source,
        })
    };
    let given = inputs.iter().map(tensor).collect::<Result<Vec<_>, _>>()?;
    let wanted = outputs.iter().map(tensor).collect::<Result<Vec<_>, _>>()?;
    let plain = |t: &TensorProto| matches!(t.data_type, Some(1..=7 | 9..=13 | 16));
    if !given.iter().chain(&wanted).all(plain) {
        return Ok(NodeTest::OtherType);
    }
    let mut model = ModelProto::decode(model).map_err(|source| OnnxError::Decode {
        name: "model".into(),
        bytes: model.len(),
        source,
    })?;
    let nodes = model.graph.iter().flat_map(|g| &g.node);
    let foreign = |domain: &Option<String>| !matches!(domain.as_deref(), None | Some("" | "ai.onnx"));
    if let Some(node) = nodes.into_iter().find(|n| foreign(&n.domain)) {
        return Ok(NodeTest::Unsupported { operator: node.op_type.clone().unwrap_or_default() });
    }
    // The few tests from before the first operator set that is read are of operators that have not
    // changed.
    for set in &mut model.opset_import {
        set.version = set.version.map(|v| v.max(7));
    }
    let names: Vec<String> = given.iter().map(|t| t.name.clone().unwrap_or_default()).collect();
    // A graph without inputs has a constant to come all the same, that nobody asks for.
    let bound = if names.is_empty() { vec!["\0".to_owned()] } else { names.clone() };
    let graph = build_with(model, "model", &Source::default(), &bound)?;
    if let Some(node) = ops::unsupported(&graph).next() {
        return Ok(NodeTest::Unsupported { operator: node.operator.clone() });
    }
    let precision = wanted.iter().map(rounded).fold(0.0, f32::max);
    let tolerance = [tolerance[0].max(precision), tolerance[1].max(precision)];
    let constants = given.into_iter().map(Constant::decode_any).collect::<Result<Vec<_>, _>>()?;
    let wanted = wanted.into_iter().map(Constant::decode_any).collect::<Result<Vec<_>, _>>()?;
    // As on the image's path, as with weights that are known, and with all of it known.
    let mut reason = String::new();
    for tensors in [constants.len(), 1, 0] {
        let on_device = |(i, c): (usize, &Constant)| match &c.values {
            // What no tensor can be (of rank 7, or empty) stays a constant.
            Values::Float(floats) if i < tensors => {
                Ranked::new(&c.dims, floats.clone(), &Device::flex().autodiff())
                    .map_or_else(|_| Value::known(c.clone()), Value::from)
            }
            _ => Value::known(c.clone()),
        };
        let values = constants.iter().enumerate().map(on_device);
        let result = execute(&graph, names.iter().cloned().zip(values).collect());
        match result.map(|found| compare(&found, &wanted, tolerance)) {
            Ok(Ok(())) => return Ok(NodeTest::Passed { on_image_path: tensors > 0 }),
            Ok(Err(text)) => reason = text,
            Err(error) => reason = error.to_string(),
        }
        // The first reason is kept where it is a wrong number: that must not be hidden.
        if reason.starts_with("output") {
            return Ok(failed(reason));
        }
    }
    Ok(failed(reason))
}

fn execute(graph: &Graph, given: HashMap<String, Value>) -> Result<Vec<Constant>, OnnxError> {
    let device = Device::flex().autodiff();
    let mut values: Vec<Option<Value>> = vec![None; graph.names.len()];
    for (id, name) in graph.names.iter().enumerate() {
        values[id] = given.get(name).cloned();
    }
    for (&id, constant) in &graph.constants {
        values[id] = Some(Value::known(constant.clone()));
    }
    for node in &graph.nodes {
        if is_live(node, |id| values[id].as_ref()) == Some(false) {
            continue;
        }
        let inputs = node.inputs.iter().map(|i| i.and_then(|id| values[id].clone())).collect();
        let call = Call { node, opset: graph.opset, inputs, device: &device, batch: 1, prepared: None };
        for (id, value) in node.outputs.iter().zip(apply(node, call)?) {
            if let Some(id) = *id {
                values[id] = Some(value);
            }
        }
    }
    let missing = |id: usize| OnnxError::Output {
        name: "model".into(),
        reason: format!("`{}` was not made", graph.names[id]),
    };
    let constant = |&id: &usize| match &values[id] {
        Some(Value::Known(known)) => Ok(known.constant.clone()),
        Some(Value::Tensor(tensor)) => Ok(tensor.clone().into_constant()),
        None => Err(missing(id)),
    };
    graph.outputs.iter().map(constant).collect()
}

fn compare(found: &[Constant], wanted: &[Constant], [rtol, atol]: [f32; 2]) -> Result<(), String> {
    for (i, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        if found.dims != wanted.dims {
            return Err(format!("output {i}: shape {:?}; expected {:?}", found.dims, wanted.dims));
        }
        match (&found.values, &wanted.values) {
            (Values::Float(a), Values::Float(b)) => {
                let near = |(a, b): (&f32, &f32)| {
                    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= atol + rtol * b.abs()
                };
                if let Some(at) = a.iter().zip(b).position(|pair| !near(pair)) {
                    return Err(format!("output {i}: element {at} is {}; expected {}", a[at], b[at]));
                }
            }
            // On the image's path, truth values are the numbers 0 and 1.
            (Values::Float(a), Values::Bool(b))
                if a.iter().copied().eq(b.iter().map(|&b| f32::from(u8::from(b)))) => {}
            (a, b) if a == b => {}
            (a, b) => return Err(format!("output {i}: {}; expected {}", brief(a), brief(b))),
        }
    }
    Ok(())
}

fn brief(values: &Values) -> String {
    let text = format!("{values:?}");
    text.chars().take(120).collect()
}
