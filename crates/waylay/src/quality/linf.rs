//! L∞: the largest change of any pixel.

/// Largest absolute difference of two images, in 1/255 of the pixel range: 0 to 255.
///
/// Pixels k/255 are rounded in `f32`, so a change of exactly 8/255 measures as 8 ± 2e-5.
pub fn linf_255(clean: &[f32], adversarial: &[f32]) -> f64 {
    let largest = clean.iter().zip(adversarial).fold(0.0_f32, |largest, (a, b)| largest.max((a - b).abs()));
    f64::from(largest) * 255.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_change_counts_whatever_its_sign() {
        assert!((linf_255(&[0.5, 0.5, 0.0], &[0.5, 0.5 - 8.0 / 255.0, 0.01]) - 8.0).abs() < 2e-5);
        assert_eq!(linf_255(&[0.0, 1.0], &[1.0, 1.0]), 255.0);
    }
}
