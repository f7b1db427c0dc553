//! The main job: every attack at one budget against one target, measured on the files that were written.

mod data;
mod evidence;
pub(crate) mod number;
pub mod outcome;
pub(crate) mod rows;
mod system;
mod verdict;

use std::time::{Instant, SystemTime};

use burn::module::Module;
use thiserror::Error;

use crate::attack::uaa_gan::{
    self, CheckedConfig, GeneratorFile, GeneratorFileError, TrainError, Trained, UaaGan,
};
use crate::attack::{Attack, AttackChoice, AttackError, Crafted, Epsilon, Scene, craft};
use crate::dataset::{self, DatasetError, Item, Source, Split};
use crate::image::{ImageBatch, ImageWriteError, Resizing, write_png};
use crate::quality::{self, QualityError};
use crate::retrieval::{Evaluation, RetrievalError};
use crate::run::{OutputDir, Progress, Seed, WriteError};
use crate::target::onnx::OnnxError;
use crate::target::onnx::Verification;
use crate::target::{Embeddings, Metric, Target};

pub use outcome::Audit;
pub use system::System;
pub use verdict::{Level, verdict};

use outcome::{AttackRow, Budget, RunFacts, SCHEMA, Scores, TargetFacts, Training};

/// What to audit, and how.
pub struct AuditPlan<'a> {
    /// The network under attack.
    pub target: &'a dyn Target,
    /// Its preprocessing in one line.
    pub preprocess: String,
    /// How far it was from the user's reference, where there was one.
    pub verified: Option<Verification>,
    /// The images.
    pub split: &'a Split,
    /// How the system compares embeddings.
    pub metric: Metric,
    /// The budget of every attack.
    pub epsilon: Epsilon,
    /// The attacks, in the order of their rows.
    pub attacks: Vec<AttackChoice>,
    /// How to train the generator, where none is given.
    pub uaa_gan: CheckedConfig,
    /// A trained generator with its facts.
    pub generator: Option<(GeneratorFile, uaa_gan::Generator)>,
    /// The run's randomness.
    pub seed: Seed,
    /// Threads that compute, for the record.
    pub threads: usize,
    /// Whether this is the shortened run for trying out.
    pub quick: bool,
    /// The command that repeats this run, for the record.
    pub command: String,
}

/// Why an audit could not be finished.
#[derive(Debug, Error)]
pub enum AuditError {
    /// Images could not be read.
    #[error("read the images")]
    Dataset(#[from] DatasetError),
    /// The target failed.
    #[error("run target `{0}`")]
    Target(String, #[source] OnnxError),
    /// The generator could not be trained.
    #[error("train UAA-GAN")]
    Train(#[from] TrainError),
    /// The generator could not be stored.
    #[error("store the generator")]
    Generator(#[from] GeneratorFileError),
    /// An attack failed.
    #[error("attack `{0}`")]
    Attack(String, #[source] AttackError),
    /// Retrieval could not be scored.
    #[error("score the retrieval")]
    Retrieval(#[from] RetrievalError),
    /// The change could not be measured.
    #[error("measure the images")]
    Quality(#[from] QualityError),
    /// A file could not be written.
    #[error("write the results")]
    Write(#[from] WriteError),
    /// An image could not be written.
    #[error("write the adversarial images")]
    Image(#[from] ImageWriteError),
}

/// One attack's result before it becomes a row.
struct Measured {
    row: AttackRow,
    images: ImageBatch,
    embeddings: Embeddings,
    match_distances: Vec<f32>,
}

/// Runs the audit and writes into `out`: `adversarial/ATTACK/NAME.png` for every query and, where one was trained,
/// `generator.safetensors`, `generator.toml` and `training.jsonl`. The report is the caller's to write from the value.
pub fn audit(plan: AuditPlan<'_>, out: &OutputDir, progress: &dyn Progress) -> Result<Audit, AuditError> {
    let started = (SystemTime::now(), Instant::now());
    let device = plan.target.device();
    let scene = Scene {
        target: plan.target,
        metric: plan.metric,
        epsilon: plan.epsilon,
        seed: plan.seed,
        device: device.clone(),
    };
    let size = plan.target.input();
    let queries = dataset::load(&plan.split.query, size, plan.target.resizing())?;
    let (query, gallery) = (&plan.split.query, &plan.split.gallery);
    let system = System::new(plan.target, plan.metric, query, gallery, &device, progress)?;
    let clean_embeddings = system.embed(&queries)?;

    let (mut uaa_gan, training) = prepare_generator(&plan, &scene, out, progress)?;
    let mut attacks: Vec<(Box<dyn Attack>, Option<f64>)> = vec![(Box::new(Unchanged), None)];
    let train_seconds = training.as_ref().and_then(|t| t.log.last()).map(|entry| entry.seconds);
    for choice in &plan.attacks {
        match choice.build() {
            Some(attack) => attacks.push((attack, None)),
            None => attacks
                .extend(uaa_gan.take().map(|attack| (Box::new(attack) as Box<dyn Attack>, train_seconds))),
        }
    }

    let mut measured = Vec::new();
    for (attack, train_seconds) in attacks {
        let crafted = craft(attack.as_ref(), &queries, &scene, progress)
            .map_err(|e| AuditError::Attack(attack.name(), e))?;
        let images = save_and_read_back(&crafted, &plan.split.query, &attack.name(), size, out)?;
        let (evaluation, embeddings) = system.search(&images)?;
        let row = row(attack.as_ref(), &evaluation, &crafted, train_seconds, &queries, &images)?;
        let mean_cosine = mean_cosine(&clean_embeddings, &embeddings);
        let match_distances =
            evaluation.per_query.iter().flat_map(|q| q.match_distances.iter().copied()).collect();
        measured.push(Measured {
            row: AttackRow { mean_cosine, ..row },
            images,
            embeddings,
            match_distances,
        });
    }
    evidence::fill_histograms(&mut measured);
    let training_happened = training.is_some();
    let examples = evidence::examples(&plan, &queries, &system, &clean_embeddings, &measured)?;

    let rows: Vec<AttackRow> = measured.into_iter().map(|m| m.row).collect();
    let clean = rows.first().map_or_else(Scores::default, |row| row.scores.clone());
    Ok(Audit {
        schema: SCHEMA.into(),
        verdict: verdict(&clean, &rows, plan.epsilon.in_255(), plan.quick),
        quick: plan.quick,
        target: TargetFacts {
            name: plan.target.name().into(),
            fingerprint: plan.target.fingerprint().into(),
            input: size,
            dim: plan.target.dim(),
            preprocess: plan.preprocess.clone(),
            verified: plan.verified.clone(),
        },
        data: data::facts(plan.split, &queries, &system.gallery_hash, training.is_some()),
        budget: Budget { norm: "linf".into(), epsilon_255: plan.epsilon.in_255() },
        metric: plan.metric.to_string(),
        seed: plan.seed.0,
        threads: plan.threads,
        clean,
        attacks: rows,
        training,
        examples,
        run: RunFacts {
            version: env!("CARGO_PKG_VERSION").into(),
            command: plan.command.clone(),
            started: humantime::format_rfc3339_seconds(started.0).to_string(),
            seconds: started.1.elapsed().as_secs_f64(),
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            backend: "burn 0.22 flex (CPU)".into(),
            files: data::hashes(out, training_happened),
        },
        not_tested: data::not_tested(&plan),
    })
}

/// The row `none`: the queries as they are, through the same path as every attack.
struct Unchanged;

impl Attack for Unchanged {
    fn name(&self) -> String {
        "none".into()
    }

    fn label(&self) -> String {
        "No attack".into()
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!({})
    }

    fn propose(
        &self,
        clean: &ImageBatch,
        _first: usize,
        scene: &Scene<'_>,
    ) -> Result<burn::tensor::Tensor<4>, AttackError> {
        Ok(clean.to_tensor(&scene.device))
    }
}

/// The generator of the plan, or one trained now and stored in `out`; nothing where UAA-GAN is not asked for.
fn prepare_generator(
    plan: &AuditPlan<'_>,
    scene: &Scene<'_>,
    out: &OutputDir,
    progress: &dyn Progress,
) -> Result<(Option<UaaGan>, Option<Training>), AuditError> {
    if !plan.attacks.contains(&AttackChoice::UaaGan) {
        return Ok((None, None));
    }
    if let Some((facts, generator)) = &plan.generator {
        let attack = UaaGan { generator: generator.clone(), config: facts.config.clone() };
        return Ok((Some(attack), None));
    }
    let images = dataset::load(&plan.split.train, plan.target.input(), plan.target.resizing())?;
    let trained = uaa_gan::train(&plan.uaa_gan, &images, scene, progress)?;
    write_generator(&trained, &plan.uaa_gan, scene, out)?;
    let training = Training {
        steps: plan.uaa_gan.training.steps,
        batch: plan.uaa_gan.training.batch,
        generator_parameters: trained.generator.num_params(),
        log: trained.log,
    };
    Ok((Some(UaaGan { generator: trained.generator, config: (*plan.uaa_gan).clone() }), Some(training)))
}

/// Writes `generator.safetensors`, `generator.toml` and `training.jsonl` into `out`.
pub fn write_generator(
    trained: &Trained,
    config: &CheckedConfig,
    scene: &Scene<'_>,
    out: &OutputDir,
) -> Result<(), AuditError> {
    let facts = GeneratorFile {
        target: scene.target.fingerprint().into(),
        target_name: scene.target.name().into(),
        input: scene.target.input(),
        epsilon_255: scene.epsilon,
        metric: scene.metric,
        seed: scene.seed.0,
        config: (**config).clone(),
    };
    out.write("generator.safetensors", &facts.encode(&trained.generator)?)?;
    out.write("generator.toml", config.to_toml().map_err(TrainError::from)?.as_bytes())?;
    let lines: Vec<String> =
        trained.log.iter().map(|entry| serde_json::json!(entry).to_string() + "\n").collect();
    out.write("training.jsonl", lines.concat().as_bytes())?;
    Ok(())
}

/// Every headline number is measured on what a file holds, not on what was meant.
fn save_and_read_back(
    crafted: &Crafted,
    items: &[Item],
    attack: &str,
    size: [usize; 3],
    out: &OutputDir,
) -> Result<ImageBatch, AuditError> {
    let mut saved = Vec::with_capacity(items.len());
    for (i, name) in dataset::png_names(items)?.into_iter().enumerate() {
        let path = out.file(&format!("adversarial/{attack}/{name}"))?;
        write_png(&path, &crafted.images, i)?;
        saved.push(Item { source: Source::File(path), ..items[i].clone() });
    }
    // They are of the target's size already, and are taken as they are.
    Ok(dataset::load(&saved, size, Resizing::default())?)
}

fn row(
    attack: &dyn Attack,
    evaluation: &Evaluation,
    crafted: &Crafted,
    train_seconds: Option<f64>,
    clean: &ImageBatch,
    images: &ImageBatch,
) -> Result<AttackRow, AuditError> {
    let quality = quality::measure(clean, images)?;
    Ok(AttackRow {
        name: attack.name(),
        label: attack.label(),
        scores: evaluation.scores.clone(),
        linf_255: quality.linf_255,
        l2: quality.l2,
        psnr_db: quality.psnr_db,
        ssim: quality.ssim,
        ms_per_image: 1e3 * crafted.seconds / images.count() as f64,
        train_seconds,
        mean_cosine: 0.0,
        config: attack.config(),
        distances: outcome::Histogram::default(),
        first_match: evaluation.per_query.iter().map(|q| q.rank_of_first_match()).collect(),
    })
}

fn mean_cosine(a: &Embeddings, b: &Embeddings) -> f64 {
    let (a, b) = (a.normalised(), b.normalised());
    let dots = a.values().iter().zip(b.values()).map(|(x, y)| f64::from(x * y)).sum::<f64>();
    dots / a.count() as f64
}
