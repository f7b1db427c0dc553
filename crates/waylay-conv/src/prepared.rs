//! Filters that do not change any more: what Winograd's method makes of them is made once, and kept.
//!
//! Convolutions know such filters by where their values lie in memory: whoever keeps them holds the tensor, so that nothing else can
//! lie there meanwhile, and nobody can write to it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, OnceLock, PoisonError, RwLock, Weak};

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{Float, Tensor};

use crate::has_kernels;

/// Filters that are kept, by the address of their first value.
static KEPT: LazyLock<RwLock<HashMap<usize, Weak<Kept>>>> = LazyLock::new(RwLock::default);

/// Keeps what convolutions make of some filters, for as long as it lives. See [`freeze`].
#[derive(Debug)]
pub struct FrozenFilters(#[cfg_attr(not(test), expect(dead_code, reason = "held, not read"))] Arc<Kept>);

/// Filters and what was made of them.
#[derive(Debug)]
pub(crate) struct Kept {
    weight: FlexTensor,
    /// Transformed, by the stride less 1.
    transformed: [OnceLock<Vec<f32>>; 2],
}

/// Lets convolutions with `weight` `[Co, Ci, 3, 3]`, which will not change, keep the filters that they transform, if
/// [`ConvOptions::winograd`](crate::ConvOptions::winograd) lets them: up to four times the memory of `weight` (nine times at stride 2),
/// and less time for each convolution, the more so the smaller its output is. What is kept is made by the first convolution.
/// `None` for other kernels, and for a tensor that the kernels of this crate do not take.
pub fn freeze(weight: &Tensor<4>) -> Option<FrozenFilters> {
    if weight.dims()[2..] != [3; 2] || !has_kernels(weight) {
        return None;
    }
    let weight: FlexTensor = Tensor::<4, Float>::try_into_primitive::<Flex>(weight.clone()).ok()?;
    let address = values(&weight)?.as_ptr().addr();
    let mut all = KEPT.write().unwrap_or_else(PoisonError::into_inner);
    all.retain(|_, kept| kept.strong_count() > 0);
    if let Some(kept) = all.get(&address).and_then(Weak::upgrade) {
        return Some(FrozenFilters(kept));
    }
    let kept = Arc::new(Kept { weight, transformed: Default::default() });
    all.insert(address, Arc::downgrade(&kept));
    Some(FrozenFilters(kept))
}

/// What is kept of filters with these values, all of them.
pub(crate) fn find(weight: &[f32]) -> Option<Arc<Kept>> {
    let all = KEPT.read().unwrap_or_else(PoisonError::into_inner);
    let kept = all.get(&weight.as_ptr().addr())?.upgrade()?;
    values(&kept.weight).is_some_and(|values| values.len() == weight.len()).then_some(kept)
}

impl Kept {
    /// The filters as they are needed at `stride` 1 or 2, which `make` makes the first time, without waiting for other threads.
    pub fn transformed(&self, stride: usize, make: impl FnOnce() -> Vec<f32>) -> &[f32] {
        self.transformed[stride - 1].get_or_init(make)
    }
}

fn values(weight: &FlexTensor) -> Option<&[f32]> {
    weight.is_contiguous().then(|| weight.as_slice()).flatten()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::{ConvOptions, conv2d};

    fn random(shape: [usize; 4]) -> Tensor<4> {
        Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), &Device::flex())
    }

    fn kept(weight: &Tensor<4>) -> Option<Arc<Kept>> {
        let weight: FlexTensor = Tensor::<4, Float>::try_into_primitive::<Flex>(weight.clone()).unwrap();
        find(weight.as_slice::<f32>().unwrap())
    }

    #[test]
    fn kept_filters_give_what_others_give() {
        for stride in [1, 2] {
            let options =
                ConvOptions { stride: [stride; 2], padding: [1; 4], winograd: true, ..Default::default() };
            let (x, weight) = (random([8, 40, 16 * stride, 15 * stride]), random([33, 40, 3, 3]));
            let values = |x: &Tensor<4>, weight: &Tensor<4>| {
                conv2d(x.clone(), weight.clone(), None, options).into_data().try_to_vec::<f32>().unwrap()
            };
            let before = values(&x, &weight);
            let frozen = freeze(&weight).unwrap();
            for _ in 0..2 {
                assert_eq!(values(&x, &weight), before, "stride {stride}");
            }
            // Few tiles, for which filters are transformed only where that is kept.
            let few = random([2, 40, 13 * stride, 14 * stride]);
            let found = values(&few, &weight);
            assert!(kept(&weight).unwrap().transformed[stride - 1].get().is_some());
            drop(frozen);
            assert!(kept(&weight).is_none());
            let error =
                values(&few, &weight).iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(error < 1e-4, "stride {stride}: {error}");
        }
    }

    #[test]
    fn filters_are_known_as_long_as_somebody_keeps_them() {
        let (weight, other) = (random([32, 32, 3, 3]), random([32, 32, 3, 3]));
        let (first, second) = (freeze(&weight).unwrap(), freeze(&weight.clone()).unwrap());
        assert!(Arc::ptr_eq(&first.0, &second.0) && kept(&other).is_none());
        drop(first);
        assert!(kept(&weight).is_some());
        drop(second);
        assert!(kept(&weight).is_none());
        assert!(freeze(&random([32, 32, 1, 1])).is_none());
    }
}
