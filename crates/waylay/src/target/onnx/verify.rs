//! Comparison with arrays that the user's own framework computed.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use npyz::npz::NpzArchive;
use serde::{Deserialize, Serialize};

use super::{OnnxError, OnnxTarget};

/// Most elements an array of the reference may have.
const MAX_ELEMENTS: u64 = 1 << 28;

/// How far two arrays are apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Largest absolute difference.
    pub max_abs: f32,
    /// `max_abs` over the largest absolute value of the reference.
    pub max_rel: f32,
}

/// What [`verify`] found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    /// Of the outputs.
    pub values: Difference,
    /// Of the gradients in the input, where the reference holds them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradient: Option<Difference>,
    /// Shape of `input`.
    pub input: Vec<usize>,
    /// Shape of `output`.
    pub output: Vec<usize>,
}

/// Largest difference of values relative to the reference's largest, that passes without being told otherwise.
pub const TOLERANCE: f64 = 1e-4;
/// Gradients go through twice the layers: their tolerance is this many times that of values.
pub const GRADIENT_FACTOR: f64 = 10.0;

impl Verification {
    /// Whether values are within `tolerance`, and gradients within [`GRADIENT_FACTOR`] times that.
    pub fn passes(&self, tolerance: f64) -> bool {
        let gradient = self.gradient.is_none_or(|g| f64::from(g.max_rel) <= GRADIENT_FACTOR * tolerance);
        f64::from(self.values.max_rel) <= tolerance && gradient
    }
}

/// Compares `target` with the arrays in the `.npz` file at `reference`: `input`, `output`, and optionally `cotangent`
/// and `input_grad`, the gradient of sum(output · cotangent) in the input (`cotangent` of ones where left out).
///
/// A gradient jumps where a ReLU sees 0 or a maximum is tied: at an input where rounding decides, a correct gradient can
/// differ by percents of its largest element, and PyTorch in `float32` does from itself in `float64`.
///
/// `input` is what the *network* takes: the target's preprocessing is not applied to it. `float32` or `float64`.
pub fn verify(target: &OnnxTarget, reference: &Path) -> Result<Verification, OnnxError> {
    let bad = |reason: String| OnnxError::Reference { path: reference.to_owned(), reason };
    let file =
        File::open(reference).map_err(|source| OnnxError::Read { path: reference.to_owned(), source })?;
    let mut arrays =
        NpzArchive::new(BufReader::new(file)).map_err(|e| bad(format!("not an npz file: {e}")))?;
    let mut required = |name| match array(&mut arrays, name).map_err(bad)? {
        Some(found) => Ok(found),
        None => Err(bad(format!("holds no array `{name}`"))),
    };
    let (input, output) = (required("input")?, required("output")?);
    let (cotangent, gradient) =
        (array(&mut arrays, "cotangent").map_err(bad)?, array(&mut arrays, "input_grad").map_err(bad)?);
    let expected = target.loaded.network_shape();
    let &[count, a, b, c] = &input.shape[..] else {
        return Err(bad(format!("`input` has shape {:?}; need [N, {expected:?}]", input.shape)));
    };
    let dim = target.loaded.dim;
    if [a, b, c] != expected || count == 0 {
        return Err(bad(format!("`input` has shape {:?}; need [N, {expected:?}]", input.shape)));
    }
    if output.shape.first() != Some(&count) || output.values.len() != count * dim {
        return Err(bad(format!("`output` has shape {:?}; need [{count}, {dim}]", output.shape)));
    }
    if let Some(found) = cotangent.iter().find(|c| c.values.len() != count * dim) {
        return Err(bad(format!("`cotangent` has shape {:?}; need [{count}, {dim}]", found.shape)));
    }
    if let Some(found) = gradient.iter().find(|g| g.shape != input.shape) {
        return Err(bad(format!("`input_grad` has shape {:?}; need {:?}", found.shape, input.shape)));
    }
    let device = if gradient.is_some() { Device::flex().autodiff() } else { Device::flex() };
    let mut x = Tensor::<4>::from_data(TensorData::new(input.values, [count, a, b, c]), &device);
    if gradient.is_some() {
        x = x.require_grad();
    }
    let (embedding, _) = target.loaded.run(x.clone(), false)?;
    let values = difference(embedding.clone(), &output.values);
    let gradient = match gradient {
        None => None,
        Some(wanted) => {
            let ones = || vec![1.0; count * dim];
            let cotangent = TensorData::new(cotangent.map_or_else(ones, |c| c.values), [count, dim]);
            let grads = (embedding * Tensor::from_data(cotangent, &device)).sum().backward();
            let found =
                x.grad(&grads).ok_or_else(|| bad("the output does not depend on the input".into()))?;
            Some(difference(found, &wanted.values))
        }
    };
    Ok(Verification { values, gradient, input: input.shape, output: output.shape })
}

struct Array {
    shape: Vec<usize>,
    values: Vec<f32>,
}

fn array(arrays: &mut NpzArchive<BufReader<File>>, name: &str) -> Result<Option<Array>, String> {
    let fail = |e: std::io::Error| format!("array `{name}`: {e}");
    let Some(file) = arrays.by_name(name).map_err(fail)? else { return Ok(None) };
    let shape = file.shape().iter().map(|&d| d as usize).collect::<Vec<_>>();
    if file.order() != npyz::Order::C {
        return Err(format!("array `{name}` is in Fortran order; need C order"));
    }
    let count = file.shape().iter().try_fold(1u64, |p, &d| p.checked_mul(d));
    if count.is_none_or(|n| n > MAX_ELEMENTS) {
        return Err(format!("array `{name}` has shape {shape:?}; at most {MAX_ELEMENTS} elements are read"));
    }
    let values: Vec<f32> = match file.try_data::<f32>() {
        Ok(data) => data.collect::<Result<_, _>>().map_err(fail)?,
        Err(file) => match file.try_data::<f64>() {
            Ok(data) => data.map(|v| v.map(|v| v as f32)).collect::<Result<_, _>>().map_err(fail)?,
            Err(file) => {
                return Err(format!("array `{name}` has type {:?}; need float32 or float64", file.dtype()));
            }
        },
    };
    match values.iter().position(|v| !v.is_finite()) {
        Some(at) => Err(format!("array `{name}` holds {} at {at}; need finite numbers", values[at])),
        None => Ok(Some(Array { shape, values })),
    }
}

/// A result that is not a number is infinitely far away.
fn difference<const D: usize>(found: Tensor<D>, reference: &[f32]) -> Difference {
    let found = found.into_data();
    let gap = |(a, b): (f32, &f32)| if a.is_finite() { (a - b).abs() } else { f32::INFINITY };
    let max_abs = found.iter::<f32>().zip(reference).map(gap).fold(0.0, f32::max);
    let largest = reference.iter().fold(0f32, |m, v| m.max(v.abs()));
    let max_rel = if max_abs == 0.0 { 0.0 } else { max_abs / largest };
    Difference { max_abs, max_rel }
}
