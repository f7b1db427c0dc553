//! Training of G and D against a frozen target, without labels.
//! Source: Zhao et al., arXiv:1907.05793: alternating updates of L_GAN_D and L_G. Ours where the comments say so.

use std::time::Instant;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use waylay_conv::Adam;

use super::config::{CheckedConfig, ConfigError};
use super::discriminator::Discriminator;
use super::generator::{Generator, GeneratorKind, Look, calibration};
use super::loss::{lsgan_discriminator, lsgan_generator, over_batch, reconstruction, triplet};
use super::mining::mine;
use super::optimiser::optimiser;
use crate::attack::{AttackError, Scene, cosine_rows, feature_distance};
use crate::image::ImageBatch;
use crate::run::Progress;
use crate::target::{Embeddings, Features, Metric};

/// Training images that set the normalisation of feature maps and the unit of distances.
const SURVEYED_IMAGES: usize = 64;
/// Images that lie nearer to each other are the same to the target: there is no unit in that.
const TINY: f64 = 1e-5;
/// Images per forward pass outside of training steps.
const BATCH: usize = 16;

/// The losses of one training step; terms are unweighted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepLog {
    /// Step, from 1.
    pub step: usize,
    /// L_G: the generator's total loss.
    pub generator: f64,
    /// L_GAN_G; 0 without a discriminator.
    pub gan: f64,
    /// L_recon.
    pub reconstruction: f64,
    /// L_metric, the triplet loss over the batch.
    pub metric: f64,
    /// L_GAN_D; 0 without a discriminator.
    pub discriminator: f64,
    /// Mean cosine between clean and perturbed embeddings of the batch.
    pub cosine: f64,
    /// Learning rate of the generator.
    pub learning_rate: f64,
    /// Seconds since training began.
    pub seconds: f64,
}

/// What training gives.
pub struct Trained {
    /// The generator, without automatic differentiation.
    pub generator: Generator,
    /// One entry per step.
    pub log: Vec<StepLog>,
    /// Wall time.
    pub seconds: f64,
}

/// Why a generator could not be trained.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The target offers nothing to condition on.
    #[error(
        "target `{0}` has no feature maps to condition on; need `generator.kind = \"gradient-conditioned\"` or \
         `\"image-only\"`"
    )]
    NoTaps(String),
    /// The loss left the numbers.
    #[error(
        "loss is {value} at step {step}; need finite losses: lower `training.learning_rate` (now {rate})"
    )]
    Diverged {
        /// Step, from 1.
        step: usize,
        /// The loss.
        value: f64,
        /// The learning rate of that step.
        rate: f64,
    },
    /// The configuration cannot be used.
    #[error("configuration")]
    Config(#[from] ConfigError),
    /// The target or the images do not fit.
    #[error(transparent)]
    Attack(#[from] AttackError),
}

/// Trains a generator on the unlabelled `images` against `scene.target` at `scene.epsilon`.
pub fn train(
    config: &CheckedConfig,
    images: &ImageBatch,
    scene: &Scene<'_>,
    progress: &dyn Progress,
) -> Result<Trained, TrainError> {
    if images.size() != scene.target.input() {
        return Err(AttackError::Size { expected: scene.target.input(), found: images.size() }.into());
    }
    let start = Instant::now();
    let device = scene.device.clone().autodiff();
    let mut init = scene.seed.stream("uaa-gan/init");
    let mut sampling = scene.seed.stream("uaa-gan/sampling");
    let mut mining = scene.seed.stream("uaa-gan/mining");

    let (statistics, distance_unit) = survey(config, images, scene)?;
    let mut g = Generator::new(&config.generator, scene.target, &mut init, &device)
        .ok_or_else(|| TrainError::NoTaps(scene.target.name().into()))?
        .calibrated(&statistics, &device);
    let mut d = Discriminator::new(
        config.discriminator.kind,
        images.size()[0],
        config.discriminator.width,
        &mut init,
        &device,
    );
    let mut g_optimiser = optimiser(&config.training, &g);
    let mut d_optimiser = Adam::init(0.5, 0.999, 1e-8);
    let mut deck = Deck::default();
    let mut log = Vec::with_capacity(config.training.steps);

    progress.begin("Train UAA-GAN", config.training.steps);
    for step in 0..config.training.steps {
        let learning_rate = config.training.learning_rate_at(step);
        let batch = images.select(&deck.deal(config.training.batch, images.count(), &mut sampling));
        let batch = config.augment.apply(&batch, &mut sampling).map_err(AttackError::from)?;
        let plain = batch.to_tensor(&scene.device);
        let x = Tensor::from_inner(plain.clone());

        // f_x, and x̃ = G(x)
        let first = g.first_look(plain.clone(), scene).map_err(AttackError::from)?;
        let clean = match first.features() {
            Some(features) => features.embedding.clone(),
            None => scene.target.embedding(plain).map_err(AttackError::from)?,
        };
        let look = looks(&g, first, step, scene)?;
        let perturbed = g.perturb_once(&look, scene.epsilon);

        // D: minimise E[(D(x) − 1)²] + E[D(x̃)²]
        let mut d_loss = 0.0;
        if let Some(critic) = d.take() {
            let loss =
                lsgan_discriminator(critic.forward(x.clone()), critic.forward(perturbed.clone().detach()));
            d_loss = scalar(&loss);
            let gradients = GradientsParams::from_grads(loss.backward(), &critic);
            d = Some(d_optimiser.step(config.discriminator.learning_rate, critic, gradients));
        }

        // G: minimise λ_gan·E[(D(x̃) − 1)²] + λ_r·‖x̃ − x‖₂ + λ_m·max(d(f_x, f_x′) + m − d(f_x, f_x̃), 0)
        let f_x = Tensor::from_inner(clean.clone());
        let f_perturbed = scene.target.embedding(perturbed.clone()).map_err(AttackError::from)?;
        let to_other = others(config, scene.metric, &clean, &mut mining, &device);
        let to_perturbed = feature_distance(scene.metric, f_x.clone(), f_perturbed.clone());
        let triplets = triplet(to_other / distance_unit, to_perturbed / distance_unit, config.loss.margin);
        let metric = over_batch(triplets, config.loss.sharpness);
        let recon = reconstruction(x, perturbed.clone());
        // D judges x̃ but does not learn from it here.
        let gan = d.as_ref().map(|critic| lsgan_generator(critic.clone().no_grad().forward(perturbed)));
        let mut entry = StepLog {
            step: step + 1,
            gan: gan.as_ref().map_or(0.0, scalar),
            reconstruction: scalar(&recon),
            metric: scalar(&metric),
            discriminator: d_loss,
            cosine: scalar(&cosine_rows(f_x, f_perturbed.detach()).mean()),
            learning_rate,
            ..StepLog::default()
        };
        let mut loss = metric * config.loss.lambda_m + recon * config.loss.lambda_r;
        if let Some(gan) = gan {
            loss = loss + gan * config.loss.lambda_gan;
        }
        entry.generator = scalar(&loss);
        if !entry.generator.is_finite() {
            return Err(TrainError::Diverged { step: step + 1, value: entry.generator, rate: learning_rate });
        }
        let gradients = GradientsParams::from_grads(loss.backward(), &g);
        g = g_optimiser.step(learning_rate, g, gradients);

        entry.seconds = start.elapsed().as_secs_f64();
        progress.advance(&format!("L_G {:.3}, cosine {:.2}", entry.generator, entry.cosine));
        log.push(entry);
    }
    progress.end();
    Ok(Trained { generator: g.valid(), log, seconds: start.elapsed().as_secs_f64() })
}

/// Spreads a batch over the looks of `g`, an equal share each (ours): what later looks see is made by `g` as it is, and
/// is as constant to its training as the image is.
fn looks(g: &Generator, mut look: Look, step: usize, scene: &Scene<'_>) -> Result<Look, TrainError> {
    let (g, count) = (g.valid(), look.count());
    for n in 1..g.looks() {
        // What does not divide evenly goes to each look in turn.
        let from = (n * count + step % g.looks()) / g.looks();
        if from == count {
            continue;
        }
        let later = g.look_again(look.narrow(from, count - from), scene).map_err(AttackError::from)?;
        look = if from == 0 { later } else { look.narrow(0, from).join(later) };
    }
    Ok(look)
}

/// What a survey of some training images tells: statistics of the feature maps, and the unit of distances: the mean
/// distance between two images (ours), so that λ_m and m mean the same for every target and metric.
#[allow(clippy::type_complexity)]
fn survey(
    config: &CheckedConfig,
    images: &ImageBatch,
    scene: &Scene<'_>,
) -> Result<(Vec<(Vec<f32>, Vec<f32>)>, f64), TrainError> {
    let count = images.count().min(SURVEYED_IMAGES);
    let spread: Vec<usize> = (0..count).map(|i| i * images.count() / count).collect();
    let features: Vec<Features> = images
        .select(&spread)
        .chunks(BATCH)
        .map(|batch| scene.target.forward(batch.to_tensor(&scene.device)))
        .collect::<Result<_, _>>()
        .map_err(AttackError::from)?;
    let all = Tensor::cat(features.iter().map(|f| f.embedding.clone()).collect(), 0);
    let pairs = (1..count).map(|shift| {
        let others = Tensor::cat(
            vec![all.clone().narrow(0, shift, count - shift), all.clone().narrow(0, 0, shift)],
            0,
        );
        scalar(&feature_distance(scene.metric, all.clone(), others).mean())
    });
    let mean = pairs.sum::<f64>() / (count - 1).max(1) as f64;
    let unit = if mean > TINY { mean } else { 1.0 };
    let statistics = match config.generator.kind {
        GeneratorKind::ImageOnly => Vec::new(),
        _ => calibration(&features),
    };
    Ok((statistics, unit))
}

/// d(f_x, f_x′) of the mined x′, as a constant `[N]`.
fn others(
    config: &CheckedConfig,
    metric: Metric,
    clean: &Tensor<2>,
    random: &mut impl rand::Rng,
    device: &Device,
) -> Tensor<1> {
    let [n, dim] = clean.dims();
    let values = clean.clone().into_data().iter::<f32>().collect();
    let distances = match Embeddings::new(dim, values) {
        Ok(embeddings) => mine(config.loss.mining, metric, &embeddings, random),
        Err(_) => vec![f32::NAN; n],
    };
    Tensor::from_data(TensorData::new(distances, [n]), device)
}

fn scalar(tensor: &Tensor<1>) -> f64 {
    tensor.clone().into_data().iter::<f64>().next().unwrap_or(f64::NAN)
}

/// Deals image indices so that every image is seen once before any is seen again.
#[derive(Default)]
struct Deck(Vec<usize>);

impl Deck {
    fn deal(&mut self, count: usize, images: usize, random: &mut impl rand::Rng) -> Vec<usize> {
        (0..count)
            .filter_map(|_| {
                if self.0.is_empty() {
                    self.0 = (0..images).collect();
                    self.0.shuffle(random);
                }
                self.0.pop()
            })
            .collect()
    }
}
