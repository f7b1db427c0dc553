//! Scaled dot-product attention with masks that are known without the image. Source: the reference
//! implementation of `Attention`, <https://onnx.ai/onnx/operators/onnx__Attention.html>.

use burn::tensor::activation::softmax;
use burn::tensor::{Tensor, TensorData};

use super::arithmetic::pairs;
use super::call::{Call, broadcast};
use super::{Operator, Outcome, op};
use crate::constant::{Constant, Values};
use crate::value::Ranked;

pub(super) const LIST: &[Operator] = &[op("Attention", 3..=7, attention)];

/// What stands for −∞ in a mask: `f32` takes differences of it without becoming NaN.
const NEVER: f32 = -1e30;

fn attention(call: &Call<'_>) -> Outcome {
    let three = matches!(call.tensor(0)?, Ranked::R3(_));
    let q = heads(call, 0, call.int("q_num_heads", 0)?)?;
    let mut k = heads(call, 1, call.int("kv_num_heads", 0)?)?;
    let mut v = heads(call, 2, call.int("kv_num_heads", 0)?)?;
    let mut past = 0;
    if call.has(4) && call.has(5) {
        let (keys, values) = (call.image(4)?, call.image(5)?);
        past = keys.dims()[2];
        let fits = |old: &Tensor<4>, new: &Tensor<4>| {
            let (o, n) = (old.dims(), new.dims());
            [o[0], o[1], o[3]] == [n[0], n[1], n[3]]
        };
        if !fits(&keys, &k) || !fits(&values, &v) {
            return Err(format!("a cache of shape {:?} for keys of shape {:?}", keys.dims(), k.dims()));
        }
        (k, v) = (Tensor::cat(vec![keys, k], 2), Tensor::cat(vec![values, v], 2));
    }
    let present = [k.clone(), v.clone()];
    let [n, count, rows, width] = q.dims();
    let [kn, kv_count, columns, key_width] = k.dims();
    let [vn, v_heads, v_columns, v_width] = v.dims();
    if kn != n
        || vn != n
        || key_width != width
        || v_columns != columns
        || v_heads != kv_count
        || count % kv_count != 0
    {
        return Err(format!(
            "queries of shape {:?}, keys of {:?}, values of {:?}",
            q.dims(),
            k.dims(),
            v.dims()
        ));
    }
    let scores = call.affordable(vec![n, count, rows, columns])?;
    call.check_work(scores.iter().fold(width as u64, |p, &d| p.saturating_mul(d as u64)))?;
    let repeats = count / kv_count;
    let repeat = |t: Tensor<4>, width: usize| {
        t.reshape([n * kv_count, 1, columns * width])
            .repeat(&[1, repeats, 1])
            .reshape([n, count, columns, width])
    };
    if repeats > 1 {
        (k, v) = (repeat(k, width), repeat(v, v_width));
    }
    let scale = call.float("scale")?.unwrap_or_else(|| 1.0 / (width as f32).sqrt());
    let raw = (q * scale).matmul(k.swap_dims(2, 3));
    let cap = call.float("softcap")?.unwrap_or(0.0);
    let capped = if cap > 0.0 { (raw.clone() / cap).tanh() * cap } else { raw.clone() };
    let mode = call.int("qk_matmul_output_mode", 0)?;
    let (mut masked, mut shares) = (capped.clone(), None);
    if let Some(bias) = bias(call, [n, rows, columns], past)? {
        // A row that may look nowhere gives zeros.
        let seen: Vec<f32> = bias
            .values
            .chunks(columns)
            .map(|row| f32::from(u8::from(row.iter().any(|b| *b > NEVER))))
            .collect();
        let [a, b, r, c] = bias.dims;
        let on = |values: Vec<f32>, shape: [usize; 4]| {
            let tensor = Tensor::<4>::from_data(TensorData::new(values, shape), &call.device.clone().inner());
            match Ranked::R4(tensor).lift(call.device) {
                Ranked::R4(tensor) => Ok(tensor),
                _ => Err("a mask of no rank".to_owned()),
            }
        };
        if seen.contains(&0.0) {
            shares = Some(on(seen, [a, b, r, 1])?);
        }
        masked = masked + on(bias.values, [a, b, r, c])?;
    }
    let mut probabilities = softmax(masked.clone(), 3);
    if let Some(shares) = shares {
        probabilities = probabilities * shares;
    }
    let shown = match mode {
        0 if cap > 0.0 && call.opset < 24 => raw,
        0 | 1 => capped,
        2 => masked,
        3 => probabilities.clone(),
        other => return Err(format!("qk_matmul_output_mode {other}; need 0 to 3")),
    };
    let y = probabilities.matmul(v);
    let y =
        if three { Ranked::R3(y.swap_dims(1, 2).reshape([n, rows, count * v_width])) } else { Ranked::R4(y) };
    let [keys, values] = present;
    Ok(vec![y.into(), Ranked::R4(keys).into(), Ranked::R4(values).into(), Ranked::R4(shown).into()])
}

/// Input `index` as `[batch, heads, sequence, width]`; of rank 3, its last axis holds `count`
/// heads.
fn heads(call: &Call<'_>, index: usize, count: i64) -> Result<Tensor<4>, String> {
    match call.tensor(index)? {
        Ranked::R4(t) => Ok(t),
        Ranked::R3(t) => {
            let [n, length, width] = t.dims();
            match usize::try_from(count).ok().filter(|c| *c > 0 && width % c == 0) {
                Some(count) => Ok(t.reshape([n, length, count, width / count]).swap_dims(1, 2)),
                None => Err(format!("input {index} of width {width} in {count} heads")),
            }
        }
        other => Err(format!("input {index} has rank {}; need 3 or 4", other.rank())),
    }
}

/// What is added to the scores.
struct Bias {
    dims: [usize; 4],
    values: Vec<f32>,
}

fn bias(call: &Call<'_>, [n, rows, columns]: [usize; 3], past: usize) -> Result<Option<Bias>, String> {
    let causal = call.int("is_causal", 0)? != 0;
    let (left, right) = (call.int("left_window_size", -1)?, call.int("right_window_size", -1)?);
    let lengths = if call.has(6) { Some(call.ints(6)?) } else { None };
    if lengths.is_some_and(|l| l.len() != n) {
        return Err(format!("lengths of {n} sequences are needed"));
    }
    let windowed = causal || left >= 0 || right >= 0;
    if !call.has(3) && !windowed && lengths.is_none() {
        return Ok(None);
    }
    let mut lead = vec![1, 1];
    let mut given = None;
    if call.has(3) {
        let mask = call.constant(3)?;
        let mut values = match &mask.values {
            Values::Bool(v) => v.iter().map(|&v| if v { 0.0 } else { NEVER }).collect(),
            Values::Float(v) => v.iter().map(|v| v.max(NEVER)).collect::<Vec<_>>(),
            Values::Int(_) => return Err("a mask of integers".into()),
        };
        let mut dims = mask.dims.clone();
        let Some(last) = dims.last_mut() else { return Err("a mask without dimensions".into()) };
        // A mask that is too short hides what is beyond its end.
        if *last < columns && *last > 0 {
            let wide = values
                .chunks(*last)
                .flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(NEVER, columns - *last)));
            values = wide.collect();
            *last = columns;
        }
        let constant = Constant { dims, values: Values::Float(values) };
        let full = broadcast(&constant.dims, &[rows, columns])?;
        if full.len() > 4 || full[full.len() - 2..] != [rows, columns] {
            return Err(format!("a mask of shape {:?} for {rows} x {columns} scores", mask.dims));
        }
        lead = [vec![1; 4 - full.len()], full[..full.len() - 2].to_vec()].concat();
        given = Some(constant);
    }
    if lengths.is_some() {
        lead[0] = n;
    }
    let dims = [lead[0], lead[1], rows, columns];
    let full = Constant::full(&call.affordable_known(dims.to_vec())?);
    let mut values = vec![0f32; full.len()];
    if let Some(given) = given
        && let Some(floats) = given.as_floats()
    {
        values = pairs(&given, &full)?.1.into_iter().map(|(i, _)| floats[i]).collect();
    }
    for (at, value) in values.iter_mut().enumerate() {
        let (j, i) = ((at % columns) as i64, (at / columns % rows) as i64);
        let length = lengths.map(|l| l[at / (columns * rows * dims[1])]);
        let offset = length.map_or(past as i64, |l| l - rows as i64);
        let gap = i + offset - j;
        let hidden = (causal && gap < 0)
            || (left >= 0 && gap > left)
            || (right >= 0 && -gap > right)
            || length.is_some_and(|l| j >= l);
        if hidden {
            *value = NEVER;
        }
    }
    Ok(Some(Bias { dims, values }))
}
