//! Gather and scatter: elements picked or replaced one by one, at positions that are known without
//! the image.

use burn::tensor::{Int, Tensor, TensorData};

use super::call::{self, Call};
use super::{Operator, Outcome, one, op};
use crate::constant::{Constant, Values, for_each_index, strides, volume};
use crate::value::{Ranked, Value};

pub(super) const LIST: &[Operator] = &[
    op("GatherElements", 2..=2, gather_elements),
    op("GatherND", 2..=2, gather_nd),
    op("ScatterElements", 3..=3, scatter_elements),
    op("ScatterND", 3..=3, scatter_nd),
];

/// The elements of `value` at `offsets`, with shape `dims`. The offsets must exist.
fn pick(call: &Call<'_>, value: &Value, offsets: &[usize], dims: Vec<usize>) -> Outcome {
    call.affordable(dims.clone())?;
    match value {
        Value::Known(known) => one(known.constant.take(dims, offsets)),
        Value::Tensor(tensor) => {
            one(Ranked::R1(picked(call, tensor.clone().flat(), offsets)?).reshape(&dims)?)
        }
    }
}

fn picked(call: &Call<'_>, flat: Tensor<1>, offsets: &[usize]) -> Result<Tensor<1>, String> {
    let list: Option<Vec<i32>> = offsets.iter().map(|&o| i32::try_from(o).ok()).collect();
    let list = list.filter(|l| !l.is_empty()).ok_or("nothing, or more than 2,147,483,647 elements")?;
    let list = Tensor::<1, Int>::from_data(TensorData::new(list, [offsets.len()]), call.device);
    Ok(flat.select(0, list))
}

/// `data` with what stands at `places[i]` replaced by element `i` of `updates`, later ones winning.
fn replace(call: &Call<'_>, data: &Value, updates: &Value, places: &[usize]) -> Outcome {
    let reduction = call.text("reduction", "none")?;
    let dims = data.dims();
    if places.len() != updates.dims().iter().product::<usize>() {
        return Err(format!("{} places for updates of shape {:?}", places.len(), updates.dims()));
    }
    if let (Value::Known(data), Value::Known(updates)) = (data, updates) {
        let values = reduced(&data.constant.values, &updates.constant.values, places, reduction)?;
        return one(Constant { dims, values });
    }
    if reduction != "none" {
        return Err(format!("reduction `{reduction}` on the image's path; only `none` is supported there"));
    }
    let (data, updates) = (data.to_tensor(call.device)?.flat(), updates.to_tensor(call.device)?.flat());
    let count = data.dims()[0];
    // What is asked of the two joined: the old element, or the one that replaces it.
    let mut sources: Vec<usize> = (0..count).collect();
    places.iter().enumerate().for_each(|(i, &place)| sources[place] = count + i);
    let joined = Tensor::cat(vec![data, updates], 0);
    one(Ranked::R1(picked(call, joined, &sources)?).reshape(&dims)?)
}

fn reduced(data: &Values, updates: &Values, places: &[usize], reduction: &str) -> Result<Values, String> {
    fn each<T: Copy>(data: &[T], updates: &[T], places: &[usize], f: impl Fn(T, T) -> T) -> Vec<T> {
        let mut data = data.to_vec();
        places.iter().zip(updates).for_each(|(&place, &new)| data[place] = f(data[place], new));
        data
    }
    Ok(match (data, updates, reduction) {
        (Values::Float(d), Values::Float(u), "none") => Values::Float(each(d, u, places, |_, n| n)),
        (Values::Float(d), Values::Float(u), "add") => Values::Float(each(d, u, places, |o, n| o + n)),
        (Values::Float(d), Values::Float(u), "mul") => Values::Float(each(d, u, places, |o, n| o * n)),
        (Values::Float(d), Values::Float(u), "min") => Values::Float(each(d, u, places, f32::min)),
        (Values::Float(d), Values::Float(u), "max") => Values::Float(each(d, u, places, f32::max)),
        (Values::Int(d), Values::Int(u), "none") => Values::Int(each(d, u, places, |_, n| n)),
        (Values::Int(d), Values::Int(u), "add") => Values::Int(each(d, u, places, i64::wrapping_add)),
        (Values::Int(d), Values::Int(u), "mul") => Values::Int(each(d, u, places, i64::wrapping_mul)),
        (Values::Int(d), Values::Int(u), "min") => Values::Int(each(d, u, places, i64::min)),
        (Values::Int(d), Values::Int(u), "max") => Values::Int(each(d, u, places, i64::max)),
        (Values::Bool(d), Values::Bool(u), "none") => Values::Bool(each(d, u, places, |_, n| n)),
        (_, _, "none" | "add" | "mul" | "min" | "max") => {
            return Err("data and updates of different types".into());
        }
        _ => return Err(format!("reduction `{reduction}`; known are none, add, mul, min and max")),
    })
}

/// For every element of `indices`, where in `dims` it points along `axis`.
fn along_axis(dims: &[usize], indices: &Constant, axis: usize) -> Result<Vec<usize>, String> {
    let wanted = indices.as_ints().ok_or("positions that are not integers")?;
    let fits =
        indices.dims.len() == dims.len() && (0..dims.len()).all(|a| a == axis || indices.dims[a] <= dims[a]);
    if !fits {
        return Err(format!("positions of shape {:?} in a tensor of shape {dims:?}", indices.dims));
    }
    let found = wanted.iter().map(|&i| call::axis(i, dims[axis])).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|_| format!("a position beyond an axis of {}", dims[axis]))?;
    let steps = strides(dims);
    let (mut offsets, mut at) = (Vec::with_capacity(found.len()), 0);
    for_each_index(&indices.dims, |index| {
        let place = |a: usize| if a == axis { found[at] } else { index[a] };
        offsets.push((0..dims.len()).map(|a| place(a) * steps[a]).sum());
        at += 1;
    });
    Ok(offsets)
}

fn gather_elements(call: &Call<'_>) -> Outcome {
    let value = call.value(0)?;
    let dims = value.dims();
    let axis = call::axis(call.int("axis", 0)?, dims.len())?;
    let indices = call.constant(1)?;
    pick(call, value, &along_axis(&dims, indices, axis)?, indices.dims.clone())
}

fn scatter_elements(call: &Call<'_>) -> Outcome {
    let value = call.value(0)?;
    let dims = value.dims();
    let axis = call::axis(call.int("axis", 0)?, dims.len())?;
    replace(call, value, call.value(2)?, &along_axis(&dims, call.constant(1)?, axis)?)
}

/// Where the blocks start that the rows of `indices` point to, behind `batch` shared dimensions,
/// and a block's shape.
fn blocks(dims: &[usize], indices: &Constant, batch: usize) -> Result<(Vec<usize>, Vec<usize>), String> {
    let wanted = indices.as_ints().ok_or("positions that are not integers")?;
    let fail = || format!("positions of shape {:?} in a tensor of shape {dims:?}", indices.dims);
    let (&depth, lead) = indices.dims.split_last().ok_or_else(fail)?;
    if depth == 0 || batch + depth > dims.len() || lead.len() < batch || lead[..batch] != dims[..batch] {
        return Err(fail());
    }
    let steps = strides(dims);
    let rows: usize = volume(lead).ok_or_else(fail)?;
    let per_batch: usize = lead[batch..].iter().product();
    let shared: usize = dims[batch..].iter().product();
    let mut starts = Vec::with_capacity(rows);
    for row in 0..rows {
        let mut start = row / per_batch.max(1) * shared;
        for a in 0..depth {
            start += call::axis(wanted[row * depth + a], dims[batch + a])? * steps[batch + a];
        }
        starts.push(start);
    }
    Ok((starts, dims[batch + depth..].to_vec()))
}

fn gather_nd(call: &Call<'_>) -> Outcome {
    let value = call.value(0)?;
    let dims = value.dims();
    let batch = usize::try_from(call.int("batch_dims", 0)?).map_err(|_| "negative batch_dims")?;
    let indices = call.constant(1)?;
    let (starts, block) = blocks(&dims, indices, batch)?;
    let size: usize = block.iter().product();
    let result = call.affordable([&indices.dims[..indices.dims.len() - 1], &block[..]].concat())?;
    let offsets: Vec<usize> = starts.iter().flat_map(|&s| s..s + size).collect();
    pick(call, value, &offsets, result)
}

fn scatter_nd(call: &Call<'_>) -> Outcome {
    let value = call.value(0)?;
    let (starts, block) = blocks(&value.dims(), call.constant(1)?, 0)?;
    let size: usize = block.iter().product();
    let places = starts.iter().flat_map(|&s| s..s + size).collect::<Vec<_>>();
    replace(call, value, call.value(2)?, &places)
}
