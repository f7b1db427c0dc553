//! Input diversity: in training, the target sees every image resized and shifted a little, so that
//! the generator does not rely on where exactly the target's first layers sample it. Source: Xie et
//! al., arXiv:1803.06978, eq. 6, there for iterative attacks. Differs: the clean image takes the
//! same transform as the perturbed one, both axes are resized on their own, larger or smaller, and
//! the border is repeated instead of padded with zeros.

use burn::tensor::{Tensor, TensorData};
use rand::{Rng, RngExt};

/// A resize and a shift per image of a batch, as matrices.
#[derive(Clone, Debug)]
pub struct Transforms {
    /// `[N, C, H, H]`, multiplied from the left.
    rows: Tensor<4>,
    /// `[N, C, W, W]`, multiplied from the right.
    columns: Tensor<4>,
}

impl Transforms {
    /// Draws one per image of a batch `[N, C, H, W]`. Of a `share` of the images, 0 to 1, both axes
    /// are scaled by 1 − `strength` to 1 + `strength` and shifted by up to half of `strength` of
    /// their length; the others stay as they are. `like` says where the matrices are.
    pub fn draw(share: f64, strength: f64, like: &Tensor<4>, random: &mut impl Rng) -> Self {
        let [count, channels, height, width] = like.dims();
        let (mut rows, mut columns) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let strength = if random.random_bool(share) { strength } else { 0.0 };
            let mut axis = |side: usize| {
                let scale = 1.0 + random.random_range(-strength..=strength);
                let shift = random.random_range(-strength..=strength) / 2.0 * side as f64;
                sampling(side, scale, shift)
            };
            let (down, across) = (axis(height), transposed(&axis(width), width));
            (0..channels).for_each(|_| rows.extend_from_slice(&down));
            (0..channels).for_each(|_| columns.extend_from_slice(&across));
        }
        let device = like.device();
        Self {
            rows: Tensor::from_data(TensorData::new(rows, [count, channels, height, height]), &device),
            columns: Tensor::from_data(TensorData::new(columns, [count, channels, width, width]), &device),
        }
    }

    /// The transformed images; differentiable where `x` is tracked.
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let (rows, columns) = (self.rows.clone(), self.columns.clone());
        if x.is_autodiff() {
            return Tensor::from_inner(rows).matmul(x).matmul(Tensor::from_inner(columns));
        }
        rows.matmul(x).matmul(columns)
    }
}

/// Bilinear sampling of `side` values at places `scale` apart around the middle, moved by `shift`:
/// a matrix whose rows sum to 1. Places outside take the value at the border.
fn sampling(side: usize, scale: f64, shift: f64) -> Vec<f32> {
    let middle = (side as f64 - 1.0) / 2.0;
    let mut matrix = vec![0.0; side * side];
    for (index, row) in matrix.chunks_exact_mut(side).enumerate() {
        let place = ((index as f64 - middle) * scale + middle + shift).clamp(0.0, side as f64 - 1.0);
        let (before, part) = (place.floor() as usize, place.fract());
        row[before] += 1.0 - part as f32;
        row[(before + 1).min(side - 1)] += part as f32;
    }
    matrix
}

fn transposed(matrix: &[f32], side: usize) -> Vec<f32> {
    (0..side * side).map(|at| matrix[at % side * side + at / side]).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::seed::Seed;

    #[test]
    fn sampling_keeps_constants_and_shifts_by_whole_pixels_exactly() {
        let shifted = sampling(5, 1.0, 2.0);
        let values = [3.0, 1.0, 4.0, 1.0, 5.0];
        let product = |matrix: &[f32]| -> Vec<f32> {
            matrix.chunks(5).map(|row| row.iter().zip(values).map(|(a, b)| a * b).sum()).collect()
        };
        assert_eq!(product(&shifted), [4.0, 1.0, 5.0, 5.0, 5.0]);
        assert_eq!(product(&sampling(5, 0.5, 0.0)), [1.0, 2.5, 4.0, 2.5, 1.0]);
        for matrix in [sampling(7, 0.9, 1.3), sampling(7, 1.1, -2.2)] {
            assert!(matrix.chunks(7).all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-6));
        }
    }

    #[test]
    fn both_axes_are_sampled_and_no_strength_changes_nothing() {
        let device = Device::flex();
        let pixels: Vec<f32> = (0..2 * 3 * 4 * 5).map(|i| (i % 11) as f32 / 11.0).collect();
        let x = Tensor::<4>::from_data(TensorData::new(pixels, [2, 3, 4, 5]), &device);
        let mut random = Seed(0).stream("test");
        let same = Transforms::draw(1.0, 0.0, &x, &mut random).apply(x.clone());
        same.into_data().assert_eq(&x.clone().into_data(), true);
        // Down by one and across by two in the first image; the second stays.
        let axes = |side: usize, shift: f64| {
            [sampling(side, 1.0, shift).repeat(3), sampling(side, 1.0, 0.0).repeat(3)].concat()
        };
        let columns = axes(5, 2.0).chunks(25).flat_map(|matrix| transposed(matrix, 5)).collect();
        let moved = Transforms {
            rows: Tensor::from_data(TensorData::new(axes(4, 1.0), [2, 3, 4, 4]), &device),
            columns: Tensor::from_data(TensorData::new::<f32, _>(columns, [2, 3, 5, 5]), &device),
        }
        .apply(x.clone());
        let part = |t: &Tensor<4>, image: usize, rows: [usize; 2], columns: [usize; 2]| {
            t.clone().slice([image..image + 1, 0..3, rows[0]..rows[1], columns[0]..columns[1]]).into_data()
        };
        part(&moved, 0, [0, 3], [0, 3]).assert_eq(&part(&x, 0, [1, 4], [2, 5]), true);
        part(&moved, 1, [0, 4], [0, 5]).assert_eq(&part(&x, 1, [0, 4], [0, 5]), true);
    }
    #[test]
    fn a_share_of_the_images_is_transformed_and_gradients_pass() {
        let device = Device::flex();
        let pixels: Vec<f32> = (0..400 * 64).map(|i| (i % 13) as f32 / 13.0).collect();
        let x = Tensor::<4>::from_data(TensorData::new(pixels, [400, 1, 8, 8]), &device);
        let transforms = Transforms::draw(0.25, 0.3, &x, &mut Seed(3).stream("test"));
        let changed = (transforms.apply(x.clone()) - x.clone()).abs().flatten::<2>(1, 3).sum_dim(1);
        let count = changed.into_data().iter::<f32>().filter(|change| *change > 1e-3).count();
        assert!((70..130).contains(&count), "{count} of 400");
        // Rows of a sampling matrix sum to 1, so the gradient of the sum of all pixels sums to
        // their number.
        let leaf = Tensor::from_inner(x).require_grad();
        let gradient = leaf.grad(&transforms.apply(leaf.clone()).sum().backward()).unwrap();
        let sum: f32 = gradient.into_data().iter::<f32>().sum();
        assert!((sum - 400.0 * 64.0).abs() < 1.0, "{sum}");
    }
}
