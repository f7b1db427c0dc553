//! Element-wise activation functions, over tensors of any shape; in place where the buffer is not
//! shared.

use rayon::prelude::*;

use crate::simd::vectorised;

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// max(x, 0).
    Relu,
    /// x where above 0, else x times the slope. Source: Maas et al., "Rectifier nonlinearities
    /// improve neural network acoustic models", 2013, section 2.
    LeakyRelu(f32),
    /// The nearest number from the first to the second.
    Clip(f32, f32),
    /// 1/(1 + exp(−x)).
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// x·sigmoid(x), also called swish. Source: Hendrycks and Gimpel, arXiv:1606.08415, section 2.
    Silu,
    /// x·Φ(x), Φ the normal distribution's. Source: Hendrycks and Gimpel, arXiv:1606.08415, section
    /// 2.
    Gelu,
    /// x·sigmoid(2·√(2/π)·(x + 0.044715·x³)), which is [`Self::Gelu`] nearly. Source: the same.
    GeluTanh,
    /// The first times x plus the second, from 0 to 1.
    HardSigmoid(f32, f32),
    /// x·clip(x/6 + 1/2, 0, 1). Source: Howard et al., arXiv:1905.02244, section 5.2.
    HardSwish,
}

impl Activation {
    /// Whether the derivative is computed from the output; otherwise from the input.
    pub(crate) fn keeps_output(self) -> bool {
        match self {
            Self::Relu | Self::Sigmoid | Self::Tanh => true,
            // The output has the input's sign.
            Self::LeakyRelu(slope) => slope >= 0.0,
            _ => false,
        }
    }
}

/// Values that one task takes at a time.
const BLOCK: usize = 1 << 14;

/// Replaces each of `values` by what `function` makes of it.
pub(crate) fn apply(values: &mut [f32], function: Activation) {
    values.par_chunks_mut(BLOCK).for_each(|values| forward(values, function));
}

/// Multiplies each of `gradient` by the derivative of `function`, where `kept` holds the output if
/// [`Activation::keeps_output`], else the input.
pub(crate) fn apply_derivative(gradient: &mut [f32], kept: &[f32], function: Activation) {
    assert_eq!(gradient.len(), kept.len());
    let parts = gradient.par_chunks_mut(BLOCK).zip(kept.par_chunks(BLOCK));
    parts.for_each(|(gradient, kept)| backward(gradient, kept, function));
}

vectorised! {
    fn forward(values: &mut [f32], function: Activation) {
        match function {
            Activation::Relu => each(values, relu),
            Activation::LeakyRelu(slope) => each(values, |x| leaky(x, x, slope)),
            Activation::Clip(low, high) => each(values, |x| clip(x, low, high)),
            Activation::Sigmoid => each(values, sigmoid),
            Activation::Tanh => each(values, tanh),
            Activation::Silu => each(values, |x| x * sigmoid(x)),
            Activation::Gelu => each(values, |x| x * normal(x).0),
            Activation::GeluTanh => each(values, |x| x * sigmoid(bent(x).0)),
            Activation::HardSigmoid(slope, shift) => each(values, |x| clip(x * slope + shift, 0.0, 1.0)),
            Activation::HardSwish => each(values, |x| x * clip(x * SIXTH + 0.5, 0.0, 1.0)),
        }
    }
}

vectorised! {
    fn backward(gradient: &mut [f32], kept: &[f32], function: Activation) {
        match function {
            // Not a product: what does not pass is 0, whatever it was.
            Activation::Relu => gradient
                .iter_mut()
                .zip(kept)
                .for_each(|(gradient, y)| *gradient = if *y > 0.0 { *gradient } else { 0.0 }),
            Activation::LeakyRelu(slope) => gradient
                .iter_mut()
                .zip(kept)
                .for_each(|(gradient, kept)| *gradient = leaky(*gradient, *kept, slope)),
            Activation::Clip(low, high) => {
                scaled(gradient, kept, |x| if (x >= low) & (x <= high) { 1.0 } else { 0.0 });
            }
            Activation::Sigmoid => scaled(gradient, kept, |y| y * (1.0 - y)),
            Activation::Tanh => scaled(gradient, kept, |y| 1.0 - y * y),
            Activation::Silu => scaled(gradient, kept, |x| {
                let y = sigmoid(x);
                y + x * y * (1.0 - y)
            }),
            Activation::Gelu => scaled(gradient, kept, |x| {
                let (below, density) = normal(x);
                below + x * density
            }),
            Activation::GeluTanh => scaled(gradient, kept, |x| {
                let (bent, slope) = bent(x);
                let y = sigmoid(bent);
                y + x * y * (1.0 - y) * slope
            }),
            Activation::HardSigmoid(slope, shift) => scaled(gradient, kept, |x| {
                let y = x * slope + shift;
                if (y > 0.0) & (y < 1.0) { slope } else { 0.0 }
            }),
            Activation::HardSwish => scaled(gradient, kept, |x| {
                let y = x * SIXTH + 0.5;
                clip(y, 0.0, 1.0) + if (y > 0.0) & (y < 1.0) { x * SIXTH } else { 0.0 }
            }),
        }
    }
}

const SIXTH: f32 = 1.0 / 6.0;

#[inline(always)]
fn each(values: &mut [f32], function: impl Fn(f32) -> f32) {
    values.iter_mut().for_each(|value| *value = function(*value));
}

#[inline(always)]
fn scaled(gradient: &mut [f32], kept: &[f32], slope: impl Fn(f32) -> f32) {
    gradient.iter_mut().zip(kept).for_each(|(gradient, kept)| *gradient *= slope(*kept));
}

/// Zero for values below zero; NaN stays.
#[inline(always)]
pub(crate) fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// `value` where `sign` is above 0, else `value` times `slope`.
#[inline(always)]
pub(crate) fn leaky(value: f32, sign: f32, slope: f32) -> f32 {
    if sign > 0.0 { value } else { value * slope }
}

/// NaN stays.
#[inline(always)]
fn clip(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// By a polynomial near 0, where the difference of two numbers near 1 would have no digits left.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    let square = x * x;
    let mut series = -5.704_988_7e-3;
    series = series * square + 2.063_909e-2;
    series = series * square - 5.373_971_6e-2;
    series = series * square + 1.333_144_2e-1;
    series = series * square - 3.333_328e-1;
    let near = series * square * x + x;
    let far = 1.0 - 2.0 / (exp(2.0 * x.abs()) + 1.0);
    if square < 0.390_625 { near } else { far.copysign(x) }
}

/// The argument of [`Activation::GeluTanh`]'s sigmoid, and its derivative.
#[inline(always)]
fn bent(x: f32) -> (f32, f32) {
    const TWICE_ROOT: f32 = 1.595_769;
    const CUBE: f32 = 0.044_715;
    let square = x * x;
    (TWICE_ROOT * x * (1.0 + CUBE * square), TWICE_ROOT * (1.0 + 3.0 * CUBE * square))
}

/// The normal distribution's function, within 1e-7, and density. Source: Abramowitz and Stegun,
/// 7.1.26.
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    const ROOT_HALF: f32 = std::f32::consts::FRAC_1_SQRT_2;
    const DENSITY: f32 = 0.398_942_3;
    let bell = exp(-0.5 * x * x);
    let t = 1.0 / (1.0 + 0.327_591_1 * ROOT_HALF * x.abs());
    let mut tail = 1.061_405_4;
    tail = tail * t - 1.453_152;
    tail = tail * t + 1.421_413_7;
    tail = tail * t - 0.284_496_74;
    tail = tail * t + 0.254_829_6;
    let tail = 0.5 * tail * t * bell;
    (if x < 0.0 { tail } else { 1.0 - tail }, DENSITY * bell)
}

/// eˣ within 2 units in the last place; at least about 1e-38, and infinite from about 2e38 on. NaN
/// stays. Source: Cephes, `expf.c`.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// Adding it leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = clip(x, -87.0, 89.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = x - whole * 0.693_359_4 + whole * 2.121_944_4e-4;
    let mut series = 1.987_569_2e-4;
    series = series * rest + 1.398_2e-3;
    series = series * rest + 8.333_452e-3;
    series = series * rest + 4.166_579_6e-2;
    series = series * rest + 1.666_666_5e-1;
    series = series * rest + 0.5;
    let series = series * rest * rest + rest + 1.0;
    series * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The function and its derivative in double precision.
    fn exact(function: Activation, x: f64) -> (f64, f64) {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        match function {
            Activation::Relu => (x.max(0.0), f64::from(u8::from(x > 0.0))),
            Activation::LeakyRelu(slope) => {
                let slope = f64::from(slope);
                if x > 0.0 { (x, 1.0) } else { (x * slope, slope) }
            }
            Activation::Clip(low, high) => {
                let (low, high) = (f64::from(low), f64::from(high));
                (x.clamp(low, high), f64::from(u8::from((low..=high).contains(&x))))
            }
            Activation::Sigmoid => (sigmoid(x), sigmoid(x) * sigmoid(-x)),
            Activation::Tanh => (x.tanh(), 1.0 / x.cosh().powi(2)),
            Activation::Silu => (x * sigmoid(x), sigmoid(x) + x * sigmoid(x) * sigmoid(-x)),
            Activation::Gelu => {
                let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
                // Φ by Simpson's rule from 0.
                let steps = 2000;
                let width = x / f64::from(steps);
                let at = |i: i32| (-0.5 * (f64::from(i) * width).powi(2)).exp();
                let inner: f64 = (1..steps).map(|i| at(i) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
                let below =
                    0.5 + (at(0) + inner + at(steps)) * width / 3.0 / (2.0 * std::f64::consts::PI).sqrt();
                (x * below, below + x * density)
            }
            Activation::GeluTanh => {
                let root = (2.0 / std::f64::consts::PI).sqrt();
                let inner = (root * (x + 0.044715 * x.powi(3))).tanh();
                let slope = root * (1.0 + 3.0 * 0.044715 * x * x);
                (0.5 * x * (1.0 + inner), 0.5 * (1.0 + inner) + 0.5 * x * (1.0 - inner * inner) * slope)
            }
            Activation::HardSigmoid(slope, shift) => {
                let y = f64::from(slope) * x + f64::from(shift);
                (y.clamp(0.0, 1.0), if y > 0.0 && y < 1.0 { f64::from(slope) } else { 0.0 })
            }
            Activation::HardSwish => {
                let y = x / 6.0 + 0.5;
                (x * y.clamp(0.0, 1.0), y.clamp(0.0, 1.0) + if x.abs() < 3.0 { x / 6.0 } else { 0.0 })
            }
        }
    }

    const ALL: [Activation; 13] = [
        Activation::Relu,
        Activation::LeakyRelu(0.2),
        Activation::LeakyRelu(0.0),
        Activation::LeakyRelu(-0.5),
        Activation::Clip(0.0, 6.0),
        Activation::Clip(f32::NEG_INFINITY, 0.5),
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Silu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::HardSigmoid(0.2, 0.5),
        Activation::HardSwish,
    ];

    #[test]
    fn values_and_derivatives_are_those_of_double_precision() {
        // No point is a kink.
        let points: Vec<f32> = (-20_011..20_011).step_by(2).map(|i| i as f32 * 1e-3).collect();
        for function in ALL {
            let mut values = points.clone();
            apply(&mut values, function);
            let mut slopes = vec![2.0; points.len()];
            apply_derivative(&mut slopes, if function.keeps_output() { &values } else { &points }, function);
            for ((&x, value), slope) in points.iter().zip(values).zip(slopes) {
                let (exact_value, exact_slope) = exact(function, f64::from(x));
                let near =
                    |found: f32, exact: f64| (f64::from(found) - exact).abs() < 3e-6 * exact.abs().max(0.5);
                assert!(near(value, exact_value), "{function:?}({x}) = {value}, not {exact_value}");
                assert!(near(slope / 2.0, exact_slope), "{function:?}'({x}) = {slope}/2, not {exact_slope}");
            }
        }
    }

    #[test]
    fn nan_stays_and_infinity_has_its_limit() {
        for function in ALL {
            let mut values = [f32::NAN, f32::INFINITY, 1e30, -1e30];
            apply(&mut values, function);
            assert!(values[0].is_nan(), "{function:?}: {values:?}");
            let limit = exact(function, 1e3).0 as f32;
            let reached = |value: f32| if limit > 100.0 { value >= 1e30 } else { value == limit };
            assert!(reached(values[1]) && reached(values[2]), "{function:?}: {values:?}");
            let least = match function {
                Activation::Clip(f32::NEG_INFINITY, _) => -1e30,
                Activation::LeakyRelu(slope) => -1e30 * slope,
                _ => exact(function, -1e3).0 as f32,
            };
            assert!((values[3] - least).abs() < 1e-6, "{function:?}: {values:?}");
        }
    }
}
