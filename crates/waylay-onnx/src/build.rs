//! From a decoded file to a checked graph: whatever a file can get wrong without being run is
//! refused here, such as order, cycles, duplicate names, types and sizes.

use std::collections::{BTreeMap, HashMap};

use crate::OnnxError;
use crate::constant::{Constant, MAX_CONSTANT_BYTES, Values};
use crate::functions;
use crate::graph::{Attribute, Graph, Guard, Id, Node};
use crate::ops;
use crate::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use crate::source::Source;

/// Most nodes a graph may have, functions inlined.
const MAX_NODES: usize = 100_000;
/// Deepest nesting of branches.
const MAX_BRANCHES: usize = 8;
/// Operator sets that are understood.
const OPSETS: std::ops::RangeInclusive<i64> = 7..=99;

/// Checks `model`, decoded from `source`; `file` is its name for people.
pub(crate) fn build(model: ModelProto, file: &str, source: &Source<'_>) -> Result<Graph, OnnxError> {
    build_with(model, file, source, &[])
}

/// As [`build`], with the inputs called `bound` taken as constants to come; if any are named, there
/// need be no image.
pub(crate) fn build_with(
    model: ModelProto,
    file: &str,
    source: &Source<'_>,
    bound: &[String],
) -> Result<Graph, OnnxError> {
    let invalid = |reason: String| OnnxError::Graph { name: file.to_owned(), reason };
    let opset = opset(&model).map_err(invalid)?;
    let mut graph = model.graph.ok_or_else(|| invalid("it holds no graph".into()))?;
    if !graph.sparse_initializer.is_empty() {
        return Err(invalid("sparse constants are not supported".into()));
    }
    graph.node =
        functions::inline(std::mem::take(&mut graph.node), &model.functions, MAX_NODES).map_err(invalid)?;
    if graph.node.is_empty() {
        return Err(invalid("it holds no nodes".into()));
    }
    if graph.node.len() > MAX_NODES {
        return Err(invalid(format!("{} nodes; at most {MAX_NODES} are supported", graph.node.len())));
    }
    let producer = [model.producer_name, model.producer_version].into_iter().flatten();
    let producer = producer.filter(|s| !s.is_empty()).collect::<Vec<_>>().join(" ");
    Builder::new(file, source).build(graph, opset, producer, bound)
}

struct Builder<'a> {
    file: &'a str,
    source: &'a Source<'a>,
    names: Vec<String>,
    ids: HashMap<String, Id>,
    constants: BTreeMap<Id, Constant>,
    /// Bytes of all constants so far.
    bytes: usize,
    external: Vec<String>,
    nodes: Vec<Node>,
    guards: Vec<Guard>,
}

impl<'a> Builder<'a> {
    fn new(file: &'a str, source: &'a Source<'a>) -> Self {
        Self {
            file,
            source,
            names: Vec::new(),
            ids: HashMap::new(),
            constants: BTreeMap::new(),
            bytes: 0,
            external: Vec::new(),
            nodes: Vec::new(),
            guards: Vec::new(),
        }
    }

    fn build(
        mut self,
        graph: GraphProto,
        opset: i64,
        producer: String,
        bound: &[String],
    ) -> Result<Graph, OnnxError> {
        self.constants(graph.initializer)?;
        for name in bound {
            self.define(name)?;
        }
        let (input, input_dims) = if bound.is_empty() { self.input(&graph.input)? } else { (0, Vec::new()) };
        self.nodes(graph.node)?;
        let mut outputs = Vec::new();
        for output in &graph.output {
            let name = output.name.as_deref().unwrap_or_default();
            match self.ids.get(name) {
                Some(&id) => outputs.push(id),
                None => return Err(self.invalid(format!("no node makes its output `{name}`"))),
            }
        }
        if outputs.is_empty() {
            return Err(self.invalid("it has no output".into()));
        }
        Ok(Graph {
            file: self.file.to_owned(),
            producer,
            opset,
            external: self.external,
            names: self.names,
            nodes: self.nodes,
            constants: self.constants,
            input,
            input_dims,
            outputs,
            output_dims: graph.output.iter().map(declared).collect(),
        })
    }

    fn invalid(&self, reason: String) -> OnnxError {
        OnnxError::Graph { name: self.file.to_owned(), reason }
    }

    fn define(&mut self, name: &str) -> Result<Id, OnnxError> {
        let id = self.names.len();
        if name.is_empty() || self.ids.insert(name.to_owned(), id).is_some() {
            return Err(self.invalid(format!("value `{name}` is made twice, or has no name")));
        }
        self.names.push(name.to_owned());
        Ok(id)
    }

    fn constants(&mut self, tensors: Vec<TensorProto>) -> Result<(), OnnxError> {
        for tensor in tensors {
            let id = self.define(tensor.name.as_deref().unwrap_or_default())?;
            let outside = tensor.data_location == Some(1);
            let constant = Constant::decode(tensor, self.source.folder)?;
            self.source.let_go();
            if outside {
                self.external.push(constant.digest());
            }
            self.bytes += constant.len() * if matches!(constant.values, Values::Int(_)) { 8 } else { 4 };
            if self.bytes > MAX_CONSTANT_BYTES {
                return Err(self.invalid(format!("its constants exceed {MAX_CONSTANT_BYTES} bytes")));
            }
            self.constants.insert(id, constant);
        }
        Ok(())
    }

    /// The one input without an initialiser: a float tensor of rank 4.
    fn input(&mut self, inputs: &[ValueInfoProto]) -> Result<(Id, Vec<Option<usize>>), OnnxError> {
        let bad = |reason| OnnxError::Input { name: self.file.to_owned(), reason };
        let name_of = |v: &ValueInfoProto| v.name.clone().unwrap_or_default();
        let open: Vec<_> = inputs.iter().filter(|v| !self.ids.contains_key(&name_of(v))).collect();
        let [image] = open[..] else {
            let names: Vec<_> = open.iter().map(|v| name_of(v)).collect();
            return Err(bad(format!("{} inputs {names:?}; need exactly one image", names.len())));
        };
        let name = name_of(image);
        let tensor = image.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
        let tensor = tensor.ok_or_else(|| bad(format!("`{name}` is not a tensor")))?;
        if !matches!(tensor.elem_type, Some(1 | 10 | 11 | 16)) {
            let code = tensor.elem_type.unwrap_or(0);
            return Err(bad(format!(
                "`{name}` has element type {code}; need floating point (1, 10, 11 or 16)"
            )));
        }
        let dims = tensor.shape.as_ref().map(|s| &s.dim[..]).unwrap_or_default();
        if dims.len() != 4 {
            return Err(bad(format!(
                "`{name}` has rank {}; need 4 (batch, channels, height, width)",
                dims.len()
            )));
        }
        let mut shape = Vec::new();
        for dim in dims {
            shape.push(match dim.dim_value {
                None => None,
                Some(v @ 1..=65_536) => Some(v as usize),
                Some(v) => return Err(bad(format!("`{name}` has a dimension of {v}; need 1 to 65536"))),
            });
        }
        Ok((self.define(&name)?, shape))
    }

    fn nodes(&mut self, nodes: Vec<NodeProto>) -> Result<(), OnnxError> {
        for node in nodes {
            if self.nodes.len() > MAX_NODES {
                return Err(self.invalid(format!("more than {MAX_NODES} nodes, branches included")));
            }
            match node.op_type.as_deref() {
                Some("If") if matches!(node.domain.as_deref(), None | Some("" | "ai.onnx")) => {
                    self.branches(node)?
                }
                _ => {
                    let node = self.node(self.nodes.len(), node)?;
                    self.nodes.push(node);
                }
            }
        }
        Ok(())
    }

    /// An `If` becomes the nodes of both branches, each guarded by the condition, and a node that
    /// takes the outputs of the branch that ran: inputs condition, then-outputs, else-outputs.
    fn branches(&mut self, mut node: NodeProto) -> Result<(), OnnxError> {
        let name = node.name.clone().unwrap_or_default();
        let fail = |reason: &str| OnnxError::Node {
            node: name.clone(),
            operator: "If".into(),
            reason: reason.into(),
        };
        let condition = node.input.first().and_then(|name| self.ids.get(name)).copied();
        let condition = condition.ok_or_else(|| fail("its condition is not made by anything before it"))?;
        if self.guards.len() >= MAX_BRANCHES {
            return Err(fail("nested too deeply"));
        }
        let mut results = Vec::new();
        for (key, value) in [("then_branch", true), ("else_branch", false)] {
            let found =
                node.attribute.iter_mut().find(|a| a.name.as_deref() == Some(key)).and_then(|a| a.g.take());
            let branch = found.ok_or_else(|| fail("it has no two branches"))?;
            if branch.output.len() != node.output.len() {
                return Err(fail("its branches and itself differ in the number of outputs"));
            }
            // Names made inside a branch are its own.
            let outer = self.ids.clone();
            self.constants(branch.initializer)?;
            self.guards.push((condition, value));
            self.nodes(branch.node)?;
            self.guards.pop();
            for output in &branch.output {
                let id = output.name.as_ref().and_then(|name| self.ids.get(name)).copied();
                results.push(Some(id.ok_or_else(|| fail("a branch does not make its output"))?));
            }
            self.ids = outer;
        }
        let mut outputs = Vec::new();
        for output in &node.output {
            outputs.push(if output.is_empty() { None } else { Some(self.define(output)?) });
        }
        self.nodes.push(Node {
            name,
            operator: "If".into(),
            inputs: [vec![Some(condition)], results].concat(),
            outputs,
            attributes: HashMap::new(),
            guards: self.guards.clone(),
        });
        Ok(())
    }

    fn node(&mut self, index: usize, proto: NodeProto) -> Result<Node, OnnxError> {
        let kind = proto.op_type.unwrap_or_default();
        let operator = match proto.domain.as_deref().unwrap_or_default() {
            "" | "ai.onnx" => kind,
            domain => format!("{domain}::{kind}"),
        };
        let name = match proto.name {
            Some(name) if !name.is_empty() => name,
            _ => format!("{operator} #{index}"),
        };
        let fail = |reason| OnnxError::Node { node: name.clone(), operator: operator.clone(), reason };
        let mut inputs = Vec::new();
        for input in &proto.input {
            inputs.push(match self.ids.get(input) {
                _ if input.is_empty() => None,
                Some(&id) => Some(id),
                None => return Err(fail(format!("input `{input}` is not made by anything before it"))),
            });
        }
        if let Some(known) = ops::find(&operator)
            && !known.inputs.contains(&inputs.len())
        {
            let (least, most) = (known.inputs.start(), known.inputs.end());
            return Err(fail(format!("{} inputs; need {least} to {most}", inputs.len())));
        }
        let mut attributes = HashMap::new();
        for attribute in proto.attribute {
            let key = attribute.name.clone().unwrap_or_default();
            let value = self.attribute(attribute)?;
            if attributes.insert(key.clone(), value).is_some() {
                return Err(fail(format!("attribute `{key}` is given twice")));
            }
        }
        let mut outputs = Vec::new();
        for output in &proto.output {
            outputs.push(if output.is_empty() { None } else { Some(self.define(output)?) });
        }
        if outputs.iter().flatten().next().is_none() {
            return Err(fail("it has no output".into()));
        }
        Ok(Node { name, operator, inputs, outputs, attributes, guards: self.guards.clone() })
    }

    fn attribute(&self, proto: AttributeProto) -> Result<Attribute, OnnxError> {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(match proto.r#type.unwrap_or(0) {
            1 => Attribute::Float(proto.f.unwrap_or(0.0)),
            2 => Attribute::Int(proto.i.unwrap_or(0)),
            3 => Attribute::Text(text(proto.s.unwrap_or_default())),
            4 => Attribute::Tensor(Constant::decode(proto.t.unwrap_or_default(), self.source.folder)?),
            6 => Attribute::Floats(proto.floats),
            7 => Attribute::Ints(proto.ints),
            _ => Attribute::Other,
        })
    }
}

fn declared(value: &ValueInfoProto) -> Vec<Option<usize>> {
    let tensor = value.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let dims = tensor.and_then(|t| t.shape.as_ref()).map(|s| &s.dim[..]).unwrap_or_default();
    dims.iter().map(|d| d.dim_value.and_then(|v| usize::try_from(v).ok())).collect()
}

fn opset(model: &ModelProto) -> Result<i64, String> {
    let own = |domain: Option<&str>| matches!(domain, None | Some("" | "ai.onnx"));
    let version =
        model.opset_import.iter().filter(|o| own(o.domain.as_deref())).filter_map(|o| o.version).max();
    match version {
        Some(v) if OPSETS.contains(&v) => Ok(v),
        Some(v) => Err(format!("opset {v}; {} and newer are supported", OPSETS.start())),
        None => Err("it names no operator set; it may be empty or not an ONNX file".into()),
    }
}
