//! D: tells clean images from perturbed ones. Source: the paper's L_GAN_D (least squares, Mao et
//! al., arXiv:1611.04076, eq. 9). Ours: its layers, which the paper leaves open; the choices are
//! compared in docs/ablation.md.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use rand::Rng;
use serde::{Deserialize, Serialize};
use waylay_conv::{Activation, activate};

use crate::layer::{Conv, Norm};

/// Slope of the leaky ReLU below zero.
const SLOPE: f32 = 0.2;

/// The discriminator's design.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiscriminatorKind {
    /// No discriminator: L_GAN is left out.
    None,
    /// One logit per patch (PatchGAN, Isola et al., arXiv:1611.07004, sec. 3.2.2).
    #[default]
    Patch,
    /// One logit per image: strided convolutions down to at most 4 places a side, and one linear
    /// layer over all of them, so that the logit depends on the whole image.
    Global,
}

/// Height and width at most of the map that the last layer of [`DiscriminatorKind::Global`] takes.
const LAST_SIDE: usize = 4;

/// A strided 4×4 convolution with its normalisation.
#[derive(Module, Debug)]
struct Stage {
    conv: Conv,
    norm: Norm,
}

/// Strided 4×4 convolutions, three for patches and more for the whole image, and a head.
#[derive(Module, Debug)]
pub struct Discriminator {
    stem: Conv,
    stages: Vec<Stage>,
    head: Conv,
    global: bool,
}

impl Discriminator {
    /// For images of `[channels, height, width]` and at least 16×16 pixels; `width` channels after
    /// the first convolution, at most four times as many after the others. `None` for
    /// [`DiscriminatorKind::None`].
    pub fn new(
        kind: DiscriminatorKind,
        [channels, height, image_width]: [usize; 3],
        width: usize,
        random: &mut impl Rng,
        device: &Device,
    ) -> Option<Self> {
        if kind == DiscriminatorKind::None {
            return None;
        }
        let global = kind == DiscriminatorKind::Global;
        let stem = Conv::new([channels, width], 4, 2, 1, random, device);
        let mut size = [height / 2, image_width / 2];
        let mut channels = width;
        let mut stages = Vec::new();
        while stages.len() < 2 || (global && size[0].max(size[1]) > LAST_SIDE && size[0].min(size[1]) > 1) {
            let wider = (2 * channels).min(4 * width);
            let conv = Conv::new([channels, wider], 4, 2, 1, random, device);
            stages.push(Stage { conv, norm: Norm::new(wider, device) });
            (channels, size) = (wider, size.map(|side| side / 2));
        }
        let head = match global {
            true => Conv::new([channels * size[0] * size[1], 1], 1, 1, 0, random, device),
            false => Conv::new([channels, 1], 3, 1, 1, random, device),
        };
        Some(Self { stem, stages, head, global })
    }

    /// Pixels `[N, C, H, W]` → logits `[N, patches]`; towards 1 for clean, towards 0 for perturbed.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let h = activate(self.stem.forward(x * 2.0 - 1.0), Activation::LeakyRelu(SLOPE));
        let h = self.stages.iter().fold(h, |h, s| s.norm.forward_leaky(s.conv.forward(h), SLOPE));
        let h = if self.global { whole(h) } else { h };
        self.head.forward(h).flatten(1, 3)
    }
}

/// `[N, C, H, W]` → `[N, C·H·W, 1, 1]`: a 1×1 convolution of it is a linear layer over all places.
fn whole(h: Tensor<4>) -> Tensor<4> {
    let [n, c, height, width] = h.dims();
    h.reshape([n, c * height * width, 1, 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    /// The largest change of any logit where one corner of the image changes.
    fn response(kind: DiscriminatorKind, size: [usize; 3]) -> Vec<f32> {
        let device = Device::flex();
        let [c, h, w] = size;
        let d = Discriminator::new(kind, size, 4, &mut Seed(1).stream("d"), &device).unwrap();
        let x = Tensor::<4>::ones([1, c, h, w], &device) * 0.5;
        let corner = Tensor::<4>::ones([1, c, 4, 4], &device);
        let changed = x.clone().slice_assign([0..1, 0..c, 0..4, 0..4], corner);
        (d.forward(x) - d.forward(changed)).abs().into_data().iter::<f32>().collect()
    }

    #[test]
    fn a_global_discriminator_gives_one_logit_that_depends_on_every_corner() {
        for size in [[1, 28, 28], [3, 112, 112], [3, 256, 128], [3, 17, 16], [3, 64, 20]] {
            let response = response(DiscriminatorKind::Global, size);
            assert!(response.len() == 1 && response[0] > 1e-6, "{size:?}: {response:?}");
        }
    }

    #[test]
    fn a_patch_discriminator_gives_a_logit_per_patch() {
        let response = response(DiscriminatorKind::Patch, [3, 64, 64]);
        assert!(response.len() == 64 && response[0] > 1e-6);
    }
}
