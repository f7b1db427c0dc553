//! Concat and Split: joining and splitting along an axis.

use burn::tensor::Tensor;

use super::call::{self, Call};
use super::{Operator, Outcome, one, op};
use crate::constant::{Constant, Values, strides};
use crate::value::{Ranked, Value, map_rank};

pub(super) const LIST: &[Operator] = &[op("Concat", 1..=4096, concat), op("Split", 1..=2, split)];

fn concat(call: &Call<'_>) -> Outcome {
    let shapes =
        (0..call.inputs.len()).map(|i| Ok(call.value(i)?.dims())).collect::<Result<Vec<_>, String>>()?;
    let first = shapes.first().ok_or("nothing to join")?;
    let axis = call::axis(call.int("axis", 1)?, first.len())?;
    let mut dims = first.clone();
    dims[axis] = 0;
    for shape in &shapes {
        let same = shape.len() == first.len() && (0..dims.len()).all(|a| a == axis || shape[a] == first[a]);
        if !same {
            return Err(format!("shapes {first:?} and {shape:?} do not join along axis {axis}"));
        }
        dims[axis] = dims[axis].checked_add(shape[axis]).ok_or("a length that overflows")?;
    }
    let dims = call.affordable(dims)?;
    if call.all_known() {
        return known(call, axis, dims);
    }
    // Parts of nothing add nothing.
    let some = (0..call.inputs.len()).filter(|&i| shapes[i][axis] > 0);
    let parts = some.map(|i| call.tensor(i)).collect::<Result<Vec<_>, _>>()?;
    macro_rules! join {
        ($($rank:ident $d:literal),*) => {
            match dims.len() {
                $($d => {
                    let parts = parts.into_iter().filter_map(|p| match p { Ranked::$rank(t) => Some(t), _ => None });
                    one(Ranked::$rank(Tensor::cat(parts.collect(), axis)))
                })*
                rank => Err(format!("rank {rank}; 1 to 6 are supported")),
            }
        };
    }
    join!(R1 1, R2 2, R3 3, R4 4, R5 5, R6 6)
}

fn known(call: &Call<'_>, axis: usize, dims: Vec<usize>) -> Outcome {
    let parts = (0..call.inputs.len()).map(|i| call.constant(i)).collect::<Result<Vec<_>, _>>()?;
    let outer: usize = dims[..axis].iter().product();
    fn rows<T: Copy>(parts: &[(&[T], usize)], outer: usize) -> Vec<T> {
        let row = |r: usize| parts.iter().flat_map(move |(v, n)| &v[r * n..(r + 1) * n]);
        (0..outer).flat_map(row).copied().collect()
    }
    macro_rules! gather {
        ($kind:ident) => {{
            let slices = parts.iter().map(|p| match &p.values {
                Values::$kind(v) => Ok((&v[..], p.dims[axis..].iter().product())),
                _ => Err("parts of different types".to_owned()),
            });
            Values::$kind(rows(&slices.collect::<Result<Vec<_>, _>>()?, outer))
        }};
    }
    let values = match &parts[0].values {
        Values::Float(_) => gather!(Float),
        Values::Int(_) => gather!(Int),
        Values::Bool(_) => gather!(Bool),
    };
    one(Constant { dims, values })
}

/// Into the given lengths, or into as many parts as there are outputs; the last may be shorter.
fn split(call: &Call<'_>) -> Outcome {
    let value = call.value(0)?;
    let dims = value.dims();
    let axis = call::axis(call.int("axis", 0)?, dims.len())?;
    let count = call.node.outputs.len();
    let lengths = match call.ints_from("split", 1)? {
        Some(list) => list
            .iter()
            .map(|&n| usize::try_from(n).map_err(|_| format!("a part of {n}")))
            .collect::<Result<Vec<_>, _>>()?,
        None => {
            let part = dims[axis].div_ceil(count.max(1));
            (0..count).map(|i| part.min(dims[axis].saturating_sub(i * part))).collect()
        }
    };
    let total = lengths.iter().try_fold(0usize, |sum, &n| sum.checked_add(n));
    if lengths.len() != count || total != Some(dims[axis]) {
        return Err(format!("parts {lengths:?} of an axis of {}, for {count} outputs", dims[axis]));
    }
    let mut start = 0;
    let mut parts = Vec::new();
    for length in lengths {
        parts.push(match value {
            Value::Tensor(_) if length == 0 => {
                let mut dims = dims.clone();
                dims[axis] = 0;
                Constant { dims, values: Values::Float(Vec::new()) }.into()
            }
            Value::Tensor(t) => map_rank!(t.clone(), t => t.narrow(axis, start, length)).into(),
            Value::Known(known) => {
                let indices: Vec<usize> = (start..start + length).collect();
                pick(&known.constant, axis, &indices).into()
            }
        });
        start += length;
    }
    Ok(parts)
}

/// The slices of `constant` at `indices` along `axis`; the indices must exist.
pub(super) fn pick(constant: &Constant, axis: usize, indices: &[usize]) -> Constant {
    let mut dims = constant.dims.clone();
    let (outer, inner) = (dims[..axis].iter().product::<usize>(), strides(&dims)[axis]);
    let length = dims[axis];
    dims[axis] = indices.len();
    let mut offsets = Vec::with_capacity(outer * indices.len() * inner);
    for o in 0..outer {
        for &i in indices {
            offsets.extend((0..inner).map(|k| (o * length + i) * inner + k));
        }
    }
    constant.take(dims, &offsets)
}
