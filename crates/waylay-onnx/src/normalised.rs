//! Whether a graph normalises its image itself: arithmetic with constants before anything else.

use crate::constant::{Constant, Values};
use crate::graph::{Attribute, Graph, Id};

/// Most constants that are listed: one per channel.
const MOST: usize = 4;

/// The arithmetic with constants of one number, or one per channel, that the only use of the image
/// begins with, in words: the node that it begins at and what it does.
pub(crate) fn find(graph: &Graph) -> Option<String> {
    let (mut at, mut first, mut steps) = (graph.input, None, Vec::new());
    loop {
        let mut users = graph.nodes.iter().filter(|n| n.inputs.contains(&Some(at)));
        let (Some(node), None) = (users.next(), users.next()) else { break };
        let step = match node.operator.as_str() {
            "Identity" | "Cast" | "Transpose" => None,
            "Sub" | "Add" | "Mul" | "Div" => {
                let [Some(a), Some(b)] = node.inputs[..] else { break };
                let (other, swapped) = if a == at { (b, false) } else { (a, true) };
                let Some(numbers) = numbers(graph, other) else { break };
                let verb = match (node.operator.as_str(), swapped) {
                    ("Sub", false) => "subtracts",
                    ("Add", _) => "adds",
                    ("Mul", _) => "multiplies by",
                    ("Div", false) => "divides by",
                    _ => break,
                };
                Some(format!("{verb} {numbers}"))
            }
            _ => break,
        };
        if let Some(step) = step {
            first.get_or_insert_with(|| node.name.clone());
            steps.push(step);
        }
        let Some(&Some(next)) = node.outputs.first() else { break };
        at = next;
    }
    first.map(|node| format!("node `{node}` {}", steps.join(", then ")))
}

/// The constant's numbers in words, if there are few: an initialiser, or the output of a Constant.
fn numbers(graph: &Graph, id: Id) -> Option<String> {
    let constant: &Constant = match graph.constants.get(&id) {
        Some(constant) => constant,
        None => {
            let node =
                graph.nodes.iter().find(|n| n.operator == "Constant" && n.outputs.contains(&Some(id)))?;
            match node.attributes.get("value")? {
                Attribute::Tensor(constant) => constant,
                Attribute::Float(v) => return Some(v.to_string()),
                _ => return None,
            }
        }
    };
    match &constant.values {
        Values::Float(v) if (1..=MOST).contains(&v.len()) => {
            Some(v.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        }
        _ => None,
    }
}
