//! The gradient of an ONNX network with respect to its input, on random pixels: `onnx_gradient
//! MODEL.onnx PRESET`.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;

use waylay::burn::tensor::{Distribution, Tensor};
use waylay::prelude::*;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, preset] = &arguments[..] else { return Err("onnx_gradient MODEL.onnx PRESET".into()) };
    let network = OnnxEmbedder::open(Path::new(model), OpenOptions::new(preset.parse::<Preset>()?))?;
    let [channels, height, width] = network.input();
    let device = Device::flex().autodiff();
    let shape = [1, channels, height, width];
    let pixels = Tensor::<4>::random(shape, Distribution::Uniform(0.0, 1.0), &device).require_grad();
    let embedding = network.embedding(pixels.clone())?;
    let length = embedding.powi_scalar(2).sum().sqrt();
    let gradient = pixels.grad(&length.backward()).ok_or("the embedding does not depend on the pixels")?;
    let (shape, values) = (gradient.dims(), gradient.abs().into_data());
    let largest = values.iter::<f32>().fold(0.0, f32::max);
    println!(
        "gradient of the embedding's length with respect to the pixels: {shape:?}, largest {largest:.4}"
    );
    Ok(())
}
