//! L∞: the largest change of any pixel.

/// Largest absolute difference of two images, in 1/255 of the pixel range: 0 to 255.
///
/// Pixels k/255 are rounded in `f32`: what lies within 1e-4 of a whole number is that number, so
/// that a change of 8/255 is 8.
pub fn linf_255(clean: &[f32], adversarial: &[f32]) -> f64 {
    let largest = clean.iter().zip(adversarial).fold(0.0_f32, |largest, (a, b)| largest.max((a - b).abs()));
    let measured = f64::from(largest) * 255.0;
    let whole = measured.round();
    if (measured - whole).abs() < 1e-4 { whole } else { measured }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_change_counts_whatever_its_sign() {
        assert_eq!(linf_255(&[0.5, 0.5, 0.0], &[0.5, 0.5 - 8.0 / 255.0, 0.01]), 8.0);
        assert!((linf_255(&[0.0], &[0.03]) - 7.65).abs() < 1e-5);
        assert_eq!(linf_255(&[0.0, 1.0], &[1.0, 1.0]), 255.0);
    }
}
