//! Comparisons and choices, known without the image; `Where` may choose between tensors.

use burn::tensor::{Bool, Tensor, TensorData};

use super::arithmetic::pairs;
use super::call::{Call, broadcast};
use super::{Operator, Outcome, one, op};
use crate::target::onnx::constant::{Constant, Values};
use crate::target::onnx::value::zip_rank;

pub(super) const LIST: &[Operator] = &[
    op("Equal", 2..=2, |call| compare(call, |o| o.is_some_and(|o| o.is_eq()))),
    op("Less", 2..=2, |call| compare(call, |o| o.is_some_and(|o| o.is_lt()))),
    op("LessOrEqual", 2..=2, |call| compare(call, |o| o.is_some_and(|o| o.is_le()))),
    op("Greater", 2..=2, |call| compare(call, |o| o.is_some_and(|o| o.is_gt()))),
    op("GreaterOrEqual", 2..=2, |call| compare(call, |o| o.is_some_and(|o| o.is_ge()))),
    op("And", 2..=2, |call| both(call, |a, b| a && b)),
    op("Or", 2..=2, |call| both(call, |a, b| a || b)),
    op("Xor", 2..=2, |call| both(call, |a, b| a != b)),
    op("Not", 1..=1, not),
    op("If", 1..=128, branch),
    op("Where", 3..=3, choose),
];

fn compare(call: &Call<'_>, holds: fn(Option<std::cmp::Ordering>) -> bool) -> Outcome {
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

fn both(call: &Call<'_>, f: fn(bool, bool) -> bool) -> Outcome {
    let (a, b) = (call.constant(0)?, call.constant(1)?);
    let (Values::Bool(x), Values::Bool(y)) = (&a.values, &b.values) else {
        return Err("operands that are not booleans".into());
    };
    call.affordable_known(broadcast(&a.dims, &b.dims)?)?;
    let (dims, offsets) = pairs(a, b)?;
    one(Constant { dims, values: Values::Bool(offsets.iter().map(|&(i, j)| f(x[i], y[j])).collect()) })
}

fn not(call: &Call<'_>) -> Outcome {
    let x = call.constant(0)?;
    let Values::Bool(values) = &x.values else { return Err("an operand that is not boolean".into()) };
    one(Constant { dims: x.dims.clone(), values: Values::Bool(values.iter().map(|v| !v).collect()) })
}

fn choose(call: &Call<'_>) -> Outcome {
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

/// The outputs of the branch that ran: inputs are the condition, the then-outputs and the else-outputs.
fn branch(call: &Call<'_>) -> Outcome {
    let taken = call.value(0)?.as_flag().ok_or("a condition that is not one known boolean")?;
    let half = call.inputs.len() / 2;
    (0..half).map(|i| call.value(1 + i + if taken { 0 } else { half }).cloned()).collect()
}
