//! Resizing by interpolation. Every dimension is resampled by itself: by picking where each result
//! is one pixel, and by a small matrix otherwise. Source: the reference implementation of `Resize`,
//! <https://onnx.ai/onnx/operators/onnx__Resize.html>.

use burn::tensor::{Tensor, TensorData};

use super::call::{self, Call};
use super::slice::select;
use super::{Operator, Outcome, op};
use crate::value::{Ranked, Value, map_rank};

pub(super) const LIST: &[Operator] = &[op("Resize", 1..=4, resize), op("Upsample", 1..=2, upsample)];

/// What the node says besides sizes.
struct Rule<'a> {
    mode: &'a str,
    place: &'a str,
    nearest: &'a str,
    cubic: f64,
    antialias: bool,
    exclude_outside: bool,
    outside: f64,
}

/// One axis: its length now and then, the scale, and the part of the input that is looked at (0 and
/// 1 for all).
struct Axis {
    length: usize,
    result: usize,
    scale: f64,
    region: (f64, f64),
}

fn upsample(call: &Call<'_>) -> Outcome {
    let dims = call.value(0)?.dims();
    let scales: Vec<f64> = match call.has(1) {
        true => floats(call, 1)?,
        false => match call.node.attributes.get("scales") {
            Some(crate::graph::Attribute::Floats(v)) => v.iter().map(|&v| f64::from(v)).collect(),
            _ => return Err("no scales".into()),
        },
    };
    let mode = call.text("mode", "nearest")?;
    let rule = Rule {
        mode: if mode == "bilinear" { "linear" } else { mode },
        place: "asymmetric",
        nearest: "floor",
        cubic: -0.75,
        antialias: false,
        exclude_outside: false,
        outside: 0.0,
    };
    let axes: Vec<usize> = (0..dims.len()).collect();
    run(call, &rule, plan(&dims, &axes, &scales, &[])?)
}

fn resize(call: &Call<'_>) -> Outcome {
    let dims = call.value(0)?.dims();
    let axes = match call.int_list("axes")? {
        Some(list) => list.iter().map(|&a| call::axis(a, dims.len())).collect::<Result<_, _>>()?,
        None => (0..dims.len()).collect::<Vec<_>>(),
    };
    // Operator set 10 has no region of interest: its scales come second.
    let at = if call.opset < 11 { 1 } else { 2 };
    let scales = if present(call, at) { floats(call, at)? } else { Vec::new() };
    let sizes = if present(call, 3) { call.ints(3)?.to_vec() } else { Vec::new() };
    let legacy = call.opset < 11;
    let rule = Rule {
        mode: call.text("mode", "nearest")?,
        place: call
            .text("coordinate_transformation_mode", if legacy { "asymmetric" } else { "half_pixel" })?,
        nearest: call.text("nearest_mode", if legacy { "floor" } else { "round_prefer_floor" })?,
        cubic: f64::from(call.float("cubic_coeff_a")?.unwrap_or(-0.75)),
        antialias: call.int("antialias", 0)? != 0,
        exclude_outside: call.int("exclude_outside", 0)? != 0,
        outside: f64::from(call.float("extrapolation_value")?.unwrap_or(0.0)),
    };
    let mut planned = if sizes.is_empty() {
        plan(&dims, &axes, &scales, &[])?
    } else {
        let sizes = fitted(&dims, &axes, &sizes, call.text("keep_aspect_ratio_policy", "stretch")?)?;
        plan(&dims, &axes, &sizes.1, &sizes.0)?
    };
    if rule.place == "tf_crop_and_resize" {
        let region = floats(call, 1)?;
        if region.len() != 2 * axes.len() {
            return Err(format!("a region of {} numbers for {} axes", region.len(), axes.len()));
        }
        for (i, &axis) in axes.iter().enumerate() {
            planned[axis].region = (region[i], region[i + axes.len()]);
        }
    }
    run(call, &rule, planned)
}

fn present(call: &Call<'_>, index: usize) -> bool {
    call.value(index).is_ok_and(|v| v.dims().iter().product::<usize>() > 0)
}

fn floats(call: &Call<'_>, index: usize) -> Result<Vec<f64>, String> {
    let found =
        call.constant(index)?.as_floats().ok_or_else(|| format!("input {index} does not hold floats"))?;
    Ok(found.iter().map(|&v| f64::from(v)).collect())
}

/// Sizes, and the scales that they stand for. Where the aspect ratio is kept, one scale serves all
/// axes.
fn fitted(
    dims: &[usize],
    axes: &[usize],
    sizes: &[i64],
    policy: &str,
) -> Result<(Vec<usize>, Vec<f64>), String> {
    let wanted = sizes.iter().map(|&s| usize::try_from(s).ok().filter(|s| (1..=1 << 16).contains(s)));
    let wanted: Option<Vec<usize>> = wanted.collect();
    let Some(wanted) = wanted.filter(|w| w.len() == axes.len()) else {
        return Err(format!("sizes {sizes:?} for {} axes", axes.len()));
    };
    let scales: Vec<f64> = wanted.iter().zip(axes).map(|(&w, &a)| w as f64 / dims[a].max(1) as f64).collect();
    let one = match policy {
        "stretch" => return Ok((wanted, scales)),
        "not_larger" => scales.iter().copied().fold(f64::INFINITY, f64::min),
        "not_smaller" => scales.iter().copied().fold(0.0, f64::max),
        other => return Err(format!("keep_aspect_ratio_policy `{other}`")),
    };
    let sizes = axes.iter().map(|&a| (dims[a] as f64 * one + 0.5).floor() as usize).collect();
    Ok((sizes, vec![one; axes.len()]))
}

fn plan(dims: &[usize], axes: &[usize], scales: &[f64], sizes: &[usize]) -> Result<Vec<Axis>, String> {
    if scales.len() != axes.len() {
        return Err(format!("{} scales for {} axes", scales.len(), axes.len()));
    }
    let same = |&length: &usize| Axis { length, result: length, scale: 1.0, region: (0.0, 1.0) };
    let mut plan: Vec<Axis> = dims.iter().map(same).collect();
    for (i, &axis) in axes.iter().enumerate() {
        let scale = scales[i];
        if !(scale > 0.0 && scale < 1e6) {
            return Err(format!("a scale of {scale}"));
        }
        let length = dims[axis] as f64;
        // 3 * (1 / 3) in f32 is a little less than 1.
        let result = sizes.get(i).copied().unwrap_or((length * scale + 1e-5).floor() as usize);
        if result == 0 {
            return Err(format!("scale {scale} of {length} pixels leaves none"));
        }
        plan[axis] = Axis { length: dims[axis], result, scale, region: (0.0, 1.0) };
    }
    Ok(plan)
}

fn run(call: &Call<'_>, rule: &Rule<'_>, plan: Vec<Axis>) -> Outcome {
    call.affordable(plan.iter().map(|a| a.result.max(a.length)).collect())?;
    let mut value = call.value(0)?.clone();
    for (axis, a) in plan.iter().enumerate() {
        let still = a.result == a.length && a.scale == 1.0 && a.region == (0.0, 1.0);
        if still {
            continue;
        }
        let rows: Vec<Vec<(usize, f64)>> =
            (0..a.result).map(|i| weights(rule, a, i)).collect::<Result<_, _>>()?;
        let outside = |i: usize| is_outside(rule, a, i);
        let picks: Option<Vec<usize>> =
            rows.iter().map(|r| if let [(at, 1.0)] = r[..] { Some(at) } else { None }).collect();
        value = match picks {
            Some(picks) if !(0..a.result).any(outside) => select(call, &value, axis, &picks)?,
            _ => mix(call, rule, &value, axis, a, &rows)?.into(),
        };
    }
    Ok(vec![value])
}

/// Along `axis`, each result is a weighted sum, or the value for what is outside.
fn mix(
    call: &Call<'_>,
    rule: &Rule<'_>,
    value: &Value,
    axis: usize,
    a: &Axis,
    rows: &[Vec<(usize, f64)>],
) -> Result<Ranked, String> {
    let x = value.to_tensor(call.device)?;
    let rank = x.rank();
    call.check_work((x.dims().iter().product::<usize>() as u64).saturating_mul(a.result as u64))?;
    let mut matrix = vec![0f32; a.length * a.result];
    let mut constant = vec![0f32; a.result];
    for (i, row) in rows.iter().enumerate() {
        if is_outside(rule, a, i) {
            constant[i] = rule.outside as f32;
        } else {
            row.iter().for_each(|&(at, weight)| matrix[at * a.result + i] += weight as f32);
        }
    }
    let device = call.device.clone().inner();
    let matrix = Tensor::<2>::from_data(TensorData::new(matrix, [a.length, a.result]), &device);
    let constant = Tensor::<2>::from_data(TensorData::new(constant, [1, a.result]), &device);
    let (Ranked::R2(matrix), Ranked::R2(constant)) =
        (Ranked::R2(matrix).lift(call.device), Ranked::R2(constant).lift(call.device))
    else {
        return Err("no matrix".into());
    };
    let last = map_rank!(x, t => t.swap_dims(axis, rank - 1));
    let mut dims = last.dims();
    let count = dims[..rank - 1].iter().product();
    let Ranked::R2(flat) = last.reshape(&[count, a.length])? else { return Err("no rows".into()) };
    dims[rank - 1] = a.result;
    let y = Ranked::R2(flat.matmul(matrix) + constant).reshape(&dims)?;
    Ok(map_rank!(y, t => t.swap_dims(axis, rank - 1)))
}

/// Where in the input result `i` lies.
fn place(rule: &Rule<'_>, a: &Axis, i: usize) -> Result<f64, String> {
    let (x, n, m) = (i as f64, a.length as f64, a.result as f64);
    let scaled = n * a.scale;
    Ok(match rule.place {
        "half_pixel" => (x + 0.5) / a.scale - 0.5,
        "half_pixel_symmetric" => {
            let offset = n / 2.0 * (1.0 - m / scaled);
            offset + (x + 0.5) / a.scale - 0.5
        }
        "pytorch_half_pixel" if m > 1.0 => (x + 0.5) / a.scale - 0.5,
        "pytorch_half_pixel" => 0.0,
        "align_corners" if m > 1.0 => x * (n - 1.0) / (scaled - 1.0),
        "align_corners" => 0.0,
        "asymmetric" => x / a.scale,
        "tf_half_pixel_for_nn" => (x + 0.5) / a.scale,
        "tf_crop_and_resize" => {
            let (start, end) = a.region;
            if m > 1.0 {
                start * (n - 1.0) + x * (end - start) * (n - 1.0) / (scaled - 1.0)
            } else {
                0.5 * (start + end) * (n - 1.0)
            }
        }
        other => return Err(format!("coordinate_transformation_mode `{other}`")),
    })
}

fn is_outside(rule: &Rule<'_>, a: &Axis, i: usize) -> bool {
    rule.place == "tf_crop_and_resize"
        && place(rule, a, i).is_ok_and(|x| x < 0.0 || x > a.length as f64 - 1.0)
}

/// Which pixels result `i` takes, and how much of each.
fn weights(rule: &Rule<'_>, a: &Axis, i: usize) -> Result<Vec<(usize, f64)>, String> {
    let at = place(rule, a, i)?;
    let last = a.length as i64 - 1;
    let clamp = |v: i64| v.clamp(0, last) as usize;
    if rule.mode == "nearest" {
        let picked = match rule.nearest {
            "round_prefer_floor" => (at - 0.5).ceil(),
            "round_prefer_ceil" => (at + 0.5).floor(),
            "floor" => at.floor(),
            "ceil" => at.ceil(),
            other => return Err(format!("nearest_mode `{other}`")),
        };
        return Ok(vec![(clamp(picked as i64), 1.0)]);
    }
    let (reach, kernel): (f64, Box<dyn Fn(f64) -> f64>) = match rule.mode {
        "linear" => (1.0, Box::new(|x: f64| (1.0 - x.abs()).max(0.0))),
        "cubic" => (2.0, Box::new(|x: f64| cubic(rule.cubic, x.abs()))),
        other => return Err(format!("mode `{other}`; known are nearest, linear and cubic")),
    };
    // Antialiasing stretches the kernel over all pixels that a smaller result stands for.
    let shrink = if rule.antialias { a.scale.min(1.0) } else { 1.0 };
    let (first, end) = ((at - reach / shrink).ceil() as i64, (at + reach / shrink).floor() as i64);
    let mut found: Vec<(i64, f64)> = (first..=end).map(|j| (j, kernel((j as f64 - at) * shrink))).collect();
    if rule.exclude_outside {
        found.retain(|(j, _)| (0..=last).contains(j));
    }
    let sum: f64 = found.iter().map(|(_, w)| w).sum();
    if sum == 0.0 {
        return Ok(vec![(clamp(at.round() as i64), 1.0)]);
    }
    let mut merged: Vec<(usize, f64)> = Vec::new();
    for (j, weight) in found {
        match merged.last_mut() {
            Some((at, total)) if *at == clamp(j) => *total += weight / sum,
            _ => merged.push((clamp(j), weight / sum)),
        }
    }
    merged.retain(|(_, w)| *w != 0.0);
    Ok(merged)
}

/// Keys' kernel.
fn cubic(a: f64, x: f64) -> f64 {
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * a
    } else {
        0.0
    }
}
