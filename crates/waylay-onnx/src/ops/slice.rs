//! Slice and Gather: parts of a tensor by position.

use burn::tensor::{Int, Tensor, TensorData};

use super::call::{self, Call};
use super::join::pick;
use super::layout::with_shape;
use super::{Operator, Outcome, op};
use crate::value::{Value, map_rank};

pub(super) const LIST: &[Operator] = &[op("Slice", 1..=5, slice), op("Gather", 2..=2, gather)];

/// Bounds are attributes up to operator set 9 and inputs from 10 on; they are clamped to the
/// tensor.
fn slice(call: &Call<'_>) -> Outcome {
    let mut value = call.value(0)?.clone();
    let rank = value.dims().len();
    let starts = call.ints_from("starts", 1)?.ok_or("no starts")?;
    let ends = call.ints_from("ends", 2)?.ok_or("no ends")?;
    let all: Vec<i64> = (0..starts.len() as i64).collect();
    let axes = call.ints_from("axes", 3)?.unwrap_or(&all);
    let ones = vec![1; starts.len()];
    let steps = call.ints_from("steps", 4)?.unwrap_or(&ones);
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        return Err(format!(
            "{} starts, {} ends, {} axes, {} steps",
            starts.len(),
            ends.len(),
            axes.len(),
            steps.len()
        ));
    }
    call::axes(axes, rank)?;
    for i in 0..starts.len() {
        let axis = call::axis(axes[i], rank)?;
        let indices = positions(value.dims()[axis], starts[i], ends[i], steps[i])?;
        if indices.len() != value.dims()[axis] || steps[i] < 0 {
            value = select(call, &value, axis, &indices)?;
        }
    }
    Ok(vec![value])
}

fn positions(length: usize, start: i64, end: i64, step: i64) -> Result<Vec<usize>, String> {
    if step == 0 {
        return Err("a step of 0".into());
    }
    let n = length as i64;
    let wrap = |v: i64| if v < 0 { v.saturating_add(n) } else { v };
    let mut found = Vec::new();
    if step > 0 {
        let (mut at, end) = (wrap(start).clamp(0, n), wrap(end).clamp(0, n));
        while at < end {
            found.push(at as usize);
            at = at.saturating_add(step);
        }
    } else {
        let (mut at, end) = (wrap(start).clamp(-1, n - 1), wrap(end).clamp(-1, n - 1));
        while at > end {
            found.push(at as usize);
            at = at.saturating_add(step).max(-1);
        }
    }
    Ok(found)
}

/// The slices at `indices`, which exist, along `axis`.
pub(super) fn select(
    call: &Call<'_>,
    value: &Value,
    axis: usize,
    indices: &[usize],
) -> Result<Value, String> {
    let tensor = match value {
        Value::Known(known) => return Ok(pick(&known.constant, axis, indices).into()),
        Value::Tensor(tensor) => tensor.clone(),
    };
    let Some(&first) = indices.first() else { return Err("nothing is left".into()) };
    if indices.iter().enumerate().all(|(i, &at)| at == first + i) {
        return Ok(map_rank!(tensor, t => t.narrow(axis, first, indices.len())).into());
    }
    let list: Vec<i32> = indices.iter().map(|&i| i as i32).collect();
    let list = Tensor::<1, Int>::from_data(TensorData::new(list, [indices.len()]), call.device);
    Ok(map_rank!(tensor, t => t.select(axis, list)).into())
}

/// Slices along an axis by known positions, counted from the end where negative.
fn gather(call: &Call<'_>) -> Outcome {
    let value = call.value(0)?;
    let dims = value.dims();
    let axis = call::axis(call.int("axis", 0)?, dims.len())?;
    let positions = call.constant(1)?;
    let wanted = positions.as_ints().ok_or("positions that are not integers")?;
    let indices = wanted.iter().map(|&i| call::axis(i, dims[axis])).collect::<Result<Vec<_>, _>>();
    let indices = indices.map_err(|_| format!("positions {wanted:?} on an axis of {}", dims[axis]))?;
    let mut shape = dims[..axis].to_vec();
    shape.extend(&positions.dims);
    shape.extend(&dims[axis + 1..]);
    let shape = call.affordable(shape)?;
    with_shape(&select(call, value, axis, &indices)?, shape)
}
