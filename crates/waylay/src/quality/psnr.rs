//! PSNR: peak signal-to-noise ratio. Source: scikit-image's `peak_signal_noise_ratio` with
//! `data_range=1`; there, identical images are at infinity.

use super::l2::squared_error;

/// −10 log₁₀ of the mean squared difference over all channels and pixels, in dB; 0 or more, higher
/// is more alike. `None` for identical images, whose ratio is infinite, and which a report cannot
/// average.
pub fn psnr_db(clean: &[f32], adversarial: &[f32]) -> Option<f64> {
    let error = squared_error(clean, adversarial) / clean.len() as f64;
    (error > 0.0).then(|| -10.0 * error.log10())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uniform_change_of_a_tenth_is_20_db() {
        assert!((psnr_db(&[0.5; 4], &[0.6; 4]).unwrap() - 20.0).abs() < 1e-5);
    }

    #[test]
    fn identical_images_have_no_finite_psnr() {
        assert_eq!(psnr_db(&[0.5; 4], &[0.5; 4]), None);
    }
}
