//! Element-wise activation functions, and softmax.

use burn::tensor::{Tensor, activation};
use waylay_conv::Activation;

use super::call::{self, Call};
use super::{Operator, Outcome, one, op, taking};
use crate::value::{Ranked, map_rank, zip_rank};

pub(super) const LIST: &[Operator] = &[
    taking("Relu", 1..=1, |call| activate(call, Activation::Relu)),
    taking("PRelu", 2..=2, prelu),
    taking("LeakyRelu", 1..=1, |call| {
        let slope = call.float("alpha")?.unwrap_or(0.01);
        activate(call, Activation::LeakyRelu(slope))
    }),
    op("Elu", 1..=1, |call| {
        let alpha = call.float("alpha")?.unwrap_or(1.0);
        one(map_rank!(call.tensor(0)?, t => elu(t, alpha)))
    }),
    taking("Clip", 1..=3, clip),
    taking("Sigmoid", 1..=1, |call| activate(call, Activation::Sigmoid)),
    taking("HardSigmoid", 1..=1, |call| {
        let (alpha, beta) = (call.float("alpha")?.unwrap_or(0.2), call.float("beta")?.unwrap_or(0.5));
        activate(call, Activation::HardSigmoid(alpha, beta))
    }),
    taking("HardSwish", 1..=1, |call| activate(call, Activation::HardSwish)),
    taking("Tanh", 1..=1, |call| activate(call, Activation::Tanh)),
    op("Erf", 1..=1, |call| one(map_rank!(call.tensor(0)?, t => t.erf()))),
    taking("Gelu", 1..=1, |call| match call.text("approximate", "none")? {
        "none" => activate(call, Activation::Gelu),
        "tanh" => activate(call, Activation::GeluTanh),
        other => Err(format!("approximate `{other}`; known are none and tanh")),
    }),
    taking("Softmax", 1..=1, |call| {
        softmax(call, |x, axis| match axis + 1 == x.rank() {
            true => map_rank!(x, t => waylay_conv::softmax(t)),
            false => map_rank!(x, t => activation::softmax(t, axis)),
        })
    }),
    taking("LogSoftmax", 1..=1, |call| {
        softmax(call, |x, axis| map_rank!(x, t => activation::log_softmax(t, axis)))
    }),
    op("Selu", 1..=1, |call| {
        let alpha = call.float("alpha")?.unwrap_or(1.673_263_2);
        let gamma = call.float("gamma")?.unwrap_or(1.050_701);
        one(map_rank!(call.tensor(0)?, t => elu(t, alpha) * gamma))
    }),
    op("Celu", 1..=1, |call| {
        let alpha = call.float("alpha")?.unwrap_or(1.0);
        if alpha == 0.0 {
            return Err("alpha of 0".into());
        }
        one(map_rank!(call.tensor(0)?, t => elu(t / alpha, 1.0) * alpha))
    }),
    op("Softplus", 1..=1, |call| one(map_rank!(call.tensor(0)?, t => activation::softplus(t, 1.0)))),
    op("Softsign", 1..=1, |call| one(map_rank!(call.tensor(0)?, t => t.clone() / (t.abs() + 1.0)))),
    op("Mish", 1..=1, |call| {
        one(map_rank!(call.tensor(0)?, t => t.clone() * activation::softplus(t, 1.0).tanh()))
    }),
    taking("Swish", 1..=1, |call| match call.float("alpha")?.unwrap_or(1.0) {
        1.0 => activate(call, Activation::Silu),
        alpha => one(map_rank!(call.tensor(0)?, t => t.clone() * activation::sigmoid(t * alpha))),
    }),
    op("ThresholdedRelu", 1..=1, |call| {
        let alpha = call.float("alpha")?.unwrap_or(1.0);
        one(map_rank!(call.tensor(0)?, t => {
            let below = t.clone().lower_equal_elem(alpha);
            t.mask_fill(below, 0.0)
        }))
    }),
];

fn activate(call: &mut Call<'_>, function: Activation) -> Outcome {
    one(map_rank!(call.take(0)?, t => waylay_conv::activate(t, function)))
}

/// The exponential of what is not positive only: that of a large number would be infinite, and its
/// gradient NaN.
fn elu<const D: usize>(x: Tensor<D>, alpha: f32) -> Tensor<D> {
    activation::relu(x.clone()) + (x.clamp_max(0.0).exp() - 1.0) * alpha
}

/// x where positive, else slope times x; the slope is one number, or one per channel, or of any
/// shape that fits.
fn prelu(call: &mut Call<'_>) -> Outcome {
    let (slope, x) = (call.tensor(1)?, call.take(0)?);
    let (dims, slopes) = (x.dims(), slope.dims());
    let rank = dims.len();
    if call::broadcast(&dims, &slopes)? != dims {
        return Err(format!("slope of shape {slopes:?} for an input of shape {dims:?}"));
    }
    let count: usize = slopes.iter().product();
    // Aligned at the end, the slope's only long dimension is the channels'.
    let per_channel = rank >= 2 && slopes.len() + 1 >= rank && slopes[slopes.len() + 1 - rank] == count;
    if count == 1 || (per_channel && count == dims[1]) {
        let Ranked::R1(slope) = slope.reshape(&[count])? else { return Err("slope of no rank".into()) };
        return match x {
            Ranked::R4(t) => one(Ranked::R4(waylay_conv::prelu(t, slope))),
            x => one(map_rank!(x, t => activation::prelu(t, slope))),
        };
    }
    let slope = slope.with_rank(rank)?.expand(&dims)?;
    one(zip_rank!(x, slope, (x, s) => activation::relu(x.clone()) - activation::relu(-x) * s)?)
}

/// Bounds are attributes up to operator set 10 and inputs from 11 on; both may be left out.
fn clip(call: &mut Call<'_>) -> Outcome {
    let (low, high) = if call.opset < 11 {
        (call.float("min")?, call.float("max")?)
    } else {
        (call.scalar(1)?, call.scalar(2)?)
    };
    // Burn's comparison needs finite bounds in order; an infinite one is no bound.
    let low = low.filter(|v| *v > f32::MIN);
    let high = high.filter(|v| *v < f32::MAX);
    let x = call.take(0)?;
    one(match (low, high) {
        // Whatever is asked for last holds.
        (Some(low), Some(high)) if low > high => map_rank!(x, t => t.zeros_like() + high),
        (None, None) => x,
        (low, high) => {
            let bounds = Activation::Clip(low.unwrap_or(f32::NEG_INFINITY), high.unwrap_or(f32::INFINITY));
            map_rank!(x, t => waylay_conv::activate(t, bounds))
        }
    })
}

/// Over one axis from operator set 13 on; over all axes from `axis` on before that.
fn softmax(call: &mut Call<'_>, along: fn(Ranked, usize) -> Ranked) -> Outcome {
    let x = call.take(0)?;
    let dims = x.dims();
    if call.opset >= 13 {
        let axis = call::axis(call.int("axis", -1)?, dims.len())?;
        return one(along(x, axis));
    }
    let axis = call::axis(call.int("axis", 1)?, dims.len())?;
    let flat = x.reshape(&[dims[..axis].iter().product(), dims[axis..].iter().product()])?;
    one(along(flat, 1).reshape(&dims)?)
}
