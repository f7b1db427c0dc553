//! The embedded sample's network, made by `waylay fit` as crates/waylay/assets/sample/target.json
//! records.

use burn::tensor::Device;

use super::preprocess::Preset;
use super::{OnnxEmbedder, OpenError, OpenOptions};

/// The file's bytes.
const NETWORK: &[u8] = include_bytes!("../../assets/sample/target.onnx");

/// The sample's target on `device`: a small network that embeds gray images of clothes.
pub fn sample_embedder(device: Device) -> Result<OnnxEmbedder, OpenError> {
    OnnxEmbedder::from_bytes("sample", NETWORK, OpenOptions { device, ..OpenOptions::new(Preset::None) })
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Distribution, Tensor};

    use super::*;
    use crate::embedder::Embedder;

    /// Generator files state it: another one would orphan them.
    #[test]
    fn the_fingerprint_is_that_of_earlier_versions() {
        let expected = "4fa462edd29df43b0dcb1278d570b1404060042d96f8d9f87c88c6b5086176ac";
        assert_eq!(sample_embedder(Device::flex()).unwrap().fingerprint(), expected);
    }

    #[test]
    fn filters_that_are_not_kept_change_roundings_alone() {
        let device = Device::flex();
        let target = sample_embedder(device.clone()).unwrap();
        let [channels, height, width] = target.input();
        let images =
            Tensor::<4>::random([3, channels, height, width], Distribution::Uniform(0.0, 1.0), &device);
        let embed = |target: &OnnxEmbedder| {
            target.embedding(images.clone()).unwrap().into_data().try_to_vec::<f32>().unwrap()
        };
        let kept = embed(&target);
        let largest = kept.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        for (a, b) in kept.iter().zip(embed(&target.without_kept_filters())) {
            assert!((a - b).abs() <= 1e-5 * largest, "{a} {b}");
        }
    }
}
