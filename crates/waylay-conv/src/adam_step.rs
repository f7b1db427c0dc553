//! One step of Adam on one parameter, in place, in one pass over values and moments: the kernel
//! behind [`Adam`](crate::Adam).

use rayon::prelude::*;

use crate::simd::vectorised;

/// One step's numbers.
#[derive(Clone, Copy, Debug)]
pub struct AdamStep {
    pub(crate) beta_1: f32,
    pub(crate) beta_2: f32,
    /// What the first moment over the root of the second is multiplied by, but for the learning
    /// rate.
    pub(crate) factor: f32,
    /// What is added to the root of the second moment.
    pub(crate) epsilon: f32,
    pub(crate) rate: f32,
}

/// Values that one task takes at a time.
pub(crate) const BLOCK: usize = 1 << 14;

/// Moves a parameter and its two moments on by one step.
pub(crate) fn advance(parameter: &mut [f32], gradient: &[f32], moments: [&mut [f32]; 2], step: AdamStep) {
    let [first, second] = moments;
    let count = parameter.len();
    assert!(
        [gradient.len(), first.len(), second.len()] == [count; 3],
        "adam: everything has the parameter's shape"
    );
    parameter
        .par_chunks_mut(BLOCK)
        .zip(gradient.par_chunks(BLOCK))
        .zip(first.par_chunks_mut(BLOCK).zip(second.par_chunks_mut(BLOCK)))
        .for_each(|((parameter, gradient), (first, second))| block(parameter, gradient, first, second, step));
}

vectorised! {
    fn block(parameter: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32], step: AdamStep) {
        let moments = first.iter_mut().zip(second);
        for ((parameter, &gradient), (first, second)) in parameter.iter_mut().zip(gradient).zip(moments) {
            *first = *first * step.beta_1 + gradient * (1.0 - step.beta_1);
            *second = *second * step.beta_2 + gradient * gradient * (1.0 - step.beta_2);
            *parameter -= *first * step.factor / (second.sqrt() + step.epsilon) * step.rate;
        }
    }
}
