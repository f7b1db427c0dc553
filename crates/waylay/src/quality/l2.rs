//! L2: the length of the change.

/// Euclidean length of the difference of two images over all channels and pixels, in pixel units: 0
/// to √(C·H·W).
pub fn l2(clean: &[f32], adversarial: &[f32]) -> f64 {
    squared_error(clean, adversarial).sqrt()
}

/// Sum of the squared differences.
pub(super) fn squared_error(clean: &[f32], adversarial: &[f32]) -> f64 {
    clean.iter().zip(adversarial).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_change_of_three_and_four_is_five() {
        assert!((l2(&[0.3, 0.9, 0.2], &[0.0, 0.5, 0.2]) - 0.5).abs() < 1e-7);
    }
}
