//! The main job: every attack at one budget against one target, measured on the files that were written.

mod data;
mod evidence;
pub(crate) mod number;
pub mod outcome;
pub(crate) mod rows;
mod system;
mod verdict;
mod worst_case;

use std::time::{Instant, SystemTime};

use burn::module::Module;
use thiserror::Error;

use crate::attack::uaa_gan::{
    self, CheckedConfig, GeneratorAttack, GeneratorFile, GeneratorFileError, TrainError, Trained,
};
use crate::attack::{Attack, AttackChoice, AttackError, Crafted, Epsilon, Knowledge, Scene, craft};
use crate::dataset::{self, DatasetError, Item, Source, Split};
use crate::embedder::Embedder;
use crate::embedder::EmbedderError;
use crate::embedder::onnx::Verification;
use crate::embedding::{Embeddings, Metric};
use crate::image::{ImageBatch, ImageWriteError, Resizing, write_png};
use crate::quality::{self, QualityError};
use crate::retrieval::RetrievalError;
use crate::run::{OutputDir, Progress, Seed, WriteError};

pub use outcome::Audit;
pub use system::System;
pub use verdict::{Level, verdict};
pub use worst_case::worst_case;

use outcome::{AttackRow, Budget, RunFacts, SCHEMA, Scores, TargetFacts, TrainedAgainst, Training};

/// What to audit, and how.
pub struct AuditPlan<'a> {
    /// The network under attack.
    pub target: &'a dyn Embedder,
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
    /// The generators of `uaa-gan` and `guided-gan`, where [`Self::attacks`] names them, at most one of each.
    pub generators: Vec<GeneratorSource>,
    /// The run's randomness.
    pub seed: Seed,
    /// Threads that compute, for the record.
    pub threads: usize,
    /// Whether this is the shortened run for trying out.
    pub quick: bool,
    /// The command that repeats this run, for the record.
    pub command: String,
}

/// Where a generator comes from. Its configuration decides which attack it is.
pub enum GeneratorSource {
    /// It is trained in this run.
    Train(Box<CheckedConfig>),
    /// It was trained before.
    Given {
        /// What it was trained for.
        facts: Box<GeneratorFile>,
        /// The generator, without automatic differentiation.
        generator: Box<uaa_gan::Generator>,
        /// How long that took, where it is known.
        train_seconds: Option<f64>,
    },
}

impl GeneratorSource {
    /// Which attack the generator is.
    pub fn attack(&self) -> AttackChoice {
        match self {
            Self::Train(config) => config.attack(),
            Self::Given { facts, .. } => facts.config.attack(),
        }
    }
}

/// Why an audit could not be finished.
#[derive(Debug, Error)]
pub enum AuditError {
    /// Images could not be read.
    #[error("read the images")]
    Dataset(#[from] DatasetError),
    /// The target failed.
    #[error("run target `{0}`")]
    Embedder(String, #[source] EmbedderError),
    /// A generator could not be trained.
    #[error("train the generator")]
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

/// An attack to run, with what the report says of its training.
struct Planned {
    attack: Box<dyn Attack>,
    trained_against: Option<TrainedAgainst>,
    train_seconds: Option<f64>,
}

impl Planned {
    fn untrained(attack: Box<dyn Attack>) -> Self {
        Self { attack, trained_against: None, train_seconds: None }
    }
}

/// What an attack leaves besides the numbers of its row.
struct Evidence {
    images: ImageBatch,
    embeddings: Embeddings,
    match_distances: Vec<f32>,
}

/// Runs the audit and writes into `out`: `adversarial/ATTACK/NAME.png` for every query and the files of
/// [`write_generator`] for every generator that was trained. The report is the caller's to write from the value.
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

    let (mut generators, training) = prepare_generators(&plan, &scene, out, progress)?;
    let mut attacks = vec![Planned::untrained(Box::new(Unchanged))];
    for choice in &plan.attacks {
        match choice.build() {
            Some(attack) => attacks.push(Planned::untrained(attack)),
            None => attacks.extend(generators.extract_if(.., |g| g.attack.name() == choice.to_string())),
        }
    }

    let (mut rows, mut evidence) = (Vec::new(), Vec::new());
    for planned in attacks {
        let attack = planned.attack.as_ref();
        let crafted =
            craft(attack, &queries, &scene, progress).map_err(|e| AuditError::Attack(attack.name(), e))?;
        let images = save_and_read_back(&crafted, &plan.split.query, &attack.name(), size, out)?;
        let (evaluation, embeddings) = system.search(&images)?;
        let quality = quality::measure(&queries, &images)?;
        rows.push(AttackRow {
            name: attack.name(),
            label: attack.label(),
            knowledge: attack.knowledge(),
            epsilon_255: scene.budget(attack).in_255(),
            trained_against: planned.trained_against,
            scores: evaluation.scores.clone(),
            linf_255: quality.linf_255,
            l2: quality.l2,
            psnr_db: quality.psnr_db,
            ssim: quality.ssim,
            ms_per_image: 1e3 * crafted.seconds / images.count() as f64,
            train_seconds: planned.train_seconds,
            mean_cosine: mean_cosine(&clean_embeddings, &embeddings),
            config: attack.config(),
            distances: outcome::Histogram::default(),
            first_match: evaluation.per_query.iter().map(|q| q.rank_of_first_match()).collect(),
            average_precision: evaluation.per_query.iter().map(|q| q.average_precision).collect(),
        });
        let match_distances =
            evaluation.per_query.iter().flat_map(|q| q.match_distances.iter().copied()).collect();
        evidence.push(Evidence { images, embeddings, match_distances });
    }
    evidence::fill_histograms(&mut rows, &evidence);
    let examples = evidence::examples(&plan, &queries, &system, &clean_embeddings, &rows, &evidence)?;

    let clean = rows.first().map_or_else(Scores::default, |row| row.scores.clone());
    let worst_case = worst_case(&rows);
    Ok(Audit {
        schema: SCHEMA.into(),
        verdict: verdict(&clean, &rows, worst_case.as_ref(), plan.epsilon.in_255(), plan.quick),
        quick: plan.quick,
        target: TargetFacts {
            name: plan.target.name().into(),
            fingerprint: plan.target.fingerprint().into(),
            input: size,
            dim: plan.target.dim(),
            preprocess: plan.preprocess.clone(),
            verified: plan.verified.clone(),
        },
        data: data::facts(plan.split, &queries, &system.gallery_hash, !training.is_empty()),
        budget: Budget { norm: "linf".into(), epsilon_255: plan.epsilon.in_255() },
        metric: plan.metric.to_string(),
        seed: plan.seed.0,
        threads: plan.threads,
        clean,
        attacks: rows,
        worst_case,
        examples,
        run: RunFacts {
            version: env!("CARGO_PKG_VERSION").into(),
            command: plan.command.clone(),
            started: humantime::format_rfc3339_seconds(started.0).to_string(),
            seconds: started.1.elapsed().as_secs_f64(),
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            backend: "burn 0.22 flex (CPU)".into(),
            files: data::hashes(out, &training),
        },
        training,
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

    fn knowledge(&self) -> Knowledge {
        Knowledge::IMAGE
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

/// The generators of the plan, those to train now trained and stored in `out`.
fn prepare_generators(
    plan: &AuditPlan<'_>,
    scene: &Scene<'_>,
    out: &OutputDir,
    progress: &dyn Progress,
) -> Result<(Vec<Planned>, Vec<Training>), AuditError> {
    let (mut generators, mut training) = (Vec::new(), Vec::new());
    let mut images = None;
    for source in plan.generators.iter().filter(|source| plan.attacks.contains(&source.attack())) {
        let (attack, trained_against, train_seconds) = match source {
            GeneratorSource::Given { facts, generator, train_seconds } => {
                let attack =
                    GeneratorAttack { generator: (**generator).clone(), config: facts.config.clone() };
                let same = facts.target == plan.target.fingerprint();
                let against = if same { TrainedAgainst::Target } else { TrainedAgainst::AnotherNetwork };
                (attack, against, *train_seconds)
            }
            GeneratorSource::Train(config) => {
                let images = match &images {
                    Some(images) => images,
                    None => {
                        let size = plan.target.input();
                        images.insert(dataset::load(&plan.split.train, size, plan.target.resizing())?)
                    }
                };
                let trained = uaa_gan::train(config, images, scene, progress)?;
                write_generator(&trained, config, scene, out)?;
                training.push(Training {
                    attack: config.attack().to_string(),
                    steps: config.training.steps,
                    batch: config.training.batch,
                    generator_parameters: trained.generator.num_params(),
                    warnings: trained.warnings,
                    log: trained.log,
                });
                let attack = GeneratorAttack { generator: trained.generator, config: (***config).clone() };
                (attack, TrainedAgainst::Target, Some(trained.seconds))
            }
        };
        generators.push(Planned {
            attack: Box::new(attack),
            trained_against: Some(trained_against),
            train_seconds,
        });
    }
    Ok((generators, training))
}

/// The names of the files that a generator of `attack` is stored in: weights, configuration, log.
pub fn generator_files(attack: AttackChoice) -> [&'static str; 3] {
    match attack {
        AttackChoice::GuidedGan => {
            ["guided-generator.safetensors", "guided-generator.toml", "guided-training.jsonl"]
        }
        _ => ["generator.safetensors", "generator.toml", "training.jsonl"],
    }
}

/// Writes the [`generator_files`] of `trained` into `out`.
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
    let [weights, settings, log] = generator_files(config.attack());
    out.write(weights, &facts.encode(&trained.generator)?)?;
    out.write(settings, config.to_toml().map_err(TrainError::from)?.as_bytes())?;
    let lines: Vec<String> =
        trained.log.iter().map(|entry| serde_json::json!(entry).to_string() + "\n").collect();
    out.write(log, lines.concat().as_bytes())?;
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

fn mean_cosine(a: &Embeddings, b: &Embeddings) -> f64 {
    let (a, b) = (a.normalised(), b.normalised());
    let dots = a.values().iter().zip(b.values()).map(|(x, y)| f64::from(x * y)).sum::<f64>();
    dots / a.count() as f64
}
