//! Away from where the embedding was, in any direction: the non-targeted objective of every attack
//! on retrieval. Source: Zhao et al., arXiv:1907.05793, the term d(f_x, f_x̃) of L_metric.

use burn::tensor::Tensor;

use super::Objective;
use crate::attack::feature_distance;
use crate::embedding::Metric;

/// d(f_x, f_x̃) in the system's metric. Its gradient at x̃ = x is zero, so that attacks begin
/// elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evade;

impl Objective for Evade {
    fn name(&self) -> &'static str {
        "evade"
    }

    fn value(&self, clean: Tensor<2>, adversarial: Tensor<2>, metric: Metric) -> Tensor<1> {
        feature_distance(metric, clean, adversarial)
    }
}
