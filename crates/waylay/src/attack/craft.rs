//! The only place that enforces what an adversarial image may be: within the budget, in [0, 1], on
//! the 8-bit grid.

use std::time::Instant;

use super::{Attack, AttackError, Scene};
use crate::image::ImageBatch;
use crate::progress::Progress;

/// Images per call of an attack: large enough to fill two cores, small enough for any network.
const BATCH: usize = 8;

/// Slack in 1/255 that absorbs the rounding of `k / 255` in `f32`.
const SLACK: f64 = 1e-3;

/// What an attack made of the queries.
#[derive(Clone, Debug)]
pub struct Crafted {
    /// One image per clean image, within the budget, in [0, 1], every value k/255.
    pub images: ImageBatch,
    /// Crafting time for all images.
    pub seconds: f64,
}

/// Runs `attack` on every image of `clean`, whose values are expected on the 8-bit grid, and clips
/// what it proposes: each pixel to the 8-bit levels within ε of the clean one. A budget below 1/255
/// therefore changes nothing.
///
/// ```
/// use waylay::prelude::*;
///
/// let embedder = sample_embedder(Device::flex())?;
/// let items = &dataset::sample()?.query[..2];
/// let clean = dataset::load(items, embedder.input(), embedder.resizing())?;
/// let scene = Scene {
///     target: &embedder,
///     metric: Metric::Cosine,
///     epsilon: Epsilon::from_255(8.0)?,
///     seed: Seed(0),
///     device: embedder.device(),
/// };
/// let crafted = craft(&PgdConfig::default().check()?, &clean, &scene, &Silent)?;
/// let change = quality::measure(&clean, &crafted.images)?;
/// assert!(change.linf_255 <= 8.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn craft(
    attack: &dyn Attack,
    clean: &ImageBatch,
    scene: &Scene<'_>,
    progress: &dyn Progress,
) -> Result<Crafted, AttackError> {
    let expected = scene.target.input();
    if clean.size() != expected {
        return Err(AttackError::Size { expected, found: clean.size() });
    }
    let scene = &Scene { epsilon: scene.budget(attack), device: scene.device.clone(), ..*scene };
    progress.begin(&attack.label(), clean.count());
    let start = Instant::now();
    let mut parts = Vec::new();
    let mut first = 0;
    for batch in clean.chunks(BATCH) {
        let proposed = attack.propose(&batch, first, scene)?;
        if proposed.dims() != batch.shape() {
            let (expected, found) = (batch.shape(), proposed.dims());
            return Err(AttackError::Shape { attack: attack.name(), expected, found });
        }
        let proposed: Vec<f32> = proposed.into_data().iter::<f32>().collect();
        let per_image = batch.size().iter().product::<usize>();
        if let Some(at) = proposed.iter().position(|v| !v.is_finite()) {
            let image = first + at / per_image;
            return Err(AttackError::NotFinite { attack: attack.name(), image, value: proposed[at] });
        }
        let pixels =
            batch.pixels().iter().zip(&proposed).map(|(&c, &p)| enforce(c, p, scene.epsilon.in_255()));
        parts.push(ImageBatch::new(batch.shape(), pixels.collect())?);
        first += batch.count();
        (0..batch.count()).for_each(|_| progress.advance(""));
    }
    progress.end();
    Ok(Crafted { images: ImageBatch::join(&parts)?, seconds: start.elapsed().as_secs_f64() })
}

/// The 8-bit level nearest to `proposed` among those within `epsilon` (in 1/255) of `clean`.
fn enforce(clean: f32, proposed: f32, epsilon: f64) -> f32 {
    let centre = f64::from(clean) * 255.0;
    let lowest = (centre - epsilon - SLACK).ceil().max(0.0);
    let highest = (centre + epsilon + SLACK).floor().min(255.0);
    let level = if lowest > highest {
        centre.round()
    } else {
        (f64::from(proposed) * 255.0).round().clamp(lowest, highest)
    };
    (level / 255.0) as f32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn enforced_pixels_are_on_the_grid_in_range_and_in_budget(
            clean in 0u8..=255, proposed in -3.0f32..3.0, epsilon in 0.01f64..255.0,
        ) {
            let clean = f32::from(clean) / 255.0;
            let pixel = enforce(clean, proposed, epsilon);
            prop_assert!((0.0..=1.0).contains(&pixel));
            let level = f64::from(pixel) * 255.0;
            prop_assert!((level - level.round()).abs() < 1e-4);
            prop_assert!((f64::from(pixel) - f64::from(clean)).abs() * 255.0 <= epsilon + 2e-3);
        }

        #[test]
        fn proposals_within_the_budget_are_only_rounded(clean in 20u8..=235, change in -8i32..=8) {
            let clean_level = i32::from(clean);
            let proposed = (clean_level + change) as f32 / 255.0;
            let pixel = enforce(clean as f32 / 255.0, proposed, 8.0);
            prop_assert_eq!((pixel * 255.0).round() as i32, clean_level + change);
        }
    }
}
