//! Towards the opposite of the embedding. Source: Zheng et al., "Open Set Adversarial Examples",
//! arXiv:1809.02681: the opposite-direction feature attack, which draws f_x̃ to −f_x. Differs: the
//! scalar product instead of the squared distance to −f_x, of which it is the part that turns the
//! embedding.

use burn::tensor::Tensor;

use super::Objective;
use crate::embedding::Metric;

/// −f_x·f_x̃, whatever the metric. Unlike the distance it has a gradient at x̃ = x.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opposite;

impl Objective for Opposite {
    fn name(&self) -> &'static str {
        "opposite"
    }

    fn value(&self, clean: Tensor<2>, adversarial: Tensor<2>, _metric: Metric) -> Tensor<1> {
        -(clean * adversarial).sum_dim(1).squeeze_dim::<1>(1)
    }
}
