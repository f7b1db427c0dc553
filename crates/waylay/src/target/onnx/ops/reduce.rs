//! Sums, means, norms and extremes along axes.

use super::call::{self, Call};
use super::{Operator, Outcome, one, op};
use crate::target::onnx::constant::{Constant, Values, for_each_index, strides};
use crate::target::onnx::value::{Ranked, map_rank};

pub(super) const LIST: &[Operator] = &[
    op("ReduceMean", 1..=2, |call| reduce(call, |t, axis| map_rank!(t, t => t.mean_dim(axis)))),
    op("ReduceSum", 1..=2, |call| reduce(call, |t, axis| map_rank!(t, t => t.sum_dim(axis)))),
    op("ReduceMax", 1..=2, |call| reduce(call, |t, axis| map_rank!(t, t => t.max_dim(axis)))),
    op("ReduceMin", 1..=2, |call| reduce(call, |t, axis| map_rank!(t, t => t.min_dim(axis)))),
    op("ReduceSumSquare", 1..=2, |call| {
        let squared = map_rank!(call.tensor(0)?, t => t.clone() * t);
        along(call, squared, |t, axis| map_rank!(t, t => t.sum_dim(axis)))
    }),
    op("ReduceL2", 1..=2, length),
    op("ReduceProd", 1..=2, product),
];

fn reduce(call: &Call<'_>, step: fn(Ranked, usize) -> Ranked) -> Outcome {
    along(call, call.tensor(0)?, step)
}

/// Axes are an attribute, or an input in newer operator sets; none means all, or no change where the node says so.
fn chosen_axes(call: &Call<'_>, rank: usize) -> Result<Vec<usize>, String> {
    match call.ints_from("axes", 1)? {
        Some(list) if !list.is_empty() => call::axes(list, rank),
        _ if call.int("noop_with_empty_axes", 0)? != 0 => Ok(Vec::new()),
        _ => Ok((0..rank).collect()),
    }
}

fn along(call: &Call<'_>, x: Ranked, step: fn(Ranked, usize) -> Ranked) -> Outcome {
    let mut dims = x.dims();
    let axes = chosen_axes(call, dims.len())?;
    let reduced = axes.iter().fold(x, |x, &axis| step(x, axis));
    if call.int("keepdims", 1)? != 0 {
        return one(reduced);
    }
    for &axis in axes.iter().rev() {
        dims.remove(axis);
    }
    // A tensor has at least one dimension here: a scalar is a vector of one element.
    if dims.is_empty() {
        dims.push(1);
    }
    one(reduced.reshape(&dims)?)
}

/// The square root has no slope at 0: a zero vector gets length 0 and gradient 0, as in PyTorch.
fn length(call: &Call<'_>) -> Outcome {
    let squared = map_rank!(call.tensor(0)?, t => t.clone() * t);
    let mut sums = along(call, squared, |t, axis| map_rank!(t, t => t.sum_dim(axis)))?;
    let Some(super::Value::Tensor(sum)) = sums.pop() else { return Err("a sum of no rank".into()) };
    one(map_rank!(sum, t => {
        let empty = t.clone().equal_elem(0.0);
        t.mask_fill(empty.clone(), 1.0).sqrt().mask_fill(empty, 0.0)
    }))
}

/// Only of integers, as shapes are.
fn product(call: &Call<'_>) -> Outcome {
    let x = call.constant(0)?;
    let Values::Int(values) = &x.values else { return Err("only products of integers are supported".into()) };
    let axes = chosen_axes(call, x.dims.len())?;
    let mut dims = x.dims.clone();
    axes.iter().for_each(|&a| dims[a] = 1);
    let steps = strides(&dims);
    let mut products = vec![Some(1i64); dims.iter().product()];
    let mut at = 0;
    for_each_index(&x.dims, |index| {
        let to: usize =
            index.iter().zip(&steps).zip(&dims).map(|((i, s), d)| if *d == 1 { 0 } else { i * s }).sum();
        products[to] = products[to].and_then(|p| p.checked_mul(values[at]));
        at += 1;
    });
    if call.int("keepdims", 1)? == 0 {
        axes.iter().rev().for_each(|&a| {
            dims.remove(a);
        });
    }
    let products = products.into_iter().collect::<Option<_>>().ok_or("a product that overflows")?;
    one(Constant { dims, values: Values::Int(products) })
}
