//! The checked graph: nodes in topological order, values by number, constants decoded.

use std::collections::{BTreeMap, HashMap};

use crate::constant::Constant;

/// A value's number: an index into [`Graph::names`].
pub(crate) type Id = usize;

/// An argument of a node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Attribute {
    Int(i64),
    Float(f32),
    Text(String),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Tensor(Constant),
    /// A kind that no supported operator takes.
    Other,
}

/// One application of an operator.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub name: String,
    /// The operator; `domain::operator` outside ONNX's own set.
    pub operator: String,
    /// None where an optional input is left out.
    pub inputs: Vec<Option<Id>>,
    /// None where an output is not wanted.
    pub outputs: Vec<Option<Id>>,
    pub attributes: HashMap<String, Attribute>,
    /// The conditions of the branches of `If` that it stands in: it runs only where all hold.
    pub guards: Vec<Guard>,
}

/// A condition by its value's number, and what it must be.
pub(crate) type Guard = (Id, bool);

impl Node {
    /// Everything that must be known before it can run.
    pub fn reads(&self) -> impl Iterator<Item = Id> {
        self.inputs.iter().flatten().copied().chain(self.guards.iter().map(|g| g.0))
    }
}

/// A graph whose nodes only use values made before them.
#[derive(Clone, Debug)]
pub(crate) struct Graph {
    pub file: String,
    pub producer: String,
    pub opset: i64,
    /// SHA-256 of the data of every constant that lies outside the file.
    pub external: Vec<String>,
    pub names: Vec<String>,
    pub nodes: Vec<Node>,
    pub constants: BTreeMap<Id, Constant>,
    /// The one input that is not a constant.
    pub input: Id,
    /// Its declared shape; none for a dimension that has a name or nothing.
    pub input_dims: Vec<Option<usize>>,
    pub outputs: Vec<Id>,
    /// Their declared shapes; empty where the file gives none.
    pub output_dims: Vec<Vec<Option<usize>>>,
}

impl Graph {
    /// Nodes given by operator, inputs and output, for tests; value 0 is the image.
    #[cfg(test)]
    pub fn of(nodes: &[(&str, &[Id], Id)], constants: BTreeMap<Id, Constant>, output: Id) -> Self {
        let node = |(operator, inputs, output): &(&str, &[Id], Id)| Node {
            name: String::new(),
            operator: (*operator).into(),
            inputs: inputs.iter().map(|&id| Some(id)).collect(),
            outputs: vec![Some(*output)],
            attributes: HashMap::new(),
            guards: Vec::new(),
        };
        Self {
            file: String::new(),
            producer: String::new(),
            opset: 17,
            external: Vec::new(),
            names: vec![String::new(); 20],
            nodes: nodes.iter().map(node).collect(),
            constants,
            input: 0,
            input_dims: Vec::new(),
            outputs: vec![output],
            output_dims: Vec::new(),
        }
    }

    /// A new value called `name`.
    pub fn add_value(&mut self, name: String) -> Id {
        self.names.push(name);
        self.names.len() - 1
    }

    /// The value called `name`.
    pub fn find(&self, name: &str) -> Option<Id> {
        self.names.iter().position(|n| n == name)
    }
}
