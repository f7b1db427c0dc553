//! Comparisons and choices. On the image's path a boolean is a float tensor of 0 and 1, which has
//! no gradient.

use burn::tensor::{Bool, Tensor, TensorData};

use super::arithmetic::pairs;
use super::call::{Call, broadcast};
use super::{Operator, Outcome, one, op};
use crate::constant::{Constant, Values};
use crate::value::{Ranked, Value, map_rank, zip_rank};

pub(super) const LIST: &[Operator] = &[
    op("Equal", 2..=2, |call| {
        let tensors = |a, b| zip_rank!(a, b, (x, y) => x.equal(y).float());
        compare(call, |o| o.is_some_and(|o| o.is_eq()), tensors)
    }),
    op("Less", 2..=2, |call| {
        let tensors = |a, b| zip_rank!(a, b, (x, y) => x.lower(y).float());
        compare(call, |o| o.is_some_and(|o| o.is_lt()), tensors)
    }),
    op("LessOrEqual", 2..=2, |call| {
        let tensors = |a, b| zip_rank!(a, b, (x, y) => x.lower_equal(y).float());
        compare(call, |o| o.is_some_and(|o| o.is_le()), tensors)
    }),
    op("Greater", 2..=2, |call| {
        let tensors = |a, b| zip_rank!(a, b, (x, y) => x.greater(y).float());
        compare(call, |o| o.is_some_and(|o| o.is_gt()), tensors)
    }),
    op("GreaterOrEqual", 2..=2, |call| {
        let tensors = |a, b| zip_rank!(a, b, (x, y) => x.greater_equal(y).float());
        compare(call, |o| o.is_some_and(|o| o.is_ge()), tensors)
    }),
    op("And", 2..=2, |call| both(call, |a, b| a && b, |a, b| zip_rank!(a, b, (x, y) => x * y))),
    op("Or", 2..=2, |call| both(call, |a, b| a || b, |a, b| zip_rank!(a, b, (x, y) => x.max_pair(y)))),
    op("Xor", 2..=2, |call| both(call, |a, b| a != b, |a, b| zip_rank!(a, b, (x, y) => (x - y).abs()))),
    op("IsNaN", 1..=1, |call| is(call, f32::is_nan, |t| map_rank!(t, t => t.is_nan().float()))),
    op("IsInf", 1..=1, |call| {
        if call.int("detect_negative", 1)? == 0 || call.int("detect_positive", 1)? == 0 {
            return is_one_infinity(call);
        }
        is(call, f32::is_infinite, |t| map_rank!(t, t => t.is_inf().float()))
    }),
    op("Not", 1..=1, not),
    op("If", 1..=128, branch),
    op("Where", 3..=3, choose),
];

/// `f` of tensors brought to one shape.
fn on_tensors(call: &Call<'_>, f: fn(Ranked, Ranked) -> Result<Ranked, String>) -> Outcome {
    let (a, b) = (call.mask(0)?, call.mask(1)?);
    let dims = call.affordable(broadcast(&a.dims(), &b.dims())?)?;
    one(f(a.with_rank(dims.len())?.expand(&dims)?, b.with_rank(dims.len())?.expand(&dims)?)?)
}

fn is(call: &Call<'_>, holds: fn(f32) -> bool, tensors: fn(Ranked) -> Ranked) -> Outcome {
    if !call.all_known() {
        return one(tensors(call.tensor(0)?));
    }
    let x = call.constant(0)?;
    let values = x.as_floats().ok_or("numbers that are not floats")?;
    one(Constant { dims: x.dims.clone(), values: Values::Bool(values.iter().map(|&v| holds(v)).collect()) })
}

/// Of one sign only, or of none.
fn is_one_infinity(call: &Call<'_>) -> Outcome {
    let x = call.constant(0)?;
    let values = x.as_floats().ok_or("numbers that are not floats")?;
    let (negative, positive) = (call.int("detect_negative", 1)? != 0, call.int("detect_positive", 1)? != 0);
    let holds = |v: &f32| (negative && *v == f32::NEG_INFINITY) || (positive && *v == f32::INFINITY);
    one(Constant { dims: x.dims.clone(), values: Values::Bool(values.iter().map(holds).collect()) })
}

fn compare(
    call: &Call<'_>,
    holds: fn(Option<std::cmp::Ordering>) -> bool,
    tensors: fn(Ranked, Ranked) -> Result<Ranked, String>,
) -> Outcome {
    if !call.all_known() {
        return on_tensors(call, tensors);
    }
    let (a, b) = (call.constant(0)?, call.constant(1)?);
    call.affordable_known(broadcast(&a.dims, &b.dims)?)?;
    let (dims, offsets) = pairs(a, b)?;
    let results = offsets.iter().map(|&(i, j)| {
        Ok(holds(match (&a.values, &b.values) {
            (Values::Float(x), Values::Float(y)) => x[i].partial_cmp(&y[j]),
            (Values::Int(x), Values::Int(y)) => x[i].partial_cmp(&y[j]),
            (Values::Bool(x), Values::Bool(y)) => x[i].partial_cmp(&y[j]),
            _ => return Err("operands of different types".to_owned()),
        }))
    });
    one(Constant { values: Values::Bool(results.collect::<Result<_, _>>()?), dims })
}

fn both(
    call: &Call<'_>,
    f: fn(bool, bool) -> bool,
    tensors: fn(Ranked, Ranked) -> Result<Ranked, String>,
) -> Outcome {
    if !call.all_known() {
        return on_tensors(call, tensors);
    }
    let (a, b) = (call.constant(0)?, call.constant(1)?);
    let (Values::Bool(x), Values::Bool(y)) = (&a.values, &b.values) else {
        return Err("operands that are not booleans".into());
    };
    call.affordable_known(broadcast(&a.dims, &b.dims)?)?;
    let (dims, offsets) = pairs(a, b)?;
    one(Constant { dims, values: Values::Bool(offsets.iter().map(|&(i, j)| f(x[i], y[j])).collect()) })
}

fn not(call: &Call<'_>) -> Outcome {
    if !call.all_known() {
        return one(map_rank!(call.mask(0)?, t => t.neg() + 1.0));
    }
    let x = call.constant(0)?;
    let Values::Bool(values) = &x.values else { return Err("an operand that is not boolean".into()) };
    one(Constant { dims: x.dims.clone(), values: Values::Bool(values.iter().map(|v| !v).collect()) })
}

fn choose(call: &Call<'_>) -> Outcome {
    if let Value::Tensor(condition) = call.value(0)? {
        let (a, b) = (call.tensor(1)?, call.tensor(2)?);
        let dims = broadcast(&broadcast(&condition.dims(), &a.dims())?, &b.dims())?;
        let dims = call.affordable(dims)?;
        let full = |t: Ranked| t.with_rank(dims.len())?.expand(&dims);
        let (a, b) = (full(a)?, full(b)?);
        let mask = full(condition.clone().lift(call.device))?;
        // Both are tensors of one rank; the mask's flags are taken flat.
        let flags = mask.flat().not_equal_elem(0.0);
        return one(zip_rank!(a, b, (x, y) => {
            let shape = x.dims();
            y.mask_where(flags.reshape(shape), x)
        })?);
    }
    let condition = call.constant(0)?;
    let Values::Bool(mask) = &condition.values else { return Err("a condition that is not boolean".into()) };
    if call.all_known() {
        let (a, b) = (call.constant(1)?, call.constant(2)?);
        let dims = broadcast(&broadcast(&condition.dims, &a.dims)?, &b.dims)?;
        let full = Constant::full(&call.affordable_known(dims)?);
        let own =
            |of: &Constant| pairs(of, &full).map(|(_, o)| o.into_iter().map(|(i, _)| i).collect::<Vec<_>>());
        let (m, x, y) = (own(condition)?, own(a)?, own(b)?);
        let picked = m.iter().zip(x.iter().zip(&y)).map(|(&m, (&x, &y))| (mask[m], x, y));
        let values = match (&a.values, &b.values) {
            (Values::Float(a), Values::Float(b)) => {
                Values::Float(picked.map(|(m, x, y)| if m { a[x] } else { b[y] }).collect())
            }
            (Values::Int(a), Values::Int(b)) => {
                Values::Int(picked.map(|(m, x, y)| if m { a[x] } else { b[y] }).collect())
            }
            (Values::Bool(a), Values::Bool(b)) => {
                Values::Bool(picked.map(|(m, x, y)| if m { a[x] } else { b[y] }).collect())
            }
            _ => return Err("choices of different types".into()),
        };
        return one(Constant { dims: full.dims, values });
    }
    let (a, b) = (call.tensor(1)?, call.tensor(2)?);
    let dims = call.affordable_known(broadcast(&broadcast(&condition.dims, &a.dims())?, &b.dims())?)?;
    let full = Constant::full(&dims);
    let mask: Vec<bool> = pairs(condition, &full)?.1.into_iter().map(|(i, _)| mask[i]).collect();
    let mask = Tensor::<1, Bool>::from_data(TensorData::new(mask, [full.len()]), call.device);
    let (a, b) = (a.with_rank(dims.len())?.expand(&dims)?, b.with_rank(dims.len())?.expand(&dims)?);
    one(zip_rank!(a, b, (x, y) => {
        let shape = x.dims();
        y.mask_where(mask.reshape(shape), x)
    })?)
}

/// The outputs of the branch that ran: inputs are the condition, the then-outputs and the
/// else-outputs.
fn branch(call: &Call<'_>) -> Outcome {
    let taken = call.value(0)?.as_flag().ok_or("a condition that is not one known boolean")?;
    let half = call.inputs.len() / 2;
    (0..half).map(|i| call.value(1 + i + if taken { 0 } else { half }).cloned()).collect()
}
