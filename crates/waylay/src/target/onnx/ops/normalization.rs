//! Normalisation by stored or by measured statistics.

use burn::tensor::Tensor;

use super::call::{self, Call};
use super::{Operator, Outcome, one, op};
use crate::target::onnx::value::{Ranked, map_rank, zip_rank};

pub(super) const LIST: &[Operator] = &[
    op("BatchNormalization", 5..=5, batch),
    op("InstanceNormalization", 3..=3, instance),
    op("LayerNormalization", 2..=3, layer),
    op("LpNormalization", 1..=1, lp),
];

/// With stored mean and variance: a scale and a shift per channel.
fn batch(call: &Call<'_>) -> Outcome {
    if call.int("training_mode", 0)? != 0 || call.int("spatial", 1)? != 1 {
        return Err("only inference with statistics per channel is supported".into());
    }
    let x = call.tensor(0)?;
    let dims = x.dims();
    let channels = *dims.get(1).ok_or("an input without channels")?;
    let epsilon = call.float("epsilon")?.unwrap_or(1e-5);
    let (gamma, beta) = (call.vector(1, channels)?, call.vector(2, channels)?);
    let (mean, variance) = (call.vector(3, channels)?, call.vector(4, channels)?);
    let scale = gamma / (variance + epsilon).sqrt();
    let shift = beta - mean * scale.clone();
    let mut shape = vec![1; dims.len()];
    shape[1] = channels;
    let scaled = zip_rank!(x, Ranked::R1(scale).reshape(&shape)?, (x, s) => x * s)?;
    one(zip_rank!(scaled, Ranked::R1(shift).reshape(&shape)?, (x, s) => x + s)?)
}

fn instance(call: &Call<'_>) -> Outcome {
    let x = call.tensor(0)?;
    let dims = x.dims();
    let epsilon = f64::from(call.float("epsilon")?.unwrap_or(1e-5));
    let [n, channels, rest @ ..] = &dims[..] else { return Err("an input without channels".into()) };
    let (gamma, beta) = (call.vector(1, *channels)?, call.vector(2, *channels)?);
    let Ranked::R4(flat) = x.reshape(&[*n, *channels, 1, rest.iter().product()])? else {
        return Err("an input of no rank".into());
    };
    one(Ranked::R4(waylay_conv::instance_norm(flat, gamma, beta, epsilon)).reshape(&dims)?)
}

/// Over all axes from `axis` on.
fn layer(call: &Call<'_>) -> Outcome {
    if call.node.outputs.iter().skip(1).any(Option::is_some) {
        return Err("mean and deviation as outputs are not supported".into());
    }
    let x = call.tensor(0)?;
    let dims = x.dims();
    let axis = call::axis(call.int("axis", -1)?, dims.len())?;
    let epsilon = call.float("epsilon")?.unwrap_or(1e-5);
    let width: usize = dims[axis..].iter().product();
    let rows: usize = dims[..axis].iter().product();
    let flat_vector = |index| match call.tensor(index)?.reshape(&[width])? {
        Ranked::R1(t) => Ok(t.reshape([1, width])),
        _ => Err("a scale of no rank".to_owned()),
    };
    let Ranked::R2(flat) = x.reshape(&[rows, width])? else { return Err("an input of no rank".into()) };
    let centred = flat.clone() - flat.mean_dim(1);
    let variance = (centred.clone() * centred.clone()).mean_dim(1);
    let mut y: Tensor<2> = centred / (variance + epsilon).sqrt() * flat_vector(1)?;
    if call.has(2) {
        y = y + flat_vector(2)?;
    }
    one(Ranked::R2(y).reshape(&dims)?)
}

/// Divides by the 1- or 2-norm along an axis; a zero vector stays zero.
fn lp(call: &Call<'_>) -> Outcome {
    let x = call.tensor(0)?;
    let axis = call::axis(call.int("axis", -1)?, x.rank())?;
    let p = call.int("p", 2)?;
    if !(1..=2).contains(&p) {
        return Err(format!("p of {p}; need 1 or 2"));
    }
    one(map_rank!(x, t => {
        let sum = if p == 1 { t.clone().abs() } else { t.clone() * t.clone() }.sum_dim(axis);
        let empty = sum.clone().equal_elem(0.0);
        let sum = sum.mask_fill(empty, 1.0);
        t / if p == 1 { sum } else { sum.sqrt() }
    }))
}
