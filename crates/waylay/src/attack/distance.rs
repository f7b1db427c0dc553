//! The feature distance d(f_x, f_x̃), as tensors: what attacks enlarge whose objective is to evade.

use burn::tensor::Tensor;

use crate::embedding::Metric;

/// Below this squared length an embedding counts as zero: keeps gradients finite.
const TINY: f32 = 1e-12;

/// Cosine between matching rows of `a` and `b`, both `[N, dim]`; `[N]`, 0 where a row is zero.
pub fn cosine_rows(a: Tensor<2>, b: Tensor<2>) -> Tensor<1> {
    let dot = (a.clone() * b.clone()).sum_dim(1).squeeze_dim(1);
    let length = |t: Tensor<2>| t.powi_scalar(2).sum_dim(1).add_scalar(TINY).sqrt().squeeze_dim::<1>(1);
    dot / (length(a) * length(b))
}

/// Distance in `metric` between matching rows of `a` and `b`, both `[N, dim]`; `[N]`.
/// Euclidean distances are the lengths of differences of raw embeddings, smoothed by 1e-6 at zero.
pub fn feature_distance(metric: Metric, a: Tensor<2>, b: Tensor<2>) -> Tensor<1> {
    match metric {
        Metric::Cosine => cosine_rows(a, b).neg().add_scalar(1.0),
        Metric::Euclidean => (a - b).powi_scalar(2).sum_dim(1).add_scalar(TINY).sqrt().squeeze_dim(1),
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn values(t: Tensor<1>) -> Vec<f32> {
        t.into_data().iter::<f32>().collect()
    }

    #[test]
    fn distances_of_known_vectors_are_right() {
        let device = Device::flex();
        let a = Tensor::<2>::from_floats([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]], &device);
        let b = Tensor::<2>::from_floats([[6.0, 8.0], [0.0, 2.0], [1.0, 0.0]], &device);
        let cosine = values(feature_distance(Metric::Cosine, a.clone(), b.clone()));
        let euclidean = values(feature_distance(Metric::Euclidean, a, b));
        for (found, expected) in cosine.iter().zip([0.0, 1.0, 1.0]) {
            approx::assert_abs_diff_eq!(*found, expected, epsilon = 1e-6);
        }
        for (found, expected) in euclidean.iter().zip([5.0, 5.0f32.sqrt(), 1.0]) {
            approx::assert_abs_diff_eq!(*found, expected, epsilon = 1e-5);
        }
    }

    #[test]
    fn gradients_are_finite_where_the_distance_is_zero() {
        for metric in [Metric::Cosine, Metric::Euclidean] {
            let device = Device::flex().autodiff();
            let a = Tensor::<2>::from_floats([[0.0, 0.0], [1.0, 2.0]], &device).require_grad();
            let grads = feature_distance(metric, a.clone(), a.clone().detach()).sum().backward();
            let gradient = a.grad(&grads).unwrap();
            assert!(gradient.into_data().iter::<f32>().all(f32::is_finite), "{metric}");
        }
    }
}
