//! The embedded sample's network, made by `waylay fit` as assets/sample/target.json records.

use burn::tensor::Device;

use super::onnx::{OnnxError, OnnxTarget, OpenOptions};
use super::preprocess::Preset;

/// The file's bytes.
const NETWORK: &[u8] = include_bytes!("../../../../assets/sample/target.onnx");

/// The sample's target on `device`: a small network that embeds gray images of clothes.
pub fn sample_target(device: Device) -> Result<OnnxTarget, OnnxError> {
    OnnxTarget::from_bytes("sample", NETWORK, OpenOptions { device, ..OpenOptions::new(Preset::None) })
}
