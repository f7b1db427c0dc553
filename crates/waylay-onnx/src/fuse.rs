//! Operator fusion: convolutions take on the addition and the ReLU that follow them, one pass over
//! the output instead of three.

use std::collections::HashMap;

use crate::graph::{Graph, Id, Node};

/// A node, or a convolution with what follows it.
#[derive(Debug)]
pub(crate) struct Step {
    /// Index of the node.
    pub at: usize,
    pub then: Then,
    /// Where the result goes, if not to the node's own output.
    pub output: Option<Id>,
    /// Values that nobody reads afterwards.
    pub frees: Vec<Id>,
}

/// What a convolution does to its sums.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Then {
    /// Added to them.
    pub add: Option<Id>,
    /// Whether values below 0 become 0.
    pub relu: bool,
}

/// Merges each convolution of `steps` with an addition and a ReLU behind it, where no other node
/// reads what is between them, it is not `wanted`, and what is added has the same shape.
pub(crate) fn fuse(
    graph: &Graph,
    steps: &mut Vec<Step>,
    shapes: &HashMap<Id, &[usize]>,
    wanted: impl Fn(Id) -> bool,
) {
    let mut readers: HashMap<Id, Vec<usize>> = HashMap::new();
    let mut makers: HashMap<Id, usize> = HashMap::new();
    for (place, step) in steps.iter().enumerate() {
        let node = &graph.nodes[step.at];
        node.reads().for_each(|id| readers.entry(id).or_default().push(place));
        makers.extend(node.outputs.iter().flatten().map(|&id| (id, place)));
    }
    // The step that alone reads `id`.
    let reader = |id: Id| match readers.get(&id).map(Vec::as_slice) {
        Some(&[place]) if !wanted(id) => Some(place),
        _ => None,
    };
    let mut gone = vec![false; steps.len()];
    for place in 0..steps.len() {
        let conv = &graph.nodes[steps[place].at];
        let Some(mut output) = result(conv, "Conv") else { continue };
        let (mut then, mut merged) = (Then::default(), Vec::new());
        if let Some(next) = reader(output)
            && !gone[next]
            && let Some(sum) = result(&graph.nodes[steps[next].at], "Add")
            && let Some(other) = graph.nodes[steps[next].at].reads().find(|&id| id != output)
            && shapes.get(&other).is_some_and(|shape| shape.len() == 4 && shapes.get(&output) == Some(shape))
            && makers.get(&other).is_none_or(|&maker| maker < place)
        {
            (then.add, output) = (Some(other), sum);
            merged.push(next);
        }
        if let Some(next) = reader(output)
            && let Some(rectified) = result(&graph.nodes[steps[next].at], "Relu")
        {
            (then.relu, output) = (true, rectified);
            merged.push(next);
        }
        if !merged.is_empty() {
            merged.into_iter().for_each(|place| gone[place] = true);
            (steps[place].then, steps[place].output) = (then, Some(output));
        }
    }
    let mut gone = gone.into_iter();
    steps.retain(|_| gone.next() == Some(false));
}

/// The one output of a node with `operator` that always runs.
fn result(node: &Node, operator: &str) -> Option<Id> {
    match node.outputs[..] {
        [Some(output)] if node.operator == operator && node.guards.is_empty() => Some(output),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Steps for nodes given by operator, inputs and output; value 0 is the image.
    fn fused(nodes: &[(&str, &[Id], Id)], wanted: Id) -> Vec<(usize, Option<Id>, bool, Option<Id>)> {
        let graph = Graph::of(nodes, BTreeMap::new(), wanted);
        let step = |at| Step { at, then: Then::default(), output: None, frees: Vec::new() };
        let mut steps: Vec<Step> = (0..nodes.len()).map(step).collect();
        // Every value is an image of one shape, but 9.
        let shapes = (0..9).map(|id| (id, &[1, 2, 3, 3][..])).chain([(9, &[1, 2, 1, 1][..])]).collect();
        fuse(&graph, &mut steps, &shapes, |id| id == wanted);
        steps.iter().map(|s| (s.at, s.then.add, s.then.relu, s.output)).collect()
    }

    #[test]
    fn a_residual_block_is_two_convolutions() {
        let block: [(&str, &[Id], Id); 5] =
            [("Conv", &[0], 1), ("Relu", &[1], 2), ("Conv", &[2], 3), ("Add", &[3, 0], 4), ("Relu", &[4], 5)];
        assert_eq!(fused(&block, 5), [(0, None, true, Some(2)), (2, Some(0), true, Some(5))]);
        // What somebody wants to see stays.
        assert_eq!(fused(&block[..4], 3).len(), 3);
    }

    #[test]
    fn of_two_convolutions_the_later_one_adds() {
        let sum: [(&str, &[Id], Id); 3] = [("Conv", &[0], 1), ("Conv", &[0], 2), ("Add", &[1, 2], 3)];
        assert_eq!(fused(&sum, 3), [(0, None, false, None), (1, Some(1), false, Some(3))]);
    }

    #[test]
    fn what_has_two_readers_or_another_shape_is_left_alone() {
        let read_twice: [(&str, &[Id], Id); 3] = [("Conv", &[0], 1), ("Relu", &[1], 2), ("Add", &[1, 2], 3)];
        assert_eq!(fused(&read_twice, 3).len(), 3);
        let broadcast: [(&str, &[Id], Id); 2] = [("Conv", &[0], 1), ("Add", &[1, 9], 2)];
        assert_eq!(fused(&broadcast, 2).len(), 2);
    }
}
