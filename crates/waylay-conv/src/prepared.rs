//! Prepared filters: 3x3 kernels that do not change any more, with the transforms that Winograd's
//! method makes of them.

use std::sync::{Arc, OnceLock};

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{Float, Tensor};

use crate::has_kernels;

/// Filters `[Co, Ci, 3, 3]` that do not change any more, which
/// [`conv2d_prepared`](crate::conv2d_prepared) takes in place of a tensor. The first convolution
/// with them transforms them, if [`ConvOptions::winograd`](crate::ConvOptions::winograd) lets it,
/// and the transform is kept as long as a clone of this value lives: up to four times the memory of
/// the filters (nine times at stride 2), and less time for each convolution, the more so the
/// smaller its output is.
#[derive(Clone, Debug)]
pub struct PreparedFilters(Arc<Prepared>);

#[derive(Debug)]
struct Prepared {
    weight: Tensor<4>,
    /// The same tensor, contiguous.
    values: FlexTensor,
    /// Transformed, by the stride less 1.
    transformed: [OnceLock<Vec<f32>>; 2],
}

impl PreparedFilters {
    /// `None` for kernels other than 3x3, and for a tensor that the kernels of this crate do not
    /// take.
    pub fn new(weight: &Tensor<4>) -> Option<Self> {
        if weight.dims()[2..] != [3; 2] || !has_kernels(weight) {
            return None;
        }
        let values: FlexTensor = Tensor::<4, Float>::try_into_primitive::<Flex>(weight.clone()).ok()?;
        let taken = values.is_contiguous() && values.as_slice::<f32>().is_some();
        let prepared = || Prepared { weight: weight.clone(), values, transformed: Default::default() };
        taken.then(|| Self(Arc::new(prepared())))
    }

    /// The filters.
    pub fn weight(&self) -> Tensor<4> {
        self.0.weight.clone()
    }

    /// The filters as the backend has them.
    pub(crate) fn values(&self) -> &FlexTensor {
        &self.0.values
    }

    /// What `make` makes of these filters for `stride` 1 or 2: made the first time, without waiting
    /// for other threads, then kept.
    pub(crate) fn transformed(&self, stride: usize, make: impl FnOnce() -> Vec<f32>) -> &[f32] {
        self.0.transformed[stride - 1].get_or_init(make)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::{ConvOptions, conv2d, conv2d_prepared, conv2d_then};

    fn random(shape: [usize; 4]) -> Tensor<4> {
        Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), &Device::flex())
    }

    fn values(tensor: Tensor<4>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    fn winograd(stride: usize) -> ConvOptions {
        ConvOptions { stride: [stride; 2], padding: [1; 4], winograd: true, ..Default::default() }
    }

    #[test]
    fn prepared_filters_give_what_others_give() {
        for stride in [1, 2] {
            let (x, weight) = (random([8, 40, 16 * stride, 15 * stride]), random([33, 40, 3, 3]));
            let plain = |x: &Tensor<4>| values(conv2d(x.clone(), weight.clone(), None, winograd(stride)));
            let filters = PreparedFilters::new(&weight).unwrap();
            let prepared = |x: &Tensor<4>| {
                values(conv2d_prepared(x.clone(), &filters, None, None, false, winograd(stride)))
            };
            let expected = plain(&x);
            for _ in 0..2 {
                assert_eq!(prepared(&x), expected, "stride {stride}");
            }
            assert!(filters.0.transformed[stride - 1].get().is_some());
            // Few tiles, for which filters are transformed only where that is kept.
            let few = random([2, 40, 13 * stride, 14 * stride]);
            let error =
                plain(&few).iter().zip(prepared(&few)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(error < 1e-4, "stride {stride}: {error}");
        }
    }

    #[test]
    fn one_buffer_under_two_shapes_is_two_filters() {
        let weight = random([64, 32, 3, 3]);
        let other = weight.clone().reshape([32, 64, 3, 3]);
        let filters = [&weight, &other].map(|weight| PreparedFilters::new(weight).unwrap());
        for (weight, filters) in [weight, other].into_iter().zip(filters) {
            let x = random([8, weight.dims()[1], 16, 16]);
            let expected = values(conv2d(x.clone(), weight, None, winograd(1)));
            assert_eq!(values(conv2d_prepared(x, &filters, None, None, false, winograd(1))), expected);
        }
    }

    #[test]
    fn what_follows_and_gradients_are_those_of_a_convolution() {
        let (weight, x) = (random([33, 40, 3, 3]), random([8, 40, 16, 15]));
        let filters = PreparedFilters::new(&weight).unwrap();
        let bias = Tensor::random([33], Distribution::Uniform(-1.0, 1.0), &Device::flex());
        let add = random([8, 33, 16, 15]);
        for (has_bias, has_add, relu) in [
            (false, false, false),
            (true, false, false),
            (false, false, true),
            (true, true, true),
            (true, true, false),
        ] {
            let (bias, add) = (has_bias.then(|| bias.clone()), has_add.then(|| add.clone()));
            let both = |run: &dyn Fn(Tensor<4>, Option<Tensor<1>>, Option<Tensor<4>>) -> Tensor<4>| {
                let plain = values(run(x.clone(), bias.clone(), add.clone()));
                let leaf = Tensor::from_inner(x.clone()).require_grad();
                let lifted = (bias.clone().map(Tensor::from_inner), add.clone().map(Tensor::from_inner));
                let squares = run(leaf.clone(), lifted.0, lifted.1).powi_scalar(2).sum();
                (plain, values(leaf.grad(&squares.backward()).unwrap()))
            };
            let expected = both(&|x, bias, add| {
                let weight =
                    if x.is_autodiff() { Tensor::from_inner(weight.clone()) } else { weight.clone() };
                conv2d_then(x, weight, bias, add, relu, winograd(1))
            });
            let found = both(&|x, bias, add| conv2d_prepared(x, &filters, bias, add, relu, winograd(1)));
            assert_eq!(found, expected, "bias {has_bias}, add {has_add}, relu {relu}");
        }
    }

    #[test]
    fn other_kernels_are_not_prepared() {
        assert!(PreparedFilters::new(&random([32, 32, 1, 1])).is_none());
        assert!(PreparedFilters::new(&random([32, 32, 3, 5])).is_none());
    }
}
