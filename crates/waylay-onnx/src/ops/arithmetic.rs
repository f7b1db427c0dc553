//! Arithmetic on floats of the image's path, and on floats and integers known without it.

use super::call::{self, Call, broadcast};
use super::{Operator, Outcome, one, op, taking};
use crate::constant::{Constant, Values, for_each_index, strides};
use crate::value::{Ranked, Value, map_rank, zip_rank};

pub(super) const LIST: &[Operator] = &[
    taking("Add", 2..=2, |call| {
        binary(call, |a, b| a + b, i64::checked_add, |a, b| zip_rank!(a, b, (x, y) => x + y))
    }),
    taking("Sub", 2..=2, |call| {
        binary(call, |a, b| a - b, i64::checked_sub, |a, b| zip_rank!(a, b, (x, y) => x - y))
    }),
    taking("Mul", 2..=2, |call| {
        binary(call, |a, b| a * b, i64::checked_mul, |a, b| zip_rank!(a, b, (x, y) => x * y))
    }),
    taking("Div", 2..=2, |call| {
        binary(call, |a, b| a / b, i64::checked_div, |a, b| zip_rank!(a, b, (x, y) => x / y))
    }),
    op("Mod", 2..=2, remainder),
    op("Min", 1..=64, |call| {
        extreme(call, f32::min, i64::min, |a, b| zip_rank!(a, b, (x, y) => x.min_pair(y)))
    }),
    op("Max", 1..=64, |call| {
        extreme(call, f32::max, i64::max, |a, b| zip_rank!(a, b, (x, y) => x.max_pair(y)))
    }),
    taking("Sum", 1..=64, total),
    taking("Mean", 1..=64, |call| {
        let count = call.inputs.len() as f32;
        let sum = match total(call)?.pop() {
            Some(Value::Tensor(sum)) => sum,
            Some(known) => known.to_tensor(call.device)?,
            None => return Err("a mean of nothing".into()),
        };
        one(map_rank!(sum, t => t / count))
    }),
    op("Pow", 2..=2, power),
    op("Sqrt", 1..=1, |call| unary(call, f32::sqrt, |t| map_rank!(t, t => t.sqrt()))),
    op("Reciprocal", 1..=1, |call| unary(call, f32::recip, |t| map_rank!(t, t => t.recip()))),
    op("Exp", 1..=1, |call| unary(call, f32::exp, |t| map_rank!(t, t => t.exp()))),
    op("Log", 1..=1, |call| unary(call, f32::ln, |t| map_rank!(t, t => t.log()))),
    op("Floor", 1..=1, |call| unary(call, f32::floor, |t| map_rank!(t, t => t.floor()))),
    op("Ceil", 1..=1, |call| unary(call, f32::ceil, |t| map_rank!(t, t => t.ceil()))),
    op("Round", 1..=1, |call| unary(call, f32::round_ties_even, |t| map_rank!(t, t => t.round()))),
    op("Sin", 1..=1, |call| unary(call, f32::sin, |t| map_rank!(t, t => t.sin()))),
    op("Cos", 1..=1, |call| unary(call, f32::cos, |t| map_rank!(t, t => t.cos()))),
    op("Sign", 1..=1, |call| {
        let sign = |v: f32| if v == 0.0 { 0.0 } else { v.signum() };
        signed(call, sign, |v| Some(v.signum()), |t| map_rank!(t, t => t.sign()))
    }),
    op("Neg", 1..=1, |call| signed(call, |v| -v, i64::checked_neg, |t| map_rank!(t, t => t.neg()))),
    op("Abs", 1..=1, |call| signed(call, f32::abs, i64::checked_abs, |t| map_rank!(t, t => t.abs()))),
];

/// A shape, and for each of its elements an offset in either operand.
type Pairs = (Vec<usize>, Vec<(usize, usize)>);

/// The elements of `a` and `b` repeated to a common shape, in pairs of offsets.
pub(super) fn pairs(a: &Constant, b: &Constant) -> Result<Pairs, String> {
    let dims = broadcast(&a.dims, &b.dims)?;
    let steps = |of: &Constant| {
        let lead = dims.len() - of.dims.len();
        let own = strides(&of.dims);
        let step = |i: usize| if i < lead || of.dims[i - lead] == 1 { 0 } else { own[i - lead] };
        (0..dims.len()).map(step).collect::<Vec<_>>()
    };
    let (sa, sb) = (steps(a), steps(b));
    let mut offsets = Vec::new();
    let dot = |index: &[usize], steps: &[usize]| index.iter().zip(steps).map(|(i, s)| i * s).sum();
    for_each_index(&dims, |index| offsets.push((dot(index, &sa), dot(index, &sb))));
    Ok((dims, offsets))
}

fn binary(
    call: &mut Call<'_>,
    floats: fn(f32, f32) -> f32,
    ints: fn(i64, i64) -> Option<i64>,
    tensors: fn(Ranked, Ranked) -> Result<Ranked, String>,
) -> Outcome {
    if call.all_known() {
        return one(known(call, call.constant(0)?, call.constant(1)?, floats, ints)?);
    }
    let (a, b) = (call.take(0)?, call.take(1)?);
    let rank = call.affordable(broadcast(&a.dims(), &b.dims())?)?.len();
    one(tensors(a.with_rank(rank)?, b.with_rank(rank)?)?)
}

fn known(
    call: &Call<'_>,
    a: &Constant,
    b: &Constant,
    floats: fn(f32, f32) -> f32,
    ints: fn(i64, i64) -> Option<i64>,
) -> Result<Constant, String> {
    call.affordable_known(broadcast(&a.dims, &b.dims)?)?;
    let (dims, offsets) = pairs(a, b)?;
    let values = match (&a.values, &b.values) {
        (Values::Float(x), Values::Float(y)) => {
            Values::Float(offsets.iter().map(|&(i, j)| floats(x[i], y[j])).collect())
        }
        (Values::Int(x), Values::Int(y)) => {
            let results = offsets.iter().map(|&(i, j)| ints(x[i], y[j]));
            Values::Int(results.collect::<Option<_>>().ok_or("integer division by zero or overflow")?)
        }
        _ => return Err("operands of different or boolean types".into()),
    };
    Ok(Constant { dims, values })
}

/// The sum of any number of inputs.
fn total(call: &mut Call<'_>) -> Outcome {
    let inputs = std::mem::take(&mut call.inputs);
    let mut inputs = inputs.into_iter().enumerate().map(|(i, v)| v.ok_or(format!("input {i} is missing")));
    let mut sum = inputs.next().ok_or("a sum of nothing")??;
    for input in inputs {
        let inputs = vec![Some(sum), Some(input?)];
        let mut pair = Call {
            node: call.node,
            opset: call.opset,
            inputs,
            device: call.device,
            batch: call.batch,
            prepared: None,
        };
        let added =
            binary(&mut pair, |a, b| a + b, i64::checked_add, |a, b| zip_rank!(a, b, (x, y) => x + y))?;
        sum = added.into_iter().next().ok_or("a sum of nothing")?;
    }
    Ok(vec![sum])
}

/// The sign is the divisor's for integers, and the dividend's where `fmod` is set.
fn remainder(call: &Call<'_>) -> Outcome {
    let (a, b) = (call.constant(0)?, call.constant(1)?);
    if call.int("fmod", 0)? != 0 {
        return one(known(call, a, b, |x, y| x % y, i64::checked_rem)?);
    }
    let floor =
        |x: i64, y: i64| x.checked_rem(y).map(|r| if r != 0 && (r < 0) != (y < 0) { r + y } else { r });
    let float = |x: f32, y: f32| match x % y {
        r if r != 0.0 && (r < 0.0) != (y < 0.0) => r + y,
        r => r,
    };
    one(known(call, a, b, float, floor)?)
}

/// The least or greatest of any number of inputs.
fn extreme(
    call: &Call<'_>,
    floats: fn(f32, f32) -> f32,
    ints: fn(i64, i64) -> i64,
    tensors: fn(Ranked, Ranked) -> Result<Ranked, String>,
) -> Outcome {
    if call.all_known() {
        let mut result = call.constant(0)?.clone();
        for index in 1..call.inputs.len() {
            let b = call.constant(index)?;
            call.affordable_known(broadcast(&result.dims, &b.dims)?)?;
            let (dims, offsets) = pairs(&result, b)?;
            let values = match (&result.values, &b.values) {
                (Values::Float(x), Values::Float(y)) => {
                    Values::Float(offsets.iter().map(|&(i, j)| floats(x[i], y[j])).collect())
                }
                (Values::Int(x), Values::Int(y)) => {
                    Values::Int(offsets.iter().map(|&(i, j)| ints(x[i], y[j])).collect())
                }
                _ => return Err("operands of different or boolean types".into()),
            };
            result = Constant { dims, values };
        }
        return one(result);
    }
    let mut result = call.tensor(0)?;
    for index in 1..call.inputs.len() {
        let b = call.tensor(index)?;
        let dims = call.affordable(broadcast(&result.dims(), &b.dims())?)?;
        let (a, b) = (result.with_rank(dims.len())?, b.with_rank(dims.len())?);
        result = tensors(a.expand(&dims)?, b.expand(&dims)?)?;
    }
    one(result)
}

/// A constant exponent of 0.5, 1 or 2 is computed without logarithms: exact, and right for negative
/// numbers.
fn power(call: &Call<'_>) -> Outcome {
    if call.all_known() {
        let (base, exponent) = (call.constant(0)?, call.constant(1)?);
        if let (Values::Int(x), Values::Float(y)) = (&base.values, &exponent.values) {
            call.affordable_known(broadcast(&base.dims, &exponent.dims)?)?;
            let (dims, offsets) = pairs(base, exponent)?;
            let results = offsets.iter().map(|&(i, j)| (x[i] as f64).powf(f64::from(y[j])) as i64);
            return one(Constant { dims, values: Values::Int(results.collect()) });
        }
        if let (Values::Float(_), Values::Int(y)) = (&base.values, &exponent.values) {
            let y = Constant {
                dims: exponent.dims.clone(),
                values: Values::Float(y.iter().map(|&y| y as f32).collect()),
            };
            return one(known(call, base, &y, f32::powf, |_, _| None)?);
        }
        let pow = |x: i64, y: i64| u32::try_from(y).ok().and_then(|y| x.checked_pow(y));
        return one(known(call, call.constant(0)?, call.constant(1)?, f32::powf, pow)?);
    }
    if call.constant(0).is_ok_and(|base| base.as_ints().is_some()) {
        return Err("powers of integers need a known exponent".into());
    }
    let exponent = match call.constant(1).map(|c| &c.values) {
        Ok(Values::Float(v)) if v.len() == 1 => Some(v[0]),
        Ok(Values::Int(v)) if v.len() == 1 => Some(v[0] as f32),
        _ => None,
    };
    match exponent {
        Some(2.0) => one(map_rank!(call.tensor(0)?, t => t.clone() * t)),
        Some(1.0) => one(call.tensor(0)?),
        Some(0.5) => one(map_rank!(call.tensor(0)?, t => t.sqrt())),
        Some(e) => {
            let e = call::exponent(e)?;
            one(map_rank!(call.tensor(0)?, t => t.powf_scalar(e)))
        }
        None => {
            let (a, b) = (call.tensor(0)?, call.tensor(1)?);
            let dims = call.affordable(broadcast(&a.dims(), &b.dims())?)?;
            let (a, b) = (a.with_rank(dims.len())?.expand(&dims)?, b.with_rank(dims.len())?.expand(&dims)?);
            one(zip_rank!(a, b, (x, y) => x.powf(y))?)
        }
    }
}

fn unary(call: &Call<'_>, floats: fn(f32) -> f32, tensors: fn(Ranked) -> Ranked) -> Outcome {
    signed(call, floats, |_| None, tensors)
}

fn signed(
    call: &Call<'_>,
    floats: fn(f32) -> f32,
    ints: fn(i64) -> Option<i64>,
    tensors: fn(Ranked) -> Ranked,
) -> Outcome {
    if !call.all_known() {
        return one(tensors(call.tensor(0)?));
    }
    let x = call.constant(0)?;
    let values = match &x.values {
        Values::Float(v) => Values::Float(v.iter().map(|&v| floats(v)).collect()),
        Values::Int(v) => {
            let results = v.iter().map(|&v| ints(v)).collect::<Option<_>>();
            Values::Int(results.ok_or("integers that overflow or that it does not take")?)
        }
        Values::Bool(_) => return Err("booleans where numbers are needed".into()),
    };
    one(Constant { dims: x.dims.clone(), values })
}
