//! SSIM: structural similarity. Source: Wang et al., "Image Quality Assessment: From Error
//! Visibility to Structural Similarity", 2004, as in scikit-image's `structural_similarity` with
//! `gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1`: 11 x 11 windows,
//! K₁ = 0.01, K₂ = 0.03, the mean over the windows that lie within the image.

use super::QualityError;

/// Side of the Gaussian window: the smallest height and width of an image.
pub const SSIM_WINDOW: usize = 11;
/// Standard deviation of the Gaussian, in pixels.
const SIGMA: f64 = 1.5;
/// (K₁ · range)².
const C1: f64 = 0.01 * 0.01;
/// (K₂ · range)².
const C2: f64 = 0.03 * 0.03;

/// Mean structural similarity of two images `[C, H, W]` of `size`, first per channel, then over the
/// channels: −1 to 1, and 1 for identical images. An error where a side is below [`SSIM_WINDOW`].
pub fn ssim(size: [usize; 3], clean: &[f32], adversarial: &[f32]) -> Result<f64, QualityError> {
    let [channels, height, width] = size;
    if height < SSIM_WINDOW || width < SSIM_WINDOW {
        return Err(QualityError::Small { height, width });
    }
    let planes = clean.chunks_exact(height * width).zip(adversarial.chunks_exact(height * width));
    let sum: f64 = planes.map(|(clean, adversarial)| plane(width, clean, adversarial)).sum();
    Ok(sum / channels as f64)
}

/// Mean similarity of two planes of `width` columns.
fn plane(width: usize, x: &[f32], y: &[f32]) -> f64 {
    let weights = gaussian();
    let blurred = |value: fn(f64, f64) -> f64| {
        let product: Vec<f64> = x.iter().zip(y).map(|(x, y)| value(f64::from(*x), f64::from(*y))).collect();
        blur(&product, width, &weights)
    };
    let (mean_x, mean_y) = (blurred(|x, _| x), blurred(|_, y| y));
    let (squares, products) = (blurred(|x, y| x * x + y * y), blurred(|x, y| x * y));
    let similarities = (0..mean_x.len()).map(|i| {
        let (x, y) = (mean_x[i], mean_y[i]);
        let (means, energy) = (x * y, x * x + y * y);
        let (covariance, variances) = (products[i] - means, squares[i] - energy);
        (2.0 * means + C1) * (2.0 * covariance + C2) / ((energy + C1) * (variances + C2))
    });
    similarities.sum::<f64>() / mean_x.len() as f64
}

/// The Gaussian at −5 to 5 pixels, summing to 1.
fn gaussian() -> [f64; SSIM_WINDOW] {
    let middle = (SSIM_WINDOW / 2) as f64;
    let weights: [f64; SSIM_WINDOW] =
        std::array::from_fn(|i| (-0.5 * ((i as f64 - middle) / SIGMA).powi(2)).exp());
    let sum: f64 = weights.iter().sum();
    weights.map(|weight| weight / sum)
}

/// Weighted means of `plane` over every window that lies within it, rows then columns. In `f64`: on
/// flat bright areas a variance is the small difference of two numbers near 1, beside C₂ = 9e-4.
fn blur(plane: &[f64], width: usize, weights: &[f64; SSIM_WINDOW]) -> Vec<f64> {
    let inside = width + 1 - SSIM_WINDOW;
    let height = plane.len() / width;
    let mut rows = vec![0.0; height * inside];
    for (row, out) in plane.chunks_exact(width).zip(rows.chunks_exact_mut(inside)) {
        for (tap, weight) in weights.iter().enumerate() {
            out.iter_mut().zip(&row[tap..]).for_each(|(out, value)| *out += weight * value);
        }
    }
    let mut out = vec![0.0; (height + 1 - SSIM_WINDOW) * inside];
    for (at, out) in out.chunks_exact_mut(inside).enumerate() {
        for (tap, weight) in weights.iter().enumerate() {
            out.iter_mut().zip(&rows[(at + tap) * inside..]).for_each(|(out, value)| *out += weight * value);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identical_images_are_wholly_similar() {
        let image: Vec<f32> = (0..3 * 20 * 14).map(|i| (i * 37 % 256) as f32 / 255.0).collect();
        assert_eq!(ssim([3, 20, 14], &image, &image), Ok(1.0));
    }

    #[test]
    fn an_image_below_the_window_is_refused() {
        let error = ssim([1, 10, 40], &[0.0; 400], &[0.0; 400]).unwrap_err();
        assert_eq!(error.to_string(), "images of 10 x 40 pixels; ssim needs at least 11 x 11");
    }
}
