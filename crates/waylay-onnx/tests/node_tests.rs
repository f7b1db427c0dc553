//! ONNX's own backend node tests. Data: `scripts/golden/onnx_node_tests.py DIR`, then
//! `WAYLAY_ONNX_NODE_TESTS=DIR cargo test --release --workspace --test node_tests -- --ignored
//! --nocapture`.

#![allow(clippy::print_stdout)]
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use waylay_onnx::{NodeTest, node_test};

/// What is dropped at random is numpy's choice.
const RANDOM: [&str; 4] = [
    "test_training_dropout",
    "test_training_dropout_default",
    "test_training_dropout_default_mask",
    "test_training_dropout_mask",
];

fn messages(folder: &Path, kind: &str) -> Vec<Vec<u8>> {
    let path = |i| folder.join(format!("{kind}_{i}.pb"));
    (0..).map_while(|i| std::fs::read(path(i)).ok()).collect()
}

fn run(folder: &Path) -> NodeTest {
    let text = std::fs::read_to_string(folder.join("tolerance.json")).unwrap();
    let tolerance: Value = serde_json::from_str(&text).unwrap();
    let number = |key: &str| tolerance[key].as_f64().unwrap() as f32;
    let model = std::fs::read(folder.join("model.onnx")).unwrap();
    node_test(
        &model,
        &messages(folder, "input"),
        &messages(folder, "output"),
        [number("rtol"), number("atol")],
    )
}

#[test]
#[ignore = "needs WAYLAY_ONNX_NODE_TESTS, the folder that scripts/golden/onnx_node_tests.py writes"]
fn every_test_of_a_listed_operator_passes() {
    let folder = std::env::var_os("WAYLAY_ONNX_NODE_TESTS").expect("WAYLAY_ONNX_NODE_TESTS names a folder");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    cases.sort();
    cases.retain(|case| !RANDOM.iter().any(|name| case.ends_with(name)));
    let (mut on_path, mut known, mut other) = (0, 0, Vec::new());
    let mut unsupported: BTreeMap<String, usize> = BTreeMap::new();
    let mut failures = BTreeSet::new();
    for case in &cases {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let result = std::panic::catch_unwind(|| run(case));
        match result.unwrap_or_else(|_| NodeTest::Failed { reason: "panic".into() }) {
            NodeTest::Passed { on_image_path: true } => on_path += 1,
            NodeTest::Passed { on_image_path: false } => known += 1,
            NodeTest::Unsupported { operator } => *unsupported.entry(operator).or_default() += 1,
            NodeTest::OtherType => other.push(name),
            NodeTest::Failed { reason } => {
                failures.insert(format!("{name}: {reason}"));
            }
        }
    }
    failures.iter().for_each(|failure| println!("failed: {failure}"));
    println!(
        "{} tests: {} passed ({on_path} on tensors with gradients, {known} on constants), {} failed; \
         {} of types that no image network holds; {} of operators that are not listed: {}",
        cases.len(),
        on_path + known,
        failures.len(),
        other.len(),
        unsupported.values().sum::<usize>(),
        unsupported.keys().cloned().collect::<Vec<_>>().join(", ")
    );
    assert!(on_path > 100, "the folder holds no tests");
    assert!(failures.is_empty(), "{} failures", failures.len());
}
