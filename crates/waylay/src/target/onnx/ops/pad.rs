//! Padding with a constant, with the edge, or with a reflection.

use burn::tensor::ops::PadMode;

use super::call::{self, Call};
use super::{Operator, Outcome, one, op};
use crate::target::onnx::constant::Values;
use crate::target::onnx::value::map_rank;

pub(super) const LIST: &[Operator] = &[op("Pad", 1..=4, pad)];

/// Amounts are attributes up to operator set 10 and inputs from 11 on.
fn pad(call: &Call<'_>) -> Outcome {
    let x = call.tensor(0)?;
    let dims = x.dims();
    let amounts = call.ints_from("pads", 1)?.ok_or("no pads")?;
    let axes = match call.has(3) {
        true => call.ints(3)?.iter().map(|&a| call::axis(a, dims.len())).collect::<Result<Vec<_>, _>>()?,
        false => (0..dims.len()).collect(),
    };
    if amounts.len() != axes.len() * 2 || amounts.iter().any(|p| !(0..=1 << 16).contains(p)) {
        return Err(format!("pads {amounts:?}; need two numbers from 0 to 65536 per axis"));
    }
    let mut pairs = vec![(0, 0); dims.len()];
    for (i, &axis) in axes.iter().enumerate() {
        pairs[axis] = (amounts[i] as usize, amounts[i + axes.len()] as usize);
    }
    call.affordable(dims.iter().zip(&pairs).map(|(d, (a, b))| d + a + b).collect())?;
    let mode = match call.text("mode", "constant")? {
        "constant" => PadMode::Constant(filler(call)?),
        "edge" => PadMode::Edge,
        "reflect" if dims.iter().zip(&pairs).all(|(&d, &(a, b))| a.max(b) < d) => PadMode::Reflect,
        "reflect" => return Err(format!("a reflection of {pairs:?} in shape {dims:?}")),
        other => return Err(format!("mode `{other}`; known are constant, edge and reflect")),
    };
    if pairs.iter().all(|p| *p == (0, 0)) {
        return one(x);
    }
    one(map_rank!(x, t => t.pad(&pairs[..], mode)))
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
