//! Fast CPU convolution, forward and backward, for Burn's flex backend.

mod gemm_slice;

use burn::tensor::Tensor;

pub use gemm_slice::matmul_transposed;

/// How a 2-D convolution moves over its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvOptions {
    /// Step down and across.
    pub stride: [usize; 2],
    /// Zeros added at the top, left, bottom and right.
    pub padding: [usize; 4],
    /// Distance between the kernel's taps, down and across.
    pub dilation: [usize; 2],
    /// Groups that channels are divided into.
    pub groups: usize,
}

impl Default for ConvOptions {
    fn default() -> Self {
        Self { stride: [1; 2], padding: [0; 4], dilation: [1; 2], groups: 1 }
    }
}

/// Cross-correlation of `x` `[N, Ci, H, W]` with `weight` `[Co, Ci / groups, Kh, Kw]` and optional `bias` `[Co]`,
/// differentiable in all three.
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>, options: ConvOptions) -> Tensor<4> {
    let [top, left, bottom, right] = options.padding;
    let padded = burn::tensor::ops::PaddedConvOptions::asymmetric(
        options.stride,
        [top, left],
        [bottom, right],
        options.dilation,
        options.groups,
    );
    burn::tensor::module::conv2d(x, weight, bias, padded)
}

/// Normalises each channel of each image of `x` `[N, C, H, W]` to mean 0 and variance 1 (biased, plus `epsilon`),
/// then scales by `gamma` `[C]` and shifts by `beta` `[C]`.
pub fn instance_norm(x: Tensor<4>, gamma: Tensor<1>, beta: Tensor<1>, epsilon: f64) -> Tensor<4> {
    let [_, c, _, _] = x.dims();
    let mean = x.clone().mean_dim(3).mean_dim(2);
    let centred = x - mean;
    let variance = centred.clone().powi_scalar(2).mean_dim(3).mean_dim(2);
    centred / (variance + epsilon).sqrt() * gamma.reshape([1, c, 1, 1]) + beta.reshape([1, c, 1, 1])
}
