//! Two-dimensional convolution.

use waylay_conv::{ConvOptions, conv2d};

use super::window::Window;
use super::{Call, Operator, Outcome, one, op};
use crate::target::onnx::value::Ranked;

pub(super) const LIST: &[Operator] = &[op("Conv", 2..=3, conv)];

fn conv(call: &Call<'_>) -> Outcome {
    let x = call.image(0)?;
    let weight = call.image(1)?;
    let [n, channels, height, width] = x.dims();
    let [out, per_group, kh, kw] = weight.dims();
    let groups = usize::try_from(call.int("group", 1)?).unwrap_or(0);
    if groups == 0 || out % groups != 0 || per_group.checked_mul(groups) != Some(channels) {
        return Err(format!(
            "{groups} groups of {per_group} channels, {out} filters, for an image of {channels} channels"
        ));
    }
    if let Some(shape) = call.int_list("kernel_shape")?
        && *shape != [kh as i64, kw as i64]
    {
        return Err(format!("kernel_shape {shape:?}, but the weights are {kh} x {kw}"));
    }
    let window = Window::read(call, [kh, kw], [height, width], false)?;
    let result = call.affordable(vec![n, out, window.output[0], window.output[1]])?;
    call.affordable(vec![
        n,
        channels,
        height + window.before[0] + window.after[0],
        width + window.before[1] + window.after[1],
    ])?;
    call.check_work(
        result.iter().chain(&[per_group, kh, kw]).fold(1u64, |p, &d| p.saturating_mul(d as u64)),
    )?;
    let bias = if call.has(2) { Some(call.vector(2, out)?) } else { None };
    let options = ConvOptions {
        stride: window.stride,
        padding: [window.before[0], window.before[1], window.after[0], window.after[1]],
        dilation: window.dilation,
        groups,
    };
    one(Ranked::R4(conv2d(x, weight, bias, options)))
}
