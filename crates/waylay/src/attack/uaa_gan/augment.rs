//! Random changes to training images, so that few images teach as much as they can. Ours: the paper names none.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use super::config::ConfigError;
use crate::image::{ImageBatch, ImageError};

/// What may change, drawn anew for every image of every step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Mirror left and right with probability one half. Default true.
    pub flip: bool,
    /// Largest shift in pixels in each direction, edges repeated; 0 to 64. Default 4.
    pub shift: usize,
    /// Spread of the brightness change: a factor 1 + b·n₁ and an offset ½·b·n₂ with standard normal n; 0 to 1.
    /// Default 0.1.
    pub brightness: f64,
}

impl Default for AugmentConfig {
    fn default() -> Self {
        Self { flip: true, shift: 4, brightness: 0.1 }
    }
}

impl AugmentConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.shift > 64 {
            let value = self.shift.to_string();
            return Err(ConfigError::Range { key: "augment.shift", value, accepted: "0 to 64 pixels" });
        }
        if !(0.0..=1.0).contains(&self.brightness) {
            let value = self.brightness.to_string();
            return Err(ConfigError::Range { key: "augment.brightness", value, accepted: "0 to 1" });
        }
        Ok(())
    }

    /// `images` with each changed at random; same shape, still in [0, 1].
    pub(super) fn apply(&self, images: &ImageBatch, random: &mut impl Rng) -> Result<ImageBatch, ImageError> {
        let [channels, height, width] = images.size();
        let mut pixels = Vec::with_capacity(images.pixels().len());
        for i in 0..images.count() {
            let image = images.image(i);
            let mirror = self.flip && random.random::<bool>();
            let reach = self.shift as i64;
            let (dy, dx) = (random.random_range(-reach..=reach), random.random_range(-reach..=reach));
            let factor = 1.0 + self.brightness as f32 * normal(random);
            let offset = 0.5 * self.brightness as f32 * normal(random);
            for c in 0..channels {
                for y in 0..height {
                    let row = clamped(y as i64 + dy, height);
                    for x in 0..width {
                        let column = clamped(x as i64 + dx, width);
                        let column = if mirror { width - 1 - column } else { column };
                        let value = image[(c * height + row) * width + column];
                        pixels.push((value * factor + offset).clamp(0.0, 1.0));
                    }
                }
            }
        }
        ImageBatch::new(images.shape(), pixels)
    }
}

/// The nearest index inside `0..len`.
fn clamped(index: i64, len: usize) -> usize {
    index.clamp(0, len as i64 - 1) as usize
}

/// A standard normal number (Box & Muller 1958).
fn normal(random: &mut impl Rng) -> f32 {
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    (radius * (std::f64::consts::TAU * random.random::<f64>()).cos()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Seed;

    #[test]
    fn without_changes_images_stay_as_they_are() {
        let still = AugmentConfig { flip: false, shift: 0, brightness: 0.0 };
        let images = ImageBatch::new([2, 1, 2, 3], (0..12).map(|v| v as f32 / 12.0).collect()).unwrap();
        assert_eq!(still.apply(&images, &mut Seed(1).stream("a")).unwrap(), images);
    }

    #[test]
    fn changed_images_stay_valid_and_differ_from_step_to_step() {
        let images = ImageBatch::new([1, 3, 8, 8], (0..192).map(|v| v as f32 / 192.0).collect()).unwrap();
        let mut random = Seed(1).stream("a");
        let first = AugmentConfig::default().apply(&images, &mut random).unwrap();
        let second = AugmentConfig::default().apply(&images, &mut random).unwrap();
        assert_ne!(first, second);
    }
}
