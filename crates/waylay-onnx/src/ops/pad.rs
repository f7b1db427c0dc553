//! Padding with a constant, with the edge, or with a reflection.

use burn::tensor::ops::PadMode;

use super::call::{self, Call};
use super::slice::select;
use super::{Operator, Outcome, one, op};
use crate::constant::Values;
use crate::value::{Ranked, Value, map_rank};

/// Most pixels that are added or taken away at an end.
const LIMIT: i64 = 1 << 16;

pub(super) const LIST: &[Operator] = &[op("Pad", 1..=4, pad)];

/// Amounts are attributes up to operator set 10 and inputs from 11 on; negative ones take away.
fn pad(call: &Call<'_>) -> Outcome {
    let mut x = call.tensor(0)?;
    let dims = x.dims();
    let amounts = call.ints_from("pads", 1)?.ok_or("no pads")?;
    let axes = match call.has(3) {
        true => call.ints(3)?.iter().map(|&a| call::axis(a, dims.len())).collect::<Result<Vec<_>, _>>()?,
        false => (0..dims.len()).collect(),
    };
    if amounts.len() != axes.len() * 2 || amounts.iter().any(|p| !(-LIMIT..=LIMIT).contains(p)) {
        return Err(format!("pads {amounts:?}; need two numbers from -{LIMIT} to {LIMIT} per axis"));
    }
    let mut pairs = vec![(0, 0); dims.len()];
    for (i, &axis) in axes.iter().enumerate() {
        let (before, after) = (amounts[i], amounts[i + axes.len()]);
        let [front, back] = [before, after].map(|p| p.min(0).unsigned_abs() as usize);
        let left = dims[axis].checked_sub(front + back).filter(|n| *n > 0);
        let left = left.ok_or_else(|| format!("pads {amounts:?} take all of shape {dims:?}"))?;
        if left != dims[axis] {
            x = x.narrow(axis, front, left);
        }
        pairs[axis] = (before.max(0) as usize, after.max(0) as usize);
    }
    let dims = x.dims();
    call.affordable(dims.iter().zip(&pairs).map(|(d, (a, b))| d + a + b).collect())?;
    if pairs.iter().all(|p| *p == (0, 0)) {
        return one(x);
    }
    let mode = match call.text("mode", "constant")? {
        "constant" => PadMode::Constant(filler(call)?),
        "edge" => PadMode::Edge,
        "reflect" if dims.iter().zip(&pairs).all(|(&d, &(a, b))| a.max(b) < d) => PadMode::Reflect,
        "wrap" => return wrapped(call, x, &pairs),
        "reflect" => return Err(format!("a reflection of {pairs:?} in shape {dims:?}")),
        other => return Err(format!("mode `{other}`; known are constant, edge, reflect and wrap")),
    };
    one(map_rank!(x, t => t.pad(&pairs[..], mode)))
}

/// The image starts over at its edges.
fn wrapped(call: &Call<'_>, x: Ranked, pairs: &[(usize, usize)]) -> Outcome {
    let mut value = x.into();
    for (axis, &(before, after)) in pairs.iter().enumerate().filter(|(_, p)| **p != (0, 0)) {
        let length = Value::dims(&value)[axis];
        let skip = length - before % length;
        let indices: Vec<usize> = (0..before + length + after).map(|i| (skip + i) % length).collect();
        value = select(call, &value, axis, &indices)?;
    }
    Ok(vec![value])
}

fn filler(call: &Call<'_>) -> Result<f32, String> {
    if !call.has(2) {
        return Ok(call.float("value")?.unwrap_or(0.0));
    }
    match &call.constant(2)?.values {
        Values::Float(v) if v.len() == 1 => Ok(v[0]),
        Values::Int(v) if v.len() == 1 => Ok(v[0] as f32),
        _ => Err("a filling value that is not one number".into()),
    }
}
