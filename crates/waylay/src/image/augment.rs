//! Random changes to training images, so that few images teach as much as they can.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use super::{ImageBatch, ImageError};
use crate::out_of_range::OutOfRange;

/// Points of the bending grid in each direction.
const BEND_GRID: usize = 4;

/// What may change, drawn anew for every image of every step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Mirror left and right with probability one half. Default true.
    pub flip: bool,
    /// Largest shift in pixels in each direction, edges repeated; 0 to 64. Default 4.
    pub shift: usize,
    /// Largest change of size: a factor between 1 − z and 1 + z; 0 to 0.5. Default 0.1.
    pub zoom: f64,
    /// Largest rotation in degrees either way; 0 to 180. Default 8.
    pub rotate: f64,
    /// Largest bend in pixels: smooth displacements of a coarse grid of points, each in both
    /// directions (as Simard et al., ICDAR 2003, but on a grid of 4 × 4): stands in for other
    /// shapes of the same kind of thing; 0 to 64. Default 0.
    pub bend: f64,
    /// Spread of the brightness change: a factor 1 + b·n₁ and an offset ½·b·n₂ with standard normal
    /// n; 0 to 1. Default 0.1.
    pub brightness: f64,
    /// Probability that an image is blended with another of its batch, at 50 to 100 % (mixup, Zhang
    /// et al., arXiv:1710.09412): stands in for identities that the training images lack; 0 to 1.
    /// Default 0.3.
    pub mix: f64,
}

/// A batch after [`AugmentConfig::apply`].
#[derive(Clone, Debug, PartialEq)]
pub struct Augmented {
    /// The changed images, in their order.
    pub images: ImageBatch,
    /// For each image the index of the one that was blended into it, if any: part of it is to be
    /// seen there.
    pub partners: Vec<Option<usize>>,
}

impl Default for AugmentConfig {
    fn default() -> Self {
        Self { flip: true, shift: 4, zoom: 0.1, rotate: 8.0, bend: 0.0, brightness: 0.1, mix: 0.3 }
    }
}

impl AugmentConfig {
    /// Changes nothing.
    pub const NONE: Self =
        Self { flip: false, shift: 0, zoom: 0.0, rotate: 0.0, bend: 0.0, brightness: 0.0, mix: 0.0 };

    /// Whether every value is in its range.
    pub fn check(&self) -> Result<(), OutOfRange> {
        let range = OutOfRange::unless;
        range(self.shift <= 64, "augment.shift", self.shift.to_string(), "0 to 64 pixels")?;
        range((0.0..=0.5).contains(&self.zoom), "augment.zoom", self.zoom.to_string(), "0 to 0.5")?;
        range(
            (0.0..=180.0).contains(&self.rotate),
            "augment.rotate",
            self.rotate.to_string(),
            "0 to 180 degrees",
        )?;
        range((0.0..=64.0).contains(&self.bend), "augment.bend", self.bend.to_string(), "0 to 64 pixels")?;
        range(
            (0.0..=1.0).contains(&self.brightness),
            "augment.brightness",
            self.brightness.to_string(),
            "0 to 1",
        )?;
        range((0.0..=1.0).contains(&self.mix), "augment.mix", self.mix.to_string(), "0 to 1")
    }

    /// `images` with each changed at random; same shape, still in [0, 1].
    pub fn apply(&self, images: &ImageBatch, random: &mut impl Rng) -> Result<Augmented, ImageError> {
        let [channels, height, width] = images.size();
        let count = images.count();
        let mut pixels = Vec::with_capacity(images.pixels().len());
        let mut partners = Vec::with_capacity(count);
        for i in 0..count {
            let blend = random.random::<f64>() < self.mix && count > 1;
            let other = (i + 1 + random.random_range(0..count.max(2) - 1)) % count;
            partners.push(blend.then_some(other));
            let weight = if blend { random.random_range(0.5..1.0f32) } else { 1.0 };
            let mirror = self.flip && random.random::<bool>();
            let view = self.view(height, width, random);
            let factor = 1.0 + self.brightness as f32 * normal(random);
            let offset = 0.5 * self.brightness as f32 * normal(random);
            for c in 0..channels {
                let plane = c * height * width..(c + 1) * height * width;
                let (own, partner) = (&images.image(i)[plane.clone()], &images.image(other)[plane]);
                for y in 0..height {
                    for x in 0..width {
                        let column = if mirror { width - 1 - x } else { x };
                        let at = view.source(y as f32, column as f32);
                        let mut value = bilinear(own, height, width, at);
                        if blend {
                            value = weight * value + (1.0 - weight) * bilinear(partner, height, width, at);
                        }
                        pixels.push((value * factor + offset).clamp(0.0, 1.0));
                    }
                }
            }
        }
        Ok(Augmented { images: ImageBatch::new(images.shape(), pixels)?, partners })
    }

    /// A shift, a size, an angle and a bend.
    fn view(&self, height: usize, width: usize, random: &mut impl Rng) -> View {
        let reach = self.shift as i64;
        let (dy, dx) = (random.random_range(-reach..=reach), random.random_range(-reach..=reach));
        let size = 1.0 + random.random_range(-1.0..=1.0f64) * self.zoom;
        let angle = (random.random_range(-1.0..=1.0f64) * self.rotate).to_radians();
        let mut bend = Vec::new();
        if self.bend > 0.0 {
            bend.extend(
                (0..2 * BEND_GRID * BEND_GRID).map(|_| (random.random_range(-1.0..=1.0) * self.bend) as f32),
            );
        }
        View {
            centre: [(height - 1) as f32 / 2.0, (width - 1) as f32 / 2.0],
            bend,
            shift: [dy as f32, dx as f32],
            cosine: (angle.cos() / size) as f32,
            sine: (angle.sin() / size) as f32,
        }
    }
}

/// Where a pixel of the changed image comes from.
struct View {
    centre: [f32; 2],
    shift: [f32; 2],
    /// Displacements down, then right, on a grid over the image; empty for none.
    bend: Vec<f32>,
    cosine: f32,
    sine: f32,
}

impl View {
    fn source(&self, y: f32, x: f32) -> [f32; 2] {
        let bend = self.bend_at(y, x);
        let (y, x) = (y - self.centre[0], x - self.centre[1]);
        [
            self.centre[0] + self.shift[0] + bend[0] + self.cosine * y + self.sine * x,
            self.centre[1] + self.shift[1] + bend[1] + self.cosine * x - self.sine * y,
        ]
    }
}

impl View {
    /// The displacement at `[y, x]`, smooth between the points of the grid.
    fn bend_at(&self, y: f32, x: f32) -> [f32; 2] {
        let area = BEND_GRID * BEND_GRID;
        if self.bend.len() < 2 * area {
            return [0.0; 2];
        }
        let last = (BEND_GRID - 1) as f32;
        // Smoothstep between points: no creases along the grid's lines.
        let place = |v: f32, centre: f32| {
            let v = (last * v / (2.0 * centre).max(1.0)).clamp(0.0, last);
            let whole = (v as usize).min(BEND_GRID - 2);
            let part = v - whole as f32;
            whole as f32 + part * part * (3.0 - 2.0 * part)
        };
        let at = [place(y, self.centre[0]), place(x, self.centre[1])];
        [&self.bend[..area], &self.bend[area..]].map(|grid| bilinear(grid, BEND_GRID, BEND_GRID, at))
    }
}

/// The value at `[y, x]`, interpolated; edges repeat.
fn bilinear(plane: &[f32], height: usize, width: usize, [y, x]: [f32; 2]) -> f32 {
    let (y, x) = (y.clamp(0.0, (height - 1) as f32), x.clamp(0.0, (width - 1) as f32));
    let (top, left) = (y as usize, x as usize);
    let (bottom, right) = ((top + 1).min(height - 1), (left + 1).min(width - 1));
    let (v, u) = (y - top as f32, x - left as f32);
    let row = |r: usize| plane[r * width + left] * (1.0 - u) + plane[r * width + right] * u;
    row(top) * (1.0 - v) + row(bottom) * v
}

/// A standard normal number (Box & Muller 1958).
fn normal(random: &mut impl Rng) -> f32 {
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    (radius * (std::f64::consts::TAU * random.random::<f64>()).cos()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    #[test]
    fn without_changes_images_stay_as_they_are() {
        let images = ImageBatch::new([2, 1, 2, 3], (0..12).map(|v| v as f32 / 12.0).collect()).unwrap();
        let same = AugmentConfig::NONE.apply(&images, &mut Seed(1).stream("a")).unwrap();
        assert_eq!(same, Augmented { images, partners: vec![None, None] });
    }

    #[test]
    fn the_image_that_was_blended_in_is_named() {
        let plane = |level: f32| vec![level; 4];
        let levels = [0.0, 0.2, 0.6, 1.0];
        let pixels = levels.iter().flat_map(|level| plane(*level)).collect();
        let images = ImageBatch::new([4, 1, 2, 2], pixels).unwrap();
        let mix = AugmentConfig { mix: 1.0, ..AugmentConfig::NONE };
        for seed in 0..20 {
            let Augmented { images, partners } = mix.apply(&images, &mut Seed(seed).stream("a")).unwrap();
            for (i, partner) in partners.iter().enumerate() {
                let (own, other) = (levels[i], levels[partner.unwrap()]);
                let found = images.image(i)[0];
                let middle = 0.5 * (own + other);
                assert!(partner.unwrap() != i && (own.min(middle)..=own.max(middle)).contains(&found));
            }
        }
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
