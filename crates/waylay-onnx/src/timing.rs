//! How long a network takes here.

use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use serde::Serialize;

use crate::{Model, OnnxError};

/// Medians over some runs, in milliseconds per image.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Timing {
    /// Images at once.
    pub batch: usize,
    /// The forward pass alone.
    pub forward_ms: f64,
    /// The forward pass and the gradient with respect to the pixels.
    pub gradient_ms: f64,
}

/// Times `model` on `batch` images of one gray, each at least 1, over `runs` runs after one that is
/// not counted.
pub fn time(model: &Model, batch: usize, runs: usize) -> Result<Timing, OnnxError> {
    let [c, h, w] = model.input_shape();
    let values = (0..batch * c * h * w).map(|i| (i % 251) as f32 / 251.0).collect::<Vec<_>>();
    let input =
        |device: &Device| Tensor::<4>::from_data(TensorData::new(values.clone(), [batch, c, h, w]), device);
    let plain = input(model.device());
    let tracked = input(&model.device().clone().autodiff());
    let forward = || -> Result<f64, OnnxError> {
        let start = Instant::now();
        drop(model.run(plain.clone())?.into_data());
        Ok(start.elapsed().as_secs_f64())
    };
    let gradient = || -> Result<f64, OnnxError> {
        let start = Instant::now();
        let x = tracked.clone().require_grad();
        let y = model.run(x.clone())?;
        let gradients = y.powi_scalar(2).sum().backward();
        drop(x.grad(&gradients).map(Tensor::into_data));
        Ok(start.elapsed().as_secs_f64())
    };
    let median = |run: &dyn Fn() -> Result<f64, OnnxError>| -> Result<f64, OnnxError> {
        run()?;
        let mut times = (0..runs.max(1)).map(|_| run()).collect::<Result<Vec<_>, _>>()?;
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2] * 1e3 / batch as f64)
    };
    Ok(Timing { batch, forward_ms: median(&forward)?, gradient_ms: median(&gradient)? })
}
