//! Random damage to models: whatever is opened ends in a network or in an error, within a second,
//! and never in a panic.
//!
//! A few thousand cases run with the other tests. For longer, with a seed of one's own and all of
//! ONNX's own tests (see `scripts/golden/onnx_node_tests.py`) beside the networks here, in bounded
//! memory:
//!
//! ```sh
//! ulimit -v 6000000
//! WAYLAY_FUZZ_SECONDS=600 WAYLAY_FUZZ_SEED=1 WAYLAY_ONNX_NODE_TESTS=DIR \
//!   cargo test --release --workspace fuzz -- --ignored --nocapture
//! ```
//!
//! A case that fails is written to a file that the message names.

#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use prost::Message;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::hostile::overwrite;
use crate::proto::*;
use crate::{Model, ModelOptions, inspect_bytes, node_test};

const NETWORKS: [&[u8]; 5] = [
    include_bytes!("../tests/golden/onnx/mixture.legacy12.onnx"),
    include_bytes!("../tests/golden/onnx/mixture.legacy18.onnx"),
    include_bytes!("../tests/golden/onnx/mixture.dynamo.onnx"),
    include_bytes!("../tests/golden/onnx/mobilenet.legacy17_unfolded.onnx"),
    include_bytes!("../tests/golden/onnx/resnet.legacy11.onnx"),
];
/// Numbers that code forgets.
const ABSURD: [i64; 12] = [0, 1, -1, 2, 3, -2, 7, 255, 65_536, 1 << 31, i64::MAX, i64::MIN];

/// A model, and the tensors that one of ONNX's own tests runs it on.
struct Case {
    model: Vec<u8>,
    inputs: Vec<Vec<u8>>,
    outputs: Vec<Vec<u8>>,
}

impl Case {
    /// Opens `model`; runs it where it comes with inputs.
    fn survive(&self, model: &[u8]) {
        if self.inputs.is_empty() {
            drop(Model::from_bytes("net.onnx", model, ModelOptions::default()));
            drop(inspect_bytes("net.onnx", model, &ModelOptions::default()));
        } else {
            drop(node_test(model, &self.inputs, &self.outputs, [1e-3, 1e-7]));
        }
    }
}

fn networks() -> Vec<Case> {
    NETWORKS.map(|bytes| Case { model: bytes.to_vec(), inputs: Vec::new(), outputs: Vec::new() }).into()
}

/// The cases below a folder that `onnx_node_tests.py` wrote.
fn node_tests(folder: &Path) -> Vec<Case> {
    let arrays = |at: &Path, kind: &str| -> Vec<Vec<u8>> {
        (0..).map_while(|i| std::fs::read(at.join(format!("{kind}_{i}.pb"))).ok()).collect()
    };
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    let case = |at: &std::path::PathBuf| {
        let model = std::fs::read(at.join("model.onnx")).ok()?;
        Some(Case { model, inputs: arrays(at, "input"), outputs: arrays(at, "output") })
    };
    folders.iter().filter_map(case).collect()
}

/// `model` with one to four things wrong.
fn damaged(model: &[u8], random: &mut impl RngExt) -> Vec<u8> {
    let mut bytes = model.to_vec();
    for _ in 0..random.random_range(1..=4) {
        match ModelProto::decode(&bytes[..]) {
            Ok(mut model) if random.random_bool(0.8) => {
                change(&mut model, random);
                bytes = model.encode_to_vec();
            }
            _ => scratch(&mut bytes, random),
        }
    }
    bytes
}

/// Damage that knows nothing of the format.
fn scratch(bytes: &mut Vec<u8>, random: &mut impl RngExt) {
    if bytes.is_empty() {
        return;
    }
    let at = random.random_range(0..bytes.len());
    let length = random.random_range(1..=16.min(bytes.len() - at));
    match random.random_range(0..5) {
        0 => bytes[at] ^= 1 << random.random_range(0..8),
        1 => bytes[at] = random.random(),
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..at + length)),
        _ => {
            let copy = bytes[at..at + length].to_vec();
            bytes.splice(at..at, copy);
        }
    }
}

/// Damage to one part of the model.
fn change(model: &mut ModelProto, random: &mut impl RngExt) {
    if random.random_bool(0.05) {
        if let Some(set) = model.opset_import.first_mut() {
            set.version = ABSURD.choose(random).copied();
        }
        return;
    }
    let Some(graph) = &mut model.graph else { return };
    match random.random_range(0..10) {
        0..6 if !graph.node.is_empty() => {
            let names: Vec<String> = graph.node.iter().flat_map(|n| n.input.iter().cloned()).collect();
            let kinds: Vec<_> = graph.node.iter().map(|n| n.op_type.clone()).collect();
            let at = random.random_range(0..graph.node.len());
            change_node(&mut graph.node[at], &names, &kinds, random);
        }
        6 if graph.node.len() > 1 => {
            let at = random.random_range(0..graph.node.len());
            let node = graph.node.remove(at);
            let place = random.random_range(0..=graph.node.len());
            if random.random_bool(0.5) {
                graph.node.insert(place, node);
            }
        }
        7 if !graph.input.is_empty() => {
            let at = random.random_range(0..graph.input.len());
            change_shape(&mut graph.input[at], random);
        }
        _ if !graph.initializer.is_empty() => {
            let at = random.random_range(0..graph.initializer.len());
            change_tensor(&mut graph.initializer[at], random);
        }
        _ => {}
    }
}

fn change_node(node: &mut NodeProto, names: &[String], kinds: &[Option<String>], random: &mut impl RngExt) {
    match random.random_range(0..6) {
        0 => node.op_type = kinds.choose(random).cloned().flatten(),
        1 => {
            let every = crate::ops::names();
            node.op_type = every.choose(random).map(|name| (*name).to_owned());
        }
        2 => {
            let slot = random.random_range(0..=node.input.len());
            node.input.truncate(slot);
            node.input.extend(names.choose(random).cloned());
        }
        3 if !node.input.is_empty() => {
            let slot = random.random_range(0..node.input.len());
            node.input[slot] = names.choose(random).cloned().unwrap_or_default();
        }
        _ if !node.attribute.is_empty() => {
            let slot = random.random_range(0..node.attribute.len());
            if random.random_bool(0.15) {
                node.attribute.remove(slot);
                return;
            }
            let attribute = &mut node.attribute[slot];
            let value = *ABSURD.choose(random).unwrap_or(&0);
            attribute.i = attribute.i.map(|_| value);
            attribute.f = attribute.f.map(|_| if random.random_bool(0.2) { f32::NAN } else { value as f32 });
            match random.random_range(0..3) {
                0 => attribute.ints.push(value),
                1 => drop(attribute.ints.pop()),
                _ => {
                    let at = random.random_range(0..=attribute.ints.len());
                    if let Some(int) = attribute.ints.get_mut(at) {
                        *int = value;
                    }
                }
            }
            if let Some(tensor) = &mut attribute.t {
                change_tensor(tensor, random);
            }
        }
        _ => {}
    }
}

fn change_tensor(tensor: &mut TensorProto, random: &mut impl RngExt) {
    let value = *ABSURD.choose(random).unwrap_or(&0);
    match random.random_range(0..5) {
        0 => tensor.data_type = Some(random.random_range(-1..26)),
        1 => tensor.dims.push(value),
        2 => drop(tensor.dims.pop()),
        3 if !tensor.dims.is_empty() => {
            let at = random.random_range(0..tensor.dims.len());
            tensor.dims[at] = value;
        }
        _ => {
            if let Some(raw) = tensor.raw_data.as_mut().filter(|raw| raw.len() >= 8) {
                let at = random.random_range(0..raw.len() / 8) * 8;
                overwrite(raw, at, value);
            }
        }
    }
}

fn change_shape(value: &mut ValueInfoProto, random: &mut impl RngExt) {
    let shape = value.r#type.as_mut().and_then(|t| t.tensor_type.as_mut()).and_then(|t| t.shape.as_mut());
    let Some(shape) = shape.filter(|shape| !shape.dim.is_empty()) else { return };
    let at = random.random_range(0..shape.dim.len());
    match random.random_range(0..3) {
        0 => drop(shape.dim.remove(at)),
        1 => shape.dim[at].dim_value = None,
        _ => shape.dim[at].dim_value = ABSURD.choose(random).copied(),
    }
}

/// Damages `cases` until `enough`, and gives how many it damaged. Each place that panics, and each
/// case that takes too long, fails the test at the end, with one file to repeat it.
fn fuzz(cases: &[Case], seed: u64, mut enough: impl FnMut(usize) -> bool) -> usize {
    let mut random = StdRng::seed_from_u64(seed);
    let mut failures = BTreeMap::new();
    let mut count = 0;
    while !enough(count) {
        let case = cases.choose(&mut random).expect("a case");
        let model = damaged(&case.model, &mut random);
        let start = Instant::now();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case.survive(&model)));
        let failure = match outcome {
            Err(panic) => Some(
                panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or(panic.downcast_ref().copied())
                    .unwrap_or("a panic")
                    .to_owned(),
            ),
            Ok(()) if start.elapsed() > Duration::from_secs(5) => Some("took too long".to_owned()),
            Ok(()) => None,
        };
        if let Some(failure) = failure {
            failures.entry(failure).or_insert_with(|| {
                let path = std::env::temp_dir().join(format!("waylay-fuzz-{seed}-{count}.onnx"));
                std::fs::write(&path, &model).unwrap();
                path
            });
        }
        count += 1;
    }
    assert!(failures.is_empty(), "of {count} models of seed {seed}: {failures:#?}");
    count
}

#[test]
fn damaged_networks_end_in_an_error_or_a_network() {
    fuzz(&networks(), 0, |count| count == 2000);
}

#[test]
#[ignore = "runs for as long as it is told"]
fn damaged_models_end_in_an_error_or_a_network_for_a_while() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let (seconds, seed) = (number("WAYLAY_FUZZ_SECONDS", 600), number("WAYLAY_FUZZ_SEED", 0));
    let mut cases = networks();
    if let Some(folder) = std::env::var_os("WAYLAY_ONNX_NODE_TESTS") {
        cases.extend(node_tests(Path::new(&folder)));
    }
    let end = Instant::now() + Duration::from_secs(seconds);
    let count = fuzz(&cases, seed, |_| Instant::now() >= end);
    println!("{count} damaged models, made of {} whole ones, in {seconds} s (seed {seed})", cases.len());
}
