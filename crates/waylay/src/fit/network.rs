//! The network: strided and plain 3×3 convolutions, each with batch normalisation and ReLU, then
//! the mean over the last map and one linear layer, with the first weights of He et al.,
//! arXiv:1502.01852. Small on purpose: it ships with the sample.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use rand::Rng;
use waylay_conv::{Activation, activate};
use waylay_onnx::{Layer, write};

use super::FitConfig;
use crate::layer::{BatchNorm, Conv, Statistics};

/// See the module.
#[derive(Module, Debug)]
pub struct Network {
    convolutions: Vec<Conv>,
    /// One after each convolution.
    norms: Vec<BatchNorm>,
    /// The linear layer, as a convolution of 1×1.
    head: Conv,
}

impl Network {
    /// Layers for `config` and images of `inputs` channels.
    pub fn new(config: &FitConfig, inputs: usize, random: &mut impl Rng, device: &Device) -> Self {
        let mut channels = inputs;
        let mut convolutions = Vec::new();
        // From uniform in ±1/√fan_in to He's ±√(6/fan_in), which keeps the variance through ReLUs.
        let he = 6f32.sqrt();
        for &width in &config.widths {
            convolutions.push(Conv::new([channels, width], 3, 2, 1, random, device).scaled(he));
            for _ in 0..config.depth {
                convolutions.push(Conv::new([width, width], 3, 1, 1, random, device).scaled(he));
            }
            channels = width;
        }
        let norms = convolutions.iter().map(|conv| BatchNorm::new(conv.outputs(), device)).collect();
        let head = Conv::new([channels, config.dim], 1, 1, 0, random, device).scaled(1.0);
        Self { convolutions, norms, head }
    }

    /// Pixels `[N, C, size, size]` in [0, 1] → embeddings `[N, dim]`, not normalised, and what
    /// every normalisation saw.
    pub fn forward(&self, x: Tensor<4>) -> (Tensor<2>, Vec<Statistics>) {
        let mut seen = Vec::with_capacity(self.norms.len());
        let h = self.convolutions.iter().zip(&self.norms).fold(x, |h, (conv, norm)| {
            let (h, statistics) = norm.forward(conv.forward(h));
            seen.push(statistics);
            activate(h, Activation::Relu)
        });
        (self.head.forward(h.mean_dim(3).mean_dim(2)).flatten(1, 3), seen)
    }

    /// The network as an ONNX file, its normalisations by `statistics` worked into the
    /// convolutions.
    pub fn to_onnx(&self, input: [usize; 3], statistics: &[Statistics]) -> Vec<u8> {
        let mut layers = Vec::new();
        for ((conv, norm), statistics) in self.convolutions.iter().zip(&self.norms).zip(statistics) {
            layers.push(norm.fold_into(conv, statistics));
            layers.push(Layer::Relu);
        }
        layers.extend([Layer::GlobalAveragePool, self.head.describe(), Layer::Flatten]);
        write(input, &layers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedder::Embedder;
    use crate::embedder::preprocess::Preset;
    use crate::embedder::{OnnxEmbedder, OpenOptions};
    use crate::image::ImageBatch;
    use crate::seed::Seed;

    #[test]
    fn the_file_computes_what_the_network_does_on_the_batch_of_its_statistics() {
        let config = FitConfig { size: 16, widths: vec![4, 6], depth: 1, dim: 3, ..FitConfig::default() };
        let mut random = Seed(5).stream("test");
        let network = Network::new(&config, 1, &mut random, &Device::flex().autodiff()).no_grad();
        let pixels = (0..4 * 256).map(|v| ((v * 37) % 101) as f32 / 100.0).collect();
        let images = ImageBatch::new([4, 1, 16, 16], pixels).unwrap();
        let (expected, statistics) = network.forward(images.to_tensor(&Device::flex().autodiff()));
        let options = OpenOptions::new(Preset::None);
        let file = network.to_onnx([1, 16, 16], &statistics);
        let found = OnnxEmbedder::from_bytes("test", &file, options).unwrap().embed(&images, &Device::flex());
        let expected: Vec<f32> = expected.into_data().iter::<f32>().collect();
        for (found, expected) in found.unwrap().values().iter().zip(expected) {
            approx::assert_abs_diff_eq!(*found, expected, epsilon = 1e-4);
        }
    }
}
