//! Writes a plain chain of layers as an ONNX file (opset 13) that any ONNX tool opens.

use prost::Message;

use crate::proto::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};

/// ONNX's code for `float`.
const FLOAT: i32 = 1;
/// ONNX's codes for attribute types INT and INTS.
const INT: i32 = 2;
const INTS: i32 = 7;

/// A layer that takes the output of the one before.
#[derive(Clone, Debug)]
pub enum Layer {
    /// A square convolution with bias.
    Conv {
        /// Outputs, inputs, kernel height, kernel width.
        shape: [usize; 4],
        /// Weights, row-major.
        weight: Vec<f32>,
        /// One per output.
        bias: Vec<f32>,
        /// Step in both directions.
        stride: usize,
        /// Zeros on all four sides.
        padding: usize,
    },
    /// max(x, 0).
    Relu,
    /// The mean over each map: `[N, C, H, W]` → `[N, C, 1, 1]`.
    GlobalAveragePool,
    /// `[N, C, H, W]` → `[N, C·H·W]`.
    Flatten,
}

/// The file's bytes: input `pixels` `[N, C, H, W]` with `input` = C, H, W, output `embedding`.
pub fn write([channels, height, width]: [usize; 3], layers: &[Layer]) -> Vec<u8> {
    let mut graph = GraphProto {
        input: vec![value("pixels", &[None, Some(channels), Some(height), Some(width)])],
        ..GraphProto::default()
    };
    let mut dim = channels;
    let mut last = "pixels".to_owned();
    for (i, layer) in layers.iter().enumerate() {
        let output = if i + 1 == layers.len() { "embedding".into() } else { format!("value_{i}") };
        let mut node = NodeProto {
            input: vec![last],
            output: vec![output.clone()],
            name: Some(format!("node_{i}")),
            ..NodeProto::default()
        };
        match layer {
            Layer::Conv { shape, weight, bias, stride, padding } => {
                dim = shape[0];
                node.op_type = Some("Conv".into());
                for (name, dims, values) in [("weight", &shape[..], weight), ("bias", &shape[..1], bias)] {
                    let name = format!("{name}_{i}");
                    node.input.push(name.clone());
                    graph.initializer.push(tensor(name, dims, values));
                }
                node.attribute.push(ints("strides", &[*stride; 2]));
                node.attribute.push(ints("pads", &[*padding; 4]));
                node.attribute.push(ints("kernel_shape", &shape[2..]));
            }
            Layer::Relu => node.op_type = Some("Relu".into()),
            Layer::GlobalAveragePool => node.op_type = Some("GlobalAveragePool".into()),
            Layer::Flatten => {
                node.op_type = Some("Flatten".into());
                node.attribute.push(AttributeProto {
                    name: Some("axis".into()),
                    i: Some(1),
                    r#type: Some(INT),
                    ..AttributeProto::default()
                });
            }
        }
        graph.node.push(node);
        last = output;
    }
    graph.output = vec![value("embedding", &[None, Some(dim)])];
    let model = ModelProto {
        ir_version: Some(8),
        producer_name: Some("waylay".into()),
        producer_version: Some(env!("CARGO_PKG_VERSION").into()),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(13) }],
        ..ModelProto::default()
    };
    model.encode_to_vec()
}

fn tensor(name: String, dims: &[usize], values: &[f32]) -> TensorProto {
    TensorProto {
        name: Some(name),
        dims: dims.iter().map(|d| *d as i64).collect(),
        data_type: Some(FLOAT),
        raw_data: Some(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>().into()),
        ..TensorProto::default()
    }
}

fn ints(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        ints: values.iter().map(|v| *v as i64).collect(),
        r#type: Some(INTS),
        ..AttributeProto::default()
    }
}

fn value(name: &str, dims: &[Option<usize>]) -> ValueInfoProto {
    let dim = dims
        .iter()
        .map(|d| DimensionProto {
            dim_value: d.map(|d| d as i64),
            dim_param: d.is_none().then(|| "batch".to_owned()),
        })
        .collect();
    let tensor_type = TensorTypeProto { elem_type: Some(FLOAT), shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: Some(name.into()), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}
