//! Networks from ONNX files against PyTorch: values and input gradients.
//! Models and arrays: `scripts/golden/onnx_models.py`.

#![allow(clippy::print_stdout)]
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use waylay_onnx::{Model, ModelOptions, inspect, verify};

const VALUES: f32 = 1e-4;
const GRADIENTS: f32 = 1e-3;

fn open(path: &Path) -> Model {
    Model::open(path, ModelOptions::default()).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Compares every model in `folder` with the arrays of the same first name, and gives how many
/// there were.
fn check_all(folder: &Path) -> usize {
    let mut models: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    models.retain(|p| p.extension().is_some_and(|e| e == "onnx"));
    models.sort();
    let mut failures = Vec::new();
    for path in &models {
        let name = path.file_name().unwrap().to_str().unwrap();
        let model = open(path);
        let found = verify(&model, &folder.join(name.split('.').next().unwrap()).with_extension("npz"));
        let found = found.unwrap_or_else(|e| panic!("{name}: {e}"));
        let gradient = found.gradient.expect("the reference holds a gradient");
        println!(
            "{name}: values {:.1e} abs, {:.1e} rel; gradient {:.1e} abs, {:.1e} rel; batch {:?}, taps {:?}",
            found.values.max_abs,
            found.values.max_rel,
            gradient.max_abs,
            gradient.max_rel,
            model.fixed_batch(),
            model.taps().iter().map(|t| t.size).collect::<Vec<_>>()
        );
        if found.values.max_rel > VALUES || gradient.max_rel > GRADIENTS {
            failures.push(format!("{name}: {found:?}"));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    models.len()
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/onnx")
}

#[test]
fn small_networks_agree_with_pytorch() {
    assert_eq!(check_all(&golden()), 9);
}

#[test]
#[ignore = "needs WAYLAY_ONNX_MODELS, the folder that scripts/golden/onnx_models.py --full writes"]
fn full_size_networks_agree_with_pytorch() {
    let folder = std::env::var_os("WAYLAY_ONNX_MODELS").expect("WAYLAY_ONNX_MODELS names a folder");
    let count = check_all(Path::new(&folder));
    assert!(count > 0, "`{}` holds no models", folder.display());
    println!("{count} models agree");
}

#[test]
fn inspection_counts_what_is_in_the_file() {
    let found = inspect(&golden().join("face.legacy9_static.onnx"), &ModelOptions::default()).unwrap();
    assert_eq!((found.opset, found.problem.as_deref()), (9, None));
    assert_eq!(found.input.shape, [Some(1), Some(3), Some(32), Some(32)]);
    assert_eq!(found.dim, Some(16));
    let convs = found.operators.iter().find(|o| o.name == "Conv").unwrap();
    assert_eq!((convs.count, convs.supported), (5, true));
    assert!(found.parameters > 16_000 && found.multiply_adds.unwrap() > 16_384, "{found:?}");
}

#[test]
fn a_graph_declared_for_one_image_runs_on_many_where_it_can() {
    assert_eq!(open(&golden().join("face.legacy9_static.onnx")).fixed_batch(), None);
}
