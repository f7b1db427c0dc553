//! A residual U-Net on the image alone (Ronneberger et al., arXiv:1505.04597): the paper's generator looks at x only.
//! Ours: a space-to-depth stem and a pixel-shuffle head, which leave no transposed-convolution grid.

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use rand::Rng;

use super::{GeneratorConfig, head_factor};
use crate::layer::{Conv, Norm, Residual, pixel_shuffle, pixel_unshuffle, upsample};

/// One resolution: down from the larger one, up to it again.
#[derive(Module, Debug)]
struct Level {
    down_norm: Norm,
    down: Conv,
    encode: Residual,
    decode: Vec<Residual>,
    up: Conv,
}

/// The U-Net; see the module.
#[derive(Module, Debug)]
pub struct ImageOnly {
    stem: Conv,
    /// From the second largest resolution to the smallest.
    levels: Vec<Level>,
    last: Vec<Residual>,
    head_norm: Norm,
    head: Conv,
    factor: usize,
}

impl ImageOnly {
    /// Layers for images of `input` = channels, height, width.
    pub fn new(config: &GeneratorConfig, input: [usize; 3], random: &mut impl Rng, device: &Device) -> Self {
        let factor = head_factor(input);
        let patch = input[0] * factor * factor;
        let (widths, blocks) = (&config.widths, &config.blocks);
        let top = widths.len() - 1;
        let mut smallest = input[1].min(input[2]).div_ceil(factor);
        let stem = Conv::new([patch, widths[top]], 3, 1, 1, random, device);
        let mut levels = Vec::new();
        for i in (0..top).rev() {
            if smallest < 4 {
                break;
            }
            smallest = smallest.div_ceil(2);
            levels.push(Level {
                down_norm: Norm::new(widths[i + 1], device),
                down: Conv::new([widths[i + 1], widths[i]], 3, 2, 1, random, device),
                encode: Residual::new(widths[i], random, device),
                decode: (0..blocks[i]).map(|_| Residual::new(widths[i], random, device)).collect(),
                up: Conv::new([widths[i], widths[i + 1]], 1, 1, 0, random, device),
            });
        }
        Self {
            stem,
            levels,
            last: (0..blocks[top]).map(|_| Residual::new(widths[top], random, device)).collect(),
            head_norm: Norm::new(widths[top], device),
            head: Conv::new([widths[top], patch], 3, 1, 1, random, device).scaled(config.head_scale as f32),
            factor,
        }
    }

    /// Image in [−1, 1] → unbounded g `[N, C, H, W]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, _, height, width] = x.dims();
        let mut h = self.stem.forward(pixel_unshuffle(x, self.factor));
        let mut skips = Vec::new();
        for level in &self.levels {
            skips.push(h.clone());
            h = level.encode.forward(level.down.forward(relu(level.down_norm.forward(h))));
        }
        for (level, skip) in self.levels.iter().zip(skips).rev() {
            h = level.decode.iter().fold(h, |h, block| block.forward(h));
            let [_, _, rows, columns] = skip.dims();
            h = upsample(level.up.forward(h), [rows, columns]) + skip;
        }
        h = self.last.iter().fold(h, |h, block| block.forward(h));
        let g = self.head.forward(relu(self.head_norm.forward(h)));
        pixel_shuffle(g, self.factor, [height, width])
    }
}
