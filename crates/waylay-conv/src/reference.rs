//! Reference implementations on Burn's own operations: the fallback on other devices, and what the
//! kernels are tested against.

use burn::tensor::ops::{ConvOptions as BurnOptions, ConvTransposeOptions, MaxPoolOptions, PadMode};
use burn::tensor::{Tensor, activation};

use crate::activation::Activation;
use crate::options::ConvOptions;

pub(crate) fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    options: ConvOptions,
) -> Tensor<4> {
    let ConvOptions { stride, padding: [top, left, bottom, right], dilation, groups, winograd: _ } = options;
    let padding = [(top, bottom), (left, right)];
    let options = BurnOptions::new_with_padding(stride, padding, dilation, groups);
    burn::tensor::module::conv2d(x, weight, bias, options)
}

pub(crate) fn conv2d_then(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    add: Option<Tensor<4>>,
    relu: bool,
    options: ConvOptions,
) -> Tensor<4> {
    let sums = conv2d(x, weight, bias, options);
    let sums = match add {
        Some(add) => sums + add,
        None => sums,
    };
    if relu { activation::relu(sums) } else { sums }
}

pub(crate) fn conv_transpose2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    options: ConvOptions,
    [height, width]: [usize; 2],
) -> Tensor<4> {
    let ConvOptions { stride, padding: [top, left, ..], dilation, groups, winograd: _ } = options;
    let options = ConvTransposeOptions::new(stride, [0; 2], [0; 2], dilation, groups);
    let full = burn::tensor::module::conv_transpose2d(x, weight, None, options);
    let [n, c, h, w] = full.dims();
    // Pixels that no tap reaches are 0.
    let (below, right) = ((top + height).saturating_sub(h), (left + width).saturating_sub(w));
    let full = full.pad((0, right, 0, below), PadMode::Constant(0.0));
    let y = full.slice([0..n, 0..c, top..top + height, left..left + width]);
    match bias {
        Some(bias) => y + bias.reshape([1, c, 1, 1]),
        None => y,
    }
}

pub(crate) fn instance_norm(x: Tensor<4>, gamma: Tensor<1>, beta: Tensor<1>, epsilon: f64) -> Tensor<4> {
    let [_, c, _, _] = x.dims();
    let mean = x.clone().mean_dim(3).mean_dim(2);
    let centred = x - mean;
    let variance = centred.clone().powi_scalar(2).mean_dim(3).mean_dim(2);
    centred / (variance + epsilon).sqrt() * gamma.reshape([1, c, 1, 1]) + beta.reshape([1, c, 1, 1])
}

pub(crate) fn instance_norm_then(
    x: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
    slope: f32,
) -> Tensor<4> {
    let y = instance_norm(x, gamma, beta, epsilon);
    if slope == 1.0 { y } else { activate(y, Activation::LeakyRelu(slope)) }
}

pub(crate) fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    let mean = x.clone().mean_dim(D - 1);
    let centred = x - mean;
    let variance = (centred.clone() * centred.clone()).mean_dim(D - 1);
    centred / (variance + epsilon).sqrt() * gamma.unsqueeze() + beta.unsqueeze()
}

pub(crate) fn activate<const D: usize>(x: Tensor<D>, function: Activation) -> Tensor<D> {
    match function {
        Activation::Relu => activation::relu(x),
        Activation::LeakyRelu(slope) => activation::leaky_relu(x, f64::from(slope)),
        Activation::Clip(low, high) => x.clamp(low, high),
        Activation::Sigmoid => activation::sigmoid(x),
        Activation::Tanh => x.tanh(),
        Activation::Silu => activation::silu(x),
        Activation::Gelu => activation::gelu(x),
        Activation::GeluTanh => activation::gelu_approximate(x),
        Activation::HardSigmoid(slope, shift) => (x * slope + shift).clamp(0.0, 1.0),
        Activation::HardSwish => x.clone() * (x / 6.0 + 0.5).clamp(0.0, 1.0),
    }
}

pub(crate) fn prelu(x: Tensor<4>, alpha: Tensor<1>) -> Tensor<4> {
    let [slopes] = alpha.dims();
    x.clone().clamp_min(0.0) + x.clamp_max(0.0) * alpha.reshape([1, slopes, 1, 1])
}

pub(crate) fn max_pool2d(x: Tensor<4>, kernel: [usize; 2], options: ConvOptions) -> Tensor<4> {
    let ConvOptions { stride, padding: [top, left, bottom, right], dilation, .. } = options;
    let options = MaxPoolOptions::new(kernel)
        .with_stride(stride)
        .with_padding_pairs([(top, bottom), (left, right)])
        .with_dilation(dilation);
    burn::tensor::module::max_pool2d(x, options)
}

pub(crate) fn upsample_nearest(x: Tensor<4>, factor: usize) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    let repeated: Tensor<6> = x.reshape([n, c, h, 1, w, 1]).expand([n, c, h, factor, w, factor]);
    repeated.reshape([n, c, h * factor, w * factor])
}

pub(crate) fn pixel_shuffle(x: Tensor<4>, factor: usize) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    let c = c / (factor * factor);
    let woven: Tensor<6> = x.reshape([n, c, factor, factor, h, w]).permute([0, 1, 4, 2, 5, 3]);
    woven.reshape([n, c, h * factor, w * factor])
}

pub(crate) fn pixel_unshuffle(x: Tensor<4>, factor: usize) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    let (h, w) = (h / factor, w / factor);
    let parted: Tensor<6> = x.reshape([n, c, h, factor, w, factor]).permute([0, 1, 3, 5, 2, 4]);
    parted.reshape([n, c * factor * factor, h, w])
}
