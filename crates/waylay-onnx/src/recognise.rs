//! Pattern matching: activations that exporters spell out in several nodes become the one operator
//! that they are.

use std::collections::{HashMap, HashSet};

use crate::graph::{Attribute, Graph, Id, Node};

/// Deepest nesting of products that is looked into.
const DEPTH: usize = 4;

/// Swish, HardSwish and Gelu in `graph`; the nodes that nobody reads any more are left to be
/// dropped.
pub(crate) fn recognise(graph: &mut Graph) {
    let mut reads: HashMap<Id, usize> = HashMap::new();
    let read = graph.nodes.iter().flat_map(|n| n.reads().collect::<HashSet<_>>());
    read.chain(graph.outputs.iter().copied()).for_each(|id| *reads.entry(id).or_default() += 1);
    let mut makers: HashMap<Id, usize> = HashMap::new();
    for at in 0..graph.nodes.len() {
        let pattern = Pattern { graph, reads: &reads, makers: &makers };
        if let Some((operator, x)) = pattern.activation(&graph.nodes[at]) {
            let node = &mut graph.nodes[at];
            node.operator = operator.into();
            node.inputs = vec![Some(x)];
            node.attributes.clear();
        }
        makers.extend(graph.nodes[at].outputs.iter().flatten().map(|&id| (id, at)));
    }
}

struct Pattern<'a> {
    graph: &'a Graph,
    reads: &'a HashMap<Id, usize>,
    makers: &'a HashMap<Id, usize>,
}

impl Pattern<'_> {
    /// The activation that `node` completes, and its input.
    fn activation(&self, node: &Node) -> Option<(&'static str, Id)> {
        let (factors, scale) = self.product(node, DEPTH)?;
        let [a, b] = factors[..] else { return None };
        [(a, b), (b, a)].into_iter().find_map(|(x, gate)| {
            let gate = self.only_reader(gate)?;
            let operator = match gate.operator.as_str() {
                "Sigmoid" if near(scale, 1.0) && gate.inputs == [Some(x)] => "Swish",
                "HardSigmoid" if near(scale, 1.0) && gate.inputs == [Some(x)] && is_sixth(gate) => {
                    "HardSwish"
                }
                "Add" if near(scale, 0.5) && self.is_twice_normal(gate, x) => "Gelu",
                _ => return None,
            };
            Some((operator, x))
        })
    }

    /// What `node` multiplies, through products that no other node reads: values, and the product
    /// of all numbers.
    fn product(&self, node: &Node, depth: usize) -> Option<(Vec<Id>, f32)> {
        let (&[Some(a), Some(b)], true) = (&node.inputs[..], node.guards.is_empty()) else { return None };
        let divides = node.operator == "Div";
        if !divides && node.operator != "Mul" {
            return None;
        }
        let (mut factors, mut scale) = (Vec::new(), 1.0);
        for (place, id) in [a, b].into_iter().enumerate() {
            if let Some(number) = self.number(id) {
                scale = if divides && place == 1 { scale / number } else { scale * number };
                continue;
            }
            if divides && place == 1 {
                return None;
            }
            let inner = self.only_reader(id).filter(|_| depth > 0).and_then(|n| self.product(n, depth - 1));
            match inner {
                Some((inner, number)) => {
                    factors.extend(inner);
                    scale *= number;
                }
                None => factors.push(id),
            }
        }
        Some((factors, scale))
    }

    /// Whether `node` is 1 + erf(x/√2).
    fn is_twice_normal(&self, node: &Node, x: Id) -> bool {
        let &[Some(a), Some(b)] = &node.inputs[..] else { return false };
        [(a, b), (b, a)].into_iter().any(|(erf, one)| {
            let erf = self.only_reader(erf).filter(|n| n.operator == "Erf");
            let argument = erf.and_then(|n| n.inputs[0]).and_then(|id| self.only_reader(id));
            let argument = argument.and_then(|n| self.product(n, 0));
            self.number(one) == Some(1.0)
                && argument.is_some_and(|(factors, scale)| {
                    factors == [x] && near(scale, std::f32::consts::FRAC_1_SQRT_2)
                })
        })
    }

    /// The node that makes `id`, where nobody but one node reads it and it always runs.
    fn only_reader(&self, id: Id) -> Option<&Node> {
        let node = &self.graph.nodes[*self.makers.get(&id)?];
        (self.reads.get(&id) == Some(&1) && node.guards.is_empty()).then_some(node)
    }

    /// The one number that constant `id` holds.
    fn number(&self, id: Id) -> Option<f32> {
        match self.graph.constants.get(&id)?.as_floats()? {
            &[number] => Some(number),
            _ => None,
        }
    }
}

/// Whether a HardSigmoid is clip(x/6 + 1/2, 0, 1).
fn is_sixth(node: &Node) -> bool {
    let is = |name, usual, value| match node.attributes.get(name) {
        None => near(usual, value),
        Some(Attribute::Float(found)) => near(*found, value),
        Some(_) => false,
    };
    is("alpha", 0.2, 1.0 / 6.0) && is("beta", 0.5, 0.5)
}

/// As near as numbers written down in half a dozen digits are.
fn near(a: f32, b: f32) -> bool {
    (a - b).abs() <= 1e-6 * b.abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constant::{Constant, Values};

    /// What becomes of the last of nodes given by operator, inputs and output; value 0 is the
    /// image, and `numbers` are the first values after it.
    fn last(numbers: &[f32], nodes: &[(&str, &[Id], Id)]) -> (String, Vec<Option<Id>>) {
        let number =
            |(i, v): (usize, &f32)| (i + 1, Constant { dims: vec![], values: Values::Float(vec![*v]) });
        let constants = numbers.iter().enumerate().map(number).collect();
        let mut graph = Graph::of(nodes, constants, nodes[nodes.len() - 1].2);
        recognise(&mut graph);
        let last = &graph.nodes[nodes.len() - 1];
        (last.operator.clone(), last.inputs.clone())
    }

    #[test]
    fn swish_is_a_number_times_its_own_sigmoid() {
        let whole: [(&str, &[Id], Id); 2] = [("Sigmoid", &[0], 5), ("Mul", &[5, 0], 6)];
        assert_eq!(last(&[], &whole), ("Swish".into(), vec![Some(0)]));
        // A gate of something else is none, nor is one that somebody else reads.
        let gate: [(&str, &[Id], Id); 3] = [("Relu", &[0], 4), ("Sigmoid", &[4], 5), ("Mul", &[5, 0], 6)];
        assert_eq!(last(&[], &gate).0, "Mul");
        let read: [(&str, &[Id], Id); 4] =
            [("Sigmoid", &[0], 5), ("Mul", &[5, 0], 6), ("Add", &[5, 6], 7), ("Mul", &[5, 7], 8)];
        assert_eq!(last(&[], &read).0, "Mul");
    }

    #[test]
    fn gelu_is_found_in_every_order() {
        let numbers = [2f32.sqrt(), 1.0, 0.5, 0.5f32.sqrt()];
        let erf: [(&str, &[Id], Id); 3] = [("Div", &[0, 1], 10), ("Erf", &[10], 11), ("Add", &[11, 2], 12)];
        let tails: [&[(&str, &[Id], Id)]; 4] = [
            &[("Mul", &[0, 12], 13), ("Mul", &[13, 3], 14)],
            &[("Mul", &[0, 3], 13), ("Mul", &[13, 12], 14)],
            &[("Mul", &[3, 12], 13), ("Mul", &[13, 0], 14)],
            &[("Mul", &[12, 0], 13), ("Div", &[13, 15], 14)],
        ];
        for tail in &tails[..3] {
            assert_eq!(
                last(&numbers, &[&erf[..], tail].concat()),
                ("Gelu".into(), vec![Some(0)]),
                "{tail:?}"
            );
        }
        // By half the root, not over the root; and divided by what is no number.
        let by: [(&str, &[Id], Id); 3] = [("Mul", &[4, 0], 10), ("Erf", &[10], 11), ("Add", &[2, 11], 12)];
        assert_eq!(last(&numbers, &[&by[..], tails[0]].concat()).0, "Gelu");
        assert_eq!(last(&numbers, &[&erf[..], tails[3]].concat()).0, "Div");
        // 1 + erf(x/2) is no normal distribution.
        assert_eq!(last(&[2.0, 1.0, 0.5], &[&erf[..], tails[0]].concat()).0, "Mul");
    }
}
