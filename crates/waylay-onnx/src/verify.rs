//! Comparison with arrays that the user's own framework computed.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use npyz::npz::NpzArchive;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::{Model, OnnxError};

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
    /// How far the network's own gradient moves, relative to its largest element, when the input
    /// moves by a millionth of its largest value. Measured only where gradients differ by more than
    /// [`TOLERANCE`] allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsteady: Option<f32>,
    /// Shape of `input`.
    pub input: Vec<usize>,
    /// Shape of `output`.
    pub output: Vec<usize>,
}

/// Largest difference of values relative to the reference's largest, that passes without being told
/// otherwise.
pub const TOLERANCE: f64 = 1e-4;
/// Gradients go through twice the layers: their tolerance is this many times that of values.
pub const GRADIENT_FACTOR: f64 = 10.0;

/// What rounding can do to a gradient is taken for twice what a few trials showed, and at most for
/// this.
const MOST_UNSTEADY: f32 = 0.2;
/// Inputs beside the given one, to see how steady the gradient is.
const TRIALS: usize = 8;

impl Verification {
    /// Whether values are within `tolerance`, and gradients within [`GRADIENT_FACTOR`] times that,
    /// or within what rounding does to them ([`unsteady`](Self::is_unsteady)).
    pub fn passes(&self, tolerance: f64) -> bool {
        let within = |g: Difference| f64::from(g.max_rel) <= GRADIENT_FACTOR * tolerance;
        let gradient = self.gradient.is_none_or(|g| within(g) || self.is_unsteady());
        f64::from(self.values.max_rel) <= tolerance && gradient
    }

    /// Whether the gradients differ by no more than the network's own gradient does between inputs
    /// that rounding cannot tell apart: rectifiers or maxima sit at a kink, and this input shows
    /// nothing about gradients.
    pub fn is_unsteady(&self) -> bool {
        self.gradient
            .zip(self.unsteady)
            .is_some_and(|(g, moved)| g.max_rel <= (2.0 * moved).min(MOST_UNSTEADY))
    }
}

/// Compares `model` with the arrays in the `.npz` file at `reference`: `input`, `output`, and
/// optionally `cotangent` and `input_grad`, the gradient of sum(output · cotangent) in the input
/// (`cotangent` of ones where left out).
///
/// A gradient jumps where a ReLU sees 0 or a maximum is tied: at an input where rounding decides, a
/// correct gradient can differ by percents of its largest element, and PyTorch in `float32` does
/// from itself in `float64`. So where gradients differ, the network's own gradient is taken at
/// inputs close by as well; see [`Verification::unsteady`].
///
/// `input` is what the *network* takes, after any preprocessing. `float32` or `float64`.
pub fn verify(model: &Model, reference: &Path) -> Result<Verification, OnnxError> {
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
    let expected = model.input_shape();
    let &[count, a, b, c] = &input.shape[..] else {
        return Err(bad(format!("`input` has shape {:?}; need [N, {expected:?}]", input.shape)));
    };
    let dim = model.dim();
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
    let cotangent = cotangent.map_or_else(|| vec![1.0; count * dim], |c| c.values);
    let (embedding, slope) = run(model, &input, gradient.is_some().then_some(&cotangent[..]))?;
    let values = difference(&embedding, &output.values);
    let gradient = gradient.map(|wanted| difference(&slope, &wanted.values));
    let unsteady = match gradient {
        Some(found) if f64::from(found.max_rel) > GRADIENT_FACTOR * TOLERANCE => {
            Some(movement(model, &input, &cotangent, &slope)?)
        }
        _ => None,
    };
    Ok(Verification { values, gradient, unsteady, input: input.shape, output: output.shape })
}

/// The embeddings, and with a cotangent the gradient in the input; empty without.
fn run(model: &Model, input: &Array, cotangent: Option<&[f32]>) -> Result<(Vec<f32>, Vec<f32>), OnnxError> {
    let device = model.device().clone();
    let device = if cotangent.is_some() { device.autodiff() } else { device };
    let x = Tensor::<4>::from_data(TensorData::new(input.values.clone(), &input.shape[..]), &device);
    let x = if cotangent.is_some() { x.require_grad() } else { x };
    // The first pass of a shape makes its plan: what is compared is what every later pass computes.
    model.run(x.clone())?;
    let embedding = model.run(x.clone())?;
    let numbers = |data: TensorData| data.iter::<f32>().collect::<Vec<_>>();
    let slope = match cotangent {
        None => Vec::new(),
        Some(cotangent) => {
            let cotangent = TensorData::new(cotangent.to_vec(), embedding.dims());
            let grads = (embedding.clone() * Tensor::from_data(cotangent, &device)).sum().backward();
            // An output that is constant around this input has no gradient in the tape.
            x.grad(&grads).map_or_else(|| vec![0.0; input.values.len()], |grad| numbers(grad.into_data()))
        }
    };
    Ok((numbers(embedding.into_data()), slope))
}

/// How far `slope`, the gradient at `input`, is from the gradients at inputs within a millionth of
/// it.
fn movement(model: &Model, input: &Array, cotangent: &[f32], slope: &[f32]) -> Result<f32, OnnxError> {
    let step = 1e-6 * input.values.iter().fold(0f32, |most, v| most.max(v.abs()));
    let mut random = StdRng::seed_from_u64(0);
    let mut most = 0f32;
    for _ in 0..TRIALS {
        let values = input.values.iter().map(|v| v + random.random_range(-step..=step)).collect();
        let (_, near) = run(model, &Array { shape: input.shape.clone(), values }, Some(cotangent))?;
        most = most.max(difference(&near, slope).max_rel);
    }
    Ok(most)
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
fn difference(found: &[f32], reference: &[f32]) -> Difference {
    let gap = |(a, b): (&f32, &f32)| if a.is_finite() { (a - b).abs() } else { f32::INFINITY };
    let max_abs = found.iter().zip(reference).map(gap).fold(0.0, f32::max);
    let largest = reference.iter().fold(0f32, |m, v| m.max(v.abs()));
    let max_rel = if max_abs == 0.0 { 0.0 } else { max_abs / largest };
    Difference { max_abs, max_rel }
}

#[cfg(test)]
mod tests {
    use npyz::WriterBuilder;
    use npyz::npz::NpzWriter;
    use prost::Message;

    use super::*;
    use crate::ModelOptions;
    use crate::hostile::relu;

    /// Compares one rectifier per pixel, at an input of `first` and then ones, with a reference
    /// that holds a gradient of 0 there, of 1 elsewhere, where the truth is `share` and 1.
    fn against_a_closed_rectifier(first: f32, share: f32) -> Verification {
        let bytes = relu().encode_to_vec();
        let model = Model::from_bytes("net.onnx", &bytes, ModelOptions::default()).unwrap();
        let path = tempfile::tempdir().unwrap();
        let path = path.path().join("r.npz");
        let mut npz = NpzWriter::create(&path).unwrap();
        let with = |at: f32, others: f32| {
            let mut values = vec![others; 48];
            values[0] = at;
            values
        };
        for (name, values) in [
            ("input", with(first, 1.0)),
            ("output", with(first, 1.0)),
            ("cotangent", with(share, 1.0)),
            ("input_grad", with(0.0, 1.0)),
        ] {
            let array = npz.array(name, Default::default()).unwrap().default_dtype();
            let mut array = array.shape(&[1, 3, 4, 4]).begin_nd().unwrap();
            array.extend(values).unwrap();
            array.finish().unwrap();
        }
        drop(npz);
        verify(&model, &path).unwrap()
    }

    #[test]
    fn a_gradient_at_a_kink_passes_and_is_said() {
        let found = against_a_closed_rectifier(1e-8, 0.1);
        assert!(found.is_unsteady() && found.passes(TOLERANCE), "{found:?}");
    }

    #[test]
    fn a_wrong_gradient_elsewhere_fails() {
        let found = against_a_closed_rectifier(0.5, 0.1);
        assert_eq!(found.unsteady, Some(0.0));
        assert!(!found.is_unsteady() && !found.passes(TOLERANCE), "{found:?}");
    }

    #[test]
    fn a_kink_explains_no_more_than_it_can_move() {
        let found = against_a_closed_rectifier(1e-8, 0.5);
        assert!(found.unsteady.is_some_and(|moved| moved > 0.4) && !found.passes(TOLERANCE), "{found:?}");
    }

    #[test]
    fn what_agrees_is_not_tried_again() {
        let found = against_a_closed_rectifier(0.5, 1e-6);
        assert!(found.unsteady.is_none() && found.passes(TOLERANCE), "{found:?}");
    }
}
