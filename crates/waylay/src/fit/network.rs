//! The network: strided and plain 3×3 convolutions with ReLU, then one linear layer, with the first weights of He et al.,
//! arXiv:1502.01852. Small on purpose: it ships with the sample.

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use rand::Rng;

use super::FitConfig;
use crate::layer::Conv;
use crate::target::onnx::write::{Layer, write};

/// See the module.
#[derive(Module, Debug)]
pub struct Network {
    convolutions: Vec<Conv>,
    /// A convolution over the whole last map: the linear layer.
    head: Conv,
}

impl Network {
    /// Layers for `config` and images of `input` = channels, height, width.
    pub fn new(config: &FitConfig, input: [usize; 3], random: &mut impl Rng, device: &Device) -> Self {
        let mut channels = input[0];
        let mut side = config.size;
        let mut convolutions = Vec::new();
        // From uniform in ±1/√fan_in to He's ±√(6/fan_in), which keeps the variance through ReLUs.
        let he = 6f32.sqrt();
        for &width in &config.widths {
            convolutions.push(Conv::new([channels, width], 3, 2, 1, random, device).scaled(he));
            for _ in 0..config.depth {
                convolutions.push(Conv::new([width, width], 3, 1, 1, random, device).scaled(he));
            }
            (channels, side) = (width, side.div_ceil(2));
        }
        let head = Conv::new([channels, config.dim], side, 1, 0, random, device).scaled(1.0);
        Self { convolutions, head }
    }

    /// Pixels `[N, C, size, size]` in [0, 1] → embeddings `[N, dim]`, not normalised.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let h = self.convolutions.iter().fold(x, |h, conv| relu(conv.forward(h)));
        self.head.forward(h).flatten(1, 3)
    }

    /// The network as an ONNX file.
    pub fn to_onnx(&self, input: [usize; 3]) -> Vec<u8> {
        let mut layers = Vec::new();
        for conv in &self.convolutions {
            layers.push(conv.describe());
            layers.push(Layer::Relu);
        }
        layers.push(self.head.describe());
        layers.push(Layer::Flatten);
        write(input, &layers)
    }
}
