//! The Adam optimiser, which updates each parameter in place in one pass. Source: Kingma and Ba,
//! arXiv:1412.6980, algorithm 1, in the order of section 2's last paragraph: both bias corrections
//! go into two factors of the whole step. The roundings are those of Burn's optimiser, and so are
//! its records.

use burn::backend::Dispatch;
use burn::optim::{AdamConfig, AdamState, AdaptiveMomentumState, LearningRate, ModuleOptimizer, Optimizer};
use burn::tensor::{Device, Tensor};

use crate::adam_step::AdamStep;
use crate::backend::ConvBackend;
use crate::has_kernels;

/// The optimiser.
#[derive(Clone)]
pub struct Adam {
    beta_1: f32,
    beta_2: f32,
    epsilon: f32,
    /// For the first step, and for devices without kernels of ours.
    reference: burn::optim::Adam,
}

impl Adam {
    /// The optimiser of all parameters of a module; `beta_1` and `beta_2` are the shares of the
    /// moments that stay at each step, below 1, and `epsilon` is added to the root of the second.
    pub fn init(beta_1: f32, beta_2: f32, epsilon: f32) -> ModuleOptimizer {
        let config = AdamConfig::new().with_beta_1(beta_1).with_beta_2(beta_2).with_epsilon(epsilon);
        ModuleOptimizer::from(Self { beta_1, beta_2, epsilon, reference: config.build() })
    }
}

impl Optimizer for Adam {
    type State<const D: usize> = AdamState<D>;

    fn step<const D: usize>(
        &self,
        rate: LearningRate,
        parameter: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let state = match state {
            Some(state) if has_kernels(&parameter) && has_kernels(&gradient) => state,
            other => return self.reference.step(rate, parameter, gradient, other),
        };
        let AdaptiveMomentumState { time, moment_1, moment_2, .. } = state.momentum;
        let time = time + 1;
        let correction = (1.0 - self.beta_2.powi(time as i32)).sqrt();
        let step = AdamStep {
            beta_1: self.beta_1,
            beta_2: self.beta_2,
            factor: correction / (1.0 - self.beta_1.powi(time as i32)),
            epsilon: self.epsilon * correction,
            rate: rate as f32,
        };
        let (parameter, moment_1, moment_2) = Dispatch::fast_adam(
            parameter.into_dispatch(),
            gradient.into_dispatch(),
            moment_1.into_dispatch(),
            moment_2.into_dispatch(),
            step,
        );
        let [moment_1, moment_2] = [moment_1, moment_2].map(Tensor::from_dispatch);
        let momentum = AdaptiveMomentumState::new(time, moment_1, moment_2);
        (Tensor::from_dispatch(parameter), Some(AdamState::new(momentum)))
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        burn::optim::Adam::to_device(state, device)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;
    use crate::adam_step::BLOCK;

    #[test]
    fn steps_are_those_of_burns_optimiser_to_the_bit() {
        let device = Device::flex();
        let values = |seed: usize, count: usize| -> Vec<f32> {
            (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0).collect()
        };
        let tensor = |seed, shape: [usize; 2]| {
            Tensor::<2>::from_data(TensorData::new(values(seed, shape[0] * shape[1]), shape), &device)
        };
        let config = AdamConfig::new().with_beta_1(0.5).with_beta_2(0.999).with_epsilon(1e-8);
        let (ours, burns) =
            (Adam { beta_1: 0.5, beta_2: 0.999, epsilon: 1e-8, reference: config.build() }, config.build());
        // A view, a single value, and more than one task's share.
        for (shape, transposed) in [([3, 37], true), ([1, 1], false), ([5, BLOCK / 2 + 3], false)] {
            let start =
                if transposed { tensor(0, [shape[1], shape[0]]).transpose() } else { tensor(0, shape) };
            let (mut mine, mut theirs) = ((start.clone(), None), (start.clone(), None));
            let kept = start.to_data();
            for step in 1..6 {
                let gradient = tensor(step, shape) * 1e-3;
                mine = ours.step(2e-4, mine.0, gradient.clone(), mine.1);
                theirs = burns.step(2e-4, theirs.0, gradient, theirs.1);
                assert_eq!(mine.0.to_data(), theirs.0.to_data(), "{shape:?} {step}");
            }
            let moments = |state: Option<AdamState<2>>| {
                let momentum = state.unwrap().momentum;
                (momentum.time, momentum.moment_1.into_data(), momentum.moment_2.into_data())
            };
            assert_eq!(moments(mine.1), moments(theirs.1));
            assert_eq!(start.to_data(), kept, "the parameters that others hold stay as they are");
            assert!(mine.0.to_data() != kept);
        }
    }
}
