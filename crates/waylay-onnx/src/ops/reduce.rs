//! Sums, means, norms and extremes along axes.

use super::call::{self, Call};
use super::{Operator, Outcome, one, op};
use crate::constant::{Constant, Values, for_each_index, strides};
use crate::value::{Ranked, map_rank};

pub(super) const LIST: &[Operator] = &[
    op("ReduceMean", 1..=2, |call| {
        reduce(
            call,
            Fold::new(0.0, |a, b| a + b).then(|sum, n| sum / n),
            |t, axis| map_rank!(t, t => t.mean_dim(axis)),
        )
    }),
    op("ReduceSum", 1..=2, |call| {
        reduce(call, Fold::new(0.0, |a, b| a + b), |t, axis| map_rank!(t, t => t.sum_dim(axis)))
    }),
    op("ReduceMax", 1..=2, |call| {
        reduce(call, Fold::new(f64::NEG_INFINITY, f64::max), |t, axis| map_rank!(t, t => t.max_dim(axis)))
    }),
    op("ReduceMin", 1..=2, |call| {
        reduce(call, Fold::new(f64::INFINITY, f64::min), |t, axis| map_rank!(t, t => t.min_dim(axis)))
    }),
    op("ReduceProd", 1..=2, |call| {
        call.constant(0)?;
        reduce(call, Fold::new(1.0, |a, b| a * b), |t, _| t)
    }),
    op("ReduceSumSquare", 1..=2, |call| {
        if call.all_known() {
            return reduce(call, Fold::new(0.0, |a, b| a + b * b), |t, _| t);
        }
        along(call, square(call.tensor(0)?), |t, axis| map_rank!(t, t => t.sum_dim(axis)))
    }),
    op("ReduceL1", 1..=2, |call| {
        if call.all_known() {
            return reduce(call, Fold::new(0.0, |a, b| a + b.abs()), |t, _| t);
        }
        let lengths = map_rank!(call.tensor(0)?, t => t.abs());
        along(call, lengths, |t, axis| map_rank!(t, t => t.sum_dim(axis)))
    }),
    op("ReduceL2", 1..=2, length),
    op("ReduceLogSum", 1..=2, |call| {
        if call.all_known() {
            return reduce(call, Fold::new(0.0, |a, b| a + b).then(|sum, _| sum.ln()), |t, _| t);
        }
        let sum = sums(call, call.tensor(0)?)?;
        one(map_rank!(sum, t => t.log()))
    }),
    op("ReduceLogSumExp", 1..=2, log_sum_exp),
];

/// What happens to numbers known without an image, in `f64`.
struct Fold {
    first: f64,
    step: fn(f64, f64) -> f64,
    last: fn(f64, f64) -> f64,
}

impl Fold {
    fn new(first: f64, step: fn(f64, f64) -> f64) -> Self {
        Self { first, step, last: |sum, _| sum }
    }

    /// `last` takes the result and the number of elements.
    fn then(self, last: fn(f64, f64) -> f64) -> Self {
        Self { last, ..self }
    }
}

fn reduce(call: &Call<'_>, fold: Fold, step: fn(Ranked, usize) -> Ranked) -> Outcome {
    if call.all_known() { one(known(call, &fold)?) } else { along(call, call.tensor(0)?, step) }
}

/// Axes are an attribute, or an input in newer operator sets; none means all, or no change where
/// the node says so.
fn chosen_axes(call: &Call<'_>, rank: usize) -> Result<Vec<usize>, String> {
    match call.ints_from("axes", 1)? {
        Some(list) if !list.is_empty() => call::axes(list, rank),
        _ if call.int("noop_with_empty_axes", 0)? != 0 => Ok(Vec::new()),
        _ => Ok((0..rank).collect()),
    }
}

/// `dims` after `axes` are gone, or 1 where they are kept.
fn reduced(call: &Call<'_>, mut dims: Vec<usize>, axes: &[usize]) -> Result<Vec<usize>, String> {
    let keep = call.int("keepdims", 1)? != 0;
    for &axis in axes.iter().rev() {
        if keep {
            dims[axis] = 1;
        } else {
            dims.remove(axis);
        }
    }
    Ok(dims)
}

fn along(call: &Call<'_>, x: Ranked, step: fn(Ranked, usize) -> Ranked) -> Outcome {
    let dims = x.dims();
    let axes = chosen_axes(call, dims.len())?;
    let dims = reduced(call, dims, &axes)?;
    one(axes.iter().fold(x, |x, &axis| step(x, axis)).reshape(&dims)?)
}

fn sums(call: &Call<'_>, x: Ranked) -> Result<Ranked, String> {
    match along(call, x, |t, axis| map_rank!(t, t => t.sum_dim(axis)))?.pop() {
        Some(super::Value::Tensor(sum)) => Ok(sum),
        _ => Err("a sum of nothing".into()),
    }
}

fn square(x: Ranked) -> Ranked {
    map_rank!(x, t => t.clone() * t)
}

/// The square root has no slope at 0: a zero vector gets length 0 and gradient 0, as in PyTorch.
fn length(call: &Call<'_>) -> Outcome {
    if call.all_known() {
        return reduce(call, Fold::new(0.0, |a, b| a + b * b).then(|sum, _| sum.sqrt()), |t, _| t);
    }
    let sum = sums(call, square(call.tensor(0)?))?;
    one(map_rank!(sum, t => {
        let empty = t.clone().equal_elem(0.0);
        t.mask_fill(empty.clone(), 1.0).sqrt().mask_fill(empty, 0.0)
    }))
}

/// The largest element is taken out first, so that nothing overflows.
fn log_sum_exp(call: &Call<'_>) -> Outcome {
    if call.all_known() {
        return reduce(call, Fold::new(0.0, |a, b| a + b.exp()).then(|sum, _| sum.ln()), |t, _| t);
    }
    let x = call.tensor(0)?;
    let largest = x.clone().flat().detach().max().into_scalar::<f32>();
    let sum = sums(call, map_rank!(x, t => (t - largest).exp()))?;
    one(map_rank!(sum, t => t.log() + largest))
}

fn known(call: &Call<'_>, fold: &Fold) -> Result<Constant, String> {
    let x = call.constant(0)?;
    let numbers: Vec<f64> = match &x.values {
        Values::Float(v) => v.iter().map(|&v| f64::from(v)).collect(),
        Values::Int(v) => v.iter().map(|&v| v as f64).collect(),
        Values::Bool(v) => v.iter().map(|&v| f64::from(u8::from(v))).collect(),
    };
    let axes = chosen_axes(call, x.dims.len())?;
    let mut kept = x.dims.clone();
    axes.iter().for_each(|&a| kept[a] = 1);
    let steps = strides(&kept);
    let mut results = vec![fold.first; kept.iter().product()];
    let mut at = 0;
    for_each_index(&x.dims, |index| {
        let to: usize =
            index.iter().zip(&steps).zip(&kept).map(|((i, s), d)| if *d == 1 { 0 } else { i * s }).sum();
        results[to] = (fold.step)(results[to], numbers[at]);
        at += 1;
    });
    let count = axes.iter().map(|&a| x.dims[a]).product::<usize>() as f64;
    let results = results.into_iter().map(|r| (fold.last)(r, count));
    let values = match &x.values {
        Values::Float(_) => Values::Float(results.map(|r| r as f32).collect()),
        Values::Int(_) => {
            let exact = |r: f64| (r.abs() < 9e15).then_some(r as i64).ok_or("a result that overflows");
            Values::Int(results.map(exact).collect::<Result<_, _>>()?)
        }
        Values::Bool(_) => Values::Bool(results.map(|r| r > 0.0).collect()),
    };
    Ok(Constant { dims: reduced(call, x.dims.clone(), &axes)?, values })
}
