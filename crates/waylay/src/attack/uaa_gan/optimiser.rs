//! The generator's optimiser: Adam, or Muon on the kernels of convolutions and Adam on the rest.
//! Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024), with a
//! kernel `[O, I, H, W]` taken as the matrix `[O, I·H·W]`. Differs: the Newton–Schulz polynomial is
//! evaluated on the small Gram matrix, which is the same product with less work.

use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::optim::momentum::{Momentum, MomentumConfig, MomentumState};
use burn::optim::{LearningRate, ModuleOptimizer, Optimizer};
use burn::tensor::{Device, Tensor, TensorData};
use waylay_conv::Adam;

use super::config::{OptimiserKind, TrainingConfig};

/// Coefficients of the quintic Newton–Schulz step and its repetitions, as published.
const COEFFICIENTS: (f32, f32, f32) = (3.4445, -4.7750, 2.0315);
const REPETITIONS: usize = 5;

/// The optimiser for `module`; kernels below a field named `head` are Adam's. Steps take Adam's
/// learning rate.
pub fn optimiser<M: Module>(config: &TrainingConfig, module: &M) -> ModuleOptimizer {
    let adam = Adam::init(config.beta_1 as f32, config.beta_2 as f32, 1e-8);
    match config.optimiser {
        OptimiserKind::Adam => adam,
        OptimiserKind::Muon => {
            let mut kernels = Kernels::default();
            module.visit(&mut kernels);
            let ratio = config.muon_learning_rate / config.learning_rate;
            let momentum = MomentumConfig { momentum: config.momentum, dampening: 0.0, nesterov: true };
            let muon = Muon { momentum: Momentum::new(&momentum), ratio };
            adam.with_group(ParamGroup::from_ids(kernels.ids), muon, None)
        }
    }
}

/// Collects the parameters of rank 4 outside of heads.
#[derive(Default)]
struct Kernels {
    ids: Vec<ParamId>,
    path: Vec<String>,
}

impl ModuleVisitor for Kernels {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if D == 4 && !self.path.iter().any(|name| name == "head") {
            self.ids.push(param.id);
        }
    }

    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
}

/// Momentum, orthogonalised.
#[derive(Clone)]
struct Muon {
    momentum: Momentum,
    /// Muon's learning rate over Adam's.
    ratio: f64,
}

impl Optimizer for Muon {
    type State<const D: usize> = MomentumState<D>;

    fn step<const D: usize>(
        &self,
        rate: LearningRate,
        tensor: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let (ahead, state) = self.momentum.transform(gradient, state);
        let dims = ahead.dims();
        let rows = dims[0];
        let columns = dims.iter().skip(1).product::<usize>();
        let direction = orthogonal(ahead.reshape([rows, columns]));
        let scale = (rows as f64 / columns as f64).max(1.0).sqrt();
        let change = direction.reshape(dims) * (rate * self.ratio * scale);
        (tensor - change, Some(state))
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        state.to_device(device)
    }
}

/// The nearest matrix with singular values around 1, same shape, by Newton–Schulz steps on the Gram
/// matrix: X ← (a + b·XXᵀ + c·(XXᵀ)²) X.
fn orthogonal(matrix: Tensor<2>) -> Tensor<2> {
    let [rows, columns] = matrix.dims();
    if rows > columns {
        return orthogonal(matrix.transpose()).transpose();
    }
    let (a, b, c) = COEFFICIENTS;
    let device = matrix.device();
    let length = matrix.clone().powi_scalar(2).sum().sqrt().add_scalar(1e-7);
    let x = matrix / length.reshape([1, 1]);
    let mut gram = x.clone().matmul(x.clone().transpose());
    let mut diagonal = vec![0.0f32; rows * rows];
    (0..rows).for_each(|i| diagonal[i * rows + i] = a);
    let diagonal = Tensor::<2>::from_data(TensorData::new(diagonal, [rows, rows]), &device);
    let mut product: Option<Tensor<2>> = None;
    for repetition in 0..REPETITIONS {
        let q = gram.clone().matmul(gram.clone()) * c + gram.clone() * b + diagonal.clone();
        if repetition + 1 < REPETITIONS {
            gram = q.clone().matmul(gram).matmul(q.clone());
            gram = (gram.clone() + gram.transpose()) * 0.5;
        }
        product = Some(match product {
            Some(product) => q.matmul(product),
            None => q,
        });
    }
    match product {
        Some(product) => product.matmul(x),
        None => x,
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;
    use crate::seed::Seed;

    #[test]
    fn orthogonalised_matrices_have_singular_values_near_one() {
        let mut random = Seed(3).stream("test");
        for [rows, columns] in [[6, 20], [20, 6], [8, 8]] {
            let values: Vec<f32> = (0..rows * columns).map(|_| random.random_range(-1.0..1.0)).collect();
            let matrix = Tensor::<2>::from_data(TensorData::new(values, [rows, columns]), &Device::flex());
            let x = orthogonal(matrix);
            let x = if rows > columns { x.transpose() } else { x };
            let small = rows.min(columns);
            let gram: Vec<f32> = x.clone().matmul(x.transpose()).into_data().iter::<f32>().collect();
            // Singular values end up between about 0.7 and 1.2: their squares sum to the trace.
            let trace: f32 = (0..small).map(|i| gram[i * small + i]).sum();
            assert!((0.4..1.5).contains(&(trace / small as f32)), "{rows}x{columns}: {trace}");
        }
    }
}
