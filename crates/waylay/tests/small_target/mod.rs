//! A target and images that are small enough for tests: two strided convolutions and a linear layer
//! with fixed weights.

use rand::RngExt;
use waylay::embedder::preprocess::Preset;
use waylay::embedder::{OnnxEmbedder, OpenOptions};
use waylay::image::ImageBatch;
use waylay::onnx::{Layer, write};
use waylay::seed::Seed;

/// Dimensions of the embedding.
pub const DIM: usize = 16;

fn conv(shape: [usize; 4], stride: usize, padding: usize, seed: u64) -> Layer {
    let mut random = Seed(seed).stream(&format!("{shape:?}"));
    let bound = (6.0 / shape[1..].iter().product::<usize>() as f32).sqrt();
    let weight = (0..shape.iter().product()).map(|_| random.random_range(-bound..=bound)).collect();
    Layer::Conv { shape, weight, bias: vec![0.0; shape[0]], stride, padding }
}

/// A target for images of `input` = channels, height, width, with feature maps of a half and a
/// quarter of that.
pub fn target(input: [usize; 3], seed: u64) -> OnnxEmbedder {
    let [channels, height, width] = input;
    let rest = [height.div_ceil(2).div_ceil(2), width.div_ceil(2).div_ceil(2)];
    let layers = [
        conv([8, channels, 3, 3], 2, 1, seed),
        Layer::Relu,
        conv([12, 8, 3, 3], 2, 1, seed),
        Layer::Relu,
        conv([DIM, 12, rest[0], rest[1]], 1, 0, seed),
        Layer::Flatten,
    ];
    let options = OpenOptions::new(Preset::None);
    OnnxEmbedder::from_bytes(&format!("small-{seed}"), &write(input, &layers), options).unwrap()
}

/// Images of coloured waves, each different, on the 8-bit grid, black and white included.
pub fn images(count: usize, [channels, height, width]: [usize; 3]) -> ImageBatch {
    let mut random = Seed(5).stream("images");
    let mut pixels = Vec::new();
    for _ in 0..count * channels {
        let mut draw = |low: f32, high: f32| random.random_range(low..high);
        let (across, down, phase, mean) = (draw(0.1, 0.8), draw(0.1, 0.8), draw(0.0, 6.0), draw(80.0, 175.0));
        for y in 0..height {
            for x in 0..width {
                let wave = (across * x as f32 + phase).sin() * (down * y as f32 + phase).cos();
                let level = (mean + 110.0 * wave).round().clamp(0.0, 255.0);
                pixels.push(level / 255.0);
            }
        }
    }
    ImageBatch::new([count, channels, height, width], pixels).unwrap()
}
