//! Fast CPU convolution, the layers around it, forward and backward, and Adam, for Burn's flex
//! backend; on any other device, Burn's own. And products of plain slices, for exact search:
//! [`PackedRows`].
//!
//! Work is divided among the threads of the current rayon pool. With the same number of threads the
//! same inputs give the same bits.

#![deny(clippy::undocumented_unsafe_blocks)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod activation;
mod adam;
mod adam_step;
mod aligned;
mod autodiff;
mod backend;
mod depthwise;
mod direct;
mod dispatch;
mod epilogue;
mod filters;
mod gemm;
mod im2col;
mod kernel;
mod memory;
mod norm;
mod options;
mod packed_rows;
mod pool;
mod prelu;
mod prepared;
mod reference;
mod resample;
mod rows;
mod scratch;
mod simd;
mod strided;
#[cfg(test)]
mod tests;
mod transpose;
mod weights;
mod window;
mod winograd;

use burn::backend::{Dispatch, DispatchDevice};
use burn::tensor::{DType, Tensor};

pub use crate::activation::Activation;
pub use crate::adam::Adam;
pub use crate::adam_step::AdamStep;
use crate::backend::ConvBackend;
pub use crate::memory::{MappedFile, keep_freed_memory};
pub use crate::options::ConvOptions;
pub use crate::packed_rows::PackedRows;
pub use crate::prepared::PreparedFilters;

/// Cross-correlation of `x` `[N, Ci, H, W]` with `weight` `[Co, Ci / groups, Kh, Kw]` and optional
/// `bias` `[Co]`, differentiable in all three.
///
/// # Panics
/// Where [`ConvOptions::output_shape`] gives `None`, and if `bias` does not have one value per
/// output channel.
///
/// # Examples
/// ```
/// use burn::tensor::{Device, Tensor};
/// use waylay_conv::{ConvOptions, conv2d};
///
/// let x = Tensor::<4>::ones([1, 2, 5, 5], &Device::flex());
/// let weight = Tensor::<4>::ones([4, 2, 3, 3], &Device::flex());
/// let options = ConvOptions { padding: [1; 4], ..ConvOptions::default() };
/// assert_eq!(conv2d(x, weight, None, options).dims(), [1, 4, 5, 5]);
/// ```
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>, options: ConvOptions) -> Tensor<4> {
    conv2d_then(x, weight, bias, None, false, options)
}

/// [`conv2d`], plus `add` of the output's shape, and with values below 0 set to 0 where `relu`:
/// what follows a convolution in most networks, without a pass of its own. Differentiable in all
/// four.
///
/// # Panics
/// Where [`conv2d`] does, and if `add` does not have the output's shape.
pub fn conv2d_then(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    add: Option<Tensor<4>>,
    relu: bool,
    options: ConvOptions,
) -> Tensor<4> {
    filtered(x, (weight, None), bias, add, relu, options)
}

/// [`conv2d_then`] with filters that do not change: their transforms are kept between calls.
/// Differentiable in `x`, `bias` and `add`.
///
/// # Panics
/// Where [`conv2d_then`] does.
pub fn conv2d_prepared(
    x: Tensor<4>,
    filters: &PreparedFilters,
    bias: Option<Tensor<1>>,
    add: Option<Tensor<4>>,
    relu: bool,
    options: ConvOptions,
) -> Tensor<4> {
    // In the same record of gradients as `x`.
    let weight = match x.device().gradient_checkpointing_strategy() {
        Some(strategy) => filters.weight().autodiff().with_gradient_checkpointing_strategy(strategy),
        None => filters.weight(),
    };
    filtered(x, (weight, Some(filters.clone())), bias, add, relu, options)
}

fn filtered(
    x: Tensor<4>,
    (weight, prepared): (Tensor<4>, Option<PreparedFilters>),
    bias: Option<Tensor<1>>,
    add: Option<Tensor<4>>,
    relu: bool,
    options: ConvOptions,
) -> Tensor<4> {
    let fits = has_kernels(&x) && has_kernels(&weight) && bias.as_ref().is_none_or(has_kernels);
    if !(fits && add.as_ref().is_none_or(has_kernels)) {
        return reference::conv2d_then(x, weight, bias, add, relu, options);
    }
    let bias = match bias {
        None if relu || add.is_some() => {
            Some(Tensor::zeros([weight.dims()[0]], (&weight.device(), weight.dtype())))
        }
        bias => bias,
    };
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    let (bias, add) = (bias.map(Tensor::into_dispatch), add.map(Tensor::into_dispatch));
    Tensor::from_dispatch(match (bias, add) {
        (Some(bias), Some(add)) => Dispatch::fast_conv2d_add(x, weight, prepared, bias, add, relu, options),
        (Some(bias), None) if relu => Dispatch::fast_conv2d_relu(x, weight, prepared, bias, options),
        (Some(bias), None) => Dispatch::fast_conv2d_with_bias(x, weight, prepared, bias, options),
        (None, _) => Dispatch::fast_conv2d(x, weight, prepared, options),
    })
}

/// Transposed convolution of `x` `[N, Ci, H, W]` with `weight` `[Ci, Co / groups, Kh, Kw]` and
/// optional `bias` `[Co]`: the gradient of [`conv2d`] in an input of height and width `size`, of
/// which `x` is the output's. Differentiable in all three.
///
/// # Panics
/// Where [`conv2d`] does not turn an image of `size` into one of `x`'s size, and if `bias` does not
/// have one value per output channel.
pub fn conv_transpose2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    options: ConvOptions,
    size: [usize; 2],
) -> Tensor<4> {
    if !(has_kernels(&x) && has_kernels(&weight) && bias.as_ref().is_none_or(has_kernels)) {
        return reference::conv_transpose2d(x, weight, bias, options, size);
    }
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(match bias {
        Some(bias) => {
            Dispatch::fast_conv_transpose2d_with_bias(x, weight, bias.into_dispatch(), options, size)
        }
        None => Dispatch::fast_conv_transpose2d(x, weight, options, size),
    })
}

/// Normalises each channel of each image of `x` `[N, C, H, W]` to mean 0 and variance 1 (biased,
/// plus `epsilon`), then scales by `gamma` `[C]` and shifts by `beta` `[C]`. Differentiable in all
/// three.
///
/// # Panics
/// If `gamma` or `beta` does not have one value per channel.
pub fn instance_norm(x: Tensor<4>, gamma: Tensor<1>, beta: Tensor<1>, epsilon: f64) -> Tensor<4> {
    instance_norm_then(x, gamma, beta, epsilon, 1.0)
}

/// [`instance_norm`], then values that are not above 0 times `slope`: 0 is ReLU, and 1 leaves them
/// as they are. What follows in most networks, without a pass of its own. Differentiable in all
/// three.
///
/// # Panics
/// Where [`instance_norm`] does.
pub fn instance_norm_then(
    x: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
    slope: f32,
) -> Tensor<4> {
    let [_, channels, h, w] = x.dims();
    assert_eq!(gamma.dims(), [channels], "instance_norm: one scale per channel");
    assert_eq!(beta.dims(), [channels], "instance_norm: one shift per channel");
    if !(has_kernels(&x) && has_kernels(&gamma) && has_kernels(&beta)) || channels * h * w == 0 {
        return reference::instance_norm_then(x, gamma, beta, epsilon, slope);
    }
    let (x, gamma, beta) = (x.into_dispatch(), gamma.into_dispatch(), beta.into_dispatch());
    Tensor::from_dispatch(Dispatch::fast_instance_norm(x, gamma, beta, epsilon, slope))
}

/// Normalises each row of `x`, its last dimension, to mean 0 and variance 1 (biased, plus
/// `epsilon`), then scales by `gamma` and shifts by `beta`, a value per place in the row.
/// Differentiable in all three.
///
/// # Panics
/// If `gamma` or `beta` is not as long as a row.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    let shape = x.dims();
    assert_eq!(gamma.dims(), [shape[D - 1]], "layer_norm: one scale per place in a row");
    assert_eq!(beta.dims(), [shape[D - 1]], "layer_norm: one shift per place in a row");
    if !(has_kernels(&x) && has_kernels(&gamma) && has_kernels(&beta)) || shape.contains(&0) {
        return reference::layer_norm(x, gamma, beta, epsilon);
    }
    let (x, gamma, beta) = (x.into_dispatch(), gamma.into_dispatch(), beta.into_dispatch());
    Tensor::from_dispatch(Dispatch::fast_layer_norm(x, gamma, beta, epsilon))
}

/// exp(v)/Σ exp(v) of each row of `x`, its last dimension. Differentiable.
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if !has_kernels(&x) || x.dims().contains(&0) {
        return burn::tensor::activation::softmax(x, D - 1);
    }
    Tensor::from_dispatch(Dispatch::fast_softmax(x.into_dispatch()))
}

/// `function` of each of `x`, of any shape. Differentiable.
pub fn activate<const D: usize>(x: Tensor<D>, function: Activation) -> Tensor<D> {
    if !has_kernels(&x) {
        return reference::activate(x, function);
    }
    Tensor::from_dispatch(Dispatch::fast_activation(x.into_dispatch(), function))
}

/// Passes values of `x` `[N, C, H, W]` above 0 and scales others by `alpha`: a slope per channel
/// `[C]`, or one for all `[1]`. Differentiable in both.
///
/// # Panics
/// If `alpha` has neither 1 value nor one per channel.
pub fn prelu(x: Tensor<4>, alpha: Tensor<1>) -> Tensor<4> {
    let [_, channels, h, w] = x.dims();
    let [slopes] = alpha.dims();
    assert!(slopes == 1 || slopes == channels, "prelu: {slopes} slopes; need 1 or {channels}");
    if !(has_kernels(&x) && has_kernels(&alpha)) || channels * h * w == 0 {
        return reference::prelu(x, alpha);
    }
    Tensor::from_dispatch(Dispatch::fast_prelu(x.into_dispatch(), alpha.into_dispatch()))
}

/// The largest value of each window of `x` `[N, C, H, W]`, by `kernel` and the stride, padding and
/// dilation of `options`; of padding alone, −∞. Differentiable: the gradient goes to the first of
/// equal values.
///
/// # Panics
/// Where [`ConvOptions::output_size`] gives `None`.
pub fn max_pool2d(x: Tensor<4>, kernel: [usize; 2], options: ConvOptions) -> Tensor<4> {
    if !has_kernels(&x) || x.dims().contains(&0) {
        return reference::max_pool2d(x, kernel, options);
    }
    Tensor::from_dispatch(Dispatch::fast_max_pool2d(x.into_dispatch(), kernel, options))
}

/// Enlarges `x` `[N, C, H, W]` to `[N, C, H factor, W factor]` by repeating each pixel.
/// Differentiable.
///
/// # Panics
/// If `factor` is 0.
pub fn upsample_nearest(x: Tensor<4>, factor: usize) -> Tensor<4> {
    assert!(factor > 0, "upsample_nearest: factor 0; need at least 1");
    if !has_kernels(&x) || x.dims().contains(&0) {
        return reference::upsample_nearest(x, factor);
    }
    Tensor::from_dispatch(Dispatch::fast_upsample_nearest(x.into_dispatch(), factor))
}

/// Turns `x` `[N, C factor², H, W]` into `[N, C, H factor, W factor]`: channel `c factor² + i
/// factor + j` gives the pixels at rows `i` and columns `j`, modulo `factor`, of channel `c`.
/// Differentiable.
///
/// # Panics
/// If `factor` is 0 or its square does not divide the channels.
pub fn pixel_shuffle(x: Tensor<4>, factor: usize) -> Tensor<4> {
    let [_, channels, ..] = x.dims();
    let fits = factor > 0 && channels.is_multiple_of(factor * factor);
    assert!(fits, "pixel_shuffle: {channels} channels cannot be divided by factor {factor} squared");
    if !has_kernels(&x) || x.dims().contains(&0) {
        return reference::pixel_shuffle(x, factor);
    }
    Tensor::from_dispatch(Dispatch::fast_pixel_shuffle(x.into_dispatch(), factor))
}

/// Turns `x` `[N, C, H factor, W factor]` into `[N, C factor², H, W]`: the reverse of
/// [`pixel_shuffle`].
///
/// # Panics
/// If `factor` is 0 or does not divide height and width.
pub fn pixel_unshuffle(x: Tensor<4>, factor: usize) -> Tensor<4> {
    let [.., h, w] = x.dims();
    let fits = factor > 0 && h.is_multiple_of(factor) && w.is_multiple_of(factor);
    assert!(fits, "pixel_unshuffle: {h} x {w} pixels cannot be divided by factor {factor}");
    if !has_kernels(&x) || x.dims().contains(&0) {
        return reference::pixel_unshuffle(x, factor);
    }
    Tensor::from_dispatch(Dispatch::fast_pixel_unshuffle(x.into_dispatch(), factor))
}

/// Whether the kernels of this crate can take a tensor: `f32` on the flex backend.
fn has_kernels<const D: usize>(tensor: &Tensor<D>) -> bool {
    fn is_flex(device: &DispatchDevice) -> bool {
        match device {
            DispatchDevice::Flex(_) => true,
            DispatchDevice::Autodiff(device) => is_flex(&device.clone().inner()),
            #[allow(unreachable_patterns)] // Burn features decide which other devices there are.
            _ => false,
        }
    }
    tensor.dtype() == DType::F32 && is_flex(tensor.device().as_dispatch())
}

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
