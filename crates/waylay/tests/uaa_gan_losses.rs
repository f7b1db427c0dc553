//! UAA-GAN's losses, feature distances and mining against PyTorch, values and gradients, and
//! gradients against finite differences. Numbers: `scripts/golden/losses.py`.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use burn::tensor::{Device, Tensor, TensorData};
use serde::Deserialize;
use waylay::attack::feature_distance;
use waylay::attack::uaa_gan::{
    Mining, change, feature_similarity, lsgan_discriminator, lsgan_generator, mine, over_batch,
    reconstruction, triplet,
};
use waylay::embedding::{Embeddings, Metric};
use waylay::seed::Seed;

/// Largest difference to PyTorch, relative to the largest number compared where that is above 1.
const TOLERANCE: f64 = 1e-5;
/// Step of the finite differences, relative to the input's size: the losses are curved, and `f32`
/// is coarse.
const STEP: f64 = 1e-2;
/// Largest difference to finite differences, relative to the largest gradient.
const STEP_TOLERANCE: f64 = 1e-2;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
    mining: Vec<Set>,
}

/// One loss at one point.
#[derive(Deserialize)]
struct Case {
    loss: String,
    value: f64,
    inputs: Vec<Input>,
    #[serde(default)]
    margin: f64,
    #[serde(default)]
    sharpness: f64,
    /// Of the rows, where the loss is a weighted sum of distances.
    #[serde(default)]
    weights: Vec<f32>,
    #[serde(default)]
    rows: Vec<f64>,
}

#[derive(Deserialize)]
struct Input {
    shape: Vec<usize>,
    values: Vec<f32>,
    gradient: Vec<f64>,
}

/// Points to mine among, and what there is to find.
#[derive(Deserialize)]
struct Set {
    metric: Metric,
    dim: usize,
    embeddings: Vec<f32>,
    distances: Vec<Vec<f64>>,
    farthest: Vec<f64>,
    nearest: Vec<f64>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/losses.json")).unwrap()
}

fn leaf(values: &[f32], device: &Device) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}

fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

impl Case {
    fn rank<const D: usize>(&self, input: usize, flat: &[Tensor<1>]) -> Tensor<D> {
        let shape: [usize; D] = self.inputs[input].shape.clone().try_into().unwrap();
        flat[input].clone().reshape(shape)
    }

    fn distances(&self, metric: Metric, flat: &[Tensor<1>]) -> Tensor<1> {
        feature_distance(metric, self.rank(0, flat), self.rank(1, flat))
    }

    /// The loss by name, from flattened inputs.
    fn compute(&self, flat: &[Tensor<1>]) -> Tensor<1> {
        let weighted = |rows: Tensor<1>| {
            let weights = leaf(&self.weights, &rows.device());
            (rows * weights).sum()
        };
        match self.loss.as_str() {
            "lsgan_generator" => lsgan_generator(self.rank(0, flat)),
            "lsgan_discriminator" => lsgan_discriminator(self.rank(0, flat), self.rank(1, flat)),
            "reconstruction" => reconstruction(change(self.rank(0, flat), self.rank(1, flat)), 0.0),
            "feature_similarity" => {
                let map = |input| self.rank(input, flat);
                feature_similarity(&[map(0), map(1)], &[map(2), map(3)]).unwrap()
            }
            "triplet" => over_batch(triplet(flat[0].clone(), flat[1].clone(), self.margin), self.sharpness),
            "cosine" => weighted(self.distances(Metric::Cosine, flat)),
            "euclidean" => weighted(self.distances(Metric::Euclidean, flat)),
            other => panic!("no loss `{other}`"),
        }
    }

    fn at(&self, inputs: &[Vec<f32>]) -> f64 {
        let flat: Vec<_> = inputs.iter().map(|values| leaf(values, &Device::flex())).collect();
        floats(self.compute(&flat))[0]
    }

    /// The gradient in every input, by automatic differentiation.
    fn gradients(&self) -> Vec<Vec<f64>> {
        let device = Device::flex().autodiff();
        let flat: Vec<_> = self.inputs.iter().map(|i| leaf(&i.values, &device).require_grad()).collect();
        let gradients = self.compute(&flat).backward();
        flat.iter().map(|x| floats(x.grad(&gradients).unwrap())).collect()
    }
}

fn assert_near(found: &[f64], expected: &[f64], tolerance: f64, least: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(least, |largest, v| largest.max(v.abs()));
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= tolerance * scale, "{what}, number {i}: {f} for {e}");
    }
}

#[test]
fn every_loss_has_pytorchs_value() {
    for case in golden().cases {
        let inputs: Vec<_> = case.inputs.iter().map(|i| i.values.clone()).collect();
        assert_near(&[case.at(&inputs)], &[case.value], TOLERANCE, 1.0, &case.loss);
    }
}

#[test]
fn every_row_has_pytorchs_distance() {
    let mut checked = 0;
    for case in golden().cases.iter().filter(|c| !c.rows.is_empty()) {
        let flat: Vec<_> = case.inputs.iter().map(|i| leaf(&i.values, &Device::flex())).collect();
        let metric: Metric = case.loss.parse().unwrap();
        assert_near(&floats(case.distances(metric, &flat)), &case.rows, TOLERANCE, 1.0, &case.loss);
        checked += 1;
    }
    assert_eq!(checked, 4);
}

#[test]
fn every_loss_has_pytorchs_gradient() {
    for case in golden().cases {
        for (found, input) in case.gradients().iter().zip(&case.inputs) {
            assert_near(found, &input.gradient, TOLERANCE, 1.0, &case.loss);
        }
    }
}

#[test]
fn every_gradient_is_the_slope_of_its_loss() {
    for case in golden().cases {
        let point: Vec<_> = case.inputs.iter().map(|i| i.values.clone()).collect();
        for (input, gradient) in case.gradients().iter().enumerate() {
            let size = point[input].iter().fold(0f32, |largest, v| largest.max(v.abs()));
            let step = STEP as f32 * if case.loss == "reconstruction" { 0.1 } else { size.max(0.1) };
            let slopes: Vec<f64> = (0..gradient.len())
                .map(|i| {
                    let moved = |by: f32| {
                        let mut inputs = point.clone();
                        inputs[input][i] += by;
                        (case.at(&inputs), f64::from(inputs[input][i]))
                    };
                    let ((up, to), (down, from)) = (moved(step), moved(-step));
                    (up - down) / (to - from)
                })
                .collect();
            assert_near(&slopes, gradient, STEP_TOLERANCE, 0.0, &case.loss);
        }
    }
}

#[test]
fn an_unchanged_image_costs_nothing_and_has_a_finite_gradient() {
    let device = Device::flex().autodiff();
    let x = Tensor::<4>::ones([2, 3, 4, 4], &device).require_grad();
    let loss = reconstruction(change(x.clone().detach(), x.clone()), 0.0);
    assert!(floats(loss.clone())[0] <= 1e-6);
    assert!(floats(x.grad(&loss.backward()).unwrap()).iter().all(|g| g.is_finite()));
}

#[test]
fn changes_up_to_the_hinge_cost_nothing() {
    let device = Device::flex().autodiff();
    let changes = leaf(&[0.5, 0.9, 0.67], &device).require_grad();
    let loss = reconstruction(changes.clone(), 0.6);
    assert_near(&floats(loss.clone()), &[0.37 / 3.0], TOLERANCE, 1.0, "hinge");
    assert_near(
        &floats(changes.grad(&loss.backward()).unwrap()),
        &[0.0, 1.0 / 3.0, 1.0 / 3.0],
        TOLERANCE,
        1.0,
        "hinge",
    );
}

#[test]
fn a_triplet_that_is_far_enough_is_silent() {
    let device = Device::flex().autodiff();
    let to_perturbed = leaf(&[1.5, 0.2], &device).require_grad();
    let loss = triplet(leaf(&[1.0, 0.5], &device), to_perturbed.clone(), 0.25).mean();
    assert_near(&floats(loss.clone()), &[0.275], TOLERANCE, 1.0, "triplet");
    assert_eq!(floats(to_perturbed.grad(&loss.backward()).unwrap()), [0.0, -0.5]);
}

#[test]
fn the_farthest_and_the_nearest_are_pytorchs() {
    for set in golden().mining {
        let clean = Embeddings::new(set.dim, set.embeddings).unwrap();
        for (mining, expected) in [(Mining::Farthest, set.farthest), (Mining::Nearest, set.nearest)] {
            let found = mine(mining, set.metric, &clean, &[], &mut Seed(0).stream("mining"));
            let found: Vec<f64> = found.iter().enumerate().map(|(i, j)| set.distances[i][*j]).collect();
            assert_near(&found, &expected, TOLERANCE, 1.0, &format!("{mining:?}, {}", set.metric));
        }
    }
}

#[test]
fn random_mining_takes_every_other_image_and_never_the_image_itself() {
    for set in golden().mining {
        let clean = Embeddings::new(set.dim, set.embeddings).unwrap();
        let mut random = Seed(3).stream("mining");
        let mut taken = vec![BTreeSet::new(); clean.count()];
        for _ in 0..200 {
            let found = mine(Mining::Random, set.metric, &clean, &[], &mut random);
            found.into_iter().enumerate().for_each(|(i, j)| assert!(taken[i].insert(j) || i != j));
        }
        for (i, others) in taken.iter().enumerate() {
            assert!(others.len() == clean.count() - 1 && !others.contains(&i));
        }
    }
}
