//! Dequantisation of weights that are stored as small integers: (q − zero point) · scale.

use super::call::{self, Call};
use super::{Operator, Outcome, one, op};
use crate::constant::{Constant, Values, for_each_index, strides};

pub(super) const LIST: &[Operator] = &[op("DequantizeLinear", 2..=3, dequantize)];

/// From an index to the place of its scale.
type Place = Box<dyn Fn(&[usize]) -> usize>;

/// Scale and zero point of every element of a tensor of shape `dims`: one for all, one per slice of
/// an axis, or one per block along it.
fn parameters(call: &Call<'_>, dims: &[usize]) -> Result<Vec<(f32, i64)>, String> {
    let scale = call.constant(1)?;
    let scales = scale.as_floats().ok_or("scales that are not floats")?;
    let zeros: Option<Vec<i64>> = match call.has(2) {
        false => None,
        true => match &call.constant(2)?.values {
            Values::Int(v) => Some(v.clone()),
            Values::Float(v) if v.iter().all(|z| *z == 0.0) => None,
            _ => return Err("zero points that are not integers".into()),
        },
    };
    if zeros.as_ref().is_some_and(|z| z.len() != scales.len()) {
        return Err("zero points and scales differ in number".into());
    }
    let block = usize::try_from(call.int("block_size", 0)?).map_err(|_| "negative block_size")?;
    let fail = || format!("scales of shape {:?} for a tensor of shape {dims:?}", scale.dims);
    let at: Place = if scales.len() == 1 {
        Box::new(|_| 0)
    } else {
        let axis = call::axis(call.int("axis", 1)?, dims.len())?;
        if block == 0 {
            if scale.dims != [dims[axis]] {
                return Err(fail());
            }
            Box::new(move |index| index[axis])
        } else {
            let expected: Vec<usize> =
                (0..dims.len()).map(|a| if a == axis { dims[a].div_ceil(block) } else { dims[a] }).collect();
            if scale.dims != expected {
                return Err(fail());
            }
            let steps = strides(&expected);
            Box::new(move |index| {
                (0..index.len()).map(|a| if a == axis { index[a] / block } else { index[a] } * steps[a]).sum()
            })
        }
    };
    let mut found = Vec::with_capacity(dims.iter().product());
    for_each_index(dims, |index| {
        let i = at(index);
        found.push((scales[i], zeros.as_ref().map_or(0, |z| z[i])));
    });
    Ok(found)
}

fn dequantize(call: &Call<'_>) -> Outcome {
    let x = call.constant(0)?;
    let stored = x.as_ints().ok_or("stored numbers that are not integers")?;
    let parameters = parameters(call, &x.dims)?;
    let values = stored.iter().zip(parameters).map(|(&q, (scale, zero))| q.wrapping_sub(zero) as f32 * scale);
    one(Constant { dims: x.dims.clone(), values: Values::Float(values.collect()) })
}
