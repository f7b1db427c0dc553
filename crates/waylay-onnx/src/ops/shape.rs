//! Where constants and shapes come from, and the types they are given.

use super::call::axis;
use super::{Call, Operator, Outcome, one, op};
use crate::constant::{Constant, Values, for_each_index, strides};
use crate::graph::Attribute;
use crate::value::{Value, map_rank, zip_rank};

pub(super) const LIST: &[Operator] = &[
    op("Constant", 0..=0, constant),
    op("ConstantOfShape", 1..=1, constant_of_shape),
    op("Shape", 1..=1, shape),
    op("Size", 1..=1, size),
    op("Range", 3..=3, range),
    op("Cast", 1..=1, |call| cast(call, call.int("to", 0)?)),
    op("CastLike", 2..=2, cast_like),
    op("EyeLike", 1..=1, eye_like),
    op("OneHot", 3..=3, one_hot),
    op("NonZero", 1..=1, non_zero),
    op("Trilu", 1..=2, triangle),
    op("CumSum", 2..=2, running_sum),
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

/// Between the three kinds of numbers kept here; a tensor on the image's path stays a tensor of
/// `f32`.
fn cast(call: &Call<'_>, to: i64) -> Outcome {
    let float = matches!(to, 1 | 10 | 11 | 16);
    let known = match call.value(0)? {
        tensor @ Value::Tensor(_) if float => return Ok(vec![tensor.clone()]),
        // A boolean on the image's path is 0 or 1.
        Value::Tensor(tensor) if to == 9 => {
            return one(map_rank!(tensor.clone(), t => t.not_equal_elem(0.0).float()));
        }
        Value::Tensor(_) => {
            return Err(format!("a cast of the image's path to type {to}; only floats are supported"));
        }
        Value::Known(known) => &known.constant,
    };
    let values = match (to, &known.values) {
        (10, Values::Float(v)) => Values::Float(v.iter().map(|&v| half::f16::from_f32(v).to_f32()).collect()),
        (16, Values::Float(v)) => {
            Values::Float(v.iter().map(|&v| half::bf16::from_f32(v).to_f32()).collect())
        }
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

/// Ones on a diagonal of a matrix that is as large as the input.
fn eye_like(call: &Call<'_>) -> Outcome {
    let dims = call.value(0)?.dims();
    let &[rows, columns] = &dims[..] else { return Err(format!("shape {dims:?}; need a matrix")) };
    call.affordable_known(dims.clone())?;
    let k = call.int("k", 0)?;
    let one_at = |i: usize| ((i % columns) as i64).checked_sub(k) == Some((i / columns) as i64);
    let ints = matches!(call.value(0)?, Value::Known(v) if v.constant.as_ints().is_some());
    let to = call.int("dtype", if ints { 7 } else { 1 })?;
    let flags = (0..rows * columns).map(one_at);
    let values = match to {
        1 | 10 | 11 | 16 => Values::Float(flags.map(|f| f32::from(u8::from(f))).collect()),
        9 => Values::Bool(flags.collect()),
        _ => Values::Int(flags.map(i64::from).collect()),
    };
    one(Constant { dims, values })
}

/// `on` at the given positions along a new axis, `off` elsewhere.
fn one_hot(call: &Call<'_>) -> Outcome {
    let positions = call.constant(0)?;
    let depth = match &call.constant(1)?.values {
        Values::Int(v) if v.len() == 1 => v[0],
        Values::Float(v) if v.len() == 1 => v[0] as i64,
        _ => return Err("a depth that is not one number".into()),
    };
    let depth = usize::try_from(depth).map_err(|_| format!("a depth of {depth}"))?;
    let wanted: Vec<i64> = match &positions.values {
        Values::Int(v) => v.clone(),
        Values::Float(v) => v.iter().map(|&v| v as i64).collect(),
        Values::Bool(_) => return Err("positions that are booleans".into()),
    };
    let off_on = call.constant(2)?;
    if off_on.len() != 2 {
        return Err("need two values, off and on".into());
    }
    let rank = positions.dims.len();
    let axis = axis(call.int("axis", -1)?, rank + 1)?;
    let mut dims = positions.dims.clone();
    dims.insert(axis, depth);
    let dims = call.affordable_known(dims)?;
    let inner: usize = positions.dims[axis..].iter().product();
    let at = |i: usize| {
        let (outer, place, rest) = (i / (depth * inner), i / inner % depth, i % inner);
        let own = wanted[outer * inner + rest];
        usize::from(own == place as i64 || own + depth as i64 == place as i64)
    };
    let offsets: Vec<usize> = (0..dims.iter().product()).map(at).collect();
    one(off_on.take(dims, &offsets))
}

/// The positions of all elements but zero, one column each.
fn non_zero(call: &Call<'_>) -> Outcome {
    let x = call.constant(0)?;
    let holds: Vec<bool> = match &x.values {
        Values::Float(v) => v.iter().map(|v| *v != 0.0).collect(),
        Values::Int(v) => v.iter().map(|v| *v != 0).collect(),
        Values::Bool(v) => v.clone(),
    };
    let mut found = vec![Vec::new(); x.dims.len()];
    let mut at = 0;
    for_each_index(&x.dims, |index| {
        if holds[at] {
            index.iter().zip(&mut found).for_each(|(&i, list)| list.push(i as i64));
        }
        at += 1;
    });
    let count = found.first().map_or(0, Vec::len);
    one(Constant { dims: vec![x.dims.len(), count], values: Values::Int(found.concat()) })
}

/// The upper or lower triangle of the last two dimensions; the rest is zero.
fn triangle(call: &Call<'_>) -> Outcome {
    let value = call.value(0)?;
    let dims = value.dims();
    let &[.., rows, columns] = &dims[..] else { return Err(format!("shape {dims:?}; need matrices")) };
    let k = if call.has(1) { *call.ints(1)?.first().ok_or("no diagonal")? } else { 0 };
    let upper = call.int("upper", 1)? != 0;
    let kept = |i: usize| {
        let gap = (i % columns) as i64 - (i / columns % rows) as i64;
        if upper { gap >= k } else { gap <= k }
    };
    let count = call.affordable(dims.clone())?.iter().product::<usize>();
    if let Value::Known(known) = value {
        let values = match &known.constant.values {
            Values::Float(v) => Values::Float((0..count).map(|i| if kept(i) { v[i] } else { 0.0 }).collect()),
            Values::Int(v) => Values::Int((0..count).map(|i| if kept(i) { v[i] } else { 0 }).collect()),
            Values::Bool(v) => Values::Bool((0..count).map(|i| kept(i) && v[i]).collect()),
        };
        return one(Constant { dims, values });
    }
    let mask = (0..rows * columns).map(|i| f32::from(u8::from(kept(i)))).collect();
    let mask = Value::known(Constant { dims: vec![rows, columns], values: Values::Float(mask) });
    let (x, mask) = (value.to_tensor(call.device)?, mask.to_tensor(call.device)?.with_rank(dims.len())?);
    one(zip_rank!(x, mask, (x, m) => x * m)?)
}

/// Only of what is known.
fn running_sum(call: &Call<'_>) -> Outcome {
    let x = call.constant(0)?;
    let along = *call.ints(1)?.first().ok_or("no axis")?;
    let axis = axis(along, x.dims.len())?;
    let (exclusive, reverse) = (call.int("exclusive", 0)? != 0, call.int("reverse", 0)? != 0);
    let (step, length) = (strides(&x.dims)[axis], x.dims[axis]);
    fn sums<T: Copy + Default + std::ops::Add<Output = T>>(
        v: &[T],
        [step, length]: [usize; 2],
        [exclusive, reverse]: [bool; 2],
    ) -> Vec<T> {
        let mut result = v.to_vec();
        for start in (0..v.len()).filter(|i| i / step % length.max(1) == 0) {
            let mut sum = T::default();
            for n in 0..length {
                let at = start + step * if reverse { length - 1 - n } else { n };
                result[at] = if exclusive { sum } else { sum + v[at] };
                sum = sum + v[at];
            }
        }
        result
    }
    let values = match &x.values {
        Values::Float(v) => Values::Float(sums(v, [step, length], [exclusive, reverse])),
        Values::Int(v) => Values::Int(sums(v, [step, length], [exclusive, reverse])),
        Values::Bool(_) => return Err("booleans where numbers are needed".into()),
    };
    one(Constant { dims: x.dims.clone(), values })
}
