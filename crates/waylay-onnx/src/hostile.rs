//! Files that are broken, by accident or on purpose: an error, never a panic, and soon.

use std::time::{Duration, Instant};

use prost::Message;
use prost::bytes::Bytes;

use crate::proto::*;
use crate::{Model, ModelOptions, OnnxError, inspect_bytes};

const FACE: &[u8] = include_bytes!("../tests/golden/onnx/face.legacy9_static.onnx");
const MIXTURES: [&[u8]; 3] = [
    include_bytes!("../tests/golden/onnx/mixture.legacy12.onnx"),
    include_bytes!("../tests/golden/onnx/mixture.legacy18.onnx"),
    include_bytes!("../tests/golden/onnx/mixture.dynamo.onnx"),
];
const UNFOLDED: &[u8] = include_bytes!("../tests/golden/onnx/mobilenet.legacy17_unfolded.onnx");

fn open(bytes: &[u8]) -> Result<Model, OnnxError> {
    Model::from_bytes("net.onnx", bytes, ModelOptions::default())
}

/// Opens the bytes, to a network or an error, within a few seconds.
fn survive(bytes: &[u8], what: impl Fn() -> String) -> bool {
    let start = Instant::now();
    let opened =
        std::panic::catch_unwind(|| open(bytes).is_ok()).unwrap_or_else(|_| panic!("panic at {}", what()));
    assert!(start.elapsed() < Duration::from_secs(5), "{}: {:?}", what(), start.elapsed());
    opened
}

/// The error of the smallest network, changed by `change`.
fn broken(change: impl FnOnce(&mut ModelProto)) -> String {
    let mut model = relu();
    change(&mut model);
    open(&model.encode_to_vec()).unwrap_err().to_string()
}

/// Puts `value` in the place of eight bytes from `at` on.
pub(crate) fn overwrite(raw: &mut Bytes, at: usize, value: i64) {
    let mut bytes = raw.to_vec();
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    *raw = bytes.into();
}

pub(crate) fn relu() -> ModelProto {
    ModelProto {
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(17) }],
        graph: Some(GraphProto {
            node: vec![node("Relu", &["x"], "y")],
            input: vec![value("x", &[1, 3, 4, 4])],
            output: vec![value("y", &[])],
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(crate) fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: Some(operator.into()),
        name: Some(format!("{operator}_0")),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: vec![output.into()],
        ..Default::default()
    }
}

pub(crate) fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = dims.iter().map(|&d| DimensionProto { dim_value: Some(d), dim_param: None }).collect();
    let tensor = TensorTypeProto { elem_type: Some(1), shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: Some(name.into()), r#type: Some(TypeProto { tensor_type: Some(tensor) }) }
}

pub(crate) fn weight(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        dims: dims.to_vec(),
        data_type: Some(1),
        float_data: values.to_vec(),
        ..Default::default()
    }
}

pub(crate) fn graph(model: &mut ModelProto) -> &mut GraphProto {
    model.graph.as_mut().unwrap()
}

#[test]
fn the_smallest_network_runs() {
    let model = open(&relu().encode_to_vec()).unwrap();
    assert_eq!((model.dim(), model.input()), (48, [3, 4, 4]));
}

#[test]
fn every_truncation_is_an_error() {
    assert!(open(&[]).unwrap_err().to_string().contains("names no operator set"));
    for length in (0..FACE.len()).step_by(97).chain(FACE.len() - 64..FACE.len()) {
        assert!(!survive(&FACE[..length], || format!("{length} bytes")), "{length} bytes were enough");
    }
}

#[test]
fn flipped_bits_never_panic() {
    for (which, original) in MIXTURES.iter().enumerate() {
        for flip in 0..200usize {
            let (byte, bit) = (flip * 7919 % original.len(), flip % 8);
            let mut bytes = original.to_vec();
            bytes[byte] ^= 1 << bit;
            survive(&bytes, || format!("mixture {which}, byte {byte}, bit {bit}"));
        }
    }
}

#[test]
fn absurd_numbers_never_panic() {
    const ABSURD: [i64; 4] = [0, -1, 4_096, i64::MAX];
    for (which, original) in [MIXTURES[1], UNFOLDED].into_iter().enumerate() {
        let model = ModelProto::decode(original).unwrap();
        for (at, node) in model.graph.as_ref().unwrap().node.iter().enumerate() {
            for (slot, absurd) in (0..node.attribute.len()).flat_map(|slot| ABSURD.map(|v| (slot, v))) {
                for position in (0..node.attribute[slot].ints.len().max(1)).step_by(3) {
                    let mut model = model.clone();
                    let attribute = &mut graph(&mut model).node[at].attribute[slot];
                    attribute.i = attribute.i.map(|_| absurd);
                    attribute.f = attribute.f.map(|_| absurd as f32);
                    if let Some(v) = attribute.ints.get_mut(position) {
                        *v = absurd;
                    }
                    if let Some(raw) =
                        attribute.t.as_mut().and_then(|t| t.raw_data.as_mut()).filter(|r| r.len() >= 8)
                    {
                        overwrite(raw, 0, absurd);
                    }
                    let what = || {
                        format!("file {which}, {:?}: {:?} = {absurd}", node.name, node.attribute[slot].name)
                    };
                    survive(&model.encode_to_vec(), what);
                }
            }
        }
        for at in 0..model.graph.as_ref().unwrap().initializer.len() {
            for absurd in ABSURD {
                let mut model = model.clone();
                let tensor = &mut graph(&mut model).initializer[at];
                if tensor.data_type == Some(7) {
                    overwrite(tensor.raw_data.as_mut().unwrap(), 0, absurd);
                } else {
                    tensor.dims.insert(0, 1);
                }
                let name = tensor.name.clone();
                survive(&model.encode_to_vec(), || format!("file {which}, tensor {name:?}: {absurd}"));
            }
        }
    }
}

#[test]
fn inputs_swapped_between_nodes_never_panic() {
    for (which, original) in MIXTURES[1..].iter().enumerate() {
        let model = ModelProto::decode(*original).unwrap();
        let nodes = model.graph.as_ref().unwrap().node.clone();
        let values: Vec<String> = nodes.iter().flat_map(|n| n.input.iter().cloned()).collect();
        for (at, other) in (0..nodes.len()).flat_map(|at| values.iter().step_by(7).map(move |v| (at, v))) {
            for slot in 0..nodes[at].input.len() {
                let mut model = model.clone();
                graph(&mut model).node[at].input[slot] = other.clone();
                survive(&model.encode_to_vec(), || {
                    format!("file {which}, {:?}: input {slot} = {other}", nodes[at].name)
                });
            }
        }
    }
}

#[test]
fn an_unknown_operator_is_named_with_node_opset_and_the_list() {
    let change = |m: &mut ModelProto| graph(m).node[0].op_type = Some("Swirl".into());
    let error = broken(change);
    assert!(
        error.starts_with("node `Relu_0`: operator Swirl (opset 17) is not supported; supported: Abs, Add"),
        "{error}"
    );
    let mut model = relu();
    change(&mut model);
    let found = inspect_bytes("net.onnx", &model.encode_to_vec(), &ModelOptions::default()).unwrap();
    assert!(!found.operators[0].supported && found.problem.unwrap().contains("Swirl"));
    let domain = broken(|m| graph(m).node[0].domain = Some("com.example".into()));
    assert!(domain.contains("com.example::Relu"), "{domain}");
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    for dims in
        [vec![1, 3, -4, 4], vec![1, 3, 0, 4], vec![1, 3, i64::MAX, 4], vec![1, 7, 4, 4], vec![1, 3, 4]]
    {
        let error = broken(|m| graph(m).input[0] = value("x", &dims));
        assert!(error.starts_with("input of `net.onnx`"), "{error}");
    }
    for dims in [vec![-1], vec![i64::MAX, i64::MAX], vec![1 << 40], vec![1; 9], vec![3]] {
        let error = broken(|m| graph(m).initializer.push(weight("w", &dims, &[1.0])));
        assert!(error.starts_with("tensor `w`"), "{error}");
    }
}

#[test]
fn a_graph_must_be_in_order_complete_and_without_double_names() {
    let cycle = broken(|m| graph(m).node[0].input[0] = "y".into());
    assert!(cycle.contains("input `y` is not made by anything before it"), "{cycle}");
    let missing = broken(|m| graph(m).node[0].input[0] = "z".into());
    assert!(missing.contains("input `z` is not made"), "{missing}");
    let double = broken(|m| graph(m).node.push(node("Relu", &["x"], "y")));
    assert!(double.contains("value `y` is made twice"), "{double}");
    let arity = broken(|m| graph(m).node[0].input.push("x".into()));
    assert!(arity.contains("2 inputs; need 1 to 1"), "{arity}");
    let output = broken(|m| graph(m).output[0] = value("q", &[]));
    assert!(output.contains("no node makes its output `q`"), "{output}");
    let inputs = broken(|m| graph(m).input.push(value("x2", &[1, 3, 4, 4])));
    assert!(inputs.contains("2 inputs [\"x\", \"x2\"]; need exactly one image"), "{inputs}");
}

#[test]
fn weights_must_be_numbers() {
    for bad in [f32::NAN, f32::INFINITY] {
        let error = broken(|m| graph(m).initializer.push(weight("w", &[2], &[1.0, bad])));
        assert!(error.contains("element 1 is") && error.contains("must be finite"), "{error}");
    }
}

#[test]
fn weights_outside_the_folder_are_refused() {
    let error = broken(|m| {
        let location = StringStringEntryProto { key: Some("location".into()), value: Some("../x".into()) };
        let mut tensor = weight("w", &[1], &[]);
        tensor.data_location = Some(1);
        tensor.external_data = vec![location];
        graph(m).initializer.push(tensor);
    });
    assert!(error.contains("`../x`; only files in the model's own folder"), "{error}");
}

#[test]
fn an_output_that_ignores_the_image_is_refused() {
    let error = broken(|m| {
        graph(m).initializer.push(weight("w", &[1, 2], &[1.0, 2.0]));
        graph(m).node[0].input[0] = "w".into();
    });
    assert!(error.contains("does not depend on the image"), "{error}");
}

#[test]
fn attributes_that_nest_without_end_are_refused() {
    let mut inner = GraphProto::default();
    for _ in 0..200 {
        let attribute =
            AttributeProto { name: Some("g".into()), g: Some(inner), r#type: Some(5), ..Default::default() };
        inner = GraphProto {
            node: vec![NodeProto { attribute: vec![attribute], ..Default::default() }],
            ..Default::default()
        };
    }
    let error = broken(|m| m.graph = Some(inner));
    assert!(error.contains("not a complete ONNX file"), "{error}");
}

#[test]
fn windows_that_take_for_ever_are_refused() {
    let ints = |name: &str, values: &[i64]| AttributeProto {
        name: Some(name.into()),
        ints: values.to_vec(),
        r#type: Some(7),
        ..Default::default()
    };
    for operator in ["LpPool", "AveragePool", "MaxPool"] {
        let start = Instant::now();
        let error = broken(|m| {
            graph(m).node[0] = NodeProto {
                attribute: vec![ints("kernel_shape", &[2, 65_536]), ints("pads", &[100, 65_536, 100, 0])],
                ..node(operator, &["x"], "y")
            };
        });
        assert!(error.contains(operator) && error.contains("multiplications"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(1), "{operator}: {:?}", start.elapsed());
    }
}

#[test]
fn exponents_that_no_integer_holds_are_refused() {
    let error = broken(|m| {
        let attribute = |name: &str| AttributeProto { name: Some(name.into()), ..Default::default() };
        graph(m).node[0] = NodeProto {
            attribute: vec![
                AttributeProto { i: Some(3), r#type: Some(2), ..attribute("size") },
                AttributeProto { f: Some(1e30), r#type: Some(1), ..attribute("beta") },
            ],
            ..node("LRN", &["x"], "y")
        };
    });
    assert!(error.contains("LRN_0") && error.contains("an exponent of 1e30"), "{error}");
}
