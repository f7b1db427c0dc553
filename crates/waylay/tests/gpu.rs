//! A GPU computes what the processor does. Mesa's software driver (Debian's mesa-vulkan-drivers)
//! counts as one: `cargo test --release -p waylay --features wgpu --test gpu -- --ignored
//! --nocapture`.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use burn::tensor::Tensor;
use waylay::attack::uaa_gan::{GeneratorConfig, UaaGanConfig, train};
use waylay::attack::{Epsilon, Evade, Opposite, Scene, gradient};
use waylay::dataset::{self, Item};
use waylay::device::{Device, DeviceError, DeviceKind};
use waylay::embedder::OnnxEmbedder;
use waylay::embedder::{Embedder, sample_embedder};
use waylay::embedding::Metric;
use waylay::image::ImageBatch;
use waylay::progress::Silent;
use waylay::seed::Seed;

/// The devices to compare with the processor, at least one.
fn devices() -> Vec<Device> {
    let mut found = Vec::new();
    for kind in [DeviceKind::Cuda, DeviceKind::Wgpu] {
        match kind.open() {
            Ok(device) => found.push(device),
            Err(DeviceError::NotBuilt(_)) => {}
            Err(error) => println!("{error}"),
        }
    }
    assert!(!found.is_empty(), "no GPU is found by what this was built with");
    found
}

fn queries(target: &OnnxEmbedder, count: usize) -> ImageBatch {
    let items: Vec<Item> = dataset::sample().unwrap().query.into_iter().take(count).collect();
    dataset::load(&items, target.input(), target.resizing()).unwrap()
}

fn scene(target: &OnnxEmbedder) -> Scene<'_> {
    let epsilon = Epsilon::from_255(8.0).unwrap();
    Scene { target, metric: Metric::Cosine, epsilon, seed: Seed(0), device: target.device() }
}

/// Largest difference, relative to the largest of `wanted`.
fn difference(found: &[f32], wanted: &[f32]) -> f32 {
    assert_eq!(found.len(), wanted.len());
    let largest = wanted.iter().fold(0f32, |m, v| m.max(v.abs()));
    let apart = found.iter().zip(wanted).map(|(f, w)| (f - w).abs());
    apart.fold(0f32, |m, d| if d.is_nan() { f32::INFINITY } else { m.max(d) }) / largest
}

#[test]
#[ignore = "needs a GPU, and the feature wgpu or cuda"]
fn embeddings_are_those_of_the_processor() {
    let host = sample_embedder(Device::flex()).unwrap();
    let images = queries(&host, 20);
    let wanted = host.embed(&images, &host.device()).unwrap();
    for device in devices() {
        let target = sample_embedder(device).unwrap();
        let found = target.embed(&images, &target.device()).unwrap();
        let apart = difference(found.values(), wanted.values());
        println!("{:?}: embeddings within {apart:.1e}", target.device());
        assert!(apart < 1e-4, "{apart}");
    }
}

#[test]
#[ignore = "needs a GPU, and the feature wgpu or cuda"]
fn input_gradients_are_those_of_the_processor() {
    let gradient = |target: &OnnxEmbedder| -> Vec<f32> {
        let pixels: Tensor<4> = queries(target, 6).to_tensor(&target.device());
        let (_, gradient) = gradient(&Opposite, None, pixels, &scene(target)).unwrap();
        gradient.into_data().iter::<f32>().collect()
    };
    let wanted = gradient(&sample_embedder(Device::flex()).unwrap());
    for device in devices() {
        let target = sample_embedder(device).unwrap();
        let apart = difference(&gradient(&target), &wanted);
        println!("{:?}: input gradients within {apart:.1e}", target.device());
        assert!(apart < 1e-3, "{apart}");
    }
}

#[test]
#[ignore = "needs a GPU, and the feature wgpu or cuda"]
fn training_begins_as_it_does_on_the_processor() {
    let mut config = UaaGanConfig::default();
    config.generator = GeneratorConfig { widths: vec![12, 8], blocks: vec![1, 1], ..config.generator };
    config.discriminator.width = 4;
    config.training.steps = 2;
    config.training.batch = 4;
    let config = config.check().unwrap();
    let trained = |target: &OnnxEmbedder| {
        train(&config, &Evade, &queries(target, 12), &scene(target), &Silent).unwrap()
    };
    let wanted = trained(&sample_embedder(Device::flex()).unwrap());
    for device in devices() {
        let target = sample_embedder(device).unwrap();
        let found = trained(&target);
        for (found, wanted) in found.log.iter().zip(&wanted.log) {
            let apart = (found.generator - wanted.generator).abs() / wanted.generator.abs();
            println!("{:?}: loss of step {} within {apart:.1e}", target.device(), found.step);
            assert!(apart < 1e-2, "{found:?}, not {wanted:?}");
        }
    }
}
