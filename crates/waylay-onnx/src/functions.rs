//! Function inlining: the functions of a model (operators defined by other operators) written out
//! where they are used. Source: `FunctionProto` in onnx.proto. PyTorch's newer exporter makes them.

use std::collections::HashMap;

use crate::proto::{AttributeProto, FunctionProto, NodeProto};

/// Deepest nesting of functions.
const MAX_DEPTH: usize = 32;

/// `nodes` with every call of one of `functions` replaced by the function's nodes; an error where
/// there would be more than `most`.
pub(crate) fn inline(
    nodes: Vec<NodeProto>,
    functions: &[FunctionProto],
    most: usize,
) -> Result<Vec<NodeProto>, String> {
    if functions.is_empty() {
        return Ok(nodes);
    }
    let table = functions.iter().map(|f| (key(&f.domain, &f.name, &f.overload), f)).collect();
    let mut inliner = Inliner { table, most, calls: 0, out: Vec::new() };
    inliner.add(nodes, 0)?;
    Ok(inliner.out)
}

type Key = (String, String, String);

fn key(domain: &Option<String>, name: &Option<String>, overload: &Option<String>) -> Key {
    let text = |s: &Option<String>| s.clone().unwrap_or_default();
    (text(domain), text(name), text(overload))
}

struct Inliner<'a> {
    table: HashMap<Key, &'a FunctionProto>,
    most: usize,
    calls: usize,
    out: Vec<NodeProto>,
}

impl Inliner<'_> {
    fn add(&mut self, nodes: Vec<NodeProto>, depth: usize) -> Result<(), String> {
        for node in nodes {
            match self.table.get(&key(&node.domain, &node.op_type, &node.overload)).copied() {
                Some(_) if depth == MAX_DEPTH => {
                    return Err(format!("functions nested deeper than {MAX_DEPTH}, or calling themselves"));
                }
                Some(function) => {
                    self.calls += 1;
                    let body = expand(&node, function, self.calls);
                    self.add(body, depth + 1)?;
                }
                None => self.out.push(node),
            }
            if self.out.len().max(self.calls) > self.most {
                return Err(format!("more than {} nodes after inlining functions", self.most));
            }
        }
        Ok(())
    }
}

/// The nodes of `function` as called by `call`: its inputs and outputs take the caller's names,
/// inner names are prefixed, referenced attributes take the caller's values or the function's
/// defaults.
fn expand(call: &NodeProto, function: &FunctionProto, number: usize) -> Vec<NodeProto> {
    let mut names: HashMap<&str, String> = HashMap::new();
    for (index, inner) in function.input.iter().enumerate() {
        names.insert(inner, call.input.get(index).cloned().unwrap_or_default());
    }
    for (index, inner) in function.output.iter().enumerate() {
        if let Some(outer) = call.output.get(index).filter(|o| !o.is_empty()) {
            names.insert(inner, outer.clone());
        }
    }
    let caller = call.name.clone().unwrap_or_default();
    let rename = |name: &String| match names.get(name.as_str()) {
        _ if name.is_empty() => String::new(),
        Some(outer) => outer.clone(),
        None => format!("{caller}/{number}/{name}"),
    };
    let attribute = |inner: &AttributeProto| match &inner.ref_attr_name {
        None => Some(inner.clone()),
        Some(wanted) => {
            let given = call.attribute.iter().chain(&function.attribute_proto);
            let found = given.into_iter().find(|a| a.name.as_ref() == Some(wanted))?;
            Some(AttributeProto { name: inner.name.clone(), ..found.clone() })
        }
    };
    let copy = |node: &NodeProto| NodeProto {
        input: node.input.iter().map(rename).collect(),
        output: node.output.iter().map(rename).collect(),
        name: Some(format!("{caller}/{}", node.name.as_deref().unwrap_or_default())),
        attribute: node.attribute.iter().filter_map(attribute).collect(),
        ..node.clone()
    };
    function.node.iter().map(copy).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(domain: &str, operator: &str) -> NodeProto {
        NodeProto {
            input: vec!["x".into()],
            output: vec!["y".into()],
            op_type: Some(operator.into()),
            domain: Some(domain.into()),
            ..Default::default()
        }
    }

    fn function(name: &str, body: Vec<NodeProto>) -> FunctionProto {
        FunctionProto {
            name: Some(name.into()),
            domain: Some("f".into()),
            input: vec!["x".into()],
            output: vec!["y".into()],
            node: body,
            ..Default::default()
        }
    }

    #[test]
    fn a_function_is_replaced_by_its_nodes_under_the_callers_names() {
        let call =
            NodeProto { input: vec!["image".into()], output: vec!["features".into()], ..node("f", "act") };
        let nodes = inline(vec![call], &[function("act", vec![node("", "Relu")])], 10).unwrap();
        assert_eq!(nodes.len(), 1);
        assert_eq!((nodes[0].input[0].as_str(), nodes[0].output[0].as_str()), ("image", "features"));
    }

    #[test]
    fn a_function_that_calls_itself_is_refused() {
        let endless = function("a", vec![node("f", "a")]);
        assert!(inline(vec![node("f", "a")], &[endless], 10_000).unwrap_err().contains("nested deeper"));
        let doubling = function("b", vec![node("f", "b"), node("f", "b")]);
        assert!(inline(vec![node("f", "b")], &[doubling], 10_000).is_err());
    }
}
