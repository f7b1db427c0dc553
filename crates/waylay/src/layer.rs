//! The layers that the trained networks here are made of. Weights begin as PyTorch's do by default:
//! uniform in ±1/√fan_in (He et al., arXiv:1502.01852, with a = √5), drawn from the run's own
//! stream.

use burn::module::{Module, Param};
use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use burn::tensor::{Device, Tensor, TensorData};
use rand::{Rng, RngExt};
use waylay_conv::ConvOptions;
use waylay_onnx::Layer;

/// Added to the variance in normalisations.
const NORM_EPSILON: f64 = 1e-5;

/// Uniform values in ±`bound`.
fn uniform<const D: usize>(
    shape: [usize; D],
    bound: f32,
    random: &mut impl Rng,
    device: &Device,
) -> Param<Tensor<D>> {
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|_| random.random_range(-bound..=bound)).collect();
    Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), device))
}

/// A vector of one repeated value.
fn constant(value: f32, count: usize, device: &Device) -> Param<Tensor<1>> {
    Param::from_tensor(Tensor::from_data(TensorData::new(vec![value; count], [count]), device))
}

/// A square 2-D convolution with bias and equal zero padding on all sides.
#[derive(Module, Debug)]
pub struct Conv {
    weight: Param<Tensor<4>>,
    bias: Param<Tensor<1>>,
    stride: usize,
    padding: usize,
    winograd: bool,
}

impl Conv {
    /// A `kernel` × `kernel` convolution from `inputs` to `outputs` channels.
    pub fn new(
        [inputs, outputs]: [usize; 2],
        kernel: usize,
        stride: usize,
        padding: usize,
        random: &mut impl Rng,
        device: &Device,
    ) -> Self {
        let bound = 1.0 / ((inputs * kernel * kernel) as f32).sqrt();
        Self {
            weight: uniform([outputs, inputs, kernel, kernel], bound, random, device),
            bias: uniform([outputs], bound, random, device),
            stride,
            padding,
            winograd: false,
        }
    }

    /// The same layer, faster where it can be, with a little more rounding.
    pub fn fast(self) -> Self {
        Self { winograd: true, ..self }
    }

    /// The same layer with its weights multiplied by `factor` and no bias: for heads that begin
    /// near zero.
    pub fn scaled(mut self, factor: f32) -> Self {
        let weight = self.weight.val();
        let (dims, device) = (weight.dims(), weight.device());
        let values: Vec<f32> = weight.into_data().iter::<f32>().map(|w| w * factor).collect();
        self.weight = Param::from_tensor(Tensor::from_data(TensorData::new(values, dims), &device));
        self.bias = constant(0.0, dims[0], &device);
        self
    }

    /// Where the weights are, and whether they are trained.
    pub fn device(&self) -> Device {
        self.weight.val().device()
    }

    /// Output channels.
    pub fn outputs(&self) -> usize {
        self.weight.val().dims()[0]
    }

    /// Weights and geometry, for writing the layer to a file.
    pub fn describe(&self) -> Layer {
        let values = |data: TensorData| data.iter::<f32>().collect();
        Layer::Conv {
            shape: self.weight.val().dims(),
            weight: values(self.weight.val().into_data()),
            bias: values(self.bias.val().into_data()),
            stride: self.stride,
            padding: self.padding,
        }
    }

    /// `[N, inputs, H, W]` → `[N, outputs, H′, W′]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let (stride, padding) = ([self.stride; 2], [self.padding; 4]);
        let options = ConvOptions { stride, padding, winograd: self.winograd, ..ConvOptions::default() };
        waylay_conv::conv2d(x, self.weight.val(), Some(self.bias.val()), options)
    }
}

/// Instance normalisation with a learnt scale and shift per channel (Ulyanov et al.,
/// arXiv:1607.08022).
#[derive(Module, Debug)]
pub struct Norm {
    gamma: Param<Tensor<1>>,
    beta: Param<Tensor<1>>,
}

impl Norm {
    /// For `channels` channels; begins as the plain normalisation.
    pub fn new(channels: usize, device: &Device) -> Self {
        Self { gamma: constant(1.0, channels, device), beta: constant(0.0, channels, device) }
    }

    /// Keeps the shape.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.forward_leaky(x, 1.0)
    }

    /// Then ReLU.
    pub fn forward_relu(&self, x: Tensor<4>) -> Tensor<4> {
        self.forward_leaky(x, 0.0)
    }

    /// Then values that are not above 0 times `slope`.
    pub fn forward_leaky(&self, x: Tensor<4>, slope: f32) -> Tensor<4> {
        waylay_conv::instance_norm_then(x, self.gamma.val(), self.beta.val(), NORM_EPSILON, slope)
    }
}

/// Batch normalisation (Ioffe and Szegedy, arXiv:1502.03167) as it is while training.
#[derive(Module, Debug)]
pub struct BatchNorm {
    norm: Norm,
}

/// Mean and variance per channel of what a [`BatchNorm`] saw.
#[derive(Clone, Debug)]
pub struct Statistics {
    mean: Vec<f32>,
    variance: Vec<f32>,
}

impl BatchNorm {
    /// For `channels` channels; begins as the plain normalisation.
    pub fn new(channels: usize, device: &Device) -> Self {
        Self { norm: Norm::new(channels, device) }
    }

    /// Keeps the shape; also gives the statistics of this batch.
    pub fn forward(&self, x: Tensor<4>) -> (Tensor<4>, Statistics) {
        let [n, channels, height, width] = x.dims();
        // One image whose channels hold the whole batch: its instance norm is the batch norm.
        let by_channel = x.swap_dims(0, 1).reshape([1, channels, n * height, width]);
        let plain = by_channel.clone().inner().reshape([channels, n * height * width]);
        let mean = plain.clone().mean_dim(1);
        let variance = (plain - mean.clone()).powi_scalar(2).mean_dim(1);
        let values = |t: Tensor<2>| t.into_data().iter::<f32>().collect();
        let y = self.norm.forward(by_channel).reshape([channels, n, height, width]).swap_dims(0, 1);
        (y, Statistics { mean: values(mean), variance: values(variance) })
    }

    /// The convolution before it, `conv`, with this normalisation by `statistics` worked into
    /// weights and bias.
    pub fn fold_into(&self, conv: &Conv, statistics: &Statistics) -> Layer {
        let values = |p: &Param<Tensor<1>>| -> Vec<f32> { p.val().into_data().iter::<f32>().collect() };
        let (gamma, beta) = (values(&self.norm.gamma), values(&self.norm.beta));
        let mut layer = conv.describe();
        if let Layer::Conv { weight, bias, .. } = &mut layer {
            let filter = weight.len() / gamma.len();
            for (c, filter) in weight.chunks_exact_mut(filter).enumerate() {
                let scale = gamma[c] / (statistics.variance[c] + NORM_EPSILON as f32).sqrt();
                filter.iter_mut().for_each(|w| *w *= scale);
                bias[c] = beta[c] + (bias[c] - statistics.mean[c]) * scale;
            }
        }
        layer
    }
}

impl Statistics {
    /// Moves towards those of a later batch: by a tenth, as PyTorch's.
    pub fn follow(&mut self, batch: &Self) {
        let blend = |own: &mut Vec<f32>, new: &[f32]| {
            own.iter_mut().zip(new).for_each(|(own, new)| *own += 0.1 * (new - *own));
        };
        blend(&mut self.mean, &batch.mean);
        blend(&mut self.variance, &batch.variance);
    }
}

/// A pre-activation residual block (He et al., arXiv:1603.05027, fig. 1b).
#[derive(Module, Debug)]
pub struct Residual {
    norm_1: Norm,
    conv_1: Conv,
    norm_2: Norm,
    conv_2: Conv,
}

impl Residual {
    /// Two 3×3 convolutions on `channels` channels.
    pub fn new(channels: usize, random: &mut impl Rng, device: &Device) -> Self {
        let conv = |random: &mut _| Conv::new([channels; 2], 3, 1, 1, random, device).fast();
        let conv_1 = conv(random);
        let conv_2 = conv(random);
        Self { norm_1: Norm::new(channels, device), conv_1, norm_2: Norm::new(channels, device), conv_2 }
    }

    /// Keeps the shape.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let h = self.conv_1.forward(self.norm_1.forward_relu(x.clone()));
        x + self.conv_2.forward(self.norm_2.forward_relu(h))
    }
}

/// `[N, C, H, W]` → `[N, C·r², ⌈H/r⌉, ⌈W/r⌉]`; sides that `r` does not divide are padded by zeros
/// below and right.
pub fn pixel_unshuffle(x: Tensor<4>, r: usize) -> Tensor<4> {
    let [_, _, height, width] = x.dims();
    let (h, w) = (height.div_ceil(r), width.div_ceil(r));
    let x = if (h * r, w * r) == (height, width) {
        x
    } else {
        x.pad((0, w * r - width, 0, h * r - height), burn::tensor::ops::PadMode::Constant(0.0))
    };
    waylay_conv::pixel_unshuffle(x, r)
}

/// `[N, C·r², h, w]` → `[N, C, height, width]`, cropped below and right (Shi et al.,
/// arXiv:1609.05158, eq. 4).
pub fn pixel_shuffle(x: Tensor<4>, r: usize, [height, width]: [usize; 2]) -> Tensor<4> {
    let [n, channels, h, w] = x.dims();
    let c = channels / (r * r);
    let full = waylay_conv::pixel_shuffle(x, r);
    if (h * r, w * r) == (height, width) { full } else { full.slice([0..n, 0..c, 0..height, 0..width]) }
}

/// Nearest-neighbour resizing to `size` = height, width: unlike a transposed convolution it leaves
/// no grid.
pub fn upsample(x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    let [_, _, h, w] = x.dims();
    let factor = size[0] / h.max(1);
    if [h * factor, w * factor] == size {
        return if factor == 1 { x } else { waylay_conv::upsample_nearest(x, factor) };
    }
    let options = InterpolateOptions::new(InterpolateMode::Nearest).with_output_size(size);
    interpolate(x, options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    #[test]
    fn shuffling_undoes_unshuffling_at_even_and_odd_sizes() {
        let device = Device::flex();
        for (size, r) in [([4, 6], 2), ([5, 7], 2), ([9, 8], 4)] {
            let count = 2 * 3 * size[0] * size[1];
            let values: Vec<f32> = (0..count).map(|v| v as f32).collect();
            let x = Tensor::<4>::from_data(TensorData::new(values, [2, 3, size[0], size[1]]), &device);
            let back = pixel_shuffle(pixel_unshuffle(x.clone(), r), r, size);
            back.into_data().assert_eq(&x.into_data(), true);
        }
    }

    #[test]
    fn the_same_stream_gives_the_same_weights() {
        let device = Device::flex();
        let make =
            || Conv::new([3, 4], 3, 1, 1, &mut Seed(7).stream("init"), &device).weight.val().into_data();
        make().assert_eq(&make(), true);
    }
}
