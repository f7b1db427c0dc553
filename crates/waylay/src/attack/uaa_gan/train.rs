//! Training of G and D against a frozen target, without labels. Source: Zhao et al.,
//! arXiv:1907.05793: alternating updates of L_GAN_D and L_G. Ours where the comments say so.

use std::time::Instant;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Int, Tensor, TensorData};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use waylay_conv::Adam;

use super::config::{CheckedConfig, ConfigError, Hinge, Reference};
use super::discriminator::Discriminator;
use super::diversity::Transforms;
use super::generator::{Generator, Guidance, StepInput, calibration};
use super::loss::{
    change, feature_similarity, lsgan_discriminator, lsgan_generator, over_batch, reconstruction, triplet,
};
use super::mining::mine;
use super::optimiser::optimiser;
use crate::attack::{AttackError, Objective, Pgd, Scene, cosine_rows, craft};
use crate::embedder::EmbedderError;
use crate::embedder::Features;
use crate::embedding::{Embeddings, Metric};
use crate::image::ImageBatch;
use crate::progress::{Progress, Silent};

/// Training images that set the normalisation of feature maps and the unit of distances.
const SURVEYED_IMAGES: usize = 64;
/// Images that lie nearer to each other are the same to the target: there is no unit in that.
const TINY: f64 = 1e-5;
/// Steps from which it can be told whether the cosine moves; half of them are compared with as
/// many.
const JUDGED_STEPS: usize = 10;
/// Change of the mean cosine that counts as one.
const LEAST_EFFECT: f64 = 0.02;
/// Cosine above which a training can be said to have had no effect: below, it may have had its
/// effect in the first steps.
const HIGH_COSINE: f64 = 0.5;
/// Part of the images that input diversity transforms: the probability of Xie et al.,
/// arXiv:1803.06978, sec. 4.1.
const TRANSFORMED: f64 = 0.5;
/// How long changes may be, of those of an attack that the generator is to be no more visible than.
const SHORTER: f64 = 0.985;
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
    /// L_recon, in units of the largest ‖δ‖₂ that the budget allows: 0 to 1.
    pub reconstruction: f64,
    /// Mean ‖x̃ − x‖₂ of the batch, in the same units.
    pub change: f64,
    /// L_metric, the triplet loss over the batch.
    pub metric: f64,
    /// L_feature; 0 where its weight is.
    pub feature: f64,
    /// L_GAN_D; 0 without a discriminator.
    pub discriminator: f64,
    /// Mean of D(x); 0 without a discriminator.
    pub d_clean: f64,
    /// Mean of D(x̃); 0 without a discriminator.
    pub d_perturbed: f64,
    /// ‖∂L/∂x̃‖₂ over the batch of the terms that compare embeddings and feature maps, each with
    /// its weight.
    pub metric_gradient: f64,
    /// ‖∂L/∂x̃‖₂ over the batch of λ_r·L_recon.
    pub reconstruction_gradient: f64,
    /// ‖∂L/∂x̃‖₂ over the batch of λ_gan·L_GAN_G.
    pub gan_gradient: f64,
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
    /// Name of the objective that it was trained towards.
    pub objective: String,
    /// c of L_recon, in units of the largest ‖δ‖₂ that the budget allows.
    pub hinge: f64,
    /// One entry per step.
    pub log: Vec<StepLog>,
    /// What is wrong with how training went, and what to change, one sentence each.
    pub warnings: Vec<String>,
    /// Wall time.
    pub seconds: f64,
}

/// Why a generator could not be trained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The target offers nothing to guide the generator by.
    #[error(
        "target `{0}` has no feature maps to guide the generator by; need `generator.guidance = \"gradients\"`, or uaa-gan, \
         which takes no guidance"
    )]
    NoTaps(String),
    /// The loss is NaN or infinite.
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

/// Trains a generator on the unlabelled `images` against `scene.target` at `scene.epsilon`, towards
/// `objective`: [`Evade`] for the paper's attack, whose triplet loss any other takes over, its
/// value in the place of the distance.
///
/// A generator that is guided by gradients is shown those of [`Opposite`] in the first refinement
/// step and those of [`Evade`] in later ones, whatever it is trained towards.
///
/// [`Evade`]: crate::attack::Evade
/// [`Opposite`]: crate::attack::Opposite
pub fn train(
    config: &CheckedConfig,
    objective: &dyn Objective,
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
    let mut diversity = scene.seed.stream("uaa-gan/diversity");

    let (statistics, unit) = survey(config, objective, images, scene)?;
    // Of any image within the budget: ε·√(C·H·W).
    let largest_change =
        f64::from(scene.epsilon.in_pixels()) * (images.size().iter().product::<usize>() as f64).sqrt();
    let hinge = match config.loss.hinge {
        Hinge::Length(length) => length,
        Hinge::Like(Reference::Pgd) => SHORTER * pgd_change(images, scene)? / largest_change,
    };
    let maps = config.loss.lambda_f > 0.0;
    let mut g = Generator::new(&config.generator, scene.target, &mut init, &device)
        .ok_or_else(|| TrainError::NoTaps(scene.target.name().into()))?
        .calibrated(&statistics, &device);
    let mut d = Discriminator::new(
        config.discriminator.kind,
        images.size(),
        config.discriminator.width,
        &mut init,
        &device,
    );
    let mut g_optimiser = optimiser(&config.training, &g);
    let mut d_optimiser = Adam::init(0.5, 0.999, 1e-8);
    let mut deck = Deck::default();
    let mut log = Vec::with_capacity(config.training.steps);

    let mut warnings = Vec::new();
    if maps && scene.target.taps().is_empty() {
        let name = scene.target.name();
        warnings.push(format!("target `{name}` offers no feature maps: `loss.lambda_f` is without effect"));
    }
    progress.begin(&format!("Train {}", config.family()), config.training.steps);
    warnings.iter().for_each(|warning| progress.warn(warning));
    for step in 0..config.training.steps {
        let learning_rate = config.training.learning_rate_at(step);
        let batch = images.select(&deck.deal(config.training.batch, images.count(), &mut sampling));
        let batch = config.augment.apply(&batch, &mut sampling).map_err(AttackError::from)?;
        let plain = batch.images.to_tensor(&scene.device);
        let x = Tensor::from_inner(plain.clone());

        // f_x, and x̃ = G(x)
        let first = g.first_input(plain.clone(), scene).map_err(AttackError::from)?;
        let strength = config.training.diversity;
        let transforms =
            (strength > 0.0).then(|| Transforms::draw(TRANSFORMED, strength, &plain, &mut diversity));
        // What the target sees in place of an image.
        let seen = |x: Tensor<4>| transforms.as_ref().map_or_else(|| x.clone(), |t| t.apply(x.clone()));
        let clean = match first.features() {
            Some(features) if transforms.is_none() => features.clone(),
            _ if maps => scene.target.forward(seen(plain)).map_err(AttackError::from)?,
            _ => embedded(seen(plain), scene).map_err(AttackError::from)?,
        };
        let input = spread_over_steps(&g, first, step, scene)?;
        let perturbed = g.perturb_once(&input, scene.epsilon);

        // D: minimise E[(D(x) − 1)²] + E[D(x̃)²]
        let (mut d_loss, mut d_clean, mut d_perturbed) = (0.0, 0.0, 0.0);
        if let Some(critic) = d.take() {
            let (of_clean, of_perturbed) =
                (critic.forward(x.clone()), critic.forward(perturbed.clone().detach()));
            (d_clean, d_perturbed) = (scalar(&of_clean.clone().mean()), scalar(&of_perturbed.clone().mean()));
            let loss = lsgan_discriminator(of_clean, of_perturbed);
            d_loss = scalar(&loss);
            let gradients = GradientsParams::from_grads(loss.backward(), &critic);
            d = Some(d_optimiser.step(config.discriminator.learning_rate, critic, gradients));
        }

        // G: minimise λ_gan·E[(D(x̃) − 1)²] + λ_r·max(‖x̃ − x‖₂ − c, 0) + λ_m·max(d(f_x, f_x′) + m
        // − d(f_x, f_x̃), 0) + ours Each term is differentiated with respect to x̃ alone, and their
        // sum then with respect to the weights of G.
        let leaf = perturbed.clone().detach().require_grad();
        let gradient_of = |term: Tensor<1>| {
            let gradient = leaf.grad(&term.backward());
            gradient.unwrap_or_else(|| leaf.clone().inner().zeros_like())
        };
        let view = seen(leaf.clone());
        let found = if maps { scene.target.forward(view) } else { embedded(view, scene) };
        let found = found.map_err(AttackError::from)?;
        let f_x = Tensor::from_inner(clean.embedding.clone());
        let f_perturbed = found.embedding.clone();
        let other = others(config, scene.metric, &f_x, &batch.partners, &mut mining);
        let f_other = f_x.clone().select(0, other);
        let value = |other: Tensor<2>| objective.value(f_x.clone(), other, scene.metric) / unit;
        let triplets = triplet(value(f_other), value(f_perturbed), config.loss.margin);
        let metric = over_batch(triplets, config.loss.sharpness);
        let changes = change(x, leaf.clone()) / largest_change;
        let recon = reconstruction(changes.clone(), hinge);
        // D judges x̃ but does not learn from it here.
        let gan = d.as_ref().map(|critic| lsgan_generator(critic.clone().no_grad().forward(leaf.clone())));
        let mut entry = StepLog {
            step: step + 1,
            gan: gan.as_ref().map_or(0.0, scalar),
            reconstruction: scalar(&recon),
            change: scalar(&changes.mean()),
            metric: scalar(&metric),
            discriminator: d_loss,
            d_clean,
            d_perturbed,
            cosine: mean_cosine(&clean.embedding, &found.embedding),
            learning_rate,
            ..StepLog::default()
        };
        let mut metric = metric * config.lambda_m_at(step);
        let maps_of_x: Vec<_> = clean.taps.into_iter().map(Tensor::from_inner).collect();
        if let Some(similarity) = feature_similarity(&maps_of_x, &found.taps) {
            entry.feature = scalar(&similarity);
            metric = metric + similarity * config.loss.lambda_f;
        }
        let lambda_r = config.lambda_r_at(step);
        let recon = recon * lambda_r;
        let gan = gan.map(|gan| gan * config.loss.lambda_gan);
        entry.generator = scalar(&metric) + scalar(&recon) + gan.as_ref().map_or(0.0, scalar);
        if !entry.generator.is_finite() {
            return Err(TrainError::Diverged { step: step + 1, value: entry.generator, rate: learning_rate });
        }
        let mut gradient = gradient_of(metric);
        entry.metric_gradient = length(&gradient);
        if lambda_r > 0.0 {
            let of_recon = gradient_of(recon);
            entry.reconstruction_gradient = length(&of_recon);
            gradient = gradient + of_recon;
        }
        if let Some(gan) = gan {
            let of_gan = gradient_of(gan);
            entry.gan_gradient = length(&of_gan);
            gradient = gradient + of_gan;
        }
        let gradients =
            GradientsParams::from_grads((perturbed * Tensor::from_inner(gradient)).sum().backward(), &g);
        g = g_optimiser.step(learning_rate, g, gradients);

        entry.seconds = start.elapsed().as_secs_f64();
        progress.advance(&format!("L_G {:.3}, cosine {:.2}", entry.generator, entry.cosine));
        log.push(entry);
        if step + 1 == config.training.steps / 10
            && let Some(warning) = without_effect(&log, config.training.steps)
        {
            progress.warn(&warning);
            warnings.push(warning);
        }
    }
    progress.end();
    let objective = objective.name().to_owned();
    let seconds = start.elapsed().as_secs_f64();
    Ok(Trained { generator: g.valid(), objective, hinge, log, warnings, seconds })
}

/// A sentence where a tenth of the steps, at least [`JUDGED_STEPS`], have not lowered the cosine by
/// [`LEAST_EFFECT`].
fn without_effect(log: &[StepLog], steps: usize) -> Option<String> {
    if log.len() < JUDGED_STEPS {
        return None;
    }
    let mean = |entries: &[StepLog]| entries.iter().map(|e| e.cosine).sum::<f64>() / entries.len() as f64;
    let (first, now) = (mean(&log[..JUDGED_STEPS / 2]), mean(&log[log.len() - JUDGED_STEPS / 2..]));
    (first - now < LEAST_EFFECT && now > HIGH_COSINE).then(|| {
        format!(
            "after {} of {steps} steps the cosine between clean and attacked embeddings is {now:.2}, and was {first:.2} at \
             first: the generator learns nothing so far. Raise `loss.lambda_m` or lower `loss.lambda_r` and \
             `loss.lambda_gan`; raise or lower the learning rate tenfold; see `metric_gradient` in the log, which is 0 \
             where no gradient of the target reaches the pixels",
            log.len()
        )
    })
}

/// Spreads a batch over the refinement steps of `g`, an equal share each (ours): what later steps
/// see is made by `g` as it is, and is as constant to its training as the image is.
fn spread_over_steps(
    g: &Generator,
    mut input: StepInput,
    step: usize,
    scene: &Scene<'_>,
) -> Result<StepInput, TrainError> {
    let (g, count) = (g.valid(), input.count());
    for n in 1..g.refinement_steps() {
        // What does not divide evenly goes to each refinement step in turn.
        let from = (n * count + step % g.refinement_steps()) / g.refinement_steps();
        if from == count {
            continue;
        }
        let later = g.next_input(input.narrow(from, count - from), scene).map_err(AttackError::from)?;
        input = if from == 0 { later } else { input.narrow(0, from).join(later) };
    }
    Ok(input)
}

/// Mean ‖x̃ − x‖₂ of PGD with ten steps on some training images.
fn pgd_change(images: &ImageBatch, scene: &Scene<'_>) -> Result<f64, AttackError> {
    let images = spread(images);
    let crafted = craft(&Pgd::default(), &images, scene, &Silent)?.images;
    let tensor = |images: &ImageBatch| images.to_tensor(&scene.device);
    Ok(scalar(&change(tensor(&images), tensor(&crafted)).mean()))
}

/// At most [`SURVEYED_IMAGES`] of `images`, evenly spaced.
fn spread(images: &ImageBatch) -> ImageBatch {
    let count = images.count().min(SURVEYED_IMAGES);
    images.select(&(0..count).map(|i| i * images.count() / count).collect::<Vec<_>>())
}

/// What a survey of some training images tells: statistics of the feature maps, and the unit of the
/// objective: its mean value, without its sign, between two images, for the paper's the mean
/// distance (ours), so that λ_m and m mean the same for every target and metric.
#[allow(clippy::type_complexity)]
fn survey(
    config: &CheckedConfig,
    objective: &dyn Objective,
    images: &ImageBatch,
    scene: &Scene<'_>,
) -> Result<(Vec<(Vec<f32>, Vec<f32>)>, f64), TrainError> {
    let images = spread(images);
    let count = images.count();
    let features: Vec<Features> = images
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
        scalar(&objective.value(all.clone(), others, scene.metric).mean()).abs()
    });
    let mean = pairs.sum::<f64>() / (count - 1).max(1) as f64;
    let unit = if mean > TINY { mean } else { 1.0 };
    let statistics = match config.generator.guidance {
        Guidance::None => Vec::new(),
        _ => calibration(&features),
    };
    Ok((statistics, unit))
}

/// The embedding alone.
fn embedded(pixels: Tensor<4>, scene: &Scene<'_>) -> Result<Features, EmbedderError> {
    Ok(Features { embedding: scene.target.embedding(pixels)?, taps: Vec::new() })
}

/// The index of the mined x′ for every row of `clean` `[N, dim]`.
fn others(
    config: &CheckedConfig,
    metric: Metric,
    clean: &Tensor<2>,
    blended: &[Option<usize>],
    random: &mut impl rand::Rng,
) -> Tensor<1, Int> {
    let [n, dim] = clean.dims();
    let values = clean.clone().into_data().iter::<f32>().collect();
    let indices = match Embeddings::new(dim, values) {
        Ok(embeddings) => mine(config.loss.mining, metric, &embeddings, blended, random),
        // Not finite: so is the loss, which ends the training with a message.
        Err(_) => (0..n).collect(),
    };
    let indices: Vec<i32> = indices.into_iter().map(|i| i as i32).collect();
    Tensor::from_data(TensorData::new(indices, [n]), &clean.device())
}

/// Mean cosine between matching rows.
fn mean_cosine(a: &Tensor<2>, b: &Tensor<2>) -> f64 {
    let plain = |t: &Tensor<2>| if t.is_autodiff() { t.clone().inner() } else { t.clone() };
    scalar(&cosine_rows(plain(a), plain(b)).mean())
}

/// ‖gradient‖₂.
fn length(gradient: &Tensor<4>) -> f64 {
    scalar(&gradient.clone().powi_scalar(2).sum().sqrt())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn log(cosines: impl Iterator<Item = f64>) -> Vec<StepLog> {
        cosines.map(|cosine| StepLog { cosine, ..StepLog::default() }).collect()
    }

    #[test]
    fn a_cosine_that_stays_is_told_with_what_to_change() {
        let text = without_effect(&log((0..30).map(|_| 0.9)), 300).unwrap();
        assert!(
            text.starts_with("after 30 of 300 steps the cosine") && text.contains("is 0.90, and was 0.90")
        );
        assert!(text.contains("loss.lambda_m") && text.contains("learning rate"));
    }

    #[test]
    fn a_cosine_that_falls_and_too_few_steps_are_no_reason_to_warn() {
        assert_eq!(without_effect(&log((0..30).map(|i| 0.9 - 0.01 * f64::from(i))), 300), None);
        assert_eq!(without_effect(&log((0..9).map(|_| 0.9)), 90), None);
        assert_eq!(without_effect(&log((0..30).map(|_| 0.1)), 300), None);
    }
}
