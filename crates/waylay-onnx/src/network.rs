//! A folded graph that runs: on images of any batch size, with gradients where the image is
//! tracked.
//!
//! What depends only on the shape of the input is computed once per shape and kept as a plan; a
//! value is freed after its last use. Where maps are large, images of a batch go one at a time up
//! to the last place where a map of some size is all that is needed, then a few at a time up to
//! another, these parts divided among the threads, and together from there on: maps stay in cache,
//! fewer live at once, and threads seldom wait for each other.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Device, Tensor};
use rayon::prelude::*;
use waylay_conv::PreparedFilters;

use crate::OnnxError;
use crate::candidates::{self, Candidate};
use crate::constant::{Constant, Values};
use crate::fold::{apply, apply_then, fold, is_live};
use crate::fuse::{Step, Then, fuse};
use crate::graph::{Graph, Id, Node};
use crate::ops::{self, Call};
use crate::trace::Trace;
use crate::value::{Ranked, Value};

/// Constants with more elements live on the device only; smaller ones stay readable, as bounds and
/// shapes must.
const SMALL: usize = 64;
/// Plans kept; a run uses few batch sizes.
const MAX_PLANS: usize = 16;
/// Most multiplications of a whole forward pass per image.
const MAX_WORK: u64 = 1 << 38;

/// How many images are taken together up to maps of some size.
struct Stage {
    /// Fewest pixels of a map up to which it pays.
    pixels: usize,
    /// Images that are taken together: at least, and at most.
    least: usize,
    most: usize,
}

/// From the largest maps to the smallest.
const STAGES: [Stage; 2] =
    [Stage { pixels: 768, least: 1, most: 1 }, Stage { pixels: 192, least: 2, most: 4 }];
/// Fewest elements of the largest tensor, of one image, where it pays not to take all images
/// together.
const PART_ELEMENTS: usize = 1 << 17;

impl Stage {
    /// Parts of `count` images for so many `threads`, none if there would be but one.
    fn parts(&self, count: usize, threads: usize) -> Vec<Range<usize>> {
        let parts = match self.most {
            1 => count,
            most => count.div_ceil(most).next_multiple_of(threads),
        };
        if parts < 2 || count / parts < self.least {
            return Vec::new();
        }
        (0..parts).map(|part| part * count / parts..(part + 1) * count / parts).collect()
    }
}

/// How many values convolutions keep for each weight of a 3x3 kernel, at stride 1.
const KEPT_PER_WEIGHT: usize = 4;

/// The constants whose transforms convolutions keep: the smallest first, which belong to the
/// largest maps, until that takes as much memory as all constants.
fn prepare(known: &HashMap<Id, Value>) -> HashMap<Id, PreparedFilters> {
    let mut tensors: Vec<_> = known
        .iter()
        .filter_map(|(id, value)| if let Value::Tensor(tensor) = value { Some((*id, tensor)) } else { None })
        .collect();
    let size = |tensor: &Ranked| tensor.dims().iter().product::<usize>();
    tensors.sort_unstable_by_key(|(id, tensor)| (size(tensor), *id));
    let mut room: usize = tensors.iter().map(|(_, tensor)| size(tensor)).sum();
    let mut prepared = HashMap::new();
    for (id, tensor) in tensors {
        if let Ranked::R4(weight) = tensor
            && let Some(left) = room.checked_sub(KEPT_PER_WEIGHT * size(tensor))
            && let Some(filters) = PreparedFilters::new(weight)
        {
            room = left;
            prepared.insert(id, filters);
        }
    }
    prepared
}

/// A network that can be run.
#[derive(Debug)]
pub(crate) struct Network {
    graph: Graph,
    known: HashMap<Id, Value>,
    output: Id,
    taps: Vec<Id>,
    device: Device,
    /// Whether each image's output depends on that image alone.
    independent: bool,
    /// Filters whose transforms convolutions keep, by the constant that they are.
    prepared: HashMap<Id, PreparedFilters>,
    plans: Mutex<HashMap<Wanted, Arc<Plan>>>,
}

/// The shape of an input, and whether the taps are wanted.
type Wanted = ([usize; 4], bool);

/// Steps for one input shape.
#[derive(Debug)]
struct Plan {
    steps: Vec<Step>,
    /// What depends on the shape only.
    known: HashMap<Id, Value>,
    /// Up to where images are better taken in parts, for each of [`STAGES`].
    cuts: [Option<Cut>; STAGES.len()],
}

/// A step after which one value alone is needed, and that value: behind the large maps, before the
/// small ones.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cut {
    step: usize,
    value: Id,
}

/// The state of one run: values by number.
struct State {
    values: Vec<Option<Value>>,
    maps: Vec<Option<Tensor<4>>>,
    device: Device,
    batch: usize,
}

impl Network {
    /// Folds `graph` down to `output`.
    pub fn new(mut graph: Graph, output: Id, device: Device) -> Result<Self, OnnxError> {
        fold(&mut graph, output, &Device::flex())?;
        let output = graph.outputs[0];
        let mut known = HashMap::new();
        for (id, constant) in std::mem::take(&mut graph.constants) {
            let value = match constant {
                Constant { dims, values: Values::Float(floats) } if floats.len() > SMALL => {
                    let fail = |reason| OnnxError::Tensor { tensor: graph.names[id].clone(), reason };
                    Value::Tensor(Ranked::new(&dims, floats, &device).map_err(fail)?)
                }
                small => Value::known(small),
            };
            known.insert(id, value);
        }
        let prepared = prepare(&known);
        Ok(Self {
            graph,
            known,
            output,
            taps: Vec::new(),
            device,
            independent: false,
            prepared,
            plans: Mutex::default(),
        })
    }

    /// Lets go of the transforms that convolutions keep.
    pub fn drop_prepared(&mut self) {
        self.prepared.clear();
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The file's name.
    pub fn file(&self) -> &str {
        &self.graph.file
    }

    /// Name of value `id`.
    pub fn name(&self, id: Id) -> &str {
        &self.graph.names[id]
    }

    /// Whether value `id` comes out of an activation function.
    pub fn leaves_activation(&self, id: Id) -> bool {
        let made_by = self.graph.nodes.iter().find(|node| node.outputs.contains(&Some(id)));
        made_by.is_some_and(|node| ops::is_activation(&node.operator))
    }

    /// Tensors that can serve as the embedding.
    pub fn candidates(&self, trace: &Trace) -> Vec<Candidate> {
        candidates::find(&self.graph, self.output, trace, |id| self.known.contains_key(&id))
    }

    /// Makes [`Self::run`] return the maps `taps`, and forgets all plans.
    pub fn set_taps(&mut self, taps: Vec<Id>) {
        self.taps = taps;
        self.forget_plans();
    }

    /// Says that each image's output depends on that image alone.
    pub fn set_independent(&mut self) {
        self.independent = true;
    }

    fn forget_plans(&mut self) {
        self.plans.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Lets every Reshape to a shape that starts with 1 keep its input's batch instead. Gives what
    /// to undo.
    pub fn loosen(&mut self) -> Vec<(usize, Node)> {
        let mut changed = Vec::new();
        for at in 0..self.graph.nodes.len() {
            let node = &self.graph.nodes[at];
            let (true, Some(&Some(id))) = (node.operator == "Reshape", node.inputs.get(1)) else { continue };
            let Some(Value::Known(known)) = self.known.get(&id) else { continue };
            let Some([1, rest @ ..]) = known.constant.as_ints() else { continue };
            if rest.is_empty() || rest.contains(&0) {
                continue;
            }
            let shape = [&[0], rest].concat();
            let new = self.graph.add_value(format!("{}: shape of any batch", node.name));
            self.known.insert(new, Value::known(Constant::ints(shape)));
            let node = &mut self.graph.nodes[at];
            changed.push((at, node.clone()));
            node.inputs[1] = Some(new);
            node.attributes.remove("allowzero");
        }
        self.forget_plans();
        changed
    }

    /// Takes back what [`Self::loosen`] did.
    pub fn tighten(&mut self, changed: Vec<(usize, Node)>) {
        for (at, node) in changed {
            self.graph.nodes[at] = node;
        }
        self.forget_plans();
    }

    /// The output and the taps for `input` `[N, C, H, W]`, or as the network lays images out. Taps
    /// are empty unless wanted. The input's values are not checked.
    pub fn run(&self, input: Tensor<4>, taps: bool) -> Result<(Ranked, Vec<Tensor<4>>), OnnxError> {
        match self.plan((input.dims(), taps)) {
            Some(plan) => self.follow(&plan, input, taps),
            None => self.explore(input, taps, &mut Trace::default()),
        }
    }

    fn plan(&self, wanted: Wanted) -> Option<Arc<Plan>> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner).get(&wanted).cloned()
    }

    /// As [`Self::run`], noting shapes and work in `trace`, and refusing work beyond all reason.
    pub fn explore(
        &self,
        input: Tensor<4>,
        taps: bool,
        trace: &mut Trace,
    ) -> Result<(Ranked, Vec<Tensor<4>>), OnnxError> {
        let shape = input.dims();
        let everything = Plan {
            steps: self.steps(|_| false, None, taps),
            known: HashMap::new(),
            cuts: Default::default(),
        };
        trace.maps.push(self.graph.input);
        let mut known = HashMap::new();
        let mut state = self.begin(input, taps);
        self.advance(&everything, 0..everything.steps.len(), &mut state, |at, values, inputs| {
            self.note(at, values, inputs, shape[0], &mut known, trace)
        })?;
        let shapes = trace.shapes.iter().map(|(id, shape)| (*id, &shape[..])).collect();
        let steps = self.steps(|id| known.contains_key(&id), Some(&shapes), taps);
        let used = |id: &Id| steps.iter().any(|step| self.reads(step).any(|read| read == *id));
        known.retain(|id, _| used(id));
        // Other devices than the processor take a whole batch at once.
        let whole = taps || self.device != Device::flex();
        let mut cuts = STAGES.map(|stage| self.cut(&stage, &steps, &shapes, shape[0]).filter(|_| !whole));
        for stage in (1..cuts.len()).rev() {
            // With no maps between the two, there is nothing to do in larger parts.
            cuts[stage] = cuts[stage].filter(|cut| cuts[stage - 1] != Some(*cut));
        }
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if plans.len() >= MAX_PLANS {
            plans.clear();
        }
        plans.insert((shape, taps), Arc::new(Plan { steps, known, cuts }));
        drop(plans);
        self.end(state)
    }

    fn follow(
        &self,
        plan: &Plan,
        input: Tensor<4>,
        taps: bool,
    ) -> Result<(Ranked, Vec<Tensor<4>>), OnnxError> {
        let mut state = self.begin(input, taps);
        let first = self.in_parts(plan, &mut state, STAGES.len())?;
        self.advance(plan, first..plan.steps.len(), &mut state, |_, _, _| Ok(()))?;
        self.end(state)
    }

    /// Takes the first steps of `plan` for parts of the batch, by the last of so many [`STAGES`]
    /// that pays, the parts divided among the threads, where parts have the same steps; gives the
    /// step to go on from.
    fn in_parts(&self, plan: &Plan, state: &mut State, stages: usize) -> Result<usize, OnnxError> {
        let (true, false) = (self.independent && state.batch > 1, state.device.is_autodiff()) else {
            return Ok(0);
        };
        let Some(Value::Tensor(Ranked::R4(input))) = state.values[self.graph.input].clone() else {
            return Ok(0);
        };
        let threads = rayon::current_num_threads();
        for (stage, cut) in plan.cuts.iter().enumerate().take(stages).rev() {
            let (Some(cut), parts) = (cut, STAGES[stage].parts(state.batch, threads)) else { continue };
            let Some(made) = self.parts(&input, stage, cut.value, &parts)? else { continue };
            state.values[self.graph.input] = None;
            state.values[cut.value] = Some(Ranked::R4(Tensor::cat(made, 0)).into());
            return Ok(cut.step + 1);
        }
        Ok(0)
    }

    /// What the steps up to `value` make of `parts` of `input`; nothing if there are none, or some
    /// part has other steps.
    fn parts(
        &self,
        input: &Tensor<4>,
        stage: usize,
        value: Id,
        parts: &[Range<usize>],
    ) -> Result<Option<Vec<Tensor<4>>>, OnnxError> {
        let [_, c, h, w] = input.dims();
        let images = |part: &Range<usize>| input.clone().narrow(0, part.start, part.len());
        let mut plans = Vec::with_capacity(parts.len());
        for part in parts {
            let wanted = ([part.len(), c, h, w], false);
            if self.plan(wanted).is_none() {
                self.explore(images(part), false, &mut Trace::default())?;
            }
            let Some(plan) = self.plan(wanted) else { return Ok(None) };
            match plan.cuts[stage] {
                Some(cut) if cut.value == value => plans.push((part, plan, cut.step + 1)),
                _ => return Ok(None),
            }
        }
        let take = |(part, plan, end): &(&Range<usize>, Arc<Plan>, usize)| -> Result<_, OnnxError> {
            let mut state = self.begin(images(part), false);
            let first = self.in_parts(plan, &mut state, stage)?;
            self.advance(plan, first..*end, &mut state, |_, _, _| Ok(()))?;
            Ok(match state.values[value].take() {
                Some(Value::Tensor(Ranked::R4(map))) => Some(map),
                _ => None,
            })
        };
        let made = plans.par_iter().with_max_len(1).map(take).collect::<Result<Option<Vec<_>>, _>>()?;
        Ok(made.filter(|made| !made.is_empty()))
    }

    fn begin(&self, input: Tensor<4>, taps: bool) -> State {
        let (device, batch) = (input.device(), input.dims()[0]);
        let mut values = vec![None; self.graph.names.len()];
        values[self.graph.input] = Some(Ranked::R4(input).into());
        let maps = vec![None; if taps { self.taps.len() } else { 0 }];
        State { values, maps, device, batch }
    }

    fn end(&self, mut state: State) -> Result<(Ranked, Vec<Tensor<4>>), OnnxError> {
        match state.values[self.output].take() {
            Some(Value::Tensor(output)) => Ok((output, state.maps.into_iter().flatten().collect())),
            _ => Err(OnnxError::Output {
                name: self.graph.file.clone(),
                reason: format!("`{}` does not depend on the image", self.name(self.output)),
            }),
        }
    }

    /// Takes some `steps` of `plan`.
    fn advance(
        &self,
        plan: &Plan,
        steps: Range<usize>,
        state: &mut State,
        mut watch: impl FnMut(usize, &[Value], &[Vec<usize>]) -> Result<(), OnnxError>,
    ) -> Result<(), OnnxError> {
        let State { values, maps, device, batch } = state;
        for step in &plan.steps[steps] {
            let node = &self.graph.nodes[step.at];
            let find =
                |id: Id| values[id].as_ref().or_else(|| plan.known.get(&id)).or_else(|| self.known.get(&id));
            match is_live(node, find) {
                Some(true) => {}
                Some(false) => continue,
                None => {
                    return Err(OnnxError::Node {
                        node: node.name.clone(),
                        operator: node.operator.clone(),
                        reason: "whether it runs depends on the image; conditions must be known".into(),
                    });
                }
            }
            let inputs: Vec<_> = node.inputs.iter().map(|id| id.and_then(|id| find(id).cloned())).collect();
            let shapes: Vec<_> = inputs.iter().map(|v| v.as_ref().map_or(Vec::new(), Value::dims)).collect();
            let add = match step.then.add.and_then(find) {
                Some(Value::Tensor(Ranked::R4(add))) => Some(add.clone()),
                _ => None,
            };
            for id in &step.frees {
                values[*id] = None;
            }
            let weight = node.inputs.get(1).copied().flatten();
            let prepared = weight.and_then(|id| self.prepared.get(&id));
            let call = Call { node, opset: self.graph.opset, inputs, device, batch: *batch, prepared };
            let made = match step.output {
                None => apply(node, call)?,
                Some(_) => apply_then(node, call, add, step.then.relu)?,
            };
            watch(step.at, &made, &shapes)?;
            for (id, value) in node.outputs.iter().zip(made) {
                let Some(id) = step.output.or(*id) else { continue };
                if let Some(tap) = self.taps.iter().position(|t| *t == id)
                    && let (Some(place), Value::Tensor(Ranked::R4(map))) = (maps.get_mut(tap), &value)
                {
                    *place = Some(map.clone());
                }
                values[id] = Some(value);
            }
        }
        Ok(())
    }

    /// Nodes that the output needs and whose values are not `known`, with what can be freed at
    /// each. Where the shapes of tensors are given, convolutions take on what follows them.
    fn steps(
        &self,
        known: impl Fn(Id) -> bool,
        shapes: Option<&HashMap<Id, &[usize]>>,
        taps: bool,
    ) -> Vec<Step> {
        let taps = if taps { &self.taps[..] } else { &[] };
        let mut needed = vec![false; self.graph.names.len()];
        needed[self.output] = true;
        taps.iter().for_each(|&id| needed[id] = true);
        let mut steps = Vec::new();
        for (at, node) in self.graph.nodes.iter().enumerate().rev() {
            if node.outputs.iter().flatten().any(|&id| needed[id] && !known(id)) {
                node.reads().for_each(|id| needed[id] = true);
                steps.push(Step { at, then: Then::default(), output: None, frees: Vec::new() });
            }
        }
        steps.reverse();
        if let Some(shapes) = shapes {
            fuse(&self.graph, &mut steps, shapes, |id| id == self.output || taps.contains(&id));
        }
        let mut seen = vec![false; self.graph.names.len()];
        seen[self.output] = true;
        taps.iter().for_each(|&id| seen[id] = true);
        for step in steps.iter_mut().rev() {
            let reads: Vec<Id> = self.reads(step).collect();
            for id in reads {
                if !seen[id] {
                    step.frees.push(id);
                }
                seen[id] = true;
            }
        }
        steps
    }

    /// The last place behind large maps where one map of the size of `stage` is all that later
    /// steps need.
    fn cut(
        &self,
        stage: &Stage,
        steps: &[Step],
        shapes: &HashMap<Id, &[usize]>,
        batch: usize,
    ) -> Option<Cut> {
        let (mut live, mut largest, mut found) = (HashSet::from([self.graph.input]), 0, None);
        for (step, taken) in steps.iter().enumerate() {
            taken.frees.iter().for_each(|id| {
                live.remove(id);
            });
            for id in
                self.graph.nodes[taken.at].outputs.iter().flatten().map(|id| taken.output.unwrap_or(*id))
            {
                live.insert(id);
                let dims = shapes.get(&id).copied().unwrap_or_default();
                largest = largest.max(dims.iter().product::<usize>() / batch);
                if let &[n, _, h, w] = dims
                    && live.len() == 1
                    && (n, h * w >= stage.pixels, largest >= PART_ELEMENTS) == (batch, true, true)
                {
                    found = Some(Cut { step, value: id });
                }
            }
        }
        found
    }

    /// What a step reads.
    fn reads(&self, step: &Step) -> impl Iterator<Item = Id> {
        self.graph.nodes[step.at].reads().chain(step.then.add)
    }

    fn note(
        &self,
        at: usize,
        values: &[Value],
        inputs: &[Vec<usize>],
        batch: usize,
        known: &mut HashMap<Id, Value>,
        trace: &mut Trace,
    ) -> Result<(), OnnxError> {
        let node = &self.graph.nodes[at];
        for (id, value) in node.outputs.iter().zip(values) {
            let Some(id) = *id else { continue };
            match value {
                Value::Known(_) => {
                    known.insert(id, value.clone());
                }
                Value::Tensor(tensor) => {
                    let dims = tensor.dims();
                    let map = match node.operator.as_str() {
                        "Conv" | "MaxPool" | "AveragePool" => true,
                        "Reshape" | "Transpose" | "MatMul" => false,
                        _ => node.inputs.iter().flatten().any(|id| trace.maps.contains(id)),
                    };
                    if map && dims.len() == 4 {
                        trace.maps.push(id);
                    }
                    trace.shapes.push((id, dims));
                }
            }
        }
        let outputs: Vec<_> = values.iter().map(Value::dims).collect();
        let work = ops::multiply_adds(&node.operator, inputs, &outputs);
        trace.multiply_adds = trace.multiply_adds.saturating_add(work);
        if trace.multiply_adds > MAX_WORK.saturating_mul(batch as u64) {
            return Err(OnnxError::Node {
                node: node.name.clone(),
                operator: node.operator.clone(),
                reason: format!("more than {MAX_WORK} multiplications per image up to here"),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;
    use prost::Message;

    use super::*;
    use crate::hostile::{graph, node, relu, value, weight};
    use crate::proto::{AttributeProto, NodeProto, TensorProto};
    use crate::{Model, ModelOptions};

    #[test]
    fn parts_are_as_many_for_each_thread_and_no_smaller_than_pays() {
        let sizes = |stage: usize, count: usize, threads: usize| -> Vec<usize> {
            let parts = STAGES[stage].parts(count, threads);
            assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert!(
                parts.last().is_none_or(|last| last.end == count)
                    && parts.first().is_none_or(|p| p.start == 0)
            );
            parts.into_iter().map(|part| part.len()).collect()
        };
        assert_eq!(sizes(0, 3, 2), [1, 1, 1]);
        assert_eq!(sizes(0, 1, 2), [0; 0]);
        assert_eq!(sizes(1, 8, 2), [4, 4]);
        assert_eq!(sizes(1, 8, 1), [4, 4]);
        assert_eq!(sizes(1, 9, 2), [2, 2, 2, 3]);
        assert_eq!(sizes(1, 6, 2), [3, 3]);
        assert_eq!(sizes(1, 4, 1), [0; 0]);
        assert_eq!(sizes(1, 8, 8), [0; 0]);
        assert_eq!(sizes(1, 32, 8), [4; 8]);
    }

    #[test]
    fn one_constant_under_two_shapes_is_two_sets_of_filters() {
        let values: Vec<f32> = (0..64 * 32 * 9).map(|i| ((i * 37 % 101) as f32 - 50.0) / 1000.0).collect();
        let ints = |name: &str, values: &[i64]| TensorProto {
            name: Some(name.into()),
            dims: vec![values.len() as i64],
            data_type: Some(7),
            int64_data: values.to_vec(),
            ..Default::default()
        };
        let conv = |x: &str, weight: &str, output: &str| {
            let mut conv = node("Conv", &[x, weight], output);
            conv.attribute.push(AttributeProto {
                name: Some("pads".into()),
                ints: vec![1; 4],
                r#type: Some(7),
                ..Default::default()
            });
            conv
        };
        // The second weight: the first one, reshaped to what the maps say, or a constant of its
        // own.
        let reshaped = vec![
            node("Shape", &["stem"], "shape of stem"),
            node("Gather", &["shape of stem", "one"], "outs"),
            node("Shape", &["map"], "shape of map"),
            node("Gather", &["shape of map", "one"], "ins"),
            node("Concat", &["outs", "ins", "kernel"], "shape"),
            node("Reshape", &["weight", "shape"], "other weight"),
        ];
        let embedding = |second: Vec<NodeProto>, constant: bool| {
            let mut model = relu();
            let graph = graph(&mut model);
            graph.input = vec![value("x", &[1, 3, 16, 16])];
            graph.node = [
                vec![node("Conv", &["x", "stem weight"], "stem"), conv("stem", "weight", "map")],
                second,
                vec![conv("map", "other weight", "maps"), node("GlobalAveragePool", &["maps"], "pooled")],
                vec![node("Flatten", &["pooled"], "y")],
            ]
            .concat();
            graph.node.iter_mut().filter(|n| n.op_type.as_deref() == Some("Concat")).for_each(|concat| {
                concat.attribute.push(AttributeProto {
                    name: Some("axis".into()),
                    i: Some(0),
                    r#type: Some(2),
                    ..Default::default()
                });
            });
            graph.initializer = vec![weight("weight", &[64, 32, 3, 3], &values), ints("one", &[1])];
            graph.initializer.push(ints("kernel", &[3, 3]));
            graph.initializer.push(weight("stem weight", &[32, 3, 1, 1], &values[..96]));
            if constant {
                graph.initializer.push(weight("other weight", &[32, 64, 3, 3], &values));
            }
            let model =
                Model::from_bytes("net.onnx", &model.encode_to_vec(), ModelOptions::default()).unwrap();
            let x = (0..4 * 3 * 256).map(|i| (i * 13 % 47) as f32 / 47.0).collect::<Vec<f32>>();
            let x = Tensor::<4>::from_data(TensorData::new(x, [4, 3, 16, 16]), &Device::flex());
            model.run(x).unwrap().into_data().try_to_vec::<f32>().unwrap()
        };
        let (found, expected) = (embedding(reshaped, false), embedding(Vec::new(), true));
        assert_eq!(found.len(), 4 * 32);
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-4 * expected.abs().max(1e-2), "{found}, not {expected}");
        }
    }
}
