//! Reshape, Transpose and their like: the same elements in another shape or order.

use super::call::{self, Call, broadcast};
use super::{Operator, Outcome, one, op};
use crate::constant::{Constant, for_each_index, strides, volume};
use crate::value::{Ranked, Value, map_rank};

pub(super) const LIST: &[Operator] = &[
    op("Identity", 1..=1, |call| Ok(vec![call.value(0)?.clone()])),
    op("Dropout", 1..=3, dropout),
    op("Reshape", 2..=2, reshape),
    op("Flatten", 1..=1, flatten),
    op("Squeeze", 1..=2, squeeze),
    op("Unsqueeze", 1..=2, unsqueeze),
    op("Transpose", 1..=1, transpose),
    op("Expand", 2..=2, expand),
    op("Tile", 2..=2, tile),
    op("DepthToSpace", 1..=1, depth_to_space),
    op("SpaceToDepth", 1..=1, space_to_depth),
];

/// Gives `value` the shape `dims`.
pub(super) fn with_shape(value: &Value, dims: Vec<usize>) -> Outcome {
    match value {
        Value::Tensor(t) => one(t.clone().reshape(&dims)?),
        Value::Known(known) => {
            let old = &known.constant;
            if volume(&dims) != Some(old.len()) {
                return Err(format!(
                    "shape {:?} cannot become {dims:?}: the number of elements differs",
                    old.dims
                ));
            }
            one(Constant { dims, values: old.values.clone() })
        }
    }
}

/// Nothing happens outside training, nor where nothing is to be dropped; the mask is true then.
fn dropout(call: &Call<'_>) -> Outcome {
    let training = call.has(2) && call.value(2)?.as_flag() != Some(false);
    let ratio = if call.has(1) { call.scalar(1)? } else { call.float("ratio")? };
    if training && ratio != Some(0.0) {
        return Err("training mode drops at random, which is not supported".into());
    }
    let value = call.value(0)?.clone();
    let mask = call.node.outputs.get(1).copied().flatten();
    let mask = mask.map(|_| call.affordable_known(value.dims()).map(|dims| Constant::full(&dims).into()));
    [Ok(value)].into_iter().chain(mask).collect()
}

/// 0 keeps a dimension (unless `allowzero`), one −1 takes what is left.
fn reshape(call: &Call<'_>) -> Outcome {
    let value = call.value(0)?;
    let old = value.dims();
    let wanted = call.ints(1)?;
    let keep_zero = call.int("allowzero", 0)? != 0;
    let fail = || format!("shape {old:?} cannot become {wanted:?}");
    let mut dims = Vec::with_capacity(wanted.len());
    let mut free = None;
    for (i, &w) in wanted.iter().enumerate() {
        dims.push(match w {
            0 if !keep_zero => *old.get(i).ok_or_else(fail)?,
            -1 if free.is_none() => {
                free = Some(i);
                1
            }
            w => usize::try_from(w).map_err(|_| fail())?,
        });
    }
    if let Some(at) = free {
        let (total, rest) = (volume(&old).ok_or_else(fail)?, volume(&dims).ok_or_else(fail)?);
        if rest == 0 || total % rest != 0 {
            return Err(fail());
        }
        dims[at] = total / rest;
    }
    with_shape(value, dims)
}

fn flatten(call: &Call<'_>) -> Outcome {
    let value = call.value(0)?;
    let dims = value.dims();
    let axis = call.int("axis", 1)?;
    let axis = if axis == dims.len() as i64 { dims.len() } else { call::axis(axis, dims.len())? };
    with_shape(value, vec![dims[..axis].iter().product(), dims[axis..].iter().product()])
}

fn squeeze(call: &Call<'_>) -> Outcome {
    let value = call.value(0)?;
    let mut dims = value.dims();
    let axes = match call.ints_from("axes", 1)? {
        Some(list) => call::axes(list, dims.len())?,
        None => (0..dims.len()).filter(|&a| dims[a] == 1).collect(),
    };
    for &axis in axes.iter().rev() {
        if dims[axis] != 1 {
            return Err(format!("axis {axis} of shape {dims:?} is not 1"));
        }
        dims.remove(axis);
    }
    with_shape(value, dims)
}

fn unsqueeze(call: &Call<'_>) -> Outcome {
    let value = call.value(0)?;
    let mut dims = value.dims();
    let list = call.ints_from("axes", 1)?.ok_or("no axes")?;
    if list.len() > 8 {
        return Err(format!("{} axes; at most 8 are supported", list.len()));
    }
    for axis in call::axes(list, dims.len() + list.len())? {
        dims.insert(axis, 1);
    }
    with_shape(value, dims)
}

fn transpose(call: &Call<'_>) -> Outcome {
    let value = call.value(0)?;
    let dims = value.dims();
    let order: Vec<usize> = match call.int_list("perm")? {
        None => (0..dims.len()).rev().collect(),
        Some(list) => {
            let order = list.iter().map(|&a| call::axis(a, dims.len())).collect::<Result<Vec<_>, _>>()?;
            if call::axes(list, dims.len())?.len() != dims.len() {
                return Err(format!("perm {list:?} for a tensor of rank {}", dims.len()));
            }
            order
        }
    };
    match value {
        Value::Tensor(t) if t.rank() < 2 => one(t.clone()),
        Value::Tensor(t) => one(map_rank!(t.clone(), t => {
            let mut axes = t.dims();
            axes.copy_from_slice(&order);
            t.permute(axes)
        })),
        Value::Known(known) => {
            let steps = strides(&dims);
            let new: Vec<usize> = order.iter().map(|&a| dims[a]).collect();
            let mut offsets = Vec::new();
            for_each_index(&new, |index| {
                offsets.push(index.iter().zip(&order).map(|(i, &a)| i * steps[a]).sum())
            });
            one(known.constant.take(new, &offsets))
        }
    }
}

fn expand(call: &Call<'_>) -> Outcome {
    let value = call.value(0)?;
    let wanted = call.ints(1)?.iter().map(|&d| usize::try_from(d).map_err(|_| format!("a dimension of {d}")));
    let dims = call.affordable(broadcast(&value.dims(), &wanted.collect::<Result<Vec<_>, _>>()?)?)?;
    match value {
        Value::Tensor(t) => one(t.clone().with_rank(dims.len())?.expand(&dims)?),
        Value::Known(known) => {
            let full = Constant::full(&call.affordable_known(dims)?);
            let (dims, offsets) = super::arithmetic::pairs(&known.constant, &full)?;
            one(known.constant.take(dims, &offsets.into_iter().map(|(i, _)| i).collect::<Vec<_>>()))
        }
    }
}

/// Each dimension repeated as often as the second input says.
fn tile(call: &Call<'_>) -> Outcome {
    let value = call.value(0)?;
    let dims = value.dims();
    let repeats = call.ints(1)?.iter().map(|&n| usize::try_from(n).map_err(|_| format!("{n} repeats")));
    let repeats = repeats.collect::<Result<Vec<_>, _>>()?;
    if repeats.len() != dims.len() {
        return Err(format!("{} repeats for a tensor of rank {}", repeats.len(), dims.len()));
    }
    let new: Option<Vec<_>> = dims.iter().zip(&repeats).map(|(d, n)| d.checked_mul(*n)).collect();
    let new = call.affordable(new.ok_or("a shape that overflows")?)?;
    match value {
        Value::Tensor(_) if new.contains(&0) => Err(format!("shape {new:?} holds nothing")),
        Value::Tensor(t) => one(map_rank!(t.clone(), t => t.repeat(&repeats))),
        Value::Known(known) => {
            let steps = strides(&dims);
            let mut offsets = Vec::new();
            for_each_index(&call.affordable_known(new.clone())?, |index| {
                offsets.push(index.iter().zip(&dims).zip(&steps).map(|((i, d), s)| i % d * s).sum())
            });
            one(known.constant.take(new, &offsets))
        }
    }
}

fn block(call: &Call<'_>) -> Result<usize, String> {
    let size = call.int("blocksize", 0)?;
    usize::try_from(size)
        .ok()
        .filter(|b| (1..=256).contains(b))
        .ok_or_else(|| format!("blocksize {size}; need 1 to 256"))
}

/// Channels become pixels: PyTorch's pixel shuffle is mode `CRD`.
fn depth_to_space(call: &Call<'_>) -> Outcome {
    let x = call.image(0)?;
    let ([n, c, h, w], b) = (x.dims(), block(call)?);
    if c % (b * b) != 0 {
        return Err(format!("{c} channels in blocks of {b} x {b}"));
    }
    let d = c / (b * b);
    let y = match call.text("mode", "DCR")? {
        "DCR" => x.reshape([n, b, b, d, h, w]).permute([0, 3, 4, 1, 5, 2]),
        "CRD" => x.reshape([n, d, b, b, h, w]).permute([0, 1, 4, 2, 5, 3]),
        other => return Err(format!("mode `{other}`; known are DCR and CRD")),
    };
    one(Ranked::R4(y.reshape([n, d, h * b, w * b])))
}

fn space_to_depth(call: &Call<'_>) -> Outcome {
    let x = call.image(0)?;
    let ([n, c, h, w], b) = (x.dims(), block(call)?);
    if h % b != 0 || w % b != 0 {
        return Err(format!("{h} x {w} pixels in blocks of {b} x {b}"));
    }
    let y = x.reshape([n, c, h / b, b, w / b, b]);
    let y = match call.text("mode", "DCR")? {
        "DCR" => y.permute([0, 3, 5, 1, 2, 4]),
        "CRD" => y.permute([0, 1, 3, 5, 2, 4]),
        other => return Err(format!("mode `{other}`; known are DCR and CRD")),
    };
    one(Ranked::R4(y.reshape([n, c * b * b, h / b, w / b])))
}
