//! Convolution and transposed convolution over one, two or three dimensions.

use burn::tensor::module::{conv_transpose2d, conv_transpose3d, conv3d};
use burn::tensor::ops::{ConvOptions as BurnOptions, ConvTransposeOptions};
use burn::tensor::{Tensor, TensorData, activation};
use waylay_conv::{ConvOptions, conv2d, conv2d_prepared, conv2d_then};

use super::window::Window;
use super::{Call, Operator, Outcome, one, op};
use crate::value::{Ranked, zip_rank};

pub(super) const LIST: &[Operator] = &[op("Conv", 2..=3, conv), op("ConvTranspose", 2..=3, transposed)];

/// Sizes of an image and of a kernel, checked to belong together. A single dimension is taken as a
/// row.
struct Sizes {
    batch: usize,
    channels: usize,
    image: Vec<usize>,
    filters: usize,
    per_group: usize,
    kernel: Vec<usize>,
    groups: usize,
}

fn sizes(call: &Call<'_>) -> Result<(Ranked, Ranked, Sizes), String> {
    let (x, weight) = (call.tensor(0)?, call.tensor(1)?);
    let (dims, shape) = (x.dims(), weight.dims());
    let ([batch, channels, image @ ..], [filters, per_group, kernel @ ..]) = (&dims[..], &shape[..]) else {
        return Err(format!("an image of shape {dims:?} and weights of shape {shape:?}"));
    };
    if image.len() != kernel.len() || !(1..=3).contains(&image.len()) {
        return Err(format!(
            "an image of shape {dims:?} and weights of shape {shape:?}; need 1 to 3 dimensions"
        ));
    }
    if let Some(shape) = call.int_list("kernel_shape")?
        && !shape.iter().copied().eq(kernel.iter().map(|&k| k as i64))
    {
        return Err(format!("kernel_shape {shape:?}, but the weights are {kernel:?}"));
    }
    let groups = usize::try_from(call.int("group", 1)?).unwrap_or(0);
    let sizes = Sizes {
        batch: *batch,
        channels: *channels,
        image: image.to_vec(),
        filters: *filters,
        per_group: *per_group,
        kernel: kernel.to_vec(),
        groups,
    };
    Ok((x, weight, sizes))
}

/// With an inner dimension of 1 before the last, so that a row is an image.
fn as_image(x: Ranked) -> Result<Tensor<4>, String> {
    let dims = x.dims();
    let image = if let [n, c, w] = dims[..] { x.reshape(&[n, c, 1, w])? } else { x };
    match image {
        Ranked::R4(image) => Ok(image),
        other => Err(format!("rank {}; need 3 or 4", other.rank())),
    }
}

fn conv(call: &Call<'_>) -> Outcome {
    conv_then(call, None, false)
}

/// A convolution, plus `add`, an image of the result's shape, and with values below 0 set to 0
/// where `relu`.
pub(crate) fn conv_then(call: &Call<'_>, add: Option<Tensor<4>>, relu: bool) -> Outcome {
    let (x, weight, s) = sizes(call)?;
    if s.groups == 0 || s.filters % s.groups != 0 || s.per_group.checked_mul(s.groups) != Some(s.channels) {
        return Err(format!(
            "{} groups of {} channels, {} filters, for an image of {} channels",
            s.groups, s.per_group, s.filters, s.channels
        ));
    }
    let window = Window::read(call, &s.kernel, &s.image, false)?;
    let result = call.affordable([&[s.batch, s.filters], &window.output[..]].concat())?;
    let padded = (0..s.image.len()).map(|i| s.image[i] + window.before[i] + window.after[i]);
    call.affordable([s.batch, s.channels].into_iter().chain(padded).collect())?;
    let work = result.iter().chain([&s.per_group]).chain(&s.kernel);
    call.check_work(work.fold(1u64, |p, &d| p.saturating_mul(d as u64)))?;
    if s.groups == s.channels {
        call.check_work(window.work(&[s.batch, s.filters]))?;
    }
    let bias = if call.has(2) { Some(call.vector(2, s.filters)?) } else { None };
    if let (Ranked::R5(x), Ranked::R5(weight)) = (&x, &weight) {
        let triple = |v: &[usize]| [v[0], v[1], v[2]];
        let pairs: Vec<_> =
            [(0, 0); 2].into_iter().chain((0..3).map(|i| (window.before[i], window.after[i]))).collect();
        let x = x.clone().pad(&pairs[..], 0.0);
        let options = BurnOptions::new(triple(&window.stride), [0; 3], triple(&window.dilation), s.groups);
        let y = conv3d(x, weight.clone(), bias, options);
        return one(Ranked::R5(if relu { activation::relu(y) } else { y }));
    }
    let options = ConvOptions {
        stride: window.pair(|w| &w.stride, 1),
        padding: {
            let ([top, left], [bottom, right]) =
                (window.pair(|w| &w.before, 0), window.pair(|w| &w.after, 0));
            [top, left, bottom, right]
        },
        dilation: window.pair(|w| &w.dilation, 1),
        groups: s.groups,
        winograd: true,
    };
    let y = match (&weight, call.prepared) {
        (Ranked::R4(_), Some(filters)) => conv2d_prepared(as_image(x)?, filters, bias, add, relu, options),
        _ => conv2d_then(as_image(x)?, as_image(weight)?, bias, add, relu, options),
    };
    one(Ranked::R4(y).reshape(&result)?)
}

/// Everything is computed without padding, and cut to size: padding takes away here, and
/// `output_padding` adds.
fn transposed(call: &Call<'_>) -> Outcome {
    let (x, weight, s) = sizes(call)?;
    let (inputs, per_group, rank) = (s.filters, s.per_group, s.image.len());
    if s.groups == 0 || inputs % s.groups != 0 || inputs != s.channels {
        return Err(format!(
            "{} groups, weights for {inputs} channels, an image of {}",
            s.groups, s.channels
        ));
    }
    let filters = per_group.checked_mul(s.groups).ok_or("too many filters")?;
    let window = Window::steps(call, &s.kernel)?;
    let extra = match call.int_list("output_padding")? {
        None => vec![0; rank],
        Some(list) if list.len() == rank && list.iter().all(|v| (0..=1 << 16).contains(v)) => {
            list.iter().map(|&v| v as usize).collect()
        }
        Some(list) => return Err(format!("output_padding {list:?}; need {rank} numbers from 0 to 65536")),
    };
    let full: Vec<usize> = (0..rank)
        .map(|i| {
            (s.image[i].max(1) - 1) * window.stride[i] + window.dilation[i] * (s.kernel[i] - 1) + 1 + extra[i]
        })
        .collect();
    let (cut, missing) = cut(call, &s.image, &window.stride, &full)?;
    let full: Vec<usize> = full.iter().zip(&missing).map(|(f, m)| f + m).collect();
    let extra: Vec<usize> = extra.iter().zip(&missing).map(|(e, m)| e + m).collect();
    let padded = call.affordable([&[s.batch, filters], &full[..]].concat())?;
    let work = [s.batch, inputs, per_group].into_iter().chain(s.kernel.clone()).chain(s.image.clone());
    call.check_work(work.fold(1u64, |p, d| p.saturating_mul(d as u64)))?;
    let y = if let (Ranked::R5(x), Ranked::R5(weight)) = (&x, &weight) {
        let triple = |v: &[usize]| [v[0], v[1], v[2]];
        let options = ConvTransposeOptions::new(
            triple(&window.stride),
            [0; 3],
            [0; 3],
            triple(&window.dilation),
            s.groups,
        );
        Ranked::R5(conv_transpose3d(x.clone(), weight.clone(), None, options))
    } else {
        let (stride, dilation) = (window.pair(|w| &w.stride, 1), window.pair(|w| &w.dilation, 1));
        let options = ConvTransposeOptions::new(stride, [0; 2], [0; 2], dilation, s.groups);
        let y = Ranked::R4(conv_transpose2d(as_image(x)?, as_image(weight)?, None, options));
        let without: Vec<_> = (0..rank).map(|i| full[i] - extra[i]).collect();
        y.reshape(&[&[s.batch, filters], &without[..]].concat())?
    };
    let mut y = y.padded(&[vec![(0, 0); 2], extra.iter().map(|&e| (0, e)).collect()].concat())?;
    if y.dims() != padded {
        return Err(format!("shape {:?}, expected {padded:?}", y.dims()));
    }
    for (axis, &(start, length)) in cut.iter().enumerate() {
        y = y.narrow(axis + 2, start, length);
    }
    if call.has(2) {
        let shape = [vec![1, filters], vec![1; rank]].concat();
        let bias = Ranked::R1(call.vector(2, filters)?).reshape(&shape)?;
        y = zip_rank!(y, bias, (y, b) => y + b)?;
    }
    one(y)
}

/// Start and length.
type Range = (usize, usize);

/// Where the result lies in the full one, and how much more than that it needs, for each dimension.
fn cut(
    call: &Call<'_>,
    image: &[usize],
    stride: &[usize],
    full: &[usize],
) -> Result<(Vec<Range>, Vec<usize>), String> {
    let rank = image.len();
    let wanted = call.int_list("output_shape")?.map(|list| &list[list.len().saturating_sub(rank)..]);
    let mode = call.text("auto_pad", "NOTSET")?;
    let pads = call.int_list("pads")?.filter(|_| wanted.is_none());
    let (mut ranges, mut missing) = (Vec::new(), vec![0; rank]);
    for i in 0..rank {
        let same = matches!(mode, "SAME_UPPER" | "SAME_LOWER");
        let length = match wanted {
            Some(list) => list.get(i).and_then(|&v| usize::try_from(v).ok()),
            None if same => image[i].checked_mul(stride[i]),
            None => None,
        };
        let (before, after) = match (length, pads) {
            (Some(length), _) => {
                missing[i] = length.saturating_sub(full[i]);
                if missing[i] > 1 << 16 {
                    return Err(format!("{length} of {} pixels", full[i]));
                }
                let total = full[i].saturating_sub(length);
                let (small, large) = (total / 2, total.div_ceil(2));
                if mode == "SAME_UPPER" { (small, large) } else { (large, small) }
            }
            (None, Some(pads)) if pads.len() == 2 * rank => {
                let at = |j: usize| usize::try_from(pads[j]).map_err(|_| format!("pads {pads:?}"));
                (at(i)?, at(i + rank)?)
            }
            (None, Some(pads)) => return Err(format!("pads {pads:?}; need {} numbers", 2 * rank)),
            (None, None) => (0, 0),
        };
        let length =
            (full[i] + missing[i]).checked_sub(before).and_then(|v| v.checked_sub(after)).filter(|v| *v > 0);
        ranges.push((
            before,
            length.ok_or_else(|| format!("padding {before} and {after} of {} pixels", full[i]))?,
        ));
    }
    Ok((ranges, missing))
}

/// Sums over windows of every channel by itself: what average and power pooling divide by their
/// counts.
pub(super) fn window_sums(x: Tensor<4>, window: &Window) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    let [kh, kw] = window.pair(|w| &w.kernel, 1);
    let device = x.device().inner();
    let ones = Tensor::<4>::from_data(TensorData::new(vec![1f32; kh * kw], [1, 1, kh, kw]), &device);
    let ones = match Ranked::R4(ones).lift(&x.device()) {
        Ranked::R4(ones) => ones,
        _ => return x,
    };
    let ([top, left], [bottom, right]) = (window.pair(|w| &w.before, 0), window.pair(|w| &w.after, 0));
    let options = ConvOptions {
        stride: window.pair(|w| &w.stride, 1),
        padding: [top, left, bottom, right],
        dilation: window.pair(|w| &w.dilation, 1),
        ..ConvOptions::default()
    };
    let y = conv2d(x.reshape([n * c, 1, h, w]), ones, None, options);
    let [_, _, rows, columns] = y.dims();
    y.reshape([n, c, rows, columns])
}
