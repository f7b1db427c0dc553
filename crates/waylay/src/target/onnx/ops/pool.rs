//! Pooling over windows and over whole images.

use burn::tensor::module::{avg_pool2d, max_pool2d};
use burn::tensor::ops::{AvgPoolOptions, MaxPoolOptions};

use super::window::Window;
use super::{Call, Operator, Outcome, one, op};
use crate::target::onnx::value::Ranked;

pub(super) const LIST: &[Operator] = &[
    op("MaxPool", 1..=1, max),
    op("AveragePool", 1..=1, average),
    op("GlobalAveragePool", 1..=1, |call| one(Ranked::R4(call.image(0)?.mean_dim(3).mean_dim(2)))),
    op("GlobalMaxPool", 1..=1, |call| one(Ranked::R4(call.image(0)?.max_dim(3).max_dim(2)))),
];

fn max(call: &Call<'_>) -> Outcome {
    if call.node.outputs.len() > 1 && call.node.outputs[1].is_some() {
        return Err("the positions of the maxima are not supported".into());
    }
    if call.int("storage_order", 0)? != 0 {
        return Err("storage_order 1 is not supported".into());
    }
    let x = call.image(0)?;
    let (window, ceil) = window(call, x.dims())?;
    one(Ranked::R4(max_pool2d(
        x,
        MaxPoolOptions::new(window.kernel)
            .with_stride(window.stride)
            .with_padding_pairs([0, 1].map(|i| (window.before[i], window.after[i])))
            .with_dilation(window.dilation)
            .with_ceil_mode(ceil),
    )))
}

fn average(call: &Call<'_>) -> Outcome {
    let x = call.image(0)?;
    let (window, ceil) = window(call, x.dims())?;
    if window.dilation != [1, 1] {
        return Err(format!("dilations {:?}; only 1 is supported", window.dilation));
    }
    one(Ranked::R4(avg_pool2d(
        x,
        AvgPoolOptions::new(window.kernel)
            .with_stride(window.stride)
            .with_padding_pairs([0, 1].map(|i| (window.before[i], window.after[i])))
            .with_count_include_pad(call.int("count_include_pad", 0)? != 0)
            .with_ceil_mode(ceil),
    )))
}

fn window(call: &Call<'_>, [n, c, h, w]: [usize; 4]) -> Result<(Window, bool), String> {
    let ceil = call.int("ceil_mode", 0)? != 0;
    let window = Window::read(call, Window::kernel(call)?, [h, w], ceil)?;
    // Half a kernel is what Burn and PyTorch accept; more would make windows of nothing but padding.
    if (0..2).any(|i| window.before[i].max(window.after[i]) * 2 > window.kernel[i] * window.dilation[i]) {
        return Err(format!("padding {:?} and {:?} exceeds half the kernel", window.before, window.after));
    }
    let result = call.affordable(vec![n, c, window.output[0], window.output[1]])?;
    call.check_work(result.iter().chain(&window.kernel).fold(1u64, |p, &d| p.saturating_mul(d as u64)))?;
    Ok((window, ceil))
}
