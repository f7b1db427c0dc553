//! All measures of a batch of pairs.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{l2, linf_255, psnr_db, ssim};
use crate::image::ImageBatch;

/// Images that cannot be compared.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum QualityError {
    /// The batches are of different shapes.
    #[error(
        "adversarial images of shape {adversarial:?} (count, channels, height, width) for clean ones of {clean:?}; need the same"
    )]
    Shapes {
        /// Shape of the clean batch.
        clean: [usize; 4],
        /// Shape of the adversarial batch.
        adversarial: [usize; 4],
    },
    /// The images are smaller than the window of SSIM.
    #[error("images of {height} x {width} pixels; ssim needs at least 11 x 11")]
    Small {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
}

/// How far one adversarial image is from its clean one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageQuality {
    /// Largest change of a pixel, in 1/255.
    pub linf_255: f64,
    /// Length of the change, in pixel units.
    pub l2: f64,
    /// Peak signal-to-noise ratio in dB; `None` (`null`) where nothing changed.
    pub psnr_db: Option<f64>,
    /// Structural similarity, −1 to 1.
    pub ssim: f64,
}

/// How far a batch of adversarial images is from the clean ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Largest change of any pixel of any image, in 1/255: what the budget limits.
    pub linf_255: f64,
    /// Mean length of the change, in pixel units.
    pub l2: f64,
    /// Mean peak signal-to-noise ratio in dB over the images that changed; `None` (`null`) where
    /// none did.
    pub psnr_db: Option<f64>,
    /// Mean structural similarity, −1 to 1.
    pub ssim: f64,
    /// Each image, in the batch's order.
    pub per_image: Vec<ImageQuality>,
}

/// Measures each adversarial image against the clean one at its place; an error where the shapes
/// differ, or a side is below [`super::SSIM_WINDOW`].
///
/// ```
/// use waylay::prelude::*;
///
/// let clean = ImageBatch::new([1, 1, 16, 16], vec![100.0 / 255.0; 256])?;
/// let changed = ImageBatch::new([1, 1, 16, 16], vec![108.0 / 255.0; 256])?;
/// let found = quality::measure(&clean, &changed)?;
/// assert_eq!(found.linf_255, 8.0);
/// assert!((found.psnr_db.unwrap() - 30.07).abs() < 0.01);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn measure(clean: &ImageBatch, adversarial: &ImageBatch) -> Result<Quality, QualityError> {
    if clean.shape() != adversarial.shape() {
        return Err(QualityError::Shapes { clean: clean.shape(), adversarial: adversarial.shape() });
    }
    let one = |index| {
        let (clean_image, image) = (clean.image(index), adversarial.image(index));
        Ok(ImageQuality {
            linf_255: linf_255(clean_image, image),
            l2: l2(clean_image, image),
            psnr_db: psnr_db(clean_image, image),
            ssim: ssim(clean.size(), clean_image, image)?,
        })
    };
    let per_image: Vec<ImageQuality> =
        (0..clean.count()).into_par_iter().map(one).collect::<Result<_, _>>()?;
    let ratios: Vec<f64> = per_image.iter().filter_map(|image| image.psnr_db).collect();
    Ok(Quality {
        linf_255: per_image.iter().map(|image| image.linf_255).fold(0.0, f64::max),
        l2: mean(per_image.iter().map(|image| image.l2)),
        psnr_db: (!ratios.is_empty()).then(|| mean(ratios.into_iter())),
        ssim: mean(per_image.iter().map(|image| image.ssim)),
        per_image,
    })
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `scripts/golden/quality.py`.
    const GOLDEN: &str = include_str!("../../tests/golden/quality/pairs.json");

    #[derive(Deserialize)]
    struct Pair {
        size: [usize; 3],
        clean: Vec<u8>,
        adversarial: Vec<u8>,
        #[serde(flatten)]
        quality: ImageQuality,
    }

    fn batch([c, h, w]: [usize; 3], pixels: &[u8]) -> ImageBatch {
        let count = pixels.len() / (c * h * w);
        ImageBatch::new([count, c, h, w], pixels.iter().map(|v| f32::from(*v) / 255.0).collect()).unwrap()
    }

    #[test]
    fn measures_agree_with_scikit_image() {
        let pairs: Vec<Pair> = serde_json::from_str(GOLDEN).unwrap();
        for Pair { size, clean, adversarial, quality: expected } in pairs {
            let found = measure(&batch(size, &clean), &batch(size, &adversarial)).unwrap().per_image[0];
            let close =
                |a: f64, b: f64| assert!((a - b).abs() < 2e-5, "{size:?}: {found:?} instead of {expected:?}");
            close(found.linf_255, expected.linf_255);
            close(found.l2, expected.l2);
            close(found.psnr_db.unwrap(), expected.psnr_db.unwrap());
            close(found.ssim, expected.ssim);
            assert!((found.ssim - expected.ssim).abs() < 1e-6);
        }
    }

    #[test]
    fn a_batch_takes_the_worst_linf_and_the_mean_of_the_rest() {
        let clean = batch([1, 11, 12], &[100; 3 * 132]);
        let mut pixels = vec![100; 132];
        pixels.extend([105; 132]);
        pixels.extend([97; 132]);
        let quality = measure(&clean, &batch([1, 11, 12], &pixels)).unwrap();
        let each = &quality.per_image;
        assert_eq!(each[0], ImageQuality { linf_255: 0.0, l2: 0.0, psnr_db: None, ssim: 1.0 });
        assert_eq!(quality.linf_255, each[1].linf_255);
        assert!((quality.linf_255 - 5.0).abs() < 2e-5);
        assert!((quality.l2 - (each[1].l2 + each[2].l2) / 3.0).abs() < 1e-12);
        let ratios = each[1].psnr_db.unwrap() + each[2].psnr_db.unwrap();
        assert!((quality.psnr_db.unwrap() - ratios / 2.0).abs() < 1e-12);
        let json = serde_json::to_string(&measure(&clean, &clean).unwrap()).unwrap();
        assert!(json.contains(r#""psnr_db":null,"ssim":1.0"#));
    }

    #[test]
    fn batches_of_different_shapes_are_refused() {
        let error = measure(&batch([1, 11, 12], &[0; 132]), &batch([1, 12, 11], &[0; 132])).unwrap_err();
        assert!(matches!(error, QualityError::Shapes { .. }));
    }
}
