//! Where constants and shapes come from, and the types they are given.

use super::{Call, Operator, Outcome, one, op};
use crate::target::onnx::constant::{Constant, Values};
use crate::target::onnx::graph::Attribute;
use crate::target::onnx::value::Value;

pub(super) const LIST: &[Operator] = &[
    op("Constant", 0..=0, constant),
    op("ConstantOfShape", 1..=1, constant_of_shape),
    op("Shape", 1..=1, shape),
    op("Size", 1..=1, size),
    op("Range", 3..=3, range),
    op("Cast", 1..=1, |call| cast(call, call.int("to", 0)?)),
    op("CastLike", 2..=2, cast_like),
];

fn constant(call: &Call<'_>) -> Outcome {
    let attributes = &call.node.attributes;
    let found = ["value", "value_int", "value_ints", "value_float", "value_floats"]
        .iter()
        .find_map(|n| attributes.get(*n));
    one(match found {
        Some(Attribute::Tensor(constant)) => constant.clone(),
        Some(Attribute::Int(v)) => Constant { dims: vec![], values: Values::Int(vec![*v]) },
        Some(Attribute::Float(v)) => Constant { dims: vec![], values: Values::Float(vec![*v]) },
        Some(Attribute::Ints(v)) => Constant::ints(v.clone()),
        Some(Attribute::Floats(v)) => Constant { dims: vec![v.len()], values: Values::Float(v.clone()) },
        _ => return Err("no value that is a tensor of numbers".into()),
    })
}

fn constant_of_shape(call: &Call<'_>) -> Outcome {
    let dims = call.ints(0)?.iter().map(|&d| usize::try_from(d).map_err(|_| format!("a dimension of {d}")));
    let dims = call.affordable_known(dims.collect::<Result<_, _>>()?)?;
    let zero = Constant { dims: vec![1], values: Values::Float(vec![0.0]) };
    let value = match call.node.attributes.get("value") {
        None => &zero,
        Some(Attribute::Tensor(v)) if v.len() == 1 => v,
        Some(_) => return Err("a value that is not one number".into()),
    };
    let offsets = vec![0; dims.iter().product()];
    one(value.take(dims, &offsets))
}

/// From `start` to `end`, counted from the end where negative and clamped.
fn shape(call: &Call<'_>) -> Outcome {
    let dims = call.value(0)?.dims();
    let rank = dims.len() as i64;
    let at = |v: i64| (if v < 0 { v.saturating_add(rank) } else { v }).clamp(0, rank) as usize;
    let (start, end) = (at(call.int("start", 0)?), at(call.int("end", rank)?));
    one(Constant::ints(dims.get(start..end).unwrap_or_default().iter().map(|&d| d as i64).collect()))
}

fn size(call: &Call<'_>) -> Outcome {
    let count: usize = call.value(0)?.dims().iter().product();
    one(Constant { dims: vec![], values: Values::Int(vec![count as i64]) })
}

fn range(call: &Call<'_>) -> Outcome {
    let (start, end, step) = (call.constant(0)?, call.constant(1)?, call.constant(2)?);
    let count = |n: f64| match n {
        n if n.is_nan() || n > 1e7 => Err(format!("{n} elements; at most 10,000,000 are supported")),
        n => Ok(n.max(0.0) as usize),
    };
    let values = match (&start.values, &end.values, &step.values) {
        (Values::Int(s), Values::Int(e), Values::Int(d))
            if s.len() == 1 && e.len() == 1 && d.len() == 1 && d[0] != 0 =>
        {
            let n = count(((e[0] as f64 - s[0] as f64) / d[0] as f64).ceil())?;
            Values::Int((0..n as i64).map(|i| s[0].wrapping_add(i.wrapping_mul(d[0]))).collect())
        }
        (Values::Float(s), Values::Float(e), Values::Float(d))
            if s.len() == 1 && e.len() == 1 && d.len() == 1 =>
        {
            let n = count(((f64::from(e[0]) - f64::from(s[0])) / f64::from(d[0])).ceil())?;
            Values::Float((0..n).map(|i| s[0] + i as f32 * d[0]).collect())
        }
        _ => return Err("bounds that are not three numbers of one type, or a step of 0".into()),
    };
    let n = match &values {
        Values::Int(v) => v.len(),
        Values::Float(v) => v.len(),
        Values::Bool(v) => v.len(),
    };
    one(Constant { dims: vec![n], values })
}

/// Between the three kinds of numbers kept here; a tensor on the image's path stays a tensor of `f32`.
fn cast(call: &Call<'_>, to: i64) -> Outcome {
    let float = matches!(to, 1 | 10 | 11 | 16);
    let known = match call.value(0)? {
        tensor @ Value::Tensor(_) if float => return Ok(vec![tensor.clone()]),
        Value::Tensor(_) => {
            return Err(format!("a cast of the image's path to type {to}; only floats are supported"));
        }
        Value::Known(known) => &known.constant,
    };
    let values = match (to, &known.values) {
        (_, Values::Float(_)) if float => known.values.clone(),
        (_, Values::Int(v)) if float => Values::Float(v.iter().map(|&v| v as f32).collect()),
        (_, Values::Bool(v)) if float => Values::Float(v.iter().map(|&v| f32::from(u8::from(v))).collect()),
        (9, Values::Float(v)) => Values::Bool(v.iter().map(|&v| v != 0.0).collect()),
        (9, Values::Int(v)) => Values::Bool(v.iter().map(|&v| v != 0).collect()),
        (9, Values::Bool(_)) => known.values.clone(),
        (2..=7 | 12 | 13, Values::Float(v)) => Values::Int(v.iter().map(|&v| v as i64).collect()),
        (2..=7 | 12 | 13, Values::Int(_)) => known.values.clone(),
        (2..=7 | 12 | 13, Values::Bool(v)) => Values::Int(v.iter().map(|&v| i64::from(v)).collect()),
        _ => return Err(format!("a cast to type {to}")),
    };
    one(Constant { dims: known.dims.clone(), values })
}

/// To the type of the second input.
fn cast_like(call: &Call<'_>) -> Outcome {
    let to = match call.value(1)? {
        Value::Tensor(_) => 1,
        Value::Known(known) => match known.constant.values {
            Values::Float(_) => 1,
            Values::Int(_) => 7,
            Values::Bool(_) => 9,
        },
    };
    cast(call, to)
}
